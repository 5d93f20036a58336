# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Samples of a sound track: the waveform of given windows of time."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, cast

import av
import numpy as np
from av.audio.plane import AudioPlane

from .media_container import Decoder, Track, open_container


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
        decoder.seek(round((track.start + begin - run_up) / decoder.time_base))
    first, last = round(begin * rate), math.inf if end == math.inf else round(end * rate)
    pieces: list[tuple[int, np.ndarray]] = []
    position = None
    for frame in cast(Iterator[av.AudioFrame], decoder.frames()):
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
    length = pieces[-1][0] + len(pieces[-1][1]) if pieces else 0
    decoder.budget.check_memory(4 * (length - sum(len(samples) for _, samples in pieces)), "the gaps in its sound")
    window = np.zeros(length, dtype=np.float32)
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
        planes: list[Any] = [AudioPlane(frame, channel) for channel in range(channels)]
        samples = np.stack([np.frombuffer(plane, kind, frame.samples) for plane in planes])
    else:
        plane: Any = AudioPlane(frame, 0)
        samples = np.frombuffer(plane, kind, frame.samples * channels).reshape(-1, channels).T
    return (samples.astype(np.float32) - (128 if kind == "u1" else 0)).mean(0) / scale
