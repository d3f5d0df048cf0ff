"""Foreign DLMS clients and one foreign meter, all behind the same few verbs, for every way to open an association."""

import itertools
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from concentrator.dlms import axdr, elliptic
from concentrator.dlms.client import DEFAULT_CONFORMANCE, ClientSettings
from concentrator.dlms.codes import AuthenticationMechanism as Mechanism
from concentrator.dlms.codes import Conformance
from concentrator.dlms.cosem.objects import CosemObject
from concentrator.dlms.security import BOTH, SecurityKeys
from concentrator.dlms.server import AssociationDefinition, LogicalDevice, Server
from concentrator.obis import Obis

from dlms_wire import connect

CLIENT_TITLE, METER_TITLE = b"PEERCLNT", b"ODCMETER"
SECRET = b"sixteen octets!!"
THING = Obis(0, 0, 96, 1, 9, 255)
NAME = "0.0.96.1.9.255"
LONG = bytes(range(256)) * 4
CLIENT_PDU = 500
METER_PDU = 700


def block_cipher(challenge, secret):
    """f of mechanism 2 as many meters have it: AES-128 in ECB mode, keyed with the secret."""
    encryptor = Cipher(algorithms.AES(secret), modes.ECB()).encryptor()  # noqa: S305
    return encryptor.update(challenge) + encryptor.finalize()


@dataclass(frozen=True)
class Case:
    """One way to open an association and to protect what goes through it."""

    mechanism: Mechanism
    protection: str
    suite: int

    def __str__(self):
        suite = f"-suite{self.suite}" if self.keys else ""
        return f"{self.mechanism.name.lower()}-{self.protection}{suite}"

    @property
    def ciphered(self):
        return self.protection != "plain"

    @property
    def general(self):
        return self.protection.startswith("general")

    @property
    def dedicated(self):
        return self.protection.endswith("ded")

    @property
    def keys(self):
        return self.ciphered or self.mechanism in (Mechanism.HLS_GMAC, Mechanism.HLS_ECDSA)


PROTECTIONS = ("plain", "glo", "ded", "general-glo", "general-ded")


def all_cases():
    """Every mechanism with every protection and every suite that makes a difference."""
    for mechanism, protection, suite in itertools.product(Mechanism, PROTECTIONS, (0, 1, 2)):
        case = Case(mechanism, protection, suite)
        if suite and not case.keys:
            continue
        if mechanism is Mechanism.HLS_ECDSA and not suite:
            # Suite 0 has no signatures (Green Book 9.2.3.7).
            continue
        yield case


CASES = list(all_cases())
_PAIRS = {suite: [elliptic.generate_private_key(suite) for _ in range(2)] for suite in (1, 2)}


class CaseKeys:
    """The keys of one case, as each stack wants them."""

    def __init__(self, case):
        self.suite = case.suite
        length = 32 if case.suite == 2 else 16
        self.encryption = bytes(range(length))
        self.authentication = bytes(range(0xD0 - length, 0xD0))
        self.dedicated = bytes(range(0x40, 0x40 + length)) if case.dedicated else b""
        self.client, self.meter = _PAIRS.get(case.suite, (None, None))

    def of_meter(self):
        peer = self.client and self.client.public_key()
        return SecurityKeys(self.encryption, self.authentication, signing=self.meter, peer_signing=peer)

    def of_client(self):
        peer = self.meter and self.meter.public_key()
        return SecurityKeys(self.encryption, self.authentication, signing=self.client, peer_signing=peer)


def our_meter(case, *objects, max_pdu_size=METER_PDU, keys=None):
    """A server of ours that takes client 16 in this case only."""
    keys = keys or CaseKeys(case)
    stored = {2: axdr.octet_string(LONG)}

    def write(value):
        stored[2] = value

    thing = CosemObject(1, THING, {2: lambda: stored[2]}, {2: write}, {1: lambda parameters: parameters})
    definition = AssociationDefinition(
        16,
        mechanism=case.mechanism,
        secret=SECRET,
        keys=keys.of_meter() if case.keys else None,
        ciphered=case.ciphered,
        security_suite=case.suite,
        security_policy=BOTH,
        manufacturer=block_cipher,
        may_invoke=True,
    )
    return Server(
        [
            LogicalDevice(
                1, [thing, *objects], [definition], system_title=METER_TITLE, max_pdu_size=max_pdu_size
            )
        ]
    )


