"""The page in a real browser: alive, usable without script, accessible, and harmless whatever a meter is called."""

from __future__ import annotations

import re
import signal
import time

import httpx
import pytest

import web_bench
from page_process import OUTPUT, ROOT, PageProcess
from web_bench import HOSTILE, METERS, WATER

pytestmark = pytest.mark.browser

PATHS = {
    "overview": "/",
    "meters": "/meters",
    "meter": f"/meters/{METERS[1]}",
    "water": f"/meters/{WATER}",
    "events": "/log",
    "balance": "/balance",
    "firmware": "/firmware",
    "support": "/support",
    "wall": "/?view=wall",
}
SIZES = {"desktop": {"width": 1400, "height": 900}, "phone": {"width": 390, "height": 844}}
WALLS = {"wall": {"width": 1920, "height": 1080}, "large-wall": {"width": 3840, "height": 2160}}
AXE = ROOT / ".node/node_modules/axe-core/axe.min.js"


def prepare(page_process, service):
    web_bench.fill_store(page_process.directory)
    service.status["meters"] = [
        web_bench.plc_meter(METERS[0], stored=192, expected=192, link_address="020000000001"),
        web_bench.plc_meter(METERS[1], parent="020000000001", level=2, activity="reading 2026-11-20"),
        web_bench.plc_meter(
            METERS[2], state="unreachable", reason="no answer within 30 s", reachable=False, keys="missing"
        ),
        web_bench.plc_meter(
            WATER,
            link="wmbus",
            medium="water",
            signal=-72.0,
            expected=0,
            stored=0,
            reachable=None,
            level=None,
        ),
    ]
    service.start()
    page_process.start()
    return page_process


@pytest.fixture
def page(page_process, service):
    return prepare(page_process, service)


@pytest.fixture(scope="module")
def standing_page(tmp_path_factory):
    """One page for the tests that only look."""
    directory = tmp_path_factory.mktemp("standing")
    page, service = PageProcess(directory), web_bench.FakeService(directory / "control.sock")
    yield prepare(page, service)
    page.stop()
    service.stop()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PATHS)
def test_every_page_is_accessible_and_fits(standing_page, tab, name, size):
    # axe-core is brought in by the test, past the page's own policy; nothing else loosens it.
    opened = tab(standing_page.address + PATHS[name], viewport=SIZES[size], bypass_csp=True)
    opened.locator("#stream[data-kind=live]").wait_for()
    opened.add_script_tag(content=AXE.read_text())
    OUTPUT.mkdir(parents=True, exist_ok=True)
    for scheme in ("light", "dark"):
        opened.emulate_media(color_scheme=scheme)
        opened.screenshot(path=OUTPUT / f"{name}-{size}-{scheme}.png", full_page=True)
        assert opened.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        grave = [
            (one["id"], one["nodes"][0]["html"], one["nodes"][0]["failureSummary"])
            for one in opened.evaluate("axe.run()")["violations"]
            if one["impact"] in ("serious", "critical")
        ]
        assert grave == []


def test_a_change_of_the_service_is_seen_without_loading_again(page, service, tab):
    overview, listed, detail = (tab(page.address + PATHS[name]) for name in ("overview", "meters", "meter"))
    for opened in (overview, listed, detail):
        opened.locator("#stream[data-kind=live]").wait_for()
        opened.evaluate("window.notLoadedAgain = true")
    service.status["meters"][1] |= {"stored": 187, "state": "refused", "reason": "association rejected"}
    service.status["modem"] |= {"state": "port lost", "reason": "modem /dev/ttyAMA0: gone"}
    overview.get_by_text("The modem's port was lost.").wait_for()
    listed.locator(f'[data-part="meter-{METERS[1]}"]').get_by_text("187/200").wait_for()
    detail.get_by_text("association rejected").first.wait_for()
    assert all(opened.evaluate("window.notLoadedAgain") for opened in (overview, listed, detail))
    # A meter that joins is a new row: the page's main part is fetched anew, the page itself stays.
    service.status["meters"].append(web_bench.plc_meter("ODC0000000099"))
    listed.locator('[data-part="meter-ODC0000000099"]').wait_for()
    assert listed.evaluate("window.notLoadedAgain")


