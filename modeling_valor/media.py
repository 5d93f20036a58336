# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Files to frames and waveforms: sources, backends, fallbacks and one exception type, `MediaError`.

Every source becomes the path of a local file, every file is first surveyed with PyAV (its packets, nothing decoded),
and the survey fixes *when* the wanted frames are shown. A backend has only to return what is on the screen at those
moments, so all of them give the same frames whatever the container says or hides.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import inspect
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

import av
import numpy as np
import torch
from PIL import Image, ImageOps


MediaSource: TypeAlias = str | os.PathLike | bytes | BinaryIO

# What a picture may measure: 8K video is 33 million pixels, a large camera's photograph 180 million.
MAX_VIDEO_PIXELS = 2**26
MAX_IMAGE_PIXELS = 2**28

# The containers that may be opened, by FFmpeg's names. Playlists (hls, concat, dash, sdp) and image sequences are not
# among them: they are files that make the reader open other files or addresses.
_CONTAINERS = (
    "mov,matroska,webm,avi,flv,mpegts,mpeg,asf,ogg,wav,w64,mp3,aac,flac,aiff,au,amr,caf,ac3,eac3,mxf,nut,ivf,h264,hevc,m4v,"
    "mpegvideo,obu,dv,rm,wv,tta,ape,yuv4mpegpipe"
)
_IMAGE_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}
_INDEXED = ("mov", "matroska", "avi")  # the containers that list their key frames
_BEYOND_THE_END = 2**48  # a time stamp after any track's last, in any time base


class MediaError(ValueError):
    """A file that cannot be used: one sentence that names it and says why."""


class NoVideoError(MediaError):
    """A sound file given as a video; `read_audio` may still read it."""


@dataclass
class VideoFrames:
    """The chosen frames of one video, image or folder of frames.

    `frames` is uint8 RGB of shape (F, 3, H, W), upright. `timestamps` are the frames' times in seconds from the first
    frame. `indices` are frame numbers where the rate is constant; otherwise steps of a grid that cuts the video into
    as many equal time steps as it has frames. `duration` is in seconds, `backend` names the reader, and `decoded` says
    how many frames it decoded to get these, where it can tell.
    """

    frames: torch.Tensor
    timestamps: list[float]
    indices: list[int]
    duration: float
    backend: str
    decoded: int | None = None


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
# Sources
# ---------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_source(
    source: MediaSource, *, timeout: float = 30.0, max_bytes: int = 2 * 1024**3, max_seconds: float = 600.0
) -> Iterator[str]:
    """Gives the absolute path of a local file (or folder) that holds `source`, for the time of a `with` block.

    A path is given as it is. An http(s) URL, bytes and file objects go to a temporary file, so a URL that serves frames
    and sound is best opened once, around both reads. A file object is read from its beginning where it can seek.

    Args:
        timeout (`float`): seconds to wait for a connection and for each piece of a download.
        max_bytes (`int`): the largest download or file object that is accepted.
        max_seconds (`float`): the longest download.

    Raises:
        MediaError: nothing at that path or URL, another scheme than http(s), or a limit is passed.
    """
    name = _name(source)
    if isinstance(source, (str, os.PathLike)) and not _is_url(name):
        if not os.path.exists(source):
            raise MediaError(f"{name} does not exist.")
        if not (os.path.isfile(source) or os.path.isdir(source)):
            raise MediaError(f"{name} is neither a file nor a folder.")
        yield os.path.abspath(os.fspath(source))
        return
    if isinstance(source, str):
        chunks = _download(source, timeout)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        chunks = iter([source])
    elif hasattr(source, "read"):
        if hasattr(source, "seekable") and source.seekable():
            source.seek(0)
        chunks = iter(lambda: source.read(2**20), b"")
    else:
        raise MediaError(f"{name} is not a path, a URL, bytes or a binary file object.")

    folder = tempfile.mkdtemp(prefix="valor-media-")
    try:
        path = os.path.join(folder, "media")
        deadline, size = time.monotonic() + max_seconds, 0
        with open(path, "wb") as file:
            for chunk in chunks:
                size += len(chunk)
                if size > max_bytes:
                    raise MediaError(f"{name} is larger than the limit of {max_bytes} bytes.")
                if time.monotonic() > deadline:
                    raise MediaError(f"{name} took longer than the limit of {max_seconds:g} seconds.")
                file.write(chunk)
        yield path
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _name(source: MediaSource) -> str:
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "<bytes>"
    return str(getattr(source, "name", f"<{type(source).__name__}>"))


