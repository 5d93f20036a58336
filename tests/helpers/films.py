# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Films whose frames carry their number, in many codecs and containers, and a decoder that never seeks."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch
from av.video.frame import PictureType

from helpers.media_files import FPS, block_number, blocks


NUM_FRAMES = 120

# Encoder, its options, and the containers that its packets go to. Frames are referred to across key frames in "open"
# films; "refresh" has no key frames but the first, and marks where a decoder has recovered; "dense" has several in a row.
CODECS = {
    "h264": ("libx264", {"bf": "3", "g": "25"}, "mp4 mov mkv avi ts flv"),
    "h264_open": ("libx264", {"x264-params": "open-gop=1:keyint=25:bframes=3:b-adapt=0"}, "mp4 mkv avi ts flv"),
    "h264_refresh": ("libx264", {"x264-params": "intra-refresh=1:keyint=25:bframes=0"}, "mp4 mkv ts"),
    "h264_dense": ("libx264", {"bf": "3", "g": "250", "forced-idr": "1"}, "mp4 mkv"),
    "h265_open": (
        "libx265",
        {"x265-params": "keyint=25:min-keyint=25:open-gop=1:bframes=4:b-adapt=0:log-level=none"},
        "mp4 mkv ts",
    ),
    "h265_closed": (
        "libx265",
        {"x265-params": "keyint=25:min-keyint=25:open-gop=0:bframes=4:b-adapt=0:log-level=none"},
        "mp4 mov",
    ),
    "mpeg2": ("mpeg2video", {"bf": "2", "g": "15", "qmin": "2", "qmax": "4"}, "mov mkv avi ts mpg"),
    "mpeg4": ("mpeg4", {"bf": "2", "g": "15", "qmin": "2", "qmax": "4"}, "mp4 mkv avi"),
    "mpeg4_no_b": ("mpeg4", {"bf": "0", "g": "15", "qmin": "2", "qmax": "4"}, "mp4 avi"),
    "vp9": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "g": "25", "crf": "20"}, "webm mp4"),
    "av1": ("libsvtav1", {"preset": "10", "g": "25", "crf": "5", "svtav1-params": "lp=1"}, "mp4 webm"),
    "flv1": ("flv", {"g": "15", "qmin": "2", "qmax": "4"}, "flv"),
}
CASES = [(codec, container) for codec, (_, _, containers) in CODECS.items() for container in containers.split()]


def write_film(path: Path, codec: str, stamps: Sequence[int] = range(NUM_FRAMES), **options: str) -> str:
    """A film of which frame n, shown from `stamps[n]` 25ths of a second on, carries the number n."""
    encoder, encoder_options, _ = CODECS[codec]
    if encoder not in av.codecs_available:
        pytest.skip(f"needs {encoder}")
    if path.exists():
        return str(path)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(encoder, rate=FPS, options={"preset": "ultrafast"} | encoder_options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.thread_count = 1
        for number, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(blocks(number), "rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, FPS)
            if codec == "h264_dense" and number % 40 < 3:
                frame.pict_type = PictureType.I
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


def decoded_in_order(path: str) -> list[tuple[int, float | None]]:
    """The number and the time of every frame, by a decoder that never seeks."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        return [
            (block_number(torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)), frame.time)
            for frame in container.decode(stream)
        ]


def film_numbers(video) -> list[int]:
    return [block_number(frame) for frame in video.frames]