def our_settings(case, **more):
    """The settings of our client in this case."""
    keys = CaseKeys(case)
    more.setdefault("conformance", DEFAULT_CONFORMANCE | Conformance.GENERAL_PROTECTION)
    return ClientSettings(
        mechanism=case.mechanism,
        secret=SECRET,
        keys=keys.of_client() if case.keys else None,
        system_title=CLIENT_TITLE,
        meter_system_title=METER_TITLE,
        security_suite=case.suite,
        ciphered=case.ciphered,
        general_ciphering=case.general,
        dedicated_key=keys.dedicated,
        manufacturer=block_cipher,
        max_pdu_size=CLIENT_PDU,
        **more,
    )


def set_up(meter, case):
    """Have pydlms's meter take client 16 in this case only."""
    from pydlms.cosem.data import DlmsData
    from pydlms.security.context import SecurityContext
    from pydlms.security.hls import Mechanism
    from pydlms.simulator import ClientProfile

    keys = CaseKeys(case)
    if case.keys:
        meter.encryption_key, meter.authentication_key = keys.encryption, keys.authentication
        meter.security = SecurityContext(
            keys.encryption, keys.authentication, client_system_title=METER_TITLE, suite=case.suite
        )
    meter.signing_key = keys.meter
    meter._ic_seen = False
    meter.clients[16] = ClientProfile(
        Mechanism(int(case.mechanism)),
        SECRET,
        ciphered=case.ciphered,
        client_public_key=keys.client and keys.client.public_key(),
    )
    meter.add_object(1, NAME, {2: DlmsData.octet_string(LONG)})
    meter.add_method(1, NAME, 1, lambda _meter, parameters: parameters)
    meter.requests.clear()


class CurrentServer:
    """Stands in the loopback services for whichever server the test at hand has made."""

    def __init__(self):
        self.server, self.tags = None, []

    def receive_apdu(self, client_sap, server_sap, apdu):
        self.tags.append(apdu[0])
        return self.server.receive_apdu(client_sap, server_sap, apdu)

    def link_lost(self, client_sap=None):
        self.server.link_lost(client_sap)


