# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Frames of a video track: what is on the screen at given moments, by several backends.

The measure of all is a decoder that goes through the file from its beginning and never seeks. PyAV may seek, since what
it finds is compared with the survey; the others serve only files whose structure leaves them nothing to get wrong.
"""

import contextlib
import importlib
import itertools
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import av
import numpy as np
import torch
from av.sidedata.sidedata import Type as SideDataType
from transformers.utils import logging

from .media_container import BEYOND_THE_END, MAX_VIDEO_PIXELS, Decoder, Track, open_container
from .media_decord import decord
from .media_limits import MediaError, reason


logger = logging.get_logger(__name__)


@dataclass
class Reading:
    """Frames (3, H, W), their times, what was found damaged and how many frames were decoded, where that is known."""

    frames: list[torch.Tensor]
    times: list[float]
    damage: str | None = None
    decoded: int | None = None


# ---------------------------------------------------------------------------------------------------------------------
# Orientation
# ---------------------------------------------------------------------------------------------------------------------


def orientation(matrix: np.ndarray) -> tuple[bool, int]:
    """Whether to exchange left and right, and how many quarter turns clockwise to make after that.

    Args:
        matrix: a display matrix (3, 3) in the fixed-point numbers of the container. Like players, this takes the nearest
            quarter turn; a matrix that leaves no picture turns nothing.
    """
    (a, b), (c, d) = matrix[:2, :2].astype(float)  # of a point (x, y): to (a x + c y, b x + d y), y downward
    if a * d == b * c:
        return False, 0
    mirrored = a * d < b * c
    if mirrored:
        a, b = -a, -b
    return mirrored, round(float(np.arctan2(b - c, a + d)) / (np.pi / 2)) % 4


def _display_matrix(frame: av.VideoFrame) -> np.ndarray | None:
    data: Any = cast(Any, frame.side_data).get(SideDataType.DISPLAYMATRIX)
    return None if data is None else np.frombuffer(bytes(data), np.int32)[:9].reshape(3, 3)


def _upright(pixels: torch.Tensor, frame: av.VideoFrame) -> torch.Tensor:
    """Pixels (H, W, 3) of a frame as a picture (3, H, W)."""
    matrix = _display_matrix(frame)
    mirrored, turns = (False, 0) if matrix is None else orientation(matrix)
    pixels = pixels.flip(1) if mirrored else pixels
    return (pixels.rot90(-turns) if turns else pixels).permute(2, 0, 1)  # `rot90` copies in any case


def _is_quarter_turn(matrix: np.ndarray) -> bool:
    return not orientation(matrix)[0] and sorted(abs(matrix[:2, :2]).flatten()) == [0, 0, 2**16, 2**16]


# ---------------------------------------------------------------------------------------------------------------------
# PyAV
# ---------------------------------------------------------------------------------------------------------------------


class Cursor(Decoder):
    """Walks a video stream from moment to moment: seeks where that spares decoding, then decodes forward.

    Decoding begins at a key frame, and what is shown before that frame is not looked at: it may refer to frames that
    were passed over. Where the survey knows every packet, the key frame must be one of its packets, and the frame that
    is found must have the time that the survey expects; otherwise the file is decoded from its beginning.
    """

    def __init__(self, container: av.container.InputContainer, track: Track, threads: int = 1):
        super().__init__(container, track, threads)
        self.decoded = 0
        self.seeks, self.in_order = track.seekable, False
        self.newest_key = -math.inf  # of those that the decoder was given, also ahead of what it showed
        self.running: Iterator[tuple[float, av.VideoFrame]] | None = None
        self.shown: tuple[float, av.VideoFrame] | None = None
        self.coming: tuple[float, av.VideoFrame] | None = None
        self.wanted: set[int] | None = None  # times of the frames that are looked at, where the survey knows them
        self.reopened = contextlib.ExitStack()
        self.keys = track.key_entries()
        self.key_times = [(entry.pts or 0) * self.time_base for entry in self.keys]
        if self.seeks and not track.entries:  # loads the index of key frames, which Matroska keeps at the end
            self.seek(BEYOND_THE_END)

    def use(self, container: av.container.InputContainer) -> None:
        super().use(container)
        self.skip = "DEFAULT"
        self.stream.codec_context.options = {"max_pixels": str(MAX_VIDEO_PIXELS)}

    def packets(self) -> Iterator[av.Packet]:
        self.newest_key = -math.inf
        for packet in super().packets():
            if packet.is_keyframe and packet.pts is not None:
                self.newest_key = packet.pts * self.time_base
            self._pass_over(packet)
            yield packet

    def _pass_over(self, packet: av.Packet) -> None:
        """Has the decoder leave out a frame that is not wanted and that no other frame refers to."""
        skip = "NONREF" if self.wanted is not None and packet.pts not in self.wanted else "DEFAULT"
        if skip != self.skip:
            self.stream.codec_context.skip_frame = self.skip = skip

    def at(self, moment: float) -> tuple[float, av.VideoFrame] | None:
        """The frame on the screen at a moment, with its time; where damage left none, the next; None at the very end."""
        if self.running is None or (self.seeks and self._is_past_a_key_frame(moment)):
            self._start_before(moment)
        self._advance(moment)
        if not self.in_order and self._is_unexpected(moment):
            self._start_anew()
            self._advance(moment)
        return self.shown or self.coming

    def pictures(self, moments: Iterable[float]) -> Iterator[tuple[torch.Tensor, float]]:
        """What is on the screen at some moments, in ascending order: uint8 RGB (3, H, W), upright, and its time.

        Raises:
            MediaError: no frame can be decoded.
        """
        size = time = None
        picture: Any = None
        moments = list(moments)
        # Elsewhere a packet may be one of the two fields of a frame
        if self.track.timing == "pts" and self.track.stamps and self.track.family in ("mov", "matroska"):
            shown = {cast(float, self.track.shown_at(moment)) for moment in moments}
            self.wanted = {round(stamp / self.time_base) for stamp in shown}
        for moment in moments:
            found = self.at(moment)
            if found is None:
                raise MediaError(f"{self.track.name} has no frame that can be decoded ({self.damage or 'no data'}).")
            if time != found[0]:
                time, frame = found
                size = size or (frame.width, frame.height)
                # "POINT" repeats chroma as swscale's fast paths for 8 bits do, so that 10 bits look the same. A forked
                # process that frees the frame would wait forever for threads that it does not have.
                rgb = frame.reformat(*size, "rgb24", interpolation="POINT", threads=1)
                picture = _upright(torch.from_numpy(rgb.to_ndarray()), frame)
            yield picture, time

    def frames_from(self, moment: float) -> Iterator[tuple[float, av.VideoFrame]]:
        """All frames that begin at a moment or later, with their times."""
        self._start_before(moment)
        while self.running is not None and self.coming is not None:
            found, self.coming = self.coming, next(self.running, None)
            if found[0] >= moment:
                yield found

    def close(self) -> None:
        """Lets go of the decoder's frames, which this object and its generator would keep until they are collected."""
        self.running, self.shown, self.coming = iter(()), None, None
        self.reopened.close()

    def _advance(self, moment: float) -> None:
        while self.running is not None and self.coming is not None and self.coming[0] <= moment:
            self.shown, self.coming = self.coming, next(self.running, None)

    def _is_unexpected(self, moment: float) -> bool:
        expected, found = self.track.shown_at(moment), self.shown or self.coming
        return expected is not None and (found is None or abs(found[0] - expected) > 1e-6)

    def _is_past_a_key_frame(self, moment: float) -> bool:
        """Whether there is a key frame between here and a moment."""
        here = max((self.coming or self.shown or (self.track.start,))[0], self.newest_key)
        if self.track.entries:
            return bisect_right(self.key_times, here) < bisect_right(self.key_times, moment)
        find = self.stream.index_entries.search_timestamp
        return find(int(here / self.time_base)) != find(int(moment / self.time_base))

    def _start_before(self, moment: float) -> None:
        for stamp in self._places_before(moment) if self.seeks else ():
            if self.seek(stamp) and self._start_at_key_frame(moment):
                return
        self._start_anew()

    def _places_before(self, moment: float) -> Iterator[int]:
        """Time stamps to seek to for a key frame that is shown before a moment."""
        if self.track.entries:
            found = bisect_right(self.key_times, moment)
            for entry in self.keys[max(found - 3, 0) : found][::-1]:
                # These two look for times of presentation, the others for those of decoding.
                by_pts = entry.dts is None or self.track.family in ("mov", "matroska")
                yield cast(int, entry.pts if by_pts else entry.dts)  # a key entry has a `pts`
            return
        for back in (0, 1, 5, 21, 85, 341):
            yield int(max(moment - back, 0 if self.track.start >= 0 else self.track.start) / self.time_base)
            if moment - back <= self.track.start:
                return

    def _start_at_key_frame(self, moment: float) -> bool:
        """Begins to decode at the next key frame, if it is one of the survey's and something is shown by the moment."""
        packets = itertools.dropwhile(lambda packet: not packet.is_keyframe, self.packets())
        key = next(packets, None)
        if key is None or key.pts is None or key.pts * self.time_base > moment:
            return False
        same = [entry for entry in self.keys if (entry.pts, entry.size) == (key.pts, key.size)]
        if self.track.entries and not same:
            return False
        is_first = bool(same) and same[0] is self.keys[0] and self.track.entries[0].is_key
        self._start(itertools.chain([key], packets), None if is_first else key.pts * self.time_base)
        return self.coming is not None and self.coming[0] <= moment

    def _start_anew(self) -> None:
        """Begins to decode at the beginning of the file, and seeks no more."""
        self.seeks, self.in_order, self.wanted = False, True, None
        self.use(self.reopened.enter_context(open_container(self.track.path, self.track.name)))
        self._start(self.packets(), None)

    def _start(self, packets: Iterator[av.Packet], first: float | None) -> None:
        frames = self._timed_frames(packets)
        self.running = frames if first is None else (pair for pair in frames if pair[0] >= first)
        self.shown, self.coming = None, next(self.running, None)

    def _timed_frames(self, packets: Iterator[av.Packet]) -> Iterator[tuple[float, av.VideoFrame]]:
        seconds: Any = None  # of the last frame; with timing "order" there is a time for the first one
        stamps = iter(self.track.stamps if self.track.timing == "order" else ())
        for frame in cast(Iterator[av.VideoFrame], self.frames(packets)):
            self.decoded += 1
            stamp = None if frame.pts is None else frame.pts * self.time_base
            if self.track.timing == "order":
                seconds = next(stamps, seconds)
            elif stamp is None or (
                self.track.timing == "repaired" and seconds is not None and stamp < seconds + self.track.step / 2
            ):
                seconds = self.track.start if seconds is None else seconds + self.track.step
            else:
                seconds = stamp
            yield seconds, frame


