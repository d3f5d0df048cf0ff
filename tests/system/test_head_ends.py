"""Head-ends that connect to the box: its logical devices, its meters' by the store, and meters through the gateway."""

import asyncio
import contextlib
import json
import socket
import struct
from datetime import UTC, datetime, timedelta

import pytest

from concentrator.dlms import axdr
from concentrator.dlms.attributes import (
    CLOCK_COLUMN,
    AttributeDescriptor,
    CaptureObject,
    MethodDescriptor,
    RangeDescriptor,
)
from concentrator.dlms.client import Client, ClientSettings
from concentrator.dlms.codes import AuthenticationMechanism
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.errors import AssociationRejectedError, DlmsError, ServiceRefusedError
from concentrator.dlms.gateway import GatewayAddress
from concentrator.dlms.profile import ProfileDecoder, capture_objects
from concentrator.dlms.security import MemoryCounter, SecurityKeys
from concentrator.obis import Obis
from concentrator.simulator.meter import LOAD_PROFILE

from dlms_wire import WrapperWire
from ports import free_port

pytestmark = pytest.mark.system

ENCRYPTION, AUTHENTICATION = bytes(range(16)), bytes(range(16, 32))
SAP_ASSIGNMENT = AttributeDescriptor(17, Obis(0, 0, 41, 0, 0, 255), 2)
# One count for one key, over all connections: that of a head-end rises for ever.
COUNTER = MemoryCounter(1)
NAME = AttributeDescriptor(1, Obis(0, 0, 42, 0, 0, 255), 2)


@pytest.fixture
async def box(bench):
    """A running product with two meters that are read, and a port for head-ends."""
    bench.start_substation(meters=2)
    key_file = bench.directory / "head_ends.json"
    client = {"client_sap": 1, "mechanism": "hls-gmac", "role": "operator"}
    keys = {"encryption_key": ENCRYPTION.hex(), "authentication_key": AUTHENTICATION.hex()}
    key_file.write_text(json.dumps({"clients": [{**client, **keys}]}))
    key_file.chmod(0o600)
    bench.dlms_port = free_port()
    bench.write_config(dlms={"port": bench.dlms_port, "key_file": str(key_file), "most_connections": 8})
    await bench.start_product()
    await bench.until_status(
        lambda s: (
            len(s["meters"]) >= 2
            and all(m["expected"] and m["stored"] == m["expected"] for m in s["meters"] if m["link"] == "plc")
        )
    )
    return bench


def client_of(**more):
    return Client(
        ClientSettings(
            1,
            more.pop("device", 1),
            mechanism=AuthenticationMechanism.HLS_GMAC,
            keys=SecurityKeys(ENCRYPTION, AUTHENTICATION),
            system_title=b"HEADEND1",
            **more,
        ),
        COUNTER,
    )


def devices_of(wire, client):
    return {
        item.items(2)[1].octets(): item.items(2)[0].integer()
        for item in wire.run(client.get(SAP_ASSIGNMENT)).items()
    }


