"""The verbs that speak with the running service over its local socket."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import click

from concentrator import control
from concentrator.collection.topology_view import as_tree, hours_as_lines, node_as_lines
from concentrator.command_options import CONFIG_OPTION, JSON_OPTION
from concentrator.config import load_config
from concentrator.orders import OrderError


def give_order(
    config_file: Path, operation: str, target: str = "", arguments: object = None, **fields: object
) -> Any:  # noqa: ANN401 - decoded JSON
    """`control.give_order`, to the service of a configuration file."""
    socket = load_config(config_file, ports_exist=False).control_socket
    return asyncio.run(control.give_order(socket, operation, target, arguments, **fields))


@click.command("order")
@CONFIG_OPTION
@click.option("--target", default="", help="The meter; empty: the box or its network.")
@click.option("--args", "arguments", default="{}", help="What the order needs, as a JSON object.")
@click.option("--priority", type=click.IntRange(1, 3), help="1 goes before 2 and 3.")
@click.option("--not-before", help="Not before this RFC 3339 time.")
@click.option("--not-after", help="Tried until this RFC 3339 time, and reported as expired then.")
@click.option(
    "--deferred", is_flag=True, default=None, help="Do not wait: `concentrator orders` tells how it went."
)
@click.argument("operation")
def order_command(config_file: Path, target: str, arguments: str, operation: str, **fields: object) -> None:
    """Give the running concentrator an order, as the head-end does, and print its result as JSON.

    OPERATION is one of those that docs/uplink.md lists. Exit status 1 when it fails.
    """
    try:
        args = json.loads(arguments)
    except ValueError:
        raise OrderError(f"--args: got {arguments!r}; allowed: a JSON object") from None
    click.echo(json.dumps(give_order(config_file, operation, target, args, **fields), indent=2))


@click.command("orders")
@CONFIG_OPTION
@JSON_OPTION
def orders_command(config_file: Path, *, as_json: bool) -> None:
    """List the orders of the last days, newest first, with what came of them."""
    orders = give_order(config_file, "orders")["orders"]
    if as_json:
        click.echo(json.dumps(orders, indent=2))
        return
    for order in orders:
        outcome = order.get("error") or json.dumps(order.get("result", ""))
        times = " ".join(f"{name} {order[name]}" for name in ("not_before", "not_after") if order[name])
        click.echo(
            f"{order['given_at']}  {order['id']}  {order['op']} {order['target']}  {order['state']}  {times} {outcome}"
        )


@click.command("tasks")
@CONFIG_OPTION
@JSON_OPTION
def tasks_command(config_file: Path, *, as_json: bool) -> None:
    """List the tasks, each with its run and how many meters are done with it."""
    tasks = give_order(config_file, "tasks")["tasks"]
    if as_json:
        click.echo(json.dumps(tasks, indent=2))
        return
    for task in tasks:
        click.echo(
            f"{task['name']}: {task['what']} of {task['meters']}, every {task['period'] or 'once'}, priority "
            f"{task['priority']} ({task['origin']})"
        )
        click.echo(
            f"  run {task['run'] or 'none'}: {task['done']} of {task['meters_selected']} done"
            f" ({task['done_at_first_try']} at first try), {task['waiting']} waited for, {task['failed']} failed,"
            f" {task['expired']} expired; next {task['next_run'] or 'none'}"
        )
        for reason, count in task["reasons"].items():
            click.echo(f"    {count} x {reason}")


@click.command("gaps")
@CONFIG_OPTION
@JSON_OPTION
@click.argument("meter")
def gaps_command(config_file: Path, meter: str, *, as_json: bool) -> None:
    """Show which intervals of METER are missing or will never come, and why."""
    report = give_order(config_file, "gaps", meter)
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    for profile in report["profiles"]:
        click.echo(f"{profile['profile']}: {profile['stored']} of {profile['expected']} intervals stored")
        for gap in profile["closed"]:
            click.echo(f"  {gap['first']} to {gap['last']}: never to come: {gap['reason']}")
        for gap in profile["open"]:
            tries = f"asked {gap['tries']} times, next at {gap['next_try']}"
            click.echo(f"  {gap['first']} to {gap['last']}: {gap['reason']}; {tries}")
        if profile["missing"]:
            click.echo(f"  {profile['missing']} missing in all; those not listed: {report['why_missing']}")
    if not report["profiles"]:
        click.echo(f"{meter}: no profile read yet: {report['why_missing']}")


@click.command("topology")
@CONFIG_OPTION
@click.option("--meter", default="", help="One meter: everything that became of it, and its days.")
@JSON_OPTION
def topology_command(config_file: Path, meter: str, *, as_json: bool) -> None:
    """Show who hangs where on the power line, since when, and how available the network was."""
    view = give_order(config_file, "topology", meter)
    if as_json:
        click.echo(json.dumps(view, indent=2))
    else:
        lines = node_as_lines(view) if meter else [*as_tree(view), *hours_as_lines(view)]
        click.echo("\n".join(lines))