def test_a_meter_s_blocks_are_seen_arriving(page, service, tab):
    opened = tab(page.address + "/firmware")
    opened.locator("#stream[data-kind=live]").wait_for()
    opened.evaluate("window.notLoadedAgain = true")
    service.firmware["campaigns"][0]["meters"][0]["blocks_done"] = 2344
    service.firmware["job"] |= {"progress": 77}
    opened.locator('[data-part="campaigns"] tr', has_text=METERS[0]).locator("progress.full").wait_for()
    opened.locator('[data-part="own_firmware"] progress[value="77"]').wait_for()
    assert opened.evaluate("window.notLoadedAgain")


def test_a_chosen_language_is_spoken_live_and_without_loading(page, service, tab):
    opened = tab(page.address)
    opened.get_by_role("link", name="Español").click()
    opened.get_by_text("En directo").wait_for()
    assert opened.locator("html").get_attribute("lang") == "es"
    service.status["modem"] |= {"state": "port lost", "reason": "unplugged"}
    opened.get_by_text("Se perdió el puerto del módem.").wait_for()
    assert opened.locator("time[data-age]").first.text_content().startswith("hace ")


def test_the_search_finds_while_one_types_and_keeps_the_place(standing_page, tab):
    opened = tab(standing_page.address + "/meters")
    opened.locator("#q").press_sequentially("0003", delay=20)
    opened.locator(f'[data-part="meter-{METERS[0]}"]').wait_for(state="detached")
    assert opened.locator("table.meters tbody tr").count() == 1
    assert opened.evaluate("document.activeElement.id") == "q"
    assert opened.locator("#q").input_value() == "0003"
    assert opened.url.endswith("?q=0003")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "name",
    ["login", "password", "orders", "configuration", "keys", "users", "backup", "audit", "meter", "firmware"],
)
def test_pages_behind_the_login_are_accessible_and_fit(standing_page, tab, name, size):
    path = PATHS.get(name, f"/{name}")
    opened = tab(standing_page.address + "/login", viewport=SIZES[size], bypass_csp=True)
    if name != "login":
        log_in(opened, "ada")
        opened.goto(standing_page.address + path)
    opened.add_script_tag(content=AXE.read_text())
    OUTPUT.mkdir(parents=True, exist_ok=True)
    for scheme in ("light", "dark"):
        opened.emulate_media(color_scheme=scheme)
        opened.screenshot(path=OUTPUT / f"admin-{name}-{size}-{scheme}.png", full_page=True)
        assert opened.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        violations = opened.evaluate("axe.run()")["violations"]
        assert [one["id"] for one in violations if one["impact"] in ("serious", "critical")] == []


def log_in(opened, name="otto"):
    opened.get_by_label("Name").fill(name)
    opened.get_by_label("Password").fill(web_bench.PASSWORD)
    opened.keyboard.press("Enter")
    opened.locator("#logout").wait_for(state="attached")


def test_a_session_that_ends_takes_its_open_pages_along(page, service, tab):
    opened = tab(page.address + "/login")
    log_in(opened)
    opened.goto(page.address + "/orders")
    opened.locator("#stream[data-kind=live]").wait_for()
    service.users.reset("otto")
    opened.get_by_text("Log in to see the orders.").wait_for()


@pytest.mark.parametrize("size", WALLS)
def test_a_wall_screen_is_filled_and_not_scrolled(standing_page, tab, size):
    opened = tab(standing_page.address + "/?view=wall", viewport=WALLS[size])
    opened.locator("#stream[data-kind=live]").wait_for()
    assert opened.evaluate("document.documentElement.scrollHeight - innerHeight") <= 0
    opened.screenshot(path=OUTPUT / f"{size}.png")
    place = opened.locator(".wall").bounding_box()
    assert place["y"] + place["height"] <= WALLS[size]["height"]
    assert place["height"] > 0.6 * WALLS[size]["height"]
    # The large figures are a fortieth of the screen's height and more.
    letters = opened.locator(".wall .value").first.evaluate(
        "one => parseFloat(getComputedStyle(one).fontSize)"
    )
    assert letters > WALLS[size]["height"] / 40
    assert opened.locator("nav:visible, form:visible").count() == 0


