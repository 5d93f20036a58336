# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""A long film in segments of ten seconds, 8 frames and the sound of each, against decoding all of it with ffmpeg.

    python benchmarks/long_video.py [FILM] [--hours 2] [--size 640x360] [--threads 0]

Without a FILM, one is made: a minute of H.264 and AAC, over and over. The baseline is `ffmpeg -i FILM -f null -` with the
same number of threads (0: ffmpeg's choice), or, where there is no ffmpeg, PyAV that decodes both tracks and does nothing
with them. The segments' time is that after the imports. Memory is the peak of the process less what it holds after its imports, which a model would come on top of.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


FPS, RATE, MINUTE = 25, 48_000, 60

SEGMENTS = """
import resource, sys, time
from modeling_valor.media_segments import fixed_segments, iterate_segments
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start, cpu_start = time.perf_counter(), time.process_time()
count = frames = 0
seconds = 0.0
for segment in iterate_segments(sys.argv[1], fixed_segments, num_frames=8, threads=int(sys.argv[2])):
    assert segment.error is None, segment.error
    count, frames, seconds = count + 1, frames + len(segment.frames.frames), seconds + segment.audio.duration
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(time.perf_counter() - start, time.process_time() - cpu_start)
print(f"{count} segments, {frames} frames, {seconds:.0f} seconds of sound; peak memory {(after - before) / 1000:.0f} MB")
"""

DECODING = """
import sys, av
with av.open(sys.argv[1]) as container:
    for stream in container.streams.video:
        stream.codec_context.thread_count, stream.codec_context.thread_type = int(sys.argv[2]), "AUTO"
    for frame in container.decode(video=0, audio=0):
        pass
"""


def make_film(path: Path, hours: float, size: tuple[int, int]) -> None:
    """A film of noise that moves over a pattern, with a melody."""
    generator = np.random.default_rng(0)
    width, height = size
    pattern = np.kron(generator.integers(0, 255, (9, 16, 3)), np.ones((height // 9 + 1, width // 16 + 1, 1)))
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"crf": "26", "preset": "fast"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = container.add_stream("aac", rate=RATE, layout="stereo")
        packets = []
        for number in range(FPS * MINUTE):
            if number % 125 == 0:  # a cut
                pattern = pattern[::-1, :, generator.permutation(3)]
            picture = np.roll(pattern, (number * 3, number * 5), (0, 1))[:height, :width]
            picture = picture + generator.normal(0, 6, (height, width, 1))
            frame = av.VideoFrame.from_ndarray(picture.clip(0, 255).astype(np.uint8), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            packets += video.encode(frame)
        packets += video.encode()
        times = np.arange(RATE * MINUTE) / RATE
        melody = 0.3 * np.sin(2 * np.pi * (220 + 110 * np.floor(times * 2 % 8)) * times) + generator.normal(
            0, 0.01, len(times)
        )
        for start in range(0, len(times), 1024):
            samples = np.repeat(melody[start : start + 1024].astype(np.float32)[None], 2, 0)
            sound = av.AudioFrame.from_ndarray(samples, "fltp", "stereo")
            sound.sample_rate, sound.pts, sound.time_base = RATE, start, Fraction(1, RATE)
            packets += audio.encode(sound)
        packets = [packet for packet in packets if packet.dts is not None]
        packets.sort(key=lambda packet: packet.dts * packet.time_base)
        contents = [
            (
                packet.stream,
                bytes(packet),
                packet.pts,
                packet.dts,
                packet.time_base,
                packet.duration,
                packet.is_keyframe,
            )
            for packet in packets
        ]
        for minute in range(round(hours * 60)):
            for stream, content, pts, dts, time_base, duration, is_keyframe in contents:
                packet, later = av.Packet(content), round(minute * MINUTE / time_base)
                packet.stream, packet.time_base, packet.duration = stream, time_base, duration
                packet.pts, packet.dts, packet.is_keyframe = pts + later, dts + later, is_keyframe
                container.mux(packet)


def find_ffmpeg() -> str | None:
    """ffmpeg on the path, or the one that imageio-ffmpeg brings."""
    if found := shutil.which("ffmpeg"):
        return found
    try:
        import imageio_ffmpeg
    except ImportError:
        return None
    return imageio_ffmpeg.get_ffmpeg_exe()


def run(command: list[str]) -> tuple[float, float, str]:
    """Seconds, seconds of the CPU, and output of a program."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, output.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("film", type=Path, nargs="?")
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--size", default="640x360", type=lambda text: tuple(map(int, text.split("x"))))
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        film = options.film or Path(folder, "film.mp4")
        if options.film is None:
            make_film(film, options.hours, options.size)
        threads = str(options.threads)
        ffmpeg = find_ffmpeg()
        flags = [] if options.threads == 0 else ["-threads", threads]
        baseline = (
            [sys.executable, "-c", DECODING, str(film), threads]
            if ffmpeg is None
            else [ffmpeg, "-nostdin", "-v", "error", *flags, "-i", str(film), "-f", "null", "-"]
        )
        _, _, output = run([sys.executable, "-c", SEGMENTS, str(film), threads])
        times, summary = output.split("\n", 1)
        rows = {
            "PyAV, decoding alone" if ffmpeg is None else "ffmpeg -f null": run(baseline),
            "segments": (*map(float, times.split()), summary),
        }
        print(f"{film.name}, {film.stat().st_size / 1e6:.0f} MB, {os.cpu_count()} CPUs")
        for name, (seconds, cpu_seconds, output) in rows.items():
            print(f"{name:22} {seconds:8.1f} s {cpu_seconds:8.1f} s of the CPU   {output}")
        (seconds, cpu_seconds, _), (ours, our_cpu, _) = rows.values()
        print(f"ratio {ours / seconds:.2f}, of the CPU {our_cpu / cpu_seconds:.2f}")


if __name__ == "__main__":
    main()
