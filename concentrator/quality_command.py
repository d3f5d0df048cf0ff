"""`concentrator estimate` and its like: what the running concentrator says of its own data."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import click

from concentrator.command_options import CONFIG_OPTION, JSON_OPTION
from concentrator.config import load_config
from concentrator.control import give_order


def ask(config_file: Path, operation: str, target: str, args: dict[str, Any]) -> Any:  # noqa: ANN401 - decoded JSON
    """What the running concentrator answers to an order.

    Raises:
        ControlError: it does not run, or refuses.
    """
    return asyncio.run(
        give_order(load_config(config_file, ports_exist=False).control_socket, operation, target, args)
    )


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


_DAYS_OPTION = click.option(
    "--days", type=click.IntRange(1, 400), default=7, show_default=True, help="How far back."
)


@click.command()
@CONFIG_OPTION
@_DAYS_OPTION
@click.option("--meter", default="", help="Of one meter.")
@JSON_OPTION
def events(config_file: Path, days: int, meter: str, *, as_json: bool) -> None:
    """Show what meters say has happened: entries of their event logs, and alarms."""
    found = ask(config_file, "events", meter, {"days": days})
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for one in found["events"]:
        click.echo(f"{one['t']}  {one['meter']:<20} {one['severity']:<8} {one['group']:<14} {one['detail']}")
    if found["left_out"]:
        click.echo(f"{found['left_out']} older ones are left out: ask for fewer days, or for one meter")


@click.command()
@CONFIG_OPTION
@_DAYS_OPTION
@click.option("--meter", default="", help="Of one meter.")
@JSON_OPTION
def interruptions(config_file: Path, days: int, meter: str, *, as_json: bool) -> None:
    """Show interruptions of supply: start, end, how many meters. An outage of a feeder is one."""
    found = ask(config_file, "interruptions", meter, {"days": days})
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for one in found["outages"]:
        end = "is not over" if one["end"] is None else f"to {one['end']} ({one['minutes']:g} min)"
        doubt = ", suspected: nobody said that power failed" if one["suspected"] else ""
        click.echo(f"{one['start']} {end}: {one['scale']}, {one['meters']} meters{doubt}")
    if not found["outages"]:
        click.echo(f"none since {found['from']}")


@click.command()
@CONFIG_OPTION
@_DAYS_OPTION
@click.option("--meter", default="", help="The availability of one meter, by day.")
@JSON_OPTION
def kpi(config_file: Path, days: int, meter: str, *, as_json: bool) -> None:
    """Show the figures of the last days: completeness, reachability, retries, airtime, and the worst meters."""
    found = ask(config_file, "kpi", meter, {"days": days})
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    click.echo("day         complete  08:00    D+1      D+3      reachable  first try  retries  airtime")
    for one in found["days"]:
        shares = [
            _percent(one[f"{name}_pct"])
            for name in (
                "completeness",
                "completeness_0800",
                "completeness_d1",
                "completeness_d3",
                "reachability",
                "first_try",
                "airtime",
            )
        ]
        complete, eight, next_day, third, reachable, first_try, airtime = shares
        click.echo(
            f"{one['day']}  {complete:<8}  {eight:<7}  {next_day:<7}  {third:<7}  {reachable:<9}  "
            f"{first_try:<9}  {one['retries']:<7}  {airtime}"
        )
    if meter:
        for day in found["availability"].get(meter, ()):
            click.echo(
                f"{meter} {day['day']}: {day['minutes']:g} min, {day['percent']:g} %, {day['changes']} changes"
            )
        return
    for one in found["worst"]:
        click.echo(f"{one['meter']:<20} {one['stored']} of {one['expected']}: {one['reason']}")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1f} %"


@click.command()
@CONFIG_OPTION
@click.option("--day", default="", help="The day (UTC), as 2026-11-20; else yesterday.")
@JSON_OPTION
def balance(config_file: Path, day: str, *, as_json: bool) -> None:
    """Show the energy balance of a day: losses of each feeder, and which meters deserve a look."""
    found = ask(config_file, "balance", "", {"day": day} if day else {})
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for feeder in found["feeders"]:
        totals = feeder["totals"]
        click.echo(
            f"{found['day']} {feeder['name']} (supervisor {feeder['supervisor']}, {feeder['members']} meters): "
            f"{totals['intervals_judged']} of {totals['intervals']} intervals judged, "
            f"{totals['coverage_pct']:g} % measured"
        )
        if totals["loss_kwh"] is not None:
            click.echo(
                f"  supplied {totals['supplied_kwh']:g} kWh, delivered {totals['delivered_kwh']:g} kWh, "
                f"lost {totals['loss_kwh']:g} kWh ({_percent(totals['loss_pct'])})"
            )
        if totals["estimated_loss_kwh"] is not None:
            click.echo(
                f"  with what had to be estimated: lost {totals['estimated_loss_kwh']:g} kWh, between "
                f"{totals['estimated_loss_low_kwh']:g} and {totals['estimated_loss_high_kwh']:g}"
            )
        for one in feeder["suspicions"]:
            click.echo(f"  {one['meter']:<20} {one['score']:5.1f}  {'; '.join(one['reasons'])}")