@pytest.mark.parametrize("path", ["/", "/meters", PATHS["meter"], "/topology", "/?view=wall"])
def test_on_the_smallest_phone_nothing_is_cut_off_and_fingers_hit(standing_page, tab, path):
    opened = tab(standing_page.address + path, viewport={"width": 320, "height": 640}, has_touch=True)
    opened.locator("#stream[data-kind=live]").wait_for()
    assert opened.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert (
        opened.evaluate(
            "[...document.querySelectorAll('main .chip, main button, main select, main thead a')]"
            ".filter((one) => one.offsetParent && one.getBoundingClientRect().height < 24).map((one) => one.outerHTML)"
        )
        == []
    )
    # What is wider than the screen scrolls in a place of its own.
    assert (
        opened.evaluate(
            "[...document.querySelectorAll('main *')].filter((one) => one.offsetParent"
            " && !one.closest('.scroll, .unseen') && one.getBoundingClientRect().right > innerWidth + 1)"
            ".map((one) => one.outerHTML.slice(0, 80))"
        )
        == []
    )


@pytest.mark.parametrize("language", ["es", "de", "fr"])
def test_longer_words_fit_a_small_phone_too(standing_page, tab, language):
    opened = tab(standing_page.address + "/login", viewport={"width": 320, "height": 640})
    log_in(opened, "ada")
    opened.goto(f"{standing_page.address}/language/{language}?back=%2F")
    for path in (PATHS["meter"], "/", "/?view=wall"):
        opened.goto(standing_page.address + path)
        assert opened.evaluate("document.documentElement.lang") == language
        assert opened.evaluate("document.documentElement.scrollWidth") == 320


def test_a_chart_tells_its_values_by_keys_and_by_touch(standing_page, tab):
    opened = tab(standing_page.address + PATHS["meter"] + "?days=2", has_touch=True)
    words = opened.locator("[data-cursor]")
    opened.locator("[data-chart]").focus()
    opened.keyboard.press("ArrowLeft")
    newest = words.inner_text()
    # An interval may have ended since the store was filled.
    opened.keyboard.press("Shift+ArrowLeft")
    assert re.search(r"\d\d:\d\d\u2013\d\d:\d\d: 150 Wh, valid$", words.inner_text())
    assert words.inner_text() != newest
    opened.keyboard.press("End")
    assert words.inner_text() == newest
    box = opened.locator("[data-chart] svg").bounding_box()
    opened.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert words.inner_text() not in ("", newest)
    opened.get_by_text("As a table").click()
    opened.locator("#chart-table tbody tr").first.wait_for()


def test_what_needs_attention_comes_and_goes_by_itself(page, service, tab):
    opened = tab(page.address + "/")
    opened.get_by_text(f"Meter {METERS[2]} does not answer.").wait_for()
    service.status["meters"][1] |= {"state": "unreachable", "reason": "left the network"}
    opened.get_by_role("link", name="2 meters do not answer.").click()
    opened.locator("table.meters tbody tr").nth(1).wait_for()
    assert opened.locator("table.meters tbody tr").count() == 2


def test_an_order_is_given_with_the_keyboard_and_its_result_comes_by_itself(page, service, tab):
    opened = tab(page.address + "/login")
    log_in(opened)
    opened.goto(page.address + PATHS["meter"])
    button = opened.get_by_role("button", name="Ping")
    button.focus()
    opened.keyboard.press("Enter")
    opened.get_by_text("Ping: done").wait_for()
    assert [(order.operation, order.target) for order in service.orders] == [("ping", METERS[1])]
    assert opened.locator("img").count() == 0


