"""Which driver goes with which radio module."""

from __future__ import annotations

from collections.abc import Callable

from concentrator.config import RadioSection
from concentrator.wmbus.modules.amber import AmberModule
from concentrator.wmbus.modules.face import RadioModule
from concentrator.wmbus.modules.imst import ImstModule
from concentrator.wmbus.modules.lines import CulModule, RtlWmbusLines

# By `radio.module`: the driver for a link mode. rtl_wmbus is told its modes where it is started.
_DRIVERS: dict[str, Callable[[str], RadioModule]] = {
    "im871a": ImstModule,
    "amb8465": AmberModule,
    "cul": CulModule,
    "rtl-wmbus": lambda _mode: RtlWmbusLines(),
}


def make_radio_module(settings: RadioSection) -> RadioModule:
    """The driver of the configured module.

    Raises:
        WmbusUsageError: the module has no such link mode.
    """
    return _DRIVERS[settings.module](settings.mode)
