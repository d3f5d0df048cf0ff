"""Meters that echo, and what the layer above a network believes."""

from __future__ import annotations

from collections import Counter

from concentrator.simulator.virtual_link import VirtualLink
from plc.network import ApduNotSent, ApduReceived, ApduSent, ModemLost, NetworkStarted, NodeJoined, NodeLeft


class EchoDevice:
    def __init__(self, number):
        self.eui48 = bytes.fromhex("0080E1F0") + number.to_bytes(2, "big")
        self.eui64 = self.eui48[:3] + b"\xff\xfe" + self.eui48[3:]
        self.identity = f"SN{number:08d}"
        self.links_lost = 0

    def receive_apdu(self, client_sap, server_sap, apdu, reply):
        reply(b"echo " + apdu)

    def link_lost(self):
        self.links_lost += 1


class Rig:
    """Collects events; `addresses` is what collection would believe: EUI -> address."""

    def __init__(self, network, modem, scheduler, **options):
        self.network = network
        self.modem = modem
        self.link = VirtualLink(network, modem, scheduler, self.take, **options)
        self.addresses = {}
        self.identities = {}
        self.names = Counter()
        self.answers = []
        self.open_tokens = set()
        self.reasons = []

    def take(self, event, now):
        self.names[type(event).__name__] += 1
        if isinstance(event, NodeJoined):
            self.addresses[event.eui] = event.address
            self.identities[event.eui] = event.identity
        elif isinstance(event, NodeLeft):
            self.addresses.pop(event.eui, None)
        elif isinstance(event, ApduReceived):
            self.answers.append((event.address, event.source_sap, event.destination_sap, event.apdu))
        elif isinstance(event, ApduSent | ApduNotSent):
            self.open_tokens.remove(event.token)
        elif isinstance(event, ModemLost | NetworkStarted):
            self.reasons.append(getattr(event, "reason", "started"))

    def send(self, address, apdu=b"request", client=16, server=1):
        token = self.network.send_apdu(address, client, server, apdu, self.link.now())
        self.open_tokens.add(token)
        return token

    def poll_all(self, limit_s=600.0):
        """Send to each node and wait until every request is settled; gives the number of answers."""
        before = len(self.answers)
        for address in list(self.addresses.values()):
            self.send(address)
        assert self.link.run_while(lambda: bool(self.open_tokens), limit_s), "a request was never settled"
        self.link.run_for(30.0)
        return len(self.answers) - before
