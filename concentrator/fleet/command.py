"""`concentrator fleet-consumer`: the reference consumer of a whole fleet."""

from __future__ import annotations

import asyncio
import signal

import click

from concentrator.errors import LocalError


@click.command("fleet-consumer")
@click.option("--broker", required=True, help="mqtt://HOST:PORT or mqtts://HOST:PORT.")
@click.option(
    "--database",
    default="postgresql:///fleet",
    show_default=True,
    help="URL of the database; its password is better in PGPASSFILE or PGPASSWORD.",
)
@click.option(
    "--group", default="fleet", show_default=True, help="Consumers of one group share the messages."
)
@click.option(
    "--name", default="consumer-1", show_default=True, help="Name of this one, its own in the group."
)
@click.option("--username", default="", help="Name to log in with at the broker.")
@click.option("--password-file", default="", help="File with the broker's password.")
@click.option("--ca-file", default="", help="Certificates to trust; empty: those of the system.")
@click.option("--certificate-file", default="", help="Our client certificate (PEM).")
@click.option("--private-key-file", default="", help="Its private key (PEM).")
@click.option(
    "--most-messages",
    type=click.IntRange(1, 30_000),
    default=1000,
    show_default=True,
    help="In one transaction.",
)
def fleet_consumer(**options: object) -> None:
    """Write what all concentrators publish into PostgreSQL, each value once (docs/fleet.md)."""
    try:
        from concentrator.fleet.consumer import FleetConsumer, FleetSettings
        from concentrator.logs import set_up_logging
    except ModuleNotFoundError as error:
        raise LocalError(
            f"the fleet's consumer needs {error.name}: install open-data-concentrator[fleet]"
        ) from None
    set_up_logging("info")
    consumer = FleetConsumer(FleetSettings(**options))  # type: ignore[arg-type] - named as the fields are

    async def run() -> None:
        task = asyncio.ensure_future(consumer.run())
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        await asyncio.wait({task})

    asyncio.run(run())
