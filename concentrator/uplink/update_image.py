"""An update of the concentrator itself, transferred by a head-end: Image transfer over a spool on flash.

Blocks go into a file as they come. Which are there is written after the blocks themselves are on flash, every megabyte
and when all are there, so that after a power cut the head-end is told the truth and sends the rest. The signature is
checked, and the image installed, by whoever does this for the box; both take their time, and a head-end that asks again
meanwhile is told temporary-failure.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from concentrator.dlms.cosem.image_transfer import (
    ImageToActivate,
    ImageTransfer,
    ImageTransferStatus,
    Outcome,
)
from concentrator.dlms.cosem.objects import CosemObject
from concentrator.errors import LocalError

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

BLOCK_OCTETS = 4096
_SYNC_OCTETS = 1024 * 1024
# What a restart makes of a status whose work ended with the service.
_AFTER_RESTART = {
    ImageTransferStatus.VERIFICATION_INITIATED: ImageTransferStatus.INITIATED,
    ImageTransferStatus.ACTIVATION_INITIATED: ImageTransferStatus.VERIFICATION_SUCCESSFUL,
}


class ImageSpoolError(LocalError):
    """An image cannot be kept; the text says why."""


class ImageVerdict(NamedTuple):
    """What came of checking or installing: `busy` says that another update is under way, to be asked again."""

    accepted: bool
    words: str
    busy: bool = False
    version: str = ""


Work = Callable[[Path], Awaitable[ImageVerdict]]
Submit = Callable[[Awaitable[ImageVerdict]], "Future[ImageVerdict]"]


class FileBlocks:
    """Blocks in a file, with a file that says which are there."""

    def __init__(self, folder: Path) -> None:
        """Take up what is there, or nothing."""
        self.identification = b""
        self.size = 0
        self.received = bytearray()
        self.status = ImageTransferStatus.NOT_INITIATED
        self.images: tuple[ImageToActivate, ...] = ()
        self.in_use: Callable[[], bool] = lambda: False
        self.image = folder / "image.raucb"
        self._folder = folder
        self._state = folder / "image.json"
        self._bitmap = folder / "image.blocks"
        self._unsynced = 0
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            self._load()

    def _load(self) -> None:
        content: dict[str, Any] = json.loads(self._state.read_text())
        blocks = bytearray(self._bitmap.read_bytes())
        size = int(content["size"])
        if self.image.stat().st_size != size or len(blocks) != -(-size // BLOCK_OCTETS):
            return
        status = ImageTransferStatus(int(content["status"]))
        self.images = tuple(
            [
                ImageToActivate(int(octets), bytes.fromhex(name), bytes.fromhex(signature))
                for octets, name, signature in content["images"]
            ]
        )
        self.identification, self.size = bytes.fromhex(content["identification"]), size
        self.received, self.status = blocks, _AFTER_RESTART.get(status, status)

    def begin(self, identification: bytes, size: int, block_size: int) -> None:
        """Forget what was here, and keep room for an image.

        Raises:
            ImageSpoolError: the image before is being installed, or there is no room.
        """
        if self.in_use():
            raise ImageSpoolError(f"{self.image}: is being checked or installed; wait until that has ended")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._state.unlink(missing_ok=True)
            with open(self.image, "wb") as file:  # noqa: PTH123 - for posix_fallocate
                os.posix_fallocate(file.fileno(), 0, size)
            self._bitmap.write_bytes(bytes(-(-size // block_size)))
        except OSError as error:
            self.image.unlink(missing_ok=True)
            raise ImageSpoolError(f"{self.image}: no room for {size} octets: {error.strerror}") from None
        self.identification, self.size = identification, size
        self.received = bytearray(-(-size // block_size))
        self._unsynced = 0

    def write(self, index: int, start: int, octets: bytes) -> None:
        """Keep one block.

        Raises:
            ImageSpoolError: it cannot be written.
        """
        try:
            with open(self.image, "r+b") as file:  # noqa: PTH123 - positioned writing
                os.pwrite(file.fileno(), octets, start)
                self._unsynced += len(octets)
                self.received[index] = 1
                if self._unsynced >= _SYNC_OCTETS or 0 not in self.received:
                    os.fdatasync(file.fileno())
                    self._mark()
        except OSError as error:
            self.received[index] = 0
            raise ImageSpoolError(f"{self.image}: cannot be written: {error.strerror}") from None

    def _mark(self) -> None:
        with open(self._bitmap, "r+b") as file:  # noqa: PTH123 - for fdatasync
            file.write(self.received)
            file.flush()
            os.fdatasync(file.fileno())
        self._unsynced = 0

    def octets(self) -> bytes:
        """Nothing: the image is `image`."""
        return b""

    def note(self, status: ImageTransferStatus, images: tuple[ImageToActivate, ...]) -> None:
        """Keep the status, for a restart."""
        content = {
            "identification": self.identification.hex(),
            "size": self.size,
            "status": int(status),
            "images": [[octets, name.hex(), signature.hex()] for octets, name, signature in images],
        }
        fresh = self._state.with_suffix(".new")
        try:
            with open(fresh, "w") as file:  # noqa: PTH123 - for fsync
                json.dump(content, file)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._state)
        except OSError as error:
            raise ImageSpoolError(f"{self._state}: cannot be written: {error.strerror}") from None


class UpdateImage:
    """Image transfer for our own update. Call it on one thread; `submit` has work done elsewhere.

    `inspect` checks the signature of a file, `install` has it installed. `note` enters what happened.
    """

    def __init__(  # noqa: PLR0913 - what it stands between
        self,
        folder: Path,
        largest: int,
        inspect: Work,
        install: Work,
        submit: Submit,
        note: Callable[[str, str], None],
    ) -> None:
        self._inspect = inspect
        self._install = install
        self._submit = submit
        self._note = note
        self._job: Future[ImageVerdict] | None = None
        self._blocks = FileBlocks(folder)
        self._blocks.in_use = lambda: self._job is not None and not self._job.done()
        self._transfer = ImageTransfer(
            BLOCK_OCTETS, self._verify, self._activate, largest=largest, blocks=self._blocks
        )
        self._transfer.status = self._blocks.status
        self._transfer.to_activate = self._blocks.images
        self._transfer.on_status = self._told

    def cosem_object(self) -> CosemObject:
        """The object."""
        return self._transfer.cosem_object()

    def _told(self, status: ImageTransferStatus) -> None:
        if status is ImageTransferStatus.INITIATED:
            self._job = None
        name = self._blocks.identification.decode("ascii", "replace")[:40]
        self._note("update", f"image {name!r}: {status.name.lower().replace('_', ' ')}")
        try:
            self._blocks.note(status, self._transfer.to_activate)
        except ImageSpoolError as error:
            log.warning("status of the image not kept", reason=str(error))

    def _ask(self, work: Work) -> ImageVerdict | None:
        """The verdict, once it is there; None while it is awaited."""
        if self._job is None:
            self._job = self._submit(work(self._blocks.image))
            return None
        if not self._job.done():
            return None
        job, self._job = self._job, None
        error = job.exception()
        verdict = ImageVerdict(False, type(error).__name__) if error is not None else job.result()
        if verdict.busy:
            return None
        if not verdict.accepted:
            self._note("update", f"image refused: {verdict.words}")
        return verdict

    def _verify(self, identification: bytes, _octets: bytes) -> tuple[Outcome, tuple[ImageToActivate, ...]]:
        verdict = self._ask(self._inspect)
        if verdict is None:
            return Outcome.PENDING, ()
        if not verdict.accepted:
            return Outcome.FAILED, ()
        image = ImageToActivate(self._blocks.size, identification, verdict.version.encode()[:64])
        return Outcome.DONE, (image,)

    def _activate(self, _images: tuple[ImageToActivate, ...], _octets: bytes) -> Outcome:
        verdict = self._ask(self._install)
        if verdict is None:
            return Outcome.PENDING
        return Outcome.DONE if verdict.accepted else Outcome.FAILED
