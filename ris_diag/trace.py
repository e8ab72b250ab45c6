"""What an observed training shows: plain records, in the order in which things happened."""

from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ris_diag.operations import Operations


@dataclass(frozen=True, kw_only=True)
class Backward:
    """One backward pass.

    Attributes:
        value: the loss on which it was called, [] , without a GradScaler's factor.
        before, after: norm of each parameter's gradient in front of it and behind it (before any
            clipping, without the factor), float64 [P] by the order of `Trace.names`; -1 where
            there is no gradient.
        scale: the factor of a GradScaler, 1 without one.
        reached: numbers of the parameters to which the graph of the loss leads.
        carried: whether that graph holds operations of an earlier batch; without batches, of
            three passes ago.
        inside_step: an optimiser's own closure called it.
        skipped: a GradScaler found it not finite and left the step out.
        batch: how many training batches had been served, this one's included.
        phase: "train" or "validation" while such batches are gone through, else "".
        place: file:line of the user's code.
    """

    value: Tensor
    before: Tensor
    after: Tensor
    scale: float
    reached: frozenset[int]
    carried: bool
    inside_step: bool
    batch: int
    phase: str
    place: str
    skipped: bool = False


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of an optimiser.

    Attributes:
        optimizer: its number in `Trace.optimizers`.
        rates: learning rate of each parameter group.
        numbers: which parameters it holds.
        gradients: norm of each gradient as the step sees it, float64 [P']; -1 where there is none.
        weights, moved: norm of each parameter in front of the step, and of its update, [P'].
        zeros: share of the entries of each gradient that are exactly zero, [P']; -1 without one.
        expected: what the loss should lose by this step to first order, <gradient, -update>.
        cleared: whether its gradients were zero or absent at some time since its last step.
        backward: how many backward passes came before it.
        place: file:line of the user's code.
        undone: how much of the way since its last step, or since its first, something else took
            back in the meantime, between 0 and 1.
        turned: cosine between the gradient at the step and behind the last backward pass.
        rounded: of weights in half precision, share of the entries that have a gradient and stay.
        halved: the half precision to which something rounded wider weights since the last step.
    """

    optimizer: int
    rates: list[float]
    numbers: list[int]
    gradients: Tensor
    weights: Tensor
    moved: Tensor
    zeros: Tensor
    expected: float
    cleared: bool
    backward: int
    place: str
    undone: float = 0.0
    turned: float = 1.0
    rounded: float = 0.0
    halved: torch.dtype | None = None


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call of an outermost module.

    Attributes:
        phase: "train" or "validation" where the batches tell, else "".
        training: the module's mode.
        gradient: whether gradients were being recorded.
        input_hash: of its first tensor; None if there was none.
        backward: how many backward passes came before it.
    """

    module: nn.Module
    phase: str
    training: bool
    gradient: bool
    input_hash: int | None
    backward: int


@dataclass
class Usage:
    """How a module inside the model was used.

    Attributes:
        modes: (phase, training, gradient) of its calls.
        calls: how often it was called.
        smallest: batch norm only: the fewest values a channel in training mode.
        statistics: batch norm only: running mean at the first call.
        moved: batch norm only: whether the running mean was another one at the end.
    """

    calls: int = 0
    modes: set[tuple[str, bool, bool]] = field(default_factory=set)
    smallest: int | None = None
    statistics: Tensor | None = None
    moved: bool = False


@dataclass
class Trace:
    """What was seen, filled while the training runs.

    Attributes:
        names, parameters: of every parameter seen: the model's, the optimisers', the graph's.
        events: kind of everything that happened, in order: "backward", "step", "unscale",
            "scaler.step", "scaler.update", "scheduler", "zero_grad", "clip scaled" (gradients
            shrank before they were unscaled), "clip late" (behind the step).
        backward, steps, calls: every backward pass, step of an optimiser, call of a module.
        usage: what each module was used for.
        optimizers: those that took a step.
        made: optimisers that were built, whether they stepped or not.
        built: file:line where an optimiser or a scheduler was built, by its id.
        phase: "train" or "validation" while such batches are gone through, else "".
        batches: training batches served so far.
        served: hashes of the tensors in each of them.
        validated: the same of the validation batches.
        operations: cuts of the graph, device-less factories and syncs, where they were asked for.
        updated_by_hand: backward passes in front of which weights had moved without an optimiser.
        gradients_taken: calls of torch.autograd.grad.
        raised: what module calls and backward passes raised: "ValueError in a call of Linear".
    """

    names: list[str] = field(default_factory=list)
    parameters: list[Tensor] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    backward: list[Backward] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    usage: dict[nn.Module, Usage] = field(default_factory=dict)
    optimizers: list[torch.optim.Optimizer] = field(default_factory=list)
    built: dict[int, str] = field(default_factory=dict)
    made: list[torch.optim.Optimizer] = field(default_factory=list)
    phase: str = ""
    batches: int = 0
    served: list[frozenset[int]] = field(default_factory=list)
    validated: list[frozenset[int]] = field(default_factory=list)
    raised: list[str] = field(default_factory=list)
    operations: Operations | None = None
    updated_by_hand: int = 0
    gradients_taken: int = 0

    @property
    def losses(self) -> list[float]:
        """Values of the losses as numbers."""
        return [float(b.value) for b in self.backward]

    @property
    def mean_gradients(self) -> list[float]:
        """For every backward pass the mean norm over the parameters; none counts as 0."""
        return [float(b.after.clamp(min=0).mean()) for b in self.backward]

    @property
    def by_hand(self) -> bool:
        """Whether gradients came from elsewhere: steps were taken, `backward` was never called."""
        return bool(self.steps) and not self.backward

    @property
    def without_optimiser(self) -> bool:
        """Whether weights are updated by the user's own lines."""
        by_grad = not self.backward and self.gradients_taken > 1
        return not self.steps and (bool(self.updated_by_hand) or by_grad)

    @property
    def learning_rates(self) -> list[float]:
        """All that were in effect, ascending."""
        return sorted({rate for step in self.steps for rate in step.rates})

    @property
    def step_place(self) -> str:
        """file:line of the user's code that took the first step; "" without one."""
        return self.steps[0].place if self.steps else ""

    def place_of(self, optimizer: int = 0) -> str:
        """file:line where an optimiser was built; "" if that was before."""
        held = self.optimizers[optimizer : optimizer + 1]
        return next((self.built.get(id(o), "") for o in held), "")

    @property
    def schedule_place(self) -> str:
        """file:line where the last scheduler was built; "" without one."""
        optimizers = {id(optimizer) for optimizer in self.optimizers}
        others = [place for key, place in self.built.items() if key not in optimizers]
        return others[-1] if others else ""

    def number(self, parameter: Tensor) -> int | None:
        """Number of a parameter, None if it was never seen."""
        return next((n for n, p in enumerate(self.parameters) if p is parameter), None)

    @property
    def groups(self) -> list[list[Step]]:
        """Steps by the set of parameters that they move: of optimisers that take turns, too."""
        by_set: dict[frozenset[int], list[Step]] = {}
        for step in self.steps:
            by_set.setdefault(frozenset(step.numbers), []).append(step)
        return list(by_set.values())

    @property
    def rounds(self) -> int:
        """Steps of the parameter that took most: a part may start later, or by turns."""
        taken = Counter(number for step in self.steps for number in step.numbers)
        return max(taken.values(), default=0)

    def steps_of(self, optimizer: int) -> list[Step]:
        """Steps of one optimiser."""
        return [step for step in self.steps if step.optimizer == optimizer]
