"""A campaign: one signed image for many meters, when, and how many at a time; and how far each of its meters is."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, tzinfo
from typing import Any

from concentrator.collection.control.arguments import Arguments
from concentrator.collection.firmware.errors import CampaignError
from concentrator.collection.firmware.manifest import Manifest
from concentrator.collection.meter_tasks import MeterSelection, TaskError
from concentrator.collection.quiet_hours import QuietHours
from concentrator.model import IDENTITY_PATTERN, MeterRecord
from concentrator.orders import Order, OrderError
from concentrator.store.firmware import FINAL, CampaignRow, FirmwareMeterRow
from concentrator.store.readings import from_epoch, to_epoch

QUIET = "quiet"
_LONGEST_SELECTION = 200_000
_HOURS_WORDS = "empty: always, quiet: in collection.quiet_hours, or two times of day such as 01:00-05:00"
_MOST_AT_ONCE, _MOST_METERS, _MOST_TRIES = 64, 10_000, 100
_DAY_S = 86_400


class CampaignState(enum.StrEnum):
    """Where a campaign stands."""

    RUNNING = "running"
    PAUSED = "paused"
    ABORTED = "aborted"
    FINISHED = "finished"


class Stage(enum.StrEnum):
    """Where one meter stands; the last three are final."""

    WAITING = "waiting"
    TRANSFERRING = "transferring"
    VERIFYING = "verifying"
    VERIFIED = "verified"
    WAITING_FOR_ACTIVATION = "waiting_for_activation"
    ACTIVATING = "activating"
    DONE = "done"
    FAILED = "failed"
    ABORTED = "aborted"

    @property
    def is_final(self) -> bool:
        """Whether nothing more is done with the meter."""
        return self.value in FINAL


@dataclass(frozen=True, slots=True)
class FirmwareSelection:
    """Which meters: as tasks have it, or those of one model (`model:NAME`) or firmware (`firmware:VERSION`)."""

    text: str = "all"

    @property
    def names(self) -> tuple[str, ...]:
        """The identities, where these are listed one by one; else nothing."""
        if self.text == "all" or ":" in self.text:
            return ()
        return tuple(self.text.replace(",", " ").split())

    def check(self) -> None:
        """Check the text. Raises TaskError."""
        kind, _, value = self.text.partition(":")
        if kind not in ("model", "firmware") or not value:
            MeterSelection(self.text)

    def holds(self, record: MeterRecord) -> bool:
        """Whether a meter is among them."""
        kind, _, value = self.text.partition(":")
        if kind == "model":
            return record.model == value
        if kind == "firmware":
            return record.firmware == value
        return MeterSelection(self.text).holds(
            record.identity, record.medium.value, record.registration.groups
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What was ordered. Moments are aware; None stands for none.

    Blocks go out, and meters are told to activate, from `not_before` up to `not_after` and within `hours`; none is
    told to activate before `activate_from`. `first` meters have to be done before the others begin. When
    `failure_limit` meters have failed the campaign pauses. A meter fails after `tries` tries in a row that came to
    nothing. `settle_s` is how long (seconds) a meter may show its old version after it was told to activate.
    """

    name: str
    image: str
    manifest: Manifest
    meters: str = "all"
    not_before: datetime | None = None
    not_after: datetime | None = None
    activate_from: datetime | None = None
    hours: str = ""
    at_once: int = 2
    first: int = 1
    failure_limit: int = 3
    tries: int = 8
    settle_s: int = 600
    started_by: str = ""

    @classmethod
    def from_order(cls, order: Order, manifest: Manifest) -> Plan:
        """Take the arguments of `firmware_start`; what they name is not looked up here.

        Raises:
            OrderError: one is missing, unknown or wrong.
        """
        given = Arguments.of(order)
        name = given.text("name", 64, order.order_id)
        if not IDENTITY_PATTERN.match(name):
            raise given.mistake("name", "1 to 64 letters, digits, _ or -")
        meters = given.text("meters", _LONGEST_SELECTION, "all").strip()
        try:
            FirmwareSelection(meters).check()
        except TaskError as error:
            words = str(error).partition("allowed: ")[2]
            raise given.mistake("meters", f"model:NAME, firmware:VERSION, {words}") from None
        hours = given.text("hours", 11, "")
        if hours not in ("", QUIET) and not QuietHours.is_span(hours):
            raise given.mistake("hours", _HOURS_WORDS)
        plan = cls(
            name,
            given.text("image", 100),
            manifest,
            meters,
            _moment(given, "not_before"),
            _moment(given, "not_after"),
            _moment(given, "activate_from"),
            hours,
            given.number("at_once", 1, _MOST_AT_ONCE, 2),
            given.number("first", 0, _MOST_METERS, 1),
            given.number("failure_limit", 1, _MOST_METERS, 3),
            given.number("tries", 1, _MOST_TRIES, 8),
            given.number("settle_s", 0, _DAY_S, 600),
            order.who,
        )
        given.finish()
        for earlier in ("not_before", "activate_from"):
            before = getattr(plan, earlier)
            if before is not None and plan.not_after is not None and plan.not_after <= before:
                raise OrderError(f"order {order.order_id}: args: not_after: is not after {earlier}")
        return plan

    def to_json(self) -> str:
        """The plan as the store keeps it."""
        fields = asdict(self)
        for name in _MOMENTS:
            fields[name] = None if fields[name] is None else fields[name].isoformat()
        return json.dumps(fields)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """A plan that the store kept.

        Raises:
            CampaignError: it is of another release, or damaged.
        """
        try:
            fields: dict[str, Any] = json.loads(text)
            about: dict[str, Any] = fields.pop("manifest")
            versions = tuple(about.pop("from_versions"))
            for name in _MOMENTS:
                fields[name] = None if fields[name] is None else datetime.fromisoformat(fields[name])
            return cls(manifest=Manifest(from_versions=versions, **about), **fields)
        except (ValueError, KeyError, TypeError) as error:
            raise CampaignError(f"a campaign in the store cannot be read: {error}") from None

    def is_open(self, now: datetime, quiet: QuietHours, zone: tzinfo) -> bool:
        """Whether meters may be given blocks, and told to activate, now."""
        if self.not_before is not None and now < self.not_before:
            return False
        if self.not_after is not None and now >= self.not_after:
            return False
        if not self.hours:
            return True
        return (quiet if self.hours == QUIET else QuietHours.parse(self.hours, zone)).holds(now)


