"""`concentrator meters`: the registry, listed and changed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from concentrator.collection.errors import MeterEntryError
from concentrator.collection.key_import import METER_COLUMNS, csv_rows, keys_of_rows
from concentrator.collection.key_store import KEY_KINDS, KeyStore
from concentrator.collection.meter_entries import (
    FIELDS,
    entries_as_csv,
    entry_of,
    json_rows,
    parse_entries,
)
from concentrator.command_options import CONFIG_OPTION
from concentrator.config import Config, load_config
from concentrator.control import ServiceAbsentError
from concentrator.registry_tools.keys import tell_service
from concentrator.registry_tools.options import give_order
from concentrator.store.database import connect
from concentrator.store.meters import load_meters

# An order is one line of at most 64 KiB.
_LARGEST_ORDER_OCTETS = 40_000


@click.group()
def meters() -> None:
    """The meters that are known, those that were, and those that are not ours."""


def _filters(command: Any) -> Any:  # noqa: ANN401 - click's decorators
    for option in ("medium", "link", "state", "group"):
        command = click.option(f"--{option}", help=f"Only those of this {option}.")(command)
    return command


@meters.command("list")
@CONFIG_OPTION
@_filters
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_meters(config_file: Path, *, as_json: bool, **chosen: str | None) -> None:
    """Every meter with its state; removed and foreign ones too."""
    found = _entries(load_config(config_file, ports_exist=False), chosen)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for one in found:
        groups = f" [{', '.join(one['groups'])}]" if one["groups"] else ""
        reason = f": {one['reason']}" if one["reason"] else ""
        click.echo(
            f"{one['identity']:24} {one['medium']:12} {one['link']:12} {one['state']}{reason}"
            f" {one['model']}{groups}".rstrip()
        )
    click.echo(f"{len(found)} meters.")


@meters.command("export")
@CONFIG_OPTION
@_filters
@click.option("--format", "form", type=click.Choice(["csv", "json"]), default="csv", show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="A file; else standard output.")
def export_meters(config_file: Path, form: str, output: Path | None, **chosen: str | None) -> None:
    """All meters as CSV or JSON, without keys: `concentrator keys export` hands these on, encrypted."""
    found = _entries(load_config(config_file, ports_exist=False), chosen)
    text = entries_as_csv(found) if form == "csv" else json.dumps(found, indent=1) + "\n"
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise MeterEntryError(f"{output}: cannot be written: {error.strerror}") from None
    click.echo(f"{len(found)} meters written to {output}.")


@meters.command("add")
@CONFIG_OPTION
@click.argument("identity")
@click.option("--link", type=click.Choice(["plc", "wmbus", "mbus", "p1"]), help="How it is reached.")
@click.option("--address", "link_address", help="Its address there: EUI in hex, M-Bus address.")
@click.option("--medium", help="electricity, gas, water, hot_water, heat, cooling, heat_cost or other.")
@click.option("--serial")
@click.option("--manufacturer", help="Its three letters.")
@click.option("--model", help="Meter model: concentrator models list.")
@click.option("--group", "groups", multiple=True, help="A label; may be repeated.")
@click.option("--connection-limit", type=int, help="Agreed power of the connection in watts.")
def add_meter(config_file: Path, identity: str, groups: tuple[str, ...], **given: object) -> None:
    """Enter a meter before it is met, or take one back that was removed."""
    _tell(
        give_order(
            load_config(config_file, ports_exist=False),
            "meter_add",
            identity,
            **_arguments(given, groups=groups),
        )
    )


@meters.command("remove")
@CONFIG_OPTION
@click.argument("identity")
@click.option("--reason", help="Why, in words.")
def remove_meter(config_file: Path, identity: str, reason: str | None) -> None:
    """Take a meter out: it is read no more, its history stays."""
    arguments = {"reason": reason} if reason else {}
    _tell(give_order(load_config(config_file, ports_exist=False), "meter_remove", identity, **arguments))


@meters.command("replace")
@CONFIG_OPTION
@click.argument("identity")
@click.option("--by", required=True, help="Identity of the meter that came in its place.")
@click.option("--address", "link_address", help="Address of the new one.")
@click.option("--serial", help="Serial number of the new one.")
@click.option("--model", help="Meter model of the new one.")
def replace_meter(config_file: Path, identity: str, **given: object) -> None:
    """Another meter came in the place of IDENTITY: groups and limit go over, each keeps its own history."""
    _tell(
        give_order(
            load_config(config_file, ports_exist=False), "meter_replace", identity, **_arguments(given)
        )
    )


@meters.command("foreign")
@CONFIG_OPTION
@click.argument("identity")
@click.option("--no", "ours", is_flag=True, help="It is ours after all.")
def foreign_meter(config_file: Path, identity: str, *, ours: bool) -> None:
    """Mark a meter as another utility's: listed and left alone."""
    _tell(
        give_order(load_config(config_file, ports_exist=False), "meter_foreign", identity, foreign=not ours)
    )