def _is_url(name: str) -> bool:
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", name) is not None


def _download(url: str, timeout: float) -> Iterator[bytes]:
    if url.split(":", 1)[0].lower() not in ("http", "https"):
        raise MediaError(f"{url} cannot be fetched: only http and https addresses are.")
    try:
        from huggingface_hub.utils import httpx
    except ImportError:
        import httpx
    try:
        # A redirection to another scheme than http(s) is an error of httpx.
        with httpx.stream("GET", url, follow_redirects=True, timeout=timeout) as response:
            response.raise_for_status()
            yield from response.iter_bytes()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise MediaError(f"{url} could not be fetched: {_reason(error)}.") from error


def _reason(error: BaseException) -> str:
    """An exception's message as part of a sentence."""
    text = getattr(error, "strerror", None) or str(error).strip().split("\n")[0] or type(error).__name__
    return text.rstrip(".")


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
    if sampling not in ("center", "random"):
        raise ValueError(f'sampling is {sampling!r}, but must be "center" or "random".')
    if num_available <= num_wanted:
        return [min(index, num_available - 1) for index in range(num_wanted)]
    length, longer = divmod(num_available, num_wanted)
    indices, start = [], 0
    for segment in range(num_wanted):
        size = length + (segment < longer)
        chosen = (size + 1) // 2 - 1
        if sampling == "random":
            chosen = int(torch.randint(size, (1,), generator=generator))
        indices.append(start + chosen)
        start += size
    return indices


def list_frame_files(folder: str | os.PathLike) -> list[Path]:
    """The image files of a folder of extracted frames, in natural order (frame_2 before frame_10).

    Raises:
        MediaError: the folder holds no image files.
    """
    files = [path for path in Path(folder).iterdir() if path.suffix.lower() in _IMAGE_SUFFIXES]
    if not files:
        raise MediaError(f"{folder} holds no image files.")
    return sorted(files, key=lambda path: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)])


# ---------------------------------------------------------------------------------------------------------------------
# Images
# ---------------------------------------------------------------------------------------------------------------------


def read_image(source: MediaSource) -> torch.Tensor:
    """A still image as uint8 RGB (3, H, W), upright by its EXIF orientation; the first frame of an animated one.

    Transparency is dropped, as `PIL.Image.convert("RGB")` does.

    Raises:
        MediaError: not an image, a truncated one, or one of more than `MAX_IMAGE_PIXELS`, which is not decoded.
    """
    name = _name(source)
    with open_source(source) as path:
        image = _open_image(path, name)
        if image is None:
            raise MediaError(f"{name} is {'empty' if _is_empty(path) else 'not an image that can be read'}.")
        with image:
            return _image_tensor(image, name)


def _open_image(path: str, name: str) -> Image.Image | None:
    """The image at `path`, its header read; None for a file of another kind."""
    if os.path.isdir(path):
        return None
    try:
        image = Image.open(path, formats=_IMAGE_FORMATS)
    except Image.UnidentifiedImageError:
        return None
    except Exception as error:
        raise MediaError(f"{name} is not an image that can be read: {_reason(error)}.") from error
    if image.width * image.height > MAX_IMAGE_PIXELS:
        image.close()
        raise MediaError(f"{name} measures {image.width} x {image.height}, over the limit of {MAX_IMAGE_PIXELS} pixels.")
    return image


def _image_tensor(image: Image.Image, name: str) -> torch.Tensor:
    try:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    except Exception as error:  # PIL's decoders raise whatever a broken file leads them to
        raise MediaError(f"{name} is a damaged image: {_reason(error)}.") from error
    return torch.from_numpy(np.array(upright)).permute(2, 0, 1)


def _is_empty(path: str) -> bool:
    return os.path.isfile(path) and os.path.getsize(path) == 0


