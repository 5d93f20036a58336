# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Samples of datasets of the `datasets` library: the meaning of columns, and media that stay encoded."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets import (
    Audio,
    Dataset,
    DatasetDict,
    Features,
    Image,
    IterableDataset,
    Video,
)

from ...media_limits import reason
from ...media_sources import media_source
from ..samples import LazySamples, RecordError, Sample, SampleStream, unreadable_sample
from ..splits import split_names
from .records import KEYS, as_names, captions_of, look_up, name_columns, questions_of, rename_columns


MEDIA_COLUMNS = {
    "video": ("video", "videos", "clip", "mp4", "frames", "images", "image", "jpg", "img", "video_path", "image_path"),
    "audio": ("audio", "sound", "wav", "flac", "mp3", "audio_path"),
}
"""Usual names of media columns; the first that exists is used."""


def samples_from_dataset(
    dataset: Dataset, columns: Mapping[str, str | Sequence[str] | None] | None = None
) -> Sequence[Sample]:
    """The rows of a `datasets.Dataset` as samples.

    Media are columns of the types `Video`, `Image`, `List(Image)` (frames) and `Audio`, or else columns of paths or bytes
    with a usual name (`MEDIA_COLUMNS`). Nothing is decoded, whatever the type of the column: a sample has the path or the
    bytes. Without a column of audio, the audio tracks of the videos are used. Texts are columns with the names of `records.KEYS`. The
    samples' ids are those of an `id` column, otherwise the numbers of the rows.

    Args:
        columns: for other names of columns: field ("video", "audio", "captions", "questions", "answers", "id", "type") ->
            name of its column, or a list of names for captions; `None` to ignore a column that would be used.

    Raises:
        ValueError: a column does not exist, there is no column of media, or there are several candidates.
    """
    return _Rows(dataset.with_format("arrow"), Columns.find(dataset.features, dataset.column_names, columns))


def stream_from_dataset(
    dataset: IterableDataset,
    columns: Mapping[str, str | Sequence[str] | None] | None = None,
    shuffle_buffer: int = 1000,
) -> SampleStream:
    """The rows of a `datasets.IterableDataset` as a stream of samples; columns are as in `samples_from_dataset`.

    Partitions are whole shards of the dataset where it has as many, and every n-th row otherwise, for which each
    partition reads all rows. Shards and rows are shuffled by seed and epoch, the rows through a buffer.

    Args:
        shuffle_buffer: number of rows that are shuffled at a time and held in memory with their media. 0: no shuffling.
    """
    names = dataset.column_names
    if names is None:
        first = next(dataset.with_format("arrow").iter(batch_size=1), None)
        if first is None:
            raise ValueError("the dataset has no rows.")
        names = first.column_names
    return _Stream(dataset, Columns.find(dataset.features, names, columns), shuffle_buffer, names)


@dataclass(frozen=True)
class Columns:
    """The columns of media and texts in a dataset.

    Args:
        video, audio: columns of media, or None.
        audio_from_video: whether the audio is that of the video files.
        texts: field of `records.KEYS` -> its columns, for fields with other names.
    """

    video: str | None
    audio: str | None
    audio_from_video: bool
    texts: Mapping[str, tuple[str, ...]]

    @classmethod
    def find(
        cls,
        features: Features | None,
        names: Sequence[str],
        columns: Mapping[str, str | Sequence[str] | None] | None,
    ) -> "Columns":
        """Finds the columns: by `columns`, then by type, then by usual names.

        Raises:
            ValueError: as in `samples_from_dataset`.
        """
        chosen = _choices(columns or {}, names)
        media = {field: next(iter(found), None) for field, found in chosen.items() if field in MEDIA_COLUMNS}
        texts = name_columns({field: found for field, found in chosen.items() if field not in MEDIA_COLUMNS})
        taken = {*media.values(), *itertools.chain.from_iterable(texts.values())}
        free = [name for name in names if name not in taken]
        for field in MEDIA_COLUMNS:
            if field not in media:
                media[field] = _media_column(field, free, features)
        if media["video"] is None and media["audio"] is None:
            raise ValueError(
                f"none of the columns {', '.join(names)} is of the type Video, Image, List(Image) or Audio, or has a usual "
                'name: choose one with columns={"video": ...} or columns={"audio": ...}.'
            )
        audio_from_video = media["audio"] is None and "audio" not in chosen and _has_audio(media["video"], features)
        return cls(media["video"], media["audio"], audio_from_video, texts)

    def sample(self, row: dict[str, Any], number: str) -> Sample:
        """A sample from a row of undecoded values; it is unreadable if the texts have an invalid form.

        Args:
            number: its id where the row has none.
        """
        try:
            return self._sample(row, number)
        except RecordError as error:
            return unreadable_sample(f"row {number} ({str(error).rstrip('.')})")

    def _sample(self, row: dict[str, Any], number: str) -> Sample:
        video = None if self.video is None else _source(row[self.video])
        audio = None if self.audio is None else _source(row[self.audio])
        if self.audio_from_video:
            audio = video
        record = {key: value for key, value in row.items() if key not in (self.video, self.audio)}
        if isinstance(record.get("json"), dict):
            record = {**record, **record["json"]}
        record = rename_columns(record, self.texts)
        name = look_up(record, "id")
        return Sample(number if name is None else str(name), video, audio, captions_of(record), questions_of(record))


