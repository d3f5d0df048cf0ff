"""Every way to open an association: foreign clients on our server, our client on pydlms's meter.

Each mechanism, each kind of ciphered APDU and each suite, over WRAPPER and HDLC, as far as the peer has it.
"""

import pytest

from concentrator.dlms import axdr
from concentrator.dlms.attributes import AttributeDescriptor, MethodDescriptor
from concentrator.dlms.client import Client
from concentrator.dlms.codes import AuthenticationMechanism
from concentrator.dlms.hdlc import HdlcAddress
from concentrator.dlms.hdlc_link import HdlcClientLink, HdlcParameters
from concentrator.dlms.security import MemoryCounter

from dlms_peers import (
    CASES,
    LONG,
    METER_TITLE,
    PEERS,
    THING,
    CurrentServer,
    our_meter,
    our_settings,
    set_up,
)
from dlms_wire import HdlcService, HdlcWire, WrapperService, WrapperWire

pytestmark = pytest.mark.system

# Tags of GET, SET and ACTION requests as each protection makes them.
TAGS = {
    "plain": {0xC0, 0xC1, 0xC3},
    "glo": {0xC8, 0xC9, 0xCB},
    "ded": {0xD0, 0xD1, 0xD3},
    "general-glo": {0xDB},
    "general-ded": {0xDC},
}
ASSOCIATION = {0x60, 0x62}
FOREIGN = [(peer, case) for peer in PEERS for case in CASES if not peer.supports(case)]


@pytest.fixture(scope="module", params=["wrapper", "hdlc"])
def service(request):
    current = CurrentServer()
    hdlc = request.param == "hdlc"
    found = HdlcService(current, HdlcParameters(256, 256, 3, 3)) if hdlc else WrapperService(current)
    with found:
        found.hdlc, found.current = hdlc, current
        yield found


@pytest.mark.parametrize(("peer", "case"), FOREIGN, ids=lambda item: getattr(item, "name", None) or str(item))
def test_a_foreign_client_uses_our_server(service, peer, case):
    service.current.server = our_meter(case)
    service.current.tags.clear()
    with peer(service.port, case, hdlc=service.hdlc) as client:
        assert client.get() == LONG
        client.set(b"new")
        assert client.get() == b"new"
        assert client.get_many() == [b"new", bytes(THING)]
        assert client.action(b"echo") == b"echo"
    expected = TAGS[case.protection] | ASSOCIATION
    if case.ciphered and case.mechanism >= AuthenticationMechanism.HLS_MANUFACTURER:
        expected |= peer.proof_tags
    assert set(service.current.tags) == expected
    assert service.current.server.devices[1].replays == 0


def test_the_matrix_is_whole():
    counts = {peer.name: sum(found is peer for found, _ in FOREIGN) for peer in PEERS}
    assert counts == {"gurux": 98, "pydlms": 103, "dlms-cosem": 15}


@pytest.fixture(scope="module", params=["wrapper", "hdlc"])
def foreign_meter(request):
    from pydlms.simulator import MeterSimulator, serve

    meter = MeterSimulator(system_title=METER_TITLE, max_pdu=500)
    hdlc = request.param == "hdlc"
    found = serve(meter, hdlc=hdlc, hdlc_window=3)
    meter.port, meter.hdlc = found.server_address[1], hdlc
    yield meter
    found.shutdown()
    found.server_close()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_our_client_uses_a_foreign_meter(foreign_meter, case):
    set_up(foreign_meter, case)
    client = Client(our_settings(case), MemoryCounter(1))
    if foreign_meter.hdlc:
        link = HdlcClientLink(HdlcAddress.client(16), HdlcAddress.server(1), HdlcParameters(256, 256, 3, 3))
        wire = HdlcWire(foreign_meter.port, link)
    else:
        wire = WrapperWire(foreign_meter.port, 16)
    thing = AttributeDescriptor(1, THING, 2)
    with wire:
        wire.run(client.associate())
        assert wire.run(client.get(thing)).octets() == LONG
        wire.run(client.set(thing, axdr.octet_string(LONG[::-1])))
        assert wire.run(client.get(thing)).octets() == LONG[::-1]
        many = wire.run(client.get_many([thing, AttributeDescriptor(1, THING, 1)]))
        assert [value.octets() for value in many] == [LONG[::-1], bytes(THING)]
        echo = axdr.octet_string(b"echo")
        assert wire.run(client.action(MethodDescriptor(1, THING, 1), echo)) == echo
        wire.run(client.release())
    assert {request[0] for request in foreign_meter.requests} == TAGS[case.protection] | ASSOCIATION
    assert client.security is None or client.security.replays == 0
