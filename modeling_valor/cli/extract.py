# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`valor extract`: decode the frames and the audio of a dataset once, to a folder that training reads faster."""

import json
import os
import shlex
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from .arguments import Annotations, Json, MaxFailures, Processes, new_app


app = new_app()


@app.command()
def extract(
    source: Annotated[
        str,
        typer.Argument(
            help="Folder with metadata.jsonl, folder of the 2023 layout, benchmark, tar shards or dataset on the Hub."
        ),
    ],
    output: Annotated[str, typer.Argument(help="Folder to write to; an interrupted run resumes where it stopped.")],
    split: Annotated[str | None, typer.Option(help="Split of the source.")] = None,
    media: Annotated[
        str | None,
        typer.Option(help="Folder of the media, if the source is a benchmark or keeps them in another folder."),
    ] = None,
    annotations: Annotations = None,
    frames_per_second: Annotated[float | None, typer.Option(help="Frames of each second.", show_default="2")] = None,
    num_frames: Annotated[int | None, typer.Option(min=1, help="Frames of each video, instead of a rate.")] = None,
    short_side: Annotated[
        int, typer.Option(min=1, help="Shorter side, in pixels, to which larger frames are resized.")
    ] = 256,
    workers: Processes = None,
    max_failures: MaxFailures = 0.05,
    as_json: Json = False,
) -> int:
    """Decode the frames and the audio of a dataset once, to a folder that training reads faster."""
    if frames_per_second is not None and num_frames is not None:
        raise typer.BadParameter("give a rate or a number of frames, not both.", param_hint="'--num-frames'")

    from ..data.extract import ExtractOptions
    from ..data.extract import extract as extract_samples
    from ..data.failures import TooManyFailures
    from ..data.readers import load_samples

    rate = 2.0 if frames_per_second is None else frames_per_second
    try:
        result = extract_samples(
            load_samples(source, split, media=media, annotations=annotations),
            output,
            ExtractOptions(rate, num_frames, short_side),
            workers=workers,
            max_failures=max_failures,
            progress=not as_json,
            origin=source if split is None else f"{source}, {split}",
        )
    except (TooManyFailures, ValueError, OSError) as error:
        print(f"valor extract: {error}", file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps(asdict(result)))
        return 0
    print(f"{output}: {result.samples} samples, {result.extracted} of them decoded now.")
    if result.samples:
        print(f"To train on them: {_training_command(output, os.cpu_count() or 1)}")
    for what, found in (
        ("could not be read", result.failures),
        ("are damaged and used up to the damage", result.damaged),
    ):
        if found:
            print(f"{len(found)} samples {what}:", *list(found.values())[:10], sep="\n  ", file=sys.stderr)
            if len(found) > 10:
                print(f"  and {len(found) - 10} more", file=sys.stderr)
    return 0


def _training_command(folder: str, cores: int) -> str:
    """A training that reads a folder of extracted samples as fast as it can be read."""
    options = f"--dataloader_num_workers {min(cores, 8)} --preprocess_on_device"
    return f"valor train TASK --dataset {shlex.quote(folder)} --do_train {options} ..."
