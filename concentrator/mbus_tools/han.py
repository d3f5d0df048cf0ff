"""`concentrator read --han`: what a meter pushes by DLMS on its consumer port, in M-Bus or HDLC frames.

So do meters in Norway, Austria and elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import click

from concentrator.errors import ConcentratorError
from concentrator.inspect.command import has_error, render
from concentrator.inspect.inspector import Inspector
from concentrator.links.byte_source import read_bursts

DEFAULT_BAUD_RATE = 2400
# Lists come every ten seconds, some only every hour; who wants those waits with a longer patience.
_PATIENCE_S = 30.0
_STARTS = (b"\x68", b"\x7e")


class NothingPushedError(ConcentratorError):
    """No push came that could be read: the text says what came instead."""


def run_read_han(
    where: str,
    baud_rate: int | None,
    key: bytes,
    authentication_key: bytes,
    *,
    as_json: bool,
    echo: Callable[[str], None] = click.echo,
) -> None:
    """Wait for one push and print it.

    Raises:
        PortError: the port cannot be opened, or goes away.
        NothingPushedError: nothing came, or nothing that could be read.
    """
    inspector = Inspector(key, authentication_key)
    came = "nothing came"
    for burst in read_bursts(where, baud_rate or DEFAULT_BAUD_RATE, _PATIENCE_S):
        starts = [at for mark in _STARTS if (at := burst.find(mark)) >= 0]
        tree = inspector.inspect(burst[min(starts, default=0) :])
        if not has_error(tree):
            echo(json.dumps(tree, ensure_ascii=False) if as_json else "\n".join(render(tree)))
            return
        came = (
            f"{len(burst)} octets came: {tree.get('error', 'a push that could not be read; has it a key?')}"
        )
    raise NothingPushedError(f"no push within {_PATIENCE_S:g} s: {came}")
