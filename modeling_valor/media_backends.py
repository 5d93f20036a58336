# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Containers and their decoders: where a track lies in time, and the frames and samples of given moments.

A file is first surveyed with PyAV (its packets; nothing is decoded), which fixes *when* the wanted frames are shown. A
backend has only to return what is on the screen at those moments, so that all of them give the same frames, whatever
the container says or hides. All times are seconds of the stream's own clock.
"""

import contextlib
import ctypes
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import av
import numpy as np
import torch
from av.audio.plane import AudioPlane

from .media_decord import DecordDamaged, decord


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


class MediaError(ValueError):
    """A file that cannot be used: one sentence that names it and says why."""


class NoVideoError(MediaError):
    """A sound file given as a video; `read_audio` may still read it."""


def reason(error: BaseException) -> str:
    """An exception's message as part of a sentence."""
    text = getattr(error, "strerror", None) or str(error).strip().split("\n")[0] or type(error).__name__
    return text.rstrip(".")


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
    """A video or sound file, its header read, with no way from its contents to other files or to the network."""
    if os.path.isdir(path):
        raise MediaError(f"{name} is a folder, not a video or sound file.")
    if os.path.getsize(path) == 0:
        raise MediaError(f"{name} is empty.")
    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file", "max_pixels": str(MAX_VIDEO_PIXELS)}
    try:
        container = av.open(path, options=options, timeout=5.0)
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


# ---------------------------------------------------------------------------------------------------------------------
# Video
# ---------------------------------------------------------------------------------------------------------------------


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


# ---------------------------------------------------------------------------------------------------------------------
# Sound
# ---------------------------------------------------------------------------------------------------------------------


def read_samples(track: Track, windows: Sequence[tuple[float, float]]) -> tuple[list[np.ndarray], int, str | None]:
    """Mono samples of each window, (begin, end) in seconds from the track's first sample; the rate; what is damaged.

    The samples of a window are those of the whole track, but in containers that round times to milliseconds (Matroska,
    flv) they may be a millisecond early or late.
    """
    if not track.seekable and len(windows) > 1:  # it is short, or cannot be read but as a whole
        (whole,), rate, damage = read_samples(track, [(0.0, max(end for _, end in windows))])
        return [whole[round(begin * rate) : round(end * rate)] for begin, end in windows], rate, damage
    pieces, damage, run_up = [], None, 0.5
    for begin, end in windows:
        piece = None
        while piece is None:
            # Opened anew for each: going back to the beginning, some containers leave out the codec's own run-up.
            with open_container(track.path, track.name) as container:
                decoder = Decoder(container, track)
                rate = decoder.stream.codec_context.sample_rate
                piece = (
                    _read_window(decoder, rate, begin, end, run_up) if begin < track.duration else np.zeros(0, "f4")
                )
                run_up *= 1 if piece is not None else 8
        pieces.append(piece)
        damage = damage or decoder.damage
    return pieces, rate, damage


def _read_window(decoder: Decoder, rate: int, begin: float, end: float, run_up: float) -> np.ndarray | None:
    """Samples from `begin` to `end` or the end of the track, decoding from `run_up` seconds earlier on.

    None if the container led to a point after the beginning.
    """
    track = decoder.track
    jump = track.seekable and begin > run_up
    if jump:
        decoder.seek(track.start + begin - run_up)
    first, last = round(begin * rate), math.inf if end == math.inf else round(end * rate)
    pieces, position = [], None
    for frame in decoder.frames():
        if frame.sample_rate != rate:
            decoder.damage = "its sampling rate changes"
            continue
        place = None if frame.pts is None else round((frame.pts * decoder.time_base - track.start) * rate)
        if position is None:
            position = place or 0
            if jump and position > first:
                return None
        # A gap is silence; smaller differences are rounded times, and others are wrong ones.
        elif place is not None and (not pieces or 0.05 * rate < place - position < 60 * rate):
            position = place
        samples = _mono(frame)
        keep = samples[max(first - position, 0) : max(min(last - position, len(samples)), 0)]
        if len(keep):
            if jump and not pieces:
                decoder.damage = None  # what fails right after a jump only lacks what came before it
            pieces.append((max(position - first, 0), keep))
        position += len(samples)
        if position >= last:
            break
    window = np.zeros(pieces[-1][0] + len(pieces[-1][1]) if pieces else 0, dtype=np.float32)
    for offset, samples in pieces:
        window[offset : offset + len(samples)] = samples
    return window


# Sample format -> NumPy's type and what stands for 1
_SAMPLES = {
    "u8": ("u1", 2**7),
    "s16": ("i2", 2**15),
    "s32": ("i4", 2**31),
    "s64": ("i8", 2**63),
    "flt": ("f4", 1),
    "dbl": ("f8", 1),
}


def _mono(frame: av.AudioFrame) -> np.ndarray:
    """The mean of the channels, float32 (N,), on the scale of -1 to 1."""
    kind, scale = _SAMPLES[frame.format.packed.name]
    channels = frame.layout.nb_channels
    if frame.format.is_planar:
        # Not `frame.planes`: PyAV 18 goes on beyond the last plane where there are eight or more.
        planes = [AudioPlane(frame, channel) for channel in range(channels)]
        samples = np.stack([np.frombuffer(plane, kind, frame.samples) for plane in planes])
    else:
        samples = np.frombuffer(AudioPlane(frame, 0), kind, frame.samples * channels).reshape(-1, channels).T
    return (samples.astype(np.float32) - (128 if kind == "u1" else 0)).mean(0) / scale
