"""Head-ends that take files: a real OpenSSH server, and an HTTP server that can be made to fail."""

from __future__ import annotations

import asyncio
import getpass
import os
import shutil
import subprocess
from pathlib import Path

import psutil
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench import LOOPBACK, until
from ports import free_port


class SshServer:
    """Debian's sshd with its own SFTP server, for the user that runs the tests and one key."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.user = getpass.getuser()
        self.folder = directory / "received"
        self.folder.mkdir()
        self.client_key = directory / "client_key"
        self.known_hosts = directory / "known_hosts"
        self._directory = directory
        self._process: subprocess.Popen | None = None
        host_key = directory / "host_key"
        for key in (self.client_key, host_key):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)],
                check=True,
                capture_output=True,
            )
        authorized = directory / "authorized_keys"
        authorized.write_text(Path(f"{self.client_key}.pub").read_text())
        public = Path(f"{host_key}.pub").read_text().split()[:2]
        self.known_hosts.write_text(f"[{LOOPBACK}]:{self.port} {' '.join(public)}\n")
        (directory / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress {LOOPBACK}\nHostKey {host_key}\nAuthorizedKeysFile {authorized}\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\n"
            f"PermitRootLogin yes\nPidFile none\nSubsystem sftp internal-sftp\n"
        )

    def _launch(self) -> None:
        program = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin")
        assert program, "sshd is missing: make test names the Debian packages"
        if os.getuid() == 0:
            # Where its unit makes it on a running system.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self._process = subprocess.Popen(
            [program, "-D", "-e", "-f", str(self._directory / "sshd_config")],
            stdout=subprocess.DEVNULL,
            stderr=(self._directory / "sshd.log").open("wb"),
        )

    async def start(self) -> None:
        self._launch()

        async def listens():
            try:
                _reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
            except OSError:
                return False
            writer.close()
            return True

        await until(listens, 20, "sshd listens")

    def kill(self) -> None:
        if self._process is not None:
            # Each session is a child that would outlive it.
            for child in psutil.Process(self._process.pid).children(recursive=True):
                child.kill()
            self._process.kill()
            self._process.wait()
            self._process = None


class HttpReceiver:
    """Keeps what is put; `status` is what it answers, and what is not a success keeps nothing."""

    def __init__(self) -> None:
        self.port = free_port()
        self.files: dict[str, bytes] = {}
        self.types: dict[str, str] = {}
        self.status = 201
        self.seen = 0
        self.authorizations: list[str | None] = []
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task | None = None

    async def _take(self, request: Request) -> Response:
        body = await request.body()
        self.seen += 1
        self.authorizations.append(request.headers.get("authorization"))
        if self.status < 300:
            name = request.path_params.get("name") or request.headers["content-disposition"].split('"')[1]
            self.files[name] = body
            self.types[name] = request.headers["content-type"]
        return Response("no <b>room</b>" if self.status >= 300 else "", status_code=self.status)

    async def start(self, **tls) -> None:
        application = Starlette(
            routes=[
                Route("/in/{name}", self._take, methods=["PUT"]),
                Route("/in/", self._take, methods=["POST"]),
            ]
        )
        config = uvicorn.Config(application, LOOPBACK, self.port, log_level="error", lifespan="off", **tls)
        self._server = uvicorn.Server(config)
        self._task = asyncio.create_task(self._server.serve())
        await until(lambda: self._server.started, 10, "the HTTP server listens")

    async def stop(self) -> None:
        if self._server is not None:
            self._server.should_exit = True
            await self._task
            self._server = None
