"""Disconnect and reconnect (class 70 Disconnect control, Blue Book part 2, 4.5.8)."""

from __future__ import annotations

from typing import NamedTuple

from concentrator.collection.control.arguments import Arguments
from concentrator.collection.control.command import (
    Command,
    Outcome,
    SetAttributes,
    Setting,
    State,
    Verdict,
    as_number,
    attribute,
    fixed,
    readable,
)
from concentrator.dlms import axdr
from concentrator.dlms.attributes import MethodDescriptor
from concentrator.dlms.axdr import Data
from concentrator.dlms.client import Client, Conversation
from concentrator.dlms.errors import AccessError, DecodeError
from concentrator.obis import Obis

DISCONNECT_CONTROL = 70
DEFAULT_NAME = "0-0:96.3.10*255"
DISCONNECTED, CONNECTED, READY = "disconnected", "connected", "ready_for_reconnection"
_CONTROL_STATES = {0: DISCONNECTED, 1: CONNECTED, 2: READY}
_REMOTE_DISCONNECT, _REMOTE_RECONNECT = 1, 2


class ControlMode(NamedTuple):
    """What one control_mode allows from remote; the letters are the transitions of the Blue Book's state machine.

    `reconnects`: remote_reconnect connects (a). Otherwise it makes ready (d), and a person presses the button (e), or
    the meter connects by itself (h).
    """

    disconnects: bool
    reconnects: bool
    by_itself: bool
    from_ready: bool = False


# Modes 0 to 6, and mode 7 of version 1.
CONTROL_MODES = {
    0: ControlMode(disconnects=False, reconnects=False, by_itself=False),
    1: ControlMode(disconnects=True, reconnects=False, by_itself=False),
    2: ControlMode(disconnects=True, reconnects=True, by_itself=False),
    3: ControlMode(disconnects=True, reconnects=False, by_itself=False),
    4: ControlMode(disconnects=True, reconnects=True, by_itself=False),
    5: ControlMode(disconnects=True, reconnects=False, by_itself=True),
    6: ControlMode(disconnects=True, reconnects=False, by_itself=True),
    7: ControlMode(disconnects=True, reconnects=True, by_itself=True, from_ready=True),
}


def read_switch(client: Client, obis: Obis) -> Conversation[State]:
    """output_state, control_state and control_mode. Raises AccessError where the meter has no such object."""
    output, state, mode = yield from client.get_many(
        [attribute(DISCONNECT_CONTROL, obis, number) for number in (2, 3, 4)]
    )
    if isinstance(output, AccessError) and isinstance(state, AccessError):
        raise output
    return {
        "output_state": readable(output, _as_flag),
        "control_state": readable(state, _as_control_state),
        # Some meters have one mode only and do not tell it.
        "control_mode": readable(mode, as_number),
    }


def _as_flag(value: Data) -> object:
    if isinstance(value.value, bool | int):
        return bool(value.value)
    raise DecodeError(f"output_state: a boolean was expected, got {value.type.label}")


def _as_control_state(value: Data) -> object:
    number = value.integer()
    return _CONTROL_STATES.get(number, f"state {number}")


class _Switch(Command):
    """Common to both methods."""

    def __init__(self, obis: Obis, method: int) -> None:
        super().__init__({"obis": str(obis)})
        self._obis = obis
        self._method = method

    def observe(self, client: Client) -> Conversation[State]:
        """The three attributes."""
        return (yield from read_switch(client, self._obis))

    def send(self, client: Client) -> Conversation[State]:
        """Invoke the method."""
        # The parameter of both methods is an integer that carries nothing.
        method = MethodDescriptor(DISCONNECT_CONTROL, self._obis, self._method)
        yield from client.action(method, axdr.integer(0))
        return {}


def _mode(before: State) -> ControlMode | None:
    number = before["control_mode"]
    return CONTROL_MODES.get(number) if isinstance(number, int) else None


def _told(after: State) -> str:
    return f"output_state is {after['output_state']}, control_state is {after['control_state']}"


