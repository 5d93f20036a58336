# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Which samples are one clip: rows of the same media become one, and a changed file is another clip."""

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


class Clips(LazySamples):
    """Samples of which each is another clip, made when they are asked for.

    Args:
        samples: the rows that they are made of; one that cannot be had is a clip that cannot be read (`sample_at`).
        rows: for each clip the indices of its samples.
    """

    def __init__(self, samples: Sequence[Sample], rows: list[list[int]]):
        self.samples, self.rows = samples, rows

    @property
    def num_rows(self) -> int:
        """How many samples the clips are made of."""
        return sum(map(len, self.rows))

    def __len__(self) -> int:
        return len(self.rows)

    def make_sample(self, index: int) -> Sample:
        return _merged([sample_at(self.samples, row) for row in self.rows[index]])


def merge_rows(samples: Sequence[Sample], limit: int | None = None) -> Clips:
    """One clip for all samples with the same media, with all their captions and questions; the first `limit` of the clips.

    Datasets often have one row per caption, so that a clip would be its own rival in retrieval. Merged rows get the first
    row's id, and one line in the log says how many there were. What a row only repeats counts once: a question, or the
    captions of a row that has another question. Media are the same if they are at the same place or hold the same bytes;
    objects that cannot be compared, such as open decoders, are always different.

    Raises:
        ValueError: two samples with one id have different media.
    """
    if isinstance(samples, Clips):
        return samples
    rows_of_media: dict[str, list[int]] = {}
    media_of_id: dict[str, tuple[str, int]] = {}
    for row, sample in enumerate(each_sample(samples)):
        media = _media_key(sample) or f"row {row}"
        first, first_row = media_of_id.setdefault(sample.id, (media, row))
        if first != media:
            raise ValueError(_shared_id(sample_at(samples, first_row), sample))
        rows_of_media.setdefault(media, []).append(row)
    clips = Clips(samples, list(rows_of_media.values())[:limit])
    if clips.num_rows > len(clips):
        logger.warning(
            f"{clips.num_rows} samples are {len(clips)} clips: those with the same media were merged, with all their "
            "captions and questions."
        )
    return clips


def clip_keys(samples: Sequence[Sample]) -> list[str]:
    """A name for each sample, by which a cache knows its results: another one when its id or its media change.

    Files are known by place, size and time of change, as in `data.loading.load_media`; folders of frames by their files.
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
        f"Two different clips have the id {first.id!r}{which}. Results are kept by id: give each clip its own, in a "
        "column or field `id`."
    )


def _short_name(source: Any) -> str:
    file = media_source(source)
    if isinstance(file, (str, os.PathLike)):
        return os.path.basename(os.fspath(file))
    return f"an object of type {type(source).__name__}"


# --- What tells media apart -------------------------------------------------------------------------------------------


def _media_key(sample: Sample, with_state: bool = False) -> str | None:
    """The same for samples of the same media, None for media that cannot be compared; without media it is the id's."""
    if sample.video is None and sample.audio is None:
        return stable_hash(sample.id)
    try:
        return stable_hash(fingerprint(sample.video, with_state), fingerprint(sample.audio, with_state))
    except IncomparableError:
        return None
