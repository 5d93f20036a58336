# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What every reader gives and every loader takes: one clip with its captions and questions, not yet decoded."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..media import MediaError
from .readers.text_files import printable


@dataclass(frozen=True)
class Question:
    """A question about a clip.

    Args:
        text: the question.
        answers: the accepted answer, or those of several annotators in their order, repetitions included.
        type: what kind of question, where the annotations say so; accuracies are then also reported by type.
        id: the question's own id, where the annotations have one.
    """

    text: str
    answers: tuple[str, ...] = ()
    type: str | None = None
    id: str | None = None


@dataclass(frozen=True)
class Sample:
    """A clip as it is annotated. Nothing is read from its files before a data loader's worker asks for it.

    Args:
        id: the name by which annotations and submissions know the clip.
        video: whatever [`ValorVideoProcessor`] takes as one video: a file, a folder of frames, an image, bytes, an array;
            `None`: there are no frames.
        audio: whatever [`ValorFeatureExtractor`] takes as one sample. A video's own sound is the same file once more; if
            that has no audio track, the sample has no sound. `None`: there is none.
        captions: descriptions of the clip, of which training takes one at a time.
        questions: questions about the clip.
    """

    id: str
    video: Any = None
    audio: Any = None
    captions: tuple[str, ...] = ()
    questions: tuple[Question, ...] = ()


class SampleStream(ABC):
    """Samples that can only be read in order, such as tar shards."""

    @abstractmethod
    def samples(self, partition: int, partitions: int, epoch: int, seed: int) -> Iterator[Sample]:
        """One of `partitions` disjoint parts of all samples, once.

        Parts belong to ranks and workers. Their order depends on `epoch` and `seed` and on nothing else, so that a resumed
        run can skip to where it was; samples that are skipped are not decoded.
        """


class UnreadableFile:
    """In place of media that cannot be had: whoever reads it gets a `MediaError` with the reason."""

    def __init__(self, name: str):
        self.name = name

    def read(self, size: int = -1) -> bytes:
        raise MediaError(f"{self.name} cannot be read.")


def unreadable_sample(message: str) -> Sample:
    """In place of a sample that cannot be had; `message` names it and says why. Reading it is a failure like any other."""
    return Sample(message, UnreadableFile(message))


def sample_at(samples: Sequence[Sample], index: int) -> Sample:
    """`samples[index]`, or an unreadable sample where that raises, so that one bad row ends no run.

    Raises:
        IndexError: there is no such sample.
    """
    if not -len(samples) <= index < len(samples):
        raise IndexError(f"sample {index} of {len(samples)}")
    try:
        return samples[index]
    except Exception as error:
        return unreadable_sample(printable(f"sample {index} ({type(error).__name__}: {error})"))


def each_sample(samples: Sequence[Sample] | SampleStream) -> Iterator[Sample]:
    """All samples once, those of a stream in the order of its first epoch."""
    if isinstance(samples, SampleStream):
        return iter(samples.samples(0, 1, epoch=0, seed=0))
    return (sample_at(samples, index) for index in range(len(samples)))
