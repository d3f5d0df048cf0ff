"""The root of every error that this product raises on purpose.

Each package has one small tree below these roots. Two branches separate *our* mistake from *the
peer's* mistake, because they end differently: a `LocalError` is a fault of the caller or of the
configuration and is told to the user; a `RemoteError` is bad input from a meter, a modem, a head-end
or a radio, and is counted, logged and survived. A `TransientError` is worth trying again.
"""


class ConcentratorError(Exception):
    """Root of all errors of this product. Its text says what was received, from where, and what to do."""


class LocalError(ConcentratorError):
    """We were asked for something that cannot be: a wrong argument, state or configuration."""


class RemoteError(ConcentratorError):
    """A peer sent what its standard does not allow, or refused what it was asked."""


class TransientError(RemoteError):
    """The same request may succeed later: a timeout, a busy peer, a lost link."""


class ConnectionLostError(TransientError):
    """The way to the peer is gone: asking again succeeds on a new connection only."""
