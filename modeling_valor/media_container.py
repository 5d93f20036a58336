# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Containers: which files may be opened, where a track lies in time, and decoding it from a point on.

A file is first surveyed with PyAV (its packets; nothing is decoded), which fixes *when* the wanted frames are shown. A
backend has only to return what is on the screen at those moments, so that all of them give the same frames, whatever
the container says or hides. All times are seconds of the stream's own clock.
"""

import contextlib
import ctypes
import itertools
import math
import os
import statistics
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import av

from .media_limits import Budget, MediaError, budget_of, reason


MAX_VIDEO_PIXELS = 2**26
"""The largest frame that is decoded; 8K video has half as many pixels."""

# The containers that may be opened, by FFmpeg's names. Playlists (hls, concat, dash, sdp) and image sequences are not
# among them: they are files that make their reader open other files or addresses.
_CONTAINERS = (
    "mov,matroska,webm,avi,flv,mpegts,mpeg,asf,ogg,wav,w64,mp3,aac,flac,aiff,au,amr,caf,ac3,eac3,mxf,nut,ivf,h264,hevc,"
    "m4v,mpegvideo,obu,dv,rm,wv,tta,ape,yuv4mpegpipe"
)
INDEXED = ("mov", "matroska", "avi")
"""The containers that list their key frames, by FFmpeg's names."""

_JOINABLE = ("mpegts", "mpeg", "ogg")  # one file appended to another is a file, whose times begin anew
_MEASURED = ("mov", "matroska", "avi", "wav", "flac")  # they state how long they are; others have it estimated
_KINDS = {"video": "video", "audio": "sound"}
Timing = Literal["pts", "dts", "order", "repaired"]
"""What says when a frame is shown: its packet; its place in the decoder's output; both, where packets repeat times."""

BEYOND_THE_END = 2**48
"""A time stamp after any track's last, in any time base."""

_SMALL = 2**26  # bytes of a file of which all packets are passed


class Entry(NamedTuple):
    """What the header of a packet says; times are in the stream's own units."""

    pts: int | None
    dts: int | None
    duration: int
    size: int
    is_key: bool
    is_shown: bool  # others are decoded for the sake of later ones only: they lie outside of an edit list


@dataclass(frozen=True)
class Track:
    """One stream of a file and where it lies in time, as its packets say."""

    container: av.container.InputContainer  # as the survey left it
    path: str
    name: str
    family: str  # FFmpeg's name for the kind of container
    index: int
    start: float
    end: float
    num_frames: int  # the frames that fit at the mean rate: the number of frames, where the rate is constant
    entries: tuple[Entry, ...]  # of all packets in the order of decoding, where the survey passed them all
    stamps: tuple[float, ...]  # when they are shown, in that order, where all of them say so
    timing: Timing
    seekable: bool
    joined: bool  # its times begin anew somewhere
    truncated: bool
    alone: bool  # the only one of its kind

    @property
    def duration(self) -> float:
        return self.end - self.start

    @property
    def step(self) -> float:
        """The mean time from one frame to the next."""
        return max(self.duration, 1e-6) / self.num_frames

    def key_entries(self) -> list[Entry]:
        """The key frames of a track that was surveyed whole, by the times at which they are shown."""
        keys = [entry for entry in self.entries if entry.is_key]
        if self.timing == "dts":
            keys = [entry._replace(pts=entry.dts) for entry in keys]
        return sorted((entry for entry in keys if entry.pts is not None), key=lambda entry: entry.pts or 0)

    def shown_at(self, moment: float) -> float | None:
        """The time of the frame that is on the screen at a moment; None where the survey cannot tell."""
        return self.stamps[max(bisect_right(self.stamps, moment) - 1, 0)] if self.stamps else None


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
    budget = budget_of(path, name)
    with budget.charged():
        try:
            container = av.open(path, options=options, timeout=budget.seconds_left, metadata_errors="replace")
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


def readable_streams(
    container: av.container.InputContainer, kind: Literal["video", "audio"], name: str
) -> list[av.stream.Stream]:
    """The "video" or "audio" streams, FFmpeg's choice first, cover pictures aside.

    Raises:
        MediaError: there are some, but nothing to decode them with.
    """
    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in getattr(container.streams, kind) if not stream.disposition & cover]
    readable = [stream for stream in streams if stream.codec_context is not None]
    if streams and not readable:
        raise MediaError(f"{name} has a track of {_KINDS[kind]} in a codec that is not known.")
    best = container.streams.best(kind)
    return sorted(readable, key=lambda stream: stream is not best)


