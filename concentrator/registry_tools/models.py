"""`concentrator models`: which kinds of meters are known, and whether a file that describes one is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from concentrator.collection.errors import MeterModelError
from concentrator.collection.meter_models import MeterModel, ModelLibrary, parse_model
from concentrator.command_options import CONFIG_OPTION
from concentrator.config import load_config


@click.group()
def models() -> None:
    """Meter models: objects, quirks and credentials by kind of meter."""


@models.command("list")
@CONFIG_OPTION
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_models(config_file: Path, *, as_json: bool) -> None:
    """The models in the order in which they are tried: your own first. Without configuration: those of the package."""
    directory = (
        load_config(config_file, ports_exist=False).collection.models_directory
        if config_file.exists()
        else ""
    )
    found = list(ModelLibrary.load(Path(directory) if directory else None))
    if as_json:
        click.echo(json.dumps([_tree(model) for model in found], indent=2))
        return
    for model in found:
        click.echo(f"{model.name:20} {model.title}  ({model.source})")


@models.command("check")
@click.argument("path", type=click.Path(path_type=Path, exists=True))
def check_models(path: Path) -> None:
    """Check a model's file, or all of a folder: exit status 2 and a line for each mistake."""
    files = sorted(path.glob("*.toml")) if path.is_dir() else [path]
    if not files:
        raise MeterModelError(f"{path}: has no *.toml")
    mistakes: list[str] = []
    for file in files:
        try:
            model = parse_model(file.read_bytes(), str(file))
        except MeterModelError as error:
            mistakes.append(str(error))
        except OSError as error:
            mistakes.append(f"{file}: cannot be read: {error.strerror}")
        else:
            click.echo(f"{file}: right ({model.name})")
    if mistakes:
        raise MeterModelError("\n".join(mistakes))


def _tree(model: MeterModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "title": model.title,
        "source": model.source,
        "fallback": model.fallback,
        "objects": {
            role: [
                {
                    "obis": str(one.obis),
                    "class_id": one.class_id,
                    "attribute": one.attribute,
                    "name": one.name,
                }
                for one in objects
            ]
            for role, objects in model.objects.items()
        },
        "time_zone": str(model.time_zone or ""),
        "mbus_channels": model.mbus_channels,
    }
