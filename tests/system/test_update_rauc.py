"""The update command against a real RAUC: two slots that are plain files, a boot loader of shell and text.

Needs the Debian packages rauc, dbus, squashfs-tools and openssl, and root (RAUC mounts the bundle).
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from concentrator.update.rauc import read_system

from dlms_peers import GuruxPeer
from dlms_wire import connect
from ports import free_port

MISSING = [name for name in ("rauc", "dbus-daemon", "mksquashfs", "openssl") if shutil.which(name) is None]
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="RAUC mounts the bundle: needs root"),
]
SLOT_OCTETS = 256 * 1024
COMMAND = [sys.executable, "-m", "concentrator", "update", "install"]

SYSTEM_CONF = """
[system]
compatible=open-data-concentrator
bootloader=custom
bundle-formats=plain
mountprefix={root}/mount

[handlers]
bootloader-custom-backend={root}/backend.sh

[keyring]
path={root}/ca.pem

[slot.rootfs.0]
device={root}/slot-a
type=raw
bootname=A

[slot.rootfs.1]
device={root}/slot-b
type=raw
bootname=B
"""
BACKEND = """#!/bin/sh
cd {root}
case "$1" in
    get-primary) cat primary ;;
    set-primary) echo "$2" > primary ;;
    get-state) cat "state-$2" ;;
    set-state) echo "$3" > "state-$2" ;;
    get-current) echo A ;;
esac
"""
MANIFEST = """
[update]
compatible={compatible}
version=2026.11-1

[bundle]
format=plain

