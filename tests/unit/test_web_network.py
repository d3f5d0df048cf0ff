"""Network, traffic, decoder and the overview's newer parts: values and answers, with and without the service."""

from __future__ import annotations

import asyncio
import html
import json
import re
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from concentrator.clock import SystemClock
from concentrator.collection.dialogue_book import DialogueBook, RecordedChannel
from concentrator.control import ControlServer, subscribe
from concentrator.dlms.redaction import may_be_shown, without_passwords
from concentrator.links.frame_tap import FROM_HOST, FrameTap
from concentrator.model import EventSeverity, MeterEvent
from concentrator.obis import Obis
from concentrator.store.network_history import Change, HistoryBatch, NetworkHour, NodeDay
from concentrator.store.store import Store
from concentrator.traffic import Source, TrafficHub
from concentrator.web import machine
from concentrator.web.application import make_page
from concentrator.web.topology import Place, draw, link_quality
from plc.usi.framing import PROTOCOL_PRIME_API, FrameDecoder, encode_frame

import web_bench
from web_bench import METERS, FakeService

ORIGIN = "http://127.0.0.1:8080"
PASSWORD = b"12345678"
# An AARQ of low level security, as a meter on a bench gets it.
AARQ = bytes.fromhex(
    "6036A1090607608574050801018A0207808B0760857405080201AC0A80083132333435363738BE10040E01000000065F1F0400001E1DFFFF"
)
GET = bytes.fromhex("C001C1000F0000280000FF0200")


def places(nodes) -> list[Place]:
    return [Place.from_told(node, "prime", {}) for node in nodes]


# The picture


@pytest.mark.parametrize(("switches", "terminals"), [(2, 2), (12, 40)])
def test_every_node_is_drawn_once_and_none_on_another(switches, terminals):
    nodes = web_bench.prime_tree(switches, terminals)
    picture = draw(places(nodes))
    assert sorted(mark.place.eui for mark in picture.marks) == sorted(node["eui"] for node in nodes)
    assert len({(mark.x, mark.y) for mark in picture.marks}) == len(nodes)
    assert all(0 < mark.y < picture.height for mark in picture.marks)
    assert picture.circles == 0


def test_five_hundred_nodes_are_a_picture_of_a_screen_or_two():
    assert draw(places(web_bench.prime_tree(12, 40))).height < 2000


def test_levels_fold_and_a_branch_is_drawn_alone():
    nodes = places(web_bench.prime_tree(3, 5))
    folded = draw(nodes, levels=1)
    assert {mark.place.eui: mark.folded for mark in folded.marks} == {"0200000a0000": 5, "0200000a0001": 11}
    branch = draw(nodes, below="0200000a0002")
    assert len(branch.marks) == 5


@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.integers(0, 20), st.booleans(), st.integers(1, 5)),
        max_size=21,
        unique_by=lambda one: one[0],
    )
)
def test_any_parents_even_in_a_circle_are_drawn_or_counted(given_nodes):
    nodes = [
        web_bench.node(f"{eui:012x}", f"{parent:012x}", available=available, hops=hops, level=None)
        for eui, parent, available, hops in given_nodes
    ]
    picture = draw(places(nodes))
    drawn = [mark.place.eui for mark in picture.marks]
    assert len(drawn) == len(set(drawn))
    assert len(drawn) + picture.circles == sum(node["available"] for node in nodes)


def test_link_quality_has_a_scale_for_each_family():
    assert [link_quality(value, "g3")[1] for value in (30, 60, 120, None)] == [
        "weak",
        "fair",
        "good",
        "not known",
    ]
    assert [link_quality(value, "prime")[1] for value in (0, 3, 7)] == ["weak", "fair", "good"]
    assert link_quality(5, "s-fsk")[1] == "not known"


# Secrets


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_a_password_is_zeros_wherever_its_apdu_stands(before, after):
    shown = without_passwords(before + AARQ + after)
    assert PASSWORD not in shown[len(before) : len(before) + len(AARQ)]
    assert len(shown) == len(before + AARQ + after)
    assert shown.startswith(before + AARQ[:20])


