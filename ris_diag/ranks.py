"""The processes that torchrun started: what they tell each other, and the groups they work in."""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor

from ris_diag.errors import CaseError
from ris_diag.places import place_of
from ris_diag.result import plain
from ris_diag.stuck import Watch, collective_in

PATIENCE = 30.0  # seconds for what takes no computation
SHORTEST, LONGEST = 2e-4, 0.05  # seconds between two looks for an answer
WAITED = re.compile(r"[Tt]imed? ?out|Connection (closed|reset|refused)|Broken pipe")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one rank's part.

    Attributes:
        value: plain data; None where it raised.
        raised: "ValueError: ..."; "" where it didn't.
        place: file:line of the user's code that raised.
        waited: the collective in which it waited until the time was up; "" where it didn't.
    """

    value: Any = None
    raised: str = ""
    place: str = ""
    waited: str = ""

    def said(self) -> str:
        """In words: "waited in backward() at train.py:31 until its time was up"."""
        at = f" at {self.place}" if self.place else ""
        if self.waited:
            return f"waited in {self.waited}{at} until its time was up"
        return f"raised {self.raised}{at}" if self.raised else "had finished"


@dataclass
class Ranks:
    """All ranks of one launch, as one of them sees them. Every rank must make the same calls.

    Attributes:
        store: through which plain data go, as JSON: nothing that is read can execute code.
        rank, size: which one this is, of how many.
        patience: seconds that a rank waits for the others.
        doing, became: the check at work, and what became of this rank's last part, for the report
            of a rank that gives no answer.
    """

    store: Any
    rank: int
    size: int
    patience: float = PATIENCE
    doing: str = "its start"
    became: str = "came here"
    _turn: int = 0
    _solo: Any = field(default=None, repr=False)
    _made: bool = False

    # ---- what ranks tell each other

    def share(self, name: str, value: Any, *, spent: float = 0.0) -> list[Any]:
        """The values of all ranks under a name, by rank.

        A rank that gets no answer in time ends all of them with one report.

        Args:
            value: plain data; NaN and infinities arrive as texts.
            spent: seconds that it took here; another rank may take twice as long.
        """
        told = json.dumps(plain(value))
        self._turn += 1
        keys = [f"{self._turn}/{name}/{rank}" for rank in range(self.size)]
        self.store.set(keys[self.rank], told)
        end, pause = time.monotonic() + self.patience + spent, SHORTEST
        while not self.store.check(keys):
            if time.monotonic() > end:
                missing = [r for r, key in enumerate(keys) if not self.store.check([key])]
                self._stop(name, missing)
                return []
            time.sleep(pause)
            pause = min(1.5 * pause, LONGEST)
        return [json.loads(self.store.get(key)) for key in keys]

    def each(self, name: str, part: Callable[[], Any]) -> list[Outcome]:
        """What became of every rank's part, by rank: an exception of one is known to all."""
        try:
            outcome = Outcome(value=part())
        except (Exception, SystemExit) as error:  # noqa: BLE001  # whatever the code under test raises
            text = f"{type(error).__name__}: {error}"
            collective = collective_in(error.__traceback__) or "a collective"
            outcome = Outcome(
                raised=text.splitlines()[0],
                place=place_of(error),
                waited=collective if WAITED.search(text) else "",
            )
        self.became = outcome.said()
        return [Outcome(**told) for told in self.share(name, vars(outcome))]

    def same(self, name: str, part: Callable[[], T]) -> T:
        """What this rank's part gives; where one raises, all do.

        Raises:
            CaseError: with the error, and the rank where it was raised on some alone.
        """
        kept: list[T] = []
        told = [outcome.raised for outcome in self.each(name, lambda: kept.append(part()))]
        if all(text == told[0] for text in told) and told[0]:
            raise CaseError(told[0].removeprefix("CaseError: "))
        for rank, text in enumerate(told):
            if text:
                raise CaseError(f"rank {rank}: {text}")
        return kept[0]

    def _stop(self, name: str, missing: list[int]) -> None:
        """End all ranks; their watches say where each of them is."""
        told = {"check": self.doing, "name": name, "missing": missing, "seconds": self.patience}
        self.store.set("stopped", json.dumps(told))
        time.sleep(2 * self.patience)  # the watch ends this process first
        raise TimeoutError(f"{name}: no answer from ranks {missing} in {self.patience:g} s")

    def own_device(self, device: str) -> str:
        """Name of this rank's device: of "cuda" the GPU with the rank's number on its machine."""
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device

    # ---- groups

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The default group holds this rank alone: the code inside sees a world of one process."""
        self._join()
        one = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
        with patch.dict(os.environ, one), _default_group(self._solo):
            yield

    @contextmanager
    def together(self, patience: float | None = None) -> Iterator[None]:
        """The default group is a fresh one of all ranks: if it breaks, no other does.

        Args:
            patience: seconds for a collective.
        """
        self._join()
        fresh = dist.new_group(timeout=timedelta(seconds=patience or self.patience))
        try:
            with _default_group(fresh), self._own_gpu():
                yield
        finally:
            dist.destroy_process_group(fresh)

    def _own_gpu(self) -> AbstractContextManager[Any]:
        """The GPU that a collective takes where none is named, where each rank has its own."""
        number = int(os.environ.get("LOCAL_RANK", "0"))
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return torch.cuda.device(number) if number < count else nullcontext()

    def _join(self) -> None:
        if self._solo is not None:
            return
        if not dist.is_initialized():
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(backend)
            self._made = True
        self._solo, _ = dist.new_subgroups(1)  # type: ignore[no-untyped-call]

    def go_last(self) -> None:
        """Rank 0 goes last: it may hold the store in which the others still read."""
        if self.rank:
            self.store.set(f"gone/{self.rank}", "")
            return
        end = time.monotonic() + self.patience
        while not self.store.check([f"gone/{rank}" for rank in range(1, self.size)]):
            if time.monotonic() > end:
                return
            time.sleep(LONGEST)

    def leave(self) -> None:
        """Destroy what was made here."""
        if self._solo is not None and dist.is_initialized():
            dist.destroy_process_group(None if self._made else self._solo)

    def gathered(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all ranks, by rank; they may differ in the first axis.

        Must be called inside of `together`.
        """
        raw = tensor.detach().resolve_conj().contiguous().reshape(-1).view(torch.uint8)
        shapes = self.share("shapes", list(tensor.shape))
        width = max(1, raw.numel() // max(1, tensor.numel()))
        sizes = [width * _product(shape) for shape in shapes]
        padded = raw.new_zeros(max(sizes))
        padded[: raw.numel()] = raw
        parts = [torch.empty_like(padded) for _ in shapes]
        dist.all_gather(parts, padded)
        return [
            part[:size].view(tensor.dtype).reshape(shape)
            for part, size, shape in zip(parts, sizes, shapes, strict=True)
        ]


def _product(shape: list[int]) -> int:
    return int(torch.Size(shape).numel())


@contextmanager
def _default_group(group: Any) -> Iterator[None]:
    """The group of calls that name none."""
    before = dist.group.WORLD
    dist.group.WORLD = group
    try:
        yield
    finally:
        dist.group.WORLD = before


@contextmanager
def launched_ranks(patience: float = PATIENCE) -> Iterator[Ranks | None]:
    """The ranks of which this process is one; None where torchrun didn't start it, or alone.

    Args:
        patience: seconds that a rank waits for the others.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "MASTER_ADDR" not in os.environ:
        yield None
        return
    # A build without torch.distributed has no such names.
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store, rank, size = next(rendezvous("env://"))
    ranks = Ranks(PrefixStore("ris_diag", store), rank, size, patience)
    watch = Watch(ranks)
    watch.start()
    try:
        yield ranks
        ranks.share("end", None)
        ranks.go_last()
    finally:
        watch.end()
        ranks.leave()
