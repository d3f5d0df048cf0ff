"""Prepayment: account, credits and charges (classes 111, 112, 113, Blue Book part 2, 4.6); tokens: `token_entry`."""

from __future__ import annotations

from typing import Any

from concentrator.collection.control import times
from concentrator.collection.control.arguments import Arguments
from concentrator.collection.control.command import (
    Command,
    Outcome,
    SetAttributes,
    Setting,
    State,
    Verdict,
    as_number,
    as_obis,
    attribute,
    fixed,
    is_unreadable,
    readable,
)
from concentrator.collection.control.token_entry import (
    ACCOUNT,
    ACCOUNT_NAME,
    TOKEN_GATEWAY_NAME,
    read_token_gateway,
)
from concentrator.dlms import axdr
from concentrator.dlms.attributes import MethodDescriptor
from concentrator.dlms.axdr import Data
from concentrator.dlms.client import Client, Conversation
from concentrator.dlms.errors import AccessError
from concentrator.obis import Obis

CREDIT, CHARGE = 112, 113
_INT32 = 0x7FFF_FFFF
_INT16 = 0x7FFF
_ACCOUNT_MODES = {1: "credit", 2: "prepayment"}
_ACCOUNT_STATES = {1: "new", 2: "active", 3: "closed"}
_CREDIT_STATES = {0: "enabled", 1: "selectable", 2: "selected", 3: "in_use", 4: "exhausted"}
_CREDIT_TYPES = {0: "token", 1: "reserved", 2: "emergency", 3: "time_based", 4: "consumption_based"}
_CHARGE_TYPES = {0: "consumption_based", 1: "time_based", 2: "payment_event_based"}


def _worded(words: dict[int, str]) -> Any:  # noqa: ANN401 - a function of Data
    def show(value: Data) -> object:
        number = value.integer()
        return words.get(number, f"code {number}")

    return show


# Reading


def _as_account_status(value: Data) -> object:
    mode, status = (item.integer() for item in value.items(2)[:2])
    return {
        "mode": _ACCOUNT_MODES.get(mode, f"mode {mode}"),
        "status": _ACCOUNT_STATES.get(status, f"status {status}"),
    }


def _as_names(value: Data) -> object:
    return [as_obis(item) for item in value.items()]


def _as_moment(value: Data) -> object:
    return times.show_date_time(value.octets())


def _as_currency(value: Data) -> object:
    name, scale, unit = value.items(3)[:3]
    return {"name": name.text(), "scale": scale.integer(), "unit": unit.integer()}


_ACCOUNT_ATTRIBUTES = (
    ("account", 2, _as_account_status),
    ("current_credit_in_use", 3, as_number),
    ("available_credit", 5, as_number),
    ("amount_to_clear", 6, as_number),
    ("aggregated_debt", 8, as_number),
    ("credits", 9, _as_names),
    ("charges", 10, _as_names),
    ("currency", 15, _as_currency),
)
_CREDIT_ATTRIBUTES = (
    ("current_credit_amount", 2, as_number),
    ("credit_type", 3, _worded(_CREDIT_TYPES)),
    ("priority", 4, as_number),
    ("warning_threshold", 5, as_number),
    ("limit", 6, as_number),
    ("credit_status", 8, _worded(_CREDIT_STATES)),
    ("preset_credit_amount", 9, as_number),
)


def _as_unit_charge(value: Data) -> object:
    scaling, commodity, table = value.items(3)[:3]
    class_id, name, number = commodity.items(3)[:3]
    rows: list[dict[str, object]] = []
    for row in table.items():
        index, charge = row.items(2)[:2]
        rows.append({"index": index.octets().hex(), "charge": charge.integer()})
    commodity_scale, price_scale = (item.integer() for item in scaling.items(2)[:2])
    return {
        "commodity_scale": commodity_scale,
        "price_scale": price_scale,
        "commodity": {"class_id": class_id.integer(), "obis": as_obis(name), "attribute": number.integer()},
        "table": rows,
    }


