# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Frames of a video track: what is on the screen at given moments, by several backends."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import av
import torch

from .media_container import MAX_VIDEO_PIXELS, Decoder, Track, open_container
from .media_decord import DecordDamaged, decord
from .media_limits import MediaError, reason


_BEYOND_THE_END = 2**48
_INDEXED = ("mov", "matroska", "avi")


@dataclass
class Reading:
    """Frames (3, H, W), their times, what was found damaged and how many frames were decoded, where that is known."""

    frames: list[torch.Tensor]
    times: list[float]
    damage: str | None = None
    decoded: int | None = None


class _Cursor(Decoder):
    """Walks a video stream from moment to moment: seeks where that spares decoding, then decodes forward."""

    def __init__(self, container: av.container.InputContainer, track: Track):
        super().__init__(container, track)
        self.stream.codec_context.options = {"max_pixels": str(MAX_VIDEO_PIXELS)}
        self.family = container.format.name.split(",")[0]
        self.decoded = 0
        self.running: Iterator[tuple[float, av.VideoFrame]] | None = None
        self.shown = self.coming = None
        if track.seekable:  # loads the index of key frames, which Matroska keeps at the end
            self.seek(_BEYOND_THE_END * self.time_base)

    def at(self, seconds: float) -> tuple[float, av.VideoFrame] | None:
        """The frame on the screen at a moment, with its time; where damage left none, the next; None at the very end."""
        if self.running is None or (self.track.seekable and self._is_past_a_key_frame(seconds)):
            self._start_before(seconds)
        while self.coming is not None and self.coming[0] <= seconds:
            self.shown, self.coming = self.coming, next(self.running, None)
        return self.shown or self.coming

    def close(self) -> None:
        """Lets go of the decoder's frames, which this object and its generator would keep until they are collected."""
        self.running = self.shown = self.coming = None

    def _start_before(self, seconds: float) -> None:
        back = 0.0
        while True:  # some containers seek to a point after the moment: then look further back
            if self.track.seekable:
                self.seek(seconds - back)
            self.running = self._timed_frames()
            self.shown, self.coming = None, next(self.running, None)
            early = self.coming is not None and self.coming[0] <= seconds
            if early or not self.track.seekable or seconds - back <= self.track.start:
                return
            back = 4 * back + 1

    def _is_past_a_key_frame(self, seconds: float) -> bool:
        """Whether there is a key frame between here and a moment."""
        here = (self.shown or self.coming or (self.track.start,))[0]
        if self.family not in _INDEXED:
            return seconds - here > 5.0
        find = self.stream.index_entries.search_timestamp
        return find(int(here / self.time_base)) != find(int(seconds / self.time_base))

    def _timed_frames(self) -> Iterator[tuple[float, av.VideoFrame]]:
        seconds = None
        for frame in self.frames():
            self.decoded += 1
            # AVI has no presentation times; of a raw stream's frames only the order is known.
            stamp = frame.dts if self.family == "avi" else frame.pts
            if stamp is not None:
                seconds = stamp * self.time_base
            else:
                seconds = self.track.start if seconds is None else seconds + self.track.step
            yield seconds, frame


def read_with_pyav(track: Track, moments: Sequence[float]) -> Reading:
    """Reads every file as far as it goes; decodes from a key frame to the wanted frame and no more."""
    reading, size = Reading([], []), None
    # Opening a long file anew means reading its index again; what cannot be rewound is opened anew.
    opened = contextlib.nullcontext(track.container) if track.seekable else open_container(track.path, track.name)
    with opened as container, contextlib.closing(_Cursor(container, track)) as cursor:
        for moment in moments:
            found = cursor.at(moment)
            if found is None:
                raise MediaError(f"{track.name} has no frame that can be decoded ({cursor.damage or 'no data'}).")
            seconds, frame = found
            if not reading.times or reading.times[-1] != seconds:
                size = size or (frame.width, frame.height)
                # "POINT" repeats chroma as swscale's fast paths for 8 bits do, so that 10 bits look the same. A forked
                # process that frees the frame would wait forever for threads that it does not have.
                rgb = frame.reformat(*size, "rgb24", interpolation="POINT", threads=1)
                pixels = torch.from_numpy(rgb.to_ndarray())
                picture = pixels.rot90(round(frame.rotation / 90)).permute(2, 0, 1)
            reading.frames.append(picture)
            reading.times.append(seconds)
    reading.damage, reading.decoded = cursor.damage, cursor.decoded
    return reading


def read_with_torchcodec(track: Track, moments: Sequence[float]) -> Reading:
    """Needs FFmpeg's libraries on the machine; conceals damaged frames without saying so."""
    import torchcodec

    if getattr(torchcodec, "ffmpeg_major_version", "unknown") is None:
        raise ImportError("torchcodec finds no FFmpeg")
    # The other mode, "exact", passes all packets of the file first.
    decoder = torchcodec.decoders.VideoDecoder(track.path, stream_index=track.index, seek_mode="approximate")
    shown = [decoder.get_frame_played_at(moment) for moment in moments]
    if any(frame.pts_seconds > moment for frame, moment in zip(shown, moments, strict=True)):
        raise RuntimeError("torchcodec went past the moment")
    return Reading([frame.data for frame in shown], [frame.pts_seconds for frame in shown])


def read_with_decord(track: Track, moments: Sequence[float]) -> Reading:
    """Reads short files fastest, but passes all packets of a file to open it, and takes the video track by itself."""
    frames, times = decord.read(track.path, [moment - track.start for moment in moments])
    return Reading(
        [torch.from_numpy(frame).permute(2, 0, 1) for frame in frames], [track.start + time for time in times]
    )


BACKENDS: dict[str, Callable[[Track, Sequence[float]], Reading]] = {
    "decord": read_with_decord,
    "torchcodec": read_with_torchcodec,
    "pyav": read_with_pyav,
}
"""What is on the screen at some moments, in ascending order; in the order in which they are tried."""


def read_with_backends(track: Track, moments: Sequence[float], first: str | None = None) -> tuple[Reading, str]:
    """The reading of the first backend that succeeds, and its name.

    PyAV is the last, and the only one for what the others see wrongly or cannot tell: truncated files, containers
    without exact times, several video tracks (decord chooses by itself) and, unless asked for, files that are not short.

    Raises:
        MediaError: no backend can decode the file.
    """
    names = sorted(BACKENDS, key=lambda name: name != first)
    short = track.num_frames <= 10_000 and os.path.getsize(track.path) <= 2**26
    if track.truncated or not track.timed or (first is None and not (short and track.alone)):
        names = ["pyav"]
    elif not track.alone:
        names.remove("decord")
    while True:
        name = names.pop(0)
        try:
            return BACKENDS[name](track, moments), name
        except Exception as error:
            if isinstance(error, DecordDamaged):
                names = ["pyav"] if "pyav" in names else []
            if not names and isinstance(error, MediaError):
                raise
            if not names:
                raise MediaError(f"{track.name} cannot be decoded: {reason(error)}.") from error
