"""Pushes to head-ends over TCP: every protection, foreign listeners, cuts, schedules and events."""

import asyncio
import contextlib
import json
import ssl
import subprocess
from datetime import UTC, datetime, time, timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from concentrator.clock import SystemClock
from concentrator.config import PushSection
from concentrator.dlms import apdu as apdus
from concentrator.dlms import elliptic
from concentrator.dlms.apdu.notification import DataNotification, DataNotificationConfirm
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.envelopes import unwrap, wrap
from concentrator.dlms.security import MemoryCounter, SecurityContext, SecurityKeys
from concentrator.dlms.wrapper import WrapperDecoder, WrapperFrame
from concentrator.model import Answer, Channel, EventSeverity, MeterEvent, MeterRecord, Reading
from concentrator.obis import Obis
from concentrator.store.store import Store
from concentrator.uplink.head_end_file import HeadEndFileError
from concentrator.uplink.push import WAITING, PushUplink
from concentrator.uplink.push_calendar import PushCalendar
from concentrator.uplink.push_objects import push_object_list
from concentrator.uplink.push_protection import load_push_protection
from concentrator.uplink.shared_counter import SharedCounter
from concentrator.uplink.uplink import CONNECTED

from bench import until
from ports import free_port

pytestmark = pytest.mark.system

OUR_TITLE, THEIR_TITLE = bytes.fromhex("4F44430000000001"), b"HEADEND1"
PROFILE, ENERGY, LOG = Obis(1, 0, 99, 1, 0, 255), Obis(1, 0, 1, 8, 0, 255), Obis(0, 0, 99, 98, 1, 255)
CHANNEL = Channel(ENERGY, 30, 0, 3, 2, 900)
START = datetime(2026, 11, 20, tzinfo=UTC)


class Keys:
    """The keys of both sides in one suite, and the file that ours are in."""

    def __init__(self, directory, suite):
        self.suite = suite
        length = 32 if suite == 2 else 16
        self.encryption, self.authentication = bytes(range(length)), bytes(range(0x40, 0x40 + length))
        self.master = bytes(range(0x80, 0x80 + length))
        make = elliptic.generate_private_key
        pairs = [make(suite) if suite else None for _ in range(4)]
        self.signing, self.agreement, self.their_signing, self.their_agreement = pairs
        self.entry = {
            "suite": suite,
            "system_title": THEIR_TITLE.hex(),
            "encryption_key": self.encryption.hex(),
            "authentication_key": self.authentication.hex(),
            "master_key": self.master.hex(),
        }
        if suite:
            for name, key in (("signing_key", self.signing), ("agreement_key", self.agreement)):
                self.entry[f"{name}_file"] = f"{name}.pem"
                octets = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
                (directory / f"{name}.pem").write_bytes(octets)
            for name, key in (
                ("peer_certificate_file", self.their_signing),
                ("peer_agreement_file", self.their_agreement),
            ):
                self.entry[name] = f"{name}.pem"
                public = key.public_key()
                octets = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
                (directory / f"{name}.pem").write_bytes(octets)
        self.file = directory / "push.json"

    def write(self, **more):
        self.file.write_text(json.dumps({**self.entry, **more}))
        self.file.chmod(0o600)
        return self.file

    def theirs(self, **more):
        """The head-end's own view."""
        keys = SecurityKeys(
            self.encryption,
            self.authentication,
            master=self.master,
            signing=self.their_signing,
            agreement=self.their_agreement,
            peer_signing=self.signing and self.signing.public_key(),
            peer_agreement=self.agreement and self.agreement.public_key(),
        )
        return SecurityContext(
            keys, THEIR_TITLE, MemoryCounter(1), peer_system_title=OUR_TITLE, suite=self.suite, **more
        )


