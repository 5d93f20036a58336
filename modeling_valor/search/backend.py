# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Where an index is kept. Search needs two methods of a backend, `nearest` and `tokens`; the others keep the index.

A backend that also has `rank` is a [`RankingBackend`], and search uses this one.

[`open_backend`] chooses one by the path: PostgreSQL for `postgresql://...`, LanceDB for folders and object stores.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from .query import Query
from .ranking import Scoring
from .segments import EmbeddedSegment, IndexedFile, NearestRows, RankedSegments, Segment, SegmentTokens, TokenRows


WHERE_COLUMNS = ("source", "start", "end", "modality", "time", "metadata")
"""What a `where` condition may name: columns of a segment, and `modality` and `time` of its tokens."""


SEGMENT_COLUMNS = tuple(name for name in WHERE_COLUMNS if name not in ("modality", "time"))
"""Those of them that a search of captions has."""


def no_condition(where: str, understands: str, reason: str, columns: Sequence[str] = WHERE_COLUMNS) -> ValueError:
    """The error of a `where` that is no condition, with examples on columns, and on a text and a number of the metadata."""
    return ValueError(
        f"where={where!r} is no condition that {understands} understands ({reason}). Name {', '.join(columns)}, as in "
        "\"source LIKE '%holiday%' AND start < 60\", \"json_get_string(metadata, 'camera') = 'front'\" or "
        "\"json_get_int(metadata, 'year') >= 2020\"."
    )


CAPTIONS_HELP = "`valor index SOURCE... --captions` has the checkpoint write them, `ValorIndex.caption` stores others"
"""What messages say of an index without captions."""


class UnusableIndexError(ValueError):
    """An index that cannot be searched, whatever is asked: it is gone, empty, damaged, out of reach, or of another model."""


class SegmentStore(Protocol):
    """What files are added to: segments with their tokens, and which files are complete."""

    def segments(self, *, source: str) -> list[Segment]:
        """The segments of a source, by their start."""
        ...

    def files(self) -> Iterator[IndexedFile]:
        """All files that are complete."""
        ...

    def unfinished(self) -> list[str]:
        """Sources that have segments without being complete."""
        ...

    def write(self, segments: Sequence[EmbeddedSegment], files: Sequence[IndexedFile] = ()) -> None:
        """Adds segments with their tokens, then files. Segments that are there already stay; files are replaced.

        Whenever the process is killed, a segment is there with all its tokens or it is never found.
        """
        ...

    def delete(self, sources: Sequence[str]) -> int:
        """Removes files with all their segments and tokens; returns the number of segments."""
        ...


class Backend(SegmentStore, Protocol):
    """A store of segments, of their tokens and of the files that are complete.

    All methods raise a `ValueError` of one sentence for what a user can mend, such as a `where` that is no condition; an
    `UnusableIndexError` where it is the store itself: a server that is not there, a full disk, a damaged file.
    """

    path: str
    """What messages call the index: its address without a password."""

    # --- Search -------------------------------------------------------------------------------------------------------

    def nearest(
        self, vectors: np.ndarray, n: int, modalities: str = "va", where: str | None = None, exact: bool = False
    ) -> NearestRows:
        """The `n` token rows of the largest dot product with each vector.

        Args:
            vectors: (Q, C), float32.
            modalities: letters of the rows to look at; "t" are tokens of captions.
            where: an SQL condition on `WHERE_COLUMNS` that the rows meet.
            exact: look at all rows, also where an approximate index is faster.
        """
        ...

    def tokens(self, segments: Sequence[str], modalities: str = "va") -> TokenRows:
        """All tokens of these segments, by their ids; nothing for segments that the store does not have."""
        ...

    # --- Contents -----------------------------------------------------------------------------------------------------

    def about(self) -> dict[str, Any] | None:
        """What `create` was given; None where there is no index yet."""
        ...

    def create(self, about: Mapping[str, Any]) -> None:
        """Makes an empty index; `about["width"]` is the width C of its embeddings. One that is there is left as it is."""
        ...

    def segments(
        self, ids: Sequence[str] | None = None, source: str | None = None, uncaptioned: bool = False
    ) -> list[Segment]:
        """Segments by their ids, in their order and without those that are not there, or those of a source by their start.

        By default all segments, in no order, or with `uncaptioned` all those without a caption.
        """
        ...

    def is_empty(self) -> bool:
        """Whether there is no segment."""
        ...

    def sizes(self) -> dict[str, Any]:
        """`segments`, `tokens` (of frames and sound), `caption_tokens`, `bytes` (None where nobody knows), and `index`, the
        kind of the approximate index.
        """
        ...

    # --- Changes ------------------------------------------------------------------------------------------------------

    def set_captions(
        self, captions: Mapping[str, str | None], tokens: Mapping[str, SegmentTokens] | None = None
    ) -> None:
        """Stores captions of segments, by their ids, with the tokens of those that have some, in the place of earlier ones.

        If it is killed, it may be repeated.
        """
        ...

    def set_metadata(self, metadata: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Stores the metadata of files, by their sources, with all their segments; returns those that had another one.

        If it is killed, it may be repeated.
        """
        ...

    def find_captions(self, words: str, top: int, where: str | None = None) -> list[tuple[str, float]]:
        """Ids of segments whose captions have some of the words, best first, with their score, such as BM25.

        A `ValueError` where no captions were ever stored.
        """
        ...

    def compact(self) -> None:
        """Joins small files, brings the approximate index up to date, and frees the space of what was deleted."""
        ...

    def close(self) -> None:
        """Ends connections."""
        ...


@runtime_checkable
class RankingBackend(Backend, Protocol):
    """A backend that scores segments where they are, so that their tokens need not be fetched."""

    def rank(
        self,
        query: Query,
        scoring: Scoring,
        top: int,
        where: str | None = None,
        exact: bool = False,
        nearest_rows: int | None = None,
        limit: int | None = None,
    ) -> RankedSegments | None:
        """The best segments for a query by their exact scores, at least `top` of them, proven where that is possible.

        Args:
            scoring: how the query is compared, by `scoring_of`, with frames and sound only.
            where, exact: as in `nearest`.
            nearest_rows: rows that each token of the query looks for first; by default what is best for the backend.
            limit: most segments to return, by default `top`. Of those after the first `top` some may be missing that
                score less than `bound`.

        Returns:
            None where `nearest` and `tokens` are the better way.
        """
        ...


def open_backend(path: str | os.PathLike[str]) -> Backend:
    """The backend of an index: `postgresql://...` is a server, everything else a folder or an object store of LanceDB.

    Raises:
        ImportError: the library of this backend is not installed; the message says how to install it.
    """
    path = os.fspath(path)
    if path.startswith(("postgresql://", "postgres://")):
        from .postgres import PostgresBackend

        return PostgresBackend(path)
    from .lance import LanceBackend

    return LanceBackend(path)
