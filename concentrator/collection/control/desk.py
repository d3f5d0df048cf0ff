"""Carries control orders out within a visit: state before, audit entry, command, state after, verdict.

The entry is on flash before the command goes out. When the link is lost after that, or the concentrator is stopped,
the entry stays open, and the next dialogue with the meter begins with the question what came of it. Nothing is told as
done or not done that the meter has not said itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import structlog

from concentrator.clock import Clock
from concentrator.collection.changed_keys import ChangedKeys
from concentrator.collection.control.command import Command, Outcome, State, Verdict
from concentrator.collection.control.errors import (
    AssociateAgainError,
    ControlRefusedError,
    NotAuthorisedError,
    NotDoneError,
    OutcomeOpenError,
    OutcomeUnknownError,
)
from concentrator.collection.control.key_change import WRAP, ChangeKeys, KeyTransfer
from concentrator.collection.control.operations import CONTROL_OPERATIONS, ControlOperation
from concentrator.collection.control.rules import OrderRules
from concentrator.collection.keyring import MeterKeys, Standing
from concentrator.collection.registry import PendingOrder
from concentrator.dlms.client import Client, Conversation
from concentrator.dlms.errors import AccessError, DlmsError
from concentrator.errors import ConcentratorError, ConnectionLostError, TransientError
from concentrator.orders import MQTT, Order, OrderError
from concentrator.store.audit import REFUSED, AuditEntry
from concentrator.store.errors import StoreError
from concentrator.store.store import Store

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")
CHANGE_KEYS = "change_keys"
# A counter that is used up so far begins anew with the next key.
_COUNTER_HALF = 0x8000_0000
_GOOD = (Outcome.DONE, Outcome.WAITING, Outcome.ACKNOWLEDGED)


class Converse(Protocol):
    """Carries a conversation over the open association."""

    async def __call__(self, conversation: Conversation[T], /) -> T:
        """Its result. Raises TransientError, DlmsError."""
        ...


@dataclass(slots=True)
class Dialogue:
    """An association with one meter: what the desk needs of a visit. `keys` are those that it is protected with."""

    identity: str
    counter_name: str
    client: Client
    keys: MeterKeys | None
    converse: Converse


def counter_name(base: str, keys: MeterKeys) -> str:
    """The name of our invocation counter under some keys."""
    return f"{base}/{keys.counter}" if keys.counter else base


class ControlDesk:
    """Control orders of all meters. `rules` say who may give them."""

    def __init__(
        self, store: Store, clock: Clock, rules: OrderRules, changed: ChangedKeys | None = None
    ) -> None:
        self.rules = rules
        self._store = store
        self._clock = clock
        self._changed = changed
        self._open: dict[str, list[AuditEntry]] = {}
        # Who waits for a change of keys, by meter: told when an association shows which keys the meter takes.
        self._waiting: dict[str, PendingOrder] = {}

    async def load(self) -> None:
        """Find the orders whose outcome is not known."""
        for entry in await self._store.open_audit_entries():
            self._open.setdefault(entry.meter, []).append(entry)
            log.warning(
                "order of unknown outcome", meter=entry.meter, op=entry.operation, audit=entry.audit_id
            )

    def has_open(self, identity: str) -> bool:
        """Whether a meter is to be asked what came of an order."""
        return bool(self._open.get(identity))

    async def refuse(self, order: Order, error: NotAuthorisedError) -> None:
        """Note an order that was refused because of who gave it."""
        now = self._clock.now()
        entry = AuditEntry(
            order.order_id,
            order.operation,
            order.target,
            order.who,
            now,
            state=REFUSED,
            detail=str(error),
            completed_at=now,
        )
        log.warning("order refused", op=order.operation, meter=order.target, origin=order.who)
        await self._store.add_audit_entry(entry)

    # Orders

    async def carry_out(
        self, pending: PendingOrder, operation: ControlOperation, dialogue: Dialogue
    ) -> dict[str, Any]:
        """Carry out one order in an open association; gives outcome and states.

        Raises:
            OrderError: it is wrong; nothing was sent.
            ControlRefusedError: nothing was sent: the meter's state does not allow it.
            NotDoneError, OutcomeUnknownError: what the meter says came of it.
            OutcomeOpenError: the link was lost after the command had gone out.
            AssociateAgainError: the keys were changed; what came of it follows in the next association.
            StoreError: the audit entry could not be written, so nothing was sent.
            TransientError, DlmsError: the state before could not be read, so nothing was sent.
        """
        order = pending.order
        command = operation.prepare(order)
        if order.not_after is not None and order.not_after < self._clock.now():
            raise ControlRefusedError(
                f"{self._named(order)}: nothing was sent: its time was over at {order.not_after.isoformat()}"
            )
        repeated = await self._repeated(order, dialogue.identity)
        if repeated is not None:
            return repeated
        if isinstance(command, ChangeKeys):
            await self._change_keys(pending, command, dialogue)
        before = await dialogue.converse(command.observe(dialogue.client))
        refusal = command.refusal(before)
        entry = self._entry(order, dialogue.identity, command.recorded, before)
        if refusal:
            entry.state, entry.detail, entry.completed_at = Outcome.NOT_DONE, refusal, self._clock.now()
            await self._store.add_audit_entry(entry)
            raise ControlRefusedError(f"{self._named(order)}: nothing was sent: {refusal}")
        await self._begin(entry)
        if command.already(before):
            verdict = command.judge(before, before)
            detail = f"was so before, nothing was sent; {verdict.words}".removesuffix("; ")
            return await self._close(entry, before, Verdict(verdict.outcome, detail), {}, order)
        return await self._send(order, entry, command, before, dialogue)

    async def _send(
        self, order: Order, entry: AuditEntry, command: Command, before: State, dialogue: Dialogue
    ) -> dict[str, Any]:
        told: State = {}
        refused = lost = ""
        try:
            told = await dialogue.converse(command.send(dialogue.client))
        except AccessError as error:
            refused = str(error)
        except ConnectionLostError as error:
            raise self._left_open(entry, error) from error
        except DlmsError as error:
            lost = str(error)
        except TransientError as error:
            lost = str(error)
        try:
            after = await dialogue.converse(command.observe(dialogue.client))
        except TransientError as error:
            raise self._left_open(entry, error) from error
        except DlmsError as error:
            verdict = Verdict(Outcome.UNKNOWN, f"the state cannot be read back: {error}")
            return await self._close(entry, {}, verdict, told, order)
        verdict = _combined(command.judge(before, after), refused, lost)
        return await self._close(entry, after, verdict, told, order)

    async def _close(
        self, entry: AuditEntry, after: State, verdict: Verdict, told: State, order: Order
    ) -> dict[str, Any]:
        """Complete the entry, and tell what came of the order."""
        await self._complete(entry, after, verdict)
        if verdict.outcome not in _GOOD:
            failed = NotDoneError if verdict.outcome is Outcome.NOT_DONE else OutcomeUnknownError
            raise failed(
                f"{self._named(order)}: {_words(verdict.outcome)}: {verdict.words} (audit entry {entry.audit_id})"
            )
        return {
            **told,
            "outcome": str(verdict.outcome),
            "note": verdict.words,
            "before": entry.before,
            "after": after,
            "audit": entry.audit_id,
        }

    def _left_open(self, entry: AuditEntry, error: Exception) -> OutcomeOpenError:
        return OutcomeOpenError(
            f"order {entry.order_id}: {entry.operation}: it is not known whether it was done: {error}; the meter is "
            f"asked at the next contact (audit entry {entry.audit_id})"
        )

    @staticmethod
    def _named(order: Order) -> str:
        return f"order {order.order_id}: {order.operation}"

    async def _repeated(self, order: Order, identity: str) -> dict[str, Any] | None:
        """What came of the same order before: a token is not entered twice.

        Brokers deliver at least once, and an order that is kept begins again after a restart.
        """
        if order.origin != MQTT and not order.deferred and order.not_before is None:
            return None
        known = await self._store.audited_order(order.order_id, order.who)
        if known is None or (known.operation, known.meter) != (order.operation, identity):
            return None
        if known.state not in _GOOD:
            raise OutcomeUnknownError(
                f"{self._named(order)}: was taken before: {known.state.replace('_', ' ')} {known.detail}".rstrip()
                + f" (audit entry {known.audit_id}); give it anew under another id"
            )
        return {
            "outcome": known.state,
            "note": f"this order was carried out before; {known.detail}".removesuffix("; "),
            "before": known.before,
            "after": known.after,
            "audit": known.audit_id,
        }

    # The trail

    def _entry(self, order: Order, identity: str, recorded: dict[str, Any], before: State) -> AuditEntry:
        now = self._clock.now()
        return AuditEntry(order.order_id, order.operation, identity, order.who, now, recorded, before)

    async def _begin(self, entry: AuditEntry) -> None:
        entry.audit_id = await self._store.add_audit_entry(entry)
        self._open.setdefault(entry.meter, []).append(entry)

    async def _complete(self, entry: AuditEntry, after: State, verdict: Verdict) -> None:
        try:
            await self._store.complete_audit_entry(entry.audit_id, verdict.outcome, after, verdict.words)
        except StoreError as error:
            # It stays open, and is asked after once more: the meter answers the same.
            log.warning("audit entry not completed", audit=entry.audit_id, reason=str(error))
            return
        left = [one for one in self._open.get(entry.meter, ()) if one.audit_id != entry.audit_id]
        self._open[entry.meter] = left
        log.info(
            "order on meter", meter=entry.meter, op=entry.operation, origin=entry.origin, order=entry.order_id,
            outcome=str(verdict.outcome), audit=entry.audit_id,
        )  # fmt: skip

    # At the beginning of a dialogue

    async def associated(self, dialogue: Dialogue) -> None:
        """An association is open: settle which keys the meter takes, and what came of orders left open.

        Raises:
            AssociateAgainError: the meter was given other keys.
            TransientError: the link was lost meanwhile.
        """
        if dialogue.keys is not None and self._changed is not None:
            await self._settle_keys(dialogue, dialogue.keys, self._changed)
        for entry in list(self._open.get(dialogue.identity, ())):
            if entry.operation != CHANGE_KEYS:
                await self._ask_after(entry, dialogue)

    async def _ask_after(self, entry: AuditEntry, dialogue: Dialogue) -> None:
        """Find out what came of an order whose answer was lost."""
        after: State = {}
        operation = CONTROL_OPERATIONS.get(entry.operation)
        try:
            if operation is None:
                raise OrderError(f"{entry.operation} is not known to this release")
            command = operation.from_record(entry.arguments, f"audit entry {entry.audit_id}")
            after = await dialogue.converse(command.observe(dialogue.client))
            verdict = command.judge_later(entry.before, after)
        except TransientError:
            raise
        except (OrderError, DlmsError, KeyError, TypeError) as error:
            verdict = Verdict(Outcome.UNKNOWN, f"the meter could not be asked: {error}")
        verdict = Verdict(verdict.outcome, f"found out later; {verdict.words}".removesuffix("; "))
        await self._complete(entry, after, verdict)
        await self._tell(entry, verdict)

    async def _tell(self, entry: AuditEntry, verdict: Verdict) -> None:
        detail = f"{entry.operation} (order {entry.order_id}): {_words(verdict.outcome)}; {verdict.words}"
        try:
            await self._store.add_events([("order_outcome", detail, entry.meter)])
        except StoreError as error:
            log.warning("event not kept", meter=entry.meter, reason=str(error))

    # Keys

    async def _change_keys(self, pending: PendingOrder, command: ChangeKeys, dialogue: Dialogue) -> None:
        """Give the meter new keys. Always raises: what came of it is known after the next association."""
        order = pending.order
        transfer = KeyTransfer.begin(
            dialogue.identity, command, dialogue.keys, self._changed, dialogue.client
        )
        state = await dialogue.converse(command.observe(dialogue.client))
        suite = state["security_suite"]
        if isinstance(suite, int) and suite != transfer.keys.suite:
            raise ControlRefusedError(
                f"{self._named(order)}: nothing was sent: the meter has security suite {suite}, the key file "
                f"{transfer.keys.suite}"
            )
        before, _after = transfer.states()
        entry = self._entry(order, dialogue.identity, command.recorded, before | state)
        await self._transfer(transfer, entry, dialogue)
        self._waiting[dialogue.identity] = pending
        raise AssociateAgainError

    async def _transfer(self, transfer: KeyTransfer, entry: AuditEntry, dialogue: Dialogue) -> None:
        """Keep the keys, begin the entry, send. What is not refused is settled by the next association."""
        self._choose_counter(transfer, dialogue)
        transfer.keep(dialogue.client)
        await self._begin(entry)
        try:
            await dialogue.converse(transfer.send(dialogue.client))
            transfer.keep_agreed()
        except ConnectionLostError as error:
            raise self._left_open(entry, error) from error
        except (DlmsError, TransientError) as error:
            # Refused, answered under the new key already, or not answered: the next association tells.
            entry.detail = str(error)

    def _choose_counter(self, transfer: KeyTransfer, dialogue: Dialogue) -> None:
        """Our invocation counter goes on under the new keys, which every meter takes; one that runs out begins anew."""
        used = self._store.invocation_counter(counter_name(dialogue.counter_name, transfer.keys)).next()
        if used >= _COUNTER_HALF:
            transfer.new.counter = transfer.new.generation

    async def _settle_keys(self, dialogue: Dialogue, keys: MeterKeys, changed: ChangedKeys) -> None:
        """The meter takes these keys: keep them, give up the others, and close what was open about it."""
        identity = dialogue.identity
        if keys.standing is Standing.RECOVERY:
            await self._recover(dialogue, keys, changed)
        entry = changed.entry(identity, keys.origin)
        unsettled = entry is not None and (entry.pending is not None or entry.lost)
        if unsettled or keys.standing is not Standing.CURRENT:
            changed.use(identity, keys.origin, keys.generation)
            log.info("keys of a meter settled", meter=identity, generation=keys.generation)
        waiting = self._waiting.pop(identity, None)
        for one in [one for one in self._open.get(identity, ()) if one.operation == CHANGE_KEYS]:
            await self._close_key_change(one, keys, waiting)

    async def _close_key_change(
        self, entry: AuditEntry, keys: MeterKeys, waiting: PendingOrder | None
    ) -> None:
        after: State = {"generation": keys.generation}
        done = keys.generation >= entry.before["new_generation"]
        told = f": {entry.detail}" if entry.detail else ""
        verdict = (
            Verdict(Outcome.DONE, "the meter takes the new keys")
            if done
            else Verdict(Outcome.NOT_DONE, f"the meter takes the keys that it had before{told}")
        )
        await self._complete(entry, after, verdict)
        if waiting is None or waiting.order.order_id != entry.order_id or waiting.result.done():
            await self._tell(entry, verdict)
            return
        if done:
            waiting.result.set_result(
                {
                    "meter": entry.meter,
                    "at": self._clock.now().isoformat(),
                    "outcome": str(verdict.outcome),
                    "note": verdict.words,
                    "before": entry.before,
                    "after": after,
                    "audit": entry.audit_id,
                }
            )
        else:
            waiting.result.set_exception(
                NotDoneError(
                    f"{self._named(waiting.order)}: not done: {verdict.words} (audit entry {entry.audit_id})"
                )
            )

    async def _recover(self, dialogue: Dialogue, keys: MeterKeys, changed: ChangedKeys) -> None:
        """The meter has keys that nobody else has: give it others, under the master key. Always raises."""
        identity = dialogue.identity
        command = ChangeKeys.recovery()
        transfer = KeyTransfer.begin(identity, command, keys, changed, dialogue.client)
        before, _after = transfer.states()
        recorded = {"method": WRAP, "keys": list(command.names), "recovery": True}
        entry = AuditEntry(
            f"recovery-{transfer.new.generation}", CHANGE_KEYS, identity, "the concentrator itself",
            self._clock.now(), recorded, before,
        )  # fmt: skip
        log.warning("meter has a lost key, it is given another", meter=identity)
        await self._transfer(transfer, entry, dialogue)
        raise AssociateAgainError

    def keys_refused(self, identity: str, error: ConcentratorError) -> None:
        """No association came about: whoever waits for a change of keys is told."""
        waiting = self._waiting.pop(identity, None)
        if waiting is not None and not waiting.result.done():
            waiting.result.set_exception(
                OutcomeOpenError(
                    f"{self._named(waiting.order)}: it is not known whether it was done: {error}; old and new keys "
                    "are tried at the next contact"
                )
            )


def _combined(verdict: Verdict, refused: str, lost: str) -> Verdict:
    """What reading back says, with what the meter answered to the command."""
    outcome, words = verdict
    if refused:
        if outcome is Outcome.ACKNOWLEDGED:
            return Verdict(Outcome.NOT_DONE, refused)
        if outcome is Outcome.DONE:
            return Verdict(outcome, f"the meter answered with {refused}, yet it reads back as ordered")
        return Verdict(outcome, f"{refused}; {words}".removesuffix("; "))
    if lost:
        if outcome is Outcome.ACKNOWLEDGED:
            return Verdict(Outcome.UNKNOWN, f"no acknowledgement came ({lost}), and {words}")
        return Verdict(outcome, f"no acknowledgement came ({lost}); {words}".removesuffix("; "))
    if outcome is Outcome.NOT_DONE:
        return Verdict(outcome, f"the meter acknowledged, but reading back says: {words}")
    return verdict


def _words(outcome: Outcome) -> str:
    return outcome.value.replace("_", " ")