class Receiver:
    """A head-end. `security` takes the protection off and confirms in kind; `mood` is what it does with frames."""

    def __init__(self, security=None):
        self.port = free_port()
        self.security, self.mood = security, "good"
        self.values, self.events, self.frames, self.connections = {}, [], [], 0
        self.twice = 0
        self._server, self._writers = None, set()

    async def start(self, tls=None):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=tls)

    async def stop(self):
        if self._server:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader, writer):
        self.connections += 1
        self._writers.add(writer)
        decoder = WrapperDecoder()
        with contextlib.suppress(ConnectionError):
            while octets := await reader.read(65536 if self.mood != "slow" else 7):
                decoder.receive_data(octets)
                while frame := decoder.next_event():
                    self.frames.append(frame)
                    answer = self._take(frame.apdu)
                    if answer is not None:
                        writer.write(WrapperFrame(frame.destination, frame.source, answer).to_bytes())
        self._writers.discard(writer)
        writer.close()

    def _take(self, octets):
        envelope, found = None, apdus.decode(octets)
        if self.security is not None:
            assert not isinstance(found, DataNotification)
            plain, envelope = unwrap(self.security, found)
            found = apdus.decode(plain)
        if self.mood == "silent":
            return None
        meter, profile, _columns, rows, _units, _marks = found.body.items(6)
        for row in rows.items():
            moment = CosemDateTime.from_bytes(row.items()[0].octets()).to_utc()
            if profile.octets() == bytes(LOG):
                self.events.append(row.items()[2].integer())
                continue
            key = meter.octets().decode(), moment
            self.twice += key in self.values
            self.values[key] = row.items()[2].integer()
        if not found.confirmed:
            return None
        confirm = DataNotificationConfirm(found.long_invoke, found.date_time).to_bytes()
        return confirm if envelope is None else wrap(self.security, confirm, envelope)


@pytest.fixture
async def store(tmp_path):
    store = Store(tmp_path / "store.db", SystemClock())
    for meter in ("M1", "M2"):
        await store.save_meter(MeterRecord(meter))
    yield store
    store.close()


async def add(store, meter, first, count):
    readings = tuple(
        Reading(CHANNEL, START + timedelta(minutes=15 * number), 1000 + number)
        for number in range(first, first + count)
    )
    await store.store_answer(Answer(meter, PROFILE, readings, START))
    return {(meter, reading.captured_at): reading.value for reading in readings}


async def add_event(store, code, kind):
    event = MeterEvent(LOG, START + timedelta(seconds=code), code, 0, "fraud", EventSeverity.ALARM, kind)
    await store.store_meter_events("M1", LOG, [event], START)


@contextlib.asynccontextmanager
async def pushing(store, port, key_file=None, **settings):
    settings.setdefault("timeout_s", 2)
    section = PushSection(host="127.0.0.1", port=port, key_file=str(key_file or ""), **settings)
    calendar = PushCalendar.from_words(UTC, section.when, section.every_s, section.at, section.windows)
    counter = SharedCounter(store.invocation_counter("head-ends"))
    uplink = PushUplink(
        section,
        store,
        SystemClock(),
        calendar,
        load_push_protection(key_file, OUR_TITLE, counter),
        store.invocation_counter("push-invoke-id:push").next,
    )
    task = asyncio.create_task(uplink.run())
    try:
        yield uplink
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


PROTECTIONS = [
    (suite, {"protection": kind, **more})
    for suite in (0, 1, 2)
    for kind, more in (
        ("general-glo-ciphering", {}),
        ("general-glo-ciphering", {"encrypted": False}),
        ("general-ciphering", {}),
        ("general-ciphering", {"key": "wrapped"}),
        ("general-glo-ciphering", {"signed": True}),
        ("general-ciphering", {"key": "one-pass"}),
        ("general-ciphering", {"key": "static-unified", "signed": True}),
    )
    if suite or not ("signed" in more or more.get("key") in ("one-pass", "static-unified"))
]


@pytest.mark.parametrize(("suite", "how"), PROTECTIONS, ids=str)
async def test_everything_arrives_once_under_every_protection(tmp_path, store, suite, how):
    keys = Keys(tmp_path, suite)
    receiver = Receiver(keys.theirs(policy=0, accepted=0x10, signed=how.get("signed", False)))
    await receiver.start()
    truth = await add(store, "M1", 0, 300) | await add(store, "M2", 0, 10)
    async with pushing(store, receiver.port, keys.write(**how)):
        await until(lambda: receiver.values == truth, 20, "every value")
        await until(lambda: nothing_waits(store), 20, "every batch is acknowledged")
    await receiver.stop()
    assert receiver.twice == 0
    plain = any(bytes(PROFILE) in frame.apdu for frame in receiver.frames)
    assert plain == (how.get("encrypted") is False)


async def nothing_waits(store):
    states = await store.destination_states()
    return bool(states) and all(state.pending_batches == 0 for state in states)


async def test_a_confirmation_in_plain_confirms_nothing_where_pushes_are_protected(tmp_path, store):
    keys = Keys(tmp_path, 0)
    receiver = Receiver(keys.theirs())
    receiver._take = lambda octets: DataNotificationConfirm(
        apdus.decode(unwrap(receiver.security, apdus.decode(octets))[0]).long_invoke, None
    ).to_bytes()
    await receiver.start()
    await add(store, "M1", 0, 3)
    async with pushing(store, receiver.port, keys.write(), timeout_s=1) as uplink:
        await until(lambda: "did not confirm" in uplink.reason, 20, "told")
        assert not await nothing_waits(store)
    async with pushing(store, receiver.port, keys.write(plain_confirmation=True)):
        await until(lambda: nothing_waits(store), 20, "acknowledged")
    await receiver.stop()


