"""A PostgreSQL of Debian's package on loopback, for the tests alone."""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

PASSWORD = "se{cret&%40"  # noqa: S105  # of a server that lives as long as a test


def binaries() -> Path | None:
    """Where the server's programs are: Debian keeps them out of the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    path = str(found[-1]) if found else shutil.which("pg_ctl")
    return Path(path).parent if path else None


class Server:
    """Owned by `postgres` where root starts it: the server refuses to run as root."""

    def __init__(self, binaries: Path) -> None:
        self.binaries = binaries
        self.root = Path(tempfile.mkdtemp(prefix="ris-diag-postgres-"))
        (self.root / "password").write_text(PASSWORD)
        self.as_owner = []
        if os.getuid() == 0:
            shutil.chown(self.root, "postgres")
            shutil.chown(self.root / "password", "postgres")
            self.as_owner = ["runuser", "-u", "postgres", "--"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._run(
            "initdb", "--username=searcher", "--auth=scram-sha-256",
            f"--pwfile={self.root / 'password'}", f"--pgdata={self.root / 'data'}", "--no-sync",
        )  # fmt: skip

    def _run(self, program: str, *args: str) -> None:
        subprocess.run(
            [*self.as_owner, str(self.binaries / program), *args],
            check=True, cwd=self.root, stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def start(self) -> None:
        options = f"-p {self.port} -k {self.root} -c listen_addresses=127.0.0.1 -c fsync=off"
        data, log = str(self.root / "data"), str(self.root / "log")
        self._run("pg_ctl", "start", "-w", "-D", data, "-l", log, "-o", options)

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", str(self.root / "data"))

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.root)

    @property
    def url(self) -> str:
        from sqlalchemy.engine import URL

        parts = URL.create("postgresql", "searcher", PASSWORD, "127.0.0.1", self.port, "postgres")
        return parts.render_as_string(hide_password=False)
