# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Containers: which files may be opened, where a track lies in time, and decoding it from a point on.

A file is first surveyed with PyAV (its packets; nothing is decoded), which fixes *when* the wanted frames are shown. A
backend has only to return what is on the screen at those moments, so that all of them give the same frames, whatever
the container says or hides. All times are seconds of the stream's own clock.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass

import av

from .media_limits import Budget, MediaError, MediaLimits, reason


MAX_VIDEO_PIXELS = 2**26
"""The largest frame that is decoded; 8K video has half as many pixels."""

# The containers that may be opened, by FFmpeg's names. Playlists (hls, concat, dash, sdp) and image sequences are not
# among them: they are files that make their reader open other files or addresses.
_CONTAINERS = (
    "mov,matroska,webm,avi,flv,mpegts,mpeg,asf,ogg,wav,w64,mp3,aac,flac,aiff,au,amr,caf,ac3,eac3,mxf,nut,ivf,h264,hevc,"
    "m4v,mpegvideo,obu,dv,rm,wv,tta,ape,yuv4mpegpipe"
)
_INDEXED = ("mov", "matroska", "avi")  # they list their key frames
_TIMED = ("mov", "matroska")  # every backend reads the same times from them
_MEASURED = ("mov", "matroska", "avi", "wav", "flac")  # they state how long they are; others have it estimated
_KINDS = {"video": "video", "audio": "sound"}
_BEYOND_THE_END = 2**48  # a time stamp after any track's last, in any time base


@dataclass(frozen=True)
class Track:
    """One stream of a file and where it lies in time, as its packets say."""

    container: av.container.InputContainer  # as the survey left it
    path: str
    name: str
    index: int
    start: float
    end: float
    num_frames: int  # the frames that fit at the mean rate: the number of frames, where the rate is constant
    stamps: tuple[float, ...]  # the time of every packet, where the survey passed them all
    seekable: bool
    truncated: bool
    alone: bool  # the only one of its kind
    timed: bool

    @property
    def duration(self) -> float:
        return self.end - self.start

    @property
    def step(self) -> float:
        """The mean time from one frame to the next."""
        return max(self.duration, 1e-6) / self.num_frames


@contextlib.contextmanager
def open_container(path: str, name: str) -> Iterator[av.container.InputContainer]:
    """A video or sound file, its header read, with no way from its contents to other files or to the network.

    It may take what is left of the `path`'s budget, where that is a `LocalFile`.
    """
    if os.path.isdir(path):
        raise MediaError(f"{name} is a folder, not a video or sound file.")
    if os.path.getsize(path) == 0:
        raise MediaError(f"{name} is empty.")
    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file", "max_pixels": str(MAX_VIDEO_PIXELS)}
    budget = getattr(path, "budget", None) or Budget(name, MediaLimits())
    with budget.charged():
        try:
            container = av.open(path, options=options, timeout=budget.seconds_left)
        except Exception as error:
            why = "its kind is not accepted" if isinstance(error, av.ArgumentError) else reason(error)
            raise MediaError(f"{name} is not a video or sound file that can be read: {why}.") from error
    try:
        with container:
            yield container
    except MediaError:
        raise
    except Exception as error:  # broken files lead FFmpeg and PyAV to many
        raise MediaError(f"{name} cannot be read: {reason(error)}.") from error


def best_stream(container: av.container.InputContainer, kind: str, name: str) -> av.stream.Stream | None:
    """FFmpeg's choice among the "video" or "audio" streams, cover pictures aside; None where there is none.

    Raises:
        MediaError: there is one, but nothing to decode it with.
    """
    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in getattr(container.streams, kind) if not stream.disposition & cover]
    readable = [stream for stream in streams if stream.codec_context is not None]
    if streams and not readable:
        raise MediaError(f"{name} has a track of {_KINDS[kind]} in a codec that is not known.")
    best = container.streams.best(kind)
    return best if best in readable else next(iter(readable), None)


