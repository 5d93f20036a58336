# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Captions of segments that an index has already: the checkpoint writes those that are missing, batch by batch."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tqdm import tqdm

from .adding import AddReport, count_of
from .backend import Backend
from .embedding import EmbeddingModel
from .failures import FailureLog
from .reading import BrokenSegment, FileEnd, ReadSegment, Segmentation, read_segments
from .segments import Segment
from .sources import IndexItem


def store_captions(backend: Backend, model: EmbeddingModel, captions: Mapping[str, str | None]) -> None:
    """Stores captions of segments, by the segments' ids, and their tokens if the checkpoint compares media with captions."""
    tokens = {}
    if model.compares_captions:
        segments = backend.segments(list(captions))
        tokens = model.embed_captions([replace(segment, caption=captions[segment.id]) for segment in segments])
    backend.set_captions(captions, tokens)


def caption_segments(
    backend: Backend,
    model: EmbeddingModel,
    items: Sequence[IndexItem],
    segmentation: Segmentation,
    report: AddReport,
    *,
    batch_size: int,
    workers: int,
    progress: bool | None,
) -> None:
    """Has the checkpoint write a caption of each segment of these files that has none; `report` is kept up to date.

    A batch is stored as soon as it is written, so that whenever the process ends all but the last batch is there.

    Args:
        segmentation: how files are cut of which the index does not say so.
    """
    missing: dict[str, set[str]] = {item.source: set() for item in items}
    for segment in backend.segments(uncaptioned=True):
        if segment.source in missing:
            missing[segment.source].add(segment.id)
    cut = {file.source: Segmentation.parse(file.segmentation) for file in backend.files() if file.source in missing}
    groups: dict[Segmentation, list[IndexItem]] = {}
    for item in items:
        if missing[item.source]:
            groups.setdefault(cut.get(item.source) or segmentation, []).append(item)
    total = sum(map(len, missing.values()))
    with tqdm(total=total, unit="caption", disable=None if progress and total else True) as bar:
        for own, files in groups.items():
            _caption_files(backend, model, files, own, missing, report, batch_size, workers, bar)


def _caption_files(
    backend: Backend,
    model: EmbeddingModel,
    items: Sequence[IndexItem],
    segmentation: Segmentation,
    missing: dict[str, set[str]],
    report: AddReport,
    batch_size: int,
    workers: int,
    bar: Any,
) -> None:
    """The files that are cut in one way; `missing` are the ids of segments without a caption, by the files' names."""
    batch: dict[str, ReadSegment] = {}
    failed = FailureLog(report.failures, bar)

    def write() -> None:
        if batch:
            texts = model.caption([read.inputs for read in batch.values()])
            store_captions(backend, model, dict(zip(batch, texts, strict=True)))
        report.captioned += len(batch)
        bar.update(len(batch))
        batch.clear()

    for event in read_segments([item.media for item in items], {}, segmentation, model.processor, workers):
        source = items[event.file].source
        if isinstance(event, FileEnd):
            failed.end_stretch(source)
            if event.reason is not None:
                failed.add_file(source, event.reason)
            elif missing[source]:
                what = count_of(len(missing[source]), "segment")
                failed.add_file(source, f"Without a caption: {what}, not found in it again.")
            continue
        name = Segment(source, event.start, event.end).id
        if name not in missing[source]:
            continue
        missing[source].remove(name)
        if isinstance(event, BrokenSegment):
            failed.add_segment(source, event)
            continue
        failed.end_stretch(source)
        batch[name] = event
        if len(batch) == batch_size:
            write()
    write()
