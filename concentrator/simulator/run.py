"""`concentrator simulate`: a substation in real time until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Literal

from concentrator.simulator.substation import Substation, SubstationOptions
from concentrator.tasks import until_first_ends


def run_substation(  # noqa: PLR0913 - the command's options
    directory: Path, protocol: Literal["prime", "g3"], meters: int, seed: int, loss: float, speed: float
) -> int:
    """Run until told to stop; returns the exit status."""
    directory.mkdir(parents=True, exist_ok=True)
    substation = Substation(SubstationOptions(protocol, meters, seed, loss, speed))

    def ready() -> None:
        print(f"modem: {directory}/modem  radio: {directory}/radio  keys: {directory}/keys.json", flush=True)  # noqa: T201

    async def until_stopped() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await stop.wait()

    async def run() -> None:
        await until_first_ends(substation.run(directory, ready), until_stopped())

    asyncio.run(run())
    return 0
