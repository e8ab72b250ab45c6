"""Measurements that several checks share."""

import logging
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from io import StringIO
from typing import Any

import torch
from torch import Tensor, nn

from ris_diag.case import Batch
from ris_diag.context import Subject
from ris_diag.errors import CaseError
from ris_diag.loop import as_losses
from ris_diag.observer import Served, observe
from ris_diag.places import where
from ris_diag.plain import PlainError, compared, plain_error
from ris_diag.plan import Epoch, Fit, Losses, Plan, Progress
from ris_diag.restored import own_weights_loaded
from ris_diag.trace import Trace

LITMUS_STEPS = 5
# A run of 25 epochs has a warm-up of 5: five epochs of one batch walk beta from start to final.
LITMUS_EPOCHS = 25
LITMUS_BATCH = 16
FIT_EPOCHS = 4
FIT_BATCHES = 3
FIT_BATCH = 8
NUDGE = 0.02
ALIKE = 1e-5  # of the largest weight: equal units are summed in different orders


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A short training of the author's own loop, watched.

    Attributes:
        roots: the modules that were trained: the case's model, or those that a script called.
        before, after: the model's numbers in front of the training and behind it, by name; none of
            a script.
        ties, alike: of the model at the end, see `ties` and `alike`.
        steps: (epoch, losses) of every training step, detached.
        planned: optimiser steps that the plan asks for.
        log, printed: what the loop logged and printed.
        restored: what was loaded from itself, see `own_weights_loaded`.
    """

    roots: list[nn.Module]
    trace: Trace
    before: Mapping[str, Tensor] = field(default_factory=dict)
    after: Mapping[str, Tensor] = field(default_factory=dict)
    ties: set[frozenset[str]]
    alike: set[str]
    steps: list["Step"]
    epochs: list[Epoch]
    planned: int
    log: list[str]
    printed: str
    restored: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One training step as the loop shows it.

    Attributes:
        weights: effective weight of each term, d total / d term; None where no graph leads there.
        beta: effective blend weight, measured from R_blend, R_pred and R_samp; None without them.
    """

    epoch: int
    total: float
    weights: Mapping[str, float | None]
    beta: float | None


def ties(model: nn.Module) -> set[frozenset[str]]:
    """Groups of names that are one parameter."""
    by_tensor: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        by_tensor.setdefault(id(parameter), set()).add(name)
    return {frozenset(names) for names in by_tensor.values() if len(names) > 1}


def numbers_of(model: nn.Module) -> dict[str, Tensor]:
    """Copies of a model's parameters and buffers."""
    held = [*model.named_parameters(), *model.named_buffers()]
    return {name: value.detach().clone() for name, value in held}


def alike(model: nn.Module) -> set[str]:
    """Names of trainable weight matrices of which all rows are equal, up to rounding."""
    return {
        name
        for name, p in model.named_parameters()
        if p.requires_grad
        and p.ndim > 1
        and len(p) > 1
        and float((p.detach() - p.detach()[:1]).abs().max())
        <= ALIKE * float(p.detach().abs().max())
    }


def effective_weights(losses: Losses) -> dict[str, float | None]:
    """Slope d total / d term of every term: the weight in effect, whatever was declared."""
    weights: dict[str, float | None] = {}
    for name, term in losses.terms.items():
        slope = None
        if term.requires_grad and losses.total.requires_grad:
            (slope,) = torch.autograd.grad(
                losses.total, [term], retain_graph=True, allow_unused=True
            )
        weights[name] = None if slope is None else float(slope)
    return weights


def effective_beta(losses: Losses, R_samp: Tensor) -> float | None:
    """Least-squares beta in `R_blend = R_pred + beta (R_samp - R_pred)`; None if shapes differ."""
    if losses.prediction is None or losses.blended is None:
        return None
    if losses.prediction.shape != R_samp.shape or losses.blended.shape != R_samp.shape:
        return None
    prediction = losses.prediction.detach()
    direction = R_samp - prediction
    shift = losses.blended.detach() - prediction
    energy = direction.abs().double().square().sum()
    return float((direction.conj() * shift).real.double().sum() / energy)


