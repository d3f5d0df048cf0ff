"""`concentrator firmware`: sign and check images of meters' firmware, look after campaigns of the running service."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import click

from concentrator.collection.firmware.errors import FirmwareImageError
from concentrator.collection.firmware.library import FirmwareLibrary
from concentrator.collection.firmware.manifest import (
    LARGEST_IMAGE_OCTETS,
    Manifest,
    TrustedKeys,
    fingerprint,
    load_private_key,
    load_signed_image,
    sign,
)
from concentrator.command_options import CONFIG_OPTION, JSON_OPTION
from concentrator.config import load_config
from concentrator.control import give_order

_EXISTING = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group()
def firmware() -> None:
    """Firmware of meters: signed images, and campaigns that bring one to many meters."""


@firmware.command("sign", context_settings={"show_default": True})
@click.argument("image", type=_EXISTING)
@click.option("--key", required=True, type=_EXISTING, help="Ed25519 private key (PEM).")
@click.option("--passphrase-file", type=_EXISTING, help="File whose first line opens the private key.")
@click.option("--manufacturer", required=True, help="FLAG identification: three letters.")
@click.option("--model", required=True, help="Meter model, as `concentrator models` names it.")
@click.option(
    "--from-version", "from_versions", required=True, multiple=True, help="A version that it is for; repeat."
)
@click.option("--to-version", required=True, help="The version that meters tell afterwards.")
@click.option("--image-identifier", help="Text for image_transfer_initiate; by default the version.")
@click.option("--image-identifier-hex", help="The same in hexadecimal.")
@click.option(
    "--image-signature", default="", help="What meters show after the verification, in hexadecimal."
)
@click.option("--output", type=click.Path(path_type=Path), help="The manifest; by default IMAGE.json.")
def sign_command(  # noqa: PLR0913 - a manifest's fields
    image: Path,
    key: Path,
    passphrase_file: Path | None,
    manufacturer: str,
    model: str,
    from_versions: tuple[str, ...],
    to_version: str,
    image_identifier: str | None,
    image_identifier_hex: str | None,
    image_signature: str,
    output: Path | None,
) -> None:
    """Write the manifest of IMAGE and its signature beside it."""
    octets = _octets(image)
    passphrase = _octets(passphrase_file).splitlines()[0] if passphrase_file is not None else None
    private = load_private_key(key, passphrase)
    identifier = (image_identifier or to_version).encode().hex()
    manifest = Manifest(
        image.name,
        manufacturer,
        model,
        from_versions,
        to_version,
        (image_identifier_hex or identifier).lower(),
        len(octets),
        hashlib.sha256(octets).hexdigest(),
        image_signature.lower(),
    )
    path = output or image.with_name(image.name + ".json")
    if path.parent.resolve() != image.parent.resolve():
        raise FirmwareImageError(f"--output: got {path}; allowed: a file in the folder of the image")
    sign(manifest, private, path)
    click.echo(f"{path}: signed by key {fingerprint(private.public_key())}")


def _octets(path: Path) -> bytes:
    try:
        octets = path.read_bytes()
    except OSError as error:
        raise FirmwareImageError(f"{path}: cannot be read: {error.strerror}") from None
    if not 0 < len(octets) <= LARGEST_IMAGE_OCTETS:
        raise FirmwareImageError(f"{path}: has {len(octets)} octets; allowed: 1 to {LARGEST_IMAGE_OCTETS}")
    return octets


@firmware.command("check")
@click.argument("manifest", type=_EXISTING)
@click.option(
    "--trusted-key", "keys", type=_EXISTING, multiple=True, help="Ed25519 public key (PEM); repeat."
)
@CONFIG_OPTION
def check_command(manifest: Path, keys: tuple[Path, ...], config_file: Path) -> None:
    """Check signature and image of a MANIFEST, by the keys given or those of the configuration."""
    trusted = TrustedKeys.load(keys) if keys else _library(config_file).keys()
    signed = load_signed_image(manifest, trusted)
    about = signed.manifest
    click.echo(f"{manifest}: signed by key {signed.key}")
    click.echo(
        f"  {about.manufacturer} {about.model}: {', '.join(about.from_versions)} to {about.to_version}"
    )
    click.echo(f"  {about.file}: {about.size} octets, SHA-256 {about.sha256}")


def _library(config_file: Path) -> FirmwareLibrary:
    config = load_config(config_file, ports_exist=False)
    return FirmwareLibrary(config.firmware, config.state_directory)


@firmware.command("start")
@CONFIG_OPTION
@click.option("--name", required=True, help="What the campaign is called: letters, digits, _ or -.")
@click.option(
    "--meters",
    default="all",
    help="all, model:NAME, firmware:VERSION, group:NAME, or identities with commas.",
)
@click.option("--not-before", help="No block before this RFC 3339 time.")
@click.option("--not-after", help="Nothing after this RFC 3339 time.")
@click.option("--activate-from", help="No activation before this RFC 3339 time.")
@click.option("--hours", help="quiet, or two times of day such as 01:00-05:00.")
@click.option("--at-once", type=int, help="So many meters at a time.")
@click.option("--first", type=int, help="So many have to be done before the others begin.")
@click.option("--failure-limit", type=int, help="So many failures pause the campaign.")
@click.option("--tries", type=int, help="A meter fails after so many tries in a row.")
@click.option("--settle-s", type=int, help="A meter may show its old version so long after its activation.")
@click.argument("image")
def start_command(config_file: Path, image: str, **fields: object) -> None:
    """Begin a campaign with IMAGE: the name of a manifest in the folder of images."""
    arguments = {name: value for name, value in fields.items() if value is not None}
    told = _order(config_file, "firmware_start", {"image": image, **arguments})
    click.echo(f"campaign {told['campaign']}: {told['meters']} meters, {told['left_out']} left out")
    for meter, reason in told["left_out_reasons"].items():
        click.echo(f"  {meter}: {reason}")


@firmware.command("status")
@CONFIG_OPTION
@JSON_OPTION
@click.argument("name", default="")
def status_command(config_file: Path, name: str, *, as_json: bool) -> None:
    """Show the campaigns, or one with each of its meters."""
    told = _order(config_file, "firmware_status", {"name": name, "meters": bool(name) or as_json})
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    for one in told["campaigns"]:
        counts = ", ".join(
            f"{count} {state.replace('_', ' ')}" for state, count in one["counts"].items() if count
        )
        reason = f" ({one['reason']})" if one["reason"] else ""
        click.echo(
            f"{one['name']}: {one['state']}{reason}; to {one['to_version']}; {one['total']} meters: {counts}"
        )
        for meter in one.get("meters", []):
            blocks = f" {meter['blocks_done']} of {meter['blocks']} blocks" if meter["blocks"] else ""
            why = f": {meter['reason']}" if meter["reason"] else ""
            click.echo(f"  {meter['meter']}  {meter['state'].replace('_', ' ')}{blocks}{why}")
    if not told["campaigns"]:
        click.echo("there was no campaign yet")
    for image in told["images"]:
        said = image["reason"] or f"{image['manufacturer']} {image['model']} to {image['to_version']}"
        click.echo(f"image {image['image']}: {said}")


@firmware.command("pause")
@CONFIG_OPTION
@click.argument("name")
def pause_command(config_file: Path, name: str) -> None:
    """Stop a campaign after the blocks that are on their way."""
    _tell(_order(config_file, "firmware_pause", {"name": name}))


@firmware.command("resume")
@CONFIG_OPTION
@click.argument("name")
def resume_command(config_file: Path, name: str) -> None:
    """Go on with a paused campaign."""
    _tell(_order(config_file, "firmware_resume", {"name": name}))


@firmware.command("abort")
@CONFIG_OPTION
@click.argument("name")
def abort_command(config_file: Path, name: str) -> None:
    """End a campaign for good; what is activating already is still asked what came of it."""
    _tell(_order(config_file, "firmware_abort", {"name": name}))


def _order(config_file: Path, operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
    socket = load_config(config_file, ports_exist=False).control_socket
    return asyncio.run(give_order(socket, operation, "", arguments))


def _tell(told: dict[str, Any]) -> None:
    click.echo(f"campaign {told['campaign']}: {told['state']}")
