"""One association with a meter on the bench, from the options of the command line to its release."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_der_x509_certificate, load_pem_x509_certificate

from concentrator.collection.conversation import converse
from concentrator.collection.keyring import Keyring
from concentrator.collection.meter_reader import read_invocation_counter
from concentrator.dlms.client import DEFAULT_CONFORMANCE, Client, ClientSettings, Conversation
from concentrator.dlms.codes import AuthenticationMechanism, Conformance
from concentrator.dlms.elliptic import PrivateKey, PublicKey
from concentrator.dlms.errors import DlmsError
from concentrator.dlms.gateway import GatewayAddress
from concentrator.dlms.hdlc import HdlcAddress
from concentrator.dlms.security import MemoryCounter, SecurityKeys
from concentrator.dlms.short_name_client import DEFAULT_SHORT_NAME_CONFORMANCE, ShortNameClient
from concentrator.errors import LocalError, TransientError
from concentrator.links.dlms_channels import (
    HdlcChannel,
    SerialStream,
    TcpStream,
    WrapperChannel,
    open_optical,
)

Result = TypeVar("Result")

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


class SessionUsageError(LocalError):
    """The options do not make a way to a meter; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What the command line said. Exactly one of `tcp` and `serial_port` is set."""

    tcp: str = ""
    serial_port: str = ""
    baud_rate: int = 9600
    optical: bool = False
    hdlc: bool = False
    client_sap: int = PUBLIC_CLIENT
    server_sap: int = 1
    physical_address: int | None = None
    mechanism: str = "none"
    password: bytes = field(default=b"", repr=False)
    key: bytes = field(default=b"", repr=False)
    authentication_key: bytes = field(default=b"", repr=False)
    key_file: Path | None = None
    meter: str = ""
    suite: int = 0
    general: bool = False
    signing_key: Path | None = None
    meter_certificate: Path | None = None
    meter_title: bytes = b""
    short_names: bool = False
    gateway: str = ""
    system_title: bytes = b"ODC\0\0\0\0\1"
    timeout_s: float = 10.0

    def keys(self) -> SecurityKeys | None:
        """The keys of the association, from the options or the key file.

        Raises:
            SessionUsageError: the key file has none for this meter.
            KeyFileError: it cannot be used.
        """
        private, public = self._signing_pair()
        if self.key_file is not None:
            found = Keyring.load(self.key_file).meter_keys(self.meter)
            if found is None:
                raise SessionUsageError(
                    f"{self.key_file}: no keys for the meter {self.meter!r}; name it by --meter"
                )
            return SecurityKeys(
                found.encryption_key, found.authentication_key, signing=private, peer_signing=public
            )
        if not self.key and private is None:
            return None
        return SecurityKeys(self.key, self.authentication_key, signing=private, peer_signing=public)

    def _signing_pair(self) -> tuple[PrivateKey | None, PublicKey | None]:
        private = public = None
        if self.signing_key is not None:
            private = _load(self.signing_key, lambda octets: load_pem_private_key(octets, None))
            if not isinstance(private, PrivateKey):
                raise SessionUsageError(f"{self.signing_key}: holds no key of an elliptic curve")
        if self.meter_certificate is not None:
            public = _load(self.meter_certificate, _public_key)
            if not isinstance(public, PublicKey):
                raise SessionUsageError(f"{self.meter_certificate}: holds no key of an elliptic curve")
        return private, public


def _load(file: Path, read: Callable[[bytes], Result]) -> Result:
    """What a file of a key or certificate holds. Raises SessionUsageError, which tells nothing of its content."""
    try:
        return read(file.read_bytes())
    except OSError as error:
        raise SessionUsageError(f"{file}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SessionUsageError(f"{file}: is no key or certificate without a password") from None


def _public_key(octets: bytes) -> object:
    if octets.startswith(b"-----BEGIN"):
        return load_pem_x509_certificate(octets).public_key()
    return load_der_x509_certificate(octets).public_key()


class Session:
    """An open association. `run` carries one conversation."""

    def __init__(
        self, client: Client | ShortNameClient, channel: WrapperChannel | HdlcChannel, timeout_s: float
    ) -> None:
        self.client = client
        self._channel = channel
        self._timeout_s = timeout_s

    async def run(self, conversation: Conversation[Result]) -> Result:
        """Carry a conversation to its result."""
        return await converse(conversation, self._channel, self._timeout_s)


@asynccontextmanager
async def open_session(options: SessionOptions) -> AsyncGenerator[Session]:
    """Associate, and release at the end.

    A ciphered association first asks the public client for the invocation counter that the meter has seen last,
    where the meter tells it: one that was used is refused.

    Raises:
        SessionUsageError: the options do not fit together.
        TransientError: the meter does not answer.
        DlmsError: it refuses.
    """
    keys = options.keys()
    if MECHANISMS[options.mechanism] is AuthenticationMechanism.HLS_GMAC and keys is None:
        raise SessionUsageError(
            "hls-gmac needs keys: give --key and --authentication-key, or --key-file and --meter"
        )
    counter = None
    if keys is not None:
        counter = MemoryCounter((await _last_counter(options) or 0) + 1)
    if options.mechanism == "hls-ecdsa" and (keys is None or not keys.signing or not keys.peer_signing):
        raise SessionUsageError("hls-ecdsa needs --signing-key and --meter-certificate")
    settings = ClientSettings(
        options.client_sap,
        options.server_sap,
        mechanism=MECHANISMS[options.mechanism],
        secret=options.password,
        keys=keys,
        system_title=options.system_title if _tells_title(options, keys) else b"",
        meter_system_title=options.meter_title,
        security_suite=options.suite,
        general_ciphering=options.general,
        # Keys to sign with alone do not cipher.
        ciphered=keys is None or bool(keys.encryption),
        gateway=_gateway(options.gateway),
        conformance=_conformance(options),
    )
    client = ShortNameClient(settings, counter) if options.short_names else Client(settings, counter)
    async with _associated(options, client) as session:
        yield session


def _conformance(options: SessionOptions) -> Conformance:
    return DEFAULT_SHORT_NAME_CONFORMANCE if options.short_names else DEFAULT_CONFORMANCE


def _gateway(given: str) -> GatewayAddress | None:
    if not given:
        return None
    network, _, address = given.partition(":")
    try:
        return GatewayAddress(int(network), bytes.fromhex(address))
    except ValueError:
        raise SessionUsageError(
            f"--gateway: got {given!r}; allowed: NETWORK:ADDRESS in hexadecimal"
        ) from None


def _tells_title(options: SessionOptions, keys: SecurityKeys | None) -> bool:
    """Whether the meter needs our system title: to decipher, or since the mechanism hashes it (HLS 6)."""
    return keys is not None or MECHANISMS[options.mechanism] is AuthenticationMechanism.HLS_SHA256


async def _last_counter(options: SessionOptions) -> int | None:
    settings = ClientSettings(
        PUBLIC_CLIENT,
        options.server_sap,
        gateway=_gateway(options.gateway),
        conformance=_conformance(options),
    )
    public = ShortNameClient(settings) if options.short_names else Client(settings)
    try:
        async with _associated(options, public, client_sap=PUBLIC_CLIENT) as session:
            return await session.run(read_invocation_counter(session.client))
    except DlmsError:
        # A meter without a public client, or one that does not tell: the counter starts at 1.
        return None


@asynccontextmanager
async def _associated(
    options: SessionOptions, client: Client | ShortNameClient, client_sap: int | None = None
) -> AsyncGenerator[Session]:
    channel = await _open_channel(options, options.client_sap if client_sap is None else client_sap)
    session = Session(client, channel, options.timeout_s)
    try:
        await session.run(client.associate())
        try:
            yield session
        finally:
            with contextlib.suppress(TransientError, DlmsError, asyncio.CancelledError):
                await session.run(client.release())
    finally:
        await channel.close()


async def _open_channel(options: SessionOptions, client_sap: int) -> WrapperChannel | HdlcChannel:
    if bool(options.tcp) == bool(options.serial_port):
        raise SessionUsageError("give one way to the meter: --tcp HOST:PORT or --serial PORT")
    if options.tcp:
        match = re.fullmatch(r"\[?(.+?)\]?:(\d{1,5})", options.tcp)
        if match is None:
            raise SessionUsageError(f"--tcp: got {options.tcp!r}; allowed: HOST:PORT")
        stream = await TcpStream.open(match[1], int(match[2]))
        if not options.hdlc:
            return WrapperChannel(stream, client_sap, options.server_sap)
    else:
        stream = SerialStream(options.serial_port, options.baud_rate)
        if options.optical:
            await open_optical(stream)
    channel = HdlcChannel(
        stream,
        HdlcAddress.client(client_sap),
        HdlcAddress.server(options.server_sap, options.physical_address),
    )
    try:
        await channel.connect()
    except BaseException:
        await stream.close()
        raise
    return channel