@given(st.binary(max_size=200))
def test_redaction_takes_anything_and_keeps_its_length(octets):
    assert len(without_passwords(octets)) == len(octets)


def test_a_set_of_the_secret_is_zeros_too():
    apdu = bytes.fromhex("C101C1000F0000280000FF07000908") + PASSWORD
    assert without_passwords(apdu) == apdu[:-8] + bytes(8)


@given(st.lists(st.integers(1, 30), max_size=30))
def test_frames_of_the_modem_come_out_whole_and_without_the_password(cuts):
    frame = encode_frame(PROTOCOL_PRIME_API, b"\x37\x01" + AARQ)
    stream, tap, found = frame * 2, FrameTap(), []
    for cut in [*cuts, len(stream)]:
        found += tap.receive_data(FROM_HOST, stream[:cut])
        stream = stream[cut:]
    assert len(found) == 2
    assert all(PASSWORD not in one and len(one) >= len(frame) - 2 for one in found)
    decoder = FrameDecoder()
    decoder.receive_data(found[0])
    assert decoder.next_frame()[1].startswith(b"\x37\x01\x60\x36")


# The hub and the control socket


def test_a_slow_watcher_loses_the_oldest_and_holds_up_nobody():
    async def run():
        hub = TrafficHub(SystemClock(), largest_queue=10)
        assert not hub.watched
        hub.publish(Source.MODEM, "x", b"nobody looks")
        with hub.watch() as slow, hub.watch() as quick:
            for number in range(25):
                hub.publish(Source.MODEM, "x", bytes([number]))
                assert len(await quick.take(1)) == 1
            assert slow.dropped == 15
            assert quick.dropped == 0
            assert [one.octets[0] for one in await slow.take(1)] == list(range(15, 25))
        assert not hub.watched

    asyncio.run(run())


def test_a_client_that_does_not_read_costs_the_service_a_bounded_queue_and_no_time(tmp_path):
    async def run():
        hub = TrafficHub(SystemClock())

        async def nothing(*_arguments):
            return {}

        server = ControlServer(tmp_path / "control.sock", nothing, nothing, traffic=hub)
        serving = asyncio.create_task(server.run())
        while not (tmp_path / "control.sock").exists():  # noqa: ASYNC110 - a file, and the hub of another task
            await asyncio.sleep(0.01)
        _reader, writer = await asyncio.open_unix_connection(str(tmp_path / "control.sock"), limit=1024)
        writer.write(b'{"op":"traffic"}\n')
        while not hub.watched:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
        slowest = 0.0
        for _ in range(40):
            began = time.perf_counter()
            for _ in range(500):
                hub.publish(Source.MODEM, "modem to host", bytes(500))
            slowest = max(slowest, time.perf_counter() - began)
            await asyncio.sleep(0)
        # Others are served all the while.
        async for line in subscribe(tmp_path / "control.sock", "traffic"):
            if line["passages"]:
                break
            hub.publish(Source.UPSTREAM, "to the head-end", note="still here")
        assert line["passages"][0]["note"] == "still here"
        assert slowest < 0.5
        writer.close()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)

    asyncio.run(asyncio.wait_for(run(), 30))


# Dialogues


class Channel:
    async def send(self, apdu):
        pass

    async def receive(self, _timeout_s):
        return GET


def test_a_long_dialogue_keeps_its_begin_and_end_and_no_password():
    async def run():
        book = DialogueBook(SystemClock(), TrafficHub(SystemClock()))
        record = book.begin()
        channel = RecordedChannel(Channel(), record, book, "m1", 1, "reading")
        await channel.send(AARQ)
        for _ in range(40):
            await channel.receive(1)
        record.outcome = "no answer"
        book.keep(record, "m1")
        return book.view("m1"), book.view("m2")

    view, unknown = asyncio.run(run())
    assert unknown == {"meter": "m2", "known": False}
    assert view["outcome"] == "no answer"
    assert len(view["apdus"]) + view["left_out"] == 41
    assert PASSWORD.hex() not in json.dumps(view)
    assert view["apdus"][0]["octets"].startswith("6036")


