# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""All segments of a long file in one pass: what `clip.mp4#t=0,10`, `clip.mp4#t=10,20` and so on give one by one."""

import contextlib
import functools
import itertools
import math
import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from .media import frame_moments, segment_indices
from .media_audio import Audio, SoundCursor, sound_bounds, warn_of_damage
from .media_container import Track, open_container
from .media_images import (
    VideoFrames,
    animation,
    damage_of_image,
    open_image,
    read_folder,
    read_image_frames,
    stack_pictures,
)
from .media_limits import MediaError, MediaLimits, NoVideoError
from .media_parts import cut, cut_pictures, nearest_inside
from .media_shots import shot_segments
from .media_sources import LocalFile, MediaSource, list_frame_files, open_source
from .media_tracks import AudioInfo, Clock, audio_track, file_clock, part_bounds, video_track
from .media_video import Cursor


__all__ = ["MediaSegment", "fixed_segments", "iterate_segments", "shot_segments"]

Boundaries = Iterable[tuple[float, float]] | Callable[[float], Iterable[tuple[float, float]]]


@dataclass
class MediaSegment:
    """What is seen and heard in a part of a file, from `start` to `end` in seconds of the file's clock.

    A processor takes it in the place of a file. `frames` holds pictures as they are decoded, with the times at which
    they begin in the file's clock; `audio` a waveform at the file's own rate. Either is None where the file has nothing
    of it there. With an `error`, one sentence, the segment cannot be used; others of the file can.
    """

    start: float
    end: float
    frames: VideoFrames | None = None
    audio: Audio | None = None
    error: str | None = None


def fixed_segments(duration: float, seconds: float = 10.0, stride: float | None = None) -> list[tuple[float, float]]:
    """Segments of one length, `stride` seconds from one beginning to the next, by default end to end.

    What is left at the end is a shorter segment; less than a tenth of the length, and a second at most, belongs to the
    segment before. A file of no length, such as a still image, is one segment. A warning says where a stride leaves gaps.

    Raises:
        ValueError: a length or stride that is not positive.
    """
    stride = seconds if stride is None else stride
    if not (0 < seconds < math.inf and 0 < stride < math.inf):
        own_stride = stride != seconds
        raise ValueError(
            f"Segments need a positive length{' and stride' if own_stride else ''} in seconds, got {seconds!r}"
            f"{f' and {stride!r}' if own_stride else ''}."
        )
    if stride > seconds:
        message = f"Segments of {seconds:g} s every {stride:g} s leave out what lies between them."
        warnings.warn(message, stacklevel=1)  # once, wherever segments are asked for
    spare = min(seconds / 10, 1.0)
    segments = [(0.0, min(seconds, duration))]
    while segments[-1][1] < duration - spare and len(segments) * stride < duration - spare:
        start = len(segments) * stride
        segments.append((start, min(start + seconds, duration)))
    if segments[-1][1] >= duration - spare:
        segments[-1] = (segments[-1][0], duration)
    return segments


def iterate_segments(
    source: MediaSource,
    boundaries: Boundaries = fixed_segments,
    *,
    num_frames: int = 8,
    modalities: str = "av",
    limits: MediaLimits | Mapping[str, Any] | None = None,
    threads: int = 0,
) -> Iterator[MediaSegment]:
    """The segments of a file, in the order of their ends, with one pass over its packets.

    Each segment has the frames and the sound that `processor(videos="file#t=start,end")` would take, the frames from the
    centres of `num_frames` equal parts of it. Nothing is decoded twice, also where segments overlap; memory holds
    only the segments that have begun and not been given. A stretch that cannot be decoded costs its segments, which say so
    in their `error`; what is merely damaged is used, with one [`DamagedMediaWarning`] at the end.

    Args:
        source: a film or sound file, an animation, or a folder of frames (a second apart); a still image is one segment
            of no length. Of a part (`film.mp4#t=600,1200`), boundaries are counted from its beginning.
        boundaries: (start, end) in seconds of all segments, or a function of the duration in seconds that gives them,
            such as [`fixed_segments`]. Ends are cut to that of the file.
        modalities (`str`): `"av"`, or only `"v"` or `"a"`.
        limits: as in [`open_source`].
        threads (`int`): of the video's decoder; by default as many as FFmpeg chooses.

    Raises:
        NoVideoError: a file that holds only sound, with `modalities="v"`.
        MediaError: the file cannot be read at all, or has nothing of the modalities.
        ValueError: boundaries that are no parts of the file.
    """
    with open_source(source, limits) as path:
        path.budget.allow_a_whole_pass()
        image = None if os.path.isdir(path) else open_image(path, path.name)
        if image is not None:
            with image, damage_of_image(path.name):
                available, step = animation(path, image)
                read = functools.partial(read_image_frames, path, image)
                yield from _picture_segments(path, boundaries, available, step, read, num_frames)
        elif os.path.isdir(path):
            available = len(list_frame_files(path))
            yield from _picture_segments(
                path, boundaries, available, 1.0, functools.partial(read_folder, path), num_frames
            )
        else:
            yield from _film_segments(path, boundaries, num_frames, modalities, threads)


