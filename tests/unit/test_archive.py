"""The box as a file: nothing secret in a bundle, everything back from a backup, nothing left after a reset."""

from __future__ import annotations

import base64
import io
import json
import socket
import sqlite3
import tarfile
import time
from contextlib import closing
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from concentrator.archive import support_bundle
from concentrator.archive.backup import factory_reset, make_backup, restore
from concentrator.archive.sealing import ArchiveError, seal, unseal
from concentrator.cli import main
from concentrator.collection.key_store import KeyStore
from concentrator.config import load_config

import web_bench
from web_bench import METERS, FakeService

CANARY = bytes.fromhex("c0ffee00c0ffee11c0ffee22c0ffee33")
PASSPHRASE = "correct horse battery staple"
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.fixture
def box(tmp_path):
    """A state directory with readings, a key and a configuration."""
    state = tmp_path / "state"
    web_bench.fill_store(state)
    KeyStore(state).change({METERS[0]: {"encryption_key": CANARY}})
    config_file = tmp_path / "concentrator.toml"
    config_file.write_text(web_bench.config_text(state))
    return config_file


def config_of(config_file):
    return load_config(config_file, ports_exist=False)


def parts_of(content):
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {name: archive.extractfile(name).read() for name in archive.getnames()}


def secrets_in(octets: bytes) -> list[bytes]:
    forms = (CANARY, CANARY.hex().encode(), CANARY.hex().upper().encode(), base64.b64encode(CANARY))
    return [form for form in forms if form in octets]


def count(path, table):
    with closing(sqlite3.connect(path)) as connection:
        (found,) = connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()  # noqa: S608 - our names
    return found


def backup_of(box, target, **options):
    options = {"passphrase": PASSPHRASE, "with_readings": True, **options}
    return make_backup(config_of(box), box, target, NOW, **options)


def wait_for(path):
    """Until somebody listens on a socket: its file is there a moment earlier."""
    deadline = time.monotonic() + 5
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                return probe.connect(str(path))
            except ConnectionRefusedError:
                assert time.monotonic() < deadline


# Support bundle


async def test_a_bundle_has_the_facts_and_no_secret(box):
    status = web_bench.status() | {"password": "hunter2-hunter2", "deep": [{"api_key": CANARY.hex()}]}
    lines = ["event=connected url=https://user:hunter2-hunter2@host/", "event=late"]
    parts = parts_of(await support_bundle.make_bundle(config_of(box), status, lines, NOW))
    assert set(parts) == {
        f"support/{name}"
        for name in (
            "manifest.json",
            "configuration.json",
            "status.json",
            "log.txt",
            "board.json",
            "store.json",
            "events.txt",
        )
    }
    store = json.loads(parts["support/store.json"])
    assert store["check"] == ["ok"]
    assert store["rows"]["meter"] == 4
    assert "store_set_aside" in parts["support/events.txt"].decode()
    assert "event=late" in parts["support/log.txt"].decode()
    everything = b"".join(parts.values())
    assert secrets_in(everything) == []
    assert b"hunter2" not in everything


async def test_a_bundle_is_bounded_and_keeps_the_newest(box, monkeypatch):
    monkeypatch.setattr(support_bundle, "_LARGEST_PART_OCTETS", 1000)
    parts = parts_of(
        await support_bundle.make_bundle(config_of(box), None, [f"line {n}" for n in range(9999)], NOW)
    )
    assert max(map(len, parts.values())) <= 1000
    assert parts["support/log.txt"].endswith(b"line 9998\n")


def test_the_command_makes_a_bundle_without_the_service(box, tmp_path):
    target = tmp_path / "bundle.tar.gz"
    result = CliRunner().invoke(main, ["support-bundle", "--config", str(box), str(target)])
    assert result.exit_code == 0, result.output
    assert target.stat().st_mode & 0o777 == 0o600
    assert b"did not run" in parts_of(target.read_bytes())["support/status.json"]


# Backup and restore


def test_a_backup_brings_everything_back_elsewhere(box, tmp_path):
    target = tmp_path / "box.backup"
    readings = count(tmp_path / "state/store.db", "reading")
    backup_of(box, target)
    assert target.stat().st_mode & 0o777 == 0o600
    assert secrets_in(b"".join(parts_of(target.read_bytes()).values())) == []
    (tmp_path / "state").rename(tmp_path / "gone")
    box.unlink()
    config = restore(target, box, NOW, passphrase=PASSPHRASE, force=False)
    assert count(config.store_file, "reading") == readings > 300
    assert KeyStore(config.state_directory).key(METERS[0], "encryption_key") == CANARY
    assert config_of(box) == config
    assert [path.name for path in tmp_path.glob(".restore-*")] == []


