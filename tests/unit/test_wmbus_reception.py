"""How well meters are heard: missed transmissions, intervals, copies from repeaters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concentrator.wmbus.reception import Reception


def test_the_access_number_tells_interval_and_missed_transmissions():
    reception = Reception()
    for number, at in ((250, 0.0), (251, 16.0), (254, 64.0), (1, 112.0)):
        assert reception.note(at, -80, number, number)
    assert (reception.received, reception.missed) == (4, 4)
    assert reception.interval_s == pytest.approx(16.0)
    assert reception.received_share == pytest.approx(0.5)


def test_a_repeaters_copy_is_counted_and_dropped():
    reception = Reception()
    assert reception.note(0.0, -90, 7, 0xABC)
    assert not reception.note(0.4, -60, 7, 0xABC)
    assert reception.note(16.0, -90, 8, 0xDEF)
    assert (reception.received, reception.duplicates, reception.missed) == (2, 1, 0)
    assert reception.rssi_dbm == pytest.approx(-90)


def test_without_access_number_the_interval_judges():
    reception = Reception()
    for at in (0.0, 10.0, 20.0, 50.0):
        assert reception.note(at, None, None, 5)
    assert (reception.received, reception.missed) == (4, 2)
    assert not reception.note(50.5, None, None, 5)


def test_a_long_silence_counts_nothing_as_missed():
    reception = Reception()
    for number in range(4):
        reception.note(16.0 * number, None, number, number)
    reception.note(1_000_000.0, None, 77, 77)
    assert reception.missed == 0


def test_statistics_survive_a_restart():
    reception = Reception()
    reception.note(5.0, -71, 3, 9)
    assert Reception.from_json(reception.to_json()) == reception
    with pytest.raises(ValueError, match="numbers"):
        Reception.from_json({"received": "many"})


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.none() | st.integers(0, 255), st.integers(0, 3)), max_size=30)
)
def test_whatever_is_heard_the_numbers_stay_sensible(heard):
    reception = Reception()
    for at, number, fingerprint in heard:
        reception.note(at, None, number, fingerprint)
    assert reception.received + reception.duplicates == len(heard)
    assert reception.missed >= 0
    assert reception.interval_s is None or reception.interval_s > 0
