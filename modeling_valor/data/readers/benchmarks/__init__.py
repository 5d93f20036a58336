# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The paper's public benchmarks by name, from the annotation files of their authors and the available media.

In the order of reading: `table` (the benchmarks), `formats` (a function for each annotation format), `rows` and `places`.
"""

import os
from pathlib import Path
from typing import Any

from transformers.utils import logging

from ...samples import Sample
from .formats import Entry
from .places import MediaFolder, find_annotations
from .table import BENCHMARKS, Benchmark, Settings


__all__ = ["BENCHMARKS", "Benchmark", "Settings", "load_benchmark"]

logger = logging.get_logger(__name__)


def load_benchmark(
    name: str,
    split: str,
    annotations: str | os.PathLike[str] | None = None,
    media: str | os.PathLike[str] | None = None,
    paragraph: bool | None = None,
) -> list[Sample]:
    """The samples of one split of a benchmark, in the order of the annotations.

    Samples whose media are absent are left out with one warning, because public videos disappear over time; so are samples
    without any text.
    Texts are not cleaned (`modeling_valor.text_cleaning`).

    Args:
        name: one of `BENCHMARKS`.
        split: one of its splits.
        annotations: the folder that has the annotation files under their authors' names (or under `annotations/`), or
            the file itself where the split has one only. Default: `media`.
        media: the folder that has the media, named as the samples: videos, or folders of extracted frames and audio files,
            in the folder itself or in subfolders with usual names (`places.CONTAINERS`), such as `frames_fps4/video0/` and
            `audio_22050hz/video0.wav` of the 2023 layout. Extracted files are preferred to the video that they come from.
            Files are looked up by name in these folders only.
            `None`: annotations only; samples have neither video nor audio.
        paragraph: whether to join the captions of a sample into one. Default: as usual for the benchmark.

    Raises:
        ValueError: there is no such benchmark or split, or a line cannot be read; the error names the file and the line.
        FileNotFoundError: an annotation file is missing, or all media files are.
    """
    benchmark = _look_up("benchmark", name, BENCHMARKS)
    part = _look_up(f"split of {benchmark.title}", split, benchmark.splits)
    annotations = media if annotations is None else annotations
    if annotations is None:
        raise ValueError(f"{benchmark.title} needs its annotations, which come from {benchmark.source}.")
    found = find_annotations(part.files, annotations, f"The split {split!r} of {benchmark.title}", benchmark.source)
    entries: dict[str, list[Entry]] = {}
    for entry in part.read(found):
        entries.setdefault(entry.id, []).append(entry)
    paragraph = benchmark.paragraph if paragraph is None else paragraph
    files = None if media is None else MediaFolder(media)
    samples = [_sample(own, benchmark, files, paragraph) for own in entries.values()]
    samples = _with_text(samples, benchmark, split, found["annotations"][0])
    return samples if files is None else _present(samples, benchmark, split, files, entries)


def _with_text(samples: list[Sample], benchmark: Benchmark, split: str, annotations: Path) -> list[Sample]:
    """The samples that have captions or questions."""
    with_text = [sample for sample in samples if sample.captions or sample.questions]
    if not with_text:
        raise ValueError(f"{annotations} has no texts of the split {split!r} of {benchmark.title}.")
    if len(with_text) < len(samples):
        without_text = len(samples) - len(with_text)
        logger.warning(
            f"{benchmark.title}, {split!r}: {without_text} of {len(samples)} samples have no text and are left out."
        )
    return with_text


def _sample(entries: list[Entry], benchmark: Benchmark, files: MediaFolder | None, paragraph: bool) -> Sample:
    first = entries[0]
    captions = tuple(caption for entry in entries for caption in entry.captions)
    if paragraph and captions:
        captions = (" ".join(caption.strip() for caption in captions),)
    video = audio = None
    if files is not None:
        names = tuple(dict.fromkeys(name for entry in entries for name in entry.names))
        video, audio = _media(files, benchmark.media, names, first.subfolders)
    questions = tuple(question for entry in entries for question in entry.questions)
    return Sample(first.id, video, audio, captions, questions)


def _media(
    files: MediaFolder, media: str, names: tuple[str, ...], subfolders: tuple[str, ...]
) -> tuple[str | None, str | None]:
    """Paths of the video and the audio of a sample."""
    if media == "image":
        return files.find(names, "image", subfolders), None
    whole = files.find(names, "video", subfolders)
    return (
        files.find(names, "frames", subfolders) or whole,
        files.find(names, "audio", subfolders) or whole,
    )


def _present(
    samples: list[Sample], benchmark: Benchmark, split: str, files: MediaFolder, entries: dict[str, list[Entry]]
) -> list[Sample]:
    """The samples that have the medium of the benchmark."""
    wanted = "audio" if benchmark.media == "audio" else "video"
    present = [sample for sample in samples if getattr(sample, wanted) is not None]
    if not present:
        names = entries[samples[0].id][0].names
        raise FileNotFoundError(
            f"{files.root} has no {benchmark.media} of the {len(samples)} samples of {benchmark.title}, {split!r}. Files must "
            f"have the names of the samples, such as {names[0]!r} with a usual suffix, in the folder itself or in one of its "
            "subfolders with a usual name, such as videos, frames or audio."
        )
    if len(present) < len(samples):
        absent = next(sample.id for sample in samples if getattr(sample, wanted) is None)
        logger.warning(
            f"{benchmark.title}, {split!r}: {len(samples) - len(present)} of {len(samples)} samples are left out, because "
            f"{files.root} does not have their {benchmark.media}, such as {absent!r}."
        )
    return present


def _look_up(what: str, name: str, table: dict[str, Any]) -> Any:
    if name not in table:
        raise ValueError(f"There is no {what} called {name!r}; there are {', '.join(table)}.")
    return table[name]
