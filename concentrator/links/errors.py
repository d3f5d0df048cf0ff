"""What can go wrong on the way to a meter."""

from __future__ import annotations

from concentrator.errors import ConcentratorError, ConnectionLostError, TransientError


class LinkError(ConcentratorError):
    """Root of the errors of this package."""


class PortError(LinkError):
    """A serial port cannot be opened: the text names it and says what to do."""


class LinkLostError(LinkError, ConnectionLostError):
    """The port, the modem or the node went away while something was under way."""


class AnswerTimeoutError(LinkError, TransientError):
    """A meter did not answer in time."""


class NotDeliveredError(LinkError, TransientError):
    """The modem could not deliver an APDU to the node."""
