"""Fixtures of the system tests."""

from __future__ import annotations

import pytest

from bench import Bench


@pytest.fixture
async def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    await bench.close()
