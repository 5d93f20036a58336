# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What every reader gives and every loader takes: one clip with its captions and questions, not yet decoded."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any


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


def each_sample(samples: Sequence[Sample] | SampleStream) -> Iterator[Sample]:
    """All samples once, those of a stream in the order of its first epoch."""
    return iter(samples.samples(0, 1, epoch=0, seed=0) if isinstance(samples, SampleStream) else samples)
