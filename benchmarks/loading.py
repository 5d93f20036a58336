# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Samples per second and core that workers of a training read, beside decord and torchcodec used directly.

    python benchmarks/loading.py [FOLDER] [--clips 8] [--seconds 10] [--size 480x360] [--repeats 3] [--frames 1 2 8]
                                 [--device cuda]

Without a FOLDER of mp4 files, clips of H.264 and AAC are made. They are read as they are, as `valor extract` writes them
(frames and sound), and from a tar shard: 1, 2 and 8 random frames of 224 x 224 and one audio clip of 5.12 seconds. Each is
measured as workers prepare it, and as they send it with `--preprocess_on_device`.

The baselines do less: decord's `VideoReader.get_batch` and torchcodec's `VideoDecoder.get_frames_at` return the same number of
frames at their full size, without sound, and "with sound" all of the sound at 22,050 Hz as well. The ratio is to decord without
sound, in the same run. With `--device` a batch of 64 samples is prepared there, and compared with what the workers prepare. Times are those of the processor, of all threads, so that other work on the machine counts little.
"""

import argparse
import importlib
import io
import random
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from modeling_valor import ValorProcessor
from modeling_valor.data.extract import extract
from modeling_valor.data.loading import LoadingOptions, load_sample
from modeling_valor.data.raw_media import pack
from modeling_valor.data.readers import load_samples
from modeling_valor.data.samples import Sample, each_sample


CHECKPOINT = Path(__file__).parents[1] / "hub_configs" / "valor-tiny"
FPS, RATE, SIDE = 25, 44_100, 224


@dataclass(frozen=True)
class Reading:
    """What is measured: `read(sample)` returns the bytes of what it would send."""

    name: str
    samples: list[Sample]
    read: Callable[[Sample], int]


def make_clip(path: Path, seconds: int, size: tuple[int, int], seed: int) -> None:
    """A clip of noise that moves over a pattern, with a melody in stereo."""
    rng = np.random.default_rng(seed)
    width, height = size
    pattern = np.kron(rng.integers(0, 255, (9, 16, 3)), np.ones((height // 9 + 1, width // 16 + 1, 1)))
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"crf": "26", "preset": "fast"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = container.add_stream("aac", rate=RATE, layout="stereo")
        for number in range(seconds * FPS):
            picture = np.roll(pattern, (number * 3, number * 5), (0, 1))[:height, :width]
            picture = (picture + rng.normal(0, 6, (height, width, 1))).clip(0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        times = np.arange(seconds * RATE) / RATE
        sound = (0.3 * np.sin(2 * np.pi * 220 * 2 ** (np.floor(times * 4) % 12 / 12) * times)).astype(np.float32)
        for start in range(0, len(sound), 1024):
            frame = av.AudioFrame.from_ndarray(np.stack([sound[start : start + 1024]] * 2), "fltp", "stereo")
            frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
            container.mux(audio.encode(frame))
        container.mux(audio.encode())


def make_shard(path: Path, files: list[Path]) -> None:
    with tarfile.open(path, "w") as archive:
        for number, file in enumerate(files):
            archive.add(file, f"{number:05d}.mp4")
            caption = b"a caption"
            member = tarfile.TarInfo(f"{number:05d}.txt")
            member.size = len(caption)
            archive.addfile(member, io.BytesIO(caption))


def load(processor: ValorProcessor, options: LoadingOptions, raw: bool, sample: Sample) -> int:
    """Reads a sample as a worker of a training does; returns the bytes that it sends."""
    loaded = load_sample(sample, processor, options, seed=random.randrange(2**31), raw=raw)
    if loaded.raw is not None:
        return pack([loaded.raw], processor, options.raw_options).num_bytes
    return sum(tensor.nbytes for tensor in loaded.media.values())


def read_with_decord(num_frames: int, with_sound: bool, sample: Sample) -> int:
    decord = importlib.import_module("decord")
    reader = decord.VideoReader(sample.video)
    sent = reader.get_batch(sorted(random.sample(range(len(reader)), num_frames))).asnumpy().nbytes
    if with_sound:
        sent += decord.AudioReader(sample.video, sample_rate=22_050, mono=True)[:].asnumpy().nbytes
    return int(sent)


def read_with_torchcodec(num_frames: int, with_sound: bool, sample: Sample) -> int:
    decoders = importlib.import_module("torchcodec.decoders")
    decoder = decoders.VideoDecoder(sample.video, num_ffmpeg_threads=1)
    sent = decoder.get_frames_at(sorted(random.sample(range(len(decoder)), num_frames))).data.nbytes
    if with_sound:
        decoder = decoders.AudioDecoder(sample.video, sample_rate=22_050, num_channels=1)
        sent += decoder.get_all_samples().data.nbytes
    return int(sent)


BASELINES = {"decord": read_with_decord, "torchcodec": read_with_torchcodec}


def available() -> Iterator[str]:
    """The baselines that are installed and can be loaded; the others are said."""
    for name in BASELINES:
        try:
            importlib.import_module({"torchcodec": "torchcodec.decoders"}.get(name, name))
        except Exception as error:  # torchcodec without FFmpeg raises a RuntimeError
            print(f"{name} is left out: {' '.join(str(error).split())[:100]}")
        else:
            yield name


def measure(reading: Reading, repeats: int) -> tuple[float, float]:
    """Seconds of the processor, and bytes, of one sample."""
    reading.read(reading.samples[0])
    sent = 0
    start = time.process_time()
    for _ in range(repeats):
        for sample in reading.samples:
            sent += reading.read(sample)
    count = repeats * len(reading.samples)
    return (time.process_time() - start) / count, sent / count


def readings(datasets: dict[str, list[Sample]], num_frames: int, baselines: list[str]) -> Iterator[Reading]:
    processor = ValorProcessor.from_pretrained(CHECKPOINT)
    options = options_of(num_frames)
    for name in baselines:
        for with_sound in (False, True):
            read = partial(BASELINES[name], num_frames, with_sound)
            yield Reading(f"{name}{', with sound' * with_sound}", datasets["mp4"], read)
    for name, samples in datasets.items():
        for raw in (False, True):
            yield Reading(
                f"{name}, {'for the device' if raw else 'prepared'}", samples, partial(load, processor, options, raw)
            )


def prepare_on(device: torch.device, samples: list[Sample], num_frames: int, size: int = 64) -> None:
    """Prints how long a device takes to prepare a batch of raw samples, and how its numbers differ from the CPU's."""
    processor = ValorProcessor.from_pretrained(CHECKPOINT)
    options = options_of(num_frames)
    raw = [load_sample(sample, processor, options, seed=0, raw=True).raw for sample in samples]
    media = pack([raw[row % len(raw)] for row in range(size)], processor, options.raw_options)
    expected = media.prepare(processor)
    moved = media.pin_memory() if device.type == "cuda" else media
    for _ in range(2):  # the first is a warm-up
        start = time.perf_counter()
        inputs = moved.to(device).prepare(processor)
        differences = {name: float((value.cpu() - expected[name]).abs().max()) for name, value in inputs.items()}
        seconds = time.perf_counter() - start
    what = ", ".join(f"{name} {difference:.1e}" for name, difference in differences.items())
    print(
        f"\n{device}: {size} samples of {num_frames} frames in {seconds * 1e3:.0f} ms, copies back included; differences: {what}"
    )


