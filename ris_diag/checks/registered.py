"""Every parameter that counts is the model's, and tied as it should be. B1."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from ris_diag.check import Threshold, check
from ris_diag.context import Context
from ris_diag.measure import listed, ties
from ris_diag.places import where
from ris_diag.watched import class_of, named_modules, named_parameters, watch

SOURCES = ("B1",)
EACH = Threshold(name="max_offenders", value=0, unit="parameters", why="each is to be trained")


@check(
    "L021",
    "parameters-are-registered",
    title="Every parameter that the loss depends on belongs to the model",
    what="Walks the graph of the loss to its leaves and looks for parameters that neither the "
    "model's parameters() nor an optimiser holds.",
    why="Layers in a plain Python list work in forward() and are neither trained, saved nor moved "
    "to the GPU.",
    sources=SOURCES,
    needs=("run",),
    thresholds=(EACH,),
)
def parameters_are_registered(context: Context) -> None:
    fitted = watch(context.subject)
    trace = fitted.trace
    known = {id(p) for p in named_parameters(fitted).values()}
    known |= {id(p) for o in trace.optimizers for g in o.param_groups for p in g["params"]}
    # Modules that a script calls by themselves: L013 says what no optimiser holds of them.
    known |= {id(p) for call in trace.calls for p in call.module.parameters()}
    reached = {n for passes in trace.backward for n in passes.reached}
    hidden = {
        id(value): path
        for name, module in named_modules(fitted).items()
        for path, value in _hidden(module, name)
    }
    outside = [
        hidden.get(id(trace.parameters[n]), trace.names[n])
        for n in sorted(reached)
        if id(trace.parameters[n]) not in known
        and (isinstance(trace.parameters[n], nn.Parameter) or id(trace.parameters[n]) in hidden)
    ]
    context.measure(reached=len(reached), outside=outside)
    if len(outside) > context.limit("max_offenders"):
        context.problem(
            f"the loss depends on {len(outside)} parameters that the model's parameters() don't "
            f"hold ({listed(outside)}), limit 0",
            place=class_of(context.subject, fitted.roots, outside[0]),
            next_step="keep layers in nn.ModuleList or nn.ModuleDict and tensors in nn.Parameter, "
            "as attributes of the module",
        )


def _hidden(module: nn.Module, path: str) -> Iterator[tuple[str, Tensor]]:
    """Tensors with a gradient in attributes that PyTorch doesn't look into."""
    for key, value in vars(module).items():
        if not key.startswith("_"):
            yield from _tensors(value, f"{path}.{key}")


def _tensors(value: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor) and value.requires_grad:
        yield path, value
    elif isinstance(value, nn.Module):
        for name, parameter in value.named_parameters():
            yield f"{path}.{name}", parameter
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _tensors(item, f"{path}[{number}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _tensors(item, f"{path}[{key!r}]")


@check(
    "L022",
    "ties-as-declared",
    title="Tied weights are and stay one tensor, others are not",
    what="Compares the parameters that are one tensor, in a fresh model and behind the training, "
    "with each other and with Declared.tied where it is given.",
    why="A copy, a load or a re-initialisation cuts a tie in silence, and the two halves drift.",
    sources=SOURCES,
    signs=("tie-not-made", "tie-cut", "tie-undeclared"),
    needs=("model", "batch", "loop"),
    thresholds=(Threshold(name="max_offenders", value=0, unit="groups", why="each is meant"),),
)
def ties_as_declared(context: Context) -> None:
    subject = context.subject
    fitted = watch(subject)
    fresh, trained = ties(subject.model()), fitted.ties
    declared = None if subject.case.declared is None else subject.case.declared.tied
    wanted = fresh if declared is None else {frozenset(group) for group in declared}
    context.measure(fresh=_sorted(fresh), trained=_sorted(trained), wanted=_sorted(wanted))
    limit = context.limit("max_offenders")
    for groups, sign, text in (
        (wanted - fresh, "tie-not-made", "declared tied, but not in a fresh model"),
        (wanted - trained, "tie-cut", "no longer one tensor behind the training"),
        ((fresh | trained) - wanted, "tie-undeclared", "one tensor without being declared tied"),
    ):
        if len(groups) > limit:
            context.problem(
                f"{text}: {'; '.join(' = '.join(group) for group in _sorted(groups))}",
                sign=sign,
                place=where(type(fitted.roots[0])),
                next_step="assign the Parameter itself (decoder.weight = encoder.weight), and "
                "nothing to either of them later",
            )


def _sorted(groups: set[frozenset[str]]) -> list[list[str]]:
    return sorted(sorted(group) for group in groups)
