"""Files to a real SFTP server, an HTTP server and a folder: whole, once, and held back while nobody takes them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import csv
import gzip
import io
import json
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

import pytest
from test_mqtt_tls import make_authority, make_certificate

from concentrator.clock import SystemClock
from concentrator.config import ConfigError, parse_config
from concentrator.config_sections import FilesSection
from concentrator.model import Answer, Channel, MeterRecord, Quality, Reading
from concentrator.obis import Obis
from concentrator.store.store import Store
from concentrator.uplink.files import FileUplink
from concentrator.uplink.messages import Topics
from concentrator.uplink.uplink import CONNECTED

from bench import LOOPBACK, until
from cim_schemas import check_json, check_xml
from file_servers import HttpReceiver, SshServer

pytestmark = pytest.mark.system

TOPICS = Topics("lab", "dcu-1")
ENERGY = Channel(Obis(1, 0, 1, 8, 0), 30, 0, period_s=900)
PROFILE = Obis(1, 0, 99, 1, 0)
START = datetime(2026, 11, 20, tzinfo=UTC)
M = "{http://iec.ch/TC57/2011/MeterReadings#}"


@pytest.fixture
async def store(tmp_path):
    store = Store(tmp_path / "store.db", SystemClock())
    for number in range(3):
        await store.save_meter(MeterRecord(f"M{number}"))
    yield store
    store.close()


async def measure(store, first: int, count: int) -> dict[tuple[str, int], int]:
    """Each of three meters delivers so many intervals; gives the truth."""
    truth: dict[tuple[str, int], int] = {}
    for number in range(3):
        readings = tuple(
            Reading(ENERGY, START + place * timedelta(minutes=15), 1000 * number + place, 0, Quality.VALID)
            for place in range(first, first + count)
        )
        await store.store_answer(Answer(f"M{number}", PROFILE, readings, datetime.now(UTC)))
        truth |= {(f"M{number}", round(one.captured_at.timestamp())): one.value for one in readings}
    return truth


@contextlib.asynccontextmanager
async def running(store, **settings):
    uplink = FileUplink(FilesSection(**{"every_s": 1, **settings}), TOPICS, store, SystemClock())
    task = asyncio.create_task(uplink.run())
    try:
        yield uplink
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def stored_in_csv(contents) -> dict[tuple[str, int], int]:
    values: dict[tuple[str, int], int] = {}
    for content in contents:
        for row in csv.DictReader(io.StringIO(content.decode(), newline="")):
            at = round(datetime.fromisoformat(row["time"]).timestamp())
            assert values.setdefault((row["meter"], at), int(row["value"])) == int(row["value"])
    return values


async def pending(store) -> int:
    states = await store.destination_states()
    return states[0].pending_batches if states else -1


async def until_all_acknowledged(store):
    async def none_left():
        return await pending(store) == 0

    await until(none_left, 30, "everything is acknowledged")


async def test_sftp_to_openssh(store, tmp_path):
    server = SshServer(tmp_path)
    await server.start()
    truth = await measure(store, 0, 4)
    options = {
        "url": f"sftp://{LOOPBACK}:{server.port}{server.folder}",
        "username": server.user,
        "private_key_file": str(server.client_key),
        "known_hosts_file": str(server.known_hosts),
    }
    try:
        async with running(store, **options) as uplink:
            await until_all_acknowledged(store)
            # The server goes away; what comes meanwhile waits in the store.
            server.kill()
            truth |= await measure(store, 4, 3)
            await until(lambda: uplink.state != CONNECTED, 30, "the loss is seen")
            assert await pending(store) == 3
            await server.start()
            await until_all_acknowledged(store)
        names = sorted(one.name for one in server.folder.iterdir())
        assert not [name for name in names if name.startswith(".")]
        assert all(name.startswith("dcu-1_readings_0000") and name.endswith(".csv") for name in names)
        assert stored_in_csv(one.read_bytes() for one in server.folder.iterdir()) == truth
        # A server with another key is not talked to, and neither is our name given to it.
        other = tmp_path / "other_hosts"
        other.write_text(server.known_hosts.read_text().replace("AAAAI", "AAAAI")[:-20] + "A" * 18 + "==\n")
        async with running(store, **{**options, "known_hosts_file": str(other)}, name="second") as uplink:
            await until(lambda: uplink.reason, 30, "the stranger is refused")
            assert "host key" in uplink.reason.lower() or "trusted" in uplink.reason.lower()
    finally:
        server.kill()


@pytest.mark.parametrize("form", ["csv", "jsonl", "cim-xml", "cim-json"])
async def test_http_in_every_format(store, form, tmp_path):
    server = HttpReceiver()
    await server.start()
    password = tmp_path / "password"
    password.write_text("s3cret-canary\n")
    truth = await measure(store, 0, 3)
    options = {
        "url": f"http://{LOOPBACK}:{server.port}/in/",
        "format": form,
        "compress": True,
        "username": "dcu",
        "password_file": str(password),
    }
    try:
        # The server has no room at first: nothing is acknowledged, and the reason is told.
        server.status = 507
        async with running(store, **options) as uplink:
            await until(lambda: "507" in uplink.reason, 30, "the refusal is told")
            assert "s3cret" not in uplink.reason
            assert await pending(store) == 3
            server.status = 201
            await until_all_acknowledged(store)
    finally:
        await server.stop()
    assert set(server.authorizations) == {"Basic " + base64.b64encode(b"dcu:s3cret-canary").decode()}
    contents = [gzip.decompress(one) for one in server.files.values()]
    found: dict[tuple[str, int], int] = {}
    for content in contents:
        if form == "csv":
            found |= stored_in_csv([content])
        elif form == "jsonl":
            for line in content.splitlines():
                message = json.loads(line)
                meter = message["topic"].split("/")[5]
                for one in message["values"]:
                    found[(meter, round(datetime.fromisoformat(one["t"]).timestamp()))] = one["v"]
        elif form == "cim-xml":
            check_xml(content)
            for reading in ET.fromstring(content).iter(f"{M}MeterReading"):
                meter = reading.find(f"{M}Meter/{M}mRID").text
                for one in reading.iter(f"{M}IntervalReadings"):
                    at = datetime.fromisoformat(one.find(f"{M}timeStamp").text)
                    found[(meter, round(at.timestamp()))] = int(one.find(f"{M}value").text)
        else:
            check_json(content)
            payload = json.loads(content)["EventMessage"]["Payload"]["MeterReadings"]
            for reading in payload["MeterReading"]:
                for one in reading["IntervalBlocks"][0]["IntervalReadings"]:
                    at = datetime.fromisoformat(one["timeStamp"])
                    found[(reading["Meter"]["mRID"], round(at.timestamp()))] = int(one["value"])
    assert found == truth


async def test_https_with_certificates_on_both_sides(store, tmp_path):
    make_authority(tmp_path, "authority")
    make_authority(tmp_path, "stranger")
    make_certificate(tmp_path, "authority", "server", "DNS:localhost")
    make_certificate(tmp_path, "authority", "client", "DNS:client")
    server = HttpReceiver()
    await server.start(
        ssl_certfile=str(tmp_path / "server.pem"),
        ssl_keyfile=str(tmp_path / "server.key"),
        ssl_ca_certs=str(tmp_path / "authority.pem"),
        ssl_cert_reqs=2,
    )
    truth = await measure(store, 0, 2)
    options = {
        "url": f"https://localhost:{server.port}/in/",
        "method": "POST",
        "ca_file": str(tmp_path / "authority.pem"),
        "certificate_file": str(tmp_path / "client.pem"),
        "private_key_file": str(tmp_path / "client.key"),
    }
    try:
        for wrong in (
            {"ca_file": str(tmp_path / "stranger.pem")},
            {"certificate_file": "", "private_key_file": ""},
        ):
            async with running(store, **{**options, **wrong}, name="wrong") as uplink:
                await until(lambda uplink=uplink: uplink.reason, 30, "the wrong certificate is refused")
        assert server.seen == 0
        async with running(store, **options, name="right"):

            async def delivered():
                states = {one.name: one for one in await store.destination_states()}
                return "right" in states and states["right"].pending_batches == 0

            await until(delivered, 30, "delivered")
    finally:
        await server.stop()
    assert stored_in_csv(server.files.values()) == truth


async def test_a_folder_is_filled_only_as_far_as_it_is_emptied(store, tmp_path):
    folder = tmp_path / "to be fetched"
    truth = await measure(store, 0, 4)
    fetched: list[bytes] = []
    options = {"url": f"file://{str(folder).replace(' ', '%20')}", "most_files": 2, "most_values": 1}
    async with running(store, **options) as uplink:
        await until(lambda: "2 files wait there" in uplink.reason, 30, "the folder is full")
        assert await pending(store) >= 1

        def fetch():
            """What a head-end does: read and delete."""
            for one in sorted(folder.glob("dcu-1_*")):
                fetched.append(one.read_bytes())
                one.unlink()

        async def emptied():
            fetch()
            return await pending(store) == 0

        await until(emptied, 30, "all fetched")
        fetch()
    assert stored_in_csv(fetched) == truth


async def test_the_product_delivers_files(bench):
    folder = bench.directory / "files"
    bench.start_substation()
    bench.write_config(push=None, files={"url": f"file://{folder}", "format": "cim-json", "every_s": 1})
    await bench.start_product()
    truth = bench.truth()

    def delivered():
        found: dict[tuple[str, str, int], int] = {}
        for one in folder.glob("*_readings_*.json"):
            payload = json.loads(one.read_bytes())["EventMessage"]["Payload"]["MeterReadings"]
            for reading in payload["MeterReading"]:
                for block in reading.get("IntervalBlocks", ()):
                    if block["ReadingType"]["ref"] != "0.0.2.1.1.1.12.0.0.0.0.0.0.0.0.0.72.0":
                        continue
                    for value in block["IntervalReadings"]:
                        at = round(datetime.fromisoformat(value["timeStamp"]).timestamp())
                        found[(reading["Meter"]["mRID"], "1-0:1.8.0*255", at)] = int(value["value"])
        return found

    await until(
        lambda: {key for key in truth if key[1] == "1-0:1.8.0*255"} <= delivered().keys(), 90, "all in files"
    )
    found = delivered()
    assert all(found[key] == value for key, value in truth.items() if key[1] == "1-0:1.8.0*255")
    for one in folder.iterdir():
        check_json(one.read_bytes())
    status = await bench.until_status(lambda s: any(d["name"] == "files" for d in s["destinations"]))
    (files,) = (one for one in status["destinations"] if one["name"] == "files")
    assert files["kind"] == "files"


def test_urls_with_secrets_are_refused_and_not_shown():
    with pytest.raises(ConfigError, match="which is not shown") as error:
        parse_config('[[files]]\nurl = "https://dcu:canary@headend.example/"\n')
    assert "canary" not in str(error.value)
    with pytest.raises(ConfigError, match="known_hosts_file"):
        parse_config('[[files]]\nurl = "sftp://headend.example/in"\n')
