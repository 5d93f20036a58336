# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The sound of a file: the waveform of its audio track, whole or in given windows of time."""

import contextlib
import functools
import math
import warnings
import wave
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import av
import numpy as np
import torch
from av.audio.plane import AudioPlane

from .media_container import Decoder, Track, open_container
from .media_limits import DamagedMediaWarning, MediaError
from .media_sources import LocalFile, MediaSource, open_source
from .media_tracks import AudioInfo, Clock, audio_track, file_clock, part_bounds


@dataclass
class Audio:
    """A mono waveform, float32 (N,), or a list of them, one for each window asked for.

    `sampling_rate` is the file's, in Hz; `duration` is that of the whole track, in seconds.
    """

    waveform: torch.Tensor | list[torch.Tensor]
    sampling_rate: int
    duration: float


def read_audio(
    source: MediaSource,
    *,
    windows: Sequence[tuple[float, float]] | None = None,
    max_seconds: float | None = None,
) -> Audio | None:
    """The audio track of a sound or video file as a mono waveform at its own rate; None where there is no track.

    Channels are averaged. Time counts from the first sample of the track, whenever the video starts, or of the part of
    it that the source names. With `windows`, (begin, end) pairs in seconds, `waveform` is a list with one piece for
    each, and little more than these parts is read. Past the end there are no samples: a piece may be shorter than its
    window, or empty. An image or a folder of frames has no audio track. A track that can be read only in part is used as
    far as it goes, with one [`DamagedMediaWarning`].

    Args:
        max_seconds (`float`, *optional*): without `windows`, where to stop.

    Raises:
        MediaError: the file cannot be read, or its audio track holds nothing that can be decoded.
    """
    wanted = [(0.0, np.inf if max_seconds is None else max_seconds)] if windows is None else windows
    with open_source(source) as path, _open_sound(path) as sound:
        if sound is None:
            return None
        pieces, damage = sound.read(
            [(sound.begin + begin, min(sound.begin + end, sound.end)) for begin, end in wanted]
        )
        if windows is None and not len(pieces[0]):
            why = "" if damage is None else f" ({damage})"
            raise MediaError(f"{path.name} has an audio track, but no sound could be decoded{why}.")
        warn_of_damage(path.name, damage, sound.truncated and sound.end == math.inf)
    waveforms = [torch.from_numpy(piece) for piece in pieces]
    return Audio(waveforms[0] if windows is None else waveforms, sound.rate, sound.duration)


def audio_info(source: MediaSource) -> AudioInfo | None:
    """Rate, duration and channels of the audio track, or of the part that the source names; None where there is none.

    Nothing is decoded.

    Raises:
        MediaError: the file cannot be read, or its audio track is empty.
    """
    with open_source(source) as path, _open_sound(path) as sound:
        return None if sound is None else AudioInfo(sound.rate, sound.duration, sound.channels)


def warn_of_damage(name: str, damage: str | None, truncated: bool) -> None:
    """Warns that a file ends early (its last packet is then damaged, too) or is damaged, where it does or is."""
    if damage or truncated:
        what = "ends early" if truncated else f"is damaged ({damage})"
        # At one place for frames and sound, so that Python shows the same sentence about a file once
        warnings.warn(f"{name} {what}; it is used as far as it goes.", DamagedMediaWarning, stacklevel=1)


def sound_bounds(begin: float, end: float, track: Clock, rate: int) -> tuple[float, float] | None:
    """What of an audio track lies between two moments, in seconds from its first sample; None for nothing.

    Both are whole numbers of samples; the end is infinite where that of the track is meant.
    """
    first, last = round((begin - track.start) * rate), round((end - track.start) * rate)
    length = round(track.duration * rate)
    if last <= max(first, 0) or first >= length:
        return None
    return max(first, 0) / rate, math.inf if last >= length else last / rate


@dataclass(frozen=True)
class _Sound:
    """The audio track of a file, of which `begin` to `end` are wanted, in seconds from its first sample."""

    rate: int
    channels: int
    begin: float
    end: float
    duration: float  # of what is wanted
    truncated: bool
    read: Callable[[Sequence[tuple[float, float]]], tuple[list[np.ndarray], str | None]]


@contextlib.contextmanager
def _open_sound(path: LocalFile) -> Iterator[_Sound | None]:
    """The sound of a file, or of the part of it that is wanted; None where there is none."""
    with contextlib.ExitStack() as stack:
        read: Any
        if (plain := _open_wave(path)) is not None:
            stack.enter_context(plain)
            rate, channels, truncated = plain.getframerate(), plain.getnchannels(), False
            span = path.clock = Clock(0.0, plain.getnframes() / rate)
            read = functools.partial(_read_wave, plain)
        elif (found := audio_track(path)) is not None:
            track, info = found
            rate, channels, truncated = info.sampling_rate, info.channels, track.truncated
            span = Clock(track.start, track.end)
            read = functools.partial(read_samples, track, rate)
        else:
            yield None
            return
        bounds: tuple[float, float] | None = (0.0, math.inf)
        if path.part is not None:
            clock = path.clock or file_clock(path, audio=track)
            bounds = sound_bounds(*part_bounds(path, clock), span, rate)
        if bounds is None:
            yield None
            return
        duration = min(bounds[1], span.duration) - bounds[0]
        yield _Sound(rate, channels, *bounds, duration, truncated, read)


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


def _read_wave(file: wave.Wave_read, windows: Sequence[tuple[float, float]]) -> tuple[list[np.ndarray], None]:
    rate, length, channels = file.getframerate(), file.getnframes(), file.getnchannels()
    pieces = []
    for begin, end in windows:
        first = min(round(begin * rate), length)
        file.setpos(first)
        data = file.readframes(max(length - first if end == math.inf else min(round(end * rate), length) - first, 0))
        samples = np.frombuffer(data, "<i2").reshape(-1, channels).astype(np.float32)
        pieces.append(samples.mean(1) / 2**15)
    return pieces, None