def survey(container: av.container.InputContainer, stream: av.stream.Stream, path: str, name: str, head: int) -> Track:
    """Where a stream begins and ends, from its first `head` packets and those after its last key frame.

    What the container says of duration and frame count is often missing (Matroska, fragments) or untrue (truncation).
    Where the end cannot be reached by seeking, all packets are passed; in no case is anything decoded.

    Raises:
        MediaError: the stream has no packets.
    """
    family = container.format.name.split(",")[0]
    first, reach = _scan(container, stream, head)
    last, complete = first, len(first) < head
    seekable = not complete
    if seekable:
        try:
            container.seek(_BEYOND_THE_END, stream=stream)
            last, reach = _scan(container, stream)
            if last and family not in _INDEXED:  # that was some last packet, not a key frame: take a few more
                container.seek(int((last[0][0] - 3.0) / float(stream.time_base)), stream=stream)
                last, reach = _scan(container, stream)
        except av.FFmpegError:
            seekable, last = False, []
        if not last:
            with open_container(path, name) as again:
                first, reach = _scan(again, again.streams[stream.index])
            last, complete = first, True
    if not last:
        raise MediaError(f"{name} has a track of {_KINDS[stream.type]}, but nothing is in it.")

    start = min(begin for begin, _ in first)
    if stream.start_time is not None:
        start = max(start, stream.start_time * float(stream.time_base))
    end = max(max(finish for _, finish in last), start)
    rate = getattr(stream, "average_rate", None) or 25
    promised = (container.duration or 0) / 1e6 if family in _MEASURED else 0.0
    truncated = promised - reach > max(0.5, 0.02 * promised) or (family == "wav" and _is_short_of_its_header(path))
    return Track(
        container=container,
        path=path,
        name=name,
        index=stream.index,
        start=start,
        end=end,
        num_frames=max(len(first) if complete and not truncated else round((end - start) * rate), 1),
        stamps=tuple(sorted(begin for begin, _ in first)) if complete else (),
        seekable=seekable,
        truncated=truncated,
        alone=len(getattr(container.streams, stream.type)) == 1,
        timed=family in _TIMED,
    )


def _is_short_of_its_header(path: str) -> bool:
    """Whether a RIFF file is shorter than it says; FFmpeg takes the length of the file instead."""
    with open(path, "rb") as file:
        promised = int.from_bytes(file.read(8)[4:], "little")
    return (
        promised + 8 > os.path.getsize(path) and promised < 2**32 - 64
    )  # of a recording in progress, it is 2**32 - 1


def _scan(
    container: av.container.InputContainer, stream: av.stream.Stream, limit: int | None = None
) -> tuple[list[tuple[float, float]], float]:
    """Begin and end of the stream's next packets, at most `limit`, and how far any stream was seen to reach."""
    spans, reach = [], 0.0
    packets = container.demux()
    while limit is None or len(spans) < limit:
        try:
            packet = _next(packets)
        except av.FFmpegError:
            break
        if packet is None:
            break
        if packet.size == 0 or packet.is_discard or not packet.time_base:
            continue
        stamp = packet.dts if packet.pts is None else packet.pts
        duration = (packet.duration or 0) * float(packet.time_base)
        begin = len(spans) * duration if stamp is None else stamp * float(packet.time_base)
        reach = max(reach, begin + duration)
        if packet.stream.index == stream.index:
            spans.append((begin, begin + duration))
    return spans, reach


def channel_count(context: av.AudioCodecContext) -> int:
    """The number of channels of a stream that is not being decoded yet. It leaves the stream with their bare number.

    PyAV 18 frees an arrangement of the "custom" kind twice, which ends the process. Most come from the container, and
    are dropped here; those that a decoder makes by itself must never be freed.
    """
    layout = context.layout
    if layout.nb_channels:
        context.layout = f"{layout.nb_channels} channels"
    return layout.nb_channels


def _next(packets: Iterator[av.Packet]) -> av.Packet | None:
    """The next packet; None at the end, where PyAV stumbles over streams that appeared midway."""
    try:
        return next(packets, None)
    except IndexError:
        return None


class Decoder:
    """Decodes one stream of a container from where it stands; damage is passed over and kept in `damage`."""

    def __init__(self, container: av.container.InputContainer, track: Track):
        self.container, self.track = container, track
        self.stream = container.streams[track.index]
        self.time_base = float(self.stream.time_base)
        context = self.stream.codec_context
        context.thread_count = 1  # as the other backends: data is loaded by one process per core
        if self.stream.type == "audio":
            channel_count(context)
        self.damage: str | None = None

    def seek(self, seconds: float) -> None:
        """Goes to a key frame, mostly the last one before the moment."""
        with contextlib.suppress(av.FFmpegError, OverflowError):
            self.container.seek(int(seconds / self.time_base), stream=self.stream)

    def frames(self) -> Iterator[av.VideoFrame | av.AudioFrame]:
        """Frames in the order of presentation."""
        packets = self.container.demux(self.stream)
        packet, whole = True, False
        while packet is not None:
            try:
                packet = _next(packets)
                if packet is not None and packet.size == 0:
                    continue
                frames = self.stream.codec_context.decode(packet)  # of None: what the decoder still holds
            except av.EOFError:
                continue
            except av.FFmpegError as error:
                self.damage = reason(error)
                continue
            for frame in frames:
                if frame.is_corrupt and whole:
                    self.damage = "frames are corrupt"
                # After a seek, frames that lack their references may come first; that is no damage.
                whole = whole or not frame.is_corrupt
                if isinstance(frame, av.AudioFrame) and " channels (" in frame.layout.name:  # see `channel_count`
                    ctypes.pythonapi.Py_IncRef(ctypes.py_object(frame.layout))
                    self.damage = "its channels are arranged in a way that is not supported"
                elif whole:
                    yield frame
