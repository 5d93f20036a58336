# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The application: transformers' server, for one VALOR model, with the endpoints of `routes` and a guard before it."""

import inspect
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from transformers.cli.serving.server import build_server

from .chat import ValorChatHandler
from .errors import handle_errors
from .guard import Guard
from .routes import make_router
from .service import Service


KEPT_PATHS = ("/v1/chat/completions", "/v1/models", "/openapi.json")
"""What is served of transformers' server. The rest loads and unloads models, or is for other kinds of models."""


def build_app(service: Service) -> Guard:
    """The ASGI application of a service, whose model may be loaded later."""
    handlers: dict[str, Any] = dict.fromkeys(inspect.signature(build_server).parameters)
    app: FastAPI = build_server(
        **{
            **handlers,
            "model_manager": service,
            "generation_state": service,
            "chat_handler": ValorChatHandler(service),
            "enable_cors": service.settings.enable_cors,
        }
    )
    app.title, app.version = "valor serve", "1"
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", None) in KEPT_PATHS]
    app.include_router(make_router(service))

    @app.get("/health")
    async def health() -> JSONResponse:
        status, content = service.health()
        return JSONResponse(content, status_code=status)

    handle_errors(app)
    return Guard(app, service.settings)
