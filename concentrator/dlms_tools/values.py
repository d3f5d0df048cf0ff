"""Values on the command line: a type of the Blue Book and a text become `Data`."""

from __future__ import annotations

from datetime import datetime

from concentrator.dlms import axdr
from concentrator.dlms.axdr import Data, DataType
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.errors import DlmsError, EncodeError
from concentrator.dlms_tools.session import SessionUsageError

_NUMBERS = (
    DataType.DOUBLE_LONG, DataType.DOUBLE_LONG_UNSIGNED, DataType.BCD, DataType.INTEGER, DataType.LONG,
    DataType.UNSIGNED, DataType.LONG_UNSIGNED, DataType.LONG64, DataType.LONG64_UNSIGNED, DataType.ENUM,
)  # fmt: skip
_FLOATS = (DataType.FLOAT32, DataType.FLOAT64)
_TEXTS = (DataType.VISIBLE_STRING, DataType.UTF8_STRING, DataType.BIT_STRING)
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
AXDR = "axdr"
VALUE_TYPES = [
    AXDR,
    *(kind.label for kind in (DataType.BOOLEAN, *_NUMBERS, *_FLOATS, *_TEXTS)),
    DataType.OCTET_STRING.label,
    DataType.DATE_TIME.label,
]


def parse_value(kind: str, text: str) -> Data:
    """The value that a text stands for: a number, a text, octets in hexadecimal, an RFC 3339 time, or whole A-XDR.

    Raises:
        SessionUsageError: the text is none of the type; it is not repeated, since it may be a secret.
    """
    try:
        if kind == AXDR:
            return axdr.decode(bytes.fromhex(text))
        data_type = next(known for known in DataType if known.label == kind)
        value = Data(data_type, _native(data_type, text))
        if data_type == DataType.DATE_TIME:
            # Attributes that hold a time are octet-strings; the type of its own is for choices (Blue Book 4.1.6.1).
            value = axdr.octet_string(value.octets())
        value.to_bytes()
    except (ValueError, KeyError, StopIteration, DlmsError, EncodeError):
        # An error of the encoder repeats the value.
        raise SessionUsageError(f"the value is no {kind}") from None
    return value


def _native(kind: DataType, text: str) -> bool | int | float | str | bytes:
    if kind == DataType.BOOLEAN:
        return _BOOLEANS[text.lower()]
    if kind in _NUMBERS:
        return int(text, 0)
    if kind in _FLOATS:
        return float(text)
    if kind in _TEXTS:
        return text
    if kind == DataType.OCTET_STRING:
        return bytes.fromhex(text)
    moment = datetime.fromisoformat(text)
    offset = moment.utcoffset()
    return CosemDateTime.from_datetime(
        moment, None if offset is None else -round(offset.total_seconds() / 60)
    ).to_bytes()
