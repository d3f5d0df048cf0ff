"""Frames explained for the page by `concentrator decode`, which runs as a process of its own.

So the page has no protocol code, hostile octets cannot spoil it, and what takes too long is ended. Keys go by its
standard input and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Sequence
from typing import Any, Self, cast

from concentrator.errors import LocalError

Tree = dict[str, Any]

_COMMAND = ("-m", "concentrator", "decode", "--json", "-")
_TIMEOUT_S = 10.0
# The tree of a frame as one line.
_LARGEST_LINE_OCTETS = 8 * 1024 * 1024
_MOST_AT_ONCE = 2
_MOST_TITLE_WORDS = 6


class DecoderError(LocalError):
    """There is no tree: it took too long, or the decoder ended."""


class Decoder:
    """Explains lines in their order; frames that span lines are put together. Use as an async context manager."""

    def __init__(self, timeout_s: float = _TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()

    async def explain(self, line: str) -> Tree:
        """The tree of one line: hexadecimal, then key=, ak=, st= as `concentrator decode` takes them.

        Raises:
            DecoderError: it took too long, or the decoder ended; the next line begins with a new one.
        """
        process = self._process or await self._start()
        if process.stdin is None or process.stdout is None:
            raise DecoderError("the decoder has no pipes")
        try:
            async with asyncio.timeout(self._timeout_s):
                process.stdin.write(line.encode() + b"\n")
                await process.stdin.drain()
                answer = await process.stdout.readline()
        except TimeoutError:
            await self.close()
            raise DecoderError(f"decoding took longer than {self._timeout_s:g} s and was ended") from None
        except (ConnectionError, ValueError):
            await self.close()
            raise DecoderError("the decoder ended; try again with less") from None
        if not answer:
            await self.close()
            raise DecoderError("the decoder ended without an answer")
        return json.loads(answer)

    async def _start(self) -> asyncio.subprocess.Process:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *_COMMAND,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=_LARGEST_LINE_OCTETS,
        )
        return self._process

    async def close(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


class DecoderDesk:
    """Explains for whoever asks, a few at a time."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(_MOST_AT_ONCE)

    async def explain(self, lines: Sequence[str]) -> list[Tree]:
        """The trees of lines that belong together, in all within ten seconds.

        Raises:
            DecoderError: as for `Decoder.explain`.
        """
        async with self._places, Decoder() as decoder:
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    return [await decoder.explain(line) for line in lines]
            except TimeoutError:
                raise DecoderError(f"decoding took longer than {_TIMEOUT_S:g} s and was ended") from None


def title_of(tree: Tree) -> str:
    """What a frame is, in a few words: its envelopes from the outermost to what it carries."""
    words: list[str] = []
    node: Tree | None = tree
    while node is not None and len(words) < _MOST_TITLE_WORDS:
        found = [str(node[name]) for name in ("frame", "message", "apdu", "type") if node.get(name)]
        words += [word for word in found if word not in words]
        about = _tree(node.get("attribute")) or _tree(node.get("method"))
        if about is not None and about.get("meaning"):
            words.append(f"{about['meaning']}: {about.get('name', '')}".rstrip(": "))
        node = next((_tree(node[name]) for name in ("decoded", "plain", "content") if name in node), None)
    return ", ".join(words) or ("not recognised" if "error" in tree else "octets")


def _tree(node: object) -> Tree | None:
    return cast("Tree", node) if isinstance(node, dict) else None


def has_error(node: object) -> bool:
    """Whether something is wrong at any depth."""
    if isinstance(node, dict):
        tree = cast("Tree", node)
        return "error" in tree or any(has_error(one) for one in tree.values())
    return isinstance(node, list) and any(has_error(one) for one in cast("list[object]", node))