_CHARGE_ATTRIBUTES = (
    ("total_amount_paid", 2, as_number),
    ("charge_type", 3, _worded(_CHARGE_TYPES)),
    ("priority", 4, as_number),
    ("unit_charge_active", 5, _as_unit_charge),
    ("unit_charge_passive", 6, _as_unit_charge),
    ("unit_charge_activation_time", 7, _as_moment),
    ("period_s", 8, as_number),
    ("last_collection_time", 10, _as_moment),
    ("last_collection_amount", 11, as_number),
    ("total_amount_remaining", 12, as_number),
)


def _read(client: Client, class_id: int, obis: Obis, attributes: Any) -> Conversation[State]:  # noqa: ANN401 - the tables above
    values = yield from client.get_many([attribute(class_id, obis, number) for _, number, _ in attributes])
    first = values[0]
    if all(isinstance(value, AccessError) for value in values) and isinstance(first, AccessError):
        raise first
    return {name: readable(value, show) for (name, _, show), value in zip(attributes, values, strict=True)}


def read_prepayment(client: Client, arguments: Arguments) -> Conversation[State]:
    """{"obis": the account, "token_gateway"}: the account, its credits and charges, and the last token's fate."""
    account = arguments.obis("obis", ACCOUNT_NAME)
    gateway = arguments.obis("token_gateway", TOKEN_GATEWAY_NAME)
    arguments.finish()
    state = yield from _read(client, ACCOUNT, account, _ACCOUNT_ATTRIBUTES)
    for part, class_id, attributes in (
        ("credits", CREDIT, _CREDIT_ATTRIBUTES),
        ("charges", CHARGE, _CHARGE_ATTRIBUTES),
    ):
        names = state[part]
        if not isinstance(names, list):
            continue
        found: list[State] = []
        for name in state[part]:
            try:
                one = yield from _read(client, class_id, Obis.parse(name), attributes)
            except AccessError as error:
                one = {"unreadable": str(error)}
            found.append({"obis": name, **one})
        state[part] = found
    state["last_token"] = yield from read_token_gateway(client, gateway)
    return state


# Account


class _ChangeAccount(Command):
    """Methods of Account: activate_account, close_account, reset_account."""

    _ACTIONS = {"activate": (1, "active"), "close": (2, "closed"), "reset": (3, "")}  # noqa: RUF012 - a table

    def __init__(self, obis: Obis, action: str) -> None:
        super().__init__({"obis": str(obis), "action": action})
        self._obis = obis
        self._method, self._wanted = self._ACTIONS[action]

    def observe(self, client: Client) -> Conversation[State]:
        """Mode, status and amounts."""
        return (yield from _read(client, ACCOUNT, self._obis, _ACCOUNT_ATTRIBUTES))

    def already(self, before: State) -> bool:
        """An account that has this status."""
        account: Any = before["account"]
        return bool(self._wanted) and not is_unreadable(account) and account["status"] == self._wanted

    def send(self, client: Client) -> Conversation[State]:
        """Invoke the method."""
        method = MethodDescriptor(ACCOUNT, self._obis, self._method)
        yield from client.action(method, axdr.integer(0))
        return {}

    def judge(self, before: State, after: State) -> Verdict:
        """By the status; a reset takes an account back to new."""
        del before
        status: object = after["account"]
        if is_unreadable(status):
            return Verdict(Outcome.UNKNOWN, "the meter does not show its account's status")
        shown = after["account"]["status"]
        if shown == (self._wanted or "new"):
            return Verdict(Outcome.DONE)
        return Verdict(Outcome.NOT_DONE, f"the account is {shown}")


def make_set_account(arguments: Arguments) -> Command:
    """{"action": "activate", "close" or "reset", "obis": the account}."""
    obis = arguments.obis("obis", ACCOUNT_NAME)
    action = arguments.choice("action", ("activate", "close", "reset"))
    arguments.finish()
    return _ChangeAccount(obis, action)


# Credit


