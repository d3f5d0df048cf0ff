"""What only the service can work out (balances, outages, upgrades): asked over the control socket, kept a while."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from concentrator.clock import Clock
from concentrator.control import ControlError, request
from concentrator.web.visitors import Visitor

# However many pages are open, the service works each answer out once in this time.
_KEPT_S = 30.0
_MOST_KEPT = 32
_TIMEOUT_S = 40.0

Answer = tuple[dict[str, Any] | None, str]


class Questions:
    """Asks one question at a time."""

    def __init__(self, control_socket: Path, clock: Clock) -> None:
        self._socket = control_socket
        self._clock = clock
        self._kept: OrderedDict[str, tuple[float, Answer]] = OrderedDict()
        self._asking = asyncio.Lock()

    async def ask(
        self, visitor: Visitor, operation: str, arguments: Mapping[str, Any] | None = None
    ) -> Answer:
        """The answer and "", or None and the reason why there is none. Who looks may share what another has asked."""
        key = json.dumps([operation, arguments or {}], sort_keys=True)
        async with self._asking:
            kept = self._kept.get(key)
            if kept is not None and self._clock.monotonic() - kept[0] < _KEPT_S:
                return kept[1]
            answer = await self._ask(visitor, operation, arguments or {})
            if answer[0] is None:
                # A refusal is no answer for somebody else.
                return answer
            self._kept[key] = self._clock.monotonic(), answer
            self._kept.move_to_end(key)
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
            return answer

    async def support_bundle(self, visitor: Visitor) -> tuple[bytes, str]:
        """The support bundle (tar.gz) as the service makes it, never kept; or b"" and the reason why there is none."""
        found, reason = await self._ask(visitor, "support_bundle", {})
        return (b"", reason) if found is None else (base64.b64decode(found["content"]), "")

    async def _ask(self, visitor: Visitor, operation: str, arguments: Mapping[str, Any]) -> Answer:
        order = {"id": f"page-{secrets.token_hex(6)}", "op": operation, "args": arguments}
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                answer = await request(self._socket, {"op": "ask", "order": order, **visitor.credentials})
        except TimeoutError:
            return None, f"no answer on {self._socket} within {_TIMEOUT_S:g} s"
        except (ControlError, OSError, ValueError) as error:
            return None, str(error)
        return answer["result"], ""
