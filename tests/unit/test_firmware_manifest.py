"""Manifests of firmware images: only what a trusted key has signed, and only what makes sense."""

from __future__ import annotations

import json
from dataclasses import replace

import firmware_rig
import pytest
from hypothesis import given
from hypothesis import strategies as st

from concentrator.collection.firmware.errors import FirmwareImageError
from concentrator.collection.firmware.manifest import (
    FORMAT,
    Manifest,
    TrustedKeys,
    load_private_key,
    load_public_key,
    load_signed_image,
    signature_path,
)

GOOD = firmware_rig.manifest_of(b"ODC image")
TEXT = st.text(min_size=1, max_size=64).filter(lambda text: text.isprintable() and text == text.strip())


@given(
    TEXT,
    TEXT,
    st.lists(TEXT, min_size=1, max_size=5),
    st.binary(min_size=1, max_size=64),
    st.integers(1, 2**24),
)
def test_what_is_written_is_read(manufacturer, model, versions, identifier, size):
    manifest = replace(
        GOOD,
        manufacturer=manufacturer,
        model=model,
        from_versions=tuple(f"{one[:60]}-old" for one in versions),
        image_identifier=identifier.hex(),
        size=size,
    )
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


@given(
    st.binary(max_size=300)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(lambda value: json.dumps(value).encode())
)
def test_anything_else_is_refused_by_its_one_error(octets):
    with pytest.raises(FirmwareImageError):
        Manifest.from_bytes(octets)


@given(
    st.sampled_from(sorted(json.loads(GOOD.to_bytes()))),
    st.none()
    | st.integers(-5, 2**40)
    | st.text(max_size=5)
    | st.lists(st.integers())
    | st.floats(allow_nan=False),
)
def test_a_field_that_is_wrong_is_refused_or_makes_another_good_manifest(name, value):
    fields = {**json.loads(GOOD.to_bytes()), name: value}
    try:
        manifest = Manifest.from_bytes(json.dumps(fields).encode())
    except FirmwareImageError:
        return
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"file": "../../etc/passwd"}, "file: got '../../etc/passwd'"),
        ({"from_versions": ()}, "from_versions"),
        ({"to_version": firmware_rig.OLD}, "is among from_versions"),
        ({"sha256": "00"}, "sha256"),
        ({"size": 2**30}, "size"),
        ({"image_identifier": ""}, "image_identifier"),
        ({"image_identifier": "zz"}, "image_identifier"),
    ],
)
def test_what_makes_no_sense_is_named(changes, words):
    with pytest.raises(FirmwareImageError, match=words):
        replace(GOOD, **changes)


def test_unknown_fields_and_other_formats_are_refused():
    fields = json.loads(GOOD.to_bytes())
    for changed, words in (({"colour": "red"}, "unknown field"), ({"format": FORMAT + "0"}, "format")):
        with pytest.raises(FirmwareImageError, match=words):
            Manifest.from_bytes(json.dumps({**fields, **changed}).encode())


@given(st.integers(0, 63), st.integers(1, 255))
def test_no_other_signature_holds(index, bits):
    key = firmware_rig.Ed25519PrivateKey.generate()
    content = GOOD.to_bytes()
    signature = bytearray(key.sign(content))
    trusted = TrustedKeys([key.public_key()])
    assert trusted.signer(content, bytes(signature))
    signature[index] ^= bits
    with pytest.raises(FirmwareImageError, match="none of the trusted keys"):
        trusted.signer(content, bytes(signature))
    with pytest.raises(FirmwareImageError, match="none of the trusted keys"):
        trusted.signer(content + b" ", key.sign(content))


def test_keys_that_are_none_are_named_and_never_shown(tmp_path):
    key = firmware_rig.make_key(tmp_path)
    firmware_rig.release(tmp_path / "images", key)
    path = tmp_path / "images" / firmware_rig.NAME
    assert (
        load_signed_image(path, TrustedKeys.load([tmp_path / "release.pub"])).manifest.to_version
        == firmware_rig.NEW
    )
    with pytest.raises(FirmwareImageError, match="no key is trusted"):
        load_signed_image(path, TrustedKeys.load([]))
    for load, name in ((load_public_key, "release.pem"), (load_private_key, "release.pub")):
        with pytest.raises(FirmwareImageError, match="no Ed25519") as raised:
            load(tmp_path / name)
        assert (tmp_path / name).read_text().splitlines()[1] not in str(raised.value)
    signature_path(path).write_bytes(b"short")
    with pytest.raises(FirmwareImageError, match="got 5 octets"):
        load_signed_image(path, TrustedKeys.load([tmp_path / "release.pub"]))


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (("ODC", "simulated", firmware_rig.OLD), ""),
        (("XXX", "simulated", firmware_rig.OLD), "its manufacturer is XXX"),
        (("ODC", "", firmware_rig.OLD), "its model is not known"),
        (("ODC", "simulated", "0.1"), "its firmware is 0.1"),
        (("ODC", "simulated", firmware_rig.NEW), "it has ODC-SIM 2.0 already"),
    ],
)
def test_which_meter_it_is_for(told, words):
    assert GOOD.misfit(*told).startswith(words)
    assert bool(GOOD.misfit(*told)) == bool(words)
