"""A real PostgreSQL of its own for a test: initialised, started, killed and started again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from bench import LOOPBACK
from ports import free_port

_PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


class Postgres:
    """Debian's server. It refuses to run as root: then it runs as the user of its package."""

    def __init__(self, directory: Path) -> None:
        assert _PROGRAMS, "PostgreSQL is missing: make test names the Debian packages"
        self.port = free_port()
        # Beside pytest's folders: those are closed to everybody but the user who runs the tests.
        self.data = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._log = directory / "postgres.log"
        self._prefix: list[str] = []
        if os.getuid() == 0:
            self._prefix = [shutil.which("setpriv") or "setpriv", "--reuid=postgres", "--regid=postgres"]
            self._prefix += ["--clear-groups"]
            shutil.chown(self.data, "postgres", "postgres")
        self._process: subprocess.Popen | None = None
        self._run(
            "initdb", "-D", str(self.data), "-U", "fleet", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"
        )

    @property
    def dsn(self) -> str:
        return f"postgresql://fleet@{LOOPBACK}:{self.port}/postgres"

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [*self._prefix, str(_PROGRAMS[-1] / program), *arguments],
            check=True,
            capture_output=True,
            cwd="/",
        )

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._prefix,
                    str(_PROGRAMS[-1] / "postgres"),
                    # It is the process that dies in these tests, not the machine: no need to wait for the disk.
                    *("-D", str(self.data), "-p", str(self.port), "-h", LOOPBACK, "-k", "", "-F"),
                ],
                stdout=log,
                stderr=log,
                cwd="/",
            )
        deadline = time.monotonic() + 60
        ready = [str(_PROGRAMS[-1] / "pg_isready"), "-q", "-h", LOOPBACK, "-p", str(self.port)]
        while subprocess.run(ready, check=False).returncode:
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.05)

    def close(self) -> None:
        """Kill it, and remove its data."""
        self.kill()
        shutil.rmtree(self.data, ignore_errors=True)

    def kill(self) -> None:
        """As a power cut would: at once, no checkpoint, no farewell."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
            self._process = None
