"""Workers that are killed, a journal that is torn, a folder that can't be written."""

import multiprocessing
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from optuna.trial import TrialState

from ris_diag.errors import SearchError
from ris_diag.search.checkpoint import PREFIX
from ris_diag.search.claims import claimed, given_up, retried
from ris_diag.search.storage import FileLock, Store
from ris_diag.search.study import judged, run_workers, work_quietly
from ris_diag.search.worker import CHECKPOINT, work
from tests.search.helpers import begun, order

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a small file system")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def running(store: Store, name: str) -> list[int]:
    study_id = store.storage.get_study_id_from_name(name)
    trials = store.storage.get_all_trials(study_id, states=(TrialState.RUNNING,))
    return [trial.number for trial in trials if trial.intermediate_values]


def test_a_worker_that_is_killed_in_a_trial_loses_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINY_WAIT", "0.15")
    an_order = order(folder, pruner="none")
    study, store = begun(an_order, 3)
    context = multiprocessing.get_context("spawn")
    worker = context.Process(target=work_quietly, args=(an_order,))
    worker.start()
    while not running(store, "small"):
        time.sleep(0.05)
    os.kill(worker.pid or 0, signal.SIGKILL)
    worker.join()
    (number,) = running(store, "small")
    reached = max(study.trials[number].intermediate_values)
    assert (store.trial_folder(number) / CHECKPOINT).is_file()
    monkeypatch.setenv("TINY_WAIT", "0")
    work(an_order)
    assert judged(study.trials) == {
        "COMPLETE": 3, "FAIL": 0, "PRUNED": 0, "RUNNING": 0, "WAITING": 0,
    }  # fmt: skip
    (again,) = [trial for trial in study.trials if retried(trial)]
    assert retried(again) == [number]
    assert len(again.intermediate_values) == 4 > reached
    fresh = order(folder.with_name("other"), pruner="none")
    other, _ = begun(fresh, 3)
    work(fresh)
    assert {t.value for t in other.trials} == {t.value for t in study.trials if t.value}


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY_WAIT", "0.1")
    an_order = order(folder, pruner="none")
    study, store = begun(an_order, 4)
    killed: list[int] = []

    def watch(trials: object) -> None:
        for child in multiprocessing.active_children():
            if not killed and running(store, "small"):
                killed.append(child.pid or 0)
                os.kill(child.pid or 0, signal.SIGKILL)

    run_workers(an_order, study, 2, watch)
    assert killed
    assert judged(study.trials)["COMPLETE"] == 4


def test_a_trial_that_kills_its_worker_again_and_again_is_given_up(folder: Path) -> None:
    an_order = order(folder)
    study, store = begun(an_order, 1)
    for _ in range(6):
        with claimed(study, store) as claim:
            if claim is None:
                break
            # The end of the scope without a result is what a dead worker leaves.
    assert len(study.trials) == 4
    assert given_up(study.trials[-1])
    assert judged(study.trials)["FAIL"] == 1


@pytest.mark.parametrize("torn", [b'{"op_code":6,"worker', b'{"op_code":6}', b"\x00" * 70000])
def test_a_torn_line_of_the_journal_is_cut_off(folder: Path, torn: bytes) -> None:
    an_order = order(folder)
    begun(an_order, 3)
    path = folder / "journal.log"
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(torn)
    study, _ = begun(an_order, 4)
    assert path.read_bytes().startswith(whole)
    assert torn not in path.read_bytes()[len(whole) :].splitlines(keepends=True)
    work(an_order)
    assert len(study.trials) == 4
    assert len(Store(None, folder).storage.get_all_trials(0)) == 4


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=hold, args=(path, ready))
    holder.start()
    assert ready.wait(30)
    lock = FileLock(path)
    assert not lock.acquire(wait=False)
    os.kill(holder.pid or 0, signal.SIGKILL)
    holder.join()
    assert lock.acquire(wait=False)
    lock.release()


def hold(path: Path, ready: "multiprocessing.synchronize.Event") -> None:
    lock = FileLock(path)
    lock.acquire()
    ready.set()
    time.sleep(60)


def test_killed_while_a_checkpoint_is_written(folder: Path) -> None:
    an_order = order(folder)
    study, store = begun(an_order, 1)
    (store.trial_folder(0) / f"{PREFIX}half").write_bytes(b"PK\x03\x04")
    work(an_order)
    assert judged(study.trials)["COMPLETE"] == 1
    assert not list(store.trial_folder(0).glob(f"{PREFIX}*"))


@pytest.mark.parametrize(
    ("error", "words"),
    [(OSError(28, "No space left on device"), "No space left"),
     (PermissionError(13, "Permission denied"), "Permission denied"),
     (OSError(30, "Read-only file system"), "Read-only file system")],
)  # fmt: skip
def test_a_journal_that_can_not_be_written_ends_the_worker_and_loses_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, words: str
) -> None:
    an_order = order(folder, pruner="none")
    study, _ = begun(an_order, 3)
    told: list[int] = []
    real = os.fsync

    def fail_later(descriptor: int) -> None:
        told.append(descriptor)
        if len(told) > 25:
            raise error
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail_later)
        with pytest.raises(SearchError, match=words) as caught:
            work(an_order)
    assert "what was written before is kept" in str(caught.value)
    done = [trial.number for trial in study.trials if trial.state == TrialState.COMPLETE]
    work(an_order)
    assert judged(study.trials)["COMPLETE"] == 3
    assert all(study.trials[number].state == TrialState.COMPLETE for number in done)


def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    an_order = order(small_disk, pruner="none")
    study, store = begun(an_order, 3)
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(512))
    with pytest.raises(SearchError, match=r"can't be written \(No space left on device\)"):
        work(an_order)
    filler.unlink()
    work(an_order)
    assert judged(study.trials)["COMPLETE"] == 3
    store.close()


def test_a_journal_of_which_half_a_line_is_written(folder: Path) -> None:
    an_order = order(folder, pruner="none")
    study, store = begun(an_order, 3)
    journal = folder / "journal.log"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.stat().st_size + 50, hard))
    try:
        with pytest.raises(SearchError, match=r"can't be written \(File too large\)"):
            work(an_order)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not journal.read_bytes().endswith(b"\n")  # half a line
    work(an_order)
    assert judged(study.trials)["COMPLETE"] == 3
    store.close()


def test_a_clock_that_jumps_back_changes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_order = order(folder, pruner="none")
    study, _ = begun(an_order, 2)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 1e6)
    work(an_order)
    assert judged(study.trials)["COMPLETE"] == 2
