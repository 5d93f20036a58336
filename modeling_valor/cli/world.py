# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`valor world`: render a folder of labelled videos with sound."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..world import write_portraits, write_world
from .arguments import Json, Processes, new_app


app = new_app()


@app.command()
def world(
    directory: Annotated[str, typer.Argument(help="Folder to write to; an interrupted run resumes where it stopped.")],
    split: Annotated[
        Literal["train", "val", "test"], typer.Option(help="The test split has combinations that are not in train.")
    ] = "train",
    count: Annotated[int, typer.Option(min=1, help="Number of videos, or of images with --portraits.")] = 8,
    seed: Annotated[int, typer.Option(help="Random seed; each seed gives other videos.")] = 0,
    portraits: Annotated[
        bool,
        typer.Option(
            "--portraits", help="Write still images of single things instead of videos; they have no splits."
        ),
    ] = False,
    things: Annotated[
        int | None, typer.Option(min=1, max=2, help="Only videos that show this number of things.")
    ] = None,
    about: Annotated[
        Literal["sight", "sound", "both", "order", "time"] | None,
        typer.Option(help="Write all questions of this kind and no others."),
    ] = None,
    workers: Processes = None,
    as_json: Json = False,
) -> int:
    """Render a folder of labelled videos with sound."""
    if portraits and (things or about):
        raise typer.BadParameter(
            "--things and --about choose among videos: leave them out with --portraits.", param_hint="'--portraits'"
        )
    summary: dict[str, Any] = {"directory": directory, "seed": seed}
    try:
        if portraits:
            write_portraits(directory, count, seed, workers=workers, progress=not as_json)
            summary |= {"portraits": count}
            message = f"{directory}: {count} portraits."
        else:
            rendered = write_world(
                directory, split, count, seed, workers=workers, progress=not as_json, things=things, about=about
            )
            summary |= {"split": split, "clips": count, "rendered": rendered}
            message = f"{directory}: {count} videos of the {split} split, {rendered} of them rendered now."
            if further := len(list(Path(directory).glob("clip-*.mp4"))) - count:
                message += f" {further} more are there from before, which metadata.jsonl does not name."
    except (ValueError, OSError) as error:
        print(f"valor world: {error}", file=sys.stderr)
        return 1
    print(json.dumps(summary) if as_json else message)
    return 0
