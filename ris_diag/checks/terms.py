"""The terms of the loss: they make up the total, respond, and stay finite. B2."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ris_diag.answers import CONFIDENT
from ris_diag.check import Threshold, check
from ris_diag.context import Context, Subject
from ris_diag.followed import Followed
from ris_diag.graph import leaves, tensors_in
from ris_diag.measure import LITMUS_EPOCHS, effective_weights, listed, shake
from ris_diag.oracle import SIZE, Losing, Unreachable, changed, numbers_in
from ris_diag.perfect import perfect_answers
from ris_diag.places import where
from ris_diag.plan import Losses, Progress

NOISE = (0.02, 0.1, 0.3, 1.0)  # of the weights' own spread
DRAWS = 3
ON_THE_WAY = 0.2  # of the untrained loss
CONSTANT = 1e-3  # of the rows' norms: a network that can't give zero


def _at_other_weights(subject: Subject) -> list[list[Losses]]:
    """The loss at weights with more and more noise, at the first and at the last progress."""
    model, batch = subject.model().train(), subject.batch("train", SIZE)
    seen = []
    for size in NOISE:
        shake(model, size)
        with subject.seeded("terms"):
            seen.append(
                [
                    subject.loss(model, batch, Progress(epoch=epoch, epochs=LITMUS_EPOCHS))
                    for epoch in (1, LITMUS_EPOCHS)
                ]
            )
    return seen


@check(
    "G009",
    "total-is-its-terms",
    title="The total is made of its terms alone, and every term responds",
    what="Measures the slope of the total with respect to each term at four sets of weights: the "
    "total minus slope times term is what remains if all weights are 0. It may hold a penalty of "
    "the weights, but nothing that follows the network's output. Looks for terms that have "
    "one value whatever the weights.",
    why="A constant in the total hides how much there is left to gain, and a term that was "
    "computed from the labels alone teaches nothing.",
    sources=("B2",),
    signs=("total-has-an-offset", "constant-term"),
    needs=("model", "batch", "loss"),
    thresholds=(
        Threshold(
            name="max_offset",
            value=1e-3,
            unit="of the total",
            why="sums of float32 round at 1e-6",
        ),
    ),
)
def total_is_its_terms(context: Context) -> None:
    subject = context.subject
    seen = _at_other_weights(subject)
    first = [losses for losses, _ in seen]
    if not first[0].terms:
        context.say("not judged: the loss shows no terms")
        return
    still = [name for name in first[0].terms if _constant([t for pair in seen for t in pair], name)]
    context.measure(constant=still)
    if still:
        values = ", ".join(f"{name} {float(first[0].terms[name].detach()):.4g}" for name in still)
        context.problem(
            f"{len(still)} of {len(first[0].terms)} terms have one value whatever the weights, and "
            f"no gradient ({values}; limit 0)",
            sign="constant-term",
            place=_maker(subject, still[0]),
            next_step=f"compute {listed(still)} from the network's output",
        )
    _offset(context, first)


def _constant(seen: list[Losses], name: str) -> bool:
    """Whether a term is one number that isn't 0, without a graph, at all weights and times."""
    terms = [losses.terms.get(name) for losses in seen]
    if any(term is None or term.requires_grad for term in terms):
        return False
    values = {float(term) for term in terms if term is not None}
    return len(values) == 1 and values != {0.0}


