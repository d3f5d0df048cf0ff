"""General-block-transfer, receiving: the blocks of an APDU put together (Green Book 9.4.6.13).

Serves pushes without confirmation (window 0, as meters on HDLC send them), and confirmed transfers with
windows, streaming, and recovery of blocks that were lost.
"""

from __future__ import annotations

from concentrator.dlms.apdu.protection import GeneralBlockTransfer


class BlockReceiver:
    """Collects the blocks of one APDU. `window` is how many blocks we can take at a time.

    `lost` counts blocks that came out of order and had to be sent again, or were lost for good.
    """

    def __init__(self, window: int = 8, limit: int = 0x100000) -> None:
        self._window = window
        self._limit = limit
        self._blocks: list[bytes] = []
        self._octets = 0
        self.lost = 0

    def receive_block(self, block: GeneralBlockTransfer) -> bytes | None:
        """Take a block; gives the APDU once the last one is in order."""
        if block.block_number == 1:
            self.reset()
        if block.block_number != len(self._blocks) + 1:
            # A repetition is harmless; a gap is closed by asking again, where the sender listens.
            if block.block_number > len(self._blocks) + 1:
                self.lost += 1
            return None
        self._blocks.append(block.block)
        self._octets += len(block.block)
        if self._octets > self._limit:
            self.lost += 1
            self.reset()
            return None
        if not block.last:
            return None
        return b"".join(self._blocks)

    def acknowledgement(self, own_block_number: int) -> GeneralBlockTransfer:
        """The block that acknowledges what is here in order, and asks for the next window."""
        return GeneralBlockTransfer(True, False, self._window, own_block_number, len(self._blocks), b"")

    def reset(self) -> None:
        """Forget the blocks so far."""
        self._blocks = []
        self._octets = 0
