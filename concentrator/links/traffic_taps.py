"""Taps on the modem's and the radio module's lines: there only while somebody watches the traffic."""

from __future__ import annotations

import structlog

from concentrator.links.frame_tap import FROM_HOST, FROM_MODEM, HEARD, FrameTap
from concentrator.links.plc_link import PlcLink
from concentrator.links.radio_link import RadioLink
from concentrator.traffic import Source, TrafficHub
from concentrator.wmbus.modules.face import TelegramHeard
from plc.errors import PlcError

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


class TrafficTaps:
    """Publishes the frames of a modem and the telegrams of a radio module."""

    def __init__(self, hub: TrafficHub, link: PlcLink | None, radio: RadioLink | None) -> None:
        self._hub = hub
        self._link = link
        self._radio = radio
        self._frames = FrameTap()
        hub.on_watched.append(self._set)

    def _set(self) -> None:
        watched = self._hub.watched
        if self._link is not None and watched != (self._link.shell.tap is not None):
            # Octets that passed before are not to be taken for the begin of a frame.
            self._frames = FrameTap()
            self._link.shell.tap = self._octets_passed if watched else None
        if self._radio is not None:
            self._radio.tap = self._telegram_heard if watched else None

    def _octets_passed(self, from_device: bool, data: bytes) -> None:  # noqa: FBT001 - the shell's tap
        direction = FROM_MODEM if from_device else FROM_HOST
        try:
            for frame in self._frames.receive_data(direction, data):
                self._hub.publish(Source.MODEM, direction, frame)
        except PlcError as error:
            # Whoever watches may miss a frame; the reading of meters goes on.
            log.warning("frame not shown in the traffic", reason=str(error))
            self._frames = FrameTap()

    def _telegram_heard(self, event: TelegramHeard) -> None:
        signal = f"{event.rssi_dbm} dBm" if event.rssi_dbm is not None else ""
        self._hub.publish(Source.RADIO, HEARD, event.octets, note=signal)
