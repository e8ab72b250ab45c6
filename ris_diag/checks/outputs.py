"""Every sample and every output counts in the loss. B2."""

import torch
from torch import Tensor

from ris_diag.anatomy import Anatomy
from ris_diag.check import Threshold, check
from ris_diag.context import Context, Subject
from ris_diag.measure import accumulation, listed, shake
from ris_diag.oracle import Losing, Unreachable
from ris_diag.samples import roles, rows_of_batch, samples
from ris_diag.watched import DISSECTED, ODD_BATCH, dissected, place_of_loss

SOURCES = ("B1",)
SHAKEN = 0.1  # of the weights' spread: a layer that starts at zero hides nothing


@check(
    "G012",
    "every-prediction-counts",
    title="Every sample and every output counts in the loss",
    what="Looks at the gradient that comes back to the network's output in three steps on "
    "different samples: a sample's position, or an output, that never gets any doesn't count. Of "
    "complex outputs also at that of each term by itself.",
    why="A loss of the first sample alone, or of half of the outputs, falls as well.",
    sources=("B2",),
    signs=("prediction-unused",),
    needs=("run",),
    thresholds=(
        Threshold(
            name="max_unused",
            value=0.25,
            unit="share of the samples without a gradient in all three steps",
            why="a margin that is met, or a mask, is somewhere else in every batch; by chance a "
            "few positions meet it in all",
        ),
    ),
)
def every_prediction_counts(context: Context) -> None:
    seen = dissected(context.subject)
    outputs = [o for o in seen.outputs if o.gradient is not None and o.value.ndim > 0]
    problems: dict[str, str] = {}
    shapes = {(o.module, tuple(o.value.shape)) for o in outputs}
    for module, shape in shapes:
        gradients = [
            o.gradient
            for o in outputs
            if (o.module, tuple(o.value.shape)) == (module, shape) and o.gradient is not None
        ]
        if len(gradients) < 3 or shape[0] < 4 or not all(g.any() for g in gradients):
            continue
        idle = _idle_classes(context.subject, gradients)
        if idle:
            problems[f"{module} classes"] = idle
        used = torch.stack([g != 0 for g in gradients]).any(0)
        rows = used.reshape(len(used), -1).any(1)
        columns = used.any(0) if len(shape) == 2 else torch.ones(1, dtype=torch.bool)
        where_ = f"of {list(shape)} from {module}" if module else f"of {list(shape)}"
        if float((~rows).double().mean()) > context.limit("max_unused"):
            lost = (~rows).nonzero().flatten().tolist()
            problems[module] = (
                f"{len(lost)} of {shape[0]} samples of the prediction {where_} get no gradient in "
                f"any of {len(gradients)} steps (positions {listed([str(k) for k in lost])}; "
                f"limit {context.limit('max_unused'):.0%})"
            )
        elif not columns.all() and len(columns) * 4 <= shape[0] * len(gradients):
            lost = (~columns).nonzero().flatten().tolist()
            problems[module] = (
                f"{len(lost)} of {shape[1]} outputs of the prediction {where_} get no gradient in "
                f"any of {len(gradients)} steps (outputs {listed([str(k) for k in lost])}; limit 0)"
            )
        elif gradients[0].is_complex() and not any(g.imag.any() for g in gradients):
            problems[module] = (
                f"the imaginary part of the prediction {where_} gets no gradient in any of "
                f"{len(gradients)} steps"
            )
    inverted = _padding_that_counts(seen)
    if inverted:
        problems["mask"] = inverted
    if not problems:
        problems.update(_terms_without_phase(context.subject))
    context.measure(outputs=len(outputs), unused=list(problems.values()))
    if problems:
        for text in problems.values():
            context.problem(
                text,
                place=place_of_loss(context.subject),
                next_step="build the loss from all samples and outputs: look at indices, masks, "
                "slices and at a reduction that picks one",
            )


