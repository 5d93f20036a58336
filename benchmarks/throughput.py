# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Captions per second, end to end from files, and where the time goes: `valor caption` against one clip after the other.

    python benchmarks/throughput.py [FOLDER] [--clips 32] [--size 480x360] [--batch-size 8] [--workers 0] [--device cpu]
                                    [--model hub_configs/valor-tiny | --large] [--dtype float32] [--tokens 30] [--beams 3]

Without a FOLDER of mp4 files, clips of ten seconds of H.264 and AAC are made. The baseline reads, prepares, encodes and decodes
a clip before it looks at the next one. The captioning pipeline, which `valor caption` runs, works in batches and reads the next
one in threads, or in `--workers` processes. Both write the same captions where the data type is float32. `--large` has the shape
of VALOR-L and random weights, whose captions have all `--tokens`.

Columns: seconds of reading and of preparing files, of encoding and of generating, as they were spent by whoever did it (not seen
where other processes read), and how much of the reading took no time of its own, because it went on while the model worked.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from loading import make_clip
from transformers.utils import logging

from modeling_valor import AudiovisualCaptioningPipeline, ValorConfig, ValorForCaptioning, ValorProcessor
from modeling_valor.data.raw_media import pack, read_raw


CONFIGS = Path(__file__).parents[1] / "hub_configs"


class Stages:
    """Seconds of each stage, and of all."""

    def __init__(self, device: torch.device):
        self.device, self.seconds, self.total = device, defaultdict[str, float](float), 0.0

    @contextmanager
    def stage(self, name: str, waits: bool = True) -> Iterator[None]:
        """Adds the time of a block; with `waits` until the device has finished it."""
        start = time.perf_counter()
        yield
        if waits and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[name] += time.perf_counter() - start

    def timed(self, name: str, function: Callable[..., Any], waits: bool = True) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name, waits):
                return function(*args, **kwargs)

        return wrapper

    @property
    def overlapped(self) -> float | None:
        """Share of the reading that took no time of its own; None where it was not seen."""
        reading = self.seconds["read"] + self.seconds["prepare"]
        return max(0.0, min(1.0, (sum(self.seconds.values()) - self.total) / reading)) if reading else None


def build(arguments: Any) -> tuple[ValorForCaptioning, ValorProcessor]:
    tiny = CONFIGS / "valor-tiny"
    dtype = getattr(torch, arguments.dtype)
    if not arguments.large:
        model = ValorForCaptioning.from_pretrained(arguments.model, dtype=dtype)
        return model.to(arguments.device).eval(), ValorProcessor.from_pretrained(arguments.model)
    processor = ValorProcessor.from_pretrained(tiny)
    processor.video_processor.size = {"height": 224, "width": 224}
    config, words = (ValorConfig.from_pretrained(folder).to_dict() for folder in (CONFIGS / "valor-large", tiny))
    own = ("vocab_size", "bos_token_id", "eos_token_id", "mask_token_id")
    config["text_config"] |= {name: words["text_config"][name] for name in own}
    torch.manual_seed(0)
    model = ValorForCaptioning(ValorConfig(**config | {"caption_prompt_ids": [2, 5, 6, 3]}))
    return model.to(arguments.device, dtype).eval(), processor


@torch.no_grad()
def one_by_one(
    model: ValorForCaptioning, processor: ValorProcessor, files: list[str], options: dict[str, Any]
) -> tuple[list[str], Stages]:
    stages, captions = Stages(model.device), []
    start = time.perf_counter()
    for file in files:
        with stages.stage("read"):
            media = pack([read_raw(file, file, processor, "av", {})], processor, {})
        with stages.stage("prepare"):
            inputs = {name: value.to(model.device) for name, value in media.prepare(processor).items()}
            inputs = {name: v.to(model.dtype) if v.is_floating_point() else v for name, v in inputs.items()}
        with stages.stage("encode"):
            conditions = model.valor.encode_conditions(**inputs)
        with stages.stage("generate"):
            ids = model.generate(conditions=conditions, **options)
        captions += processor.post_process_generation(ids)
    stages.total = time.perf_counter() - start
    return captions, stages


def in_batches(
    model: ValorForCaptioning,
    processor: ValorProcessor,
    files: list[str],
    options: dict[str, Any],
    batch_size: int,
    workers: int,
) -> tuple[list[str], Stages]:
    captioner, stages = (
        AudiovisualCaptioningPipeline(model, processor=processor, device=model.device),
        Stages(model.device),
    )
    valor = model.valor
    encode, generate = valor.encode_conditions, model.generate
    if workers == 0:
        captioner.preprocess = stages.timed("read", captioner.preprocess, waits=False)
    valor.encode_conditions, model.generate = stages.timed("encode", encode), stages.timed("generate", generate)
    start = time.perf_counter()
    results = captioner(files, batch_size=batch_size, num_workers=workers, **options)
    stages.total = time.perf_counter() - start
    valor.encode_conditions, model.generate = encode, generate
    return [result[0]["generated_text"] for result in results], stages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--size", default="480x360")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--model", default=str(CONFIGS / "valor-tiny"))
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--tokens", type=int, default=30)
    parser.add_argument("--beams", type=int, default=3)
    arguments: Any = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model, processor = build(arguments)
    options = {"max_new_tokens": arguments.tokens, "num_beams": arguments.beams}
    if arguments.large:
        options["min_new_tokens"] = arguments.tokens

    with tempfile.TemporaryDirectory() as name:
        if arguments.folder is None:
            width, height = map(int, arguments.size.split("x"))
            for number in range(arguments.clips):
                make_clip(Path(name, f"{number:05d}.mp4"), 10, (width, height), number)
        files = [str(path) for path in sorted((arguments.folder or Path(name)).glob("*.mp4"))[: arguments.clips]]
        one_by_one(model, processor, files[:1], options)  # warm-up
        print(
            f"{len(files)} clips, {arguments.device}, {arguments.dtype}, {torch.get_num_threads()} threads of torch, "
            f"{'the shape of VALOR-L' if arguments.large else arguments.model}, {arguments.beams} beams"
        )
        names = ("read", "prepare", "encode", "generate")
        columns = " ".join(f"{column:>9}" for column in ("clips/s", "ratio", *names, "overlap"))
        print(f"{'':24} {columns}")
        baseline, expected = None, None
        for variant, run in {
            "one by one (baseline)": lambda: one_by_one(model, processor, files, options),
            f"batches of {arguments.batch_size}": lambda: in_batches(
                model, processor, files, options, arguments.batch_size, arguments.workers
            ),
        }.items():
            captions, stages = run()
            baseline, expected = baseline or stages.total, expected or captions
            seconds = " ".join(f"{stages.seconds[name]:9.2f}" for name in names)
            share = "        -" if stages.overlapped is None else f"{stages.overlapped:9.0%}"
            speed = f"{len(files) / stages.total:9.2f} {baseline / stages.total:9.2f}"
            other = sum(one != two for one, two in zip(captions, expected, strict=True))
            print(f"{variant:24} {speed} {seconds} {share}  {f'{other} other captions' * (other > 0)}", flush=True)


if __name__ == "__main__":
    main()
