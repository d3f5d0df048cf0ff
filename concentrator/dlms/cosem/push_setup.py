"""Push setup (class 40) as a server does it: what to push, where to, and the data-notification made of it.

The values of the object list are read as the device's own application sees them. Sending, at which moment and
how often, is up to whoever takes the notifications: communication windows, randomisation and retries are
kept here for him to keep to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from concentrator.dlms import axdr
from concentrator.dlms.apdu.notification import DataNotification
from concentrator.dlms.attributes import CaptureObject
from concentrator.dlms.axdr import Data, DataType
from concentrator.dlms.codes import ActionResult
from concentrator.dlms.cosem.objects import AttributeSource, CosemObject, refused
from concentrator.dlms.errors import AccessError, DecodeError
from concentrator.obis import Obis

PUSH_SETUP = Obis(0, 0, 25, 9, 0, 255)
_CONFIRMED = 0x4000_0000
_ELEMENTS_LIMIT = 64
_SELF = 0


class SendDestination(NamedTuple):
    """send_destination_and_method: transport service (0 TCP, 1 UDP, ...), destination, message type (0 APDU)."""

    transport: int
    destination: bytes
    message: int = 0

    @classmethod
    def from_data(cls, data: Data) -> SendDestination:
        """Decode the attribute. Raises DecodeError."""
        transport, destination, message = data.items(3)[:3]
        return cls(transport.integer(), destination.octets(), message.integer())

    def to_data(self) -> Data:
        """The structure of the Blue Book."""
        return axdr.structure(
            axdr.enumeration(self.transport),
            axdr.octet_string(self.destination),
            axdr.enumeration(self.message),
        )


class PushSetup:
    """The state of one Push setup object; `cosem_object` serves it.

    `find` gives the device's objects, `now` its clock as a date-time of 12 octets, and `send` is handed each
    notification with its destination.
    """

    def __init__(
        self,
        find: Callable[[int, Obis], CosemObject | None],
        send: Callable[[SendDestination, DataNotification], None],
        now: Callable[[], bytes],
        *,
        object_list: tuple[CaptureObject, ...] = (),
        destination: SendDestination = SendDestination(0, b""),  # noqa: B008 - an immutable value
        confirmed: bool = False,
        obis: Obis = PUSH_SETUP,
    ) -> None:
        self.object_list = object_list
        self.destination = destination
        self.confirmed = confirmed
        self.communication_window = axdr.array()
        self.randomisation_start_interval = axdr.long_unsigned(0)
        self.number_of_retries = axdr.unsigned(0)
        self.repetition_delay = axdr.long_unsigned(0)
        self._find = find
        self._send = send
        self._now = now
        self._obis = obis
        self._invoke = 0

    def cosem_object(self) -> CosemObject:
        """The object in version 0, with its attributes and its method push."""
        attributes: dict[int, AttributeSource] = {
            2: lambda: axdr.array(*(element.to_data() for element in self.object_list)),
            3: lambda: self.destination.to_data(),
            4: lambda: self.communication_window,
            5: lambda: self.randomisation_start_interval,
            6: lambda: self.number_of_retries,
            7: lambda: self.repetition_delay,
        }

        def set_objects(value: Data) -> None:
            elements = value.items()
            if len(elements) > _ELEMENTS_LIMIT:
                raise DecodeError(f"{len(elements)} elements are too many for one push")
            self.object_list = tuple([CaptureObject.from_data(element) for element in elements])

        def set_destination(value: Data) -> None:
            self.destination = SendDestination.from_data(value)

        def setter(name: str, *kinds: DataType) -> Callable[[Data], None]:
            def write(value: Data) -> None:
                if value.type not in kinds:
                    raise DecodeError(f"{name} is no {value.type.label}")
                setattr(self, name, value)

            return write

        setters = {
            2: set_objects,
            3: set_destination,
            4: setter("communication_window", DataType.ARRAY),
            5: setter("randomisation_start_interval", DataType.LONG_UNSIGNED),
            6: setter("number_of_retries", DataType.UNSIGNED),
            7: setter("repetition_delay", DataType.LONG_UNSIGNED),
        }
        return CosemObject(40, self._obis, attributes, setters, {1: self._push}, version=0)

    def notification(self) -> DataNotification:
        """The data-notification of this moment.

        Raises:
            AccessError: an element of the object list does not exist.
        """
        self._invoke = (self._invoke + 1) & 0xFF_FFFF
        values = axdr.structure(*(self._value(element) for element in self.object_list))
        flags = _CONFIRMED if self.confirmed else 0
        return DataNotification(flags | self._invoke, self._now(), values)

    def _value(self, element: CaptureObject) -> Data:
        cosem_object = self._find(element.class_id, element.obis)
        if cosem_object is None:
            raise refused(ActionResult.OBJECT_UNDEFINED, f"pushing {element.obis}")
        value = axdr.decode(b"".join(cosem_object.encoded(element.attribute, None)))
        if element.data_index == _SELF:
            return value
        items = value.items()
        if element.data_index > len(items):
            raise refused(ActionResult.SCOPE_OF_ACCESS_VIOLATED, f"pushing {element.obis}")
        return items[element.data_index - 1]

    def _push(self, _parameters: Data | None) -> Data | None:
        """Method push."""
        try:
            notification = self.notification()
        except AccessError as error:
            raise refused(ActionResult.OBJECT_UNAVAILABLE, "push") from error
        self._send(self.destination, notification)
        return None
