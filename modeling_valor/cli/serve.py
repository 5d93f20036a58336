# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`valor serve`: chat completions about videos and sounds, embeddings, search and reranking over HTTP."""

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from .arguments import Device, Dtype, check_model, check_port, choose_device, load, new_app
from .indexes import open_index


if TYPE_CHECKING:
    from ..serving import Engine

_LIMITS = "Limits"
_SOURCES = "Media that requests may name"

app = new_app()


@app.command()
def serve(
    model: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT", help="Folder or Hub name of a converted or trained checkpoint.", show_default=False
        ),
    ],
    index: Annotated[
        str | None,
        typer.Option(help="Index for /v1/search, made with this checkpoint: a folder, or postgresql://...."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all of this machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 for a free one.")] = 8000,
    name: Annotated[
        str | None,
        typer.Option(help="What clients call the model.", show_default="the last part of a folder, or the Hub name"),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="VALOR_API_KEY", help="Key that clients must send.", show_default="none is asked for"),
    ] = None,
    enable_cors: Annotated[
        bool, typer.Option("--enable-cors", help="Let pages of other sites send requests from a browser.")
    ] = False,
    device: Device = None,
    dtype: Dtype = "auto",
    max_batch: Annotated[
        int, typer.Option(min=1, rich_help_panel=_LIMITS, help="Requests that go through the model together.")
    ] = 16,
    max_wait_ms: Annotated[
        float, typer.Option(min=0, rich_help_panel=_LIMITS, help="Milliseconds that a request waits for others.")
    ] = 5.0,
    max_queue: Annotated[
        int,
        typer.Option(min=1, rich_help_panel=_LIMITS, help="Requests in the server; further ones are answered 503."),
    ] = 128,
    max_inputs: Annotated[
        int, typer.Option(min=1, rich_help_panel=_LIMITS, help="Texts and media of one request.")
    ] = 64,
    max_request_mb: Annotated[
        float, typer.Option(min=0.001, rich_help_panel=_LIMITS, help="Largest request, with the media inside, in MB.")
    ] = 64.0,
    max_download_mb: Annotated[
        float, typer.Option(min=0.001, rich_help_panel=_LIMITS, help="Largest file that is fetched, in MB.")
    ] = 256.0,
    timeout: Annotated[
        float, typer.Option(min=0.1, rich_help_panel=_LIMITS, metavar="SECONDS", help="Longest time of a request.")
    ] = 60.0,
    drain: Annotated[
        float,
        typer.Option(
            min=0, rich_help_panel=_LIMITS, metavar="SECONDS", help="Time to finish requests when the server stops."
        ),
    ] = 30.0,
    readers: Annotated[
        int, typer.Option(min=1, rich_help_panel=_LIMITS, help="Threads that fetch and decode media.")
    ] = 8,
    media_root: Annotated[
        str | None,
        typer.Option(rich_help_panel=_SOURCES, help="Folder whose files may be named.", show_default="no files"),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=_SOURCES,
            metavar="HOST[:PORT]",
            help="A host of a private network that media may be fetched from; may be repeated.",
            show_default="public addresses only",
        ),
    ] = None,
) -> int:
    """Answer requests about videos and sounds over HTTP, as OpenAI's API has them.

    `POST /v1/chat/completions` (also streamed) describes a video or answers a question about it: transformers' own server with
    requests batched. `POST /v1/embeddings` embeds texts and media, `POST /v1/search` searches the index, `POST /v1/rerank`
    orders media by a text, or texts by a medium. `GET /health` answers 200 once the model is loaded, `GET /v1/models` names it.
    SIGINT and SIGTERM end the server after the requests at work.
    """
    from transformers.utils.import_utils import is_serve_available

    if not is_serve_available():
        raise ImportError("a server needs fastapi, uvicorn and openai: pip install 'modeling-valor[serve]'")

    from .. import ValorForCaptioning
    from ..serving import Engine, MediaRules, ServerSettings, Service, run_server

    check_model(model, "CHECKPOINT")
    check_port(host, port)
    choose_device(device)
    if index is not None:
        open_index(index, model, needs_model=False).backend.close()
    settings = ServerSettings(
        max_batch=max_batch,
        max_wait_ms=max_wait_ms,
        max_queue=max_queue,
        max_request_mb=max_request_mb,
        max_download_mb=max_download_mb,
        max_inputs=max_inputs,
        timeout=timeout,
        drain_seconds=drain,
        readers=readers,
        api_key=api_key or None,
        media_root=media_root,
        allow_hosts=tuple(allow_host or ()),
        enable_cors=enable_cors,
    )
    MediaRules(settings)  # refuses what is wrong in them before the model is loaded
    served = name or (os.path.basename(os.path.abspath(model)) if os.path.isdir(model) else model)

    def load_engine() -> "Engine":
        from ..search import ValorIndex

        captioner, processor = load(ValorForCaptioning, model, device, dtype)
        opened = None
        if index is not None:
            opened = ValorIndex(index, captioner, processor)
            _ = opened.model  # refuses an index of another model
        return Engine(served, captioner, processor, settings, opened)

    if api_key is None and host not in ("127.0.0.1", "localhost", "::1"):
        print(
            f"valor serve: everybody who reaches {host} is answered; --api-key, or VALOR_API_KEY, asks for a key.",
            file=sys.stderr,
        )
    run_server(Service(served, load_engine, settings), host, port)
    return 0
