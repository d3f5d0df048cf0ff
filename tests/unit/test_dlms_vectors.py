"""Real captures and published examples decode as expected, and encode back to the same octets."""

import pytest

from concentrator.dlms import apdu, axdr, hdlc
from concentrator.dlms.apdu.notification import DataNotification
from concentrator.dlms.apdu.protection import GeneralBlockTransfer, GeneralCiphered, ServiceCiphered
from concentrator.dlms.authentication import gmac
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.errors import DecodeError
from concentrator.dlms.gbt import BlockTransfer
from concentrator.dlms.security import SecurityControl, unprotect, unwrap_key, wrap_key
from concentrator.dlms.wrapper import WrapperDecoder, WrapperFrame

from dlms_vectors import load

# Two vectors are pieces of test code, not APDUs: a key that happens to start with 0F, and lists with
# octets behind their end.
NOT_APDUS = {
    "conftest/global_broadcast_key@31",
    "test_get/test_get_with_list@146",
    "test_get/test_get_response_with_list@519",
}


def tree(data):
    """A value in the form of the vectors."""
    label = data.type.label
    value = data.value
    if isinstance(value, bytes):
        value = value.hex()
    elif isinstance(value, axdr.CompactArray):
        value = [tree(item) for item in value.items]
    elif isinstance(value, tuple):
        value = [tree(item) for item in value]
    return {label: value}


def check_notification(plain, expected):
    decoded = apdu.decode(plain)
    assert isinstance(decoded, DataNotification)
    assert f"{decoded.long_invoke:08x}" == expected["long_invoke_id"]
    if expected.get("date_time"):
        assert decoded.date_time.hex() == expected["date_time"]
    if fields := expected.get("date_time_fields"):
        clock = CosemDateTime.from_bytes(decoded.date_time)
        deviation = None if clock.deviation == -0x8000 else clock.deviation
        assert (clock.year, clock.month, clock.day, clock.weekday) == (
            fields["year"], fields["month"], fields["day"], fields["weekday"],
        )  # fmt: skip
        assert (clock.hour, clock.minute, clock.second, clock.hundredths) == (
            fields["hour"], fields["minute"], fields["second"], fields["hundredths"],
        )  # fmt: skip
        assert (deviation, clock.status) == (fields["deviation_min"], fields["status"])
    assert tree(decoded.body) == expected["body"]
    if "quirk" not in expected:
        assert decoded.to_bytes() == plain


def apdus_of_stream(stream):
    """The APDUs that a pushing meter sent as HDLC frames, with segments and blocks put together."""
    decoder, segments, blocks = hdlc.HdlcDecoder(), hdlc.Reassembler(), BlockTransfer()
    decoder.receive_data(stream)
    frames, found = 0, []
    while frame := decoder.next_event():
        frames += 1
        whole = segments.receive_frame(frame)
        if whole is None:
            continue
        decoded = apdu.decode(whole)
        if isinstance(decoded, GeneralBlockTransfer):
            _, whole = blocks.receive_block(decoded)
            if whole is None:
                continue
        found.append(whole)
    return decoder, frames, found


@pytest.mark.parametrize("vector", load("apdu/*"))
def test_apdu_decodes_and_encodes_back(vector):
    octets = bytes.fromhex(vector["hex"])
    if vector["name"] in NOT_APDUS:
        with pytest.raises(DecodeError):
            apdu.decode(octets)
        return
    decoded = apdu.decode(octets)
    name = apdu.name_of(octets[0])
    assert name == vector["expected"]["apdu"] or name.startswith(vector["expected"]["apdu"])
    assert decoded.to_bytes() == octets


@pytest.mark.parametrize("vector", load("axdr-data"))
def test_data(vector):
    octets = bytes.fromhex(vector["hex"])
    assert tree(axdr.decode(octets)) == vector["expected"]
    assert axdr.decode(octets).to_bytes() == octets


@pytest.mark.parametrize("vector", load("push/apdu"))
def test_pushed_apdu(vector):
    check_notification(bytes.fromhex(vector["hex"]), vector["expected"])


@pytest.mark.parametrize("vector", load("push/llc+apdu"))
def test_pushed_apdu_behind_llc(vector):
    octets = bytes.fromhex(vector["hex"])
    assert octets[:3] == hdlc.LLC_RESPONSE
    check_notification(octets[3:], vector["expected"])


@pytest.mark.parametrize(
    "vector",
    load("push/hdlc", "push/hdlc+gbt", "push/hdlc+gbt+ciphered", "push/hdlc-segmented", "hdlc-frame/push"),
)
def test_pushed_frames(vector):
    expected = vector["expected"]
    decoder, frames, found = apdus_of_stream(bytes.fromhex(vector["hex"]))
    assert frames == expected.get("frames", 1)
    assert decoder.bad_frames == 0
    if expected.get("gbt"):
        # Where only one block of several was captured, nothing is complete.
        frame = hdlc.HdlcFrame.from_bytes(bytes.fromhex(vector["hex"])) if frames == 1 else None
        block = frame and apdu.decode(frame.information.removeprefix(hdlc.LLC_RESPONSE)).block
        assert (found[0] if found else block).hex() == expected["apdu"]
        return
    assert len(found) == 1
    plain = found[0]
    if "system_title" in expected:
        ciphered = apdu.decode(plain)
        assert isinstance(ciphered, GeneralCiphered)
        assert ciphered.system_title.hex() == expected["system_title"]
        assert f"{ciphered.content[0]:02x}" == expected["security_control"]
        assert int.from_bytes(ciphered.content[1:5], "big") == expected["invocation_counter"]
        if "keys" not in vector:
            return
        plain = unprotect(bytes.fromhex(vector["keys"]["ek"]), b"", ciphered.system_title, ciphered.content)
        assert plain.hex() == expected["plain_apdu"]
    check_notification(plain, expected["decoded"])


