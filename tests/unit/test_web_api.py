"""The JSON interface: described as it answers, whole for head-ends that fetch, and never broken by what is asked."""

from __future__ import annotations

import asyncio
import csv
import json
import re
from datetime import UTC, datetime, timedelta

import httpx
import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from prometheus_client.parser import text_string_to_metric_families
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient

from concentrator.clock import SystemClock
from concentrator.web import export
from concentrator.web.application import make_page
from concentrator.web.live import ServiceWatch

import web_bench
from cim_schemas import check_json, check_xml
from web_bench import HOSTILE, METERS, WATER, FakeService

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)
NODE = "020000000001"
ADDRESSES = {
    "/api/meters/{identity}": f"/api/meters/{METERS[0]}",
    "/api/meters/{identity}/dialogue": f"/api/meters/{METERS[0]}/dialogue",
    "/api/topology/{identity}": f"/api/topology/{NODE}",
    "/api/orders/{order}": "/api/orders/o-1",
    "/api/meters/{identity}/profile": f"/api/meters/{METERS[1]}/profile?days=3",
    "/api/meters/{identity}/profile.csv": f"/api/meters/{METERS[1]}/profile.csv",
    "/api/export": "/api/export?format=jsonl",
}
ORDER = {"id": "o-1", "op": "ping", "target": METERS[0], "origin": "the page", "state": "done", "result": {}}
BODIES = {
    "/api/orders": {"op": "ping", "target": METERS[0]},
    "/api/decode": {"text": "7EA0210002002303939A74818012050180060180070400000001080400000001533B7E"},
    "/api/configuration": {"do": "check", "text": "[concentrator]\n"},
    "/api/keys": {"list": "meter,encryption_key\nODC0000000001,000102030405060708090A0B0C0D0E0F\n"},
}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    directory = tmp_path_factory.mktemp("api")
    web_bench.fill_store(directory, hostile=HOSTILE)
    service = FakeService(directory / "control.sock")
    at = web_bench.now().isoformat()
    service.listed = [{**ORDER, "given_at": at, "changed_at": at}]
    service.nodes = [web_bench.node(NODE)]
    apdu = {"at": at, "direction": "to the meter", "client_sap": 1, "octets": "c001c1", "doing": "reading"}
    service.dialogues[METERS[0]] = {
        "meter": METERS[0], "known": True, "began_at": at, "ended_at": None, "outcome": "", "left_out": 0,
        "left_out_after": 1, "apdus": [apdu],
    }  # fmt: skip
    service.start()
    yield service
    service.stop()


@pytest.fixture(scope="module")
def as_admin(service, client):
    client.get("/health")
    return {"Authorization": f"Bearer {service.tokens.add('ada', 'the test')}"}


def page_of(service):
    config = web_bench.config(service.socket.parent)
    watch = ServiceWatch(config.control_socket, SystemClock(), answer_timeout_s=30)
    return make_page(config, watch=watch).application


@pytest.fixture(scope="module")
def application(service):
    return page_of(service)


@pytest.fixture(scope="module")
def client(application):
    with TestClient(application, base_url="http://127.0.0.1:8080") as client:
        yield client


@pytest.fixture(scope="module")
def described(client):
    return client.get("/api/openapi.json").json()


def routes(application):
    found = application._app.routes
    return {route.path for route in found if getattr(route, "path", "").startswith(("/api", "/health"))}


def test_every_json_address_is_described_and_no_other(application, described):
    assert set(described["paths"]) == routes(application)
    assert described["openapi"].startswith("3.1")


def check_answer(answer, operation, path):
    success = next(status for status in operation["responses"] if status < "300")
    assert str(answer.status_code) == success, (path, answer.text)
    content = operation["responses"][success]["content"]
    assert answer.headers["content-type"].partition(";")[0] in {one.partition(";")[0] for one in content}
    if answer.headers["content-type"] == "application/json":
        schema = content["application/json"]["schema"]
        jsonschema.Draft202012Validator(
            schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
        ).validate(answer.json())


