"""Where a rank is that gives no answer: its main thread's place, told by a thread beside it."""

import json
import os
import sys
import threading
import time
import traceback
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ris_diag.places import is_users, short_path

if TYPE_CHECKING:
    from ris_diag.ranks import Ranks

LOOK, ANSWER = 0.25, 5.0  # seconds between two looks; for the others' places
NOT_GREEN = 1
# Parts of a path to how a call in such a file is named.
COLLECTIVES = (
    ("torch/nn/parallel/distributed.py", {"__init__": "DistributedDataParallel()"}),
    ("torch/nn/parallel/distributed.py", {"forward": "DistributedDataParallel.forward()"}),
    ("torch/autograd/__init__.py", {"backward": "backward()"}),
    ("torch/_tensor.py", {"backward": "backward()"}),
    ("torch/nn/modules/_functions.py", {"forward": "SyncBatchNorm.forward()"}),
)
Frame = tuple[str, int, str]


def collective_in(trace: TracebackType | None) -> str:
    """Name of the collective in which an exception was raised; "" if it was none."""
    return _collective([(f.filename, f.lineno or 0, f.name) for f in traceback.extract_tb(trace)])


def _collective(frames: list[Frame]) -> str:
    """The outermost call of a collective behind the user's innermost frame."""
    users = [k for k, (path, _, _) in enumerate(frames) if is_users(path)]
    for path, _, name in frames[users[-1] + 1 if users else 0 :]:
        path = path.replace(os.sep, "/")
        if path.endswith("torch/distributed/distributed_c10d.py") and not name.startswith("_"):
            return "" if name == "wrapper" else f"{name}()"
        for file, names in COLLECTIVES:
            if path.endswith(file) and name in names:
                return names[name]
    return ""


def _position(frames: list[Frame]) -> str:
    """`in all_reduce() at train.py:31, in step`."""
    users = [frame for frame in frames if is_users(frame[0])]
    collective = _collective(frames)
    inside = f"in {collective} " if collective else ""
    if not users:
        return f"{inside}outside of the case's code"
    path, line, name = users[-1]
    return f"{inside}at {short_path(path)}:{line}, in {name}"


class Watch(threading.Thread):
    """Ends this process where a rank says that another gives no answer; rank 0 says which."""

    def __init__(self, ranks: "Ranks") -> None:
        super().__init__(daemon=True, name="ris-diag watch")
        self.ranks = ranks
        self._ended = threading.Event()
        self._main = threading.main_thread().ident

    def run(self) -> None:
        """Look every quarter of a second whether the ranks are to end."""
        while not self._ended.wait(LOOK):
            try:
                stopped = self.ranks.store.check(["stopped"])
            except RuntimeError:  # the store went with the rank that held it
                return
            if stopped:
                self._leave(json.loads(self.ranks.store.get("stopped")))

    def end(self) -> None:
        """Stop looking."""
        self._ended.set()
        self.join()

    def _leave(self, told: dict[str, Any]) -> None:
        store, rank = self.ranks.store, self.ranks.rank
        store.set(f"where/{rank}", self._where(told))
        if rank == 0:
            print(self._report(told), file=sys.__stderr__, flush=True)  # the one report
            store.set("reported", "")
        else:
            self._await(["reported"], 2 * ANSWER)
        os._exit(NOT_GREEN)  # the main thread may wait in a library that no exception reaches

    def _where(self, told: dict[str, Any]) -> str:
        if self.ranks.rank not in told["missing"]:
            return self.ranks.became
        frame = sys._current_frames().get(self._main or 0)
        walked = [(f.f_code, line) for f, line in traceback.walk_stack(frame)][::-1]
        frames = [(code.co_filename, line, code.co_name) for code, line in walked]
        return f"is {_position(frames)}"

    def _report(self, told: dict[str, Any]) -> str:
        keys = [f"where/{rank}" for rank in range(self.ranks.size)]
        self._await(keys, ANSWER)
        missing = told["missing"]
        named = f"rank{'s' * (len(missing) > 1)} {', '.join(map(str, missing))}"
        lines = [
            f"\n{told['check']}: no answer from {named} in {told['seconds']:.0f} s "
            f"({told['name']}): all ranks are ended"
        ]
        for rank, key in enumerate(keys):
            known = self.ranks.store.check([key])
            place = self.ranks.store.get(key).decode() if known else "doesn't say where it is"
            lines.append(f"  rank {rank} {place}")
        lines.append(
            "  Try: every rank must come to the same collectives in the same order, as often as "
            "the others; look for a condition on the rank around one, and for a rank without data"
        )
        return "\n".join(lines)

    def _await(self, keys: list[str], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self.ranks.store.check(keys) and time.monotonic() < end:
            time.sleep(LOOK)
