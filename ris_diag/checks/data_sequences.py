"""Labels of sequences are in step with their inputs. B4."""

import torch
from torch import Tensor

from ris_diag.check import Threshold, check
from ris_diag.context import Context, Subject
from ris_diag.foretold import foretold
from ris_diag.graph import map_leaves
from ris_diag.measure import nudged_model
from ris_diag.places import where
from ris_diag.samples import named_tensors, not_judged, place_of_samples, probe, roles, samples
from ris_diag.script_data import entered

FURTHEST = 4
FEWEST_STEPS, FEWEST_WORDS = 4, 4
USUAL = (0, 1)
NEXT = 2  # steps beside its own
FORETOLD, CLEARLY = 0.75, 0.08  # of a label's entropy, by another input and more than by its own
ROUNDING = 1e-5  # of the largest output


@check(
    "D011",
    "labels-in-step",
    title="The labels of a sequence are its input, shifted as declared",
    what="Compares the whole numbers that the loss over classes gets, or the labels of the batch, "
    "with the tokens that enter the model, at shifts of up to four steps; masked ones, below zero, "
    "are left out. Without Declared(shift=...) only shifts that no one means are reported: two "
    "steps or more ahead, which is a shift made twice, one step back, and the same position "
    "where the model sees past and present alone, so that it has its answer in front of it. Labels "
    "of another kind than the tokens are reported where the input of a neighbouring step foretells "
    "them better than their own, and the model sees both sides.",
    why="A model that predicts its own input learns to copy, with an excellent loss; one that is "
    "shifted twice predicts the step after next.",
    sources=("B4",),
    signs=("labels-shifted",),
    needs=("inputs",),
    thresholds=(
        Threshold(
            name="min_share",
            value=0.98,
            unit="of the labels equal to the shifted input",
            why="a shift fits all of them; the ends of windows may not",
        ),
    ),
)
def labels_in_step(context: Context) -> None:
    subject = context.subject
    script = not (subject.case.offers("model") and subject.case.offers("batch"))
    declared = subject.case.declared
    wanted = None if declared is None else declared.shift
    if not script and roles(subject).unknown:
        return not_judged(context, roles(subject).unknown)
    pairs = (
        _tokens_of_a_script(subject)
        if script
        else tokens_of_the_loss(subject) or tokens_of_the_batch(subject)
    )
    pairs = [(t, y) for t, y in pairs if min(t.shape[1], y.shape[1]) >= FEWEST_STEPS]
    if not pairs:
        return not_judged(context, "no labels that are whole numbers beside a sequence of them")
    tokens, labels = pairs[0]
    fits = {shift: share_in_step(tokens, labels, shift) for shift in range(-FURTHEST, FURTHEST + 1)}
    context.measure(fits={str(shift): share for shift, share in fits.items()})
    least = context.limit("min_share")
    fitting = [shift for shift, share in fits.items() if share >= least]
    right = wanted in fitting if wanted is not None else bool(set(fitting) & set(USUAL))
    copied = (
        wanted is None
        and fitting == [0]
        and (_script_looks_back if script else _looks_back)(subject)
    )
    if right and not copied:
        return None
    found = max(fits, key=lambda shift: fits[shift])
    unclear = found not in fitting or found < -1 or len(torch.unique(tokens)) < FEWEST_WORDS
    if wanted is None and unclear and not script and _of_a_neighbour(context):
        return None
    if wanted is None and unclear:
        return not_judged(context, "the labels are no shifted copy of the input")
    usual = 1 if wanted is None else wanted
    context.problem(
        f"label[t] is input[t{found:+d}] in {fits[found]:.0%} of the labels; "
        f"{'usual' if wanted is None else 'declared'} is {usual:+d}, which fits "
        f"{fits.get(usual, 0.0):.0%} (limit {least:.0%})",
        sign="labels-shifted",
        place=_place(subject, script),
        next_step="shift once, in the data or in the loss: logits[:, :-1] against tokens[:, 1:]",
    )
    return None


def _of_a_neighbour(context: Context) -> bool:
    """Whether labels are those of the step beside them, by what foretells them; reported.

    A model that sees the past alone may be there to foretell what comes.
    """
    subject = context.subject
    for tokens, labels in tokens_of_the_batch(subject):
        told = foretold(tokens, labels, NEXT)
        context.measure(foretold={str(shift): share for shift, share in told.items()})
        best = max(told, key=lambda shift: told[shift], default=0)
        clear = best and told[best] >= FORETOLD and told[best] - told[0] >= CLEARLY
        if not clear or not _looks_back(subject, both_ways=True):
            continue
        context.problem(
            f"the input of step t{best:+d} foretells {told[best]:.0%} of label[t], its own input "
            f"{told[0]:.0%} (limit {CLEARLY:.0%} more than its own), and the model sees both sides",
            sign="labels-shifted",
            place=place_of_samples(subject),
            next_step="write words and labels by one index; look for a start symbol that one of "
            "them has, and for [1:] or [:-1] on one side",
        )
        return True
    return False


