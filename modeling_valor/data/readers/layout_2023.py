# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Samples of datasets in the layout of the 2023 training code. Media are not decoded here."""

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from ...media_fragments import split_fragment
from ...media_sources import media_kind
from ..samples import RecordError, Sample, SampleTable
from .folders import is_outside, warn_about_outside
from .records import captions_of, questions_of, short
from .text_files import read_json, read_names


def read_valor_2023(
    directory: str | os.PathLike[str],
    split: str,
    *,
    ids: str | None = None,
    texts: str | Sequence[str] | None = None,
    annotations: str | None = None,
    media: str | None = None,
    audio: str | None = None,
    sound: str | None = None,
) -> Sequence[Sample]:
    """The samples of a dataset in the layout of the 2023 training code.

    For example:

        msrvtt/
          standardsplit_train_id.json   ["video0", "video1", ...], or a text file of a name per line
          txt_mapper.json               {"video0": "a man sings" or ["a man sings", ...]; for question answering
                                         [{"question": "who sings?", "answer": "man"}, ...]}
          caption_annotation.json       [{"video_id": "video0", "caption": "a man sings"}, ...]
          frames_fps4/video0/           frames, in the order of their names' numbers; or raw_videos/video0.mp4
          audio_22050hz/video0.wav      if a file is absent, the sample has no audio

    Args:
        split: selects the list of names `{split}_id.json`, or the only list whose name ends like this.
        ids: the list of names, if it has another name. This and all following paths are relative to `directory`.
        texts: one or more text files (default: `txt_mapper.json`, or the only file called `txt_mapper*.json`).
        annotations: a file of reference captions, which then replace those of `texts`.
        media: the folder of the media: folders of frames, raw videos or images, named by their ids (default: the only
            subfolder called `frames*`, or else `raw_video*`, `video*` or `image*`).
        audio: the folder of audio files (default: the only subfolder called `audio*`). Without one, the audio tracks of
            raw videos are used.
        sound: the old name of `audio`.

    Names that lead out of the folder of the media are read, with one warning.

    Raises:
        ValueError: a file or folder is absent or ambiguous, a sample has no text, or a text has another form.
    """
    if sound is not None:
        warnings.warn("`sound` is now called `audio`.", FutureWarning, stacklevel=2)
        audio = sound
    directory = Path(directory)
    patterns = [f"{split}_id.json", f"{split}_id.txt", f"*{split}_id.json", f"*{split}_id.txt"]
    listing = cast(Path, _one(directory, ids, patterns, "ids"))
    names = read_names(listing)
    entries = _read_texts(directory, texts, annotations)
    silent = [name for name in names if name not in entries]
    if silent:
        raise ValueError(
            f"{len(silent)} of the {len(names)} samples of {listing} have no text, such as {', '.join(silent[:3])}: give the file "
            "that has it as `texts` or `annotations`."
        )
    kinds = ("frames*", "raw_video*", "video*", "image*")
    folder = _one(directory, media, kinds, "media", optional=audio is not None)
    audio_folder = _one(directory, audio, ("audio*",), "audio", optional=True)
    files, audio_files = _files_by_id(folder), _files_by_id(audio_folder)
    if folder is not None:
        warn_about_outside(
            listing, folder, [name for name in names if _file_of(name, files) is None and is_outside(name, folder)]
        )

    def record(name: str) -> dict[str, Any]:
        video = None if folder is None else str(folder / (_file_of(name, files) or name))
        return {
            "id": name,
            "video": video,
            "audio": _audio_of(name, video, audio_folder, audio_files),
            "texts": entries[name],
        }

    return SampleTable(map(record, names), _sample_of_2023)


def _audio_of(name: str, video: str | None, folder: Path | None, files: Mapping[str, str]) -> str | None:
    """The audio file of a sample in `folder`; without a folder its video, if it may have an audio track."""
    if folder is not None:
        file = _file_of(name, files)
        return None if file is None else str(folder / file)
    return video if video is not None and media_kind(video) == "video" else None


