"""The page in its readers' languages: complete catalogues, the right one for each, nothing said outside them."""

from __future__ import annotations

import html
import json
import re

import polib
import pytest
from starlette.testclient import TestClient

from concentrator.clock import SystemClock
from concentrator.web import words
from concentrator.web.application import make_page
from concentrator.web.live import ServiceWatch
from concentrator.web.translations import LANGUAGES, Catalogue, Message, catalogue, language_of

import messages
import web_bench
from web_bench import HOSTILE, METERS, FakeService

OTHERS = tuple(code for code in LANGUAGES if code != "en")


def entries(language):
    return {entry.msgid: entry for entry in polib.pofile(str(messages.CATALOGUES / f"{language}.po"))}


@pytest.mark.parametrize("language", OTHERS)
def test_a_catalogue_has_every_message_of_templates_and_code_and_no_other(language):
    assert set(OTHERS) == set(messages.LANGUAGES)
    known, said = entries(language), messages.messages()
    assert len(said) > 300
    assert {text: found.place for text, found in said.items() if text not in known} == {}
    assert [text for text, entry in known.items() if not entry.translated() or entry.fuzzy] == []
    assert sorted(set(known) - set(said)) == []


@pytest.mark.parametrize("language", OTHERS)
def test_a_translation_has_the_values_of_its_message(language):
    said = messages.messages()
    for text, entry in entries(language).items():
        for translation in entry.msgstr_plural.values() if entry.msgid_plural else (entry.msgstr,):
            assert messages.placeholders(translation) == messages.placeholders(text), text
        assert bool(entry.msgid_plural) == bool(said[text].plural), text


@pytest.mark.parametrize("template", messages.templates(), ids=lambda path: path.name)
def test_nothing_is_said_outside_the_catalogues(template):
    assert messages.plain_text(template.read_text()) == []


@pytest.mark.parametrize(
    "template",
    [
        "<p>Said plainly</p>",
        '<p title="Said in a title">{{ x }}</p>',
        '<p>{{ "Said here" if x else "-" }}</p>',
        '<p>{{ x or "said there too" }}</p>',
        '<p>{{ _("Right") }} wrong</p>',
    ],
)
def test_what_is_said_plainly_is_noticed(template):
    assert messages.plain_text(template)


@pytest.mark.parametrize(
    ("chosen", "accepted", "expected"),
    [
        ("", "", "en"),
        ("de", "fr", "de"),
        ("xx", "fr-CA,fr;q=0.9", "fr"),
        ("", "pt,es-ES;q=0.8,en;q=0.5", "es"),
        ("", "de;q=0,fr;q=0.1", "fr"),
        ("", "de;q=nonsense,*", "en"),
    ],
)
def test_a_reader_gets_the_chosen_language_else_the_browsers(chosen, accepted, expected):
    assert language_of(chosen, accepted) == expected


def test_what_counts_takes_the_form_of_its_language():
    forms = {"%(count)s x": ("one %(count)s", "many %(count)s")}
    for language, number, expected in (
        ("fr", 0, "one 0"),
        ("fr", 2, "many 2"),
        ("es", 0, "many 0"),
        ("es", 1, "one 1"),
    ):
        one = Catalogue(language, {}, forms)
        assert one.ngettext("%(count)s x", "%(count)s xs", number, count=number) == expected
    assert catalogue("en").ngettext("%(count)s hop", "%(count)s hops", 1, count=1) == "1 hop"


def test_text_of_the_service_is_said_as_it_is_even_with_percent_signs():
    assert catalogue("de").say("100 %(strange)s %d") == "100 %(strange)s %d"
    assert (
        catalogue("de")
        .say(Message("%(reason)s It is tried again by itself.", {"reason": "50 %"}))
        .startswith("50 % Es")
    )


def test_words_put_together_are_said_in_the_language():
    german = catalogue("de").gettext
    assert words.obis_words("1-0:1.8.1*255", german) == "Wirkenergie Bezug (+P), Zählerstand, Tarif 1"
    assert words.quality_words(0, catalogue("fr").gettext) == "valide"


# The page


@pytest.fixture(scope="module")
def application(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("languages")
    web_bench.fill_store(tmp_path, hostile=HOSTILE)
    service = FakeService(tmp_path / "control.sock")
    service.start()
    config = web_bench.config(tmp_path)
    watch = ServiceWatch(config.control_socket, SystemClock(), answer_timeout_s=30)
    page = make_page(config, watch=watch)
    yield page.application
    service.stop()


@pytest.fixture
def client(application):
    return TestClient(application, base_url="http://127.0.0.1:8080", follow_redirects=False)


@pytest.mark.parametrize(
    ("language", "said"),
    [("es", "500 de 600 intervalos"), ("de", "500 von 600 Intervallen"), ("fr", "500 intervalles sur 600")],
)
def test_a_page_is_in_one_language_with_its_script(client, language, said):
    web = client.get("/", headers={"Accept-Language": f"{language}-XX, en;q=0.5"}).text
    assert f'<html lang="{language}">' in web
    assert said.replace("500", "450") in html.unescape(web)
    script = json.loads(html.unescape(re.search(r"data-words='([^']*)'", web)[1]))
    assert script["live"] == catalogue(language).gettext("Live")
    assert "Completeness" not in web


def test_the_choice_is_kept_in_a_cookie_and_leads_back(client):
    answer = client.get("/language/de", params={"back": "/meters?state=active"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/meters?state=active")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    meters = client.get("/meters?state=active", headers={"Accept-Language": "fr"}).text
    assert '<html lang="de">' in meters
    assert 'href="/language/fr?back=%2Fmeters%3Fstate%3Dactive"' in meters
    assert 'data-stream="/events/meters?state=active&amp;language=de"' in meters


@pytest.mark.parametrize(
    "back",
    [
        "https://elsewhere.example/",
        "//elsewhere.example",
        "/\\elsewhere.example",
        "/a\r\nSet-Cookie: x=y",
        "",
    ],
)
def test_the_choice_leads_nowhere_else(client, back):
    answer = client.get("/language/de", params={"back": back})
    assert answer.headers["location"] == "/"


def test_an_unknown_language_changes_nothing(client):
    answer = client.get("/language/xx")
    assert answer.status_code == 303
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    "path", ["/", "/meters", f"/meters/{METERS[0]}", f"/meters/{METERS[2]}", "/tasks", "/log", "/nothing"]
)
def test_what_a_meter_calls_itself_stays_text_in_every_language(client, language, path):
    web = client.get(path, headers={"Accept-Language": language}).text
    assert "<img" not in web
    assert "<script>" not in web
    assert f'<html lang="{language}">' in web