class GuruxPeer:
    """gurux-dlms: as much of a reader as its library leaves to the application."""

    name = "gurux"
    # Until the association stands it ciphers by the global key and the service's own tag: passes 3 and 4 of HLS.
    proof_tags = frozenset({0xCB})

    @staticmethod
    def supports(case):
        """Why it cannot do this case, or ""."""
        if case.mechanism is Mechanism.HLS_ECDSA and case.suite == 2:
            # GXEcdsa asks for P-256 twice and never for P-384 (Green Book 9.2.3.4.4: suite 2 signs with P-384).
            return "it signs with P-256 only"
        return ""

    def __init__(self, port, case, *, hdlc=False, **settings):
        from gurux_dlms.enums import Authentication, Conformance, InterfaceType, Security
        from gurux_dlms.secure import GXDLMSSecureClient

        interface = InterfaceType.HDLC if hdlc else InterfaceType.WRAPPER
        secret = SECRET if case.mechanism else None
        client = GXDLMSSecureClient(True, 16, 1, Authentication(int(case.mechanism)), secret, interface)
        keys = CaseKeys(case)
        cipher = client.ciphering
        cipher.systemTitle = CLIENT_TITLE
        cipher.securitySuite = case.suite
        if case.keys:
            cipher.blockCipherKey = keys.encryption
            cipher.authenticationKey = keys.authentication
            cipher.invocationCounter = 1
        if case.ciphered:
            cipher.security = Security.AUTHENTICATION_ENCRYPTION
        if case.dedicated:
            cipher.dedicatedKey = keys.dedicated
        if case.mechanism is Mechanism.HLS_ECDSA:
            cipher.signingKeyPair = self._key_pair(keys)
        client.maxReceivePDUSize = CLIENT_PDU
        client.autoIncreaseInvokeID = True
        if not case.general:
            client.proposedConformance &= ~Conformance.GENERAL_PROTECTION
        else:
            client.proposedConformance |= Conformance.GENERAL_PROTECTION
        for name, value in settings.items():
            setattr(client, name, value)
        self.client, self.hdlc = client, hdlc
        self.socket = connect(port)
        self.pushed = []

    @staticmethod
    def _key_pair(keys):
        from gurux_dlms.ecdsa import GXPrivateKey, GXPublicKey

        size = elliptic.coordinate_length(keys.suite)
        private = GXPrivateKey.fromRawBytes(keys.client.private_numbers().private_value.to_bytes(size, "big"))
        public = GXPublicKey.fromRawBytes(b"\x04" + elliptic.public_octets(keys.meter.public_key()))
        return public, private

    def _exchange(self, octets, reply):
        from gurux_dlms import GXByteBuffer, GXReplyData

        received, notification = GXByteBuffer(), GXReplyData()
        self.socket.sendall(bytes(octets))
        while not self.client.getData(received, reply, notification):
            if notification.data.size and notification.isComplete():
                self.pushed.append(notification.value)
                notification.clear()
                continue
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError("the server closed the connection")
            received.set(data)

    def ask(self, requests):
        from gurux_dlms import GXReplyData

        reply = GXReplyData()
        for request in requests if isinstance(requests, list) else [requests]:
            reply.clear()
            self._exchange(request, reply)
            while reply.isMoreData():
                self._exchange(self.client.receiverReady(reply), reply)
            if reply.error:
                raise PermissionError(reply.error)
        return reply

    def __enter__(self):
        client = self.client
        if self.hdlc:
            client.parseUAResponse(self.ask(client.snrmRequest()).data)
        client.parseAareResponse(self.ask(client.aarqRequest()).data)
        if client.isAuthenticationRequired:
            reply = self.ask(client.getApplicationAssociationRequest())
            client.parseApplicationAssociationResponse(reply.data)
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.ask(self.client.releaseRequest())
            if self.hdlc:
                self.ask(self.client.disconnectRequest())
        self.socket.close()

    def get(self):
        from gurux_dlms.objects import GXDLMSData

        return bytes(self.ask(self.client.read(GXDLMSData(NAME), 2)).value)

    def set(self, value):
        from gurux_dlms.enums import DataType
        from gurux_dlms.objects import GXDLMSData

        thing = GXDLMSData(NAME)
        thing.setDataType(2, DataType.OCTET_STRING)
        thing.value = value
        self.ask(self.client.write(thing, 2))

    def action(self, value):
        from gurux_dlms.enums import DataType
        from gurux_dlms.objects import GXDLMSData

        return bytes(self.ask(self.client.method(GXDLMSData(NAME), 1, value, DataType.OCTET_STRING)).value)

    def get_many(self):
        from gurux_dlms.objects import GXDLMSData

        things = [(GXDLMSData(NAME), 2), (GXDLMSData(NAME), 1)]
        values = []
        for request in self.client.readList(things):
            values += self.ask(request).value
        return [bytes(value) for value in values]


class PydlmsPeer:
    """pydlms-client."""

    name = "pydlms"
    proof_tags = frozenset()

    @staticmethod
    def supports(_case):
        """It can do every case."""
        return ""

    def __init__(self, port, case, *, hdlc=False, window=1, **settings):
        from pydlms import DlmsClient
        from pydlms.hdlc.connection import HdlcParameters
        from pydlms.security.hls import Mechanism as TheirMechanism

        keys = CaseKeys(case)
        if case.keys:
            settings["security"] = self.context(case)
            settings["ciphered_context"] = case.ciphered
        if hdlc:
            settings["hdlc_parameters"] = HdlcParameters(window_tx=window, window_rx=window)
        if case.mechanism is Mechanism.HLS_ECDSA:
            settings |= {"signing_key": keys.client, "server_public_key": keys.meter.public_key()}
        self.client = DlmsClient.tcp(
            "127.0.0.1",
            port,
            client_sap=16,
            hdlc=hdlc,
            mechanism=TheirMechanism(int(case.mechanism)),
            password=SECRET,
            client_system_title=CLIENT_TITLE,
            max_receive_pdu_size=CLIENT_PDU,
            use_dedicated_key=case.dedicated,
            protection="general-glo" if case.general else "glo",
            **settings,
        )

    @staticmethod
    def context(case, **more):
        """Their security context of the client."""
        from pydlms.security.context import SecurityContext

        keys = CaseKeys(case)
        return SecurityContext(
            keys.encryption,
            keys.authentication,
            client_system_title=CLIENT_TITLE,
            server_system_title=METER_TITLE,
            suite=case.suite,
            invocation_counter=1,
            **more,
        )

    def __enter__(self):
        self.client.connect()
        return self

    def __exit__(self, *_):
        self.client.close()

    def get(self):
        return self.client.get(NAME, 1, 2).value

    def set(self, value):
        from pydlms.cosem.data import DlmsData

        self.client.set(NAME, 1, 2, DlmsData.octet_string(value))

    def action(self, value):
        from pydlms.cosem.data import DlmsData

        return self.client.action(NAME, 1, 1, DlmsData.octet_string(value)).value

    def get_many(self):
        return [item.value for item in self.client.get_many([(NAME, 1, 2), (NAME, 1, 1)])]


