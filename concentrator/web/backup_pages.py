"""Backup and restore on the page: it streams what the service makes and takes, and keeps nothing of it."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from concentrator.access.roles import BACKUP
from concentrator.control import ControlError
from concentrator.web.access_pages import form_of
from concentrator.web.gate import visitor_of
from concentrator.web.live import ServiceWatch, Snapshot
from concentrator.web.security import Forms
from concentrator.web.translations import Message, mark
from concentrator.web.uploads import FilePiece, FormField, FormReader, UploadError
from concentrator.web.views import Asked, View, notices
from concentrator.web.visitors import AccessClient, RefusedError, Visitor

# A store of two gigabytes is copied, packed and checked on a slow card.
_WORK_TIMEOUT_S = 900.0
_LEAST_PASSPHRASE = 12
UPLOAD = "/backup/upload"


class BackupPages:
    """The handlers, and where they answer. `say` makes a page that says something, `show` one of a view."""

    def __init__(
        self,
        access: AccessClient,
        watch: ServiceWatch,
        forms: Forms,
        say: Callable[[Request, str, Message | str, int], Response],
        show: Callable[..., Response],
    ) -> None:
        self._access = access
        self._watch = watch
        self._forms = forms
        self._say = say
        self._show = show
        self.routes = [
            Route("/backup", self._post, methods=["POST"]),
            Route(UPLOAD, self._upload, methods=["POST"]),
        ]

    async def backup(self, snapshot: Snapshot, asked: Asked) -> View:
        """The page: a backup to make, and one to restore."""
        reason = ""
        try:
            await self._access.ask(asked.visitor, {"op": BACKUP, "do": "state"})
        except (ControlError, RefusedError) as error:
            reason = str(error)
        return View(
            "backup.html",
            mark("Backup and restore"),
            {**notices(snapshot, snapshot.status or {})},
            {"mistake": reason, "found": None, "upload": "", "least": _LEAST_PASSPHRASE},
        )

    async def _post(self, request: Request) -> Response:
        visitor, fields = visitor_of(request), await form_of(request)
        if refusal := self._refusal(request, fields.get("token", "")):
            return refusal
        match fields.get("op", ""):
            case "make":
                return await self._make(request, visitor, fields)
            case "apply":
                return await self._apply(request, visitor, fields)
            case "cancel":
                answer = await self._ask(visitor, {"do": "cancel", "id": fields.get("id", "")})
                return (
                    RedirectResponse("/backup", 303)
                    if isinstance(answer, dict)
                    else self._refused(request, answer)
                )
            case _:
                return self._say(request, mark("Not done"), mark("The page does not know this action."), 400)

    async def _make(self, request: Request, visitor: Visitor, fields: dict[str, str]) -> Response:
        passphrase, without_keys = fields.get("passphrase", ""), "without_keys" in fields
        if not without_keys and passphrase != fields.get("again", ""):
            return await self._again(request, mark("The passphrase was repeated differently."))
        asked = {
            "do": "make",
            "passphrase": passphrase,
            "without_keys": without_keys,
            "with_readings": "with_readings" in fields,
        }
        made = await self._ask(visitor, asked)
        if not isinstance(made, dict):
            return await self._again(request, made)
        headers = {
            "Content-Disposition": f'attachment; filename="{made["name"]}"',
            # A download that breaks off is told as such by the browser.
            "Content-Length": str(made["octets"]),
            # It is packed already; packed again it would lose its length.
            "Content-Encoding": "identity",
        }
        octets = self._octets(visitor, str(made["id"]), int(made["octets"]))
        return StreamingResponse(octets, media_type="application/octet-stream", headers=headers)

    async def _octets(self, visitor: Visitor, identity: str, whole: int) -> AsyncGenerator[bytes]:
        offset = 0
        while offset < whole:
            asked = {"op": BACKUP, "do": "read", "id": identity, "offset": offset}
            answer = await self._access.ask(visitor, asked)
            content = base64.b64decode(answer["content"])
            offset += len(content)
            yield content

    async def _upload(self, request: Request) -> Response:
        """A backup as it comes: part after part to the service, then checked there."""
        visitor = visitor_of(request)
        # Nobody may send gigabytes to be refused afterwards.
        if refusal := self._refusal(request, None):
            return refusal
        try:
            identity, passphrase = await self._take(request, visitor)
        except _FormRefusedError as error:
            return self._say(request, mark("Not done"), str(error), 403)
        except (UploadError, ControlError, RefusedError) as error:
            return await self._again(request, str(error))
        if not identity:
            return await self._again(request, mark("Choose a file."))
        found = await self._ask(visitor, {"do": "check", "id": identity, "passphrase": passphrase})
        if not isinstance(found, dict):
            await self._ask(visitor, {"do": "cancel", "id": identity})
            return await self._again(request, found)
        return await self._again(request, "", found=found, upload=identity)

    async def _take(self, request: Request, visitor: Visitor) -> tuple[str, str]:
        """Take the form in; gives the upload's identity and the passphrase."""
        reader = FormReader(request.headers.get("content-type", ""))
        fields: dict[str, str] = {}
        identity, offset, part_octets, waiting = "", 0, 1, b""
        length = request.headers.get("content-length", "")
        if not (length.isascii() and length.isdigit() and len(length) < 16):  # noqa: PLR2004 - digits
            raise UploadError("its length is not told")

        async def send(content: bytes) -> None:
            nonlocal offset
            text = base64.b64encode(content).decode()
            asked = {"op": BACKUP, "do": "part", "id": identity, "offset": offset, "content": text}
            await self._access.ask(visitor, asked)
            offset += len(content)

        async for data in request.stream():
            for event in reader.receive_data(data):
                match event:
                    case FormField(name, text):
                        fields[name] = text
                    case FilePiece(_, content):
                        if not identity:
                            # The form has its token before the file.
                            if reason := self._forms.refusal(
                                request.headers, visitor, fields.get("token", "")
                            ):
                                raise _FormRefusedError(reason)
                            asked = {"op": BACKUP, "do": "begin", "octets": int(length)}
                            begun = await self._access.ask(visitor, asked)
                            identity, part_octets = str(begun["id"]), int(begun["part_octets"])
                        waiting += content
                        while len(waiting) >= part_octets:
                            await send(waiting[:part_octets])
                            waiting = waiting[part_octets:]
        if not reader.is_over:
            raise UploadError("the upload broke off; begin again")
        if waiting:
            await send(waiting)
        return identity, fields.get("passphrase", "")

    async def _apply(self, request: Request, visitor: Visitor, fields: dict[str, str]) -> Response:
        asked = {
            "do": "apply",
            "id": fields.get("id", ""),
            "confirm": fields.get("confirm", ""),
            "with_configuration": "with_configuration" in fields,
        }
        done = await self._ask(visitor, asked)
        if not isinstance(done, dict):
            return self._refused(request, done)
        words = mark(
            "The service starts anew with the backup; this takes about a minute. What was there is kept in the folder"
            " before-restore of the state directory. A restored configuration is on trial: confirm it under"
            " Configuration."
        )
        return self._say(request, mark("Restoring"), words, 202)

    async def _ask(self, visitor: Visitor, asked: dict[str, Any]) -> dict[str, Any] | str:
        """The service's answer, or why there is none."""
        try:
            return await self._access.ask(visitor, {"op": BACKUP, **asked}, _WORK_TIMEOUT_S)
        except (ControlError, RefusedError) as error:
            return str(error)

    async def _again(
        self,
        request: Request,
        mistake: Message | str,
        found: dict[str, Any] | None = None,
        upload: str = "",
    ) -> Response:
        asked = Asked(request.query_params, "", visitor_of(request))
        view = await self.backup(await self._watch.snapshot(), asked)
        view.fixed.update(mistake=mistake or view.fixed["mistake"], found=found, upload=upload)
        return self._show(request, view, 400 if mistake else 200)

    def _refused(self, request: Request, reason: str) -> Response:
        return self._say(request, mark("Not done"), reason, 409)

    def _refusal(self, request: Request, token: str | None) -> Response | None:
        """Who may not; `token` None: it comes with the form."""
        visitor = visitor_of(request)
        given = visitor.token if token is None else token
        if reason := self._forms.refusal(request.headers, visitor, given):
            return self._say(request, mark("Not done"), reason, 403)
        if not visitor.may(BACKUP):
            return self._say(request, mark("Not done"), visitor.refusal, 403)
        return None


class _FormRefusedError(UploadError):
    """The form is not one of ours."""
