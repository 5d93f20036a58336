# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Media made on the spot: the brightness of a frame's halves tells its number, its red upper left corner which way is up."""

import contextlib
import math
import signal
import struct
import wave
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from modeling_valor.media_decord import decord


FPS = 25
RATE = 16_000


def torchcodec_works() -> bool:
    try:
        import torchcodec
    except (ImportError, OSError, RuntimeError):
        return False
    return getattr(torchcodec, "ffmpeg_major_version", None) is not None


BACKENDS = [
    pytest.param("decord", marks=pytest.mark.skipif(not decord.usable, reason="needs decord")),
    pytest.param("torchcodec", marks=pytest.mark.skipif(not torchcodec_works(), reason="needs torchcodec and FFmpeg")),
    "pyav",
]


def picture(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    pixels[:, : width // 2] = 30 + 20 * (number // 10 % 10)
    pixels[:, width // 2 :] = 30 + 20 * (number % 10)
    pixels[: height // 4, : width // 4] = (255, 0, 0)
    return pixels


def numbers(frames: torch.Tensor) -> list[int]:
    """The numbers (modulo 100) of frames (F, 3, H, W)."""
    rows, width = frames.float()[:, :, frames.shape[2] // 2 :].mean((1, 2)), frames.shape[3]
    tens, units = rows[:, 2 : width // 2 - 2].mean(1), rows[:, width // 2 + 2 : -2].mean(1)
    return [
        10 * round((ten - 30) / 20) + round((unit - 30) / 20)
        for ten, unit in zip(tens.tolist(), units.tolist(), strict=True)
    ]


def blocks(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A picture that carries a number in 12 black or white blocks, 4 across and 3 down, least significant bit first."""
    bits = np.array([number >> bit & 1 for bit in range(12)], dtype=np.uint8).reshape(3, 4) * 255
    return np.repeat(bits.repeat(height // 3, 0).repeat(width // 4, 1)[..., None], 3, 2)


def block_number(frame: torch.Tensor) -> int:
    """The number that a frame (3, H, W) of blocks carries."""
    bright = torch.nn.functional.adaptive_avg_pool2d(frame.float().mean(0)[None], (3, 4)).flatten() > 128
    return sum(int(bit) << place for place, bit in enumerate(bright))


def write_video(
    path,
    count: int = 60,
    stamps=None,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    gop: int = 12,
    rotation: int = 0,
    matrix: list[int] | None = None,
    format: str | None = None,
    sound: bool = False,
    **options: str,
) -> str:
    """A video of `count` pictures; `stamps` are their times in hundredths of a second."""
    with av.open(str(path), "w", format=format, options=options) as container:
        stream = container.add_stream(codec, rate=FPS)
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.gop_size = gop
        if codec == "libx264":
            stream.options = {"preset": "ultrafast", "crf": "4", "bf": "2", "sc_threshold": "0"}
        if stamps is not None:
            stream.codec_context.time_base = stream.time_base = Fraction(1, 100)
        if rotation:
            stream.set_display_rotation(rotation)
        if matrix is not None:
            stream.set_display_matrix(matrix)
        if sound:
            audio = container.add_stream("aac", rate=RATE, layout="mono")
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), "rgb24")
            frame.pts = number if stamps is None else stamps[number]
            frame.time_base = Fraction(1, FPS) if stamps is None else Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound:
            for frame in audio_frames(tone(count / FPS), 1024):
                container.mux(audio.encode(frame))
            container.mux(audio.encode())
    return str(path)


def tone(seconds: float, rate: int = RATE) -> np.ndarray:
    """A rising tone: no part of it is like another."""
    time = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * (200 + 40 * time) * time)).astype(np.float32)


def audio_frames(samples: np.ndarray, size: int, rate: int = RATE, layout: str = "mono"):
    samples = np.atleast_2d(samples)
    for start in range(0, samples.shape[1], size):
        interleaved = samples[:, start : start + size].T.reshape(1, -1).copy()
        frame = av.AudioFrame.from_ndarray(interleaved, "flt", layout)
        frame.rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        yield frame


def write_sound(path, samples: np.ndarray, codec: str, rate: int = RATE, layout: str = "mono", **options: str) -> str:
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        size = stream.codec_context.frame_size or 1024
        convert = av.AudioResampler(stream.format, layout, rate)
        for frame in audio_frames(samples, size, rate, layout):
            for part in convert.resample(frame):
                container.mux(stream.encode(part))
        container.mux(stream.encode())
    return str(path)


def write_wav(path, seconds: float = 1.0, channels: int = 1) -> str:
    samples = np.repeat((tone(seconds) * 32767).astype("<i2")[:, None], channels, 1)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())
    return str(path)


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@contextlib.contextmanager
def seconds_at_most(limit: int):
    def stop(*args):
        raise TimeoutError(f"not done after {limit} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(limit)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def write_clip(path, seconds: float = 1.0, hertz: float | None = 440.0, brightness: int | None = 0, rate: int = 16000):
    """A clip with a moving bar (none where `brightness` is None) and a tone (none where `hertz` is None)."""
    with av.open(str(path), "w") as container:
        streams = []
        if brightness is not None:
            video = container.add_stream("mpeg4", rate=10, options={"qscale": "2"})
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            frames = []
            for index in range(int(seconds * 10)):
                picture = np.full((48, 64, 3), brightness, dtype=np.uint8)
                picture[:, (6 * index) % 56 : (6 * index) % 56 + 8] = 255
                frames.append(av.VideoFrame.from_ndarray(picture, format="rgb24"))
            streams.append((video, frames))
        if hertz is not None:
            audio = container.add_stream("aac", rate=rate, layout="mono")
            times = np.arange(int(seconds * rate)) / rate
            samples = (0.4 * np.sin(2 * math.pi * hertz * times)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
            frame.sample_rate = rate
            streams.append((audio, [frame]))
        for stream, frames in streams:
            for frame in [*frames, None]:
                container.mux(stream.encode(frame))
    return path


def render_clips(folder: Path) -> dict[str, str]:
    """Four small files: frames and sound, frames only, sound only, and another one with both."""
    return {
        "both": str(write_clip(folder / "both.mp4")),
        "silent": str(write_clip(folder / "silent.mp4", hertz=None, brightness=90)),
        "sound": str(write_clip(folder / "sound.m4a", brightness=None, hertz=880)),
        "other": str(write_clip(folder / "other.mp4", seconds=7, hertz=220, brightness=40)),
    }
