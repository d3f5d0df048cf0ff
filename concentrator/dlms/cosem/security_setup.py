"""Security setup (class 64, versions 0 and 1) as a server holds it: policy, keys, key pairs, certificates.

Keys that a client exchanges are used from the next association on; whoever holds the device's keys is told
by `keys_changed`, and whoever keeps them by `changed`. The policy can only be raised. Certificates are trusted when
they are issued by one of the authorities that the device was made with, are valid at its time where it has a clock,
and are for the suite.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from concentrator.dlms import axdr, elliptic
from concentrator.dlms.axdr import Data
from concentrator.dlms.certificates import (
    Certificate,
    CertificateEntity,
    CertificateType,
    TrustAnchors,
    certificate_request,
)
from concentrator.dlms.codes import ActionResult
from concentrator.dlms.cosem.objects import AttributeSource, CosemObject, Method, refused
from concentrator.dlms.elliptic import PrivateKey
from concentrator.dlms.errors import DecodeError, SecurityError
from concentrator.dlms.key_agreement import KeyAgreement, KeyId, unwrapped_keys
from concentrator.dlms.security import SecurityKeys, SecurityPolicy
from concentrator.errors import LocalError
from concentrator.obis import Obis

SECURITY_SETUP = Obis(0, 0, 43, 0, 0, 255)
_FIELDS = {
    KeyId.GLOBAL_UNICAST: "encryption",
    KeyId.GLOBAL_BROADCAST: "broadcast",
    KeyId.AUTHENTICATION: "authentication",
    KeyId.MASTER: "master",
}
_KEPT = (*_FIELDS.values(), "signing", "agreement", "peer_signing", "peer_agreement")
_CERTIFICATE_LIMIT = 16


class KeyHolder(Protocol):
    """Whose keys these are: a logical device."""

    def keys_changed(self) -> None:
        """Keys were exchanged: received counters start anew."""
        ...


class SecuritySetup:
    """The state of one Security setup object; `cosem_object` serves it.

    `keys` are those of the association's definition, and are changed in place. `policy` is in the numbers of
    version 1 whatever `version` is shown. `changed` is called when a method has changed anything, before the client
    is answered: where it raises a LocalError nothing has changed, and the client is told that it failed.
    """

    def __init__(
        self,
        keys: SecurityKeys,
        system_title: bytes,
        *,
        suite: int = 0,
        version: int = 1,
        policy: SecurityPolicy = SecurityPolicy.NONE,
        client_system_title: Callable[[], bytes] = lambda: b"",
        authorities: tuple[Certificate, ...] = (),
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self.keys = keys
        self.system_title = system_title
        self.suite = suite
        self.version = version
        self.policy = policy
        self.holder: KeyHolder | None = None
        self.changed: Callable[[], None] = lambda: None
        self.certificates: list[Certificate] = list(authorities)
        self._trust = TrustAnchors(authorities, now)
        self._client_title = client_system_title
        self._generated: dict[CertificateType, PrivateKey] = {}

    def cosem_object(self, obis: Obis = SECURITY_SETUP) -> CosemObject:
        """The object, with the attributes and methods of its version and suite."""
        attributes: dict[int, AttributeSource] = {
            2: lambda: axdr.enumeration(self._shown_policy()),
            3: lambda: axdr.enumeration(self.suite),
            4: lambda: axdr.octet_string(self._client_title()),
            5: axdr.octet_string(self.system_title),
        }
        methods: dict[int, Method] = {1: self._security_activate, 2: self._key_transfer}
        if self.version >= 1:
            attributes[6] = self._certificate_list
        if self.version >= 1 and self.suite:
            methods |= {
                3: self._key_agreement,
                4: self._generate_key_pair,
                5: self._generate_certificate_request,
                6: self._import_certificate,
                7: self._export_certificate,
                8: self._remove_certificate,
            }
        kept = {number: self._kept(method) for number, method in methods.items()}
        return CosemObject(64, obis, attributes, methods=kept, version=self.version)

    def _kept(self, method: Method) -> Method:
        def invoke(parameters: Data | None) -> Data | None:
            before = self._state()
            answer = method(parameters)
            if self._state() != before:
                try:
                    self.changed()
                except LocalError:
                    self._restore(before)
                    raise refused(ActionResult.OTHER_REASON) from None
            return answer

        return invoke

    def _state(self) -> tuple[SecurityPolicy, tuple[Certificate, ...], tuple[object, ...]]:
        return self.policy, tuple(self.certificates), tuple([getattr(self.keys, name) for name in _KEPT])

    def _restore(self, state: tuple[SecurityPolicy, tuple[Certificate, ...], tuple[object, ...]]) -> None:
        self.policy, certificates, keys = state
        self.certificates[:] = certificates
        for name, key in zip(_KEPT, keys, strict=True):
            setattr(self.keys, name, key)

    # Policy and keys

    def _shown_policy(self) -> int:
        if self.version >= 1:
            return int(self.policy)
        return (self.policy.request_control | self.policy.response_control) >> 4

    def _security_activate(self, parameters: Data | None) -> Data | None:
        wanted = _number(parameters)
        if self.version == 0:
            if wanted > 3:
                raise refused(ActionResult.TYPE_UNMATCHED)
            policy = SecurityPolicy.NONE
            if wanted & 1:
                policy |= SecurityPolicy.AUTHENTICATED_REQUEST | SecurityPolicy.AUTHENTICATED_RESPONSE
            if wanted & 2:
                policy |= SecurityPolicy.ENCRYPTED_REQUEST | SecurityPolicy.ENCRYPTED_RESPONSE
        else:
            policy = SecurityPolicy(wanted & 0xFC)
            if wanted & ~0xFC or (not self.suite and policy & _SIGNED):
                raise refused(ActionResult.TYPE_UNMATCHED)
        if self.policy & ~policy:
            raise refused(ActionResult.READ_WRITE_DENIED)
        self.policy = policy
        return None

    def _key_transfer(self, parameters: Data | None) -> Data | None:
        if not self.keys.master:
            raise refused(ActionResult.OBJECT_UNAVAILABLE)
        try:
            keys = unwrapped_keys(self.keys.master, self.suite, parameters)
        except SecurityError:
            raise refused(ActionResult.OTHER_REASON) from None
        self._use(keys)
        return None

    def _key_agreement(self, parameters: Data | None) -> Data | None:
        signing, peer, client_title = self.keys.signing, self.keys.peer_signing, self._client_title()
        if signing is None or peer is None or len(client_title) != 8:
            raise refused(ActionResult.OBJECT_UNAVAILABLE)
        agreement = KeyAgreement(self.suite, signing, peer, client_title, self.system_title)
        try:
            answer, keys = agreement.answer(parameters)
        except SecurityError:
            raise refused(ActionResult.OTHER_REASON) from None
        self._use(keys)
        return answer

    def _use(self, keys: dict[KeyId, bytes]) -> None:
        for key_id, key in keys.items():
            setattr(self.keys, _FIELDS[key_id], key)
        if keys and self.holder is not None:
            self.holder.keys_changed()

    # Key pairs and certificates

    def _key_type(self, parameters: Data | None) -> CertificateType:
        number = _number(parameters)
        if number not in (
            CertificateType.DIGITAL_SIGNATURE,
            CertificateType.KEY_AGREEMENT,
            CertificateType.TLS,
        ):
            raise refused(ActionResult.TYPE_UNMATCHED)
        return CertificateType(number)

    def _generate_key_pair(self, parameters: Data | None) -> Data | None:
        # In use only when a certificate for it was imported.
        self._generated[self._key_type(parameters)] = elliptic.generate_private_key(self.suite)
        return None

    def _generate_certificate_request(self, parameters: Data | None) -> Data | None:
        kind = self._key_type(parameters)
        in_use = {
            CertificateType.DIGITAL_SIGNATURE: self.keys.signing,
            CertificateType.KEY_AGREEMENT: self.keys.agreement,
        }
        key = self._generated.get(kind) or in_use.get(kind)
        if key is None:
            raise refused(ActionResult.OBJECT_UNAVAILABLE)
        return axdr.octet_string(certificate_request(key, self.system_title))

    def _import_certificate(self, parameters: Data | None) -> Data | None:
        if parameters is None:
            raise refused(ActionResult.TYPE_UNMATCHED)
        certificate = Certificate.from_bytes(parameters.octets())
        if certificate.suite != self.suite or len(self.certificates) >= _CERTIFICATE_LIMIT:
            raise refused(ActionResult.OTHER_REASON)
        try:
            self._trust.check(certificate)
        except SecurityError:
            raise refused(ActionResult.OTHER_REASON) from None
        if certificate.system_title == self.system_title:
            self._put_into_use(certificate)
        elif certificate.system_title and certificate.system_title == self._client_title():
            if certificate.type == CertificateType.DIGITAL_SIGNATURE:
                self.keys.peer_signing = certificate.public_key
            elif certificate.type == CertificateType.KEY_AGREEMENT:
                self.keys.peer_agreement = certificate.public_key
        if certificate not in self.certificates:
            self.certificates.append(certificate)
        return None

    def _put_into_use(self, certificate: Certificate) -> None:
        """A certificate of our own: its key pair replaces the one before."""
        key = self._generated.get(certificate.type)
        if key is None or elliptic.public_octets(key.public_key()) != elliptic.public_octets(
            certificate.public_key
        ):
            raise refused(ActionResult.OTHER_REASON)
        if certificate.type == CertificateType.DIGITAL_SIGNATURE:
            self.keys.signing = key
        elif certificate.type == CertificateType.KEY_AGREEMENT:
            self.keys.agreement = key

    def _export_certificate(self, parameters: Data | None) -> Data | None:
        return axdr.octet_string(self._identified(parameters).to_bytes())

    def _remove_certificate(self, parameters: Data | None) -> Data | None:
        certificate = self._identified(parameters)
        if certificate in self._trust.authorities:
            raise refused(ActionResult.READ_WRITE_DENIED)
        self.certificates.remove(certificate)
        return None

    def _identified(self, parameters: Data | None) -> Certificate:
        """The certificate that a client means: by entity, type and title, or by serial number and issuer."""
        if parameters is None:
            raise refused(ActionResult.TYPE_UNMATCHED)
        way, options = parameters.items(2)[:2]
        if way.integer() == 0:
            entity, kind, title = options.items(3)[:3]
            wanted = entity.integer(), kind.integer(), title.octets()
            for certificate in self.certificates:
                if (self._entity(certificate), certificate.type, certificate.system_title) == wanted:
                    return certificate
        elif way.integer() == 1:
            serial, issuer = options.items(2)[:2]
            # Some clients send the contents of the serial number, some the whole INTEGER.
            for certificate in self.certificates:
                number = certificate.serial_number
                forms = (number, number.lstrip(b"\x00"), bytes((2, len(number))) + number)
                if serial.octets() in forms and issuer.octets() == certificate.issuer:
                    return certificate
        else:
            raise DecodeError(f"a certificate is identified in way 0 or 1, not {way.integer()}")
        raise refused(ActionResult.OBJECT_UNDEFINED)

    def _entity(self, certificate: Certificate) -> CertificateEntity:
        if certificate.is_authority:
            return CertificateEntity.CERTIFICATION_AUTHORITY
        if certificate.system_title == self.system_title:
            return CertificateEntity.SERVER
        if certificate.system_title:
            return CertificateEntity.CLIENT
        return CertificateEntity.OTHER

    def _certificate_list(self) -> Data:
        return axdr.array(
            *(
                axdr.structure(
                    axdr.enumeration(self._entity(certificate)),
                    axdr.enumeration(certificate.type),
                    axdr.octet_string(certificate.serial_number),
                    axdr.octet_string(certificate.issuer),
                    axdr.octet_string(certificate.subject),
                    axdr.octet_string(b""),
                )
                for certificate in self.certificates
            )
        )


_SIGNED = SecurityPolicy.SIGNED_REQUEST | SecurityPolicy.SIGNED_RESPONSE


def _number(parameters: Data | None) -> int:
    if parameters is None:
        raise refused(ActionResult.TYPE_UNMATCHED)
    return parameters.integer()
