"""What can go wrong in collecting, beyond what links and DLMS say themselves."""

from __future__ import annotations

from concentrator.errors import ConcentratorError, LocalError, TransientError


class CollectionError(ConcentratorError):
    """Root of the errors of this package."""


class KeyFileError(CollectionError, LocalError):
    """The key file cannot be used; the text says why, and never shows a key."""


class KeysMissingError(CollectionError, LocalError):
    """A meter is to be read with authentication, and there is no key or password for it."""


class MeterModelError(CollectionError, LocalError):
    """A meter model's file is wrong, one line for each mistake; or a role is asked for that no model has."""


class MeterEntryError(CollectionError, LocalError):
    """Something that is said of a meter, in an order or a list, is wrong: one line for each mistake."""


class UnknownMeterError(CollectionError, LocalError):
    """An order names a meter that the registry does not have."""


class MeterUnreachableError(CollectionError):
    """An order's meter cannot be read now; the text says why."""


class MeterAwayError(MeterUnreachableError, TransientError):
    """An order's meter is not there, or did not answer before the order began: it may be given again."""


class NetworkOrderError(CollectionError):
    """The network did not do what an order asked for; the text says why."""