def _check(boundaries: Boundaries, duration: float, name: str) -> list[tuple[float, float]]:
    """The segments of a file of this duration, by their ends.

    Raises:
        ValueError: a segment ends before it begins or begins after the end.
    """
    pairs = [
        (float(start), float(end)) for start, end in (boundaries(duration) if callable(boundaries) else boundaries)
    ]
    for start, end in pairs:
        if not 0 <= start <= end or (start >= duration > 0):
            raise ValueError(
                f"{name} is {duration:.2f} seconds long and has no segment from {start:g} to {end:g} seconds."
            )
    return sorted(((start, min(end, duration)) for start, end in pairs), key=lambda pair: (pair[1], pair[0]))


def _picture_segments(
    path: LocalFile,
    boundaries: Boundaries,
    available: int,
    step: float,
    read: Callable[[Callable[[int], list[int]]], VideoFrames],
    num_frames: int,
) -> Iterator[MediaSegment]:
    """Segments of an animation or of a folder of frames."""
    of_source = cut_pictures(path, available, step)
    offset = of_source.start * step
    duration = len(of_source) * step if available > 1 else 0.0
    for start, end in _check(boundaries, duration, path.name):
        chosen = cut_pictures(path, available, step, start, end)
        indices = [chosen.start + place for place in segment_indices(len(chosen), num_frames)]
        try:
            frames = read(functools.partial(_given, indices))
        except MediaError as error:
            yield MediaSegment(offset + start, offset + end, error=str(error))
            continue
        yield MediaSegment(offset + start, offset + end, frames)


def _given(indices: list[int], available: int) -> list[int]:
    return indices


def _film_segments(
    path: LocalFile, boundaries: Boundaries, num_frames: int, modalities: str, threads: int
) -> Iterator[MediaSegment]:
    """Segments of a film or sound file; pictures and sound are decoded each by its own opening of the file."""
    with contextlib.ExitStack() as stack:
        video, audio = _open_tracks(path, modalities, stack)
        clock = file_clock(path, video, audio and audio[0])
        begin, end = part_bounds(path, clock)
        spans = [(begin + start, begin + stop) for start, stop in _check(boundaries, end - begin, path.name)]
        pictures = None if video is None else _Pictures(video, spans, num_frames, threads, stack)
        sounds = None if audio is None else _Sounds(*audio, spans, stack)
        for place, (start, stop) in enumerate(spans):
            segment = MediaSegment(start - clock.start, stop - clock.start)
            segment.frames, lost = (None, None) if pictures is None else pictures.read(place, clock.start)
            segment.audio, unheard = (None, None) if sounds is None else sounds.read(place)
            if lost or (unheard and (pictures is None or pictures.are_still(place))):
                reason = lost or unheard
                segment.error = (
                    f"{path.name} cannot be decoded from {segment.start:.2f} to {segment.end:.2f} seconds ({reason})."
                )
            yield segment
        damage = [reader.cursor.damage for reader in (pictures, sounds) if reader is not None]
        truncated = any(
            track.truncated and track.end <= end for track in (video, audio and audio[0]) if track is not None
        )
    warn_of_damage(path.name, next(filter(None, damage), None), truncated)


