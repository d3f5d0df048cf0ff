"""What is done with one meter of a campaign, in an open association: step by step, from wherever the meter stands.

Each step asks the meter first, does what is next, and is on flash before the step after it. What the meter refuses for
good ends its part in the campaign; what is lost on the way is tried again in a later visit.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Protocol, TypeVar

import structlog

from concentrator.collection.firmware.campaign import Campaign, MeterProgress, Stage
from concentrator.collection.firmware.desk import FirmwareDesk
from concentrator.collection.firmware.errors import FirmwareImageError
from concentrator.collection.meter_reader import read_identity
from concentrator.collection.object_reader import KnownObjects
from concentrator.collection.registry import CollectedMeter
from concentrator.dlms import image_transfer_client as image_transfer
from concentrator.dlms.client import Client, Conversation
from concentrator.dlms.codes import ActionResult
from concentrator.dlms.cosem.image_transfer import ImageTransferStatus
from concentrator.dlms.errors import AccessError, DlmsError, EncodeError
from concentrator.errors import TransientError

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

Result = TypeVar("Result")

# So many blocks go out before anybody else is looked after: what is lost by a stop is less than that.
BATCH = 16
_ASK_AGAIN_S = 20.0
_LONGEST_VERIFICATION_S = 3600
_MOST_PASSES = 50


class FirmwareVisit(Protocol):
    """What is needed of a visit."""

    meter: CollectedMeter

    @property
    def client(self) -> Client:
        """The association."""
        ...

    def now(self) -> datetime:
        """The time, in UTC."""
        ...

    async def converse(self, conversation: Conversation[Result]) -> Result:
        """Carry a conversation to its end. Raises TransientError, DlmsError."""
        ...

    async def step_aside(self) -> bool:
        """Let orders for this meter go first; True: the place is needed for something more urgent."""
        ...


class MeterTransfer:
    """One meter's part in a campaign, as far as it goes in this visit."""

    def __init__(
        self, desk: FirmwareDesk, campaign: Campaign, progress: MeterProgress, visit: FirmwareVisit
    ) -> None:
        self._desk = desk
        self._campaign = campaign
        self._progress = progress
        self._visit = visit
        self._manifest = campaign.plan.manifest
        self._image = b""
        # Each gives whether to go on at once.
        self._steps: dict[Stage, Callable[[], Awaitable[bool]]] = {
            Stage.WAITING: self._begin,
            Stage.TRANSFERRING: self._send,
            Stage.VERIFYING: self._verify,
            Stage.VERIFIED: self._compare,
            Stage.WAITING_FOR_ACTIVATION: self._activate,
            Stage.ACTIVATING: self._look_at_version,
        }

    async def hold(self) -> None:
        """Do what can be done now.

        Raises:
            TransientError: the meter or the link went away.
            StoreError: how far it is could not be kept.
        """
        try:
            if self._progress.stage in (Stage.WAITING, Stage.TRANSFERRING):
                self._image = await self._desk.image(self._campaign)
            while not self._progress.stage.is_final:
                self._visit.meter.activity = f"firmware: {self._progress.stage.replace('_', ' ')}"
                if not await self._steps[self._progress.stage]():
                    return
        except FirmwareImageError as error:
            log.error(
                "firmware image not usable any more", campaign=self._campaign.plan.name, reason=str(error)
            )
        except EncodeError as error:
            await self._fail(f"a block of {self._progress.block_size} octets cannot be sent: {error}")
        except AccessError as error:
            if error.result == ActionResult.TEMPORARY_FAILURE:
                await self._desk.set_back(self._campaign, self._progress, str(error))
            else:
                await self._fail(str(error))
        except DlmsError as error:
            if isinstance(error, TransientError):
                raise
            await self._desk.set_back(self._campaign, self._progress, str(error))

    # The steps

    async def _begin(self) -> bool:
        if not self._may_go_on():
            return False
        record = self._visit.meter.record
        version = await self._read_version()
        self._progress.from_version = version
        if version == self._manifest.to_version:
            await self._done(version, "had it already")
            return False
        if reason := self._manifest.misfit(record.manufacturer, record.model, version):
            await self._fail(reason, version)
            return False
        return await self._initiate()

    async def _initiate(self) -> bool:
        """Begin the transfer, which erases what the meter has of any."""
        client, progress = self._visit.client, self._progress
        state = await self._visit.converse(image_transfer.read_state(client))
        if not state.enabled:
            await self._visit.converse(image_transfer.enable(client))
        progress.block_size = state.block_size
        progress.blocks = image_transfer.block_count(self._manifest.size, state.block_size)
        progress.blocks_done = 0
        await self._visit.converse(
            image_transfer.initiate(client, self._manifest.identifier, self._manifest.size)
        )
        await self._move(Stage.TRANSFERRING)
        return True

    async def _send(self) -> bool:
        if not self._may_go_on():
            return False
        client, progress = self._visit.client, self._progress
        state = await self._visit.converse(image_transfer.read_state(client))
        if state.status in _AFTER_TRANSFER:
            await self._move(Stage.VERIFYING)
            return True
        if state.status is not ImageTransferStatus.INITIATED or state.block_size != progress.block_size:
            progress.tries += 1
            if progress.tries >= self._campaign.plan.tries:
                await self._fail("the meter loses the image again and again")
                return False
            progress.reason = "the meter has lost the image: begun anew"
            return await self._initiate()
        missing = await self._visit.converse(image_transfer.read_missing(client, progress.blocks))
        for _ in range(_MOST_PASSES):
            if not missing:
                break
            if not await self._send_missing(missing):
                return False
            lacked = len(missing)
            missing = await self._visit.converse(image_transfer.read_missing(client, progress.blocks))
            await self._desk.note_blocks(self._campaign, progress, progress.blocks - len(missing))
            if len(missing) >= lacked:
                words = f"the meter acknowledges blocks and does not keep them ({len(missing)} missing)"
                await self._desk.set_back(self._campaign, progress, words)
                return False
        if missing or not self._may_go_on():
            return False
        await self._move(Stage.VERIFYING)
        return True

    async def _send_missing(self, missing: list[int]) -> bool:
        """Send what the meter lacks, a batch at a time; False: somebody else needs the place."""
        client, progress = self._visit.client, self._progress
        lacked = len(missing)
        await self._desk.note_blocks(self._campaign, progress, progress.blocks - lacked)
        sent = 0
        for start in range(0, lacked, BATCH):
            batch = missing[start : start + BATCH]
            sent += await self._visit.converse(
                image_transfer.send_blocks(client, self._image, progress.block_size, batch)
            )
            await self._desk.note_blocks(self._campaign, progress, progress.blocks - lacked + sent)
            if await self._visit.step_aside() or not self._may_go_on():
                return False
        return True

    async def _verify(self) -> bool:
        if not self._may_go_on():
            return False
        client, progress = self._visit.client, self._progress
        status = await self._visit.converse(image_transfer.read_status(client))
        if status is ImageTransferStatus.INITIATED:
            status = await self._visit.converse(image_transfer.verify(client))
        if status in (ImageTransferStatus.VERIFICATION_SUCCESSFUL, *_AFTER_ACTIVATION):
            await self._move(Stage.VERIFIED)
            return True
        if status is ImageTransferStatus.VERIFICATION_FAILED:
            await self._fail("the meter refused the image at the verification")
            return False
        if status is ImageTransferStatus.NOT_INITIATED:
            await self._move(Stage.TRANSFERRING, "the meter has lost the image")
            return True
        lasted_s = self._visit.now().timestamp() - progress.changed_at
        if lasted_s > _LONGEST_VERIFICATION_S:
            await self._fail(f"the meter verifies for more than {_LONGEST_VERIFICATION_S} s")
            return False
        # When the verification began stays as it is: only the next question is put off.
        progress.next_try_at = round(self._visit.now().timestamp() + _ASK_AGAIN_S)
        await self._desk.keep(self._campaign, progress)
        return False

    async def _compare(self) -> bool:
        """What the meter would activate has to be this image."""
        images = await self._visit.converse(image_transfer.read_images_to_activate(self._visit.client))
        manifest = self._manifest
        wanted = bytes.fromhex(manifest.image_signature)
        for image in images:
            if image.identification == manifest.identifier and image.size == manifest.size:
                if wanted and image.signature != wanted:
                    await self._fail(
                        f"the meter shows the signature {image.signature.hex()[:128]} for the image, another one than "
                        "the manifest"
                    )
                    return False
                break
        else:
            if images:
                told = ", ".join(f"{image.identification!r} of {image.size} octets" for image in images)
                await self._fail(f"the meter would activate another image: {told[:300]}")
                return False
            if wanted:
                await self._fail("the meter does not tell which image it would activate, nor its signature")
                return False
        await self._move(Stage.WAITING_FOR_ACTIVATION)
        return True

    async def _activate(self) -> bool:
        plan, now = self._campaign.plan, self._visit.now()
        if plan.activate_from is not None and now < plan.activate_from:
            wait_s = (plan.activate_from - now).total_seconds()
            await self._move(Stage.WAITING_FOR_ACTIVATION, pause_s=wait_s)
            return False
        if not self._may_go_on():
            return False
        # On flash before the meter is told: from here on its version says what came of it.
        self._progress.activated_at = round(now.timestamp())
        await self._move(Stage.ACTIVATING, pause_s=self._pause_s)
        try:
            status = await self._visit.converse(image_transfer.activate(self._visit.client))
        except TransientError as error:
            # Most likely it restarts.
            log.info("no answer to the activation", meter=self._progress.meter, reason=str(error))
            return False
        if status is ImageTransferStatus.ACTIVATION_FAILED:
            await self._fail("the activation failed, the meter says", await self._read_version())
        return False

    async def _look_at_version(self) -> bool:
        progress, now = self._progress, self._visit.now()
        version = await self._read_version()
        if version == self._manifest.to_version:
            await self._done(version, "")
            return False
        try:
            status = await self._visit.converse(image_transfer.read_status(self._visit.client))
        except AccessError:
            status = ImageTransferStatus.NOT_INITIATED
        lasted_s = now.timestamp() - progress.activated_at
        if status is ImageTransferStatus.ACTIVATION_FAILED:
            await self._fail("the activation failed, the meter says", version)
        elif status is ImageTransferStatus.VERIFICATION_SUCCESSFUL and self._may_go_on():
            # The service ended, or the line was lost, before the meter was told.
            return await self._tell_again()
        elif (
            lasted_s >= self._campaign.plan.settle_s
            and status is not ImageTransferStatus.ACTIVATION_INITIATED
        ):
            await self._fail(f"came back with the version {version or '(none)'}", version)
        elif lasted_s >= self._campaign.plan.settle_s + _LONGEST_VERIFICATION_S:
            await self._fail(
                f"still activates after {round(lasted_s)} s, with the version {version}", version
            )
        else:
            await self._move(Stage.ACTIVATING, progress.reason, pause_s=self._pause_s)
        return False

    async def _tell_again(self) -> bool:
        self._progress.tries += 1
        if self._progress.tries >= self._campaign.plan.tries:
            await self._fail("the meter does not begin the activation")
            return False
        status = await self._visit.converse(image_transfer.activate(self._visit.client))
        if status is ImageTransferStatus.ACTIVATION_FAILED:
            await self._fail("the activation failed, the meter says", await self._read_version())
            return False
        tries = self._progress.tries
        await self._move(Stage.ACTIVATING, pause_s=self._pause_s)
        self._progress.tries = tries
        return False

    # What the steps share

    @property
    def _pause_s(self) -> float:
        """Between two questions what came of an activation."""
        return min(_ASK_AGAIN_S, max(1.0, self._campaign.plan.settle_s / 4))

    def _may_go_on(self) -> bool:
        return not self._progress.stage.is_final and self._desk.may_go_on(self._campaign)

    async def _read_version(self) -> str:
        """What the meter runs; kept in its record."""
        identity = await self._visit.converse(read_identity(self._visit.client))
        meter = self._visit.meter
        if identity.firmware and identity.firmware != meter.record.firmware:
            meter.record.firmware = identity.firmware
            # New firmware may bring objects that were not there.
            meter.objects = KnownObjects()
        return identity.firmware

    async def _move(self, stage: Stage, reason: str = "", *, pause_s: float = 0.0) -> None:
        if self._progress.stage.is_final:
            # Aborted meanwhile.
            return
        await self._desk.move(self._campaign, self._progress, stage, reason, pause_s=pause_s)

    async def _done(self, version: str, words: str) -> None:
        await self._desk.move(self._campaign, self._progress, Stage.DONE, words, version=version)

    async def _fail(self, reason: str, version: str = "") -> None:
        await self._desk.move(self._campaign, self._progress, Stage.FAILED, reason, version=version)


_AFTER_ACTIVATION = (
    ImageTransferStatus.ACTIVATION_INITIATED,
    ImageTransferStatus.ACTIVATION_SUCCESSFUL,
)
_AFTER_TRANSFER = (
    ImageTransferStatus.VERIFICATION_INITIATED,
    ImageTransferStatus.VERIFICATION_SUCCESSFUL,
    ImageTransferStatus.VERIFICATION_FAILED,
)
