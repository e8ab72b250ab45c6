"""Every planted fault has an effect: what a case does, observed without any check.

`outcome` runs the parts of a case by a few lines of its own. A fault is real if its outcome
differs from that of the healthy case, which has one and the same outcome in every run.
"""

import contextlib
import io
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.optimizer import register_optimizer_step_post_hook

from ris_diag import Case, Plan, Progress, Training
from ris_diag.covariance import CovarianceParts
from tests.faults.registry import Fault

Outcome = dict[str, Any]
EPOCHS, BATCHES, SIZE, STEPS = 3, 4, 16, 12
TOLERANCE = 1e-5  # of the largest value: sums may round differently
BETAS = (0.0, 0.3, 1.0)


class Ended(BaseException):
    """A script has gone on for long enough."""


def outcome(case: Case) -> Outcome:
    """Name of an observable to a tensor or a text."""
    seen: Outcome = {}
    parts: dict[str, Callable[[Case], Any]] = {
        "model": _model,
        "data": _data,
        "loss": _loss,
        "run": _run,
        "paths": _paths,
        "script": _script,
        "scenes": _scenes,
        "covariance": _covariance,
        "distance": _distance,
    }
    for name, observe in parts.items():
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            _flatten(name, _or_refused(partial(observe, case)), seen)
    if case.restore is not None:
        case.restore()
    return seen


def differences(first: Outcome, second: Outcome) -> list[str]:
    """Names of the observables that differ."""
    names = sorted(first.keys() | second.keys())
    return [n for n in names if not _same(first.get(n), second.get(n))]


@cache
def healthy_outcome(factory: Callable[[], Case]) -> Outcome:
    return outcome(factory())


def effect(fault: Fault) -> list[str]:
    """What differs from the healthy case."""
    assert fault.healthy is not None
    return differences(outcome(fault.plant()), healthy_outcome(fault.healthy))


def has_effect(fault: Fault) -> bool:
    return fault.proof() if fault.proof is not None else bool(effect(fault))


# ---- comparison


def _or_refused(observe: Callable[[], Any]) -> Any:
    try:
        return observe()
    except Exception as error:  # noqa: BLE001  # that it raises is what is observed
        return f"raises {type(error).__name__}"


def _flatten(name: str, value: Any, into: Outcome) -> None:
    if isinstance(value, Tensor):
        into[name] = value.detach().clone()
    elif isinstance(value, dict):
        for key, part in value.items():
            _flatten(f"{name}.{key}", part, into)
    elif isinstance(value, list | tuple):
        into[f"{name}.length"] = str(len(value))
        for number, part in enumerate(value):
            _flatten(f"{name}.{number}", part, into)
    elif isinstance(value, float | int) and not isinstance(value, bool):
        into[name] = torch.tensor(float(value), dtype=torch.float64)
    else:
        into[name] = str(value)


def _same(first: Any, second: Any) -> bool:
    if not (isinstance(first, Tensor) and isinstance(second, Tensor)):
        return type(first) is type(second) and first == second
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    wide = torch.complex128 if first.is_complex() else torch.float64
    first, second = first.to(wide), second.to(wide)
    scale = float(second.abs().nan_to_num(0, 0, 0).max()) if second.numel() else 0.0
    return torch.allclose(first, second, rtol=0, atol=TOLERANCE * scale, equal_nan=True)


# ---- observables


def _model(case: Case) -> Any:
    if case.model is None:
        return None
    model = case.model()
    named = dict(model.named_parameters(remove_duplicate=False))
    shared = {n: sorted(m for m, q in named.items() if q is p) for n, p in named.items()}
    return {
        "weights": dict(model.state_dict()),
        "trainable": {name: p.requires_grad for name, p in named.items()},
        "shared": shared,
    }


def _data(case: Case) -> Any:
    batch, loader = case.batch, case.loader
    splits = ("train", "validation")
    return {
        "batch": {s: _plain(_or_refused(partial(batch, s, 1, SIZE))) for s in splits}
        if batch is not None
        else None,
        "loader": [_plain(served) for served in loader("train", 1)] if loader is not None else None,
        "baselines": {name: float(b(_batch(case))) for name, b in case.baselines.items()},
    }


def _batch(case: Case, split: str = "train", seed: int = 0) -> Any:
    assert case.batch is not None
    return case.batch(split, seed, SIZE)


def _plain(batch: Any) -> Any:
    """A batch as dicts, lists and tensors, named tuples included."""
    if isinstance(batch, dict):
        return {key: _plain(part) for key, part in batch.items()}
    return [_plain(part) for part in batch] if isinstance(batch, list | tuple) else batch


def _total(value: Any) -> Tensor:
    total: Tensor = value if isinstance(value, Tensor) else value.total
    return total


