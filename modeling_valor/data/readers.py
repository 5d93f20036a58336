# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Folders and files of annotated media to samples. Nothing is decoded here."""

import functools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from transformers.utils import logging

from ..media_sources import media_kind
from .records import RecordError, SampleTable, captions_of, name_columns, questions_of, rename_columns, short
from .samples import Sample, SampleStream
from .shards import ShardStream, is_shard_pattern, shards_in_folder, splits_in_name
from .splits import SPLIT_NAMES, split_names
from .text_files import read_json, read_lines, read_objects, read_table


logger = logging.get_logger(__name__)

METADATA_FILES = ("metadata.jsonl", "metadata.csv")

_VIDEO_NAMES = ("file_name", "video_file_name", "image_file_name")


def read_folder(
    directory: str | os.PathLike,
    split: str | None = None,
    *,
    annotations: str | os.PathLike | None = None,
    media: str | os.PathLike | None = None,
    columns: Mapping[str, str | Sequence[str] | None] | None = None,
) -> Sequence[Sample]:
    """The samples of a folder in the convention of `datasets`: media files and a `metadata.jsonl` or `metadata.csv`.

    Each row names its media relative to the folder in `file_name`: a video, whose own sound is the sample's sound, an
    image, a sound file, or a folder of frames. `audio_file_name` names another sound, or `null` none. `captions`,
    `caption` or `text` are descriptions, `qa` questions (`records.questions_of`); `id` is the clip's name (default:
    `file_name` without its suffix). Folders of `valor world` and `valor extract` are of this kind.

    A row takes about 50 microseconds to check. Media files are not looked at: one that is absent is a broken clip when
    it is loaded. Files outside of the folder, by `..` or an absolute path, are read, and one warning says so.

    Args:
        split: which part of the folder, where it has several: a subfolder of this name with metadata of its own, or the
            rows whose `split` is this name or absent. "val" is also called "validation", as by `datasets`
            (`splits.split_names`). `None`: all rows of the folder's own metadata.
        annotations: the metadata, where it has another name.
        media: the folder that the files are in, where that is another one.
        columns: where the names of texts are others: what a column is (`records.KEYS`) to its name, or names.

    Raises:
        ValueError: there is no metadata, a row cannot be used, or the folder says that it holds another split.
    """
    directory = Path(directory)
    folders = _split_folders(directory, split)
    files = [Path(annotations)] if annotations else [folder / name for folder in folders for name in METADATA_FILES]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        if parts := _folders_with_metadata(directory):
            raise ValueError(f"{directory} has the splits {', '.join(parts)}: choose one of them, not {split!r}.")
        raise ValueError(
            f"{directory} has no {annotations or ' or '.join(METADATA_FILES)}: write one with a row for each clip, such as "
            '{"file_name": "clip.mp4", "captions": ["a dog barks"]}.'
        )
    splits = set()
    if split is not None and (annotations or found.parent == directory):
        note = directory / ".world.json"
        if note.is_file():
            origin = read_json(note)
            other = origin.get("split") if isinstance(origin, dict) else None
            if other not in split_names(split):
                raise ValueError(f"{directory} holds clips of the split {other!r}, not of {split!r}.")
    else:
        split = None
    folder = os.fspath(media or (directory if annotations else found.parent))
    outside: list[str] = []
    rows = _rows(found, split, splits, name_columns(columns), folder, outside)
    samples = SampleTable(rows, functools.partial(_sample_of_row, folder))
    if not samples:
        what = f"has rows of the splits {sorted(splits)}, and none of {split!r}" if splits else "has no rows"
        raise ValueError(f"{found} {what}.")
    _say_outside(found, folder, outside)
    return samples


def _rows(
    path: Path,
    split: str | None,
    splits: set[str],
    columns: Mapping[str, Sequence[str]],
    folder: str,
    outside: list[str],
) -> Iterator[dict[str, Any]]:
    """Checked rows of a metadata file: all, or those of a split and those that name none.

    Notes all splits that it sees in `splits`, and in `outside` the files that do not lie in `folder`.
    """
    for number, row in _numbered_rows(path):
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


def is_outside(name: str, folder: str | os.PathLike) -> bool:
    """Whether a file that annotations name, relative to `folder` or absolute, lies outside of it."""
    if not os.path.isabs(name) and ".." not in PurePath(name).parts:
        return False
    root = os.path.abspath(folder)
    return not os.path.abspath(os.path.join(root, name)).startswith(os.path.join(root, ""))


