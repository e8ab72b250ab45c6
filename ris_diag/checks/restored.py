"""Best weights that were kept as a reference. B1."""

from ris_diag.check import Threshold, check
from ris_diag.context import Context
from ris_diag.watched import watch


@check(
    "L047",
    "restores-a-copy",
    title="What is restored is a copy, not the weights as they are",
    what="Watches load_state_dict() in a short training: whether the tensors that it is given are "
    "the very ones that the module has.",
    why="state_dict() gives references. Kept as the best weights without a copy they move with "
    "every step: restoring them does nothing, and the last epoch is handed out as the best.",
    sources=("B1",),
    signs=("restores-itself",),
    needs=("run",),
    thresholds=(
        Threshold(name="max_calls", value=0, unit="calls", why="none of them does anything"),
    ),
)
def restores_a_copy(context: Context) -> None:
    fitted = watch(context.subject)
    if not fitted.epochs:
        context.say("not judged: of a script the first steps are seen, not its end")
        return
    calls = fitted.restored
    context.measure(calls=len(calls))
    if len(calls) > context.limit("max_calls"):
        kind, place = calls[0]
        context.problem(
            f"{len(calls)} calls of load_state_dict() give {kind} the tensors that it has (limit "
            f"{context.limit('max_calls'):g}): nothing is restored",
            sign="restores-itself",
            place=place,
            next_step="keep copy.deepcopy(model.state_dict())",
        )
