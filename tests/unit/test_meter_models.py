"""Meter models: matched, validated line by line, turned into associations; the operator's own before those shipped."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from concentrator.cli import main
from concentrator.collection.association import client_settings, key_candidates
from concentrator.collection.errors import KeysMissingError, MeterModelError
from concentrator.collection.key_store import KeyStore
from concentrator.collection.keyring import Keyring
from concentrator.collection.meter_models import ModelLibrary, objects_of, parse_model
from concentrator.config import CollectionSection
from concentrator.dlms.codes import AuthenticationMechanism, Conformance
from concentrator.model import MeterRecord
from concentrator.obis import Obis

KEYS = {"encryption_key": bytes(16), "authentication_key": bytes(range(16))}


def record(**fields):
    return MeterRecord("M1", link_address="020dc0000001", **fields)


@pytest.mark.parametrize(
    ("meter", "model"),
    [
        (record(manufacturer="ODC", firmware="ODC-SIM 1.0"), "simulated"),
        (record(manufacturer="ODC", firmware="other"), "any-dlms"),
        (record(logical_device_name="ISK1030755666778"), "idis"),
        (record(logical_device_name="ISK9030755666778"), "any-dlms"),
        (record(serial="E0044003722061616"), "dsmr"),
        (record(logical_device_name="ZIV0034703466"), "prime-t5"),
        (record(logical_device_name="PYD1000000000001"), "pydlms-simulator"),
        (record(), "any-dlms"),
    ],
)
def test_a_meter_gets_the_model_that_fits_what_it_says_of_itself(meter, model):
    assert ModelLibrary.load().match(meter).name == model


def test_tasks_find_objects_by_their_role():
    library = ModelLibrary.load()
    (profile,) = library.objects_of("simulated", "load_profile")
    assert (profile.class_id, profile.obis, profile.attribute) == (7, Obis(1, 0, 99, 1, 0, 255), 2)
    assert [one.name for one in library.objects_of("idis", "event_logs")][:2] == ["standard", "fraud"]
    assert library.objects_of("simulated", "billing") == ()
    assert library.objects_of("gone since", "registers")[0].obis == Obis(1, 0, 1, 8, 0, 255)
    with pytest.raises(MeterModelError, match="allowed: load_profile"):
        objects_of(library.fallback, "profile")


OWN = """
name = "ours"
[[match]]
manufacturer = ["ZIV"]
[objects]
load_profile = "1-0:99.7.0*255"
[quirks]
selective_access = false
get_with_list = false
largest_pdu = 128
[credentials]
client_sap = 2
server_sap = 3
mechanism = "low"
key_names = ["zone-{manufacturer}"]
[clock]
time_zone = "Europe/Madrid"
"""


def test_the_operators_models_go_first_and_take_the_place_of_shipped_ones(tmp_path):
    (tmp_path / "ours.toml").write_text(OWN)
    shipped = Path("concentrator/collection/models/idis.toml").read_text()
    (tmp_path / "idis.toml").write_text(shipped.replace('"1-0:99.1.0*255"', '"1-0:99.9.0*255"'))
    library = ModelLibrary.load(tmp_path)
    assert library.match(record(manufacturer="ZIV")).name == "ours"
    assert library.objects_of("idis", "load_profile")[0].obis == Obis(1, 0, 99, 9, 0, 255)
    pinned = record(manufacturer="ZIV", details={"model_set": "dsmr"})
    assert library.match(pinned).name == "dsmr"
    # A model that was removed since fits nobody by hand.
    assert library.match(record(manufacturer="ZIV", details={"model_set": "gone"})).name == "ours"


def test_quirks_and_credentials_make_the_association(tmp_path):
    model = parse_model(OWN.encode(), "ours.toml")
    store = KeyStore(tmp_path)
    ring = Keyring.load(None, store=store)
    meter = record(manufacturer="ZIV")
    with pytest.raises(KeysMissingError, match="no password for meter M1"):
        client_settings(model, CollectionSection(), ring, meter, "", 400)
    store.change({"zone-ZIV": {"password": b"12345678"}})
    made = client_settings(model, CollectionSection(), ring, meter, "", 400)
    assert (made.client_sap, made.server_sap, made.max_pdu_size) == (2, 3, 128)
    assert (made.mechanism, made.secret) == (AuthenticationMechanism.LLS, b"12345678")
    assert not made.conformance & (Conformance.MULTIPLE_REFERENCES | Conformance.SELECTIVE_ACCESS)
    assert "12345678" not in repr(made)


def associated(model, ring, meter):
    (keys,) = key_candidates(model, CollectionSection(), ring, meter, "")
    return client_settings(model, CollectionSection(), ring, meter, "", 400, keys)


def test_keys_are_found_by_the_meters_names_then_by_those_of_its_model(tmp_path):
    library = ModelLibrary.load()
    store = KeyStore(tmp_path)
    ring = Keyring.load(None, store=store)
    meter = record(serial="S1", logical_device_name="ISK1030755666778")
    model = library.match(meter)
    with pytest.raises(KeysMissingError):
        associated(model, ring, meter)
    store.change({"model:idis": KEYS})
    made = associated(model, ring, meter)
    assert made.keys.authentication == KEYS["authentication_key"]
    assert (made.client_sap, made.mechanism) == (1, AuthenticationMechanism.HLS_GMAC)
    store.change({"S1": {**KEYS, "authentication_key": bytes(range(1, 17))}})
    made = associated(model, ring, meter)
    assert made.keys.authentication == bytes(range(1, 17))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "m.toml: name: missing; allowed: small letters, digits and single hyphens"),
        ("name = 'a'", "m.toml: match: missing; allowed: at least one [[match]], or fallback = true"),
        ("name = 'a'\n[[match]]", "m.toml: match[1]: empty, it would fit every meter"),
        (
            "name = 'a'\n[[match]]\nserial = '('",
            "m.toml: match[1].serial: got '('; allowed: a regular expression",
        ),
        (
            "name = 'a'\nfallback = true\n[objects]\nprofile = '1-0:1.8.0'",
            "m.toml: objects.profile: unknown role",
        ),
        (
            "name = 'a'\nfallback = true\n[objects]\nregisters = ['1-0:1.8.0*255', 'x']",
            "m.toml: objects.registers[2].obis: got 'x'; allowed: an OBIS code",
        ),
        (
            "name = 'a'\nfallback = true\n[objects]\nparameters = ['0-0:1.0.0*255']",
            "m.toml: objects.parameters[1]: has no class_id",
        ),
        (
            "name = 'a'\nfallback = true\n[objects]\nstatus = [3]",
            "m.toml: objects.status[1]: got 3; allowed: a table",
        ),
        (
            "name = 'a'\nfallback = true\n[quirks]\nlargest_pdu = 5",
            "m.toml: quirks.largest_pdu: got 5; allowed: a whole",
        ),
        (
            "name = 'a'\nfallback = true\n[credentials]\nkey_names = ['{password}']",
            "m.toml: credentials.key_names: got ['{password}']; allowed: a list of names",
        ),
        ("name = 'a'\nfallback = true\n[clock]\ntime_zone = '../x'", "m.toml: clock.time_zone: got '../x'"),
        ("name = 'a'\nfallback = true\n[odd]\n", "m.toml: odd: unknown key; allowed: name, title"),
        ("name = ", "m.toml: not TOML"),
    ],
)
def test_each_mistake_is_one_clear_line(text, line):
    with pytest.raises(MeterModelError) as caught:
        parse_model(text.encode(), "m.toml")
    assert any(one.startswith(line) for one in str(caught.value).splitlines()), str(caught.value)


def test_all_mistakes_are_told_at_once():
    text = "name = 'A B'\n[[match]]\nserial = '('\n[quirks]\nodd = 1\n[mbus]\nchannels = 99\n"
    with pytest.raises(MeterModelError) as caught:
        parse_model(text.encode(), "m.toml")
    assert len(str(caught.value).splitlines()) == 5


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_KEYS = st.sampled_from(
    ["name", "title", "match", "objects", "quirks", "credentials", "clock", "mbus", "fallback"]
)


@given(st.dictionaries(_KEYS, _VALUES))
def test_any_tables_are_a_model_or_the_one_error(tables):
    lines = [f"{key} = {_toml(value)}" for key, value in tables.items()]
    try:
        parse_model("\n".join(lines).encode("utf-8", "replace"), "m.toml")
    except MeterModelError:
        return


def _toml(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps("" if value is None else value)


def test_the_commands_list_and_check(tmp_path):
    listed = CliRunner().invoke(main, ["models", "list", "--json", "--config", str(tmp_path / "none")])
    assert listed.exit_code == 0, listed.output
    names = [model["name"] for model in json.loads(listed.stdout)]
    assert {"any-dlms", "idis", "dsmr", "prime-t5", "simulated", "pydlms-simulator"} <= set(names)
    shipped = CliRunner().invoke(main, ["models", "check", "concentrator/collection/models"])
    assert shipped.exit_code == 0, shipped.output
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("name = 'a'\n[mbus]\nchannels = 99\n")
    checked = CliRunner().invoke(main, ["models", "check", str(tmp_path)])
    assert checked.exit_code == 2
    assert "mbus.channels: got 99; allowed: a whole number from 0 to 8" in checked.output
