"""Keeps the campaigns: which meter is next, what became of each, when a campaign has to stop.

Nothing is kept in memory only: each change of a meter's state is on flash before the next step, so that a campaign
goes on where it was after a power cut. What a meter has of an image is asked of the meter itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import tzinfo
from typing import Any

import structlog

from concentrator.clock import Clock, is_plausible
from concentrator.collection.firmware.campaign import (
    Campaign,
    CampaignState,
    FirmwareSelection,
    MeterProgress,
    Plan,
    Stage,
)
from concentrator.collection.firmware.errors import CampaignError, FirmwareImageError
from concentrator.collection.firmware.library import FirmwareLibrary
from concentrator.collection.firmware.manifest import Manifest
from concentrator.collection.quiet_hours import QuietHours
from concentrator.collection.registry import CollectedMeter, Registry
from concentrator.errors import ConcentratorError
from concentrator.store.audit import AuditEntry
from concentrator.store.errors import StoreError
from concentrator.store.readings import to_epoch
from concentrator.store.store import Store

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

RESULT = "firmware_result"
_ITSELF = "the campaign"
_LOOK_S = 10.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 60, 6 * 3600
# Between two of these how many blocks a meter has is kept in memory only: it is the meter that knows.
_KEEP_PROGRESS_S = 30.0
_MOST_NAMED = 5
# Where something of the meter has been begun, in the order in which it is gone on with.
_BEFORE_OTHERS = (
    Stage.ACTIVATING,
    Stage.WAITING_FOR_ACTIVATION,
    Stage.VERIFIED,
    Stage.VERIFYING,
    Stage.TRANSFERRING,
)


class FirmwareDesk:
    """Campaigns by name. `on_work` is called when a meter may have become due."""

    def __init__(  # noqa: PLR0913 - what it decides by
        self,
        store: Store,
        clock: Clock,
        registry: Registry,
        library: FirmwareLibrary,
        quiet: QuietHours,
        zone: tzinfo,
    ) -> None:
        self.library = library
        self.campaigns: dict[str, Campaign] = {}
        self._store = store
        self._clock = clock
        self._registry = registry
        self._quiet = quiet
        self._zone = zone
        self._images: dict[str, bytes] = {}
        self._begun = asyncio.Event()

    async def load(self) -> None:
        """Take over the campaigns of an earlier run of the service."""
        campaigns, rows = await self._store.firmware.load()
        for row in campaigns:
            try:
                campaign = Campaign.from_rows(row, [one for one in rows if one.campaign == row.name])
            except ConcentratorError as error:
                log.error("firmware campaign forgotten", campaign=row.name, reason=str(error))
                continue
            self.campaigns[row.name] = campaign
            self._begun.set()

    async def run(self) -> None:
        """Look after what ends by time, until cancelled."""
        while True:
            await self._begun.wait()
            if not self.open_campaigns:
                self._begun.clear()
                continue
            try:
                for campaign in list(self.open_campaigns):
                    await self._end_in_time(campaign)
            except StoreError as error:
                log.warning("firmware campaign not kept", reason=str(error))
            await asyncio.sleep(_LOOK_S)

    @property
    def open_campaigns(self) -> list[Campaign]:
        """Those with meters that are not over, oldest first."""
        return [one for one in self.campaigns.values() if not one.is_over]

    def campaign(self, name: str) -> Campaign:
        """The campaign of a name. Raises CampaignError."""
        if name not in self.campaigns:
            known = ", ".join(self.campaigns) or "none"
            raise CampaignError(f"no campaign {name!r} is known; known: {known}")
        return self.campaigns[name]

    # Which meter is next

    def next_meter(self, now_s: float) -> CollectedMeter | None:
        """A meter that something is to be done with now; `tried` has to follow. `now_s` is monotonic."""
        if not self.campaigns:
            return None
        now = self._clock.now()
        for campaign in self.campaigns.values():
            if campaign.is_over:
                continue
            is_open = campaign.plan.is_open(now, self._quiet, self._zone)
            running = campaign.state is CampaignState.RUNNING and is_open
            for progress in self._ready(campaign, to_epoch(now), running=running):
                meter = self._meter(progress.meter)
                if meter is None or meter.address is None or meter.busy or meter.wanted:
                    continue
                if meter.record.left_alone or meter.rests_until > now_s:
                    continue
                progress.busy = True
                return meter
        return None

    def _ready(self, campaign: Campaign, now: int, *, running: bool) -> Iterable[MeterProgress]:
        due = [one for one in campaign.meters.values() if not one.busy and one.next_try_at <= now]
        if not running:
            # What was told to activate is asked what came of it, whatever became of the campaign.
            return [one for one in due if one.stage is Stage.ACTIVATING]
        if sum(one.busy for one in campaign.meters.values()) >= campaign.plan.at_once:
            return []
        found = [one for stage in _BEFORE_OTHERS for one in due if one.stage is stage]
        return found + ([one for one in due if one.stage is Stage.WAITING] if self._more(campaign) else [])

    @staticmethod
    def _more(campaign: Campaign) -> bool:
        """Whether another meter may be begun with."""
        # Those that wait for the night of their activation do not keep others from their blocks.
        under_way = sum(one.stage is not Stage.WAITING_FOR_ACTIVATION for one in campaign.begun)
        if under_way >= campaign.plan.at_once:
            return False
        done, first = campaign.count(Stage.DONE), campaign.plan.first
        return done >= first or done + len(list(campaign.begun)) < first

    def _meter(self, identity: str) -> CollectedMeter | None:
        if self._registry.find(identity) is None:
            return None
        return self._registry.known(identity)

    def of_meter(self, identity: str) -> tuple[Campaign, MeterProgress] | None:
        """The campaign that a meter is in and that is not over, with how far the meter is."""
        for campaign in self.campaigns.values():
            progress = campaign.meters.get(identity)
            if progress is not None and not progress.stage.is_final:
                return campaign, progress
        return None

    def may_go_on(self, campaign: Campaign) -> bool:
        """Whether blocks may still be sent, and meters told to activate."""
        now = self._clock.now()
        return campaign.state is CampaignState.RUNNING and campaign.plan.is_open(now, self._quiet, self._zone)

    async def image(self, campaign: Campaign) -> bytes:
        """The octets of a campaign's image, checked anew when they are read.

        Raises:
            FirmwareImageError: the files were changed since, or are gone; the campaign is paused.
        """
        manifest = campaign.plan.manifest
        if manifest.sha256 not in self._images:
            try:
                found = await asyncio.to_thread(self.library.load, campaign.plan.image)
                if found.manifest != manifest:
                    raise FirmwareImageError(
                        f"{campaign.plan.image}: was changed since the campaign began; begin another"
                    )
            except FirmwareImageError as error:
                if campaign.state is CampaignState.RUNNING:
                    await self.pause(campaign, str(error), _ITSELF)
                raise
            self._images[manifest.sha256] = found.octets
        return self._images[manifest.sha256]

    # What became of a meter

    async def move(  # noqa: PLR0913 - what may change with the state
        self,
        campaign: Campaign,
        progress: MeterProgress,
        stage: Stage,
        reason: str = "",
        *,
        pause_s: float = 0.0,
        version: str = "",
    ) -> None:
        """Enter a meter's new state; on flash when this returns. `version` is what it runs now.

        Raises:
            StoreError: it could not be kept.
        """
        now = to_epoch(self._clock.now())
        before = progress.stage
        progress.stage, progress.reason, progress.changed_at = stage, reason, now
        progress.next_try_at = now + round(pause_s) if pause_s else 0
        if stage is not before:
            progress.tries = 0
        await self._keep(campaign, progress)
        if stage is not before:
            log.info(
                "meter firmware", campaign=campaign.plan.name, meter=progress.meter, state=stage.value, reason=reason
            )  # fmt: skip
        if stage.is_final:
            await self._tell_result(campaign, progress, version)
            await self._judge(campaign)

    async def note_blocks(self, campaign: Campaign, progress: MeterProgress, done: int) -> None:
        """How many blocks the meter has now. Raises StoreError."""
        if done > progress.blocks_done:
            progress.tries, progress.reason = 0, ""
        progress.blocks_done = done
        progress.changed_at = to_epoch(self._clock.now())
        if self._clock.monotonic() - progress.kept_at >= _KEEP_PROGRESS_S:
            await self._keep(campaign, progress)

    async def keep(self, campaign: Campaign, progress: MeterProgress) -> None:
        """Keep how far a meter is, as it is. Raises StoreError."""
        await self._keep(campaign, progress)

    async def _keep(self, campaign: Campaign, progress: MeterProgress) -> None:
        await self._store.firmware.keep(meters=[progress.row(campaign.plan.name)])
        progress.kept_at = self._clock.monotonic()

    async def tried(self, identity: str, trouble: str) -> None:
        """A visit for firmware has ended; `trouble` is why it came to nothing. Tried again with growing pauses."""
        for campaign in self.campaigns.values():
            if identity in campaign.meters:
                campaign.meters[identity].busy = False
        found = self.of_meter(identity)
        if found is None:
            return
        campaign, progress = found
        try:
            if trouble:
                await self.set_back(campaign, progress, trouble)
            elif progress.stage is Stage.TRANSFERRING:
                await self._keep(campaign, progress)
        except StoreError as error:
            log.warning("firmware progress not kept", meter=identity, reason=str(error))

    async def set_back(self, campaign: Campaign, progress: MeterProgress, trouble: str) -> None:
        """A try came to nothing: another follows later, or the meter has failed. Raises StoreError."""
        progress.tries += 1
        if progress.tries >= campaign.plan.tries:
            did_not = "did not come back after the activation: " if progress.stage is Stage.ACTIVATING else ""
            await self.move(campaign, progress, Stage.FAILED, f"{did_not}{trouble} ({progress.tries} tries)")
            return
        pause_s = min(_FIRST_PAUSE_S * 2 ** (progress.tries - 1), _LONGEST_PAUSE_S)
        progress.reason, progress.changed_at = trouble, to_epoch(self._clock.now())
        progress.next_try_at = progress.changed_at + pause_s
        await self._keep(campaign, progress)

    async def _tell_result(self, campaign: Campaign, progress: MeterProgress, version: str) -> None:
        after = {"firmware": version} if version else {}
        entry = self._entry(campaign, RESULT, _ITSELF, progress.stage.value, progress.reason)
        entry.meter, entry.before, entry.after = progress.meter, {"firmware": progress.from_version}, after
        await self._audit(entry)

    async def _judge(self, campaign: Campaign) -> None:
        """What a meter's end means for the campaign."""
        failed = campaign.count(Stage.FAILED)
        if campaign.is_over:
            self._images.pop(campaign.plan.manifest.sha256, None)
            if campaign.state is not CampaignState.ABORTED:
                version, done = campaign.plan.manifest.to_version, campaign.count(Stage.DONE)
                words = f"{done} of {len(campaign.meters)} meters have {version}, {failed} failed"
                await self._change(campaign, CampaignState.FINISHED, words)
                await self._audit(self._entry(campaign, RESULT, _ITSELF, "done", words))
        elif campaign.state is CampaignState.RUNNING and campaign.failures >= campaign.plan.failure_limit:
            words = f"{campaign.failures} meters have failed, the limit is {campaign.plan.failure_limit}"
            await self.pause(campaign, words, _ITSELF)

    async def _end_in_time(self, campaign: Campaign) -> None:
        end, now = campaign.plan.not_after, self._clock.now()
        too_late = end is not None and now >= end and is_plausible(now)
        for progress in list(campaign.meters.values()):
            if progress.stage.is_final or progress.busy:
                continue
            meter = self._meter(progress.meter)
            if meter is None or meter.record.left_alone:
                gone = "not known any more" if meter is None else f"{meter.record.state.value} and left alone"
                await self.move(campaign, progress, Stage.FAILED, f"the meter is {gone}")
            elif too_late and progress.stage is not Stage.ACTIVATING:
                await self.move(
                    campaign, progress, Stage.FAILED, "the latest time of the campaign has passed"
                )

    # Campaigns as such

    async def start(self, plan: Plan, order_id: str) -> tuple[Campaign, dict[str, str]]:
        """Begin a campaign; gives it, and why meters of the selection are left out.

        Raises:
            CampaignError: there is one of that name, a named meter does not fit, or none fits; nothing was begun.
            StoreError: it could not be kept.
        """
        if plan.name in self.campaigns:
            raise CampaignError(f"campaign {plan.name!r}: there is one of that name; give it another")
        now = self._clock.now()
        if plan.not_after is not None and plan.not_after <= now:
            raise CampaignError(f"campaign {plan.name!r}: not_after {plan.not_after.isoformat()} has passed")
        selected, left_out = self._select(plan)
        if FirmwareSelection(plan.meters).names and left_out:
            raise CampaignError(f"campaign {plan.name!r}: nothing was begun: {_named(left_out)}")
        if not selected:
            why = _named(left_out) if left_out else f"no meter is selected by {plan.meters[:80]!r}"
            raise CampaignError(
                f"campaign {plan.name!r}: nothing was begun: the image is for no meter: {why}"
            )
        campaign = Campaign(plan, now, changed_at=now)
        campaign.meters = {
            meter.identity: MeterProgress(
                meter.identity, from_version=meter.record.firmware, changed_at=to_epoch(now)
            )
            for meter in selected
        }
        await self._store.firmware.begin(
            campaign.row(), [one.row(plan.name) for one in campaign.meters.values()]
        )
        self.campaigns[plan.name] = campaign
        self._begun.set()
        words = f"{len(selected)} meters, to {plan.manifest.to_version}; SHA-256 {plan.manifest.sha256}"
        log.warning("firmware campaign begun", campaign=plan.name, meters=len(selected), by=plan.started_by)
        await self._audit(
            self._entry(campaign, "firmware_start", plan.started_by, "done", words, order_id=order_id)
        )
        return campaign, left_out

    def _select(self, plan: Plan) -> tuple[list[CollectedMeter], dict[str, str]]:
        selection, found, left_out = FirmwareSelection(plan.meters), list[CollectedMeter](), dict[str, str]()
        for name in selection.names:
            if self._registry.find(name) is None:
                left_out[name] = "no such meter is known on the power line network"
        for meter in self._registry:
            if not selection.holds(meter.record):
                continue
            if reason := self._misfit(plan.manifest, meter):
                left_out[meter.identity] = reason
            else:
                found.append(meter)
        return sorted(found, key=lambda meter: meter.identity), left_out

    def _misfit(self, manifest: Manifest, meter: CollectedMeter) -> str:
        record = meter.record
        if record.left_alone:
            return f"it is {record.state.value} and left alone"
        if not meter.identified:
            return "it has not told yet who it is"
        busy = self.of_meter(meter.identity)
        if busy is not None:
            return f"campaign {busy[0].plan.name!r} is under way on it"
        return manifest.misfit(record.manufacturer, record.model, record.firmware)

    async def pause(self, campaign: Campaign, reason: str, who: str, order_id: str = "") -> None:
        """Stop after the blocks that are on their way; what is activating is still asked what came of it.

        Raises:
            CampaignError: it does not run.
        """
        if campaign.state is not CampaignState.RUNNING:
            raise CampaignError(f"campaign {campaign.plan.name!r} is {campaign.state}, not running")
        await self._change(campaign, CampaignState.PAUSED, reason)
        await self._audit(self._entry(campaign, "firmware_pause", who, "done", reason, order_id=order_id))

    async def resume(self, campaign: Campaign, who: str, order_id: str = "") -> None:
        """Go on with a paused campaign; its failures so far do not count any more towards the limit.

        Raises:
            CampaignError: it is not paused.
        """
        if campaign.state is not CampaignState.PAUSED:
            raise CampaignError(f"campaign {campaign.plan.name!r} is {campaign.state}, not paused")
        campaign.forgiven = campaign.count(Stage.FAILED)
        await self._change(campaign, CampaignState.RUNNING, "")
        self._begun.set()
        await self._audit(self._entry(campaign, "firmware_resume", who, "done", order_id=order_id))

    async def abort(self, campaign: Campaign, who: str, order_id: str = "") -> None:
        """End a campaign: meters that are not over stay as they are, but for those that are activating already.

        Raises:
            CampaignError: it is over already.
        """
        if campaign.state not in (CampaignState.RUNNING, CampaignState.PAUSED):
            raise CampaignError(f"campaign {campaign.plan.name!r} is {campaign.state} already")
        ended = [
            one
            for one in campaign.meters.values()
            if not one.stage.is_final and one.stage is not Stage.ACTIVATING
        ]
        now = self._clock.now()
        for one in ended:
            one.stage, one.changed_at, one.next_try_at = Stage.ABORTED, to_epoch(now), 0
            one.reason = "the campaign was aborted"
        campaign.state, campaign.changed_at, campaign.reason = CampaignState.ABORTED, now, f"by {who}"
        await self._store.firmware.keep(campaign.row(), [one.row(campaign.plan.name) for one in ended])
        await self._audit(
            self._entry(
                campaign,
                "firmware_abort",
                who,
                "done",
                f"{len(ended)} meters were not over",
                order_id=order_id,
            )
        )

    async def _change(self, campaign: Campaign, state: CampaignState, reason: str) -> None:
        campaign.state, campaign.reason, campaign.changed_at = state, reason, self._clock.now()
        log.warning("firmware campaign", campaign=campaign.plan.name, state=state.value, reason=reason)
        await self._store.firmware.keep(campaign.row())

    def _entry(  # noqa: PLR0913 - the columns of an entry
        self,
        campaign: Campaign,
        operation: str,
        who: str,
        state: str,
        detail: str = "",
        *,
        order_id: str = "",
    ) -> AuditEntry:
        now = self._clock.now()
        arguments = {"campaign": campaign.plan.name, "image": campaign.plan.image}
        return AuditEntry(
            order_id or f"firmware-{campaign.plan.name}",
            operation,
            "",
            who,
            now,
            arguments,
            state=state,
            detail=detail,
            completed_at=now,
        )

    async def _audit(self, entry: AuditEntry) -> None:
        try:
            await self._store.add_audit_entry(entry)
        except StoreError as error:
            log.error("not in the audit trail", op=entry.operation, reason=str(error))

    # For whoever looks

    def view(self, name: str = "", *, with_meters: bool = True) -> dict[str, Any]:
        """Every campaign, newest first, or the one of a name, as JSON values."""
        shown = [one for one in self.campaigns.values() if not name or one.plan.name == name]
        newest_first = sorted(shown, key=lambda one: one.started_at, reverse=True)
        return {"campaigns": [one.view(with_meters=with_meters) for one in newest_first]}


def _named(left_out: dict[str, str]) -> str:
    """A few of them with the reason, and how many more there are."""
    shown = [f"meter {name}: {reason}" for name, reason in list(left_out.items())[:_MOST_NAMED]]
    more = len(left_out) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")
