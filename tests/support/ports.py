"""TCP ports for tests: below the ephemeral range, so that no connection takes one between choice and use."""

from __future__ import annotations

import itertools
import os
import socket

_FIRST, _PER_WORKER = 20_000, 3_000
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw") or 0)
_candidates = itertools.cycle(range(_FIRST + _worker * _PER_WORKER, _FIRST + (_worker + 1) * _PER_WORKER))
# Runs that follow each other begin elsewhere: a port that was just closed may linger.
for _ in range(os.getpid() % _PER_WORKER):
    next(_candidates)


def free_port() -> int:
    """A port of 127.0.0.1 that is free now, and that this process has not given before for long."""
    while True:
        port = next(_candidates)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
