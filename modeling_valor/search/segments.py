# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What an index is made of: segments of media with their token embeddings, and the files that they are parts of."""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


FORMAT_VERSION = 1
"""Of the tables of an index; a newer one is refused."""


@dataclass(frozen=True)
class FileState:
    """What tells whether a file has changed: its size in bytes and its time of change in ns; None where nobody knows."""

    size: int | None = None
    modified: int | None = None


@dataclass(frozen=True)
class SegmentTokens:
    """Token embeddings of one segment: a row for each frame ("v") and each audio clip ("a"), or for each token of its caption.

    Args:
        modalities: N letters, such as "vvvva"; "t" for those of a caption.
        times: (N,), the second of the file that a token is about.
        weights: (N,), f(e) of eq. 3 before its softmax.
        embeds: (N, C), L2-normalised; kept as float16.

    Raises:
        ValueError: there is no token, a letter is not "v", "a" or "t", or the shapes disagree.
    """

    modalities: str
    times: np.ndarray
    weights: np.ndarray
    embeds: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.modalities)
        shapes = [np.shape(self.times), np.shape(self.weights), np.shape(self.embeds)[:1]]
        if not count or set(self.modalities) - set("vat") or shapes != [(count,)] * 3 or np.ndim(self.embeds) != 2:
            raise ValueError(
                f"A segment has tokens of the modalities {self.modalities!r} with times, weights and embeddings of shapes "
                f"{np.shape(self.times)}, {np.shape(self.weights)} and {np.shape(self.embeds)}; at least one token, the "
                'letters "v", "a" and "t", and (N,), (N,) and (N, C) are accepted.'
            )


@dataclass(frozen=True)
class Segment:
    """A part of a file, `[start, end)` in seconds, and what is known of it.

    Args:
        source: path or address of the file.
        start, end: seconds of presentation time.
        modalities: what it has: "v", "a" or "va".
        state: size and time of the file.
        revision: hash of the weights that its tokens are of.
        caption: a text about it.
        metadata: anything that JSON has.
    """

    source: str
    start: float
    end: float
    modalities: str = ""
    state: FileState = field(default_factory=FileState)
    revision: str = ""
    caption: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """32 hex digits, the same wherever the same part of the same source is indexed."""
        name = f"{self.source}\0{self.start:.3f}\0{self.end:.3f}"
        return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True)
class EmbeddedSegment:
    """A segment with its tokens, as [`ValorIndex.add_segments`] takes it.

    Args:
        tokens: those of its frames and sound.
        caption_tokens: those of its caption, where the checkpoint compares media with captions (groups a-tv and v-ta).
    """

    segment: Segment
    tokens: SegmentTokens
    caption_tokens: SegmentTokens | None = None


@dataclass(frozen=True)
class IndexedFile:
    """A file all of whose segments are in the index.

    Args:
        source: its path or address.
        state: its size and time when it was indexed.
        segmentation: how it was cut, such as "10.0 s every 10.0 s".
        seconds: how much of it is in its segments; what several of them share counts once.
        segments: number of its segments in the index; 0 for a file with nothing to embed.
    """

    source: str
    state: FileState
    segmentation: str
    seconds: float
    segments: int


def covered_seconds(spans: Iterable[tuple[float, float]]) -> float:
    """How much is in any of these parts, `[start, end)` in seconds: what several share counts once."""
    total, reached = 0.0, -math.inf
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


@dataclass(frozen=True)
class TokenRows:
    """Tokens of several segments, in any order.

    Args:
        segments: (N,), ids of their segments.
        modalities: (N,), "v", "a" or "t".
        times, weights: (N,), as in [`SegmentTokens`].
        embeds: (N, C), float16.
    """

    segments: np.ndarray
    modalities: np.ndarray
    times: np.ndarray
    weights: np.ndarray
    embeds: np.ndarray

    def __len__(self) -> int:
        return len(self.segments)


@dataclass(frozen=True)
class NearestRows:
    """For each of Q vectors the token rows most similar to it, best first.

    Args:
        similarities: Q arrays of dot products, float32. One shorter than was asked for is all that there is.
        segments: Q arrays of the ids of their segments.
        exact: whether nothing more similar was missed. False: the lists are those of an approximate index.
        error: how much the similarities may differ from those of the stored embeddings, at most.
    """

    similarities: Sequence[np.ndarray]
    segments: Sequence[np.ndarray]
    exact: bool
    error: float = 0.0


def merge_nearest(parts: Sequence[NearestRows], n: int) -> NearestRows:
    """The `n` best of lists of the same vectors in different rows."""
    if len(parts) == 1:
        return parts[0]
    similarities, segments = [], []
    for values, names in zip(
        zip(*(part.similarities for part in parts), strict=True),
        zip(*(part.segments for part in parts), strict=True),
        strict=True,
    ):
        joined = np.concatenate(values)
        best = np.argsort(-joined, kind="stable")[:n]
        similarities.append(joined[best])
        segments.append(np.concatenate(names)[best])
    exact = all(part.exact for part in parts)
    return NearestRows(similarities, segments, exact, max(part.error for part in parts))


@dataclass(frozen=True)
class RankedSegments:
    """The best segments for a query.

    Args:
        ids: their ids, best first.
        scores: S of eq. 3 of each.
        bound: no other segment scores higher than this; inf where an approximate index was asked.
    """

    ids: list[str]
    scores: np.ndarray
    bound: float
