"""Compact frames (EN 13757-7, CI 79, 7B, 73): only the values, by a format that was heard before.

A meter sends a full frame now and then; in between it sends a signature of the format (a CRC over all
DIF, DIFE, VIF, VIFE in their order), a CRC over the data as a full frame would have carried them, and
the values. The format comes from any full frame with that signature, of any meter, or from a format
frame (CI 69, 6A, 6B). No value is given unless the second CRC fits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator

from concentrator.wmbus.crc import crc_en13757
from concentrator.wmbus.errors import TelegramError
from concentrator.wmbus.records import merge_records

DEFAULT_LARGEST_NUMBER_OF_FORMATS = 1024
_SIGNATURE_OCTETS = 2
_COMPACT_HEAD_OCTETS = 4


# Formats of common meters as real full frames carried them: a compact frame is then readable from the first on.
WELL_KNOWN_FORMATS = tuple(
    bytes.fromhex(headers)
    for headers in (
        "02FF2004134413615B6167",
        "02FF2004134413",
        "030643060314426C022D01FF21",
        "030E430E0313426C022D01FF21",
        "030F430F0314426C022D01FF21",
        "02F9FF15040604EEFF0704EEFF0804148440148480401402FD17026C426C44064414C44014C4804014043B0259025D",
        "040F04FF0704FF08041484401484804014043B0259025D142D84100F84200F04FF22026C440F4414C44014C4804014426C",
        "040E04FF0704FF08041384401484804014043B0259025D142D84100E84200E04FF22026C440E4413C44014C4804014426C",
        "0405041304FF0704FF080259025D023B02FF22026C44054413426C",
        "040604FF0704FF080414043B0259025D04FF22026C44064414426C",
        "0406041404FF0704FF080259025D023B02FF22026C44064414426C",
        "040604FF0704FF080414043B0259025D04FF22",
        "040F04FF0704FF08041402FD17043B0259025D",
        "22691269026905FF0905FF0A02FD17",
        "426C441301FD17" + "".join(f"84{n:02X}13C4{n:02X}13" for n in range(1, 8)) + "840813046D0413",
    )
)


class UnknownFormatError(TelegramError):
    """A compact frame whose format was not heard yet: keep the telegram, or wait for a full frame."""


class FormatMemory:
    """The formats that were heard, by signature; bounded, the longest unused one is forgotten first.

    Iterate over it to store it, hand the same octets to the constructor to restore it. `well_known` are
    formats that need not be heard first, and are not stored.
    """

    def __init__(
        self,
        formats: Iterable[bytes] = (),
        largest_number: int = DEFAULT_LARGEST_NUMBER_OF_FORMATS,
        well_known: Iterable[bytes] = WELL_KNOWN_FORMATS,
    ) -> None:
        self._well_known = {crc_en13757(headers): headers for headers in well_known}
        self._largest_number = largest_number
        self._by_signature: OrderedDict[int, bytes] = OrderedDict()
        for headers in formats:
            self.learn_headers(headers)

    def __len__(self) -> int:
        return len(self._by_signature)

    def __iter__(self) -> Iterator[bytes]:
        return iter(tuple(self._by_signature.values()))

    def learn_headers(self, headers: bytes) -> int:
        """Remember the header octets of a format; returns its signature."""
        signature = crc_en13757(headers)
        self._by_signature[signature] = headers
        self._by_signature.move_to_end(signature)
        if len(self._by_signature) > self._largest_number:
            self._by_signature.popitem(last=False)
        return signature

    def learn_format_frame(self, data: bytes) -> None:
        """Remember a format frame: length (1), signature (2), headers.

        Raises:
            TelegramError: the signature is not that of the headers.
        """
        headers = data[1 + _SIGNATURE_OCTETS : 1 + data[0]] if data else b""
        told = int.from_bytes(data[1 : 1 + _SIGNATURE_OCTETS], "little")
        if not headers or crc_en13757(headers) != told:
            raise TelegramError(f"a format frame whose signature misses its headers: {data.hex()}")
        self.learn_headers(headers)

    def expand(self, data: bytes) -> bytes:
        """The data of a full frame from those of a compact one: signature (2), CRC (2), values.

        Raises:
            UnknownFormatError: no frame with this format was heard yet.
            TelegramError: the values do not fit the format, or the CRC misses.
        """
        if len(data) < _COMPACT_HEAD_OCTETS:
            raise TelegramError(f"a compact frame starts with 4 octets, got {data.hex()}")
        signature = int.from_bytes(data[:2], "little")
        told = int.from_bytes(data[2:4], "little")
        headers = self._by_signature.get(signature)
        if headers is not None:
            self._by_signature.move_to_end(signature)
        elif (headers := self._well_known.get(signature)) is None:
            raise UnknownFormatError(f"no full frame with format signature {signature:04X} was heard yet")
        full = merge_records(headers, data[_COMPACT_HEAD_OCTETS:])
        if crc_en13757(full) != told:
            raise TelegramError(f"the CRC of the expanded compact frame is not {told:04X}: {full.hex()}")
        return full
