"""A wireless M-Bus module on a serial port."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from concentrator.links.port_shell import PortShell
from concentrator.wmbus.modules.face import (
    ModuleEvent,
    ModuleLost,
    ModuleReady,
    RadioModule,
    TelegramHeard,
    TelegramSent,
)


class RadioLink:
    """One module on one port; every telegram goes to `on_telegram`."""

    def __init__(
        self,
        module: RadioModule,
        port: str,
        baud_rate: int,
        on_telegram: Callable[[TelegramHeard], None],
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        self.module = module
        self.description = ""
        self.commands_sent = 0
        # Told of every telegram as it was heard, while somebody watches.
        self.tap: Callable[[TelegramHeard], None] | None = None
        self._on_telegram = on_telegram
        self.shell: PortShell[ModuleEvent] = PortShell(
            "radio", module, port, baud_rate, self._handle, lambda _reason: None, on_progress
        )

    async def run(self) -> None:
        """Keep the port open and listen, until cancelled."""
        await self.shell.run()

    def transmit(self, telegram: bytes) -> None:
        """Have a telegram (from its L-field, without CRCs) sent.

        Raises:
            WmbusUsageError: this module cannot, or it is no telegram.
            TransmissionRefusedError: the band's duty cycle is used up.
        """
        self.module.transmit(telegram, asyncio.get_running_loop().time())
        self.shell.pump()

    def _handle(self, event: ModuleEvent) -> None:
        match event:
            case TelegramHeard():
                if self.tap is not None:
                    self.tap(event)
                self._on_telegram(event)
            case ModuleReady():
                self.description = event.identity
                self.shell.works()
            case TelegramSent():
                self.commands_sent += event.accepted
            case ModuleLost():
                self.shell.set_state("not answering", event.reason)