SECRETS = {
    "the secret of an association": "c001c1000f0000280000ff0700",
    "the same in a list": "c003c1020001000029600000ff02000f0000280000ff0700",
    "a password of PPP": "c001c1002c0000190300ff0500",
    "another secret, set": "c101c1000f0000280000ff0700090431323334",
    "keys to Security setup": "c301c100400000 2b0000ff020101010202160009100000".replace(" ", ""),
    "a key to an M-Bus client": "c301c100480001180000ff0801091000",
    "settings in a list, whose classes nobody looked at": "c104c10100080000010000ff020001090c00",
    "data in blocks": "c102c1000800000100",
    "a dedicated key": "0110" + "00" * 30,
}


@pytest.mark.parametrize("apdu", SECRETS.values(), ids=list(SECRETS))
def test_what_may_carry_a_secret_is_not_shown_deciphered(apdu):
    assert not may_be_shown(bytes.fromhex(apdu))


@given(st.binary(max_size=40))
def test_octets_of_any_kind_are_judged(octets):
    assert may_be_shown(octets) in (True, False)


def test_a_ciphered_apdu_is_kept_with_what_is_in_it_and_an_answer_to_a_secret_question_is_not():
    read, secret, answer = (
        bytes.fromhex(one)
        for one in ("c001c100070100630100ff0200", "c001c1000f0000280000ff0700", "c401c100090431323334")
    )

    async def run():
        hub = TrafficHub(SystemClock())
        book = DialogueBook(SystemClock(), hub)
        with hub.watch() as watcher:
            record = book.begin()
            channel = RecordedChannel(Channel(), record, book, "m1", 1, "reading")
            for question in (read, secret):
                record.opened(True, question)
                await channel.send(b"\xc8ciphered")
                await channel.receive(1)
                record.opened(False, answer)
            book.keep(record, "m1")
            passed = await watcher.take(1)
        return book.view("m1")["apdus"], passed

    apdus, passed = asyncio.run(run())
    assert [one["opened"] for one in apdus] == [read.hex(), answer.hex(), "", ""]
    assert apdus[0]["octets"] == b"\xc8ciphered".hex()
    deciphered = [one.octets for one in passed if one.note.endswith("deciphered")]
    assert deciphered == [read, answer]


def test_the_book_is_bounded():
    async def run():
        book = DialogueBook(SystemClock(), TrafficHub(SystemClock()), largest_octets=5000)
        for number in range(100):
            record = book.begin()
            await RecordedChannel(Channel(), record, book, f"m{number}", 1, "").send(GET)
            book.keep(record, f"m{number}")
        return [book.view(f"m{number}")["known"] for number in (0, 99)]

    assert asyncio.run(run()) == [False, True]


# Pages


@pytest.fixture
def directory(tmp_path):
    web_bench.fill_store(tmp_path)
    return tmp_path


@pytest.fixture
def service(tmp_path):
    service = FakeService(tmp_path / "control.sock")
    service.start()
    yield service
    service.stop()


@pytest.fixture
def client(directory):
    page = make_page(web_bench.config(directory))
    with TestClient(page.application, base_url=ORIGIN, follow_redirects=False) as client:
        yield client


def text_of(answer, status=200) -> str:
    assert answer.status_code == status, answer.text
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", answer.text)).split())


@pytest.fixture
def operator(service, client):
    """Somebody who is logged in and may work."""
    log_in(client, "otto")
    return client


def token_in(answer) -> str:
    return re.search(r'name="token" value="([^"]+)"', answer.text)[1]


