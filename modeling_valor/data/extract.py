# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Decodes samples once: frames become small JPEG files and audio 22,050 Hz wave files, which are read much faster than
the videos.
"""

import functools
import hashlib
import itertools
import json
import math
import os
import urllib.parse
import warnings
import wave
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO, cast

import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ..feature_extraction_valor import check_samples, check_sampling_rate, resample
from ..media import (
    Audio,
    DamagedMediaWarning,
    MediaError,
    NoVideoError,
    audio_info,
    iterate_frames,
    open_source,
    read_audio,
    read_image,
    segment_indices,
)
from .failures import MAX_FAILURES, Failure, FailureLog, attempt, describe
from .files import WriteError, atomic_write, end_with_parent, make_folder, remove, sole_writer, writing_to
from .fingerprints import IncomparableError, fingerprint
from .readers import METADATA_FILES
from .samples import Sample, SampleStream, each_sample


CLIPS, AUDIO, NOTE, FAILURES = "clips", "audio.wav", ".extract.json", "failures.jsonl"

SAMPLING_RATE = 22_050
"""Sampling rate of the extracted audio in Hz, which is that of every feature extractor of VALOR."""

JPEG_QUALITY = 92
_LONGEST_SIDE = 65_500  # of a JPEG file
_SECONDS_AT_ONCE = 600  # of audio; a whole number, at which the samples of any two rates coincide


@dataclass(frozen=True)
class ExtractOptions:
    """What is extracted of a sample.

    Args:
        frames_per_second: of a video, at most its own frame rate.
        num_frames: number of frames of every video, instead of a rate. Folders of frames have no known rate: without
            `num_frames` all their frames are kept.
        short_side: larger frames are resized so that their shorter side has this many pixels.
    """

    frames_per_second: float = 2.0
    num_frames: int | None = None
    short_side: int = 256

    def __post_init__(self) -> None:
        if min(self.frames_per_second, self.short_side, 1 if self.num_frames is None else self.num_frames) <= 0:
            raise ValueError(f"frames_per_second, num_frames and short_side must be positive, got {self}.")

    def count(self, available: int, duration: float) -> int:
        """Number of frames to extract of a video with `available` frames and this duration in seconds."""
        return round(duration * self.frames_per_second) if self.num_frames is None else self.num_frames


@dataclass
class Extraction:
    """Result of an extraction.

    Args:
        samples: number of samples in the folder and its metadata.
        extracted: number of samples that this run decoded.
        failures: id of each sample that could not be read -> why.
        damaged: id of each sample that could be read only in part -> why.
    """

    directory: str
    samples: int = 0
    extracted: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)

    @property
    def clips(self) -> int:
        """The old name of `samples`."""
        warnings.warn("`Extraction.clips` is now called `samples`.", FutureWarning, stacklevel=2)
        return self.samples


def extract(
    samples: Sequence[Sample] | SampleStream,
    directory: str | os.PathLike[str],
    options: ExtractOptions | None = None,
    *,
    workers: int | None = None,
    max_failures: float = MAX_FAILURES,
    progress: bool = False,
    origin: str | None = None,
) -> Extraction:
    """Writes frames, audio and texts of samples to a folder that `readers.read_folder` reads.

    `directory/clips/NAME/` has the frames of a sample (`frame_0001.jpg`, ...) and its audio (`audio.wav`, mono, 16 bits).
    It is renamed to this path when it is complete; `metadata.jsonl` is written at the end. Samples that are already in the
    folder are not decoded again, so an interrupted run resumes where it stopped. A sample that cannot be read is left out
    and listed in `failures.jsonl`; the next run tries it again.

    Rows with the same id and the same media are decoded once; the metadata has a line for each of them.

    Args:
        workers: number of processes, by default one for each core. With 1 the work is done in this process, which ends if
            a file makes a decoder crash.
        max_failures: the tolerated share of samples that cannot be read.
        progress: show a progress bar if the output is a terminal.
        origin: name of the dataset; a folder has samples of one origin only.

    Raises:
        TooManyFailures: more samples than tolerated cannot be read. What was decoded is kept.
        ValueError: the folder has samples of another origin or with other options, another run is writing to it, or two
            samples with different media have the same id.
        WriteError: the disk is full, or the folder cannot be written to. What was decoded is kept.
    """
    workers = os.cpu_count() or 1 if workers is None else workers
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}.")
    options = options or ExtractOptions()
    directory = Path(directory)
    make_folder(directory)
    with writing_to(directory), sole_writer(directory, ".extract.lock"):
        _claim(directory, {"origin": origin, **asdict(options)})
        draft = directory / f".draft.{os.getpid()}.partial"
        try:
            return _extract_missing(samples, directory, draft, options, workers, max_failures, progress)
        finally:
            remove(draft)


def _extract_missing(
    samples: Sequence[Sample] | SampleStream,
    directory: Path,
    draft: Path,
    options: ExtractOptions,
    workers: int,
    max_failures: float,
    progress: bool,
) -> Extraction:
    """Writes the samples that are missing, and then the metadata, whose rows are collected in the file `draft`."""
    clips = directory / CLIPS
    clips.mkdir(exist_ok=True)
    total = None if isinstance(samples, SampleStream) else len(samples)
    names: dict[str, Any] = {}
    log, result = FailureLog(max_failures, total), Extraction(str(directory))
    result.failures = log.failures
    work = functools.partial(_extract_sample, options=options)
    with (
        draft.open("w", encoding="utf-8") as rows,
        tqdm(total=total, unit="sample", disable=None if progress else True) as bar,
    ):
        jobs = _jobs(samples, clips, names, rows, log, bar)
        with closing(_run(jobs, work, workers)) as outcomes:
            for outcome in outcomes:
                bar.update()
                if outcome.failure is None:
                    result.extracted += 1
                if outcome.damage is not None:
                    result.damaged[outcome.id] = outcome.damage
                log.update(1, [Failure(outcome.id, outcome.failure)] if outcome.failure else ())
                bar.set_postfix(failed=len(log.failures), refresh=False)
    with atomic_write(directory / FAILURES) as partial, partial.open("w", encoding="utf-8") as file:
        for identity, why in log.failures.items():
            file.write(json.dumps({"id": identity, "failure": why}, ensure_ascii=False) + "\n")
    log.total = len(names)
    log.check()
    result.samples = log.total - len(log.failures)
    with atomic_write(directory / METADATA_FILES[0]) as partial, partial.open("w", encoding="utf-8") as file:
        file.writelines(_metadata(draft, directory))
    for leftover in itertools.chain(directory.glob(".*.partial"), clips.glob(".*.partial")):  # of killed runs, too
        remove(leftover)
    return result


def _claim(directory: Path, origin: dict[str, Any]) -> None:
    """Writes the origin of the samples to a file in the folder; refuses a folder with another origin or other files."""
    note = directory / NOTE
    if note.exists():
        try:
            found = json.loads(note.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(
                f"{note} is damaged: choose another folder, or remove this file if the samples are those of {origin}."
            ) from error
        if found != origin:
            before = found if isinstance(found, dict) else {}
            differing = [
                f"{name} {before.get(name)}, not {origin.get(name)}"
                for name in origin | before
                if before.get(name) != origin.get(name)
            ]
            raise ValueError(f"{directory} has samples of {', '.join(differing)}: choose another folder.")
    elif any((directory / name).exists() for name in (*METADATA_FILES, CLIPS)):
        raise ValueError(f"{directory} holds a dataset that was not extracted: choose an empty folder.")
    else:
        with atomic_write(note) as partial:
            partial.write_text(json.dumps(origin), encoding="utf-8")


@dataclass(frozen=True)
class _Job:
    """A sample and the folder that it is written to."""

    id: str
    folder: str
    video: Any
    audio: Any


@dataclass(frozen=True)
class _Outcome:
    """Result for one sample: why it could not be read, or which part of it could not."""

    id: str
    failure: str | None = None
    damage: str | None = None


def _jobs(
    samples: Sequence[Sample] | SampleStream,
    clips: Path,
    names: dict[str, Any],
    draft: TextIO,
    log: FailureLog,
    bar: tqdm,
) -> Iterator[_Job]:
    """The samples that are missing. Writes the texts of all samples to `draft`, and their media to `names`."""
    done = set(os.listdir(clips))
    for sample in each_sample(samples):
        described = attempt(sample.id, functools.partial(_describe, sample))
        if isinstance(described, Failure):
            names[sample.id] = None
            log.update(1, [described])
            bar.update()
            continue
        name, row, files = described
        draft.write(row)
        if names.setdefault(name, files) != files:
            raise ValueError(
                f"two samples with different media have the id {sample.id!r}: give each an id of its own."
            )
        if name in done:
            bar.update()
        else:
            done.add(name)
            yield _Job(sample.id, str(clips / name), sample.video, sample.audio)


def _describe(sample: Sample) -> tuple[str, str, Any]:
    """Name of the folder of a sample, its line of metadata, and a fingerprint of its media."""
    name = _folder_name(sample.id)
    qa = [
        {"question": q.text, "answer": q.answers[0] if len(q.answers) == 1 else q.answers or None}
        | ({} if q.type is None else {"about": q.type})
        | ({} if q.id is None else {"question_id": q.id})
        for q in sample.questions
    ]
    row = json.dumps({"id": sample.id, "name": name, "captions": sample.captions, "qa": qa}, ensure_ascii=False)
    row.encode()
    try:
        files = fingerprint([sample.video, sample.audio])
    except IncomparableError:
        files = None
    return name, row + "\n", files


def _folder_name(identity: str) -> str:
    """A name that every file system accepts, different for each id.

    Raises:
        ValueError: the id is empty or no text in UTF-8.
    """
    if not identity:
        raise ValueError("its id is empty")
    name = urllib.parse.quote(identity, safe=" ,()+=@")
    name = f"%2E{name[1:]}" if name.startswith(".") else name
    return name if len(name) <= 200 else f"{name[:160]}-{hashlib.sha256(identity.encode()).hexdigest()[:24]}"


def _metadata(draft: Path, directory: Path) -> Iterator[str]:
    """Lines of `metadata.jsonl` for the samples in the folder."""
    with draft.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            folder = f"{CLIPS}/{row.pop('name')}"
            frames = (directory / folder / _frame_name(1)).exists()
            audio = (directory / folder / AUDIO).exists()
            if frames or audio:
                media = {
                    "file_name": folder if frames else None,
                    "audio_file_name": f"{folder}/{AUDIO}" if audio else None,
                }
                yield json.dumps({"id": row["id"], **media, **row}, ensure_ascii=False) + "\n"


# ---------------------------------------------------------------------------------------------------------------------
# Processes
# ---------------------------------------------------------------------------------------------------------------------


def _run(jobs: Iterator[_Job], work: Callable[[_Job], _Outcome], workers: int) -> Generator[_Outcome, None, None]:
    """Outcomes in the order in which they finish. A sample that makes its process crash counts as unreadable."""
    if workers == 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # one frame is too little work for several threads
        try:
            yield from map(work, jobs)
        finally:
            torch.set_num_threads(threads)
        return
    while crashed := (yield from _run_pool(jobs, work, workers)):
        # Run one at a time, to find the one that crashes
        for job in crashed:
            if (yield from _run_pool(iter([job]), work, workers=1)):
                yield _Outcome(job.id, failure="decoding it made the process crash.")


def _run_pool(
    jobs: Iterator[_Job], work: Callable[[_Job], _Outcome], workers: int
) -> Generator[_Outcome, None, list[_Job]]:
    """Submits a few jobs at a time, because they may contain their media; returns the unfinished jobs of a pool that crashed."""
    running: dict[Any, _Job] = {}
    pool = ProcessPoolExecutor(workers, initializer=_start_worker)
    try:
        while True:
            for job in itertools.islice(jobs, 4 * workers - len(running)):
                running[pool.submit(work, job)] = job
            if not running:
                return []
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                outcome = future.result()
                del running[future]
                yield outcome
    except BrokenProcessPool:
        return list(running.values())
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    end_with_parent()
    torch.set_num_threads(1)


# ---------------------------------------------------------------------------------------------------------------------
# One sample
# ---------------------------------------------------------------------------------------------------------------------


def _extract_sample(job: _Job, options: ExtractOptions) -> _Outcome:
    """Writes the folder of a sample, completely or not at all.

    Raises:
        WriteError: the folder cannot be written to. All other errors are failures of this sample.
    """
    folder, failure = Path(job.folder), None
    if folder.exists():
        return _Outcome(job.id)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with writing_to(folder.parent), atomic_write(folder) as partial:
                remove(partial)
                partial.mkdir()
                _write_sample(job, partial, options)
        except WriteError:
            raise
        except Exception as error:
            failure = describe(error)
    damage = next((str(warning.message) for warning in caught if warning.category is DamagedMediaWarning), None)
    return _Outcome(job.id, failure, damage)


def _write_sample(job: _Job, folder: Path, options: ExtractOptions) -> None:
    # A remote file with frames and audio is downloaded once
    shared = job.audio is not None and job.audio is job.video
    with open_source(job.video) if shared else nullcontext(job.video) as video:
        audio = video if shared else job.audio
        found = video is not None and _write_frames(video, folder, options)
        found = (audio is not None and _write_audio(audio, folder / AUDIO)) or found
    if not found:
        raise MediaError("there are neither frames nor audio.")


def _frame_name(number: int) -> str:
    return f"frame_{number:04d}.jpg"


def _write_frames(video: Any, folder: Path, options: ExtractOptions) -> bool:
    """Writes the frames. Returns whether there are any; an audio file has none."""
    try:
        for number, frame in enumerate(_frames(video, options), start=1):
            image = Image.fromarray(frame.permute(1, 2, 0).numpy())
            scale = options.short_side / min(image.size)
            if scale < 1:
                size = [max(1, round(side * scale)) for side in image.size]
                image = image.resize(size, Image.Resampling.BICUBIC)
            if max(image.size) > _LONGEST_SIDE:
                raise MediaError(f"frames of {image.width} x {image.height} pixels cannot be JPEG files.")
            image.save(folder / _frame_name(number), quality=JPEG_QUALITY)
    except NoVideoError:
        return False
    return True


def _frames(video: Any, options: ExtractOptions) -> Iterator[Tensor]:
    if isinstance(video, (list, tuple)):
        wanted = min(options.num_frames or len(video), len(video))
        return (read_image(video[index]) for index in segment_indices(len(video), wanted))
    if isinstance(video, (str, os.PathLike)) and os.path.isdir(video):
        return iterate_frames(video, lambda available, _: options.num_frames or available)
    return iterate_frames(video, options.count)


def _write_audio(audio: Any, path: Path) -> bool:
    """Writes the audio. Returns whether there is any; a video without an audio track has none."""
    with open_source(audio) as source:
        info = audio_info(source)
        if info is None:
            return False
        check_sampling_rate(source, info.sampling_rate)
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLING_RATE)
            for piece in _resampled_pieces(source, info.sampling_rate, info.duration):
                check_samples(source, [piece])
                samples = (piece * 2**15).round().clamp(-(2**15), 2**15 - 1)
                file.writeframes(samples.numpy().astype("<i2").tobytes())
    return True


def _waveform(source: str, **options: Any) -> Any:
    """The waveform, or one for each of `windows`, of a file that has an audio track."""
    return cast(Audio, read_audio(source, **options)).waveform


def _resampled_pieces(source: str, rate: int, duration: float) -> Iterator[Tensor]:
    """The resampled waveform; a long one in pieces, which have the same values because each is read with a second more on both sides."""
    if duration <= _SECONDS_AT_ONCE:
        yield resample(_waveform(source), rate, SAMPLING_RATE)
        return
    for start in range(0, math.ceil(duration), _SECONDS_AT_ONCE):
        begin = max(0, start - 1)
        (window,) = _waveform(source, windows=[(begin, start + _SECONDS_AT_ONCE + 1)])
        first = (start - begin) * SAMPLING_RATE
        yield resample(window, rate, SAMPLING_RATE)[first : first + _SECONDS_AT_ONCE * SAMPLING_RATE]
