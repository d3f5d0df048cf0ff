"""Objects by the names of the Blue Book: a client's view of a meter's object, and a server's object from its table.

Both work from the tables in `classes`: no class of its own for a class. An attribute of a class that is not listed,
or beyond what its version has, is named by its number all the same.
"""

from __future__ import annotations

from collections.abc import Mapping

from concentrator.dlms.attributes import AttributeDescriptor, MethodDescriptor
from concentrator.dlms.axdr import Data, DataType
from concentrator.dlms.client import Client
from concentrator.dlms.codes import DataAccessResult
from concentrator.dlms.cosem.classes import Attribute, InterfaceClass, interface_class
from concentrator.dlms.cosem.objects import AttributeSource, CosemObject, Method, Setter, refused
from concentrator.dlms.errors import AccessError, EncodeError
from concentrator.dlms.exchange import Conversation, Selectable
from concentrator.obis import Obis

_ANY = "CHOICE"
# What the Blue Book calls one type may come as another.
_ALSO = {
    "array": (DataType.COMPACT_ARRAY,),
    "date-time": (DataType.OCTET_STRING,),
    "visible-string": (DataType.OCTET_STRING, DataType.UTF8_STRING),
}


def attribute_number(row: InterfaceClass, attribute: str | int) -> int:
    """The number of an attribute named as in the table, or given as a number already.

    Raises:
        EncodeError: the class has no such name; the text lists those that it has.
    """
    if isinstance(attribute, int):
        return attribute
    for known in row.attributes:
        if known.name == attribute:
            return known.number
    names = ", ".join(known.name for known in row.attributes)
    raise EncodeError(f"{row.name} version {row.version} has no attribute {attribute!r}; it has {names}")


def method_number(row: InterfaceClass, method: str | int) -> int:
    """The number of a method. Raises EncodeError as `attribute_number` does."""
    if isinstance(method, int):
        return method
    if method != "-" and method in row.methods:
        return row.methods.index(method) + 1
    names = ", ".join(name for name in row.methods if name != "-") or "none"
    raise EncodeError(f"{row.name} version {row.version} has no method {method!r}; it has {names}")


def fits(attribute: Attribute, value: Data) -> bool:
    """Whether a value has the type that the table gives its attribute; null-data fits each."""
    if attribute.type == _ANY or value.is_null:
        return True
    return value.type.label == attribute.type or value.type in _ALSO.get(attribute.type, ())


class ObjectView:
    """One object of a meter: `yield from view.get("capture_period")`. `version` is what the object list says."""

    def __init__(self, client: Client, class_id: int, obis: Obis, version: int | None = None) -> None:
        self.row = interface_class(class_id, version)
        self.obis = obis
        self._client = client
        self._class_id = class_id

    def _attribute(self, attribute: str | int) -> AttributeDescriptor:
        return AttributeDescriptor(self._class_id, self.obis, attribute_number(self.row, attribute))

    def get(self, attribute: str | int, selection: Selectable = None) -> Conversation[Data]:
        """Read one attribute. Raises AccessError where the meter refuses."""
        return (yield from self._client.get(self._attribute(attribute), selection))

    def get_all(self, *but: str) -> Conversation[dict[str, Data | AccessError]]:
        """Read every attribute that the table has, `but` those named; each gives a value or why it has none."""
        names = [known.name for known in self.row.attributes if known.name not in but]
        values = yield from self._client.get_many([self._attribute(name) for name in names])
        return dict(zip(names, values, strict=True))

    def set(self, attribute: str | int, value: Data) -> Conversation[None]:
        """Write one attribute.

        Raises:
            EncodeError: the value is not of the attribute's type; nothing was sent.
            AccessError: the meter refuses.
        """
        descriptor = self._attribute(attribute)
        if 1 <= descriptor.attribute <= len(self.row.attributes):
            known = self.row.attributes[descriptor.attribute - 1]
            if not fits(known, value):
                raise EncodeError(f"{self.row.name}, {known.name}: is {known.type}, not {value.type.label}")
        yield from self._client.set(descriptor, value)

    def act(self, method: str | int, parameter: Data | None = None) -> Conversation[Data | None]:
        """Invoke one method. Raises AccessError where the meter refuses."""
        descriptor = MethodDescriptor(self._class_id, self.obis, method_number(self.row, method))
        return (yield from self._client.action(descriptor, parameter))


def object_of_class(
    class_id: int,
    obis: Obis,
    values: Mapping[str, AttributeSource],
    methods: Mapping[str, Method] | None = None,
    *,
    version: int | None = None,
) -> CosemObject:
    """A server's object from the table of its class, by names.

    What the table lets clients set, and is given as a plain value here, can be set: to a value of the attribute's
    type. Attributes that are not given do not exist in this object.

    Raises:
        EncodeError: a name that the class does not have, or a value of another type.
    """
    row = interface_class(class_id, version)
    made = CosemObject(class_id, obis, {}, version=row.version)
    for name, source in values.items():
        known = row.attributes[attribute_number(row, name) - 1]
        if isinstance(source, Data):
            if not fits(known, source):
                raise EncodeError(f"{row.name}, {name}: is {known.type}, not {source.type.label}")
            if known.settable:
                made.setters[known.number] = _setter(made, known)
        made.attributes[known.number] = source
    for name, method in (methods or {}).items():
        made.methods[method_number(row, name)] = method
    return made


def _setter(made: CosemObject, attribute: Attribute) -> Setter:
    def set_value(value: Data) -> None:
        if not fits(attribute, value):
            raise refused(DataAccessResult.TYPE_UNMATCHED, attribute.name)
        made.attributes[attribute.number] = value

    return set_value
