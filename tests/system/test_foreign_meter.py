"""A meter that nobody here wrote, on the main path: a DLMS server from PyPI behind the simulated modem."""

from __future__ import annotations

import asyncio
import json
import struct
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from concentrator.control import request
from concentrator.dlms.codes import AuthenticationMechanism

from bench import LOOPBACK, free_port, until
from dlms_peers import Case, GuruxPeer

pytestmark = pytest.mark.system

ENCRYPTION_KEY = "000102030405060708090A0B0C0D0E0F"
AUTHENTICATION_KEY = "D0D1D2D3D4D5D6D7D8D9DADBDCDDDEDF"
SERIAL = "PYD0000000001"
# What its load profile holds: 96 rows from this moment, 1000 Wh and 7 more each.
FIRST_ROW = datetime(2024, 5, 1, tzinfo=UTC)


class WrapperMeter:
    """Puts a meter that listens on TCP behind the modem: APDUs go out and come back in the WRAPPER.

    Written with `struct` alone: what carries APDUs here is not what the product decodes them with.
    """

    eui48 = bytes.fromhex("020DC0FFFFFF")
    eui64 = bytes.fromhex("020DC0FFFEFFFFFF")
    identity = SERIAL

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: asyncio.Task | None = None
        self._requests: asyncio.Queue = asyncio.Queue()

    def receive_apdu(self, client_sap, server_sap, apdu, reply) -> None:
        if self._connection is None or self._connection.done():
            self._requests = asyncio.Queue()
            self._connection = asyncio.get_running_loop().create_task(self._serve(self._requests))
        self._requests.put_nowait((client_sap, server_sap, apdu, reply))

    def link_lost(self) -> None:
        if self._connection is not None:
            self._connection.cancel()

    async def _serve(self, requests) -> None:
        reader, writer = await asyncio.open_connection(LOOPBACK, self._port)
        try:
            while True:
                client_sap, server_sap, apdu, reply = await requests.get()
                writer.write(struct.pack(">HHHH", 1, client_sap, server_sap, len(apdu)) + apdu)
                *_addresses, length = struct.unpack(">HHHH", await reader.readexactly(8))
                reply(await reader.readexactly(length))
        finally:
            writer.close()


@pytest.fixture
def foreign_meter():
    port = free_port()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "pydlms.simulator", "--port", str(port)),
            *("--key", ENCRYPTION_KEY, "--auth-key", AUTHENTICATION_KEY, "--client", "1:5"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield port
    process.kill()
    process.wait()


async def listening(port: int) -> bool:
    try:
        _reader, writer = await asyncio.open_connection(LOOPBACK, port)
    except OSError:
        return False
    writer.close()
    return True


@pytest.mark.parametrize(("authentication", "client_sap"), [("none", 16), ("hls-gmac", 1)])
async def test_the_product_reads_a_foreign_meter_through_the_power_line(
    bench, foreign_meter, authentication, client_sap
):
    await until(lambda: listening(foreign_meter), 20, "the foreign meter listens")
    await bench.start_outside()
    bench.start_substation(meters=1, others=[WrapperMeter(foreign_meter)])
    keys = json.loads((bench.directory / "keys.json").read_text())
    keys["meters"][SERIAL] = {"encryption_key": ENCRYPTION_KEY, "authentication_key": AUTHENTICATION_KEY}
    (bench.directory / "keys.json").write_text(json.dumps(keys))
    days = (datetime.now(UTC) - FIRST_ROW).days + 2
    bench.write_config(
        collection={"authentication": authentication, "client_sap": client_sap, "history_days": days}
    )
    await bench.start_product()

    def rows():
        # A copy at once: the broker's thread goes on adding.
        taken = bench.mqtt.ledger.values.copy().items()
        return {
            at: value for (meter, obis, at), value in taken if meter == SERIAL and obis == "1-0:1.8.0*255"
        }

    await until(lambda: len(rows()) >= 96, 90, "its load profile at the head-end")
    assert rows() == {
        round((FIRST_ROW + timedelta(minutes=15 * row)).timestamp()): 1000 + 7 * row for row in range(96)
    }
    status = await bench.until_status(
        lambda s: any(m["identity"] == SERIAL and m["state"] == "active" for m in s["meters"]), 60
    )
    meter = next(meter for meter in status["meters"] if meter["identity"] == SERIAL)
    assert meter["manufacturer"] == "PYD"
    # Its clock stands at 2024-05-01 12:00 in the zone +02:00.
    expected = datetime(2024, 5, 1, 10, tzinfo=UTC) - datetime.now(UTC)
    assert meter["clock_offset_s"] == pytest.approx(expected.total_seconds(), abs=300)

    for number, (obis, value) in enumerate(
        [("1-0:1.8.0*255", 12345678), ("1-0:2.8.0*255", 4321), ("1-0:32.7.0*255", 2301)]
    ):
        order = {"id": f"r{number}", "op": "read", "target": SERIAL, "args": {"obis": obis}}
        answer = await request(bench.socket, {"op": "order", "order": order})
        assert answer["state"] == "done", answer
        assert answer["result"]["value"] == value


async def test_gurux_reaches_a_foreign_meter_through_our_gateway(bench, foreign_meter):
    await until(lambda: listening(foreign_meter), 20, "the foreign meter listens")
    bench.start_substation(meters=1, others=[WrapperMeter(foreign_meter)])
    port = free_port()
    bench.write_config(
        collection={"authentication": "none", "client_sap": 16, "history_days": 1}, dlms={"port": port}
    )
    await bench.start_product()
    await bench.until_status(lambda s: any(m["identity"] == SERIAL for m in s["meters"]), 60)

    def read():
        from gurux_dlms.GXDLMSGateway import GXDLMSGateway
        from gurux_dlms.objects import GXDLMSRegister

        gateway = GXDLMSGateway()
        gateway.networkId, gateway.physicalDeviceAddress = 0, SERIAL.encode()
        case = Case(AuthenticationMechanism.NONE, "plain", 0)
        with GuruxPeer(port, case, gateway=gateway) as peer:
            return int(peer.ask(peer.client.read(GXDLMSRegister("1.0.1.8.0.255"), 2)).value)

    assert await asyncio.to_thread(read) == 12345678
