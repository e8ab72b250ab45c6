"""Looks for a counterexample to a law and shrinks it to what a person can read; needs hypothesis.

How many examples are tried is hypothesis' own setting, `max_examples` of the profile in effect;
which ones follows from the seed of the run alone.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import hypothesis
import torch
from hypothesis import strategies as st
from torch import Tensor

from ris_diag import strategies as ris
from ris_diag.context import Context
from ris_diag.measure import captured_output
from ris_diag.mistakes import mistakes_behind
from ris_diag.places import place_of, where
from ris_diag.progress import Advance
from ris_diag.randomness import derived_seed

T = TypeVar("T")
DOUBLE = torch.complex128
Law = Callable[["Trial"], str | None]


class Unusable(Exception):  # noqa: N818  # it ends a trial, nobody catches it as an error
    """The distance gave no value that a law could be about."""


@dataclass(frozen=True)
class Refutation:
    """A law, broken: what was seen, and on which matrices.

    Attributes:
        usable: whether the distance gave values at all.
    """

    claim: str
    usable: bool
    values: list[float]
    shown: dict[str, Tensor]
    place: str


class Trial:
    """One attempt to break a law: draws matrices, applies the distance, keeps what to show."""

    def __init__(self, draw: st.DrawFn, context: Context) -> None:
        self._draw = draw
        self.context = context
        self.shown: dict[str, Tensor] = {}
        self.values: list[float] = []
        self.place = ""

    def pair(
        self, *, size: int | None = None, batch: int | None = None, dtype: torch.dtype = DOUBLE
    ) -> tuple[Tensor, Tensor]:
        """An estimate and a truth on the device; a report of this trial shows them."""
        return self.show(*self.draw(ris.pairs(size=size, batch=batch, dtype=dtype)))

    def differing_pair(self, *, batch: int | None = None) -> tuple[Tensor, Tensor]:
        """As `pair`, of complex128 and N 2 or 3; they differ in every entry."""
        size = self.draw(st.integers(2, 3))
        return self.show(*self.draw(ris.differing_pairs(size=size, batch=batch)))

    def special_pair(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """As `pair`, where one of the two may be special: equal, diagonal, nearly singular."""
        estimate, truth = self.draw(ris.pairs(dtype=dtype))
        B, N, _ = truth.shape
        kind = self.draw(st.sampled_from(["none", "equal", "diagonal", "singular", "repeated"]))
        if kind == "equal":
            estimate = truth.clone()
        elif kind == "diagonal":
            truth = torch.diag_embed(truth.diagonal(dim1=1, dim2=2))
        elif kind == "singular":
            truth = self.draw(ris.near_singular_covariances(size=N, batch=B, dtype=dtype))
        elif kind == "repeated":
            truth = self.draw(ris.repeated_eigenvalue_covariances(size=N, batch=B, dtype=dtype))
        return self.show(estimate, truth)

    def draw(self, strategy: st.SearchStrategy[T]) -> T:
        """A value of a strategy."""
        return self._draw(strategy)

    def dtype(self) -> torch.dtype:
        """complex64 or complex128."""
        return self.draw(ris.dtypes())

    def exponent(self) -> int:
        """A power of two between 10^-decades and 10^decades; shrinks to 0."""
        last = int(self.limit("decades") * math.log2(10))
        return self.draw(ris.exponents(-last, last))

    def nearness(self) -> float:
        """1, 0.1, ... 1e-6: what to multiply an error with."""
        return self.draw(st.sampled_from([1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6]))

    def order(self, B: int) -> list[int]:
        """An order of the batch."""
        return list(self.draw(st.permutations(range(B))))

    def unitary(self, N: int) -> Tensor:
        """complex128 [N, N] on the device."""
        return self.draw(ris.unitaries(size=N)).to(self.context.subject.device)

    def show(self, estimate: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """The pair on the device; a report of this trial shows it."""
        device = self.context.subject.device
        self.shown = {"estimate": estimate, "truth": truth}
        return estimate.to(device), truth.to(device)

    def limit(self, name: str) -> float:
        """A declared limit of the check."""
        return self.context.limit(name)

    def compare(
        self, a: Tensor, b: Tensor | float, words: str, *, dtype: torch.dtype = DOUBLE
    ) -> str | None:
        """`words` about the worst {a} and {b} of two values a sample that should agree, or None.

        NaN agrees with nothing. The limit is the declared one of the dtype.
        """
        b = torch.as_tensor(b, dtype=a.dtype).expand_as(a)
        limit = self.limit("single" if dtype == torch.complex64 else "double")
        off = (a - b).abs() / torch.maximum(a.abs(), b.abs()).clamp(min=1.0)
        off = torch.where(a == b, 0.0, off).nan_to_num(nan=torch.inf)  # -inf agrees with itself
        if bool((off <= limit).all()):
            return None
        worst = int(off.argmax())
        self.values = [float(a[worst]), float(b[worst])]
        shown = words.format(a=f"{self.values[0]:.6g}", b=f"{self.values[1]:.6g}")
        return f"{shown} (limit {limit:g})"

    def value(self, estimate: Tensor, truth: Tensor) -> Tensor:
        """The distance, without gradient: float64 [B] on the CPU.

        Raises:
            Unusable: it raised, or gave something other than one real number a sample.
        """
        with torch.no_grad():
            return self._applied(estimate, truth).double().cpu()

    def gradient(self, estimate: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Values, float64 [B], and the gradient of their sum: complex [B, N, N], on the CPU.

        Raises:
            Unusable: as `value`, or there is no gradient.
        """
        estimate = estimate.detach().clone().requires_grad_()
        with torch.enable_grad():
            values = self._applied(estimate, truth)
        if not values.requires_grad:
            raise Unusable("the value requires no gradient, though the estimate does")
        (gradient,) = torch.autograd.grad(values.sum(), [estimate], allow_unused=True)
        if gradient is None:
            raise Unusable("no gradient leads from the value to the estimate")
        return values.detach().double().cpu(), gradient.cpu()

    def _applied(self, estimate: Tensor, truth: Tensor) -> Tensor:
        before = estimate.detach().clone(), truth.clone()
        try:
            values = self.context.subject.distance(estimate, truth)
        except Exception as error:
            self.place = place_of(error)
            raise Unusable(f"it raised {type(error).__name__}: {error}") from error
        if not all(map(_equal, before, (estimate.detach(), truth))):
            raise Unusable("it changes its arguments in place")
        B = len(estimate)
        if not isinstance(values, Tensor) or values.shape != (B,) or values.is_complex():
            kind = "complex" if isinstance(values, Tensor) and values.is_complex() else "a"
            shown = f"{kind} tensor {list(values.shape)}" if isinstance(values, Tensor) else ""
            given = shown or repr(values)
            hint = (
                "; one value for all of it: the batch is folded into the norm"
                if isinstance(values, Tensor) and values.ndim == 0
                else ""
            )
            raise Unusable(
                f"it gave {given:.60} for a batch of {B}: expected real values [{B}]{hint}"
            )
        return values


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())


