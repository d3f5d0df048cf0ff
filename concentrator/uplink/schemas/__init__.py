"""The JSON Schema files (draft 2020-12) of every payload on MQTT, in both directions."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

_ENDING = ".json"


def schema_texts() -> dict[str, str]:
    """The text of each schema by its name: status, health, meters, reading, ..."""
    return {
        file.name.removesuffix(_ENDING): file.read_text(encoding="utf-8")
        for file in sorted(files(__name__).iterdir(), key=lambda file: file.name)
        if file.name.endswith(_ENDING)
    }


def load_schema(name: str) -> dict[str, Any]:
    """One schema."""
    return json.loads(schema_texts()[name])
