"""Input made to exhaust a decoder: it ends soon, in memory in proportion to the input, with the documented error."""

import contextlib
import time
import tracemalloc

import pytest

from concentrator.dlms import apdu, axdr
from concentrator.dlms.acse import AssociationRequest
from concentrator.dlms.axdr import DataType
from concentrator.dlms.errors import DecodeError
from concentrator.dlms.explain import explain
from concentrator.dlms.hdlc import HdlcDecoder
from concentrator.dlms.profile import ProfileDecoder
from concentrator.dlms.reader import encode_length
from concentrator.dlms.wrapper import WrapperDecoder

SIZE = 12_000
# Octets of memory for one octet of input, and seconds for all of it on a slow machine.
MEMORY_RATIO = 1500
SECONDS = 5


def compact(description, contents):
    return b"\x13" + description + encode_length(len(contents)) + contents


def many(element):
    count = SIZE // len(element)
    return b"\x01" + encode_length(count) + element * count


ROW_OF_EMPTY = b"\x02\x02\x11\x01\x9c\x40\x02\x00"
BOMBS = {
    "count without elements": b"\x01\x84\xff\xff\xff\xff",
    "structure of nothing": b"\x02\x84\x7f\xff\xff\xff" + bytes(SIZE),
    "deep arrays": b"\x01\x01" * SIZE,
    "wide and deep": b"\x01\x02" * SIZE,
    "length of octets": b"\x09\x84\xff\xff\xff\xff" + bytes(100),
    "length of bits": b"\x04\x84\xff\xff\xff\xff" + bytes(100),
    "null-data without end": compact(b"\x01\xff\xff\x00", b""),
    "null-data and one octet": compact(b"\x02\x02\x01\xff\xff\x00\x11", b"\x01" * SIZE),
    "empty structures": compact(b"\x01\xff\xff\x02\x00", b"\x01"),
    "empty structures in every row": compact(ROW_OF_EMPTY, bytes(SIZE)),
    "arrays of arrays of nothing": compact(b"\x01\xff\xff" * 12 + b"\x00", b"\x01"),
    "deep description": b"\x13" + b"\x01\x00\x01" * SIZE,
    "wide description": b"\x13\x02\x84\xff\xff\xff\xff" + b"\x11" * 50,
    "compact within compact": compact(b"\x13\x11\x00", b"\x01"),
    "many compact-arrays of nulls": many(compact(b"\x02\x02\x11\x01\x00\x10\x00", b"\x01")),
    "many compact-arrays of nothing": many(compact(b"\x02\x02\x11\x01\x9c\x40\x00", b"\x01")),
    "compact-array of nothing": compact(b"\x00", bytes(SIZE)),
}


def count_values(data):
    native = data.value
    if isinstance(native, axdr.CompactArray):
        return 1 + sum(map(count_values, native.items))
    if isinstance(native, tuple):
        return 1 + sum(map(count_values, native))
    return 1


@pytest.fixture
def bounded():
    """Measures time and memory of a test's body."""

    def limit(octets):
        limit.octets = max(len(octets), 1000)

    tracemalloc.start()
    began = time.process_time()
    yield limit
    took = time.process_time() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert took < SECONDS
    assert peak < MEMORY_RATIO * limit.octets


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_values_that_claim_more_than_is_there(bomb, bounded):
    bounded(bomb)
    try:
        found = count_values(axdr.decode(bomb))
    except DecodeError:
        return
    assert found < 16 * len(bomb)


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
@pytest.mark.parametrize("head", ["c401c100", "0f0000000100", "c101c100010000600109ff0200"])
def test_the_same_within_apdus(head, bomb, bounded):
    octets = bytes.fromhex(head) + bomb
    bounded(octets)
    with contextlib.suppress(DecodeError):
        apdu.decode(octets)
    assert explain(octets)["apdu"] in ("get-response", "data-notification", "set-request")


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_skipping_takes_no_longer_than_decoding(bomb, bounded):
    bounded(bomb)
    with contextlib.suppress(DecodeError):
        assert axdr.skip(bomb, 0) <= len(bomb)


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_profiles_of_the_same(bomb, bounded):
    bounded(bomb)
    decoder = ProfileDecoder((), 900)
    with contextlib.suppress(DecodeError):
        decoder.receive_data(bomb)
        assert len(list(decoder.rows())) <= len(bomb)
        decoder.finish()


