"""Errors of the ASCII protocols."""

from __future__ import annotations

from concentrator.errors import RemoteError


class TelegramError(RemoteError):
    """Octets that are no data message of IEC 62056-21."""
