"""The network, the traffic and the decoder in a real browser: seen, followed, paused, accessible."""

from __future__ import annotations

import re

import pytest

from concentrator.traffic import Source

import web_bench
from page_process import OUTPUT, ROOT
from web_bench import HOSTILE, METERS

pytestmark = pytest.mark.browser

AXE = ROOT / ".node/node_modules/axe-core/axe.min.js"
SIZES = {"desktop": {"width": 1400, "height": 900}, "phone": {"width": 390, "height": 844}}
GET_OBJECT_LIST = bytes.fromhex("C001C1000F0000280000FF0200")
PLACES = {"small-network": (2, 2), "network": (12, 40)}


@pytest.fixture
def page(page_process, service):
    web_bench.fill_store(page_process.directory)
    service.nodes = web_bench.prime_tree(2, 2)
    service.dialogues[METERS[0]] = {
        "meter": METERS[0],
        "known": True,
        "began_at": web_bench.now().isoformat(),
        "ended_at": web_bench.now().isoformat(),
        "outcome": f"no answer within 30 s {HOSTILE}",
        "left_out": 3,
        "left_out_after": 1,
        "apdus": [
            {
                "at": web_bench.now().isoformat(timespec="milliseconds"),
                "direction": direction,
                "client_sap": 1,
                "octets": octets,
                "doing": "reading the load profile",
            }
            for direction, octets in (
                ("to the meter", GET_OBJECT_LIST.hex()),
                ("from the meter", "c401c10000"),
            )
        ],
    }
    service.start()
    page_process.start()
    return page_process


def log_in(opened):
    opened.get_by_label("Name").fill("otto")
    opened.get_by_label("Password").fill(web_bench.PASSWORD)
    opened.keyboard.press("Enter")
    opened.locator("#logout").wait_for(state="attached")


def tab_of_operator(tab, page, path, **options):
    """A tab of somebody who may see the traffic."""
    opened = tab(f"{page.address}/login?next={path}", **options)
    log_in(opened)
    return opened


def assert_accessible(opened, name: str, size: str, *, look_only: bool = False) -> None:
    opened.add_script_tag(content=AXE.read_text())
    OUTPUT.mkdir(parents=True, exist_ok=True)
    for scheme in ("light", "dark"):
        opened.emulate_media(color_scheme=scheme)
        opened.screenshot(path=OUTPUT / f"{name}-{size}-{scheme}.png", full_page=True)
        assert opened.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        if look_only:
            return
        grave = [
            (one["id"], one["nodes"][0]["html"], one["nodes"][0]["failureSummary"])
            for one in opened.evaluate("axe.run()")["violations"]
            if one["impact"] in ("serious", "critical")
        ]
        assert grave == []


@pytest.mark.parametrize("size", SIZES)
def test_the_new_pages_are_accessible_and_fit(page, service, tab, size):
    options = {"viewport": SIZES[size], "bypass_csp": True}
    for name, (switches, terminals) in PLACES.items():
        service.nodes = web_bench.prime_tree(switches, terminals)
        opened = tab(page.address + "/topology", **options)
        opened.locator(f'.net a[href="/topology/{service.nodes[-1]["eui"]}"]').wait_for(timeout=20_000)
        # What is accessible with a few nodes is so with hundreds, which take the checker half a minute.
        assert_accessible(opened, name, size, look_only=name == "network")
    node = tab(page.address + "/topology/0200000a0001", **options)
    assert_accessible(node, "node", size)
    opened = tab_of_operator(tab, page, "/traffic", **options)
    opened.locator("#traffic-state[data-kind=live]").wait_for()
    service.publish(Source.MODEM, "modem to host", GET_OBJECT_LIST)
    service.publish(Source.DIALOGUE, "to the meter", GET_OBJECT_LIST, METERS[0], "client 1, reading")
    service.publish(Source.UPSTREAM, "to the head-end", note="mqtt main: dcu/x/health, 212 octets")
    opened.locator("#frames > li").nth(2).wait_for()
    opened.locator("#frames summary").nth(1).click()
    assert_accessible(opened, "traffic", size)
    dialogue = tab_of_operator(tab, page, f"/meters/{METERS[0]}/dialogue", **options)
    dialogue.locator(".frames summary").first.click()
    assert_accessible(dialogue, "dialogue", size)
    overview = tab(page.address + "/?by=hour", **options)
    assert_accessible(overview, "overview-hours", size)
    decoder = tab_of_operator(tab, page, "/decode", **options)
    decoder.locator("textarea").fill("C0 01 C1 00 0F 00 00 28 00 00 FF 02 00")
    decoder.get_by_role("button", name="Decode").click()
    decoder.get_by_text("get-request").first.wait_for()
    assert_accessible(decoder, "decoder", size)


