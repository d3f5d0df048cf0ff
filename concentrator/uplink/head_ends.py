"""Which head-ends may associate with this box, and with what proof: a file of theirs, mode 0600.

```json
{"clients": [
  {"client_sap": 1, "mechanism": "hls-gmac", "suite": 0, "encryption_key": "32 hex", "authentication_key": "32 hex"},
  {"client_sap": 2, "mechanism": "hls-ecdsa", "suite": 1, "encryption_key": "32 hex", "authentication_key": "32 hex",
   "signing_key_file": "ours.pem", "peer_certificate_file": "theirs.pem"},
  {"client_sap": 3, "mechanism": "lls", "password": "text"}
]}
```

The public client (16) sees who answers, and nothing else.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from concentrator.dlms.codes import AuthenticationMechanism
from concentrator.dlms.security import KEY_LENGTHS, SecurityKeys
from concentrator.dlms.server import AssociationDefinition, visible_only
from concentrator.errors import LocalError
from concentrator.uplink.management_device import CLOCK
from concentrator.uplink.stored_meters import LOGICAL_DEVICE_NAME

PUBLIC_CLIENT = 16
_PRIVATE_BITS = 0o077
_MECHANISMS = {
    "none": AuthenticationMechanism.NONE,
    "lls": AuthenticationMechanism.LLS,
    "hls-md5": AuthenticationMechanism.HLS_MD5,
    "hls-sha1": AuthenticationMechanism.HLS_SHA1,
    "hls-gmac": AuthenticationMechanism.HLS_GMAC,
    "hls-sha256": AuthenticationMechanism.HLS_SHA256,
    "hls-ecdsa": AuthenticationMechanism.HLS_ECDSA,
}
_KEYED = (AuthenticationMechanism.HLS_GMAC, AuthenticationMechanism.HLS_ECDSA)
_PUBLIC = AssociationDefinition(
    PUBLIC_CLIENT, access=visible_only({LOGICAL_DEVICE_NAME, CLOCK}), may_invoke=False
)


class HeadEndFileError(LocalError):
    """The file of head-ends cannot be used; the text never repeats a key."""


def load_head_ends(path: Path | None) -> list[AssociationDefinition]:
    """The associations that head-ends may open; that of the public client when there is no file.

    Raises:
        HeadEndFileError: the file cannot be read, others may read it, or an entry has the wrong form.
    """
    if path is None:
        return [_PUBLIC]
    try:
        mode = path.stat().st_mode
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise HeadEndFileError(f"file of head-ends {path}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise HeadEndFileError(
            f"file of head-ends {path}: is not JSON; see docs/uplink.md for its form"
        ) from None
    if mode & _PRIVATE_BITS:
        raise HeadEndFileError(f"file of head-ends {path}: others could read it; run chmod 0600 on it")
    clients = cast("dict[str, Any]", content).get("clients") if isinstance(content, dict) else None
    if not isinstance(clients, list):
        raise HeadEndFileError(
            f"file of head-ends {path}: has no list of clients; see docs/uplink.md for its form"
        )
    definitions = {PUBLIC_CLIENT: _PUBLIC}
    for number, entry in enumerate(cast("list[object]", clients), 1):
        if not isinstance(entry, dict):
            raise HeadEndFileError(f"file of head-ends {path}: client {number}: is no object")
        definition = _definition(
            f"file of head-ends {path}: client {number}", cast("dict[str, Any]", entry), path
        )
        definitions[definition.client_sap] = definition
    return list(definitions.values())


def _definition(where: str, entry: dict[str, Any], path: Path) -> AssociationDefinition:
    sap, suite = entry.get("client_sap"), entry.get("suite", 0)
    mechanism = _MECHANISMS.get(str(entry.get("mechanism")))
    if type(sap) is not int or not 1 <= sap <= 0xFFFF:
        raise HeadEndFileError(f"{where}: client_sap: got {sap!r}; allowed: 1 to 65535")
    if mechanism is None:
        raise HeadEndFileError(
            f"{where}: mechanism: got {entry.get('mechanism')!r}; allowed: {', '.join(_MECHANISMS)}"
        )
    if suite not in KEY_LENGTHS:
        raise HeadEndFileError(f"{where}: suite: got {suite!r}; allowed: 0, 1 or 2")
    access = visible_only({LOGICAL_DEVICE_NAME, CLOCK})
    if mechanism is AuthenticationMechanism.NONE:
        return AssociationDefinition(sap, access=access, may_invoke=False)
    secret = entry.get("password", "")
    if mechanism not in _KEYED and not (isinstance(secret, str) and secret):
        raise HeadEndFileError(f"{where}: password: missing; allowed: text")
    keys = _keys(where, entry, suite, path) if "encryption_key" in entry or mechanism in _KEYED else None
    if mechanism is AuthenticationMechanism.HLS_ECDSA and (
        keys is None or keys.signing is None or keys.peer_signing is None
    ):
        raise HeadEndFileError(f"{where}: hls-ecdsa needs signing_key_file and peer_certificate_file")
    return AssociationDefinition(sap, mechanism, secret=str(secret).encode(), keys=keys, security_suite=suite)


def _keys(where: str, entry: dict[str, Any], suite: int, path: Path) -> SecurityKeys:
    found: list[bytes] = []
    for name in ("encryption_key", "authentication_key"):
        try:
            key = bytes.fromhex(str(entry.get(name)))
        except ValueError:
            key = b""
        if len(key) != KEY_LENGTHS[suite]:
            raise HeadEndFileError(f"{where}: {name} has to be {2 * KEY_LENGTHS[suite]} hexadecimal digits")
        found.append(key)
    try:
        signing = _private_key(path.parent, entry.get("signing_key_file"))
        peer = _public_key(path.parent, entry.get("peer_certificate_file"))
    except (OSError, ValueError, TypeError):
        raise HeadEndFileError(
            f"{where}: signing_key_file or peer_certificate_file: cannot be read as PEM"
        ) from None
    return SecurityKeys(found[0], found[1], signing=signing, peer_signing=peer)


def _private_key(folder: Path, name: object) -> ec.EllipticCurvePrivateKey | None:
    if not name:
        return None
    key = load_pem_private_key((folder / str(name)).read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError
    return key


def _public_key(folder: Path, name: object) -> ec.EllipticCurvePublicKey | None:
    if not name:
        return None
    octets = (folder / str(name)).read_bytes()
    certificate = b"BEGIN CERTIFICATE" in octets
    key = x509.load_pem_x509_certificate(octets).public_key() if certificate else load_pem_public_key(octets)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise TypeError
    return key
