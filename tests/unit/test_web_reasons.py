"""What the service says in English is told in the reader's language, and what is known of it is what it says."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concentrator.web import reasons
from concentrator.web.reasons import PATTERNS, told
from concentrator.web.translations import catalogue

ROOT = Path(__file__).parents[2]
VALUE = "\0"


@functools.cache
def said_in_the_code() -> frozenset[str]:
    """All texts of product and PLC drivers, with a mark where a value stands."""
    found: set[str] = set()
    for package in ("concentrator", "plc"):
        for path in (ROOT / package).rglob("*.py"):
            if path.name == Path(reasons.__file__).name:
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add(node.value)
                elif isinstance(node, ast.JoinedStr):
                    found.add(
                        "".join(
                            str(one.value) if isinstance(one, ast.Constant) else VALUE for one in node.values
                        )
                    )
    return frozenset(found)


# Put together of two texts in the code: each half is looked for.
TOGETHER = {
    "took longer than %(seconds)s s, %(doing)s then": ("took longer than %(seconds)s s", ", %(doing)s then"),
    "the meter's clock is %(size)s s ahead": ("the meter's clock is %(size)s s %(way)s", "ahead"),
    "%(what)s once, last %(at)s": ("%(what)s %(times)s, last %(at)s", "once"),
    "%(what)s %(count)s times, last %(at)s": ("%(what)s %(times)s, last %(at)s", "%(count)s times"),
    "consumption fell by %(share)s from %(day)s on": ("consumption fell by %(share)s % from %(day)s on",),
    "the meter's clock is %(size)s s behind": ("the meter's clock is %(size)s s %(way)s", "behind"),
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_each_pattern_is_something_that_the_code_says(pattern):
    for text in TOGETHER.get(pattern, (pattern,)):
        plain = re.sub(r"%\(\w+\)s", VALUE, text)
        assert any(said.rstrip(VALUE) == plain.rstrip(VALUE) for said in said_in_the_code()), plain


@pytest.mark.parametrize("pattern", PATTERNS)
def test_each_pattern_is_translated_and_keeps_its_values(pattern):
    values = re.findall(r"%\((\w+)\)s", pattern)
    said = pattern % {name: f"<{name}>" for name in values}
    for language in ("es", "de", "fr"):
        words = told(said, catalogue(language))
        assert words != said
        assert all(f"<{name}>" in words for name in values)


def test_a_reason_within_a_reason_is_translated_too():
    said = "meter ODC1: node 00ff: the modem is not there: serial port /dev/ttyAMA0: the device went away"
    words = told(said, catalogue("de"))
    assert "ODC1" in words and "/dev/ttyAMA0" in words  # noqa: PT018 - one statement
    assert not re.search(r"\b(node|there|went|device)\b", words)


def test_english_and_what_is_not_known_stay_as_they_are():
    known = "left the network: closed its 4-32 connection"
    assert told(known, catalogue("en")) == known
    assert told("the frobnicator is out", catalogue("de")) == "the frobnicator is out"


@given(st.text(max_size=600))
def test_any_text_is_told(text):
    assert told(text, catalogue("fr")) or not text
    assert told(text, catalogue("en")) == text
