"""Types of command-line parameters."""

from __future__ import annotations

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
