# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Files to frames and waveforms, with one exception type for what cannot be read: `MediaError`."""

import contextlib
import math
import os
import warnings
import wave
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import av
import numpy as np
import torch

from .media_audio import read_samples
from .media_container import (
    MAX_VIDEO_PIXELS,
    Track,
    channel_count,
    open_container,
    readable_streams,
    survey,
)
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
    too_large,
)
from .media_limits import DamagedMediaWarning, MediaError, MediaLimits, NoVideoError
from .media_sources import (
    LocalFile,
    MediaSource,
    download,
    list_frame_files,
    list_media,
    media_source,
    open_source,
    source_name,
)
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
    "open_source",
    "read_audio",
    "read_frames",
    "read_image",
    "segment_indices",
    "source_name",
]


MAX_WANTED = 2**22
"""The most frames, or clips of sound, that are taken of one file: all of a day and a half at 30 frames a second."""


@dataclass
class Audio:
    """A mono waveform, float32 (N,), or a list of them, one for each window asked for.

    `sampling_rate` is the file's, in Hz; `duration` is that of the whole track, in seconds.
    """

    waveform: torch.Tensor | list[torch.Tensor]
    sampling_rate: int
    duration: float


@dataclass(frozen=True)
class AudioInfo:
    """An audio track without its samples: rate in Hz, duration in seconds, number of channels."""

    sampling_rate: int
    duration: float
    channels: int


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
    the length of the video. A video that can be read only in part is used as far as it goes, with one
    [`DamagedMediaWarning`].

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
            return read_folder(path, choose)
        image = open_image(path, name)
        if image is not None:
            with image, damage_of_image(name):
                return read_image_frames(path, image, choose)
        with _video_track(path, name, head=num_frames + 32, thorough=backend not in (None, "pyav")) as track:
            indices = choose(track.num_frames)
            moments = _moments(track, indices, num_frames)
            stream = cast(av.VideoStream, track.container.streams[track.index])
            size = 3 * stream.width * stream.height * len(indices)
            if size <= path.budget.limits.read_bytes // 2:  # as they are held twice for a moment
                reading, reader = read_with_backends(track, list(moments.values()), backend)
                frames = stack_pictures(path, zip(moments, reading.frames, strict=True), indices)
            else:
                if shrink is None:
                    check_memory(path, stream.width, stream.height, len(indices))
                (frames, reading), reader = _read_one_by_one(track, moments, indices, shrink), "pyav"
    if reading.damage or track.truncated:
        _warn(name, f"is damaged ({reading.damage})" if reading.damage else "ends early")
    place = {index: row for row, index in enumerate(moments)}
    return VideoFrames(
        frames=frames,
        timestamps=[reading.times[place[index]] - track.start for index in indices],
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
            for index in choose(len(files), float(len(files))):
                yield read_image(files[index])
            return
        image = open_image(path, name)
        if image is not None:
            with image, damage_of_image(name):
                available, step = animation(path, image)
                yield from animation_pictures(path, image, choose(available, available * step))
            return
        with _video_track(path, name, head=96) as track:
            indices = choose(track.num_frames, track.duration)
            with contextlib.closing(Cursor(track.container, track)) as cursor:
                for picture, _ in cursor.pictures(_moments(track, indices, len(indices)).values()):
                    yield picture
    if cursor.damage or track.truncated:
        _warn(name, f"is damaged ({cursor.damage})" if cursor.damage else "ends early")


@contextlib.contextmanager
def _video_track(path: str, name: str, head: int, thorough: bool = False) -> Iterator[Track]:
    """The video track of a file, surveyed with `head` and `thorough`."""
    with open_container(path, name) as container:
        streams = cast(list[av.VideoStream], readable_streams(container, "video", name))
        stream = next(iter(streams), None)
        if stream is None:
            raise NoVideoError(f"{name} has no video track{', only sound' if container.streams.audio else ''}.")
        if stream.width * stream.height > MAX_VIDEO_PIXELS:
            raise MediaError(too_large(name, stream.width, stream.height, MAX_VIDEO_PIXELS))
        track = survey(container, stream, path, name, head, thorough)
        if track is None:
            raise MediaError(f"{name} has a track of video, but nothing is in it.")
        yield track


def _moments(track: Track, indices: list[int], num_wanted: int) -> dict[int, float]:
    """When each frame of `indices` is on the screen, if `num_wanted` frames are taken of the whole track."""
    if len(track.stamps) == track.num_frames <= num_wanted:
        # Every frame is wanted: each in the middle of its own time.
        ends = [*track.stamps[1:], max(track.end, track.stamps[-1])]
        return {index: (track.stamps[index] + ends[index]) / 2 for index in indices}
    # A little after the middle: where a frame begins right there, every backend takes it.
    return {index: track.start + (index + 0.501) * track.step for index in indices}


def _warn(name: str, what: str) -> None:
    warnings.warn(f"{name} {what}; it is used as far as it goes.", DamagedMediaWarning, stacklevel=3)


# ---------------------------------------------------------------------------------------------------------------------
# Sound
# ---------------------------------------------------------------------------------------------------------------------


def read_audio(
    source: MediaSource,
    *,
    windows: Sequence[tuple[float, float]] | None = None,
    max_seconds: float | None = None,
) -> Audio | None:
    """The audio track of a sound or video file as a mono waveform at its own rate; None where there is no track.

    Channels are averaged. Time counts from the first sample of the track, whenever the video starts. With `windows`,
    (begin, end) pairs in seconds, `waveform` is a list with one piece for each, and little more than these parts is
    read. Past the end there are no samples: a piece may be shorter than its window, or empty. An image or a folder of
    frames has no audio track. A track that can be read only in part is used as far as it goes, with one
    [`DamagedMediaWarning`].

    Args:
        max_seconds (`float`, *optional*): without `windows`, where to stop.

    Raises:
        MediaError: the file cannot be read, or its audio track holds nothing that can be decoded.
    """
    parts = [(0.0, np.inf if max_seconds is None else max_seconds)] if windows is None else windows
    with open_source(source) as path:
        name = path.name
        if (plain := _open_wave(path)) is not None:
            with plain:
                return _read_wave(plain, parts, as_list=windows is not None)
        found = _survey_audio(path, name)
        if found is None:
            return None
        track, _ = found
        pieces, rate, damage = read_samples(track, parts)
    if windows is None and not len(pieces[0]):
        raise MediaError(
            f"{name} has an audio track, but no sound could be decoded{f' ({damage})' if damage else ''}."
        )
    if damage or track.truncated:
        _warn(name, f"is damaged ({damage})" if damage else "ends early")
    waveforms = [torch.from_numpy(piece) for piece in pieces]
    return Audio(waveforms[0] if windows is None else waveforms, rate, track.duration)


def audio_info(source: MediaSource) -> AudioInfo | None:
    """Rate, duration and channels of the audio track; None where there is none. Nothing is decoded.

    Raises:
        MediaError: the file cannot be read, or its audio track is empty.
    """
    with open_source(source) as path:
        if (plain := _open_wave(path)) is not None:
            with plain:
                rate = plain.getframerate()
                return AudioInfo(rate, plain.getnframes() / rate, plain.getnchannels())
        found = _survey_audio(path, path.name)
    return None if found is None else found[1]


def _open_wave(path: str) -> wave.Wave_read | None:
    """A whole wave file of 16 bits, which takes no decoder and a tenth of the time; None for any other file."""
    # The module raises whatever a broken header leads it to; such a file is left to the decoder
    try:
        file = wave.open(path, "rb")  # noqa: SIM115 (the caller closes it)
    except Exception:
        return None
    with contextlib.suppress(Exception):
        if (
            file.getsampwidth() == 2
            and file.getframerate() > 0
            and file.getnframes() > 0
            and _has_its_last_frame(file)
        ):
            return file
    file.close()
    return None


def _has_its_last_frame(file: wave.Wave_read) -> bool:
    file.setpos(file.getnframes() - 1)
    return len(file.readframes(1)) == 2 * file.getnchannels()


def _read_wave(file: wave.Wave_read, parts: Sequence[tuple[float, float]], as_list: bool) -> Audio:
    rate, length, channels = file.getframerate(), file.getnframes(), file.getnchannels()
    pieces = []
    for begin, end in parts:
        first = min(round(begin * rate), length)
        file.setpos(first)
        data = file.readframes(max(length - first if end == math.inf else min(round(end * rate), length) - first, 0))
        samples = np.frombuffer(data, "<i2").reshape(-1, channels).astype(np.float32)
        pieces.append(torch.from_numpy(samples.mean(1) / 2**15))
    return Audio(pieces if as_list else pieces[0], rate, length / rate)


def _survey_audio(path: LocalFile, name: str) -> tuple[Track, AudioInfo] | None:
    if os.path.isdir(path):
        return None
    if (image := open_image(path, name)) is not None:
        image.close()
        return None
    with open_container(path, name) as container:
        is_film = bool(container.streams.video)
        indices = [stream.index for stream in readable_streams(container, "audio", name)]
    for index in indices:  # a track that is declared and has no packets is no sound
        with open_container(path, name) as container:
            stream = container.streams[index]
            track = survey(container, stream, path, name, head=64)
            codec = cast(av.AudioCodecContext, stream.codec_context)
            if track is not None:
                return track, AudioInfo(codec.sample_rate, track.duration, channel_count(codec))
    if indices and not is_film:
        raise MediaError(f"{name} has a track of sound, but nothing is in it.")
    return None