@meters.command("set")
@CONFIG_OPTION
@click.argument("identity")
@click.option("--group", "add_groups", multiple=True, help="Put it into a group; may be repeated.")
@click.option("--no-group", "remove_groups", multiple=True, help="Take it out of a group; may be repeated.")
@click.option("--connection-limit", type=int, help="Agreed power of the connection in watts.")
@click.option("--model", help="Meter model, in the place of the one that was found.")
@click.option("--address", "link_address", help="Another address.")
@click.option("--serial")
def set_meter(
    config_file: Path,
    identity: str,
    add_groups: tuple[str, ...],
    remove_groups: tuple[str, ...],
    **given: object,
) -> None:
    """Change what the registry says of a meter."""
    arguments = _arguments(given, add_groups=add_groups, remove_groups=remove_groups)
    if not arguments:
        raise click.UsageError("nothing to set")
    _tell(give_order(load_config(config_file, ports_exist=False), "meter_set", identity, **arguments))


@meters.command("import")
@CONFIG_OPTION
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def import_meters(config_file: Path, file: Path) -> None:
    """Take the meters of FILE (CSV or JSON) in, and the keys in its key columns into the encrypted key store.

    Columns: identity, medium, link, link_address, serial, manufacturer, model, groups (semicolons between),
    connection_limit, and kinds of keys. The whole file is checked before anything is changed.
    """
    config = load_config(config_file, ports_exist=False)
    rows = _rows(file)
    keys = keys_of_rows(str(file), [row for row in rows if any(row[1].get(kind) for kind in KEY_KINDS)])
    entries = parse_entries(str(file), [(place, _without_keys(row)) for place, row in rows])
    plain = [_without_keys(row) for _place, row in rows]
    added = changed = 0
    for batch in _batches(plain):
        result = give_order(config, "meters_import", meters=batch)
        added, changed = added + int(result["added"]), changed + int(result["changed"])
    click.echo(f"{len(entries)} meters imported: {added} new, {changed} known.")
    if keys:
        KeyStore(config.state_directory).change(keys)
        click.echo(f"keys of {len(keys)} meters imported.")
        click.echo(f"{file} still has them in the clear: remove it.", err=True)
        tell_service(config)


def _rows(file: Path) -> list[tuple[str, Mapping[str, object]]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise MeterEntryError(f"{file}: cannot be read: {reason}") from None
    return json_rows(str(file), text) if text.lstrip()[:1] in ("{", "[") else csv_rows(file, text)


def _without_keys(row: Mapping[str, object]) -> dict[str, object]:
    plain = {name: value for name, value in row.items() if name in FIELDS and value not in (None, "")}
    known = {*FIELDS, *METER_COLUMNS, *KEY_KINDS}
    # A column that is none of ours is left in, to be told.
    plain |= {name: value for name, value in row.items() if name not in known}
    return plain


def _batches(rows: list[dict[str, object]]) -> Iterator[list[dict[str, object]]]:
    batch: list[dict[str, object]] = []
    size = 0
    for row in rows:
        octets = len(json.dumps(row))
        if batch and size + octets > _LARGEST_ORDER_OCTETS:
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += octets
    if batch:
        yield batch


def _entries(config: Config, chosen: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """The meters of the running service, or those that the store remembers."""
    wanted = {name: value for name, value in chosen.items() if value}
    try:
        found: list[dict[str, Any]] = give_order(config, "meters", **wanted)["meters"]
    except ServiceAbsentError:
        if not config.store_file.exists():
            raise
        with closing(connect(config.store_file, query_only=True)) as connection:
            found = [entry_of(record) for record in load_meters(connection)]
        click.echo("The service does not run: this is what the store remembers.", err=True)
        found = [
            one
            for one in found
            if all(
                value in one["groups"] if name == "group" else one[name] == value
                for name, value in wanted.items()
            )
        ]
    return found


def _arguments(given: Mapping[str, object], **lists: tuple[str, ...]) -> dict[str, Any]:
    arguments: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return {**arguments, **{name: list(values) for name, values in lists.items() if values}}


def _tell(result: Mapping[str, Any]) -> None:
    click.echo(json.dumps(result, indent=2))