def _loss(case: Case) -> Any:
    """Value and gradient of the first weights; what inference gives, twice and sample by sample."""
    if case.model is None or case.batch is None or case.loss is None:
        return None
    model = case.model().train()
    value = case.loss(model, _batch(case), Progress(epoch=2, epochs=EPOCHS))
    _total(value).backward()  # type: ignore[no-untyped-call]
    terms = {} if isinstance(value, Tensor) else dict(value.terms)
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {"total": _total(value), "terms": terms, "gradients": gradients}


class _Watch:
    """What a run does: calls and modes of modules, steps with their settings, what it says."""

    def __init__(self, limit: int | None = None) -> None:
        self.calls: list[str] = []
        self.steps: list[dict[str, Any]] = []
        self.limit = limit
        self.optimizers: list[Any] = []

    def called(self, module: nn.Module, arguments: Any) -> None:
        mode = "train" if module.training else "eval"
        self.calls.append(f"{type(module).__name__} {mode} {torch.is_grad_enabled()}")

    def stepped(self, optimizer: Any, *_: Any) -> None:
        if all(optimizer is not known for known in self.optimizers):
            self.optimizers.append(optimizer)
        groups = [
            {k: v for k, v in g.items() if k != "params" and not isinstance(v, bool | None)}
            for g in optimizer.param_groups
        ]
        self.steps.append({str(number): group for number, group in enumerate(groups)})
        if self.limit is not None and len(self.steps) >= self.limit:
            raise Ended

    @contextlib.contextmanager
    def __call__(self, model: nn.Module | None) -> Iterator["_Watch"]:
        register: Any = (
            nn.modules.module.register_module_forward_pre_hook
            if model is None
            else model.register_forward_pre_hook
        )
        hooks = [register(self.called), register_optimizer_step_post_hook(self.stepped)]
        printed, logged = io.StringIO(), logging.StreamHandler(io.StringIO())
        root, level = logging.getLogger(), logging.getLogger().level
        root.addHandler(logged)
        root.setLevel(logging.INFO)
        try:
            with contextlib.redirect_stdout(printed), contextlib.suppress(Ended):
                yield self
        finally:
            root.removeHandler(logged)
            root.setLevel(level)
            for hook in hooks:
                hook.remove()
        self.printed, self.logged = printed.getvalue(), logged.stream.getvalue()


def _trained(case: Case, model: nn.Module, plan: Plan) -> list[Any]:
    """The case's loop, or one around its step, or around its loss and optimiser."""
    if case.fit is not None:
        return [[e.train, e.validation] for e in case.fit(model, plan)]
    assert case.optimizer is not None
    optimizer = case.optimizer(model)
    scheduler = None if case.scheduler is None else case.scheduler(optimizer)
    optimizers = optimizer if isinstance(optimizer, list | tuple) else [optimizer]
    training = Training(model=model, optimizer=optimizer, scheduler=scheduler)
    reported = []
    for epoch in range(1, plan.epochs + 1):
        progress = Progress(epoch=epoch, epochs=plan.epochs)
        model.train()
        for batch in plan.train:
            if case.step is not None:
                reported.append(float(case.step(training, batch, progress)))
                continue
            assert case.loss is not None
            total = _total(case.loss(model, batch, progress))
            for each in optimizers:
                each.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]
            for each in optimizers:
                each.step()
            reported.append(float(total.detach()))
        if scheduler is not None and case.step is None:
            scheduler.step(*([reported[-1]] if isinstance(scheduler, ReduceLROnPlateau) else []))
    return reported


def _run(case: Case, epochs: int = EPOCHS, batches: int = BATCHES) -> Any:
    """A training of twelve steps, and what prediction and metric say before and behind it."""
    if case.model is None or case.batch is None:
        return None
    model = case.model()
    before = _judged(case, model)
    shown: list[Any] = []

    def on_step(epoch: int, losses: Any) -> None:
        shown.append([epoch, _total(losses).detach().clone()])

    plan = Plan(
        epochs=epochs,
        train=[_batch(case, "train", number) for number in range(batches)],
        validation=[_batch(case, "validation", 0)],
        on_step=on_step,
    )
    with _Watch()(model) as watch:
        reported = _or_refused(lambda: _trained(case, model, plan))
    return {
        "reported": reported,
        "shown": shown,
        "calls": watch.calls,
        "steps": watch.steps,
        "printed": watch.printed,
        "logged": watch.logged,
        "weights": dict(model.state_dict()),
        "shared": [n for n, _ in model.named_parameters()],
        "before": before,
        "behind": _judged(case, model),
    }


def _judged(case: Case, model: nn.Module) -> Any:
    """Prediction and metric, and what they leave behind."""
    batch, seen = _batch(case, "validation", 3), {}
    model.eval()
    predict = case.predict
    if predict is not None:
        with torch.no_grad():
            seen["prediction"] = _or_refused(lambda: predict(model, batch))
    metric = case.metric
    if metric is not None:
        seen["metric"] = _or_refused(
            lambda: [torch.as_tensor(metric(model, batch)).item() for _ in range(2)]
        )
        seen["left"] = {
            "weights": dict(model.state_dict()),
            "training": model.training,
            "gradients": [n for n, p in model.named_parameters() if p.grad is not None],
        }
    return seen


