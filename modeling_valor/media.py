# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Files to frames and waveforms, with one exception type for what cannot be read: `MediaError`."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import av
import torch

from .media_audio import Audio, audio_info, read_audio, warn_of_damage
from .media_container import MAX_VIDEO_PIXELS, Track
from .media_images import (
    MAX_IMAGE_PIXELS,
    VideoFrames,
    animation,
    animation_pictures,
    check_memory,
    damage_of_image,
    open_image,
    read_folder,
    read_image,
    read_image_frames,
    stack_pictures,
)
from .media_limits import DamagedMediaWarning, MediaError, MediaLimits, NoVideoError
from .media_parts import cut_pictures, nearest_inside, wanted_part
from .media_sources import (
    LocalFile,
    MediaSource,
    download,
    list_frame_files,
    list_media,
    media_source,
    one_at_a_time,
    open_source,
    source_name,
)
from .media_tracks import AudioInfo, video_track
from .media_video import BACKENDS, Cursor, Reading, read_with_backends


__all__ = [
    "MAX_IMAGE_PIXELS",
    "MAX_VIDEO_PIXELS",
    "Audio",
    "AudioInfo",
    "DamagedMediaWarning",
    "LocalFile",
    "MediaError",
    "MediaLimits",
    "MediaSource",
    "NoVideoError",
    "VideoFrames",
    "audio_info",
    "download",
    "iterate_frames",
    "list_frame_files",
    "list_media",
    "media_source",
    "one_at_a_time",
    "open_source",
    "read_audio",
    "read_frames",
    "read_image",
    "segment_indices",
    "source_name",
]


MAX_WANTED = 2**22
"""The most frames, or clips of sound, that are taken of one file: all of a day and a half at 30 frames a second."""


# ---------------------------------------------------------------------------------------------------------------------
# Which frames
# ---------------------------------------------------------------------------------------------------------------------


def segment_indices(
    num_available: int, num_wanted: int, sampling: str = "center", generator: torch.Generator | None = None
) -> list[int]:
    """One index out of each of `num_wanted` contiguous segments of `range(num_available)`.

    The first `num_available % num_wanted` segments are one longer than the rest; "center" takes the element
    `(length + 1) // 2 - 1` of each, "random" any of them. With fewer available than wanted, the last index is repeated.
    This is the rule of the 2023 code, for frames and for blocks of sound.
    """
    if num_available < 1 or num_wanted < 1:
        raise ValueError(f"cannot choose {num_wanted} out of {num_available}: both must be at least 1.")
    if num_wanted > MAX_WANTED:
        raise ValueError(f"cannot choose {num_wanted} out of one file: it must be at most {MAX_WANTED}.")
    if sampling not in ("center", "random"):
        raise ValueError(f'sampling is {sampling!r}, but must be "center" or "random".')
    if num_available <= num_wanted:
        return [min(index, num_available - 1) for index in range(num_wanted)]
    length, longer = divmod(num_available, num_wanted)
    indices, start = [], 0
    for segment in range(num_wanted):
        size = length + (segment < longer)
        chosen = int(torch.randint(size, (), generator=generator)) if sampling == "random" else (size + 1) // 2 - 1
        indices.append(start + chosen)
        start += size
    return indices


# ---------------------------------------------------------------------------------------------------------------------
# Video
# ---------------------------------------------------------------------------------------------------------------------


def read_frames(
    source: MediaSource,
    num_frames: int,
    *,
    sampling: str = "center",
    generator: torch.Generator | None = None,
    backend: str | None = None,
    shrink: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> VideoFrames:
    """`num_frames` frames of a video, from the centres of equal segments of its time or at random within them.

    For a constant frame rate the frames are those of `segment_indices`. A still image gives one frame; a folder of
    extracted frames and an animated image are sampled by number. Frames are upright by the video's rotation metadata.
    Only what lies between the key frame before a wanted frame and that frame is decoded, so the cost does not grow with
    the length of the video. A part of a file (`clip.mp4#t=30,40`) is sampled as if it were a file of its own. A video
    that can be read only in part is used as far as it goes, with one [`DamagedMediaWarning`].

    Args:
        sampling (`str`): "center" or "random", the latter with `generator` or torch's own random numbers.
        backend (`str`, *optional*):
            "pyav" (the default), "torchcodec" or "decord". The latter two read a file only where their frames are
            known to be those of a decoder that never seeks (closed groups of pictures in mp4, mov, mkv or webm);
            otherwise, and where they are absent or fail, PyAV reads it, which is said once. torchcodec conceals damage.
        shrink (`Callable`, *optional*):
            Makes a picture (3, H, W) smaller. It is applied to the pictures of a video that would together need more
            memory than the limit (`MediaLimits.read_bytes`), one by one as they are decoded; without it, such a video is
            refused.

    Raises:
        NoVideoError: the file holds no video track, only sound.
        MediaError: the file cannot be read, no frame of it decoded, or its frames need too much memory.
    """
    if backend is not None and backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}, but must be one of {', '.join(BACKENDS)}.")
    segment_indices(num_frames, num_frames, sampling)  # refuses what makes no sense, before any file is opened

    def choose(available: int) -> list[int]:
        return segment_indices(available, num_frames, sampling, generator)

    with open_source(source) as path:
        name = path.name
        if os.path.isdir(path):
            return read_folder(path, _within(path, len(list_frame_files(path)), 1.0, choose))
        image = open_image(path, name)
        if image is not None:
            with image, damage_of_image(name):
                return read_image_frames(path, image, _within(path, *animation(path, image), choose))
        with video_track(path, head=num_frames + 32, thorough=backend not in (None, "pyav")) as whole:
            track = wanted_part(path, whole)
            indices = choose(track.num_frames)
            moments = frame_moments(track, indices, num_frames)
            stream = cast(av.VideoStream, track.container.streams[track.index])
            size = 3 * stream.width * stream.height * len(indices)
            if size <= path.budget.limits.read_bytes // 2:  # as they are held twice for a moment
                reading, reader = read_with_backends(whole, list(moments.values()), backend)
                frames = stack_pictures(path, zip(moments, reading.frames, strict=True), indices)
            else:
                if shrink is None:
                    check_memory(path, stream.width, stream.height, len(indices))
                (frames, reading), reader = _read_one_by_one(whole, moments, indices, shrink), "pyav"
    warn_of_damage(name, reading.damage, track.truncated and track.end == whole.end)
    numbers = list(moments)
    shown = {number: number for number in numbers}
    if path.part is not None:
        rows = nearest_inside(track, reading.times)
        if rows is None:
            raise MediaError(f"{name} has no frame that can be decoded ({reading.damage or 'no data'}).")
        shown = {number: numbers[row] for number, row in zip(numbers, rows, strict=True)}
        if list(shown.values()) != numbers:
            frames = frames[[indices.index(shown[index]) for index in indices]]
    times = dict(zip(numbers, reading.times, strict=True))
    return VideoFrames(
        frames=frames,
        timestamps=[max(times[shown[index]] - track.start, 0.0) for index in indices],
        indices=indices,
        num_available=track.num_frames,
        duration=track.duration,
        backend=reader,
        decoded=reading.decoded,
    )


