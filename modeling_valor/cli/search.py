# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`valor search`: find videos, audio files or images by a text, best match first."""

import json
import sys
from typing import Annotated

import typer

from .arguments import (
    BatchSize,
    CheckpointCommand,
    Device,
    Dtype,
    Json,
    MediaFiles,
    Modalities,
    Model,
    NumAudioClips,
    NumFrames,
    Workers,
    has_text,
    list_samples,
    load,
    new_app,
    on_one_line,
)


app = new_app()


@app.command(cls=CheckpointCommand)
def search(
    text: Annotated[str, typer.Argument(callback=has_text, help="Text to search for.")],
    files: MediaFiles,
    model: Model,
    modalities: Modalities = "av",
    num_frames: NumFrames = None,
    num_audio_clips: NumAudioClips = None,
    top: Annotated[int | None, typer.Option(min=1, help="Number of files to print.", show_default="all")] = None,
    device: Device = None,
    dtype: Dtype = "auto",
    batch_size: BatchSize = 8,
    workers: Workers = 0,
    as_json: Json = False,
) -> int:
    """Find videos, audio files or images by a text, best match first.

    A file of any length is represented by a few evenly spaced frames and a few audio clips. What lies between them is not
    used: give more for a long file. `--model CHECKPOINT --help` shows a checkpoint's numbers. The exit status is 1 if any
    file cannot be read.
    """
    import torch
    from tqdm import tqdm

    from .. import ValorForRetrieval
    from ..configuration_valor import GROUP_OF_LETTERS
    from ..data.samples import Sample
    from ..evaluation.loader import MediaOptions, media_batches

    names, num_empty = list_samples("valor search", files)
    if not names:
        return 1
    loaded, processor = load(ValorForRetrieval, model, device, dtype)
    samples = [Sample(id=name, video=name, audio=name) for name in names]
    rows = range(len(samples))
    batches = [rows[start : start + batch_size] for start in rows[::batch_size]]
    options = MediaOptions(modalities, num_frames, num_audio_clips, workers)

    scores: dict[str, float] = {}
    query = loaded.embed_texts(processor(text=text, return_tensors="pt").to(loaded.device))
    with tqdm(total=len(samples), unit="file", disable=None) as progress:
        for batch in media_batches(samples, processor, batches, options):
            for failure in batch.failures.values():
                progress.write(f"valor search: {failure.reason.removeprefix(failure.id + ': ')}", file=sys.stderr)
            if batch.indices:
                inputs = {
                    name: value.to(loaded.device, loaded.dtype if value.is_floating_point() else None)
                    for name, value in batch.inputs.items()
                }
                with torch.no_grad():
                    media = loaded.embed_media(inputs)
                    row = loaded.compute_similarity(**query, **media, group=GROUP_OF_LETTERS[modalities])[0]
                scores.update(zip((names[index] for index in batch.indices), row.tolist(), strict=True))
            progress.update(len(batch.indices) + len(batch.failures))
    for file, score in sorted(scores.items(), key=lambda pair: -pair[1])[:top]:
        print(json.dumps({"file": file, "score": score}) if as_json else f"{score:.3f}  {on_one_line(file)}")
    return int(num_empty > 0 or len(scores) < len(samples))
