"""The loss of a perfect answer, through the author's own path. B2."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ris_diag.answers import CONFIDENT, Named, changes, fitted
from ris_diag.check import Threshold, check
from ris_diag.context import Context
from ris_diag.followed import Followed
from ris_diag.oracle import SIZE, Unreachable, changed, numbers_in
from ris_diag.perfect import Perfect, declared_truth, perfect_answers
from ris_diag.places import where

AGAIN = 16  # samples of the second batch
NEAR, FAR = 0.02, 0.2  # of the untrained loss: what counts as the floor, and what is far above it
CLEAR = 0.3  # of the span of all answers
MULTIPLES = (0.5, 2.0)
NEXT = (
    "compare prediction and label in one convention: the order of samples and axes, conjugation, "
    "scale, sign"
)


@check(
    "G008",
    "truth-gives-the-floor",
    title="The perfect output has the lowest loss",
    what="Puts Case.oracle, or what Case.truth tells about the perfect output, in the place of the "
    "model's output and computes the training loss from it; the same for the truth conjugated, "
    "transposed, negated, scaled, shifted, of other samples.",
    why="A loss whose minimum lies elsewhere falls as nicely as any other, and the network learns "
    "what it asks for.",
    sources=("B2",),
    signs=("truth-loss-high", "better-than-truth"),
    needs=("model", "batch", "loss"),
    thresholds=(
        Threshold(
            name="max_share",
            value=0.05,
            unit="of the untrained loss, above Declared.floor",
            why="a wrong convention costs a good part of it; rounding and the blend do not",
        ),
    ),
)
def truth_gives_the_floor(context: Context) -> None:
    try:
        found, seen = _verdicts(context, SIZE, 0)
        context.measure(**seen)
        # A few samples may agree by chance.
        again = {v.key for v in _verdicts(context, AGAIN, 1)[0]} if found else set()
    except Unreachable as reason:
        context.say(f"not judged: {reason}")
        return
    for verdict in found:
        if verdict.key in again:
            context.problem(
                verdict.text,
                sign=verdict.sign,
                place=verdict.place or where(context.subject.case.loss),
                next_step=verdict.next_step,
            )


def _verdicts(
    context: Context, size: int, offset: int
) -> tuple[list["Verdict"], dict[str, dict[str, float]]]:
    """What is wrong on a batch, and the losses that say so.

    Raises:
        Unreachable: nothing can be judged.
    """
    case, limit = context.subject.case, context.limit("max_share")
    floor = 0.0 if case.declared is None else case.declared.floor
    answers = perfect_answers(context.subject, size, offset)
    judgements = [Judgement(answer, floor, limit) for answer in answers]
    if case.oracle is not None or declared_truth(case) is not None:
        return judgements[0].verdicts(), judgements[0].seen
    # Nobody says what the truth is: a tensor of the batch that gives the floor, or would.
    if any(judgement.near() for judgement in judgements):
        return [], {}
    found = [verdict for judgement in judgements for verdict in judgement.of_others()]
    if not found:
        raise Unreachable("no tensor of the batch gives the floor")
    return found, {}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Something that is wrong; on another batch it has the same key.

    Attributes:
        place: file:line where output and truth meet, "" where that isn't seen.
    """

    key: tuple[str, ...]
    sign: str
    text: str
    place: str
    next_step: str = NEXT


