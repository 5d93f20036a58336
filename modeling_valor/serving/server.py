# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""A server in a process of its own: from the first connection to a clean end."""

import logging
import math
import signal
from typing import Any

import uvicorn

from .app import build_app
from .service import Service


def run_server(service: Service, host: str, port: int, log_level: str = "info") -> None:
    """Serves until SIGINT or SIGTERM, then lets the requests at work finish, for `drain_seconds` at most.

    The model is loaded once the server listens; `/health` says when it is ready.

    Raises:
        BaseException: what the loading of the model raised.
        SystemExit: the port is taken.
    """
    logging.getLogger("transformers.cli.serving").setLevel(logging.ERROR)  # it logs every request as a warning
    config = uvicorn.Config(
        build_app(service),
        host=host,
        port=port,
        log_level=log_level,
        timeout_graceful_shutdown=math.ceil(service.settings.drain_seconds),
        server_header=False,
    )
    server = _Server(config, service)
    # uvicorn raises the signals that it took once more when it has ended; they shall not end the process before its turn
    kept = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run()
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
    if service.error is not None:
        raise service.error


class _Server(uvicorn.Server):
    """Loads the model once it listens, and says in `/health` when it stops."""

    def __init__(self, config: uvicorn.Config, service: Service):
        super().__init__(config)
        self.service = service

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            self.service.start(on_error=self._give_up)

    async def shutdown(self, sockets: Any = None) -> None:
        self.service.is_stopping = True
        await super().shutdown(sockets)

    def _give_up(self) -> None:
        self.should_exit = True
