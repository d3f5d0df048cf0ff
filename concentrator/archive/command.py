"""`concentrator support-bundle`, `backup`, `restore` and `factory-reset`."""

from __future__ import annotations

import asyncio
import base64
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import click

from concentrator.archive.backup import factory_reset, make_backup, restore
from concentrator.archive.sealing import ArchiveError
from concentrator.archive.support_bundle import make_bundle
from concentrator.collection.machine_secret import write_private
from concentrator.command_options import CONFIG_OPTION
from concentrator.config import Config, load_config
from concentrator.control import ServiceAbsentError, request

_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
_PASSPHRASE = click.option(
    "--passphrase-file", type=click.File(), help="File with the passphrase; else it is asked for."
)


@click.command("support-bundle")
@CONFIG_OPTION
@_FILE
def support_bundle(config_file: Path, file: Path) -> None:
    """Write what support needs to FILE (tar.gz): log, configuration without secrets, status, statistics. No keys."""
    config = load_config(config_file, ports_exist=False)
    try:
        answer = asyncio.run(request(config.control_socket, ask_for_bundle("cli")))
    except ServiceAbsentError:
        # What there is without the service: everything but status and log.
        content = asyncio.run(make_bundle(config, None, (), datetime.now(UTC)))
    else:
        content = base64.b64decode(answer["result"]["content"])
    write_private(file, content)
    click.echo(f"{file}: {len(content)} octets")


def ask_for_bundle(who: str) -> dict[str, object]:
    """The request to the service."""
    return {"op": "ask", "order": {"id": f"{who}-{secrets.token_hex(6)}", "op": "support_bundle"}}


@click.command()
@CONFIG_OPTION
@_FILE
@click.option(
    "--with-readings", is_flag=True, help="The readings too; else registry, tasks, counters and logs."
)
@click.option("--without-keys", is_flag=True, help="Leave all keys out; no passphrase is needed.")
@_PASSPHRASE
def backup(
    config_file: Path, file: Path, passphrase_file: TextIO | None, *, with_readings: bool, without_keys: bool
) -> None:
    """Write configuration, registry, tasks and keys to FILE; the keys under a passphrase. The service may run."""
    config = load_config(config_file, ports_exist=False)
    passphrase = None if without_keys else _passphrase(passphrase_file, confirm=True)
    left = make_backup(
        config, config_file, file, datetime.now(UTC), passphrase=passphrase, with_readings=with_readings
    )
    click.echo(f"{file}: {file.stat().st_size} octets")
    for one in left:
        click.echo(f"not in it, keep a copy yourself: {one}")


@click.command("restore")
@CONFIG_OPTION
@_FILE
@click.option("--force", is_flag=True, help="Put aside what is there, under another name.")
@click.option("--without-keys", is_flag=True, help="The backup has no keys.")
@_PASSPHRASE
def restore_command(
    config_file: Path, file: Path, passphrase_file: TextIO | None, *, force: bool, without_keys: bool
) -> None:
    """Put the backup FILE in place: configuration and state directory, all or nothing. The service must be stopped."""
    if config_file.exists():
        _refuse_while_running(load_config(config_file, ports_exist=False), "restore")
    passphrase = None if without_keys else _passphrase(passphrase_file, confirm=False)
    config = restore(file, config_file, datetime.now(UTC), passphrase=passphrase, force=force)
    click.echo(f"restored: {config_file}, {config.state_directory}")


@click.command("factory-reset")
@CONFIG_OPTION
@click.option("--yes", is_flag=True, required=True, help="Really remove all keys, readings, meters and logs.")
def factory_reset_command(config_file: Path, *, yes: bool) -> None:
    """Remove everything that this box has kept; the configuration stays. The service must be stopped."""
    del yes
    config = load_config(config_file, ports_exist=False)
    _refuse_while_running(config, "factory-reset")
    click.echo(f"removed {factory_reset(config.state_directory)} files in {config.state_directory}")


def _passphrase(file: TextIO | None, *, confirm: bool) -> str:
    if file is not None:
        return file.read().strip()
    return str(click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm))


def _refuse_while_running(config: Config, what: str) -> None:
    try:
        asyncio.run(request(config.control_socket, {"op": "status"}))
    except ServiceAbsentError:
        return
    raise ArchiveError(f"{what}: the concentrator is running; stop it first: systemctl stop concentrator")