def _offset(context: Context, seen: list[Losses]) -> None:
    slopes = [effective_weights(losses) for losses in seen]
    known = [name for name in seen[0].terms if slopes[0].get(name) is not None]
    if not known:
        context.say("not judged: the total isn't computed from the terms that are shown")
        return
    rests, totals = [], []
    for losses, weights in zip(seen, slopes, strict=True):
        parts = sum((weights.get(n) or 0.0) * t.detach().double() for n, t in losses.terms.items())
        totals.append(float(losses.total.detach().double()))
        rests.append(totals[-1] - float(parts))
    limit = context.limit("max_offset")
    size = max(map(abs, totals))
    linear = all(
        math.isclose(weights.get(name) or 0.0, slopes[0][name] or 0.0, rel_tol=1e-4, abs_tol=1e-9)
        for weights in slopes
        for name in known
    )
    context.measure(rests=rests, totals=totals, slopes=slopes[0])
    if not all(map(math.isfinite, (*rests, *totals))) or not linear:
        context.say("not judged: the total is no fixed weighted sum of its terms")
        return
    share = min(map(abs, rests)) / max(min(map(abs, totals)), 1e-30)
    if share <= limit or max(map(abs, rests)) <= limit * size * 0.1:
        return
    same = max(rests) - min(rests) <= 1e-4 * max(map(abs, rests)) + 1e-6 * size
    stopped = [name for name in seen[0].terms if name not in known and _follows(seen, name, rests)]
    if same and not _open(seen[0]):
        text = f"{rests[0]:.4g}, at any weights: a constant"
    elif stopped:
        slope = rests[0] / float(seen[0].terms[stopped[0]].detach())
        text = f"{rests[0]:.4g}: {slope:.4g} times {stopped[0]}, which enters as a mere number"
    elif (hidden := _hidden(context.subject)) > limit:
        text = (
            f"{listed([f'{rest:.4g}' for rest in rests])} at {len(rests)} sets of weights, which "
            f"follows the network's output by {hidden:.2g} of the total's slope: a term that is "
            "not among those that are shown"
        )
    else:
        context.say("not judged: the total holds something that is not among the terms")
        return
    context.problem(
        f"with all weights of its terms at 0 the total would be {text} (limit {limit:g} of the "
        "total)",
        sign="total-has-an-offset",
        place=_maker(context.subject),
        next_step="add nothing to the total but weight times term, each with its gradient",
    )


def _hidden(subject: Subject) -> float:
    """How much of the slope of the total along the network's output is not that of its terms."""
    model, batch = subject.model(), subject.batch("train", SIZE)
    try:
        losing = Losing.of(subject, model, batch, lambda output: True)
        named, outputs = losing.tensors(*losing.path.outputs)
    except Unreachable:
        return 0.0
    total, terms = named["total"], [value for name, value in named.items() if name != "total"]

    def slopes(value: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
        if not value.requires_grad:
            return [torch.zeros_like(tensor) for tensor in inputs]
        found = torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True)
        pairs = zip(found, inputs, strict=True)
        return [torch.zeros_like(t) if s is None else s for s, t in pairs]

    live = [term for term in terms if term.requires_grad]
    weights = slopes(total, live) if live else []
    rest = slopes(total, outputs)
    size = math.hypot(*(float(s.norm()) for s in rest))
    for weight, term in zip(weights, live, strict=True):
        rest = [s - weight * t for s, t in zip(rest, slopes(term, outputs), strict=True)]
    return math.hypot(*(float(s.norm()) for s in rest)) / size if size else 0.0


def _maker(subject: Subject, term: str | None = None) -> str:
    """Where the total, or a term, is made."""
    model, batch, followed = subject.model().train(), subject.batch("train", SIZE), Followed()
    with followed:
        losses = subject.loss(model, batch, Progress(epoch=1, epochs=LITMUS_EPOCHS))
    value = losses.total if term is None else losses.terms[term]
    return followed.maker(value) or where(subject.case.loss)


def _follows(seen: list[Losses], name: str, rests: list[float]) -> bool:
    """Whether what remains of the total is a multiple of a term that moves."""
    values = [float(losses.terms[name].detach()) for losses in seen]
    if not all(values) or max(values) - min(values) <= 1e-3 * max(map(abs, values)):
        return False
    quotients = [rest / value for rest, value in zip(rests, values, strict=True)]
    return max(quotients) - min(quotients) <= 1e-3 * max(map(abs, quotients))


def _open(losses: Losses) -> bool:
    """Whether the total leads to tensors with a gradient to which no term leads."""
    reached = {id(leaf) for term in losses.terms.values() for leaf in leaves(term)}
    return any(id(leaf) not in reached for leaf in leaves(losses.total))


