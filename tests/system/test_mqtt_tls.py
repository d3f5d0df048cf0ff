"""MQTT over TLS against a real Mosquitto that demands a client certificate."""

from __future__ import annotations

import os
import subprocess

import pytest

from bench import until
from ports import free_port

pytestmark = pytest.mark.system


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def make_authority(directory, name):
    openssl(
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
        "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        "-keyout", str(directory / f"{name}.key"), "-out", str(directory / f"{name}.pem"),
    )  # fmt: skip


def make_certificate(directory, authority, name, alternative):
    key, request, certificate = (directory / f"{name}.{end}" for end in ("key", "csr", "pem"))
    openssl(
        "req",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        f"/CN={name}",
        "-keyout",
        str(key),
        "-out",
        str(request),
    )
    extensions = directory / f"{name}.ext"
    extensions.write_text(f"subjectAltName={alternative}\n")
    openssl(
        "x509", "-req", "-days", "2", "-in", str(request), "-extfile", str(extensions), "-CAcreateserial",
        "-CA", str(directory / f"{authority}.pem"), "-CAkey", str(directory / f"{authority}.key"),
        "-out", str(certificate),
    )  # fmt: skip


@pytest.fixture
async def tls(bench):
    """The bench with a second, secured listener on its broker; gives that listener's port."""
    directory = bench.directory
    make_authority(directory, "authority")
    make_authority(directory, "stranger")
    make_certificate(directory, "authority", "broker", "DNS:localhost")
    make_certificate(directory, "authority", "elsewhere", "DNS:elsewhere.example")
    make_certificate(directory, "authority", "client", "DNS:client")
    ports = {}
    for name in ("broker", "elsewhere"):
        ports[name] = free_port()
        with (directory / "mosquitto.conf").open("a") as config:
            config.write(
                f"listener {ports[name]} 127.0.0.1\ncafile {directory}/authority.pem\n"
                f"certfile {directory}/{name}.pem\nkeyfile {directory}/{name}.key\nrequire_certificate true\n"
            )
    if os.geteuid() == 0:
        # Mosquitto gives its root rights up before it reads them, and has to reach the folder.
        for file in directory.glob("*.key"):
            file.chmod(0o644)
        for folder in (directory, *list(directory.parents)[:3]):
            folder.chmod(folder.stat().st_mode | 0o055)
    await bench.start_outside()
    bench.start_substation(meters=2)
    return ports


def settings(bench, port, **changes):
    return {
        "host": "localhost",
        "port": port,
        "tls": True,
        "ca_file": str(bench.directory / "authority.pem"),
        "certificate_file": str(bench.directory / "client.pem"),
        "private_key_file": str(bench.directory / "client.key"),
        **changes,
    }


async def test_readings_leave_over_tls_with_a_client_certificate(bench, tls):
    bench.write_config(mqtt=settings(bench, tls["broker"]))
    await bench.start_product()
    await bench.until_delivered()
    bench.check_ledger(bench.mqtt.ledger)


@pytest.mark.parametrize("case", ["authority", "name", "certificate"])
async def test_a_broker_that_is_not_who_it_should_be_gets_nothing(bench, tls, case):
    changes, port = {}, tls["broker"]
    if case == "authority":
        changes["ca_file"] = str(bench.directory / "stranger.pem")
    elif case == "name":
        port = tls["elsewhere"]
    else:
        changes |= {"certificate_file": "", "private_key_file": ""}
    bench.write_config(mqtt=settings(bench, port, **changes))
    await bench.start_product()
    # The other destination goes on meanwhile.
    await bench.until_delivered(90, bench.push.ledger)

    def refused(status):
        mqtt = next(d for d in status["destinations"] if d["kind"] == "mqtt")
        return mqtt["state"] == "not connected" and mqtt["reason"] and mqtt["pending_readings"]

    await bench.until_status(refused)
    await until(lambda: "not connected" in bench.log, 10)
    assert bench.mqtt.ledger.messages == 0
