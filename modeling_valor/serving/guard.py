# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What stands before the application: keys, how many requests there are, how large they are, and how long they take."""

import asyncio
import contextlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from .errors import RequestError
from .settings import ServerSettings


Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

STOPPING = RequestError(
    503, "The server is stopping: ask it again later.", code="stopping", headers={"Connection": "close"}
)

OPEN_PATHS = ("/health",)
"""What is answered to everybody, however busy the server is."""


class Guard:
    """An ASGI application that lets requests through to another one, within the limits of the settings.

    A request whose client has gone, or whose time is up, is cancelled.
    """

    def __init__(self, app: Application, settings: ServerSettings):
        self.app, self.settings = app, settings
        self.active = 0
        """Requests that are in the server now."""

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        is_preflight = (
            self.settings.enable_cors and scope.get("method") == "OPTIONS"
        )  # browsers send it without the key
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or is_preflight:
            await self.app(scope, receive, send)
            return
        answer = _Answer(send)
        try:
            self._check_key(scope)
            if self.active >= self.settings.max_queue:
                raise RequestError(
                    503,
                    f"The server is at its limit of {self.settings.max_queue} requests: try again in a moment.",
                    code="queue_full",
                    headers={"Retry-After": "1"},
                )
            self.active += 1
            try:
                await self._answer_in_time(scope, receive, answer)
            finally:
                self.active -= 1
        except RequestError as error:
            await answer.refuse(error, scope)
        except asyncio.CancelledError:  # by the server, which stops and has waited long enough
            await answer.refuse(STOPPING, scope)

    def _check_key(self, scope: MutableMapping[str, Any]) -> None:
        if self.settings.api_key is None:
            return
        given = dict(scope["headers"]).get(b"authorization", b"")
        if not hmac.compare_digest(given, f"Bearer {self.settings.api_key}".encode()):
            raise RequestError(
                401,
                "This server needs its key: send the header `Authorization: Bearer KEY`.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def _answer_in_time(self, scope: MutableMapping[str, Any], receive: Receive, answer: "_Answer") -> None:
        until = time.monotonic() + self.settings.timeout
        try:
            body = await asyncio.wait_for(self._read_body(scope, receive), self.settings.timeout)
        except TimeoutError:
            raise self._too_late() from None
        if body is None:
            return  # the client has gone
        gone = asyncio.ensure_future(_wait_for_disconnect(receive))
        work = asyncio.ensure_future(self.app(scope, _replay(body, gone), answer))
        try:
            await asyncio.wait({gone, work}, timeout=until - time.monotonic(), return_when=asyncio.FIRST_COMPLETED)
            if gone.done() and answer.is_complete:  # the server says so of every answer that is complete
                await asyncio.wait({work}, timeout=until - time.monotonic())
            if work.done():
                await work
            elif not gone.done():
                raise self._too_late()
        finally:
            for task in (gone, work):
                task.cancel()
            await asyncio.gather(gone, work, return_exceptions=True)

    async def _read_body(self, scope: MutableMapping[str, Any], receive: Receive) -> bytes | None:
        """All of the body; None if the client goes before its end.

        Raises:
            RequestError: 413, it is too large.
        """
        most = int(self.settings.max_request_mb * 1e6)
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        parts, size, more = [], int(announced) if announced.isdigit() else 0, True
        if size <= most:
            size = 0
        while more and size <= most:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            size, more = size + len(parts[-1]), message.get("more_body", False)
        if size > most:
            raise RequestError(
                413,
                f"The request is larger than the limit of {self.settings.max_request_mb:g} MB: send the address of the "
                "media, or smaller media.",
                headers={"Connection": "close"},
            )
        return b"".join(parts)

    def _too_late(self) -> RequestError:
        return RequestError(
            504,
            f"The request took longer than the limit of {self.settings.timeout:g} seconds.",
            code="timeout",
            headers={"Connection": "close"},
        )


class _Answer:
    """What was sent to a client."""

    def __init__(self, send: Send):
        self._send = send
        self.is_begun = self.is_complete = self.is_stream = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.is_begun = True
            self.is_stream = (
                dict(message.get("headers", ())).get(b"content-type", b"").startswith(b"text/event-stream")
            )
        elif message["type"] == "http.response.body":
            self.is_complete = not message.get("more_body", False)
        await self._send(message)

    async def refuse(self, error: RequestError, scope: MutableMapping[str, Any]) -> None:
        """Sends an error; in a stream that has begun, as its last event."""
        if self.is_complete:
            return
        if not self.is_begun:
            await error.response()(scope, _nothing, self._send)
            return
        event = f"data: {json.dumps(error.content())}\n\n".encode() if self.is_stream else b""
        with contextlib.suppress(OSError):
            await self._send({"type": "http.response.body", "body": event, "more_body": False})


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


async def _wait_for_disconnect(receive: Receive) -> Message:
    while (message := await receive())["type"] != "http.disconnect":
        pass
    return message


def _replay(body: bytes, gone: "asyncio.Future[Message]") -> Receive:
    """The body once more, and then what comes after it."""
    parts = [body]

    async def receive() -> Message:
        if parts:
            return {"type": "http.request", "body": parts.pop(), "more_body": False}
        return await asyncio.shield(gone)

    return receive
