"""The loss compares the prediction of a sample with that sample's label. B1, B2."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from ris_diag.anatomy import Called, dissect
from ris_diag.case import Batch
from ris_diag.check import Threshold, check
from ris_diag.context import Context, Subject
from ris_diag.graph import map_leaves
from ris_diag.measure import LITMUS_EPOCHS, accumulation, nudged_model, run_fit
from ris_diag.plan import Plan
from ris_diag.samples import named_tensors, not_judged, roles
from ris_diag.watched import ODD_BATCH

# Samples that trade places; a reversed or shifted order takes none of these sets to itself.
TRADING = ((0, 4, 8), (1, 2, 6), (3, 5, 10), (7, 9, 1), (0, 2, 5), (4, 6, 3), (8, 10, 7))
ENOUGH, CLEAR = 2, 0.9  # exchanges, where this share of the pairs of rows agrees
MOST_LABELS = 4
FEWEST = 50  # pairs of rows, of which fewer say little
MOVED = 0.1  # of the largest change: a row that has changed
ROUNDING = 1e-4  # of the largest output


_Compared = tuple[Called, Tensor, Tensor]  # a call, its prediction and its target


@dataclass
class _Pairing:
    """How often a prediction changes more in a row whose label changes than in one without."""

    place: str
    more: float = 0.0
    pairs: int = 0

    @property
    def share(self) -> float:
        """Of the pairs of such rows: 1 where labels stand beside their predictions."""
        return self.more / self.pairs if self.pairs else 1.0

    def count(self, change: Tensor, labelled: Tensor) -> None:
        """Add the rows of one exchange: changes [B] of the predictions, and where labels did."""
        own, others = change[labelled], change[~labelled].sort().values
        below, to = (torch.searchsorted(others, own, right=right) for right in (False, True))
        self.more += float((below + to).sum()) / 2
        self.pairs += len(own) * len(others)


@check(
    "G018",
    "loss-pairs-samples",
    title="The loss compares a sample's prediction with its own label",
    what="Takes one step of the author's loop on eleven samples from one random state, again with "
    "the inputs of three samples exchanged among them, and again with their labels exchanged "
    "instead. In each loss and difference of prediction and label the rows whose label changes are "
    "those whose prediction changes.",
    why="Predictions that are flattened, sorted or shuffled in another order than their labels "
    "teach each sample the label of another; the loss falls to what a constant reaches.",
    sources=("B1", "B2"),
    signs=("pairs-parted",),
    needs=("model", "batch", "loop"),
    thresholds=(
        Threshold(
            name="min_share",
            value=0.7,
            unit="share of the pairs of a row with a changed label and one without in which the "
            "first one's prediction changes more",
            why="it is 1/2 where labels stand beside other samples, and above 0.9 where they stand "
            "beside their own, batch statistics or not",
        ),
    ),
    requires=("L027",),
)
def loss_pairs_samples(context: Context) -> None:
    subject, limit = context.subject, context.limit("min_share")
    alone = context.result_of("L027")
    if alone.findings:
        return not_judged(context, "the model mixes samples, see L027")
    if "raises" in alone.measurements:
        return not_judged(context, "a batch can't be cut by samples, see L027")
    batch = subject.batch("train", ODD_BATCH)
    rows = {n: t for n, t in named_tensors(batch).items() if t.shape[:1] == (ODD_BATCH,)}
    known = roles(subject)
    inputs = [name for name in rows if name in known.inputs]
    labels = [name for name in rows if name not in known.inputs and not _constant(rows[name])]
    if known.unknown or not inputs or not labels:
        return not_judged(
            context, known.unknown or "no inputs or labels with a row for each sample"
        )
    found: dict[str, tuple[str, _Pairing]] = {}
    plain = _comparisons(subject, batch)
    moved = cache(lambda trading: _comparisons(subject, _traded(batch, inputs, trading)))
    for label in labels[:MOST_LABELS]:
        pairings = _pairings(subject, batch, label, plain, moved)
        if pairings and all(p.share < limit for p in pairings):
            worst = min(pairings, key=lambda p: p.share)
            found.setdefault(worst.place, (label, worst))
        context.measure(**{label: [p.share for p in pairings]})
    for place, (label, pairing) in found.items():
        context.problem(
            f"a row in which the loss sees another {label} sees its prediction change with that "
            f"sample's input more than a row without in {pairing.share:.0%} of the pairs (limit "
            f"{limit:.0%}; 50% is chance): labels meet the predictions of other samples",
            place=place,
            next_step="bring predictions and labels into one order: the same transpose, flatten, "
            "sort or shuffle for both",
        )
    return None


def _pairings(
    subject: Subject,
    batch: Batch,
    label: str,
    plain: list[_Compared],
    moved_by: Callable[[tuple[int, ...]], list[_Compared]],
) -> list[_Pairing]:
    """Of each comparison in which this label counts; empty where it can't be said of one."""
    found = [_Pairing(place=called.place) for called, _, _ in plain]
    for tried, trading in enumerate(TRADING, 1):
        by_input = moved_by(trading)
        by_label = _comparisons(subject, _traded(batch, [label], trading))
        if not len(plain) == len(by_input) == len(by_label):
            return []
        for pairing, *same in zip(found, plain, by_input, by_label, strict=True):
            (_, prediction, target), (_, moved, target_too), (_, prediction_too, other) = same
            shapes = {t.shape for t in (prediction, moved, prediction_too)}
            if len(shapes) > 1 or len({t.shape for t in (target, target_too, other)}) > 1:
                return []
            # What depends on input and label alike, as a target that the network makes.
            if not torch.equal(target, target_too) or not torch.equal(prediction, prediction_too):
                continue
            change, size = _change(prediction, moved), float(prediction.abs().max())
            own = _change(target, other)
            if not own.any() or not float(change.max()) > ROUNDING * size:
                continue
            pairing.count(change, own > MOVED * own.max())
        if tried >= ENOUGH and all(p.share >= CLEAR for p in found):
            break
    return [pairing for pairing in found if pairing.pairs >= FEWEST]


