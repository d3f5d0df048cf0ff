"""The forms of firmware campaigns: begin, pause, resume, abort."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from concentrator.web.access_pages import form_of
from concentrator.web.gate import visitor_of
from concentrator.web.order_desk import FIRMWARE, FIRMWARE_CHANGES, FIRMWARE_OPERATIONS
from concentrator.web.security import Forms
from concentrator.web.translations import Message, mark

_START, _ABORT = "firmware_start", "firmware_abort"
_TEXTS = ("name", "image", "meters", "hours")
_MOMENTS = ("not_before", "not_after", "activate_from")
_NUMBERS = ("at_once", "first", "failure_limit")
_MOST_DIGITS = 6


class FirmwarePages:
    """The handler, and where it answers. `say` makes a page that says something, `give` sends an order."""

    def __init__(
        self,
        forms: Forms,
        say: Callable[[Request, str, Any, int], Response],
        give: Callable[[Request, str, str, dict[str, Any], str], Response],
        refused: Callable[[Request, str], Response],
    ) -> None:
        self._forms = forms
        self._say = say
        self._give = give
        self._refused = refused
        self.routes = [Route("/firmware/orders", self._order, methods=["POST"])]

    async def _order(self, request: Request) -> Response:
        visitor, fields = visitor_of(request), await form_of(request)
        if refusal := self._forms.refusal(request.headers, visitor, fields.get("token", "")):
            return self._say(request, mark("Not done"), refusal, 403)
        operation = fields.get("op", "")
        if operation not in FIRMWARE_OPERATIONS:
            return self._say(request, mark("Not done"), mark("The page does not know this action."), 400)
        may = visitor.may_change(operation) if operation in FIRMWARE_CHANGES else visitor.may(operation)
        if not may:
            return self._refused(request, operation)
        name = fields.get("name", "").strip()
        if operation == _ABORT and fields.get("confirm", "").strip() != name:
            words = Message(
                "For this the name of the campaign, %(name)s, has to be typed in.", {"name": name}
            )
            return self._say(request, mark("Not done"), words, 400)
        arguments = start_arguments(fields) if operation == _START else {"name": name}
        return self._give(request, operation, FIRMWARE, arguments, f"{FIRMWARE}#orders")


def start_arguments(fields: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of `firmware_start` from the fields of the form; the service checks them.

    Moments are local to the box, as a browser's form has them.
    """
    arguments: dict[str, Any] = {
        name: fields[name].strip() for name in _TEXTS if fields.get(name, "").strip()
    }
    for name in _NUMBERS:
        text = fields.get(name, "").strip()
        if text:
            whole = text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
            arguments[name] = int(text) if whole else text
    for name in _MOMENTS:
        text = fields.get(name, "").strip()
        if text:
            try:
                arguments[name] = datetime.fromisoformat(text).astimezone().isoformat()
            except (ValueError, OverflowError):
                arguments[name] = text
    return arguments
