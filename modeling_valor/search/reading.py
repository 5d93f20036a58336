# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Files to segments as the model takes them, decoded in one pass each, in worker processes."""

import importlib.util
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ..data.failures import describe
from ..media import NoVideoError, media_source
from ..media_segments import Boundaries, MediaSegment, fixed_segments, iterate_segments
from ..media_shots import shot_segments
from ..processing_valor import ValorProcessor


@dataclass(frozen=True)
class Segmentation:
    """How files are cut and how much of each segment is used.

    Args:
        seconds, stride: length of a segment, and seconds from one beginning to the next.
        shots: segments are shots instead, found by PySceneDetect.
        modalities: "av", "v" or "a".
        num_frames: of each segment.

    Raises:
        ValueError: other modalities, or a length, stride or number that is not positive.
        ImportError: PySceneDetect is not installed.
    """

    seconds: float = 10.0
    stride: float = 10.0
    shots: bool = False
    modalities: str = "av"
    num_frames: int = 8

    def __post_init__(self) -> None:
        fixed_segments(0.0, self.seconds, self.stride)
        if self.modalities not in ("av", "v", "a"):
            raise ValueError(f'modalities={self.modalities!r} was given; "av", "v" and "a" are accepted.')
        if self.shots and importlib.util.find_spec("scenedetect") is None:
            raise ImportError('Segments by shots need PySceneDetect: `pip install "modeling-valor[shots]"`.')
        if self.num_frames < 1:
            raise ValueError(f"num_frames={self.num_frames} was given; at least 1 is accepted.")

    def __str__(self) -> str:
        cut = "shots" if self.shots else f"{self.seconds:.12g} s every {self.stride:.12g} s"
        return f"{cut}, {self.modalities}, {self.num_frames} frames"

    @classmethod
    def parse(cls, text: str) -> "Segmentation | None":
        """The segmentation that `str` describes so; None for any other text."""
        found = re.fullmatch(r"(?:shots|([\d.e+-]+) s every ([\d.e+-]+) s), (av|v|a), (\d+) frames", text)
        if found is None:
            return None
        lengths = {} if found[1] is None else {"seconds": float(found[1]), "stride": float(found[2])}
        return cls(shots=found[1] is None, modalities=found[3], num_frames=int(found[4]), **lengths)

    def changed(
        self,
        seconds: float | None = None,
        stride: float | None = None,
        segments: str | None = None,
        modalities: str | None = None,
        num_frames: int | None = None,
    ) -> "Segmentation":
        """This one with what is given; another length also makes segments fixed and lets them lie end to end.

        Raises:
            ValueError: as for the class, or `segments` other than "fixed" and "shots".
        """
        if segments not in (None, "fixed", "shots"):
            raise ValueError(f'segments={segments!r} was given; "fixed" and "shots" are accepted.')
        is_cut_anew = seconds is not None or stride is not None
        if stride is None:
            stride = self.stride if seconds is None else seconds
        return Segmentation(
            self.seconds if seconds is None else seconds,
            stride,
            segments == "shots" or (segments is None and self.shots and not is_cut_anew),
            self.modalities if modalities is None else modalities,
            self.num_frames if num_frames is None else num_frames,
        )

    def boundaries(self, media: Any) -> Boundaries:
        """The segments of a file; of one without pictures, those of fixed length also where shots are asked for."""
        if self.shots:
            with suppress(NoVideoError):
                return shot_segments(media)
        return partial(fixed_segments, seconds=self.seconds, stride=self.stride)

    def may_have_made(self, spans: Sequence[tuple[float, float]]) -> bool:
        """Whether these are some of the segments that a file is cut into; of shots nobody knows before they are found."""
        if self.shots:
            return False
        spans = sorted(spans)
        full = all(math.isclose(end - start, self.seconds, abs_tol=1e-3) for start, end in spans[:-1])
        return full and all(abs(start / self.stride - round(start / self.stride)) < 1e-3 for start, _ in spans)


@dataclass(frozen=True)
class ReadSegment:
    """A segment as the model takes it: `inputs` of batch size 1, and the `times` of its frames ("v") and clips ("a")."""

    file: int
    start: float
    end: float
    inputs: dict[str, torch.Tensor]
    times: dict[str, np.ndarray]


@dataclass(frozen=True)
class BrokenSegment:
    """A segment that could not be decoded, and why, in one sentence."""

    file: int
    start: float
    end: float
    reason: str


@dataclass(frozen=True)
class FileEnd:
    """No more segments come of a file: it has ended, or cannot be read any further, for a `reason`."""

    file: int
    reason: str | None = None


Event = ReadSegment | BrokenSegment | FileEnd