def log_in(client, name):
    fields = {"token": token_in(client.get("/login")), "name": name, "password": web_bench.PASSWORD}
    assert client.post("/login", data=fields).status_code == 303


def decode(client, fields, **headers):
    return client.post("/decode", data={"token": token_in(client.get("/decode")), **fields}, headers=headers)


def keep_history(directory, eui="020000000001"):
    async def run():
        store = Store(directory / "store.db", SystemClock())
        hour = int(time.time()) // 3600 * 3600 - 3600
        day = int(time.time()) // 86_400 * 86_400 - 86_400
        batch = HistoryBatch(
            nodes={eui: {"level": 0, "available": True, "since": hour, "parent": None, "quality": 6}},
            changes=[
                (eui, Change(hour - 60, "left", "silent <b>")),
                (eui, Change(hour, "joined", "came back")),
            ],
            hours=[NetworkHour(hour, 3.0, 4, 2, 4, 60.0)],
            days=[(eui, NodeDay(day, 1080.0, 3, 1440.0))],
        )
        await store.save_network_history(batch, 200, 45, 64)
        store.close()

    asyncio.run(run())


def test_without_the_service_the_network_is_what_the_store_kept(directory, client):
    keep_history(directory)
    text = text_of(client.get("/topology"))
    assert METERS[0] in text
    assert "As the store last knew it" in text
    node = text_of(client.get("/topology/020000000001"))
    assert "silent <b>" in node
    assert "75.0 %" in node
    assert "Reachability over 24 hours" in (overview := text_of(client.get("/")))
    assert "75 % in the last" in overview
    assert text_of(client.get("/topology/02ffffffffff"), 404)


def test_the_service_tells_the_network_of_now(service, client):
    service.nodes = web_bench.prime_tree(2, 3)
    text = text_of(client.get("/topology"))
    assert "8 known, 0 away" in text
    assert "As the store last knew it" not in text


def test_the_network_is_there_as_json_from_the_service_and_from_the_store(directory, client):
    kept = client.get("/api/topology").json()
    assert (kept["live"], kept["nodes"]) == (False, [])
    service = FakeService(directory / "control.sock")
    service.nodes = web_bench.prime_tree(1, 2)
    service.start()
    try:
        deadline = time.monotonic() + 20
        while not (told := client.get("/api/topology").json())["live"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        service.stop()
    assert [node["parent"] for node in told["nodes"]] == ["", "0200000a0000", "0200000a0000"]
    assert told["nodes"][1]["role"] == "terminal"


@pytest.mark.parametrize("query", ["levels=99", "levels=x", "below=nobody", "levels=1&below=%3Cscript"])
def test_what_makes_no_sense_in_the_address_is_left_out(service, client, query):
    service.nodes = web_bench.prime_tree(2, 3)
    assert "PRIME tree" in text_of(client.get(f"/topology?{query}"))


def test_pasted_hex_is_explained_and_keys_are_not_repeated(operator):
    key = "00112233445566778899aabbccddeeff"
    answer = decode(operator, {"text": "C0 01 C1 00 0F 00 00 28\n00 00 FF 02 00", "key": key})
    assert "get-request" in text_of(answer)
    assert key not in answer.text.lower()
    capture = f"# 2026-01-01T00:00:00Z host to modem\n{GET.hex()}\n# later\n{GET.hex()}\n"
    text = text_of(decode(operator, {"text": capture}))
    assert text.count("13 octets") == 2
    assert "later" in text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"text": "hello"}, "not hexadecimal"),
        ({"text": "00" * 40_000}, "more than 64 kB"),
        ({"text": "\n".join(["# a", GET.hex()] * 201)}, "more than 200 frames"),
        ({"text": GET.hex(), "key": "secret-key-text"}, "key: not 8, 16, 24 or 32 octets"),
    ],
)
def test_what_cannot_be_decoded_is_told_in_words(operator, fields, words):
    answer = decode(operator, fields)
    assert words in text_of(answer, 400)
    assert "secret-key-text" not in answer.text


