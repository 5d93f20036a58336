# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Samples: the media, captions and questions that readers return and loaders decode."""

import json
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

from ..media import MediaError


@dataclass(frozen=True)
class Question:
    """A question about a sample.

    Args:
        text: the question.
        answers: the accepted answer, or the answers of several annotators in their order, including repetitions.
        type: kind of question, if annotated; accuracy is also reported for each type.
        id: of the question, if annotated.
    """

    text: str
    answers: tuple[str, ...] = ()
    type: str | None = None
    id: str | None = None


@dataclass(frozen=True)
class Sample:
    """An item of a dataset. Its files are not read before a data loader loads it.

    Args:
        id: its name in annotations and submissions.
        video: whatever [`ValorVideoProcessor`] takes as one video: a file, a folder of frames, an image, bytes, an array;
            `None`: there are no frames.
        audio: whatever [`ValorFeatureExtractor`] takes as one sample. For the audio track of a video it is the same file
            as `video`; if that file has no audio track, the sample has no audio. `None`: there is no audio.
        captions: descriptions; training uses one at a time.
        questions: questions about the sample.
    """

    id: str
    video: Any = None
    audio: Any = None
    captions: tuple[str, ...] = ()
    questions: tuple[Question, ...] = ()


class LazySamples(Sequence[Sample]):
    """A sequence whose samples are made when they are asked for. Subclasses define `__len__` and `make_sample`."""

    @abstractmethod
    def make_sample(self, index: int) -> Sample:
        """The sample at an index from 0 to `len(self) - 1`."""

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self.make_sample(place) for place in range(len(self))[index]]
        return self.make_sample(range(len(self))[index])


class SampleTable(LazySamples):
    """Samples that are made from JSON records when they are asked for.

    The records are one block of bytes, which needs a tenth of the memory of as many objects. The forked workers of a data
    loader share it, because nothing in it is ever written, not even a reference count. An item takes about 20
    microseconds.

    A `datasets.Dataset` needs two times as long for an item, and each of its columns has one type: it rejects answers that
    are a text in one row and a list or a number in another, and file names that are not in UTF-8.

    Args:
        records: a JSON-serialisable value for each sample.
        make: makes a sample from its record; a function that can be pickled.
    """

    def __init__(self, records: Iterable[Any], make: Callable[[Any], Sample]):
        self.make = make
        self.ends = array("Q")
        block = bytearray()
        for record in records:
            # File names that are not in UTF-8 have lone surrogates, which `json.loads` accepts, too
            block += json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
            self.ends.append(len(block))
        self.block = bytes(block)

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def column_names(self) -> list[str]:
        """The names in the first record."""
        return list(json.loads(self.block[: self.ends[0]])) if self.ends else []

    def make_sample(self, index: int) -> Sample:
        start = self.ends[index - 1] if index else 0
        return self.make(json.loads(self.block[start : self.ends[index]]))

    def __iter__(self) -> Iterator[Sample]:
        return map(self.make_sample, range(len(self)))


class SampleStream(ABC):
    """Samples that can only be read in order, such as tar shards."""

    @abstractmethod
    def samples(self, partition: int, partitions: int, epoch: int, seed: int) -> Iterator[Sample]:
        """One of `partitions` disjoint parts of all samples, each sample once.

        Each rank and worker reads one part. The order depends on `epoch` and `seed` only, so that a resumed run can skip to
        its position; skipped samples are not decoded.
        """


class RecordError(ValueError):
    """A record has an invalid form; the message names the record and says what is wrong."""


class UnreadableFile:
    """Placeholder for media that are not available: reading it raises a `MediaError` with the reason."""

    def __init__(self, name: str):
        self.name = name

    def read(self, size: int = -1) -> bytes:
        raise MediaError(f"{self.name} cannot be read.")


def printable(text: str) -> str:
    """The text with escapes for characters that UTF-8 cannot encode, such as file names in other encodings."""
    return text.encode("utf-8", "backslashreplace").decode()


def unreadable_sample(message: str) -> Sample:
    """Placeholder for a sample that is not available; `message` names it and the reason. Loading it is a failure."""
    message = printable(message)
    return Sample(message, UnreadableFile(message))


def sample_at(samples: Sequence[Sample], index: int) -> Sample:
    """`samples[index]`, or an unreadable sample if that raises an error, so that one bad row does not end a run.

    Raises:
        IndexError: there is no such sample.
    """
    if not -len(samples) <= index < len(samples):
        raise IndexError(f"sample {index} of {len(samples)}")
    try:
        return samples[index]
    except Exception as error:
        return unreadable_sample(f"sample {index} ({type(error).__name__}: {error})")


def each_sample(samples: Sequence[Sample] | SampleStream) -> Iterator[Sample]:
    """All samples once, those of a stream in the order of its first epoch."""
    if isinstance(samples, SampleStream):
        return iter(samples.samples(0, 1, epoch=0, seed=0))
    return (sample_at(samples, index) for index in range(len(samples)))