@check(
    "G010",
    "terms-are-finite",
    title="Each term and its gradient are finite where a training comes by",
    what="Computes the total and each term, and their gradients with respect to the model's "
    "output, for an ordinary output, zero, the same output for every sample and the exact truth; "
    "of covariances for the identity and, where the network can give it, for rank one.",
    why="sqrt has no slope at 0, and inf times 0 is NaN: the run dies in the step in which an "
    "error is exactly 0, and the cause is long gone.",
    sources=("B2",),
    signs=("term-gradient-not-finite",),
    needs=("model", "batch", "loss"),
    thresholds=(
        Threshold(name="max_not_finite", value=0, unit="inputs", why="one NaN spoils all weights"),
    ),
)
def terms_are_finite(context: Context) -> None:
    subject = context.subject
    batch = subject.batch("train", SIZE)
    held = [leaf for leaf in tensors_in(batch) if leaf.is_floating_point() or leaf.is_complex()]
    if not all(bool(leaf.isfinite().all()) for leaf in held) and context.result_of("D001").findings:
        context.say("not judged: the batch holds NaN, see D001")
        return
    model = subject.model()
    try:
        losing = Losing.of(subject, model, batch, lambda output: True)
    except Unreachable as reason:
        context.say(f"not judged: {reason}")
        return
    found: dict[str, list[str]] = {}
    place = ""
    for probe in [
        Probe("an ordinary output", losing, losing.path.outputs),
        *_probes(subject, losing, model),
    ]:
        try:
            off = _not_finite(probe)
        except Unreachable as reason:
            context.say(f"{probe.name}: not judged: {reason}")
        else:
            found.update({probe.name: off} if off else {})
            place = place or (_place(probe, off[0]) if off else "")
    context.measure(not_finite=found)
    if len(found) > context.limit("max_not_finite"):
        context.problem(
            "not finite: "
            + "; ".join(f"with {name} {', '.join(what)}" for name, what in found.items())
            + " (limit 0)",
            place=place or where(subject.case.loss),
            next_step="keep roots, logarithms and quotients away from 0: add inside of the root, "
            "or use torch.where on its input",
        )


@dataclass(frozen=True)
class Probe:
    """Outputs to put in the network's place, one for every call or one for all.

    Attributes:
        may_fail: the value may be undefined there: no network gives exactly this. A slope that is
            missing beside a finite value is still wrong.
    """

    name: str
    losing: Losing
    outputs: list[Any]
    may_fail: bool = False


def _not_finite(probe: Probe) -> list[str]:
    """Values and gradients that are not finite."""
    named, outputs = probe.losing.tensors(*probe.outputs)
    off = []
    for term, value in named.items():
        if not bool(value.detach().isfinite().all()):
            off += [] if probe.may_fail else [f"{term} ({float(value.detach()):g})"]
        elif value.requires_grad:
            slopes = torch.autograd.grad(value, outputs, retain_graph=True, allow_unused=True)
            if any(s is not None and not bool(s.isfinite().all()) for s in slopes):
                off.append(f"the gradient of {term}")
    return off[1:] if len(off) > 1 and "total" in off[0] else off  # a term says more


def _place(probe: Probe, what: str) -> str:
    """Where a value or its slope stops to be finite."""
    followed = Followed()
    with followed:
        named, _ = probe.losing.tensors(*probe.outputs)
    return followed.breaking(next(v for name, v in named.items() if name in what))