class Judgement:
    """What the losses of the perfect answer and of others say."""

    def __init__(self, perfect: Perfect, floor: float, limit: float) -> None:
        self.perfect, self.floor, self.limit = perfect, floor, limit
        self.untrained = perfect.losing(perfect.output)
        literal, *others = perfect.answers
        # The truth itself may be refused only if it isn't the output in any other words either.
        self.tried = [(literal, perfect.loss(literal) if not others else self.loss(literal))]
        self.tried += [(answer, self.loss(answer)) for answer in others]
        self.answer, self.truth = min(self.tried, key=lambda one: _or_infinite(one[1]["total"]))
        self.seen = {"truth": self.truth, "untrained": self.untrained}

    def loss(self, answer: Any) -> dict[str, float]:
        """The total and each term with another answer; NaN where the loss refuses it."""
        try:
            return self.perfect.loss(answer)
        except Unreachable:
            return dict.fromkeys(self.untrained, math.nan)

    def above(self, values: dict[str, float], name: str) -> float:
        """How far a value lies above the floor, in untrained losses."""
        floor = self.floor if name == "total" else 0.0
        scale = abs(self.untrained[name] - floor)
        return (values[name] - floor) / scale if scale > 0 else math.nan

    def near(self) -> bool:
        """Whether the answer gives the floor, in one of its words or shifted."""
        tried = [values for _, values in self.tried]
        tried += [
            self.loss(changed(answer, named.change))
            for answer in self.perfect.answers
            for named in changes_of(self.perfect, answer)
            if named.kind == "shift"
        ]
        return any(self.above(values, "total") <= NEAR for values in tried)

    def of_others(self) -> list[Verdict]:
        """Whether the answer for other samples gives the floor."""
        for answer, values in self.tried:
            for named in changes_of(self.perfect, answer):
                other = self.loss(changed(answer, named.change))
                far = self.above(values, "total") > FAR
                if far and named.kind == "order" and abs(self.above(other, "total")) <= NEAR:
                    self.truth = values
                    text = f"{other['total']:.3g} for the truth {named.name}"
                    return [self.high("total", named.name, text)]
        return []

    def verdicts(self) -> list[Verdict]:
        """What is wrong.

        Raises:
            Unreachable: nothing can be judged.
        """
        total = self.above(self.truth, "total")
        if not math.isfinite(total):
            raise Unreachable("the loss of the truth is not finite, see G010")
        high = [
            name
            for name in self.truth
            if all(self.above(values, name) > FAR for _, values in self.tried)
        ]
        found = self.asked_for(high)
        if found:
            return found
        if self.perfect.given and total > self.limit:
            return self.strictly()
        if self.perfect.broadcasts and self.indifferent() and total > FAR:
            text = "the labels of other samples give the same: they broadcast, or don't enter"
            return [self.high("total", "others", text)]
        return self.compare()

    def asked_for(self, names: list[str]) -> list[Verdict]:
        """For each of these values the change of the truth that brings it to its floor."""
        perfect, explained = self.perfect, set()
        found: dict[str, Verdict] = {}
        for answer in perfect.answers if names else ():
            for named in changes_of(perfect, answer):
                other = changed(answer, named.change)
                values = self.loss(other)
                for name in names:
                    if name in found or not abs(self.above(values, name)) <= NEAR:
                        continue
                    if not self.counts(named):
                        explained.add(name)
                    elif self.alone(other, name):
                        text = f"{values[name]:.3g} for the truth {named.name}"
                        found[name] = self.high(name, named.name, text)
        for name in names:
            if name not in found and name not in explained and self.scales():
                what = self.scaled(name) or self.one_sided(name)
                found.update({name: self.high(name, "scaled", what)} if what else {})
        return [verdict for name, verdict in found.items() if name not in explained]

    def alone(self, answer: Any, name: str) -> bool:
        """Whether a value rises beside an answer: a penalty of a part of it does not."""
        if self.perfect.class_at is not None:
            return True
        beside = [
            self.loss(changed(answer, lambda t, s=side: t + s * t.std(correction=0)))  # type: ignore[misc]  # binds the loop's value
            for side in (-1, 1)
        ]
        return all(abs(self.above(values, name)) > NEAR for values in beside)

    def counts(self, named: Named) -> bool:
        """Whether a loss that asks for this change is wrong, or may be meant so."""
        if named.kind == "shift":
            return self.perfect.given or not self.perfect.input_too
        return named.kind in ("structure", "order") or self.scales()

    def scales(self) -> bool:
        """Whether the output's scale is known to be the truth's."""
        return self.perfect.given or (self.perfect.sure and self.perfect.declared)

    def scaled(self, name: str) -> str:
        """The factor and the shift for which a value reaches its floor; "" without."""
        answer = self.perfect.answers[0]
        if self.perfect.class_at is not None or not isinstance(answer, Tensor):
            return ""
        at = fitted(answer, lambda other: self.loss(other)[name])
        if at is None:
            return ""
        value = self.loss(at[0] * answer + at[1])
        if not abs(self.above(value, name)) <= NEAR:
            return ""
        shift = f" plus {at[1]:.4g}" if abs(at[1]) > 1e-3 * float(answer.abs().max()) else ""
        return f"{value[name]:.3g} for the truth times {at[0]:.4g}{shift}"

    def one_sided(self, name: str) -> str:
        """Whether a covariance is scaled and its truth is not; "" without.

        The value is then the same for every multiple of the truth, higher for the truths of other
        samples, and far above the floor: no covariance reaches it.
        """
        answer = self.perfect.answers[0]
        if not self.perfect.covariance or not isinstance(answer, Tensor):
            return ""
        values = [self.loss(k * answer)[name] for k in MULTIPLES]
        own, other = self.truth[name], self.loss(answer.roll(1, 0))[name]
        if not all(math.isclose(value, own, rel_tol=1e-3) for value in values):
            return ""
        if not (other > own and self.above({name: other - own}, name) > FAR):
            return ""
        shown = " and ".join(f"{k:g}" for k in MULTIPLES)
        return f"the same for the truth times {shown}: one side is scaled, the other is not"

    def indifferent(self) -> bool:
        """Whether the answer of another sample gives the same loss, wherever the answers lie.

        Far from its labels a loss that grows evenly is the same for any order, too.
        """

        def even(answer: Any) -> bool:
            rolled = self.loss(changed(answer, lambda t: t.roll(1, 0)))["total"]
            return math.isclose(rolled, self.loss(answer)["total"], rel_tol=1e-4)

        unit = changed(self.answer, lambda t: (t - t.mean()) / t.std().clamp(min=1e-12))
        return even(self.answer) and even(unit) and even(changed(unit, lambda t: 3 * t))

    def strictly(self) -> list[Verdict]:
        """A declared oracle with a high loss.

        Raises:
            Unreachable: the loss has a floor of its own.
        """
        if self.perfect.losing.beside(self.answer):
            raise Unreachable(
                "the loss depends on the weights beside the output; its floor is open"
            )
        high = [
            f"{name} {self.truth[name]:.3g}"
            for name in self.truth
            if name != "total" and self.above(self.truth, name) > self.limit
        ]
        terms = f"; high are {', '.join(high)}" if high else ""
        return [self.high("total", "strict", f"no change of it that was tried has it{terms}")]

    def high(self, name: str, key: str, what: str) -> Verdict:
        """The loss of the truth is high."""
        shown = "the loss" if name == "total" else name
        floor = self.floor if name == "total" else 0.0
        return Verdict(
            key=(name, key),
            sign="truth-loss-high",
            place=self.place(name, changed_before=key != "others"),
            text=f"{shown} is {self.truth[name]:.3g} with {self.called()} in place of the model's "
            f"output (untrained {self.untrained[name]:.3g}, limit {self.limit:g} of that above the "
            f"floor {floor:g}); {what}",
        )

    def place(self, name: str = "total", *, changed_before: bool) -> str:
        """Where the output meets the truth, or where one of them was changed before."""
        followed = Followed()
        with followed:
            named, _ = self.perfect.losing.tensors(self.perfect.output)
        meeting, change = followed.meeting(named[name], self.perfect.truth)
        return change if changed_before and change else meeting

    def called(self) -> str:
        """Name of the answer."""
        if self.perfect.given:
            return "Case.oracle"
        return "the truth" if self.perfect.class_at is None else "confident right classes"

    def compare(self) -> list[Verdict]:
        """Whether another answer is better than the truth."""
        perfect, classes = self.perfect, self.perfect.class_at is not None
        if not (perfect.given or perfect.sure or classes):
            return []
        # Of classes the least confident answer: one that is wrong costs least.
        answer, values = self.tried[min(len(CONFIDENT), len(self.tried)) - 1 if classes else 0]
        truth = values["total"]
        others = {
            f"the truth {named.name}": self.loss(changed(answer, named.change))["total"]
            for named in changes_of(perfect, answer)
            if named.kind in ("structure", "order")
        }
        others["zero"] = self.loss(changed(answer, torch.zeros_like))["total"]
        others["what the untrained network gives"] = self.untrained["total"]
        if not classes:
            noisy = changed(answer, lambda t: t + t.std(correction=0) * torch.randn_like(t))
            others["the truth with noise"] = self.loss(noisy)["total"]
        others = {name: value for name, value in others.items() if math.isfinite(value)}
        best = min(others, key=lambda name: others[name])
        span = max([truth, *others.values()]) - others[best]
        self.seen["others"] = others
        if classes:
            # A confident class that is wrong costs more than none: all the others have to tell.
            wrong = all(truth - value > CLEAR * span for value in others.values())
            wrong &= others.get("zero", math.nan) - others[best] > NEAR * span
        else:
            wrong = truth - others[best] > CLEAR * span and not self.explained()
        if not wrong or perfect.losing.beside(answer):
            return []
        sign = all(truth > value for value in others.values())
        return [
            Verdict(
                key=("better",),
                sign="better-than-truth" if sign else "truth-loss-high",
                place=self.place(changed_before=not sign),
                text=f"the loss is {truth:.3g} with {self.called()} in place of the model's "
                f"output, and {others[best]:.3g}, lower, with {best}"
                + (", as with every other answer that was tried: the sign is wrong" if sign else "")
                + " (limit: nothing is better than the truth)",
                next_step="remove the minus, or what maximises" if sign else NEXT,
            )
        ]

    def lowest(self, answer: Any, value: float) -> bool:
        """Whether smaller and larger answers are worse: soft labels have a floor above zero."""
        beside = [self.loss(changed(answer, lambda t, s=s: s * t))["total"] for s in (0.5, 2.0)]  # type: ignore[misc]  # binds the loop's value
        return value < self.tried[0][1]["total"] and all(value < other for other in beside)

    def explained(self) -> bool:
        """Whether the truth in other words or in another scale has the floor, or a minimum."""
        literal = self.above(self.tried[0][1], "total")
        words = any(
            self.above(values, "total") <= NEAR or self.lowest(answer, values["total"])
            for answer, values in self.tried[1:]
        )
        return (words and literal > NEAR) or (not self.scales() and bool(self.scaled("total")))


def changes_of(perfect: Perfect, answer: Any) -> list[Named]:
    """The changes that make another answer of this one."""
    tensors = numbers_in(answer)
    return changes(tensors[0], perfect.class_at) if tensors else []


def _or_infinite(value: float) -> float:
    return value if math.isfinite(value) else math.inf
