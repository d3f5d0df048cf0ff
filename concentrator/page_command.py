"""`concentrator page`: the diagnostics page as a process of its own, and the fingerprint of its certificate."""

from __future__ import annotations

from pathlib import Path

import click

from concentrator.access.errors import AccessError
from concentrator.access.page_certificate import fingerprint, page_certificate
from concentrator.command_options import CONFIG_OPTION
from concentrator.config import load_config


@click.group(invoke_without_command=True)
@CONFIG_OPTION
@click.pass_context
def page(context: click.Context, config_file: Path) -> None:
    """Serve the diagnostics page, as a process of its own."""
    if context.invoked_subcommand is None:
        from concentrator.web.serve import serve_page

        serve_page(config_file.absolute())


@page.command("fingerprint")
@CONFIG_OPTION
def print_fingerprint(config_file: Path) -> None:
    """Print the SHA-256 fingerprint of the page's certificate, as browsers show it."""
    files = page_certificate(load_config(config_file, ports_exist=False))
    if files is None:
        raise AccessError("the page has no certificate: web.tls is off")
    click.echo(fingerprint(files[0]))
