"""`concentrator radio probe|listen|send`: a wireless M-Bus module on the bench."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import replace

import click

from concentrator.config import RadioSection
from concentrator.inspect.command import render
from concentrator.inspect.inspector import Inspector
from concentrator.links.errors import PortError
from concentrator.links.radio_link import RadioLink
from concentrator.links.radio_modules import AUTO, find_radio_module, make_radio_module
from concentrator.wmbus.errors import WmbusUsageError
from concentrator.wmbus.modules.face import TelegramHeard

_READY_TIMEOUT_S = 10.0
_SENT_TIMEOUT_S = 3.0


def run_probe_radio(port: str, mode: str, echo: Callable[[str], None] = click.echo) -> None:
    """Print what was found, as the lines of the configuration.

    Raises:
        PortError: nothing answered, or the port cannot be opened.
    """
    found = asyncio.run(find_radio_module(port, mode))
    echo(f"{found.identity} at {found.baud_rate} baud")
    echo(f'[radio]\nmodule = "{found.name}"\nport = "{port}"\nbaud_rate = {found.baud_rate}')


def run_listen(settings: RadioSection, key: bytes, *, seconds: float | None, as_json: bool) -> None:
    """Print every telegram that is heard, decoded, until Ctrl-C or for some seconds.

    Raises:
        PortError: nothing answered, or the port cannot be opened.
    """
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_listen(settings, Inspector(key), seconds, as_json=as_json))


def run_send(settings: RadioSection, telegram: bytes, echo: Callable[[str], None] = click.echo) -> None:
    """Have one telegram (from its L-field, without CRCs) sent.

    Raises:
        PortError: the module does not answer, or refuses it.
        WmbusUsageError: the module cannot send, or it is no telegram.
    """
    asyncio.run(_send(settings, telegram))
    echo("sent")


async def _listen(
    settings: RadioSection, inspector: Inspector, seconds: float | None, *, as_json: bool
) -> None:
    def show(heard: TelegramHeard) -> None:
        tree = {
            "rssi_dbm": heard.rssi_dbm,
            "telegram": heard.octets.hex().upper(),
            **inspector.inspect(heard.octets),
        }
        click.echo(json.dumps(tree, ensure_ascii=False) if as_json else "\n".join((*render(tree), "")))

    link = await _link(settings, show)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await link.run()


async def _send(settings: RadioSection, telegram: bytes) -> None:
    link = await _link(settings, lambda _heard: None)
    if not link.module.can_transmit:
        raise WmbusUsageError(f"the driver of {settings.module} cannot send")
    task = asyncio.create_task(link.run())
    try:
        await _until(
            lambda: link.shell.state == "running", _READY_TIMEOUT_S, "the radio module does not answer"
        )
        link.transmit(telegram)
        if link.module.tells_what_was_sent:
            await _until(lambda: link.commands_sent > 0, _SENT_TIMEOUT_S, "the radio module did not take it")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _link(settings: RadioSection, on_telegram: Callable[[TelegramHeard], None]) -> RadioLink:
    if settings.module == AUTO:
        found = await find_radio_module(settings.port, settings.mode)
        settings = replace(settings, module=found.name)
    module = make_radio_module(settings)
    return RadioLink(module, settings.port, module.baud_rate, on_telegram)


async def _until(holds: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            while not holds():  # noqa: ASYNC110 - the shell's state has no event
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise PortError(otherwise) from None