async def test_every_meter_is_a_logical_device_with_its_readings_from_the_store(box):
    def read():
        with WrapperWire(box.dlms_port, 1) as wire:
            client = client_of()
            wire.run(client.associate())
            devices = devices_of(wire, client)
            assert wire.run(client.get(NAME)).octets() == b"ODCbench"
        for meter in box.substation.meters:
            device = devices[meter.logical_device_name]
            with WrapperWire(box.dlms_port, 1, device) as wire:
                client = client_of(device=device)
                wire.run(client.associate())
                columns = capture_objects(wire.run(client.get(AttributeDescriptor(7, LOAD_PROFILE, 3))))
                end = datetime.now(UTC)
                start = end - timedelta(hours=6)
                bounds = (CosemDateTime.from_datetime(moment, 0) for moment in (start, end))
                selection = RangeDescriptor(*bounds, CLOCK_COLUMN)
                encoded = wire.run(client.get_encoded(AttributeDescriptor(7, LOAD_PROFILE, 2), selection))
                decoder = ProfileDecoder(columns, 900)
                decoder.receive_data(encoded)
                rows = list(decoder.rows())
                truth = {row.captured_at: row for row in meter.truth(LOAD_PROFILE, start, end)}
                assert len(rows) >= 20
                for row in rows:
                    assert tuple(row.values[-4:]) == truth[row.captured_at].values
                register = wire.run(client.get(AttributeDescriptor(4, Obis(1, 0, 1, 8, 0, 255), 2))).integer()
                moment = CosemDateTime.from_bytes(
                    wire.run(client.get(AttributeDescriptor(4, Obis(1, 0, 1, 8, 0, 255), 5))).octets()
                ).to_utc()
                assert register == truth[moment].values[0]
                wire.run(client.release())

    await asyncio.to_thread(read)


async def test_a_meter_is_reached_through_the_gateway_with_the_head_ends_own_association(box):
    meter = box.substation.meters[0]

    def read(address, sap=16):
        with WrapperWire(box.dlms_port, sap) as wire:
            client = Client(ClientSettings(sap, 1, gateway=GatewayAddress(0, address)))
            wire.run(client.associate())
            name = wire.run(client.get(NAME)).octets()
            wire.run(client.release())
            return name

    for address in (meter.serial.encode(), meter.logical_device_name, meter.eui48):
        assert await asyncio.to_thread(read, address) == meter.logical_device_name
    with pytest.raises((ServiceRefusedError, AssociationRejectedError)):
        await asyncio.to_thread(read, b"nobody")
    # Our own reading goes on, and finds nothing twice.
    state = await box.until_status(
        lambda s: all(m["activity"] == "" for m in s["meters"] if m["link"] == "plc")
    )
    assert state["totals"]["intervals_stored"] == state["totals"]["intervals_expected"]


async def test_gurux_browses_reads_a_profile_and_goes_through_the_gateway(box):
    meter = box.substation.meters[0]

    def read():
        from gurux_dlms.enums import Authentication, InterfaceType, Security
        from gurux_dlms.objects import GXDLMSProfileGeneric
        from gurux_dlms.secure import GXDLMSSecureClient

        from dlms_peers import GuruxPeer

        with WrapperWire(box.dlms_port, 1) as wire:
            ours = client_of()
            wire.run(ours.associate())
            device = devices_of(wire, ours)[meter.logical_device_name]
        client = GXDLMSSecureClient(True, 1, device, Authentication.HIGH_GMAC, None, InterfaceType.WRAPPER)
        client.ciphering.systemTitle = b"GURUXCLT"
        client.ciphering.blockCipherKey, client.ciphering.authenticationKey = ENCRYPTION, AUTHENTICATION
        client.ciphering.invocationCounter = COUNTER.value + 1
        COUNTER.value += 1000
        client.ciphering.security = Security.AUTHENTICATION_ENCRYPTION
        peer = GuruxPeer.__new__(GuruxPeer)
        peer.client, peer.hdlc, peer.pushed = client, False, []
        peer.socket = socket.create_connection(("127.0.0.1", box.dlms_port), 20)
        with peer:
            objects = client.parseObjects(peer.ask(client.getObjectsRequest()).data, True)
            names = {str(entry.logicalName) for entry in objects}
            assert {"1.0.99.1.0.255", "1.0.1.8.0.255", "0.0.42.0.0.255"} <= names
            profile = next(
                o
                for o in objects
                if isinstance(o, GXDLMSProfileGeneric) and o.logicalName == "1.0.99.1.0.255"
            )
            client.updateValue(profile, 3, peer.ask(client.read(profile, 3)).value)
            end = datetime.now(UTC).replace(tzinfo=None)
            reply = peer.ask(client.readRowsByRange(profile, end - timedelta(hours=3), end))
            return client.updateValue(profile, 2, reply.value)

    rows = await asyncio.to_thread(read)
    truth = {
        row.values
        for row in meter.truth(LOAD_PROFILE, datetime.now(UTC) - timedelta(hours=9), datetime.now(UTC))
    }
    assert len(rows) >= 8
    assert {tuple(int(value) for value in row[-4:]) for row in rows} <= truth


