"""The logical devices that head-ends speak with, and who may. All of it happens on the thread that serves.

An association shows what the store has when it opens. The highest invocation counter of a client is on flash before
its association opens: after a restart there is no association, and one can only be opened with a counter above it, so
that nothing which was sent before can be used again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog

from concentrator.dlms import axdr
from concentrator.dlms.apdu.notification import ExceptionResponse
from concentrator.dlms.codes import ServiceError, StateError
from concentrator.dlms.cosem.objects import CosemObject, data
from concentrator.dlms.logical_device import LogicalDevice
from concentrator.dlms.security import CounterSource
from concentrator.dlms.server import Server
from concentrator.dlms.wrapper import WrapperFrame
from concentrator.store.errors import StoreError
from concentrator.store.head_end_counters import Counters, HeadEndCounters
from concentrator.uplink.dlms_connection import LARGEST_PDU
from concentrator.uplink.head_ends import HeadEnds
from concentrator.uplink.lock_out import LockOut
from concentrator.uplink.management_names import invocation_counter_name
from concentrator.uplink.stored_meters import StoredMeter, StoredMeters

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

MANAGEMENT_DEVICE = 1
_AARQ = 0x60
_REFUSED = ExceptionResponse(StateError.SERVICE_NOT_ALLOWED, ServiceError.OPERATION_NOT_POSSIBLE).to_bytes()

ManagementObjects = Callable[[StoredMeters], list[CosemObject]]
# More objects of a meter's logical device, beside what the store has.
MeterObjects = Callable[[StoredMeter, list[CosemObject]], list[CosemObject]]


class DlmsDevices:
    """The logical devices of one box. `note` is told what the access log should have: code and words."""

    def __init__(  # noqa: PLR0913 - what it stands between
        self,
        store_file: Path,
        head_ends: HeadEnds,
        system_title: bytes,
        counter: CounterSource,
        management: ManagementObjects,
        monotonic: Callable[[], float],
        note: Callable[[str, str], None],
        more: MeterObjects = lambda _meter, _objects: [],
    ) -> None:
        self.counters = {"associations": 0, "failed_proofs": 0, "locked_out": 0, "replays": 0}
        # Whom the thread is serving now: client and its words for the logs.
        self.current_client = 0
        self._store_file = store_file
        self._head_ends = head_ends
        self._system_title = system_title
        self._counter = counter
        self._management = management
        self._monotonic = monotonic
        self._note = note
        self._more = more
        self._devices: dict[int, LogicalDevice] = {}
        self._stored: StoredMeters | None = None
        self._lock_out = LockOut()
        self._kept = HeadEndCounters(store_file)
        self._received: dict[int, Counters] = {}
        self._fingerprints: dict[int, str] = {}
        self._secrets = head_ends.secrets()

    def new_server(self) -> Server:
        """Associations of a new connection, with the devices that all share."""
        server = Server(())
        server.devices = self._devices
        return server

    def answer(self, server: Server, frame: WrapperFrame, address: str) -> list[bytes]:
        """Answer one APDU that came from this address."""
        sap, number = frame.source, frame.destination
        opening = frame.apdu[0] == _AARQ
        if opening and self._lock_out.left_s((address, sap), self._monotonic()):
            self.counters["locked_out"] += 1
            return [_REFUSED]
        if opening and not self._prepare(sap, number):
            return [_REFUSED]
        device = self._devices.get(number)
        if device is None:
            # Without an association there is nothing to say; a device that is unknown has none.
            return [_REFUSED]
        self.current_client = sap
        association = server.association(sap, number)
        was_open = association is not None and association.associated
        failed, replays = device.failed_proofs, device.replays
        answers = server.receive_apdu(sap, number, frame.apdu)
        if device.failed_proofs > failed:
            self._failed(address, sap)
        self.counters["replays"] += device.replays - replays
        if association is None:
            return answers or [_REFUSED]
        if opening and not self._keep(sap):
            association.close()
            return [_REFUSED]
        if association.associated and (opening or not was_open):
            self._opened(address, sap, device)
            if association.security is not None:
                self._head_ends.clients[sap].system_title = association.security.peer_system_title
        return answers

    def _failed(self, address: str, sap: int) -> None:
        self.counters["failed_proofs"] += 1
        wait = self._lock_out.failed((address, sap), self._monotonic())
        log.warning("head-end did not prove who it is", address=address, client=sap, locked_out_s=wait)
        if wait:
            self._note(
                "head_end", f"client {sap} from {address} did not prove who it is; locked out for {wait:g} s"
            )

    def _opened(self, address: str, sap: int, device: LogicalDevice) -> None:
        self.counters["associations"] += 1
        self._lock_out.succeeded((address, sap))
        objects = self._objects(device.sap)
        if objects is not None:
            device.objects.clear()
            device.objects.update({(entry.class_id, entry.obis): entry for entry in objects})

    def _prepare(self, sap: int, number: int) -> bool:
        """Make the device that is spoken to known, and what is kept of the client; tells whether that is possible."""
        try:
            if self._stored is None:
                self._stored = StoredMeters(self._store_file)
            client = self._head_ends.clients.get(sap)
            if client is not None and self._fingerprints.get(sap) != client.fingerprint:
                # The association at hand goes on with the counters of the key that it began with.
                self._received[sap] = self._kept.load(sap, client.fingerprint) if client.setup else {}
                self._fingerprints[sap] = client.fingerprint
        except StoreError as error:
            log.warning("head-ends cannot be served", reason=str(error))
            return False
        if number != MANAGEMENT_DEVICE and self._stored.meter(number) is None:
            self._devices.pop(number, None)
            return False
        if number not in self._devices:
            device = self._devices[number] = LogicalDevice(
                number,
                (),
                self._head_ends.definitions,
                system_title=self._system_title,
                counter=self._counter,
                max_pdu_size=LARGEST_PDU,
                certificate=self._head_ends.certificate,
            )
            device.received_counters = self._received
            device.secrets = self._secrets
        return True

    def _keep(self, sap: int) -> bool:
        """Put what a client's counters have risen to on flash; tells whether it is there."""
        client = self._head_ends.clients[sap]
        counters = {
            name: count for name, count in self._received.get(sap, {}).items() if name[1] != "dedicated"
        }
        if client.setup is None or not counters:
            return True
        try:
            self._kept.keep(sap, self._fingerprints[sap], counters)
        except StoreError as error:
            log.warning("association refused: its counter cannot be kept", client=sap, reason=str(error))
            return False
        return True

    def _objects(self, number: int) -> list[CosemObject] | None:
        stored = self._stored
        if stored is None:
            return None
        if number == MANAGEMENT_DEVICE:
            return [*self._management(stored), *self._security_objects()]
        meter = stored.meter(number)
        if meter is None:
            return None
        found = stored.objects(meter)
        return [*found, *self._more(meter, found), *self._security_objects()]

    def _security_objects(self) -> list[CosemObject]:
        """The Security setup of each client, and the counter that came from it last."""
        found: list[CosemObject] = []
        for sap, client in self._head_ends.clients.items():
            if client.setup is None:
                continue
            found.append(client.setup.cosem_object(client.definition.security_setup))
            found.append(data(invocation_counter_name(client.index), self._counter_of(sap)))
        return found

    def _counter_of(self, sap: int) -> Callable[[], axdr.Data]:
        return lambda: axdr.double_long_unsigned(max(self._received.get(sap, {}).values(), default=0))
