"""`concentrator run`: the service, started anew when its configuration changes, with the former where that fails."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from concentrator.access.configuration import ConfigurationFile
from concentrator.access.errors import ConfigurationChangeError
from concentrator.archive import in_place
from concentrator.command_options import CONFIG_OPTION
from concentrator.config import load_config
from concentrator.errors import ConcentratorError
from concentrator.service_process import RESTART, run_service


@click.command()
@CONFIG_OPTION
@click.option(
    "--page/--no-page", "with_page", default=True, help="Whether to start the diagnostics page too."
)
def run(config_file: Path, *, with_page: bool) -> None:
    """Run the concentrator until it is told to stop."""
    file = ConfigurationFile(config_file.absolute())
    restored = in_place.finish(file.path, datetime.now(UTC))
    if restored:
        click.echo(f"concentrator: {restored}", err=True)
    taken_back = _begin(file)
    status = RESTART
    trouble = ""
    try:
        config = load_config(config_file)
        status = asyncio.run(
            run_service(
                config,
                config_file.absolute(),
                with_page=with_page,
                taken_back=taken_back,
                restored=restored,
            )
        )
    except ConcentratorError as error:
        if file.trial() is None:
            raise
        file.revert()
        for line in str(error).splitlines():
            click.echo(f"concentrator: {line}", err=True)
        click.echo("concentrator: the former configuration is taken back", err=True)
        trouble = f"the service does not start under it: {error}"
    if status == RESTART:
        _start_anew(trouble)
    sys.exit(status)


_TAKEN_BACK = "CONCENTRATOR_CONFIGURATION_TAKEN_BACK"


def _begin(file: ConfigurationFile) -> str:
    told = os.environ.pop(_TAKEN_BACK, "")
    try:
        return file.begin() or told
    except ConfigurationChangeError as error:
        # The configuration that is there is tried all the same: better a box that reads meters.
        for line in str(error).splitlines():
            click.echo(f"concentrator: {line}", err=True)
        return told


def _start_anew(taken_back: str) -> None:
    """Become the program as it was started, in the same process: the service manager sees no end."""
    if taken_back:
        os.environ[_TAKEN_BACK] = taken_back
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - our own command line
