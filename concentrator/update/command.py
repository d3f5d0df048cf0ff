"""`concentrator update install FILE`: a bundle from a file, installed now."""

from __future__ import annotations

import asyncio
import sys

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


@click.group()
def update() -> None:
    """Update the concentrator itself."""


@update.command()
@click.argument("file", type=click.Path())
@click.option("--bus", type=click.Choice(["system", "session"]), help="The D-Bus that RAUC is on.")
def install(file: str, bus: str | None) -> None:
    """Let RAUC check the signed bundle FILE and install it into the other slot."""
    outcome = asyncio.run(install_bundle(file, progress=_print_progress, bus=bus))
    click.echo(f"{outcome.state}: {outcome.message}", err=not outcome.installed)
    sys.exit(_EXIT_STATUS.get(outcome.state, _REFUSED))


def _print_progress(percentage: int, step: str) -> None:
    click.echo(f"{percentage:3} % {step}", err=True)
