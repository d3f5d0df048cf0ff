"""The state of the meters' keys as the page tells it, and lists taken in: no key is ever in an answer."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from concentrator.access.key_desk import LARGEST_OCTETS, KeyDesk
from concentrator.clock import SystemClock
from concentrator.collection.errors import KeyFileError
from concentrator.collection.key_store import KeyStore
from concentrator.collection.keyring import Keyring
from concentrator.model import MeterRecord, MeterState
from concentrator.store.audit import AuditEntry
from concentrator.store.store import Store

KEY = "CA1A57CACA1A57CACA1A57CACA1A57CA"
NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
async def desk(tmp_path):
    store = Store(tmp_path / "store.db", SystemClock())
    await store.boot_id()
    for record in (
        MeterRecord("M1", state=MeterState.ACTIVE, serial="S1"),
        MeterRecord("M2", state=MeterState.KEY_WRONG, reason="noise", link="wmbus"),
        MeterRecord("M3", state=MeterState.KEY_MISSING, reason="no key", link="wmbus"),
        MeterRecord("ODC-12345678-01-07", state=MeterState.ACTIVE, link="wmbus"),
    ):
        await store.save_meter(record)
    entry = AuditEntry("o1", "change_keys", "M1", "MQTT", NOW, state="done", completed_at=NOW)
    await store.add_audit_entry(entry)
    key_store = KeyStore(tmp_path)
    told = []
    desk = KeyDesk(store, Keyring({}, {}, store=key_store), key_store, lambda: told.append(1))
    desk.told = told
    yield desk
    store.close()


async def test_states_follow_from_meters_and_keys(desk):
    rows = [{"meter": name, "encryption_key": KEY} for name in ("S1", "M2", "LATER")]
    rows.append({"meter": "12345678", "wmbus_key": KEY})
    assert await desk.take(json.dumps(rows)) == {"keys": 4, "meters": 4}
    assert desk.told == [1]
    state = await desk.state()
    assert {row["meter"]: row["state"] for row in state} == {
        "M1": "present",
        "M2": "wrong",
        "M3": "missing",
        "ODC-12345678-01-07": "present",
        "LATER": "waiting",
    }
    first = next(row for row in state if row["meter"] == "M1")
    assert (first["kinds"], first["replaced_at"]) == (["encryption_key"], NOW.isoformat(timespec="seconds"))
    assert KEY not in json.dumps(state).upper()


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "nonsense",
        "meter;encryption_key\nM1;",
        f"meter;encryption_key\nM1;{KEY}\nM2;{KEY}0\n",
        f'[{{"meter": "M1", "encryption_key": "{KEY}ZZ"}}]',
        f'{{"meters": {{"M1": {{"encryption_key": ["{KEY}"]}}}}}}',
        "x" * (LARGEST_OCTETS + 1),
    ],
)
async def test_a_wrong_list_is_refused_whole_and_not_repeated(desk, text):
    with pytest.raises(KeyFileError) as refused:
        await desk.take(text)
    assert KEY not in str(refused.value).upper()
    assert all(row["state"] != "waiting" and not row["kinds"] for row in await desk.state())
    assert desk.told == []