[image.rootfs]
filename=rootfs.img
"""


def run(*command, **options):
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True, **options)


def make_key(root, name):
    run(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"),
        *("-keyout", root / f"{name}.key", "-out", root / f"{name}.pem"),
    )


def make_bundle(root, name, content, key="ca", compatible="open-data-concentrator"):
    source = root / f"{name}.source"
    source.mkdir()
    (source / "rootfs.img").write_bytes(content)
    (source / "manifest.raucm").write_text(MANIFEST.format(compatible=compatible))
    bundle = root / f"{name}.raucb"
    conf = root / "bundle.conf"
    conf.write_text(SYSTEM_CONF.format(root=root))
    run("rauc", f"--cert={root}/{key}.pem", f"--key={root}/{key}.key", "bundle", source, bundle)
    return bundle


def wait_for(condition, what, process, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"{what}: the process ended: {process.communicate()}"
        assert time.monotonic() < deadline, f"no {what} within {seconds} s"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    """Slots, keys and bundles of one device, and a private bus."""
    root = tmp_path_factory.mktemp("rauc")
    for name in ("ca", "stranger"):
        make_key(root, name)
    for slot in "ab":
        (root / f"slot-{slot}").write_bytes(bytes(SLOT_OCTETS))
    (root / "mount").mkdir()
    (root / "system.conf").write_text(SYSTEM_CONF.format(root=root))
    (root / "backend.sh").write_text(BACKEND.format(root=root))
    (root / "backend.sh").chmod(0o755)
    (root / "primary").write_text("A\n")
    for name in "AB":
        (root / f"state-{name}").write_text("good\n")
    content = bytes(range(256)) * 512
    bundles = {
        "good": make_bundle(root, "good", content),
        "foreign": make_bundle(root, "foreign", content, key="stranger"),
        "other": make_bundle(root, "other", content, compatible="coffee-machine"),
    }
    damaged = bytearray(bundles["good"].read_bytes())
    damaged[200] ^= 0x01
    bundles["damaged"] = root / "damaged.raucb"
    bundles["damaged"].write_bytes(damaged)
    bundles["cut"] = root / "cut.raucb"
    bundles["cut"].write_bytes(damaged[: len(damaged) // 2])
    bus = subprocess.Popen(
        ["dbus-daemon", "--session", "--nofork", f"--address=unix:path={root}/bus"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for((root / "bus").exists, "bus", bus)
    environment = dict(
        os.environ, DBUS_SESSION_BUS_ADDRESS=f"unix:path={root}/bus", DBUS_STARTER_BUS_TYPE="session"
    )
    try:
        yield root, bundles, content, environment
    finally:
        bus.terminate()
        bus.communicate(timeout=10)


@pytest.fixture
def rauc(device):
    root, _, _, environment = device
    service = subprocess.Popen(
        ["rauc", f"--conf={root}/system.conf", "--override-boot-slot=A", "service"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers():
        asked = ["rauc", f"--conf={root}/system.conf", "status", "--output-format=json"]
        return subprocess.run(asked, env=environment, capture_output=True, check=False).returncode == 0

    wait_for(answers, "RAUC on the bus", service)
    yield device
    service.terminate()
    service.wait(timeout=10)


def install(path, environment):
    return subprocess.run(
        [*COMMAND, str(path)], env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def slots(root):
    return (root / "slot-a").read_bytes(), (root / "slot-b").read_bytes()


def test_bundles_that_are_not_for_us_are_refused_and_touch_nothing(rauc):
    root, bundles, _, environment = rauc
    before = slots(root)
    for name, state in (
        ("foreign", "signature_refused"),
        ("other", "incompatible"),
        ("damaged", "signature_refused"),
        ("cut", "damaged"),
    ):
        done = install(bundles[name], environment)
        assert done.returncode == 1, (name, done)
        assert done.stderr.splitlines()[-1].startswith(f"{state}: "), (name, done.stderr)
        assert done.stdout == ""
    assert "coffee-machine" in install(bundles["other"], environment).stderr
    assert slots(root) == before
    assert (root / "primary").read_text() == "A\n"


def test_a_good_bundle_lands_in_the_other_slot_octet_by_octet(rauc):
    root, bundles, content, environment = rauc
    done = install(bundles["good"], environment)
    assert done.returncode == 0, done
    assert done.stdout == "installed: installed into slot rootfs.1\n"
    assert "100 %" in done.stderr
    first, second = slots(root)
    assert first == bytes(SLOT_OCTETS)
    assert second[: len(content)] == content
    assert (root / "primary").read_text() == "B\n"


def test_the_slots_are_told_as_rauc_knows_them(rauc, monkeypatch):
    root, bundles, _, environment = rauc
    for name in ("DBUS_SESSION_BUS_ADDRESS", "DBUS_STARTER_BUS_TYPE"):
        monkeypatch.setenv(name, environment[name])
    (root / "primary").write_text("A\n")
    before = asyncio.run(read_system())
    assert (before.reason, before.compatible, before.operation, before.booted) == (
        "",
        "open-data-concentrator",
        "idle",
        "A",
    )
    first, second = sorted(before.slots, key=lambda slot: slot.name)
    assert (first.name, first.state, first.bootname, first.boot_status) == ("rootfs.0", "booted", "A", "good")
    assert (first.is_next, second.is_next, second.state) == (True, False, "inactive")
    assert install(bundles["good"], environment).returncode == 0
    after = asyncio.run(read_system())
    assert [slot.is_next for slot in sorted(after.slots, key=lambda slot: slot.name)] == [False, True]
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={root}/no-bus")
    assert asyncio.run(read_system()).reason == "the D-Bus bus cannot be reached: No such file or directory"


def test_no_file_no_daemon_and_no_bus_each_say_so(device):
    root, bundles, _, environment = device
    missing = install(root / "nothing.raucb", environment)
    assert (missing.returncode, missing.stderr.split(":")[0]) == (2, "file_missing")
    no_daemon = install(bundles["good"], environment)
    assert (no_daemon.returncode, no_daemon.stderr.split(":")[0]) == (3, "rauc_missing")
    nowhere = dict(environment, DBUS_SESSION_BUS_ADDRESS=f"unix:path={root}/no-bus")
    no_bus = install(bundles["good"], nowhere)
    assert (no_bus.returncode, no_bus.stderr.split(":")[0]) == (3, "bus_missing")
    assert isinstance(root, Path)


def test_a_head_end_transfers_verifies_and_installs_a_bundle(rauc, tmp_path):
    root, bundles, content, environment = rauc
    (root / "primary").write_text("A\n")
    keys = {"encryption_key": "0F" * 16, "authentication_key": "F0" * 16}
    client = {"client_sap": 1, "mechanism": "hls-gmac", "role": "admin", **keys}
    key_file = tmp_path / "head_ends.json"
    key_file.write_text(json.dumps({"clients": [client]}))
    key_file.chmod(0o600)
    port = free_port()
    config = tmp_path / "concentrator.toml"
    config.write_text(
        f'[concentrator]\nstate_directory = "{tmp_path}/state"\n'
        f'[dlms]\nport = {port}\nkey_file = "{key_file}"\n[web]\nenabled = false\n'
    )
    log = (tmp_path / "log").open("wb")
    command = [sys.executable, "-m", "concentrator", "run", "--config", str(config)]
    product = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        for name, expected in (("foreign", 4), ("good", 6)):
            assert transfer(port, bundles[name]) == expected, (tmp_path / "log").read_text()
    finally:
        product.terminate()
        product.wait(timeout=20)
        log.close()
    _, second = slots(root)
    assert second[: len(content)] == content
    assert (root / "primary").read_text() == "B\n"


COUNTER = [1]


def transfer(port, bundle):
    """Gurux sends an image and has it verified and activated; gives the status that it ends with."""
    from gurux_dlms.enums import Authentication, InterfaceType, Security
    from gurux_dlms.objects import GXDLMSImageTransfer
    from gurux_dlms.secure import GXDLMSSecureClient

    client = GXDLMSSecureClient(True, 1, 1, Authentication.HIGH_GMAC, None, InterfaceType.WRAPPER)
    client.ciphering.systemTitle = b"GURUXCLT"
    client.ciphering.blockCipherKey = b"\x0f" * 16
    client.ciphering.authenticationKey = b"\xf0" * 16
    client.ciphering.invocationCounter = COUNTER[0]
    client.ciphering.security = Security.AUTHENTICATION_ENCRYPTION
    client.maxReceivePDUSize = 8192
    peer = GuruxPeer.__new__(GuruxPeer)
    peer.client, peer.hdlc, peer.pushed, peer.socket = client, False, [], connect(port)
    octets, image = bundle.read_bytes(), GXDLMSImageTransfer()

    def read(attribute):
        client.updateValue(image, attribute, peer.ask(client.read(image, attribute)).value)

    def until_done(request):
        deadline = time.monotonic() + 30
        while True:
            try:
                return peer.ask(request())
            except PermissionError as error:
                # temporary-failure: it is being done.
                assert time.monotonic() < deadline
                if error.args[0] != 2:
                    return None
                time.sleep(0.05)

    with peer:
        read(2)
        peer.ask(image.imageTransferInitiate(client, "odc", len(octets)))
        for packet in image.imageBlockTransfer(client, octets, None):
            peer.ask(packet)
        read(4)
        assert image.imageFirstNotTransferredBlockNumber == -(-len(octets) // image.imageBlockSize)
        if until_done(lambda: image.imageVerify(client)) is not None:
            until_done(lambda: image.imageActivate(client))
        read(6)
        COUNTER[0] = client.ciphering.invocationCounter + 100
    return int(image.imageTransferStatus)
