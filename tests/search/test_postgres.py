"""A search on PostgreSQL: killed workers, a restarted server, a password that nobody reads."""

import logging
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from ris_diag.errors import SearchError
from ris_diag.search import storage
from ris_diag.search.claims import retried
from ris_diag.search.storage import Store, redacted
from ris_diag.search.study import judged, run_workers, work_quietly
from ris_diag.search.worker import Order
from tests.search.helpers import begun, order
from tests.search.postgres import PASSWORD, Server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
]
Process = multiprocessing.process.BaseProcess


def quick(an_order: Order) -> None:
    """A worker whose heart beats faster than in earnest."""
    storage.HEARTBEAT, storage.GRACE = 1, 3
    work_quietly(an_order)


def worker(an_order: Order) -> Process:
    process = multiprocessing.get_context("spawn").Process(target=quick, args=(an_order,))
    process.start()
    return process


def running(store: Store) -> list[Any]:
    study_id = store.storage.get_study_id_from_name("small")
    return list(store.storage.get_all_trials(study_id, states=(TrialState.RUNNING,)))


def all_over(store: Store) -> bool:
    study_id = store.storage.get_study_id_from_name("small")
    states = (TrialState.RUNNING, TrialState.WAITING)
    return not store.storage.get_all_trials(study_id, states=states)


def test_ten_kills_over_two_workers_lose_nothing_and_count_nothing_twice(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "HEARTBEAT", 1)
    monkeypatch.setattr(storage, "GRACE", 3)
    monkeypatch.setenv("TINY_WAIT", "0.2")
    an_order = order(folder, url=server.url, epochs=9)
    study, store = begun(an_order, 16)
    workers = [worker(an_order), worker(an_order)]
    kills = 0
    while kills < 10:
        time.sleep(0.05)
        for number, process in enumerate(workers):
            if not process.is_alive():
                assert process.exitcode == 0, "it ended before it was killed ten times"
            victims = [t for t in running(store) if t.intermediate_values and len(retried(t)) < 2]
            if kills < 10 and len(victims) == len(running(store)) > 0:
                os.kill(process.pid or 0, signal.SIGKILL)
                process.join()
                kills += 1
                workers[number] = worker(an_order)
                time.sleep(1.0)
    while not all_over(store):
        time.sleep(0.2)
    for process in workers:
        process.join(60)
        assert process.exitcode == 0
    counts = judged(study.trials)
    assert counts["COMPLETE"] + counts["PRUNED"] == 16
    assert counts["FAIL"] == counts["RUNNING"] == counts["WAITING"] == 0
    ended = [t for t in study.trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    origins = Counter((retried(t) or [t.number])[0] for t in ended)
    assert origins == dict.fromkeys(range(16), 1)


def test_a_server_that_is_restarted_is_waited_for(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "HEARTBEAT", 2)
    monkeypatch.setattr(storage, "GRACE", 60)
    monkeypatch.setenv("TINY_WAIT", "0.1")
    an_order = order(folder, url=server.url, pruner="none")
    study, store = begun(an_order, 8)
    workers = [worker(an_order), worker(an_order)]
    while not any(t.intermediate_values for t in running(store)):
        time.sleep(0.05)
    server.stop()
    time.sleep(2)
    assert all(process.is_alive() for process in workers)
    server.start()
    for process in workers:
        process.join(90)
        assert process.exitcode == 0
    # Where the outage outlasts the grace period a trial is repeated, and counts once all the same.
    assert judged(study.trials)["COMPLETE"] == 8
    ended = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert sorted((retried(t) or [t.number])[0] for t in ended) == list(range(8))


def test_the_password_stands_nowhere(
    server: Server,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    an_order = order(folder, url=server.url)
    study, store = begun(an_order, 2)
    run_workers(an_order, study, 1, lambda trials: None)
    assert judged(study.trials)["COMPLETE"] + judged(study.trials)["PRUNED"] == 2
    assert store.shown == f"postgresql://127.0.0.1:{server.port}/postgres"
    out, err = capfd.readouterr()
    kept = [str(study.user_attrs), str(an_order.described()), caplog.text, out, err, store.shown]
    kept += [f"{t.user_attrs} {t.system_attrs}" for t in study.trials]
    kept += [path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file()]
    assert not any(PASSWORD in text or "se%7Bcret" in text or "searcher" in text for text in kept)


def test_a_wrong_password_is_told_without_it(server: Server, folder: Path) -> None:
    with pytest.raises(SearchError) as caught:
        Store(f"postgresql://searcher:wr0ng@127.0.0.1:{server.port}/postgres", folder)
    assert "wr0ng" not in str(caught.value)
    assert f"--storage postgresql://127.0.0.1:{server.port}/postgres" in str(caught.value)
    assert "password authentication failed" in str(caught.value)


@pytest.fixture(autouse=True)
def closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every store that a test opens is closed."""
    opened: list[Store] = []
    begin = Store.__init__

    def remember(self: Store, *args: Any) -> None:
        begin(self, *args)
        opened.append(self)

    monkeypatch.setattr(Store, "__init__", remember)
    yield
    for store in opened:
        store.close()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@host:5432/db?password=again", "postgresql://host:5432/db"),
        ("postgresql+psycopg://me@host/db", "postgresql+psycopg://host/db"),
        ("no url at all", "(a URL that can't be read)"),
    ],
)
def test_a_url_is_shown_without_credentials(url: str, shown: str) -> None:
    assert redacted(url) == shown


def test_another_database_is_refused(folder: Path) -> None:
    with pytest.raises(SearchError, match="--storage mysql://host/db: expected postgresql://"):
        Store("mysql://me:secret@host/db", folder)
