"""Days of a substation in virtual time: every interval is there in time, once, and each run is like the other."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from concentrator.simulator.virtual_loop import VirtualEventLoop

pytestmark = pytest.mark.system

MEASURED = {
    "cpu_seconds",
    "simulation_cpu_seconds",
    "rss_mib",
    "seconds",
    "cpu_share_of_virtual_time",
    "database_mib",
}


@pytest.fixture(scope="module")
def days_of_a_substation():
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "collection.py"
    spec = importlib.util.spec_from_file_location("collection_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)

    def run(meters: int, days: int, seed: int, directory: Path):
        loop = VirtualEventLoop()
        try:
            return loop.run_until_complete(module.run(meters, days, seed, directory))
        finally:
            loop.close()

    return run


def test_every_interval_is_there_by_the_morning(days_of_a_substation, tmp_path):
    found = days_of_a_substation(12, 4, 3, tmp_path)
    assert found["completeness_0800"] >= 0.995
    assert found["completeness_d3"] >= 0.999
    assert found["duplicates"] == 0


def test_the_same_seed_gives_the_same_run(days_of_a_substation, tmp_path):
    runs = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        found = days_of_a_substation(6, 2, 7, tmp_path / name)
        runs.append({key: value for key, value in found.items() if key not in MEASURED})
    assert runs[0] == runs[1]