def read_samples(
    track: Track, rate: int, windows: Sequence[tuple[float, float]]
) -> tuple[list[np.ndarray], str | None]:
    """Mono samples of each window, (begin, end) in seconds from the track's first sample, and what is damaged.

    The samples of a window are those of the whole track, but in containers that round times to milliseconds (Matroska,
    flv) they may be a millisecond early or late.
    """
    if not track.seekable and len(windows) > 1:  # it is short, or cannot be read but as a whole
        (whole,), damage = read_samples(track, rate, [(0.0, max(end for _, end in windows))])
        bounds = [(round(begin * rate), None if end == math.inf else round(end * rate)) for begin, end in windows]
        return [whole[first:last] for first, last in bounds], damage
    pieces, damage, run_up = [], None, 0.5
    for begin, end in windows:
        piece = None
        while piece is None:
            # Opened anew for each: going back to the beginning, some containers leave out the codec's own run-up.
            with open_container(track.path, track.name) as container:
                decoder = Decoder(container, track)
                piece = (
                    _read_window(decoder, rate, begin, end, run_up) if begin < track.duration else np.zeros(0, "f4")
                )
                run_up *= 1 if piece is not None else 8
        pieces.append(piece)
        damage = damage or decoder.damage
    return pieces, damage


def _read_window(decoder: Decoder, rate: int, begin: float, end: float, run_up: float) -> np.ndarray | None:
    """Samples from `begin` to `end` or the end of the track, decoding from `run_up` seconds earlier on.

    None if the container led to a point after the beginning.
    """
    jump = decoder.track.seekable and begin > run_up
    if jump:
        decoder.seek(round((decoder.track.start + begin - run_up) / decoder.time_base))
    first, last = round(begin * rate), math.inf if end == math.inf else round(end * rate)
    pieces: list[tuple[int, np.ndarray]] = []
    for number, (position, samples) in enumerate(_placed_samples(decoder, rate, first)):
        if jump and number == 0 and position > first:
            return None
        if jump and not pieces and position + len(samples) > first:
            decoder.damage = None  # what fails right after a jump only lacks what came before it
        if position + len(samples) > first and position < last:
            pieces.append((position, samples))
        if position + len(samples) >= last:
            break
    return _joined(pieces, first, last, decoder)


def _placed_samples(decoder: Decoder, rate: int, first: int = 0) -> Iterator[tuple[int, np.ndarray]]:
    """The decoder's samples, frame by frame, and their places, in samples from the track's first one.

    Up to the sample `first` the container's times are trusted, from there on samples follow each other.
    """
    following: int | None = None
    for frame in cast(Iterator[av.AudioFrame], decoder.frames()):
        if frame.sample_rate != rate:
            decoder.damage = "its sampling rate changes"
            continue
        place = None if frame.pts is None else round((frame.pts * decoder.time_base - decoder.track.start) * rate)
        position = (place or 0) if following is None else following
        # A gap is silence; smaller differences are rounded times, and others are wrong ones.
        if place is not None and (position <= first or 0.05 * rate < place - position < 60 * rate):
            position = place
        samples = _mono(frame)
        following = position + len(samples)
        yield position, samples


def _joined(pieces: Sequence[tuple[int, np.ndarray]], first: int, last: float, decoder: Decoder) -> np.ndarray:
    """Placed samples as one waveform from the sample `first` to the last one before `last`; gaps are silence."""
    kept = [(max(position - first, 0), samples[max(first - position, 0) :]) for position, samples in pieces]
    length = int(min(last - first, max((place + len(samples) for place, samples in kept), default=0)))
    decoder.budget.check_memory(4 * (length - sum(len(samples) for _, samples in kept)), "the gaps in its sound")
    waveform = np.zeros(length, dtype=np.float32)
    for place, samples in kept:
        waveform[place : place + len(samples)] = samples[: max(length - place, 0)]
    return waveform


class SoundCursor(Decoder):
    """Walks an audio track once, from window to window, and holds what later windows need."""

    def __init__(self, container: av.container.InputContainer, track: Track, rate: int):
        super().__init__(container, track)
        self.rate = rate
        self.frames_to_come = _placed_samples(self, rate)
        self.held: deque[tuple[int, np.ndarray]] = deque()
        self.ended = False

    def read(self, begin: float, end: float, keep: float) -> np.ndarray | None:
        """Samples from `begin` to `end` or the end of the track; None where none of them was decoded.

        Args:
            keep: the earliest beginning of this window and all later ones.
        """
        first, last = round(begin * self.rate), math.inf if end == math.inf else round(end * self.rate)
        while not self.held or self.held[-1][0] + len(self.held[-1][1]) < last:
            if (piece := next(self.frames_to_come, None)) is None:
                self.ended = True
                break
            self.held.append(piece)
            while len(self.held) > 1 and self.held[1][0] <= keep * self.rate:
                self.held.popleft()
        pieces = [(place, samples) for place, samples in self.held if place < last and place + len(samples) > first]
        return _joined(pieces, first, last, self) if pieces else None


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
        planes: list[Any] = [AudioPlane(frame, channel) for channel in range(channels)]
        samples = [np.frombuffer(plane, kind, frame.samples) for plane in planes]
    else:
        plane: Any = AudioPlane(frame, 0)
        samples = list(np.frombuffer(plane, kind, frame.samples * channels).reshape(-1, channels).T)
    total = samples[0].astype(np.float32)
    for channel in samples[1:]:
        total += channel
    if kind == "u1":
        total -= 128 * channels
    return total if scale * channels == 1 else total / (scale * channels)
