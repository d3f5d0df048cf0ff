"""Which head-ends may associate with this box, with what proof and what role: a file of theirs, mode 0600.

```json
{"clients": [
  {"client_sap": 1, "mechanism": "hls-gmac", "suite": 0, "encryption_key": "32 hex", "authentication_key": "32 hex",
   "master_key": "32 hex", "role": "admin"},
  {"client_sap": 2, "mechanism": "hls-ecdsa", "suite": 1, "encryption_key": "32 hex", "authentication_key": "32 hex",
   "signing_key_file": "ours.pem", "peer_certificate_file": "theirs.pem", "role": "operator"},
  {"client_sap": 3, "mechanism": "lls", "password": "text"}
]}
```

The public client (16) sees who answers, the time, and the invocation counters that came last; nothing else. What a
client changes by its Security setup or association is in the file before it is answered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from concentrator.dlms.certificates import Certificate, TrustAnchors
from concentrator.dlms.codes import ActionResult, AuthenticationMechanism
from concentrator.dlms.cosem.objects import refused
from concentrator.dlms.cosem.security_setup import SecuritySetup
from concentrator.dlms.elliptic import suite_of
from concentrator.dlms.errors import DlmsError, EncodeError
from concentrator.dlms.security import KEY_LENGTHS, SecurityKeys, SecurityPolicy
from concentrator.dlms.server import AssociationDefinition, visible_only
from concentrator.obis import Obis
from concentrator.uplink.head_end_file import HeadEndFileError, change_client, read_head_end_file
from concentrator.uplink.management_names import CLOCK, invocation_counter_name
from concentrator.uplink.roles import Role, access_of, methods_of
from concentrator.uplink.stored_meters import LOGICAL_DEVICE_NAME

PUBLIC_CLIENT = 16
MECHANISMS = {
    "none": AuthenticationMechanism.NONE,
    "lls": AuthenticationMechanism.LLS,
    "hls-md5": AuthenticationMechanism.HLS_MD5,
    "hls-sha1": AuthenticationMechanism.HLS_SHA1,
    "hls-gmac": AuthenticationMechanism.HLS_GMAC,
    "hls-sha256": AuthenticationMechanism.HLS_SHA256,
    "hls-ecdsa": AuthenticationMechanism.HLS_ECDSA,
}
_KEYED = (AuthenticationMechanism.HLS_GMAC, AuthenticationMechanism.HLS_ECDSA)
# The index of an association, from 1, is value group E of its objects.
_MOST_CLIENTS = 254
_LEAST_SECRET_OCTETS, _MOST_SECRET_OCTETS = 8, 64
_FINGERPRINT_OCTETS = 8


@dataclass(slots=True)
class HeadEnd:
    """One client: its definition, and its Security setup where it has keys."""

    index: int
    role: Role
    definition: AssociationDefinition
    setup: SecuritySetup | None = None
    # As its last association named it.
    system_title: bytes = b""

    @property
    def fingerprint(self) -> str:
        """Of its encryption key: what invocation counters are bound to; "" where it has none."""
        if self.setup is None:
            return ""
        digest = hashlib.sha256(b"head-end" + self.setup.keys.encryption).digest()
        return digest[:_FINGERPRINT_OCTETS].hex()


class HeadEnds:
    """The clients of one file. `on_change` is told what a client has changed, once that is on flash."""

    def __init__(
        self,
        path: Path | None,
        system_title: bytes = b"",
        now: Callable[[], datetime] | None = None,
    ) -> None:
        """Read the file; without one there is the public client only.

        Raises:
            HeadEndFileError: the file cannot be read, others may read it, or an entry has the wrong form.
        """
        self.on_change: Callable[[int, str], None] = lambda _client, _what: None
        self.clients: dict[int, HeadEnd] = {}
        self.certificate = b""
        self._path = path
        self._system_title = system_title
        self._now = now
        self._authorities: tuple[Certificate, ...] = ()
        entries: dict[int, dict[str, Any]] = {}
        if path is not None:
            content = read_head_end_file(path)
            self._load_certificates(path, content)
            for number, entry in enumerate(content["clients"], 1):
                sap = entry.get("client_sap")
                where = f"file of head-ends {path}: client {number}"
                if type(sap) is not int or not 1 <= sap <= 0xFFFF:
                    raise HeadEndFileError(f"{where}: client_sap: got {sap!r}; allowed: 1 to 65535")
                if sap in entries:
                    raise HeadEndFileError(f"{where}: client_sap {sap} stands there twice")
                entries[sap] = entry
        saps = sorted({PUBLIC_CLIENT, *entries})
        if len(saps) > _MOST_CLIENTS:
            raise HeadEndFileError(f"file of head-ends {path}: more than {_MOST_CLIENTS} clients")
        counters = {invocation_counter_name(index) for index in range(1, len(saps) + 1)}
        self._public = visible_only({LOGICAL_DEVICE_NAME, CLOCK, *counters})
        for index, sap in enumerate(saps, 1):
            if sap in entries and path is not None:
                where = f"file of head-ends {path}: client {sap}"
                self.clients[sap] = self._client(where, index, sap, entries[sap], path)
            else:
                definition = AssociationDefinition(sap, access=self._public, may_invoke=False)
                self.clients[sap] = HeadEnd(index, Role.READER, definition)

    @property
    def definitions(self) -> list[AssociationDefinition]:
        """The associations that head-ends may open."""
        return [client.definition for client in self.clients.values()]

    def secrets(self) -> dict[int, bytes]:
        """The passwords and HLS secrets by client; one that is set is on flash before it holds."""
        return _Secrets(
            {sap: client.definition.secret for sap, client in self.clients.items()}, self._keep_secret
        )

    # Reading

    def _load_certificates(self, path: Path, content: dict[str, Any]) -> None:
        try:
            if content.get("certificate_file"):
                pem = (path.parent / str(content["certificate_file"])).read_bytes()
                self.certificate = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
            if content.get("authorities_file"):
                pem = (path.parent / str(content["authorities_file"])).read_bytes()
                self._authorities = tuple(
                    Certificate.from_bytes(one.public_bytes(Encoding.DER))
                    for one in x509.load_pem_x509_certificates(pem)
                )
        except (OSError, ValueError, DlmsError):
            raise HeadEndFileError(
                f"file of head-ends {path}: certificate_file or authorities_file: cannot be read as PEM"
            ) from None

    def _client(self, where: str, index: int, sap: int, entry: dict[str, Any], path: Path) -> HeadEnd:
        suite = entry.get("suite", 0)
        mechanism = MECHANISMS.get(str(entry.get("mechanism")))
        if mechanism is None:
            raise HeadEndFileError(
                f"{where}: mechanism: got {entry.get('mechanism')!r}; allowed: {', '.join(MECHANISMS)}"
            )
        if suite not in KEY_LENGTHS:
            raise HeadEndFileError(f"{where}: suite: got {suite!r}; allowed: 0, 1 or 2")
        try:
            role = Role(str(entry.get("role", Role.READER)))
        except ValueError:
            raise HeadEndFileError(
                f"{where}: role: got {entry.get('role')!r}; allowed: {', '.join(Role)}"
            ) from None
        if mechanism is AuthenticationMechanism.NONE:
            definition = AssociationDefinition(sap, access=self._public, may_invoke=False)
            return HeadEnd(index, Role.READER, definition)
        secret = _secret(where, entry)
        if mechanism not in _KEYED and not secret:
            raise HeadEndFileError(f"{where}: password: missing; allowed: text")
        keyed = "encryption_key" in entry or mechanism in _KEYED
        keys = read_keys(where, entry, suite, path.parent) if keyed else None
        if mechanism is AuthenticationMechanism.HLS_ECDSA and (keys is None or keys.signing is None):
            raise HeadEndFileError(f"{where}: hls-ecdsa needs signing_key_file")
        trusted = bool(self._authorities)
        if (
            mechanism is AuthenticationMechanism.HLS_ECDSA
            and not trusted
            and (keys is None or keys.peer_signing is None)
        ):
            raise HeadEndFileError(f"{where}: hls-ecdsa needs peer_certificate_file or authorities_file")
        own = Obis(0, 0, 43, 0, index, 255)
        client = HeadEnd(
            index,
            role,
            AssociationDefinition(
                sap,
                mechanism,
                secret=secret,
                keys=keys,
                security_suite=suite,
                access=access_of(role, own),
                may_invoke=methods_of(role, own),
                security_setup=own,
                trust=TrustAnchors(self._authorities, self._now) if trusted else None,
                policy=lambda: SecurityPolicy.NONE if client.setup is None else client.setup.policy,
            ),
        )
        if keys is not None:
            client.setup = self._setup(where, client, keys, entry)
        return client

    def _setup(self, where: str, client: HeadEnd, keys: SecurityKeys, entry: dict[str, Any]) -> SecuritySetup:
        try:
            policy = SecurityPolicy(int(entry.get("security_policy", 0)) & 0xFC)
            certificates = [
                Certificate.from_bytes(bytes.fromhex(one)) for one in entry.get("certificates", ())
            ]
        except (ValueError, TypeError, DlmsError):
            raise HeadEndFileError(
                f"{where}: security_policy or certificates: have another form than they were written in"
            ) from None
        setup = SecuritySetup(
            keys,
            self._system_title,
            suite=client.definition.security_suite,
            policy=policy,
            client_system_title=lambda: client.system_title,
            authorities=self._authorities,
            now=self._now,
        )
        setup.certificates += [one for one in certificates if one not in setup.certificates]
        before = [keys.encryption]

        def changed() -> None:
            self._keep_setup(client, setup)
            self.on_change(
                client.definition.client_sap, "keys" if before != [keys.encryption] else "security setup"
            )
            before[:] = [keys.encryption]

        setup.changed = changed
        return setup

    # Keeping

    def _keep_setup(self, client: HeadEnd, setup: SecuritySetup) -> None:
        if self._path is None:
            return
        keys = setup.keys
        values: dict[str, Any] = {
            "encryption_key": keys.encryption.hex(),
            "authentication_key": keys.authentication.hex(),
            "security_policy": int(setup.policy),
            "certificates": [
                one.to_bytes().hex() for one in setup.certificates if one not in self._authorities
            ],
        }
        for name, key in (("master_key", keys.master), ("broadcast_key", keys.broadcast)):
            if key:
                values[name] = key.hex()
        for name, private in (("signing_key", keys.signing), ("agreement_key", keys.agreement)):
            if private is not None:
                values[name] = _private_pem(private)
        for name, public in (("peer_signing", keys.peer_signing), ("peer_agreement", keys.peer_agreement)):
            if public is not None:
                values[name] = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        change_client(self._path, client.definition.client_sap, values)

    def _keep_secret(self, sap: int, secret: bytes) -> None:
        if not _LEAST_SECRET_OCTETS <= len(secret) <= _MOST_SECRET_OCTETS:
            raise refused(ActionResult.OTHER_REASON)
        if self._path is not None:
            try:
                change_client(self._path, sap, {"secret": secret.hex()}, ("password",))
            except HeadEndFileError:
                raise refused(ActionResult.OTHER_REASON) from None
        self.on_change(sap, "secret")


class _Secrets(dict[int, bytes]):
    """Secrets that are kept before they hold."""

    def __init__(self, known: dict[int, bytes], keep: Callable[[int, bytes], None]) -> None:
        super().__init__(known)
        self._keep = keep

    def __setitem__(self, sap: int, secret: bytes) -> None:
        self._keep(sap, secret)
        super().__setitem__(sap, secret)


def _secret(where: str, entry: dict[str, Any]) -> bytes:
    if "secret" in entry:
        try:
            return bytes.fromhex(str(entry["secret"]))
        except ValueError:
            raise HeadEndFileError(f"{where}: secret: has to be hexadecimal digits") from None
    password = entry.get("password", "")
    return password.encode() if isinstance(password, str) else b""


def read_keys(where: str, entry: dict[str, Any], suite: int, folder: Path) -> SecurityKeys:
    """The keys of one entry, named as in the file of head-ends; names of files are within `folder`.

    Raises:
        HeadEndFileError: one is missing or has the wrong form; `where` begins the text, which repeats no key.
    """
    found: dict[str, bytes] = {}
    names = {"encryption_key": True, "authentication_key": True, "master_key": False, "broadcast_key": False}
    for name, needed in names.items():
        try:
            key = bytes.fromhex(str(entry[name])) if name in entry else b""
        except ValueError:
            key = b"?"
        if len(key) != KEY_LENGTHS[suite] and (needed or name in entry):
            raise HeadEndFileError(f"{where}: {name} has to be {2 * KEY_LENGTHS[suite]} hexadecimal digits")
        found[name] = key
    try:
        keys = SecurityKeys(
            found["encryption_key"],
            found["authentication_key"],
            found["broadcast_key"],
            master=found["master_key"],
            signing=_private_key(folder, entry, "signing_key"),
            agreement=_private_key(folder, entry, "agreement_key"),
            peer_signing=_public_key(folder, entry, "peer_signing", "peer_certificate_file"),
            peer_agreement=_public_key(folder, entry, "peer_agreement", "peer_agreement_file"),
        )
        for key in (keys.signing, keys.agreement, keys.peer_signing, keys.peer_agreement):
            if key is not None and suite_of(key) != suite:
                raise HeadEndFileError(
                    f"{where}: a signing or agreement key is of another suite than {suite}"
                )
    except (OSError, ValueError, TypeError, EncodeError):
        raise HeadEndFileError(
            f"{where}: signing_key_file, agreement_key_file, peer_certificate_file or peer_agreement_file:"
            " cannot be read as PEM"
        ) from None
    return keys


def _private_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _octets(folder: Path, entry: dict[str, Any], inline: str, file: str) -> bytes:
    """What a client changed stands in the entry itself, and counts before the file."""
    if entry.get(inline):
        return str(entry[inline]).encode()
    return (folder / str(entry[file])).read_bytes() if entry.get(file) else b""


def _private_key(folder: Path, entry: dict[str, Any], name: str) -> ec.EllipticCurvePrivateKey | None:
    octets = _octets(folder, entry, name, f"{name}_file")
    if not octets:
        return None
    key = load_pem_private_key(octets, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError
    return key


def _public_key(
    folder: Path, entry: dict[str, Any], name: str, file: str
) -> ec.EllipticCurvePublicKey | None:
    octets = _octets(folder, entry, name, file)
    if not octets:
        return None
    certificate = b"BEGIN CERTIFICATE" in octets
    key = x509.load_pem_x509_certificate(octets).public_key() if certificate else load_pem_public_key(octets)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise TypeError
    return key
