"""`concentrator store`: look into the store, check it, copy it out, beside the running service or without it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

import click
from sqlite_utils import Database as SqliteUtilsDatabase

from concentrator.archive.store_copy import copy_store
from concentrator.cim.message import JSON, XML
from concentrator.cim.readings import MeterValues, write_meter_readings
from concentrator.clock import SystemClock
from concentrator.command_options import CONFIG_OPTION
from concentrator.config import Config, load_config
from concentrator.instance_lock import is_held
from concentrator.model import Channel, Medium, MeterRecord, Quality, Reading
from concentrator.obis import Obis
from concentrator.store import export as formats
from concentrator.store import outbox
from concentrator.store.database import PAGE_OCTETS, connect
from concentrator.store.errors import StoreError, named_error
from concentrator.store.export import ExportError
from concentrator.store.inspection import complaints, foreign
from concentrator.store.statistics import statistics_path
from concentrator.store.store import Store

_DAMAGED = 1
_PRAGMAS_THAT_ASK = ("table_info", "table_xinfo", "index_list", "index_info", "table_list")
_CIM = {"cim-xml": XML, "cim-json": JSON}


@click.group()
def store() -> None:
    """The store: check, export, ask, back up. It may be in use, but for `vacuum`."""


def _file(config_file: Path) -> tuple[Config, Path]:
    config = load_config(config_file, ports_exist=False)
    path = config.store_file
    if not path.exists():
        raise StoreError(f"store {path}: is not there: the concentrator has not run with this configuration")
    return config, path


@contextlib.contextmanager
def _reading(path: Path) -> Generator[sqlite3.Connection]:
    try:
        with closing(connect(path, query_only=True)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise named_error(error, str(path)) from error


def _is_running(config: Config) -> bool:
    return is_held(config.state_directory)


@store.command()
@CONFIG_OPTION
@click.option("--full", is_flag=True, help="Look into the indexes too (integrity_check): slow.")
def check(config_file: Path, full: bool) -> None:  # noqa: FBT001 - a command's flag
    """Check the file and what its tables owe each other; exit status 1 and a line for each thing that is wrong."""
    _config, path = _file(config_file)
    try:
        with closing(connect(path, query_only=True)) as connection:
            found = complaints(connection, full=full)
    except sqlite3.Error as error:
        found = [str(error)]
    for one in found:
        click.echo(f"{path}: {one}", err=True)
    if found:
        sys.exit(_DAMAGED)
    click.echo(f"{path}: sound")


@store.command()
@CONFIG_OPTION
def vacuum(config_file: Path) -> None:
    """Write the file anew without its free pages. The service must be stopped: it could store nothing meanwhile."""
    config, path = _file(config_file)
    if _is_running(config):
        raise StoreError(
            f"store {path}: the service is running, and gives free pages back by itself; stop it to vacuum"
        )
    before = path.stat().st_size
    try:
        with closing(connect(path, query_only=False)) as connection:
            if found := foreign(connection):
                raise StoreError(f"store {path}: {found}")
            # A store of an older release has larger pages, which only a file without WAL lets go of.
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute(f"PRAGMA page_size = {PAGE_OCTETS}")
            connection.execute("VACUUM")
            connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.Error as error:
        raise named_error(error, str(path)) from error
    click.echo(f"{path}: {before} → {path.stat().st_size} octets")


_MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"])


@store.command()
@CONFIG_OPTION
@click.option(
    "--format", "name", type=click.Choice(sorted({*formats.WRITERS, *_CIM})), default="csv", show_default=True
)
@click.option("--from", "first", type=_MOMENT, help="Captured from then on (UTC).")
@click.option("--to", "last", type=_MOMENT, help="Captured until then, itself included (UTC).")
@click.option("--meter", default="", help="Of this meter only.")
@click.option("--obis", default="", help="Of this OBIS code only, such as 1-0:1.8.0*255.")
@click.option("--out", default="-", metavar="FILE|-", help="Where to; - is standard output.")
def export(  # noqa: PLR0913 - a command's options
    config_file: Path,
    name: str,
    first: datetime | None,
    last: datetime | None,
    meter: str,
    obis: str,
    out: str,
) -> None:
    """Write readings to a file. A file is complete or not there."""
    config, path = _file(config_file)
    if first is not None and last is not None and first > last:
        raise ExportError(f"--from: got {first}; allowed: a time that is not after --to, {last}")
    with _reading(path) as connection:
        _check_names(connection, meter, obis)
        rows = formats.stored_readings(connection, _utc(first), _utc(last), meter, obis)
        with _output(out, path) as stream:
            if name in _CIM:
                box = config.concentrator
                source = f"{box.site}/{box.name}"
                write_meter_readings(source, SystemClock().now(), _by_meter(rows), _CIM[name], stream)
            else:
                formats.WRITERS[name](rows, stream)


def _check_names(connection: sqlite3.Connection, meter: str, obis: str) -> None:
    """A name that nothing has is a slip of the hand: an empty file would not tell."""
    if meter and not connection.execute("SELECT 1 FROM meter WHERE identity = ?", (meter,)).fetchone():
        raise ExportError(
            f"--meter: got {meter!r}, which the store does not know; `concentrator meters list` has them"
        )
    if obis and not connection.execute("SELECT 1 FROM channel WHERE obis = ?", (obis,)).fetchone():
        raise ExportError(
            f"--obis: got {obis!r}, of which the store has no values; written like 1-0:1.8.0*255"
        )


def _by_meter(rows: Iterable[formats.StoredReading]) -> Iterator[MeterValues]:
    """Rows of one meter and channel stand together, as the export gives them."""
    for (meter, medium), group in groupby(rows, key=lambda row: (row.meter, row.medium)):
        readings: list[Reading] = []
        newest = datetime.min.replace(tzinfo=UTC)
        for row in group:
            obis = Obis.parse(row.obis)
            channel = Channel(obis, row.unit, row.scaler, row.class_id, row.attribute, row.period_s)
            readings.append(Reading(channel, row.captured_at, row.value, row.status, Quality(row.quality)))
            newest = max(newest, row.received_at)
        yield MeterValues(meter, medium, readings, newest)


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)


def _keep_off(target: Path, store: Path) -> None:
    """Refuse to write over a file that the service works with.

    Raises:
        ExportError: it is one.
    """
    own = {
        name
        for kept in (store, statistics_path(store))
        for name in (kept, Path(f"{kept}-wal"), Path(f"{kept}-shm"))
    }
    if target.resolve() in {one.resolve() for one in own}:
        raise ExportError(f"{target}: is a file of the store itself; give another name")


@contextlib.contextmanager
def _output(name: str, store: Path) -> Generator[BinaryIO]:
    if name == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(name)
    if path.exists() and not path.is_file():
        # A device or a pipe is written into, never put aside.
        try:
            with path.open("wb") as stream:
                yield stream
        except OSError as error:
            raise ExportError(f"{path}: {error.strerror}; give a file that can be written") from error
        return
    _keep_off(path, store)
    part = path.with_name(f".{path.name}.part")
    try:
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as stream:
            yield stream
        part.replace(path)
    except OSError as error:
        raise ExportError(f"{path}: {error.strerror}; give a file that can be written") from error
    finally:
        part.unlink(missing_ok=True)


@store.command("import")
@CONFIG_OPTION
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def import_command(config_file: Path, file: Path) -> None:
    """Read an export as jsonl into the store of the configuration. The service must be stopped.

    What is there already is left as it is; what is new goes to the destinations like everything else.
    """
    config = load_config(config_file, ports_exist=False)
    if _is_running(config):
        raise StoreError(f"store {config.store_file}: the service is running; stop it to import")
    new, repeated = asyncio.run(_import(config.store_file, file))
    click.echo(f"{config.store_file}: {new} readings imported, {repeated} were there")


async def _import(path: Path, file: Path) -> tuple[int, int]:
    target = Store(path, SystemClock())
    try:
        known = {record.identity for record in await target.load_meters()}
        new = repeated = 0
        with file.open("rb") as lines:
            for medium, answer in formats.read_json_lines(lines, str(file)):
                if answer.meter not in known:
                    try:
                        record = MeterRecord(answer.meter, Medium(medium))
                    except ValueError:
                        raise ExportError(
                            f"{file}: meter {answer.meter}: medium {medium!r} is none"
                        ) from None
                    await target.save_meter(record)
                    known.add(answer.meter)
                stored = await target.store_answer(answer)
                new, repeated = new + stored.new, repeated + stored.repeated
    finally:
        target.close()
    return new, repeated


@store.command()
@CONFIG_OPTION
@click.argument("sql")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def query(config_file: Path, sql: str, as_json: bool) -> None:  # noqa: FBT001 - a command's flag
    """Ask the store with SQL, read-only. `reading_in_full` is the view for people."""
    _config, path = _file(config_file)
    with _reading(path) as connection:
        database: Any = SqliteUtilsDatabase(connection)
        connection.set_authorizer(_only_reading)
        try:
            for row in database.query(sql):
                click.echo(json.dumps(row, ensure_ascii=False, default=repr) if as_json else _line(row))
        except ValueError as error:
            raise StoreError(f"store {path}: {error}; give a query that has an answer") from None


def _only_reading(action: int, name: str | None, value: str | None, *_rest: str | None) -> int:
    """What a query may do: read. A pragma that sets something would change the file."""
    if action in (
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_FUNCTION,
        sqlite3.SQLITE_RECURSIVE,
    ):
        return sqlite3.SQLITE_OK
    if action in (sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_SAVEPOINT):
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_PRAGMA and (value is None or name in _PRAGMAS_THAT_ASK):
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def _line(row: Mapping[str, object]) -> str:
    return "\t".join(f"{name}={value}" for name, value in row.items())


@store.command()
@CONFIG_OPTION
@click.option(
    "--forget", metavar="NAME", help="Forget a destination that the configuration does not name any more."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def destinations(config_file: Path, forget: str | None, as_json: bool) -> None:  # noqa: FBT001
    """List the destinations and how far each is; retired ones hold nothing back."""
    _config, path = _file(config_file)
    if forget is not None:
        _forget(path, forget)
    with _reading(path) as connection:
        for one in outbox.states(connection):
            told = {
                "name": one.name,
                "cursor": one.cursor,
                "pending_batches": one.pending_batches,
                "pending_readings": one.pending_readings,
                "oldest_unsent_at": _iso(one.oldest_unsent_at),
                "acknowledged_at": _iso(one.acknowledged_at),
                "retired_at": _iso(one.retired_at),
            }
            click.echo(json.dumps(told) if as_json else _line(told))


def _forget(path: Path, name: str) -> None:
    try:
        with closing(connect(path, query_only=False)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            forgotten = outbox.forget_destination(connection, name)
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise named_error(error, str(path)) from error
    if not forgotten:
        raise StoreError(
            f"store {path}: no retired destination {name!r}; take it out of the configuration first"
        )


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")


@store.command()
@CONFIG_OPTION
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def backup(config_file: Path, file: Path) -> None:
    """Copy the store to FILE as it is at one moment, also while the service runs. A file is complete or not there."""
    _config, path = _file(config_file)
    _keep_off(file, path)
    if file.exists() and not file.is_file():
        raise StoreError(f"{file}: is no file; give the name of one")
    part = file.with_name(f".{file.name}.part")
    try:
        part.unlink(missing_ok=True)
        os.close(os.open(part, os.O_CREAT | os.O_RDWR, 0o600))
        copy_store(path, part, with_readings=True)
        _sync(part)
        part.replace(file)
    except OSError as error:
        raise StoreError(f"{file}: {error.strerror}; give a file that can be written") from error
    finally:
        part.unlink(missing_ok=True)
    click.echo(f"{file}: {file.stat().st_size} octets")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
