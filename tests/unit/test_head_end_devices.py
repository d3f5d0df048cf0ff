"""The concentrator as a DLMS server: roles, proofs, replays, key changes, logs, live readings and updates."""

import asyncio
import json
from concurrent.futures import Future

import pytest

from concentrator.dlms import axdr
from concentrator.dlms.attributes import (
    CLOCK_COLUMN,
    AttributeDescriptor,
    CaptureObject,
    EntryDescriptor,
    MethodDescriptor,
    RangeDescriptor,
)
from concentrator.dlms.codes import AuthenticationMechanism
from concentrator.dlms.cosem.image_transfer import IMAGE_TRANSFER
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.errors import AccessError, AssociationRejectedError, DlmsError
from concentrator.dlms.key_agreement import KeyId, wrapped_keys
from concentrator.dlms.security import MemoryCounter
from concentrator.obis import Obis
from concentrator.orders import OrderError
from concentrator.uplink.head_end_file import HeadEndFileError
from concentrator.uplink.head_ends import HeadEnds
from concentrator.uplink.live_reading import LIVE_UNDER_WAY, LiveReadings
from concentrator.uplink.management_names import ACCESS_LOG, EVENT_LOG, invocation_counter_name
from concentrator.uplink.roles import LIVE_PROFILE
from concentrator.uplink.stored_meters import StoredMeter
from concentrator.uplink.update_image import BLOCK_OCTETS, ImageVerdict, UpdateImage

from head_end_rig import KEYS, MASTER, Box, RunningClock, client

ADMIN = {"client_sap": 1, "mechanism": "hls-gmac", "role": "admin", "master_key": MASTER.hex(), **KEYS}
READER = {
    "client_sap": 2,
    "mechanism": "hls-gmac",
    "encryption_key": "11" * 16,
    "authentication_key": "22" * 16,
}
WITH_LLS = {"client_sap": 3, "mechanism": "lls", "password": "a secret of theirs", **KEYS}
NAME = AttributeDescriptor(1, Obis(0, 0, 42, 0, 0, 255), 2)
OBJECT_LIST = AttributeDescriptor(15, Obis(0, 0, 40, 0, 0, 255), 2)
NEW_KEY = bytes(range(0x80, 0x90))


def box_of(tmp_path, *clients, **more):
    return Box(tmp_path, list(clients) or [ADMIN, READER, WITH_LLS], **more)


def reader(counter):
    return client(counter, 2, encryption=b"\x11" * 16, authentication=b"\x22" * 16)


def opened(box, counter, **more):
    ours, connection = client(counter, **more), box.connection()
    connection.run(ours.associate())
    return ours, connection


def is_refused(answers):
    return answers[0][0] == 0xD8 or answers[0][0] == 0x61


def test_what_was_sent_before_a_restart_opens_nothing_after_it(tmp_path):
    box = box_of(tmp_path)
    ours, counter = box.connection(), MemoryCounter(100)
    lls = client(counter, 3, mechanism=AuthenticationMechanism.LLS, secret=b"a secret of theirs")
    ours.run(lls.associate(), (3, 1))
    assert ours.run(lls.get(NAME), (3, 1)).octets()[:3] == b"ODC"
    captured = ours.sent
    for again in (box.connection(), None):
        if again is None:
            box.restart()
            again = box.connection("198.51.100.7")
        opening, reading = (again.receive_apdu(3, 1, apdu) for apdu in captured[:2])
        assert opening[0][0] == 0x61
        assert is_refused(reading)
        assert again.server.association(3, 1).associated is False
    fresh = box.connection()
    later = client(counter, 3, mechanism=AuthenticationMechanism.LLS, secret=b"a secret of theirs")
    fresh.run(later.associate(), (3, 1))
    assert fresh.run(later.get(NAME), (3, 1)).octets()[:3] == b"ODC"
    index = box.head_ends.clients[3].index
    told = fresh.run(later.get(AttributeDescriptor(1, invocation_counter_name(index), 2)), (3, 1)).integer()
    assert told == counter.value - 1


def test_an_association_whose_counter_cannot_be_kept_is_refused(tmp_path):
    box = box_of(tmp_path)
    opened(box, MemoryCounter(1))
    box.store.close()
    box.store.path.chmod(0o600)
    box.devices._kept._path = tmp_path / "gone" / "store.db"
    with pytest.raises(DlmsError):
        opened(box, MemoryCounter(1000))


