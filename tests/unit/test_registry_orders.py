"""Orders to the registry: what is refused and why, and what a list of meters may hold."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concentrator.clock import SystemClock
from concentrator.collection.errors import CollectionError, MeterEntryError
from concentrator.collection.keyring import Keyring
from concentrator.collection.meter_entries import entries_as_csv, entry_of, parse_entries, parse_entry
from concentrator.collection.meter_models import ModelLibrary
from concentrator.collection.registry import CollectedMeter, Registry
from concentrator.collection.registry_orders import RegistryOrders
from concentrator.model import Medium, MeterRecord, MeterState, Registration
from concentrator.orders import LOCAL, MQTT, PAGE, Order, OrderError
from concentrator.store.store import Store


def order(operation, target="", origin=LOCAL, **arguments):
    return Order("o1", operation, target, arguments, None, origin)


def carried_out(tmp_path, *orders, records=()):
    """The results of orders one after the other, an error as itself; and what the store has then."""

    async def scenario():
        store = Store(tmp_path / "store.db", SystemClock())
        registry = Registry()
        for record in records:
            await store.save_meter(record)
            registry.add(CollectedMeter(record, identified=True))
        desk = RegistryOrders(store, SystemClock(), [registry], ModelLibrary.load(), Keyring.load(None))
        results = []
        for one in orders:
            try:
                results.append(await desk.carry_out(one))
            except (CollectionError, OrderError) as error:
                results.append(error)
        kept = {record.identity: record for record in await store.load_meters()}
        store.close()
        return results, kept, registry

    return asyncio.run(scenario())


def meter(identity="M1", **fields):
    return MeterRecord(identity, state=MeterState.ACTIVE, **{"link_address": "020dc0000001", **fields})


def test_the_head_end_may_change_the_registry_and_the_page_may_only_look(tmp_path):
    results, kept, _ = carried_out(
        tmp_path,
        order("meter_set", "M1", MQTT, add_groups=["a"]),
        order("meter_remove", "M1", PAGE),
        order("meters", "", PAGE),
        records=[meter()],
    )
    assert results[0]["meter"]["groups"] == ["a"]
    assert "not taken from the page" in str(results[1])
    assert [one["identity"] for one in results[2]["meters"]] == ["M1"]
    assert kept["M1"].registration.groups == ("a",)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (order("meter_remove", "M9"), "no meter 'M9' is known here"),
        (order("meter_add", "M2"), "link: missing; allowed: plc, wmbus, mbus or p1"),
        (order("meter_add", "M2", link="plc", model="odd"), "model: got 'odd'; allowed: "),
        (order("meter_add", "M2", link="plc", link_address="12"), "an EUI-48 or EUI-64 in hexadecimal"),
        (
            order("meter_add", "M2", link="plc", link_address="02:0D:C0:00:00:01"),
            "is that of M1; replace that one",
        ),
        (order("meter_add", "M1", link="wmbus"), "link: is plc, got wmbus"),
        (order("meter_add", "M1", colour="red"), "colour: unknown; allowed: identity"),
        (order("meter_replace", "M1", by="M1"), "cannot be replaced by itself"),
        (order("meter_replace", "M1"), "identity: got ''"),
        (order("meter_foreign", "M1", foreign="no"), "allowed: true or false"),
        (order("meter_set", "M1", add_groups=["a;b"]), "add_groups: groups: got ['a;b']"),
        (order("meter_set", "M1", connection_limit=-1), "connection_limit: got -1"),
        (order("meters_import", meters=[]), "a list of objects is expected"),
        (
            order("meters_import", meters=[{"identity": "M2", "link": "plc"}, {"identity": "!"}]),
            "entry 2: identity",
        ),
    ],
)
def test_what_makes_no_sense_changes_nothing(tmp_path, given, words):
    (result,), kept, registry = carried_out(tmp_path, given, records=[meter()])
    assert isinstance(result, CollectionError | OrderError)
    assert words in str(result)
    assert list(kept) == ["M1"]
    assert (kept["M1"].state, kept["M1"].registration.groups) == (MeterState.ACTIVE, ())
    assert len(registry) == 1


def test_a_meter_that_takes_the_place_of_another_gets_its_address_groups_and_limit(tmp_path):
    old = meter(registration=Registration(groups=("a",), connection_limit=5000))
    (result,), kept, registry = carried_out(
        tmp_path,
        order("meter_replace", "M1", by="M2", link_address="020dc0000001", serial="S2"),
        records=[old],
    )
    assert result["meter"]["identity"] == "M2"
    assert (kept["M1"].state, kept["M1"].registration.replaced_by) == (MeterState.REMOVED, "M2")
    assert kept["M1"].link_address == ""
    new = kept["M2"]
    assert (new.serial, new.registration.groups, new.registration.connection_limit) == ("S2", ("a",), 5000)
    assert registry.at_address("020dc0000001").identity == "M2"


def test_a_meter_that_was_met_before_it_was_entered_is_one_meter(tmp_path):
    registry = Registry()
    registry.add(
        CollectedMeter(MeterRecord("joined", link_address="020dc0000001"), address=7, joined_as="joined")
    )
    registry.adopt(
        MeterRecord("house-1", link_address="020dc0000001", registration=Registration(manual=True))
    )
    (entered,) = registry
    assert (entered.identity, entered.address, entered.joined_as) == ("house-1", 7, "joined")
    # It keeps the identity that it was given, whatever its serial number is.
    assert registry.identify(entered, "SERIAL").identity == "house-1"


def test_a_move_to_another_address_is_noted():
    registry = Registry()
    registry.add(CollectedMeter(MeterRecord("S1", link_address="020dc0000001"), identified=True))
    registry.add(CollectedMeter(MeterRecord("joined", link_address="020dc0000002"), address=3))
    moved = registry.identify(registry.at_address("020dc0000002"), "S1")
    assert (moved.record.link_address, moved.address) == ("020dc0000002", 3)
    assert registry.moves == [("S1", "020dc0000001", "020dc0000002")]
    assert registry.at_address("020dc0000001") is None


RECORDS = st.builds(
    MeterRecord,
    identity=st.from_regex(r"\A[A-Za-z0-9_-]{1,64}\Z"),
    medium=st.sampled_from(Medium),
    link=st.sampled_from(["plc", "wmbus", "mbus", "p1"]),
    link_address=st.sampled_from(["", "020dc0000001"]),
    serial=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20).filter(
        lambda s: s[:1] != "'"
    ),
    manufacturer=st.sampled_from(["", "ELS"]),
    registration=st.builds(
        Registration,
        groups=st.lists(st.sampled_from(["a", "street 7", "ä"]), unique=True, max_size=3).map(tuple),
        connection_limit=st.none() | st.integers(1, 10_000_000),
    ),
)


@given(st.lists(RECORDS, max_size=4, unique_by=lambda record: record.identity))
def test_what_is_exported_is_imported_as_it_was(records):
    entries = [entry_of(record) for record in records]
    as_json = parse_entries("x", [("e", one) for one in json.loads(json.dumps(entries))])
    lines = entries_as_csv(entries).splitlines()
    assert len(lines) == len(records) + 1
    for record, entry in zip(records, as_json, strict=True):
        assert (entry.identity, entry.medium, entry.link, entry.serial) == (
            record.identity,
            record.medium,
            record.link,
            record.serial,
        )
        assert (entry.groups or (), entry.connection_limit) == (
            record.registration.groups,
            record.registration.connection_limit,
        )


def test_an_export_runs_no_formula_in_a_spreadsheet():
    text = entries_as_csv([entry_of(meter(serial="=HYPERLINK(1)"))])
    assert ",'=HYPERLINK(1)," in text


_ANY = st.recursive(
    st.none() | st.integers() | st.text(max_size=8), lambda c: st.lists(c, max_size=3), max_leaves=5
)


@given(
    st.dictionaries(
        st.sampled_from(["identity", "medium", "link", "link_address", "groups", "serial", "x"]), _ANY
    )
)
def test_any_row_is_a_meter_or_the_one_error(row):
    try:
        parse_entry("here", row)
    except MeterEntryError:
        return