def _say_outside(annotations: Path, folder: str | os.PathLike, outside: Sequence[str]) -> None:
    if outside:
        logger.warning(
            f"{annotations} names {len(outside)} files outside of {os.fspath(folder)}, such as {outside[0]}; they are read "
            "from there."
        )


def _split_folders(directory: Path, split: str | None) -> list[Path]:
    """The folders that a split may be in, the one of its own name first."""
    return [*(directory / name for name in split_names(split)), directory] if split else [directory]


def _folders_with_metadata(directory: Path) -> list[str]:
    """The subfolders that are splits."""
    found = {file.parent.name for name in METADATA_FILES for file in directory.glob(f"*/{name}")}
    return sorted(found)


def _numbered_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and rows of a metadata file."""
    if path.suffix != ".csv":
        return read_objects(path)
    return ((number, {name: value or None for name, value in row.items()}) for number, row in read_table(path))


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


# ---------------------------------------------------------------------------------------------------------------------
# The layout of the 2023 code
# ---------------------------------------------------------------------------------------------------------------------


def read_valor_2023(
    directory: str | os.PathLike,
    split: str,
    *,
    ids: str | None = None,
    texts: str | Sequence[str] | None = None,
    annotations: str | None = None,
    media: str | None = None,
    sound: str | None = None,
) -> Sequence[Sample]:
    """The samples of a dataset in the layout of the 2023 training code, such as

        msrvtt/
          standardsplit_train_id.json   ["video0", "video1", ...], or a text file of a name per line
          txt_mapper.json               {"video0": "a man sings" or ["a man sings", ...]; for question answering
                                         [{"question": "who sings?", "answer": "man"}, ...]}
          caption_annotation.json       [{"video_id": "video0", "caption": "a man sings"}, ...]
          frames_fps4/video0/           frames, in the order of their names' numbers; or raw_videos/video0.mp4
          audio_22050hz/video0.wav      where a file is absent, the clip has no sound

    Args:
        split: of several lists of names, the one called `{split}_id.json`, or else the only one that ends so.
        ids: the list of names, where that does not find it. This and all further names are relative to `directory`.
        texts: one or more text files (default: `txt_mapper.json`, or the only file called `txt_mapper*.json`).
        annotations: a file of reference captions, which then replace those of `texts`.
        media: the folder with the clips: folders of frames, raw videos or images, called by their ids (default: the only
            subfolder called `frames*`, or else `raw_video*`, `video*` or `image*`).
        sound: the folder of sound files (default: the only subfolder called `audio*`). Without one, raw videos bring
            their own sound.

    A name of a clip that leads out of the media's folder is followed, and one warning says so.

    Raises:
        ValueError: a file or folder is absent or ambiguous, a clip has no text, or a text is of another form.
    """
    directory = Path(directory)
    ids = _one(directory, ids, [f"{split}_id.json", f"{split}_id.txt", f"*{split}_id.json", f"*{split}_id.txt"], "ids")
    names = _read_ids(ids)
    entries = _read_texts(directory, texts, annotations)
    silent = [name for name in names if name not in entries]
    if silent:
        raise ValueError(
            f"{len(silent)} of the {len(names)} clips of {ids} have no text, such as {', '.join(silent[:3])}: give the file "
            "that has it as `texts` or `annotations`."
        )
    kinds = ("frames*", "raw_video*", "video*", "image*")
    folder = _one(directory, media, kinds, "media", optional=sound is not None)
    sounds = _one(directory, sound, ("audio*",), "sound", optional=True)
    files, waves = _files_by_id(folder), _files_by_id(sounds)

    def record(name: str) -> dict[str, Any]:
        video = None if folder is None else str(folder / files.get(name, name))
        if sounds is not None:
            audio = str(sounds / waves[name]) if name in waves else None
        else:
            audio = video if video is not None and media_kind(video) == "video" else None
        return {"id": name, "video": video, "audio": audio, "texts": entries[name]}

    if folder is not None:
        _say_outside(ids, folder, [name for name in names if name not in files and is_outside(name, folder)])
    return SampleTable(map(record, names), _sample_of_2023)


_REFERENCE_IDS = ("video_id", "image_id", "audio_id", "clip_id", "id")  # COCO's own "id" is the caption's


def _one(
    directory: Path, given: str | None, patterns: Sequence[str], what: str, optional: bool = False
) -> Path | None:
    """The file or folder that is given, or the only one that the first fitting pattern finds."""
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
    raise ValueError(f"{directory} has no {' or '.join(patterns)}: say where it is with `{what}`.")


def _read_ids(path: Path) -> list[str]:
    names = read_json(path) if path.suffix == ".json" else [line.strip() for _, line in read_lines(path)]
    if not isinstance(names, list) or not names or not all(isinstance(name, (str, int)) for name in names):
        raise ValueError(f"{path} must be a list of the clips' names, and not empty.")
    return [str(name) for name in names]


def _read_texts(
    directory: Path, texts: str | Sequence[str] | None, annotations: str | None
) -> dict[str, dict[str, list]]:
    """Captions and questions by id, out of all text files together."""
    if texts is None:
        patterns = ("txt_mapper.json", "txt_mapper*.json")
        found = [_one(directory, None, patterns, "texts", optional=annotations is not None)]
    else:
        found = [_one(directory, name, (), "texts") for name in ([texts] if isinstance(texts, str) else texts)]
    entries: dict[str, dict[str, list]] = {}
    for path in filter(None, found):
        content = read_json(path)
        if not isinstance(content, dict):
            raise ValueError(f"{path} must be an object of the clips' names and their texts.")
        for name, value in content.items():
            entry = entries.setdefault(name, {"captions": [], "qa": []})
            for item in value if isinstance(value, list) else [value]:
                entry["qa" if isinstance(item, dict) else "captions"].append(item)
            try:
                _sample_of_2023({"id": name, "video": None, "audio": None, "texts": entry})
            except RecordError as error:
                raise ValueError(f"{path}, {name!r}: {error}") from error
    if annotations is not None:
        path = _one(directory, annotations, (), "annotations")
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
        for name, captions in references.items():
            entries.setdefault(name, {"captions": [], "qa": []})["captions"] = captions
    return entries


def _files_by_id(folder: Path | None) -> dict[str, str]:
    """The names in a folder of media by their ids: themselves, and without their suffix."""
    if folder is None:
        return {}
    names = os.listdir(folder)
    return {Path(name).stem: name for name in names if media_kind(name)} | {name: name for name in names}


def _sample_of_2023(record: dict[str, Any]) -> Sample:
    texts = record["texts"]
    return Sample(record["id"], record["video"], record["audio"], captions_of(texts), questions_of(texts))


# ---------------------------------------------------------------------------------------------------------------------
# Anything
# ---------------------------------------------------------------------------------------------------------------------


def load_samples(
    dataset: str | os.PathLike,
    split: str | None = None,
    media: str | None = None,
    annotations: str | None = None,
    **options: Any,
) -> Sequence[Sample] | SampleStream:
    """Samples by one string, as scripts, recipes and `valor` commands take it.

    Args:
        dataset: one of
            - the name of a benchmark (`benchmarks.BENCHMARKS`), with its `media` and `annotations`;
            - tar shards: a file, a glob or a brace pattern such as "shards/{000..123}.tar", several of them with "::"
              between, local or at http(s) or hf addresses (`shards.ShardStream`); or a folder of them, in which splits
              are subfolders or names of files (`shards.shards_in_folder`);
            - a folder with metadata.jsonl or metadata.csv, or such a file (`read_folder`);
            - a folder of the 2023 layout, with txt_mapper.json (`read_valor_2023`);
            - a folder that `datasets.Dataset.save_to_disk` wrote;
            - the name of a dataset on the Hub, "owner/name" (`datasets.load_dataset`).
        split: which part; for folders and shards that have no parts it may be left out.
        media, annotations: where these are, for benchmarks and the 2023 layout.
        options: more arguments of the reader. For a dataset on the Hub, those of `load_dataset`, of which
            `streaming=True` gives a stream, and `columns` and `shuffle_buffer` (`columns.samples_from_dataset`).
            Folders and shards take `columns`, too.

    Raises:
        ValueError: the string is none of these, or the reader's own errors.
    """
    from .benchmarks import BENCHMARKS, load_benchmark

    name = os.fspath(dataset)
    options = {key: value for key, value in options.items() if key != "columns" or value is not None}
    if name in BENCHMARKS:
        if "columns" in options:
            raise ValueError(
                f"{name} is a benchmark, whose files have no columns to choose from: leave out `columns`."
            )
        return load_benchmark(name, split, annotations=annotations, media=media, **options)
    options |= {key: value for key, value in (("media", media), ("annotations", annotations)) if value is not None}
    if is_shard_pattern(name):
        return ShardStream(name, **options)
    path = Path(name)
    folders = _split_folders(path, split)
    if path.is_file() and path.suffix in (".jsonl", ".csv"):
        return read_folder(path.parent, split, annotations=path, **options)
    if any((folder / file).is_file() for folder in folders for file in METADATA_FILES) or _folders_with_metadata(path):
        return read_folder(path, split, **options)
    if any(path.glob("txt_mapper*.json")) or any(path.glob("*_id.json")) or any(path.glob("*_id.txt")):
        if split is None:
            raise ValueError(f"{name} has the 2023 layout: say which split, the name of a list {{split}}_id.json.")
        if "columns" in options:
            raise ValueError(f"{name} has the 2023 layout, which has no columns to choose from: leave out `columns`.")
        return read_valor_2023(path, split, **options)
    if any((folder / file).is_file() for folder in folders for file in ("dataset_info.json", "dataset_dict.json")):
        return _saved_dataset(path, split, **options)
    for folder in filter(Path.is_dir, folders):
        if shards := shards_in_folder(folder, split if folder == path else None):
            return ShardStream(shards, **options)
    if not path.exists() and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
        return _hub_dataset(name, split, **options)
    what = "is a folder without any of these" if path.is_dir() else "is none of these"
    raise ValueError(
        f"{name!r} {what}. Accepted are a benchmark ({', '.join(BENCHMARKS)}), a folder with {' or '.join(METADATA_FILES)}, "
        "a folder of the 2023 layout with txt_mapper.json and lists of ids, a folder of datasets.save_to_disk, tar shards "
        'such as "shards/{000..123}.tar" or a folder of them, and the name of a dataset on the Hub, "owner/name".'
    )


def has_splits(dataset: str | os.PathLike, annotations: str | None = None) -> bool:
    """Whether `load_samples` gives other samples for another split, or all of them for each.

    A world that `valor world` rendered is of one split: it has no parts.
    """
    from .benchmarks import BENCHMARKS

    path = Path(dataset)
    if os.fspath(dataset) in BENCHMARKS:
        return True
    if is_shard_pattern(os.fspath(dataset)):
        return False
    if any((path / name / file).is_file() for name in SPLIT_NAMES for file in METADATA_FILES):
        return True
    if any(shards_in_folder(path / name) for name in SPLIT_NAMES if (path / name).is_dir()):
        return True
    candidates = [annotations or path, *(path / name for name in METADATA_FILES)]
    files = [file for file in map(Path, candidates) if file.is_file()]
    if not files and path.is_dir() and (shards := shards_in_folder(path)):
        return any(map(splits_in_name, shards))
    if not files:  # the 2023 layout, a name on the Hub; of saved datasets, those that are several
        return not (path / "dataset_info.json").is_file()
    return any(row.get("split") is not None for _, row in _numbered_rows(files[0]))


def _saved_dataset(path: Path, split: str | None, **options: Any) -> Sequence[Sample]:
    from datasets import DatasetDict, load_from_disk

    from .columns import samples_from_dataset

    dataset = load_from_disk(str(path))
    if isinstance(dataset, DatasetDict):
        chosen = next((name for name in split_names(split or "") if name in dataset), None)
        if chosen is None:
            raise ValueError(f"{path} has the splits {', '.join(dataset)}: choose one of them, not {split!r}.")
        dataset = dataset[chosen]
    return samples_from_dataset(dataset, **options)


def _hub_dataset(name: str, split: str | None, **options: Any) -> Sequence[Sample] | SampleStream:
    from datasets import load_dataset

    from .columns import samples_from_dataset, stream_from_dataset

    if split is None:
        raise ValueError(f"{name} is read from the Hub by splits: say which, such as 'train'.")
    ours = {key: options.pop(key) for key in ("columns", "shuffle_buffer") if key in options}
    first, *others = split_names(split)
    try:
        dataset = load_dataset(name, split=first, **options)
    except ValueError as error:  # whose sentence names the splits that there are
        other = next((other for other in others if f"'{other}'" in str(error)), None)
        if other is None:
            raise
        dataset = load_dataset(name, split=other, **options)
    if options.get("streaming"):
        return stream_from_dataset(dataset, **ours)
    return samples_from_dataset(dataset, **ours)
