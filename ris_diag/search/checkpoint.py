"""Files that are there as a whole or not at all, and the state of a training in one of them."""

import logging
import os
import random
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ris_diag.case import Training
from ris_diag.errors import SearchError
from ris_diag.loop import optimizers_of

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


def state_of(training: Training) -> dict[str, Any]:
    """Model, optimisers, scheduler, what the step keeps, and the random states."""
    return {
        "model": training.model.state_dict(),
        "optimizers": [one.state_dict() for one in optimizers_of(training.optimizer)],
        "scheduler": None if training.scheduler is None else training.scheduler.state_dict(),
        "kept": training.state if all(map(_is_plain, training.state.values())) else None,
        "random": random_state(),
    }


def can_put_back(state: Mapping[str, Any]) -> bool:
    """Whether all that the training kept is in the file."""
    return state.get("kept") is not None


def put_back(state: Mapping[str, Any], training: Training) -> None:
    """Bring a fresh training to where another one stood."""
    training.model.load_state_dict(state["model"])
    for one, saved in zip(optimizers_of(training.optimizer), state["optimizers"], strict=True):
        one.load_state_dict(saved)
    if training.scheduler is not None:
        training.scheduler.load_state_dict(state["scheduler"])
    training.state.update(state["kept"])
    set_random_state(state["random"])


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
