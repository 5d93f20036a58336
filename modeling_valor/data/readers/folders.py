# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Samples of folders with a metadata.jsonl or metadata.csv. Media are not decoded here."""

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, cast

from transformers.utils import logging

from ...media_sources import media_kind, name_without_suffix
from ..samples import RecordError, Sample, SampleTable
from ..splits import split_names
from .records import captions_of, name_columns, questions_of, rename_columns
from .text_files import read_json, read_objects, read_table


logger = logging.get_logger(__name__)

METADATA_FILES = ("metadata.jsonl", "metadata.csv")

_VIDEO_NAMES = ("file_name", "video_file_name", "image_file_name")


def read_folder(
    directory: str | os.PathLike[str],
    split: str | None = None,
    *,
    annotations: str | os.PathLike[str] | None = None,
    media: str | os.PathLike[str] | None = None,
    columns: Mapping[str, str | Sequence[str] | None] | None = None,
) -> Sequence[Sample]:
    """The samples of a folder in the convention of `datasets`: media files and a `metadata.jsonl` or `metadata.csv`.

    Each row names its media relative to the folder in `file_name`: a video, whose audio track is the audio of the sample,
    an image, an audio file, a folder of frames, or a part of a file (`clip.mp4#t=30,40`). `audio_file_name` names another
    audio file; `null`: no audio. `captions`, `caption` or `text` are descriptions, `qa` questions
    (`records.questions_of`); `id` is the name of the sample (default: `file_name` without its suffix). `valor world` and
    `valor extract` write such folders.

    A row takes about 50 microseconds to check. Media files are not opened: an absent file is a failure when the sample
    is loaded. Files outside of the folder (`..` or an absolute path) are read, with one warning.

    Args:
        split: for folders with several splits: the name of a subfolder with its own metadata, or the rows whose `split` has
            this value or none. "val" is also called "validation", as by `datasets`
            (`splits.split_names`). `None`: all rows of the folder's own metadata.
        annotations: the metadata file, if it has another name.
        media: the folder of the media files, if it is another one.
        columns: for other names of text columns: field (`records.KEYS`) -> name or names of its columns.

    Raises:
        ValueError: there is no metadata, a row is invalid, or the folder was rendered for another split.
    """
    directory = Path(directory)
    metadata = _find_metadata(directory, split, annotations)
    if split is not None and (annotations or metadata.parent == directory):
        _check_world_split(directory, split)
    else:
        split = None
    folder = os.fspath(media or (directory if annotations else metadata.parent))
    splits: set[str] = set()
    outside: list[str] = []
    rows = _rows(metadata, split, splits, name_columns(columns), folder, outside)
    samples = SampleTable(rows, functools.partial(_sample_of_row, folder))
    if not samples:
        what = (
            f"has rows of the splits {sorted(splits)}, and none of {split!r}: ask for one of these"
            if splits
            else "has no rows"
        )
        raise ValueError(f"{metadata} {what}.")
    warn_about_outside(metadata, folder, outside)
    return samples


def _find_metadata(directory: Path, split: str | None, annotations: str | os.PathLike[str] | None) -> Path:
    """The metadata file of a folder, or of a split in it."""
    folders = split_folders(directory, split)
    files = [Path(annotations)] if annotations else [folder / name for folder in folders for name in METADATA_FILES]
    found = next((file for file in files if file.is_file()), None)
    if found is not None:
        return found
    if parts := folders_with_metadata(directory):
        raise ValueError(f"{directory} has the splits {', '.join(parts)}: choose one of them, not {split!r}.")
    raise ValueError(
        f"{directory} has no {annotations or ' or '.join(METADATA_FILES)}: write one with a row for each sample, such as "
        '{"file_name": "clip.mp4", "captions": ["a dog barks"]}.'
    )


def _check_world_split(directory: Path, split: str) -> None:
    """Checks that a folder of `valor world` was rendered for this split."""
    note = directory / ".world.json"
    if note.is_file():
        origin = read_json(note)
        other = origin.get("split") if isinstance(origin, dict) else None
        if other not in split_names(split):
            raise ValueError(
                f"{directory} has samples of the split {other!r}, not of {split!r}: ask for {other!r}, or render others into "
                f"another folder with `valor world FOLDER --split {split}`."
            )


def _rows(
    path: Path,
    split: str | None,
    splits: set[str],
    columns: Mapping[str, Sequence[str]],
    folder: str,
    outside: list[str],
) -> Iterator[dict[str, Any]]:
    """Checked rows of a metadata file: all, or those of a split and those without one.

    Adds all splits to `splits`, and files outside of `folder` to `outside`.
    """
    for number, row in numbered_rows(path):
        row = rename_columns(row, columns) if columns else row
        try:
            _sample_of_row("", row)
        except RecordError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        if split is not None and row.get("split") is not None:
            splits.add(str(row["split"]))
            if row["split"] not in split_names(split):
                continue
        names = (row.get(key) for key in (*_VIDEO_NAMES, "audio_file_name"))
        outside += [name for name in names if isinstance(name, str) and is_outside(name, folder)]
        yield row


def is_outside(name: str, folder: str | os.PathLike[str]) -> bool:
    """Whether a file, relative to `folder` or absolute, is outside of it."""
    if not os.path.isabs(name) and ".." not in PurePath(name).parts:
        return False
    root = os.path.abspath(folder)
    return not os.path.abspath(os.path.join(root, name)).startswith(os.path.join(root, ""))


def warn_about_outside(annotations: Path, folder: str | os.PathLike[str], outside: Sequence[str]) -> None:
    if outside:
        logger.warning(
            f"{annotations} names {len(outside)} files outside of {os.fspath(folder)}, such as {outside[0]}; they are read, "
            "too."
        )


def split_folders(directory: Path, split: str | None) -> list[Path]:
    """The folders that may have a split, the one with its own name first."""
    return [*(directory / name for name in split_names(split)), directory] if split else [directory]


def folders_with_metadata(directory: Path) -> list[str]:
    """The subfolders that are splits."""
    found = {file.parent.name for name in METADATA_FILES for file in directory.glob(f"*/{name}")}
    return sorted(found)


def numbered_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and rows of a metadata file."""
    if path.suffix != ".csv":
        return read_objects(path)
    return ((number, {name: value or None for name, value in row.items()}) for number, row in read_table(path))


def _sample_of_row(directory: str, row: dict[str, Any]) -> Sample:
    name = next((row[key] for key in _VIDEO_NAMES if row.get(key)), None)
    audio = row.get("audio_file_name")
    if not isinstance(name or audio, str):
        raise RecordError(
            f'a row must name its media file as text, such as "file_name": "clip.mp4"; this one has {", ".join(row) or "nothing"}.'
        )
    kind = media_kind(name) if name else "audio"
    video = None if kind == "audio" else os.path.join(directory, cast(str, name))
    if "audio_file_name" not in row:
        audio = name if kind in ("video", "audio") else None
    identity = row.get("id")
    return Sample(
        id=str(PurePosixPath(name_without_suffix(cast(str, name or audio))) if identity is None else identity),
        video=video,
        audio=os.path.join(directory, audio) if audio else None,
        captions=captions_of(row),
        questions=questions_of(row),
    )