def _read_image_frames(image: Image.Image, num_frames: int, name: str, choose: Callable) -> VideoFrames:
    """A still image as one frame; an animation (GIF, WebP, PNG) as a video, sampled by frame number."""
    try:
        animated = image.format in ("GIF", "WEBP", "PNG") and getattr(image, "n_frames", 1) > 1
        step = image.info.get("duration", 0) / 1000 or 0.1
        indices = choose(image.n_frames, num_frames) if animated else [0]
        frames = {}
        for index in sorted(set(indices)):
            image.seek(index)
            frames[index] = _image_tensor(image, name)
    except MediaError:
        raise
    except Exception as error:
        raise MediaError(f"{name} is a damaged image: {_reason(error)}.") from error
    return VideoFrames(
        frames=torch.stack([frames[index] for index in indices]),
        timestamps=[index * step for index in indices],
        indices=indices,
        duration=image.n_frames * step if animated else 0.0,
        backend="pillow",
        decoded=len(frames),
    )


def _read_folder(folder: str, num_frames: int, choose: Callable) -> VideoFrames:
    """Frames out of a folder of extracted ones; only the chosen files are opened."""
    files = list_frame_files(folder)
    indices = choose(len(files), num_frames)
    frames = {index: read_image(files[index]) for index in sorted(set(indices))}
    if len({frame.shape for frame in frames.values()}) > 1:
        raise MediaError(f"{folder} holds frames of different sizes.")
    return VideoFrames(
        frames=torch.stack([frames[index] for index in indices]),
        timestamps=[float(index) for index in indices],
        indices=indices,
        duration=float(len(files)),
        backend="pillow",
        decoded=len(frames),
    )


# ---------------------------------------------------------------------------------------------------------------------
# Containers
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Track:
    """One stream of a file and where it lies in time, as its packets say: seconds of the stream's own clock."""

    path: str
    name: str
    index: int
    start: float
    end: float
    num_frames: int  # the frames that fit at the mean rate: the number of frames, where the rate is constant
    stamps: tuple[float, ...]  # the time of every packet, where the survey passed them all
    seekable: bool
    truncated: bool
    regular: bool  # every backend reads the same times from it
    alone: bool  # the only one of its kind

    @property
    def short(self) -> bool:
        """Whether passing all of the file's packets costs less than decoding a few of its frames."""
        return self.num_frames <= 10_000 and os.path.getsize(self.path) <= 2**26

    @property
    def step(self) -> float:
        return max(self.end - self.start, 1e-6) / self.num_frames


@contextlib.contextmanager
def _open(path: str, name: str) -> Iterator[av.container.InputContainer]:
    if os.path.isdir(path):
        raise MediaError(f"{name} is a folder, not a video or sound file.")
    if _is_empty(path):
        raise MediaError(f"{name} is empty.")
    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file", "max_pixels": str(MAX_VIDEO_PIXELS)}
    try:
        container = av.open(path, options=options, timeout=5.0)
    except Exception as error:
        reason = "it is of a kind that is not accepted" if isinstance(error, av.ArgumentError) else _reason(error)
        raise MediaError(f"{name} is not a video or sound file that can be read: {reason}.") from error
    with container:
        yield container


def _best_stream(container: av.container.InputContainer, kind: str) -> av.stream.Stream | None:
    """FFmpeg's choice among the streams of a kind, cover pictures aside; None where there is none."""
    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in getattr(container.streams, kind) if not stream.disposition & cover]
    best = container.streams.best(kind)
    return best if best in streams else next(iter(streams), None)


