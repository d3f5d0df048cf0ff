"""A week of five hundred simulated PRIME meters in virtual time, through the product's own driver.

They join, are polled, and each day somebody is expelled, given another key or cut off with all behind. Prints the
processor seconds of each simulated day, beside a limit: a Raspberry Pi, roughly a tenth of a server's speed, has to
keep up with a hundred times real time. The history has to agree with the simulator's truth.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from plc_truth import LargeNetwork  # noqa: E402 - found by the line above

LIMIT_S_A_DAY = 86_400 / 100 / 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--meters", type=int, default=500)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--polls", type=int, default=4, help="of every meter, a day")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    began = time.process_time()
    large = LargeNetwork(options.meters)
    large.run(options.days, options.polls)
    seconds = time.process_time() - began
    large.check()
    hours = large.topology.network_hours()[1:]
    result = {
        "benchmark": "plc",
        "meters": options.meters,
        "days": options.days,
        "polls": large.asked,
        "answers": large.answered,
        "expelled": len(large.expelled),
        "rekeyed": len(large.rekeyed),
        "cut_off": len(large.moved),
        "hourly_reachable_pct": round(sum(hour.percent for hour in hours) / len(hours), 1),
        "cpu_s_a_day": round(seconds / options.days, 2),
        "limit_s_a_day": LIMIT_S_A_DAY,
        "within_limit": seconds / options.days <= LIMIT_S_A_DAY,
    }
    if options.json:
        print(json.dumps(result))
    else:
        print("\n".join(f"{name:22} {value}" for name, value in result.items()))
    return 0 if result["within_limit"] else 1


if __name__ == "__main__":
    sys.exit(main())
