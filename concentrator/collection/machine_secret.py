"""The secret of this machine, under which the meters' keys are encrypted at rest.

A systemd credential of the name below where the service was given one (`LoadCredentialEncrypted=` seals it with the
TPM), else a file of mode 0600 in the state directory, made at the first start. The credential protects a stolen card,
the file only a copy of the key store without it.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from concentrator.collection.errors import KeyFileError

CREDENTIAL = "concentrator.machine-secret"
FILE = "machine_secret"
_LEAST_OCTETS = 32
_PURPOSE = b"open data concentrator: meter keys at rest"
_PRIVATE_BITS = stat.S_IRWXG | stat.S_IRWXO


def wrapping_key(
    state_directory: Path, *, may_create: bool, environment: Mapping[str, str] = os.environ
) -> bytes:
    """The AES-256 key that wraps keys, derived from the machine's secret (HKDF with SHA-256).

    Args:
        state_directory: where the secret's file is, or is made.
        may_create: False where keys are wrapped under a secret already: a new one could not open them.
        environment: where systemd names the folder of credentials.

    Raises:
        KeyFileError: the secret is missing, too short, or readable by others.
    """
    folder = environment.get("CREDENTIALS_DIRECTORY")
    credential = Path(folder) / CREDENTIAL if folder else None
    if credential is not None and credential.exists():
        # systemd keeps the folder of credentials for the service's user alone.
        secret, path = _read(credential), credential
    else:
        path = state_directory / FILE
        if not path.exists():
            if not may_create:
                raise KeyFileError(
                    f"machine secret {path}: is missing, and the key store is encrypted; restore the secret from the "
                    "backup. Where the service has it as a systemd credential, a command needs it too: see "
                    "docs/deployment.md"
                )
            _create(path)
        mode = path.stat().st_mode
        if mode & _PRIVATE_BITS:
            raise KeyFileError(
                f"machine secret {path}: has mode {stat.S_IMODE(mode):04o}, others could read it; run chmod 0600 on it"
            )
        secret = _read(path)
    if len(secret) < _LEAST_OCTETS:
        raise KeyFileError(
            f"machine secret {path}: has {len(secret)} octets; at least {_LEAST_OCTETS} are needed"
        )
    return HKDF(SHA256(), 32, salt=None, info=_PURPOSE).derive(secret)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes().strip()
    except OSError as error:
        raise KeyFileError(f"machine secret {path}: cannot be read: {error.strerror}") from None


def _create(path: Path) -> None:
    write_private(path, secrets.token_hex(_LEAST_OCTETS).encode())


def write_private(path: Path, content: bytes) -> None:
    """Replace a file as a whole by one of mode 0600: after a power cut the old one or the new one is there.

    It belongs to whom the folder belongs to, so that a command that root runs leaves files that the service can read.

    Raises:
        KeyFileError: it cannot be written.
    """
    fresh = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            if os.geteuid() == 0:
                owner = path.parent.stat()
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        fresh.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be written: {error.strerror}") from None
