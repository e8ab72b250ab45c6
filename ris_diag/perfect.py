"""The perfect output of a case's model: declared, or told by the truth."""

import inspect
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ris_diag.answers import as_output, class_axis, squeezed
from ris_diag.case import Batch, Case
from ris_diag.context import Subject
from ris_diag.errors import CaseError
from ris_diag.graph import tensors_in
from ris_diag.lent import Lent
from ris_diag.measure import nudged_model
from ris_diag.oracle import SIZE, Losing, Unreachable, changed, numbers_in
from ris_diag.places import where


@dataclass(kw_only=True)
class Perfect:
    """A perfect answer at the place of the network's output.

    Attributes:
        losing: the loss of an output.
        output: what the untrained network gives; the answer lies at `slot` in it.
        answers: the same answer in several words, numbers of the output's shape.
        truth: what the answers say, where it isn't Case.oracle.
        given: by Case.oracle. sure: the output itself is what the truth should be like.
        declared: truth and prediction are declared, not derived.
        class_at: axis of the classes, where the answer chooses among them.
        input_too: the truth is also what the network sees.
        broadcasts: the truth has another shape than the output.
        covariance: the case declares that the output is a covariance.
    """

    losing: Losing
    output: Any
    slot: Tensor | None
    answers: list[Any]
    truth: Tensor | None = None
    given: bool = False
    sure: bool = False
    declared: bool = False
    class_at: int | None = None
    input_too: bool = False
    broadcasts: bool = False
    covariance: bool = False

    def loss(self, answer: Any) -> dict[str, float]:
        """The total and each term with an answer in the network's place."""
        return self.losing(self.placed(answer))

    def placed(self, answer: Any) -> Any:
        """The model's output with the answer in it."""
        if self.slot is None:
            return answer
        return changed(self.output, lambda t: answer if t is self.slot else t)


def perfect_answer(
    subject: Subject, batch: Batch, truth_of: Callable[[Batch], Tensor] | None = None
) -> Perfect:
    """The perfect answer of a case.

    Args:
        truth_of: in place of what the case declares.

    Raises:
        Unreachable: none is known, or it can't be put in the network's place.
        CaseError: `Case.oracle` doesn't look like the model's output.
    """
    case, model = subject.case, nudged_model(subject)
    if case.oracle is not None and truth_of is None:
        losing = Losing.of(subject, model, batch, lambda output: True)
        oracle, output = case.oracle(batch), losing.path.outputs[0]
        _require_alike(case, oracle, output)
        return Perfect(
            losing=losing,
            output=output,
            slot=None,
            answers=[oracle],
            truth=_truth(case, batch),
            given=True,
        )
    truth_of = truth_of or declared_truth(case)
    if truth_of is None:
        raise Unreachable("neither Case.oracle nor Case.truth says what the output should be")
    truth = truth_of(batch)

    def slots(output: Any) -> list[Tensor]:
        return [leaf for leaf in numbers_in(output) if as_output(truth, leaf)]

    losing = Losing.of(subject, model, batch, lambda output: bool(slots(output)))
    if len(losing.path.outputs) > 1:
        raise Unreachable(f"the model is called {len(losing.path.outputs)} times for one loss")
    (output,) = losing.path.outputs
    predicted = predicted_by(subject, model.eval(), batch)
    model.train()
    fitting = slots(output)
    same = [leaf for leaf in fitting if predicted is not None and same_numbers(leaf, predicted)]
    if not fitting or (len(fitting) > 1 and len(same) != 1):
        shapes = [list(leaf.shape) for leaf in numbers_in(output)]
        raise Unreachable(f"the truth {list(truth.shape)} is no output {shapes} of the model")
    slot = (same or fitting)[0]
    whole = truth.is_floating_point() or truth.is_complex()
    spread = squeezed(truth.shape) == squeezed(slot.shape)
    return Perfect(
        losing=losing,
        output=output,
        slot=slot,
        answers=as_output(truth, slot),
        truth=truth,
        sure=bool(same),
        declared=not isinstance(getattr(inspect.unwrap(truth_of), "__self__", None), Lent),
        class_at=None if whole or spread else class_axis(truth, slot),
        input_too=_is_input(truth, batch),
        covariance=bool(same) and case.offers("covariance.predict"),
        broadcasts=list(truth.shape) != list(slot.shape) and spread,
    )


def declared_truth(case: Case) -> Callable[[Batch], Tensor] | None:
    """`Case.truth`, or that of the covariances where they are what the case predicts."""
    if case.truth is not None or case.covariance is None or case.predict is not None:
        return case.truth
    return case.covariance.truth if case.covariance.predict is not None else None


def _truth(case: Case, batch: Batch) -> Tensor | None:
    truth_of = declared_truth(case)
    return None if truth_of is None else truth_of(batch)


def _require_alike(case: Case, oracle: Any, output: Any) -> None:
    shapes = [[list(t.shape) for t in tensors_in(value)] for value in (oracle, output)]
    if shapes[0] != shapes[1]:
        raise CaseError(
            f"Case.oracle ({where(case.oracle)}) gave tensors {shapes[0]}: expected {shapes[1]}, "
            "as the model does"
        )


def predicted_by(subject: Subject, model: torch.nn.Module, batch: Batch) -> Tensor | None:
    """What inference gives out, None where it isn't known or no tensor."""
    if subject.case.predict is None and not subject.case.offers("covariance.predict"):
        return None
    with torch.no_grad(), subject.seeded("oracle"):
        prediction: Any = subject.predict(model, batch)
    return prediction if isinstance(prediction, Tensor) else None


def same_numbers(leaf: Tensor, predicted: Tensor) -> bool:
    """Whether a prediction is an output itself."""
    if leaf.shape != predicted.shape or leaf.dtype != predicted.dtype:
        return False
    return torch.allclose(leaf.detach(), predicted, rtol=1e-3, atol=1e-6)


def _is_input(truth: Tensor, batch: Batch) -> bool:
    """Whether the truth is all that the batch holds, or stands in it twice."""
    held = tensors_in(batch)
    equal = sum(t.shape == truth.shape and torch.equal(t.to(truth), truth) for t in held)
    return equal > 1 or len(held) == 1


def perfect_answers(subject: Subject, size: int = SIZE, offset: int = 0) -> list[Perfect]:
    """That of the case, or what each tensor of the batch would tell if it were the truth.

    Raises:
        Unreachable: there is none.
    """
    batch = subject.batch("train", size, offset=offset)
    if subject.case.oracle is not None or declared_truth(subject.case) is not None:
        return [perfect_answer(subject, batch)]
    found = []
    for number in range(len(tensors_in(batch))):
        with suppress(Unreachable):
            found.append(perfect_answer(subject, batch, lambda b, n=number: tensors_in(b)[n]))  # type: ignore[misc]  # binds the loop's value
    if not found:
        raise Unreachable("neither Case.oracle nor Case.truth says what the output should be")
    return found
