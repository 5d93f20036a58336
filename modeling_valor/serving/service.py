# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The one model of a server, from the moment at which the server starts: loading, ready, or stopping."""

import logging
import threading
from collections.abc import Callable
from typing import Any

from .engine import Engine
from .errors import RequestError
from .settings import ServerSettings


_LOGGER = logging.getLogger("uvicorn.error")  # which shows the other steps of a server's start


class Service:
    """A model that is loaded while the server already answers `/health`.

    It is also what transformers' server takes for its store of models, and for its state of generation.

    Args:
        name: what clients call the model.
        load: returns the engine; takes its time.
    """

    def __init__(self, name: str, load: Callable[[], Engine], settings: ServerSettings):
        self.name, self.settings = name, settings
        self.error: BaseException | None = None
        """Why the model could not be loaded."""
        self.is_stopping = False
        self._load = load
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """The engine.

        Raises:
            RequestError: 503, it is not loaded yet.
        """
        if self._engine is None:
            raise RequestError(503, "The model is being loaded.", code="loading", headers={"Retry-After": "5"})
        return self._engine

    def load(self) -> None:
        """Loads the model, now."""
        self._engine = self._load()

    def start(self, on_error: Callable[[], None]) -> None:
        """Loads the model in a thread; calls `on_error` where it cannot be loaded."""

        def load() -> None:
            try:
                self.load()
                _LOGGER.info(f"The model {self.name} is ready")
            except BaseException as error:
                self.error = error
                on_error()

        threading.Thread(target=load, name="valor-load", daemon=True).start()

    def health(self) -> tuple[int, dict[str, Any]]:
        """Status and content of `/health`: 200 only where requests are answered."""
        if self.error is not None or self.is_stopping or self._engine is None:
            status = "failed" if self.error is not None else "stopping" if self.is_stopping else "loading"
            return 503, {"status": status, "model": self.name}
        engine = self._engine
        return 200, {
            "status": "ok",
            "model": self.name,
            "reading": {"waiting": engine.readers.waiting, "running": engine.readers.running},
            "computing": {"waiting": engine.queue.waiting, "running": engine.queue.running},
        }

    def shutdown(self) -> None:
        """Ends the threads of the engine."""
        self.is_stopping = True
        if self._engine is not None:
            self._engine.stop()

    def list_models(self) -> list[dict[str, Any]]:
        """What `/v1/models` lists."""
        return [{"id": self.name, "object": "model", "created": 0, "owned_by": "local"}]

    get_gen_models = list_models  # the name in transformers 5.23
