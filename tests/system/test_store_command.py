"""`concentrator store`, beside the running service and without it."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import subprocess
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from concentrator.cli import main
from concentrator.clock import SystemClock
from concentrator.model import Answer, Channel, MeterRecord, Quality, Reading
from concentrator.obis import Obis
from concentrator.store.inspection import complaints
from concentrator.store.store import Store

from bench import CONCENTRATOR

PROFILE = Obis(1, 0, 99, 1, 0)
START = datetime(2026, 11, 1, tzinfo=UTC)
CHANNELS = [Channel(Obis(1, 0, code, 8, 0), 30, -1, period_s=900) for code in (1, 2)]


@pytest.fixture
async def place(tmp_path):
    """A configuration with a store in which a destination lacks something."""
    config = tmp_path / "concentrator.toml"
    config.write_text(f'[concentrator]\nstate_directory = "{tmp_path}/state"\n')
    store = Store(tmp_path / "state" / "store.db", SystemClock())
    for meter in ("M1", "Zähler 2"):
        await store.save_meter(MeterRecord(meter))
        readings = [
            Reading(
                channel, START + timedelta(minutes=15 * n), 2**63 + n if n == 3 else n, 4, Quality.SUSPECT
            )
            for channel in CHANNELS
            for n in range(8)
        ]
        await store.store_answer(Answer(meter, PROFILE, tuple(readings), START + timedelta(days=1)))
    await store.register_destination("old")
    await store.retire_destinations([])
    store.close()
    return tmp_path


def run(place, *arguments: str, status: int = 0, name: str = "concentrator.toml") -> str:
    result = CliRunner().invoke(main, ["store", arguments[0], "--config", str(place / name), *arguments[1:]])
    assert result.exit_code == status, result.output
    return result.stdout + result.stderr


def test_readings_come_out_in_every_format_and_go_in_again(place):
    rows = list(csv.DictReader(io.StringIO(run(place, "export"))))
    assert len(rows) == 32
    assert rows[3] | {"sequence": ""} == {
        "meter": "M1", "medium": "electricity", "profile": "1-0:99.1.0*255", "obis": "1-0:1.8.0*255",
        "captured_at": "2026-11-01T00:45:00Z", "value": str(2**63 + 3), "unit": "30", "scaler": "-1", "status": "4",
        "quality": str(int(Quality.SUSPECT)), "class_id": "3", "attribute": "2", "period_s": "900",
        "received_at": "2026-11-02T00:00:00Z", "sequence": "",
    } | {key: rows[3][key] for key in ("class_id", "attribute")}  # fmt: skip
    some = run(
        place, "export", "--format", "jsonl", "--meter", "Zähler 2", "--obis", "1-0:2.8.0*255",
        "--from", "2026-11-01T00:15", "--to", "2026-11-01T00:30:00Z",
    )  # fmt: skip
    assert [json.loads(line)["captured_at"] for line in some.splitlines()] == [
        "2026-11-01T00:15:00Z",
        "2026-11-01T00:30:00Z",
    ]
    file = place / "all.jsonl"
    run(place, "export", "--format", "jsonl", "--out", str(file))
    assert file.stat().st_mode & 0o077 == 0
    (place / "other.toml").write_text(f'[concentrator]\nstate_directory = "{place}/other"\n')
    assert "32 readings imported, 0 were there" in run(place, "import", str(file), name="other.toml")
    assert "0 readings imported, 32 were there" in run(place, "import", str(file), name="other.toml")
    again = list(csv.DictReader(io.StringIO(run(place, "export", name="other.toml"))))
    assert [{**row, "sequence": ""} for row in again] == [{**row, "sequence": ""} for row in rows]
    file.write_text(file.read_text()[:-40])
    assert "no line of an export" in run(place, "import", str(file), status=2, name="other.toml")


def test_parquet_says_what_it_needs_or_is_read_back(place, monkeypatch):
    file = place / "all.parquet"
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert "extra [parquet]" in run(place, "export", "--format", "parquet", "--out", str(file), status=2)
    assert not file.exists()
    monkeypatch.undo()
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra [parquet] is not installed")
    run(place, "export", "--format", "parquet", "--out", str(file))
    table = parquet.read_table(file)
    assert table.num_rows == 32
    assert table["captured_at"][0].as_py() == START


def test_a_sound_store_is_told_sound_and_each_fault_is_named(place):
    assert "sound" in run(place, "check", "--full")
    path = place / "state" / "store.db"
    faults = {
        "1 readings without their batch": "UPDATE reading SET sequence = 999 WHERE value = 1 AND channel_id = 1",
        "cursor is above": "UPDATE destination SET cursor = 10000",
        "foreign key": "INSERT INTO open_gap VALUES (77, 'p', 1, 2, 'x', 1, 1)",
        "ranges of acknowledgements": "INSERT INTO acknowledged_range VALUES (1, 9, 8)",
    }
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for words, fault in faults.items():
            connection.execute("BEGIN")
            connection.execute(fault)
            assert any(words in one for one in complaints(connection, full=False)), words
            connection.execute("ROLLBACK")
        connection.execute(faults["cursor is above"])
    assert "cursor is above" in run(place, "check", status=1)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * 40_000)
    assert ": sound" not in run(place, "check", status=1)


def test_it_answers_questions_and_changes_nothing(place):
    assert run(place, "query", "SELECT COUNT(*) AS n FROM reading").strip() == "n=32"
    asked = run(place, "query", "SELECT meter, value FROM reading_in_full WHERE meter LIKE 'Z%'", "--json")
    assert json.loads(asked.splitlines()[0])["meter"] == "Zähler 2"
    for sql in ("DELETE FROM reading", "no query", "SELECT * FROM nothing"):
        assert "Traceback" not in run(place, "query", sql, status=1)
    assert run(place, "query", "SELECT COUNT(*) AS n FROM reading").strip() == "n=32"


def test_destinations_are_listed_and_retired_ones_forgotten(place):
    (told,) = [json.loads(line) for line in run(place, "destinations", "--json").splitlines()]
    assert (told["name"], told["pending_batches"], told["retired_at"] is None) == ("old", 2, False)
    assert "no retired destination" in run(place, "destinations", "--forget", "other", status=1)
    assert run(place, "destinations", "--forget", "old") == ""


def test_a_store_without_a_service_is_vacuumed(place):
    assert "octets" in run(place, "vacuum")
    assert "sound" in run(place, "check", "--full")


@pytest.mark.system
async def test_it_works_beside_the_running_service(bench):
    bench.days = 2
    await bench.start_outside()
    bench.start_substation(meters=4)
    bench.write_config()
    await bench.start_product()
    await bench.until_status(lambda s: sum(m.get("stored") or 0 for m in s["meters"]) > 20)

    async def command(*arguments: str) -> subprocess.CompletedProcess:
        import asyncio

        words = [*CONCENTRATOR, "store", arguments[0], "--config", str(bench.config_file), *arguments[1:]]
        return await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, check=False)

    checked = await command("check")
    assert checked.returncode == 0, checked.stderr
    refused = await command("vacuum")
    assert (refused.returncode, "the service is running" in refused.stderr) == (1, True)
    copied = await command("backup", str(bench.directory / "copy.db"))
    assert copied.returncode == 0, copied.stderr
    with closing(sqlite3.connect(bench.directory / "copy.db")) as connection:
        assert complaints(connection, full=True) == []
        assert connection.execute("SELECT COUNT(*) FROM reading").fetchone()[0] > 100
    exported = await command("export", "--format", "jsonl")
    assert exported.returncode == 0, exported.stderr
    truth = bench.truth()
    for row in map(json.loads, exported.stdout.splitlines()):
        at = round(datetime.fromisoformat(row["captured_at"]).timestamp())
        key = (row["meter"], row["obis"], at)
        assert key not in truth or truth[key] == row["value"]
    await bench.until_delivered()
    bench.check_ledger(bench.mqtt.ledger)
