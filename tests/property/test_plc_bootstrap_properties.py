"""EAP-PSK of the host against the simulated device's own, and decoders that take anything."""

from __future__ import annotations

import contextlib
import random

from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.cmac import CMAC
from hypothesis import given
from hypothesis import strategies as st

from concentrator.links.aes import aes
from concentrator.simulator.g3_device import BootstrapDevice, derive_keys, eax
from plc.errors import MessageError
from plc.g3 import bootstrap, eap_psk, lbp
from plc.g3.bootstrap import BootstrapServer
from plc.g3.ciphers import cmac, eax_decrypt, eax_encrypt

KEY = st.binary(min_size=16, max_size=16)
EUI = st.binary(min_size=8, max_size=8)
FRAMES = st.one_of(
    st.binary(max_size=80),
    st.builds(
        lambda kind, eui, data: bytes([kind << 4, 0]) + eui + data,
        st.integers(0, 15), st.sampled_from([bytes(8), b"12345678"]), st.binary(max_size=70),
    ),
)  # fmt: skip


@given(KEY, st.binary(max_size=100))
def test_cmac_is_the_librarys(key, message):
    calculation = CMAC(algorithms.AES(key))
    calculation.update(message)
    assert cmac(aes(key), message) == calculation.finalize()


@given(KEY, KEY, st.binary(max_size=30), st.binary(max_size=70))
def test_eax_is_the_devices(key, nonce, header, data):
    ciphertext, tag = eax_encrypt(aes(key), nonce, header, data)
    assert (ciphertext, tag) == eax(key, nonce, header, data, seal=True)
    assert eax(key, nonce, header, ciphertext, seal=False) == (data, tag)
    assert eax_decrypt(aes(key), nonce, header, ciphertext, tag) == data


@given(KEY)
def test_keys_are_the_devices(psk):
    keys = eap_psk.Keys(aes, psk)
    assert (keys.authentication_key, keys.key_derivation_key) == derive_keys(psk)


@given(KEY, KEY, EUI, EUI, st.integers(1, 0x7FFF), st.sampled_from([0, 1]), st.integers(0, 2**32))
def test_device_and_server_agree(psk, gmk, eui64, id_s, address, index, seed):
    draws = random.Random(seed)
    device = BootstrapDevice(eui64, psk, draws)
    server = BootstrapServer(aes, draws.randbytes, lambda _: address, id_s, gmk, index, psk)
    frame = device.first_joining()
    while frame is not None:
        server.receive_frame(0, frame, 0.0)
        request = server.next_request()
        frame = device.receive_frame(request.frame)
    server.confirm(request.handle, True, 0.0)
    assert server.next_outcome().kind == bootstrap.JOINED
    assert (device.short_address, device.group_keys, device.active_index) == (address, {index: gmk}, index)


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), FRAMES), max_size=30), st.booleans())
def test_nothing_that_comes_breaks_the_server(frames, rotating):
    server = BootstrapServer(aes, bytes, lambda _: 7, bytes(8), bytes(16), psk=bytes(16))
    if rotating:
        server.start_rotation(bytes(16), [(b"12345678", 7)], 0.0)
    now = 0.0
    for source, frame in frames:
        server.receive_frame(source, frame, now)
        while (request := server.next_request()) is not None:
            server.confirm(request.handle, frame[-1:] < b"\x80", now)
        now += 10.0
        server.handle_timeout(now)
    while (due := server.next_timeout()) is not None:
        server.handle_timeout(due)
    assert len(server._slots) == 0


@given(st.binary(max_size=60))
def test_decoders_take_anything(octets):
    for decode in (lbp.decode_frame, lbp.decode_parameters, eap_psk.decode_packet):
        with contextlib.suppress(MessageError):
            decode(octets)


@given(st.integers(0, 15), EUI, st.binary(max_size=40), st.booleans(), st.booleans(), st.integers(0, 255))
def test_frames_round_trip(kind, eui64, data, media, backup, transaction):
    frame = lbp.Frame(kind, eui64, data, int(media), backup, transaction)
    again = lbp.decode_frame(frame.to_bytes())
    assert again.to_bytes() == frame.to_bytes()
    assert (again.kind, again.eui64, again.data) == (kind, eui64, data)
