# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What `valor caption --every` and `--segments` do: a caption for each segment of the files."""

import functools
import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .arguments import SEGMENTS_PANEL, on_one_line


if TYPE_CHECKING:
    from ..pipelines import AudiovisualCaptioningPipeline
    from ..timelines import TimedCaption


Every = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        rich_help_panel=SEGMENTS_PANEL,
        help="Describe each segment of so many seconds, not the file as a whole.",
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        rich_help_panel=SEGMENTS_PANEL,
        help="Write subtitles (.vtt, .srt) or a row for each segment (.jsonl).",
    ),
]
Format = Annotated[
    Literal["vtt", "srt", "jsonl"] | None,
    typer.Option(rich_help_panel=SEGMENTS_PANEL, help="The format of --output.", show_default="by its suffix"),
]


def choose_boundaries(every: float | None, stride: float | None, segments: str) -> Any:
    """What `--every`, `--stride` and `--segments` ask for: a function of the duration, "shots", or None for whole files.

    Raises:
        typer.BadParameter: they do not go together, or are no lengths.
    """
    from ..media_segments import fixed_segments

    if segments == "shots":
        if every is not None or stride is not None:
            raise typer.BadParameter("--segments shots has segments of its own: leave out --every and --stride.")
        return "shots"
    if every is None:
        if stride is not None:
            raise typer.BadParameter("--stride needs --every.")
        return None
    try:
        fixed_segments(0.0, every, stride)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return functools.partial(fixed_segments, seconds=every, stride=stride)


def check_output(output: str | None, format: str | None, files: Sequence[str], has_segments: bool) -> None:
    """Refuses an output that would not hold what is asked for, before a model is loaded.

    Raises:
        typer.BadParameter: there is no such format or folder, the output is one of the films, or one file of subtitles would
            be of several of them.
    """
    from pathlib import Path

    from ..data.files import check_not_input
    from ..timelines import format_of

    if output is None:
        if format is not None:
            raise typer.BadParameter("--format is that of --output: name a file.")
        return
    if not has_segments:
        raise typer.BadParameter("--output is for captions of segments: add --every or --segments shots.")
    path = Path(output).absolute()
    if not path.parent.is_dir() or path.is_dir():
        raise typer.BadParameter(f"--output {output} is no file in a folder that is there.")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise typer.BadParameter(f"--output {output} cannot be written to: it, or its folder, is read-only.")
    try:
        check_not_input(output, files)
        chosen = format or format_of(output)
    except ValueError as error:
        raise typer.BadParameter(f"--output {error}") from error
    if chosen != "jsonl" and len(files) > 1:
        raise typer.BadParameter(
            f"--output {output} would hold the subtitles of {len(files)} files: describe them one by one, or write .jsonl."
        )


def describe_segments(
    describe: "AudiovisualCaptioningPipeline",
    files: Sequence[str],
    boundaries: Any,
    output: str | None,
    format: str | None,
    as_json: bool,
    **options: Any,
) -> bool:
    """Prints and writes the captions of all files, and returns whether something could not be described."""
    from tqdm import tqdm

    from ..media import MediaError
    from ..timelines import TimelineWriter

    failed = False
    with ExitStack() as stack:
        writer = None if output is None else stack.enter_context(TimelineWriter(output, format))
        progress = stack.enter_context(tqdm(unit="segment", disable=None))
        for file in files:
            broken: list[TimedCaption] = []
            try:
                for caption in _captions(describe, file, boundaries, options):
                    progress.update()
                    if writer is not None:
                        writer.write(caption, file)
                    if caption.text is None:
                        broken.append(caption)
                    else:
                        failed = _report(progress, file, broken) or failed
                        progress.write(_line(file, caption, as_json, with_file=len(files) > 1))
            except MediaError as error:
                progress.write(f"valor caption: {error}", file=sys.stderr)
                failed = True
            except KeyboardInterrupt:
                if writer is not None:
                    kept = f"{writer.number} segment{'' if writer.number == 1 else 's'} in {output} kept"
                    progress.write(f"valor caption: stopped at {file}; {kept}.", file=sys.stderr)
                raise
            failed = _report(progress, file, broken) or failed
    return failed


def _captions(describe: Any, file: str, boundaries: Any, options: dict[str, Any]) -> Any:
    from ..media import open_source
    from ..media_segments import shot_segments
    from ..timelines import caption_timeline

    processor = describe.processor
    with open_source(file, processor.media_limits or processor.video_processor.media_limits) as source:
        found = shot_segments(source) if boundaries == "shots" else boundaries
        yield from caption_timeline(describe, source, found, **options)


def _report(progress: Any, file: str, broken: "list[TimedCaption]") -> bool:
    """Says in one line which stretch of a file has no captions, and why, and forgets it; whether there was one."""
    if not broken:
        return False
    count = f"{len(broken)} segment{'' if len(broken) == 1 else 's'}"
    where = f"from {broken[0].start:.2f} to {broken[-1].end:.2f} seconds"
    progress.write(
        f"valor caption: {count} of {on_one_line(file)}, {where}, cannot be described: {broken[0].error}",
        file=sys.stderr,
    )
    broken.clear()
    return True


def _line(file: str, caption: "TimedCaption", as_json: bool, with_file: bool) -> str:
    from ..timelines.formats import timestamp

    if as_json:
        times = {"start": round(caption.start, 3), "end": round(caption.end, 3)}
        return json.dumps({"file": file, **times, "text": caption.text, "modalities": caption.modalities})
    name = f"{on_one_line(file)} " if with_file else ""
    return f"{name}{timestamp(caption.start)} --> {timestamp(caption.end)} {' '.join((caption.text or '').split())}"
