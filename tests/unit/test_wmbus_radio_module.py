"""The IMST driver against the simulated module, with simulated meters on the air, in virtual time."""

import heapq
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from concentrator.simulator.radio_module import SimulatedRadioModule
from concentrator.simulator.wmbus_meter import SimulatedWaterMeter
from concentrator.wmbus.answer import to_answer
from concentrator.wmbus.errors import WmbusUsageError
from concentrator.wmbus.modules.face import ModuleLost, ModuleReady, TelegramHeard
from concentrator.wmbus.modules.imst import ATTEMPTS, ImstModule
from concentrator.wmbus.modules.imst_hci import HciMessage, HciReader, crc_x25
from concentrator.wmbus.security import KeyRing, SecurityState
from concentrator.wmbus.telegram import decode_telegram

STARTED_AT = datetime(2026, 3, 14, 9, 0, tzinfo=UTC)


class VirtualTime:
    """A scheduler whose time moves only by run_until()."""

    def __init__(self):
        self._now = 0.0
        self._order = count()
        self._calls = []

    def now(self):
        return self._now

    def call_later(self, delay_s, callback):
        heapq.heappush(self._calls, (self._now + delay_s, next(self._order), callback))

    def run_until(self, moment):
        while self._calls and self._calls[0][0] <= moment:
            self._now, _, callback = heapq.heappop(self._calls)
            callback()
        self._now = moment


class Bench:
    """Driver and module joined by a serial line in memory, `chunk` bytes at a time."""

    def __init__(self, chunk=1000, link_mode="C/T"):
        self.time = VirtualTime()
        self.driver = ImstModule(link_mode)
        self.module = SimulatedRadioModule(self.to_driver, self.time)
        self.events = []
        self.chunk = chunk

    def to_driver(self, data):
        for start in range(0, len(data), self.chunk):
            self.driver.receive_data(data[start : start + self.chunk], self.time.now())

    def run(self, seconds):
        end = self.time.now() + seconds
        while True:
            self.module.receive_data(self.driver.data_to_send())
            while (event := self.driver.next_event()) is not None:
                self.events.append(event)
            if self.time.now() >= end:
                return
            self.time.run_until(min(end, self.time.now() + 0.05))
            timeout = self.driver.next_timeout()
            if timeout is not None and timeout <= self.time.now():
                self.driver.handle_timeout(self.time.now())

    def start(self):
        self.driver.start(self.time.now())
        self.run(1)


def of(events, kind):
    return [event for event in events if isinstance(event, kind)]


def test_the_module_is_identified_configured_and_its_telegrams_are_read():
    bench = Bench()
    meter = SimulatedWaterMeter(7, 1, bench.time, lambda t: bench.module.hear(t, -71), started_at=STARTED_AT)
    meter.start()
    bench.start()
    assert of(bench.events, ModuleReady) == [ModuleReady("iM871A 25041971, firmware 1.5")]
    assert bench.module.config["rssi"] == b"\x01"
    bench.run(100)
    heard = of(bench.events, TelegramHeard)
    assert len(heard) == meter.telegrams_sent == 7
    assert {event.rssi_dbm for event in heard} == {-71}
    keys = KeyRing({meter.identification: meter.key})
    telegram = decode_telegram(heard[-1].octets, keys=keys, frame_format=heard[-1].frame_format)
    assert telegram.security.state is SecurityState.DECODED
    assert telegram.meter.identification == meter.identification
    readings = to_answer(telegram, STARTED_AT).readings
    by_code = {str(reading.channel.obis): reading for reading in readings}
    last_sent = STARTED_AT + timedelta(seconds=100)
    volume = by_code["8-0:1.0.0*255"].value
    assert meter.volume_litres(STARTED_AT) <= volume <= meter.volume_litres(last_sent)
    month_end = by_code["8-0:1.0.0*1"]
    assert month_end.captured_at == datetime(2026, 3, 1, tzinfo=UTC)
    assert month_end.value == meter.volume_litres(month_end.captured_at) < volume
    assert by_code["8-0:2.0.0*255"].value == meter.flow_litres_per_hour(last_sent)


def test_a_silent_module_is_lost_and_comes_back_by_itself():
    bench = Bench()
    bench.start()
    bench.module.answers = False
    bench.run(70)
    (lost,) = of(bench.events, ModuleLost)
    assert str(ATTEMPTS) in lost.reason
    bench.module.answers = True
    bench.module.power_cycle()
    bench.run(10)
    assert isinstance(bench.events[-1], ModuleReady)
    assert bench.module.listening