async def test_wrong_keys_and_hostile_connections_do_no_harm(box):
    def attack():
        stranger = Client(
            ClientSettings(
                1,
                1,
                mechanism=AuthenticationMechanism.HLS_GMAC,
                keys=SecurityKeys(AUTHENTICATION, ENCRYPTION),
                system_title=b"STRANGER",
            ),
            MemoryCounter(1),
        )
        with WrapperWire(box.dlms_port, 1) as wire, pytest.raises(DlmsError):
            wire.run(stranger.associate())
        held = [socket.create_connection(("127.0.0.1", box.dlms_port), 5) for _ in range(30)]
        for one in held[:10]:
            one.sendall(b"\x00\x01\x00\x01\x00\x01\xff\xff" + bytes(100))
        for one in held[10:20]:
            with contextlib.suppress(OSError):
                one.sendall(b"GET / HTTP/1.1\r\n\r\n")
        for one in held:
            one.close()
        # A client that asks and never reads.
        greedy = socket.create_connection(("127.0.0.1", box.dlms_port), 5)
        ask = struct.pack(">HHHH", 1, 16, 1, 1)
        with contextlib.suppress(OSError):
            for _ in range(1000):
                greedy.sendall(ask + b"\x60")
        return greedy

    greedy = await asyncio.to_thread(attack)
    await box.until_status(lambda s: s["modem"]["state"] == "running")

    def read():
        with WrapperWire(box.dlms_port, 1) as wire:
            client = client_of()
            wire.run(client.associate())
            return len(devices_of(wire, client))

    async with asyncio.timeout(30):
        while True:
            try:
                assert await asyncio.to_thread(read) >= 3
                break
            except (OSError, DlmsError):
                await asyncio.sleep(0.1)
    greedy.close()


async def test_a_value_of_this_moment_is_read_by_the_meter_itself(box):
    meter = box.substation.meters[0]
    live = Obis(0, 0, 128, 4, 0, 255)

    def read():
        with WrapperWire(box.dlms_port, 1) as wire:
            client = client_of()
            wire.run(client.associate())
            device = devices_of(wire, client)[meter.logical_device_name]
        with WrapperWire(box.dlms_port, 1, device) as wire:
            client = client_of(device=device)
            wire.run(client.associate())
            columns = [CaptureObject(3, Obis(1, 0, 1, 8, 0, 255), 2), CaptureObject(1, NAME.obis, 2)]
            wanted = axdr.array(*(column.to_data() for column in columns))
            wire.run(client.set(AttributeDescriptor(7, live, 3), wanted))
            began = int(datetime.now(UTC).timestamp())
            wire.run(client.action(MethodDescriptor(7, live, 2), axdr.integer(0)))
            under_way = AttributeDescriptor(1, Obis(0, 0, 128, 4, 1, 255), 2)
            while wire.run(client.get(under_way)).integer():
                # Every question is answered while the meter is read.
                assert wire.run(client.get(NAME)).octets() == meter.logical_device_name
            (row,) = wire.run(client.get(AttributeDescriptor(7, live, 2))).items()
            at, result, quality, energy, name = row.items()
            assert CosemDateTime.from_bytes(at.octets()).to_utc().timestamp() >= began
            assert (result.native, quality.integer()) == ("", 32)
            assert name.octets() == meter.logical_device_name
            return energy.integer()

    newest = meter.truth(LOAD_PROFILE, datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC))[-1]
    assert await asyncio.to_thread(read) >= newest.values[0]
