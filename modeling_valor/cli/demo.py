# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`valor demo`: a page to try a checkpoint on."""

import os
import signal
import sys
import tempfile
from typing import Annotated

import typer

from .arguments import Device, Dtype, check_model, check_port, load, new_app


app = new_app()

_LIMITS = "Limits"


@app.command()
def demo(
    checkpoint: Annotated[str, typer.Argument(help="Folder or Hub name of a converted or trained checkpoint.")],
    index: Annotated[
        str | None, typer.Option(help="Index to search, which `valor index` made with the same checkpoint.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 7860,
    max_mb: Annotated[float, typer.Option(rich_help_panel=_LIMITS, help="Largest file, in MB.")] = 100.0,
    max_total_mb: Annotated[
        float, typer.Option(rich_help_panel=_LIMITS, help="All files of visitors that are kept at once, in MB.")
    ] = 2000.0,
    max_seconds: Annotated[
        float, typer.Option(rich_help_panel=_LIMITS, help="How much of a file is used, from its beginning.")
    ] = 600.0,
    time_limit: Annotated[
        float, typer.Option(metavar="SECONDS", rich_help_panel=_LIMITS, help="Longest work on one request.")
    ] = 120.0,
    allow_private: Annotated[
        bool,
        typer.Option(
            "--allow-private",
            rich_help_panel=_LIMITS,
            help="Accept links to addresses that are not public, such as those of the local network.",
        ),
    ] = False,
    device: Device = None,
    dtype: Dtype = "auto",
) -> int:
    """Serve a page that describes videos and sounds, answers questions about them, and searches an index.

    It needs Gradio (`pip install modeling-valor[demo]`) and no internet. Files that visitors give are deleted an hour later,
    and when the command ends; of this machine's files only the hits of the index are served.
    """
    from .. import ValorForCaptioning
    from ..demo import DemoLimits, build_app
    from .indexes import open_index

    limits = DemoLimits(
        max_mb=max_mb,
        max_total_mb=max_total_mb,
        max_seconds=max_seconds,
        work_seconds=time_limit,
        allow_private=allow_private,
    )
    check_port(host, port)
    if index is not None:
        open_index(index, needs_model=False)  # before the model is loaded
    check_model(checkpoint, "CHECKPOINT")
    model, processor = load(ValorForCaptioning, checkpoint, device, dtype)
    # As at Ctrl-C, so that what visitors gave is deleted
    kept = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # A folder of this process alone, so that files of other Gradio apps are out of reach
        with tempfile.TemporaryDirectory(prefix="valor-demo-", ignore_cleanup_errors=True) as folder:
            os.environ["GRADIO_TEMP_DIR"] = folder
            page = build_app(model, index, processor=processor, limits=limits)
            print(f"valor demo: listening on http://{host}:{port} until Ctrl-C.", file=sys.stderr)
            page.launch(server_name=host, server_port=port)
    finally:
        signal.signal(signal.SIGTERM, kept)
    return 0
