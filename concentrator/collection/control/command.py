"""One control order as the meter's conversations: what is read before and after, what is sent, and what that says.

Nothing is taken for done because it was acknowledged: `judge` compares what the meter says before and after. States
are JSON objects without secrets, as they go into the audit trail and back to whoever gave the order.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from concentrator.dlms import axdr
from concentrator.dlms.attributes import AttributeDescriptor
from concentrator.dlms.axdr import Data
from concentrator.dlms.client import Client, Conversation
from concentrator.dlms.codes import DataAccessResult, named, words
from concentrator.dlms.errors import AccessError, DecodeError
from concentrator.obis import Obis

State: TypeAlias = "dict[str, Any]"
UNREADABLE = "unreadable"
_ABSENT = (DataAccessResult.OBJECT_UNDEFINED, DataAccessResult.OBJECT_CLASS_INCONSISTENT)


class Outcome(enum.StrEnum):
    """What became of an order, as the audit trail and results say it."""

    DONE = "done"
    # Done as far as it goes from here: a person has to do the rest at the meter.
    WAITING = "waiting_for_person"
    # The meter said yes, and has nothing that could be read back.
    ACKNOWLEDGED = "acknowledged"
    NOT_DONE = "not_done"
    UNKNOWN = "unknown"


class Verdict(NamedTuple):
    """What two states say about an order, and why in words."""

    outcome: Outcome
    words: str = ""


class Command(ABC):
    """One order, checked. `recorded` are its arguments as the audit trail keeps them, without secrets."""

    def __init__(self, recorded: dict[str, Any]) -> None:
        self.recorded = recorded

    @abstractmethod
    def observe(self, client: Client) -> Conversation[State]:
        """Read the state that the order is about. Changes nothing. Raises DlmsError."""

    def refusal(self, before: State) -> str:
        """Why nothing is to be sent to a meter in this state; "" to go on."""
        del before
        return ""

    def already(self, before: State) -> bool:
        """Whether a meter in this state is as the order wants it, so that nothing needs to be sent."""
        del before
        return False

    @abstractmethod
    def send(self, client: Client) -> Conversation[State]:
        """Do it, in the dialogue in which `observe` went before; gives what is told beside the states.

        Raises:
            AccessError: the meter refused.
            DlmsError: its answer made no sense, or did not come.
        """

    @abstractmethod
    def judge(self, before: State, after: State) -> Verdict:
        """What came of it, from the states right before and right after."""

    def judge_later(self, before: State, after: State) -> Verdict:
        """The same where hours may lie between: the answer was lost, or the concentrator was restarted."""
        return self.judge(before, after)


class Acknowledged(Command):
    """A command whose effect cannot be read back: the meter's acknowledgement is all there is."""

    def observe(self, client: Client) -> Conversation[State]:
        """Nothing to read."""
        del client
        yield from ()
        return {}

    def judge(self, before: State, after: State) -> Verdict:
        """Nothing to compare."""
        del before, after
        return Verdict(Outcome.ACKNOWLEDGED, "the meter has nothing to read back")

    def judge_later(self, before: State, after: State) -> Verdict:
        """Nothing to compare, and no acknowledgement either."""
        del before, after
        return Verdict(Outcome.UNKNOWN, "the meter has nothing to read back")


Encode: TypeAlias = Callable[[Data | None], Data]


@dataclass(frozen=True, slots=True)
class Setting:
    """One attribute that an order sets: to what, how that is shown, and how it is encoded.

    `encode` is given the present value, whose type may have to be kept; None where it cannot be read.
    """

    name: str
    attribute: AttributeDescriptor
    wanted: object
    encode: Encode
    show: Callable[[Data], object]


