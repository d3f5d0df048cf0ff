"""`concentrator estimate` and its like: what the running concentrator says of its own data."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import click

from concentrator.config import load_config
from concentrator.control import give_order

CONFIG_OPTION = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    default=Path("/etc/concentrator/concentrator.toml"),
    show_default=True,
    help="The configuration file.",
)
JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def ask(config_file: Path, operation: str, target: str, args: dict[str, Any]) -> Any:  # noqa: ANN401 - decoded JSON
    """What the running concentrator answers to an order.

    Raises:
        ControlError: it does not run, or refuses.
    """
    return asyncio.run(give_order(load_config(config_file).control_socket, operation, target, args))


@click.command()
@CONFIG_OPTION
@click.option(
    "--method",
    type=click.Choice(["like-day", "linear"]),
    default="like-day",
    show_default=True,
    help="How a gap's total spreads: as on a day like it, or evenly.",
)
@click.option("--profile", default="", help="Its OBIS code; else the load profile that is collected.")
@JSON_OPTION
@click.argument("meter")
@click.argument("first", metavar="FROM")
@click.argument("last", metavar="TO")
def estimate(  # noqa: PLR0913 - a command's options
    config_file: Path, method: str, profile: str, meter: str, first: str, last: str, *, as_json: bool
) -> None:
    """Fill the gaps of METER between two times (UTC) with estimates, which are marked as such.

    A measured value is never overwritten, and takes an estimate's place when it comes.
    """
    args = {"from": first, "to": last, "method": method} | ({"profile": profile} if profile else {})
    found = ask(config_file, "estimate", meter, args)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(
        f"{found['meter']} {found['profile']}: {found['missing']} values missing, "
        f"{found['estimated']} estimated ({found['method']}), {found['left_open']} left open"
    )
