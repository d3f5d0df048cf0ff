"""`concentrator decode`: frames from the command line, a file or standard input, explained."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from concentrator.dlms.explain import Tree
from concentrator.errors import LocalError
from concentrator.inspect.inspector import Inspector

_HEX = re.compile(r"^[0-9A-Fa-f]*$")
_OPTION = re.compile(r"^(key|ak|st)=([0-9A-Fa-f]*)$")
_LONGEST_LINE = 256 * 1024
_BOM = b"\xef\xbb\xbf"
_SHORTEST_HEX = 4


class DecodeUsageError(LocalError):
    """What was given is neither hexadecimal nor a file."""


def run_decode(
    source: str, key: bytes, authentication_key: bytes, system_title: bytes, *, as_json: bool
) -> int:
    """Explain what `source` is: hexadecimal, a file, or - for standard input. Returns the exit status.

    Raises:
        DecodeUsageError: it is none of these.
    """
    inspector = Inspector(key, authentication_key, system_title)
    failed = False
    for line in _lines(source):
        tree = _one(inspector, line, (key, authentication_key, system_title))
        if as_json:
            text = json.dumps(tree, ensure_ascii=False)
            print(text, flush=source == "-")  # noqa: T201 - the command's output
            failed = failed or ('"error"' in text and has_error(tree))
        else:
            failed = failed or has_error(tree)
            print("\n".join(render(tree)))  # noqa: T201
    return 1 if failed else 0


def _lines(source: str) -> Iterator[str]:
    compact = re.sub(r"[\s:-]", "", source)
    if source != "-" and compact and _HEX.match(compact) and not Path(source).exists():
        yield compact
        return
    if source == "-":
        yield from _text_lines(sys.stdin.buffer)
        return
    try:
        with Path(source).open("rb") as file:
            yield from _text_lines(file)
    except OSError as error:
        raise DecodeUsageError(
            f"{source!r} is neither hexadecimal nor a file that can be read: {error.strerror}"
        ) from None


def _text_lines(stream: BinaryIO) -> Iterator[str]:
    """The lines of a stream as they come; where it does not begin as lines do, the whole of it as one frame, in hex."""
    before = b""
    for line in stream:
        text = _stripped(line)
        if not text:
            before += line
            continue
        if _HEX.match(text.split()[0].partition("=")[0]):
            yield text
        else:
            data = before + line + stream.read()
            # A P1 telegram, or the octets of a frame themselves. A first line that is spoilt has others behind it.
            if text.startswith("/") or not _holds_lines(data):
                yield data.hex()
                return
            stream = io.BytesIO(data)
        yield from filter(None, map(_stripped, stream))
        return


def _stripped(line: bytes) -> str:
    text = line.removeprefix(_BOM).decode("ascii", "replace").strip()
    return "" if text.startswith("#") else text


def _holds_lines(data: bytes) -> bool:
    """Whether a stream is text, or some line of it hexadecimal: then others are spoilt lines, not octets of a frame."""
    if (
        data.isascii()
        and data.decode("ascii").replace("\n", "").replace("\r", "").replace("\t", "").isprintable()
    ):
        return True
    return any(
        len(words) > 0 and len(words[0]) >= _SHORTEST_HEX and _HEX.match(words[0].decode("ascii", "replace"))
        for words in (line.split() for line in data.split(b"\n"))
    )


def _one(inspector: Inspector, line: str, defaults: tuple[bytes, bytes, bytes]) -> Tree:
    """One line: hexadecimal, then key=, ak=, st= in any order."""
    if len(line) > _LONGEST_LINE:
        return {"error": f"a line of {len(line)} characters is longer than any frame"}
    keys: dict[str, bytes] = dict(zip(("key", "ak", "st"), defaults, strict=True))
    octets = ""
    for word in line.split():
        option = _OPTION.match(word)
        if option is not None:
            if len(option[2]) % 2:
                return {"error": f"{option[1]}= has an odd number of hexadecimal digits"}
            keys[option[1]] = bytes.fromhex(option[2])
        elif _HEX.match(word):
            octets += word
        else:
            # What stands behind a = may be most of a key: it is not repeated.
            name, equals, _hidden = word.partition("=")
            return {"error": f"not hexadecimal: {name[:40] + equals!r}"}
    half = "an odd number of hexadecimal digits: one is missing" if len(octets) % 2 else ""
    try:
        inspector.use_keys(keys["key"], keys["ak"], keys["st"])
    except LocalError as error:
        return {"error": str(error)}
    tree = inspector.inspect(bytes.fromhex(octets[: len(octets) // 2 * 2]))
    return {**tree, **({"note" if tree.get("frame") == "wmbus" else "error": half} if half else {})}


def has_error(node: object) -> bool:
    """Whether a tree tells of an error at any depth; a text that holds the word is none."""
    if isinstance(node, dict):
        tree = cast("dict[str, object]", node)
        return "error" in tree or any(has_error(value) for value in tree.values())
    if isinstance(node, list):
        return any(has_error(value) for value in cast("list[object]", node))
    return False


def render(node: object, indent: str = "", name: str = "") -> list[str]:
    """A tree as indented lines."""
    label = f"{indent}{name}: " if name else indent
    if isinstance(node, dict):
        lines = [f"{indent}{name}:"] if name else []
        deeper = indent + "  " if name else indent
        for key, value in cast("dict[str, object]", node).items():
            lines += render(value, deeper, key)
        return lines
    if isinstance(node, list):
        items = cast("list[object]", node)
        if not any(isinstance(item, dict | list) for item in items):
            return [f"{label}{', '.join(map(_shown, items)) or '(none)'}"]
        lines = [f"{indent}{name}:"] if name else []
        for number, item in enumerate(items, 1):
            lines += render(item, indent + "  ", str(number))
        return lines
    return [f"{label}{_shown(node)}"]


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
