# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Parts of a dataset: synonyms of split names, samples held out for evaluation, the first N samples."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .samples import LazySamples, Sample, SampleStream, SampleTable


_SPLITS = (("train", "training"), ("val", "validation", "valid", "dev"), ("test", "testing"))


SPLIT_NAMES = tuple(name for names in _SPLITS for name in names)
"""All names of the three usual splits."""


def split_names(split: str) -> tuple[str, ...]:
    """The names of a split: the given one first, then its synonyms in `datasets`."""
    same = next((names for names in _SPLITS if split in names), ())
    return split, *(name for name in same if name != split)


def hold_out(
    samples: Sequence[Sample] | SampleStream, share: float
) -> tuple[Sequence[Sample] | SampleStream, Sequence[Sample] | SampleStream]:
    """The samples to train on, and a share of them held out for evaluation, the same ones in every run.

    They are chosen by a hash of their ids, so the path of the folder and the order of its rows do not matter. All samples
    of one file (rows with a caption each, parts of a film), and all samples of a stream with the same id, stay together.

    Args:
        share: of the files, between 0 and 1. At least one file is held out and at least one is not. In a stream, whose
            length is unknown, it is the probability of each sample.

    Raises:
        ValueError: all samples are of one file.
    """
    if isinstance(samples, SampleStream):
        return StreamPart(samples, share, held_out=False), StreamPart(samples, share, held_out=True)
    files: dict[str, list[int]] = {}
    names: dict[str, str] = {}
    for index, sample in enumerate(samples):
        key = file_of(sample)
        files.setdefault(key, []).append(index)
        names.setdefault(key, sample.id)
    if len(files) < 2:
        raise ValueError("all samples are of one file, so none can be held out.")
    count = min(max(1, round(share * len(files))), len(files) - 1)
    chosen = sorted(files, key=lambda key: _fraction(names[key]))[:count]
    held = {index for key in chosen for index in files[key]}
    rest = [index for index in range(len(samples)) if index not in held]
    return Subset(samples, rest), Subset(samples, sorted(held))


def first_samples(samples: Sequence[Sample] | SampleStream, count: int) -> Sequence[Sample]:
    """The first `count` samples, or all if there are fewer.

    Raises:
        ValueError: they are a stream, whose order changes in every epoch.
    """
    if isinstance(samples, SampleStream):
        raise ValueError("a stream cannot be limited to its first samples: use fewer shards.")
    return Subset(samples, range(min(count, len(samples))))


def file_of(sample: Sample) -> str:
    """Identifies the file of a sample: its path, a hash of its bytes, or the sample's id."""
    source = sample.audio if sample.video is None else sample.video
    if isinstance(source, (list, tuple)) and source:
        source = source[0]
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source).partition("#t=")[0]
    return hashlib.sha256(source).hexdigest() if isinstance(source, bytes) else sample.id


def files_of(samples: Sequence[Sample] | SampleStream) -> set[str]:
    """[`file_of`] of samples whose annotations are in memory; empty if their media would have to be read."""
    whole = samples.samples if isinstance(samples, Subset) else samples
    if isinstance(samples, SampleStream) or not isinstance(whole, (SampleTable, list)):
        return set()
    return {file_of(sample) for sample in samples}


def _fraction(name: str) -> float:
    """A pseudo-random number in [0, 1) that depends on a name only."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


class Subset(LazySamples):
    """Some samples of a sequence, each read when it is asked for."""

    def __init__(self, samples: Sequence[Sample], indices: Sequence[int]):
        self.samples: Sequence[Sample] = samples
        self.indices: Sequence[int] = indices
        if isinstance(samples, Subset):
            self.samples, self.indices = samples.samples, [samples.indices[index] for index in indices]

    def __len__(self) -> int:
        return len(self.indices)

    def make_sample(self, index: int) -> Sample:
        return self.samples[self.indices[index]]


@dataclass(frozen=True)
class StreamPart(SampleStream):
    """The samples of a stream that are held out, or the others; see [`hold_out`]."""

    stream: SampleStream
    share: float
    held_out: bool

    def samples(self, partition: int, partitions: int, epoch: int, seed: int) -> Iterator[Sample]:
        for sample in self.stream.samples(partition, partitions, epoch, seed):
            if (_fraction(sample.id) < self.share) == self.held_out:
                yield sample
