# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Rows of a dataset that have the same media, merged into one sample; and hashes that tell samples apart."""

import dataclasses
import logging
import os
from collections.abc import Sequence
from typing import Any

from ..data.fingerprints import IncomparableError, fingerprint
from ..data.samples import LazySamples, Sample, each_sample, sample_at
from ..media_sources import media_source
from .resumable import stable_hash


logger = logging.getLogger(__name__)


class MergedSamples(LazySamples):
    """Samples that all have different media.

    Args:
        samples: the rows that they are made of; a row that raises an error becomes an unreadable sample (`sample_at`).
        rows: for each merged sample the indices of its rows.
    """

    def __init__(self, samples: Sequence[Sample], rows: list[list[int]]):
        self.samples, self.rows = samples, rows

    @property
    def num_rows(self) -> int:
        """Number of rows before they were merged."""
        return sum(map(len, self.rows))

    def __len__(self) -> int:
        return len(self.rows)

    def make_sample(self, index: int) -> Sample:
        return _merged([sample_at(self.samples, row) for row in self.rows[index]])


def merge_rows(samples: Sequence[Sample], limit: int | None = None) -> MergedSamples:
    """One sample for all rows with the same media, with all their captions and questions; the first `limit` samples.

    Many datasets have one row per caption. Without merging, a video would be a wrong candidate for its own captions in
    retrieval. The merged sample has the id of its first row, and one line in the log reports the number of rows. Repeated
    questions count once, and so do captions that are repeated in a row with another question. Media are the same if they
    have the same path or the same bytes; objects that cannot be compared, such as open decoders, are always different.

    Raises:
        ValueError: two rows with the same id have different media.
    """
    if isinstance(samples, MergedSamples):
        return samples
    rows_of_media: dict[str, list[int]] = {}
    media_of_id: dict[str, tuple[str, int]] = {}
    for row, sample in enumerate(each_sample(samples)):
        media = _media_key(sample) or f"row {row}"
        first, first_row = media_of_id.setdefault(sample.id, (media, row))
        if first != media:
            raise ValueError(_shared_id(sample_at(samples, first_row), sample))
        rows_of_media.setdefault(media, []).append(row)
    merged = MergedSamples(samples, list(rows_of_media.values())[:limit])
    if merged.num_rows > len(merged):
        logger.warning(
            f"{merged.num_rows} rows are {len(merged)} samples: rows with the same media were merged, with all their "
            "captions and questions."
        )
    return merged


def sample_keys(samples: Sequence[Sample]) -> list[str]:
    """A key for each sample, under which a cache stores its results. It changes when the id or the media change.

    Files are identified by path, size and time of change, as in `data.loading.load_media`; folders of frames by their
    files.
    """
    return [stable_hash(sample.id, _media_key(sample, with_state=True)) for sample in samples]


def _merged(rows: Sequence[Sample]) -> Sample:
    captions, questions = list(rows[0].captions), list(rows[0].questions)
    for row in rows[1:]:
        if not (row.questions and set(row.captions) <= set(captions)):
            captions += row.captions
        questions += [question for question in row.questions if question not in questions]
    return dataclasses.replace(rows[0], captions=tuple(captions), questions=tuple(questions))


def _shared_id(first: Sample, second: Sample) -> str:
    names = [_short_name(sample.audio if sample.video is None else sample.video) for sample in (first, second)]
    which = f": {names[0]} and {names[1]}" if names[0] != names[1] else ""
    return (
        f"Two samples with different media have the id {first.id!r}{which}. Results are stored by id: give each sample an "
        "id of its own, in a column or field `id`."
    )


def _short_name(source: Any) -> str:
    file = media_source(source)
    if isinstance(file, (str, os.PathLike)):
        return os.path.basename(os.fspath(file))
    return f"an object of type {type(source).__name__}"


# --- Comparing media -------------------------------------------------------------------------------------------


def _media_key(sample: Sample, with_state: bool = False) -> str | None:
    """Equal for samples with the same media; None if they cannot be compared. Without media it is a hash of the id."""
    if sample.video is None and sample.audio is None:
        return stable_hash(sample.id)
    try:
        return stable_hash(fingerprint(sample.video, with_state), fingerprint(sample.audio, with_state))
    except IncomparableError:
        return None