def _terms_without_phase(subject: Subject) -> dict[str, str]:
    """Terms that pull at the real parts of a complex output alone, another hides it in the total.

    Imaginary parts that are zero, as of a real truth's network, have no gradient and no need.
    """
    case = subject.case
    if case.loss is None or not all(map(case.offers, ("model", "batch"))):
        return {}
    model, batch = subject.model(), subject.batch("train", ODD_BATCH)
    shake(model, SHAKEN)
    try:
        losing = Losing.of(subject, model, batch, lambda output: True)
        named, tensors = losing.tensors(*losing.path.outputs)
    except Unreachable:
        return {}
    mixed = [t for t in tensors if t.is_complex() and t.ndim > 2 and bool(t.imag.any())]
    found: dict[str, str] = {}
    for name, value in named.items() if mixed else ():
        if name == "total" or not value.requires_grad:
            continue
        gradients = torch.autograd.grad(value, mixed, retain_graph=True, allow_unused=True)
        for gradient in gradients:
            if gradient is None or bool(gradient.imag.any()):
                continue
            apart = ~torch.eye(*gradient.shape[-2:], dtype=torch.bool, device=gradient.device)
            if bool((gradient * apart).any()):
                found[name] = (
                    f"{name} has a gradient for the real part of the prediction "
                    f"{list(gradient.shape)} alone: its imaginary part doesn't count there"
                )
    return found


def _idle_classes(subject: Subject, gradients: list[Tensor]) -> str:
    """What is wrong where all samples of one class get no gradient, and all of the others do."""
    if not subject.case.offers("loop") or accumulation(subject) > 1 or len(gradients) != DISSECTED:
        return ""
    names = [name for name in roles(subject).labels if name in samples(subject, "train").rows]
    batches = [subject.batch("train", ODD_BATCH, offset=k) for k in range(DISSECTED)]
    for name in names:
        rows = [rows_of_batch(subject, batch).get(name) for batch in batches]
        labels = [r for r in rows if r is not None and r.ndim == 1 and not r.is_floating_point()]
        if [len(label) for label in labels] != [len(g) for g in gradients]:
            continue
        label = torch.cat(labels)
        counts = torch.cat([(g != 0).flatten(1).any(1) for g in gradients])
        idle = {int(c) for c in torch.unique(label[~counts])} - {
            int(c) for c in torch.unique(label[counts])
        }
        several = [c for c in idle if int((label == c).sum()) >= FEW]
        others = ~torch.isin(label, torch.tensor(sorted(idle), dtype=label.dtype))
        if several and bool(counts[others].all()) and bool(others.any()):
            shown = listed([str(c) for c in sorted(several)])
            return (
                f"no sample of class {shown} gets a gradient ({int((~counts).sum())} of "
                f"{len(label)} samples in {len(gradients)} steps), and every other sample does"
            )
    return ""


def _padding_that_counts(seen: Anatomy) -> str:
    """What is wrong where steps of equal input, as of padding, get the gradient, and no others."""
    for output in seen.outputs:
        shape = output.value.shape[:2]
        if output.gradient is None or len(shape) < 2 or output.value.ndim < 3:
            continue
        counts = (output.gradient != 0).flatten(2).any(2)
        # Padding stands at the end; symbols that are masked to be guessed stand anywhere.
        if not bool((counts[:, 1:] >= counts[:, :-1]).all()):
            continue
        for entered in output.entered:
            if entered.shape[:2] != shape or entered.dtype == torch.bool:
                continue
            steps = entered.reshape(*shape, -1)
            inside, outside = steps[counts], steps[~counts]
            alike = len(inside) > FEW and bool((inside == inside[:1]).all())
            if alike and len(outside) > FEW and not bool((outside == outside[:1]).all()):
                return (
                    f"{len(inside)} of {counts.numel()} steps of the sequences count in the loss, "
                    f"and the input of all of them is the same, as in padding; the {len(outside)} "
                    "steps whose input differs get no gradient: the mask is the wrong way round"
                )
    return ""


FEW = 4  # steps