class _ChangeCredit(Command):
    """Methods of Credit: update_amount and set_amount_to_value."""

    def __init__(self, obis: Obis, name: str, amount: int) -> None:
        super().__init__({"obis": str(obis), name: amount})
        self._obis = obis
        self._adds = name == "add"
        self._amount = amount

    def observe(self, client: Client) -> Conversation[State]:
        """The amount and what belongs to it."""
        return (yield from _read(client, CREDIT, self._obis, _CREDIT_ATTRIBUTES))

    def already(self, before: State) -> bool:
        """An amount that is set already; what adds is never done already."""
        return not self._adds and before["current_credit_amount"] == self._amount

    def send(self, client: Client) -> Conversation[State]:
        """Invoke the method."""
        method = MethodDescriptor(CREDIT, self._obis, 1 if self._adds else 2)
        yield from client.action(method, axdr.double_long(self._amount))
        return {}

    def judge(self, before: State, after: State) -> Verdict:
        """What is consumed in between is taken off: little, where both states are of one dialogue."""
        old, new = before["current_credit_amount"], after["current_credit_amount"]
        if not isinstance(new, int) or not isinstance(old, int):
            return Verdict(Outcome.UNKNOWN, "the meter does not show its credit")
        wanted = old + self._amount if self._adds else self._amount
        if new == wanted:
            return Verdict(Outcome.DONE)
        # Nearer to what was wanted than to what was: consumption since explains the rest.
        if abs(new - wanted) < abs(new - old):
            return Verdict(
                Outcome.DONE, f"the credit is {new}, {wanted} was to be expected: consumption goes on"
            )
        return Verdict(Outcome.NOT_DONE, f"the credit is {new}, it was {old}")

    def judge_later(self, before: State, after: State) -> Verdict:
        """After hours consumption may explain anything but the exact amount."""
        verdict = self.judge(before, after)
        unchanged = before["current_credit_amount"] == after["current_credit_amount"]
        if unchanged or (verdict.outcome is Outcome.DONE and not verdict.words):
            return verdict
        return Verdict(Outcome.UNKNOWN, f"{verdict.words}; it has been used since")


class _InvokeCredit(Command):
    """Method of Credit: invoke_credit, by which a credit that is selectable comes into use."""

    def __init__(self, obis: Obis) -> None:
        super().__init__({"obis": str(obis), "invoke": True})
        self._obis = obis

    def observe(self, client: Client) -> Conversation[State]:
        """The status and what belongs to it."""
        return (yield from _read(client, CREDIT, self._obis, _CREDIT_ATTRIBUTES))

    def already(self, before: State) -> bool:
        """A credit that is selected, or in use."""
        return before["credit_status"] in ("selected", "in_use")

    def send(self, client: Client) -> Conversation[State]:
        """Invoke the method."""
        method = MethodDescriptor(CREDIT, self._obis, 3)
        yield from client.action(method, axdr.integer(0))
        return {}

    def judge(self, before: State, after: State) -> Verdict:
        """By the status."""
        del before
        status = after["credit_status"]
        if is_unreadable(status):
            return Verdict(Outcome.UNKNOWN, "the meter does not show its credit's status")
        if status in ("selected", "in_use"):
            return Verdict(Outcome.DONE)
        return Verdict(Outcome.NOT_DONE, f"the credit is {status}")


def make_set_credit(arguments: Arguments) -> Command:
    """{"obis": a credit, and one of "amount", "add", "invoke": true}."""
    obis = arguments.obis("obis")
    given = [name for name in ("amount", "add", "invoke") if arguments.has(name)]
    if len(given) != 1:
        raise arguments.mistake("", "exactly one of amount, add, invoke")
    if given[0] == "invoke":
        if not arguments.flag("invoke", default=False):
            raise arguments.mistake("invoke", "true")
        arguments.finish()
        return _InvokeCredit(obis)
    amount = arguments.number(given[0], -_INT32, _INT32)
    if given[0] == "add" and amount == 0:
        raise arguments.mistake("add", "a whole number other than 0")
    arguments.finish()
    return _ChangeCredit(obis, given[0], amount)


# Charge


