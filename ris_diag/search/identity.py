"""What a study is about: trials of another objective, space or data don't mix with its own."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ris_diag.errors import SearchError
from ris_diag.graph import tensors_in
from ris_diag.places import where
from ris_diag.result import plain
from ris_diag.search.searchable import Searchable
from ris_diag.search.space import Space
from ris_diag.search.training import Conditions, train_batches, validation_samples


def identity_of(
    searchable: Searchable, space: Space, conditions: Conditions, code: Mapping[str, Any]
) -> dict[str, str]:
    """Name to value: code, objective, defaults, space and data, each as text.

    Args:
        code: fingerprint of the source files, the configuration and the versions.
    """
    case = searchable.case({})
    parts = {
        "target": searchable.target,
        "metric": where(case.metric),
        "epochs per trial": conditions.epochs,
        "early-stop patience": conditions.patience,
        "seed": conditions.seed,
        "device": conditions.device,
        "validation data": digest(validation_samples(case, conditions.seed)),
        "training data": digest(next(iter(train_batches(case, conditions.seed)))),
        **{f"default of {name}": value for name, value in searchable.defaults.items()},
        **{f"space, {name}": text for name, text in space.described().items()},
        **{f"code, {name}": value for name, value in flat(code).items()},
    }
    return {name: value if isinstance(value, str) else repr(value) for name, value in parts.items()}


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested dict as one of texts, keys joined by dots."""
    found: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = json.dumps(plain(value))
    return found


def digest(batch: Any) -> str:
    """Of the bytes of all tensors of a batch."""
    total = hashlib.sha256()
    for tensor in tensors_in(batch):
        total.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(_bytes(tensor))
    return total.hexdigest()[:16]


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().resolve_conj().numpy().tobytes()


def refuse_another(study: str, known: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise unless a study is about the same.

    Raises:
        SearchError: all that differs.
    """
    names = [name for name in {**known, **now} if known.get(name) != now.get(name)]
    if names:
        lines = [
            f"{name}: {known.get(name, 'nothing')} then, {now.get(name, 'nothing')} now"
            for name in names
        ]
        raise SearchError(
            f"study {study!r} is about something else: {'; '.join(lines)}. Its trials can't be "
            "compared with new ones: name another --study, or go back to what it was"
        )