def _paths(case: Case) -> Any:
    return {
        name: _run(replace(case, fit=path, predict=None, metric=None), epochs=8, batches=1)
        for name, path in case.paths.items()
        if path is not case.fit
    }


def _script(case: Case) -> Any:
    if case.main is None:
        return None
    with _Watch(STEPS)(None) as watch:
        case.main()
    weights = [g["params"] for o in watch.optimizers for g in o.param_groups]
    return {"calls": watch.calls, "steps": watch.steps, "weights": weights}


def _scenes(case: Case) -> Any:
    """What the covariance parts say of the data, and all that is stored."""
    parts = ("sample", "truth", "snapshots", "sources", "positions")
    given = {name: getattr(case.covariance, name, None) for name in parts}
    splits = ("train", "validation") if case.batch is not None else ()
    return {
        **{
            f"{split} {name}": _or_refused(partial(part, _batch(case, split)))
            for name, part in given.items()
            for split in splits
            if part is not None
        },
        "stored": {
            split: [[name, _plain(piece)] for name, piece in case.stored(split)]
            for split in ("train", "validation")
        }
        if case.stored is not None
        else None,
    }


def _covariance(case: Case) -> Any:
    """Values of the blend, the estimates, the loss; which inadmissible values are refused."""
    if case.covariance is None or case.model is None:
        return None
    parts = CovarianceParts(case.covariance)
    model, batch = case.model().eval(), _batch(case, "validation", 3)
    truth, sample = parts.truth(batch), parts.sample(batch)
    with torch.no_grad():
        prediction = parts.predict(model, batch)
    weights = {"cov": 1.0, "cov_pred": 0.05}

    def loss(beta: float, training: bool, gradient: bool, guess: Tensor = prediction) -> Any:
        criterion = parts.criterion(weights).train(training)
        R_pred = guess.clone().requires_grad_(gradient)
        value = parts.loss(criterion, R_pred, sample, truth, beta)
        if gradient:
            value.total.backward()  # type: ignore[no-untyped-call]
        return {"total": value.total, "terms": dict(value.terms), "gradient": R_pred.grad}

    with torch.no_grad():
        inferred = [parts.infer(model, batch, beta) for beta in BETAS]
    return {
        "prediction": prediction,
        "moved": _moved_prediction(case),
        "inferred": inferred,
        "blend": [parts.blend(prediction, sample, beta) for beta in BETAS],
        "refused": {
            "broadcast": _or_refused(lambda: parts.blend(prediction, sample[:1], 0.3)),
            "weight": [
                str(_or_refused(partial(parts.criterion, {"cov": w, "cov_pred": 0.05})))
                for w in (0.0, -1.0, 100.0, float("nan"))
            ],
            "detached": _or_refused(lambda: loss(0.3, training=True, gradient=False)),
            "validation": _or_refused(lambda: loss(0.3, training=False, gradient=False)),
        },
        "beta": [parts.beta(epoch, 30) for epoch in range(1, 31)],
        "loss": [_or_refused(partial(loss, b, training=True, gradient=True)) for b in BETAS],
        "truth": _or_refused(lambda: loss(0.0, training=True, gradient=True, guess=truth)),
    }


def _moved_prediction(case: Case) -> Any:
    """What `predict` gives for other weights than those that it may have seen first."""
    assert case.model is not None
    assert case.covariance is not None
    model = case.model().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
        return CovarianceParts(case.covariance).predict(model, _batch(case, "validation", 3))


def _distance(case: Case) -> Any:
    """Values and gradients on matrices of several scales and kinds; what becomes of arguments."""
    distance = case.distance
    if distance is None:
        return None

    def value(estimate: Tensor, truth: Tensor) -> Any:
        estimate, given = estimate.clone().requires_grad_(), truth.clone()
        result = distance(estimate, given)
        if result.requires_grad:
            result.sum().backward()  # type: ignore[no-untyped-call]
        return {"value": result, "gradient": estimate.grad, "truth": given}

    seen = {}
    for dtype in (torch.complex64, torch.complex128):
        factor = torch.randn(3, 4, 6, dtype=dtype)
        truth = factor @ factor.mH
        estimate = truth + 0.3 * torch.randn(3, 4, 4, dtype=dtype)
        pairs = {
            "plain": (estimate, truth),
            "small": (1e-9 * estimate, 1e-9 * truth),
            "large": (1e25 * estimate, 1e25 * truth),
            "diagonal": (estimate, torch.diag_embed(truth.diagonal(dim1=1, dim2=2))),
            "near": (truth * (1 + 1e-5), truth),
            "equal": (truth, truth),
            "zero": (torch.zeros_like(truth), truth),
        }
        for name, (a, b) in pairs.items():
            seen[f"{dtype} {name}"] = _or_refused(partial(value, a, b))
    return seen
