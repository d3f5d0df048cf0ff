"""Gas and water meters behind electricity meters: found, read, stored and forwarded as meters of their own."""

from __future__ import annotations

import sqlite3
from datetime import timedelta

import pytest

from bench import until

pytestmark = pytest.mark.system


def stored(bench, obis):
    with sqlite3.connect(bench.directory / "state" / "store.db") as store:
        rows = store.execute(
            "SELECT meter, captured_at, value, scaler, unit FROM reading_in_full"
            " WHERE obis = ? AND profile LIKE '%24.3.0%'",
            (obis,),
        ).fetchall()
    return {(meter, at): (value, scaler, unit) for meter, at, value, scaler, unit in rows}


async def test_meters_on_m_bus_channels_are_read_as_meters_of_their_own(bench):
    await bench.start_outside()
    substation = bench.start_substation(meters=6)
    bench.write_config(radio=None)
    await bench.start_product()
    one_gas, both = substation.meters[2], substation.meters[5]
    channels = [*one_gas.channels, *both.channels]
    assert [one.device_type for one in channels] == [3, 3, 7]
    identities = {one.identity for one in channels}
    status = await bench.until_status(
        lambda s: (
            {m["identity"] for m in s["meters"] if m["link"] == "mbus-client" and m["state"] == "active"}
            == identities
        ),
        120,
    )
    sub_meters = {m["identity"]: m for m in status["meters"] if m["link"] == "mbus-client"}
    assert sub_meters[both.channels[1].identity]["medium"] == "water"
    assert sub_meters[both.channels[1].identity]["link_address"] == f"{both.serial}/2"
    assert sub_meters[one_gas.channels[0].identity]["manufacturer"] == "ODC"
    truth = {
        (identity, f"{row.captured_at:%Y-%m-%dT%H:%M:%SZ}"): (row.value, -3, 13)
        for identity, rows in substation.channel_truth(bench.last - timedelta(hours=20), bench.last).items()
        for row in rows
    }
    assert len(truth) >= 3 * 20

    def all_stored():
        found = {**stored(bench, "7-0:3.0.0*255"), **stored(bench, "8-0:1.0.0*255")}
        return found if truth.keys() <= found.keys() else None

    found = await until(all_stored, 90, "the hours of all channels")
    assert {key: found[key] for key in truth} == truth
    # And at the head-end, under their own names.
    gas = one_gas.channels[0].identity
    await until(
        lambda: any(
            meter == gas and obis == "7-0:3.0.0*255" for meter, obis, _at in bench.mqtt.ledger.values
        ),
        60,
    )
