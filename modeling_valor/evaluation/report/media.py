# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Frames, video and audio of samples as `data:` URLs, small enough for many samples in one page."""

import base64
import io
import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import partial
from typing import Any, cast

import av
import numpy as np
from PIL import Image
from torch import Tensor

from ...data.display import visible
from ...data.failures import attempt
from ...data.samples import Sample
from ...feature_extraction_valor import resample
from ...media import MediaSource, iterate_frames, read_audio, read_frames
from ...media_sources import media_source


NUM_FRAMES, FRAME_HEIGHT, FRAME_GAP = 4, 96, 4
SECONDS, FRAME_RATE, PLAYER_HEIGHT = 10, 5, 144
AUDIO_RATE, AUDIO_BIT_RATE = 22050, 32_000


class SampleMedia:
    """Media of samples, each read once.

    Args:
        samples: by id.
        modalities: what is shown of a sample.
        most: maximum number of samples to read; others are counted in `left_out`.
    """

    def __init__(self, samples: Mapping[str, Sample], modalities: str, most: int):
        self.samples, self.modalities, self.most = samples, modalities, most
        self.places: dict[str, int] = {}
        self.contents: list[dict[str, str]] = []
        self._left_out: set[str] = set()

    @property
    def left_out(self) -> int:
        return len(self._left_out)

    def add(self, identity: str) -> None:
        if identity in self.places:
            return
        if len(self.contents) == self.most:
            self._left_out.add(identity)
            return
        self.places[identity] = len(self.contents)
        self.contents.append(self._read(self.samples[identity]))

    def _read(self, sample: Sample) -> dict[str, str]:
        """Any of "frames" (a picture), "player" (video with its audio), "audio" and "note", a message."""
        found: dict[str, str] = {}
        video = media_source(sample.video) if "v" in self.modalities else None
        audio = media_source(sample.audio) if "a" in self.modalities else None
        failure = attempt(sample.id, partial(_add_media, found, video, audio))
        if failure is not None:
            found["note"] = visible(without_folders(failure.reason, sample))
        return found


def _add_media(found: dict[str, str], video: MediaSource | None, audio: MediaSource | None) -> None:
    """Adds what can be read before the first error."""
    waveform = None
    if audio is not None:
        waveform = _first_seconds(audio)
        found.update({"note": "no audio"} if waveform is None else {"audio": _encode_audio(waveform)})
    if video is not None:
        found["frames"] = _encode_strip(read_frames(video, NUM_FRAMES).frames)
        frames, rate = _player_frames(video)
        if len(frames) > 1:
            found["player"] = _encode_video(frames, rate, waveform)
            found.pop("audio", None)


def without_folders(text: str, sample: Sample) -> str:
    """A message about a sample with the names of its files instead of their paths."""
    for source in (sample.video, sample.audio):
        if isinstance(source, (str, os.PathLike)):
            for path in (os.path.abspath(source), os.fspath(source)):
                text = text.replace(path, os.path.basename(path))
    return text


def _player_frames(source: MediaSource) -> tuple[list[np.ndarray], float]:
    """Frames of the first seconds, (H, W, 3), and their rate; none for folders of frames."""
    if isinstance(source, (str, os.PathLike)) and os.path.isdir(source):
        return [], 0.0
    rate = float(FRAME_RATE)

    def count(available: int, seconds: float) -> int:
        nonlocal rate
        number = min(available, max(1, round(seconds * FRAME_RATE)))
        rate = number / seconds if seconds > 0 else rate
        return number

    frames = []
    for frame in iterate_frames(source, count):
        frames.append(_resize(frame))
        if len(frames) >= SECONDS * rate:
            break
    return frames, rate


def _resize(frame: Tensor) -> np.ndarray:
    """(H, W, 3) with the player's height and an even width, which the codec needs."""
    image = Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy())
    width = 2 * max(8, round(_width(image, PLAYER_HEIGHT) / 2))
    return np.asarray(image.resize((width, PLAYER_HEIGHT)))


def _width(image: Image.Image, height: int) -> int:
    """The width that keeps the aspect ratio at this height, within limits."""
    return min(max(1, round(image.width * height / image.height)), 4 * height)


def _first_seconds(source: MediaSource) -> np.ndarray | None:
    """(1, N) float32 at `AUDIO_RATE`; None if there is no audio track."""
    audio = read_audio(source, max_seconds=SECONDS)
    if audio is None:
        return None
    # One waveform, as no windows are asked for
    waveform = resample(cast(Tensor, audio.waveform), audio.sampling_rate, AUDIO_RATE).clamp(-1, 1)
    return waveform.numpy()[None].astype(np.float32)


def _encode_strip(frames: Tensor) -> str:
    """Frames side by side with a gap between them."""
    images = [Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy()) for frame in frames]
    width = _width(images[0], FRAME_HEIGHT)
    step = width + FRAME_GAP
    strip = Image.new("RGB", (step * len(images) - FRAME_GAP, FRAME_HEIGHT), "white")
    for place, image in enumerate(images):
        strip.paste(image.resize((width, FRAME_HEIGHT)), (place * step, 0))
    return image_address(strip, "jpeg", quality=80)


def _encode_audio(waveform: np.ndarray) -> str:
    """AAC in MP4."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = _audio_stream(container)
        _write_audio(container, stream, waveform)
    return _address("audio/mp4", buffer)


def _encode_video(frames: Sequence[np.ndarray], rate: float, waveform: np.ndarray | None) -> str:
    """H.264, and AAC if there is audio, in MP4."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1000))
        video.height, video.width, video.pix_fmt = *frames[0].shape[:2], "yuv420p"
        video.options = {"crf": "30", "preset": "veryfast"}
        audio = None if waveform is None else _audio_stream(container)  # all streams before the first packet
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video.encode())
        if audio is not None and waveform is not None:
            _write_audio(container, audio, waveform)
    return _address("video/mp4", buffer)


def _audio_stream(container: av.container.OutputContainer) -> av.AudioStream:
    return container.add_stream("aac", rate=AUDIO_RATE, layout="mono", bit_rate=AUDIO_BIT_RATE)


def _write_audio(container: av.container.OutputContainer, stream: av.AudioStream, waveform: np.ndarray) -> None:
    frame = av.AudioFrame.from_ndarray(waveform, format="fltp", layout="mono")
    frame.sample_rate, frame.pts = AUDIO_RATE, 0
    container.mux(stream.encode(frame))
    container.mux(stream.encode())


def image_address(image: Image.Image, form: str, **options: Any) -> str:
    """A picture as a `data:` address."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return _address(f"image/{form}", buffer)


def _address(kind: str, content: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
