"""`concentrator decode`: anything is recognised, explained, and what is wrong is said."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC
from hypothesis import given, settings
from hypothesis import strategies as st

from concentrator.dlms import hdlc
from concentrator.dlms.wrapper import WrapperFrame
from concentrator.inspect.command import has_error, render
from concentrator.inspect.inspector import Inspector

from dlms_vectors import load

TELEGRAMS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "wmbus" / "telegrams.jsonl"
# Not frames: a GMAC calculation, a wrapped key; and one that two libraries accept though it is cut off.
NO_FRAMES = ("hls-gmac", "key-wrap")
CUT_OFF = "conftest/global_broadcast_key@31"


def find_error(node):
    if isinstance(node, dict):
        return node.get("error") or next(
            (found for value in node.values() if (found := find_error(value))), None
        )
    if isinstance(node, list):
        return next((found for value in node if (found := find_error(value))), None)
    return None


def find(node, name):
    """The first value of a name, from the outside in."""
    if isinstance(node, dict):
        if name in node:
            return node[name]
        return next((found for value in node.values() if (found := find(value, name)) is not None), None)
    if isinstance(node, list):
        return next((found for value in node if (found := find(value, name)) is not None), None)
    return None


def inspect(vector):
    keys = vector.get("keys", {})
    names = ("ek", "ak", "system_title")
    return Inspector(*(bytes.fromhex(keys.get(name, "")) for name in names)).inspect(
        bytes.fromhex(vector["hex"])
    )


@pytest.mark.parametrize("vector", load("*"))
def test_every_public_vector_is_recognised(vector):
    if vector["kind"] in NO_FRAMES:
        return
    tree = inspect(vector)
    json.dumps(tree)
    assert render(tree)
    if "bad-fcs" in vector["kind"]:
        assert "FCS" in tree["error"]
        assert tree["fcs_ok"] is False
    elif vector["name"] == CUT_OFF:
        assert "truncated" in tree["error"]
    else:
        assert find_error(tree) is None


@pytest.mark.parametrize("vector", load("push/*", "hdlc-frame/push"))
def test_pushes_give_the_expected_fields(vector):
    tree, expected = inspect(vector), vector["expected"]
    decoded = expected.get("decoded", expected)
    for name in ("long_invoke_id", "date_time", "system_title", "invocation_counter", "security_control"):
        if decoded.get(name) is not None:
            assert find(tree, name) == decoded[name]
    if "body" in decoded:
        assert f'"apdu": "{decoded["apdu"]}"' in json.dumps(tree)


@pytest.mark.parametrize("vector", load("p1-telegram"))
def test_p1_telegrams_give_the_expected_objects(vector):
    tree, expected = inspect(vector), vector["expected"]
    assert tree["frame"] == "p1"
    assert tree["identification"] == expected["ident"]
    objects = [[one["obis"], one["values"]] for one in tree["objects"]]
    if isinstance(expected["objects"], dict):
        assert {obis: "".join(f"({value})" for value in values) for obis, values in objects} == expected[
            "objects"
        ]
    elif expected["objects"]:
        assert objects == expected["objects"]
    else:
        # Codes with a value group F (1-0:1.8.1*255), which the library that was asked passes over.
        assert all("*255" in obis for obis, _values in objects)
    if "crc" in expected:
        assert tree["crc"] == expected["crc"]
        assert tree["crc_ok"] == expected["crc_ok"]


@pytest.mark.parametrize("vector", load("mbus-frames"))
def test_pushes_in_mbus_frames_are_put_together(vector):
    tree = inspect(vector)
    assert tree["segments"] == vector["expected"]["segments"]
    if [segment["ci"] for segment in tree["segments"]] != ["00", "11"]:
        assert "decoded" not in tree, "a segment is missing in this capture"
        return
    assert tree["decoded"]["apdu"] == "general-glo-ciphering"


def test_real_radio_telegrams_give_their_meter():
    if not TELEGRAMS.exists():
        pytest.skip(f"{TELEGRAMS} is missing")
    inspector = Inspector()
    wrong = []
    for line in TELEGRAMS.read_text().splitlines():
        row = json.loads(line)
        if len(row["hex"]) % 2:
            continue
        inspector.use_keys(bytes.fromhex(row["key"]) if row["key"] and len(row["key"]) == 32 else b"")
        tree = inspector.inspect(bytes.fromhex(row["hex"]))
        if tree.get("id", "").lower() != str(row["expected"].get("id", "")).lower():
            wrong.append((row["name"], tree))
    assert not wrong


def test_modem_frames_show_message_and_apdu():
    tree = Inspector().inspect(bytes.fromhex("7E00F02D0020FD7E"))
    assert (tree["frame"], tree["message"]) == ("usi", "MLME_GET.request")
    tree = Inspector().inspect(bytes.fromhex("7E00E50D781D46F77E"))
    assert tree["protocol"] == "0x25"
    assert "0x781D" in json.dumps(tree)


def test_local_frames_of_s_fsk_modems():
    tree = Inspector().inspect(bytes.fromhex("02115124c00fff0090fd001d64000a01006d04"))
    assert (tree["frame"], tree["message"], tree["ciase"]) == ("s-fsk", "MA_Data_Request", "Discover.request")
    assert (tree["source"], tree["destination"]) == ("0xC00 initiator", "0xFFF all physical")
    tree = Inspector().inspect(bytes.fromhex("02115024005c0000901001c401c10011051e03"))
    assert (tree["message"], tree["source"]) == ("MA_Data_Indication", "0x005")
    assert "get-response" in json.dumps(tree["decoded"])
    # With another check sum it is no local frame.
    assert (
        Inspector().inspect(bytes.fromhex("02115024005c0000901001c401c10011051f03")).get("frame") != "s-fsk"
    )


WRONG_KEY = "00" * 16
PUSH = (
    "db084b464d10100000238201092100295b9aefc1546e644a2c9e32edd42cbd0f1b945b194d086885c4d8df86dd52cb5b448854a6"
)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("7ea027010201105a87e6e7000f40000000090c07e40203010f1b0cff80000002010600000038a22e7e", "FCS"),
        ("7ea027010201105a87e6e7000f4000", "truncated"),
        ("00010001000100460f", "truncated"),
        ("c0", "truncated"),
        ("fefefefe", "not recognised"),
        ("zz", "not hexadecimal"),
        ("abc", "odd number"),
        ("68050568080102030411", "cut off"),
        ("2f4b0d0a0d0a312d303a312e382e3028312a6b576829", "cut off"),
        ("2f4b0d0a0d0a312d303a312e382e3028312a6b5768290d0a21FFFF".replace("FFFF", "46464646"), "CRC"),
    ],
)
def test_what_is_wrong_is_said_and_gives_status_1(line, words, tmp_path):
    file = tmp_path / "frames"
    file.write_text(line + "\n")
    result = subprocess.run(
        [sys.executable, "-m", "concentrator", "decode", "--json", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1, result
    assert words in str(find_error(json.loads(result.stdout)))


def test_many_frames_give_one_object_a_line_in_order_with_their_own_keys():
    ciphered = "c81e302f9a8b7c1d2e3f40516273849506172839405162738495a6b7c8d9eafb"
    lines = [
        "7E00F02D0020FD7E",
        "",
        "# a comment",
        f"00 key={WRONG_KEY}g",
        f"{ciphered} key={WRONG_KEY} ak={WRONG_KEY} st=4d4d4d0000000001",
        "0f00000001000600000037",
    ]
    result = subprocess.run(
        [sys.executable, "-m", "concentrator", "decode", "--json", "-"],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=False,
    )
    usi, bad, wrong, push = (json.loads(line) for line in result.stdout.splitlines())
    assert usi["frame"] == "usi"
    assert "not hexadecimal" in bad["error"]
    assert find_error(wrong)
    assert push["apdu"] == "data-notification"
    assert result.returncode == 1
    assert WRONG_KEY not in result.stdout + result.stderr


def test_a_frame_on_the_command_line_and_octets_in_a_file(tmp_path):
    frame = "7E 00 F0 2D 00 20 FD 7E"
    result = subprocess.run(
        [sys.executable, "-m", "concentrator", "decode", frame], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0
    assert "message: MLME_GET.request" in result.stdout
    file = tmp_path / "frame.bin"
    file.write_bytes(bytes.fromhex("7ea00802232193bd647e"))
    result = subprocess.run(
        [sys.executable, "-m", "concentrator", "decode", "--json", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert json.loads(result.stdout)["frame"] == "hdlc"


def test_a_bad_key_is_told_without_being_repeated():
    result = subprocess.run(
        [sys.executable, "-m", "concentrator", "decode", "--key", "00112233xyz", "c0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "00112233" not in result.stderr


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_any_octets_give_a_tree(octets):
    tree = Inspector(bytes(16), bytes(16), bytes(8)).inspect(octets)
    json.dumps(tree)
    render(tree)


@given(st.sampled_from([0x7E, 0x68, 0x2F, 0xC4, 0xDB, 0xE0, 0x44, 0x0F, 0x61]), st.binary(max_size=120))
@settings(max_examples=300)
def test_octets_with_a_familiar_beginning_give_a_tree(first, rest):
    json.dumps(Inspector(bytes(16)).inspect(bytes((first,)) + rest))


PUSH = bytes.fromhex("0F00000001000203") + b"".join(bytes((6, 0, 0, 0, n)) for n in (1, 2, 3))


def test_what_came_before_the_error_is_shown():
    tree = Inspector().inspect(PUSH[:-3])
    assert "truncated" in tree["error"]
    assert tree["before_the_error"] == {
        "structure": [{"double-long-unsigned": 1}, {"double-long-unsigned": 2}]
    }
    nested = bytes.fromhex("C401C100 0102 0202 1101 1102 0202 1103 FE")
    tree = Inspector().inspect(nested)
    whole, part = tree["before_the_error"]["array"]
    assert whole == {"structure": [{"unsigned": 1}, {"unsigned": 2}]}
    assert part == {"structure": [{"unsigned": 3}]}
    assert "unknown data type tag" in tree["error"]


def hdlc_frame(information):
    address = hdlc.HdlcAddress.client(16), hdlc.HdlcAddress.server(1)
    return hdlc.HdlcFrame(*address, hdlc.FrameType.UI, information=b"\xe6\xe7\x00" + information).to_bytes()


def test_a_damaged_hdlc_frame_is_shown_with_its_fault():
    octets = bytearray(hdlc_frame(PUSH))
    octets[-3] ^= 1
    tree = Inspector().inspect(bytes(octets))
    assert tree["fcs_ok"] is False
    assert "FCS" in tree["error"]
    assert (tree["type"], tree["apdu"]) == ("UI", "data-notification")
    assert len(tree["body"]["structure"]) == 3
    tree = Inspector().inspect(hdlc_frame(PUSH)[:-8])
    assert "truncated" in tree["error"]
    assert tree["before_the_error"]["structure"][0] == {"double-long-unsigned": 1}
    two = hdlc_frame(PUSH) + hdlc_frame(PUSH)[1:9]
    assert "cut off" in find_error(Inspector().inspect(two))


def test_a_cut_wrapper_and_a_cut_envelope_tell_their_headers():
    ciphered = b"\xdb\x08ODC00001\x1e\x30\x00\x00\x00\x07" + bytes(25)
    tree = Inspector().inspect(WrapperFrame(1, 16, ciphered).to_bytes()[:-4])
    assert (tree["source_wport"], tree["destination_wport"], tree["length"]) == (1, 16, len(ciphered))
    assert tree["system_title"] == b"ODC00001".hex()
    assert (tree["security_control"], tree["invocation_counter"]) == ("30", 7)
    assert "truncated" in tree["error"]


def test_octets_without_a_manufacturer_are_no_radio_telegram():
    octets = bytes((0x0F, 0x00, 0x00, 0x01)) + bytes(12)
    assert Inspector().inspect(octets).get("frame") != "wmbus"


def run_lines(octets):
    result = subprocess.run(
        [sys.executable, "-m", "concentrator", "decode", "--json", "-"],
        input=octets, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    return [json.loads(line, parse_constant=pytest.fail) for line in result.stdout.splitlines()]


@pytest.mark.parametrize(
    ("lines", "count"),
    [
        (b"c401c100110a\nz\xc3\xa9\nc401c100110b\n", 3),
        (b"\xef\xbb\xbfc401c100110a\nc401c100110b\n", 2),
        (b"z\xc3\xa9\nc401c100110b\n", 2),
        (b"# a comment\n\nc401c100110b\n", 1),
        (b"c401c1000c02ff41\nc401c100110a\n", 2),
        (b"177fc00000\n177f800000\n", 2),
    ],
)
def test_every_line_has_its_object_and_every_object_is_json(lines, count):
    assert len(run_lines(lines)) == count


def test_octets_and_p1_telegrams_are_taken_from_a_pipe_as_they_are():
    assert run_lines(bytes.fromhex("c401c100110a"))[0]["apdu"] == "get-response"
    assert run_lines(b"/ISk5\\2MT382-1000\r\n\r\n1-0:1.8.1(000001.000*kWh)\r\n!\r\n")[0]["frame"] == "p1"


def test_blocks_of_a_service_are_put_together_over_frames():
    inspector = Inspector()
    first = inspector.inspect(bytes.fromhex("c402c1000000000100040908 0102"))
    assert "decoded" not in first
    last = inspector.inspect(bytes.fromhex("c402c101000000020006030405060708"))
    assert last["decoded"]["octet-string"] == "0102030405060708"
    inspector.inspect(bytes.fromhex("c402c1000000000100040908 0102"))
    lost = inspector.inspect(bytes.fromhex("c402c101000000030006030405060708"))
    assert lost["error"] == "block 2 is missing before this one"


def test_a_lost_general_block_is_told():
    inspector = Inspector()
    inspector.inspect(bytes.fromhex("e0000001000003c40100"))
    tree = inspector.inspect(bytes.fromhex("e080000300000 2110a".replace(" ", "")))
    assert tree["error"] == "block 2 is missing before this one"


def test_a_wrong_key_without_a_tag_shows_in_what_it_gives():
    line = bytes.fromhex("cc0b2000000005385acaf3c846")
    tree = Inspector(bytes.fromhex("11" * 16), b"", bytes.fromhex("4f44434d45544552")).inspect(line)
    assert "wrong key" in find_error(tree)


def test_what_follows_a_wrapper_frame_is_told():
    whole = WrapperFrame(1, 16, bytes.fromhex("c401c100110a")).to_bytes()
    tree = Inspector().inspect(whole + whole[:10])
    assert "cut off" in find_error(tree)
    tree = Inspector().inspect(whole + bytes.fromhex("deadbeef"))
    assert tree["trailing"] == "deadbeef"
    tree = Inspector().inspect(whole + bytes.fromhex("deadbeef" * 4))
    assert tree["frames"][0]["value"] == {"unsigned": 10}
    assert "version" in find_error(tree)


def test_a_time_keeps_its_octets_and_hundredths():
    value = Inspector().inspect(bytes.fromhex("c401c1001b0c1e0032"))["value"]
    assert value["time"] == "0c1e0032"
    assert value["shown"].endswith("12:30:00.50")


METER_KEY = bytes(range(16))
# Manufacturer, identification, version and device type of ELS-12345678-33-03, as a link layer sends them.
LINK_ADDRESS = bytes.fromhex("9315785634123303")
REGISTERS = bytes.fromhex("0F00000001000203090601000108 00FF 0600001234 1205DC")


def cmac(key, data):
    mac = CMAC(algorithms.AES(key))
    mac.update(data)
    return mac.finalize()


def cbc(key, vector, plain):
    encryptor = Cipher(algorithms.AES(key), modes.CBC(vector)).encryptor()
    return encryptor.update(plain) + encryptor.finalize()


def radio_telegram(payload):
    content = b"\x44" + LINK_ADDRESS + payload
    return bytes((len(content),)) + content


def filled(plain):
    plain = b"\x2f\x2f" + plain
    return plain + b"\x2f" * (-len(plain) % 16)


def in_mode_5(ci, apdu):
    plain = filled(apdu)
    own_address = LINK_ADDRESS[2:6] + LINK_ADDRESS[:2] + LINK_ADDRESS[6:]
    header = own_address if ci in (0x7C, 0x60) else b""
    configuration = (5 << 8 | len(plain) // 16 << 4).to_bytes(2, "little")
    sealed = cbc(METER_KEY, LINK_ADDRESS + b"\x75" * 8, plain)
    return radio_telegram(bytes((ci,)) + header + b"\x75\0" + configuration + sealed)


def in_mode_7(ci, data, counter, fragments=1):
    """The telegrams of one message of mode 7 with the MAC in its AFL, in fragments."""
    mcr, identification = counter.to_bytes(4, "little"), LINK_ADDRESS[2:6]
    encryption, authentication = (
        cmac(METER_KEY, constant + mcr + identification + b"\x07" * 7) for constant in (b"\0", b"\1")
    )
    plain = filled(data)
    configuration = (7 << 8 | len(plain) // 16 << 4).to_bytes(2, "little") + b"\x10"
    message = bytes((ci,)) + b"\x75\0" + configuration + cbc(encryption, bytes(16), plain)
    fields = b"\x25" + mcr
    if fragments > 1:
        fields = b"\x65" + mcr + len(message).to_bytes(2, "little")
    mac = cmac(authentication, fields + message)[:8]
    size = -(-len(message) // fragments)
    for number in range(1, fragments + 1):
        first, last = number == 1, number == fragments
        control = 0x2800 * first | 0x0400 * last
        if fragments > 1:
            control |= number | 0x4000 * (not last) | 0x1000 * first
        afl = control.to_bytes(2, "little") + fields * first + mac * last
        part = message[size * (number - 1) : size * number]
        yield radio_telegram(b"\x90" + bytes((len(afl),)) + afl + part)


@pytest.mark.parametrize("ends_with", [b"", b"\x2f"])
@pytest.mark.parametrize("ci", [0x7D, 0x7C, 0x61, 0x60])
def test_dlms_in_an_encrypted_radio_telegram_is_decoded(ci, ends_with):
    apdu = REGISTERS[:-1] + ends_with if ends_with else REGISTERS
    trees = [Inspector(METER_KEY).inspect(in_mode_5(ci, apdu))]
    if ci in (0x7D, 0x61):
        trees += [Inspector(METER_KEY).inspect(one) for one in in_mode_7(ci, apdu, 5)]
    for tree in trees:
        assert tree["security"]["state"] == "decoded"
        assert tree["decoded"] == Inspector().inspect(apdu)
        assert not has_error(tree)
        assert len(tree["decoded"]["body"]["structure"]) == 3


def test_fragments_of_a_message_are_put_together():
    records = b"".join(bytes((0x0C, 0x14, volume, 0, 0, 0)) for volume in range(30))
    *first, last = in_mode_7(0x7A, records, 77, fragments=3)
    inspector = Inspector(METER_KEY)
    for octets in first:
        tree = inspector.inspect(octets)
        assert (tree["security"]["state"], tree["records"]) == ("incomplete", [])
        assert not has_error(tree)
    whole = inspector.inspect(last)
    assert (whole["security"]["state"], len(whole["records"])) == ("decoded", 30)
    assert "note" not in whole
    assert "others did not come" in Inspector(METER_KEY).inspect(last)["error"]


def test_a_replay_is_told_and_its_records_are_shown():
    inspector = Inspector(METER_KEY)
    notes = []
    for counter in (8, 9, 9, 8, 10):
        (octets,) = in_mode_7(0x7A, bytes.fromhex("0C1427048502"), counter)
        tree = inspector.inspect(octets)
        assert len(tree["records"]) == 1
        notes.append(tree.get("note"))
    assert [note is not None and note.startswith("replay") for note in notes] == [0, 0, 1, 1, 0]
