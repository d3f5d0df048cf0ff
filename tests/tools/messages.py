"""Brings the catalogues of the page into step with its templates and code, and says what is to be translated.

`make messages` adds what is new (without a translation), takes out what nobody says any more, keeps the rest and
exits with 1 when a translation is missing. The functions are the test's too.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import polib
from jinja2 import Environment, nodes
from jinja2.ext import extract_from_ast

WEB = Path(__file__).parents[2] / "concentrator" / "web"
CATALOGUES = WEB / "catalogues"
TEMPLATES = WEB / "templates"
LANGUAGES = ("es", "de", "fr")
# A call of one of these holds a message: its first argument, and for ngettext the second too.
_CALLS = ("_", "mark", "Message", "translate", "_translate", "gettext", "ngettext")
_READ_ATTRIBUTES = ("aria-label", "title", "placeholder", "alt")
_PLACEHOLDER = re.compile(r"%\(\w+\)s")
_TAGS = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
# What stands in a template as it is: names that every language writes the same.
_SAME_EVERYWHERE = frozenset({"JSON", "OBIS", "EUI", "s", "dBm", "kWh"})


class Found(NamedTuple):
    """A message, its plural or "", and where it stands."""

    text: str
    plural: str
    place: str


def environment() -> Environment:
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)  # noqa: S701 - escapes


def templates() -> list[Path]:
    return sorted(TEMPLATES.rglob("*.html"))


def in_templates() -> Iterator[Found]:
    for path in templates():
        tree = environment().parse(path.read_text())
        for line, function, found in extract_from_ast(tree, ("_", "ngettext"), babel_style=False):
            texts = [text for text in found if text is not None]
            if texts:
                plural = texts[1] if function == "ngettext" else ""
                yield Found(texts[0], plural, f"{path.relative_to(WEB)}:{line}")


def in_code() -> Iterator[Found]:
    for path in sorted(WEB.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in _CALLS and node.args and isinstance(node.args[0], ast.Constant):
                texts = [one.value for one in node.args if isinstance(one, ast.Constant)]
                plural = str(texts[1]) if name == "ngettext" else ""
                yield Found(str(texts[0]), plural, f"{path.name}:{node.lineno}")


def messages() -> dict[str, Found]:
    """Every message by its English text."""
    result: dict[str, Found] = {}
    for found in (*in_templates(), *in_code()):
        if found.text and (found.plural or found.text not in result):
            result[found.text] = found
    return result


def placeholders(text: str) -> list[str]:
    return sorted(_PLACEHOLDER.findall(text))


class _Reader(HTMLParser):
    """What of a template a reader would see although no message says it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        # What stands in <code> is typed as it is in every language.
        self._code = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._code += tag == "code"
        self.seen += [value for name, value in attrs if name in _READ_ATTRIBUTES and value]

    def handle_data(self, data: str) -> None:
        if not self._code:
            self.seen.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._code -= tag == "code"


def plain_text(source: str) -> list[str]:
    """Words in a template outside every message: as text, in an attribute that is read, or as a shown constant."""
    reader = _Reader()
    reader.feed(_TAGS.sub(" ", source))
    words = [word for text in reader.seen for word in re.findall(r"[^\W\d_]+", text)]
    found = [word for word in words if word not in _SAME_EVERYWHERE]
    for output in environment().parse(source).find_all(nodes.Output):
        for node in output.nodes:
            found += [text for text in _shown(node) if re.search(r"[A-Z][a-z]|[a-z] [a-z]", text)]
    return found


def _shown(node: nodes.Node) -> Iterator[str]:
    """The constants that an expression may put on the page."""
    match node:
        case nodes.Const(value=str(text)):
            yield text
        case nodes.CondExpr():
            yield from _shown(node.expr1)
            if node.expr2 is not None:
                yield from _shown(node.expr2)
        case nodes.Or() | nodes.And() | nodes.Add():
            yield from _shown(node.left)
            yield from _shown(node.right)
        case nodes.Concat():
            for one in node.nodes:
                yield from _shown(one)
        case _:
            pass


def bring_into_step(language: str) -> list[str]:
    """Update one catalogue; returns the messages that lack a translation."""
    path = CATALOGUES / f"{language}.po"
    catalogue = polib.pofile(str(path), encoding="utf-8") if path.exists() else polib.POFile()
    known = {entry.msgid: entry for entry in catalogue}
    catalogue.clear()
    catalogue.metadata = {
        "Language": language,
        "MIME-Version": "1.0",
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Transfer-Encoding": "8bit",
        "Plural-Forms": f"nplurals=2; plural=(n {'>' if language == 'fr' else '!='} 1);",
    }
    lacking: list[str] = []
    for text, found in sorted(messages().items()):
        entry = known.get(text)
        if entry is None or bool(entry.msgid_plural) != bool(found.plural):
            entry = polib.POEntry(msgid=text, msgid_plural=found.plural)
            if found.plural:
                entry.msgstr_plural = {0: "", 1: ""}
        entry.msgid_plural = found.plural
        if not entry.translated():
            lacking.append(f"{found.place}: {text}")
        catalogue.append(entry)
    catalogue.wrapwidth = 118
    path.parent.mkdir(exist_ok=True)
    catalogue.save(str(path))
    return lacking


def main() -> int:
    lacking = {language: bring_into_step(language) for language in LANGUAGES}
    for language, lines in lacking.items():
        print(f"{language}: {len(messages()) - len(lines)} of {len(messages())} messages")
        print("".join(f"  lacks {line}\n" for line in lines), end="")
    plain = {path: plain_text(path.read_text()) for path in templates()}
    for path, words in plain.items():
        if words:
            print(f"{path.relative_to(WEB)}: outside every message: {', '.join(words)}")
    return 1 if any(lacking.values()) or any(plain.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
