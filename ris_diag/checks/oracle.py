"""The loss of a perfect answer, through the author's own path. B2."""

import math
from typing import Any

import torch
from torch import Tensor

from ris_diag.answers import CONFIDENT, Named, changes, fitted
from ris_diag.check import Threshold, check
from ris_diag.context import Context
from ris_diag.oracle import Unreachable, changed, numbers_in
from ris_diag.perfect import Perfect, perfect_answers
from ris_diag.places import where

NEAR, FAR = 0.02, 0.2  # of the untrained loss: what counts as the floor, and what is far above it
CLEAR = 0.3  # of the span of all answers
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
    case = context.subject.case
    try:
        judgements = [Judgement(context, answer) for answer in perfect_answers(context.subject)]
        if case.offers("oracle") or case.offers("truth"):
            judgements[0].judge()
        # Nobody says what the truth is: a tensor of the batch that gives the floor, or would.
        elif not any(j.near() for j in judgements) and not sum(j.of_others() for j in judgements):
            context.say("not judged: no tensor of the batch gives the floor")
    except Unreachable as reason:
        context.say(f"not judged: {reason}")


class Judgement:
    """What the losses of the perfect answer and of others say."""

    def __init__(self, context: Context, perfect: Perfect) -> None:
        self.context, self.perfect = context, perfect
        declared = context.subject.case.declared
        self.floor = 0.0 if declared is None else declared.floor
        self.untrained = perfect.losing(perfect.output)
        literal, *others = perfect.answers
        # The truth itself may be refused only if it isn't the output in any other words either.
        self.tried = [(literal, perfect.loss(literal) if not others else self.loss(literal))]
        self.tried += [(answer, self.loss(answer)) for answer in others]
        self.answer, self.truth = min(self.tried, key=lambda one: _or_infinite(one[1]["total"]))
        self.place = where(context.subject.case.loss)

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

    def of_others(self) -> bool:
        """Whether the answer for other samples gives the floor: then say so."""
        for answer, values in self.tried:
            for named in changes_of(self.perfect, answer):
                other = self.loss(changed(answer, named.change))
                far = self.above(values, "total") > FAR
                if far and named.kind == "order" and abs(self.above(other, "total")) <= NEAR:
                    self.truth = values
                    self.problem_high("total", f"{other['total']:.3g} for the truth {named.name}")
                    return True
        return False

    def judge(self) -> None:
        """Say what is wrong."""
        total, limit = self.above(self.truth, "total"), self.context.limit("max_share")
        self.context.measure(
            truth=self.truth["total"], untrained=self.untrained["total"], share=total
        )
        if not math.isfinite(total):
            self.context.say("not judged: the loss of the truth is not finite, see G010")
            return
        high = [
            name
            for name in self.truth
            if all(self.above(values, name) > FAR for _, values in self.tried)
        ]
        found = self.asked_for(high)
        for name, what in found.items():
            self.problem_high(name, what)
        if found:
            return
        if self.perfect.given and total > limit:
            self.strictly()
        elif self.perfect.broadcasts and self.indifferent() and total > FAR:
            self.problem_high(
                "total", "the labels of other samples give the same: they broadcast, or don't enter"
            )
        else:
            self.compare()

    def asked_for(self, names: list[str]) -> dict[str, str]:
        """For each of these values the change of the truth that brings it to its floor."""
        perfect, explained = self.perfect, set()
        found: dict[str, str] = {}
        if not names:
            return {}
        for answer in perfect.answers:
            for named in changes_of(perfect, answer):
                values = self.loss(changed(answer, named.change))
                for name in names:
                    if abs(self.above(values, name)) <= NEAR:
                        if self.counts(named):
                            found.setdefault(name, f"{values[name]:.3g} for the truth {named.name}")
                        else:
                            explained.add(name)
        for name in names:
            if name not in found and name not in explained and self.scales():
                what = self.scaled(name)
                found.update({name: what} if what else {})
        return {name: what for name, what in found.items() if name not in explained}

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

    def indifferent(self) -> bool:
        """Whether the truth of another sample gives the same loss."""
        rolled = self.loss(changed(self.answer, lambda t: t.roll(1, 0)))["total"]
        return math.isclose(rolled, self.truth["total"], rel_tol=1e-4)

    def strictly(self) -> None:
        """A declared oracle with a high loss."""
        if self.perfect.losing.beside(self.answer):
            self.context.say(
                "not judged: the loss depends on the weights beside the output; its floor is open"
            )
            return
        high = [
            f"{name} {self.truth[name]:.3g}"
            for name in self.truth
            if name != "total" and self.above(self.truth, name) > self.context.limit("max_share")
        ]
        terms = f"; high are {', '.join(high)}" if high else ""
        self.problem_high("total", f"no change of it that was tried has the floor{terms}")

    def problem_high(self, name: str, what: str) -> None:
        """The loss of the truth is high."""
        shown = "the loss" if name == "total" else name
        floor = self.floor if name == "total" else 0.0
        self.context.problem(
            f"{shown} is {self.truth[name]:.3g} with {self.called()} in place of the model's "
            f"output (untrained {self.untrained[name]:.3g}, floor {floor:g}, limit "
            f"{self.context.limit('max_share'):g} of the untrained above it), {what}",
            sign="truth-loss-high",
            place=self.place,
            next_step=NEXT,
        )

    def called(self) -> str:
        """Name of the answer."""
        if self.perfect.given:
            return "Case.oracle"
        return "the truth" if self.perfect.class_at is None else "confident right classes"

    def compare(self) -> None:
        """Whether another answer is better than the truth."""
        perfect, classes = self.perfect, self.perfect.class_at is not None
        if not (perfect.given or perfect.sure or classes):
            self.context.say("not compared with other answers: Case.predict isn't the output")
            return
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
        self.context.measure(others=others)
        if classes:
            # A confident class that is wrong costs more than none: all the others have to tell.
            wrong = all(truth - value > CLEAR * span for value in others.values())
            wrong &= others["zero"] - others[best] > NEAR * span
        else:
            wrong = truth - others[best] > CLEAR * span and not self.explained()
        if not wrong or perfect.losing.beside(answer):
            return
        sign = all(truth > value for value in others.values())
        self.context.problem(
            f"the loss is {truth:.3g} with {self.called()} in place of the model's output, and "
            f"{others[best]:.3g}, lower, with {best}"
            + (", as with every other answer that was tried: the sign is wrong" if sign else "")
            + " (limit: nothing is better than the truth)",
            sign="better-than-truth",
            place=self.place,
            next_step="remove the minus, or what maximises" if sign else NEXT,
        )

    def explained(self) -> bool:
        """Whether the truth in other words or in another scale has the floor."""
        literal = self.above(self.tried[0][1], "total")
        words = any(self.above(values, "total") <= NEAR for _, values in self.tried[1:])
        return (words and literal > NEAR) or (not self.scales() and bool(self.scaled("total")))


def changes_of(perfect: Perfect, answer: Any) -> list[Named]:
    """The changes that make another answer of this one."""
    tensors = numbers_in(answer)
    return changes(tensors[0], perfect.class_at) if tensors else []


def _or_infinite(value: float) -> float:
    return value if math.isfinite(value) else math.inf