def run_fit(
    subject: Subject,
    fit: Fit,
    model: nn.Module,
    plan: Plan,
    *,
    stop_after: int | None = None,
    planned: int,
) -> Fitted:
    """Run a loop under the observer; its log and prints are kept from the screen."""
    steps: list[Step] = []
    place = where(fit)

    def on_step(epoch: int, shown: Any) -> None:
        losses = as_losses(shown, f"plan.on_step in {place}")
        _require_gradient(losses.total, model, place)
        plan.on_step(epoch, losses)
        steps.append(
            Step(
                epoch=epoch,
                total=float(losses.total.detach()),
                weights=effective_weights(losses),
                beta=_beta_of_step(subject, losses, plan),
            )
        )

    watched = replace(plan, on_step=on_step)
    before = numbers_of(model)
    epochs: list[Epoch] = []
    with captured_output() as (log, printed), observe(model, stop_after=stop_after) as trace:
        served = replace(
            watched,
            train=Served(plan.train, trace, "train"),
            validation=Served(plan.validation, trace, "validation"),
        )
        epochs = _epochs(fit(model, served), place)
    return Fitted(
        roots=[model],
        trace=trace,
        before=before,
        after=numbers_of(model),
        ties=ties(model),
        alike=alike(model),
        steps=steps,
        epochs=epochs,
        planned=planned,
        log=log,
        printed=printed.getvalue(),
    )


def _epochs(reported: Any, place: str) -> list[Epoch]:
    """What a loop returned.

    Raises:
        CaseError: not one `Epoch` an epoch.
    """
    if isinstance(reported, Iterable):
        epochs = list(reported)
        if all(isinstance(epoch, Epoch) for epoch in epochs):
            return epochs
    raise CaseError(
        f"the loop ({place}) returned {reported!r:.60}: expected a list of "
        "ris_diag.Epoch(train=...), one an epoch"
    )


def _require_gradient(total: Tensor, model: nn.Module, place: str) -> None:
    """Say why `backward()` is about to fail, in front of torch's own words for it."""
    if total.requires_grad:
        return
    parameters = list(model.parameters())
    if not parameters:
        reason = "the model has no parameters"
    elif not any(p.requires_grad for p in parameters):
        reason = f"all {len(parameters)} parameters are frozen (requires_grad is False)"
    else:
        reason = (
            "the graph is cut between model and loss: look for detach(), .data, .item(), .numpy() "
            "or no_grad()"
        )
    raise CaseError(
        f"the training loss of {place} requires no gradient: {reason}",
        sign="loss-without-gradient",
    )


def _beta_of_step(subject: Subject, losses: Losses, plan: Plan) -> float | None:
    """beta, where the plan has one batch, once or several times over (R_samp is known)."""
    if not isinstance(plan.train, list) or any(b is not plan.train[0] for b in plan.train):
        return None
    if not subject.case.offers("covariance.sample"):
        return None
    return effective_beta(losses, subject.covariance.sample(plan.train[0]))


@contextmanager
def captured_output() -> Iterator[tuple[list[str], StringIO]]:
    """Messages logged from INFO upwards and text printed, kept from handlers and screen."""
    messages: list[str] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    root = logging.getLogger()
    handlers, level, disabled = root.handlers[:], root.level, root.manager.disable
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.disable(logging.NOTSET)
    printed = StringIO()
    try:
        with redirect_stdout(printed):
            yield messages, printed
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.disable(disabled)


@dataclass(frozen=True, kw_only=True)
class Litmus:
    """Five steps of the author's loop on one frozen batch.

    Attributes:
        equal_beta: total loss at the last step's progress, (first weights, last weights).
        prediction: NMSE(R_pred), (first weights, last weights); None where the case
            has no covariance or no distance.
        plain: error of the prediction by `plain_error`; None where it can't be said.
    """

    fitted: Fitted
    equal_beta: tuple[float, float]
    prediction: tuple[float, float] | None
    plain: PlainError | None = None


def litmus(subject: Subject) -> Litmus:
    """Measured once for all checks that read it."""
    return subject.once("litmus", _run_litmus)


def _run_litmus(subject: Subject) -> Litmus:
    model = subject.model()
    batch = subject.batch("train", LITMUS_BATCH)
    before = judged_at_equal_beta(subject, model, batch)
    plain_before = plain_error(subject, model, batch)
    plan = Plan(epochs=LITMUS_EPOCHS, train=[batch] * accumulation(subject))
    fitted = run_fit(
        subject, subject.fit, model, plan, stop_after=LITMUS_STEPS, planned=LITMUS_STEPS
    )
    after = judged_at_equal_beta(subject, model, batch)
    prediction = None
    if before[1] is not None and after[1] is not None:
        prediction = (before[1], after[1])
    plain = compared(plain_before, plain_error(subject, model, batch))
    return Litmus(
        fitted=fitted, equal_beta=(before[0], after[0]), prediction=prediction, plain=plain
    )


