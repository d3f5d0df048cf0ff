"""The page in the languages of its users: message catalogues in gettext's own form, English in the code.

Templates and words write English through `_()`. A catalogue is `catalogues/LANGUAGE.po`; a message that it lacks stays
English, and a test names it. Which language a reader gets: the one chosen on the page (a cookie), else the first
of the browser's that there is.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import polib

CATALOGUES = Path(__file__).parent / "catalogues"
ENGLISH = "en"
# Code, and the language's own name for itself.
LANGUAGES: Mapping[str, str] = {"en": "English", "es": "Español", "de": "Deutsch", "fr": "Français"}
LANGUAGE_COOKIE = "language"
_MOST_WISHES = 16


class Catalogue:
    """The messages of one language."""

    def __init__(self, language: str, messages: Mapping[str, str]) -> None:
        self.language = language
        self._messages = messages

    def gettext(self, message: str, **values: object) -> str:
        """A message in this language, with `%(name)s` filled in."""
        text = self._messages.get(message, message)
        return text % values if values else text

    def __contains__(self, message: object) -> bool:
        """Whether there is a translation."""
        return message in self._messages


@functools.cache
def catalogue(language: str) -> Catalogue:
    """The catalogue of a language; an empty one, which is English, where there is none."""
    path = CATALOGUES / f"{language}.po"
    if language not in LANGUAGES or not path.exists():
        return Catalogue(ENGLISH if language not in LANGUAGES else language, {})
    entries = polib.pofile(str(path), encoding="utf-8")
    return Catalogue(language, {entry.msgid: entry.msgstr for entry in entries.translated_entries()})


def language_of(chosen: str, accepted: str) -> str:
    """The language for a reader: the chosen one, else the best of the header Accept-Language (RFC 9110, 12.5.4)."""
    if chosen in LANGUAGES:
        return chosen
    wishes: list[tuple[float, int, str]] = []
    for place, part in enumerate(accepted.split(",")[:_MOST_WISHES]):
        name, _, weight = part.partition(";")
        try:
            quality = float(weight.strip().removeprefix("q=")) if weight else 1.0
        except ValueError:
            continue
        wishes.append((-quality, place, name.strip().lower().partition("-")[0]))
    return next((name for quality, _, name in sorted(wishes) if name in LANGUAGES and quality < 0), ENGLISH)
