"""Errors of M-Bus decoding.

Every decoder of this package returns a value or raises `TelegramError`: one class, so that a radio
receiver drops and counts with one `except`. What cannot be *read* (no key, wrong key, a mode that is
not supported) is no error: it is a state of the decoded telegram (`security.SecurityState`).
"""

from __future__ import annotations

from concentrator.errors import LocalError, RemoteError, TransientError


class TelegramError(RemoteError):
    """Octets that are no M-Bus telegram: too short, a wrong check sum, a header that ends early."""


class TransmissionRefusedError(TransientError):
    """A telegram may not be sent now: the band's duty cycle is used up. Later it may."""


class WmbusUsageError(LocalError):
    """We asked for what cannot be: a key of wrong length, a frame too long to be written."""
