"""MNGP: the bodies of queries to the management of a node, near (USI protocols 0 to 7) or far (PPROF).

Source: the 2021 Linux host and the base-node application of Microchip's smartenergy_prime_apps. An iterator is sent
big-endian, in its short form.
"""

from plc.errors import MessageError
from plc.prime import pib

LIST_QUERY = 0x0E
LIST_RESPONSE = 0x0F
RECORDS_PER_QUERY = 30  # as the reference host asks
FIRST_ITERATOR = 0
_LARGEST_SHORT_ITERATOR = 0x7FFF


def encode_get_query(attributes: "list[tuple[int, int]]") -> bytes:
    """Ask for attributes, each with its index."""
    return b"".join([attribute.to_bytes(2, "big") + bytes((index,)) for attribute, index in attributes])


def decode_get_query(body: bytes) -> "list[tuple[int, int]]":
    """Take a query apart. Raises MessageError when it is cut off."""
    if len(body) % 3:
        raise MessageError(f"{len(body)} octets are no MNGP query")
    return [
        (int.from_bytes(body[start : start + 2], "big"), body[start + 2]) for start in range(0, len(body), 3)
    ]


def encode_get_response(attributes: "list[tuple[int, int, bytes]]") -> bytes:
    """Answer a query: attribute, index and value of each; the octet behind a value tells whether more follow."""
    body = b""
    for position, (attribute, index, value) in enumerate(attributes):
        more = 1 if position + 1 < len(attributes) else 0
        body += attribute.to_bytes(2, "big") + bytes((index,)) + value + bytes((more,))
    return body


def decode_get_response(body: bytes) -> "list[tuple[int, int, bytes]]":
    """Take an answer apart into (attribute, index, value).

    The size of a value is that of its attribute; one of unknown size takes all that is left. Raises MessageError
    when the last value is cut off.
    """
    found: "list[tuple[int, int, bytes]]" = []
    position = 0
    while position < len(body):
        attribute = int.from_bytes(body[position : position + 2], "big")
        start = position + 3
        size = pib.attribute_size(attribute) or len(body) - start - 1
        if start + size + 1 > len(body) or size < 0:
            raise MessageError("the last value of an MNGP answer is cut off")
        found.append((attribute, body[position + 2], body[start : start + size]))
        position = start + size + 1
    return found


def encode_list_query(attribute: int, most: int = RECORDS_PER_QUERY, iterator: int = FIRST_ITERATOR) -> bytes:
    """Ask for records of a list, from an iterator on."""
    return (
        bytes((LIST_QUERY,))
        + attribute.to_bytes(2, "big")
        + bytes((most,))
        + (iterator & _LARGEST_SHORT_ITERATOR).to_bytes(2, "big")
    )


def decode_list_query(body: bytes) -> "tuple[int, int, int]":
    """Take a list query apart into (attribute, most records, iterator). Raises MessageError."""
    if len(body) < 6 or body[0] != LIST_QUERY:
        raise MessageError(f"{len(body)} octets are no MNGP list query")
    iterator = body[4:6]
    if iterator[0] & 0x80:
        iterator = body[5 : 5 + (iterator[0] & 0x7F)]
    return int.from_bytes(body[1:3], "big"), body[3], int.from_bytes(iterator, "big")


def encode_list_response(attribute: int, records: "list[tuple[int, bytes]]") -> bytes:
    """Answer a list query with (iterator, record) pairs, all of one length."""
    length = len(records[0][1]) if records else 0
    body = bytes((LIST_RESPONSE,)) + attribute.to_bytes(2, "big")
    body += bytes((len(records), length, (len(records) * (length + 2)) & 0xFF))
    for iterator, record in records:
        body += iterator.to_bytes(2, "big") + record
    return body


def decode_list_response(body: bytes) -> "tuple[int, list[tuple[int, bytes]]]":
    """Take a list answer apart into its attribute and (iterator, record) pairs. Raises MessageError.

    Whether the record length counts the iterator is told by the octets that are there.
    """
    if len(body) < 6 or body[0] != LIST_RESPONSE:
        raise MessageError(f"{len(body)} octets are no MNGP list answer")
    count, length = body[3], body[4]
    records = body[6:]
    stride = length + 2
    if count and len(records) == count * length:
        stride = length
    if len(records) < count * stride or stride < 2:
        raise MessageError(f"an MNGP list answer of {count} records is cut off")
    pairs: "list[tuple[int, bytes]]" = []
    for start in range(0, count * stride, stride):
        iterator = int.from_bytes(records[start : start + 2], "big")
        pairs.append((iterator, records[start + 2 : start + stride]))
    return int.from_bytes(body[1:3], "big"), pairs


def encode_set(attribute: int, value: bytes) -> bytes:
    """Set one attribute."""
    return attribute.to_bytes(2, "big") + value


def decode_set(body: bytes) -> "tuple[int, bytes]":
    """Take a set apart into attribute and value. Raises MessageError."""
    if len(body) < 3:
        raise MessageError(f"{len(body)} octets are no MNGP set")
    return int.from_bytes(body[:2], "big"), body[2:]


# USI protocol -> name of the message.
PROTOCOLS = (0, 1, 2, 3, 4, 5, 6, 7)
_NAMES = (
    "MNGP get query",
    "MNGP get response",
    "MNGP set",
    "MNGP reset statistics",
    "MNGP reboot",
    "MNGP firmware upgrade",
    "MNGP list query",
    "MNGP list response",
)


def describe(protocol: int, body: bytes) -> "tuple[str, list[tuple[str, str]]]":
    """Name a message of USI protocols 0 to 7 and its fields; never raises."""
    name = _NAMES[protocol]
    fields: "list[tuple[str, str]]" = []
    try:
        if protocol in (0, 3):
            fields += [("attribute", _attribute_in_words(one)) for one, _ in decode_get_query(body)]
        elif protocol == 1:
            for attribute, _, value in decode_get_response(body):
                fields.append((pib.attribute_name(attribute), pib.value_in_words(attribute, value)))
        elif protocol == 2:
            attribute, value = decode_set(body)
            secret = attribute == pib.DEVICE_UNIQUE_KEY
            words = "(not shown)" if secret else pib.value_in_words(attribute, value)
            fields += [("attribute", _attribute_in_words(attribute)), ("value", words)]
        elif protocol == 6:
            attribute, most, iterator = decode_list_query(body)
            fields += [
                ("attribute", _attribute_in_words(attribute)),
                ("most", str(most)),
                ("iterator", str(iterator)),
            ]
        elif protocol == 7:
            attribute, records = decode_list_response(body)
            fields.append(("attribute", _attribute_in_words(attribute)))
            fields += [("record", record.hex()) for _, record in records]
        elif body:
            fields.append(("data", body.hex()))
    except MessageError as error:
        return name, [("reason", str(error)), ("octets", body.hex())]
    return name, fields


def mask_keys(protocol: int, body: bytes) -> bytes:
    """The body with zeros in place of a device unique key, for a file of traffic; the same length."""
    if protocol != 2 or body[:2] != pib.DEVICE_UNIQUE_KEY.to_bytes(2, "big"):
        return body
    # The EUI-48 comes before the key.
    return body[:8] + bytes(max(0, len(body) - 8))


def _attribute_in_words(attribute: int) -> str:
    return f"0x{attribute:04X} {pib.attribute_name(attribute)}"