def _comparisons(subject: Subject, batch: Batch) -> list[_Compared]:
    """Comparisons of predictions and labels, row by row, in one step from one random state."""
    with subject.seeded("G018 step"):
        model = nudged_model(subject)
        plan = Plan(epochs=LITMUS_EPOCHS, train=[batch] * accumulation(subject))
        with dissect(model) as seen:
            run_fit(subject, subject.fit, model, plan, stop_after=1, planned=1)
    return list(_in_rows(seen.compared))


def _in_rows(compared: list[Called]) -> Iterator[_Compared]:
    for called in compared:
        tensors = [t.detach() for t in called.args.values() if isinstance(t, Tensor)]
        trains = [t.requires_grad for t in called.args.values() if isinstance(t, Tensor)]
        if len(tensors) < 2 or trains[0] == trains[1]:
            continue
        prediction, target = tensors[:2] if trains[0] else tensors[1::-1]
        if prediction.ndim and target.ndim and len(prediction) == len(target) > 1:
            yield called, prediction, target


def _traded(batch: Batch, names: list[str], trading: tuple[int, ...]) -> Batch:
    chosen = {id(tensor) for name, tensor in named_tensors(batch).items() if name in names}
    order = torch.arange(ODD_BATCH)
    order[list(trading)] = order[list(trading)].roll(1)

    def trade(leaf: object) -> object:
        known = isinstance(leaf, Tensor) and id(leaf) in chosen
        return leaf[order.to(leaf.device)] if known and isinstance(leaf, Tensor) else leaf

    return map_leaves(batch, trade)


def _change(before: Tensor, after: Tensor) -> Tensor:
    """Mean absolute change of each row: float64 [B]."""
    if before.dtype == torch.bool:
        before, after = before.long(), after.long()
    return (after - before).abs().double().reshape(len(before), -1).mean(1)


def _constant(values: Tensor) -> bool:
    return bool((values == values[:1]).all())
