"""`concentrator update install FILE`: a bundle from a file, installed now."""

from __future__ import annotations

import asyncio

import click

from concentrator.update.rauc import InstallState, install_bundle

# Exit statuses: 0 installed, 1 refused or failed, 2 nothing to install, 3 no one to ask.
_EXIT_STATUS = {
    InstallState.INSTALLED: 0,
    InstallState.FILE_MISSING: 2,
    InstallState.RAUC_MISSING: 3,
    InstallState.BUS_MISSING: 3,
    InstallState.ACCESS_DENIED: 3,
}
_REFUSED = 1


def install(file: str, bus: str | None) -> int:
    """Install one bundle, telling progress and outcome; returns the exit status."""
    outcome = asyncio.run(install_bundle(file, progress=_print_progress, bus=bus))
    click.echo(f"{outcome.state}: {outcome.message}", err=not outcome.installed)
    return _EXIT_STATUS.get(outcome.state, _REFUSED)


def _print_progress(percentage: int, step: str) -> None:
    click.echo(f"{percentage:3} % {step}", err=True)