LISTS = {
    "get with list": b"\xc0\x03\xc1\x84\xff\xff\xff\xff",
    "get results": b"\xc4\x03\xc1\x84\x00\x00\xff\xff" + b"\x01\x02" * 1000,
    "set with list": b"\xc1\x04\xc1\x84\xff\xff\xff\xff",
    "action with list": b"\xc3\x03\xc1\x84\xff\xff\xff\xff",
    "read": b"\x05\x84\xff\xff\xff\xff",
    "read results": b"\x0c\x84\xff\xff\xff\xff",
    "write": b"\x06\x84\xff\xff\xff\xff",
    "report": b"\x18\x00\x84\xff\xff\xff\xff",
    "access": b"\xd9\x00\x00\x00\x01\x00\x84\xff\xff\xff\xff",
    "access results": b"\xda\x00\x00\x00\x01\x00\x00\x84\xff\xff\xff\xff",
    "octets of an envelope": b"\xdb\x00\x84\xff\xff\xff\xff",
    "block": b"\xe0\x81\x00\x01\x00\x00\x84\xff\xff\xff\xff",
    "gateway": b"\xe6\x00\x84\xff\xff\xff\xff",
}


@pytest.mark.parametrize("octets", LISTS.values(), ids=LISTS)
def test_lists_that_claim_more_than_is_there(octets, bounded):
    bounded(octets)
    with pytest.raises(DecodeError):
        apdu.decode(octets)


def test_acse_of_many_and_of_deep_elements(bounded):
    flat = b"\xa6\x02\x04\x00" * (SIZE // 4)
    octets = b"\x60\x84" + len(flat).to_bytes(4, "big") + flat
    bounded(octets)
    with pytest.raises(DecodeError):
        AssociationRequest.from_bytes(octets)
    deep = b""
    for _ in range(2000):
        deep = b"\xbe\x82" + len(deep).to_bytes(2, "big") + deep if len(deep) < 60_000 else deep
    with pytest.raises(DecodeError):
        AssociationRequest.from_bytes(b"\x60\x82" + len(deep).to_bytes(2, "big") + deep)


@pytest.mark.parametrize(
    "noise", [b"\x7e", b"\x7e\xa7\xff", b"\x7e\xa0\x07\x03", b"\xa7", b"\x7e\xaf\xff\x02"]
)
@pytest.mark.parametrize("size", [1, 4096])
def test_hdlc_noise_takes_linear_time(noise, size, bounded):
    octets = noise * (4 * SIZE // len(noise))
    bounded(octets)
    decoder = HdlcDecoder()
    for start in range(0, len(octets), size):
        decoder.receive_data(octets[start : start + size])
        while decoder.next_event():
            pytest.fail("noise is no frame")


def test_a_wrapper_that_announces_more_than_comes(bounded):
    decoder = WrapperDecoder()
    octets = b"\x00\x01\x00\x01\x00\x10\xff\xff" + bytes(SIZE)
    bounded(octets)
    for octet in octets:
        decoder.receive_data(bytes((octet,)))
        assert decoder.next_event() is None


def test_a_described_type_may_not_hold_more_than_its_octets():
    good = compact(b"\x02\x03\x11\x00\x12", b"\x01\x00\x02" * 3)
    value = axdr.decode(good)
    assert value.type == DataType.COMPACT_ARRAY
    assert [row.native for row in value.items()] == [[1, None, 2]] * 3
    assert value.to_bytes() == good