def read_with_pyav(track: Track, moments: Sequence[float]) -> Reading:
    """Reads every file as far as it goes; decodes from a key frame to the wanted frame and no more."""
    with contextlib.closing(Cursor(track.container, track)) as cursor:
        pictures, times = zip(*cursor.pictures(moments), strict=True)
        return Reading(list(pictures), list(times), cursor.damage, cursor.decoded)


# ---------------------------------------------------------------------------------------------------------------------
# The others
# ---------------------------------------------------------------------------------------------------------------------


def read_with_torchcodec(track: Track, moments: Sequence[float]) -> Reading:
    """Needs FFmpeg's libraries on the machine; conceals damaged frames without saying so."""
    # Not `import`: transformers would demand it of everyone who loads this code from the Hub
    torchcodec = importlib.import_module("torchcodec")
    if getattr(torchcodec, "ffmpeg_major_version", "unknown") is None:
        raise ImportError("torchcodec finds no FFmpeg")
    decoder = torchcodec.decoders.VideoDecoder(track.path, stream_index=track.index, seek_mode="exact")
    shown = [decoder.get_frame_played_at(moment) for moment in moments]
    return Reading([frame.data for frame in shown], [frame.pts_seconds for frame in shown])


def read_with_decord(track: Track, moments: Sequence[float]) -> Reading:
    """Passes all packets of a file to open it, and takes the video track by itself."""
    frames, times = decord.read(track.path, [moment - track.start for moment in moments])
    return Reading(
        [torch.from_numpy(frame).permute(2, 0, 1) for frame in frames], [track.start + time for time in times]
    )