def test_keys_that_a_head_end_changes_are_on_flash_before_it_is_answered(tmp_path):
    box, counter = box_of(tmp_path), MemoryCounter(1)
    ours, connection = opened(box, counter)
    index = box.head_ends.clients[1].index
    transfer = MethodDescriptor(64, Obis(0, 0, 43, 0, index, 255), 2)
    connection.run(ours.action(transfer, wrapped_keys(MASTER, {KeyId.GLOBAL_UNICAST: NEW_KEY})))
    entry = next(one for one in json.loads(box.file.read_text())["clients"] if one["client_sap"] == 1)
    assert entry["encryption_key"] == NEW_KEY.hex()
    assert entry["role"] == "admin"
    assert box.file.stat().st_mode & 0o777 == 0o600
    assert box.changed == [(1, "keys")]
    # The association at hand goes on under the old key.
    assert connection.run(ours.get(NAME)).octets()[:3] == b"ODC"
    for _ in range(2):
        opened(box, counter, encryption=NEW_KEY)
        with pytest.raises(DlmsError):
            opened(box, counter)
        box.restart()


def test_keys_that_cannot_be_kept_are_not_taken(tmp_path):
    box, counter = box_of(tmp_path), MemoryCounter(1)
    ours, connection = opened(box, counter)
    box.file.write_text(json.dumps({"clients": [READER]}))
    index = box.head_ends.clients[1].index
    transfer = MethodDescriptor(64, Obis(0, 0, 43, 0, index, 255), 2)
    with pytest.raises(AccessError, match="other-reason"):
        connection.run(ours.action(transfer, wrapped_keys(MASTER, {KeyId.GLOBAL_UNICAST: NEW_KEY})))
    assert not box.changed
    opened(box, counter)


def test_a_password_that_is_changed_outlives_a_restart(tmp_path):
    box, counter = box_of(tmp_path), MemoryCounter(1)

    def with_secret(secret):
        ours, connection = (
            client(counter, 3, mechanism=AuthenticationMechanism.LLS, secret=secret),
            box.connection(),
        )
        connection.run(ours.associate(), (3, 1))
        return ours, connection

    ours, connection = with_secret(b"a secret of theirs")
    secret = AttributeDescriptor(15, Obis(0, 0, 40, 0, 0, 255), 7)
    with pytest.raises(AccessError):
        connection.run(ours.set(secret, axdr.octet_string(b"short")), (3, 1))
    connection.run(ours.set(secret, axdr.octet_string(b"another secret")), (3, 1))
    box.restart()
    with_secret(b"another secret")
    with pytest.raises(AssociationRejectedError):
        with_secret(b"a secret of theirs")
    assert b"another secret" not in box.file.read_bytes()


def test_a_reader_changes_nothing_and_sees_its_own_security_setup_only(tmp_path):
    box = box_of(tmp_path, more=lambda: [image_of(tmp_path)[0].cosem_object()])
    ours, connection = reader(MemoryCounter(1)), box.connection()
    connection.run(ours.associate(), (2, 1))
    listed = connection.run(ours.get(OBJECT_LIST), (2, 1)).items()
    names = {(row.items()[0].integer(), Obis.from_bytes(row.items()[2].octets())) for row in listed}
    own = box.head_ends.clients[2].index
    assert {obis for class_id, obis in names if class_id == 64} == {Obis(0, 0, 43, 0, own, 255)}
    assert {obis for class_id, obis in names if class_id == 15} == {
        Obis(0, 0, 40, 0, 0, 255),
        Obis(0, 0, 40, 0, own, 255),
    }
    initiate = axdr.structure(axdr.octet_string(b"image"), axdr.double_long_unsigned(10))
    with pytest.raises(AccessError):
        connection.run(ours.action(MethodDescriptor(18, IMAGE_TRANSFER, 1), initiate), (2, 1))
    other = AttributeDescriptor(64, Obis(0, 0, 43, 0, box.head_ends.clients[1].index, 255), 2)
    with pytest.raises(AccessError):
        connection.run(ours.get(other), (2, 1))
    time = axdr.octet_string(CosemDateTime().to_bytes())
    with pytest.raises(AccessError):
        connection.run(ours.set(AttributeDescriptor(*CLOCK_COLUMN[:3]), time), (2, 1))


def test_wrong_proofs_make_the_next_wait_longer_and_only_there(tmp_path):
    box, counter = box_of(tmp_path), MemoryCounter(1)

    def guess(address="192.0.2.1"):
        wrong = client(MemoryCounter(1), encryption=NEW_KEY)
        with pytest.raises(DlmsError):
            box.connection(address).run(wrong.associate())

    for _ in range(4):
        guess()
    assert box.devices.counters["failed_proofs"] == 4
    assert len(box.noted) == 1
    with pytest.raises(DlmsError):
        opened(box, counter)
    assert box.devices.counters["locked_out"] == 1
    elsewhere = client(counter)
    box.connection("198.51.100.7").run(elsewhere.associate())
    box.clock.seconds += 1.1
    guess()
    box.clock.seconds += 1.1
    guess()
    assert box.devices.counters["failed_proofs"] == 5
    box.clock.seconds += 1
    opened(box, counter)
    guess()
    opened(box, counter)
    assert not any(NEW_KEY.hex() in words for _, words in box.noted)


