"""Files that are there as a whole or not at all, and the state of a training in one of them."""

import logging
import os
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ris_diag.errors import SearchError

log = logging.getLogger("ris_diag")
PREFIX = ".unfinished-"


@contextmanager
def writing(what: Path | str) -> Iterator[None]:
    """A file that can't be written ends the search with its name, not the trial."""
    try:
        yield
    except OSError as error:
        raise SearchError(
            f"{what} can't be written ({error.strerror or error}); what was written before is "
            "kept: make room or give the right, and start the same command again"
        ) from error


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors and plain data; a process that is killed meanwhile leaves the old file.

    Raises:
        OSError: the folder is read-only, the disk is full; the old file is untouched.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=PREFIX)
    try:
        with os.fdopen(handle, "wb") as file:
            try:
                torch.save(dict(content), file)
                file.flush()
            except RuntimeError as error:  # torch's words for a file that takes no more bytes
                raise OSError(f"{path}: {error}") from error
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load(path: Path, device: torch.device) -> dict[str, Any] | None:
    """What `save` wrote; None where there is nothing, or nothing that can be read."""
    for leftover in path.parent.glob(f"{PREFIX}*"):  # of processes that were killed
        leftover.unlink(missing_ok=True)
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # noqa: BLE001  # torch raises what the damage makes of it
        log.warning("%s can't be read (%s): the trial begins anew", path, type(error).__name__)
        return None
    return content


def state_of(model: nn.Module, kept: Sequence[Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """What a training needs to go on: weights, what else is kept, and the random states.

    Args:
        kept: optimisers, schedulers, whatever has a `state_dict`, and torch.Generators.
        own: what the step keeps from batch to batch.
    """
    return {
        "model": model.state_dict(),
        "kept": [one.get_state() if _draws(one) else one.state_dict() for one in kept],
        "own": dict(own) if all(map(_is_plain, own.values())) else None,
        "random": random_state(),
    }


def can_put_back(state: Mapping[str, Any], kept: Sequence[Any]) -> bool:
    """Whether all that the training kept is in the file."""
    return state.get("own") is not None and len(state["kept"]) == len(kept)


def put_back(state: Mapping[str, Any], model: nn.Module, kept: Sequence[Any]) -> None:
    """Bring a fresh training to where another one stood."""
    model.load_state_dict(state["model"])
    for one, saved in zip(kept, state["kept"], strict=True):
        if _draws(one):
            one.set_state(saved.cpu())
        else:
            one.load_state_dict(saved)
    set_random_state(state["random"])


def can_be_kept(value: Any) -> bool:
    """Whether `state_of` knows how to keep it."""
    return _draws(value) or (hasattr(value, "state_dict") and hasattr(value, "load_state_dict"))


def _draws(value: Any) -> bool:
    return isinstance(value, torch.Generator)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, torch.Tensor | bool | int | float | str)


def random_state() -> dict[str, Any]:
    """The states of python, numpy and torch, as plain data."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position),
                  int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],  # type: ignore[no-untyped-call]
    }  # fmt: skip


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put the random states back."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"]:
        torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])
