"""The page in the languages of its users: message catalogues in gettext's own form, English in the code.

Templates and words write English through `_()`. A catalogue is `catalogues/LANGUAGE.po`; a message that it lacks stays
English, and a test names it. Which language a reader gets: the one chosen on the page (a cookie), else the first
of the browser's that there is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polib
from markupsafe import Markup

CATALOGUES = Path(__file__).parent / "catalogues"
ENGLISH = "en"
# Code, and the language's own name for itself.
LANGUAGES: Mapping[str, str] = {"en": "English", "es": "Español", "de": "Deutsch", "fr": "Français"}
LANGUAGE_COOKIE = "language"
LANGUAGE_COOKIE_AGE_S = 365 * 86_400
# Where zero and a half are not plural (CLDR, plural rules).
_SINGULAR_UP_TO_ONE = frozenset({"fr"})
# The others write a point between a number and its fraction.
_DECIMAL_COMMA = frozenset({"es", "de", "fr"})
_MOST_WISHES = 16

Translate = Callable[..., str]


@dataclass(frozen=True, slots=True)
class Message:
    """Something to say in the language of whoever will read it, with the values of its `%(name)s`."""

    text: str
    values: Mapping[str, object] = field(default_factory=dict[str, object])


def mark(message: str) -> str:
    """Say that a text is a message: it is translated where it is shown, and `make messages` finds it here."""
    return message


class Catalogue:
    """The messages of one language."""

    def __init__(
        self, language: str, messages: Mapping[str, str], plurals: Mapping[str, tuple[str, str]] | None = None
    ) -> None:
        self.language = language
        self._messages = messages
        self._plurals = plurals or {}

    def gettext(self, message: str, **values: object) -> str:
        """A message in this language, with `%(name)s` filled in. A value that is markup stays markup."""
        return _filled(self._messages.get(message, message), values)

    def ngettext(self, one: str, many: str, number: int, **values: object) -> str:
        """A message that counts: found under its singular, in the form that this language has for the number."""
        singular = number in (0, 1) if self.language in _SINGULAR_UP_TO_ONE else number == 1
        forms = self._plurals.get(one, (one, many))
        return _filled(forms[0] if singular else forms[1], values)

    def say(self, said: Message | str) -> str:
        """A message with its values; a text from elsewhere (the service, a meter) as it is."""
        return self.gettext(said.text, **said.values) if isinstance(said, Message) else self.gettext(said)

    def decimal(self, number: str) -> str:
        """A number written with a point, with this language's decimal sign."""
        return number.replace(".", ",") if self.language in _DECIMAL_COMMA else number

    def __contains__(self, message: object) -> bool:
        """Whether there is a translation."""
        return message in self._messages or message in self._plurals


def _filled(text: str, values: Mapping[str, object]) -> str:
    if not values:
        return text
    if any(hasattr(value, "__html__") for value in values.values()):
        return Markup(text) % values  # noqa: S704 - the catalogue is ours, and the values are escaped
    return text % values


@functools.cache
def catalogue(language: str) -> Catalogue:
    """The catalogue of a language; an empty one, which is English, where there is none."""
    path = CATALOGUES / f"{language}.po"
    if language not in LANGUAGES or not path.exists():
        return Catalogue(ENGLISH if language not in LANGUAGES else language, {})
    entries = polib.pofile(str(path), encoding="utf-8")
    translated = entries.translated_entries()
    return Catalogue(
        language,
        {entry.msgid: entry.msgstr for entry in translated if not entry.msgid_plural},
        {
            entry.msgid: (entry.msgstr_plural[0], entry.msgstr_plural[1])
            for entry in translated
            if entry.msgid_plural
        },
    )


def english(message: str, **values: object) -> str:
    """Translate nothing: for JSON answers, logs and tests."""
    return _filled(message, values)


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