def survey(
    container: av.container.InputContainer,
    stream: av.stream.Stream,
    path: str,
    name: str,
    head: int,
    thorough: bool = False,
) -> Track | None:
    """Where a stream begins and ends, as its packets say; nothing is decoded. None for a stream without packets.

    What the container says of duration and frame count is often missing (Matroska, fragments) or untrue (truncation),
    so all packets are passed. Of a file over 64 MiB that lists its key frames, the first `head` packets and those after
    its last key frame are enough, unless the survey has to be `thorough`.
    """
    budget = budget_of(path, name)
    with budget.charged():
        return _survey(container, stream, path, name, head, thorough, budget)


def _survey(
    container: av.container.InputContainer,
    stream: av.stream.Stream,
    path: str,
    name: str,
    head: int,
    thorough: bool,
    budget: Budget,
) -> Track | None:
    family = container.format.name.split(",")[0]
    promised = (container.duration or 0) / 1e6 if family in _MEASURED else 0.0
    size = os.path.getsize(path)
    small = _SMALL if stream.type == "video" else _SMALL // 16  # of sound, the ends say as much as the whole
    limit = None if thorough or size <= small or family not in INDEXED else head
    first = last = _scan(container, stream, family, budget, limit)
    timing = _timing(stream, first.entries, family)
    if len(first.entries) == limit:
        last = _scan_the_end(container, stream, family, budget)
        if timing in ("order", "repaired") or not last.entries or _falls_short(last.reach, promised):
            with open_container(path, name) as again:
                first = last = _scan(again, again.streams[stream.index], family, budget)
    complete, entries, tick = first is last, first.entries, float(stream.time_base or 0)
    if not entries:
        return None

    rate = float(getattr(stream, "average_rate", None) or 25)
    if timing == "repaired":
        entries = last.entries[:] = _repaired(entries, round(1 / rate / tick))
    elif timing == "order":
        entries = last.entries[:] = _in_order(
            entries, delay=bool(cast(av.VideoCodecContext, stream.codec_context).has_b_frames)
        )
    stamps = [_stamp(entry, place, timing) for place, entry in enumerate(entries) if entry.is_shown]
    known = [stamp for stamp in stamps if stamp is not None]
    begin = min(known, default=0)
    # Without times of decoding, as in Matroska, FFmpeg guesses where a stream starts, and may pass over frames.
    if timing == "pts" and not first.joined and stream.start_time is not None and entries[0].dts is not None:
        begin = max(begin, stream.start_time)
    start, end = begin * tick, max(_end(stream, last.entries, timing, family), begin * tick)
    truncated = _falls_short(last.reach, promised) or (family == "wav" and _is_short_of_its_header(path))
    whole = complete and len(known) == len(stamps)
    return Track(
        container=container,
        path=path,
        name=name,
        family=family,
        index=stream.index,
        start=start,
        end=end,
        num_frames=max(len(stamps) if whole and not truncated else round((end - start) * rate), 1),
        entries=tuple(entries) if complete else (),
        stamps=tuple(sorted(stamp * tick for stamp in known)) if whole and timing != "repaired" else (),
        timing=timing,
        seekable=timing not in ("order", "repaired") and not first.joined and _can_seek(container, stream, entries[0]),
        joined=first.joined,
        truncated=truncated,
        alone=len(getattr(container.streams, stream.type)) == 1,
    )


def _falls_short(reach: float, promised: float) -> bool:
    return promised - reach > max(0.5, 0.02 * promised)


def _is_short_of_its_header(path: str) -> bool:
    """Whether a RIFF file is shorter than it says; FFmpeg takes the length of the file instead."""
    with open(path, "rb") as file:
        promised = int.from_bytes(file.read(8)[4:], "little")
    return (
        promised + 8 > os.path.getsize(path) and promised < 2**32 - 64
    )  # of a recording in progress, it is 2**32 - 1


