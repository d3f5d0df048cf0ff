"""DLMS: the CPU time that a client takes for a whole dialogue, beside the peers' in the same run. The aim: a fifth.

AARQ with HLS GMAC, reply_to_HLS_authentication, one day of a load profile by range, RLRE: against the simulated
meter, whose own time is taken out.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from concentrator.dlms import security
from concentrator.dlms.attributes import CLOCK_COLUMN, AttributeDescriptor, CaptureObject, RangeDescriptor
from concentrator.dlms.client import Client, ClientSettings, Conversation
from concentrator.dlms.codes import AuthenticationMechanism
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.profile import decode_profile
from concentrator.dlms.wrapper import WrapperFrame
from concentrator.obis import Obis
from concentrator.simulator.meter import LOAD_PROFILE, SimulatedMeter

T = TypeVar("T")
NOW = datetime(2026, 1, 31, tzinfo=UTC)
DAY = (NOW - timedelta(days=1), NOW)
ROWS = 97


class _Meter:
    """The simulated meter, and the CPU time that it takes itself."""

    def __init__(self, now: datetime) -> None:
        self.device = SimulatedMeter("10000001", 1, lambda: now)
        self.seconds = 0.0
        self.replies: list[bytes] = []

    def send(self, apdu: bytes) -> None:
        before = time.process_time()
        self.device.receive_apdu(1, 1, apdu, self.replies.append)
        self.seconds += time.process_time() - before

    def client_seconds(self, dialogue: Callable[[], object], count: int = 30) -> float:
        """CPU time that the client takes for one dialogue, the best of five."""
        found: list[float] = []
        for _ in range(5):
            self.seconds, before = 0.0, time.process_time()
            for _ in range(count):
                dialogue()
            found.append((time.process_time() - before - self.seconds) / count)
        return min(found)


class Dialogues:
    """One dialogue in each stack, against one meter."""

    def __init__(self) -> None:
        self.meter = _Meter(NOW)
        self.meter.device.compressed = False
        self.keys = self.meter.device.keys
        self.counters = iter(range(1, 1 << 30, 100))

    def ours(self) -> None:
        """Our client: rows with their time in UTC."""
        settings = ClientSettings(
            client_sap=1, mechanism=AuthenticationMechanism.HLS_GMAC, keys=self.keys, system_title=b"ODCTEST1"
        )
        client = Client(settings, security.MemoryCounter(next(self.counters)))
        self._run(client.associate())
        encoded = self._run(
            client.get_encoded(AttributeDescriptor(7, LOAD_PROFILE, 2), RangeDescriptor(*DAY))
        )
        columns = [CLOCK_COLUMN, CaptureObject(1, Obis(0, 0, 96, 10, 1, 255), 2)]
        columns += [CaptureObject(3, Obis(1, 0, n, 8, 0, 255), 2) for n in range(1, 5)]
        assert len(decode_profile(encoded, columns, 900)) == ROWS
        self._run(client.release())

    def _run(self, conversation: Conversation[T]) -> T:
        try:
            requests = next(conversation)
            while True:
                for request in requests:
                    self.meter.send(request)
                requests = conversation.send(self.meter.replies.pop(0))
        except StopIteration as stop:
            return stop.value

    def pydlms(self) -> None:
        """pydlms: rows of typed values."""
        from pydlms.apdu.xdlms import range_descriptor
        from pydlms.client import DlmsClient
        from pydlms.cosem.data import DlmsData
        from pydlms.link import ApduLink
        from pydlms.security.context import SecurityContext
        from pydlms.security.hls import Mechanism

        meter = self.meter

        class Link(ApduLink):
            def connect(self) -> None: ...
            def disconnect(self) -> None: ...
            def send_apdu(self, apdu: bytes) -> None:
                meter.send(apdu)

            def receive_apdu(self, timeout: float | None = None) -> bytes:
                del timeout
                return meter.replies.pop(0)

        context = SecurityContext(
            self.keys.encryption,
            self.keys.authentication,
            b"PYDLMS01",
            invocation_counter=next(self.counters),
        )
        bounds = [DlmsData.octet_string(CosemDateTime.from_datetime(moment).to_bytes()) for moment in DAY]
        with DlmsClient._build(Link(), {"mechanism": Mechanism.HLS_GMAC, "security": context}) as client:  # noqa: SLF001
            assert len(client.get("1.0.99.1.0.255", 7, 2, range_descriptor(*bounds)).value) == ROWS

    def dlms_cosem(self) -> None:
        """dlms-cosem: rows of plain values."""
        from dlms_cosem import cosem, enumerations, utils
        from dlms_cosem.client import DlmsClient
        from dlms_cosem.cosem.capture_object import CaptureObject as TheirColumn
        from dlms_cosem.cosem.selective_access import RangeDescriptor as TheirRange
        from dlms_cosem.security import HighLevelSecurityGmacAuthentication

        meter = self.meter

        class Transport:
            def connect(self) -> None: ...
            def disconnect(self) -> None: ...
            def send_request(self, apdu: bytes) -> bytes:
                meter.send(apdu)
                return meter.replies.pop(0)

        client = DlmsClient(
            transport=Transport(),
            authentication=HighLevelSecurityGmacAuthentication(challenge_length=32),
            encryption_key=self.keys.encryption,
            authentication_key=self.keys.authentication,
            client_system_title=b"DLMSCOSE",
            client_initial_invocation_counter=next(self.counters),
            block_transfer=True,
        )
        clock = cosem.CosemAttribute(enumerations.CosemInterface.CLOCK, cosem.Obis(0, 0, 1, 0, 0), 2)
        profile = cosem.CosemAttribute(
            enumerations.CosemInterface.PROFILE_GENERIC, cosem.Obis(1, 0, 99, 1, 0), 2
        )
        with client.session() as session:
            encoded = session.get(profile, access_descriptor=TheirRange(TheirColumn(clock), *DAY))
            assert len(utils.parse_as_dlms_data(encoded)) == ROWS

    def gurux(self) -> None:
        """Gurux: rows in its own profile object."""
        from gurux_dlms import GXByteBuffer, GXReplyData
        from gurux_dlms.enums import Authentication, InterfaceType, Security
        from gurux_dlms.objects import GXDLMSCaptureObject, GXDLMSClock, GXDLMSProfileGeneric
        from gurux_dlms.secure import GXDLMSSecureClient

        client = GXDLMSSecureClient(True, 1, 1, Authentication.HIGH_GMAC, None, InterfaceType.WRAPPER)
        client.ciphering.systemTitle = b"GURUX001"
        client.ciphering.blockCipherKey = self.keys.encryption
        client.ciphering.authenticationKey = self.keys.authentication
        client.ciphering.security = Security.AUTHENTICATION_ENCRYPTION
        client.ciphering.invocationCounter = next(self.counters)

        def exchange(request: bytes, reply: GXReplyData) -> None:
            self.meter.send(WrapperFrame.from_bytes(bytes(request)).apdu)
            answer = WrapperFrame(1, 1, self.meter.replies.pop(0)).to_bytes()
            assert client.getData(GXByteBuffer(answer), reply, None)

        def ask(requests: list[bytes] | bytes) -> GXReplyData:
            reply = GXReplyData()
            for request in requests if isinstance(requests, list) else [requests]:
                reply.clear()
                exchange(request, reply)
                while reply.isMoreData():
                    exchange(client.receiverReady(reply), reply)
                assert reply.error == 0
            return reply

        client.parseAareResponse(ask(client.aarqRequest()).data)
        client.parseApplicationAssociationResponse(ask(client.getApplicationAssociationRequest()).data)
        profile = GXDLMSProfileGeneric("1.0.99.1.0.255")
        profile.captureObjects.append((GXDLMSClock("0.0.1.0.0.255"), GXDLMSCaptureObject(2, 0)))
        assert len(ask(client.readRowsByRange(profile, *DAY)).value) == ROWS
        ask(client.releaseRequest())


def main() -> None:
    """Measure and print."""
    import structlog

    dialogues = Dialogues()
    ours = dialogues.meter.client_seconds(dialogues.ours)
    seconds: dict[str, float] = {}
    # Gurux tells about each APDU that it is ciphered, and dlms-cosem writes a log unless told not to.
    with contextlib.redirect_stdout(io.StringIO()):
        structlog.reset_defaults()
        seconds["dlms_cosem as it comes"] = dialogues.meter.client_seconds(dialogues.dlms_cosem)
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
        seconds["dlms_cosem without its log"] = dialogues.meter.client_seconds(dialogues.dlms_cosem)
        seconds["gurux"] = dialogues.meter.client_seconds(dialogues.gurux)
        seconds["pydlms"] = dialogues.meter.client_seconds(dialogues.pydlms)
    ratios = ", ".join(f"{name} {1 / s:,.0f}/s (x{s / ours:.2f})" for name, s in seconds.items())
    sys.stdout.write(f"dialogues, client's CPU only: {1 / ours:,.0f}/s; {ratios}\n")


if __name__ == "__main__":
    main()
