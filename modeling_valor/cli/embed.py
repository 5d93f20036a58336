# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`valor embed`: token embeddings of media as Parquet or safetensors, for a search engine of your own."""

import json
import os
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from .arguments import (
    ComputeDtype,
    Device,
    Json,
    MediaFiles,
    Modalities,
    Model,
    Segments,
    Stride,
    check_model,
    choose_device,
    choose_dtype,
    new_app,
)
from .index import INTERRUPTED
from .indexes import DecodingProcesses, SegmentBatch, SegmentFrames, SegmentSeconds


app = new_app()


@app.command()
def embed(
    files: MediaFiles,
    model: Model,
    output: Annotated[str, typer.Option(help="File to write, .parquet or .safetensors.")],
    segment_seconds: SegmentSeconds = 10.0,
    stride: Stride = None,
    segments: Segments = "fixed",
    modalities: Modalities = "av",
    num_frames: SegmentFrames = None,
    device: Device = None,
    dtype: ComputeDtype = "auto",
    batch_size: SegmentBatch = 16,
    workers: DecodingProcesses = None,
    as_json: Json = False,
) -> int:
    """Write token embeddings of media to a file, for a search engine of your own.

    Files are cut into segments; each frame and each audio clip of 5.12 s of a segment is a row: source, start and end of
    the segment, modality (v or a), time, weight (f(e) of the paper's eq. 3, before the softmax over a segment's rows) and
    embedding. Files that the output has already are passed over if they are unchanged. An interrupted run keeps what is
    done beside the output, and the same command goes on. The exit status is 1 if a file, or a part of one, could not be read.
    """
    import torch
    from transformers.utils import logging

    from ..search.embedding import EmbeddingModel
    from ..search.export import check_output, embed_files
    from ..search.reading import Segmentation

    check_output(output)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    place = choose_device(device)
    kind = choose_dtype("valor embed", dtype, place, check_model(model))
    loaded = EmbeddingModel(model, device=place, dtype=None if kind == "auto" else getattr(torch, kind))
    frames = loaded.processor.video_processor.num_frames if num_frames is None else num_frames
    cut = Segmentation(
        segment_seconds, segment_seconds if stride is None else stride, segments == "shots", modalities, frames
    )
    try:
        report = embed_files(
            files,
            output,
            loaded,
            cut,
            batch_size=batch_size,
            workers=min(8, (os.cpu_count() or 1) // 2) if workers is None else workers,
            progress=not as_json,
        )
    except KeyboardInterrupt:
        kept = f"{output}.unfinished"
        done = f" What is done is kept in {kept}; the same command goes on from there." if os.path.exists(kept) else ""
        print(f"valor embed: interrupted.{done}", file=sys.stderr)
        return INTERRUPTED
    print(json.dumps({"output": output, **asdict(report)}) if as_json else f"{output}: {report.describe('embedded')}")
    return int(bool(report.failures))
