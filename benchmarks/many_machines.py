# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What a segment costs in each stage of docs/many_machines.md: seconds of one core, bytes.

    python benchmarks/many_machines.py [--films FILE ...] [--model hub_configs/valor-tiny] [--size 1280x720]

Time is that of the processor, so that other work on the machine hardly counts. Without `--films` it reads a film of
noise that moves, in H.264 with AAC, which is made first; reading is compared with FFmpeg decoding all frames of the same
film and throwing them away. Weights are random where the checkpoint has none; its speed is the same.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import av
import numpy as np
import torch
from transformers import AutoVideoProcessor, PreTrainedConfig

from modeling_valor import ValorForCaptioning
from modeling_valor.integrations.batches import ValorReader
from modeling_valor.search import EmbeddedSegment, Segment, SegmentTokens, open_backend


SECONDS = 10.0


def cpu_seconds(work: Callable) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def write_film(path: Path, size: tuple[int, int], seconds: int = 40) -> Path:
    """25 frames per second with a key frame every 10 seconds, as encoders do by default."""
    width, height = size
    generator = np.random.default_rng(0)
    canvas = generator.integers(0, 255, (height // 8 + 32, width // 8 + 32, 3), dtype=np.uint8)
    canvas = canvas.repeat(8, axis=0).repeat(8, axis=1)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"preset": "veryfast", "crf": "23"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        sound = container.add_stream("aac", rate=44100, layout="mono")
        for index in range(25 * seconds):
            shift = index % 200
            picture = canvas[shift : shift + height, shift : shift + width]
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        samples = generator.normal(0, 0.1, (1, 44100 * seconds)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(sound.encode(frame))
        for stream in (video, sound):
            container.mux(stream.encode())
    return path


def decode_to_null(path: Path) -> None:
    with av.open(str(path)) as container:
        for stream in container.streams.video:
            stream.thread_count = 1
        for _ in container.decode(*container.streams.video, *container.streams.audio):
            pass


def measure_reading(reader: ValorReader, films: list[Path]) -> None:
    print("\nReading: decoding, frames and spectrograms of segments of 10 s\n")
    print("| film | segments per second and core | core seconds, of FFmpeg decoding it to nothing | ratio |")
    print("| --- | --- | --- | --- |")
    list(reader.read([{"path": str(films[0])}]))  # what is made only once
    for path in films:
        rows: list[dict] = []
        own = cpu_seconds(lambda path=path, rows=rows: rows.extend(reader.read([{"path": str(path)}])))
        if errors := [row["error"] for row in rows if row["error"]]:
            print(f"| {path.name} | {errors[0]} | | |")
            continue
        decoding = cpu_seconds(lambda path=path: decode_to_null(path))
        size = sum(len(row["inputs"]) for row in rows) / len(rows) / 2**20
        print(
            f"| {path.name}, {rows[0]['file_seconds']:.0f} s, {size:.1f} MiB per segment to the model | "
            f"{len(rows) / own:.2f} | {own:.2f}, {decoding:.2f} | {own / decoding:.2f} |"
        )


def segment_inputs(name: str, config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    frames = AutoVideoProcessor.from_pretrained(name).num_frames
    side = config.vision_config.image_size
    return {
        "pixel_values_videos": torch.zeros(1, frames, 3, side, side),
        "input_features": torch.zeros(1, 2, 64, 512),
    }


def measure_model(name: str, repeats: int) -> tuple[int, int]:
    """Prints the speed of one core; returns the number of tokens of a segment and their width."""
    model = ValorForCaptioning.from_pretrained(name).eval()
    inputs = segment_inputs(name, model.config)
    with torch.no_grad():
        embeds = model.valor.embed_media(inputs)
        embedding = cpu_seconds(lambda: [model.valor.embed_media(inputs) for _ in range(repeats)]) / repeats
        lengths = {"max_new_tokens": 30, "min_new_tokens": 30}
        captioning = cpu_seconds(lambda: [model.generate(**inputs, **lengths) for _ in range(repeats)]) / repeats
    print(
        f"\n{Path(name).name}, one core: {1 / embedding:.1f} segments embedded, {1 / captioning:.1f} captioned per second"
    )
    return sum(embeds[f"{part}_embeds"].shape[1] for part in ("video", "audio")), model.config.projection_dim


def measure_index(tokens: int, width: int, segments: int, per_write: int = 256) -> None:
    generator = np.random.default_rng(0)
    embeds = generator.normal(size=(tokens, width)).astype(np.float16)
    rest = ("v" * (tokens - 1) + "a", np.zeros(tokens, np.float32), np.zeros(tokens, np.float32))
    with tempfile.TemporaryDirectory() as folder:
        backend = open_backend(f"{folder}/index.lance")
        backend.create({"version": 1, "model": "none", "revision": "none", "width": width})
        times = []
        for start in range(0, segments, per_write):
            batch = [
                EmbeddedSegment(Segment(f"/videos/{number}.mp4", 0.0, SECONDS, "va"), SegmentTokens(*rest, embeds))
                for number in range(start, start + per_write)
            ]
            times.append(cpu_seconds(lambda batch=batch: backend.write(batch)))
        backend.compact()
        size = backend.sizes()["bytes"] / segments
    tenth = max(1, len(times) // 10)
    first, last = (per_write / np.mean(part) for part in (times[:tenth], times[-tenth:]))
    print(
        f"\nIndex: {first:.0f} segments per second and core when it is empty, {last:.0f} with {segments}; {size:.0f} bytes each"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--films", nargs="*", type=Path, default=[])
    parser.add_argument("--size", default="1280x720", help="of the film that is made")
    parser.add_argument("--model", default="hub_configs/valor-tiny", help="checkpoint whose speed is measured")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--segments", type=int, default=12_800, help="that are written to the index")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    print(f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, one thread")
    with tempfile.TemporaryDirectory() as folder:
        size = tuple(map(int, options.size.split("x")))
        films = options.films or [write_film(Path(folder) / f"noise-{options.size}.mp4", size)]
        measure_reading(ValorReader(options.model, segment_seconds=SECONDS), films)
    tokens, width = measure_model(options.model, options.repeats)
    measure_index(tokens, width, options.segments)


if __name__ == "__main__":
    main()
