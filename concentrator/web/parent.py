"""A page that the service started goes when the service goes, however that ends.

Killed with -9 the service cannot stop its page, which would then hold the port against the next one. The kernel
does it instead (prctl PR_SET_PDEATHSIG): the page only reads, so it may end at any moment.
"""

from __future__ import annotations

import ctypes
import os
import signal

# Set by the service in the page's environment to its own process id.
DIES_WITH_PARENT = "CONCENTRATOR_PAGE_OF"
_PR_SET_PDEATHSIG = 1


def follow_parent() -> None:
    """End this process as soon as the service that started it is gone; nothing, when none did."""
    parent = os.environ.get(DIES_WITH_PARENT)
    if parent is None:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if str(os.getppid()) != parent:
        # It ended before the kernel was told.
        raise SystemExit(1)
