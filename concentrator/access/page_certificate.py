"""The page's own certificate: made once by the service, for boxes without one of the operator's.

Self-signed, so a browser asks at the first visit: compare the fingerprint with what the service logged, or
`concentrator page fingerprint` prints. The service's group may read the private key: the page's process needs it.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import socket
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from concentrator.access.errors import AccessError
from concentrator.config import Config

CERTIFICATE_FILE, KEY_FILE = "page_certificate.pem", "page_key.pem"
_BACKDATED = dt.timedelta(days=1)
# A box whose clock was not set yet has to be reached later too; no authority stands behind it that would object.
_VALID = dt.timedelta(days=20 * 365)


def own_certificate(config: Config, now: dt.datetime) -> Path:
    """The own certificate, made where it is missing; gives its file.

    Raises:
        AccessError: it cannot be written.
    """
    folder = config.state_directory
    certificate_file, key_file = folder / CERTIFICATE_FILE, folder / KEY_FILE
    if certificate_file.exists() and key_file.exists():
        return certificate_file
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, config.concentrator.name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectAlternativeName(_names(config)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(key_file, private, 0o640)
    _write(certificate_file, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return certificate_file


def fingerprint(certificate_file: Path) -> str:
    """SHA-256 of the first certificate of a file, as browsers show it.

    Raises:
        AccessError: there is none that can be read.
    """
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
    except OSError as error:
        raise AccessError(
            f"certificate {certificate_file}: cannot be read: {error.strerror}; the service makes one at its start "
            'with web.tls = "own"'
        ) from None
    except ValueError:
        raise AccessError(f"certificate {certificate_file}: is no certificate in PEM form") from None
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def page_certificate(config: Config) -> tuple[Path, Path] | None:
    """Files of the certificate and the private key that the page uses; None without TLS."""
    if config.web.tls == "off":
        return None
    if config.web.tls == "files":
        return Path(config.web.certificate_file), Path(config.web.private_key_file)
    return config.state_directory / CERTIFICATE_FILE, config.state_directory / KEY_FILE


def _names(config: Config) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for one in dict.fromkeys(
        [
            config.web.host,
            *config.web.names.replace(",", " ").split(),
            config.concentrator.name,
            socket.gethostname(),
            "localhost",
        ]
    ):
        try:
            address = ipaddress.ip_address(one)
        except ValueError:
            names.append(x509.DNSName(one.replace("_", "-")))
        else:
            if not address.is_unspecified:
                names.append(x509.IPAddress(address))
    return names


def _write(path: Path, content: bytes, mode: int) -> None:
    fresh = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise AccessError(f"{path}: cannot be written: {error.strerror}") from None
