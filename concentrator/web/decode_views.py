"""What is this hex? And: what was said in a meter's last dialogue?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from concentrator.model import IDENTITY_PATTERN
from concentrator.web.decoder import DecoderDesk, DecoderError, Tree, has_error, title_of
from concentrator.web.live import Snapshot
from concentrator.web.sources import Sources
from concentrator.web.translations import Message, mark
from concentrator.web.views import Asked, UnknownMeterError, View, notices

LARGEST_TEXT = 64 * 1024
_MOST_LINES = 200
_HEX = re.compile(r"^[0-9A-Fa-f]+$")
_KEY = re.compile(r"^[0-9A-Fa-f]{16}([0-9A-Fa-f]{16}){0,3}$")
# What people paste between octets, and before them.
_BETWEEN = re.compile(r"(?:\b0x|[\s:,;-])", re.IGNORECASE)
KEY_FIELDS: Mapping[str, str] = {"key": "key", "authentication_key": "ak", "system_title": "st"}


@dataclass(frozen=True, slots=True)
class Explained:
    """One frame as the page shows it."""

    heading: str
    title: str
    octets: int
    tree: Tree
    wrong: bool

    @classmethod
    def of(cls, heading: str, octets: int, tree: Tree) -> Explained:
        """From its tree."""
        return cls(heading, title_of(tree), octets, tree, has_error(tree))


class DecodeViews:
    """Makes both pages."""

    def __init__(self, sources: Sources, desk: DecoderDesk) -> None:
        self._sources = sources
        self._desk = desk

    async def decode(self, snapshot: Snapshot, text: str, keys: Mapping[str, str]) -> View:
        """What the pasted text is. Keys are used for this once, and are in nothing that is shown or kept."""
        frames, problem = await self.explained(text, keys)
        return View(
            "decode.html",
            mark("Decoder"),
            {**notices(snapshot, snapshot.status or {})},
            {"text": text, "frames": frames, "problem": problem},
        )

    async def explained(self, text: str, keys: Mapping[str, str]) -> tuple[list[Explained], str]:
        """The frames of a text, and what is wrong with it or with the keys, or ""."""
        options, problem = _options(keys)
        if not text.strip() or problem:
            return [], problem
        try:
            return await self._explain(text, options), ""
        except (DecodeUsageError, DecoderError) as error:
            return [], str(error)

    async def _explain(self, text: str, options: str) -> list[Explained]:
        if len(text) > LARGEST_TEXT:
            raise DecodeUsageError(f"more than {LARGEST_TEXT // 1024} kB; paste less")
        if text.lstrip().startswith("/"):
            # A telegram of a P1 port is text.
            octets = text.strip().replace("\r\n", "\n").replace("\n", "\r\n").encode() + b"\r\n"
            (tree,) = await self._desk.explain([octets.hex() + options])
            return [Explained.of("", len(octets), tree)]
        lines = _lines(text)
        heads = {number for number, (_head, hexadecimal) in enumerate(lines) if not _HEX.match(hexadecimal)}
        if heads:
            spoilt = lines[min(heads)][1]
            raise DecodeUsageError(f"not hexadecimal: {spoilt[:16]!r}; paste octets as hexadecimal digits")
        if len(lines) > 1 and not any(head for head, _hexadecimal in lines):
            # One frame over several lines, as hex dumps are, or a frame a line: what decodes decides.
            together = "".join(hexadecimal for _head, hexadecimal in lines)
            (tree,) = await self._desk.explain([together + options])
            if not has_error(tree):
                return [Explained.of("", len(together) // 2, tree)]
        if len(lines) > _MOST_LINES:
            raise DecodeUsageError(f"more than {_MOST_LINES} frames; paste fewer")
        trees = await self._desk.explain([hexadecimal + options for _head, hexadecimal in lines])
        return [
            Explained.of(head, len(hexadecimal) // 2, tree)
            for (head, hexadecimal), tree in zip(lines, trees, strict=True)
        ]

    async def dialogue(self, snapshot: Snapshot, asked: Asked) -> View:
        """The last dialogue with a meter.

        Raises:
            UnknownMeterError: nobody knows the meter.
        """
        identity = asked.identity
        if not IDENTITY_PATTERN.match(identity) or not any(
            meter.identity == identity for meter in await self._sources.meters(snapshot)
        ):
            raise UnknownMeterError(identity)
        told = await self._sources.watch.question("dialogue", asked.visitor, identity) or {}
        apdus: list[dict[str, Any]] = told.get("apdus") or []
        # Each as it was on the line, then those that the service deciphered.
        lines = [one["octets"] for one in apdus] + [one.get("opened") for one in apdus if one.get("opened")]
        problem = ""
        trees: list[Tree] = []
        try:
            trees = await self._desk.explain(lines) if lines else []
        except DecoderError as error:
            problem = str(error)
        explained = [
            Explained.of("", len(line) // 2, tree)
            for line, tree in zip(lines, trees or [{} for _ in lines], strict=True)
        ]
        opened = iter(explained[len(apdus) :])
        frames = [
            (one, on_the_line, next(opened) if one.get("opened") else None)
            for one, on_the_line in zip(apdus, explained, strict=False)
        ]
        return View(
            "dialogue.html",
            Message("Last dialogue with %(meter)s", {"meter": identity}),
            {**notices(snapshot, snapshot.status or {})},
            {"identity": identity, "told": told, "frames": frames, "problem": problem},
        )


class DecodeUsageError(DecoderError):
    """What was pasted is nothing that could be decoded."""


def _options(keys: Mapping[str, str]) -> tuple[str, str]:
    """The keys as `concentrator decode` takes them, and what is wrong with them; they are never repeated in it."""
    options = ""
    for name, option in KEY_FIELDS.items():
        value = re.sub(r"[\s:-]", "", keys.get(name, ""))
        if not value:
            continue
        if not _KEY.match(value):
            words = name.replace("_", " ")
            return "", f"{words}: not 8, 16, 24 or 32 octets of hexadecimal digits"
        options += f" {option}={value}"
    return options, ""


def _lines(text: str) -> list[tuple[str, str]]:
    """The frames of a text, each with the comment before it: what `concentrator modem sniff` writes, or just hex."""
    found: list[tuple[str, str]] = []
    heading = ""
    for line in text.splitlines():
        words = line.strip()
        if words.startswith("#"):
            heading = words.lstrip("# ")
        elif words:
            found.append((heading, _BETWEEN.sub("", words)))
            heading = ""
    return found
