"""Samples of a case's batches: which tensors are inputs, which are labels, row by row."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from ris_diag.case import Batch
from ris_diag.context import Context, Subject, to_device
from ris_diag.lent import Lent, lent_to
from ris_diag.measure import LITMUS_EPOCHS
from ris_diag.origins import WEIGHED, Origins, Raw
from ris_diag.places import where
from ris_diag.plan import Progress
from ris_diag.randomness import derived_seed

# Primes, so that another axis is as long by chance only; then the second one is tried.
PROBED, INSTEAD = 17, 23
SIZES = (401, 257, 131, 67, 31, PROBED)
MOST_NUMBERS = 2**18  # in the samples of one split
MOST_BATCHES = 32
TRUTH = "truth(batch)"
LOADER = "loader"  # in place of a split: what the loader serves for training


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Which tensors of a batch are which, by name.

    Attributes:
        inputs: those that enter the outermost calls of the model.
        labels: the truth where it is declared, else what else the loss uses.
        raw: what layers with weights get directly from the batch.
        tokens, targets: whole numbers that entered the model, and that its loss compared with.
        derivatives: whether the loss takes derivatives, so that its labels may be residuals.
        unknown: why they can't be told apart; "" where they can.
        unlabelled: why there is no label; "" where there is one.
    """

    inputs: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    raw: tuple[Raw, ...] = ()
    tokens: tuple[Tensor, ...] = ()
    targets: tuple[Tensor, ...] = ()
    derivatives: bool = False
    unknown: str = ""
    unlabelled: str = ""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Tensors of a split, one row a sample, by their name in the batch.

    Attributes:
        whole: whether these are all samples that there are.
    """

    split: str
    rows: dict[str, Tensor]
    whole: bool = False

    @property
    def count(self) -> int:
        """Number of samples."""
        return next((len(values) for values in self.rows.values()), 0)

    def of(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Those of the tensors that have one row a sample."""
        return {name: self.rows[name] for name in names if name in self.rows}


def named_tensors(value: Any, name: str = "batch") -> dict[str, Tensor]:
    """The tensors of a batch by the expression that gives them, as in `batch['x'][0]`."""
    if isinstance(value, Tensor):
        return {name: value}
    parts: list[tuple[str, Any]] = []
    if isinstance(value, Mapping):
        parts = [(f"{name}[{key!r}]", item) for key, item in value.items()]
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        parts = [(f"{name}.{key}", getattr(value, key)) for key in value._fields]
    elif isinstance(value, list | tuple):
        parts = [(f"{name}[{number}]", item) for number, item in enumerate(value)]
    elif is_dataclass(value) and not isinstance(value, type):
        parts = [(f"{name}.{f.name}", getattr(value, f.name)) for f in fields(value)]
    return {
        key: tensor for part, item in parts for key, tensor in named_tensors(item, part).items()
    }


def sample_count(tensors: Mapping[str, Tensor], asked: int) -> int:
    """How many samples a batch holds that was asked for so many; it may have its own mind."""
    shapes = [tuple(tensor.shape) for tensor in tensors.values() if tensor.ndim]
    if any(asked in shape for shape in shapes):
        return asked
    firsts = Counter(shape[0] for shape in shapes)
    return firsts.most_common(1)[0][0] if firsts else 0


def has_rows(tensor: Tensor, count: int) -> bool:
    """Whether one axis counts the samples; two do where samples are related to each other."""
    shape = list(tensor.shape)
    once = shape.count(count) == 1 or (count == 1 and shape[:1] == [1])
    return count > 0 and once and not tensor.is_sparse


def in_rows(tensors: Mapping[str, Tensor], asked: int) -> dict[str, Tensor]:
    """Those with one row a sample, that axis first."""
    count = sample_count(tensors, asked)
    return {
        name: tensor.detach().movedim(list(tensor.shape).index(count), 0)
        for name, tensor in tensors.items()
        if has_rows(tensor, count)
    }


def roles(subject: Subject) -> Roles:
    """Inputs and labels of the case's batches, found in one pass; measured once."""
    return subject.once("roles of a batch", _roles)