_REFERENCE_IDS = ("video_id", "image_id", "audio_id", "clip_id", "id")  # COCO's own "id" is the caption's


def _one(
    directory: Path, given: str | None, patterns: Sequence[str], what: str, optional: bool = False
) -> Path | None:
    """The given file or folder, or the only match of the first pattern that has matches."""
    if given is not None:
        path = directory / given
        if not path.exists():
            raise ValueError(f"{path}, given as `{what}`, does not exist.")
        return path
    for pattern in patterns:
        found = sorted(path for path in directory.glob(pattern) if path.is_dir() == pattern.endswith("*"))
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise ValueError(f"{directory} has several {pattern}: choose one of {names} as `{what}`.")
        if found:
            return found[0]
    if optional:
        return None
    raise ValueError(f"{directory} has no {' or '.join(patterns)}: set its path with `{what}`.")


def _read_texts(
    directory: Path, texts: str | Sequence[str] | None, annotations: str | None
) -> dict[str, dict[str, list[Any]]]:
    """Captions and questions by id, from all text files."""
    if texts is None:
        patterns = ("txt_mapper.json", "txt_mapper*.json")
        found = [_one(directory, None, patterns, "texts", optional=annotations is not None)]
    else:
        found = [_one(directory, name, (), "texts") for name in ([texts] if isinstance(texts, str) else texts)]
    entries: dict[str, dict[str, list[Any]]] = {}
    for path in filter(None, found):
        _add_texts(entries, path)
    if annotations is not None:
        references = _read_references(cast(Path, _one(directory, annotations, (), "annotations")))
        for name, captions in references.items():
            entries.setdefault(name, {"captions": [], "qa": []})["captions"] = captions
    return entries


def _add_texts(entries: dict[str, dict[str, list[Any]]], path: Path) -> None:
    """Adds the captions and questions of a text file, an object of names and texts."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} must be an object that maps the samples' names to their texts.")
    for name, value in content.items():
        entry = entries.setdefault(name, {"captions": [], "qa": []})
        for item in value if isinstance(value, list) else [value]:
            entry["qa" if isinstance(item, dict) else "captions"].append(item)
        try:
            _sample_of_2023({"id": name, "video": None, "audio": None, "texts": entry})
        except RecordError as error:
            raise ValueError(f"{path}, {name!r}: {error}") from error


def _read_references(path: Path) -> dict[str, list[str]]:
    """Captions by id of a file of reference captions."""
    content = read_json(path)
    references: dict[str, list[str]] = {}
    rows = content.get("annotations", []) if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise ValueError(f"{path} must be a list of objects with video_id and caption, got {short(rows)}.")
    for row in rows:
        row = row if isinstance(row, dict) else {}
        name = next((row[key] for key in _REFERENCE_IDS if key in row), None)
        if name is None or not isinstance(row.get("caption"), str):
            raise ValueError(f"{path}: each row needs video_id and caption, got {short(row)}.")
        references.setdefault(str(name), []).append(row["caption"])
    return references


def _files_by_id(folder: Path | None) -> dict[str, str]:
    """File name for each id in a folder of media; the id is the name with or without its suffix."""
    if folder is None:
        return {}
    names = os.listdir(folder)
    return {Path(name).stem: name for name in names if media_kind(name)} | {name: name for name in names}


def _file_of(name: str, files: Mapping[str, str]) -> str | None:
    """The file of a sample, whose name may end with a part of it (`#t=30,40`); None if there is none."""
    whole, fragment = split_fragment(name)
    return files.get(name) or (files[whole] + fragment if whole in files else None)


def _sample_of_2023(record: dict[str, Any]) -> Sample:
    texts = record["texts"]
    return Sample(record["id"], record["video"], record["audio"], captions_of(texts), questions_of(texts))
