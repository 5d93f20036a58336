# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`valor index`: make an index of media to search, keep it up to date, and show what it holds."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .arguments import Device, Dtype, IndexModel, Json, new_app, on_one_line
from .indexes import (
    DecodingProcesses,
    IndexPath,
    OwnFrames,
    OwnModalities,
    OwnSeconds,
    OwnSegments,
    OwnStride,
    SegmentBatch,
    open_index,
)


if TYPE_CHECKING:
    from ..search import AddReport, ValorIndex

INTERRUPTED = 130
NAMED_FILES = 10

app = new_app()


def _parse_metadata(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        metadata = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not JSON ({error}).", param_hint="'--metadata'") from error
    if not isinstance(metadata, dict):
        message = f"""{text!r} is no JSON object, such as '{{"camera": "front"}}'."""
        raise typer.BadParameter(message, param_hint="'--metadata'")
    return metadata


@app.command()
def index(
    index: IndexPath,
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE", help="Files, folders, globs, URLs or object stores to add.", show_default=False
        ),
    ] = None,
    model: IndexModel = None,
    segment_seconds: OwnSeconds = None,
    stride: OwnStride = None,
    segments: OwnSegments = None,
    modalities: OwnModalities = None,
    num_frames: OwnFrames = None,
    metadata: Annotated[
        str | None,
        typer.Option(help="JSON object that is stored with each of these files, for --where of `valor search`."),
    ] = None,
    captions: Annotated[
        bool,
        typer.Option(
            "--captions",
            help="Have the checkpoint write a caption of each segment that has none, for `valor search --captions`.",
        ),
    ] = False,
    remove: Annotated[list[str] | None, typer.Option(help="Remove a file from the index; may be repeated.")] = None,
    compact: Annotated[
        bool, typer.Option("--compact", help="Join small files and free the space of what was removed.")
    ] = False,
    info: Annotated[bool, typer.Option("--info", help="Show what the index holds.")] = False,
    device: Device = None,
    dtype: Dtype = "auto",
    batch_size: SegmentBatch = 16,
    workers: DecodingProcesses = None,
    as_json: Json = False,
) -> int:
    """Make an index of media, which `valor search` searches, or bring it up to date.

    Files are cut into segments, of each of which frames and sound are embedded; the same as when the index was made, unless
    something else is asked for. Unchanged files of the index are passed
    over, changed ones are replaced, vanished ones are reported. An interrupted run keeps what is done, and the same command
    goes on. The exit status is 1 if a file, or a part of one, could not be read.
    """
    about = _parse_metadata(metadata)
    if not (sources or remove or compact or info):
        raise typer.BadParameter("give what to add, or --info, --remove SOURCE or --compact.", param_hint="'SOURCE'")
    opened = open_index(index, model, device, dtype, make=bool(sources), needs_model=bool(sources))
    status, result = 0, {}
    if remove:
        count = opened.remove(*_known_names(remove))
        result["removed"] = count
        if not as_json:
            print(f"{count} segments removed.")
    if sources:
        report = _add(
            opened,
            sources,
            segment_seconds,
            stride,
            segments=segments,
            modalities=modalities,
            num_frames=num_frames,
            metadata=about,
            caption=captions,
            batch_size=batch_size,
            workers=workers,
            progress=not as_json,
        )
        if report is None:
            return INTERRUPTED
        status = int(bool(report.failures))
        result |= asdict(report)
        if not as_json:
            print(report)
        if report.vanished:
            _print_vanished(report.vanished, opened.path)
    if compact:
        opened.compact()
    if info:
        result |= opened.info()
        if not as_json:
            print(_describe(opened.info()))
    if as_json:
        print(json.dumps(result))
    return status


def _add(index: "ValorIndex", *args: Any, **options: Any) -> "AddReport | None":
    """The report of `ValorIndex.add`, or None where it was interrupted, which is said."""
    try:
        return index.add(*args, **options)
    except KeyboardInterrupt:
        print(
            "valor index: interrupted. What is done is in the index; the same command goes on from there.",
            file=sys.stderr,
        )
        return None


def _known_names(sources: list[str]) -> list[str]:
    from ..search.sources import absolute

    return [absolute(source) for source in sources]


def _print_vanished(names: list[str], path: str) -> None:
    named, more = [on_one_line(name) for name in names[:NAMED_FILES]], len(names) - NAMED_FILES
    listed = ", ".join(named) + (f" and {more} more" if more > 0 else "")
    verb, them = ("is", "it") if len(names) == 1 else ("are", "one of them")
    print(
        f"valor index: {listed} {verb} in the index and no longer there; `valor index --index {path} --remove FILE` takes "
        f"{them} out.",
        file=sys.stderr,
    )


def _describe(info: Mapping[str, Any]) -> str:
    """What `--info` prints."""
    from ..search.adding import count_of, length_of

    size = "" if info.get("bytes") is None else f", {info['bytes'] / 1e6:.1f} MB"
    kind = f"approximate ({info['index']})" if info.get("index") else "exact"
    revision = f" (weights {info['revision']})" if info.get("revision") else ""
    cut = "; ".join(info["segmentations"])
    return (
        f"{info['path']}: {count_of(info['files'], 'file')}, {length_of(3600 * info['hours'])}, "
        f"{count_of(info['segments'], 'segment')}, {count_of(info['tokens'], 'token')}{size}.\n"
        f"Model: {info['model']}{revision}. Search: {kind}.{f' Segments: {cut}.' if cut else ''}"
    )
