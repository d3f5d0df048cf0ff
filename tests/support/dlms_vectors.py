"""The public vectors, read in place from beside the project."""

import json
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "dlms" / "vectors.jsonl"


def load(*kinds):
    """Parametrize over the vectors of these kinds (a kind ending in * is a prefix)."""
    if not PATH.exists():
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"{PATH} is missing"))]
    found = []
    with PATH.open() as lines:
        for line in lines:
            row = json.loads(line)
            kind = row["kind"]
            if any(kind == k or (k.endswith("*") and kind.startswith(k[:-1])) for k in kinds):
                found.append(pytest.param(row, id=f"{kind}-{row['name']}"))
    assert found, f"no vector of {kinds}"
    return found