def _probes(subject: Subject, losing: Losing, model: nn.Module) -> Iterator[Probe]:
    """Outputs that the network may come by, from what it gives at these and at other weights."""
    outputs = losing.path.outputs
    tensors = [leaf for output in outputs for leaf in numbers_in(output)]
    more = [tensors]
    for _ in range(DRAWS):
        shake(model, 1.0)
        path = Losing.of(subject, model, subject.batch("train", SIZE), lambda output: True).path
        more.append([leaf for output in path.outputs for leaf in numbers_in(output)])
    around = {
        id(tensors[k])
        for k, leaves_ in enumerate(zip(*more, strict=False))
        if _around_zero(leaves_)
    }

    def each(change: Callable[[Tensor], Tensor]) -> list[Any]:
        return [changed(output, change) for output in outputs]

    if around:
        exact = any(bool((leaf == 0).any()) for leaf in tensors)
        zeros = each(lambda t: torch.zeros_like(t) if id(t) in around else t)
        yield Probe("zero output", losing, zeros, may_fail=not exact)
    if all(leaf.ndim and len(leaf) == SIZE for leaf in tensors):
        alike = each(lambda t: t.mean(0, keepdim=True).expand(t.shape))
        yield Probe("the same output for every sample", losing, alike, may_fail=True)
    if any(map(_hermitian, tensors)):
        yield Probe("the identity", losing, each(_identity))
        if any(map(_may_lack_rank, tensors)):
            yield Probe("an output of rank one", losing, each(_rank_one))
    yield from _exact(subject)


def _around_zero(leaves_at: Sequence[Tensor]) -> bool:
    """Whether one output, at several weights, lies around zero and isn't of one norm or trace."""
    if any(leaf.ndim == 0 or leaf.shape != leaves_at[0].shape for leaf in leaves_at):
        return False
    values = torch.cat([leaf.detach() for leaf in leaves_at])
    if not values.is_complex() and not (bool((values > 0).any()) and bool((values < 0).any())):
        return bool((values == 0).any())
    if _hermitian(values):
        traces = values.diagonal(dim1=-2, dim2=-1).sum(-1).abs()
        return bool(traces.std() > CONSTANT * traces.mean())
    rows = torch.linalg.vector_norm(values.reshape(len(values), -1), dim=1)
    return values[0].numel() == 1 or bool(rows.std() > CONSTANT * rows.mean())


def _hermitian(leaf: Tensor) -> bool:
    values = leaf.detach()
    square = values.ndim > 2 and values.shape[-1] == values.shape[-2] > 1
    return square and torch.allclose(values, values.mH, rtol=1e-3, atol=1e-5)


def _identity(leaf: Tensor) -> Tensor:
    if not _hermitian(leaf):
        return leaf
    values = leaf.detach()
    scale = values.diagonal(dim1=-2, dim2=-1).real.mean(-1)[..., None, None]
    return scale * torch.eye(values.shape[-1], dtype=values.dtype, device=values.device)


def _may_lack_rank(leaf: Tensor) -> bool:
    """Whether the network's own matrices are near singular, or not definite at all."""
    if not _hermitian(leaf):
        return False
    eigenvalues = torch.linalg.eigvalsh(leaf.detach())
    return bool((eigenvalues[..., 0] < 1e-6 * eigenvalues[..., -1].abs()).any())


def _rank_one(leaf: Tensor) -> Tensor:
    if not _hermitian(leaf):
        return leaf
    column = leaf.detach()[..., :1]
    outer = column @ column.mH
    traces = [t.diagonal(dim1=-2, dim2=-1).real.sum(-1)[..., None, None] for t in (leaf, outer)]
    scaled: Tensor = outer * (traces[0] / traces[1])
    return scaled.detach()


def _exact(subject: Subject) -> Iterator[Probe]:
    """The exact truth, where the loss falls on the way there."""
    declared = subject.case.declared
    floor = 0.0 if declared is None else declared.floor
    try:
        perfects = perfect_answers(subject)
    except Unreachable:
        return
    for perfect in perfects:
        with suppress(Unreachable):  # a loss that differentiates the output itself
            untrained = abs(perfect.losing(perfect.output)["total"] - floor)
            for answer in perfect.answers:
                near = perfect.loss(changed(answer, _nearly))["total"] - floor
                if perfect.given or near <= ON_THE_WAY * untrained:
                    yield Probe("the exact truth", perfect.losing, [perfect.placed(answer)])
                    break


def _nearly(answer: Tensor) -> Tensor:
    """A step away from a perfect output: less confident, or a little noise."""
    if not answer.is_complex() and bool((answer.abs() == CONFIDENT[0]).all()):
        return answer * (CONFIDENT[1] / CONFIDENT[0])
    return answer + 1e-3 * answer.std(correction=0) * torch.randn_like(answer)
