"""How fast the page is with two thousand meters while they are read: the demo, and a browser's questions to its page.

Nothing stands in for anything: the product finds the meters behind a simulated modem, reads and forwards them, and its
page answers meanwhile. Told are the time to the first octet (median, worst), what an answer weighs on the line,
gzip-compressed, and as it is. Exit status 1 when a limit is missed: first octet within 100 ms in the median, the
list within 300 kB as it is.

    python benchmarks/page_while_polling.py [--meters 2000] [--rounds 20]
"""

from __future__ import annotations

import argparse
import gzip
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import httpx

_PATHS = (
    "/",
    "/?by=hour",
    "/meters",
    "/meters?sort=-progress&q=7",
    "/meters/ODC0050000007",
    "/topology",
    "/tasks",
    "/log",
    "/api/meters",
)
_FIRST_OCTET_MS, _LIST_OCTETS = 100.0, 300_000
# How many have to be identified before the measuring begins: what a page shows by then is what it shows all day.
_IDENTIFIED = 0.15
_START_S = 300.0
# It compares every value at both head-ends with what the meters hold before it ends.
_STOP_S = 300.0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _totals(client: httpx.Client) -> dict[str, int]:
    try:
        return client.get("/api/overview").json().get("totals") or {}
    except (httpx.HTTPError, ValueError):
        return {}


def main() -> int:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--meters", type=int, default=2000)
    parser.add_argument("--days", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        demo = subprocess.Popen(
            [
                *(sys.executable, "-m", "concentrator", "demo", "--json", "--seed", "5", "--keep", folder),
                *("--meters", str(arguments.meters), "--days", str(arguments.days), "--web-port", str(port)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                return _measure_all(client, arguments.meters, arguments.rounds)
        finally:
            demo.terminate()
            demo.wait(_STOP_S)


def _measure_all(client: httpx.Client, meters: int, rounds: int) -> int:
    deadline = time.monotonic() + _START_S
    while (found := _totals(client)).get("plc", 0) < meters or found["active"] < _IDENTIFIED * meters:
        if time.monotonic() > deadline:
            print(f"after {_START_S:g} s only {found}", file=sys.stderr)  # noqa: T201
            return 1
        time.sleep(1)
    before = _totals(client)["stored"]
    slow = [path for path in _PATHS if not _measure(client, path, rounds)]
    after = _totals(client)
    print(f"intervals read meanwhile: {after['stored'] - before} of {after['plc']} meters")  # noqa: T201
    if after["stored"] <= before:
        print("nothing was read meanwhile: nothing is measured", file=sys.stderr)  # noqa: T201
        return 1
    return 1 if slow else 0


def _measure(client: httpx.Client, path: str, rounds: int) -> bool:
    times: list[float] = []
    weight = plain = 0
    for _ in range(rounds):
        began = time.perf_counter()
        with client.stream("GET", path, headers={"Accept-Encoding": "gzip"}) as answer:
            raw = answer.iter_raw()
            first = next(raw)
            times.append(time.perf_counter() - began)
            octets = first + b"".join(raw)
            if answer.status_code != 200:  # noqa: PLR2004 - HTTP's
                raise SystemExit(f"{path}: status {answer.status_code}")
        weight = len(octets)
        plain = len(gzip.decompress(octets)) if answer.headers.get("content-encoding") == "gzip" else weight
        time.sleep(0.1)
    median, worst = 1000 * statistics.median(times), 1000 * max(times)
    kept = median <= _FIRST_OCTET_MS and (path != "/meters" or plain <= _LIST_OCTETS)
    print(  # noqa: T201
        f"{path:28} first octet {median:6.1f} ms, worst {worst:6.1f} ms, {weight / 1000:6.1f} kB on the line,"
        f" {plain / 1000:6.1f} kB{'' if kept else '   <- missed'}",
        flush=True,
    )
    return kept


if __name__ == "__main__":
    sys.exit(main())
