"""A consumer port that pushes DLMS in M-Bus frames: real frames, replayed on a pseudo-terminal."""

import asyncio
import json
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from concentrator.cli import main
from concentrator.simulator.pty_port import PtyPort

VECTORS = Path(__file__).parents[2] / "../shared/data/dlms/vectors.jsonl"
PUSH = bytes.fromhex("0F00000001000203120001110109060100010800FF")


def mbus_frame(apdu):
    content = b"\x53\xff\x10\x01\x67" + apdu
    return bytes((0x68, len(content), len(content), 0x68)) + content + bytes((sum(content) & 0xFF, 0x16))


class HanPort:
    output = None

    def receive_data(self, data):
        raise AssertionError("nobody writes to a HAN port")


def read_pushes(tmp_path, octets, *options):
    ready, stop, loops = threading.Event(), threading.Event(), []

    async def serve():
        device = HanPort()
        port = PtyPort(tmp_path / "han", device)
        port.plug()
        loops.append(port)
        ready.set()
        while not stop.is_set():
            device.output(octets)
            await asyncio.sleep(1.2)
        port.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(5)
    try:
        return CliRunner().invoke(main, ["read", "--han", str(tmp_path / "han"), "--json", *options])
    finally:
        stop.set()
        thread.join(5)


def test_a_plain_push_in_an_mbus_frame_is_read(tmp_path):
    answer = read_pushes(tmp_path, mbus_frame(PUSH))
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout)["decoded"]["apdu"] == "data-notification"


def test_a_push_that_holds_the_word_error_is_read(tmp_path):
    apdu = bytes.fromhex("0F000000010002010A08") + b"no error"
    answer = read_pushes(tmp_path, mbus_frame(apdu))
    assert answer.exit_code == 0, answer.output
    assert "no error" in answer.stdout


def test_real_frames_of_several_segments_are_put_together(tmp_path):
    if not VECTORS.exists():
        pytest.skip(f"real frames are not here: {VECTORS}")
    vectors = [json.loads(line) for line in VECTORS.read_text().splitlines()]
    frames = next(
        one for one in vectors if one["kind"] == "mbus-frames" and len(one["expected"]["segments"]) == 2
    )
    answer = read_pushes(tmp_path, bytes.fromhex(frames["hex"]))
    tree = json.loads(answer.stdout)
    assert [segment["ci"] for segment in tree["segments"]] == ["00", "11"]
    assert tree["decoded"]["apdu"] == "general-glo-ciphering"
