"""Types of command-line parameters."""

from __future__ import annotations

from pathlib import Path

import click


class OctetsType(click.ParamType[bytes]):
    """Octets in hexadecimal; a mistake never repeats what was given: it may be most of a key."""

    name = "HEX"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        """The octets."""
        if isinstance(value, bytes):
            return value
        try:
            return bytes.fromhex(str(value))
        except ValueError:
            self.fail("has to be hexadecimal digits, two for each octet", param, ctx)


class FolderType(click.Path):
    """A folder, there or not; a name that begins with - is an option whose value was forgotten."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, file_okay=False)

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The folder."""
        if str(value).startswith("-"):
            self.fail(f"is to be a folder, got {value}; for a folder of that name ./{value}", param, ctx)
        return Path(str(super().convert(str(value), param, ctx)))
