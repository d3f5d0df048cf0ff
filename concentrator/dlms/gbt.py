"""General-block-transfer, both directions (Green Book 9.3.5, 9.4.6.13): an APDU in blocks below the services.

A party sends as many blocks in a row as the other can take (its window) and goes on when the other has told
which it has in order; blocks that were lost are sent again, in smaller windows while that happens. Pushes
without confirmation (window 0, as meters on HDLC send them) are put together too. Each party numbers all its
blocks on through one exchange, those that only acknowledge included.
"""

from __future__ import annotations

from concentrator.dlms.apdu.protection import GeneralBlockTransfer
from concentrator.dlms.errors import EncodeError

MAX_WINDOW = 63
# Tag, control, two block numbers and a length of up to three octets.
BLOCK_OVERHEAD = 9
_LAST_NUMBER = 0xFFFF


class BlockTransfer:
    """One exchange: blocks go out by `send` and come in by `receive_block`.

    `window` is how many blocks we can take in a row, `peer_window` how many the peer can as far as is known,
    `send_limit` how many we send in a row at most. `lost` counts blocks that came out of order and were asked
    for again, or were lost for good; `stalls` how often in a row we asked for the same block. On a line that
    loses blocks, we ask for fewer at a time, and send fewer.
    """

    def __init__(
        self,
        window: int = 8,
        limit: int = 0x100000,
        *,
        peer_window: int = 1,
        send_limit: int = MAX_WINDOW,
    ) -> None:
        self._full_window = self._window = window
        self._limit = limit
        self._send_limit = self._send_window = send_limit
        self.peer_window = peer_window
        self._number = 0
        self._acknowledged = 0
        self._sent = 0
        self._base = 0
        # The peer may still answer what we have sent twice: the second of these answers says nothing new.
        self._answered_twice = False
        self._pieces: list[bytes] = []
        self._peer_base = 0
        self._blocks: list[bytes] = []
        self._octets = 0
        self._asked_for = -1
        self._gap = False
        self.lost = 0
        self.stalls = 0

    @property
    def sending(self) -> bool:
        """Whether the peer has not all of our blocks yet."""
        return self._acknowledged < len(self._pieces)

    @property
    def receiving(self) -> bool:
        """Whether a part of the peer's APDU is here."""
        return bool(self._blocks)

    @property
    def progress(self) -> int:
        """A number that rises with every block that arrived, either way."""
        return self._in_order + self._acknowledged

    def send(self, apdu: bytes, size: int) -> list[GeneralBlockTransfer]:
        """Cut an APDU into blocks of `size` octets; gives the first of them, as many as may go now.

        Raises:
            EncodeError: there is no room for a block, or there are more blocks than numbers.
        """
        if size < 1 or len(apdu) > size * (_LAST_NUMBER - self._number):
            raise EncodeError(f"an APDU of {len(apdu)} octets does not fit into blocks of {size} octets")
        self._pieces = [apdu[start : start + size] for start in range(0, len(apdu), size)]
        self._base, self._acknowledged, self._sent = self._number, 0, 0
        return self._next_window()

    def receive_block(self, block: GeneralBlockTransfer) -> tuple[list[GeneralBlockTransfer], bytes | None]:
        """Take a block; gives the blocks to send now, and the peer's APDU once it is whole."""
        if block.window:
            self.peer_window = block.window
        if not block.block and not self._blocks:
            self._peer_base = max(self._peer_base, block.block_number)
        if self.sending:
            before = self._acknowledged
            self._acknowledged = min(max(before, block.acknowledged - self._base), len(self._pieces))
            if self.sending:
                return self._after_acknowledgement(before), None
        if not block.block and not self._blocks:
            return [], None
        if block.block_number == 1 and (self._peer_base or len(self._blocks) > 1):
            # Whoever counts from 1 again has begun anew.
            self._forget(0)
        return self._take(block)

    def _take(self, block: GeneralBlockTransfer) -> tuple[list[GeneralBlockTransfer], bytes | None]:
        expected = self._peer_base + len(self._blocks) + 1
        if block.block_number == expected:
            self._blocks.append(block.block)
            self._octets += len(block.block)
            if self._octets > self._limit:
                self.lost += 1
                self._forget(0)
                return [], None
            if block.last:
                whole = b"".join(self._blocks)
                self._forget(block.block_number)
                return [], whole
        elif block.block_number > expected:
            # A repetition is harmless; a gap is closed by asking again, where the sender listens.
            self.lost += 1
            self._gap = True
        if not block.last and block.streaming:
            return [], None
        if block.block_number < expected and self._answered_twice:
            self._answered_twice = False
            return [], None
        return [self.acknowledgement()], None

    def _after_acknowledgement(self, before: int) -> list[GeneralBlockTransfer]:
        """What goes next, now that the peer has told what it has; `before` is what it had."""
        if self._acknowledged == before and self._answered_twice:
            self._answered_twice = False
            return []
        if self._acknowledged < self._sent:
            self.lost += 1
            self._send_window = max(1, self._send_window // 2)
        else:
            self._send_window = min(self._send_limit, self._send_window + 1)
        return self._next_window()

    def acknowledgement(self) -> GeneralBlockTransfer:
        """Tell the peer what is here in order, and ask for what follows."""
        self._number = min(self._number + 1, _LAST_NUMBER)
        stalled = self._in_order == self._asked_for
        self.stalls = self.stalls + 1 if stalled else 0
        self._asked_for = self._in_order
        if self._gap or stalled:
            self._window = max(1, self._window // 2)
        else:
            self._window = min(self._full_window, self._window + 1)
        self._gap = False
        return GeneralBlockTransfer(True, False, self._window, self._number, self._in_order, b"")

    def repetition(self) -> list[GeneralBlockTransfer]:
        """What to send when an answer is overdue."""
        self._answered_twice = True
        return self._next_window() if self.sending else [self.acknowledgement()]

    @property
    def _in_order(self) -> int:
        return self._peer_base + len(self._blocks)

    def _next_window(self) -> list[GeneralBlockTransfer]:
        start = self._acknowledged
        end = min(start + min(self.peer_window, self._send_window), len(self._pieces))
        self._sent = end
        self._number = max(self._number, self._base + end)
        return [
            GeneralBlockTransfer(
                index + 1 == len(self._pieces),
                index + 1 != end,
                self._window,
                self._base + index + 1,
                self._in_order,
                self._pieces[index],
            )
            for index in range(start, end)
        ]

    def _forget(self, base: int) -> None:
        self._blocks = []
        self._octets = 0
        self._peer_base = base
