"""The box itself: how warm it is, and what its flash has taken. Read from sysfs, which any user may."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_SYS = Path("/sys")
# The kernel counts sectors of 512 octets, whatever the device has (Documentation/block/stat.rst).
_SECTOR_OCTETS = 512
_SECTORS_WRITTEN = 6
# JESD84-B51, EXT_CSD 268 and 269: tenths of the life used, 1 is up to 10 %; 11 is beyond it.
_PERCENT_A_STEP = 10
_LAST_STEP = 11


@dataclass(frozen=True, slots=True)
class Machine:
    """What the kernel tells; None where it tells nothing."""

    temperature_c: float | None
    written_octets: int | None
    flash_used_percent: int | None


def look(directory: Path, sys: Path = _SYS) -> Machine:
    """Look at the box whose flash holds `directory`. Octets are those written since power-up."""
    device = _device(directory, sys)
    return Machine(_temperature(sys), _written(device), _used(device))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _temperature(sys: Path) -> float | None:
    """The warmest of the zones, in degrees Celsius."""
    found = [_text(zone / "temp") for zone in sorted((sys / "class/thermal").glob("thermal_zone*"))]
    degrees = [int(text) / 1000 for text in found if text.lstrip("-").isdigit()]
    return max(degrees, default=None)


def _device(directory: Path, sys: Path) -> Path | None:
    try:
        number = directory.stat().st_dev
    except OSError:
        return None
    found = sys / "dev/block" / f"{os.major(number)}:{os.minor(number)}"
    if not found.exists():
        return None
    device = found.resolve()
    # Wear is of the whole device, and so is what counts towards it.
    return device.parent if (device / "partition").exists() else device


def _written(device: Path | None) -> int | None:
    fields = _text(device / "stat").split() if device is not None else []
    if len(fields) <= _SECTORS_WRITTEN or not fields[_SECTORS_WRITTEN].isdigit():
        return None
    return int(fields[_SECTORS_WRITTEN]) * _SECTOR_OCTETS


def _used(device: Path | None) -> int | None:
    """The larger of both estimates of an eMMC, in percent, in steps of ten."""
    words = _text(device / "device/life_time").split() if device is not None else []
    try:
        steps = [int(word, 16) for word in words]
    except ValueError:
        return None
    known = [step for step in steps if 1 <= step <= _LAST_STEP]
    return max(known) * _PERCENT_A_STEP if known else None
