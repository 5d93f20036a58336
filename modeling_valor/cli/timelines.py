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
from .indexes import open_index


if TYPE_CHECKING:
    from ..pipelines import AudiovisualCaptioningPipeline
    from ..search import ValorIndex
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

Index = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        rich_help_panel=SEGMENTS_PANEL,
        help="Describe the segments that an index of `valor index` has of the files, and store their captions in it, too, for "
        "`valor search --captions`.",
    ),
]


class IndexCaptions:
    """What `--index` asks for: the segments of files as an index has them, and captions that are stored in it.

    Captions are stored some at a time; `flush` stores the rest.
    """

    def __init__(self, index: "ValorIndex", every: float | None, stride: float | None, batch_size: int):
        self.index, self.batch_size, self.count = index, batch_size, 0
        self._files = {file.source: file for file in index.backend.files()}
        self._waiting: dict[str, str | None] = {}
        self._cut = None if every is None else (every, every if stride is None else stride)

    def segments_of(self, file: str) -> list[tuple[float, float]]:
        """Start and end of the segments of a file.

        Raises:
            MediaError: the index does not have it, has another version of it, or has cut it otherwise than asked for.
        """
        from ..media import MediaError
        from ..search.adding import is_current
        from ..search.reading import Segmentation
        from ..search.sources import absolute, file_state, part_start

        source, path = absolute(file), self.index.path
        known = self._files.get(source)
        if known is None:
            raise MediaError(f"{file} is not in the index {path}: `valor index` adds it.")
        if not is_current(file_state(source), known.state):
            raise MediaError(f"{file} is not what it was when it was indexed: `valor index` replaces it in {path}.")
        cut = Segmentation.parse(known.segmentation)
        if self._cut is not None and (cut is None or cut.shots or self._cut != (cut.seconds, cut.stride)):
            raise MediaError(
                f"The index {path} has cut {file} into {known.segmentation}: leave out --every and --stride."
            )
        start = part_start(source)  # what is cut begins with the part
        return [(segment.start - start, segment.end - start) for segment in self.index.segments(source)]

    def add(self, file: str, caption: "TimedCaption") -> None:
        from ..search import Segment
        from ..search.sources import absolute

        self._waiting[Segment(absolute(file), caption.start, caption.end).id] = caption.text
        if len(self._waiting) >= self.batch_size:
            self.flush()

    def flush(self) -> None:
        if self._waiting:
            self.index.caption(self._waiting)
        self.count += len(self._waiting)
        self._waiting = {}


def choose_boundaries(
    every: float | None, stride: float | None, segments: str, index: str | None = None, batch_size: int = 8
) -> Any:
    """What `--every`, `--stride`, `--segments` and `--index` ask for.

    Returns:
        A function of the duration, "shots", an [`IndexCaptions`], or None for whole files.

    Raises:
        typer.BadParameter: they do not go together, or are no lengths.
        ValueError: there is no such index.
    """
    from ..media_segments import fixed_segments

    if segments == "shots":
        if every is not None or stride is not None or index is not None:
            raise typer.BadParameter(
                "--segments shots has segments of its own: leave out --every, --stride and --index."
            )
        return "shots"
    if every is None and stride is not None:
        raise typer.BadParameter("--stride needs --every.")
    if every is not None:
        try:
            fixed_segments(0.0, every, stride)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
    if index is not None:
        return IndexCaptions(open_index(index, needs_model=False), every, stride, batch_size)
    return None if every is None else functools.partial(fixed_segments, seconds=every, stride=stride)


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
    store = boundaries if isinstance(boundaries, IndexCaptions) else None
    with ExitStack() as stack:
        if store is not None:
            stack.callback(_end_store, store)
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
                        if store is not None:
                            store.add(file, caption)
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


def _end_store(store: IndexCaptions) -> None:
    """Stores what is left, also where the work was interrupted, and says how much there is."""
    store.flush()
    count = f"{store.count} caption{'' if store.count == 1 else 's'}"
    print(f"valor caption: {count} stored in {store.index.path}.", file=sys.stderr)


def _captions(describe: Any, file: str, boundaries: Any, options: dict[str, Any]) -> Any:
    from ..media import open_source
    from ..media_segments import shot_segments
    from ..timelines import caption_timeline

    processor = describe.processor
    with open_source(file, processor.media_limits or processor.video_processor.media_limits) as source:
        if isinstance(boundaries, IndexCaptions):
            found: Any = boundaries.segments_of(file)
        else:
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