BACKENDS: dict[str, Callable[[Track, Sequence[float]], Reading]] = {
    "pyav": read_with_pyav,
    "torchcodec": read_with_torchcodec,
    "decord": read_with_decord,
}
"""What is on the screen at some moments, in ascending order. The first is the default, and reads all that others cannot."""

_PROVEN_CODECS = ("h264", "hevc", "mpeg4", "vp8", "vp9", "av1", "mjpeg")


def why_unproven(track: Track) -> str | None:
    """Why only PyAV is known to give the frames of a file that was surveyed thoroughly; None where every backend is.

    The others go to a key frame and count or compare times from there. That is right where groups of pictures are
    closed (what is decoded after a key frame is shown after it, and refers to nothing before it), and where the
    container lists every frame, so that its key frames are found.
    """
    codec = cast(av.VideoCodecContext, track.container.streams[track.index].codec_context)
    if track.family != "mov":
        return "its container does not list all its frames"
    if codec.codec.canonical_name not in _PROVEN_CODECS:
        return f"its codec is {codec.codec.canonical_name}"
    if not track.alone:
        return "it has several video tracks"
    if track.truncated or len(set(track.stamps)) < len(track.entries):
        return "not every packet has a time of its own, within the edit list and the file"
    keys = [place for place, entry in enumerate(track.entries) if entry.is_key]
    order = sorted(cast(int, entry.pts) for entry in track.entries)
    if keys[:1] != [0] or any(order[place] != track.entries[place].pts for place in keys):
        return "its groups of pictures are open"
    if any(cast(int, track.entries[k].dts) <= order[j] for j, k in itertools.pairwise(keys)):
        return "its key frames are too close to each other"
    with open_container(track.path, track.name) as container:
        decoder = Decoder(container, track)
        if not all(_is_random_access(packet, codec) for packet in decoder.packets() if packet.is_keyframe):
            return "its key frames are no points of random access"
    with open_container(track.path, track.name) as container:
        first = next(cast(Iterator[av.VideoFrame], Decoder(container, track).frames()), None)
        matrix = None if first is None else _display_matrix(first)
    if matrix is not None and not _is_quarter_turn(matrix):
        return "its display matrix is no quarter turn"
    return None


