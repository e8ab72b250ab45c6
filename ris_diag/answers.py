"""What a network would give if it were perfect, and what a loss may ask for in its place."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

Change = Callable[[Tensor], Tensor]
CONFIDENT = (30.0, 4.0, 2.0)  # logits; a smoothed loss has its minimum at small ones
SMALL = 1e-6


def as_output(truth: Tensor, output: Tensor) -> list[Tensor]:
    """The truth as a network of this output would say it, the most literal first; [] if unknown.

    Args:
        truth: numbers of the output's shape, or numbers of classes.
        output: what the network gives for the same samples.
    """
    if truth.is_complex() and not output.is_complex():
        return []
    numbers = truth.is_floating_point() or truth.is_complex()
    if numbers or truth.dtype == torch.bool or truth.numel() == output.numel():
        if squeezed(truth.shape) != squeezed(output.shape):
            return [] if numbers else _of_classes(truth, output)
        return list(_of_numbers(truth.reshape(output.shape).to(output.dtype), output))
    return _of_classes(truth, output)


def squeezed(shape: torch.Size) -> list[int]:
    """A shape without its axes of length one, the first kept."""
    return [*shape[:1], *(n for n in shape[1:] if n != 1)]


def _of_numbers(truth: Tensor, output: Tensor) -> Iterator[Tensor]:
    yield truth
    if truth.is_complex() or not truth.isfinite().all():
        return
    if bool(((output >= 0) & (output <= 1)).all()):
        return
    if bool(((truth == 0) | (truth == 1)).all()):
        yield from (size * (2 * truth - 1) for size in CONFIDENT)
    if bool((truth >= 0).all()):
        yield from (truth.clamp(min=SMALL).log(), truth.log1p(), truth.sqrt())
        if bool((truth <= 1).all()):
            yield truth.clamp(SMALL, 1 - SMALL).logit()


def _of_classes(labels: Tensor, output: Tensor) -> list[Tensor]:
    axis = class_axis(labels, output)
    if axis is None or output.is_complex():  # scores of classes are real
        return []
    classes = output.shape[axis]
    shape = [n for k, n in enumerate(output.shape) if k != axis % output.ndim]
    chosen = labels.long().reshape(shape)
    if not classes > int(chosen.max()) >= 0:
        return []
    # A negative number, as -100, leaves an entry out.
    right = torch.nn.functional.one_hot(chosen.clamp(min=0), classes).movedim(-1, axis)
    right = right.to(output.dtype)
    sums = output.exp().sum(axis)
    if bool((output >= 0).all()) and torch.allclose(
        output.sum(axis), torch.ones_like(sums), atol=1e-2
    ):
        return [right]
    if bool((output <= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-2):
        return [CONFIDENT[0] * (right - 1)]
    return [*(size * (2 * right - 1) for size in CONFIDENT), right]


def class_axis(labels: Tensor, output: Tensor) -> int | None:
    """The axis of the output along which classes lie: 1 or -1."""
    for axis in (1, -1):
        if output.ndim < 2 or output.shape[axis] < 2:
            continue
        rest = [n for k, n in enumerate(output.shape) if k != axis % output.ndim]
        if squeezed(torch.Size(rest)) == squeezed(labels.shape):
            return axis
    return None


@dataclass(frozen=True, kw_only=True)
class Named:
    """A change of the truth that a loss may ask for by mistake."""

    name: str
    change: Change
    kind: str  # "order" of the samples, "structure" of each, "shift", "scale"


def changes(truth: Tensor, class_at: int | None) -> list[Named]:
    """Those that change this truth.

    Args:
        class_at: axis of the classes, where the truth is a confident choice among them.
    """
    found = {
        "order": _reordered(truth),
        "structure": _structural(truth, class_at),
        "shift": _shifted(truth, class_at),
    }
    if class_at is None:
        found["scale"] = _normalised(truth)
    named = [
        Named(name=name, change=change, kind=kind)
        for kind, of_kind in found.items()
        for name, change in of_kind
    ]
    return [n for n in named if not torch.allclose(n.change(truth), truth, rtol=1e-3)]


def _reordered(truth: Tensor) -> Iterator[tuple[str, Change]]:
    if len(truth) > 1:
        yield "of the sample before it in the batch", lambda t: t.roll(1, 0)
        yield "of the next sample in the batch", lambda t: t.roll(-1, 0)
        yield "in the reverse order of the batch", lambda t: t.flip(0)


def _structural(truth: Tensor, class_at: int | None) -> Iterator[tuple[str, Change]]:
    if class_at is not None:
        yield "of the next class", lambda t: t.roll(1, class_at)
        yield "of the class before", lambda t: t.roll(-1, class_at)
        yield "with the classes in reverse order", lambda t: t.flip(class_at)
        return
    yield "negated", lambda t: -t
    if truth.is_complex():
        yield "conjugated", lambda t: t.conj().resolve_conj()
        yield "reduced to its real part", lambda t: t.real.to(t.dtype)
        yield "reduced to its magnitude", lambda t: t.abs().to(t.dtype)
    if truth.ndim > 2 and truth.shape[-1] == truth.shape[-2]:
        yield "transposed", lambda t: t.mT
        yield "reduced to its diagonal", lambda t: t * torch.eye(t.shape[-1]).to(t)
        yield "reduced to its upper triangle", torch.triu
        yield "reduced to its lower triangle", torch.tril
        yield "without its diagonal", lambda t: t * (1 - torch.eye(t.shape[-1])).to(t)
    if truth.ndim > 1 and truth.shape[-1] > 1:
        yield "in the reverse order of the last axis", lambda t: t.flip(-1)


def _shifted(truth: Tensor, class_at: int | None) -> Iterator[tuple[str, Change]]:
    classes = None if class_at is None else class_at % truth.ndim
    for axis in range(1, truth.ndim):
        if truth.shape[axis] > 1 and axis != classes:
            yield f"shifted by one along axis {axis}", lambda t, axis=axis: t.roll(1, axis)  # type: ignore[misc]
            yield f"shifted by -1 along axis {axis}", lambda t, axis=axis: t.roll(-1, axis)  # type: ignore[misc]


def _normalised(truth: Tensor) -> Iterator[tuple[str, Change]]:
    if truth.ndim > 1 and truth[0].numel() > 1:
        yield "scaled to unit norm, sample by sample", lambda t: t / _over_sample(t.abs() ** 2, 0.5)
        yield (
            "scaled to its largest entry, sample by sample",
            lambda t: t / t.abs().flatten(1).amax(1).clamp(min=1e-30).view(_column(t)),
        )
        yield "standardised, sample by sample", _standardised
    if truth.ndim > 2 and truth.shape[-1] == truth.shape[-2]:
        yield "scaled to trace N", lambda t: t * (t.shape[-1] / _trace(t))
        yield "scaled to trace 1", lambda t: t / _trace(t)
    if len(truth) > 1:
        yield "standardised over the batch", lambda t: (t - t.mean(0)) / t.std(0).clamp(min=1e-30)


def _column(t: Tensor) -> tuple[int, ...]:
    return (-1, *(1,) * (t.ndim - 1))


def _over_sample(t: Tensor, power: float) -> Tensor:
    return t.flatten(1).sum(1).pow(power).clamp(min=1e-30).view(_column(t))


def _standardised(t: Tensor) -> Tensor:
    flat = t.flatten(1)
    return ((flat - flat.mean(1, keepdim=True)) / flat.std(1, keepdim=True)).view(t.shape)


def _trace(t: Tensor) -> Tensor:
    return t.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]


def fitted(truth: Tensor, loss: Callable[[Tensor], float]) -> tuple[float, float] | None:
    """(a, b) for which a truth + b has the least loss, where the loss is a square or a modulus."""
    mean = truth.mean()
    centred, spread = truth - mean, float(truth.std()) or float(truth.abs().mean()) or 1.0
    points = [(1.0, 0.0), (0.0, 0.0), (2.0, 0.0), (1.0, 1.0), (0.0, 1.0), (1.0, -1.0)]
    rows = [[1, a, b, a * a, a * b, b * b] for a, b in points]
    values = [loss(a * centred + b * spread) for a, b in points]
    if not all(map(math.isfinite, values)):
        return None
    system = torch.tensor(rows, dtype=torch.float64)
    right = torch.tensor(values, dtype=torch.float64)
    _, p, q, r, s, t = torch.linalg.solve(system, right).tolist()
    tries: list[tuple[float, float]] = []
    determinant = 4 * r * t - s * s
    if abs(determinant) > 1e-12 * (r * r + t * t) and not truth.is_complex():
        a, b = (q * s - 2 * p * t) / determinant, (p * s - 2 * q * r) / determinant
        tries.append((a, b * spread - a * float(mean)))
    near, one, two, far = (loss(size * truth) for size in (0.0, 1.0, 2.0, 100.0))
    if near - 2 * one + two:
        tries.append(((3 * near - 4 * one + two) / (2 * (near - 2 * one + two)), 0.0))
    slope = (loss(200 * truth) - far) / 100
    if slope:
        tries.append((100 - far / slope, 0.0))
    found = [(a, b) for a, b in tries if math.isfinite(a) and math.isfinite(b)]
    return min(found, key=lambda ab: loss(ab[0] * truth + ab[1]), default=None)
