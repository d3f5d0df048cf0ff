"""Foreign head-ends at our logical devices: HLS with ECDSA, and what they see there."""

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from concentrator.dlms.codes import AuthenticationMechanism as Mechanism

from dlms_peers import METER_TITLE, Case, CaseKeys, GuruxPeer, PydlmsPeer
from dlms_wire import WrapperService
from head_end_rig import Box

pytestmark = pytest.mark.system


def box_for(directory, case):
    """A box that takes client 16 in this case, by files as an operator has them."""
    keys = CaseKeys(case)
    ours = keys.meter.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (directory / "signing.pem").write_bytes(ours)
    theirs = keys.client.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (directory / "theirs.pem").write_bytes(theirs)
    entry = {
        "client_sap": 16,
        "mechanism": "hls-ecdsa",
        "suite": case.suite,
        "role": "admin",
        "encryption_key": keys.encryption.hex(),
        "authentication_key": keys.authentication.hex(),
        "signing_key_file": "signing.pem",
        "peer_certificate_file": "theirs.pem",
    }
    return Box(directory, [entry], title=METER_TITLE)


def test_gurux_associates_by_ecdsa_and_browses(tmp_path):
    case = Case(Mechanism.HLS_ECDSA, "general-glo", 1)
    box = box_for(tmp_path, case)
    with WrapperService(box.connection()) as service, GuruxPeer(service.port, case) as peer:
        objects = peer.client.parseObjects(peer.ask(peer.client.getObjectsRequest()).data, True)
        names = {(int(entry.objectType), str(entry.logicalName)) for entry in objects}
    index = box.head_ends.clients[16].index
    assert {
        (8, "0.0.1.0.0.255"), (15, "0.0.40.0.0.255"), (15, f"0.0.40.0.{index}.255"), (64, f"0.0.43.0.{index}.255"),
        (7, "0.0.99.98.1.255"), (17, "0.0.41.0.0.255"), (1, "0.0.97.98.0.255"),
    } <= names  # fmt: skip
    assert box.devices.counters["associations"] == 1


@pytest.mark.parametrize("suite", [1, 2])
def test_pydlms_associates_by_ecdsa(tmp_path, suite):
    case = Case(Mechanism.HLS_ECDSA, "general-glo", suite)
    box = box_for(tmp_path, case)
    with WrapperService(box.connection()) as service, PydlmsPeer(service.port, case) as peer:
        assert peer.client.get("0.0.42.0.0.255", 1, 2).value.startswith(b"ODC")
        assert peer.client.get("0.0.43.0.1.255", 64, 3).value == suite