class DlmsCosemPeer:
    """dlms-cosem: GET and ACTION, whole requests, general-glo only."""

    name = "dlms-cosem"
    proof_tags = frozenset()

    @staticmethod
    def supports(case):
        """Why it cannot do this case, or ""."""
        if case.mechanism not in (
            Mechanism.NONE, Mechanism.LLS, Mechanism.HLS_MANUFACTURER, Mechanism.HLS_GMAC,
        ):  # fmt: skip
            return "it has no such mechanism"
        if case.protection not in ("plain", "general-glo"):
            return "it ciphers by general-glo only"
        if case.keys and not case.ciphered:
            return "with keys it always ciphers"
        return ""

    def __init__(self, port, case, *, hdlc=False):
        from dlms_cosem import security
        from dlms_cosem.client import DlmsClient
        from dlms_cosem.hdlc.state import NEED_DATA
        from dlms_cosem.io import BlockingTcpIO, HdlcTransport, TcpTransport

        keys = CaseKeys(case)
        authentication = {
            Mechanism.NONE: security.NoSecurityAuthentication,
            Mechanism.LLS: lambda: security.LowLevelSecurityAuthentication(SECRET),
            Mechanism.HLS_MANUFACTURER: lambda: security.HighLevelSecurityCommonAuthentication(SECRET),
            Mechanism.HLS_GMAC: security.HighLevelSecurityGmacAuthentication,
        }[case.mechanism]()

        class ByLength(HdlcTransport):
            # Theirs takes two flag octets in a row within a frame for an empty one, and waits for ever; a frame
            # of type 3 is delimited by its length (IEC 62056-46 6.4.2, ISO/IEC 13239 4.9.4).
            def next_event(self):
                start = self.io.recv(3)
                frame = start + self.io.recv((int.from_bytes(start[1:3], "big") & 0x7FF) - 1)
                self.hdlc_connection.receive_data(frame)
                while (event := self.hdlc_connection.next_event()) is NEED_DATA:
                    assert self.hdlc_connection.buffer_search_position < len(self.hdlc_connection.buffer)
                return event

        transport = ByLength if hdlc else TcpTransport
        self.client = DlmsClient(
            transport=transport(16, 1, BlockingTcpIO("127.0.0.1", port)),
            authentication=authentication,
            encryption_key=keys.encryption if case.ciphered else None,
            authentication_key=keys.authentication if case.ciphered else None,
            security_suite=case.suite,
            client_system_title=CLIENT_TITLE,
            client_initial_invocation_counter=1,
            block_transfer=True,
            max_pdu_size=CLIENT_PDU,
        )

    def __enter__(self):
        self.client.connect()
        self.client.associate()
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.client.release_association()
            self.client.disconnect()
        else:
            self.client.transport.io.disconnect()

    @staticmethod
    def _attribute(number):
        from dlms_cosem import cosem, enumerations

        return cosem.CosemAttribute(enumerations.CosemInterface.DATA, cosem.Obis(*THING), number)

    def get(self):
        from dlms_cosem import utils

        return bytes(utils.parse_as_dlms_data(self.client.get(self._attribute(2))))

    def set(self, value):
        from dlms_cosem import dlms_data, enumerations

        reply = self.client.set(self._attribute(2), dlms_data.OctetStringData(value).to_bytes())
        assert reply.result is enumerations.DataAccessResult.SUCCESS

    def action(self, value):
        from dlms_cosem import cosem, dlms_data, enumerations, utils

        method = cosem.CosemMethod(enumerations.CosemInterface.DATA, cosem.Obis(*THING), 1)
        data = dlms_data.OctetStringData(value).to_bytes()
        return bytes(utils.parse_as_dlms_data(self.client.action(method, data)))

    def get_many(self):
        from dlms_cosem import cosem

        wanted = [cosem.CosemAttributeWithSelection(self._attribute(n), None) for n in (2, 1)]
        return [bytes(item.value) for item in self.client.get_many(wanted).response_data]


PEERS = (GuruxPeer, PydlmsPeer, DlmsCosemPeer)
