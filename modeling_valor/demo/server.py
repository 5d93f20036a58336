# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The server of the page: what it lets through, and nothing that comes from elsewhere."""

import errno
import html
import logging
import re
from collections.abc import Sequence
from typing import Any

import gradio as gr
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..media_limits import MediaError
from .clips import DemoLimits, delete_leftovers
from .pictures import script, style


_LOGGER = logging.getLogger(__name__)

POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; media-src 'self' data: blob: http: https:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'"
)
"""Content-Security-Policy of the page: only media of an index that are elsewhere come from elsewhere."""

_REFUSED = re.compile(
    r"/gradio_api/(proxy=|file[=/]\s*[a-z][a-z0-9+.-]+:|deep_link|component_server|process_recording|run-history)",
    re.IGNORECASE,
)
"""What Gradio would fetch from other machines on a visitor's behalf, and what the page does not use."""

_UPLOAD = re.compile("/gradio_api/upload/?$", re.IGNORECASE)

_FORM_BYTES = 10_000
"""Of an upload, what is around its file."""

KEPT_SECONDS = 3600
"""How long a visitor's file is kept."""


def _is_of_the_machine(error: Exception) -> bool:
    """Whether no request is to blame: a full disk or memory, no more files that may be open, a device that fails."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EIO, errno.EROFS)
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in full)


def _log_forged(what: str, error: Exception) -> None:
    """One line about a request that Gradio fails at; the page does not send such, and its stack would only fill the log."""
    _LOGGER.warning("A request %s that the page does not send: %s: %.200r", what, type(error).__name__, str(error))
    _LOGGER.debug("Its stack", exc_info=error)


class Guard:
    """Refuses requests that the page does not make, or that there is no room for, and tells browsers to load nothing from
    elsewhere.

    Args:
        limits: of what visitors may upload.
    """

    def __init__(self, app: ASGIApp, limits: DemoLimits):
        self.app, self.limits = app, limits
        self._incoming = 0  # bytes of the uploads at work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if _REFUSED.search(scope["path"]):
            await PlainTextResponse("This is not served here.", status_code=403)(scope, receive, send)
            return

        if _UPLOAD.search(scope["path"]) and scope["method"] == "POST":
            await self._serve_upload(scope, receive, send)
        else:
            await self._serve(scope, receive, send)

    async def _serve_upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets an upload through if there is room for it, with those that are on their way. Its size has to be known before."""
        length = Headers(scope=scope).get("content-length", "")
        if not length.isdecimal():
            await PlainTextResponse("An upload needs its length.", status_code=411)(scope, receive, send)
            return
        if int(length) > self.limits.max_bytes + _FORM_BYTES:
            refusal = PlainTextResponse(f"A file may have {self.limits.max_mb:g} MB.", status_code=413)
            await refusal(scope, receive, send)
            return
        self._incoming += int(length)
        try:
            await run_in_threadpool(self._check_room)
        except MediaError as error:
            await PlainTextResponse(str(error), status_code=507)(scope, receive, send)
        else:
            await self._serve(scope, receive, send)
        finally:
            self._incoming -= int(length)

    def _check_room(self) -> None:
        folder = gr.utils.get_upload_folder()
        delete_leftovers(folder, KEPT_SECONDS)
        self.limits.check_room(folder, self._incoming)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        started: list[bool] = []

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer")]
                message = {**message, "headers": [*message.get("headers", []), *own]}
                started.append(True)
            await send(message)

        try:
            await self.app(scope, receive, send_with_policy)
        except Exception as error:
            if _is_of_the_machine(error):
                raise
            _log_forged(f"of {scope['path']!r:.100}", error)
            if not started:
                refusal = PlainTextResponse("This request is not one of the page.", status_code=400)
                await refusal(scope, receive, send)


class DemoApp(gr.Blocks):
    """The page as a Gradio app that is launched with its limits, style and rules.

    Args:
        routes: further routes of the server.
    """

    def __init__(self, limits: DemoLimits, routes: Sequence[BaseRoute] = (), **options: Any):
        # An hour after it was given, a visitor's file is deleted
        super().__init__(analytics_enabled=False, delete_cache=(600, KEPT_SECONDS), **options)
        self.limits, self.own_routes = limits, list(routes)

    def launch(self, *args: Any, **options: Any) -> Any:
        """As `gradio.Blocks.launch`, with the page's own settings where none are given."""
        own = {
            "app_kwargs": {"middleware": [Middleware(Guard, limits=self.limits)], "routes": self.own_routes},
            "allowed_paths": [],
            "css": style(),
            "enable_monitoring": False,
            "footer_links": ["settings"],
            "head": f"<script>{script()}</script>",
            "max_file_size": self.limits.max_bytes,
            "mcp_server": False,
            "pwa": False,
            "quiet": True,
            "run_history": False,
            "share": False,
            "ssr_mode": False,
            "theme": gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        }
        return super().launch(*args, **{**own, **options})

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> Any:
        """As Gradio does, but a file is one that was uploaded: an address would be fetched without the page's limits.

        Raises:
            gr.Error: a value is not what the page sends. The log has one line of it, not the stack.
        """
        if _has_address(inputs):
            raise gr.Error("A file has to be uploaded; give a link as a link.", print_exception=False)
        try:
            return await super().preprocess_data(block_fn, inputs, *args, **kwargs)
        except gr.Error as error:
            raise gr.Error(html.escape(str(error.message)), print_exception=False) from None
        except Exception as error:
            if _is_of_the_machine(error):
                raise
            _log_forged(f"for {block_fn.name}", error)
            raise gr.Error("This request is not one of the page: load it anew.", print_exception=False) from None


def _has_address(value: Any) -> bool:
    """Whether a file in what a request gives is no path."""
    if isinstance(value, dict):
        path = value.get("path")
        is_address = isinstance(path, str) and re.match(r"\s*[a-z][a-z0-9+.-]+:", path, re.IGNORECASE) is not None
        return is_address or any(map(_has_address, value.values()))
    return isinstance(value, list) and any(map(_has_address, value))
