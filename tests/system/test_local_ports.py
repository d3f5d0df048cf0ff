"""Wired M-Bus and P1 as sources of the product: a simulated bus and port, a real store."""

import asyncio
from datetime import UTC, datetime

import pytest

from concentrator.app import Service
from concentrator.clock import SystemClock
from concentrator.collection.errors import KeyFileError
from concentrator.collection.keyring import Keyring
from concentrator.collection.mbus_collector import MbusCollector
from concentrator.collection.p1_collector import P1Collector
from concentrator.config import MbusSection, P1Section, parse_config
from concentrator.iec62056_21.p1 import crc16
from concentrator.model import MeterState
from concentrator.simulator.pty_port import PtyPort
from concentrator.simulator.wired_mbus import SimulatedBus, SimulatedSlave
from concentrator.store.store import Store
from concentrator.wmbus.address import Address


async def until(condition, timeout_s=20.0):
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.02)


def rows(store):
    return store.read(lambda connection: connection.execute("SELECT COUNT(*) FROM reading").fetchone()[0])


def test_the_slaves_of_a_bus_are_found_read_and_stored(tmp_path):
    meter = Address("ELS", "12345678", 0x33, 0x07)
    slave = SimulatedSlave(meter, 7, lambda: (bytes.fromhex("0C1315000000"), bytes.fromhex("023B0500")))

    async def scenario():
        bus = SimulatedBus([slave])
        port = PtyPort(tmp_path / "mbus", bus)
        port.plug()
        store = Store(tmp_path / "store.db", SystemClock())
        settings = MbusSection(port=str(port.path), baud_rate=38400, addresses="9", read_interval_s=1)
        collector = MbusCollector(settings, store, SystemClock())
        await collector.load()
        task = asyncio.create_task(collector.run())
        await until(lambda: collector.meters.stored >= 2)
        slave.silent = True
        record = collector.meters.records[str(meter)]
        await until(lambda: record.state is MeterState.UNREACHABLE)
        assert "no slave answers" in record.reason
        slave.silent = False
        await until(lambda: record.state is MeterState.ACTIVE)
        port.unplug()
        await until(lambda: collector.state == "not open")
        port.plug()
        await until(lambda: collector.state == "open")
        assert collector.counters["unanswered"] >= 2
        assert await rows(store) >= 2
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        port.close()
        again = MbusCollector(settings, store, SystemClock())
        await again.load()
        assert again.meters.records[str(meter)].serial == "12345678"
        store.close()

    asyncio.run(scenario())


class ConsumerPort:
    """What a meter pushes on its P1 port."""

    def __init__(self):
        self.output = None

    def receive_data(self, data):
        raise AssertionError("nobody writes to a P1 port")

    def push(self):
        moment = datetime.now(UTC).strftime("%y%m%d%H%M%SW")
        body = (
            "/ISK5\\2M550T-1012\r\n\r\n1-3:0.2.8(50)\r\n"
            f"0-0:1.0.0({moment})\r\n0-0:96.1.1(4530303434)\r\n1-0:1.8.1(000671.578*kWh)\r\n"
            "0-1:24.1.0(003)\r\n0-1:96.1.0(4730303339)\r\n"
            f"0-1:24.2.1({moment})(00112.384*m3)\r\n!"
        ).encode()
        self.output(body + f"{crc16(body):04X}\r\n".encode())