def _choices(columns: Mapping[str, str | Sequence[str] | None], names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The columns named for each field, of those that exist.

    Raises:
        ValueError: one does not exist, a field is none of a sample, or there are several for video or audio.
    """
    chosen = {field: as_names(given) for field, given in columns.items()}
    for field, found in chosen.items():
        if absent := [name for name in found if name not in names]:
            raise ValueError(f"the dataset has no column {absent[0]!r}, only {', '.join(names)}.")
        if field in MEDIA_COLUMNS:
            if len(found) > 1:
                raise ValueError(f"`columns` gives {len(found)} columns for {field!r}, but it is one.")
        elif not any(field == key or field in aliases for key, aliases in KEYS.items()):
            accepted = ", ".join([*MEDIA_COLUMNS, *KEYS])
            raise ValueError(f"`columns` has the entry {field!r}, but a column can only be one of {accepted}.")
    return chosen


def _has_audio(column: str | None, features: Features | None) -> bool:
    """Whether a column may hold files with audio; images and lists of frames have none."""
    feature = (features or {}).get(column)
    return column is not None and not isinstance(feature, Image) and _items(feature) is None


def _media_column(field: str, names: Sequence[str], features: Features | None) -> str | None:
    """The column that holds video or audio, by type or else by name."""
    features = features or Features()
    types = (Video, Image) if field == "video" else (Audio,)
    typed = list(filter(lambda name: isinstance(_innermost(features.get(name)), types), names))
    found = [name for name in MEDIA_COLUMNS[field] if name in (typed or names)] or typed
    if not typed:  # a column "image" may also be a number
        found = [name for name in found if not re.search("int|float", str(features.get(name)))]
    if len(found) > 1 and found[0] not in MEDIA_COLUMNS[field]:
        raise ValueError(
            f"the columns {', '.join(found)} might all be the {field}: choose one with columns={{{field!r}: ...}}."
        )
    return found[0] if found else None


def _items(feature: Any) -> Any:
    """The type of a list's items; None if the feature is no list."""
    if isinstance(feature, (list, tuple)):
        return feature[0]
    return getattr(feature, "feature", None)


def _innermost(feature: Any) -> Any:
    items = _items(feature)
    return feature if items is None else items


def _source(value: Any) -> Any:
    """The processor's input for a stored value: a path or URL, bytes, or a list of these."""
    if isinstance(value, list):
        return [_source(item) for item in value]
    source = media_source(value)
    return value if source is None else source


class _Rows(LazySamples):
    """Rows of a dataset, each read when it is asked for."""

    def __init__(self, dataset: Dataset, columns: Columns):
        self.dataset = dataset
        self.columns = columns
        self.column_names = dataset.column_names

    def __len__(self) -> int:
        return len(self.dataset)

    def make_sample(self, index: int) -> Sample:
        return self.columns.sample(self.dataset[index].to_pylist()[0], str(index))


class _Stream(SampleStream):
    """Rows of an iterable dataset; see `stream_from_dataset`."""

    def __init__(self, dataset: IterableDataset, columns: Columns, shuffle_buffer: int, column_names: Sequence[str]):
        self.column_names = list(column_names)
        self.dataset = dataset.with_format("arrow")
        self.columns = columns
        self.shuffle_buffer = shuffle_buffer

    def samples(self, partition: int, partitions: int, epoch: int, seed: int) -> Iterator[Sample]:
        dataset, step = self.dataset, partitions
        if dataset.num_shards >= partitions:
            dataset, step = dataset.shard(num_shards=partitions, index=partition), 1
        if self.shuffle_buffer:
            state = int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
            dataset = dataset.shuffle(seed=state, buffer_size=self.shuffle_buffer)
        # `iter(dataset)` would divide the rows among the workers of a data loader once more; `iter` does not
        rows = enumerate(dataset.iter(batch_size=1))
        name = "the first"
        try:
            for number, table in itertools.islice(rows, partition if step > 1 else 0, None, step):
                name = f"{partition}-{number}" if step == 1 and partitions > 1 else str(number)
                yield self.columns.sample(table.to_pylist()[0], name)
        except Exception as error:  # of a file or a server; the remaining rows are read in the next epoch
            yield unreadable_sample(f"the dataset's rows after {name} ({type(error).__name__}: {reason(error)})")


def read_saved_dataset(path: Path, split: str | None, **options: Any) -> Sequence[Sample]:
    """The samples of a folder that `datasets.Dataset.save_to_disk` wrote."""
    dataset = datasets.load_from_disk(str(path))
    if isinstance(dataset, DatasetDict):
        chosen = next((name for name in split_names(split or "") if name in dataset), None)
        if chosen is None:
            raise ValueError(f"{path} has the splits {', '.join(dataset)}: choose one of them, not {split!r}.")
        dataset = dataset[chosen]
    return samples_from_dataset(dataset, **options)


def read_hub_dataset(name: str, split: str | None, **options: Any) -> Sequence[Sample] | SampleStream:
    """The samples of a dataset on the Hub; `options` are those of `load_dataset`, `columns` and `shuffle_buffer`."""
    if split is None:
        raise ValueError(f"{name} is on the Hub: choose a split, such as 'train'.")
    ours = {key: options.pop(key) for key in ("columns", "shuffle_buffer") if key in options}
    first, *others = split_names(split)
    try:
        dataset = datasets.load_dataset(name, split=first, **options)
    except ValueError as error:  # its message lists the splits
        other = next((other for other in others if f"'{other}'" in str(error)), None)
        if other is None:
            raise
        dataset = datasets.load_dataset(name, split=other, **options)
    if options.get("streaming"):
        return stream_from_dataset(dataset, **ours)
    return samples_from_dataset(dataset, **ours)
