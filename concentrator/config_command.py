"""`concentrator config`: the example, and changes that take themselves back unless they are confirmed."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from concentrator.access.configuration import ConfigurationFile, difference
from concentrator.access.errors import ConfigurationChangeError
from concentrator.access.full_check import mistakes_of
from concentrator.command_options import CONFIG_OPTION
from concentrator.config import config_example, load_config
from concentrator.control import ServiceAbsentError, request


@click.group("config")
def config_group() -> None:
    """The configuration file."""


@config_group.command("example")
def config_example_command() -> None:
    """Print a commented example."""
    click.echo(config_example(), nl=False)


@config_group.command("apply")
@CONFIG_OPTION
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def apply(config_file: Path, file: Path, *, yes: bool) -> None:
    """Put FILE in the place of the configuration, on trial: without `config confirm` the former one comes back.

    The service starts anew with it. While it does not run, it takes the file at its next start.
    """
    text = file.read_text(encoding="utf-8")
    if mistakes := mistakes_of(text, file.name):
        raise ConfigurationChangeError(
            "\n".join(f"{file}, line {one.line}: {one.words}" if one.line else one.words for one in mistakes)
        )
    target = ConfigurationFile(config_file.absolute())
    lines = difference(target.text(), text)
    if not lines:
        click.echo("Nothing differs.")
        return
    click.echo("\n".join(lines))
    if not yes:
        click.confirm("Apply it?", abort=True)
    trial_s = load_config(file, ports_exist=False).concentrator.configuration_trial_s
    try:
        _ask(config_file, "apply", text=text)
    except ServiceAbsentError:
        target.apply(text, "the concentrator itself", (), datetime.now(UTC))
        click.echo("The service does not run: it takes it at its next start.", err=True)
    click.echo(f"On trial: `concentrator config confirm` within {trial_s} s keeps it.")


@config_group.command("confirm")
@CONFIG_OPTION
@click.option(
    "--force", is_flag=True, help="Even if a destination that was connected is not connected again."
)
def confirm(config_file: Path, *, force: bool) -> None:
    """Keep the configuration that is on trial."""
    _ask(config_file, "confirm", force=force)
    click.echo("Confirmed.")


@config_group.command("revert")
@CONFIG_OPTION
def revert(config_file: Path) -> None:
    """Put the former configuration back now; the service starts anew with it."""
    try:
        _ask(config_file, "revert")
    except ServiceAbsentError:
        ConfigurationFile(config_file.absolute()).revert()
    click.echo("The former configuration is back.")


@config_group.command("trial")
@CONFIG_OPTION
def trial(config_file: Path) -> None:
    """Print, as JSON, whether a configuration is on trial, how long yet, and what a confirmation waits for."""
    click.echo(json.dumps(_ask(config_file, "state"), indent=2))


def _ask(config_file: Path, do: str, **fields: object) -> dict[str, Any]:
    config = load_config(config_file, ports_exist=False)
    answer = asyncio.run(request(config.control_socket, {"op": "configuration", "do": do, **fields}))
    if "refused" in answer:
        raise ConfigurationChangeError(f"config {do}: {answer['reason']}")
    if answer.get("applied") is False:
        raise ConfigurationChangeError("\n".join(str(one["words"]) for one in answer["mistakes"]))
    return answer
