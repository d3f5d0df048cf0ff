"""The way through to a meter for a head-end that speaks with it itself (gateway-requests, Green Book 10.10).

The head-end's APDUs go to the meter and back as they are: it has keys of its own with the meter, which this box neither
needs nor knows. A meter has one master at a time: a head-end gets it when our own dialogue with it makes way, which is
after the exchange that is under way, and keeps it while it goes on speaking. Its APDUs queue with our own, first come,
first served, and head-ends have `most_meters` at a time: those who want another wait for their turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from concentrator.clock import Clock
from concentrator.collection.registry import CollectedMeter, Registry
from concentrator.dlms.gateway import ApduTooLongError, DeviceBusyError, GatewayRequest, UnknownDeviceError
from concentrator.errors import TransientError
from concentrator.links.plc_link import MeterChannel, PlcLink
from concentrator.tasks import cancel_and_wait

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

# How long a meter stays with a head-end that is silent, and with one that never is.
_IDLE_S = 10.0
_LONGEST_S = 600.0
_TURN_TIMEOUT_S = 60.0

# Where what comes from the meter unasked goes: more blocks of a stream, mostly.
Deliver = Callable[[bytes], None]


class AwayError(TransientError):
    """The meter is not on the network now."""


class Lender(Protocol):
    """Who speaks with the meters otherwise."""

    async def borrow(self, meter: CollectedMeter) -> None:
        """Wait until nobody speaks with a meter, and keep everybody off it."""
        ...

    def give_back(self, meter: CollectedMeter) -> None:
        """Speak with it again."""
        ...


@dataclass(slots=True)
class _Lease:
    """A meter that a head-end speaks with."""

    meter: CollectedMeter
    channel: MeterChannel
    saps: tuple[int, int]
    began: float
    last_used: float
    deliver: Deliver
    lock: asyncio.Lock
    answer: asyncio.Future[bytes] | None = None
    pump: asyncio.Task[None] | None = None


class GatewayDesk:
    """Takes gateway-requests for the meters of one link; `network_id` is the number it goes by."""

    def __init__(  # noqa: PLR0913 - what it stands between
        self,
        registry: Registry,
        lender: Lender,
        link: PlcLink,
        clock: Clock,
        network_id: int = 0,
        answer_timeout_s: float = 30.0,
        turn_timeout_s: float = _TURN_TIMEOUT_S,
        most_meters: int = 4,
    ) -> None:
        self.requests = 0
        self.refused = 0
        self._registry = registry
        self._lender = lender
        self._link = link
        self._clock = clock
        self._network_id = network_id
        self._answer_timeout_s = answer_timeout_s
        self._turn_timeout_s = turn_timeout_s
        self._leases: dict[str, _Lease] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._places = asyncio.Semaphore(most_meters)

    async def route(self, request: GatewayRequest, deliver: Deliver) -> list[bytes]:
        """Hand an APDU to its meter, and give what the meter answers; `deliver` takes what comes after that.

        Raises:
            UnknownDeviceError: no meter has this address.
            DeviceBusyError: another head-end speaks with it.
            ApduTooLongError: the network carries no such APDU.
            TransientError: it is away, or did not answer.
        """
        self.requests += 1
        try:
            meter = self._find(request)
            if len(request.apdu) > self._link.network.capabilities.largest_apdu:
                raise ApduTooLongError(
                    f"meter {meter.identity}: no APDU of {len(request.apdu)} octets goes there"
                )
            lease = await self._lease(meter, (request.client_sap, request.server_sap), deliver)
            async with lease.lock:
                return [await self._exchange(lease, request.apdu)]
        except Exception:
            self.refused += 1
            raise

    def _find(self, request: GatewayRequest) -> CollectedMeter:
        address = request.address
        if address.network_id == self._network_id:
            names = {address.device_address.hex()}
            if address.device_address.isascii():
                names.add(address.device_address.decode().strip("\x00 "))
            for meter in self._registry:
                record = meter.record
                own = (record.identity, record.serial, record.logical_device_name, record.link_address)
                if not names.isdisjoint(name for name in own if name):
                    return meter
        raise UnknownDeviceError(
            f"network {address.network_id}: no meter has address {address.device_address.hex()}"
        )

    async def _exchange(self, lease: _Lease, apdu: bytes) -> bytes:
        lease.answer = asyncio.get_running_loop().create_future()
        lease.last_used = self._clock.monotonic()
        try:
            await lease.channel.send(apdu)
            async with asyncio.timeout(self._answer_timeout_s):
                return await lease.answer
        except TimeoutError:
            raise AwayError(
                f"meter {lease.meter.identity}: no answer within {self._answer_timeout_s:g} s"
            ) from None
        finally:
            lease.answer = None
            lease.last_used = self._clock.monotonic()

    async def _lease(self, meter: CollectedMeter, saps: tuple[int, int], deliver: Deliver) -> _Lease:
        name = meter.record.link_address
        try:
            async with asyncio.timeout(self._turn_timeout_s), self._opening.setdefault(name, asyncio.Lock()):
                lease = self._leases.get(name)
                if lease is not None:
                    if lease.saps != saps or lease.deliver != deliver:
                        raise DeviceBusyError(f"meter {meter.identity}: another client speaks with it")
                    return lease
                _address_of(meter)
                await self._places.acquire()
                try:
                    return await self._open(meter, saps, deliver)
                except BaseException:
                    self._places.release()
                    raise
        except TimeoutError:
            raise DeviceBusyError(
                f"meter {meter.identity}: no turn within {self._turn_timeout_s:g} s"
            ) from None

    async def _open(self, meter: CollectedMeter, saps: tuple[int, int], deliver: Deliver) -> _Lease:
        _address_of(meter)
        await self._lender.borrow(meter)
        try:
            channel = self._link.open_channel(_address_of(meter), *saps)
        except BaseException:
            self._lender.give_back(meter)
            raise
        now = self._clock.monotonic()
        lease = _Lease(meter, channel, saps, now, now, deliver, asyncio.Lock())
        self._leases[meter.record.link_address] = lease
        meter.activity = "the head-end speaks with it"
        lease.pump = asyncio.create_task(self._pump(lease))
        log.info("gateway opened", meter=meter.identity, client=saps[0], server=saps[1])
        return lease

    async def _pump(self, lease: _Lease) -> None:
        """Hand on what comes from the meter, until nobody has spoken for a while."""
        meter = lease.meter
        try:
            with lease.channel:
                while True:
                    now = self._clock.monotonic()
                    left = min(lease.last_used + _IDLE_S, lease.began + _LONGEST_S) - now
                    if left <= 0 and not lease.lock.locked():
                        return
                    try:
                        apdu = await lease.channel.receive(max(0.1, left))
                    except TransientError as error:
                        if meter.address is None or not self._link.shell.is_open:
                            self._fail(lease, error)
                            return
                        continue
                    if lease.answer is not None and not lease.answer.done():
                        lease.answer.set_result(apdu)
                    else:
                        lease.last_used = self._clock.monotonic()
                        lease.deliver(apdu)
        finally:
            self._leases.pop(meter.record.link_address, None)
            self._lender.give_back(meter)
            self._places.release()
            log.info("gateway closed", meter=meter.identity)

    @staticmethod
    def _fail(lease: _Lease, error: TransientError) -> None:
        if lease.answer is not None and not lease.answer.done():
            lease.answer.set_exception(error)

    async def close(self, deliver: Deliver | None = None) -> None:
        """Give back the meters of one connection, or all."""
        for lease in list(self._leases.values()):
            if (deliver is None or lease.deliver == deliver) and lease.pump is not None:
                await cancel_and_wait(lease.pump)


def _address_of(meter: CollectedMeter) -> int:
    if meter.address is None:
        raise AwayError(f"meter {meter.identity} is not on the network: {meter.record.reason}")
    return meter.address
