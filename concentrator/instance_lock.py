"""One service for each state directory: a lock that the kernel lets go of however the process ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Generator
from pathlib import Path

from concentrator.errors import LocalError

_NAME = "service.lock"


class InUseError(LocalError):
    """Another service works with this state directory."""


@contextlib.contextmanager
def hold(state_directory: Path) -> Generator[None]:
    """Keep everybody else from the state directory, for as long as the context lasts.

    Where no lock can be made (a file system that is mounted read-only) nothing can be written twice either.

    Raises:
        InUseError: another process holds it.
    """
    try:
        descriptor = os.open(state_directory / _NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InUseError(
                f"state directory {state_directory}: another concentrator works with it; stop that one, or give this "
                "one a directory of its own"
            ) from None
        yield
    finally:
        os.close(descriptor)


def is_held(state_directory: Path) -> bool:
    """Whether a service works with a state directory now."""
    try:
        with hold(state_directory):
            return False
    except InUseError:
        return True
