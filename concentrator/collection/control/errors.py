"""What can become of a control order, beyond done."""

from __future__ import annotations

from concentrator.collection.errors import CollectionError
from concentrator.errors import LocalError, RemoteError, TransientError
from concentrator.orders import OrderError


class NotAuthorisedError(OrderError):
    """Whoever gave the order may not give this one."""


class ControlError(CollectionError):
    """Root of what becomes of a control order; the text says what is known of the meter's state."""


class ControlRefusedError(ControlError, LocalError):
    """Nothing was sent: the meter's state, or what is set up here, does not allow it."""


class NotDoneError(ControlError, RemoteError):
    """The meter was asked, and did not do it: reading back says so."""


class OutcomeUnknownError(ControlError, RemoteError):
    """The meter was asked, and cannot tell what came of it."""


class OutcomeOpenError(ControlError, TransientError):
    """The link was lost after the command had gone out: the meter is asked what came of it at the next contact."""


class AssociateAgainError(Exception):
    """The dialogue goes on in a new association: the meter was given other keys. Never leaves the visit."""