def test_a_module_that_was_never_there_is_reported_again_and_again():
    bench = Bench()
    bench.module.answers = False
    bench.start()
    bench.run(60)
    assert len(of(bench.events, ModuleLost)) >= 5
    assert not of(bench.events, ModuleReady)


def test_a_refused_configuration_says_which():
    bench = Bench()
    bench.module._configure = lambda payload: False
    bench.start()
    assert "C/T" in of(bench.events, ModuleLost)[0].reason


def test_damaged_messages_cost_only_themselves():
    bench = Bench()
    bench.start()
    meters = [
        SimulatedWaterMeter(3, n, bench.time, lambda t: bench.module.hear(t, -80), started_at=STARTED_AT)
        for n in range(20)
    ]
    for meter in meters:
        meter.start()
    bench.module.damage_every = 5
    bench.run(160)
    sent = sum(meter.telegrams_sent for meter in meters)
    heard = len(of(bench.events, TelegramHeard))
    assert sent * 0.78 <= heard <= sent * 0.85
    assert bench.driver.counters["checks_missed"] > 0


def test_garbage_before_a_message_is_skipped():
    bench = Bench()
    bench.start()
    telegram = SimulatedWaterMeter(1, 1, bench.time, print, started_at=STARTED_AT).build_telegram(
        STARTED_AT, 1
    )
    bench.to_driver(b"\x00\xa5\xa5\xffnoise")
    bench.module.hear(telegram, -60)
    bench.run(0.1)
    assert [event.octets for event in of(bench.events, TelegramHeard)] == [telegram]
    bench.to_driver(b"\xa5\x82\x03\xf0")  # a header that promises 240 octets which never come
    bench.module.hear(telegram, -60)
    bench.run(2)
    assert [event.octets for event in of(bench.events, TelegramHeard)] == [telegram, telegram]


def test_any_chunking_gives_the_same_events():
    whole = Bench()
    single = Bench(chunk=1)
    for bench in (whole, single):
        meter = SimulatedWaterMeter(
            5, 2, bench.time, lambda t, b=bench: b.module.hear(t, -90), started_at=STARTED_AT
        )
        meter.start()
        bench.start()
        bench.run(60)
    assert whole.events == single.events
    assert len(whole.events) > 3


def test_the_link_mode_decides_what_is_heard():
    bench = Bench(link_mode="S1")
    meter = SimulatedWaterMeter(5, 2, bench.time, lambda t: bench.module.hear(t, -90), started_at=STARTED_AT)
    meter.start()
    bench.start()
    bench.run(60)
    assert not of(bench.events, TelegramHeard)
    with pytest.raises(WmbusUsageError, match="C/T"):
        ImstModule("X")


def test_the_configuration_asks_for_mode_rssi_and_time_stamp():
    driver = ImstModule("T1")
    driver.start(0.0)
    assert driver.data_to_send() == bytes.fromhex("A5010100")
    driver.receive_data(bytes.fromhex("A5010200"), 0.1)
    assert driver.data_to_send() == bytes.fromhex("A5010F00")
    driver.receive_data(bytes.fromhex("A5011008 33001315 78563412"), 0.2)
    assert driver.data_to_send() == bytes.fromhex("A5010306 000203300101")


def test_rssi_and_time_stamp_are_taken_off_by_the_control_bits():
    reader = HciReader()
    message = HciMessage(2, 3, b"\x44" * 12, timestamp=0x01020304, rssi=45)
    octets = message.to_bytes(check=True)
    assert octets[1] == 0xE2
    assert int.from_bytes(octets[-2:], "little") == crc_x25(octets[1:-2])
    reader.receive_data(octets)
    assert reader.next_message() == message
    assert message.rssi_dbm == -100
    assert crc_x25(b"123456789") == 0x906E


def test_simulated_meters_are_the_same_in_every_run_and_never_count_backwards():
    time = VirtualTime()
    one = SimulatedWaterMeter(9, 4, time, print, started_at=STARTED_AT)
    two = SimulatedWaterMeter(9, 4, time, print, started_at=STARTED_AT)
    other = SimulatedWaterMeter(9, 5, time, print, started_at=STARTED_AT)
    assert one.build_telegram(STARTED_AT, 1) == two.build_telegram(STARTED_AT, 1)
    assert one.key != other.key
    volumes = [one.volume_litres(STARTED_AT + timedelta(minutes=minutes)) for minutes in range(-60, 3000, 7)]
    assert volumes == sorted(volumes)
    assert volumes[-1] > volumes[0]
