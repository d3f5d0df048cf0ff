"""`concentrator modem probe` and `sniff` as programs, on pseudo-terminals with the simulated modems behind them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest
from test_plc_pty_port import Shell

from concentrator.links.aes import aes
from concentrator.simulator.feeder import G3_CENELEC_A_PHY, SFSK_PHY, Feeder
from concentrator.simulator.g3_modem import G3Modem
from concentrator.simulator.g3_modem_a import G3ModemA
from concentrator.simulator.prime_modem import PrimeModem
from concentrator.simulator.pty_port import PtyPort
from concentrator.simulator.scheduler import AsyncioScheduler
from concentrator.simulator.sfsk_modem import SfskModem
from plc.g3.coordinator import Coordinator
from plc.network import ApduReceived, NodeJoined
from plc.prime.base_node import BaseNode
from plc.sfsk.initiator import Initiator

from plc_rig import EchoDevice

pytestmark = pytest.mark.system

PSK = b"PSK-secret-octet"
GMK = b"GMK-secret-octet"
EUI64 = bytes.fromhex("0080E1FFFE000000")


class AnsweringDevice(EchoDevice):
    def receive_apdu(self, client_sap, server_sap, apdu, reply):
        reply(b"\xc4\x01\xc1\x00\x11\x05")


def prime_modem(generation="harmony"):
    return PrimeModem(
        [AnsweringDevice(number) for number in range(4)],
        AsyncioScheduler(),
        Feeder(4, steady=True, speed=500.0),
        generation=generation,
        join_spread_s=10.0,
    )


def g3_modem(kind=G3Modem, **options):
    return kind(
        [AnsweringDevice(number) for number in range(4)],
        AsyncioScheduler(),
        Feeder(4, phy=G3_CENELEC_A_PHY, steady=True, speed=500.0),
        eui64=EUI64,
        join_spread_s=10.0,
        **options,
    )


def sfsk_modem():
    return SfskModem(
        [AnsweringDevice(number) for number in range(4)],
        AsyncioScheduler(),
        Feeder(4, phy=SFSK_PHY, steady=True, speed=500.0),
        join_spread_s=10.0,
    )


@contextlib.contextmanager
def at_port(path, device):
    port = PtyPort(path, device)
    port.plug()
    try:
        yield str(path)
    finally:
        port.close()


class Mute:
    output = None

    def receive_data(self, data):
        pass


class Babbler(Mute):
    def receive_data(self, data):
        self.output(b"\x55\xaa" * len(data))


async def command(*arguments):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "concentrator", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        output, errors = await process.communicate()
    return process.returncode, output.decode(), errors.decode()


@pytest.mark.parametrize("generation", ["harmony", "2021"])
async def test_probe_names_a_prime_modem(tmp_path, generation):
    with at_port(tmp_path / "modem", prime_modem(generation)) as port:
        status, output, _ = await command("modem", "probe", "--port", port)
    assert status == 0
    assert f"PRIME base node, firmware of the {'Harmony' if generation == 'harmony' else '2021'}" in output
    assert "at 230400 baud" in output
    assert "identity: 0080e1000001" in output
    assert "firmware_version: simulated base" in output
    assert "mac_software_version: 01040000" in output
    assert "mac_tx_data_packets: 0" in output


async def test_probe_names_a_running_g3_modem(tmp_path):
    modem = g3_modem()
    modem.start()
    with at_port(tmp_path / "modem", modem) as port:
        async with Shell(Coordinator(0x781D, PSK, GMK), Path(port)) as shell:
            await shell.wait_for(lambda shell: len(shell.joined()) == 4)
        status, output, _ = await command("modem", "probe", "--port", port, "--baud-rate", "115200")
    assert status == 0
    assert "at 115200 baud: G3-PLC coordinator, generation B" in output
    assert f"identity: {EUI64.hex()}" in output
    assert "mac_pan_id: 0x781d" in output
    assert "adp_soft_version: 010203040506" in output
    assert "mac_tx_data_packet_count" in output
    assert "note:" not in output


async def test_probe_names_a_g3_modem_of_generation_a(tmp_path):
    modem = g3_modem(G3ModemA, device_psks=PSK)
    modem.start()
    with at_port(tmp_path / "modem", modem) as port:
        options = {"generation": "auto", "aes": aes, "random": os.urandom}
        async with Shell(Coordinator(0x781D, PSK, GMK, **options), Path(port)) as shell:
            await shell.wait_for(lambda shell: len(shell.joined()) == 4)
        status, output, _ = await command("modem", "probe", "--port", port)
    assert status == 0
    assert "G3-PLC coordinator, generation A" in output
    assert f"identity: {EUI64.hex()}" in output
    assert "mac_pan_id: 0x781d" in output


async def test_probe_of_a_g3_modem_that_nobody_has_started(tmp_path):
    modem = g3_modem()
    with at_port(tmp_path / "modem", modem) as port:
        status, output, _ = await command("modem", "probe", "--port", port)
    assert status == 0
    assert "generation B" in output
    assert "not initialised" in output
    # Nothing was changed by asking.
    assert not modem._initialized


async def test_probe_names_an_sfsk_modem(tmp_path):
    modem = sfsk_modem()
    with at_port(tmp_path / "modem", modem) as port:
        status, output, _ = await command("modem", "probe", "--port", port, "--baud-rate", "38400")
        assert status == 0
        assert "S-FSK modem" in output
        assert "not configured" in output
        async with Shell(Initiator(b"ODC\x00\x00\x00\x00\x01"), Path(port)) as shell:
            await shell.wait_for(lambda shell: shell.events)
        status, output, _ = await command("modem", "probe", "--port", port, "--baud-rate", "38400")
    assert status == 0
    assert "local_mac_address: 0xC00" in output
    assert "Soft-version: 32" in output
    assert "transmitted_frames: " in output


@pytest.mark.parametrize(
    ("device", "words"),
    [(Mute, "at 38400 baud nothing comes back"), (Babbler, "octets come that are no frames: another speed")],
)
async def test_probe_in_vain(tmp_path, device, words):
    with at_port(tmp_path / "modem", device()) as port:
        status, output, errors = await command("modem", "probe", "--port", port, "--baud-rate", "38400")
    assert (status, output) == (1, "")
    assert "no PRIME, G3 or S-FSK modem answered" in errors
    assert words in errors


async def test_probe_of_a_port_that_is_not_there(tmp_path):
    status, _, errors = await command("modem", "probe", "--port", str(tmp_path / "nothing"))
    assert status == 1
    assert "is not there" in errors


@contextlib.asynccontextmanager
async def sniffing(*arguments):
    """The running command; its output when it was told to stop is put into the list that is given."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "concentrator", "modem", "sniff", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    result = []
    async with asyncio.timeout(60):
        first = await process.stdout.readline()
        assert b"Ctrl-C ends it" in first, await process.stderr.read()
        try:
            yield result
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
            output, errors = await process.communicate()
            result += [process.returncode, output.decode(), errors.decode()]


