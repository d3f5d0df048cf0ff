"""What a simulated meter keeps over a power failure, and COSEM objects whose attributes stand there."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from concentrator.dlms.axdr import Data
from concentrator.dlms.codes import DataAccessResult
from concentrator.dlms.cosem.classes import Attribute, interface_class
from concentrator.dlms.cosem.objects import AttributeSource, CosemObject, Method, Setter, refused
from concentrator.dlms.cosem.views import attribute_number, fits, method_number
from concentrator.dlms.errors import DecodeError
from concentrator.obis import Obis

Check = Callable[[Data], object]


class MeterMemory:
    """Attribute values by object and name. `changed` is told what was changed, before the meter answers."""

    def __init__(self) -> None:
        self._values: dict[tuple[Obis, str], Data] = {}
        self.changed: Callable[[str], None] = lambda _what: None

    def get(self, obis: Obis, name: str) -> Data:
        """A value. Raises KeyError."""
        return self._values[obis, name]

    def put(self, obis: Obis, name: str, value: Data) -> None:
        """Keep a value."""
        self._values[obis, name] = value
        self.changed(f"{obis} {name}")

    def begin(self, obis: Obis, name: str, value: Data) -> None:
        """The value that the meter left the factory with."""
        self._values.setdefault((obis, name), value)


def kept_object(
    memory: MeterMemory,
    class_id: int,
    obis: Obis,
    values: Mapping[str, AttributeSource],
    checks: Mapping[str, Check] | None = None,
    methods: Mapping[str, Method] | None = None,
    *,
    settable: tuple[str, ...] = (),
) -> CosemObject:
    """An object of a class by the names of its table: plain values are kept in the memory, functions are asked.

    What the table lets clients set, and what is `settable` here, can be set: to a value of the attribute's type of
    which its `checks` (raising DecodeError, ValueError or KeyError) approve.
    """
    row = interface_class(class_id)
    made = CosemObject(class_id, obis, {}, version=row.version)
    for name, source in values.items():
        known = row.attributes[attribute_number(row, name) - 1]
        if isinstance(source, Data):
            memory.begin(obis, name, source)
            made.attributes[known.number] = _getter(memory, obis, name)
            if known.settable or name in settable:
                made.setters[known.number] = _setter(memory, obis, known, (checks or {}).get(name))
        else:
            made.attributes[known.number] = source
    for name, method in (methods or {}).items():
        made.methods[method_number(row, name)] = method
    return made


def _getter(memory: MeterMemory, obis: Obis, name: str) -> Callable[[], Data]:
    return lambda: memory.get(obis, name)


def _setter(memory: MeterMemory, obis: Obis, known: Attribute, check: Check | None) -> Setter:
    def put(value: Data) -> None:
        present = memory.get(obis, known.name)
        if not fits(known, value) or (known.type == "CHOICE" and value.type is not present.type):
            raise refused(DataAccessResult.TYPE_UNMATCHED, known.name)
        try:
            if check is not None:
                check(value)
        except (DecodeError, ValueError, KeyError):
            raise refused(DataAccessResult.OTHER_REASON, known.name) from None
        memory.put(obis, known.name, value)

    return put