def _timing(stream: av.stream.Stream, entries: Sequence[Entry], family: str) -> Timing:
    if stream.type != "video":
        return "pts"
    context = cast(av.VideoCodecContext, stream.codec_context)
    stamps = [entry.pts for entry in entries if entry.is_shown]
    known = [stamp for stamp in stamps if stamp is not None]
    reordered = context.has_b_frames or context.name in ("h264", "hevc")
    # These containers keep no times of presentation, or not always: FFmpeg makes them up from the first frames.
    guessed = reordered and (
        family == "avi" or (family == "mxf" and (known == sorted(known) or context.name in ("h264", "hevc")))
    )
    if guessed or not known:
        return "order" if reordered else "dts"
    # What is decoded before a key frame is shown before it.
    shown = (entry for entry in entries if entry.is_shown)
    latest = itertools.accumulate(known, max)
    sane = len(set(known)) == len(stamps) and all(e.pts == t for e, t in zip(shown, latest, strict=True) if e.is_key)
    return "pts" if sane else "repaired"


def _in_order(entries: Sequence[Entry], delay: int) -> list[Entry]:
    """Entries in the order of presentation: each is shown when the packet `delay` later is decoded."""
    stamps = [place * entry.duration if entry.dts is None else entry.dts for place, entry in enumerate(entries)]
    step = statistics.median_low([b - a for a, b in itertools.pairwise(stamps)] or [entries[0].duration])
    stamps = [*stamps[delay:], *(stamps[-1] + step for _ in range(delay))] if entries else []
    return [entry._replace(pts=stamp, dts=stamp, duration=step) for entry, stamp in zip(entries, stamps, strict=True)]


def _repaired(entries: Sequence[Entry], step: int) -> list[Entry]:
    """Entries whose times never go back: where they would, or are missing, a frame follows the one before."""
    following = min(entry.pts for entry in entries if entry.pts is not None)
    repaired: list[Entry] = []
    delay: int | None = None  # from decoding to presentation
    for entry in entries:
        stamp = following
        if entry.dts is not None:
            delay = following - entry.dts if delay is None else delay
            stamp = max(entry.dts + delay, following)
        repaired.append(entry._replace(pts=stamp, dts=stamp))
        following = stamp + (entry.duration or step)
    return repaired


def _stamp(entry: Entry, place: int, timing: str) -> int | None:
    """When the frame of a packet is shown; with timing "order", when one frame is."""
    if timing == "pts" or entry.pts is not None:
        return entry.pts
    return place * entry.duration if entry.dts is None else entry.dts


def _end(stream: av.stream.Stream, entries: Sequence[Entry], timing: str, family: str) -> float:
    """When the last of these frames ends, in seconds."""
    tick, shown = float(stream.time_base or 0), [entry for entry in entries if entry.is_shown]
    stamps = [_stamp(entry, place, timing) for place, entry in enumerate(shown)]
    known = {place: stamp for place, stamp in enumerate(stamps) if stamp is not None}
    if not known:
        return sum(entry.duration for entry in shown) * tick
    final = max(known, key=known.__getitem__)
    last, duration, latest = known[final], float(shown[final].duration), max(known)
    mean = (last - min(known.values())) / max(len(known) - 1, 1)
    if stream.type == "video" and family == "mov" and final < latest:
        # Here the durations are the distances of decoding times, and say nothing of a frame that is decoded early.
        stated = (stream.start_time or 0) + (stream.duration or 0) - last
        duration = stated if 0 < stated <= max(entry.duration for entry in shown) else mean
    elif stream.type == "video":
        duration = duration or mean
    without = sum(entry.duration for entry in shown[latest + 1 :])  # these come after it, and do not say when
    return (last + duration + without) * tick


def _can_seek(container: av.container.InputContainer, stream: av.stream.Stream, first: Entry) -> bool:
    try:
        container.seek(first.pts or 0 if first.dts is None else first.dts, stream=stream)
    except (av.FFmpegError, OverflowError):
        return False
    return True


class _Scan(NamedTuple):
    """Packets of a stream, how far any stream was seen to reach, in seconds, and whether its times began anew."""

    entries: list[Entry]
    reach: float
    joined: bool


def _scan(
    container: av.container.InputContainer,
    stream: av.stream.Stream,
    family: str,
    budget: Budget,
    limit: int | None = None,
) -> _Scan:
    """The stream's next packets, at most `limit`."""
    entries: list[Entry] = []
    clocks: defaultdict[int, Clock] = defaultdict(lambda: _clock(family))
    ticks: dict[int, float] = {}  # PyAV makes a new fraction of each packet's
    reach = 0.0
    packets = container.demux()
    while limit is None or len(entries) < limit:
        budget.check_time()
        try:
            packet = _next(packets)
        except av.FFmpegError:
            break
        if packet is None:
            break
        index = packet.stream.index
        tick = ticks[index] = ticks.get(index) or float(packet.time_base or 0)
        if packet.size == 0 or not tick or _is_header(packet):
            continue
        if family in _JOINABLE or (family == "matroska" and packet.stream.type == "audio"):
            clocks[index].set(packet)
        stamp = packet.dts if packet.pts is None else packet.pts
        duration = packet.duration or 0
        if index == stream.index:
            shown = not packet.is_discard
            entries.append(Entry(packet.pts, packet.dts, duration, packet.size, packet.is_keyframe, shown))
            stamp = len(entries) * duration if stamp is None else stamp
        if not packet.is_discard:
            reach = max(reach, ((stamp or 0) + duration) * tick)
    return _Scan(entries, reach, clocks[stream.index].joined)


