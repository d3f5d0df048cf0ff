"""Push setup (class 40, versions 0 to 3) as a server does it: what to push, where to, and the APDU made of it.

The values of the object list are read as the device's own application sees them. When to send, and how often, is
up to `push_delivery`, which keeps to what is set here. Not done: restrictions of an object list relative to the last
confirmation, and `confirmation_parameters`, which are kept and shown only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from concentrator.dlms import axdr
from concentrator.dlms.apdu.notification import DataNotification
from concentrator.dlms.attributes import (
    CLOCK_COLUMN,
    CaptureObject,
    EntryDescriptor,
    RangeDescriptor,
    Selection,
)
from concentrator.dlms.axdr import Data, DataType
from concentrator.dlms.codes import ActionResult
from concentrator.dlms.cosem.objects import AttributeSource, CosemObject, Method, refused
from concentrator.dlms.cosem.protection_parameters import ProtectionLayer
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.date_patterns import Window
from concentrator.dlms.envelopes import Envelope, EnvelopeKind, wrap
from concentrator.dlms.errors import AccessError, DecodeError, EncodeError, SecurityError
from concentrator.dlms.security import SecurityContext
from concentrator.obis import Obis

PUSH_SETUP = Obis(0, 0, 25, 9, 0, 255)
_CONFIRMED = 0x4000_0000
_ELEMENTS_LIMIT = 64
_SELF = 0
# push_operation_method
RETRY_ON_FAILURE, RETRY_ON_MISSING_SUPPORT, CONFIRMED = 0, 1, 2


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


class PushObject(NamedTuple):
    """An element of the push_object_list. From version 2 on, a profile's buffer may be cut to a part of it."""

    target: CaptureObject
    restriction: RangeDescriptor | EntryDescriptor | None = None
    columns: tuple[CaptureObject, ...] = ()

    @classmethod
    def from_data(cls, data: Data, version: int) -> PushObject:
        """Decode an element. Raises DecodeError."""
        target = CaptureObject.from_data(data)
        if version < 2:
            return cls(target)
        restriction, columns = data.items(6)[4:6]
        kind, value = restriction.items(2)[:2]
        found: RangeDescriptor | EntryDescriptor | None = None
        if kind.integer() == 1:
            bounds = [CosemDateTime.from_bytes(bound.octets()) for bound in value.items(2)[:2]]
            found = RangeDescriptor(bounds[0], bounds[1])
        elif kind.integer() == 2:
            found = EntryDescriptor(*[bound.integer() for bound in value.items(2)[:2]])
        elif kind.integer() != 0:
            raise DecodeError(f"there is no restriction of type {kind.integer()}")
        return cls(target, found, tuple([CaptureObject.from_data(column) for column in columns.items()]))

    def to_data(self, version: int) -> Data:
        """The structure of this version."""
        head = self.target.to_data()
        if version < 2:
            return head
        kind, value = 0, axdr.NULL
        if isinstance(self.restriction, RangeDescriptor):
            # Bounds are given as date-times; numbers and moments do not stand in an object list.
            ends = (self.restriction.start, self.restriction.end)
            octets = [end.to_bytes() if isinstance(end, CosemDateTime) else b"" for end in ends]
            kind, value = 1, axdr.structure(*map(axdr.octet_string, octets))
        elif isinstance(self.restriction, EntryDescriptor):
            entries = (self.restriction.from_entry, self.restriction.to_entry)
            kind, value = 2, axdr.structure(*map(axdr.double_long_unsigned, entries))
        return axdr.structure(
            *head.items(),
            axdr.structure(axdr.enumeration(kind), value),
            axdr.array(*(column.to_data() for column in self.columns)),
        )

    def selection(self) -> Selection | None:
        """The part of a buffer that is pushed."""
        if isinstance(self.restriction, EntryDescriptor):
            return self.restriction.to_selection()
        if isinstance(self.restriction, RangeDescriptor):
            return self.restriction._replace(columns=self.columns).to_selection()
        if self.columns:
            everything = CosemDateTime()
            return RangeDescriptor(everything, everything, CLOCK_COLUMN, self.columns).to_selection()
        return None


