"""Any attribute written, any method invoked: for what no other order does. Values may be secrets: none is kept."""

from __future__ import annotations

from typing import Any

from concentrator.collection.control.arguments import Arguments
from concentrator.collection.control.command import Acknowledged, Command, Outcome, State, Verdict, as_plain
from concentrator.dlms import axdr
from concentrator.dlms.attributes import AttributeDescriptor, MethodDescriptor
from concentrator.dlms.axdr import Data
from concentrator.dlms.client import Client, Conversation
from concentrator.dlms.codes import DataAccessResult, named, words
from concentrator.dlms.errors import AccessError, DlmsError

_AXDR_WORDS = "A-XDR data in hexadecimal, such as 1105 for an unsigned 5"


class _Write(Acknowledged):
    """SET of one attribute; whether it reads back as ordered is told, not what it reads."""

    def __init__(self, target: AttributeDescriptor, value: Data | None) -> None:
        super().__init__(
            {"class_id": target.class_id, "obis": str(target.obis), "attribute": target.attribute}
        )
        self._target = target
        self._value = value

    def observe(self, client: Client) -> Conversation[State]:
        """Whether the attribute is as ordered."""
        if self._value is None:
            return {}
        try:
            value = yield from client.get(self._target)
        except AccessError as error:
            return {"unreadable": words(named(DataAccessResult, error.result))}
        return {"as_ordered": value == self._value}

    def send(self, client: Client) -> Conversation[State]:
        """Write it, even where it reads as ordered: a write may start something."""
        if self._value is not None:
            yield from client.set(self._target, self._value)
        return {"obis": str(self._target.obis), "written": True}

    def judge(self, before: State, after: State) -> Verdict:
        """What reads back otherwise may have moved on since, as a clock does."""
        del before
        if after.get("as_ordered"):
            return Verdict(Outcome.DONE)
        told = "it reads back otherwise" if "as_ordered" in after else "it cannot be read back"
        return Verdict(Outcome.ACKNOWLEDGED, told)


class _Invoke(Acknowledged):
    """ACTION of one method."""

    def __init__(self, method: MethodDescriptor, parameter: Data | None) -> None:
        super().__init__({"class_id": method.class_id, "obis": str(method.obis), "method": method.method})
        self._method = method
        self._parameter = parameter

    def send(self, client: Client) -> Conversation[State]:
        """Invoke it; gives what it returned."""
        answer = yield from client.action(self._method, self._parameter)
        result: dict[str, Any] = {"obis": str(self._method.obis), "done": True}
        if answer is not None:
            result |= {"answer": as_plain(answer), "axdr": answer.to_bytes().hex()}
        return result


def _data(arguments: Arguments, name: str, *, needed: bool) -> Data | None:
    if not needed and not arguments.has(name):
        arguments.secret(name)
        return None
    try:
        return axdr.decode(bytes.fromhex(arguments.secret(name) or "none"))
    except (ValueError, DlmsError):
        # What was given may be a password: it is not repeated.
        raise arguments.mistake(name, f"no A-XDR data in hexadecimal; {_AXDR_WORDS}", shown=False) from None


def _write_target(arguments: Arguments) -> AttributeDescriptor:
    class_id = arguments.number("class_id", 0, 0xFFFF, 1)
    return AttributeDescriptor(class_id, arguments.obis("obis"), arguments.number("attribute", -128, 127, 2))


def make_write(arguments: Arguments) -> Command:
    """{"class_id": 1, "obis", "attribute": 2, "value": A-XDR data in hexadecimal}."""
    target = _write_target(arguments)
    value = _data(arguments, "value", needed=True)
    arguments.finish()
    return _Write(target, value)


def recall_write(arguments: Arguments) -> Command:
    """The order as it was kept, without its value."""
    return _Write(_write_target(arguments), None)


def _method(arguments: Arguments) -> MethodDescriptor:
    class_id = arguments.number("class_id", 0, 0xFFFF)
    return MethodDescriptor(class_id, arguments.obis("obis"), arguments.number("method", -128, 127, 1))


def make_action(arguments: Arguments) -> Command:
    """{"class_id", "obis", "method": 1, "parameter": A-XDR data in hexadecimal}."""
    method = _method(arguments)
    parameter = _data(arguments, "parameter", needed=False)
    arguments.finish()
    return _Invoke(method, parameter)


def recall_action(arguments: Arguments) -> Command:
    """The order as it was kept, without its parameter."""
    return _Invoke(_method(arguments), None)
