"""Prepayment: account, credits, charges and token gateway (classes 111, 112, 113, 115; Blue Book part 2, 4.6).

Tokens are relayed as they were given; none is made here. A token is money until it was used: it is kept and told as
its last four digits and a digest.
"""

from __future__ import annotations

import hashlib
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
from concentrator.dlms import axdr
from concentrator.dlms.attributes import MethodDescriptor
from concentrator.dlms.axdr import Data
from concentrator.dlms.client import Client, Conversation
from concentrator.dlms.errors import AccessError
from concentrator.obis import Obis

ACCOUNT, CREDIT, CHARGE, TOKEN_GATEWAY = 111, 112, 113, 115
ACCOUNT_NAME = "0-0:19.0.0*255"
TOKEN_GATEWAY_NAME = "0-0:19.40.0*255"  # noqa: S105 - a logical name
_TOKEN_DIGITS = (19, 20)
_INT32 = 0x7FFF_FFFF
_INT16 = 0x7FFF
_ACCOUNT_MODES = {1: "credit", 2: "prepayment"}
_ACCOUNT_STATES = {1: "new", 2: "active", 3: "closed"}
_CREDIT_STATES = {0: "enabled", 1: "selectable", 2: "selected", 3: "in_use", 4: "exhausted"}
_CREDIT_TYPES = {0: "token", 1: "reserved", 2: "emergency", 3: "time_based", 4: "consumption_based"}
_CHARGE_TYPES = {0: "consumption_based", 1: "time_based", 2: "payment_event_based"}
_TOKEN_EXECUTED, _TOKEN_QUEUED = 3, 8
_TOKEN_STATES = {
    0: "format checked",
    1: "authenticated",
    2: "validated",
    3: "executed",
    4: "refused: its format is wrong",
    5: "refused: it is not authentic",
    6: "refused: it is not valid (used already, or out of date)",
    7: "refused: it could not be executed",
    8: "received, not processed yet",
}
_TOKEN_REFUSED = (4, 5, 6, 7)


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


def _as_token_status(value: Data) -> object:
    code = value.items(1)[0].integer()
    return _TOKEN_STATES.get(code, f"code {code}")


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
    state["last_token"] = yield from _read_token_gateway(client, gateway)
    return state


# Tokens


def digest_of(token: bytes) -> str:
    """What tells a token apart without telling it: part of its SHA-256."""
    return hashlib.sha256(b"token" + token).hexdigest()[:16]


def _read_token_gateway(client: Client, obis: Obis) -> Conversation[State]:
    token, time, status = yield from client.get_many(
        [attribute(TOKEN_GATEWAY, obis, number) for number in (2, 3, 6)]
    )
    return {
        "token_digest": readable(token, lambda value: digest_of(value.octets()) if value.octets() else ""),
        "token_time": readable(time, _as_moment),
        "token_status": readable(status, _as_token_status),
        "token_status_code": readable(status, lambda value: value.items(1)[0].integer()),
    }


class _EnterToken(Command):
    """Token gateway, method enter."""

    def __init__(self, obis: Obis, token: bytes, digest: str, ends: str) -> None:
        super().__init__({"obis": str(obis), "token_digest": digest, "token_ends": ends})
        self._obis = obis
        self._token = token
        self._digest = digest

    def observe(self, client: Client) -> Conversation[State]:
        """The last token's digest, time and status, and the credit where there is an account."""
        state = yield from _read_token_gateway(client, self._obis)
        account = Obis.parse(ACCOUNT_NAME)
        (credit,) = yield from client.get_many([attribute(ACCOUNT, account, 5)])
        return {**state, "available_credit": readable(credit, as_number)}

    def refusal(self, before: State) -> str:
        """The meter may have no token gateway."""
        if all(is_unreadable(before[name]) for name in ("token_digest", "token_time", "token_status")):
            return f"the meter shows no token gateway at {self._obis}"
        return ""

    def send(self, client: Client) -> Conversation[State]:
        """Relay the token."""
        # Of what the meter returns nothing is needed: its status is read back.
        method = MethodDescriptor(TOKEN_GATEWAY, self._obis, 1)
        yield from client.action(method, axdr.octet_string(self._token))
        return {}

    def judge(self, before: State, after: State) -> Verdict:
        """By the status of the token that the meter says it has taken last, where that is ours."""
        digest, moved = after["token_digest"], after["token_time"] != before["token_time"]
        if is_unreadable(digest):
            if not moved:
                return Verdict(Outcome.UNKNOWN, "the meter does not tell which token it has taken last")
        elif digest != self._digest:
            return Verdict(Outcome.NOT_DONE, "the last token of the meter is another one")
        elif before["token_digest"] == self._digest and not moved:
            # The same token again: only its time would tell that the status is of this time.
            return Verdict(Outcome.NOT_DONE, f"the meter had this token before: {after['token_status']}")
        code = after["token_status_code"]
        if code == _TOKEN_EXECUTED:
            return Verdict(Outcome.DONE)
        if code in _TOKEN_REFUSED:
            return Verdict(Outcome.NOT_DONE, f"token {after['token_status']}")
        return Verdict(Outcome.UNKNOWN, f"token {after['token_status']}: read_prepayment tells more later")

    def judge_later(self, before: State, after: State) -> Verdict:
        """Since then the customer may have entered another token."""
        digest = after["token_digest"]
        if not is_unreadable(digest) and digest not in (self._digest, before["token_digest"]):
            return Verdict(Outcome.UNKNOWN, "the meter has taken another token since")
        return self.judge(before, after)


def make_enter_token(arguments: Arguments) -> Command:
    """{"token": 19 or 20 digits, blanks and hyphens between them allowed, "obis": the token gateway}."""
    obis = arguments.obis("obis", TOKEN_GATEWAY_NAME)
    digits = arguments.secret("token").replace(" ", "").replace("-", "")
    if not digits.isascii() or not digits.isdecimal() or len(digits) not in _TOKEN_DIGITS:
        raise arguments.mistake("token", "19 or 20 digits", shown=False)
    arguments.finish()
    token = digits.encode()
    return _EnterToken(obis, token, digest_of(token), digits[-4:])


def recall_enter_token(arguments: Arguments) -> Command:
    """The order as it was kept, without its token: for looking what became of it."""
    obis = arguments.obis("obis", TOKEN_GATEWAY_NAME)
    return _EnterToken(obis, b"", arguments.text("token_digest", 64), arguments.text("token_ends", 4))


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