def test_unknown_devices_and_clients_are_answered(tmp_path):
    box = box_of(tmp_path)
    for sap, device in ((1, 999), (77, 1)):
        with pytest.raises(DlmsError):
            box.connection().run(client(MemoryCounter(1), sap, device).associate(), (sap, device))


def test_the_logs_are_read_by_range_and_by_entry(tmp_path):
    box = box_of(tmp_path)
    asyncio.run(
        box.store.add_events(
            [("access", "order 1", ""), ("modem_state", "lost", ""), ("head_end", "locked out", "")]
        )
    )
    ours, connection = opened(box, MemoryCounter(1))

    def rows(log, *selection):
        listed = connection.run(ours.get(AttributeDescriptor(7, log, 2), *selection)).items()
        return [row.items()[2].native for row in listed]

    assert rows(EVENT_LOG) == ["order 1", "lost", "locked out"]
    assert rows(ACCESS_LOG) == ["order 1", "locked out"]
    assert rows(ACCESS_LOG, EntryDescriptor(2, 2).to_selection()) == ["locked out"]
    now = box.clock.now()
    day = [CosemDateTime.from_datetime(now.replace(hour=hour), 0) for hour in (0, 23)]
    assert len(rows(EVENT_LOG, RangeDescriptor(*day, CLOCK_COLUMN).to_selection())) == 3
    before = [CosemDateTime.from_datetime(now.replace(day=day), 0) for day in (1, 2)]
    assert rows(EVENT_LOG, RangeDescriptor(*before, CLOCK_COLUMN).to_selection()) == []


def test_a_file_with_mistakes_is_refused_without_repeating_a_key(tmp_path):
    for entry, words in (
        ({**ADMIN, "role": "king"}, "role"),
        ({**ADMIN, "encryption_key": "FACE"}, "encryption_key"),
        ({**ADMIN, "master_key": "FACE"}, "master_key"),
        ({**ADMIN, "client_sap": 0}, "client_sap"),
        ({**ADMIN, "mechanism": "hls-ecdsa", "suite": 1}, "signing_key_file"),
    ):
        with pytest.raises(HeadEndFileError, match=words) as told:
            box_of(tmp_path, entry)
        assert "FACE" not in str(told.value)
    file = tmp_path / "head_ends.json"
    file.write_text(json.dumps({"clients": [ADMIN, ADMIN]}))
    file.chmod(0o600)
    with pytest.raises(HeadEndFileError, match="twice"):
        HeadEnds(file)
    file.chmod(0o640)
    with pytest.raises(HeadEndFileError, match="chmod 600"):
        HeadEnds(file)


# Live readings


async def test_a_live_reading_is_asked_for_and_found_when_the_meter_has_answered():
    answers, orders = asyncio.Queue(), []

    async def carry_out(order):
        orders.append(order)
        answer = await answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    tasks = []

    def submit(work):
        tasks.append(asyncio.ensure_future(work))
        return Future()

    live = LiveReadings(carry_out, submit, RunningClock().now, timeout_s=0.5)
    meter = StoredMeter(1, "ODC1", "", "", "", "electricity", "active", "", None, None)
    profile, under_way, result = live.objects(meter, [])

    def value(thing, attribute):
        return axdr.decode(b"".join(thing.encoded(attribute, None))).native

    assert profile.obis == LIVE_PROFILE
    assert under_way.obis == LIVE_UNDER_WAY
    with pytest.raises(AccessError):
        profile.methods[2](None)
    energy = CaptureObject(3, Obis(1, 0, 1, 8, 0, 255), 2)
    profile.setters[3](axdr.array(energy.to_data()))
    profile.methods[2](axdr.integer(0))
    assert (value(under_way, 2), value(profile, 7)) == (1, 0)
    with pytest.raises(AccessError, match="temporary-failure"):
        profile.methods[2](None)
    answers.put_nowait({"axdr": axdr.double_long_unsigned(4711).to_bytes().hex()})
    await tasks.pop()
    (row,) = value(profile, 2)
    assert row[1:] == ["", 32, 4711]
    assert (orders[0].operation, orders[0].target, orders[0].priority) == ("read", "ODC1", 1)
    # One that fails has its reason; one that is not answered ends by itself.
    profile.methods[2](None)
    answers.put_nowait(OrderError("the meter is away"))
    await tasks.pop()
    profile.methods[2](None)
    await tasks.pop()
    assert [row[1] for row in value(profile, 2)][1:] == ["the meter is away", "not read within 0.5 s"]
    assert value(result, 2) == "not read within 0.5 s"
    assert value(under_way, 2) == 0
    profile.setters[3](axdr.array())
    assert value(profile, 2) == []


