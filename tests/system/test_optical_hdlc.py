"""An optical head on a meter of mode E: signed on at 300 baud, carried on in HDLC, read by DLMS."""

import asyncio
import json
import threading
from datetime import UTC, datetime

from click.testing import CliRunner

from concentrator.cli import main
from concentrator.dlms.hdlc import HdlcDecoder
from concentrator.dlms.hdlc_link import ApduReceived, HdlcParameters, HdlcServerLink
from concentrator.simulator.meter import SimulatedMeter
from concentrator.simulator.pty_port import PtyPort


class ModeEMeter:
    """Signs on in characters, then speaks HDLC."""

    def __init__(self, server):
        self.output = None
        self.heard = []
        self._server = server
        self._line = b""
        self._finder = HdlcDecoder()
        self._link = None
        self._handed_over = False

    def receive_data(self, data):
        if self._handed_over:
            self._hdlc(data)
            return
        self._line += bytes(one & 0x7F for one in data)
        while b"\n" in self._line:
            line, _, self._line = self._line.partition(b"\n")
            self.heard.append(line.strip())
            if line.startswith(b"/?"):
                self.output(b"/ODC5\\2Mode E meter\r\n")
            elif line.startswith(b"\x062"):
                self.output(line + b"\n")
                self._handed_over = True

    def _hdlc(self, data):
        if self._link is None:
            self._finder.receive_data(data)
            first = self._finder.next_event()
            if first is None:
                return
            self._link = HdlcServerLink(first.source, first.destination, HdlcParameters())
            data = first.to_bytes()
        self._link.receive_data(data)
        while event := self._link.next_event():
            if isinstance(event, ApduReceived):
                saps = self._link.peer.upper, self._link.own.upper
                for reply in self._server.receive_apdu(*saps, event.apdu):
                    self._link.send_apdu(reply)
        self.output(self._link.data_to_send())


def serve(path, device_made, ready, stop):
    async def run():
        port = PtyPort(path, device_made)
        port.plug()
        stop.append((asyncio.get_running_loop(), asyncio.Event()))
        ready.set()
        await stop[0][1].wait()
        port.close()

    asyncio.run(run())


def test_an_optical_head_is_carried_on_into_hdlc(tmp_path):
    now = datetime(2026, 5, 4, 10, tzinfo=UTC)
    meter = SimulatedMeter("30000008", 11, lambda: now, clock_offset_s=0)
    device = ModeEMeter(meter.server)
    ready, stop = threading.Event(), []
    thread = threading.Thread(target=serve, args=(tmp_path / "head", device, ready, stop))
    thread.start()
    assert ready.wait(5)
    try:
        arguments = ["read", "--optical", str(tmp_path / "head"), "--hdlc", "--json"]
        answer = CliRunner().invoke(main, arguments)
        assert answer.exit_code == 0, answer.output
    finally:
        loop, ended = stop[0]
        loop.call_soon_threadsafe(ended.set)
        thread.join(5)
    assert device.heard[0] == b"/?!"
    objects = [json.loads(line) for line in answer.stdout.splitlines()]
    assert any(one["class_id"] == 15 for one in objects)
