"""A signed firmware image in a folder, and orders about campaigns."""

from __future__ import annotations

import hashlib
import itertools
import random
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from concentrator.collection.firmware.manifest import Manifest, sign
from concentrator.orders import LOCAL, Order

OLD, NEW = "ODC-SIM 1.0", "ODC-SIM 2.0"
NAME = "meter-2.0.json"
_numbers = itertools.count(1)


def make_key(folder: Path, name: str = "release") -> Ed25519PrivateKey:
    """A pair of keys, as PEM files."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / f"{name}.pem").write_bytes(private)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub").write_bytes(public)
    return key


def octets_of(size: int) -> bytes:
    """An image that the simulated meter verifies: it begins with its maker's letters."""
    return b"ODC" + random.Random(size).randbytes(size - 3)


def manifest_of(octets: bytes, **changes) -> Manifest:
    fields = {
        "file": "meter-2.0.bin",
        "manufacturer": "ODC",
        "model": "simulated",
        "from_versions": (OLD,),
        "to_version": NEW,
        "image_identifier": NEW.encode().hex(),
        "size": len(octets),
        "sha256": hashlib.sha256(octets).hexdigest(),
    }
    return Manifest(**(fields | changes))


def release(folder: Path, key: Ed25519PrivateKey, size: int = 5000, octets: bytes | None = None, **changes):
    """Put a signed image into a folder; gives its octets."""
    folder.mkdir(exist_ok=True)
    octets = octets_of(size) if octets is None else octets
    (folder / "meter-2.0.bin").write_bytes(octets)
    sign(manifest_of(octets, **changes), key, folder / NAME)
    return octets


def order(operation: str, origin: str = LOCAL, **arguments) -> Order:
    if operation == "firmware_start":
        arguments = {"name": "spring", "image": NAME, **arguments}
    elif operation != "firmware_status":
        arguments = {"name": "spring", **arguments}
    return Order(f"f{next(_numbers)}", operation, "", arguments, origin=origin)