def _roles(subject: Subject) -> Roles:
    case, batch = subject.case, probe(subject)
    roots = named_tensors(batch)
    if not roots:
        return Roles(unknown=f"batches of {type(batch).__name__} hold no tensors in the open")
    if case.model is None or not (case.offers("prediction") or case.loss is not None):
        return Roles(unknown="neither Case.predict nor Case.loss says what enters the model")
    try:
        loss, prediction = _followed(subject, batch, roots)
    except Exception as error:  # noqa: BLE001  # the checks of the loss report it
        return Roles(unknown=f"the model raises {type(error).__name__}: {error}")
    # A model may be given its labels as well, to compute its loss; inference has none.
    inputs = (prediction.entered if prediction else set()) or (loss.entered if loss else set())
    if not inputs:
        return Roles(unknown="no tensor of the batch was seen to enter the model")
    used = loss.used if loss else set(roots)
    labels = tuple(n for n in in_rows(roots, probed(subject)) if n in used and n not in inputs)
    unlabelled = "" if labels else "the batch holds no label beside the inputs"
    if case.truth is not None:
        origins = Origins(roots)
        with origins, torch.no_grad():
            truth = case.truth(batch)
        same = [name for name, tensor in roots.items() if tensor is truth]
        labels, unlabelled = tuple(same or [TRUTH]), ""
        if origins.of(truth) & inputs:
            labels, unlabelled = (), "the truth is computed from the input"
    path = loss or prediction
    return Roles(
        inputs=tuple(name for name in roots if name in inputs),
        labels=labels,
        raw=tuple(path.raw) if path else (),
        tokens=tuple(path.tokens) if path else (),
        targets=tuple(path.targets) if path else (),
        derivatives=loss is not None and loss.derivatives,
        unlabelled=unlabelled,
    )


def _followed(
    subject: Subject, batch: Batch, roots: Mapping[str, Tensor]
) -> tuple[Origins | None, Origins | None]:
    """The tensors followed through the loss, and through the prediction; None without it."""
    case, loss, prediction = subject.case, None, None
    if case.loss is not None:
        model, loss = subject.model().train(), Origins(roots)
        with loss.watching(model), loss:
            case.loss(model, batch, Progress(epoch=1, epochs=LITMUS_EPOCHS))
    if case.offers("prediction"):
        model, prediction = subject.model().eval(), Origins(roots)
        with prediction.watching(model), prediction, torch.no_grad():
            subject.predict(model, batch)
    for origins in (loss, prediction):
        if origins is not None:
            origins.used.discard(WEIGHED)
    return loss, prediction


def samples(subject: Subject, split: str) -> Samples:
    """Samples of a split from `Case.batch`, as many as are cheap; measured once."""
    return subject.once(f"samples {split}", lambda subject: _samples(subject, split))


def _samples(subject: Subject, split: str) -> Samples:
    first = _rows_of(subject, split, PROBED, 0)
    numbers = sum(tensor[:1].numel() for tensor in first.values())
    size = next((size for size in SIZES if size * numbers <= MOST_NUMBERS), PROBED)
    rows = first if size == PROBED else _rows_of(subject, split, size, 0)
    seen = set(hashes(rows))
    for offset in range(1, MOST_BATCHES if lent_of(subject) is None else 1):
        if not rows or Samples(split=split, rows=rows).count >= size:
            break
        more = _rows_of(subject, split, size, offset)
        new = hashes(more)
        if more.keys() != rows.keys() or sum(row in seen for row in new) > len(new) / 2:
            break
        if any(more[name].shape[1:] != rows[name].shape[1:] for name in rows):
            break
        rows = {name: torch.cat([rows[name], more[name]]) for name in rows}
        seen.update(new)
    found = Samples(split=split, rows=rows)
    return replace(found, whole=lent_of(subject) is not None and found.count < size)


def _rows_of(subject: Subject, split: str, size: int, offset: int) -> dict[str, Tensor]:
    return rows_of_batch(subject, subject.batch(split, size, offset=offset))


def rows_of_batch(subject: Subject, batch: Batch) -> dict[str, Tensor]:
    """Tensors of a batch with one row a sample, the declared truth among them."""
    tensors = _with_truth(subject, batch, TRUTH in roles(subject).labels)
    axes = subject.once("axes of a batch", _axes)
    if not axes.keys() & tensors.keys():  # a loader whose batches have another structure
        return in_rows(tensors, -1)
    rows = {
        name: tensors[name].detach().movedim(axis, 0)
        for name, axis in axes.items()
        if name in tensors and tensors[name].ndim > axis
    }
    count = Counter(map(len, rows.values())).most_common(1)[0][0] if rows else 0
    return {name: values for name, values in rows.items() if len(values) == count}


def _axes(subject: Subject) -> dict[str, int]:
    """Which axis of a tensor counts the samples, by name; seen where no other is as long."""
    batch = probe(subject)
    tensors = _with_truth(subject, batch, TRUTH in roles(subject).labels)
    count = sample_count(tensors, probed(subject))
    return {
        name: list(tensor.shape).index(count)
        for name, tensor in tensors.items()
        if has_rows(tensor, count)
    }


def _with_truth(subject: Subject, batch: Batch, wanted: bool) -> dict[str, Tensor]:
    tensors = named_tensors(batch)
    if wanted and subject.case.truth is not None:
        tensors[TRUTH] = subject.case.truth(batch)
    return tensors


