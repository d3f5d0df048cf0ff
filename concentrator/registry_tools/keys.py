"""`concentrator keys`: the meters' keys, taken in, listed by kind, handed on encrypted. None is ever shown."""

from __future__ import annotations

import json
from pathlib import Path

import click

from concentrator.collection.errors import KeyFileError
from concentrator.collection.key_export import seal_for
from concentrator.collection.key_import import read_key_list
from concentrator.collection.key_store import KeyStore
from concentrator.collection.keyring import Keyring
from concentrator.collection.machine_secret import write_private
from concentrator.command_options import CONFIG_OPTION
from concentrator.config import Config, load_config
from concentrator.control import ServiceAbsentError
from concentrator.registry_tools.options import give_order


@click.group()
def keys() -> None:
    """The meters' keys: encrypted at rest, never shown."""


@keys.command("import")
@CONFIG_OPTION
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def import_keys(config_file: Path, file: Path) -> None:
    """Take the keys of FILE (CSV, or JSON as in docs/deployment.md) into the encrypted key store, all or none."""
    found = read_key_list(file)
    if not found:
        raise KeyFileError(f"{file}: has no keys")
    config = load_config(config_file, ports_exist=False)
    store = KeyStore(config.state_directory)
    store.change(found)
    click.echo(f"{sum(map(len, found.values()))} keys of {len(found)} meters imported.")
    click.echo(f"{file} still has them in the clear: remove it.", err=True)
    tell_service(config)


@keys.command("list")
@CONFIG_OPTION
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_keys(config_file: Path, *, as_json: bool) -> None:
    """Which meter has which kinds of keys, in the key store and in the key file."""
    kinds = _keyring(load_config(config_file, ports_exist=False)).kinds()
    if as_json:
        click.echo(json.dumps({name: list(found) for name, found in kinds.items()}, indent=2))
        return
    for name, found in kinds.items():
        click.echo(f"{name:24} {', '.join(found)}")
    click.echo(f"{len(kinds)} meters have keys.")


@keys.command("remove")
@CONFIG_OPTION
@click.argument("meters", nargs=-1, required=True)
def remove_keys(config_file: Path, meters: tuple[str, ...]) -> None:
    """Forget all keys of METERS in the key store."""
    config = load_config(config_file, ports_exist=False)
    store = KeyStore(config.state_directory)
    unknown = [name for name in meters if name not in store.kinds()]
    if unknown:
        raise KeyFileError(f"the key store has no keys of {', '.join(unknown)}; nothing was removed")
    store.change({}, meters)
    click.echo(f"keys of {len(meters)} meters removed.")
    tell_service(config)


@keys.command("export")
@CONFIG_OPTION
@click.option(
    "--recipient",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    help="Certificate (PEM, RSA) of whom the keys are for: only its private key opens them.",
)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Where they go (CMS, PEM).")
def export_keys(config_file: Path, recipient: Path, output: Path) -> None:
    """Hand the keys of the key store on, encrypted for RECIPIENT; `openssl cms -decrypt` opens them."""
    store = KeyStore(load_config(config_file, ports_exist=False).state_directory)
    sealed, count = seal_for(store, recipient)
    write_private(output, sealed)
    click.echo(f"keys of {count} meters written to {output}, encrypted for {recipient}.")


def _keyring(config: Config) -> Keyring:
    key_file = config.collection.key_file
    return Keyring.load(Path(key_file) if key_file else None, store=KeyStore(config.state_directory))


def tell_service(config: Config) -> None:
    """Have the running service take the key store as it is now; without one there is nothing to do."""
    try:
        give_order(config, "reload_meter_keys")
    except ServiceAbsentError:
        click.echo("The service does not run: it takes them when it starts.", err=True)