def test_a_consumer_port_brings_the_meter_and_its_gas_meter(tmp_path):
    async def scenario():
        device = ConsumerPort()
        port = PtyPort(tmp_path / "p1", device)
        port.plug()
        store = Store(tmp_path / "store.db", SystemClock())
        collector = P1Collector(P1Section(port=str(port.path), store_interval_s=1), store, SystemClock())
        await collector.load()
        task = asyncio.create_task(collector.run())
        await until(lambda: collector.state == "open")
        while len(collector.meters.records) < 2:
            device.push()
            await asyncio.sleep(0.05)
        await until(lambda: collector.meters.stored >= 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        port.close()
        media = {record.identity: record.medium.value for record in await store.load_meters()}
        assert media == {"E0044": "electricity", "G0039": "gas"}
        obis = await store.read(
            lambda connection: [str(row) for row in connection.execute("SELECT * FROM channel").fetchall()]
        )
        assert obis
        store.close()

    asyncio.run(scenario())


def test_the_peaks_of_belgian_months_are_stored_at_their_own_times(tmp_path):
    lines = (
        "/FLU5\\253769484_A",
        "",
        "0-0:96.1.1(3153414733313031303231363035)",
        "0-0:1.0.0(260512135409S)",
        "1-0:1.6.0(260509134558S)(02.589*kW)",
        (
            "0-0:98.1.0(3)(1-0:1.6.0)(1-0:1.6.0)(260501000000S)(260423192538S)(03.695*kW)"
            "(260401000000S)(260305122139W)(05.980*kW)(251101000000W)(251010035421S)(04.318*kW)"
        ),
        "!",
    )
    body = "\r\n".join(lines).encode()
    telegram = body + f"{crc16(body):04X}\r\n".encode()

    class BelgianPort(ConsumerPort):
        def push(self):
            self.output(telegram)

    async def scenario():
        device = BelgianPort()
        port = PtyPort(tmp_path / "p1", device)
        port.plug()
        store = Store(tmp_path / "store.db", SystemClock())
        collector = P1Collector(P1Section(port=str(port.path), store_interval_s=1), store, SystemClock())
        task = asyncio.create_task(collector.run())
        await until(lambda: collector.state == "open")
        device.push()
        await until(lambda: collector.meters.stored >= 7)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        port.close()
        found = await store.read(
            lambda connection: connection.execute(
                "SELECT profile, captured_at, value FROM reading_in_full WHERE obis = '1-0:1.6.0*255'"
                " AND scaler = 0 ORDER BY profile, captured_at"
            ).fetchall()
        )
        store.close()
        return found

    assert asyncio.run(scenario()) == [
        ("0-0:24.3.0*255", "2025-10-10T01:54:21Z", 4318),
        ("0-0:24.3.0*255", "2026-03-05T11:21:39Z", 5980),
        ("0-0:24.3.0*255", "2026-04-23T17:25:38Z", 3695),
        ("0-0:24.3.0*255", "2026-05-09T11:45:58Z", 2589),
        ("0-0:98.1.0*255", "2025-10-31T23:00:00Z", 4318),
        ("0-0:98.1.0*255", "2026-03-31T22:00:00Z", 5980),
        ("0-0:98.1.0*255", "2026-04-30T22:00:00Z", 3695),
    ]


def test_the_key_of_a_port_is_private(tmp_path):
    file = tmp_path / "p1.key"
    file.write_text("00" * 16)
    store = Store(tmp_path / "store.db", SystemClock())
    for mode, text, words in ((0o644, "00" * 16, "chmod 0600"), (0o600, "12 34", "32 hexadecimal digits")):
        file.write_text(text)
        file.chmod(mode)
        with pytest.raises(KeyFileError, match=words):
            P1Collector(P1Section(key_file=str(file)), store, SystemClock())
    store.close()


def test_the_status_tells_of_the_local_ports(tmp_path):
    async def scenario():
        config = parse_config(
            f'[concentrator]\nstate_directory = "{tmp_path}"\n'
            '[mbus]\nport = "127.0.0.1:1"\n[p1]\nport = "127.0.0.1:1"\n'
        )
        store = Store(config.store_file, SystemClock())
        service = Service(config, store, SystemClock(), await store.boot_id(), Keyring.load(None))
        await service.prepare()
        assert service.mbus is not None
        task = asyncio.create_task(service.mbus.run())
        await until(lambda: service.mbus.state == "not open")
        status = await service.reporter.status()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        store.close()
        return status

    status = asyncio.run(scenario())
    assert status["mbus"]["state"] == "not open"
    assert "127.0.0.1:1" in status["mbus"]["reason"]
    assert status["p1"]["counters"]["telegrams"] == 0