# Updates


def image_of(directory, verdicts=None):
    """An update's image; the verdicts come when they are asked for the second time."""
    jobs, noted = [], []

    async def work(kind, path):
        return kind, path

    def submit(work):
        work.close()
        jobs.append(Future())
        return jobs[-1]

    image = UpdateImage(
        directory / "image",
        10 * BLOCK_OCTETS,
        lambda path: work("inspect", path),
        lambda path: work("install", path),
        submit,
        lambda code, words: noted.append((code, words)),
    )
    return image, jobs, noted


class ImageClient:
    def __init__(self, box):
        self.ours, self.connection = opened(box, MemoryCounter(ImageClient.used))
        ImageClient.used += 1000

    used = 1

    def act(self, number, parameters=None):
        method = MethodDescriptor(18, IMAGE_TRANSFER, number)
        return self.connection.run(self.ours.action(method, parameters or axdr.integer(0)))

    def get(self, attribute):
        return self.connection.run(self.ours.get(AttributeDescriptor(18, IMAGE_TRANSFER, attribute))).native

    def block(self, number, octets):
        self.act(2, axdr.structure(axdr.double_long_unsigned(number), axdr.octet_string(octets)))

    def initiate(self, size):
        self.act(1, axdr.structure(axdr.octet_string(b"odc 9"), axdr.double_long_unsigned(size)))


def test_an_update_survives_a_restart_and_is_checked_and_installed_elsewhere(tmp_path):
    current = image_of(tmp_path)
    box = box_of(tmp_path, more=lambda: [current[0].cosem_object()])
    ImageClient.used = 1
    content = bytes(range(256)) * 40
    theirs = ImageClient(box)
    assert (theirs.get(2), theirs.get(6)) == (BLOCK_OCTETS, 0)
    with pytest.raises(AccessError):
        theirs.initiate(10 * BLOCK_OCTETS + 1)
    theirs.initiate(len(content))
    theirs.block(0, content[:BLOCK_OCTETS])
    theirs.block(2, content[2 * BLOCK_OCTETS :])
    assert (theirs.get(3), theirs.get(4), theirs.get(6)) == ("101", 1, 1)
    # What was not yet on flash is asked for again; the transfer goes on.
    current = image_of(tmp_path)
    box.restart()
    theirs = ImageClient(box)
    assert (theirs.get(4), theirs.get(6)) == (0, 1)
    with pytest.raises(AccessError):
        theirs.act(3)
    for number in range(3):
        theirs.block(number, content[number * BLOCK_OCTETS :][:BLOCK_OCTETS])
    current = image_of(tmp_path)
    box.restart()
    theirs = ImageClient(box)
    assert theirs.get(3) == "111"
    assert (tmp_path / "image" / "image.raucb").read_bytes() == content
    _, jobs, noted = current
    with pytest.raises(AccessError, match="temporary-failure"):
        theirs.act(3)
    with pytest.raises(AccessError, match="other-reason"):
        theirs.initiate(5)
    jobs[0].set_result(ImageVerdict(True, "fine", version="2026.12"))
    theirs.act(3)
    assert theirs.get(7) == [[len(content), b"odc 9", b"2026.12"]]
    with pytest.raises(AccessError, match="temporary-failure"):
        theirs.act(4)
    # Another update is under way: to be asked for again.
    jobs[1].set_result(ImageVerdict(False, "busy", busy=True))
    with pytest.raises(AccessError, match="temporary-failure"):
        theirs.act(4)
    # The service is started anew while it is installed: the head-end activates again.
    current = image_of(tmp_path)
    box.restart()
    theirs, (_, jobs, noted) = ImageClient(box), current
    assert theirs.get(6) == 3
    with pytest.raises(AccessError, match="temporary-failure"):
        theirs.act(4)
    jobs[0].set_result(ImageVerdict(True, "installed"))
    theirs.act(4)
    assert theirs.get(6) == 6
    assert noted[-1][1].endswith("activation successful")


def test_an_image_that_is_not_ours_is_refused(tmp_path):
    current = image_of(tmp_path)
    box = box_of(tmp_path, more=lambda: [current[0].cosem_object()])
    ImageClient.used = 1
    theirs = ImageClient(box)
    theirs.initiate(5)
    theirs.block(0, b"12345")
    with pytest.raises(AccessError):
        theirs.act(3)
    current[1][0].set_result(ImageVerdict(False, "the signature is not valid here"))
    with pytest.raises(AccessError, match="other-reason"):
        theirs.act(3)
    assert theirs.get(6) == 4
    with pytest.raises(AccessError):
        theirs.act(4)
    assert any("signature" in words for _, words in current[2])
