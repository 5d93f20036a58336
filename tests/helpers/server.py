# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""A server of valor-tiny for tests: the application in this process, or on a port of the loopback."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modeling_valor import ValorForCaptioning, ValorProcessor


REPOSITORY = Path(__file__).resolve().parents[2]
CHECKPOINT = str(REPOSITORY / "hub_configs" / "valor-tiny")
MEDIA = REPOSITORY / "examples" / "media"


def make_service(index: str | None = None, **settings: Any) -> Any:
    """A service of valor-tiny, loaded, that gives access to `examples/media`."""
    from modeling_valor.search import ValorIndex
    from modeling_valor.serving import Engine, ServerSettings, Service

    chosen = ServerSettings(**{"media_root": str(MEDIA), "readers": 2, **settings})
    model = ValorForCaptioning.from_pretrained(CHECKPOINT).eval()
    processor = ValorProcessor.from_pretrained(CHECKPOINT)
    opened = None if index is None else ValorIndex(index, model, processor)
    service = Service("valor-tiny", lambda: Engine("valor-tiny", model, processor, chosen, opened), chosen)
    service.load()
    return service


@contextlib.contextmanager
def serve_on_loopback(app: Any) -> Iterator[str]:
    """The address of an application that is served by a thread."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
