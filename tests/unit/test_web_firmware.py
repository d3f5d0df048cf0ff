"""The page about firmware: slots, jobs and campaigns as they are, and who may order what."""

from __future__ import annotations

import re

import firmware_rig
import pytest
from starlette.testclient import TestClient

from concentrator.clock import SystemClock
from concentrator.store.firmware import CampaignRow, FirmwareMeterRow
from concentrator.store.readings import to_epoch
from concentrator.store.store import Store
from concentrator.web.application import make_page
from concentrator.web.firmware_pages import start_arguments
from concentrator.web.firmware_views import METER_STAGES

import web_bench
from web_bench import METERS, PASSWORD, FakeService

ORIGIN = "http://127.0.0.1:8080"


@pytest.fixture
def service(tmp_path):
    web_bench.fill_store(tmp_path)
    service = FakeService(tmp_path / "control.sock")
    service.start()
    yield service
    service.stop()


def client_of(service, allow_page="firmware_start, firmware_resume"):
    page = make_page(web_bench.config(service.socket.parent, allow_page=allow_page))
    return TestClient(page.application, base_url=ORIGIN, follow_redirects=False)


def token_in(answer):
    return re.search(r'name="token" value="([^"]+)"', answer.text)[1]


def log_in(client, name):
    client.cookies.clear()
    fields = {"token": token_in(client.get("/login")), "name": name, "password": PASSWORD}
    client.post("/login", data=fields)
    return token_in(client.get("/support")) if name != "vera" else token_in(client.get("/firmware"))


def test_what_runs_what_is_installed_and_how_far_each_meter_is(service):
    with client_of(service) as client:
        page = client.get("/firmware").text
        for words in (
            "rootfs.0",
            "boots next",
            "box-2026.11.raucb",
            "Copying image",
            "spring",
            "900 of 2",
        ):
            assert words in page, words
        assert "<img" not in page
        assert page.index(METERS[0]) < page.index(METERS[1]), "what is under way comes first"
        told = client.get("/api/firmware").json()
        assert [one["state"] for one in told["campaigns"][0]["meters"]] == [
            "transferring",
            "failed",
            "waiting",
        ]
        assert told["rauc"]["slots"][1]["boot_status"] == "bad"
        assert told["images"][0]["to_version"] == "2.0"
        assert "upgrade_reason" not in told


def test_a_large_campaign_stays_readable(service):
    meters = [web_bench.firmware_meter(f"M{number:04}", "done", 2344) for number in range(2000)]
    meters[1500] = web_bench.firmware_meter("M1500", "failed", reason="no answer")
    service.firmware["campaigns"] = [web_bench.campaign(meters)]
    with client_of(service) as client:
        answer = client.get("/firmware")
        assert len(answer.content) < 300_000
        assert answer.text.index("M1500") < answer.text.index("M0000")
        assert re.search(r"1.800 more meters are in the JSON", answer.text)
        assert len(client.get("/api/firmware").json()["campaigns"][0]["meters"]) == 2000


def test_without_rauc_and_without_the_service_it_says_so(service):
    service.firmware.update(
        job=None,
        rauc={**service.firmware["rauc"], "reason": "the D-Bus bus cannot be reached: none", "slots": []},
    )
    with client_of(service) as client:
        page = client.get("/firmware").text
        assert "RAUC cannot be asked: the D-Bus bus cannot be reached" in page
        assert "None is recorded" in page


async def test_without_the_service_campaigns_are_shown_from_the_store(service):
    directory, now = service.socket.parent, to_epoch(web_bench.now())
    service.stop()
    store = Store(directory / "store.db", SystemClock())
    plan = web_bench.campaign([])
    about = firmware_rig.manifest_of(b"ODC")
    definition = (
        '{"image": "meter-2.0.json", "meters": "all", "started_by": "somebody", "manifest":'
        f' {{"manufacturer": "ODC", "model": "simulated", "to_version": "{about.to_version}"}}}}'
    )
    await store.firmware.begin(
        CampaignRow(plan["name"], definition, "paused", "by somebody", now, now),
        [
            FirmwareMeterRow(
                "spring", METERS[0], "transferring", 12, 40, 128, 1, 0, 0, now, "1.0", "no answer"
            )
        ],
    )
    store.close()
    with client_of(service) as client:
        page = client.get("/firmware").text
        assert "As the store last knew them" in page
        assert "12 of 40" in page
        assert client.get("/api/firmware").json()["campaigns"][0]["counts"]["transferring"] == 1


@pytest.mark.parametrize(
    "operation", ["firmware_start", "firmware_pause", "firmware_resume", "firmware_abort"]
)
def test_only_an_administrator_may_and_only_by_our_own_form(service, operation):
    fields = {"op": operation, "name": "spring", "image": "meter-2.0.json", "confirm": "spring"}
    with client_of(service) as client:
        for name in ("vera", "otto"):
            token = log_in(client, name)
            answer = client.post("/firmware/orders", data={**fields, "token": token})
            assert answer.status_code == 403
        assert service.orders == []
        token = log_in(client, "ada")
        assert client.post("/firmware/orders", data={**fields, "token": "guessed"}).status_code == 403
        answer = client.post("/firmware/orders", data={**fields, "token": token})
        assert (answer.status_code, answer.headers["location"]) == (303, "/firmware#orders")
        client.get("/firmware")
    assert [order.operation for order in service.orders] == [operation]
    assert service.orders[0].given_by.startswith("ada (admin)")


def test_forms_are_shown_to_whom_they_help(service):
    with client_of(service) as client:
        log_in(client, "vera")
        assert "/firmware/orders" not in client.get("/firmware").text
        log_in(client, "ada")
        page = client.get("/firmware").text
        assert "Start campaign" in page
        assert 'value="meter-2.0.json"' in page
        assert 'value="other.json"' not in page, "not signed"
    with client_of(service, allow_page="") as client:
        log_in(client, "ada")
        page = client.get("/firmware").text
        assert "Start campaign" not in page
        assert 'value="firmware_pause"' in page
        token = token_in(client.get("/firmware"))
        answer = client.post("/firmware/orders", data={"op": "firmware_start", "name": "s", "token": token})
        assert answer.status_code == 403
        assert "allow_page" in answer.text


def test_to_abort_the_name_is_typed_in(service):
    with client_of(service) as client:
        token = log_in(client, "ada")
        fields = {"op": "firmware_abort", "name": "spring", "token": token}
        assert client.post("/firmware/orders", data={**fields, "confirm": "summer"}).status_code == 400
        assert client.post("/firmware/orders", data={**fields, "op": "format"}).status_code == 400
    assert service.orders == []


def test_the_form_gives_what_the_order_takes():
    given = start_arguments(
        {
            "name": " s ",
            "image": "i.json",
            "at_once": "4",
            "first": "x",
            "not_after": "2026-12-01T02:00",
            "hours": "",
        }
    )
    moment = given.pop("not_after")
    assert given == {"name": "s", "image": "i.json", "at_once": 4, "first": "x"}
    assert re.fullmatch(r"2026-12-01T02:00:00[+-]\d\d:\d\d", moment)
    assert start_arguments({"not_before": "soon"}) == {"not_before": "soon"}


def test_every_state_has_words():
    from concentrator.collection.firmware.campaign import Stage

    assert set(METER_STAGES) == {stage.value for stage in Stage}
