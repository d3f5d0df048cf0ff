"""Which driver goes with which radio module."""

from __future__ import annotations

from concentrator.config import RadioSection
from concentrator.wmbus.modules.face import RadioModule
from concentrator.wmbus.modules.imst import ImstModule


def make_radio_module(settings: RadioSection) -> RadioModule:
    """The driver of the configured module."""
    return ImstModule(settings.mode)
