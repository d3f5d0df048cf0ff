"""`concentrator head-ends`: who may associate with this box. Keys come from files, and are never shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from concentrator.command_options import CONFIG_OPTION
from concentrator.config import Config, load_config
from concentrator.dlms import elliptic
from concentrator.dlms.certificates import certificate_request
from concentrator.uplink.head_end_file import (
    HeadEndFileError,
    read_head_end_file,
    read_private_json,
    write_head_end_file,
    write_private,
)
from concentrator.uplink.head_ends import MECHANISMS, HeadEnds
from concentrator.uplink.roles import Role

_PUBLIC_CLIENT_SAP = 16
_KEY_NAMES = (
    "encryption_key",
    "authentication_key",
    "master_key",
    "broadcast_key",
    "password",
    "signing_key_file",
    "agreement_key_file",
    "peer_certificate_file",
    "peer_agreement_file",
)
_RESTART = "The service takes it when it is started anew."


@click.group("head-ends")
def head_ends() -> None:
    """Who may associate with this box: clients, roles and keys, of which none is ever shown."""


@head_ends.command("list")
@CONFIG_OPTION
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_head_ends(config_file: Path, *, as_json: bool) -> None:
    """Which clients there are, with what proof and role, and which kinds of keys."""
    path = _file(load_config(config_file, ports_exist=False))
    HeadEnds(path)
    rows = [
        {
            "client_sap": entry["client_sap"],
            "mechanism": entry.get("mechanism"),
            "suite": entry.get("suite", 0),
            "role": entry.get("role", Role.READER.value),
            "keys": sorted(name for name in entry if name in _KEY_NAMES or name in ("signing_key", "secret")),
        }
        for entry in read_head_end_file(path)["clients"]
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        keys = ", ".join(row["keys"])
        click.echo(
            f"{row['client_sap']:5}  {row['mechanism']:11} suite {row['suite']}  {row['role']:8}  {keys}"
        )
    click.echo(f"{len(rows)} clients, and the public client 16.")


@head_ends.command("add")
@CONFIG_OPTION
@click.option("--client-sap", type=click.IntRange(1, 0xFFFF), required=True, help="The client's number.")
@click.option("--mechanism", type=click.Choice(list(MECHANISMS)), default="hls-gmac", help="Its proof.")
@click.option("--suite", type=click.IntRange(0, 2), default=0, help="Security suite.")
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default=Role.READER.value,
    help="What it may change.",
)
@click.option(
    "--keys",
    "key_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File with its keys (JSON, mode 0600), named as in docs/uplink.md.",
)
def add_head_end(  # noqa: PLR0913 - one for each option
    config_file: Path, client_sap: int, mechanism: str, suite: int, role: str, key_file: Path | None
) -> None:
    """Add a client, or replace the one with this number; its keys come from a file."""
    path = _file(load_config(config_file, ports_exist=False))
    content: dict[str, Any] = read_head_end_file(path) if path.exists() else {"clients": []}
    given = read_private_json(key_file) if key_file is not None else {}
    unknown = [name for name in given if name not in _KEY_NAMES]
    if unknown:
        raise HeadEndFileError(f"{key_file}: unknown: {', '.join(unknown)}; allowed: {', '.join(_KEY_NAMES)}")
    if client_sap == _PUBLIC_CLIENT_SAP:
        raise HeadEndFileError(
            f"client {client_sap}: is the public client, which reads the name and the clock without being added; "
            "allowed: another number"
        )
    if mechanism == "none" and role != "reader":
        raise HeadEndFileError(
            f"client {client_sap}: nobody becomes {role} without a proof; give a mechanism"
        )
    entry = {"client_sap": client_sap, "mechanism": mechanism, "suite": suite, "role": role, **given}
    before = [one for one in content["clients"] if one.get("client_sap") != client_sap]
    content["clients"] = [*before, entry]
    # Looked at as a whole before it counts, beside the file: names of other files are within its folder.
    trial = path.with_name(f".{path.name}.trial")
    try:
        write_head_end_file(trial, content)
        HeadEnds(trial)
    finally:
        trial.unlink(missing_ok=True)
    write_head_end_file(path, content)
    click.echo(f"client {client_sap}: {mechanism}, suite {suite}, {role}. {_RESTART}")
    if key_file is not None:
        click.echo(f"{key_file} still has its keys in the clear: remove it.", err=True)


@head_ends.command("remove")
@CONFIG_OPTION
@click.argument("client_sap", type=int)
def remove_head_end(config_file: Path, client_sap: int) -> None:
    """Remove a client."""
    path = _file(load_config(config_file, ports_exist=False))
    content = read_head_end_file(path)
    left = [one for one in content["clients"] if one.get("client_sap") != client_sap]
    if len(left) == len(content["clients"]):
        raise HeadEndFileError(f"file of head-ends {path}: has no client {client_sap}; nothing was removed")
    content["clients"] = left
    write_head_end_file(path, content)
    click.echo(f"client {client_sap} removed. {_RESTART}")


@head_ends.command("request")
@CONFIG_OPTION
@click.option("--suite", type=click.IntRange(1, 2), default=1, help="Security suite: P-256 or P-384.")
@click.option("--name", default="signing", help="signing, agreement or another name of the files.")
def request_certificate(config_file: Path, suite: int, name: str) -> None:
    """Make a key pair of ours beside the file of head-ends, and a certificate request (PKCS #10, DER) for it."""
    config = load_config(config_file, ports_exist=False)
    folder = _file(config).parent
    key_path, request_path = folder / f"{name}.pem", folder / f"{name}.csr"
    if Path(name).name != name or key_path.exists():
        raise HeadEndFileError(f"{key_path}: is there already, or no name of a file; give another --name")
    key = elliptic.generate_private_key(suite)
    write_private(key_path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    write_private(request_path, certificate_request(key, bytes.fromhex(config.collection.system_title)))
    click.echo(f"{key_path}: the private key, to be named as {name}_key_file of a client.")
    click.echo(f"{request_path}: to be signed by the utility's authority.")


def _file(config: Config) -> Path:
    if config.dlms is None or not config.dlms.key_file:
        raise HeadEndFileError("dlms.key_file: is not set; name the file of head-ends in the configuration")
    return Path(config.dlms.key_file)