def _open_tracks(
    path: LocalFile, modalities: str, stack: contextlib.ExitStack
) -> tuple[Track | None, tuple[Track, AudioInfo] | None]:
    """The tracks of a film that are wanted; None for the one that it lacks.

    Raises:
        NoVideoError: only the video was wanted, and there is none.
        MediaError: the file cannot be read, or has nothing of what is wanted.
    """
    video = None
    if "v" in modalities:
        try:
            video = stack.enter_context(video_track(path, head=32, thorough=True))
        except NoVideoError:
            if modalities == "v":
                raise
    audio = audio_track(path) if "a" in modalities else None
    if video is None and audio is None:
        raise MediaError(f"{path.name} has no audio track{'' if modalities == 'a' else ' and no video track'}.")
    return video, audio


class _Walk(Cursor):
    """Goes through a film once: where frames are damaged, it is not decoded anew from its beginning."""

    def _is_unexpected(self, moment: float) -> bool:
        return self.damage is None and super()._is_unexpected(moment)


class _Pictures:
    """The frames of segments, in the order of the segments' ends."""

    def __init__(
        self,
        track: Track,
        spans: Sequence[tuple[float, float]],
        num_frames: int,
        threads: int,
        stack: contextlib.ExitStack,
    ):
        self.track, self.parts = track, [cut(track, *span) for span in spans]
        self.indices: list[list[int]] = []
        wanted = []
        for place, part in enumerate(self.parts):
            indices = [] if part is None else segment_indices(part.num_frames, num_frames)
            self.indices.append(indices)
            moments = {} if part is None else frame_moments(part, indices, num_frames)
            wanted += [(moment, place, index) for index, moment in moments.items()]
        self.wanted = iter(sorted(wanted))
        self.cursor = stack.enter_context(contextlib.closing(_Walk(track.container, track, threads)))
        self.pictures = self.cursor.pictures(moment for moment, *_ in sorted(wanted))
        self.held: defaultdict[int, dict[int, tuple[torch.Tensor, float]]] = defaultdict(dict)

    def read(self, place: int, start: float) -> tuple[VideoFrames | None, str | None]:
        """The frames of a segment, with times counted from `start`, or why there are none; neither without video there."""
        part, indices = self.parts[place], self.indices[place]
        if part is None:
            return None, None
        while len(self.held[place]) < len(set(indices)):
            _, other, index = next(self.wanted)
            self.held[other][index] = next(self.pictures)
        found = self.held.pop(place)
        rows = nearest_inside(part, [time for _, time in found.values()])
        if rows is None:
            return None, self.cursor.damage or "no data"
        numbers = list(found)
        shown = {number: found[numbers[row]] for number, row in zip(numbers, rows, strict=True)}
        frames = stack_pictures(
            cast(LocalFile, self.track.path), ((number, picture) for number, (picture, _) in shown.items()), indices
        )
        times = [shown[index][1] - start for index in indices]
        return VideoFrames(frames, times, indices, part.num_frames, part.duration, "pyav"), None

    def are_still(self, place: int) -> bool:
        """Whether no frame begins in a segment: an earlier one stays on the screen, or there is no video."""
        part = self.parts[place]
        return part is None or (bool(part.stamps) and part.stamps[-1] < part.start - 1e-3)


class _Sounds:
    """The waveforms of segments, in the order of the segments' ends."""

    def __init__(
        self, track: Track, info: AudioInfo, spans: Sequence[tuple[float, float]], stack: contextlib.ExitStack
    ):
        self.rate = info.sampling_rate
        clock = Clock(track.start, track.end)
        self.bounds = [sound_bounds(*span, clock, self.rate) for span in spans]
        container = stack.enter_context(open_container(track.path, track.name))
        self.cursor = SoundCursor(container, track, self.rate)
        # From where on samples are kept when a segment is read: where this or any later one begins
        starts = [math.inf if bounds is None else bounds[0] for bounds in self.bounds]
        self.kept_from = list(itertools.accumulate(reversed(starts), min))[::-1]

    def read(self, place: int) -> tuple[Audio | None, str | None]:
        """The sound of a segment, and why it is silent if none of it was decoded; neither without sound there."""
        if (bounds := self.bounds[place]) is None:
            return None, None
        samples = self.cursor.read(*bounds, self.kept_from[place])
        silent = None
        if samples is None and self.cursor.ended and self.cursor.damage is None:
            return None, None
        if samples is None:
            silent = self.cursor.damage or "no data"
            samples = np.zeros(round((min(bounds[1], self.cursor.track.duration) - bounds[0]) * self.rate), np.float32)
        return Audio(torch.from_numpy(samples), self.rate, len(samples) / self.rate), silent
