"""Orders to the registry: meters entered, removed, replaced, marked as foreign, grouped, imported and listed.

A meter that is removed or replaced keeps its history under its own identity; who came in its place is written beside
it. The page may only list. Keys never travel in an order: `reload_meter_keys` has the key store read anew.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import structlog

from concentrator.clock import Clock
from concentrator.collection import foreign
from concentrator.collection.errors import MeterEntryError, UnknownMeterError
from concentrator.collection.key_store import KEY_KINDS
from concentrator.collection.keyring import Keyring
from concentrator.collection.meter_entries import MeterEntry, entry_of, parse_entries, parse_entry
from concentrator.collection.meter_models import ModelLibrary
from concentrator.collection.validation import CONNECTION_LIMIT_DETAIL
from concentrator.model import MeterRecord, MeterState
from concentrator.orders import PAGE, Order, OrderError
from concentrator.store.store import Store

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


class RecordHolder(Protocol):
    """Whoever collects the meters of one kind of link, and holds their records."""

    @property
    def link(self) -> str:
        """The link of its meters, as in `MeterRecord.link`."""
        ...

    def find(self, identity: str) -> MeterRecord | None:
        """The record of one of its meters."""
        ...

    def adopt(self, record: MeterRecord) -> None:
        """Take in a meter that somebody entered, or that stands at another address now."""
        ...


Handler = Callable[[Order], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class _Operation:
    handle: Handler
    changes: bool = True


class RegistryOrders:
    """Carries out the orders named in `names`. `on_new_keys` is called when the key store was read anew."""

    def __init__(  # noqa: PLR0913 - what it is made of, once, in app.py
        self,
        store: Store,
        clock: Clock,
        holders: Iterable[RecordHolder],
        models: ModelLibrary,
        keyring: Keyring,
        on_new_keys: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._holders = {holder.link: holder for holder in holders}
        self._models = models
        self._keyring = keyring
        self._on_new_keys = on_new_keys
        self._operations = {
            "meters": _Operation(self._list, changes=False),
            "meter_add": _Operation(self._add),
            "meter_remove": _Operation(self._remove),
            "meter_replace": _Operation(self._replace),
            "meter_foreign": _Operation(self._foreign),
            "meter_set": _Operation(self._set),
            "meters_import": _Operation(self._import),
            "reload_meter_keys": _Operation(self._reload_keys),
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The operations that are carried out here."""
        return tuple(self._operations)

    async def carry_out(self, order: Order) -> dict[str, Any]:
        """Carry out one order.

        Raises:
            OrderError, UnknownMeterError, MeterEntryError: it makes no sense; nothing was changed.
            KeyFileError: the key store cannot be used; the keys of before stay in force.
            StoreError: it could not be kept.
        """
        operation = self._operations[order.operation]
        if operation.changes and order.origin == PAGE:
            raise OrderError(f"order {order.order_id}: {order.operation} is not taken from {order.origin}")
        _refuse_keys(order)
        result = await operation.handle(order)
        if operation.changes:
            log.info(
                "registry changed by order", op=order.operation, order=order.order_id, meter=order.target
            )
        return result

    # Looking

    async def _known(self) -> dict[str, MeterRecord]:
        """Every meter: as its holder has it, or else as the store has it."""
        kept = {record.identity: record for record in await self._store.load_meters()}
        return {identity: self._live(record) for identity, record in kept.items()}

    def _live(self, record: MeterRecord) -> MeterRecord:
        found = (holder.find(record.identity) for holder in self._holders.values())
        return next((one for one in found if one is not None), record)

    async def _record(self, order: Order, identity: str) -> MeterRecord:
        for holder in self._holders.values():
            if (record := holder.find(identity)) is not None:
                return record
        kept = {record.identity: record for record in await self._store.load_meters()}
        if identity not in kept:
            raise UnknownMeterError(
                f"order {order.order_id}: no meter {identity!r} is known here; `concentrator meters list` has them"
            )
        return kept[identity]

    async def _list(self, order: Order) -> dict[str, Any]:
        wanted = {name: order.arguments.get(name) for name in ("group", "state", "link", "medium")}
        entries = [entry_of(record) for record in (await self._known()).values()]
        chosen = [
            one
            for one in entries
            if all(
                value is None or (value in one["groups"] if name == "group" else one.get(name) == value)
                for name, value in wanted.items()
            )
        ]
        return {"meters": chosen}

    # Changing

    async def _add(self, order: Order) -> dict[str, Any]:
        entry = parse_entry(
            f"order {order.order_id}: args", {**order.arguments, "identity": order.target or None}
        )
        record = self._enter(entry, await self._known())
        await self._store.save_registration(record)
        return {"meter": entry_of(record)}

    async def _import(self, order: Order) -> dict[str, Any]:
        given = order.arguments.get("meters")
        rows = cast("list[object]", given) if isinstance(given, list) else []
        if not rows or not all(isinstance(row, dict) for row in rows):
            raise OrderError(f"order {order.order_id}: args: meters: a list of objects is expected")
        numbered = [
            (f"entry {number}", cast("Mapping[str, object]", row)) for number, row in enumerate(rows, 1)
        ]
        entries = parse_entries(f"order {order.order_id}", numbered)
        known = await self._known()
        for entry in entries:
            self._check(entry, known)
        records = [self._enter(entry, known) for entry in entries]
        await self._store.save_registration(*records)
        new = sum(entry.identity not in known for entry in entries)
        return {"added": new, "changed": len(entries) - new}

    def _enter(self, entry: MeterEntry, meters: Mapping[str, MeterRecord]) -> MeterRecord:
        """Make or change a record, and hand it to whoever collects its kind; what it was removed for is over."""
        self._check(entry, meters)
        known = meters.get(entry.identity)
        record = known or MeterRecord(entry.identity, link=entry.link, first_seen=self._clock.now())
        if known is None:
            record.registration.manual = True
            record.reason = "entered by hand, and not met yet"
        elif known.left_alone:
            record.state, record.reason = MeterState.DISCOVERED, "entered again"
            record.registration.removed_at, record.registration.replaced_by = None, ""
            record.registration.installed_at = None
            record.details.pop(foreign.DETAIL, None)
        self._apply(record, entry)
        if record.link in self._holders:
            self._holders[record.link].adopt(record)
        return record

    def _check(self, entry: MeterEntry, meters: Mapping[str, MeterRecord]) -> None:
        known = meters.get(entry.identity)
        link = known.link if known is not None else entry.link
        for other in meters.values() if link == "plc" and entry.link_address else ():
            there = (other.link, other.link_address) == (link, entry.link_address) and not other.left_alone
            if there and other.identity != entry.identity:
                raise MeterEntryError(
                    f"meter {entry.identity}: link_address: {entry.link_address} is that of {other.identity}; "
                    "replace that one, or remove it first"
                )
        if known is None and not entry.link:
            raise MeterEntryError(f"meter {entry.identity}: link: missing; allowed: plc, wmbus, mbus or p1")
        if known is not None and entry.link and entry.link != known.link:
            raise MeterEntryError(
                f"meter {entry.identity}: link: is {known.link}, got {entry.link}; enter it by another identity"
            )
        if (
            entry.model
            and not self._models.known(entry.model)
            and (known.link if known else entry.link) == "plc"
        ):
            names = ", ".join(model.name for model in self._models)
            raise MeterEntryError(f"meter {entry.identity}: model: got {entry.model!r}; allowed: {names}")

    @staticmethod
    def _apply(record: MeterRecord, entry: MeterEntry) -> None:
        record.medium = entry.medium or record.medium
        record.link_address = entry.link_address or record.link_address
        record.serial = entry.serial or record.serial
        record.manufacturer = entry.manufacturer or record.manufacturer
        if entry.model and entry.model != record.model:
            record.model = entry.model
            if record.link == "plc":
                record.details["model_set"] = entry.model
        registration = record.registration
        if entry.groups is not None:
            registration.groups = entry.groups
        if entry.connection_limit is not None:
            _set_limit(record, entry.connection_limit)

    async def _remove(self, order: Order) -> dict[str, Any]:
        record = await self._record(order, order.target)
        reason = str(order.arguments.get("reason") or "removed by order")[:200]
        self._take_away(record, reason)
        await self._store.save_registration(record)
        return {"meter": entry_of(record)}

    def _take_away(self, record: MeterRecord, reason: str) -> None:
        record.state, record.reason = MeterState.REMOVED, reason
        record.registration.removed_at = self._clock.now()

    async def _replace(self, order: Order) -> dict[str, Any]:
        old = await self._record(order, order.target)
        meters = await self._known()
        successor = str(order.arguments.get("by") or "")
        if successor == old.identity:
            raise OrderError(f"order {order.order_id}: args: by: a meter cannot be replaced by itself")
        given = {name: value for name, value in order.arguments.items() if name != "by"}
        if successor not in meters:
            given = {"link": old.link, "medium": old.medium.value, **given}
        entry = parse_entry(f"order {order.order_id}: args", {**given, "identity": successor})
        others = {identity: record for identity, record in meters.items() if identity != old.identity}
        new = self._enter(entry, others)
        if not new.registration.groups:
            new.registration.groups = old.registration.groups
        if new.registration.connection_limit is None and old.registration.connection_limit is not None:
            _set_limit(new, old.registration.connection_limit)
        self._take_away(old, f"replaced by {successor}")
        old.registration.replaced_by = successor
        if old.link_address and old.link_address == new.link_address:
            old.link_address = ""
        await self._store.save_registration(old, new)
        return {"removed": entry_of(old), "meter": entry_of(new)}

    async def _foreign(self, order: Order) -> dict[str, Any]:
        record = await self._record(order, order.target)
        wanted = order.arguments.get("foreign", True)
        if not isinstance(wanted, bool):
            raise OrderError(f"order {order.order_id}: args: foreign: got {wanted!r}; allowed: true or false")
        if wanted:
            foreign.mark(record, foreign.BY_ORDER, "marked as foreign by order")
        else:
            foreign.end(record)
            if record.link in self._holders and not record.left_alone:
                self._holders[record.link].adopt(record)
        await self._store.save_registration(record)
        return {"meter": entry_of(record)}

    async def _set(self, order: Order) -> dict[str, Any]:
        record = await self._record(order, order.target)
        arguments = dict(order.arguments)
        groups = list(record.registration.groups)
        for name in ("add_groups", "remove_groups"):
            given = arguments.pop(name, [])
            parsed = parse_entry(
                f"order {order.order_id}: args: {name}", {"identity": record.identity, "groups": given}
            )
            changed = parsed.groups or ()
            groups = (
                [*groups, *(one for one in changed if one not in groups)]
                if name == "add_groups"
                else [one for one in groups if one not in changed]
            )
        entry = parse_entry(f"order {order.order_id}: args", {**arguments, "identity": record.identity})
        self._check(entry, await self._known())
        self._apply(record, entry)
        if entry.groups is None:
            record.registration.groups = tuple(groups)
        if entry.link_address and record.link in self._holders:
            self._holders[record.link].adopt(record)
        await self._store.save_registration(record)
        return {"meter": entry_of(record)}

    async def _reload_keys(self, order: Order) -> dict[str, Any]:
        del order
        if self._keyring.store is not None:
            self._keyring.store.reload()
            self._keyring.store.unlock()
        self._on_new_keys()
        return {"meters_with_keys": len(self._keyring.kinds())}


def _refuse_keys(order: Order) -> None:
    """Keys never travel in an order: whoever sends one should learn that it was not taken."""
    rows = order.arguments.get("meters")
    entries: list[object] = [order.arguments, *(cast("list[object]", rows) if isinstance(rows, list) else ())]
    for entry in entries:
        names = set(cast("dict[str, object]", entry)) if isinstance(entry, dict) else set[str]()
        if kinds := names.intersection(KEY_KINDS):
            raise OrderError(
                f"order {order.order_id}: args: {min(kinds)}: keys never travel in an order; "
                "`concentrator keys import FILE` takes them on the box"
            )


def _set_limit(record: MeterRecord, watts: int) -> None:
    """The agreed power, where the judging of values looks for it too."""
    record.registration.connection_limit = watts
    record.details[CONNECTION_LIMIT_DETAIL] = str(watts)
