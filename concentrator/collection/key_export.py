"""Keys for somebody else: as CMS enveloped data (RFC 5652) that only the recipient's private key opens."""

from __future__ import annotations

import json
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from concentrator.collection.errors import KeyFileError
from concentrator.collection.key_store import KeyStore

_LEAST_RSA_BITS = 2048


def seal_for(store: KeyStore, recipient: Path) -> tuple[bytes, int]:
    """The keys of a store, encrypted (AES-256-CBC, RSA) for a certificate's owner, as PEM; and of how many meters.

    Inside is JSON that `key_import` takes.

    Raises:
        KeyFileError: the certificate cannot be used, or an entry of the store is damaged.
    """
    certificate = _certificate(recipient)
    rows: list[dict[str, str]] = []
    for name, kinds in store.kinds().items():
        row = {"meter": name}
        for kind in kinds:
            key = store.key(name, kind) or b""
            row[kind] = f"hex:{key.hex()}" if kind == "password" else key.hex()
        rows.append(row)
    builder = (
        pkcs7.PKCS7EnvelopeBuilder()
        .set_data(json.dumps(rows, indent=1).encode())
        .set_content_encryption_algorithm(algorithms.AES256)
        .add_recipient(certificate)
    )
    return builder.encrypt(Encoding.PEM, [pkcs7.PKCS7Options.Binary]), len(rows)


def _certificate(path: Path) -> x509.Certificate:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        raise KeyFileError(f"recipient {path}: is no certificate in PEM that can be read") from None
    key = certificate.public_key()
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < _LEAST_RSA_BITS:
        raise KeyFileError(
            f"recipient {path}: has no RSA key of at least {_LEAST_RSA_BITS} bits, which enveloped data needs"
        )
    return certificate