def _unit_charge(arguments: Arguments) -> tuple[dict[str, object], Data]:
    commodity_scale = arguments.number("commodity_scale", -128, 127)
    price_scale = arguments.number("price_scale", -128, 127)
    commodity = arguments.object("commodity")
    class_id, obis = commodity.number("class_id", 0, 0xFFFF), commodity.obis("obis")
    number = commodity.number("attribute", -128, 127)
    commodity.finish()
    rows: list[dict[str, object]] = []
    encoded: list[Data] = []
    for row in arguments.objects("table", 1, 64):
        index = row.text("index", 32, "")
        try:
            octets = bytes.fromhex(index)
        except ValueError:
            raise row.mistake("index", "octets in hexadecimal") from None
        charge = row.number("charge", -_INT16 - 1, _INT16)
        row.finish()
        rows.append({"index": octets.hex(), "charge": charge})
        encoded.append(axdr.structure(axdr.octet_string(octets), axdr.long(charge)))
    arguments.finish()
    shown: dict[str, object] = {
        "commodity_scale": commodity_scale,
        "price_scale": price_scale,
        "commodity": {"class_id": class_id, "obis": str(obis), "attribute": number},
        "table": rows,
    }
    data = axdr.structure(
        axdr.structure(axdr.integer(commodity_scale), axdr.integer(price_scale)),
        axdr.structure(axdr.long_unsigned(class_id), axdr.octet_string(bytes(obis)), axdr.integer(number)),
        axdr.array(*encoded),
    )
    return shown, data


class _ActivateCharge(Command):
    """activate_passive_unit_charge: the passive unit charge becomes the active one."""

    def __init__(self, obis: Obis) -> None:
        super().__init__({"obis": str(obis), "activate": True})
        self._obis = obis

    def observe(self, client: Client) -> Conversation[State]:
        """Both unit charges and what belongs to them."""
        return (yield from _read(client, CHARGE, self._obis, _CHARGE_ATTRIBUTES))

    def already(self, before: State) -> bool:
        """Both are the same."""
        active = before["unit_charge_active"]
        return not is_unreadable(active) and active == before["unit_charge_passive"]

    def send(self, client: Client) -> Conversation[State]:
        """Invoke the method."""
        yield from client.action(MethodDescriptor(CHARGE, self._obis, 2), axdr.integer(0))
        return {}

    def judge(self, before: State, after: State) -> Verdict:
        """The active one has to be what the passive one was."""
        active, wanted = after["unit_charge_active"], before["unit_charge_passive"]
        if is_unreadable(active) or is_unreadable(wanted):
            return Verdict(Outcome.UNKNOWN, "the meter does not show its unit charges")
        if active == wanted:
            return Verdict(Outcome.DONE)
        return Verdict(Outcome.NOT_DONE, "the active unit charge is not the one that was passive")


def make_set_charge(arguments: Arguments) -> Command:
    """{"obis": a charge, and "unit_charge": the passive one, with "activation_time"; or "activate": true}."""
    obis = arguments.obis("obis")
    if arguments.has("activate"):
        if not arguments.flag("activate", default=False):
            raise arguments.mistake("activate", "true")
        arguments.finish()
        return _ActivateCharge(obis)
    shown, encoded = _unit_charge(arguments.object("unit_charge"))
    recorded: dict[str, object] = {"obis": str(obis), "unit_charge": shown}
    settings = [
        Setting("unit_charge_passive", attribute(CHARGE, obis, 6), shown, fixed(encoded), _as_unit_charge)
    ]
    if arguments.has("activation_time"):
        moment = arguments.date_time("activation_time")
        recorded["activation_time"] = times.show_date_time(moment)
        settings.append(
            Setting(
                "unit_charge_activation_time",
                attribute(CHARGE, obis, 7),
                times.show_date_time(moment),
                fixed(axdr.octet_string(moment)),
                _as_moment,
            )
        )
    arguments.finish()
    about = (("unit_charge_active", attribute(CHARGE, obis, 5), _as_unit_charge),)
    return SetAttributes(recorded, settings, about)
