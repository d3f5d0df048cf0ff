"""The disconnector and the limiter of a simulated meter (classes 70 and 71, Blue Book part 2, 4.5.8 and 4.5.9)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from concentrator.dlms import axdr
from concentrator.dlms.axdr import Data, DataType
from concentrator.dlms.codes import ActionResult, DataAccessResult
from concentrator.dlms.cosem.objects import CosemObject, refused
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.errors import DecodeError
from concentrator.obis import Obis
from concentrator.simulator.meter_memory import MeterMemory, kept_object

DISCONNECTED, CONNECTED, READY_FOR_RECONNECTION = 0, 1, 2
# The transitions that each control mode has, by the letters of the Blue Book's state diagram.
TRANSITIONS = {
    0: "", 1: "bcfgde", 2: "bcfgae", 3: "bcgde", 4: "bcgae", 5: "bcfgdeh", 6: "bcgdeh", 7: "bcgaieh",
}  # fmt: skip
_STEPS = {
    "a": (DISCONNECTED, CONNECTED),
    "b": (CONNECTED, DISCONNECTED),
    "c": (READY_FOR_RECONNECTION, DISCONNECTED),
    "d": (DISCONNECTED, READY_FOR_RECONNECTION),
    "e": (READY_FOR_RECONNECTION, CONNECTED),
    "f": (CONNECTED, READY_FOR_RECONNECTION),
    "g": (CONNECTED, READY_FOR_RECONNECTION),
    "h": (READY_FOR_RECONNECTION, CONNECTED),
    "i": (READY_FOR_RECONNECTION, CONNECTED),
}


class Switch:
    """One Disconnect control object. `stuck`: its contacts are welded, so that it does not move whatever it is told."""

    def __init__(self, memory: MeterMemory, obis: Obis, mode: int = 4) -> None:
        self.obis = obis
        self.stuck = False
        self._memory = memory
        memory.begin(obis, "control_state", axdr.enumeration(CONNECTED))
        memory.begin(obis, "control_mode", axdr.enumeration(mode))

    @property
    def state(self) -> int:
        """control_state."""
        return self._memory.get(self.obis, "control_state").integer()

    @property
    def mode(self) -> int:
        """control_mode."""
        return self._memory.get(self.obis, "control_mode").integer()

    @mode.setter
    def mode(self, mode: int) -> None:
        if mode == 0:
            # Always connected.
            self._memory.put(self.obis, "control_state", axdr.enumeration(CONNECTED))
        self._memory.put(self.obis, "control_mode", axdr.enumeration(mode))

    @property
    def connected(self) -> bool:
        """output_state."""
        return self.state == CONNECTED

    def step(self, letters: str) -> bool:
        """Take the first of these transitions that mode and state have; False where there is none."""
        for letter in letters:
            origin, target = _STEPS[letter]
            if letter in TRANSITIONS[self.mode] and self.state == origin:
                if not self.stuck:
                    self._memory.put(self.obis, "control_state", axdr.enumeration(target))
                return True
        return False

    def remote_disconnect(self) -> None:
        """By a client."""
        self.step("bc")

    def remote_reconnect(self) -> None:
        """By a client."""
        self.step("adi")

    def manual_reconnect(self) -> None:
        """The button of the meter."""
        self.step("e")

    def manual_disconnect(self) -> None:
        """The button of the meter."""
        self.step("f")

    def local_disconnect(self) -> None:
        """By a function of the meter: limiter, prepayment."""
        self.step("g")

    def local_reconnect(self) -> None:
        """By a function of the meter."""
        self.step("h")

    def cosem_object(self) -> CosemObject:
        """The object of class 70."""

        def act(move: Callable[[], None]) -> Callable[[Data | None], Data | None]:
            def method(_parameter: Data | None) -> Data | None:
                if self.mode == 0:
                    raise refused(ActionResult.OTHER_REASON)
                move()
                return None

            return method

        def set_mode(value: Data) -> None:
            if value.type is not DataType.ENUM:
                raise refused(DataAccessResult.TYPE_UNMATCHED)
            if value.integer() not in TRANSITIONS:
                raise refused(DataAccessResult.OTHER_REASON)
            self.mode = value.integer()

        made = kept_object(
            self._memory,
            70,
            self.obis,
            {
                "output_state": lambda: axdr.boolean(self.connected),
                "control_state": self._memory.get(self.obis, "control_state"),
                "control_mode": lambda: axdr.enumeration(self.mode),
            },
            methods={
                "remote_disconnect": act(self.remote_disconnect),
                "remote_reconnect": act(self.remote_reconnect),
            },
        )
        made.setters[4] = set_mode
        return made


class Limiter:
    """One Limiter object: watches a value, and has scripts executed when it is over or under its threshold too long."""

    def __init__(
        self,
        memory: MeterMemory,
        obis: Obis,
        monitored: tuple[int, Obis, int],
        measure: Callable[[datetime], int],
        execute: Callable[[Obis, int], None],
        over: tuple[Obis, int],
    ) -> None:
        self._memory = memory
        self._obis = obis
        self._measure = measure
        self._execute = execute
        class_id, name, attribute = monitored
        no_script = axdr.structure(axdr.octet_string(bytes(6)), axdr.long_unsigned(0))
        self._factory: dict[str, Data] = {
            "monitored_value": axdr.structure(
                axdr.long_unsigned(class_id), axdr.octet_string(bytes(name)), axdr.integer(attribute)
            ),
            "threshold_normal": axdr.double_long_unsigned(50_000),
            "threshold_emergency": axdr.double_long_unsigned(2_000),
            "min_over_threshold_duration": axdr.double_long_unsigned(60),
            "min_under_threshold_duration": axdr.double_long_unsigned(60),
            "emergency_profile": axdr.structure(
                axdr.long_unsigned(0),
                axdr.octet_string(CosemDateTime().to_bytes()),
                axdr.double_long_unsigned(0),
            ),
            "emergency_profile_group_id_list": axdr.array(axdr.long_unsigned(1)),
            "actions": axdr.structure(
                axdr.structure(axdr.octet_string(bytes(over[0])), axdr.long_unsigned(over[1])), no_script
            ),
        }
        for attribute_name, value in self._factory.items():
            memory.begin(obis, attribute_name, value)
        # Not kept over a power failure: how long the value has been over or under, and which script was executed.
        self.over_since: datetime | None = None
        self.under_since: datetime | None = None
        self._acted = ""

    def _value(self, name: str) -> Data:
        return self._memory.get(self._obis, name)

    def emergency_active(self, now: datetime, local: datetime) -> bool:
        """Whether the emergency profile is in force: of a group of ours, begun and not over."""
        identifier, activation, duration = self._value("emergency_profile").items(3)[:3]
        groups = [item.integer() for item in self._value("emergency_profile_group_id_list").items()]
        length = duration.integer()
        if identifier.integer() not in groups or length == 0:
            return False
        start = CosemDateTime.from_bytes(activation.octets())
        if not start.is_moment:
            return False
        begun = start.local() if start.utc_offset is None else start.to_utc()
        at = local if start.utc_offset is None else now
        return begun <= at < begun + timedelta(seconds=length)

    def threshold(self, now: datetime, local: datetime) -> Data:
        """threshold_active."""
        emergency = self.emergency_active(now, local)
        return self._value("threshold_emergency" if emergency else "threshold_normal")

    def advance(self, now: datetime, local: datetime) -> None:
        """See what has become of the value since."""
        over = self._measure(now) > self.threshold(now, local).integer()
        if over:
            self.over_since, self.under_since = self.over_since or now, None
        else:
            self.over_since, self.under_since = None, self.under_since or now
        since = self.over_since or self.under_since or now
        word = "over" if over else "under"
        least = self._value(f"min_{word}_threshold_duration").integer()
        if word != self._acted and now - since >= timedelta(seconds=least):
            self._acted = word
            table, selector = self._value("actions").items(2)[not over].items(2)[:2]
            if any(table.octets()):
                self._execute(Obis.from_bytes(table.octets()), selector.integer())

    def power_failed(self) -> None:
        """What is not kept is gone."""
        self.over_since = self.under_since = None
        self._acted = ""

    def cosem_object(self, now: Callable[[], datetime], local: Callable[[], datetime]) -> CosemObject:
        """The object of class 71."""
        return kept_object(
            self._memory,
            71,
            self._obis,
            {
                **self._factory,
                "threshold_active": lambda: self.threshold(now(), local()),
                "emergency_profile_active": lambda: axdr.boolean(self.emergency_active(now(), local())),
            },
            {
                "emergency_profile": _check_profile,
                "emergency_profile_group_id_list": lambda value: [item.integer() for item in value.items()],
                "actions": lambda value: [item.items(2)[0].octets() for item in value.items(2)],
                "monitored_value": _check_nothing_else,
            },
        )


def _check_profile(value: Data) -> None:
    identifier, activation, duration = value.items(3)[:3]
    identifier.integer()
    duration.integer()
    CosemDateTime.from_bytes(activation.octets())
    if len(value.items()) != 3:
        raise DecodeError("an emergency profile has three elements")


def _check_nothing_else(_value: Data) -> None:
    raise ValueError("this limiter monitors one value only")
