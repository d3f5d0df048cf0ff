"""IPv6 and UDP on the host: what a G3 modem carries, and the DLMS wrapper within.

The modem takes and gives complete uncompressed packets; 6LoWPAN is its own affair. Addresses are the
link-local ones of short addresses (ITU-T G.9903): fe80::PPPP:00ff:fe00:SSSS for short address S in PAN P. The
UDP checksum is mandatory in IPv6. The DLMS wrapper (IEC 62056-4-7) goes over UDP port 4059.
"""

from plc.errors import MessageError

UDP = 17
DLMS_PORT = 4059
WRAPPER_VERSION = 1
HOP_LIMIT = 8

_IPV6_SIZE = 40
_UDP_SIZE = 8
WRAPPER_SIZE = 8
OVERHEAD = _IPV6_SIZE + _UDP_SIZE + WRAPPER_SIZE


def link_local_address(pan_id: int, short_address: int) -> bytes:
    """The link-local IPv6 address of a short address."""
    return (
        b"\xfe\x80\x00\x00\x00\x00\x00\x00"
        + pan_id.to_bytes(2, "big")
        + b"\x00\xff\xfe\x00"
        + short_address.to_bytes(2, "big")
    )


def short_address_of(address: bytes, pan_id: int) -> int | None:
    """The short address that an IPv6 address was made of, whatever its prefix; None for other addresses."""
    if len(address) != 16 or address[8:14] != pan_id.to_bytes(2, "big") + b"\x00\xff\xfe\x00":
        return None
    return int.from_bytes(address[14:], "big")


def eui64_of(address: bytes) -> bytes:
    """The EUI-64 that an interface id was made of: the universal/local bit is inverted (RFC 4291)."""
    return bytes((address[8] ^ 0x02,)) + address[9:16]


def _sum(source: bytes, destination: bytes, datagram: bytes) -> int:
    # RFC 8200: pseudo header, then the datagram. The one's complement sum of 16-bit words is the whole
    # number modulo 0xFFFF.
    pseudo = source + destination + len(datagram).to_bytes(4, "big") + b"\x00\x00\x00" + bytes((UDP,))
    if len(datagram) & 1:
        datagram += b"\x00"
    return int.from_bytes(pseudo + datagram, "big") % 0xFFFF


def encode_udp(
    source: bytes, destination: bytes, source_port: int, destination_port: int, data: bytes
) -> bytes:
    """Make a complete IPv6 packet with one UDP datagram."""
    length = _UDP_SIZE + len(data)
    head = source_port.to_bytes(2, "big") + destination_port.to_bytes(2, "big") + length.to_bytes(2, "big")
    checksum = 0xFFFF - _sum(source, destination, head + b"\x00\x00" + data)
    # A sum of zero is sent as all ones: zero would mean "no checksum". Above, both come out as all ones.
    return (
        b"\x60\x00\x00\x00"
        + length.to_bytes(2, "big")
        + bytes((UDP, HOP_LIMIT))
        + source
        + destination
        + head
        + checksum.to_bytes(2, "big")
        + data
    )


def decode_udp(packet: bytes) -> tuple[bytes, bytes, int, int, bytes]:
    """Take an IPv6 packet with one UDP datagram apart: source, destination, both ports, data.

    Raises MessageError for anything else: other protocols, extension headers, bad lengths, a bad checksum.
    """
    if len(packet) < _IPV6_SIZE + _UDP_SIZE or packet[0] >> 4 != 6:
        raise MessageError(f"{len(packet)} octets are no IPv6 packet with UDP")
    length = int.from_bytes(packet[4:6], "big")
    datagram = packet[_IPV6_SIZE : _IPV6_SIZE + length]
    if packet[6] != UDP:
        raise MessageError(f"an IPv6 packet carries protocol {packet[6]}, not UDP")
    if len(datagram) != length or length < _UDP_SIZE or int.from_bytes(datagram[4:6], "big") != length:
        raise MessageError(f"an IPv6 packet of {len(packet)} octets does not have the length that it says")
    source = packet[8:24]
    destination = packet[24:40]
    if datagram[6:8] == b"\x00\x00" or _sum(source, destination, datagram) != 0:
        raise MessageError("a UDP datagram has a bad checksum")
    return (
        source,
        destination,
        int.from_bytes(datagram[0:2], "big"),
        int.from_bytes(datagram[2:4], "big"),
        datagram[_UDP_SIZE:],
    )


def encode_wrapper(source_port: int, destination_port: int, apdu: bytes) -> bytes:
    """Put the DLMS wrapper before an APDU; the ports are the client and server SAPs."""
    return (
        WRAPPER_VERSION.to_bytes(2, "big")
        + source_port.to_bytes(2, "big")
        + destination_port.to_bytes(2, "big")
        + len(apdu).to_bytes(2, "big")
        + apdu
    )


def decode_wrapper(data: bytes) -> "list[tuple[int, int, bytes]]":
    """Take a datagram apart into (source port, destination port, APDU): one as a rule.

    Raises MessageError for another version or a length that does not fit.
    """
    found: "list[tuple[int, int, bytes]]" = []
    position = 0
    while position < len(data):
        head = data[position : position + WRAPPER_SIZE]
        length = int.from_bytes(head[6:8], "big")
        position += WRAPPER_SIZE
        apdu = data[position : position + length]
        position += length
        if (
            len(head) < WRAPPER_SIZE
            or int.from_bytes(head[0:2], "big") != WRAPPER_VERSION
            or len(apdu) != length
        ):
            raise MessageError(f"{len(data)} octets on the DLMS port are no wrapper PDU")
        found.append((int.from_bytes(head[2:4], "big"), int.from_bytes(head[4:6], "big"), apdu))
    return found
