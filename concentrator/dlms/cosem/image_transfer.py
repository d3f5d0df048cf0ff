"""Image transfer (class 18) as a server does it: the true state of every block (Blue Book part 2, 4.4.6).

A device takes an image block by block in any order, tells which are missing, checks the whole and puts it into
use. What checking and using mean is given from outside; both may take their time, which a client sees
as `temporary-failure` and the status.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple, Protocol

from concentrator.dlms import axdr
from concentrator.dlms.axdr import Data, DataType
from concentrator.dlms.codes import ActionResult
from concentrator.dlms.cosem.objects import CosemObject, refused
from concentrator.dlms.errors import DecodeError
from concentrator.errors import LocalError
from concentrator.obis import Obis

IMAGE_TRANSFER = Obis(0, 0, 44, 0, 0, 255)
_LARGEST_IMAGE = 16 * 1024 * 1024


class ImageTransferStatus(enum.IntEnum):
    """image_transfer_status."""

    NOT_INITIATED = 0
    INITIATED = 1
    VERIFICATION_INITIATED = 2
    VERIFICATION_SUCCESSFUL = 3
    VERIFICATION_FAILED = 4
    ACTIVATION_INITIATED = 5
    ACTIVATION_SUCCESSFUL = 6
    ACTIVATION_FAILED = 7


class ImageToActivate(NamedTuple):
    """What a verified image is, and its signature, for the client to compare."""

    size: int
    identification: bytes
    signature: bytes


class Outcome(enum.Enum):
    """What became of verifying or activating."""

    DONE = "done"
    FAILED = "failed"
    # Ask again: the hook is called anew when the client does.
    PENDING = "pending"


Verify = Callable[[bytes, bytes], tuple[Outcome, tuple[ImageToActivate, ...]]]
Activate = Callable[[tuple[ImageToActivate, ...], bytes], Outcome]


class ImageBlocks(Protocol):
    """Where the blocks of an image are kept. What cannot be kept raises a LocalError, and the client is refused.

    `received` has an octet for each block: 1 for one that is here.
    """

    identification: bytes
    size: int
    received: bytearray

    def begin(self, identification: bytes, size: int, block_size: int) -> None:
        """Forget what was here; an image of this many octets comes."""
        ...

    def write(self, index: int, start: int, octets: bytes) -> None:
        """Keep one block, which begins at octet `start`."""
        ...

    def octets(self) -> bytes:
        """The whole image, or nothing where the hooks know where it is."""
        ...


class MemoryBlocks:
    """Blocks in memory, for small devices and their images."""

    def __init__(self) -> None:
        self.identification = b""
        self.size = 0
        self.received = bytearray()
        self._octets = bytearray()

    def begin(self, identification: bytes, size: int, block_size: int) -> None:
        """Forget what was here."""
        self.identification, self.size = identification, size
        self._octets = bytearray(size)
        self.received = bytearray(-(-size // block_size))

    def write(self, index: int, start: int, octets: bytes) -> None:
        """Keep one block."""
        self._octets[start : start + len(octets)] = octets
        self.received[index] = 1

    def octets(self) -> bytes:
        """The whole image."""
        return bytes(self._octets)


class ImageTransfer:
    """The state of one image transfer; `cosem_object` serves it.

    `verify` is given identification and octets of the whole image and tells the images within; `activate` is
    given these, and the octets. Keep the object where it outlives an association: a client may resume. `blocks` is
    where the image is kept, which is memory if not given; `on_status` is told each status before a client is answered.
    """

    def __init__(
        self,
        block_size: int,
        verify: Verify,
        activate: Activate,
        *,
        largest: int = _LARGEST_IMAGE,
        blocks: ImageBlocks | None = None,
    ) -> None:
        self.block_size = block_size
        self.enabled = True
        self.status = ImageTransferStatus.NOT_INITIATED
        self.on_status: Callable[[ImageTransferStatus], None] = lambda _status: None
        self.to_activate: tuple[ImageToActivate, ...] = ()
        self._verify_image = verify
        self._activate_image = activate
        self._largest = largest
        self._blocks = blocks or MemoryBlocks()

    @property
    def identification(self) -> bytes:
        """What the client calls the image."""
        return self._blocks.identification

    @property
    def first_missing(self) -> int:
        """The first block that is not here; the number of blocks where all are."""
        index = self._blocks.received.find(0)
        return len(self._blocks.received) if index < 0 else index

    @property
    def complete(self) -> bool:
        """Whether every block is here."""
        return bool(self._blocks.received) and 0 not in self._blocks.received

    def cosem_object(self, obis: Obis = IMAGE_TRANSFER) -> CosemObject:
        """The object, with its attributes and methods."""

        def enable(value: Data) -> None:
            if value.type != DataType.BOOLEAN:
                raise DecodeError("image_transfer_enabled is a boolean")
            self.enabled = bool(value.value)

        return CosemObject(
            18,
            obis,
            {
                2: axdr.double_long_unsigned(self.block_size),
                3: lambda: Data(DataType.BIT_STRING, "".join(map(str, self._blocks.received))),
                4: lambda: axdr.double_long_unsigned(self.first_missing),
                5: lambda: axdr.boolean(self.enabled),
                6: lambda: axdr.enumeration(self.status),
                7: self._information,
            },
            setters={5: enable},
            methods={
                1: self._told(self._initiate),
                2: self._told(self._take_block),
                3: self._told(self._verify),
                4: self._told(self._activate),
            },
            version=0,
        )

    def _told(self, method: Callable[[Data | None], Data | None]) -> Callable[[Data | None], Data | None]:
        def invoke(parameters: Data | None) -> Data | None:
            before = self.status
            try:
                return method(parameters)
            except LocalError:
                raise refused(ActionResult.OTHER_REASON) from None
            finally:
                if self.status != before:
                    self.on_status(self.status)

        return invoke

    def _information(self) -> Data:
        return axdr.array(
            *(
                axdr.structure(
                    axdr.double_long_unsigned(image.size),
                    axdr.octet_string(image.identification),
                    axdr.octet_string(image.signature),
                )
                for image in self.to_activate
            )
        )

    def _check_enabled(self) -> None:
        if not self.enabled:
            raise refused(ActionResult.READ_WRITE_DENIED)

    def _initiate(self, parameters: Data | None) -> Data | None:
        """Begin anew, whatever was here: what there is of an earlier image is erased."""
        self._check_enabled()
        if parameters is None:
            raise refused(ActionResult.TYPE_UNMATCHED)
        identification, size = parameters.items(2)[:2]
        octets = size.integer()
        if not 0 < octets <= self._largest:
            raise refused(ActionResult.SCOPE_OF_ACCESS_VIOLATED)
        self._blocks.begin(identification.octets(), octets, self.block_size)
        self.to_activate = ()
        self.status = ImageTransferStatus.INITIATED
        return None

    def _take_block(self, parameters: Data | None) -> Data | None:
        self._check_enabled()
        if self.status != ImageTransferStatus.INITIATED:
            raise refused(ActionResult.TEMPORARY_FAILURE)
        if parameters is None:
            raise refused(ActionResult.TYPE_UNMATCHED)
        number, block = parameters.items(2)[:2]
        index, octets = number.integer(), block.octets()
        if not 0 <= index < len(self._blocks.received):
            raise refused(ActionResult.SCOPE_OF_ACCESS_VIOLATED)
        start = index * self.block_size
        # Every block is full but for the last one.
        if len(octets) != min(self.block_size, self._blocks.size - start):
            raise refused(ActionResult.TYPE_UNMATCHED)
        self._blocks.write(index, start, octets)
        return None

    def _verify(self, _parameters: Data | None) -> Data | None:
        self._check_enabled()
        if self.status == ImageTransferStatus.VERIFICATION_SUCCESSFUL:
            return None
        ready = (ImageTransferStatus.INITIATED, ImageTransferStatus.VERIFICATION_INITIATED)
        if self.status not in ready or not self.complete:
            raise refused(ActionResult.OTHER_REASON)
        outcome, images = self._verify_image(self.identification, self._blocks.octets())
        if outcome == Outcome.PENDING:
            self.status = ImageTransferStatus.VERIFICATION_INITIATED
            raise refused(ActionResult.TEMPORARY_FAILURE)
        if outcome == Outcome.FAILED:
            self.status = ImageTransferStatus.VERIFICATION_FAILED
            raise refused(ActionResult.OTHER_REASON)
        self.status = ImageTransferStatus.VERIFICATION_SUCCESSFUL
        self.to_activate = images
        return None

    def _activate(self, _parameters: Data | None) -> Data | None:
        self._check_enabled()
        if self.status == ImageTransferStatus.INITIATED and self.complete:
            # A client may leave the check to the activation.
            self._verify(None)
        ready = (ImageTransferStatus.VERIFICATION_SUCCESSFUL, ImageTransferStatus.ACTIVATION_INITIATED)
        if self.status not in ready:
            raise refused(ActionResult.OTHER_REASON)
        outcome = self._activate_image(self.to_activate, self._blocks.octets())
        if outcome == Outcome.PENDING:
            self.status = ImageTransferStatus.ACTIVATION_INITIATED
            raise refused(ActionResult.TEMPORARY_FAILURE)
        if outcome == Outcome.FAILED:
            self.status = ImageTransferStatus.ACTIVATION_FAILED
            raise refused(ActionResult.OTHER_REASON)
        self.status = ImageTransferStatus.ACTIVATION_SUCCESSFUL
        return None