def _survey(container: av.container.InputContainer, stream: av.stream.Stream, path: str, name: str, head: int) -> _Track:
    """Where a stream begins and ends, from its first `head` packets and those after its last key frame.

    What the container says of duration and frame count is often missing (Matroska, fragments) or a lie (truncation).
    Where the end cannot be reached by seeking, all packets are passed; in no case is anything decoded.
    """
    family = container.format.name.split(",")[0]
    first, reach = _scan(container, stream, head)
    last, complete = first, len(first) < head
    seekable = not complete
    if seekable:
        try:
            container.seek(_BEYOND_THE_END, stream=stream)
            last, reach = _scan(container, stream)
            if last and family not in _INDEXED:  # seeking ended at some packet, not at a key frame: take a few more
                container.seek(int((last[0][0] - 3.0) / stream.time_base), stream=stream)
                last, reach = _scan(container, stream)
        except av.FFmpegError:
            seekable, last = False, []
        if not last:
            with _open(path, name) as again:
                first, reach = _scan(again, again.streams[stream.index])
            last, complete = first, True
    if not last:
        raise MediaError(f"{name} has a {stream.type} track, but nothing in it.")

    start = min(begin for begin, _ in first)
    if stream.start_time is not None:
        start = max(start, float(stream.start_time * stream.time_base))
    end = max(max(finish for _, finish in last), start)
    rate = getattr(stream, "average_rate", None) or 25
    # Only these say how long they are; in others the duration is an estimate.
    stated = container.duration if family in ("mov", "matroska", "avi", "wav", "flac") else None
    promised = ((container.start_time or 0) + (stated or 0)) / 1e6
    truncated = promised - reach > max(0.5, 0.02 * promised)
    return _Track(
        path=path,
        name=name,
        index=stream.index,
        start=start,
        end=end,
        num_frames=max(len(first) if complete else round((end - start) * rate), 1),
        stamps=tuple(sorted(begin for begin, _ in first)) if complete else (),
        seekable=seekable,
        truncated=truncated,
        regular=family in ("mov", "matroska") and not truncated,
        alone=len(getattr(container.streams, stream.type)) == 1,
    )


def _scan(
    container: av.container.InputContainer, stream: av.stream.Stream, limit: int | None = None
) -> tuple[list[tuple[float, float]], float]:
    """Begin and end of the stream's next packets (`limit` at most), and how far any stream was seen to reach, in seconds."""
    spans, reach = [], 0.0
    packets = container.demux()
    while limit is None or len(spans) < limit:
        try:
            packet = next(packets, None)
        except av.FFmpegError:
            break
        if packet is None:
            break
        if packet.size == 0 or packet.is_discard or packet.time_base is None:
            continue
        stamp = packet.dts if packet.pts is None else packet.pts
        duration = float((packet.duration or 0) * packet.time_base)
        begin = len(spans) * duration if stamp is None else float(stamp * packet.time_base)
        reach = max(reach, begin + duration)
        if packet.stream.index == stream.index:
            spans.append((begin, begin + duration))
    return spans, reach


# ---------------------------------------------------------------------------------------------------------------------
# Video backends: (track, moments in ascending order) -> (frames, their times, frames decoded or None)
# ---------------------------------------------------------------------------------------------------------------------

_Reading: TypeAlias = tuple[list[torch.Tensor], list[float], int | None]


class _Damaged(Exception):
    """A backend met damage that it cannot report; PyAV can."""


