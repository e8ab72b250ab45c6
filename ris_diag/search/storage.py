"""Where a study lives: a journal in a file, or PostgreSQL; both survive killed processes."""

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import IO, Any, TypeVar

import optuna
import sqlalchemy
from optuna.storages import (
    BaseStorage,
    JournalStorage,
    RDBStorage,
    RetryHeartbeatStaleTrialCallback,
)
from optuna.storages.journal import JournalFileBackend

from ris_diag.errors import SearchError

log = logging.getLogger("ris_diag")
T = TypeVar("T")
MOST_RETRIES = 3  # of a trial whose worker was killed; what kills four workers is the trial
HEARTBEAT, GRACE = 20, 90  # s
PATIENCE = 600.0  # s, for a database that doesn't answer
MENDED = (optuna.exceptions.StorageInternalError, sqlalchemy.exc.OperationalError)


def redacted(url: str) -> str:
    """The URL without user, password and options."""
    try:
        parts = sqlalchemy.engine.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        return "(a URL that can't be read)"
    return sqlalchemy.engine.URL.create(
        parts.drivername, host=parts.host, port=parts.port, database=parts.database
    ).render_as_string()


class FileLock:
    """A lock that the kernel takes back when its process dies, whatever the clock says."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None

    def acquire(self, *, wait: bool = True) -> bool:
        """Take it; without `wait`, False where another holds it."""
        file = self.path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.close()
            return False
        self._file = file
        return True

    def release(self) -> None:
        """Give it back."""
        if self._file is not None:
            self._file.close()
            self._file = None


class JournalLock(FileLock):
    """The lock of a journal. Who takes it cuts off what a killed process or a full disk left.

    Optuna would write on behind part of a line, and the file could not be read any more.
    """

    def __init__(self, journal: Path) -> None:
        super().__init__(journal.with_name(f"{journal.name}.lock"))
        self.journal = journal

    def acquire(self, *, wait: bool = True) -> bool:
        """Take it, and make the journal end with a whole line."""
        taken = super().acquire(wait=wait)
        if taken:
            with self.journal.open("r+b") as file:
                whole, size = _end_of_lines(file)
                if whole < size:
                    log.warning("%s: %d bytes of a torn line cut off", self.journal, size - whole)
                    file.truncate(whole)
        return taken


def _end_of_lines(file: IO[bytes]) -> tuple[int, int]:
    """Where the last whole line ends, and where the file does."""
    start = size = file.seek(0, os.SEEK_END)
    tail = b""
    while start and b"\n" not in tail:
        start = max(0, start - 65536)
        file.seek(start)
        tail = file.read(size - start)
    return start + tail.rfind(b"\n") + 1, size


def _patient(method: Callable[..., T]) -> Callable[..., T]:
    """A call of the database that waits while the server is down."""

    @wraps(method)
    def call(self: "PatientStorage", *args: Any, **kwargs: Any) -> T:
        return waiting(lambda: method(self, *args, **kwargs))

    return call


def waiting(call: Callable[[], T]) -> T:
    """The call's result; while the server doesn't answer it is tried again."""
    deadline, pause = time.monotonic() + PATIENCE, 0.2
    while True:
        try:
            return call()
        except MENDED as error:
            reason = (
                error if isinstance(error, sqlalchemy.exc.OperationalError) else error.__cause__
            )
            if not isinstance(reason, sqlalchemy.exc.DBAPIError) or time.monotonic() > deadline:
                raise
            if not isinstance(reason, sqlalchemy.exc.OperationalError):
                raise
            log.warning("the database doesn't answer: next attempt in %.1f s", pause)
            time.sleep(pause)
            pause = min(5.0, 2 * pause)


class PatientStorage(RDBStorage):
    """PostgreSQL with heartbeats; a restart of the server is waited for."""


for _name in sorted(
    (BaseStorage.__abstractmethods__ | {"record_heartbeat", "_get_stale_trial_ids"})
    | {"_create_new_trial", "_set_trial_param", "_get_trials", "_get_best_trial_id"}
):
    if hasattr(RDBStorage, _name):
        setattr(PatientStorage, _name, _patient(getattr(RDBStorage, _name)))


class Store:
    """A storage of Optuna's, with what it lacks: one lock for all workers of a search."""

    def __init__(self, url: str | None, folder: Path) -> None:
        """Open it, or make it.

        Args:
            url: `postgresql://...`; None is a journal in the folder.

        Raises:
            SearchError: no such server or database, no right to write. Says no password.
        """
        self.folder = folder
        self.shown = redacted(url) if url else str(folder / "journal.log")
        self._rdb: PatientStorage | None = None
        try:
            (folder / "trials").mkdir(parents=True, exist_ok=True)
            if url is None:
                self.storage: BaseStorage = _journal(folder / "journal.log")
            else:
                self._rdb = _database(url)
                self.storage = optuna.storages.get_storage(self._rdb)
        except OSError as error:
            raise SearchError(f"{error.filename or folder}: {error.strerror}") from error
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            said = str(getattr(error, "orig", None) or error.__cause__ or error).splitlines()[0]
            raise SearchError(f"--storage {self.shown}: {_without_secrets(said, url)}") from None

    @property
    def beats(self) -> bool:
        """Whether its trials live by heartbeats; those of a journal hold a lock."""
        return self._rdb is not None

    def close(self) -> None:
        """Give the connections back."""
        if self._rdb is not None:
            self._rdb.remove_session()
            self._rdb.engine.dispose()

    def beat(self, trial_id: int) -> None:
        """Say that the worker of a trial lives."""
        if self._rdb is not None:
            self._rdb.record_heartbeat(trial_id)

    @contextmanager
    def mutex(self, name: str = "study") -> Iterator[None]:
        """Only one process of the search at a time; one that dies gives it back."""
        if self._rdb is None:
            lock = FileLock(self.folder / f"{name}.lock")
            lock.acquire()
            try:
                yield
            finally:
                lock.release()
            return
        engine = self._rdb.engine
        connection = waiting(engine.connect)
        try:
            key = sqlalchemy.text("select pg_advisory_lock(hashtext(:name))")
            connection.execute(key, {"name": f"ris-diag {name}"})
            yield
        finally:
            connection.invalidate()  # ends the session, and with it the lock
            connection.close()

    def trial_folder(self, number: int) -> Path:
        """Where a trial keeps its files."""
        path = self.folder / "trials" / f"{number:04d}"
        path.mkdir(parents=True, exist_ok=True)
        return path


def _journal(path: Path) -> JournalStorage:
    path.touch()
    path.open("ab").close()  # a file that can't be written is told at once
    lock: Any = JournalLock(path)  # the class that Optuna asks for is private; it calls these two
    return JournalStorage(JournalFileBackend(str(path), lock))


def _database(url: str) -> PatientStorage:
    parts = sqlalchemy.engine.make_url(url)
    if parts.get_backend_name() != "postgresql":
        raise SearchError(f"--storage {redacted(url)}: expected postgresql://HOST/DATABASE")
    parts = parts.set(drivername="postgresql+psycopg")
    engine = sqlalchemy.create_engine(parts)
    try:
        engine.connect().close()  # a wrong name is told at once
    finally:
        engine.dispose()
    template = parts.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    return PatientStorage(
        template,
        engine_kwargs={"pool_pre_ping": True, "hide_parameters": True},
        heartbeat_interval=HEARTBEAT,
        grace_period=GRACE,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(
            max_retry=MOST_RETRIES, inherit_intermediate_values=True
        ),
    )


def _without_secrets(text: str, url: str | None) -> str:
    password = sqlalchemy.engine.make_url(url).password if url else None
    return text.replace(str(password), "***") if password else text
