"""The file of head-ends, read and replaced as a whole: JSON, mode 0600, keys in the clear and shown nowhere."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

from concentrator.errors import LocalError

_PRIVATE_BITS = 0o077


class HeadEndFileError(LocalError):
    """The file of head-ends cannot be used; the text never repeats a key."""


def read_head_end_file(path: Path) -> dict[str, Any]:
    """The content, with `clients` a list of objects.

    Raises:
        HeadEndFileError: it cannot be read, others may read it, or it has another form.
    """
    content = read_private_json(path)
    clients: Any = content.get("clients")
    entries = cast("list[Any]", clients) if isinstance(clients, list) else None
    if entries is None or not all(isinstance(entry, dict) for entry in entries):
        raise HeadEndFileError(f"file of head-ends {path}: has to be an object with a list 'clients'")
    return content


def read_private_json(path: Path) -> dict[str, Any]:
    """A JSON object in a file that nobody else may read.

    Raises:
        HeadEndFileError: it cannot be read, others may read it, or it is something else.
    """
    try:
        mode = path.stat().st_mode
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise HeadEndFileError(f"file of head-ends {path}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise HeadEndFileError(
            f"file of head-ends {path}: is not JSON; see docs/uplink.md for its form"
        ) from None
    if mode & _PRIVATE_BITS:
        raise HeadEndFileError(f"file of head-ends {path}: others may read it; chmod 600 {path}")
    if not isinstance(content, dict):
        raise HeadEndFileError(f"file of head-ends {path}: has to be an object; see docs/uplink.md")
    return cast("dict[str, Any]", content)


def write_head_end_file(path: Path, content: dict[str, Any]) -> None:
    """Replace the file: after a power cut the old one or the new one is there.

    Raises:
        HeadEndFileError: it cannot be written.
    """
    write_private(path, (json.dumps(content, indent=1) + "\n").encode())


def change_client(path: Path, client_sap: int, values: dict[str, Any], gone: tuple[str, ...] = ()) -> None:
    """Replace some values of one client in the file as it is now.

    Raises:
        HeadEndFileError: it cannot be read or written, or has no such client any more.
    """
    content = read_head_end_file(path)
    for entry in content["clients"]:
        if entry.get("client_sap") == client_sap:
            entry.update(values)
            for name in gone:
                entry.pop(name, None)
            write_head_end_file(path, content)
            return
    raise HeadEndFileError(f"file of head-ends {path}: has no client {client_sap}; nothing was changed")


def write_private(path: Path, content: bytes) -> None:
    """Replace a file as a whole by one of mode 0600, of the owner of its folder.

    Raises:
        HeadEndFileError: it cannot be written.
    """
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            if os.geteuid() == 0:
                owner = path.parent.stat()
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            os.fsync(file.fileno())
        fresh.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise HeadEndFileError(f"{path}: cannot be written: {error.strerror}") from None
