"""`concentrator update install FILE`: a bundle from a file, installed now.

The running service is told of it, so that the page and the head-end see it. Where there is none, nothing is lacking.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from pathlib import Path
from typing import Any

import click

from concentrator.config import ConfigError, load_config
from concentrator.control import ControlError, request
from concentrator.update.rauc import InstallOutcome, InstallState, install_bundle

# Exit statuses: 0 installed, 1 refused or failed, 2 nothing to install, 3 no one to ask.
_EXIT_STATUS = {
    InstallState.INSTALLED: 0,
    InstallState.FILE_MISSING: 2,
    InstallState.RAUC_MISSING: 3,
    InstallState.BUS_MISSING: 3,
    InstallState.ACCESS_DENIED: 3,
}
_REFUSED = 1
_TELL_TIMEOUT_S = 5.0


def install(file: str, bus: str | None, config_file: Path) -> int:
    """Install one bundle, telling progress and outcome; returns the exit status."""
    outcome = asyncio.run(_install(file, bus, _Teller(_socket(config_file))))
    click.echo(f"{outcome.state}: {outcome.message}", err=not outcome.installed)
    return _EXIT_STATUS.get(outcome.state, _REFUSED)


def _socket(config_file: Path) -> Path | None:
    try:
        return load_config(config_file, ports_exist=False).control_socket
    except ConfigError:
        return None


class _Teller:
    """Tells the running service, in order, and never holds up the installation."""

    def __init__(self, socket: Path | None) -> None:
        self._socket = socket
        self._job = f"update-{secrets.token_hex(4)}"
        self._news: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def tell(self, do: str, **fields: object) -> None:
        self._news.put_nowait({"op": "update", "do": do, "job": self._job, **fields})

    async def run(self) -> None:
        """Until `finish`; a service that does not answer is not told any more."""
        while (news := await self._news.get()) is not None:
            if self._socket is None:
                continue
            try:
                async with asyncio.timeout(_TELL_TIMEOUT_S):
                    await request(self._socket, news)
            except (ControlError, OSError, ValueError):
                # TimeoutError is an OSError. The next may be answered: the service may be starting.
                continue

    def finish(self) -> None:
        self._news.put_nowait(None)


async def _install(file: str, bus: str | None, teller: _Teller) -> InstallOutcome:
    def progressed(percentage: int, step: str) -> None:
        click.echo(f"{percentage:3} % {step}", err=True)
        teller.tell("progress", progress=percentage, step=step)

    telling = asyncio.create_task(teller.run())
    teller.tell("begin", target=Path(file).name, by="concentrator update install, on the box")
    try:
        outcome = await install_bundle(file, progress=progressed, bus=bus)
        words = f"{outcome.state}: {outcome.message}"
        teller.tell("end", installed=outcome.installed, slot=outcome.slot, words=words)
    finally:
        teller.finish()
        with contextlib.suppress(asyncio.CancelledError):
            await telling
    return outcome
