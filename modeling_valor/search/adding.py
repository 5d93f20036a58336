# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Adding files to an index: what is new is read, embedded and written batch by batch, so that a killed run goes on."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tqdm import tqdm
from transformers.utils import logging

from .backend import Backend, SegmentStore
from .embedding import EmbeddingModel
from .failures import FailureLog
from .reading import BrokenSegment, ReadSegment, Segmentation, read_segments
from .segments import EmbeddedSegment, FileState, IndexedFile, Segment, covered_seconds
from .sources import IndexItem, Source, is_covered, is_gone, part_start


logger = logging.get_logger(__name__)


@dataclass
class AddReport:
    """What came of adding files.

    Args:
        added: files that were read to their end, those of which only a part was missing included.
        unchanged: number of files that were passed over, because the index has them as they are.
        replaced: files that had changed, or that were cut otherwise before; they are among `added`.
        updated: files that stay as they are but for their metadata.
        vanished: files of the index that are no longer there. They stay in the index; `remove` takes them out.
        failures: for each source that could not be read, or segment of it, one sentence.
        segments: number of new segments.
        captioned: number of segments, new ones and others, that the checkpoint wrote a caption of.
        seconds: seconds of media that new segments are of; what several segments share counts once.
    """

    added: list[str] = field(default_factory=list)
    unchanged: int = 0
    replaced: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    vanished: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    segments: int = 0
    captioned: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return self.describe("added")

    def describe(self, done: str) -> str:
        """The report in one sentence, in which files are "added" or `done` otherwise."""
        added = f"{count_of(len(self.added), 'file')} {done}"
        parts = [f"{added} ({count_of(self.segments, 'segment')}, {length_of(self.seconds)})" if self.added else added]
        for count, what in (
            (len(self.replaced), "of them replaced"),
            (self.unchanged, "unchanged"),
            (len(self.updated), "with new metadata"),
            (self.captioned, "segments captioned"),
            (len(self.vanished), "vanished"),
            (len(self.failures), "not read, at least in part"),
        ):
            if count:
                parts.append(f"{count:,} {what}")
        return ", ".join(parts) + "."


