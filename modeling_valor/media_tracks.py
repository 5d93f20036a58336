# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The video and the audio track of a file, and the clock that they share."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, cast

import av

from .media_container import MAX_VIDEO_PIXELS, Track, channel_count, open_container, readable_streams, survey
from .media_images import open_image, too_large
from .media_limits import MediaError, NoVideoError
from .media_sources import LocalFile


@dataclass(frozen=True)
class AudioInfo:
    """An audio track without its samples: rate in Hz, duration in seconds, number of channels."""

    sampling_rate: int
    duration: float
    channels: int


@contextlib.contextmanager
def video_track(path: LocalFile, head: int, thorough: bool = False) -> Iterator[Track]:
    """The video track of a file, surveyed with `head` and `thorough`.

    Raises:
        NoVideoError: the file holds no video track, only sound.
        MediaError: the file cannot be read.
    """
    name = path.name
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


def audio_track(path: LocalFile) -> tuple[Track, AudioInfo] | None:
    """The audio track of a file that is surveyed, and what it holds; None where the file has none.

    It is looked for once, and kept with the `path`.

    Raises:
        MediaError: the file cannot be read, or its audio track is empty.
    """
    if path.sound is None:
        path.sound = (_find_audio_track(path),)
    found: tuple[Track, AudioInfo] | None = path.sound[0]
    return found


def _find_audio_track(path: LocalFile) -> tuple[Track, AudioInfo] | None:
    name = path.name
    if os.path.isdir(path):
        return None
    if (image := open_image(path, name)) is not None:
        image.close()
        return None
    place = 0
    while True:  # a track that is declared and has no packets is no sound; the file is opened anew for the next
        with open_container(path, name) as container:
            streams = readable_streams(container, "audio", name)
            is_film = bool(container.streams.video)
            if place == len(streams):
                break
            track = survey(container, streams[place], path, name, head=64)
            codec = cast(av.AudioCodecContext, streams[place].codec_context)
            if track is not None:
                return track, AudioInfo(codec.sample_rate, track.duration, channel_count(codec))
        place += 1
    if place and not is_film:
        raise MediaError(f"{name} has a track of sound, but nothing is in it.")
    return None


class Clock(NamedTuple):
    """When the first track of a file begins, which is its second 0, and when the last one ends, by the tracks' own times."""

    start: float
    end: float

    @property
    def duration(self) -> float:
        return self.end - self.start


def file_clock(path: LocalFile, video: Track | None = None, audio: Track | None = None) -> Clock:
    """The clock of a file, of which one track may be surveyed already; it is kept with the `path`."""
    if path.clock is None:
        with contextlib.suppress(MediaError):  # a track that cannot be read says nothing
            if video is None:
                with video_track(path, head=32) as video:
                    pass
        with contextlib.suppress(MediaError):
            if audio is None and (found := audio_track(path)) is not None:
                audio = found[0]
        tracks = [track for track in (video, audio) if track is not None]
        path.clock = Clock(min(track.start for track in tracks), max(track.end for track in tracks))
    return path.clock


def part_bounds(path: LocalFile, clock: Clock) -> tuple[float, float]:
    """Begin and end of the part of a file that is wanted, by the tracks' own times.

    Raises:
        MediaError: the part begins where the file has ended.
    """
    if path.part is None:
        return clock
    if path.part.start >= clock.duration:
        raise MediaError(f"{path.name} begins after the end of the file, which is {clock.duration:.2f} seconds long.")
    return clock.start + path.part.start, min(clock.start + path.part.end, clock.end)