@pytest.mark.parametrize("suite", [0, 1, 2])
async def test_gurux_pydlms_and_dlms_cosem_hear_what_we_push(tmp_path, store, suite):
    keys = Keys(tmp_path, suite)
    receiver = Receiver()
    receiver._take = lambda _octets: None
    await receiver.start()
    await add(store, "M1", 0, 3)
    async with pushing(store, receiver.port, keys.write(), confirmed=False):
        await until(lambda: receiver.frames, 20, "a push")
    await receiver.stop()
    frame = receiver.frames[0].to_bytes()
    expected = [1000, 1001, 1002]
    assert await asyncio.to_thread(heard_by_gurux, keys, frame) == expected
    assert heard_by_dlms_cosem(keys, frame) == expected
    assert heard_by_pydlms(keys, frame) == b"M1"


def heard_by_gurux(keys, frame):
    from gurux_dlms import GXByteBuffer, GXReplyData
    from gurux_dlms.enums import InterfaceType, Security
    from gurux_dlms.secure import GXDLMSSecureClient

    client = GXDLMSSecureClient(True, 0x67, 1, interfaceType=InterfaceType.WRAPPER)
    client.ciphering.security = Security.AUTHENTICATION_ENCRYPTION
    client.ciphering.securitySuite = keys.suite
    client.ciphering.blockCipherKey, client.ciphering.authenticationKey = keys.encryption, keys.authentication
    client.settings.sourceSystemTitle = OUR_TITLE
    reply, notification = GXReplyData(), GXReplyData()
    client.getData(GXByteBuffer(frame), reply, notification)
    meter, _profile, _columns, rows = notification.value[:4]
    assert bytes(meter) == b"M1"
    return [int(row[2]) for row in rows]


def heard_by_dlms_cosem(keys, frame):
    from dlms_cosem import utils
    from dlms_cosem.protocol.xdlms import DataNotification as TheirNotification
    from dlms_cosem.protocol.xdlms import GeneralGlobalCipher

    envelope = GeneralGlobalCipher.from_bytes(frame[8:])
    plain = bytearray(envelope.to_plain_apdu(keys.encryption, keys.authentication))
    found = utils.parse_as_dlms_data(TheirNotification.from_bytes(plain).body)
    return [row[2] for row in found[3]]


def heard_by_pydlms(keys, frame):
    from pydlms.push import PushDecoder
    from pydlms.security.context import SecurityContext as TheirContext

    context = TheirContext(
        keys.encryption,
        keys.authentication,
        client_system_title=THEIR_TITLE,
        server_system_title=OUR_TITLE,
        suite=keys.suite,
        invocation_counter=1,
    )
    names = [(target.class_id, str(target.obis), target.attribute) for target in push_object_list(PROFILE)]
    decoder = PushDecoder("wrapper", security=context, capture_objects=names)
    (message,) = decoder.feed(frame)
    return message.records[0].raw


async def test_cuts_silence_and_slowness_lose_and_double_nothing(tmp_path, store):
    keys = Keys(tmp_path, 1)
    receiver = Receiver(keys.theirs(policy=0))
    truth = {}
    async with pushing(store, receiver.port, keys.write(signed=True), timeout_s=1, in_flight=2) as uplink:
        for number, mood in enumerate(("good", "silent", "slow", "good")):
            truth |= await add(store, "M1", 40 * number, 40)
            receiver.mood = mood
            seen = len(receiver.frames)
            await receiver.start()
            await until(lambda seen=seen: len(receiver.frames) > seen, 30, f"a frame while {mood}")
            await receiver.stop()
            await until(lambda: uplink.state != CONNECTED, 20, "the cut is seen")
        await receiver.start()
        receiver.mood = "good"
        await until(lambda: receiver.values == truth, 30, "every value")
        await until(lambda: nothing_waits(store), 20, "acknowledged")
    await receiver.stop()


