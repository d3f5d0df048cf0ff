"""Certificates as an authority would issue them."""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from concentrator.dlms.certificates import CertificateType


def name_of(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(
    key,
    subject,
    *,
    issuer=None,
    issuer_key=None,
    usage=CertificateType.DIGITAL_SIGNATURE,
    ca=False,
    serial=0x8A5C,
):
    """A certificate as an authority would issue it."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    flags = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "crl_sign", "encipher_only",
         "decipher_only"), False,
    )  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(name_of(subject))
        .issuer_name(name_of(issuer or subject))
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(
            x509.KeyUsage(
                digital_signature=usage == CertificateType.DIGITAL_SIGNATURE,
                key_agreement=usage == CertificateType.KEY_AGREEMENT,
                key_cert_sign=ca,
                **flags,
            ),
            critical=True,
        )
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    algorithm = hashes.SHA256() if key.curve.key_size == 256 else hashes.SHA384()
    return builder.sign(issuer_key, algorithm).public_bytes(serialization.Encoding.DER)
