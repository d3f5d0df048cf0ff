"""What a simulated modem needs of a meter behind it, so that any COSEM server can stand there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Device(Protocol):
    """A meter on the far side of the power line.

    `identity` is the serial text that the meter tells when it opens its 4-32 connection.
    """

    eui48: bytes
    eui64: bytes
    identity: str

    def receive_apdu(
        self, client_sap: int, server_sap: int, apdu: bytes, reply: Callable[[bytes], None]
    ) -> None:
        """Take an APDU. Each call of `reply` sends one back; at once or later, from the same thread."""
        ...

    def link_lost(self) -> None:
        """The node lost its network connection: its associations end."""
        ...
