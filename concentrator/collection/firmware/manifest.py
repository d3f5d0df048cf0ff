"""What is said of a meter's firmware image, signed by whoever is trusted to release it.

Three files lie side by side: the image; its manifest, a JSON object that names the image, says for which meters it is
and has its SHA-256; and the signature, 64 octets of Ed25519 (RFC 8032) over the octets of the manifest's file, in a
file of the manifest's name with `.sig` behind it. Public keys are PEM files (SubjectPublicKeyInfo), as OpenSSL writes
them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from concentrator.collection.firmware.errors import FirmwareImageError

FORMAT = "meter-firmware-1"
SIGNATURE_SUFFIX = ".sig"
LARGEST_IMAGE_OCTETS = 16 * 1024 * 1024
_LARGEST_MANIFEST_OCTETS = 64 * 1024
_SIGNATURE_OCTETS = 64
_LONGEST_TEXT = 64
_MOST_VERSIONS = 64
_LONGEST_IDENTIFIER = 64
_FILE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
_HEX = re.compile(r"^(?:[0-9a-f]{2})*$")
_SHA_256_DIGITS = 64


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image and the meters that it is for.

    `manufacturer` are the three letters of the FLAG identification, `model` is the name of the meter model as the
    registry has it; versions are what the meters tell of themselves. `image_identifier` is what
    image_transfer_initiate is given; `image_signature` is what image_to_activate_info has to show after the
    verification, or empty where that is not known. Both are hexadecimal, as `sha256` is. `size` is in octets.
    """

    file: str
    manufacturer: str
    model: str
    from_versions: tuple[str, ...]
    to_version: str
    image_identifier: str
    size: int
    sha256: str
    image_signature: str = ""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            FirmwareImageError: one makes no sense.
        """
        checks: tuple[tuple[str, bool, str], ...] = (
            ("file", bool(_FILE.match(self.file)), "the name of a file beside the manifest"),
            ("manufacturer", _is_text(self.manufacturer), "text"),
            ("model", _is_text(self.model), "text"),
            (
                "from_versions",
                0 < len(self.from_versions) <= _MOST_VERSIONS and all(map(_is_text, self.from_versions)),
                f"1 to {_MOST_VERSIONS} versions",
            ),
            ("to_version", _is_text(self.to_version), "text"),
            (
                "image_identifier",
                _is_hex(self.image_identifier) and 0 < len(self.image_identifier) <= 2 * _LONGEST_IDENTIFIER,
                f"1 to {_LONGEST_IDENTIFIER} octets in hexadecimal",
            ),
            ("size", 0 < self.size <= LARGEST_IMAGE_OCTETS, f"1 to {LARGEST_IMAGE_OCTETS} octets"),
            (
                "sha256",
                _is_hex(self.sha256) and len(self.sha256) == _SHA_256_DIGITS,
                f"{_SHA_256_DIGITS} hexadecimal digits",
            ),
            ("image_signature", _is_hex(self.image_signature), "octets in hexadecimal, or empty"),
        )
        for name, holds, allowed in checks:
            if not holds:
                raise FirmwareImageError(
                    f"manifest: {name}: got {str(getattr(self, name))[:80]!r}; allowed: {allowed}"
                )
        if self.to_version in self.from_versions:
            raise FirmwareImageError(f"manifest: to_version: {self.to_version!r} is among from_versions too")

    @classmethod
    def from_bytes(cls, octets: bytes) -> Manifest:
        """Take the octets of a manifest's file; whether they are signed is not looked at here.

        Raises:
            FirmwareImageError: they are no manifest.
        """
        if len(octets) > _LARGEST_MANIFEST_OCTETS:
            raise FirmwareImageError(f"manifest: longer than {_LARGEST_MANIFEST_OCTETS} octets")
        try:
            content: object = json.loads(octets)
        except (ValueError, RecursionError) as error:
            raise FirmwareImageError(f"manifest: not JSON: {str(error)[:200]}") from None
        if not isinstance(content, dict):
            raise FirmwareImageError("manifest: not a JSON object")
        fields = cast("Mapping[str, Any]", content)
        if fields.get("format") != FORMAT:
            raise FirmwareImageError(
                f"manifest: format: got {str(fields.get('format'))[:80]!r}; allowed: {FORMAT!r}"
            )
        given = {name: value for name, value in fields.items() if name != "format"}
        for name in given:
            if name not in _TYPES:
                raise FirmwareImageError(f"manifest: {str(name)[:80]!r}: unknown field")
        for name, kind in _TYPES.items():
            if name not in given and name != "image_signature":
                raise FirmwareImageError(f"manifest: {name}: missing")
            if type(given.get(name, "")) is not kind:
                raise FirmwareImageError(f"manifest: {name}: got a {type(given[name]).__name__}")
        versions = given.pop("from_versions")
        if not all(isinstance(one, str) for one in versions):
            raise FirmwareImageError("manifest: from_versions: allowed: a list of texts")
        return cls(from_versions=tuple(versions), **given)

    def to_bytes(self) -> bytes:
        """The octets of the manifest's file."""
        fields = {"format": FORMAT, **asdict(self), "from_versions": list(self.from_versions)}
        return json.dumps(fields, indent=2, ensure_ascii=False).encode() + b"\n"

    @property
    def identifier(self) -> bytes:
        """image_identifier, as octets."""
        return bytes.fromhex(self.image_identifier)

    def misfit(self, manufacturer: str, model: str, firmware: str) -> str:
        """Why the image is not for a meter; "" where it is."""
        if manufacturer != self.manufacturer:
            return f"its manufacturer is {manufacturer or 'not known'}, the image is for {self.manufacturer}"
        if model != self.model:
            return f"its model is {model or 'not known'}, the image is for {self.model}"
        if firmware == self.to_version:
            return f"it has {self.to_version} already"
        if firmware not in self.from_versions:
            return (
                f"its firmware is {firmware or 'not known'}, the image is for {', '.join(self.from_versions)}"
            )
        return ""


