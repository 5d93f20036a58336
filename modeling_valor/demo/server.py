# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The server of the page: what it lets through, and nothing that comes from elsewhere."""

import re
from collections.abc import Sequence
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .clips import DemoLimits
from .pictures import script, style


POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; media-src 'self' data: blob: http: https:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'"
)
"""Content-Security-Policy of the page: only media of an index that are elsewhere come from elsewhere."""

_REFUSED = re.compile(
    r"/gradio_api/(proxy=|file[=/]\s*[a-z][a-z0-9+.-]+:|deep_link|component_server|run-history)", re.IGNORECASE
)
"""What Gradio would fetch from other machines on a visitor's behalf, and what the page does not use."""


class Guard:
    """Refuses requests that the page does not make, and tells browsers to load nothing from elsewhere."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if _REFUSED.search(scope["path"]):
            await PlainTextResponse("This is not served here.", status_code=403)(scope, receive, send)
            return

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer")]
                message = {**message, "headers": [*message.get("headers", []), *own]}
            await send(message)

        await self.app(scope, receive, send_with_policy)


class DemoApp(gr.Blocks):
    """The page as a Gradio app that is launched with its limits, style and rules.

    Args:
        routes: further routes of the server.
    """

    def __init__(self, limits: DemoLimits, routes: Sequence[BaseRoute] = (), **options: Any):
        # An hour after it was given, a visitor's file is deleted
        super().__init__(analytics_enabled=False, delete_cache=(600, 3600), **options)
        self.limits, self.own_routes = limits, list(routes)

    def launch(self, *args: Any, **options: Any) -> Any:
        """As `gradio.Blocks.launch`, with the page's own settings where none are given."""
        own = {
            "app_kwargs": {"middleware": [Middleware(Guard)], "routes": self.own_routes},
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
        """As Gradio does, but a file is one that was uploaded: an address would be fetched without the page's limits."""
        if _has_address(inputs):
            raise gr.Error("A file has to be uploaded; give a link as a link.", print_exception=False)
        return await super().preprocess_data(block_fn, inputs, *args, **kwargs)


def _has_address(value: Any) -> bool:
    """Whether a file in what a request gives is no path."""
    if isinstance(value, dict):
        path = value.get("path")
        is_address = isinstance(path, str) and re.match(r"\s*[a-z][a-z0-9+.-]+:", path, re.IGNORECASE) is not None
        return is_address or any(map(_has_address, value.values()))
    return isinstance(value, list) and any(map(_has_address, value))
