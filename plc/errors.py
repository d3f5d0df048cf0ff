"""Errors of the modem side.

A bad frame from a modem is never raised: it is counted and dropped, because
a serial line is noisy and the modem itself drops bad frames without a word. What is raised is our own
misuse.
"""


class PlcError(Exception):
    """Root of the errors of this package."""


class LocalPlcError(PlcError):
    """The caller asked for what cannot be sent: a value out of range, an APDU that is too long."""


class MessageError(PlcError):
    """The payload of a good frame is not what its command's table says. Counted by the network object."""