def options_of(num_frames: int) -> LoadingOptions:
    transforms = {"size": {"height": SIDE, "width": SIDE}}
    return LoadingOptions("retrieval", num_frames=num_frames, num_audio_clips=1, transforms=transforms)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--size", default="480x360")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--frames", type=int, nargs="+", default=[1, 2, 8])
    parser.add_argument("--device", type=torch.device)
    arguments: Any = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # as in a worker

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.folder is None:
            width, height = map(int, arguments.size.split("x"))
            for number in range(arguments.clips):
                make_clip(folder / f"{number:05d}.mp4", arguments.seconds, (width, height), number)
        files = sorted((arguments.folder or folder).glob("*.mp4"))[: arguments.clips]
        clips = [Sample(file.stem, str(file), str(file), ("a caption",)) for file in files]
        extract(clips, folder / "extracted", workers=1)
        make_shard(folder / "shard.tar", files)
        datasets = {
            "mp4": clips,
            "extracted": list(each_sample(load_samples(str(folder / "extracted")))),
            "tar shard": list(each_sample(load_samples(str(folder / "shard.tar")))),
        }
        baselines = list(available())
        what = f"{len(files)} clips of {sum(file.stat().st_size for file in files) / len(files) / 1e3:.0f} kB"
        print(f"{what}, torch {torch.__version__}, one thread; {SIDE} x {SIDE} pixels")
        for num_frames in arguments.frames:
            print(
                f"\n{f'{num_frames} frames and 1 audio clip':28} {'samples/s':>9} {'ms':>7} {'kB sent':>8} {'ratio':>6}"
            )
            decord = None
            for reading in readings(datasets, num_frames, baselines):
                seconds, sent = measure(reading, arguments.repeats)
                decord = seconds if reading.name == "decord" else decord
                ratio = f"{decord / seconds:6.2f}" if decord else "     -"
                print(
                    f"{reading.name:28} {1 / seconds:9.1f} {seconds * 1e3:7.1f} {sent / 1e3:8.0f} {ratio}", flush=True
                )
        if arguments.device is not None:
            prepare_on(arguments.device, datasets["extracted"], arguments.frames[-1])
    print("\nSamples per second and core; milliseconds of the processor; ratio of the speed to decord's.")


if __name__ == "__main__":
    main()
