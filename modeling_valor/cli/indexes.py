# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What commands share that make or use an index: the options of segments, and the index itself."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .arguments import SEGMENTS_PANEL, check_model, choose_device


if TYPE_CHECKING:
    from ..search import ValorIndex

IndexPath = Annotated[
    str, typer.Option(help="Folder or object store of the index, or postgresql://... for a server with pgvector.")
]
SegmentSeconds = Annotated[
    float, typer.Option(metavar="SECONDS", rich_help_panel=SEGMENTS_PANEL, help="Length of a segment.")
]
SegmentFrames = Annotated[
    int | None,
    typer.Option(
        min=1,
        rich_help_panel=SEGMENTS_PANEL,
        help="Frames of each segment; sound is heard all.",
        show_default="the checkpoint's",
    ),
]
_OWN = "the index's, or {}"
OwnSeconds = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        rich_help_panel=SEGMENTS_PANEL,
        help="Length of a segment.",
        show_default=_OWN.format("10"),
    ),
]
OwnStride = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        rich_help_panel=SEGMENTS_PANEL,
        help="From the beginning of one segment to that of the next.",
        show_default=_OWN.format("the length of a segment"),
    ),
]
OwnSegments = Annotated[
    Literal["fixed", "shots"] | None,
    typer.Option(
        rich_help_panel=SEGMENTS_PANEL,
        help="Segments of one length, or the shots of a film (PySceneDetect).",
        show_default=_OWN.format("fixed"),
    ),
]
OwnModalities = Annotated[
    Literal["av", "v", "a"] | None,
    typer.Option(
        rich_help_panel=SEGMENTS_PANEL,
        help="Video and audio (av), or one of them (v, a).",
        show_default=_OWN.format("av"),
    ),
]
OwnFrames = Annotated[
    int | None,
    typer.Option(
        min=1,
        rich_help_panel=SEGMENTS_PANEL,
        help="Frames of each segment; sound is heard all.",
        show_default=_OWN.format("the checkpoint's"),
    ),
]
SegmentBatch = Annotated[int, typer.Option(min=1, help="Segments that are embedded and written together.")]
DecodingProcesses = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=0,
        help="Processes that decode; 0 decodes in the main process.",
        show_default="one for every two cores, 8 at most",
    ),
]


def open_index(
    path: str,
    model: str | None = None,
    device: str | None = None,
    dtype: str = "auto",
    make: bool = False,
    needs_model: bool = True,
) -> "ValorIndex":
    """The index at `path`, with the model that `--model`, `--device` and `--dtype` name, by default its own.

    Args:
        make: whether there may be none yet, so that adding files makes it.
        needs_model: check that the model is available, which is loaded when it is used.

    Raises:
        ValueError: there is no index, or no model for it, or no such device.
    """
    import torch
    from transformers.utils import logging

    from ..search import ValorIndex, open_backend

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    backend = open_backend(path)
    about = backend.about()
    backend.close()
    shown = backend.path  # without a password
    if about is None and not make:
        raise ValueError(f"--index {shown}: there is no index here; `valor index FILE... --index {shown}` makes one.")
    if about is None and model is None:
        raise ValueError(f"--index {shown}: there is no index here yet; give --model CHECKPOINT to make one.")
    if needs_model:
        _check_model_of(shown, model, about)
    chosen = None if dtype == "auto" else getattr(torch, dtype)
    return ValorIndex(path, model=model, device=choose_device(device), dtype=chosen)


def _check_model_of(path: str, model: str | None, about: dict[str, Any] | None) -> None:
    try:
        check_model(model or (about or {})["model"])
    except ValueError as error:
        if model is not None:
            raise
        raise ValueError(f"{error} It is the model of the index {path}: give its folder as --model.") from error