class Disconnect(_Switch):
    """remote_disconnect: transitions b and c."""

    def __init__(self, obis: Obis) -> None:
        super().__init__(obis, _REMOTE_DISCONNECT)

    def refusal(self, before: State) -> str:
        """Mode 0 is always connected."""
        mode = _mode(before)
        if mode is not None and not mode.disconnects:
            return "control_mode 0: this meter stays connected whatever it is told"
        return ""

    def already(self, before: State) -> bool:
        """Disconnected, and without voltage at the output."""
        return before["control_state"] == DISCONNECTED and before["output_state"] is False

    def judge(self, before: State, after: State) -> Verdict:
        """State and output have to agree."""
        del before
        state, output = after["control_state"], after["output_state"]
        if state == DISCONNECTED and output is False:
            return Verdict(Outcome.DONE)
        if output is False and not isinstance(state, str):
            return Verdict(Outcome.DONE, "the meter does not tell its control_state")
        if state == DISCONNECTED and not isinstance(output, bool):
            return Verdict(Outcome.DONE, "the meter does not tell its output_state")
        return Verdict(Outcome.NOT_DONE, _told(after))


class Reconnect(_Switch):
    """remote_reconnect: transition a or d, as the control mode has it."""

    def __init__(self, obis: Obis) -> None:
        super().__init__(obis, _REMOTE_RECONNECT)

    def already(self, before: State) -> bool:
        """Connected, or as far as it goes from remote."""
        if before["control_state"] == READY:
            mode = _mode(before)
            return mode is not None and not mode.from_ready
        return before["control_state"] == CONNECTED and before["output_state"] is True

    def judge(self, before: State, after: State) -> Verdict:
        """Connected; or ready, where the mode leaves the rest to a person or to the meter."""
        state, output = after["control_state"], after["output_state"]
        if output is True and (state == CONNECTED or not isinstance(state, str)):
            return Verdict(Outcome.DONE)
        if state == CONNECTED and not isinstance(output, bool):
            return Verdict(Outcome.DONE, "the meter does not tell its output_state")
        mode = _mode(after) or _mode(before)
        if state == READY and output is not True:
            if mode is not None and mode.by_itself and not mode.reconnects:
                return Verdict(
                    Outcome.WAITING,
                    "ready for reconnection: a person must press, or the meter reconnects by itself",
                )
            return Verdict(
                Outcome.WAITING, "ready for reconnection: a person must press the button of the meter"
            )
        return Verdict(Outcome.NOT_DONE, _told(after))


def make_disconnect(arguments: Arguments) -> Command:
    """{"obis": the switch}."""
    obis = arguments.obis("obis", DEFAULT_NAME)
    arguments.finish()
    return Disconnect(obis)


def make_reconnect(arguments: Arguments) -> Command:
    """{"obis": the switch}."""
    obis = arguments.obis("obis", DEFAULT_NAME)
    arguments.finish()
    return Reconnect(obis)


def make_set_control_mode(arguments: Arguments) -> Command:
    """{"mode": 0 to 7, "obis": the switch}."""
    obis = arguments.obis("obis", DEFAULT_NAME)
    mode = arguments.number("mode", 0, max(CONTROL_MODES))
    arguments.finish()
    setting = Setting(
        "control_mode",
        attribute(DISCONNECT_CONTROL, obis, 4),
        mode,
        fixed(axdr.enumeration(mode)),
        as_number,
    )
    about = (
        ("output_state", attribute(DISCONNECT_CONTROL, obis, 2), _as_flag),
        ("control_state", attribute(DISCONNECT_CONTROL, obis, 3), _as_control_state),
    )
    return SetAttributes({"obis": str(obis), "mode": mode}, [setting], about)


def read_state(client: Client, arguments: Arguments) -> Conversation[State]:
    """{"obis": the switch}: its state."""
    obis = arguments.obis("obis", DEFAULT_NAME)
    arguments.finish()
    return (yield from read_switch(client, obis))