_TYPES: dict[str, type] = {
    "file": str,
    "manufacturer": str,
    "model": str,
    "from_versions": list,
    "to_version": str,
    "image_identifier": str,
    "size": int,
    "sha256": str,
    "image_signature": str,
}


def _is_text(value: str) -> bool:
    return 0 < len(value) <= _LONGEST_TEXT and value.isprintable() and value == value.strip()


def _is_hex(value: str) -> bool:
    return bool(_HEX.fullmatch(value))


@dataclass(frozen=True, slots=True)
class SignedImage:
    """An image that is what its manifest says, which a trusted key has signed. `key` is that key's fingerprint."""

    manifest: Manifest
    octets: bytes
    key: str


class TrustedKeys:
    """The public keys whose signatures count."""

    def __init__(self, keys: Iterable[Ed25519PublicKey]) -> None:
        self._keys = {fingerprint(key): key for key in keys}

    def __len__(self) -> int:
        return len(self._keys)

    @classmethod
    def load(cls, paths: Iterable[Path]) -> TrustedKeys:
        """Read PEM files.

        Raises:
            FirmwareImageError: one cannot be read, or is no Ed25519 public key.
        """
        return cls([load_public_key(path) for path in paths])

    def signer(self, content: bytes, signature: bytes) -> str:
        """The fingerprint of the key that signed these octets.

        Raises:
            FirmwareImageError: none of ours did.
        """
        if not self._keys:
            raise FirmwareImageError(
                "no key is trusted, so that no image is: [firmware] trusted_keys names the files of public keys"
            )
        if len(signature) != _SIGNATURE_OCTETS:
            raise FirmwareImageError(
                f"signature: got {len(signature)} octets; allowed: the {_SIGNATURE_OCTETS} of Ed25519"
            )
        for name, key in self._keys.items():
            try:
                key.verify(signature, content)
            except InvalidSignature:
                continue
            return name
        raise FirmwareImageError(
            "signature: none of the trusted keys made it over this manifest: it was changed, or signed by a stranger"
        )


def fingerprint(key: Ed25519PublicKey) -> str:
    """The first half of the SHA-256 of a public key, for people to compare."""
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:32]


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Read a public key (PEM).

    Raises:
        FirmwareImageError: it cannot be read, or is none of Ed25519.
    """
    try:
        key = load_pem_public_key(_read(path, _LARGEST_MANIFEST_OCTETS))
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise FirmwareImageError(f"{path}: no Ed25519 public key in PEM")
    return key


def load_private_key(path: Path, passphrase: bytes | None = None) -> Ed25519PrivateKey:
    """Read a private key (PEM, PKCS #8).

    Raises:
        FirmwareImageError: it cannot be read, is none of Ed25519, or the passphrase is wrong.
    """
    octets = _read(path, _LARGEST_MANIFEST_OCTETS)
    try:
        key = load_pem_private_key(octets, passphrase)
    except TypeError:
        raise FirmwareImageError(
            f"{path}: is encrypted and needs a passphrase, or has none to give"
        ) from None
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise FirmwareImageError(f"{path}: no Ed25519 private key in PEM, or the passphrase is wrong")
    return key


def sign(manifest: Manifest, key: Ed25519PrivateKey, path: Path) -> None:
    """Write a manifest to `path`, and its signature beside it.

    Raises:
        FirmwareImageError: they cannot be written.
    """
    content = manifest.to_bytes()
    try:
        path.write_bytes(content)
        signature_path(path).write_bytes(key.sign(content))
    except OSError as error:
        raise FirmwareImageError(f"{path}: cannot be written: {error.strerror}") from None


def signature_path(manifest: Path) -> Path:
    """Where the signature of a manifest is."""
    return manifest.with_name(manifest.name + SIGNATURE_SUFFIX)


def load_signed_image(path: Path, trusted: TrustedKeys) -> SignedImage:
    """Read a manifest with its signature and image, and check all of it.

    Raises:
        FirmwareImageError: the signature is missing or none of ours, or the image is not what the manifest says.
    """
    content = _read(path, _LARGEST_MANIFEST_OCTETS)
    beside = signature_path(path)
    if not beside.exists():
        raise FirmwareImageError(f"{path}: not signed: there is no {beside.name} beside it")
    try:
        key = trusted.signer(content, _read(beside, _LARGEST_MANIFEST_OCTETS))
        manifest = Manifest.from_bytes(content)
        octets = _read(path.parent / manifest.file, LARGEST_IMAGE_OCTETS)
        if len(octets) != manifest.size:
            raise FirmwareImageError(
                f"image {manifest.file}: has {len(octets)} octets, the manifest says {manifest.size}"
            )
        if hashlib.sha256(octets).hexdigest() != manifest.sha256:
            raise FirmwareImageError(f"image {manifest.file}: its SHA-256 is not that of the manifest")
    except FirmwareImageError as error:
        text = str(error)
        raise FirmwareImageError(text if text.startswith(str(path)) else f"{path}: {text}") from None
    return SignedImage(manifest, octets, key)


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            octets = file.read(most + 1)
    except OSError as error:
        raise FirmwareImageError(f"{path}: cannot be read: {error.strerror}") from None
    if len(octets) > most:
        raise FirmwareImageError(f"{path}: longer than {most} octets")
    return octets