class _Cursor:
    """Walks a video stream in display order: seeks to key frames, decodes forward, survives damage, counts its work."""

    def __init__(self, container: av.container.InputContainer, track: _Track):
        self.container, self.track = container, track
        self.stream = container.streams[track.index]
        self.stream.codec_context.thread_count = 1  # as the other backends: data is loaded by one process per core
        self.stream.codec_context.options = {"max_pixels": str(MAX_VIDEO_PIXELS)}
        self.indexed = container.format.name.split(",")[0] in _INDEXED
        self.frames: Iterator[tuple[float, av.VideoFrame]] | None = None
        self.shown = self.coming = None
        self.decoded = 0
        self.damage: Exception | None = None
        if track.seekable:  # loads the index of key frames, which Matroska keeps at the end
            container.seek(_BEYOND_THE_END, stream=self.stream)

    def at(self, seconds: float) -> tuple[float, av.VideoFrame] | None:
        """The frame on the screen at a moment, with its time; the nearest one where damage left none; None without any."""
        if self.frames is None or (self.track.seekable and self._is_beyond_key_frame(seconds)):
            self._seek(seconds)
        while self.coming is not None and self.coming[0] <= seconds:
            self.shown, self.coming = self.coming, next(self.frames, None)
        return self.shown or self.coming

    def _seek(self, seconds: float) -> None:
        """Goes to a key frame at or before a moment; some containers seek late, so it looks further back until it is."""
        back = 0.0
        while True:
            if self.track.seekable:
                self.container.seek(int((seconds - back) / self.stream.time_base), stream=self.stream)
            self.frames = self._decode()
            self.shown, self.coming = None, next(self.frames, None)
            early = self.coming is not None and self.coming[0] <= seconds
            if early or seconds - back <= self.track.start or not self.track.seekable:
                return
            back = 4 * back + 1

    def _is_beyond_key_frame(self, seconds: float) -> bool:
        """Whether seeking spares decoding: there is a key frame between here and that moment."""
        here = (self.shown or self.coming or (self.track.start,))[0]
        if not self.indexed:
            return seconds - here > 5.0
        entries = self.stream.index_entries
        return entries.search_timestamp(int(here / self.stream.time_base)) != entries.search_timestamp(
            int(seconds / self.stream.time_base)
        )

    def _decode(self) -> Iterator[tuple[float, av.VideoFrame]]:
        packets = self.container.demux(self.stream)
        packet, seconds, step, whole = True, None, self.track.step, False
        while packet is not None:
            try:
                packet = next(packets, None)
                if packet is not None and packet.size == 0:
                    continue
                frames = self.stream.codec_context.decode(packet)  # of None: what the decoder still holds
            except av.EOFError:
                continue
            except av.FFmpegError as error:
                self.damage = error
                continue
            for frame in frames:
                self.decoded += 1
                # After a seek, frames that lack their references come first and are no damage.
                if frame.is_corrupt and not whole:
                    continue
                if frame.is_corrupt:
                    self.damage = "frames are corrupt"
                whole = True
                # AVI has no presentation times; of a raw stream's frames only the order is known.
                stamp = frame.dts if self.container.format.name == "avi" else frame.pts
                if stamp is not None:
                    seconds = float(stamp * self.stream.time_base)
                else:
                    seconds = self.track.start if seconds is None else seconds + step
                yield seconds, frame


def _read_pyav(track: _Track, moments: Sequence[float]) -> _Reading:
    frames, times, size = [], [], None
    with _open(track.path, track.name) as container:
        cursor = _Cursor(container, track)
        for moment in moments:
            found = cursor.at(moment)
            if found is None:
                raise MediaError(f"no frame could be decoded: {_reason(cursor.damage or EOFError('no data'))}")
            seconds, frame = found
            if not times or times[-1] != seconds:
                size = size or (frame.width, frame.height)
                # "POINT" repeats chroma as swscale's fast paths for 8 bits do, so that 10 bits look the same.
                pixels = torch.from_numpy(frame.reformat(*size, "rgb24", interpolation="POINT").to_ndarray())
                picture = pixels.rot90(round(frame.rotation / 90)).permute(2, 0, 1)
            frames.append(picture)
            times.append(seconds)
        if cursor.damage is not None:
            _warn(track.name, f"is damaged ({_reason(cursor.damage)})")
    return frames, times, cursor.decoded


def _read_torchcodec(track: _Track, moments: Sequence[float]) -> _Reading:
    import torchcodec

    if getattr(torchcodec, "ffmpeg_major_version", "unknown") is None:
        raise ImportError("torchcodec finds no FFmpeg")
    # "exact" would pass all packets of the file first.
    decoder = torchcodec.decoders.VideoDecoder(track.path, stream_index=track.index, seek_mode="approximate")
    shown = [decoder.get_frame_played_at(moment) for moment in moments]
    if any(frame.pts_seconds > moment for frame, moment in zip(shown, moments, strict=True)):
        raise RuntimeError("torchcodec went past a frame")
    return [frame.data for frame in shown], [frame.pts_seconds for frame in shown], None


