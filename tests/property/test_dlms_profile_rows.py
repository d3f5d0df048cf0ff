"""Profile rows decoded by their shape are what each row says by itself."""

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from concentrator.dlms import axdr
from concentrator.dlms.attributes import CaptureObject
from concentrator.dlms.cosem_time import DEVIATION_NOT_SPECIFIED, CosemDateTime
from concentrator.dlms.profile import ProfileDecoder, decode_profile
from concentrator.obis import Obis

CLOCK = CaptureObject(8, Obis(0, 0, 1, 0, 0, 255), 2)
STATUS = CaptureObject(1, Obis(0, 0, 96, 10, 1, 255), 2)
ENERGY = CaptureObject(3, Obis(1, 0, 1, 8, 0, 255), 2)
NAME = CaptureObject(1, Obis(0, 0, 96, 1, 0, 255), 2)
PERIOD_S = 900
NORMAL = -60

clocks = st.builds(
    CosemDateTime,
    st.sampled_from([2026, 2026, 2026, 2027, 0xFFFF]),
    st.sampled_from([1, 3, 10, 13, 0xFF]),
    st.sampled_from([1, 28, 29, 31, 0xFE]),
    st.just(0xFF),
    st.sampled_from([0, 1, 2, 23, 24, 0xFF]),
    st.sampled_from([0, 15, 45, 59, 60, 0xFF]),
    st.sampled_from([0, 0, 0, 30, 60, 0xFF]),
    st.sampled_from([0, 0, 50, 0xFF]),
    st.sampled_from([-60, -120, 0, DEVIATION_NOT_SPECIFIED]),
    st.sampled_from([0, 0x80, 0x08, 0xFF]),
)
statuses = st.one_of(
    st.integers(0, 255).map(axdr.unsigned),
    st.binary(min_size=2, max_size=2).map(axdr.octet_string),
    st.integers(0, 65535).map(axdr.long_unsigned),
)
energies = st.integers(0, 2**32 - 1).map(axdr.double_long_unsigned) | st.just(axdr.NULL)
names = st.binary(max_size=3).map(axdr.octet_string)
rows_of_cells = st.lists(
    st.tuples(
        clocks.map(lambda c: axdr.octet_string(c.to_bytes())) | st.just(axdr.NULL), statuses, energies, names
    ),
    max_size=12,
)


def expected(rows):
    """What the rows say, by the plainest reading: null-data is the row before, a missing clock one period later."""
    before = None
    for clock, status, energy, name in rows:
        inferred = clock.is_null and before is not None and before[0] is not None
        if inferred:
            moment, clock_status = before[0] + timedelta(seconds=PERIOD_S), before[4]
        elif clock.is_null:
            moment, clock_status = None, None
        else:
            shown = CosemDateTime.from_bytes(clock.octets())
            moment = shown.to_utc(NORMAL) if shown.is_moment else None
            clock_status = shown.status
        word = int.from_bytes(status.value, "big") if isinstance(status.value, bytes) else status.value
        changed = before is not None and word != before[1]
        value = energy.value
        if energy.is_null and before is not None and not changed:
            value = before[2][0]
        nulls = (0,) if energy.is_null else ()
        before = (moment, word, (value, name.value), (inferred, clock_status, nulls), clock_status)
        yield before[:4]


@settings(max_examples=400)
@given(rows_of_cells, st.integers(1, 40), st.integers(1, 60))
def test_rows_are_what_each_of_them_says(rows, repeat, piece):
    # Repeated, so that runs of one shape come about.
    cells = [row for row in rows for _ in range(repeat)][:200]
    octets = axdr.array(*(axdr.structure(*row) for row in cells)).to_bytes()
    columns = [CLOCK, STATUS, ENERGY, NAME]
    found = decode_profile(octets, columns, PERIOD_S, default_deviation=NORMAL)
    assert [tuple(row) for row in found] == list(expected(cells))
    decoder = ProfileDecoder(columns, PERIOD_S, default_deviation=NORMAL)
    streamed = []
    for start in range(0, len(octets), piece):
        decoder.receive_data(octets[start : start + piece])
        streamed += decoder.rows()
    decoder.finish()
    assert streamed == found


@settings(max_examples=200)
@given(
    st.lists(st.tuples(clocks, st.integers(0, 255), st.integers(0, 2**32 - 1)), min_size=1, max_size=60),
    st.integers(1, 60),
)
def test_a_compact_array_says_the_same_as_an_array(rows, piece):
    cells = [
        (axdr.octet_string(clock.to_bytes()), axdr.unsigned(status), axdr.double_long_unsigned(energy))
        for clock, status, energy in rows
    ]
    columns = [CLOCK, STATUS, ENERGY]
    plain = axdr.array(*(axdr.structure(*row) for row in cells)).to_bytes()
    contents = b"".join(
        row[0].to_bytes()[1:] + row[1].to_bytes()[1:] + row[2].to_bytes()[1:] for row in cells
    )
    length = axdr.octet_string(contents).to_bytes()[1:]
    compact = b"\x13\x02\x03\x09\x11\x06" + length
    decoder = ProfileDecoder(columns, PERIOD_S, default_deviation=NORMAL)
    found = []
    for start in range(0, len(compact), piece):
        decoder.receive_data(compact[start : start + piece])
        found += decoder.rows()
    decoder.finish()
    assert found == decode_profile(plain, columns, PERIOD_S, default_deviation=NORMAL)
