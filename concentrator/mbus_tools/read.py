"""`concentrator read --mbus`: the slaves of a wired M-Bus, found and read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import click

from concentrator.dlms.explain import Explainer, Tree
from concentrator.inspect.command import render
from concentrator.inspect.mbus import explain_telegram
from concentrator.links.mbus_line import MbusLine
from concentrator.wmbus.security import KeyRing
from concentrator.wmbus.telegram import Telegram
from concentrator.wmbus.wired import ADDRESS_ALL_WITH_ANSWER
from concentrator.wmbus.wired_master import Search, SecondaryAddress, Slave, WiredMaster


def run_read_mbus(
    where: str,
    baud_rate: int,
    *,
    address: int | None,
    secondary: str,
    search: bool,
    key: bytes = b"",
    as_json: bool,
    echo: Callable[[str], None] = click.echo,
) -> int:
    """Read one slave, by default the only one; or search all of them. Returns the exit status.

    Raises:
        PortError: the line cannot be opened, or goes away.
        TelegramError: the slave does not answer.
        WmbusUsageError: no address.
    """
    if search:
        mask = SecondaryAddress.from_text(secondary) if secondary else SecondaryAddress()
        found = asyncio.run(_search(where, baud_rate, mask))
        echo(json.dumps(_search_tree(found)) if as_json else "\n".join(render(_search_tree(found))))
        return 0 if found.slaves else 1
    slave = SecondaryAddress.from_text(secondary) if secondary else address
    telegrams = asyncio.run(_read(where, baud_rate, ADDRESS_ALL_WITH_ANSWER if slave is None else slave, key))
    for telegram in telegrams:
        tree = explain_telegram(telegram, Explainer())
        echo(json.dumps(tree, ensure_ascii=False) if as_json else "\n".join(render(tree)))
    return 0


async def _search(where: str, baud_rate: int, mask: SecondaryAddress) -> Search:
    async with MbusLine(where, baud_rate) as line:
        master = WiredMaster()
        return await line.run(master.search_secondary(mask))


async def _read(
    where: str, baud_rate: int, slave: int | SecondaryAddress, key: bytes
) -> tuple[Telegram, ...]:
    async with MbusLine(where, baud_rate) as line:
        return await line.run(WiredMaster(KeyRing(everyone=key or None)).read(slave))


def _search_tree(found: Search) -> Tree:
    return {"slaves": [_slave_tree(one) for one in found.slaves], "collisions": list(found.collisions)}


def _slave_tree(slave: Slave) -> Tree:
    meter = slave.meter
    if meter is None:
        return {"address": str(slave.address)}
    return {
        "id": meter.identification,
        "manufacturer": meter.manufacturer,
        "version": meter.version,
        "device_type": meter.device_type,
        "medium": meter.device_type_name,
    }
