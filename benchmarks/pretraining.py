# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""A pretraining step (forward, backward and AdamW, of both tasks in three groups) and embedding, at the shape of VALOR-L.

    python benchmarks/pretraining.py [--batch 64] [--frames 2] [--device cuda] [--dtype bfloat16] [--tiny] [--profile]

Weights are random. The baseline is the model as it is written; the other one has its layers compiled (`valor train
--compile_layers`). With `--dtype bfloat16` training runs under autocast, with parameters in float32, and embedding with parameters in
bfloat16. Printed are the floating-point operations (those of matrix products, counted by PyTorch), and their share of what one
large matrix product reaches on the same device. `--tiny` has valor-tiny's shape, to try the script on a CPU; `--profile` also
prints where the time goes.
"""

import argparse
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from transformers.utils import logging

from modeling_valor import ValorConfig, ValorForPreTraining
from modeling_valor.compilation import compile_layers, without_compiled_layers


CONFIGS = Path(__file__).parents[1] / "hub_configs"
WORDS = 30


def make_batch(config: ValorConfig, samples: int, frames: int, device: str) -> dict[str, torch.Tensor]:
    size, audio = config.vision_config.image_size, config.audio_config
    vocab_size = config.text_config.vocab_size
    return {
        "input_ids": torch.randint(vocab_size // 2, vocab_size, (samples, WORDS), device=device),
        "pixel_values_videos": torch.randn(samples, frames, 3, size, size, device=device),
        "input_features": torch.randn(samples, 1, audio.num_mel_bins, audio.max_length, device=device),
    }


def seconds(function: Callable[[], object], device: str, repeats: int) -> float:
    """Of the fastest call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


def print_profile(function: Callable[[], object], device: str, rows: int = 20) -> None:
    """Where the time of a call goes: the kernels that took longest, and the operators that kept the processor longest."""
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device != "cpu" else [])
    with profile(activities=activities, acc_events=True) as profiled:
        seconds(function, device, 1)
    for attribute in ("self_device_time_total", "self_cpu_time_total"):
        events = sorted(profiled.key_averages(), key=lambda event: -getattr(event, attribute))
        total = sum(getattr(event, attribute) for event in events)
        if total:
            print(f"    {attribute}: {total / 1e3:.1f} ms")
        for event in events[: rows if total else 0]:
            print(f"    {getattr(event, attribute) / 1e3:9.2f} ms in {event.count:6} x {event.key[:90]}")


def ceiling(device: str, dtype: torch.dtype, repeats: int) -> float:
    """Floating-point operations per second of one large matrix product."""
    size = 8192 if device != "cpu" else 2048
    a, b = torch.randn(2, size, size, device=device, dtype=dtype)
    a @ b
    return 2 * size**3 / seconds(lambda: a @ b, device, max(repeats, 3))


def compare(what: str, function: Callable[[], object], most: float, args: argparse.Namespace) -> None:
    """Prints the time of a call with layers as they are written, and with compiled ones."""
    with without_compiled_layers(), FlopCounterMode(display=False) as counter:
        function()
    operations, baseline = counter.get_total_flops(), None
    print(f"{what}: {operations / 1e12:.2f} TFLOP")
    for variant, layers in {"as written": without_compiled_layers, "compiled layers": contextlib.nullcontext}.items():
        with layers():
            start = time.perf_counter()
            for _ in range(2):
                function()
            warm_up = time.perf_counter() - start
            if args.device != "cpu":
                torch.cuda.reset_peak_memory_stats()
            duration = seconds(function, args.device, args.repeats)
            baseline = baseline or duration
            memory = f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if args.device != "cpu" else ""
            print(
                f"  {variant:<16} {duration * 1e3:8.0f} ms  {duration / baseline:5.2f} of the time  "
                f"{operations / duration / most:5.1%} of the ceiling{memory}, first two calls {warm_up:.0f} s",
                flush=True,
            )
            if args.profile:
                print_profile(function, args.device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--frames", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    logging.set_verbosity_error()
    torch.manual_seed(0)
    dtype, is_cuda = getattr(torch, args.dtype), args.device != "cpu"
    config = ValorConfig.from_pretrained(CONFIGS / ("valor-tiny" if args.tiny else "valor-large"))
    model = ValorForPreTraining(config).to(args.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    batch = make_batch(config, args.batch, args.frames, args.device)

    def step() -> None:
        with torch.autocast(args.device, dtype) if dtype != torch.float32 else contextlib.nullcontext():
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    @torch.no_grad()
    def embed() -> None:
        model.valor.embed_media(media)

    compile_layers(model)
    most = ceiling(args.device, dtype, args.repeats)
    name = torch.cuda.get_device_name() if is_cuda else f"{torch.get_num_threads()} threads"
    print(
        f"{args.batch} samples of {args.frames} frames and an audio clip, {name}, {args.dtype}, ceiling {most / 1e12:.2f} TFLOP/s"
    )
    compare("pretraining step", step, most, args)
    optimizer.state.clear()
    model.eval().to(dtype)
    media = {key: batch[key].to(dtype) for key in ("pixel_values_videos", "input_features")}
    compare("embedding", embed, most, args)


if __name__ == "__main__":
    main()
