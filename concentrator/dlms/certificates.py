"""X.509 certificates of security suites 1 and 2 (Green Book 9.2.6.4): public keys bound to system titles.

The common name of the subject is the system title in 16 hexadecimal digits. `TrustAnchors` tells which certificates
are to be believed: issued by one of its authorities, and valid at the time that it is given. Chains longer than one and
revocation are not looked at.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from concentrator.dlms.elliptic import PrivateKey, PublicKey, suite_of
from concentrator.dlms.errors import DecodeError, EncodeError, SecurityError


class CertificateEntity(enum.IntEnum):
    """Whose certificate, as Security setup numbers them."""

    SERVER = 0
    CLIENT = 1
    CERTIFICATION_AUTHORITY = 2
    OTHER = 3


class CertificateType(enum.IntEnum):
    """What the key of a certificate is for."""

    DIGITAL_SIGNATURE = 0
    KEY_AGREEMENT = 1
    TLS = 2
    OTHER = 3


def _common_name(name: x509.Name) -> str:
    values = [str(attribute.value) for attribute in name.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return values[0] if len(values) == 1 else ""


def _title_of(name: x509.Name) -> bytes:
    try:
        title = bytes.fromhex(_common_name(name))
    except ValueError:
        return b""
    return title if len(title) == 8 else b""


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate. `system_title` is empty for an authority, whose common name is a name."""

    x509: x509.Certificate
    public_key: PublicKey

    @classmethod
    def from_bytes(cls, octets: bytes) -> Certificate:
        """Decode a certificate in DER, or in PEM as files hold it.

        Raises:
            DecodeError: it is none, or its key is on no curve of the security suites.
        """
        try:
            pem = octets.lstrip().startswith(b"-----BEGIN")
            decoded = (x509.load_pem_x509_certificate if pem else x509.load_der_x509_certificate)(octets)
            key = decoded.public_key()
            if not isinstance(key, PublicKey):
                raise DecodeError("the key of a certificate is not on an elliptic curve")
            suite_of(key)
            # Malformed names and extensions show only when they are read.
            for name in (decoded.subject, decoded.issuer):
                _common_name(name)
            tuple(decoded.extensions)
        except (ValueError, TypeError, EncodeError, x509.DuplicateExtension) as error:
            raise DecodeError(f"{len(octets)} octets are no certificate of use here: {error}") from None
        return cls(decoded, key)

    def to_bytes(self) -> bytes:
        """The certificate in DER, as it is imported and exported."""
        return self.x509.public_bytes(serialization.Encoding.DER)

    @property
    def suite(self) -> int:
        """The security suite that its key is made for."""
        return suite_of(self.public_key)

    @property
    def system_title(self) -> bytes:
        """The system title that the key is bound to; empty where the subject is none."""
        return _title_of(self.x509.subject)

    @property
    def serial_number(self) -> bytes:
        """The serial number, as the contents of its INTEGER."""
        number = self.x509.serial_number
        return number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True)

    @property
    def issuer(self) -> bytes:
        """The issuer's name in DER."""
        return self.x509.issuer.public_bytes()

    @property
    def subject(self) -> bytes:
        """The subject's name in DER."""
        return self.x509.subject.public_bytes()

    @property
    def is_authority(self) -> bool:
        """Whether it may issue others."""
        try:
            return bool(self.x509.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
        except x509.ExtensionNotFound:
            return False

    @property
    def type(self) -> CertificateType:
        """What its key is for, by its key usage."""
        try:
            usage = self.x509.extensions.get_extension_for_class(x509.KeyUsage).value
        except x509.ExtensionNotFound:
            return CertificateType.OTHER
        if usage.digital_signature and usage.key_agreement:
            return CertificateType.TLS
        if usage.digital_signature:
            return CertificateType.DIGITAL_SIGNATURE
        return CertificateType.KEY_AGREEMENT if usage.key_agreement else CertificateType.OTHER

    def check_validity(self, now: datetime) -> None:
        """Check that the certificate holds at this time.

        Raises:
            SecurityError: it does not yet, or does not any more.
        """
        begin, end = self.x509.not_valid_before_utc, self.x509.not_valid_after_utc
        if not begin <= now <= end:
            raise SecurityError(
                f"the certificate of {_common_name(self.x509.subject)!r} is valid from {begin:%Y-%m-%d} to "
                f"{end:%Y-%m-%d}, and not on {now:%Y-%m-%d}"
            )

    def check_issuer(self, authority: Certificate) -> None:
        """Check that this authority issued the certificate.

        Raises:
            SecurityError: it did not, or is no authority.
        """
        if not authority.is_authority:
            raise SecurityError(f"{_common_name(authority.x509.subject)!r} may not issue certificates")
        try:
            self.x509.verify_directly_issued_by(authority.x509)
        except (InvalidSignature, ValueError, TypeError):
            raise SecurityError(
                f"the certificate of {_common_name(self.x509.subject)!r} is not issued by "
                f"{_common_name(authority.x509.subject)!r}"
            ) from None


class TrustAnchors:
    """The authorities whose certificates are believed. `now` gives the time; without it, validity is not looked at."""

    def __init__(self, authorities: Iterable[Certificate], now: Callable[[], datetime] | None = None) -> None:
        self.authorities = tuple(authorities)
        self._now = now

    def check(self, certificate: Certificate) -> None:
        """Check that a certificate is to be believed now.

        Raises:
            SecurityError: no authority issued it, or it, or its authority's, is not valid now.
        """
        issuer = self._issuer(certificate)
        if self._now is not None:
            for one in (certificate, issuer):
                one.check_validity(self._now())

    def _issuer(self, certificate: Certificate) -> Certificate:
        for authority in self.authorities:
            try:
                certificate.check_issuer(authority)
            except SecurityError:
                continue
            return authority
        raise SecurityError(
            f"the certificate of {_common_name(certificate.x509.subject)!r} is issued by "
            f"{_common_name(certificate.x509.issuer)!r}, which is no authority here"
        )

    def signing_key(self, octets: bytes, system_title: bytes) -> PublicKey:
        """The key in a certificate for digital signature that a peer shows with its system title.

        Raises:
            DecodeError: it is no certificate.
            SecurityError: it is not to be believed, for another purpose, or for another title.
        """
        certificate = Certificate.from_bytes(octets)
        self.check(certificate)
        if certificate.type not in (CertificateType.DIGITAL_SIGNATURE, CertificateType.TLS):
            raise SecurityError("the certificate that the peer shows is not for digital signature")
        if certificate.system_title != system_title:
            raise SecurityError(
                f"{system_title.hex()} shows the certificate of {certificate.system_title.hex() or 'nobody'}"
            )
        return certificate.public_key


def certificate_request(key: PrivateKey, system_title: bytes) -> bytes:
    """A PKCS #10 request in DER for the public half of `key`, for an authority to sign."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, system_title.hex().upper())])
    algorithm = hashes.SHA256() if suite_of(key) == 1 else hashes.SHA384()
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, algorithm)
    return request.public_bytes(serialization.Encoding.DER)


def read_certificate_request(octets: bytes) -> tuple[bytes, PublicKey]:
    """System title and public key of a request, whose own signature fits.

    Raises:
        DecodeError: it is no request.
        SecurityError: it is not signed by the key that it is for.
    """
    try:
        request = x509.load_der_x509_csr(octets)
        key = request.public_key()
        title = _title_of(request.subject)
        if not isinstance(key, PublicKey) or not title:
            raise DecodeError("the request is for no key or no system title of use here")
        suite_of(key)
        signed = request.is_signature_valid
    except (ValueError, TypeError, EncodeError) as error:
        raise DecodeError(f"{len(octets)} octets are no certificate request: {error}") from None
    if not signed:
        raise SecurityError("a certificate request is not signed by its own key")
    return title, key
