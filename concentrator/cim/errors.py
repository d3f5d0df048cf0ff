"""What can be wrong with a CIM message that came in."""

from __future__ import annotations

from concentrator.errors import LocalError


class CimError(LocalError):
    """A message that is no IEC 61968 message, or asks for what this concentrator cannot do; the text says what."""