def read_segments(
    media: Sequence[Any],
    done: Mapping[int, set[tuple[float, float]]],
    segmentation: Segmentation,
    processor: ValorProcessor,
    workers: int,
) -> Iterator[Event]:
    """The segments of all files, those of one file in order and followed by its [`FileEnd`].

    Args:
        media: what is decoded, one source for each file.
        done: for files of which something is done, the segments to pass over.
        workers: processes that decode; 0: this one.

    Raises:
        ValueError: a worker process was killed.
    """
    files = _Files(media, done, segmentation, processor, threads=0 if workers < 2 else 1)
    if not workers:
        yield from files
        return
    loader = DataLoader(
        files,
        batch_size=None,
        num_workers=min(workers, len(media)),
        in_order=False,
        generator=torch.Generator(),  # otherwise the loader draws from the global one
    )
    try:
        with warnings.catch_warnings():  # the processes decode and leave LanceDB alone
            warnings.filterwarnings("ignore", message="lancedb fork support")
            events = iter(loader)
        yield from events
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise ValueError(
            "A process that decodes was killed, as happens where memory runs out: use fewer `workers` and run the same "
            "again. What was complete is kept."
        ) from error


@dataclass
class _Files(IterableDataset[Any]):
    media: Sequence[Any]
    done: Mapping[int, set[tuple[float, float]]]
    segmentation: Segmentation
    processor: ValorProcessor
    threads: int = 0

    def __iter__(self) -> Iterator[Event]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for file in range(first, len(self.media), step):
            yield from self._read(file)

    def _read(self, file: int) -> Iterator[Event]:
        try:
            if media_source(self.media[file]) is None:
                yield from self._read_array(file)
                return
            spans = self._spans(file, self.segmentation.boundaries(self.media[file]))
            segments = iterate_segments(
                self.media[file],
                spans,
                num_frames=self.segmentation.num_frames,
                modalities=self.segmentation.modalities,
                threads=self.threads,
            )
            for segment in segments:
                if segment.error is not None:
                    yield BrokenSegment(file, segment.start, segment.end, segment.error)
                elif segment.frames is not None or segment.audio is not None:
                    yield self._prepare(file, segment)
        except Exception as error:  # one file less, not the end of a long run
            yield FileEnd(file, describe(error))
            return
        yield FileEnd(file)

    def _read_array(self, file: int) -> Iterator[Event]:
        """Frames or a waveform in memory are one segment, of no length, as nobody knows how long it is."""
        options: dict[str, Any] = {
            "modalities": self.segmentation.modalities,
            "num_frames": self.segmentation.num_frames,
        }
        inputs = dict(self.processor(videos=[self.media[file]], return_tensors="pt", **options))
        counts = {"v": inputs.get("pixel_values_videos", ())[:1], "a": inputs.get("input_features", ())[:1]}
        times = {letter: np.zeros(value.shape[1]) for letter, value in counts.items() if len(value)}
        yield ReadSegment(file, 0.0, 0.0, inputs, times)
        yield FileEnd(file)

    def _spans(self, file: int, boundaries: Boundaries) -> Any:
        """The segments that are still to be read, as a function of the duration."""

        def remaining(duration: float) -> list[tuple[float, float]]:
            spans = boundaries(duration) if callable(boundaries) else boundaries
            done = self.done.get(file, set())
            return [span for span in spans if (round(span[0], 3), round(span[1], 3)) not in done]

        return remaining

    def _prepare(self, file: int, segment: MediaSegment) -> ReadSegment | BrokenSegment:
        try:
            inputs, times = prepare_segment(self.processor, self.segmentation, segment)
        except Exception as error:
            return BrokenSegment(file, segment.start, segment.end, describe(error))
        return ReadSegment(file, segment.start, segment.end, inputs, times)


def prepare_segment(
    processor: ValorProcessor, segmentation: Segmentation, segment: MediaSegment
) -> tuple[dict[str, torch.Tensor], dict[str, np.ndarray]]:
    """`inputs` and `times` of a [`ReadSegment`], with as many audio clips as it takes to hear all of it."""
    seconds = segment.end - segment.start
    extractor = processor.feature_extractor
    clip_seconds = extractor.clip_length * extractor.frame_shift_ms / 1000
    clips = max(1, math.ceil(seconds / clip_seconds - 0.1))
    inputs = processor(
        videos=[segment], modalities=segmentation.modalities, num_audio_clips=clips, return_tensors="pt"
    )
    times = {}
    if segment.frames is not None:
        times["v"] = np.asarray(segment.frames.timestamps)
    if segment.audio is not None:
        samples = int(segment.audio.duration * extractor.sampling_rate)
        bounds = np.array(extractor.clip_bounds(samples, clips)) / extractor.sampling_rate
        times["a"] = segment.start + bounds.clip(max=seconds).mean(axis=1)
    return dict(inputs), times
