"""A backup put in place by the service itself: the old state or the new one, at whatever moment the power goes."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import sqlite3
import tarfile
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest
from test_archive import CANARY, NOW, PASSPHRASE, config_of

from concentrator.archive import in_place
from concentrator.archive.backup import make_backup
from concentrator.archive.sealing import ArchiveError
from concentrator.collection.key_store import KeyStore

import web_bench
from web_bench import METERS

MOST = 10**9
NEW_KEY = bytes.fromhex("0f" * 16)


class PowerCut(BaseException):
    """No handler of the product stops it."""


@pytest.fixture
def box(tmp_path):
    """A box with a backup of it, and what has changed since: a key, a counter, the configuration."""
    state, config_file = tmp_path / "state", tmp_path / "concentrator.toml"
    web_bench.fill_store(state)
    KeyStore(state).change({METERS[0]: {"encryption_key": CANARY}})
    config_file.write_text(web_bench.config_text(state))
    backup = tmp_path / "backup"
    make_backup(config_of(config_file), config_file, backup, NOW, passphrase=PASSPHRASE, with_readings=True)
    KeyStore(state).change({METERS[0]: {"encryption_key": NEW_KEY}})
    config_file.write_text(web_bench.config_text(state, history_days=3))

    with closing(sqlite3.connect(state / "store.db")) as connection, connection:
        connection.execute("INSERT INTO invocation_counter VALUES ('key', 5000)")
    return config_file


def ready(config_file, *, with_configuration=True):
    config = config_of(config_file)
    staged = config.state_directory / in_place.ROOM / in_place.STAGED
    backup = config_file.parent / "backup"
    preview = in_place.stage(backup, staged, config, config_file, PASSPHRASE, MOST)
    in_place.make_ready(
        staged,
        given_by="a test",
        connected=["mqtt"],
        with_configuration=with_configuration,
        with_keys=preview.with_keys,
        words="restored",
    )
    return preview


def key_of(state) -> bytes:
    return KeyStore(state).key(METERS[0], "encryption_key")


def test_a_preview_tells_what_a_backup_holds(box):
    preview = ready(box)
    assert (preview.name, preview.meters, preview.with_keys, preview.with_readings) == (
        "box-7",
        4,
        True,
        True,
    )
    assert preview.readings > 100
    assert preview.configuration_problems == ()
    assert any(line.startswith("-history_days = 3") for line in preview.difference)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda octets: octets[:-300], "damaged"),
        (lambda octets: b"nothing" + octets, "no backup"),
        (lambda _octets: b"", "no backup"),
    ],
)
def test_what_is_no_backup_changes_nothing(box, change, told):
    backup = box.parent / "backup"
    backup.write_bytes(change(backup.read_bytes()))
    with pytest.raises(ArchiveError, match=told):
        ready(box)
    assert in_place.finish(box, NOW) == ""
    assert key_of(box.parent / "state") == NEW_KEY


def test_a_backup_that_unpacks_to_too_much_is_refused(box):
    config = config_of(box)
    with pytest.raises(ArchiveError, match="more than 1000 octets"):
        in_place.stage(box.parent / "backup", box.parent / "s", config, box, PASSPHRASE, 1000)


def header_of(name: str, octets: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.type = octets, kind
    return entry.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "begun",
    [
        header_of("x", 1 << 28, tarfile.XHDTYPE),
        header_of("x", 1 << 28, tarfile.GNUTYPE_LONGNAME),
        header_of("x", 1 << 42),
    ],
)
def test_an_archive_that_tells_of_gigabytes_is_refused_before_they_are_read(box, tmp_path, begun):
    bomb = tmp_path / "bomb"
    bomb.write_bytes(gzip.compress(begun + bytes(1 << 24), 1))
    tracemalloc.start()
    with pytest.raises(ArchiveError, match="is no backup"):
        in_place.stage(bomb, tmp_path / "s", config_of(box), box, PASSPHRASE, MOST)
    assert tracemalloc.get_traced_memory()[1] < 1 << 23
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["configuration.toml", "keys.sealed"])
def test_parts_that_are_read_as_a_whole_have_a_size(box, tmp_path, name):
    contents = {"configuration.toml": b"", name: bytes((64 << 20) + 1)}
    parts = {one: hashlib.sha256(content).hexdigest() for one, content in contents.items()}
    manifest = json.dumps({"format": 1, "schema": 1, "software": "x", "parts": parts}).encode()
    with tarfile.open(tmp_path / "bomb", "w:gz", compresslevel=1) as archive:
        for one, content in {"manifest.json": manifest, **contents}.items():
            entry = tarfile.TarInfo(one)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    with pytest.raises(ArchiveError, match=f"its {name} is larger than any"):
        in_place.stage(tmp_path / "bomb", tmp_path / "s", config_of(box), box, PASSPHRASE, MOST)


@pytest.mark.parametrize("changing", ["replace", "unlink", "fsync"])
def test_a_power_cut_leaves_the_old_or_goes_on_to_the_new(box, monkeypatch, changing):
    """The power goes before each single change of a file in turn, until one run meets no cut."""
    state = box.parent / "state"
    before = key_of(state)
    ready(box)
    cuts = 0
    while True:
        left = cuts

        def cut(real):
            def act(*arguments, **options):
                nonlocal left
                if left == 0:
                    raise PowerCut
                left -= 1
                return real(*arguments, **options)

            return act

        with monkeypatch.context() as patch:
            if changing == "fsync":
                patch.setattr(os, "fsync", cut(os.fsync))
            else:
                patch.setattr(Path, changing, cut(getattr(Path, changing)))
            try:
                in_place.finish(box, NOW)
            except PowerCut:
                cuts += 1
                continue
        break
    assert cuts > 0
    assert before == NEW_KEY
    assert key_of(state) == CANARY
    assert box.read_text() == web_bench.config_text(state)
    assert json.loads(box.with_name("concentrator.toml.trial").read_text())["connected_before"] == ["mqtt"]
    assert not (state / in_place.ROOM).exists()
    assert KeyStore(state / in_place.ASIDE).path.exists()
    with closing(sqlite3.connect(state / "store.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (counter,) = connection.execute(
            "SELECT reserved FROM invocation_counter WHERE name = 'key'"
        ).fetchone()
    # A counter that was used since goes on: with its key it may not come again.
    assert counter >= 5000


def test_before_it_is_ready_nothing_has_changed(box):
    config = config_of(box)
    staged = config.state_directory / in_place.ROOM / in_place.STAGED
    in_place.stage(box.parent / "backup", staged, config, box, PASSPHRASE, MOST)
    assert in_place.finish(box, NOW) == ""
    assert key_of(config.state_directory) == NEW_KEY
    assert not (config.state_directory / in_place.ROOM).exists()


def test_the_configuration_may_stay(box):
    ready(box, with_configuration=False)
    text = box.read_text()
    assert in_place.finish(box, NOW) == "restored"
    assert box.read_text() == text
    assert key_of(config_of(box).state_directory) == CANARY