def _serve_decord() -> None:
    """The decord process: reads requests {"path", "moments"}, answers each frame with a JSON line and its pixels.

    Runs in an interpreter of its own, so it imports what it needs. Only frames and errors leave it: whatever decord and
    its FFmpeg print is damage that they cannot report otherwise.
    """
    import contextlib
    import json
    import os
    import sys
    import tempfile

    answers = os.fdopen(os.dup(1), "wb")
    complaints = tempfile.TemporaryFile()
    os.dup2(complaints.fileno(), 1)
    os.dup2(complaints.fileno(), 2)
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def answer(pixels: bytes = b"", **header) -> None:
        answers.write(json.dumps(header).encode() + b"\n" + pixels)
        answers.flush()

    import decord
    import numpy as np

    decord.logging.set_level(decord.logging.ERROR)
    answer(ready=True)
    for line in sys.stdin:
        request = json.loads(line)
        os.lseek(2, 0, os.SEEK_SET)
        os.ftruncate(2, 0)
        try:
            reader = decord.VideoReader(request["path"], num_threads=1)
            stamps = reader.get_frame_timestamp(list(range(len(reader))))[:, 0].astype(float)
            if abs(stamps[0]) > 1e-3 or (np.diff(stamps) <= 0).any():
                raise ValueError("decord reads no usable time stamps")
            for moment in request["moments"]:
                index = max(int(np.searchsorted(stamps, moment, side="right")) - 1, 0)
                picture = reader[index].asnumpy()
                if os.fstat(2).st_size:
                    raise ValueError("decord met damaged frames")
                answer(picture.tobytes(), shape=picture.shape, seconds=stamps[index])
            del reader
        except Exception as error:
            answer(error=str(error), damaged=os.fstat(2).st_size > 0)


class _DecordProcess:
    """decord in a process of its own, started at the first use and again after a death.

    decord's FFmpeg is of 2018 and the project is no longer kept: one in some hundred corrupted files aborts it, and it
    cannot be stopped when it hangs. In a process of its own that costs a restart, a time limit and a memory limit hold,
    and its libraries do not meet PyAV's and torchcodec's. Opening a file with it means passing all of its packets, so
    only short files are given to it; frames come back through a pipe, which costs less than decoding them.
    """

    seconds_to_start, seconds_per_frame = 20.0, 3.0

    def __init__(self):
        self.lock = threading.Lock()
        self.process: subprocess.Popen | None = None
        self.usable = importlib.util.find_spec("decord") is not None

    def __call__(self, track: _Track, moments: Sequence[float]) -> _Reading:
        if not self.usable:
            raise ImportError("decord is not installed or does not load")
        with self.lock:
            try:
                if self.process is None:
                    self._start()
                request = {"path": track.path, "moments": [moment - track.start for moment in moments]}
                self.process.stdin.write(json.dumps(request).encode() + b"\n")
                self.process.stdin.flush()
                frames, times = [], []
                for _ in moments:
                    header, pixels = self._answer(self.seconds_per_frame)
                    if "error" in header:
                        raise (_Damaged if header["damaged"] else RuntimeError)(header["error"])
                    frames.append(torch.frombuffer(pixels, dtype=torch.uint8).view(header["shape"]).permute(2, 0, 1))
                    times.append(track.start + header["seconds"])
            except (OSError, EOFError, ValueError) as error:
                self.stop()
                raise _Damaged("decord died or took too long") from error
        return frames, times, None

    def _start(self) -> None:
        program = f"{inspect.getsource(_serve_decord)}\n_serve_decord()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            self._answer(self.seconds_to_start)
        except EOFError:
            self.usable = False
            raise

    def _answer(self, seconds: float) -> tuple[dict, bytearray]:
        """One JSON line and the pixels that it announces; the process is ended when they take longer than `seconds`."""
        watch = threading.Timer(seconds, self.process.kill)
        watch.start()
        try:
            line = self.process.stdout.readline()
            if not line.endswith(b"\n"):
                raise EOFError
            header = json.loads(line)
            pixels = bytearray(math.prod(header.get("shape", (0,))))
            if self.process.stdout.readinto(pixels) != len(pixels):
                raise EOFError
            return header, pixels
        finally:
            watch.cancel()

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


_read_decord = _DecordProcess()
atexit.register(_read_decord.stop)
if hasattr(os, "register_at_fork"):  # the workers of a data loader have their own
    os.register_at_fork(after_in_child=_read_decord.__init__)

_BACKENDS = {"decord": _read_decord, "torchcodec": _read_torchcodec, "pyav": _read_pyav}


