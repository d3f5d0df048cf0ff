"""Tokens of prepayment: relayed to the meter's token gateway (class 115, Blue Book part 2, 4.6.5) as they were given.

None is made here. A token is money until it was used: it is kept and told as its last four digits and a digest.
"""

from __future__ import annotations

import hashlib

from concentrator.collection.control import times
from concentrator.collection.control.arguments import Arguments
from concentrator.collection.control.command import (
    Command,
    Outcome,
    State,
    Verdict,
    as_number,
    attribute,
    is_unreadable,
    readable,
)
from concentrator.dlms import axdr
from concentrator.dlms.attributes import MethodDescriptor
from concentrator.dlms.axdr import Data
from concentrator.dlms.client import Client, Conversation
from concentrator.obis import Obis

ACCOUNT, TOKEN_GATEWAY = 111, 115
ACCOUNT_NAME = "0-0:19.0.0*255"
TOKEN_GATEWAY_NAME = "0-0:19.40.0*255"  # noqa: S105 - a logical name
_TOKEN_DIGITS = (19, 20)
_TOKEN_EXECUTED = 3
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


def _as_moment(value: Data) -> object:
    return times.show_date_time(value.octets())


def _as_token_status(value: Data) -> object:
    code = value.items(1)[0].integer()
    return _TOKEN_STATES.get(code, f"code {code}")


def digest_of(token: bytes) -> str:
    """What tells a token apart without telling it: part of its SHA-256."""
    return hashlib.sha256(b"token" + token).hexdigest()[:16]


def read_token_gateway(client: Client, obis: Obis) -> Conversation[State]:
    """The last token's digest, time and status, each as far as the meter tells it."""
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
        state = yield from read_token_gateway(client, self._obis)
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
