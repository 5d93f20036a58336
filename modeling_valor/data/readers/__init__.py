# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Samples of any kind of dataset by one string: benchmarks, tar shards, folders, the 2023 layout, the Hub."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

from ...media_sources import media_kind
from ..samples import Sample, SampleStream
from ..splits import SPLIT_NAMES
from .benchmarks import BENCHMARKS, load_benchmark
from .folders import METADATA_FILES, folders_with_metadata, numbered_rows, read_folder, split_folders
from .layout_2023 import read_valor_2023
from .webdataset import ShardStream, is_shard_pattern, shards_in_folder, splits_in_name


__all__ = ["METADATA_FILES", "has_splits", "load_samples", "read_folder", "read_valor_2023"]

_FILES_OF_2023 = ("txt_mapper*.json", "*_id.json", "*_id.txt")
_FILES_OF_SAVED_DATASETS = ("dataset_info.json", "dataset_dict.json")


def load_samples(
    dataset: str | os.PathLike[str],
    split: str | None = None,
    media: str | None = None,
    annotations: str | None = None,
    **options: Any,
) -> Sequence[Sample] | SampleStream:
    """The samples of a dataset, given by one string as in scripts, recipes and `valor` commands.

    Args:
        dataset: one of
            - the name of a benchmark (`benchmarks.BENCHMARKS`), with its `media` and `annotations`;
            - tar shards: a file, a glob or a brace pattern such as "shards/{000..123}.tar", several of them with "::"
              between, local or with http(s) or hf URLs (`webdataset.ShardStream`); or a folder of them, in which splits
              are subfolders or names of files (`webdataset.shards_in_folder`);
            - a folder with metadata.jsonl or metadata.csv, or such a file (`read_folder`);
            - a folder of the 2023 layout, with txt_mapper.json (`read_valor_2023`);
            - a folder that `datasets.Dataset.save_to_disk` wrote;
            - the name of a dataset on the Hub, "owner/name" (`datasets.load_dataset`).
        split: name of the split; optional for folders and shards without splits.
        media, annotations: paths of these, for benchmarks and the 2023 layout.
        options: more arguments of the reader. For a dataset on the Hub, those of `load_dataset`, of which
            `streaming=True` gives a stream, and `columns` and `shuffle_buffer` (`hub_datasets.samples_from_dataset`).
            Folders and shards take `columns`, too.

    Raises:
        ValueError: the string is none of these, or the reader raises it.
    """
    name = os.fspath(dataset)
    options = {key: value for key, value in options.items() if key != "columns" or value is not None}
    if name in BENCHMARKS:
        _check_no_columns(options, f"{name} is a benchmark, whose files have")
        return load_benchmark(name, cast(str, split), annotations=annotations, media=media, **options)
    options |= {key: value for key, value in (("media", media), ("annotations", annotations)) if value is not None}
    if is_shard_pattern(name):
        return ShardStream(name, **options)
    path = Path(name)
    if (found := _read_local(path, split, options)) is not None:
        return found
    if not path.exists() and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
        from .hub_datasets import read_hub_dataset

        return read_hub_dataset(name, split, **options)
    if path.is_dir() and any(media_kind(file) is not None for file in path.iterdir()):
        raise ValueError(
            f"{name!r} is a folder of media without {' or '.join(METADATA_FILES)}, which has the captions of each file, in "
            'lines such as {"file_name": "clip.mp4", "captions": ["a dog barks"]} (docs/own_data.md).'
        )
    what = "is a folder, but no dataset" if path.is_dir() else "is no dataset"
    raise ValueError(
        f"{name!r} {what}. Accepted are a benchmark ({', '.join(BENCHMARKS)}), a folder with {' or '.join(METADATA_FILES)}, "
        "a folder of the 2023 layout with txt_mapper.json and lists of ids, a folder of datasets.save_to_disk, tar shards "
        'such as "shards/{000..123}.tar" or a folder of them, and the name of a dataset on the Hub, "owner/name".'
    )


def _read_local(path: Path, split: str | None, options: dict[str, Any]) -> Sequence[Sample] | SampleStream | None:
    """The samples of a metadata file or a folder; None if it is of no kind that can be read."""
    folders = split_folders(path, split)
    if path.is_file() and path.suffix in (".jsonl", ".csv"):
        return read_folder(path.parent, split, annotations=path, **options)
    if _have_any(folders, METADATA_FILES) or folders_with_metadata(path):
        return read_folder(path, split, **options)
    if any(next(path.glob(pattern), None) for pattern in _FILES_OF_2023):
        if split is None:
            raise ValueError(f"{path} has the 2023 layout: choose a split, the name of a list {{split}}_id.json.")
        _check_no_columns(options, f"{path} has the 2023 layout, which has")
        return read_valor_2023(path, split, **options)
    if _have_any(folders, _FILES_OF_SAVED_DATASETS):
        from .hub_datasets import read_saved_dataset

        return read_saved_dataset(path, split, **options)
    for folder in filter(Path.is_dir, folders):
        if shards := shards_in_folder(folder, split if folder == path else None):
            return ShardStream(shards, **options)
    return None


def _check_no_columns(options: dict[str, Any], reason: str) -> None:
    if "columns" in options:
        raise ValueError(f"{reason} no columns to choose from: leave out `columns`.")


def _have_any(folders: Iterable[Path], names: Sequence[str]) -> bool:
    """Whether any of the folders has a file with one of these names."""
    return any((folder / name).is_file() for folder in folders for name in names)


def has_splits(dataset: str | os.PathLike[str], annotations: str | None = None) -> bool:
    """Whether `load_samples` returns different samples for different splits.

    A world that `valor world` rendered has one split only, so the result is False.
    """
    name, path = os.fspath(dataset), Path(dataset)
    if name in BENCHMARKS or is_shard_pattern(name):
        return name in BENCHMARKS
    subfolders = [path / split for split in SPLIT_NAMES]
    if _have_any(subfolders, METADATA_FILES) or any(map(shards_in_folder, filter(Path.is_dir, subfolders))):
        return True
    candidates = map(Path, [annotations or path, *(path / file for file in METADATA_FILES)])
    metadata = next(filter(Path.is_file, candidates), None)
    if metadata is not None:
        return any(row.get("split") is not None for _, row in numbered_rows(metadata))
    if path.is_dir() and (shards := shards_in_folder(path)):
        return any(map(splits_in_name, shards))
    # The 2023 layout and datasets on the Hub have splits; a saved dataset has them if it is a folder of several
    return not (path / "dataset_info.json").is_file()