_MOMENTS = ("not_before", "not_after", "activate_from")


def _moment(given: Arguments, name: str) -> datetime | None:
    text = given.text(name, 40, "")
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise given.mistake(name, "an RFC 3339 time with its zone")
    return moment


@dataclass(slots=True)
class MeterProgress:
    """How far one meter is. Times are seconds since 1970; `blocks` is 0 while their number is not known."""

    meter: str
    stage: Stage = Stage.WAITING
    blocks_done: int = 0
    blocks: int = 0
    block_size: int = 0
    tries: int = 0
    next_try_at: int = 0
    activated_at: int = 0
    changed_at: int = 0
    from_version: str = ""
    reason: str = ""
    # What this run of the service knows: somebody speaks with it for this, and when it was last kept.
    busy: bool = False
    kept_at: float = 0.0

    def row(self, campaign: str) -> FirmwareMeterRow:
        """As the store keeps it."""
        return FirmwareMeterRow(
            campaign,
            self.meter,
            self.stage.value,
            self.blocks_done,
            self.blocks,
            self.block_size,
            self.tries,
            self.next_try_at,
            self.activated_at,
            self.changed_at,
            self.from_version,
            self.reason,
        )

    @classmethod
    def from_row(cls, row: FirmwareMeterRow) -> MeterProgress:
        """As the store kept it."""
        return cls(row.meter, Stage(row.state), *row[3:])

    def view(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "meter": self.meter,
            "state": self.stage.value,
            "blocks_done": self.blocks_done,
            "blocks": self.blocks,
            "tries": self.tries,
            "next_try_at": _iso(self.next_try_at) if not self.stage.is_final else None,
            "changed_at": _iso(self.changed_at),
            "from_version": self.from_version,
            "reason": self.reason,
            "under_way": self.busy,
        }


