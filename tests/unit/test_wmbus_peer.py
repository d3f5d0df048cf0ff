"""The same wired telegrams by pyMeterBus and by our decoder: every number in the same base unit."""

from decimal import Decimal

import pytest
from test_wmbus_real_telegrams import rows

from concentrator.wmbus.telegram import decode_telegram

# pyMeterBus gives times in seconds.
SECONDS = {"min": 60, "h": 3600, "d": 86400}


def test_pymeterbus_reads_the_same_numbers():
    meterbus = pytest.importorskip(
        "meterbus", reason="pyMeterBus is not installed: make test installs the peers"
    )
    compared = 0
    for row in rows():
        if row["layout"] != "wired":
            continue
        octets = bytes.fromhex(row["hex"])
        # Records of a profile's own have no header on the line; a maker's own VIFs have no sign that is known.
        ours = [one for one in decode_telegram(octets).records if one.header.octets]
        theirs = meterbus.load(octets).body.bodyPayload.records
        for record, other in zip(ours, theirs, strict=False):
            if record.decimal is None or b"\xff" in record.header.octets:
                continue
            wanted = Decimal(other.value)
            assert float(record.decimal * SECONDS.get(record.unit, 1)) == pytest.approx(
                float(wanted), rel=1e-6
            )
            compared += 1
    assert compared > 200
