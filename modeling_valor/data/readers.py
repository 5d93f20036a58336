# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Folders and files of annotated media to samples. Nothing is decoded here."""

import csv
import functools
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from .records import RecordError, SampleTable, captions_of, media_kind, questions_of
from .samples import Sample


METADATA_FILES = ("metadata.jsonl", "metadata.csv")

_VIDEO_NAMES = ("file_name", "video_file_name", "image_file_name")


def read_folder(directory: str | os.PathLike, split: str | None = None) -> Sequence[Sample]:
    """The samples of a folder in the convention of `datasets`: media files and a `metadata.jsonl` or `metadata.csv`.

    Each row names its media relative to the folder in `file_name`: a video, whose own sound is the sample's sound, an
    image, a sound file, or a folder of frames. `audio_file_name` names another sound, or `null` none. `captions`,
    `caption` or `text` are descriptions, `qa` questions (`records.questions_of`); `id` is the clip's name (default:
    `file_name` without its suffix). Folders of `valor world` and `valor extract` are of this kind.

    A row takes about 30 microseconds to check. Media files are not looked at: one that is absent is a broken clip when
    it is loaded.

    Args:
        split: which part of the folder, where it has several: a subfolder of this name with metadata of its own, or the
            rows whose `split` is this name or absent. `None`: all rows of the folder's own metadata.

    Raises:
        ValueError: there is no metadata, a row cannot be used, or the folder says that it holds another split.
    """
    directory = Path(directory)
    parts = [directory / split] if split else []
    found = next(
        (folder / name for folder in [*parts, directory] for name in METADATA_FILES if (folder / name).is_file()), None
    )
    if found is None:
        raise ValueError(
            f"{directory} has no {' or '.join(METADATA_FILES)}: write one with a row for each clip, such as "
            '{"file_name": "clip.mp4", "captions": ["a dog barks"]}.'
        )
    splits = set()
    if split is not None and found.parent == directory:
        note = directory / ".world.json"
        if note.is_file() and (other := json.loads(note.read_text(encoding="utf-8")).get("split")) != split:
            raise ValueError(f"{directory} holds clips of the split {other!r}, not of {split!r}.")
    else:
        split = None
    samples = SampleTable(_rows(found, split, splits), functools.partial(_sample_of_row, str(found.parent)))
    if not samples:
        what = f"has rows of the splits {sorted(splits)}, and none of {split!r}" if splits else "has no rows"
        raise ValueError(f"{found} {what}.")
    return samples


def _rows(path: Path, split: str | None, splits: set[str]) -> Iterator[dict[str, Any]]:
    """Checked rows of a metadata file: all, or those of a split and those that name none. Notes all splits it sees."""
    for number, row in _csv_rows(path) if path.suffix == ".csv" else _json_rows(path):
        try:
            _sample_of_row("", row)
        except RecordError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        if split is not None and row.get("split") is not None:
            splits.add(str(row["split"]))
            if row["split"] != split:
                continue
        yield row


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: this is not JSON: {error}.") from error
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number}: a row must be a JSON object, got {line.strip()[:80]}.")
            yield number, row


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        for row in reader:
            yield reader.line_num, {name: value or None for name, value in row.items() if name is not None}


def _sample_of_row(directory: str, row: dict[str, Any]) -> Sample:
    name = next((row[key] for key in _VIDEO_NAMES if row.get(key)), None)
    sound = row.get("audio_file_name")
    if not isinstance(name or sound, str):
        raise RecordError('a row must name its media file as text, such as "file_name": "clip.mp4".')
    kind = media_kind(name) if name else "audio"
    video = None if kind == "audio" else os.path.join(directory, name)
    if "audio_file_name" not in row:
        sound = name if kind in ("video", "audio") else None
    identity = row.get("id")
    if identity is None:
        file = PurePosixPath(name or sound)
        identity = file.with_suffix("") if media_kind(file.name) else file
    return Sample(
        id=str(identity),
        video=video,
        audio=os.path.join(directory, sound) if sound else None,
        captions=captions_of(row),
        questions=questions_of(row),
    )