def _scan_the_end(
    container: av.container.InputContainer, stream: av.stream.Stream, family: str, budget: Budget
) -> _Scan:
    """The stream's packets from its last key frame on; none where the end cannot be reached."""
    try:
        container.seek(BEYOND_THE_END, stream=stream)
    except av.FFmpegError:
        return _Scan([], 0.0, False)
    return _scan(container, stream, family, budget)


class Clock:
    """Lets the times of joined files go on where they begin anew, by the limits of FFmpeg's programs."""

    def __init__(self, longest_pause: float = 10) -> None:
        self.offset, self.joined = 0, False
        self.following: int | None = None
        self.longest_pause = longest_pause

    def set(self, packet: av.Packet) -> None:
        """Shifts a packet's times; to be given every packet of one stream, from the first on."""
        stamp = packet.pts if packet.dts is None else packet.dts
        if stamp is None:
            return
        if self.following is not None:
            jump = (stamp + self.offset - self.following) * float(packet.time_base)
            if not -0.1 <= jump <= self.longest_pause:
                self.offset, self.joined = self.following - stamp, True
        if self.offset:
            packet.pts = None if packet.pts is None else packet.pts + self.offset
            packet.dts = None if packet.dts is None else packet.dts + self.offset
        self.following = stamp + self.offset + (packet.duration or 0)


def _clock(family: str) -> Clock:
    return Clock(10 if family in _JOINABLE else math.inf)


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


def _is_header(packet: av.Packet) -> bool:
    """Whether a packet is one of Theora's headers, with which a file begins that is appended to another."""
    context = packet.stream.codec_context
    return context is not None and context.name == "theora" and bytes(packet)[0] >= 128


class Decoder:
    """Decodes one stream of a container from where it stands; damage is passed over and kept in `damage`."""

    def __init__(self, container: av.container.InputContainer, track: Track, threads: int = 1):
        self.threads = (
            threads  # one, as with other backends: data is loaded by one process per core; 0: FFmpeg's choice
        )
        self.track, self.time_base = track, float(container.streams[track.index].time_base or 0)
        self.budget = budget_of(track.path, track.name)
        self.damage: str | None = None
        self.use(container)

    def use(self, container: av.container.InputContainer) -> None:
        """Goes on with another opening of the same file."""
        self.container = container
        self.stream: Any = container.streams[self.track.index]  # of video or sound
        context = self.stream.codec_context
        if not context.is_open:
            context.thread_count = self.threads
            context.thread_type = "SLICE" if self.threads == 1 else "AUTO"
        if self.stream.type == "audio":
            channel_count(cast(av.AudioCodecContext, context))

    def seek(self, stamp: int) -> bool:
        """Goes to a key frame, mostly the last one before the time stamp; whether that was possible."""
        try:
            with self.budget.charged():
                self.container.seek(stamp, stream=self.stream)
        except (av.FFmpegError, OverflowError):
            return False
        return True

    def packets(self) -> Iterator[av.Packet]:
        """The stream's packets; damaged ones are passed over."""
        packets, clock = self.container.demux(self.stream), _clock(self.track.family)
        while True:
            try:
                packet = _next(packets)
            except av.EOFError:
                continue
            except av.FFmpegError as error:
                self.damage = reason(error)
                continue
            if packet is None:
                return
            if packet.size and not _is_header(packet):
                if self.track.joined:
                    clock.set(packet)
                if self.track.timing == "dts":
                    packet.pts = packet.dts
                yield packet

    def frames(self, packets: Iterator[av.Packet] | None = None) -> Iterator[av.VideoFrame | av.AudioFrame]:
        """Frames in the order of presentation."""
        whole = False
        for packet in itertools.chain(self.packets() if packets is None else packets, [None]):
            try:
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
