"""Image transfer (class 18) as a client does it: the steps of Blue Book part 2, 4.4.6.2, each a conversation.

The truth of what a meter has is the meter's own: `read_missing` asks for it, and only what is missing is sent.
`initiate` erases what was there before; it is never used to find out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from concentrator.dlms import axdr
from concentrator.dlms.attributes import AttributeDescriptor, MethodDescriptor
from concentrator.dlms.axdr import DataType
from concentrator.dlms.client import Client, Conversation
from concentrator.dlms.codes import ActionResult
from concentrator.dlms.cosem.image_transfer import IMAGE_TRANSFER, ImageToActivate, ImageTransferStatus
from concentrator.dlms.errors import AccessError, DecodeError, DlmsError
from concentrator.errors import ConnectionLostError, TransientError

_CLASS = 18
_BLOCK_SIZE, _BLOCKS_STATUS, _FIRST_MISSING, _ENABLED, _STATUS, _TO_ACTIVATE = range(2, 8)
_INITIATE, _BLOCK_TRANSFER, _VERIFY, _ACTIVATE = range(1, 5)
_MOST_LOST_IN_A_ROW = 3
_LARGEST_BLOCK = 0xFFFF


class TransferState(NamedTuple):
    """What a meter tells of its image transfer. `block_size` is in octets."""

    block_size: int
    enabled: bool
    status: ImageTransferStatus


def _attribute(number: int) -> AttributeDescriptor:
    return AttributeDescriptor(_CLASS, IMAGE_TRANSFER, number)


def _method(number: int) -> MethodDescriptor:
    return MethodDescriptor(_CLASS, IMAGE_TRANSFER, number)


def block_count(size: int, block_size: int) -> int:
    """How many blocks an image of this many octets has; the last may be shorter."""
    return -(-size // block_size)


def read_state(client: Client) -> Conversation[TransferState]:
    """image_block_size, image_transfer_enabled and image_transfer_status.

    Raises:
        AccessError: the meter has no such object, or keeps it from us.
        DecodeError: what it tells is none of these.
    """
    values = yield from client.get_many([_attribute(one) for one in (_BLOCK_SIZE, _ENABLED, _STATUS)])
    found: list[axdr.Data] = []
    for value in values:
        if isinstance(value, AccessError):
            raise value
        found.append(value)
    size, enabled, status = found
    if not 0 < size.integer() <= _LARGEST_BLOCK:
        raise DecodeError(f"image_block_size: got {size.integer()}; allowed: 1 to {_LARGEST_BLOCK}")
    return TransferState(size.integer(), bool(enabled.value), _status(status))


def read_status(client: Client) -> Conversation[ImageTransferStatus]:
    """image_transfer_status."""
    return _status((yield from client.get(_attribute(_STATUS))))


def _status(value: axdr.Data) -> ImageTransferStatus:
    try:
        return ImageTransferStatus(value.integer())
    except ValueError:
        raise DecodeError(f"image_transfer_status: got {value.integer()}; allowed: 0 to 7") from None


def enable(client: Client) -> Conversation[None]:
    """Set image_transfer_enabled, without which the methods are refused."""
    yield from client.set(_attribute(_ENABLED), axdr.boolean(True))


def initiate(client: Client, identifier: bytes, size: int) -> Conversation[None]:
    """Begin a transfer anew; whatever was there of an image is erased."""
    parameters = axdr.structure(axdr.octet_string(identifier), axdr.double_long_unsigned(size))
    yield from client.action(_method(_INITIATE), parameters)


def read_missing(client: Client, blocks: int) -> Conversation[list[int]]:
    """The numbers of the blocks that the meter does not have, by image_transferred_blocks_status.

    Where that cannot be read (it may be too long for a meter), all from image_first_not_transferred_block_number on.

    Raises:
        DlmsError: neither can be read.
    """
    try:
        value = yield from client.get(_attribute(_BLOCKS_STATUS))
        if value.type == DataType.BIT_STRING and len(str(value.value)) >= blocks:
            return [number for number, bit in enumerate(str(value.value)[:blocks]) if bit != "1"]
    except TransientError:
        raise
    except DlmsError:
        pass
    first = (yield from client.get(_attribute(_FIRST_MISSING))).integer()
    return list(range(max(first, 0), blocks))


def send_blocks(
    client: Client,
    image: bytes,
    block_size: int,
    numbers: Sequence[int],
    on_sent: Callable[[int], None] = lambda _number: None,
) -> Conversation[int]:
    """Send blocks; gives how many the meter acknowledged, and tells each by `on_sent`.

    One that is not acknowledged is not repeated here: the meter is asked what it has, and sent what it lacks.

    Raises:
        TransientError: the link is lost, or three blocks in a row were not acknowledged.
        AccessError: the meter refused a block.
        EncodeError: a block does not fit into what the meter takes.
    """
    acknowledged = lost = 0
    for number in numbers:
        octets = image[number * block_size : (number + 1) * block_size]
        parameters = axdr.structure(axdr.double_long_unsigned(number), axdr.octet_string(octets))
        try:
            yield from client.action(_method(_BLOCK_TRANSFER), parameters)
        except ConnectionLostError:
            raise
        except TransientError:
            lost += 1
            if lost >= _MOST_LOST_IN_A_ROW:
                raise
            continue
        lost = 0
        acknowledged += 1
        on_sent(number)
    return acknowledged


def verify(client: Client) -> Conversation[ImageTransferStatus]:
    """Have the meter verify what it has; the status tells what came of it, also where that takes its time."""
    return (yield from _invoke(client, _VERIFY, ImageTransferStatus.VERIFICATION_FAILED))


def activate(client: Client) -> Conversation[ImageTransferStatus]:
    """Have the meter use the image; many restart, and answer nothing any more.

    Raises:
        TransientError: it is not known whether it was done.
    """
    return (yield from _invoke(client, _ACTIVATE, ImageTransferStatus.ACTIVATION_FAILED))


def _invoke(client: Client, method: int, failed: ImageTransferStatus) -> Conversation[ImageTransferStatus]:
    try:
        yield from client.action(_method(method), axdr.integer(0))
    except TransientError:
        raise
    except AccessError as error:
        status = yield from read_status(client)
        if error.result != ActionResult.TEMPORARY_FAILURE and status != failed:
            raise
        return status
    return (yield from read_status(client))


def read_images_to_activate(client: Client) -> Conversation[list[ImageToActivate]]:
    """image_to_activate_info: what the meter says it would activate; empty where it tells nothing."""
    try:
        value = yield from client.get(_attribute(_TO_ACTIVATE))
    except AccessError:
        return []
    found: list[ImageToActivate] = []
    for one in value.items():
        size, identification, signature = one.items(3)
        found.append(ImageToActivate(size.integer(), identification.octets(), signature.octets()))
    return found
