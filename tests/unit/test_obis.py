"""OBIS codes: read, written, matched, and told in words with their units."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concentrator.obis import Obis, ObisError
from concentrator.units import unit_symbol

groups = st.tuples(*[st.integers(0, 255)] * 6)


@given(groups)
def test_both_forms_read_back_and_every_code_has_words(values):
    obis = Obis(*values)
    assert Obis.parse(str(obis)) == Obis.parse(obis.dotted) == Obis.from_bytes(obis.to_bytes()) == obis
    assert obis.describe()
    unit = obis.usual_unit()
    assert unit is None or unit_symbol(unit) is not None


@given(groups, st.sets(st.integers(0, 5)))
def test_wildcards_match_what_they_stand_for(values, opened):
    obis = Obis(*values)
    shown = ["*" if i in opened else str(group) for i, group in enumerate(values)]
    a, b, c, d, e, f = shown
    for pattern in (".".join(shown), f"{a}-{b}:{c}.{d}.{e}*{f}", f"{a}-{b}:{c}.{d}"):
        assert obis.matches(pattern)
    for i in set(range(6)) - opened:
        other = obis._replace(**{"abcdef"[i]: values[i] ^ 1})
        assert not other.matches(".".join(shown))


@pytest.mark.parametrize("pattern", ["", "1-0", "1-0:", "1..8", "1-0:1.8.x", "1.0.1.8.0.255.1", "1-*:1.8.*x"])
def test_what_is_no_pattern_is_said(pattern):
    if pattern == "1-0":
        assert Obis(1, 0, 9, 9, 9).matches(pattern)
        return
    with pytest.raises(ObisError, match="not a pattern"):
        Obis(1, 0, 1, 8, 0).matches(pattern)


@pytest.mark.parametrize(
    ("code", "words", "unit"),
    [
        ("1-0:1.8.0*255", "electricity, active energy +, total", "Wh"),
        ("1-0:2.8.2*255", "electricity, active energy -, total, tariff 2", "Wh"),
        ("1-0:41.7.0*255", "electricity, active power + L2, instantaneous value", "W"),
        ("1-0:3.29.0*255", "electricity, reactive energy +, of the interval", "varh"),
        ("1-0:1.6.1*1", "electricity, active power +, maximum 1, tariff 1, billing period 1", "W"),
        ("1-0:72.7.0*255", "electricity, voltage L3, instantaneous value", "V"),
        ("1-0:81.7.40*255", "electricity, angle of U(L1) to I(L1), instantaneous value", "°"),
        ("1-0:14.7.0*255", "electricity, frequency, instantaneous value", "Hz"),
        ("1-0:99.1.0*255", "electricity, load profile", None),
        ("7-0:3.0.0*255", "gas, forward absolute meter volume, at metering conditions", "m³"),
        ("7-1:13.2.0*255", "gas, channel 1, forward absolute converter volume, at base conditions", "m³"),
        ("8-0:1.0.0*255", "cold water, volume, current value", "m³"),
        ("9-0:2.0.0*255", "hot water, flow rate, current value", "m³/h"),
        ("6-0:1.2.0*255", "heat, energy, set date value", "Wh"),
        ("6-0:10.0.0*255", "heat, flow temperature, current value", "°C"),
        ("7-0:42.0.0*255", "gas, absolute pressure, at metering conditions", "bar"),
        ("7-0:41.0.0*255", "gas, absolute temperature, at metering conditions", "K"),
        ("6-0:12.0.0*255", "heat, temperature difference, current value", "K"),
        ("1-0:88.8.0*255", "electricity, ampere-squared hours, time integral 1", "A²h"),
        ("1-0:89.8.0*255", "electricity, volt-squared hours, time integral 1", "V²h"),
        ("1-0:32.7.124*255", "electricity, voltage L1, instantaneous value, total harmonic distortion", "%"),
        ("6-0:3.0.0*255", "heat, mass, current value", "kg"),
        ("5-0:8.0.0*255", "cooling, power, current value", "W"),
        ("4-0:1.0.0*255", "heat cost allocator, unrated integral, current value", ""),
        ("0-0:1.0.0*255", "abstract, clock", None),
        ("0-0:96.1.0*255", "abstract, device identification 1, serial number", None),
        ("0-1:24.2.1*255", "abstract, channel 1, M-Bus value", None),
        ("0-0:29.1.0*255", "abstract, G3 MAC setup", None),
    ],
)
def test_codes_in_words_with_their_units(code, words, unit):
    obis = Obis.parse(code)
    assert obis.describe() == words
    found = obis.usual_unit()
    assert (None if found is None else unit_symbol(found)) == unit