def prove(context: Context, law: Law) -> None:
    """Try to break a law; report the smallest counterexample and what makes such a pattern."""
    tried = 0
    advance: Advance

    @st.composite
    def attempts(draw: st.DrawFn) -> Refutation | None:
        nonlocal tried
        tried += 1
        advance("" if tried <= settings.max_examples else "shrinking", step=1)
        trial = Trial(draw, context)
        usable = True
        try:
            claim = law(trial)
        except Unusable as unusable:
            claim, usable = str(unusable), False
        if claim is None:
            return None
        return Refutation(claim, usable, trial.values, trial.shown, trial.place)

    subject = context.subject
    settings = hypothesis.settings(
        database=None,  # writes nothing into the working folder
        deadline=None,
        phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
    )
    rng = random.Random(derived_seed(subject.seed, context.check.id))  # noqa: S311  # no secret
    place = where(subject.distance)
    try:
        with (
            captured_output(),
            subject.progress("examples", settings.max_examples) as advance,
        ):
            found = hypothesis.find(
                attempts(), lambda result: result is not None, settings=settings, random=rng
            )
    except hypothesis.errors.NoSuchExample:
        context.measure(examples=tried)
        return
    except hypothesis.errors.Flaky:
        context.measure(examples=tried)
        context.problem(
            "the distance gives different values for the same matrices",
            place=place,
            next_step="look for dropout, noise or a random choice in it",
        )
        return
    if found is not None:
        _report(found, context, tried, place)


def _report(found: Refutation, context: Context, tried: int, place: str) -> None:
    names = [f"{name} {printed(matrix)}" for name, matrix in found.shown.items()]
    dtype = next((str(m.dtype).removeprefix("torch.") for m in found.shown.values()), "")
    context.measure(examples=tried, values=found.values)
    context.measure(**{name: printed(matrix) for name, matrix in found.shown.items()})
    causes = mistakes_behind(context) if found.usable else []
    context.measure(looks_like=[cause.name for cause, _ in causes])
    pattern = "".join(f". It looks like {cause.name}: {seen}" for cause, seen in causes)
    advice = "mend the distance: as long as it gives no values there is nothing to prove"
    if found.usable:
        advice = (
            "evaluate the distance on this example by hand; if it isn't meant to keep this law, "
            f'say so with a reason: Case(exempt={{"{context.check.id}": "..."}})'
        )
    example = f", for {' and '.join(names)} ({dtype})" if names else ""
    context.problem(
        f"{found.claim}{example}{pattern}",
        place=found.place or place,
        next_step="; ".join(cause.next_step for cause, _ in causes) or advice,
    )


def printed(batch: Tensor) -> str:
    """Matrices as one line: `[[1, 2-1j], [2+1j, 3]]`, several in one pair of brackets."""
    matrices = [
        "[" + ", ".join("[" + ", ".join(map(_number, row)) + "]" for row in matrix) + "]"
        for matrix in batch.cpu().tolist()
    ]
    return matrices[0] if len(matrices) == 1 else f"[{', '.join(matrices)}]"


def _number(value: complex) -> str:
    if value.imag == 0:
        return f"{value.real:.4g}"
    if value.real == 0:
        return f"{value.imag:.4g}j"
    return f"{value.real:.4g}{value.imag:+.4g}j"
