"""`concentrator radio probe`: find out by asking which wireless M-Bus module is at a port."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import click

from concentrator.links.radio_modules import find_radio_module


def run_probe_radio(port: str, mode: str, echo: Callable[[str], None] = click.echo) -> None:
    """Print what was found, as the lines of the configuration.

    Raises:
        PortError: nothing answered, or the port cannot be opened.
    """
    found = asyncio.run(find_radio_module(port, mode))
    echo(f"{found.identity} at {found.baud_rate} baud")
    echo(f'[radio]\nmodule = "{found.name}"\nport = "{port}"\nbaud_rate = {found.baud_rate}')
