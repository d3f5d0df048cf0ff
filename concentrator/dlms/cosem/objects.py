"""COSEM objects as a server holds them: values or functions behind the attributes of a class's table."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from concentrator.dlms import axdr
from concentrator.dlms.attributes import CaptureObject, Selection
from concentrator.dlms.axdr import Data
from concentrator.dlms.codes import ActionResult, DataAccessResult
from concentrator.dlms.cosem.classes import InterfaceClass, interface_class
from concentrator.dlms.errors import AccessError
from concentrator.obis import Obis


class AccessMode(enum.IntEnum):
    """Access rights of an attribute, numbered as Association LN tells them."""

    NO_ACCESS = 0
    READ_ONLY = 1
    WRITE_ONLY = 2
    READ_AND_WRITE = 3
    AUTHENTICATED_READ_ONLY = 4
    AUTHENTICATED_WRITE_ONLY = 5
    AUTHENTICATED_READ_AND_WRITE = 6

    @property
    def readable(self) -> bool:
        """Whether the attribute may be read."""
        return self in (1, 3, 4, 6)

    @property
    def writable(self) -> bool:
        """Whether the attribute may be written."""
        return self in (2, 3, 5, 6)


class Buffer(Protocol):
    """An attribute that is too large to be kept encoded, or that has selective access."""

    def read(self, selection: Selection | None) -> Iterator[bytes]:
        """The encoded value, cut anywhere.

        Raises:
            AccessError: the selection cannot be served.
            DecodeError: the selection is malformed.
        """
        ...


AttributeSource: TypeAlias = "Data | Callable[[], Data] | Buffer"
Setter: TypeAlias = Callable[[Data], None]
Method: TypeAlias = Callable[[Data | None], Data | None]


def refused(result: DataAccessResult | ActionResult, what: str = "access") -> AccessError:
    """The error by which a setter, method or buffer tells its client no."""
    return AccessError(result, what)


@dataclass(slots=True)
class CosemObject:
    """One object. `attributes` by number from 2 on; a number without entry does not exist here.

    A setter makes its attribute writable; setters and methods raise `refused(...)` to say no.
    """

    class_id: int
    obis: Obis
    attributes: dict[int, AttributeSource]
    setters: dict[int, Setter] = field(default_factory=dict[int, Setter])
    methods: dict[int, Method] = field(default_factory=dict[int, Method])
    version: int | None = None

    @property
    def interface_class(self) -> InterfaceClass:
        """The table of its class."""
        return interface_class(self.class_id)

    def encoded(self, attribute: int, selection: Selection | None) -> Iterator[bytes]:
        """The encoded value of an attribute, cut anywhere.

        Raises:
            AccessError: there is no such attribute, or no such selection of it.
        """
        source = self.attributes.get(attribute)
        if attribute == 1:
            source = axdr.octet_string(bytes(self.obis))
        if source is None:
            raise refused(DataAccessResult.OBJECT_UNDEFINED)
        if isinstance(source, Data):
            value = source
        elif callable(source):
            value = source()
        else:
            return source.read(selection)
        if selection is not None:
            raise refused(DataAccessResult.SCOPE_OF_ACCESS_VIOLATED)
        return iter((value.to_bytes(),))


def data(obis: Obis, value: AttributeSource) -> CosemObject:
    """An object of class Data."""
    return CosemObject(1, obis, {2: value})


def register(obis: Obis, value: AttributeSource, scaler: int, unit: int) -> CosemObject:
    """An object of class Register."""
    scaler_unit = axdr.structure(axdr.integer(scaler), axdr.enumeration(unit))
    return CosemObject(3, obis, {2: value, 3: scaler_unit})


def capture_objects(columns: Iterable[CaptureObject]) -> Data:
    """Attribute 3 of a profile."""
    return axdr.array(*(column.to_data() for column in columns))