class RepetitionDelay(NamedTuple):
    """How long to wait before a push is tried again: `minimum_s`, times `exponent` percent each time, up to a limit.

    A limit of 0 is none. Versions 0 and 1 have the minimum only.
    """

    minimum_s: int = 0
    exponent: int = 100
    maximum_s: int = 0

    def before(self, retry: int) -> float:
        """Seconds before this retry, the first being 1."""
        delay = self.minimum_s * (self.exponent / 100) ** (min(retry, 256) - 1)
        return min(delay, self.maximum_s) if self.maximum_s else delay


class PushSetup:
    """The state of one Push setup object; `cosem_object` serves it.

    `find` gives the device's objects, `now` its clock as a date-time of 12 octets, and `on_push` is called when a
    client invokes push. With `security` the notification is protected: by the layers of
    `protection_parameters` where there are any, else as general-glo-ciphering.
    """

    def __init__(
        self,
        find: Callable[[int, Obis], CosemObject | None],
        now: Callable[[], bytes],
        on_push: Callable[[PushSetup], None],
        *,
        version: int = 0,
        object_list: tuple[PushObject, ...] = (),
        destination: SendDestination = SendDestination(0, b""),  # noqa: B008 - an immutable value
        confirmed: bool = False,
        security: SecurityContext | None = None,
        obis: Obis = PUSH_SETUP,
    ) -> None:
        self.version = version
        self.object_list = object_list
        self.destination = destination
        self.operation_method = CONFIRMED if confirmed else RETRY_ON_FAILURE
        self.communication_windows: tuple[Window, ...] = ()
        self.randomisation_start_interval_s = 0
        self.number_of_retries = 0
        self.repetition_delay = RepetitionDelay()
        self.port_reference = b""
        self.push_client_sap = 0
        self.protection_parameters: tuple[ProtectionLayer, ...] = ()
        self.confirmation_parameters = axdr.structure(
            axdr.octet_string(CosemDateTime().to_bytes()), axdr.double_long_unsigned(0)
        )
        self.last_confirmation = CosemDateTime()
        self.on_reset: Callable[[], None] = lambda: None
        self._find = find
        self._now = now
        self._on_push = on_push
        self._security = security
        self._obis = obis
        self._invoke = 0

    @property
    def confirmed(self) -> bool:
        """Whether a push is complete only when its data-notification-confirm is here."""
        return self.operation_method == CONFIRMED

    def cosem_object(self) -> CosemObject:
        """The object, with the attributes and methods of its version."""
        attributes: dict[int, AttributeSource] = {
            2: lambda: axdr.array(*(element.to_data(self.version) for element in self.object_list)),
            3: lambda: self.destination.to_data(),
            4: lambda: axdr.array(*(window.to_data() for window in self.communication_windows)),
            5: lambda: axdr.long_unsigned(self.randomisation_start_interval_s),
            6: lambda: axdr.unsigned(self.number_of_retries),
            7: self._repetition_delay,
        }
        setters: dict[int, Callable[[Data], None]] = {
            2: self._set_objects,
            3: lambda value: self._set("destination", SendDestination.from_data(value)),
            4: lambda value: self._set("communication_windows", Window.list_from_data(value)),
            5: self._number("randomisation_start_interval_s", DataType.LONG_UNSIGNED),
            6: self._number("number_of_retries", DataType.UNSIGNED),
            7: self._set_repetition_delay,
        }
        methods: dict[int, Method] = {1: self._push}
        if self.version >= 1:
            attributes |= {
                8: lambda: axdr.octet_string(self.port_reference),
                9: lambda: axdr.integer(self.push_client_sap),
                10: lambda: axdr.array(*(layer.to_data() for layer in self.protection_parameters)),
            }
            setters |= {
                8: lambda value: self._set("port_reference", value.octets()),
                9: self._number("push_client_sap", DataType.INTEGER),
                10: lambda value: self._set("protection_parameters", ProtectionLayer.list_from_data(value)),
            }
        if self.version >= 2:
            attributes |= {
                11: lambda: axdr.enumeration(self.operation_method),
                12: lambda: self.confirmation_parameters,
                13: lambda: Data(DataType.DATE_TIME, self.last_confirmation.to_bytes()),
            }
            setters |= {11: self._set_operation_method, 12: self._set_confirmation}
            methods[2] = self._reset
        return CosemObject(40, self._obis, attributes, setters, methods, version=self.version)

    # Attributes

    def _set(self, name: str, value: object) -> None:
        setattr(self, name, value)

    def _number(self, name: str, kind: DataType) -> Callable[[Data], None]:
        def write(value: Data) -> None:
            if value.type != kind:
                raise DecodeError(f"{name} is no {value.type.label}")
            setattr(self, name, value.integer())

        return write

    def _set_objects(self, value: Data) -> None:
        elements = value.items()
        if len(elements) > _ELEMENTS_LIMIT:
            raise DecodeError(f"{len(elements)} elements are too many for one push")
        self.object_list = tuple([PushObject.from_data(element, self.version) for element in elements])

    def _repetition_delay(self) -> Data:
        if self.version < 2:
            return axdr.long_unsigned(self.repetition_delay.minimum_s)
        return axdr.structure(*map(axdr.long_unsigned, self.repetition_delay))

    def _set_repetition_delay(self, value: Data) -> None:
        if self.version >= 2:
            self.repetition_delay = RepetitionDelay(*[part.integer() for part in value.items(3)[:3]])
        elif value.type == DataType.LONG_UNSIGNED:
            self.repetition_delay = RepetitionDelay(value.integer())
        else:
            raise DecodeError(f"repetition_delay is no {value.type.label}")

    def _set_operation_method(self, value: Data) -> None:
        if value.type != DataType.ENUM or value.integer() not in (0, 1, 2):
            raise DecodeError("push_operation_method is an enum from 0 to 2")
        self.operation_method = value.integer()

    def _set_confirmation(self, value: Data) -> None:
        start, interval = value.items(2)[:2]
        CosemDateTime.from_bytes(start.octets())
        interval.integer()
        self.confirmation_parameters = value

    # What is pushed

    def notification(self) -> DataNotification:
        """The data-notification of this moment.

        Raises:
            AccessError: an element of the object list does not exist.
        """
        self._invoke = (self._invoke + 1) & 0xFF_FFFF
        values = axdr.structure(*(self._value(element) for element in self.object_list))
        flags = _CONFIRMED if self.confirmed else 0
        return DataNotification(flags | self._invoke, self._now(), values)

    def protected(self, notification: DataNotification) -> bytes:
        """The APDU that carries it, under a new invocation counter each time.

        Raises:
            EncodeError: a key that its protection takes is not set up.
            SecurityError: a system title is not known.
        """
        octets = notification.to_bytes()
        if self._security is None:
            if self.protection_parameters:
                raise EncodeError("a push is to be protected, and has no keys")
            return octets
        if not self.protection_parameters:
            return wrap(self._security, octets, Envelope(EnvelopeKind.GENERAL))
        for layer in self.protection_parameters:
            octets = layer.apply(self._security, octets)
        return octets

    def _value(self, element: PushObject) -> Data:
        target = element.target
        cosem_object = self._find(target.class_id, target.obis)
        if cosem_object is None:
            raise refused(ActionResult.OBJECT_UNDEFINED, f"pushing {target.obis}")
        value = axdr.decode(b"".join(cosem_object.encoded(target.attribute, element.selection())))
        if target.data_index == _SELF:
            return value
        items = value.items()
        if target.data_index > len(items):
            raise refused(ActionResult.SCOPE_OF_ACCESS_VIOLATED, f"pushing {target.obis}")
        return items[target.data_index - 1]

    # Methods

    def _push(self, _parameters: Data | None) -> Data | None:
        try:
            self._on_push(self)
        except (AccessError, EncodeError, SecurityError) as error:
            raise refused(ActionResult.OBJECT_UNAVAILABLE, "push") from error
        return None

    def _reset(self, _parameters: Data | None) -> Data | None:
        """Forget what was confirmed, and give up what is under way."""
        self.last_confirmation = CosemDateTime()
        self.on_reset()
        return None