def test_a_hostile_name_does_nothing_when_it_comes_live(page, service, tab):
    opened = tab(page.address + "/meters")
    opened.locator("#stream[data-kind=live]").wait_for()
    service.status["meters"][0] |= {"manufacturer": HOSTILE, "reason": HOSTILE, "state": "refused"}
    opened.get_by_text(HOSTILE).first.wait_for()
    assert opened.locator("main img, main script").count() == 0


def test_a_lost_service_is_told_and_its_return_too(page, service, tab):
    opened = tab(page.address + "/")
    opened.get_by_text("Service running").wait_for()
    service.stop()
    opened.get_by_text("The collecting service is not running.").wait_for()
    opened.get_by_text("Active when last known").wait_for()
    service.start()
    opened.get_by_text("Service running").wait_for()
    opened.get_by_text("The collecting service is not running.").wait_for(state="detached")


def test_a_page_that_hears_nothing_says_so_and_comes_back(page, tab):
    opened = tab(page.address + "/")
    opened.locator("#stream[data-kind=live]").wait_for()
    page.stop()
    opened.locator("#stream[data-kind=stale]").wait_for()
    assert "Not live, values of" in opened.locator("#stream").inner_text()
    opened.get_by_text("Service running").wait_for(state="hidden")
    page.start()
    opened.locator("#stream[data-kind=live]").wait_for()


def test_without_script_everything_is_there(standing_page, tab):
    opened = tab(standing_page.address + "/meters", java_script_enabled=False)
    opened.get_by_role("searchbox").fill("0003")
    opened.get_by_role("button", name="Search").click()
    opened.get_by_role("link", name=METERS[2], exact=True).click()
    opened.get_by_role("heading", name=METERS[2]).wait_for()
    opened.goto(standing_page.address + PATHS["meter"])
    opened.locator("select[name=days]").select_option("7")
    opened.get_by_role("button", name="Show").click()
    opened.locator("svg[aria-label*='over 7 days']").wait_for()


def test_the_stream_carries_only_what_has_changed(page, service):
    with httpx.Client(base_url=page.address, timeout=10) as client:
        first = client.get("/meters").text
        stream, baseline = (re.search(rf'data-{name}="([^"]+)"', first)[1] for name in ("stream", "baseline"))
        with client.stream("GET", stream, params={"baseline": baseline}) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            events = _events(answer)
            kind, _data = next(events)
            assert kind == "time"
            service.status["meters"][2] |= {"activity": "identifying"}
            kind, data = next(event for event in events if event[0] != "time")
            assert kind == "parts"
            assert re.findall(r'"(meter-\w+|\w+)":"', data) == [f"meter-{METERS[2]}"]
        # From a baseline that nobody knows: load again.
        with client.stream("GET", stream, params={"baseline": "0-0"}) as answer:
            assert next(_events(answer))[0] == "reload"


def _events(answer):
    kind = ""
    for line in answer.iter_lines():
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield kind, line.removeprefix("data: ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_process_ends_at_once_with_a_stream_open(page, number):
    with httpx.stream("GET", page.address + "/events/", timeout=10) as answer:
        next(_events(answer))
        began = time.monotonic()
        assert page.stop(number) == 0
        assert time.monotonic() - began < 2


def test_more_pages_than_it_can_serve_are_told_to_wait(page):
    with httpx.Client(base_url=page.address, timeout=10) as client:
        open_streams = [client.send(client.build_request("GET", "/events/"), stream=True) for _ in range(16)]
        assert client.get("/events/").status_code == 503
        assert client.get("/").status_code == 200
        for one in open_streams:
            one.close()
        deadline = time.monotonic() + 10
        while client.send(client.build_request("GET", "/events/"), stream=True).status_code == 503:
            assert time.monotonic() < deadline


def test_a_port_in_use_is_one_clear_line(page, page_process):
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "concentrator", "page", "--config", str(page.config)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 2
    assert f"web.port: got {page.port} on 127.0.0.1: Address already in use" in done.stderr
    assert "Traceback" not in done.stderr
