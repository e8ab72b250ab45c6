"""Where tensors would stand on a GPU, and where the step would wait for it, without one."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ris_diag.check import Threshold, check
from ris_diag.context import Context, Subject
from ris_diag.errors import NotCoveredError
from ris_diag.graph import tensors_in
from ris_diag.measure import accumulation, captured_output
from ris_diag.places import place_of, where
from ris_diag.plan import Plan, Progress
from ris_diag.pretence import DEVICE, pretended
from ris_diag.samples import named_tensors, not_judged
from ris_diag.standing import PARAMETER, Call, Meeting, Pretended
from ris_diag.watched import ODD_BATCH, place_of_loss

EPOCHS = 2
MODEL, BATCH, STEP = "model", "batch", "step"  # stages of the audit
# What there is to find, each with the next step.
NEXT = {
    "constant-not-moved": "make it a buffer, self.register_buffer(name, tensor, persistent=False), "
    "or move it where it is used: tensor.to(x.device)",
    "made-without-device": "name the device, device=x.device, or take new_zeros, zeros_like and "
    "their kind",
    "numpy-array-on-cpu": "torch.as_tensor(array, device=x.device), once, not in every step",
    "batch-not-moved": "give the batch as tensors in tuples, lists, dicts or with a method "
    "to(device), or move it where it is used: y.to(prediction.device)",
    "module-not-moved": "register its module as a part of the model (an attribute, nn.ModuleList), "
    "or move it beside the model",
    "index-on-cpu": "make the index on the device: torch.arange(n, device=x.device)",
    "moved-to-cpu": "leave it on its device, or move it back: .to(x.device)",
    "cuda-tensor-to-numpy": "stay in PyTorch, or write .detach().cpu().numpy() behind the step",
    "generator-on-cpu": "make the generator where it draws: torch.Generator(device=x.device)",
}

REGISTERED = ("_parameters", "_buffers", "_modules")  # a buffer that moved leaves its memory
SIGN_OF = {"cpu": "moved-to-cpu", "to": "moved-to-cpu", "from_numpy": "numpy-array-on-cpu"}
ON_CPU = "; a training that never leaves the CPU says so in Case.exempt"


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Two epochs of a step each on the pretended device.

    Attributes:
        stopped: what ended them early, with its place; "" if they were all seen.
    """

    seen: Pretended
    model: nn.Module
    batches: list[Any]
    stopped: str


def audit(subject: Subject) -> Audit | None:
    """The case's model, loss, backward pass and optimiser there; measured once. None: no loss."""
    return subject.once("audit of devices", _audit)


def _audit(subject: Subject) -> Audit | None:
    case = subject.case
    if case.model is None or (case.loss is None and not case.offers("loop")):
        return None
    there = Subject(case, DEVICE, subject.seed)
    stopped, batches = "", []
    with captured_output(), warnings.catch_warnings(), pretended() as seen:
        warnings.simplefilter("ignore")  # of autocast and GradScaler, which look for CUDA
        seen.stage = MODEL
        model = case.model()
        with _given_back(model):
            try:
                model.to(DEVICE)
                count, seen.stage = accumulation(subject), BATCH
                batches = [there.batch("train", ODD_BATCH, offset=k) for k in range(count)]
                seen.stage = STEP
                _train(there, model, batches)
            except Exception as error:  # noqa: BLE001  # what the code under test raises there
                stopped = f"{type(error).__name__} at {place_of(error)}: {error}"
    return Audit(seen=seen, model=model, batches=batches, stopped=stopped)


def _train(there: Subject, model: nn.Module, batches: list[Any]) -> None:
    """A short training, or the loss and its derivatives where the case has no more."""
    if there.case.offers("loop"):
        there.fit(model, Plan(epochs=EPOCHS, train=batches))
        return
    progress = Progress(epoch=1, epochs=EPOCHS)
    torch.autograd.backward(there.loss(model.train(), batches[0], progress).total)


@contextmanager
def _given_back(model: nn.Module) -> Iterator[None]:
    """A model that was lent keeps its own memory: what moves is copied."""
    parameters = [(parameter, parameter.data) for parameter in model.parameters()]
    buffers = [(module, dict(module._buffers)) for module in model.modules()]
    try:
        yield
    finally:
        for parameter, data in parameters:
            parameter.data, parameter.grad = data, None
        for module, held in buffers:
            for name, buffer in held.items():
                module._buffers[name] = buffer


@check(
    "G016",
    "one-device",
    title="All that meets in a step would stand on one device",
    what="Runs the case's model, loss, backward pass and optimiser on a GPU that is pretended: "
    "every tensor keeps the CPU's numbers and is followed to where it would stand after the "
    "toolkit moved the model (`model.to(device)`) and the tensors of the batch. Looks for "
    "operations on tensors of both devices, for CUDA tensors given to NumPy and for draws on CUDA "
    "from a generator of the CPU. Scalars without an axis go anywhere and are left alone, so are "
    "copies between devices and lengths that PyTorch wants on the CPU.",
    why="Most machines that test have no GPU: it shows first on the one that costs.",
    sources=("B1",),
    needs=("model", "batch"),
    signs=tuple(NEXT),
    thresholds=(
        Threshold(
            name="max_places",
            value=0,
            unit="places",
            why="on a GPU each of them is an error, or a copy in every step",
        ),
    ),
)
def one_device(context: Context) -> None:
    found = audit(context.subject)
    if found is None:
        return not_judged(context, "neither Case.loss nor a loop")
    seen = found.seen
    places = [
        *(_described(found, meeting) for meeting in seen.meetings),
        *(_refused(call) for call in seen.refused),
        *(_drawn(call) for call in seen.draws),
    ]
    problems = list(dict.fromkeys(places))  # each step shows them again
    context.measure(places=len(problems))
    for sign, cause, place in problems if len(problems) > context.limit("max_places") else ():
        context.problem(
            cause,
            sign=sign,
            place=place or place_of_loss(context.subject),
            next_step=NEXT[sign] + ON_CPU,
        )
    return _to_the_end(context, found)