def test_the_decoder_refuses_other_sites_foreign_forms_and_floods(operator):
    assert decode(operator, {"text": "00"}, **{"sec-fetch-site": "cross-site"}).status_code == 403
    assert operator.post("/decode", data={"text": "00"}).status_code == 403
    assert decode(operator, {"text": "0" * 300_000}).status_code == 413


WORKING_PAGES = ("/traffic", "/traffic/capture", "/decode", f"/meters/{METERS[0]}/dialogue")


def test_traffic_dialogues_and_decoder_are_for_operators(service, client):
    for path in WORKING_PAGES:
        assert client.get(path).headers["location"] == f"/login?next={path}"
    log_in(client, "vera")
    assert [client.get(path).status_code for path in WORKING_PAGES] == [403] * 4
    assert [client.get(f"/events/traffic{more}").status_code for more in ("", "/frames")] == [403, 403]
    overview = client.get("/").text
    assert 'href="/topology"' in overview
    assert 'href="/traffic"' not in overview
    fields = {"token": token_in(client.get("/")), "text": "00"}
    assert client.post("/decode", data=fields).status_code == 403
    client.cookies.clear()
    log_in(client, "otto")
    assert [client.get(path).status_code for path in WORKING_PAGES] == [200] * 4
    assert 'href="/traffic"' in client.get("/").text


def test_a_dialogue_is_shown_or_said_not_to_be_there(operator):
    assert "No dialogue with this meter is kept" in text_of(operator.get(f"/meters/{METERS[0]}/dialogue"))
    assert operator.get("/meters/nobody/dialogue").status_code == 404


def test_the_hours_of_today_show_the_missing_hour(service, client):
    text = text_of(client.get("/?by=hour"))
    assert "Completeness by hour" in text
    if datetime.now(UTC).astimezone().hour:
        assert METERS[2] in text


def test_alarms_of_the_last_day_lead_to_their_meters(directory, client):
    async def run():
        store = Store(directory / "store.db", SystemClock())
        log = Obis(0, 0, 99, 98, 1)
        for hours, severity, detail in (
            (1, EventSeverity.ALARM, "cover opened <b>"),
            (2, EventSeverity.INFO, "clock adjusted"),
            (30, EventSeverity.ALARM, "yesterday's magnet"),
        ):
            happened = web_bench.now() - timedelta(hours=hours)
            event = MeterEvent(log, happened, 44 + hours, severity=severity, kind="tamper", detail=detail)
            await store.store_meter_events(METERS[0], log, [event])
        store.close()

    asyncio.run(run())
    answer = client.get("/")
    text = text_of(answer)
    assert "cover opened <b>" in text
    assert "clock adjusted" not in text
    assert "yesterday's magnet" not in text
    alarms = answer.text[answer.text.index("alarms-title") :]
    assert f'href="/meters/{METERS[0]}"' in alarms


def test_the_machine_is_read_where_it_tells(tmp_path):
    zone = tmp_path / "class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "temp").write_text("48312\n")
    number = tmp_path.stat().st_dev
    disk = tmp_path / "devices/mmcblk0"
    (disk / "mmcblk0p2").mkdir(parents=True)
    (disk / "mmcblk0p2/partition").write_text("2\n")
    (disk / "stat").write_text("1 2 3 4 5 6 2048 8 9 10 11\n")
    (disk / "device").mkdir()
    (disk / "device/life_time").write_text("0x01 0x03\n")
    (tmp_path / "dev/block").mkdir(parents=True)
    (tmp_path / f"dev/block/{number >> 8 & 0xFFF}:{number & 0xFF}").symlink_to(disk / "mmcblk0p2")
    seen = machine.look(tmp_path, tmp_path)
    assert (seen.temperature_c, seen.written_octets, seen.flash_used_percent) == (48.312, 2048 * 512, 30)
    assert machine.look(tmp_path, tmp_path / "nothing") == machine.Machine(None, None, None)
