"""Keeps the meters' clocks: corrected by rule within visits, set by order, each change told."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import structlog

from concentrator.collection import meter_clock
from concentrator.collection.clock_rule import ClockAction, ClockRule
from concentrator.collection.control.command import Outcome
from concentrator.collection.profile_visit import Dialogue
from concentrator.dlms.errors import DlmsError
from concentrator.errors import ConcentratorError, TransientError
from concentrator.orders import Order, OrderError
from concentrator.store.audit import AuditEntry
from concentrator.store.store import Store
from concentrator.time_source import TimeWatch

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


class ClockKeeper:
    """One for all meters. With `needs_ntp` no clock is touched while our own is not known to be right."""

    def __init__(self, store: Store, rule: ClockRule, time_watch: TimeWatch, *, needs_ntp: bool) -> None:
        self._store = store
        self._rule = rule
        self._time_watch = time_watch
        self._needs_ntp = needs_ntp

    async def correct(self, dialogue: Dialogue, period_s: int) -> None:
        """Do what the rule says; a step that the meter refuses is no reason not to read it.

        Raises:
            TransientError: the meter or the link went away.
            StoreError: what was done could not be kept.
        """
        meter = dialogue.meter
        record, offset_s = meter.record, meter.record.clock_offset_s
        if offset_s is None:
            return
        decision = self._rule.decide(
            offset_s,
            dialogue.now() + timedelta(seconds=offset_s),
            period_s,
            time_is_sure=self._time_watch.is_sure or not self._needs_ntp,
        )
        trouble = decision.reason if decision.action is ClockAction.FLAG else ""
        if decision.action is ClockAction.SHIFT:
            try:
                await dialogue.converse(meter_clock.shift_clock(dialogue.client, decision.shift_s))
            except TransientError:
                raise
            except DlmsError as error:
                trouble = f"{decision.reason}; it refuses to be shifted: {error}"
            else:
                record.clock_offset_s = offset_s + decision.shift_s
                log.info("clock shifted", meter=record.identity, was_off_s=offset_s, by_s=decision.shift_s)
                detail = f"{decision.reason}: shifted by {decision.shift_s} s"
                await self._store.add_events([("clock_shifted", detail, record.identity)])
        if trouble and not meter.clock_trouble:
            log.warning("clock wrong", meter=record.identity, reason=trouble)
            await self._store.add_events([("clock_wrong", trouble, record.identity)])
        meter.clock_trouble = trouble

    async def sync(self, dialogue: Dialogue, order: Order) -> dict[str, Any]:
        """Set a meter's clock by order, however far it is off; in the audit trail like every change.

        Raises:
            OrderError: our own time is not sure.
            DlmsError, TransientError: it was not done, or it is not known.
            StoreError: it could not be kept.
        """
        meter = dialogue.meter
        if self._needs_ntp and not self._time_watch.is_sure:
            state = self._time_watch.state.value
            raise OrderError(f"order {order.order_id}: our own time is {state}: no meter is set by it")
        entry = AuditEntry(order.order_id, order.operation, meter.identity, order.who, dialogue.now())
        audit_id = await self._store.add_audit_entry(entry)
        try:
            result = await dialogue.converse(meter_clock.set_clock(dialogue.client, dialogue.now()))
        except ConcentratorError as error:
            outcome = Outcome.UNKNOWN if isinstance(error, TransientError) else Outcome.NOT_DONE
            await self._store.complete_audit_entry(audit_id, outcome.value, {}, str(error))
            raise
        await self._store.complete_audit_entry(audit_id, Outcome.DONE.value, dict(result), "")
        before, after = result["offset_before_s"], result["offset_after_s"]
        meter.record.clock_offset_s, meter.clock_trouble = after, ""
        detail = f"order {order.order_id} from {order.who}: was off by {before} s, now by {after} s"
        await self._store.add_events([("clock_set", detail, meter.identity)])
        return dict(result)