def _iso(seconds: int) -> str | None:
    return from_epoch(seconds).isoformat() if seconds else None


def _no_meters() -> dict[str, MeterProgress]:
    return {}


@dataclass(slots=True)
class Campaign:
    """A plan that was begun."""

    plan: Plan
    started_at: datetime
    state: CampaignState = CampaignState.RUNNING
    reason: str = ""
    changed_at: datetime | None = None
    meters: dict[str, MeterProgress] = field(default_factory=_no_meters)
    # Failures before somebody resumed it: they do not count towards the limit any more.
    forgiven: int = 0

    @property
    def failures(self) -> int:
        """How many meters have failed since it was begun or resumed."""
        return self.count(Stage.FAILED) - self.forgiven

    @property
    def is_over(self) -> bool:
        """Whether nothing is to be done any more."""
        return all(one.stage.is_final for one in self.meters.values())

    def count(self, *stages: Stage) -> int:
        """How many meters stand at one of these."""
        return sum(one.stage in stages for one in self.meters.values())

    @property
    def begun(self) -> Iterable[MeterProgress]:
        """The meters that something was done with and that are not over."""
        return (
            one
            for one in self.meters.values()
            if not one.stage.is_final and (one.busy or one.stage is not Stage.WAITING)
        )

    def row(self) -> CampaignRow:
        """As the store keeps it."""
        changed = self.changed_at or self.started_at
        return CampaignRow(
            self.plan.name,
            self.plan.to_json(),
            self.state.value,
            self.reason,
            to_epoch(self.started_at),
            to_epoch(changed),
            self.forgiven,
        )

    @classmethod
    def from_rows(cls, row: CampaignRow, meters: Iterable[FirmwareMeterRow]) -> Campaign:
        """As the store kept it. Raises CampaignError."""
        return cls(
            Plan.from_json(row.definition),
            from_epoch(row.started_at),
            CampaignState(row.state),
            row.reason,
            from_epoch(row.changed_at),
            {one.meter: MeterProgress.from_row(one) for one in meters},
            row.forgiven,
        )

    def view(self, *, with_meters: bool = True) -> dict[str, Any]:
        """As JSON values."""
        plan, manifest = self.plan, self.plan.manifest
        counts: Mapping[str, int] = {stage.value: self.count(stage) for stage in Stage}
        moments = {name: getattr(plan, name) for name in _MOMENTS}
        return {
            "name": plan.name,
            "state": self.state.value,
            "reason": self.reason,
            "image": plan.image,
            "manufacturer": manifest.manufacturer,
            "model": manifest.model,
            "from_versions": list(manifest.from_versions),
            "to_version": manifest.to_version,
            "size": manifest.size,
            "sha256": manifest.sha256,
            "meters_selected": plan.meters if len(plan.meters) <= 200 else plan.meters[:200] + " …",  # noqa: PLR2004 - one line
            **{name: None if moment is None else moment.isoformat() for name, moment in moments.items()},
            "hours": plan.hours,
            "at_once": plan.at_once,
            "first": plan.first,
            "failure_limit": plan.failure_limit,
            "started_at": self.started_at.isoformat(),
            "started_by": plan.started_by,
            "changed_at": (self.changed_at or self.started_at).isoformat(),
            "total": len(self.meters),
            "counts": counts,
            **({"meters": [one.view() for one in self.meters.values()]} if with_meters else {}),
        }
