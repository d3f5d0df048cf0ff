"""The command that the README promises: `make demo`, here as the command behind it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.system


@pytest.mark.parametrize(
    "options",
    [
        ["--protocol", "prime", "--meters", "6", "--days", "2", "--seed", "4"],
        ["--protocol", "g3", "--meters", "6", "--days", "1", "--seed", "5", "--loss", "0.1"],
        ["--protocol", "g3-a", "--meters", "4", "--days", "1", "--seed", "6"],
        ["--protocol", "s-fsk", "--meters", "3", "--days", "1", "--seed", "7"],
    ],
)
def test_once_ends_by_itself_with_everything_delivered(options, tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "concentrator", "demo", "--once", "--json", "--keep", str(tmp_path), *options],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    summary = json.loads(result.stdout)
    meters, days = int(options[3]), int(options[5])
    assert summary["meters_simulated"] == summary["meters_discovered"] == meters
    assert summary["intervals_expected"] == summary["intervals_stored"] == meters * days * 96
    assert summary["intervals_acknowledged"] == meters * days * 96
    assert summary["duplicates"] == 0
    assert summary["values_missing_at_head_end"] == summary["values_wrong_at_head_end"] == 0
    assert summary["wireless_meters_heard"] == 1
    assert summary["seconds"] > 0
    logs = "".join(file.read_text() for file in tmp_path.glob("*.log"))
    keys = json.loads((tmp_path / "keys.json").read_text())
    for entry in keys["meters"].values():
        assert entry["encryption_key"] not in logs
        assert entry["authentication_key"] not in logs
