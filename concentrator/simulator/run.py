"""`concentrator simulate`: a substation in real time until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Literal

from concentrator.simulator.substation import Substation, SubstationOptions


def run_substation(  # noqa: PLR0913 - the command's options
    directory: Path,
    protocol: Literal["prime", "g3", "g3-a", "s-fsk"],
    meters: int,
    seed: int,
    loss: float,
    speed: float,
    *,
    supervisor: bool = False,
    thief: int = 0,
) -> int:
    """Run until told to stop; returns the exit status."""
    directory.mkdir(parents=True, exist_ok=True)
    substation = Substation(
        SubstationOptions(protocol, meters, seed, loss, speed, supervisor=supervisor, thief=thief)
    )

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        substation.open(directory)
        print(f"modem: {directory}/modem  radio: {directory}/radio  keys: {directory}/keys.json", flush=True)  # noqa: T201
        try:
            await stop.wait()
        finally:
            substation.close()

    asyncio.run(run())
    return 0
