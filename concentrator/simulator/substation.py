"""A whole substation: meters behind a modem, a water meter in radio reach, each modem on a pseudo-terminal.

Everything follows from the options: the same seed gives the same meters, keys, consumption and feeder. So the
truth can be known without asking: build the same substation anywhere, and compare.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from concentrator.simulator.device import Device
from concentrator.simulator.feeder import G3_CENELEC_A_PHY, PRIME_PHY, SFSK_PHY, Feeder
from concentrator.simulator.g3_modem import G3Modem
from concentrator.simulator.g3_modem_a import G3ModemA
from concentrator.simulator.load_model import SupervisedLoad, TamperedLoad
from concentrator.simulator.mbus_channels import GAS, WATER, ChannelRow
from concentrator.simulator.meter import (
    LOAD_PROFILE,
    MANAGEMENT_CLIENT,
    MANAGEMENT_DEVICE,
    SimulatedMeter,
    TruthRow,
)
from concentrator.simulator.meter_events import TERMINAL_COVER_REMOVED, Happening
from concentrator.simulator.prime_modem import PrimeModem
from concentrator.simulator.pty_port import PtyPort
from concentrator.simulator.radio_module import SimulatedRadioModule
from concentrator.simulator.scheduler import AsyncioScheduler
from concentrator.simulator.sfsk_modem import SfskModem
from concentrator.simulator.wmbus_meter import SimulatedWaterMeter

# Time within which the meters find the network, before division by the speed.
_JOIN_SPREAD_S = 120.0
_WATER_INTERVAL_S = 5.0
_WATER_RSSI_DBM = -72
# Of eight meters in a row, which have others on their M-Bus: one a gas meter, one gas and water.
_CHANNELS = {3: (GAS,), 6: (GAS, WATER)}
# Bit 0 of the second alarm descriptor (IDIS). A meter's capacitor carries it for some seconds.
_TOTAL_POWER_FAILURE = 1
_LINE_LOSSES = 0.04
_COUNTED_BY_A_THIEF = 0.35
_LAST_GASP_S = 2.0
# Made anew for every simulation: they protect nothing.
_G3_PSK = bytes(range(16))
_G3_GMK = bytes(range(16, 32))


@dataclass(frozen=True, slots=True)
class SubstationOptions:
    """What is simulated. `speed` divides airtime and pauses: 1 is as slow as a real power line.

    "g3" has its bootstrap server in the modem, "g3-a" on the host, with a key for each meter. `steady` leaves out
    the drops of the day, for tests that are about something else. `supervisor` puts a meter at the transformer, last in
    the list; `thief` is the number of a meter (from 1) whose cover was opened `thief_days` ago, and which counts only a
    part of what is drawn since.
    """

    protocol: Literal["prime", "g3", "g3-a", "s-fsk"] = "prime"
    meters: int = 12
    seed: int = 1
    loss: float = 0.0
    speed: float = 1.0
    steady: bool = False
    supervisor: bool = False
    thief: int = 0
    thief_days: float = 3.0


class Substation:
    """The meters of a substation, and what is needed to read them. `open()` puts them behind ports.

    `others` are devices that stand behind the same modem without being simulated here.
    """

    modem: PrimeModem | G3Modem | G3ModemA | SfskModem
    water: SimulatedWaterMeter
    modem_port: PtyPort
    radio_port: PtyPort

    def __init__(
        self,
        options: SubstationOptions,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        others: Sequence[Device] = (),
    ) -> None:
        self.options = options
        self.meters = [self._meter(number, options.seed, clock) for number in range(1, options.meters + 1)]
        if 0 < options.thief <= options.meters:
            self._tamper(self.meters[options.thief - 1], options, clock())
        if options.supervisor:
            supervisor = self._meter(options.meters + 1, options.seed, clock)
            loads = [meter.load for meter in self.meters]
            supervisor.load = SupervisedLoad(options.seed, supervisor.serial, loads, _LINE_LOSSES)
            self.meters.append(supervisor)
        self._others = others

    @staticmethod
    def _meter(number: int, seed: int, clock: Callable[[], datetime]) -> SimulatedMeter:
        channels = _CHANNELS.get(number % 8, ())
        meter = SimulatedMeter(f"ODC{seed % 1000:03}{number:07}", seed, clock, channels=channels)
        # Numbered, as those of one manufacturer are: a hash of three octets would collide in large networks.
        meter.eui48 = b"\x02\x0d\xc0" + number.to_bytes(3, "big")
        meter.eui64 = b"\x02\x0d\xc0\xff\xfe" + number.to_bytes(3, "big")
        return meter

    @staticmethod
    def _tamper(meter: SimulatedMeter, options: SubstationOptions, now: datetime) -> None:
        since = now - timedelta(days=options.thief_days)
        meter.load = TamperedLoad(options.seed, meter.serial, _COUNTED_BY_A_THIEF, since)
        meter.happenings.append(Happening(int(since.timestamp()), TERMINAL_COVER_REMOVED))

    @property
    def supervisor(self) -> SimulatedMeter | None:
        """The meter at the transformer, where there is one."""
        return self.meters[-1] if self.options.supervisor else None

    def truth(self, first: datetime, last: datetime) -> dict[str, list[TruthRow]]:
        """What the load profiles really hold from `first` to `last`, by meter."""
        return {meter.serial: meter.truth(LOAD_PROFILE, first, last) for meter in self.meters}

    def channel_truth(self, first: datetime, last: datetime) -> dict[str, list[ChannelRow]]:
        """What the meters behind the meters counted from `first` to `last`, by their identity."""
        return {
            channel.identity: channel.truth(first, last)
            for meter in self.meters
            for channel in meter.channels
        }

    def keys(self, water: SimulatedWaterMeter) -> dict[str, Any]:
        """The key file for the product (see docs/deployment.md)."""
        return {
            "meters": {meter.serial: meter.key_file_entry() for meter in self.meters},
            "wmbus": {water.identification: water.key.hex()},
        }

    def open(self, directory: Path) -> None:
        """Stand behind `modem` and `radio` in a folder, on the running event loop; keys are put beside them."""
        options = self.options
        scheduler = AsyncioScheduler()
        devices = [*self.meters, *self._others]
        prime = options.protocol == "prime"
        phy = {"prime": PRIME_PHY, "s-fsk": SFSK_PHY}.get(options.protocol, G3_CENELEC_A_PHY)
        feeder = Feeder(len(devices), options.seed, phy, options.loss, options.speed, steady=options.steady)
        modem: PrimeModem | G3Modem | G3ModemA | SfskModem
        g3_keys = f'psk = "{_G3_PSK.hex()}"\ngmk = "{_G3_GMK.hex()}"\n'
        if prime:
            modem = PrimeModem(devices, scheduler, feeder, options.seed, join_spread_s=_JOIN_SPREAD_S)
        elif options.protocol == "s-fsk":
            titles = [*(meter.system_title for meter in self.meters), *(one.eui64 for one in self._others)]
            modem = SfskModem(
                devices, scheduler, feeder, options.seed, titles=titles, join_spread_s=_JOIN_SPREAD_S
            )
        elif options.protocol == "g3-a":
            psks = {device.eui64: hashlib.sha256(device.eui64).digest()[:16] for device in devices}
            modem = G3ModemA(
                devices, scheduler, feeder, options.seed, device_psks=psks, join_spread_s=_JOIN_SPREAD_S
            )
            lines = [f'{eui64.hex()} = "{psk.hex()}"' for eui64, psk in psks.items()]
            g3_keys = "\n".join([f'gmk = "{_G3_GMK.hex()}"', "[device_psks]", *lines, ""])
        else:
            modem = G3Modem(
                devices, scheduler, feeder, options.seed, device_psk=_G3_PSK, join_spread_s=_JOIN_SPREAD_S
            )
        radio = _RadioDevice(scheduler)
        water = SimulatedWaterMeter(
            options.seed,
            1,
            scheduler,
            radio.transmit,
            started_at=datetime.now(UTC),
            interval_s=_WATER_INTERVAL_S,
        )
        _write_private(directory / "keys.json", json.dumps(self.keys(water), indent=1))
        _write_private(directory / "g3.toml", g3_keys)
        self.modem, self.water = modem, water
        self.modem_port, self.radio_port = (
            PtyPort(directory / "modem", modem),
            PtyPort(directory / "radio", radio),
        )
        for port in (self.modem_port, self.radio_port):
            port.plug()
        modem.start()
        water.start()

    def push(self, meter: SimulatedMeter, apdu: bytes) -> None:
        """Let a meter send an APDU by itself, over the feeder."""
        self.modem.push_apdu(self._name(meter), MANAGEMENT_CLIENT, MANAGEMENT_DEVICE, apdu)

    def fail_power(self, meters: Sequence[SimulatedMeter], duration_s: float) -> None:
        """Take the power from meters: each sends its last gasp, is away, and comes back; their logs have it then."""
        for meter in meters:
            start = int(meter.now().timestamp())
            meter.power_failures.append((start, start + int(duration_s)))
            self.push(meter, meter.alarm(1, _TOTAL_POWER_FAILURE))
        scheduler = AsyncioScheduler()
        scheduler.call_later(_LAST_GASP_S, lambda: self._drop(meters, duration_s))

    def _drop(self, meters: Sequence[SimulatedMeter], duration_s: float) -> None:
        for meter in meters:
            self.modem.drop(self._name(meter), duration_s)

    def _name(self, meter: SimulatedMeter) -> bytes:
        names = {"prime": meter.eui48, "s-fsk": meter.system_title}
        return names.get(self.options.protocol, meter.eui64)

    def close(self) -> None:
        """Take the ports away."""
        for port in (self.modem_port, self.radio_port):
            port.close()


class _RadioDevice:
    """The radio module as a device behind a port, at a fixed distance from its one meter."""

    def __init__(self, scheduler: AsyncioScheduler) -> None:
        self.output: Callable[[bytes], None] | None = None
        self._module = SimulatedRadioModule(self._write, scheduler)

    def receive_data(self, data: bytes) -> None:
        """Octets from the host."""
        self._module.receive_data(data)

    def transmit(self, telegram: bytes) -> None:
        """A telegram of the meter on the air."""
        self._module.hear(telegram, _WATER_RSSI_DBM)

    def _write(self, data: bytes) -> None:
        if self.output is not None:
            self.output(data)


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
