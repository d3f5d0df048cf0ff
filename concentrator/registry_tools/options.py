"""What the registry's commands have in common."""

from __future__ import annotations

import asyncio
from typing import Any

from concentrator import control
from concentrator.config import Config


def give_order(config: Config, operation: str, target: str = "", **arguments: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Have the running service carry out an order, and give its result.

    Raises:
        ServiceAbsentError: it does not run.
        ControlError: it refused, or failed.
    """
    return asyncio.run(control.give_order(config.control_socket, operation, target, arguments))
