"""The devices that head-ends speak with, over a real store, without a network; and a service for foreign clients."""

import json
from datetime import UTC, datetime

from concentrator.config import parse_config
from concentrator.dlms.client import Client, ClientSettings
from concentrator.dlms.codes import AuthenticationMechanism
from concentrator.dlms.security import MemoryCounter, SecurityKeys
from concentrator.dlms.wrapper import WrapperFrame
from concentrator.store.store import Store
from concentrator.uplink.dlms_devices import DlmsDevices
from concentrator.uplink.head_ends import HeadEnds
from concentrator.uplink.management_device import BoxState, management_objects

from dlms_talk import talk

ENCRYPTION, AUTHENTICATION, MASTER = bytes(range(16)), bytes(range(16, 32)), bytes(range(32, 48))
OUR_TITLE = bytes.fromhex("4F44430000000001")
THEIR_TITLE = b"HEADEND1"
KEYS = {"encryption_key": ENCRYPTION.hex(), "authentication_key": AUTHENTICATION.hex()}


class RunningClock:
    def __init__(self):
        self.seconds = 1000.0

    def now(self):
        return datetime(2026, 11, 20, 12, tzinfo=UTC)

    def monotonic(self):
        return self.seconds


class Box:
    """A box of one folder; `restart()` is a new run of the service with the same folder."""

    def __init__(self, directory, clients, *, more=lambda: (), live=None, title=OUR_TITLE):
        self.directory = directory
        self.file = directory / "head_ends.json"
        self.file.write_text(json.dumps({"clients": clients}))
        self.file.chmod(0o600)
        self.clock = RunningClock()
        self.config = parse_config("")
        self.store = Store(directory / "store.db", self.clock)
        self.noted, self.changed = [], []
        self.counter = MemoryCounter(1)
        self.title, self._more, self._live = title, more, live
        self.restart()

    def restart(self):
        self.head_ends = HeadEnds(self.file, self.title, self.clock.now)
        self.head_ends.on_change = lambda client, what: self.changed.append((client, what))
        state = BoxState(self.clock.now, "9.9", dict, more=self._more)
        self.devices = DlmsDevices(
            self.store.path,
            self.head_ends,
            self.title,
            self.counter,
            lambda stored: management_objects(self.config, stored, state),
            self.clock.monotonic,
            lambda code, words: self.noted.append((code, words)),
            *([self._live] if self._live else []),
        )

    def connection(self, address="192.0.2.1"):
        return Connection(self, address)


class Connection:
    """One connection: it has associations of its own. `sent` are the APDUs that came from the client."""

    def __init__(self, box, address):
        self.box, self.address, self.sent = box, address, []
        self.server = box.devices.new_server()

    def receive_apdu(self, client_sap, server_sap, apdu):
        self.sent.append(apdu)
        frame = WrapperFrame(client_sap, server_sap, apdu)
        return self.box.devices.answer(self.server, frame, self.address)

    def link_lost(self, client_sap=None):
        self.server.link_lost(client_sap)

    def run(self, conversation, saps=(1, 1)):
        return talk(self, conversation, saps=saps)


def client(counter, sap=1, device=1, encryption=ENCRYPTION, authentication=AUTHENTICATION, **more):
    more.setdefault("mechanism", AuthenticationMechanism.HLS_GMAC)
    keys = more.pop("keys", None) or SecurityKeys(encryption, authentication)
    return Client(ClientSettings(sap, device, keys=keys, system_title=THEIR_TITLE, **more), counter)