def _read_one_by_one(
    track: Track,
    moments: dict[int, float],
    indices: Sequence[int],
    shrink: Callable[[torch.Tensor], torch.Tensor] | None,
) -> tuple[torch.Tensor, Reading]:
    """Frames that are too large to be held twice, and how they were read."""
    reading = Reading([], [])
    with contextlib.closing(Cursor(track.container, track)) as cursor:

        def pictures() -> Iterator[tuple[int, torch.Tensor]]:
            for index, (picture, time) in zip(moments, cursor.pictures(moments.values()), strict=True):
                reading.times.append(time)
                yield index, picture if shrink is None else shrink(picture)

        frames = stack_pictures(cast(LocalFile, track.path), pictures(), indices)
        reading.damage, reading.decoded = cursor.damage, cursor.decoded
    return frames, reading


def iterate_frames(source: MediaSource, count: Callable[[int, float], int]) -> Iterator[torch.Tensor]:
    """Many frames of a video one by one, uint8 RGB (3, H, W), so that a long one need not fit into memory.

    The frames are those of `read_frames` with as many frames and "center", but none is given twice.

    Args:
        count (`Callable`): how many frames to take of a source of so many frames and so many seconds. Files in a folder
            are a second apart; a still image is one frame.

    Raises:
        NoVideoError: the file holds no video track, only sound.
        MediaError: the file cannot be read, or no frame of it decoded.
    """

    def choose(available: int, duration: float) -> list[int]:
        return segment_indices(available, min(max(1, count(available, duration)), available))

    with open_source(source) as path:
        name = path.name
        if os.path.isdir(path):
            files = list_frame_files(path)
            indices = _within(path, len(files), 1.0, lambda available: choose(available, float(available)))(len(files))
            for index in indices:
                yield read_image(files[index])
            return
        image = open_image(path, name)
        if image is not None:
            with image, damage_of_image(name):
                available, step = animation(path, image)
                indices = _within(path, available, step, lambda count: choose(count, count * step))(available)
                yield from animation_pictures(path, image, indices)
            return
        with video_track(path, head=96) as whole:
            track = wanted_part(path, whole)
            indices = choose(track.num_frames, track.duration)
            with contextlib.closing(Cursor(whole.container, whole)) as cursor:
                for picture, _ in cursor.pictures(frame_moments(track, indices, len(indices)).values()):
                    yield picture
    warn_of_damage(name, cursor.damage, track.truncated and track.end == whole.end)


def _within(
    path: LocalFile, available: int, step: float, choose: Callable[[int], list[int]]
) -> Callable[[int], list[int]]:
    """`choose` for the pictures of the part that the source names."""
    part = cut_pictures(path, available, step)
    return lambda _: [part.start + place for place in choose(len(part))]


def frame_moments(track: Track, indices: list[int], num_wanted: int) -> dict[int, float]:
    """When each frame of `indices` is on the screen, if `num_wanted` frames are taken of the whole track."""
    if len(track.stamps) == track.num_frames <= num_wanted:
        # Every frame is wanted: each in the middle of its own time.
        ends = [*track.stamps[1:], max(track.end, track.stamps[-1])]
        return {index: (max(track.stamps[index], track.start) + ends[index]) / 2 for index in indices}
    # A little after the middle: where a frame begins right there, every backend takes it.
    return {index: track.start + (index + 0.501) * track.step for index in indices}