@pytest.mark.parametrize("family", ["prime", "g3", "g3-a", "s-fsk"])
async def test_tee(tmp_path, family):
    modem = prime_modem() if family == "prime" else g3_modem(device_psk=PSK)
    network = BaseNode() if family == "prime" else Coordinator(0x781D, PSK, GMK)
    if family == "g3-a":
        modem = g3_modem(G3ModemA, device_psks=PSK)
        network = Coordinator(0x781D, PSK, GMK, generation="a", aes=aes, random=os.urandom)
    if family == "s-fsk":
        modem, network = sfsk_modem(), Initiator(b"ODC\x00\x00\x00\x00\x01")
    modem.start()
    file, link = tmp_path / "traffic.txt", tmp_path / "tee"
    with at_port(tmp_path / "modem", modem) as port:
        async with (
            sniffing("--port", port, "--tee", str(link), "--output", str(file)) as result,
            Shell(network, link) as shell,
        ):
            await shell.wait_for(lambda shell: len(shell.joined()) == 4)
            apdu = bytes.fromhex("C001C100080000010000FF0200")
            network.send_apdu(shell.of(NodeJoined)[0].address, 16, 1, apdu, shell.loop.time())
            shell.pump()
            await shell.wait_for(lambda shell: shell.of(ApduReceived))
    status, output, errors = result
    assert status == 0
    assert "host to modem" in output
    assert "modem to host" in output
    assert "frames" in errors
    assert "dropped" not in errors
    seen = {"prime": "MLME_LIST_GET.confirm", "g3": "LBP_JOIN_COMPLETE.indication", "g3-a": "lbp: challenge"}
    seen["s-fsk"] = "Register.request"
    assert seen[family] in output
    assert "get-request" in output.lower()
    assert not link.is_symlink()
    assert file.stat().st_mode & 0o077 == 0
    kept = file.read_text()
    for secret in (PSK, GMK):
        assert secret.hex() not in kept
        assert secret.hex() not in output
    # What was written is read back, and says the same.
    status, decoded, _ = await command("decode", str(file))
    assert status == 0, decoded
    assert decoded.count("message:") == output.count("message:") == kept.count("\n") // 2 > 10


async def test_a_tapped_line(tmp_path):
    master, slave = os.openpty()
    file = tmp_path / "traffic.txt"
    async with sniffing("--port", os.ttyname(slave), "--output", str(file)) as result:
        os.write(master, b"noise" + bytes.fromhex("7E01E5120000000C0000F10D7E7E00F02F00508F7E"))
        for _ in range(500):
            if file.read_text().count("7e") >= 4:
                break
            await asyncio.sleep(0.02)
    os.close(master)
    os.close(slave)
    status, output, errors = result
    assert status == 0
    assert "ADPM_GET.request" in output
    assert "MLME_LIST_GET.request" in output
    assert "2 frames; dropped: garbage_octets 5" in errors
    assert [line for line in file.read_text().splitlines() if line[0] != "#"] == [
        "7e01e5120000000c0000f10d7e",
        "7e00f02f00508f7e",
    ]


async def test_sniff_when_the_modem_is_pulled(tmp_path):
    modem = prime_modem()
    port = PtyPort(tmp_path / "modem", modem)
    port.plug()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "concentrator", "modem", "sniff", "--port", str(port.path),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        await process.stdout.readline()
        port.close()
        _, errors = await process.communicate()
    assert process.returncode == 1
    assert "went away" in errors.decode() or "closed on the other side" in errors.decode()
