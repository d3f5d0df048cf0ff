"""How an APDU or a value is protected, as objects hold it: protection_parameters (Blue Book, classes 30 and 40).

Each element is one layer, applied in their order: authentication, encryption, both, or a signature; with the
header fields and the key of general-ciphering.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from concentrator.dlms import axdr
from concentrator.dlms.data import Data
from concentrator.dlms.envelopes import Envelope, EnvelopeKind, KeyEstablishment, wrap
from concentrator.dlms.errors import DecodeError
from concentrator.dlms.security import BOTH, SecurityContext, SecurityControl

_LAYERS_LIMIT = 4
_MASTER = 0


class ProtectionType(enum.IntEnum):
    """What one layer does."""

    AUTHENTICATION = 0
    ENCRYPTION = 1
    AUTHENTICATION_AND_ENCRYPTION = 2
    SIGNATURE = 3


_CONTROL = {
    ProtectionType.AUTHENTICATION: int(SecurityControl.AUTHENTICATED),
    ProtectionType.ENCRYPTION: int(SecurityControl.ENCRYPTED),
    ProtectionType.AUTHENTICATION_AND_ENCRYPTION: BOTH,
}
# key_info_type and what it is about: which identified key, or which scheme of agreement.
_KEY_INFO = {
    KeyEstablishment.IDENTIFIED: (0, 0),
    KeyEstablishment.BROADCAST: (0, 1),
    KeyEstablishment.WRAPPED: (1, _MASTER),
    KeyEstablishment.ONE_PASS: (2, 1),
    KeyEstablishment.STATIC_UNIFIED: (2, 2),
}


def _key_info_to_data(establishment: KeyEstablishment) -> Data:
    kind, option = _KEY_INFO[establishment]
    options = axdr.enumeration(option)
    if kind == 1:
        options = axdr.structure(options, axdr.octet_string(b""))
    elif kind == 2:
        options = axdr.structure(axdr.octet_string(bytes((option,))), axdr.octet_string(b""))
    return axdr.structure(axdr.enumeration(kind), options)


def _key_info_from_data(data: Data) -> KeyEstablishment:
    kind, options = data.items(2)[:2]
    number = kind.integer()
    if number == 0:
        option = options.integer()
    elif number == 1:
        option = options.items(1)[0].integer()
    else:
        parameters = options.items(1)[0].octets()
        option = parameters[0] if parameters else -1
    for establishment, found in _KEY_INFO.items():
        if found == (number, option):
            return establishment
    raise DecodeError(f"key_info {number} with {option} names no key")


@dataclass(frozen=True, slots=True)
class ProtectionLayer:
    """One layer. Octets left empty are made by whoever protects: a transaction-id, its own title, its peer's."""

    type: ProtectionType
    establishment: KeyEstablishment = KeyEstablishment.IDENTIFIED
    transaction_id: bytes = b""
    originator: bytes = b""
    recipient: bytes = b""
    other_information: bytes = b""

    @classmethod
    def list_from_data(cls, data: Data) -> tuple[ProtectionLayer, ...]:
        """Decode the attribute. Raises DecodeError."""
        elements = data.items()
        if len(elements) > _LAYERS_LIMIT:
            raise DecodeError(f"{len(elements)} layers of protection are too many")
        return tuple([cls._from_data(element) for element in elements])

    @classmethod
    def _from_data(cls, element: Data) -> ProtectionLayer:
        number, options = element.items(2)[:2]
        transaction, originator, recipient, other, key_info = options.items(5)[:5]
        try:
            kind = ProtectionType(number.integer())
        except ValueError:
            raise DecodeError(f"there is no type of protection {number.integer()}") from None
        titles = originator.octets(), recipient.octets()
        if any(len(title) not in (0, 8) for title in titles):
            raise DecodeError("a system title has 8 octets")
        return cls(kind, _key_info_from_data(key_info), transaction.octets(), *titles, other.octets())

    def to_data(self) -> Data:
        """The structure of the Blue Book."""
        options = (self.transaction_id, self.originator, self.recipient, self.other_information)
        return axdr.structure(
            axdr.enumeration(self.type),
            axdr.structure(*map(axdr.octet_string, options), _key_info_to_data(self.establishment)),
        )

    def apply(self, security: SecurityContext, octets: bytes) -> bytes:
        """Put octets into this layer.

        Raises:
            EncodeError: a key that it takes is not set up.
            SecurityError: the recipient's system title is not known.
        """
        if self.type == ProtectionType.SIGNATURE:
            envelope = Envelope(
                EnvelopeKind.PLAIN,
                signed=True,
                transaction_id=self.transaction_id,
                other_information=self.other_information,
            )
        else:
            envelope = Envelope(
                EnvelopeKind.GENERAL_CIPHERING,
                establishment=self.establishment,
                control=_CONTROL[self.type],
                transaction_id=self.transaction_id,
                other_information=self.other_information,
            )
        return wrap(security.towards(self.recipient), octets, envelope)
