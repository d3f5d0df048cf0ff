"""The figures as Prometheus reads them (text exposition format 0.0.4)."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from concentrator.web.live import Snapshot
from concentrator.web.meters import MeterView
from concentrator.web.sources import DestinationView, Totals
from concentrator.web.words import METER_STATES

# The kernel counts in these, whatever the disk has (getrusage(2)).
_BLOCK_OCTETS = 512
_MEMORY = Path("/proc/self/statm")

Samples = list[tuple[dict[str, str], float]]


class _Exposition:
    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, name: str, words: str, samples: Samples, kind: str = "gauge") -> None:
        self._lines += [f"# HELP concentrator_{name} {words}", f"# TYPE concentrator_{name} {kind}"]
        for labels, value in samples:
            inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
            self._lines.append(f"concentrator_{name}{f'{{{inside}}}' if inside else ''} {value:.15g}")

    @property
    def text(self) -> str:
        return "\n".join(self._lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


_KPI_WORDS = {
    "completeness_pct": "Share of the day's intervals that are stored.",
    "completeness_0800_pct": "Share of the day's intervals that were stored by 08:00 of the next day.",
    "completeness_d1_pct": "Share of the day's intervals that were stored by the end of the next day.",
    "completeness_d3_pct": "Share of the day's intervals that were stored by the end of the third day after.",
    "reachability_pct": "Share of the known nodes that were on the network.",
    "first_try_pct": "Share of visits that succeeded, among those that followed no failure.",
    "retries": "Visits that followed a failure.",
    "airtime_pct": "Share of the time in which some meter was spoken with.",
}


def _add_kpi(out: _Exposition, kpi: Mapping[str, Any]) -> None:
    days: list[Mapping[str, Any]] = kpi.get("days") or []
    for name, words in _KPI_WORDS.items():
        samples = [({"day": str(day["day"])}, float(day[name])) for day in days if day.get(name) is not None]
        if samples:
            out.add(f"kpi_{name.replace('_pct', '_percent')}", words, samples)


def exposition(  # noqa: PLR0913 - what there is to tell
    snapshot: Snapshot,
    meters: list[MeterView],
    totals: Totals,
    destinations: list[DestinationView],
    disk: tuple[int, int] | None,
    store_octets: int,
    now: datetime,
) -> str:
    """The whole answer of /metrics."""
    out = _Exposition()
    running = snapshot.status is not None
    out.add("up", "Whether the collecting service answers.", [({}, float(running))])
    states = Counter(meter.state for meter in meters)
    out.add(
        "meters", "Meters by state.", [({"state": state}, float(states[state])) for state in METER_STATES]
    )
    if snapshot.status is not None:
        out.add("meters_reachable", "Meters on the PLC network now.", [({}, float(totals.reachable or 0))])
        out.add(
            "intervals",
            "Load profile intervals of the configured history.",
            [
                ({"kind": "expected"}, float(totals.expected)),
                ({"kind": "stored"}, float(totals.stored)),
                ({"kind": "closed"}, float(totals.closed)),
            ],
        )
        if started := snapshot.status.get("started_at"):
            at = datetime.fromisoformat(started).timestamp()
            out.add("start_time_seconds", "When the service was started (since 1970).", [({}, at)])
        flash = snapshot.status.get("flash_octets")
        if flash is not None:
            words = "Octets that the service had written to flash since it was started."
            out.add("flash_written_bytes_total", words, [({}, float(flash))], "counter")
        for what in ("modem", "radio"):
            port: Mapping[str, Any] | None = snapshot.status.get(what)
            if port:
                out.add(f"{what}_up", f"Whether the {what} runs.", [({}, float(port["state"] == "running"))])
                counters: Mapping[str, float] = port.get("counters") or {}
                samples = [({"name": name}, float(value)) for name, value in counters.items()]
                out.add(f"{what}_counter", f"The {what} driver's own counters.", samples, "untyped")
        _add_kpi(out, snapshot.status.get("kpi") or {})
        out.add(
            "destination_connected",
            "Whether a destination is connected.",
            [({"destination": one.name}, float(one.state == "connected")) for one in destinations],
        )
    out.add(
        "outbox_readings",
        "Readings that a destination has yet to acknowledge.",
        [({"destination": one.name}, float(one.pending_readings)) for one in destinations],
    )
    out.add(
        "outbox_oldest_seconds",
        "Age of the oldest reading that a destination has yet to acknowledge.",
        [
            (
                {"destination": one.name},
                max(0.0, (now - one.oldest_unsent_at).total_seconds()) if one.oldest_unsent_at else 0.0,
            )
            for one in destinations
        ],
    )
    if any(one.pending_batches is not None for one in destinations):
        out.add(
            "outbox_batches",
            "Answers of meters that a destination has yet to acknowledge.",
            [
                ({"destination": one.name}, float(one.pending_batches))
                for one in destinations
                if one.pending_batches is not None
            ],
        )
    out.add("store_bytes", "Size of the store's file.", [({}, float(store_octets))])
    if disk is not None:
        out.add("disk_free_bytes", "Free space where the store lies.", [({}, float(disk[0]))])
        out.add("disk_size_bytes", "Size of the file system where the store lies.", [({}, float(disk[1]))])
    for name, words, kind, value in page_process():
        out.add(f"page_{name}", words, [({}, value)], kind)
    return out.text


def page_process() -> list[tuple[str, str, str, float]]:
    """What this process uses, as the kernel tells it: name, words, kind, value."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    found = [
        ("cpu_seconds_total", "Processor time of the page.", "counter", usage.ru_utime + usage.ru_stime),
        (
            "written_bytes_total",
            "Octets that the page had written to disk.",
            "counter",
            float(usage.ru_oublock * _BLOCK_OCTETS),
        ),
    ]
    try:
        pages = int(_MEMORY.read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return found
    words = "Memory of the page."
    return [*found, ("resident_memory_bytes", words, "gauge", float(pages * resource.getpagesize()))]
