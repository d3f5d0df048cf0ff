"""Orders about the firmware of meters: begin a campaign, look at it, pause, resume and abort it.

Each is in the audit trail, done or refused. To begin or resume one changes meters: it takes the right of `[orders]` as
every order that does. To stop one is open to whoever may give orders at all.
"""

from __future__ import annotations

import asyncio
from typing import Any

from concentrator.clock import Clock
from concentrator.collection.control.arguments import Arguments
from concentrator.collection.control.errors import NotAuthorisedError
from concentrator.collection.control.rules import FIRMWARE_RESUME, FIRMWARE_START, OrderRules
from concentrator.collection.firmware.campaign import Campaign, Plan
from concentrator.collection.firmware.desk import FirmwareDesk
from concentrator.errors import ConcentratorError
from concentrator.orders import Order, OrderError
from concentrator.store.audit import REFUSED, AuditEntry
from concentrator.store.store import Store

FIRMWARE_STATUS = "firmware_status"
FIRMWARE_PAUSE, FIRMWARE_ABORT = "firmware_pause", "firmware_abort"
FIRMWARE_ORDERS = (FIRMWARE_START, FIRMWARE_STATUS, FIRMWARE_PAUSE, FIRMWARE_RESUME, FIRMWARE_ABORT)
_LONGEST_NAME = 64
_MOST_LEFT_OUT_SHOWN = 100


class FirmwareOrders:
    """Carries them out."""

    def __init__(self, desk: FirmwareDesk, store: Store, clock: Clock, rules: OrderRules) -> None:
        self._desk = desk
        self._store = store
        self._clock = clock
        self._rules = rules
        # Between looking whether a meter is in a campaign and beginning another nothing may come.
        self._starting = asyncio.Lock()

    async def carry_out(self, order: Order) -> dict[str, Any]:
        """Carry out one of FIRMWARE_ORDERS.

        Raises:
            NotAuthorisedError: it is not for whoever gave it.
            OrderError: it makes no sense.
            FirmwareImageError: the image is not signed by a trusted key, or not what its manifest says.
            CampaignError: it cannot be done now.
            StoreError: it could not be kept, and was not done.
        """
        if order.target:
            raise OrderError(
                f"order {order.order_id}: target: {order.operation} is for no single meter; allowed: empty"
            )
        if order.operation == FIRMWARE_STATUS:
            return await self._status(order)
        try:
            if order.operation in (FIRMWARE_START, FIRMWARE_RESUME):
                self._rules.check(order)
            return await self._change(order)
        except NotAuthorisedError as error:
            await self._note(order, REFUSED, str(error))
            raise
        except ConcentratorError as error:
            await self._note(order, "failed", str(error))
            raise

    async def images(self) -> list[dict[str, Any]]:
        """Every image in the folder, with what its manifest says, or why it is not to be used."""
        return await asyncio.to_thread(self._desk.library.listing)

    async def _status(self, order: Order) -> dict[str, Any]:
        given = Arguments.of(order)
        name = given.text("name", _LONGEST_NAME, "")
        with_meters = given.flag("meters", default=True)
        given.finish()
        if name:
            self._desk.campaign(name)
        return {**self._desk.view(name, with_meters=with_meters), "images": await self.images()}

    async def _change(self, order: Order) -> dict[str, Any]:
        if order.operation == FIRMWARE_START:
            return await self._start(order)
        given = Arguments.of(order)
        campaign = self._desk.campaign(given.text("name", _LONGEST_NAME))
        given.finish()
        match order.operation:
            case "firmware_pause":
                await self._desk.pause(campaign, f"by {order.who}", order.who, order.order_id)
            case "firmware_resume":
                await self._desk.resume(campaign, order.who, order.order_id)
            case _:
                await self._desk.abort(campaign, order.who, order.order_id)
        return _told(campaign)

    async def _start(self, order: Order) -> dict[str, Any]:
        image = await asyncio.to_thread(self._desk.library.load, Arguments.of(order).text("image", 100))
        plan = Plan.from_order(order, image.manifest)
        async with self._starting:
            campaign, left_out = await self._desk.start(plan, order.order_id)
        shown = dict(list(left_out.items())[:_MOST_LEFT_OUT_SHOWN])
        return {
            **_told(campaign),
            "left_out": len(left_out),
            "left_out_reasons": shown,
            "signed_by": image.key,
        }

    async def _note(self, order: Order, state: str, detail: str) -> None:
        now = self._clock.now()
        name = order.arguments.get("name")
        await self._store.add_audit_entry(
            AuditEntry(
                order.order_id,
                order.operation,
                "",
                order.who,
                now,
                {"campaign": name} if isinstance(name, str) else {},
                state=state,
                detail=detail[:1000],
                completed_at=now,
            )
        )


def _told(campaign: Campaign) -> dict[str, Any]:
    return {"campaign": campaign.plan.name, "state": campaign.state.value, "meters": len(campaign.meters)}