@pytest.mark.parametrize("vector", load("push/hdlc-ciphered-header"))
def test_ciphered_push_without_key(vector):
    expected = vector["expected"]
    _, _, found = apdus_of_stream(bytes.fromhex(vector["hex"]))
    ciphered = apdu.decode(found[0])
    assert ciphered.system_title.hex() == expected["system_title"]
    assert len(ciphered.content) == expected["length"]
    assert f"{ciphered.content[0]:02x}" == expected["security_control"]
    assert int.from_bytes(ciphered.content[1:5], "big") == expected["invocation_counter"]


@pytest.mark.parametrize("vector", load("push/general-glo-ciphering"))
def test_encrypted_only_push(vector):
    ciphered = apdu.decode(bytes.fromhex(vector["hex"]))
    plain = unprotect(bytes.fromhex(vector["keys"]["ek"]), b"", ciphered.system_title, ciphered.content)
    assert plain.hex() == vector["expected"]["plain_apdu"]


@pytest.mark.parametrize("vector", load("hdlc-frame", "hdlc-frame/push", "hdlc-frame/session"))
def test_frame(vector):
    octets = bytes.fromhex(vector["hex"])
    expected = vector["expected"].get("frame", vector["expected"])
    frame = hdlc.HdlcFrame.from_bytes(octets)
    assert len(octets) - 2 == expected["length"]
    assert frame.segmented == expected["segmented"]
    assert frame.destination.to_bytes().hex() == expected["dest"]
    assert frame.source.to_bytes().hex() == expected["src"]
    assert f"{frame.control:02x}" == expected["control"]
    if "info" in expected:
        assert frame.information.hex() == expected["info"]
    assert frame.to_bytes() == octets


@pytest.mark.parametrize("vector", load("hdlc-capture/bad-fcs"))
def test_capture_with_bad_fcs(vector):
    decoder = hdlc.HdlcDecoder()
    decoder.receive_data(bytes.fromhex(vector["hex"]))
    good = 0
    while decoder.next_event():
        good += 1
    assert good == sum(vector["expected"]["fcs_ok"])
    assert decoder.bad_frames >= 1


@pytest.mark.parametrize("vector", load("ciphered/glo"))
def test_service_specific_ciphering(vector):
    keys = {name: bytes.fromhex(value) for name, value in vector["keys"].items()}
    ciphered = apdu.decode(bytes.fromhex(vector["hex"]))
    assert isinstance(ciphered, ServiceCiphered)
    assert f"{ciphered.content[0]:02x}" == vector["expected"]["security_control"]
    assert (
        ciphered.content[0] & SecurityControl.AUTHENTICATED or ciphered.content[0] & SecurityControl.ENCRYPTED
    )
    plain = unprotect(keys["ek"], keys.get("ak", b""), keys["system_title"], ciphered.content)
    assert plain.hex() == vector["expected"]["plain"]


@pytest.mark.parametrize("vector", load("general-ciphering"))
def test_general_ciphering_header(vector):
    decoded = apdu.decode(bytes.fromhex(vector["hex"]))
    expected = vector["expected"]
    assert decoded.transaction_id.hex() == expected["transaction_id"]
    assert decoded.originator_system_title.hex() == expected["originator"]
    assert decoded.recipient_system_title.hex() == expected["recipient"]
    assert decoded.key_info.kind == 2
    assert len(decoded.key_info.data) == expected["key_ciphered_data_len"]
    assert f"{decoded.content[0]:02x}" == expected["security_control"]
    assert decoded.to_bytes().hex() == vector["hex"]


@pytest.mark.parametrize("vector", load("hls-gmac"))
def test_hls_gmac(vector):
    expected, keys = vector["expected"], vector["keys"]
    title = expected.get("client_system_title") or expected["server_system_title"]
    answer = gmac(
        bytes.fromhex(keys["ek"]),
        bytes.fromhex(keys["ak"]),
        bytes.fromhex(title),
        0,
        expected["invocation_counter"],
        bytes.fromhex(expected["challenge"]),
    )
    assert answer.hex() == vector["hex"]


@pytest.mark.parametrize("vector", load("key-wrap"))
def test_key_wrap(vector):
    kek, plain = bytes.fromhex(vector["keys"]["kek"]), bytes.fromhex(vector["expected"]["unwrapped"])
    assert unwrap_key(kek, bytes.fromhex(vector["hex"])) == plain
    assert wrap_key(kek, plain).hex() == vector["hex"]


@pytest.mark.parametrize("vector", load("wrapper-frame"))
def test_wrapper(vector):
    octets, expected = bytes.fromhex(vector["hex"]), vector["expected"]
    frame = WrapperFrame.from_bytes(octets)
    assert (frame.source, frame.destination) == (expected["src_wport"], expected["dst_wport"])
    assert frame.apdu.hex() == expected["apdu"]
    assert frame.to_bytes() == octets
    decoder = WrapperDecoder()
    events = []
    for octet in octets * 2:
        decoder.receive_data(bytes((octet,)))
        while event := decoder.next_event():
            events.append(event)
    assert events == [frame, frame]
    ciphered = apdu.decode(frame.apdu)
    keys = vector["keys"]
    plain = unprotect(
        bytes.fromhex(keys["ek"]), bytes.fromhex(keys["ak"]), ciphered.system_title, ciphered.content
    )
    assert plain[0] in (0x0F, 0xC0, 0xC4)
