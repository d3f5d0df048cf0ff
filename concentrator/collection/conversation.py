"""The driver of DLMS conversations: six lines between a generator and a channel.

A conversation yields the APDUs to send and is sent the one that came; where it yields none, it only asks for the
next one. What goes wrong on the way is thrown into it, so that it can end in an orderly state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Protocol, TypeVar

from concentrator.errors import TransientError

Result = TypeVar("Result")


class ApduChannel(Protocol):
    """What carries APDUs to a meter and back."""

    async def send(self, apdu: bytes) -> None:
        """Send one APDU."""
        ...

    async def receive(self, timeout_s: float) -> bytes:
        """The next APDU that came."""
        ...


async def converse(
    conversation: Generator[tuple[bytes, ...], bytes, Result],
    channel: ApduChannel,
    timeout_s: float,
    on_exchange: Callable[[float, float], None] = lambda _asked_at, _answered_at: None,
) -> Result:
    """Carry a conversation over a channel to its result; each answer may take `timeout_s`.

    `on_exchange` is told the loop's time of each question and of its answer.

    Raises:
        TransientError: the link was lost, or no answer came.
        DlmsError: whatever the conversation raises.
    """
    loop = asyncio.get_running_loop()
    try:
        apdus = next(conversation)
        while True:
            asked_at = loop.time()
            try:
                for apdu in apdus:
                    await channel.send(apdu)
                received = await channel.receive(timeout_s)
            except TransientError as error:
                apdus = conversation.throw(error)
            else:
                on_exchange(asked_at, loop.time())
                apdus = conversation.send(received)
    except StopIteration as stop:
        return stop.value
    finally:
        conversation.close()
