"""Errors of the ASCII protocols."""

from __future__ import annotations

from concentrator.errors import LocalError, RemoteError


class TelegramError(RemoteError):
    """Octets that are no data message of IEC 62056-21."""


class DialogueUsageError(LocalError):
    """We were asked to send what a message of IEC 62056-21 cannot carry."""
