"""Flash writes of a day stay in their budget: the benchmark's day, with fewer meters."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

METERS = 200


async def test_a_day_writes_less_than_its_share_of_200_megabytes(tmp_path):
    path = Path(__file__).parents[2] / "benchmarks" / "flash.py"
    spec = importlib.util.spec_from_file_location("flash", path)
    flash = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(flash)
    kinds = await flash.measure(tmp_path, METERS, 1)
    assert kinds["readings"] > 1, "it was counted"
    assert kinds["statistics"] > 1
    assert sum(kinds.values()) < 200 * METERS / 1000, kinds