class SetAttributes(Command):
    """Writes attributes and reads them back. `about` are attributes that are read beside, by name."""

    def __init__(
        self,
        recorded: dict[str, Any],
        settings: Sequence[Setting],
        about: Sequence[tuple[str, AttributeDescriptor, Callable[[Data], object]]] = (),
    ) -> None:
        super().__init__(recorded)
        self.settings = tuple(settings)
        self._about = tuple(about)
        self._present: dict[str, Data | AccessError] = {}

    def observe(self, client: Client) -> Conversation[State]:
        """The attributes by name."""
        asked = [(one.name, one.attribute, one.show) for one in self.settings] + list(self._about)
        values = yield from client.get_many([attribute for _name, attribute, _show in asked])
        self._present = {name: value for (name, _, _), value in zip(asked, values, strict=True)}
        return {name: readable(value, show) for (name, _, show), value in zip(asked, values, strict=True)}

    def refusal(self, before: State) -> str:
        """The meter may lack the object."""
        del before
        for one in self.settings:
            value = self._present.get(one.name)
            if isinstance(value, AccessError) and value.result in _ABSENT:
                return f"the meter has no {one.attribute}: {words(named(DataAccessResult, value.result))}"
        return ""

    def already(self, before: State) -> bool:
        """All attributes have their values."""
        return all(before.get(one.name) == one.wanted for one in self.settings)

    def send(self, client: Client) -> Conversation[State]:
        """Write what differs, in the order of the settings."""
        for one in self.settings:
            present = self._present.get(one.name)
            known = present if isinstance(present, Data) else None
            if known is not None and readable(known, one.show) == one.wanted:
                continue
            yield from client.set(one.attribute, one.encode(known))
        return {}

    def judge(self, before: State, after: State) -> Verdict:
        """Whether what was read back is what was written."""
        del before
        differing = [one for one in self.settings if after.get(one.name) != one.wanted]
        if not differing:
            return Verdict(Outcome.DONE)
        if all(is_unreadable(after.get(one.name)) for one in differing):
            names = ", ".join(one.name for one in differing)
            return Verdict(Outcome.ACKNOWLEDGED, f"{names} cannot be read back")
        told = "; ".join(f"{one.name} is {brief(after.get(one.name))}" for one in differing)
        return Verdict(Outcome.NOT_DONE, told)

    def judge_later(self, before: State, after: State) -> Verdict:
        """Without an acknowledgement, what cannot be read is not known."""
        verdict = self.judge(before, after)
        return Verdict(Outcome.UNKNOWN, verdict.words) if verdict.outcome is Outcome.ACKNOWLEDGED else verdict


def readable(value: Data | AccessError, show: Callable[[Data], object]) -> object:
    """A value as it is shown; what cannot be read, or makes no sense, says so."""
    if isinstance(value, AccessError):
        return {UNREADABLE: words(named(DataAccessResult, value.result))}
    try:
        return show(value)
    except DecodeError as error:
        return {UNREADABLE: str(error), "axdr": value.to_bytes().hex()}


def is_unreadable(shown: object) -> bool:
    """Whether this is what `readable` gives for a value that could not be read."""
    return isinstance(shown, dict) and UNREADABLE in shown


def brief(shown: object) -> str:
    """A value within a sentence."""
    text = str(shown)
    return text if len(text) <= 120 else text[:117] + "..."  # noqa: PLR2004 - a line of a message


def attribute(class_id: int, obis: Obis, number: int) -> AttributeDescriptor:
    """One attribute."""
    return AttributeDescriptor(class_id, obis, number)


# How values are shown and encoded.


def as_number(value: Data) -> object:
    """A number of any type."""
    return value.integer()


def as_text(value: Data) -> object:
    """Octets that are printable as text; others in hexadecimal behind 0x."""
    octets = value.octets()
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        return "0x" + octets.hex()
    return text if not text or text.isprintable() else "0x" + octets.hex()


def as_plain(value: Data) -> object:
    """Any value: numbers, truths and lists as they are, octets as `as_text` has them."""
    native = value.value
    if isinstance(native, bytes):
        return as_text(axdr.octet_string(native))
    if isinstance(native, int | float | str | bool | None):
        return native
    return [as_plain(item) for item in value.items()]


def as_obis(value: Data) -> str:
    """A logical name. Raises DecodeError."""
    octets = value.octets()
    if len(octets) != 6:  # noqa: PLR2004 - a logical name
        raise DecodeError(f"a logical name has 6 octets, got {octets.hex()}")
    return str(Obis.from_bytes(octets))


def number_like(value: int, otherwise: Callable[[int], Data]) -> Encode:
    """A number in the type that the meter has there."""

    def encode(present: Data | None) -> Data:
        if present is None or not isinstance(present.value, int) or isinstance(present.value, bool):
            return otherwise(value)
        return Data(present.type, value)

    return encode


def fixed(value: Data) -> Encode:
    """The same encoding whatever the meter has there."""
    return lambda _present: value
