"""The association objects as a server shows them: Association LN (class 15) and Association SN (class 12)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from concentrator.dlms import axdr
from concentrator.dlms.axdr import Data
from concentrator.dlms.codes import Conformance
from concentrator.dlms.cosem.objects import AccessMode, AttributeSource, CosemObject, Method, Setter
from concentrator.obis import Obis

ASSOCIATION_LN = Obis(0, 0, 40, 0, 0, 255)
SECURITY_SETUP = Obis(0, 0, 43, 0, 0, 255)
_CONTEXT_PREFIX = bytes.fromhex("608574050801")
_MECHANISM_PREFIX = bytes.fromhex("608574050802")
Access = Callable[[CosemObject, int], AccessMode]


@dataclass(frozen=True, slots=True)
class AssociationView:
    """What there is to tell of one association: who takes part, and what was agreed. `status` 2 is associated."""

    client_sap: int
    server_sap: int
    context: int
    mechanism: int
    conformance: Conformance
    max_pdu_size: int
    status: int
    security_setup: Obis = SECURITY_SETUP
    methods: Mapping[int, Method] = field(default_factory=dict[int, Method])
    setters: Mapping[int, Setter] = field(default_factory=dict[int, Setter])


def association_ln(obis: Obis, view: AssociationView, objects: Callable[[], Data]) -> CosemObject:
    """The object of class Association LN, version 1."""
    info = axdr.structure(
        Data(axdr.DataType.BIT_STRING, format(int(view.conformance), "024b")),
        axdr.long_unsigned(view.max_pdu_size),
        axdr.long_unsigned(view.max_pdu_size),
        axdr.unsigned(6),
        axdr.integer(0),
        axdr.octet_string(b""),
    )
    attributes: dict[int, AttributeSource] = {
        2: objects,
        3: axdr.structure(axdr.integer(view.client_sap), axdr.long_unsigned(view.server_sap)),
        4: axdr.octet_string(_CONTEXT_PREFIX + bytes((view.context,))),
        5: info,
        6: axdr.octet_string(_MECHANISM_PREFIX + bytes((view.mechanism,))),
        8: axdr.enumeration(view.status),
        9: axdr.octet_string(bytes(view.security_setup)),
    }
    return CosemObject(15, obis, attributes, dict(view.setters), dict(view.methods), version=1)


def _version(cosem_object: CosemObject) -> int:
    own = cosem_object.version
    return cosem_object.interface_class.version if own is None else own


def object_list_ln(objects: Iterable[CosemObject], access: Access) -> Data:
    """Attribute 2 of Association LN: the objects that this client may do anything with, and what."""
    elements: list[Data] = []
    for cosem_object in objects:
        numbers = sorted({1, *cosem_object.attributes, *cosem_object.setters})
        modes = {number: access(cosem_object, number) for number in numbers}
        if not any(modes.values()):
            continue
        attribute_access = [
            axdr.structure(axdr.integer(number), axdr.enumeration(mode), axdr.NULL)
            for number, mode in modes.items()
        ]
        method_access = [
            axdr.structure(axdr.integer(number), axdr.enumeration(1))
            for number in sorted(cosem_object.methods)
        ]
        elements.append(
            axdr.structure(
                axdr.long_unsigned(cosem_object.class_id),
                axdr.unsigned(_version(cosem_object)),
                axdr.octet_string(bytes(cosem_object.obis)),
                axdr.structure(axdr.array(*attribute_access), axdr.array(*method_access)),
            )
        )
    return axdr.array(*elements)


def object_list_sn(objects: Mapping[int, CosemObject], access: Access) -> Data:
    """Attribute 2 of Association SN: base name, class, version and logical name of each object."""
    return axdr.array(
        *(
            axdr.structure(
                # A name is a number of 16 bits; the standard has it signed here.
                axdr.long(base if base < 0x8000 else base - 0x10000),
                axdr.long_unsigned(cosem_object.class_id),
                axdr.unsigned(_version(cosem_object)),
                axdr.octet_string(bytes(cosem_object.obis)),
            )
            for base, cosem_object in objects.items()
            if any(access(cosem_object, number) for number in (1, *cosem_object.attributes))
        )
    )
