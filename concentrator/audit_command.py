"""`concentrator audit`: what was ordered of meters, by whom, and what came of it."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import click

from concentrator.config import load_config
from concentrator.store.audit import AuditEntry, newest
from concentrator.store.database import connect
from concentrator.store.errors import StoreError

_MOST = 100_000


@click.command(context_settings={"show_default": True})
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    default=Path("/etc/concentrator/concentrator.toml"),
    help="The configuration file.",
)
@click.option("--meter", default="", help="Of this meter only.")
@click.option("--limit", type=click.IntRange(1, _MOST), default=50, help="So many of the newest.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def audit(config_file: Path, meter: str, limit: int, *, as_json: bool) -> None:
    """List the orders that changed meters or were refused, oldest first, from the store. It need not run."""
    path = load_config(config_file, ports_exist=False).store_file
    if not path.exists():
        raise StoreError(f"store {path}: is not there: the concentrator has not run with this configuration")
    with closing(connect(path, query_only=True)) as connection:
        entries = newest(connection, limit, meter)
    for entry in reversed(entries):
        click.echo(json.dumps(_tree(entry), ensure_ascii=False) if as_json else _line(entry))


def _tree(entry: AuditEntry) -> dict[str, object]:
    return {
        "audit": entry.audit_id,
        "begun_at": entry.begun_at.isoformat(),
        "completed_at": None if entry.completed_at is None else entry.completed_at.isoformat(),
        "order": entry.order_id,
        "op": entry.operation,
        "meter": entry.meter,
        "origin": entry.origin,
        "state": entry.state,
        "args": entry.arguments,
        "before": entry.before,
        "after": entry.after,
        "detail": entry.detail,
    }


def _line(entry: AuditEntry) -> str:
    what = f"{entry.operation} on {entry.meter}" if entry.meter else entry.operation
    detail = f": {entry.detail}" if entry.detail else ""
    return (
        f"{entry.audit_id:>6} {entry.begun_at:%Y-%m-%d %H:%M:%SZ} {entry.state:<18} {what}, "
        f"order {entry.order_id} from {entry.origin}{detail}"
    )
