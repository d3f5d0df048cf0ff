"""Options that many verbs have."""

from __future__ import annotations

from pathlib import Path

import click

CONFIG_OPTION = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    default=Path("/etc/concentrator/concentrator.toml"),
    show_default=True,
    help="The configuration file.",
)
JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