def count_of(count: int, noun: str) -> str:
    """ "1 file" or "1,200 files"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def length_of(seconds: float) -> str:
    """ "12.5 seconds", "12.5 minutes" or "12.5 hours"."""
    for length, unit in ((3600, "hours"), (60, "minutes")):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} seconds"


@dataclass(frozen=True)
class Plan:
    """What is to be read: files, and of each the segments that are done already.

    `kept` are files of which the index has something that stays.
    """

    items: Sequence[IndexItem]
    done: dict[int, set[tuple[float, float]]]
    kept: Sequence[IndexItem] = ()


def segmentation_of(backend: Backend) -> Segmentation | None:
    """How files of an index are cut unless something else is asked for: as it was made, or else as most of its files are."""
    about = backend.about()
    if about is None:
        return None
    made = about.get("segmentation")
    counts = Counter([made] if made else (file.segmentation for file in backend.files()))
    return next(filter(None, (Segmentation.parse(text) for text, _ in counts.most_common())), None)


def plan_additions(
    backend: SegmentStore,
    items: Sequence[IndexItem],
    segmentation: Segmentation,
    report: AddReport,
    cut_again: bool = True,
) -> Plan:
    """Which files are new or changed. What the index has of changed ones is deleted.

    Args:
        cut_again: files that were cut otherwise are cut again; False: they stay as they are.
    """
    known = {file.source: file for file in backend.files()}
    unfinished = set(backend.unfinished())
    stale: list[str] = []
    todo: list[IndexItem] = []
    kept: list[IndexItem] = []
    cut_before: list[str] = []
    begun_anew = 0
    done: dict[int, set[tuple[float, float]]] = {}
    for item in items:
        file = known.get(item.source)
        if (
            file is not None
            and is_current(item.state, file.state)
            and (file.segmentation == str(segmentation) or not cut_again)
        ):
            report.unchanged += 1
            kept.append(item)
            continue
        if file is not None:
            report.replaced.append(item.source)
            if file.segmentation != str(segmentation):
                cut_before.append(file.segmentation)
            stale.append(item.source)
        elif item.source in unfinished:
            begun = backend.segments(source=item.source)
            start = part_start(item.source)  # segments are cut from the beginning of a part
            spans = [(segment.start - start, segment.end - start) for segment in begun]
            current = all(is_current(item.state, segment.state) for segment in begun)
            if current and segmentation.may_have_made(spans):
                done[len(todo)] = {(round(start, 3), round(end, 3)) for start, end in spans}
                kept.append(item)
            else:
                begun_anew += 1
                stale.append(item.source)
        todo.append(item)
    if cut_before:
        logger.warning(
            f"Files that are cut again: {len(cut_before)}. They were cut otherwise before ({'; '.join(sorted(set(cut_before)))}), and "
            f"this time {segmentation} is asked for."
        )
    if begun_anew:
        logger.warning(
            f"Files of which a part was indexed and that are begun anew, as they have changed or were cut otherwise: {begun_anew}."
        )
    if stale:
        backend.delete(stale)
    return Plan(todo, done, kept)


def update_metadata(backend: Backend, plan: Plan, report: AddReport) -> None:
    """Stores the metadata that files are added with now also where nothing of them is read again."""
    if plan.kept:
        report.updated = backend.set_metadata({item.source: item.metadata for item in plan.kept})


def find_vanished(backend: SegmentStore, sources: Source | Iterable[Source]) -> list[str]:
    """Files of the index that `sources` stood for and that are no longer there."""
    return [file.source for file in backend.files() if is_gone(file.source) and is_covered(file.source, sources)]


def add_items(
    backend: SegmentStore,
    model: EmbeddingModel,
    plan: Plan,
    segmentation: Segmentation,
    report: AddReport,
    *,
    batch_size: int,
    workers: int,
    caption: bool,
    progress: bool | None,
) -> None:
    """Reads, embeds and writes the files of a plan; `report` is kept up to date.

    A batch is written with its files' ends, so that whenever the process ends all but the last batch is there.
    """
    batch: list[ReadSegment] = []
    ended: list[IndexedFile] = []
    spans: dict[int, list[tuple[float, float]]] = {}
    for index, done in plan.done.items():
        begin = part_start(plan.items[index].source)
        spans[index] = [(begin + start, begin + end) for start, end in done]
    reached: dict[int, float] = {}  # by the new segments of each file, which come in order
    with tqdm(total=len(plan.items), unit="file", disable=None if progress else not progress) as bar:
        speed, failed = _Speed(bar), FailureLog(report.failures, bar)
        media = [item.media for item in plan.items]

        def write() -> None:
            segments = _embed(model, plan.items, batch, caption) if batch else []
            if segments or ended:
                backend.write(segments, ended)
            report.segments += len(segments)
            report.captioned += len(segments) if caption else 0
            report.added += [file.source for file in ended]
            batch.clear()
            ended.clear()

        for event in read_segments(media, plan.done, segmentation, model.processor, workers):
            item = plan.items[event.file]
            if isinstance(event, BrokenSegment):
                failed.add_segment(item.source, event)
                continue
            failed.end_stretch(item.source)
            if isinstance(event, ReadSegment):
                batch.append(event)
                spans.setdefault(event.file, []).append((event.start, event.end))
                report.seconds += max(0.0, event.end - max(event.start, reached.get(event.file, 0.0)))
                reached[event.file] = event.end
                if len(batch) == batch_size:
                    write()
                    speed.show(report.seconds)
            else:
                bar.update()
                if event.reason is not None:
                    failed.add_file(item.source, event.reason)
                else:
                    own = spans.pop(event.file, [])
                    seconds = covered_seconds(own)  # and not what the file says of itself
                    ended.append(IndexedFile(item.source, item.state, str(segmentation), seconds, len(own)))
                    if not own:
                        failed.add_file(item.source, "There is nothing in it to embed.")
                    _write_ends(backend, batch, ended, report)
        write()
        speed.show(report.seconds)


def _write_ends(
    backend: SegmentStore, batch: Sequence[ReadSegment], ended: list[IndexedFile], report: AddReport
) -> None:
    """Files of which everything is written need not wait for the next batch."""
    if not batch and ended:
        backend.write([], ended)
        report.added += [file.source for file in ended]
        ended.clear()


def _embed(
    model: EmbeddingModel, items: Sequence[IndexItem], batch: Sequence[ReadSegment], caption: bool
) -> list[EmbeddedSegment]:
    inputs = model.processor.pad([read.inputs for read in batch])
    times = {letter: [read.times.get(letter, ()) for read in batch] for letter in "va"}
    captions = (
        model.caption([read.inputs for read in batch]) if caption else [items[read.file].caption for read in batch]
    )
    embedded = []
    for read, tokens, text in zip(batch, model.embed(inputs, times), captions, strict=True):
        if tokens is None:
            continue
        item = items[read.file]
        segment = Segment(
            source=item.source,
            start=read.start,
            end=read.end,
            modalities="".join(dict.fromkeys(tokens.modalities)),
            state=item.state,
            revision=model.revision,
            caption=text,
            metadata=item.metadata,
        )
        embedded.append(EmbeddedSegment(segment, tokens))
    if model.compares_captions:
        words = model.embed_captions([item.segment for item in embedded])
        embedded = [replace(item, caption_tokens=words.get(item.segment.id)) for item in embedded]
    return embedded


def is_current(now: FileState, then: FileState) -> bool:
    """Whether a file is as it was; one whose state nobody knows now is taken to be."""
    return now == FileState() or now == then


class _Speed:
    """Hours of media, and how many times faster than they play, behind a progress bar."""

    def __init__(self, bar: Any):
        self.bar, self.start = bar, time.monotonic()

    def show(self, seconds: float) -> None:
        speed = seconds / max(time.monotonic() - self.start, 1e-6)
        self.bar.set_postfix_str(f"{seconds / 3600:.2f} h of media, {speed:.0f}x real time")