def read_frames(
    source: MediaSource,
    num_frames: int,
    *,
    sampling: str = "center",
    generator: torch.Generator | None = None,
    backend: str | None = None,
) -> VideoFrames:
    """`num_frames` frames of a video, from the centres of equal segments of its time or at random within them.

    For a constant frame rate the frames are those of `segment_indices`. A still image gives one frame; a folder of
    extracted frames and an animated image are sampled by number. Frames are upright by the video's rotation metadata.
    Only what lies between the key frame before a wanted frame and that frame is decoded, so the cost does not grow with
    the length of the video. A video that can be read only in part is used as far as it goes, with one warning.

    Args:
        sampling (`str`): "center" or "random", the latter with `generator` or torch's own random numbers.
        backend (`str`, *optional*):
            "decord", "torchcodec" or "pyav": the one to try first (decord by default). The others take over where it is
            absent or fails, and where it cannot be trusted: damaged files, several video tracks (decord), containers
            other than mp4 and Matroska (decord, torchcodec).

    Raises:
        NoVideoError: the file holds sound only.
        MediaError: the file cannot be read or no frame of it decoded.
    """
    if backend is not None and backend not in _BACKENDS:
        raise ValueError(f"backend is {backend!r}, but must be one of {', '.join(_BACKENDS)}.")
    if num_frames < 1:
        raise ValueError(f"num_frames is {num_frames}, but must be at least 1.")
    name = _name(source)

    def choose(available: int, wanted: int) -> list[int]:
        return segment_indices(available, wanted, sampling, generator)

    with open_source(source) as path:
        if os.path.isdir(path):
            return _read_folder(path, num_frames, choose)
        image = _open_image(path, name)
        if image is not None:
            with image:
                return _read_image_frames(image, num_frames, name, choose)
        with _open(path, name) as container:
            stream = _best_stream(container, "video")
            if stream is None:
                kinds = {stream.type for stream in container.streams} & {"audio"}
                raise NoVideoError(f"{name} has no video track ({'only sound' if kinds else 'and no sound either'}).")
            pixels = stream.width * stream.height
            if pixels > MAX_VIDEO_PIXELS:
                raise MediaError(f"{name} measures {stream.width} x {stream.height}, over the limit of {MAX_VIDEO_PIXELS} pixels.")
            track = _survey(container, stream, path, name, head=num_frames + 32)

        indices = choose(track.num_frames, num_frames)
        if len(track.stamps) == track.num_frames <= num_frames:  # every frame is wanted: each at its own time
            ends = [*track.stamps[1:], max(track.end, track.stamps[-1])]
            grid = [(begin + end) / 2 for begin, end in zip(track.stamps, ends, strict=True)]
            moments = {index: grid[index] for index in indices}
        else:
            moments = {index: track.start + (index + 0.5) * track.step for index in indices}
        frames, times, decoded, reader = _read_with_backends(track, list(moments.values()), backend)
        if track.truncated:
            _warn(name, "ends early")
    position = {index: place for place, index in enumerate(moments)}
    return VideoFrames(
        frames=torch.stack([frames[position[index]] for index in indices]),
        timestamps=[times[position[index]] - track.start for index in indices],
        indices=indices,
        duration=track.end - track.start,
        backend=reader,
        decoded=decoded,
    )


def _read_with_backends(track: _Track, moments: list[float], first: str | None) -> tuple[list, list, int | None, str]:
    """The first backend that succeeds, out of those that the file suits; PyAV, which suits every file, is the last."""
    names = sorted(_BACKENDS, key=lambda name: name != first)
    if not track.regular:
        names = ["pyav"]
    elif not track.alone or (first != "decord" and not track.short):
        names.remove("decord")
    reasons = []
    while names:
        name = names.pop(0)
        try:
            return *_BACKENDS[name](track, moments), name
        except _Damaged as error:
            names = [name for name in names if name == "pyav"]
            reasons.append(error)
        except Exception as error:
            reasons.append(error)
    raise MediaError(f"{track.name} cannot be decoded: {_reason(reasons[-1])}.") from reasons[-1]


def _warn(name: str, what: str) -> None:
    warnings.warn(f"{name} {what}; it is used as far as it goes.", stacklevel=3)
