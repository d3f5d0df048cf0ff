"""Which driver goes with which radio module, and finding out by asking which one is at a port."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from concentrator.config import RadioSection
from concentrator.links.errors import PortError
from concentrator.links.port_shell import PortShell
from concentrator.wmbus.errors import WmbusUsageError
from concentrator.wmbus.modules.amber import AmberModule
from concentrator.wmbus.modules.face import ModuleEvent, ModuleReady, RadioModule
from concentrator.wmbus.modules.imst import ImstModule
from concentrator.wmbus.modules.iu891a import Iu891aModule
from concentrator.wmbus.modules.lines import CulModule, RtlWmbusLines
from concentrator.wmbus.modules.radiocrafts import RadiocraftsModule

AUTO = "auto"
# By `radio.module`: the driver for a link mode. rtl_wmbus is told its modes where it is started.
_DRIVERS: dict[str, Callable[[str], RadioModule]] = {
    "im871a": ImstModule,
    "iu891a": Iu891aModule,
    "amb8465": AmberModule,
    "rc1180": RadiocraftsModule,
    "cul": CulModule,
    "rtl-wmbus": lambda _mode: RtlWmbusLines(),
}
# Those that answer when asked. The zeros in the questions of others put an RC1180 into its configuration, and what
# follows could write there: it is asked first, by a single zero, which the others skip.
_PROBED = ("rc1180", "amb8465", "im871a", "iu891a", "cul")
_ANSWER_TIMEOUT_S = 1.5
# An Amber module is reset when it was not set to tell RSSI, and asked once more.
_ANSWER_TIMEOUTS_S = {"amb8465": 3.5}


class FoundModule(NamedTuple):
    """What answered: the name of its driver, its speed, and who it says it is."""

    name: str
    baud_rate: int
    identity: str


def make_radio_module(settings: RadioSection) -> RadioModule:
    """The driver of the configured module.

    Raises:
        WmbusUsageError: there is no such module, or it has no such link mode.
    """
    driver = _DRIVERS.get(settings.module)
    if driver is None:
        raise WmbusUsageError(f"no radio module {settings.module!r}: use one of {', '.join(_DRIVERS)}, auto")
    return driver(settings.mode)


async def find_radio_module(port: str, mode: str = "T1") -> FoundModule:
    """Ask at a port, with the driver and at the speed of each module in turn. The link mode is set on the way.

    Raises:
        PortError: nothing answered, or the port cannot be opened.
    """
    for name in _PROBED:
        try:
            driver = _DRIVERS[name](mode)
        except WmbusUsageError:
            driver = _DRIVERS[name]("T1")
        identity = await _identity(port, driver, _ANSWER_TIMEOUTS_S.get(name, _ANSWER_TIMEOUT_S))
        if identity is not None:
            return FoundModule(name, driver.baud_rate, identity)
    tried = ", ".join(_PROBED)
    raise PortError(f"{port}: no radio module answered (asked as {tried}); rtl-wmbus cannot be asked")


async def _identity(port: str, driver: RadioModule, timeout_s: float) -> str | None:
    found: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    lost: list[str] = []

    def handle(event: ModuleEvent) -> None:
        if isinstance(event, ModuleReady) and not found.done():
            found.set_result(event.identity)

    def progress() -> None:
        if shell.state == "port missing" and not found.done():
            lost.append(shell.reason)
            found.cancel()

    shell = PortShell[ModuleEvent](
        "radio", driver, port, driver.baud_rate, handle, lambda _reason: None, progress
    )
    task = asyncio.create_task(shell.run())
    try:
        async with asyncio.timeout(timeout_s):
            return await found
    except TimeoutError:
        return None
    except asyncio.CancelledError:
        if lost:
            raise PortError(lost[0]) from None
        raise
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
