# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`valor caption`: describe video and audio files, or answer a question about them."""

import json
import logging
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from .arguments import (
    BatchSize,
    CheckpointCommand,
    ComputeDtype,
    Device,
    Json,
    MediaFiles,
    Modalities,
    Model,
    NumAudioClips,
    NumFrames,
    Segments,
    Stride,
    Workers,
    has_text,
    list_samples,
    load,
    new_app,
    on_one_line,
)
from .timelines import Every, Format, Index, Output, check_output, choose_boundaries, describe_segments


app = new_app()


@app.command(cls=CheckpointCommand)
def caption(
    files: MediaFiles,
    model: Model,
    question: Annotated[
        list[str] | None,
        typer.Option(callback=has_text, help="Answer this question instead of describing the file; may be repeated."),
    ] = None,
    modalities: Modalities = "av",
    num_frames: NumFrames = None,
    num_audio_clips: NumAudioClips = None,
    num_beams: Annotated[
        int | None, typer.Option(min=1, help="Number of beams.", show_default="the checkpoint's")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest text, in tokens.", show_default="the checkpoint's")
    ] = None,
    every: Every = None,
    stride: Stride = None,
    segments: Segments = "fixed",
    output: Output = None,
    format: Format = None,
    index: Index = None,
    device: Device = None,
    dtype: ComputeDtype = "auto",
    batch_size: BatchSize = 8,
    workers: Workers = 0,
    as_json: Json = False,
) -> int:
    """Describe video and audio files, or answer a question about them.

    A file of any length is represented by a few evenly spaced frames and a few audio clips. What lies between them is not
    used: give more for a long file, describe a part of it (`film.mp4#t=30,40`), or all of it with `--every 10`. `--model CHECKPOINT --help` shows a checkpoint's numbers. The exit status is 1 if any
    file cannot be described.
    """
    from tqdm import tqdm
    from transformers.pipelines.pt_utils import KeyDataset

    from .. import (
        AudiovisualCaptioningPipeline,
        AudiovisualQuestionAnsweringPipeline,
        ValorForCaptioning,
        ValorForQuestionAnswering,
    )

    logging.getLogger("modeling_valor.pipelines_base").setLevel(logging.ERROR)  # what is skipped is printed below
    pipeline_class, model_class = AudiovisualCaptioningPipeline, ValorForCaptioning
    if question:
        pipeline_class, model_class = AudiovisualQuestionAnsweringPipeline, ValorForQuestionAnswering
    samples, num_empty = list_samples("valor caption", files)
    if not samples:
        return 1
    boundaries = choose_boundaries(every, stride, segments, index, batch_size)
    check_output(output, format, samples, has_segments=boundaries is not None)
    if boundaries is not None and question:
        raise typer.BadParameter(
            "--question is about whole files: leave out --every, --segments and --index, or name a part of the file."
        )
    loaded, processor = load(model_class, model, device, dtype, "valor caption")
    describe = pipeline_class(model=loaded, processor=processor, device=loaded.device)
    options = {
        "modalities": modalities,
        "num_frames": num_frames,
        "num_audio_clips": num_audio_clips,
        "num_beams": num_beams,
        "max_new_tokens": max_new_tokens,
    }
    options = {name: value for name, value in options.items() if value is not None}
    if boundaries is not None:
        made = describe_segments(
            describe, samples, boundaries, output, format, as_json, batch_size=batch_size, **options
        )
        return int(made or num_empty > 0)
    asked = {"question": question} if question else {}
    results = describe(
        KeyDataset([{"sample": {"video": sample, **asked}} for sample in samples], "sample"),
        batch_size=batch_size,
        num_workers=workers,
        on_error="skip",
        **options,
    )
    failed = num_empty > 0
    progress = tqdm(zip(samples, results, strict=True), total=len(samples), unit="file", disable=None)
    for file, texts in progress:
        texts = texts if question else [texts]
        if error := texts[0][0].get("error"):
            progress.write(f"valor caption: {error}", file=sys.stderr)
            failed = True
            continue
        if coverage := texts[0][0].get("coverage"):
            progress.write(_coverage_line(file, coverage), file=sys.stderr)
        for asked_now, (result, *_) in zip(question or (None,), texts, strict=True):
            text = result.pop(pipeline_class.text_key)
            progress.write(_result_line(file, asked_now, text, result, as_json, with_question=len(texts) > 1))
    return int(failed)


def _coverage_line(file: str, coverage: Mapping[str, Any]) -> str:
    """What was used of a long file."""
    used = [
        f"{coverage[name]} {noun}{'' if coverage[name] == 1 else 's'}"
        for name, noun in (("frames", "frame"), ("audio_clips", "audio clip"))
        if name in coverage
    ]
    return (
        f"valor caption: of the {coverage['duration']:.0f} seconds of {on_one_line(file)} only {' and '.join(used)} were used "
        "(--num-frames, --num-audio-clips)."
    )


def _result_line(
    file: str, question: str | None, text: str, result: Mapping[str, Any], as_json: bool, with_question: bool
) -> str:
    if as_json:
        asked = {} if question is None else {"question": question}
        return json.dumps({"file": file, **asked, "text": text, **result})
    return f"{on_one_line(file)}: {question} {text}" if with_question else f"{on_one_line(file)}: {text}"