def _looks_back(subject: Subject, *, both_ways: bool = False) -> bool:
    """Whether outputs depend on the tokens in front of them and on none behind, or on both."""
    batch = probe(subject)
    known, named = roles(subject).inputs, named_tensors(batch)
    whole = [named[n] for n in known if named[n].ndim == 2 and named[n].dtype == torch.long]
    if len(whole) != 1 or len(torch.unique(whole[0])) < FEWEST_WORDS:
        return False
    tokens, model = whole[0], nudged_model(subject).eval()
    moved = _moved(tokens)
    with torch.no_grad():
        first = subject.predict(model, batch)
        second = subject.predict(model, map_leaves(batch, lambda t: moved if t is tokens else t))
    return _sides(tokens, moved, first, second) == (both_ways, True)


def _script_looks_back(subject: Subject) -> bool:
    """The same of a script's model, called once more with other tokens."""
    call = entered(subject).calls[0]
    if len(torch.unique(call.tokens)) < FEWEST_WORDS:
        return False
    moved = _moved(call.tokens)
    first, second = (call.given(tokens) for tokens in (call.tokens, moved))
    if not first or not second:
        return False
    return _sides(call.tokens, moved, first[0], second[0]) == (False, True)


def _moved(tokens: Tensor) -> Tensor:
    """The tokens in the middle are those of another sample."""
    middle = tokens.shape[1] // 2
    moved = tokens.clone()
    moved[:, middle] = tokens.roll(1, 0)[:, middle]
    return moved


def _sides(
    tokens: Tensor, moved: Tensor, first: Tensor, second: Tensor
) -> tuple[bool, bool] | None:
    """Whether outputs change in front of the middle, and behind it; None if that isn't seen."""
    middle, rows = tokens.shape[1] // 2, (moved != tokens).any(1)
    for output in (first, second):
        if not isinstance(output, Tensor) or output.shape[:2] != tokens.shape or output.ndim < 3:
            return None
    apart = (first - second)[rows].abs().flatten(2).amax(2)
    size = float(first.abs().max()) * ROUNDING
    return bool((apart[:, :middle] > size).any()), bool((apart[:, middle + 1 :] > size).any())


def _place(subject: Subject, script: bool) -> str:
    if script:
        return entered(subject).place or where(subject.case.main)
    return where(subject.case.loss) if roles(subject).targets else place_of_samples(subject)


def _tokens_of_a_script(subject: Subject) -> list[tuple[Tensor, Tensor]]:
    """Tokens of its first call, and what its first loss compared with, both [B, T]."""
    seen = entered(subject)
    return [
        (call.tokens, target.reshape(call.tokens.shape))
        for call, target in zip(seen.calls[:1], seen.targets[:1], strict=False)
        if target.numel() == call.tokens.numel()
    ]


def tokens_of_the_loss(subject: Subject) -> list[tuple[Tensor, Tensor]]:
    """Tokens and what the loss compared with, both [B, T]."""
    known = roles(subject)
    return [
        (tokens, target.reshape(len(tokens), -1))
        for tokens in known.tokens[:1]
        for target in known.targets
        if target.numel() % len(tokens) == 0 and target.numel() > len(tokens)
    ]


def tokens_of_the_batch(subject: Subject) -> list[tuple[Tensor, Tensor]]:
    known, found = roles(subject), samples(subject, "train")
    whole = {
        name: t
        for name, t in found.rows.items()
        if t.ndim == 2 and not (t.is_floating_point() or t.is_complex() or t.dtype == torch.bool)
    }
    return [
        (whole[x], whole[y])
        for x in known.inputs
        for y in known.labels
        if x in whole and y in whole
    ]


def share_in_step(tokens: Tensor, labels: Tensor, shift: int) -> float:
    """Share of the labels that are the input `shift` steps on; 0 where there are too few."""
    length = min(tokens.shape[1], labels.shape[1])
    steps = torch.arange(length)
    steps = steps[(steps + shift >= 0) & (steps + shift < tokens.shape[1])]
    given, ahead = labels[:, steps], tokens[:, steps + shift]
    kept = given >= 0
    if int(kept.sum()) < FEWEST_STEPS:
        return 0.0
    return float((given == ahead)[kept].double().mean())