def _is_random_access(packet: av.Packet, codec: av.VideoCodecContext) -> bool:
    """Whether a key frame refers to nothing before it: in H.264 and H.265, by the types of its NAL units."""
    if codec.name not in ("h264", "hevc"):
        return True
    header, content = bytes(codec.extradata or b""), bytes(packet)
    length = (header[4 if codec.name == "h264" else 21] & 3) + 1
    types: set[int] = set()
    place = 0
    while place + length < len(content):
        first = content[place + length]
        types.add(first & 31 if codec.name == "h264" else first >> 1 & 63)
        place += length + int.from_bytes(content[place : place + length], "big")
    return bool(types & ({5} if codec.name == "h264" else set(range(16, 22))))


_said: set[tuple[str, str]] = set()


def _say_once(backend: str, why: str, name: str) -> None:
    if (backend, why) not in _said:
        _said.add((backend, why))
        logger.warning(f"{name} and others like it are read with PyAV instead of {backend}: {why}.")


def read_with_backends(track: Track, moments: Sequence[float], backend: str | None = None) -> tuple[Reading, str]:
    """The reading of a backend, and its name; that of PyAV where the backend's is not known to be right.

    Raises:
        MediaError: no frame can be decoded.
    """
    if backend not in (None, "pyav"):
        try:
            why = why_unproven(track)
            reading = None if why else BACKENDS[backend](track, moments)
            if reading and all(
                abs(cast(float, track.shown_at(m)) - time) < 2e-3
                for m, time in zip(moments, reading.times, strict=True)
            ):
                return reading, backend
            why = why or f"{backend} gives frames of other times"
        except Exception as error:  # other libraries raise whatever a file leads them to
            why = f"{backend} fails ({reason(error)})"
        _say_once(backend, why, track.name)
    try:
        return BACKENDS["pyav"](track, moments), "pyav"
    except MediaError:
        raise
    except Exception as error:
        raise MediaError(f"{track.name} cannot be decoded: {reason(error)}.") from error