def judged_at_equal_beta(
    subject: Subject, model: nn.Module, batch: Batch
) -> tuple[float, float | None]:
    """(total loss at the beta of the last litmus step, NMSE(R_pred)) in eval mode."""
    model.eval()
    progress = Progress(epoch=LITMUS_STEPS, epochs=LITMUS_EPOCHS)
    # Not under no_grad: a loss may need derivatives of its own.
    total = float(subject.loss(model, batch, progress).total.detach())
    prediction = None
    if all(map(subject.case.offers, ("distance", "covariance.predict", "covariance.truth"))):
        with torch.no_grad():
            prediction = mean_distance(subject, subject.covariance.predict(model, batch), batch)
    model.train()
    return total, prediction


def mean_distance(subject: Subject, estimate: Tensor, batch: Batch) -> float:
    """Mean distance of an estimate from the truth of a batch."""
    return float(subject.distance(estimate, subject.covariance.truth(batch)).mean())


def length_of(loader: Iterable[Batch]) -> int:
    """Number of batches; counts them where the loader has no len()."""
    return len(loader) if isinstance(loader, Sized) else sum(1 for _ in loader)


def trace_n(R: Tensor) -> Tensor:
    """Scaled to trace N: complex [B, N, N]."""
    trace = R.diagonal(dim1=-2, dim2=-1).real.sum(-1)
    return R * (R.shape[-1] / trace)[..., None, None]


def mean_nmse(subject: Subject, model: nn.Module, batches: Iterable[Batch]) -> float:
    """Mean NMSE(R_pred), scaled to trace N, in eval mode."""
    model.eval()
    with torch.no_grad():
        values = [
            mean_distance(subject, trace_n(subject.covariance.predict(model, batch)), batch)
            for batch in batches
        ]
    return statistics.fmean(values)


def short_fit(subject: Subject, path: str | None = None) -> Fitted:
    """A few epochs of a few batches through one path of the loop, measured once."""

    def measure(subject: Subject) -> Fitted:
        fit = subject.fit if path is None else subject.case.paths[path]
        count = FIT_BATCHES * accumulation(subject)
        batches = [subject.batch("train", FIT_BATCH, offset=k + 1) for k in range(count)]
        validation = [subject.batch("validation", FIT_BATCH)]
        plan = Plan(epochs=FIT_EPOCHS, train=batches, validation=validation)
        with own_weights_loaded() as restored:
            fitted = run_fit(subject, fit, subject.model(), plan, planned=FIT_EPOCHS * count)
        return replace(fitted, restored=restored)

    return subject.once(f"short_fit {path}", measure)


def accumulation(subject: Subject) -> int:
    """Declared backward passes for one optimiser step."""
    declared = subject.case.declared
    return 1 if declared is None else declared.accumulation


def nudged_model(subject: Subject) -> nn.Module:
    """A fresh model with a little noise on every weight.

    A layer that starts at zero lets no gradient through to what is in front of it; that is
    healthy, and gone after one step. The noise stands for that step.
    """
    model = subject.model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(NUDGE * torch.randn_like(parameter))
    return model


def shake(model: nn.Module, size: float) -> None:
    """Noise on every weight, `size` times the spread of its tensor, in place."""
    with torch.no_grad():
        for parameter in model.parameters():
            spread = parameter.std(correction=0) + 0.1
            parameter.add_(size * spread * torch.randn_like(parameter))


def gradient_norms(model: nn.Module, loss: Tensor) -> dict[str, float]:
    """Norm of the loss's gradient for every trainable parameter; 0 where it doesn't arrive."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not loss.requires_grad or not named:
        return dict.fromkeys(named, 0.0)
    gradients = torch.autograd.grad(
        loss, list(named.values()), retain_graph=True, allow_unused=True
    )
    return {
        name: 0.0 if gradient is None else float(gradient.norm())
        for name, gradient in zip(named, gradients, strict=True)
    }


def listed(names: list[str], shown: int = 3) -> str:
    """`a, b, c and 4 more`."""
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Mean and its standard error."""
    return statistics.fmean(values), statistics.stdev(values) / len(values) ** 0.5
