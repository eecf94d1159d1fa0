"""What BentoML does not check itself: the content type, and the size of a body while it is read.

BentoML 1.4 accepts form bodies where JSON is meant, and reads a body of any size whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

INFO = "/info"


class BodyGuard:
    """ASGI middleware: 415 unless a body is application/json, 413 as soon as it exceeds `max_bytes`.

    A path of `schemas` gets 400 with one sentence for a body that does not fit.

    The size is counted on what arrives, so a missing or false Content-Length does not help. The body is read
    here and handed on whole. GET /info is answered like POST /info (BentoML routes POST alone).
    """

    def __init__(self, app: ASGIApp, max_bytes: int, schemas: Mapping[str, type[BaseModel]]) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.schemas = schemas

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (scope["method"] in ("GET", "HEAD") and scope["path"] != INFO):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.max_bytes:
            await self._too_large(scope, receive, send)
            return
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self.max_bytes:
                await self._too_large(scope, receive, send)
                return
        media_type = headers.get("content-type", "").split(";")[0].strip().lower()
        if body and media_type != "application/json":
            said = f"content type {media_type!r}" if media_type else "a body without content type"
            await _refuse(415, f"{said} is not accepted: send JSON as application/json")(scope, receive, send)
            return
        schema = self.schemas.get(scope["path"])
        if schema is not None and scope["method"] == "POST":
            # BentoML validates again, but names its own class in the answer and logs a traceback for each bad request.
            try:
                schema.model_validate_json(body)
            except ValidationError as error:
                await _refuse(400, _sentence(error))(scope, receive, send)
                return
        if scope["method"] == "GET":
            scope = {**scope, "method": "POST"}
        await self.app(scope, _replay(bytes(body), receive), send)

    async def _too_large(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The rest of the body is not read, so the connection cannot be used again.
        answer = _refuse(413, f"the body exceeds {self.max_bytes} bytes: ask for fewer items in one request")
        answer.headers["connection"] = "close"
        await answer(scope, receive, send)


def _refuse(status: int, sentence: str) -> JSONResponse:
    return JSONResponse({"error": sentence}, status_code=status)


def _sentence(error: ValidationError) -> str:
    """`user_id: an id is a non-empty string or an integer, not 1.5`, for the first few things wrong."""
    parts = []
    for item in error.errors(include_url=False, include_input=False, include_context=False)[:3]:
        where = ".".join(map(str, item["loc"]))
        said = item["msg"].removeprefix("Value error, ")
        parts.append(f"{where}: {said}" if where else said)
    return "; ".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}
        message: dict[str, Any] = dict(await receive())
        return message

    return replay
