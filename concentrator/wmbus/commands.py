"""Telegrams to a meter that listens after it sent (modes S2, T2, C2; EN 13757-4, OMS volume 2): commands, requests.

The link layer carries the address of who asks, the transport layer the meter's own. Content may be protected by mode
5 with the meter's key. When such a telegram goes out, within milliseconds of the meter's own, is the radio module's
business.
"""

from __future__ import annotations

from concentrator.wmbus.address import Address
from concentrator.wmbus.errors import WmbusUsageError
from concentrator.wmbus.frame import FrameFormat, LinkFrame, encode_frame
from concentrator.wmbus.security import BLOCK_OCTETS, DECRYPTION_CHECK, MeterKey, encrypt_mode_5
from concentrator.wmbus.wired import C_REQ_UD2, C_SND_NKE, C_SND_UD

C_ACKNOWLEDGE, C_CONFIRM_INSTALLATION = 0x00, 0x06
_CI_COMMAND, _CI_PURE_TRANSPORT = 0x5B, 0x80
_MODE_5 = 0x0500
_MOST_BLOCKS = 15


def request_data(meter: Address, sender: Address, access_number: int) -> bytes:
    """REQ-UD2: the meter is to send its data now."""
    return _without_content(C_REQ_UD2, meter, sender, access_number)


def reset_link(meter: Address, sender: Address, access_number: int) -> bytes:
    """SND-NKE: the end of a dialogue, or a new beginning."""
    return _without_content(C_SND_NKE, meter, sender, access_number)


def confirm_installation(meter: Address, sender: Address, access_number: int) -> bytes:
    """CNF-IR: an answer to a meter's SND-IR, that it was heard."""
    return _without_content(C_CONFIRM_INSTALLATION, meter, sender, access_number)


def acknowledge(meter: Address, sender: Address, access_number: int) -> bytes:
    """ACK: what the meter sent has arrived."""
    return _without_content(C_ACKNOWLEDGE, meter, sender, access_number)


def send_records(
    meter: Address, sender: Address, access_number: int, records: bytes, key: MeterKey | None = None
) -> bytes:
    """SND-UD with data records, encrypted by mode 5 when there is a key.

    Raises:
        WmbusUsageError: more records than one telegram holds.
    """
    configuration, content = 0, records
    if key is not None:
        content = DECRYPTION_CHECK + records
        content += b"\x2f" * (-len(content) % BLOCK_OCTETS)
        blocks = len(content) // BLOCK_OCTETS
        if blocks > _MOST_BLOCKS:
            raise WmbusUsageError(f"mode 5 holds {_MOST_BLOCKS} blocks of 16 octets, this needs {blocks}")
        configuration = _MODE_5 | blocks << 4
        content = encrypt_mode_5(key, meter, access_number, content)
    header = meter.to_transport_layer() + bytes((access_number, 0)) + configuration.to_bytes(2, "little")
    return _telegram(C_SND_UD, sender, bytes((_CI_COMMAND,)) + header + content)


def _without_content(c_field: int, meter: Address, sender: Address, access_number: int) -> bytes:
    header = meter.to_transport_layer() + bytes((access_number, 0, 0, 0))
    return _telegram(c_field, sender, bytes((_CI_PURE_TRANSPORT,)) + header)


def _telegram(c_field: int, sender: Address, payload: bytes) -> bytes:
    return encode_frame(LinkFrame(c_field, sender, payload, FrameFormat.WITHOUT_CRC))