def test_a_backup_without_readings_keeps_the_rest(box, tmp_path):
    backup_of(box, tmp_path / "box.backup", with_readings=False)
    config = restore(tmp_path / "box.backup", box, NOW, passphrase=PASSPHRASE, force=True)
    old = next(tmp_path.glob("state.before-*")) / "store.db"
    assert count(config.store_file, "reading") == 0
    for table in ("meter", "channel", "destination", "event", "sqlite_sequence"):
        assert count(config.store_file, table) == count(old, table), table
    with closing(sqlite3.connect(config.store_file)) as new, closing(sqlite3.connect(old)) as before:
        for pragma in ("user_version", "application_id"):
            assert new.execute(f"PRAGMA {pragma}").fetchone() == before.execute(f"PRAGMA {pragma}").fetchone()
        assert new.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_backup_without_keys_has_none_and_needs_no_passphrase(box, tmp_path):
    backup_of(box, tmp_path / "box.backup", passphrase=None)
    assert "keys.sealed" not in parts_of((tmp_path / "box.backup").read_bytes())
    config = restore(tmp_path / "box.backup", box, NOW, passphrase=None, force=True)
    assert not (config.state_directory / "machine_secret").exists()


def test_nothing_is_restored_over_what_is_there(box, tmp_path):
    backup_of(box, tmp_path / "box.backup")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(ArchiveError, match="is there already"):
        restore(tmp_path / "box.backup", box, NOW, passphrase=PASSPHRASE, force=False)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("harm", ["passphrase", "flipped", "cut", "newer", "other", "part"])
def test_a_backup_that_is_wrong_changes_nothing(box, tmp_path, harm):
    target = tmp_path / "box.backup"
    backup_of(box, target)
    content = bytearray(target.read_bytes())
    parts = parts_of(bytes(content))
    passphrase = "another passphrase" if harm == "passphrase" else PASSPHRASE
    if harm == "flipped":
        parts["store.db"] = bytes(
            [*parts["store.db"][:5000], 1 ^ parts["store.db"][5000], *parts["store.db"][5001:]]
        )
    manifest = json.loads(parts["manifest.json"])
    if harm == "newer":
        manifest["schema"] = 10_000
    if harm == "part":
        manifest["parts"]["../escaped"] = "00"
        parts["../escaped"] = b"x"
    parts["manifest.json"] = json.dumps(manifest).encode()
    with tarfile.open(target, "w:gz") as archive:
        for name, octets in parts.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(octets)
            archive.addfile(entry, io.BytesIO(octets))
    if harm == "cut":
        target.write_bytes(content[: len(content) // 2])
    if harm == "other":
        target.write_bytes(b"no archive at all")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(ArchiveError):
        restore(target, box, NOW, passphrase=passphrase, force=True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_sealing_is_bound_to_its_passphrase():
    sealed = seal(CANARY, PASSPHRASE)
    assert secrets_in(sealed) == []
    assert unseal(sealed, PASSPHRASE) == CANARY
    with pytest.raises(ArchiveError, match="12 or more"):
        seal(CANARY, "short")
    for cut in (0, 10, 30):
        with pytest.raises(ArchiveError):
            unseal(sealed[:cut], PASSPHRASE)


def test_the_commands_save_and_restore(box, tmp_path):
    secret = tmp_path / "passphrase"
    secret.write_text(PASSPHRASE + "\n")
    options = ["--config", str(box), "--passphrase-file", str(secret), str(tmp_path / "box.backup")]
    saved = CliRunner().invoke(main, ["backup", "--with-readings", *options])
    assert saved.exit_code == 0, saved.output
    refused = CliRunner().invoke(main, ["restore", *options])
    assert refused.exit_code != 0
    assert CliRunner().invoke(main, ["restore", "--force", *options]).exit_code == 0


@pytest.mark.parametrize("verb", [["restore", "FILE"], ["factory-reset", "--yes"]])
def test_nothing_is_replaced_under_a_running_service(box, tmp_path, verb):
    service = FakeService(tmp_path / "state/control.sock")
    service.start()
    try:
        wait_for(service.socket)
        result = CliRunner().invoke(main, [verb[0], "--config", str(box), *verb[1:]])
    finally:
        service.stop()
    assert "is running" in result.output
    assert result.exit_code != 0
    assert (tmp_path / "state/store.db").exists()


# Factory reset


def test_after_a_reset_neither_keys_nor_readings_are_left(box, tmp_path):
    state = tmp_path / "state"
    open_files = {path: path.open("rb") for path in state.rglob("*") if path.is_file()}
    assert any(METERS[0].encode() in file.read() for file in open_files.values())
    without = CliRunner().invoke(main, ["factory-reset", "--config", str(box)])
    assert without.exit_code != 0
    assert (state / "machine_secret").exists()
    result = CliRunner().invoke(main, ["factory-reset", "--yes", "--config", str(box)])
    assert result.exit_code == 0, result.output
    assert list(state.iterdir()) == []
    # What somebody still holds open, and so what lies on the disk, is overwritten.
    for path, file in open_files.items():
        file.seek(0)
        assert file.read().strip(b"\0") == b"", path
        file.close()
    assert factory_reset(state) == 0