def test_a_click_on_a_node_leads_to_its_history_and_below_it(page, service, tab):
    opened = tab(page.address + "/topology")
    opened.locator('.net a[href="/topology/0200000a0000"]').click()
    opened.wait_for_url("**/topology/0200000a0000")
    opened.get_by_text("What became of it").first.wait_for()
    opened.locator('a[href="/topology?below=0200000a0000"]').click()
    opened.get_by_text("Below 0200000a0000").wait_for()
    assert opened.locator(".net .mark").count() == 2


def test_a_node_is_found_while_one_types_and_the_picture_zooms_by_keys_and_buttons(page, service, tab):
    opened = tab(page.address + "/topology")
    opened.locator("#stream[data-kind=live]").wait_for()
    opened.locator("#find").press_sequentially("0200000a0001", delay=5)
    opened.locator(".net .halo").wait_for()
    assert opened.locator(".net .halo").count() == 1
    picture = opened.locator("svg.net")
    whole = picture.get_attribute("viewBox")
    opened.locator("[data-pan]").focus()
    opened.keyboard.press("+")
    opened.keyboard.press("ArrowDown")
    width, top = (float(picture.get_attribute("viewBox").split()[at]) for at in (2, 1))
    assert width < 1000
    assert top > 0
    # A change of the network leaves the window where it is.
    shown = picture.get_attribute("viewBox")
    service.nodes[3]["available"] = False
    opened.locator('.net a[href="/topology/0200000a0001"]').wait_for(state="detached", timeout=20_000)
    assert picture.get_attribute("viewBox").split()[2] == shown.split()[2]
    opened.get_by_role("button", name="Show all").click()
    assert picture.get_attribute("viewBox").split()[:3] == whole.split()[:3]
    opened.get_by_role("link", name="by hops").click()
    opened.locator(".net .mark.d1").first.wait_for()
    assert opened.locator("#find").input_value() == "0200000a0001"


def test_a_node_that_leaves_goes_from_the_picture_by_itself(page, service, tab):
    opened = tab(page.address + "/topology")
    place = opened.locator('.net a[href="/topology/0200000a0001"]')
    place.wait_for()
    service.nodes[3]["available"] = False
    assert service.nodes[3]["eui"] == "0200000a0001"
    place.wait_for(state="detached", timeout=20_000)
    opened.locator("table").get_by_text("away").wait_for()


def test_traffic_comes_live_pauses_filters_and_is_downloaded(page, service, tab):
    opened = tab_of_operator(tab, page, "/traffic")
    rows = opened.locator("#frames > li")
    opened.locator("#traffic-state[data-kind=live]").wait_for()
    service.publish(Source.DIALOGUE, "to the meter", GET_OBJECT_LIST, METERS[0])
    opened.get_by_text("get-request").first.wait_for()
    opened.get_by_role("button", name="Pause").click()
    service.publish(Source.UPSTREAM, "to the head-end", note=f"mqtt: {HOSTILE}")
    beside = tab_of_operator(tab, page, "/traffic")
    beside.get_by_text("mqtt:").wait_for()
    # It was there to be seen, and was not put in place.
    assert rows.count() == 1
    opened.get_by_role("button", name="Resume").click()
    rows.nth(1).wait_for()
    assert rows.first.get_by_text("mqtt:").count() == 1
    assert opened.locator("main img, main script").count() == 0
    opened.locator("select[name=source]").select_option("dialogue")
    opened.get_by_role("button", name="Filter").click()
    opened.wait_for_url(re.compile("source=dialogue"))
    assert rows.count() == 1
    with opened.expect_download() as download:
        opened.locator("#download").click()
    text = download.value.path().read_text()
    assert GET_OBJECT_LIST.hex() in text
    assert "mqtt" not in text


def test_without_script_the_traffic_is_there_after_a_reload(page, service, tab):
    opened = tab_of_operator(tab, page, "/traffic", java_script_enabled=False)
    service.publish(Source.RADIO, "heard", GET_OBJECT_LIST)
    row = opened.locator("#frames > li")
    for _ in range(100):
        opened.reload()
        if row.count():
            break
        service.publish(Source.RADIO, "heard", GET_OBJECT_LIST)
    assert row.first.get_by_text("get-request").count() >= 1
