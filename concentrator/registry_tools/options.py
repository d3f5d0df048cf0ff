"""What the registry's commands have in common."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Any

import click

from concentrator.config import Config
from concentrator.control import ControlError, request

CONFIG_OPTION = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    default=Path("/etc/concentrator/concentrator.toml"),
    show_default=True,
    help="The configuration file.",
)


def give_order(config: Config, operation: str, target: str = "", **arguments: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Have the running service carry out an order, and give its result.

    Raises:
        ServiceAbsentError: it does not run.
        ControlError: it refused, or failed.
    """
    order: dict[str, Any] = {
        "id": f"cli-{secrets.token_hex(6)}",
        "op": operation,
        "target": target,
        "args": arguments,
    }
    answer = asyncio.run(request(config.control_socket, {"op": "order", "order": order}))
    if answer.get("state") != "done":
        raise ControlError(f"{operation}: {answer}")
    return answer["result"]
