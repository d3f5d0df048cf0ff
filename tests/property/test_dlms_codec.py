"""Whatever is encoded decodes to the same; whatever comes in decodes, or raises the one documented error."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from concentrator.dlms import apdu, axdr, hdlc
from concentrator.dlms.attributes import CaptureObject
from concentrator.dlms.axdr import CompactArray, Data, DataType, TypeDescription
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.errors import DecodeError, SecurityError
from concentrator.dlms.explain import explain
from concentrator.dlms.profile import ProfileDecoder
from concentrator.dlms.security import BOTH, protect, unprotect
from concentrator.dlms.wrapper import WrapperDecoder, WrapperFrame
from concentrator.obis import Obis

from dlms_strategies import apdu_values, data, octet, values_of


@given(data)
def test_data_round_trip(value):
    octets = value.to_bytes()
    assert axdr.decode(octets) == value
    assert axdr.skip(octets, 0) == len(octets)


@given(st.data())
def test_compact_array_round_trip(draw):
    kinds = draw.draw(st.lists(st.sampled_from(list(axdr.FIXED_FORMATS)), min_size=1, max_size=4))
    description = TypeDescription(DataType.STRUCTURE, tuple(map(TypeDescription, kinds)), len(kinds))
    row = st.tuples(*[st.builds(Data, st.just(kind), values_of(kind)) for kind in kinds])
    rows = draw.draw(st.lists(row.map(lambda cells: Data(DataType.STRUCTURE, cells)), max_size=6))
    value = Data(DataType.COMPACT_ARRAY, CompactArray(description, tuple(rows)))
    assert axdr.decode(value.to_bytes()) == value


@given(apdu_values)
def test_apdu_round_trip(value):
    assert apdu.decode(value.to_bytes()) == value


def _mutated(octets, draw):
    changed = bytearray(octets)
    for _ in range(draw.draw(st.integers(1, 3))):
        if changed:
            changed[draw.draw(st.integers(0, len(changed) - 1))] = draw.draw(octet)
    return bytes(changed[: draw.draw(st.integers(0, len(changed)))])


@settings(max_examples=300)
@given(st.data())
def test_any_octets_decode_or_raise_the_one_error(draw):
    octets = draw.draw(st.binary(max_size=300) | apdu_values.map(lambda value: value.to_bytes()))
    octets = _mutated(octets, draw)
    for decoder in (
        apdu.decode,
        axdr.decode,
        WrapperFrame.from_bytes,
        hdlc.HdlcFrame.from_bytes,
        hdlc.HdlcAddress.from_bytes,
        hdlc.decode_damaged,
        lambda data: hdlc.decode_damaged(b"\x7e\xa0" + data),
        CosemDateTime.from_bytes,
    ):
        try:
            decoder(octets)
        except DecodeError:
            continue
    explain(octets)


COLUMNS = (
    CaptureObject(8, Obis(0, 0, 1, 0, 0, 255), 2),
    CaptureObject(1, Obis(0, 0, 96, 10, 1, 255), 2),
    CaptureObject(3, Obis(1, 0, 1, 8, 0, 255), 2),
)


@settings(max_examples=300)
@given(st.data())
def test_any_profile_decodes_or_raises_the_one_error(draw):
    cell = st.sampled_from(
        [
            b"\x00",
            b"\x11\x05",
            b"\x06\0\0\0\7",
            b"\x09\x0c\x07\xea\x07\x03\x05\x0e\x04\x39\x00\xff\x88\x80",
            b"\x1c\x01",
        ]
    )
    rows = draw.draw(st.lists(st.lists(cell, min_size=1, max_size=4), max_size=20))
    octets = bytes((1, len(rows))) + b"".join(bytes((2, len(row))) + b"".join(row) for row in rows)
    if draw.draw(st.booleans()):
        octets = _mutated(octets, draw)
    decoder = ProfileDecoder(COLUMNS, 900)
    decoder.receive_data(octets)
    try:
        whole = list(decoder.rows())
        decoder.finish()
    except DecodeError:
        return
    pieces = ProfileDecoder(COLUMNS, 900)
    again = []
    size = draw.draw(st.integers(1, 9))
    for start in range(0, len(octets), size):
        pieces.receive_data(octets[start : start + size])
        again += pieces.rows()
    pieces.finish()
    assert again == whole


@given(
    st.binary(max_size=200),
    st.sampled_from([0x10, 0x20, 0x30]),
    st.sampled_from([0, 1, 2]),
    st.integers(0, 2**32 - 1),
    st.binary(min_size=8, max_size=8),
)
def test_protection_round_trip(plain, policy, suite, counter, title):
    key = bytes(range(32 if suite == 2 else 16))
    content = protect(key, b"a" * 16, title, policy | suite, counter, plain)
    assert unprotect(key, b"a" * 16, title, content) == plain
    if policy & BOTH & 0x10:
        for position in (0, len(content) - 1):
            broken = bytearray(content)
            broken[position] ^= 1
            with pytest.raises(SecurityError):
                unprotect(key, b"a" * 16, title, bytes(broken))


frames = st.lists(
    st.builds(
        hdlc.HdlcFrame,
        st.builds(hdlc.HdlcAddress.client, st.integers(0, 127)),
        st.one_of(
            st.builds(hdlc.HdlcAddress.client, st.integers(0, 127)),
            st.builds(hdlc.HdlcAddress, st.integers(0, 127), st.integers(0, 127), st.just(2)),
            st.builds(hdlc.HdlcAddress, st.integers(0, 16383), st.integers(0, 16383), st.just(4)),
        ),
        st.just(hdlc.FrameType.I),
        st.booleans(),
        st.integers(0, 7),
        st.integers(0, 7),
        st.booleans(),
        st.binary(max_size=80) | st.just(b"\x7e\xa0\x7d" * 9),
    ),
    max_size=4,
)


@given(frames, st.integers(1, 50), st.booleans())
def test_frames_in_any_chunks(sent, size, shared_flags):
    stream = b"".join(frame.to_bytes() for frame in sent)
    if shared_flags:
        stream = b"\x7e" + b"".join(frame.to_bytes()[1:] for frame in sent)
    decoder = hdlc.HdlcDecoder()
    received = []
    for start in range(0, len(stream), size):
        decoder.receive_data(stream[start : start + size])
        while frame := decoder.next_event():
            received.append(frame)
    assert received == sent
    assert decoder.bad_frames == 0


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=5), st.integers(1, 40))
def test_wrappers_in_any_chunks(payloads, size):
    sent = [WrapperFrame(16, 1, payload) for payload in payloads]
    stream = b"".join(frame.to_bytes() for frame in sent)
    decoder = WrapperDecoder()
    received = []
    for start in range(0, len(stream), size):
        decoder.receive_data(stream[start : start + size])
        while frame := decoder.next_event():
            received.append(frame)
    assert received == sent