def test_answers_are_as_described(client, described, as_admin):
    checked = 0
    for path, item in described["paths"].items():
        for method, operation in item.items():
            more = {"json": BODIES[path]} if method == "post" else {}
            answer = client.request(method, ADDRESSES.get(path, path), headers=as_admin, **more)
            check_answer(answer, operation, path)
            checked += 1
    assert checked == sum(map(len, described["paths"].values())) > 25


def test_errors_are_as_described(tmp_path, described):
    """Without a service and without a store: each address says so in the described form."""
    config = web_bench.config(tmp_path)
    with TestClient(make_page(config).application, base_url="http://127.0.0.1:8080") as client:
        for path, item in described["paths"].items():
            for method, operation in item.items():
                answer = client.request(method, ADDRESSES.get(path, path))
                assert str(answer.status_code) in operation["responses"], (path, answer.text)
                if answer.status_code >= 400 and path != "/health":
                    assert answer.json()["error"], path
                if {"token": []} in operation["security"] and method == "post":
                    assert answer.status_code == 401, path


@pytest.mark.parametrize("known", [False, True], ids=["anybody", "admin"])
def test_no_question_breaks_the_interface(service, as_admin, known):
    # One of its own: the tool ends the application behind it.
    application = page_of(service)
    headers = {"Host": "127.0.0.1:8080", **(as_admin if known else {})}
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", application, headers=headers)
    answered = []
    for result in schema.get_all_operations():
        operation = result.ok()

        # Who is nobody gets no further than the first line of most addresses.
        @settings(
            max_examples=25 if known else 15,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def ask(case):
            answer = case.call(headers=headers)
            case.validate_response(answer, checks=CHECKS)
            answered.append(answer.status_code)

        ask()
    assert len(answered) > 200
    assert ({200, 202, 400, 404} if known else {200, 400, 401, 404}) <= set(answered)


def test_metrics_are_what_prometheus_reads(client):
    families = {family.name: family for family in text_string_to_metric_families(client.get("/metrics").text)}
    states = {one.labels["state"]: one.value for one in families["concentrator_meters"].samples}
    assert states["active"] == 3
    for name in (
        "outbox_readings",
        "outbox_batches",
        "outbox_oldest_seconds",
        "destination_connected",
        "modem_counter",
        "store_bytes",
        "disk_free_bytes",
        "start_time_seconds",
        "page_resident_memory_bytes",
        "page_cpu_seconds",
    ):
        assert families[f"concentrator_{name}"].samples, name
        assert families[f"concentrator_{name}"].documentation


# Export


def exported(client, **parameters):
    answer = client.get("/api/export", params=parameters)
    assert answer.status_code == 200, answer.text
    return answer


def test_an_export_has_every_reading_of_its_time_once(client):
    rows = [
        json.loads(line) for line in exported(client, format="jsonl", **{"from": "2020-01-01"}).iter_lines()
    ]
    assert set(rows[0]) == set(export.COLUMNS)
    keys = [(row["meter"], row["profile"], row["obis"], row["captured_at"]) for row in rows]
    assert len(keys) == len(set(keys)) == 2 * (201 + 201 - 5) + 1
    assert {row["meter"] for row in rows} == {METERS[0], METERS[1], WATER}


def test_an_export_as_csv_says_the_same(client):
    begin = (datetime.now(UTC) - timedelta(hours=6)).isoformat()
    asked = {"from": begin, "meter": METERS[0]}
    table = list(csv.DictReader(exported(client, **asked).text.splitlines()))
    lines = [json.loads(line) for line in exported(client, format="jsonl", **asked).text.splitlines()]
    assert table
    assert table == [{name: "" if one is None else str(one) for name, one in row.items()} for row in lines]
    assert {row["meter"] for row in table} == {METERS[0]}


def test_an_export_as_cim_says_the_same(client, monkeypatch):
    asked = {"from": "2020-01-01"}
    lines = [json.loads(line) for line in exported(client, format="jsonl", **asked).text.splitlines()]
    monkeypatch.setattr(export, "_ROWS", 50)
    for form, check in (("cim-xml", check_xml), ("cim-json", check_json)):
        check(exported(client, format=form, **asked).content)
        check(exported(client, format=form, **{"from": "2020-01-01", "to": "2020-01-02"}).content)
    payload = exported(client, format="cim-json", **asked).json()["EventMessage"]["Payload"]["MeterReadings"]
    told = sum(
        len(reading.get("Readings", ()))
        + sum(len(one["IntervalReadings"]) for one in reading.get("IntervalBlocks", ()))
        for reading in payload["MeterReading"]
    )
    assert told == len(lines)


def test_an_export_goes_in_pieces(client, monkeypatch):
    whole = exported(client, **{"from": "2020-01-01"}).text
    monkeypatch.setattr(export, "_ROWS", 7)
    assert exported(client, **{"from": "2020-01-01"}).text == whole


async def test_no_more_exports_run_at_once_than_allowed(service):
    transport = httpx.ASGITransport(page_of(service))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:

        async def asked():
            return (await client.get("/api/export", params={"from": "2020-01-01"})).status_code

        assert sorted(await asyncio.gather(*(asked() for _ in range(6)))) == [200, 200, 503, 503, 503, 503]
        assert await asyncio.gather(asked(), asked()) == [200, 200], "those that are over do not count"


@pytest.mark.parametrize(
    "wrong",
    [
        {"format": "xml"},
        {"from": "yesterday"},
        {"to": "0001-01-01"},
        {"from": "2026-01-02", "to": "2026-01-01"},
        {"meter": "../../etc"},
    ],
)
def test_an_export_that_makes_no_sense_is_told_what_is_allowed(client, wrong):
    answer = client.get("/api/export", params=wrong)
    assert answer.status_code == 400
    assert "allowed" in answer.json()["error"]


# The pages beside it


def test_the_log_shows_outages_and_events_of_meters_and_filters_them(client, service):
    page = client.get("/log").text
    assert METERS[2] in page
    assert "power down" in page
    assert ("interruptions", {"days": 7}) in service.questions
    assert len(client.get("/api/meter-events", params={"meter": METERS[0]}).json()["events"]) == 2
    assert client.get("/api/meter-events", params={"meter": METERS[1]}).json()["events"] == []
    assert client.get("/api/meter-events", params={"severity": "info"}).json()["events"] == []
    assert client.get("/api/meter-events", params={"days": "1"}).json()["events"] == []


def test_the_balance_shows_losses_and_whom_to_look_at(client):
    page = client.get("/balance").text
    assert "20.25 kWh" in page
    assert "20,25 kWh" in client.get("/balance", headers={"Accept-Language": "de"}).text
    assert METERS[1] in page
    assert "<img" not in page


def test_firmware_counts_meters_and_shows_an_upgrade(client):
    page = client.get("/firmware").text
    assert "node-2.bin" in page
    assert "receiving" in page
    counts = client.get("/api/firmware").json()["meters"]
    assert sum(one["meters"] for one in counts) == 3


def test_many_pages_ask_the_service_once(client, service):
    client.get("/balance?day=2026-01-05")
    asked = len(service.questions)
    for _ in range(3):
        client.get("/balance?day=2026-01-05")
        client.get("/api/balance?day=2026-01-05")
    assert len(service.questions) == asked


def token_in(answer):
    return re.search(r'name="token" value="([^"]+)"', answer.text)[1]


def test_the_support_bundle_is_given_to_whoever_may_and_to_our_own_form_only(client, service):
    assert client.post("/support/bundle", data={"token": "guessed"}).status_code == 403
    login = {"token": token_in(client.get("/login")), "name": "otto", "password": web_bench.PASSWORD}
    client.post("/login", data=login)
    token = token_in(client.get("/support"))
    assert client.post("/support/bundle", data={"token": "guessed"}).status_code == 403
    answer = client.post("/support/bundle", data={"token": token})
    assert answer.content == b"a bundle"
    assert "box-7-support.tar.gz" in answer.headers["content-disposition"]
    assert client.get("/support/bundle").status_code == 405
    client.cookies.clear()