def probe(subject: Subject) -> Batch:
    """A small training batch, made once."""
    return subject.once("probed batch", lambda subject: subject.batch("train", probed(subject)))


def probed(subject: Subject) -> int:
    """How many samples that batch was asked for: a length that none of its other axes has."""

    def size(subject: Subject) -> int:
        tensors = named_tensors(subject.batch("train", PROBED))
        return INSTEAD if any(list(t.shape).count(PROBED) > 1 for t in tensors.values()) else PROBED

    return subject.once("size of a probe", size)


def lent_of(subject: Subject) -> Lent | None:
    """Where a script's own loaders stand behind the case: what holds them."""
    return lent_to(subject.case)


def splits_apart(subject: Subject) -> bool:
    """Whether the case's batches depend on the split: one source lent for all can't be judged."""
    return subject.once("splits apart", _splits_apart)


def _splits_apart(subject: Subject) -> bool:
    lent, batch = lent_of(subject), subject.case.batch
    if lent is not None:
        return lent.validation is not None
    if batch is None:
        return False
    seed, size = derived_seed(subject.seed, "any split"), probed(subject)
    one, other = (
        list(hashes(in_rows(named_tensors(batch(split, seed, size)), size)))
        for split in ("train", "validation")
    )
    return one != other


def hashes(rows: Mapping[str, Tensor]) -> list[int]:
    """A number for each sample, the same for equal values."""
    if not rows:
        return []
    count = len(next(iter(rows.values())))
    parts = []
    for tensor in rows.values():
        values = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
        flat = values.detach().cpu().reshape(count, -1).contiguous()
        parts.append(flat.view(torch.uint8).reshape(count, -1).numpy())
    return [hash(b"".join(part[row].tobytes() for part in parts)) for row in range(count)]


@contextmanager
def served(subject: Subject) -> Iterator[Iterable[Batch] | None]:
    """The training batches as the author serves them; None where none are known.

    The random state of a loader that was lent is as it was, behind the `with`.
    """
    lent, loader = lent_of(subject), subject.case.loader
    if loader is not None:
        yield loader("train", subject.seed)
    elif lent is not None:
        with lent.serving("train", subject.seed) as batches:
            yield batches
    else:
        yield None


def first_batches(subject: Subject) -> list[dict[str, Tensor]] | None:
    """Rows of the first batches of a training epoch, as many as are cheap; measured once."""
    return subject.once("served batches", _first_batches)


def _first_batches(subject: Subject) -> list[dict[str, Tensor]] | None:
    with served(subject) as batches:
        if batches is None:
            return None
        found: list[dict[str, Tensor]] = []
        numbers = 0
        for batch in islice(batches, MOST_BATCHES):
            found.append(rows_of_batch(subject, to_device(batch, subject.device)))
            numbers += sum(tensor.numel() for tensor in found[-1].values())
            if numbers > MOST_NUMBERS:
                break
        return found


def sources(subject: Subject) -> list[Samples]:
    """Samples of training and validation, and those that a loader of its own serves."""
    found = [samples(subject, split) for split in ("train", "validation")]
    batches = first_batches(subject) if subject.case.loader is not None else None
    first = batches[0] if batches else {}
    shapes = {name: values.shape[1:] for name, values in first.items()}
    fitting = [b for b in batches or () if {n: v.shape[1:] for n, v in b.items()} == shapes]
    if shapes:
        rows = {name: torch.cat([batch[name] for batch in fitting]) for name in shapes}
        found.append(Samples(split=LOADER, rows=rows))
    return found


def not_judged(context: Context, reason: str) -> None:
    """Say that there is nothing to say."""
    context.say(f"not judged: {reason}")


def place_of_samples(subject: Subject, split: str = "train") -> str:
    """file:line of what makes the samples."""
    lent = lent_of(subject)
    if lent is not None and not (split == LOADER and subject.case.loader is not None):
        return f"the {'train' if split == LOADER else split} loader of {lent.given}"
    return where(subject.case.loader if split == LOADER else subject.case.batch)


def place_of_loader(subject: Subject) -> str:
    """file:line of what serves the training batches."""
    loader = subject.case.loader
    return where(loader) if loader is not None else place_of_samples(subject)


def numbers_of(tensor: Tensor) -> Tensor:
    """Real numbers, float64 [B, F]: real and imaginary parts of complex ones side by side."""
    values = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    return values.reshape(len(values), -1).double()


def is_continuous(values: Tensor) -> bool:
    """Whether these are real numbers, not whole ones."""
    real = values.is_floating_point() or values.is_complex()
    numbers = torch.view_as_real(values.resolve_conj()) if values.is_complex() else values
    return real and bool((numbers != numbers.round()).any())