async def test_events_go_at_once_and_readings_wait_for_their_time(store):
    receiver = Receiver()
    await receiver.start()
    truth = await add(store, "M1", 0, 5)
    # A slot twelve hours away, whatever the time is now.
    at = (datetime.now(UTC) + timedelta(hours=12)).strftime("%H:%M")
    settings = {"when": "schedule,events", "every_s": 86_400, "at": at, "event_kinds": "magnet"}
    async with pushing(store, receiver.port, **settings) as uplink:
        await until(lambda: uplink.state == WAITING, 20, "waiting")
        assert "next at" in uplink.reason
        await add_event(store, 7, "cover")
        await add_event(store, 42, "magnet")
        await until(lambda: receiver.events == [42], 20, "the event")
        assert receiver.values == {}
        uplink.push_now()
        await until(lambda: receiver.values == truth, 20, "what is asked for")
        await until(lambda: nothing_waits(store), 20, "acknowledged")
    await receiver.stop()
    assert receiver.events == [42]


async def test_after_the_last_try_it_waits_for_the_next_time(store):
    truth = await add(store, "M1", 0, 5)
    receiver = Receiver()
    settings = {"retries": 1, "retry_delay_s": 1, "pause_s": 3}
    async with pushing(store, receiver.port, **settings) as uplink:
        await until(lambda: "2 tries failed" in uplink.reason, 20, "told")
        assert "next at" in uplink.reason
        assert not await nothing_waits(store)
        await receiver.start()
        await until(lambda: receiver.values == truth, 20, "after the pause")
    await receiver.stop()


async def test_a_destination_for_events_only_gets_no_readings_and_holds_none_back(store):
    receiver = Receiver()
    await receiver.start()
    await add(store, "M1", 0, 5)
    await add_event(store, 42, "magnet")
    async with pushing(store, receiver.port, when="events"):
        await until(lambda: receiver.events == [42], 20, "the event")
        await until(lambda: nothing_waits(store), 20, "nothing is held back")
    await receiver.stop()
    assert receiver.values == {}


async def test_over_tls_with_our_certificate(tmp_path, store):
    for name in ("server", "client"):
        await asyncio.to_thread(
            subprocess.run,
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1",
             "-keyout", tmp_path / f"{name}.key", "-out", tmp_path / f"{name}.pem"],
            check=True, capture_output=True,
        )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    context.load_verify_locations(tmp_path / "client.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    receiver = Receiver()
    await receiver.start(context)
    truth = await add(store, "M1", 0, 5)
    trust = {"tls": True, "ca_file": str(tmp_path / "server.pem")}
    async with pushing(store, receiver.port, **trust) as uplink:
        await until(lambda: uplink.reason, 20, "refused without our certificate")
    assert receiver.values == {}
    ours = {
        name: str(tmp_path / f"client.{end}")
        for name, end in (("certificate_file", "pem"), ("private_key_file", "key"))
    }
    async with pushing(store, receiver.port, **trust, **ours):
        await until(lambda: receiver.values == truth, 20, "with it")
    await receiver.stop()


def test_a_key_file_that_protects_nothing_or_lacks_a_key_is_refused(tmp_path):
    keys = Keys(tmp_path, 1)
    for more, words in (
        ({"authenticated": False, "encrypted": False}, "protects nothing"),
        ({"protection": "rot13"}, "protection"),
        ({"system_title": "00"}, "system_title"),
        ({"suite": 0, "signed": True}, "suite|signing"),
        ({"signed": True, "signing_key_file": ""}, "signing_key_file"),
        ({"encryption_key": "FACE"}, "encryption_key"),
    ):
        with pytest.raises(HeadEndFileError, match=words) as told:
            load_push_protection(keys.write(**more), OUR_TITLE, MemoryCounter())
        assert "FACE" not in str(told.value)


def test_slots_and_windows_in_local_time():
    calendar = PushCalendar.from_words(UTC, "schedule", 6 * 3600, "01:30", "")
    now = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
    assert calendar.next_slot(now) == datetime(2026, 11, 20, 13, 30, tzinfo=UTC)
    assert calendar.next_slot(datetime(2026, 11, 20, 23, 0, tzinfo=UTC)) == datetime(
        2026, 11, 21, 1, 30, tzinfo=UTC
    )
    night = PushCalendar.from_words(UTC, "fresh", 3600, "00:00", "22:00-02:00, 04:00-05:00")
    assert night.windows == ((time(22), time(2)), (time(4), time(5)))
    assert not night.is_open(now)
    assert night.next_opening(now) == datetime(2026, 11, 20, 22, tzinfo=UTC)
    late = datetime(2026, 11, 20, 23, tzinfo=UTC)
    assert night.is_open(late)
    assert night.next_closing(late) == datetime(2026, 11, 21, 2, tzinfo=UTC)
    assert night.is_open(datetime(2026, 11, 20, 1, 59, tzinfo=UTC))
    assert not night.is_open(datetime(2026, 11, 20, 2, 0, tzinfo=UTC))
