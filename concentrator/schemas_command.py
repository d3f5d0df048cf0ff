"""`concentrator mqtt-schemas`: the JSON Schema files of the MQTT payloads."""

from __future__ import annotations

from pathlib import Path

import click

from concentrator.command_types import FolderType
from concentrator.uplink.schemas import schema_texts


@click.command("mqtt-schemas")
@click.argument("name", required=False)
@click.option("--directory", type=FolderType(), help="Write all of them here, one file each.")
def mqtt_schemas(name: str | None, directory: Path | None) -> None:
    """Print the names of the MQTT payloads' JSON Schemas, or the schema NAME; or write all into a folder."""
    texts = schema_texts()
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        for one, text in texts.items():
            (directory / f"{one}.json").write_text(text, encoding="utf-8")
        return
    if name is None:
        click.echo("\n".join(texts))
        return
    if name not in texts:
        raise click.UsageError(f"NAME: got {name!r}; allowed: {', '.join(texts)}")
    click.echo(texts[name], nl=False)