@check(
    "G017",
    "step-runs-through",
    title="Nothing between forward and backward would wait for the GPU",
    what="Looks, in the same two steps, for values that the user's own code fetches from the "
    "device between the first call of a module and the backward pass: item(), float(), bool() as "
    "in an `if`, tolist(), cpu(), numpy(), printing, indexing with a mask and what else has a "
    "shape that depends on values. What comes behind the backward pass, as for a log, is left "
    "alone, and so is what PyTorch fetches by itself.",
    why="The CPU must run ahead of a GPU to keep it busy; every such value makes both wait for "
    "each other, in every step.",
    sources=("B1",),
    needs=("model", "batch"),
    thresholds=(
        Threshold(
            name="max_waits",
            value=0,
            unit="places",
            why="in a step that takes a millisecond each of them is felt",
        ),
    ),
)
def step_runs_through(context: Context) -> None:
    found = audit(context.subject)
    if found is None:
        return not_judged(context, "neither Case.loss nor a loop")
    waits, limit = found.seen.waits, context.limit("max_waits")
    context.measure(waits=[f"{call.name} {call.place}" for call in waits])
    if len(waits) > limit:
        shown = ", ".join(f"{call.name} at {call.place}" for call in waits)
        context.problem(
            f"{len(waits)} place{'s' if len(waits) > 1 else ''} between forward and backward would "
            f"wait for the GPU in every step: {shown} (limit {limit:g})",
            place=waits[0].place,
            next_step="keep the value a tensor (torch.where, a mask as a factor) or fetch it "
            "behind the backward pass; Case.exempt is for what has to wait",
        )
    return _to_the_end(context, found)


def _refused(call: Call) -> tuple[str, str, str]:
    cause = f"{call.name} of a tensor on CUDA: an error on a GPU"
    return "cuda-tensor-to-numpy", cause, call.place


def _drawn(call: Call) -> tuple[str, str, str]:
    cause = f"{call.name} draws on CUDA from a generator of the CPU: an error on a GPU"
    return "generator-on-cpu", cause, call.place


def _to_the_end(context: Context, found: Audit) -> None:
    """Nothing passes of which a part was not seen."""
    if found.stopped and not context.findings:
        raise NotCoveredError(f"the pretended GPU stops at {found.stopped:.200}")
    if found.stopped:
        context.say(f"not seen to the end: {found.stopped:.200}")


def _described(found: Audit, meeting: Meeting) -> tuple[str, str, str]:
    """Sign, cause and place of a tensor that stayed on the CPU."""
    sign, what, place = _stayed(found, meeting)
    operation = meeting.operation
    at = f" at {operation.place}" if operation.place and operation.place != place else ""
    end = "a copy in every step" if meeting.index else "an error on a GPU"
    return sign, f"{what} meets tensors on CUDA in {operation.name}(){at}: {end}", place


def _stayed(found: Audit, meeting: Meeting) -> tuple[str, str, str]:
    """Its sign, what it is and where it comes from."""
    origin, shape = meeting.origin, list(meeting.shape)
    call, met = origin.call, meeting.operation.place
    made, place = ("", met) if call is None else (f" made by {call.name}()", call.place or met)
    if origin.stage == PARAMETER:
        return "module-not-moved", "a parameter outside of the model", met
    if meeting.index:
        return "index-on-cpu", f"an index {shape} on the CPU{made}", place
    attribute, kind = _attribute(found.model, origin.tensor)
    if attribute:
        place = call.place if call is not None and call.place else where(kind)
        words = f"{attribute} {shape}, a plain tensor that model.to(device) doesn't move,"
        return "constant-not-moved", words, f"{place} ({attribute})"
    entry = _entry(found.batches, origin.tensor)
    if entry or origin.stage == BATCH:
        words = f"{entry or 'a tensor'} {shape} of the batch, which isn't moved with it,"
        return "batch-not-moved", words, met
    if call is None or origin.stage == MODEL:
        words = f"a tensor {shape} from outside of the step{made}"
        return "constant-not-moved", words, place
    sign = SIGN_OF.get(call.name, "made-without-device")
    return sign, f"a tensor {shape} on the CPU{made}", place


def _attribute(model: nn.Module, tensor: Tensor) -> tuple[str, type]:
    """Path of the plain attribute of a module that holds a tensor, and the module's class."""
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name not in REGISTERED and any(_same(held, tensor) for held in tensors_in(value)):
                return f"{path}.{name}".removeprefix("."), type(module)
    return "", type(model)


def _entry(batches: list[Any], tensor: Tensor) -> str:
    """The expression that gives a tensor of a batch."""
    entries = (entry for batch in batches for entry in named_tensors(batch).items())
    return next((name for name, held in entries if _same(held, tensor)), "")


def _same(one: Tensor, other: Tensor) -> bool:
    if one.layout != torch.strided or other.layout != torch.strided:
        return one is other
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr() != 0
