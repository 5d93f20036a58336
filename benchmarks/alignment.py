# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Time and peak memory of fine-grained alignment, the shared pass in blocks against the 2023 formulation.

That formulation computes all token similarities of a group by one einsum, multiplies them by both masks, takes the maximum
over either side's tokens and weighs it: three such einsums for t-v, t-a and t-av in training, one for t-av in retrieval.
On a GPU the shared pass is measured twice, in blocks and by the kernel of `alignment_fused`. On a CPU each variant runs in
processes of its own. Memory is the peak above inputs, gradients included; the best time counts.

    python benchmarks/alignment.py [--batch 384]
    python benchmarks/alignment.py --batch 1024 --alone        # without the 2023 formulation
    python benchmarks/alignment.py --device cuda --dtype bfloat16 --rounds 1 [--batch 1024]
    python benchmarks/alignment.py --device cuda --dtype bfloat16 --rounds 1 --batch 16384 --alone
    python benchmarks/alignment.py --device cuda --dtype bfloat16 --batch 1024 --tune      # sizes of the kernel's tiles

Goals on an H100 or H200 in bfloat16: training at 1,024 in 8 ms and 0.3 GiB, at 16,384 in 2.5 s.
"""

import argparse
import multiprocessing
import re
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F

from modeling_valor import alignment_blocks
from modeling_valor.alignment import TokenSet, contrastive_loss, grouped_similarity


TEXT_TOKENS, FRAMES, CLIPS, WIDTH = 42, 8, 2, 512
TRAINING = ("t-v", "t-a", "t-av")
RETRIEVAL = ("t-av",)
LOGIT_SCALE = 2.66
COMPARED = 512  # rows of scores that are compared


def make_batch(samples: int, device: str, dtype: torch.dtype = torch.float32) -> dict[str, TokenSet]:
    """Texts of 12 to 42 tokens; every sample has all frames and clips. Embeddings and weights are leaves."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(12, TEXT_TOKENS + 1, (samples, 1), generator=generator)
    tokens = {}
    for modality, count in (("text", TEXT_TOKENS), ("video", FRAMES), ("audio", CLIPS)):
        embeds = F.normalize(torch.randn(samples, count, WIDTH, generator=generator), dim=-1)
        logits = torch.randn(samples, count, generator=generator)
        mask = (torch.arange(count) < lengths).to(device) if modality == "text" else None
        embeds, logits = (part.to(device, dtype).requires_grad_() for part in (embeds, logits))
        tokens[modality] = TokenSet(embeds, mask, logits, zero_padding=modality == "text")
    return tokens


def einsum_similarity(text: TokenSet, candidates: list[TokenSet]) -> Tensor:
    """One group as in 2023."""
    embeds = torch.cat([part.embeds for part in candidates], dim=1)
    mask = embeds.new_ones(embeds.shape[:2])
    text_weights = text.weight_logits.masked_fill(~text.mask, -torch.inf).softmax(dim=1)
    weights = torch.cat([part.weight_logits for part in candidates], dim=1).softmax(dim=1)
    similarities = torch.einsum("atd,bvd->abtv", text.embeds, embeds)
    similarities = torch.einsum("abtv,at->abtv", similarities, text.mask.to(similarities.dtype))
    similarities = torch.einsum("abtv,bv->abtv", similarities, mask)
    forth = torch.einsum("abt,at->ab", similarities.max(dim=3).values, text_weights)
    back = torch.einsum("abv,bv->ab", similarities.max(dim=2).values, weights)
    return (forth + back) / 2


def three_einsums(tokens: dict[str, TokenSet], groups: tuple[str, ...]) -> dict[str, Tensor]:
    text, video, audio = tokens.values()
    candidates = {"t-v": [video], "t-a": [audio], "t-av": [video, audio]}
    return {group: einsum_similarity(text, candidates[group]) for group in groups}


def blocks(tokens: dict[str, TokenSet], groups: tuple[str, ...]) -> dict[str, Tensor]:
    with mock.patch.object(alignment_blocks, "has_kernel", lambda device: False):
        return grouped_similarity(**tokens, groups=groups)


def shared_pass(tokens: dict[str, TokenSet], groups: tuple[str, ...]) -> dict[str, Tensor]:
    return grouped_similarity(**tokens, groups=groups)


def run(variant: Callable, tokens: dict[str, TokenSet], groups: tuple[str, ...], backward: bool) -> dict[str, Tensor]:
    with torch.set_grad_enabled(backward):
        similarity = variant(tokens, groups)
        if backward:
            loss = sum(contrastive_loss(score, LOGIT_SCALE) for score in similarity.values())
            leaves = [leaf for part in tokens.values() for leaf in (part.embeds, part.weight_logits)]
            torch.autograd.grad(loss, leaves)
    return {group: score.detach() for group, score in similarity.items()}


def memory(device: str) -> tuple[float, float]:
    """(held now, the most held since `forget_peak`), in MiB."""
    if device == "cuda":
        return torch.cuda.memory_allocated() / 2**20, torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status").read_text()
    return tuple(int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) / 1024 for field in ("VmRSS", "VmHWM"))


def forget_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def measure(
    variant: Callable,
    groups: tuple[str, ...],
    backward: bool,
    samples: int,
    device: str,
    dtype: torch.dtype,
    threads: int,
    repeats: int,
) -> tuple[float, float, dict[str, Tensor]]:
    """(seconds, MiB, scores of the first rows), in the process it is called in."""
    torch.set_num_threads(threads)
    # What libraries set up once, such as compiled kernels, is not counted
    run(variant, make_batch(16, device, dtype), groups, backward)
    tokens = make_batch(samples, device, dtype)
    forget_peak(device)
    before, _ = memory(device)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        scores = run(variant, tokens, groups, backward)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        if len(seconds) == 1:
            _, peak = memory(device)
    return min(seconds), peak - before, {group: score[:COMPARED].cpu() for group, score in scores.items()}


def alone(device: str, function: Callable, *arguments: Any) -> Any:
    """The result of a call in a process of its own, whose peak of memory is that of the call; torch counts that of a GPU."""
    if device == "cuda":
        return function(*arguments)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def tune(samples: int, dtype: torch.dtype, repeats: int) -> None:
    """Prints the time of the kernel for several sizes of its tiles, forward and backward."""
    from modeling_valor import alignment_fused

    tokens = make_batch(samples, "cuda", dtype)
    narrow, wide = (64, 96), (128, 96)
    for tile, warps, stages in (
        (wide, 4, 3),
        (wide, 8, 3),
        (wide, 4, 2),
        (narrow, 4, 3),
        (narrow, 8, 3),
        ((128, 160), 8, 3),
    ):
        alignment_fused._TILE, alignment_fused._WARPS, alignment_fused._STAGES = tile, warps, stages
        seconds = {}
        for backward in (False, True):
            best = float("inf")
            for _ in range(repeats + 1):  # the first one compiles
                start = time.perf_counter()
                run(shared_pass, tokens, TRAINING, backward)
                torch.cuda.synchronize()
                best = min(best, time.perf_counter() - start)
            seconds[backward] = best
        print(
            f"  {tile[0]} x {tile[1]}, {warps} warps, {stages} stages: {seconds[False]:.4f} s forward, {seconds[True]:.4f} s in all"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=384, help="texts, and videos")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="runs per process")
    parser.add_argument("--rounds", type=int, default=2, help="processes per variant, which take turns")
    parser.add_argument("--alone", action="store_true", help="leave out the einsums, which may not fit")
    parser.add_argument("--tune", action="store_true", help="compare sizes of the kernel's tiles instead")
    arguments = parser.parse_args()
    dtype = getattr(torch, arguments.dtype)
    settings = (arguments.batch, arguments.device, dtype, arguments.threads, arguments.repeats)
    variants = {"einsums": three_einsums, "blocks": blocks, "kernel": shared_pass}
    if arguments.device == "cpu":
        del variants["kernel"]
    if arguments.alone:
        del variants["einsums"]

    print(
        f"{arguments.batch} x {arguments.batch}, {TEXT_TOKENS} text tokens, {FRAMES} frames + {CLIPS} clips, "
        f"width {WIDTH}, {arguments.dtype}, "
        + (torch.cuda.get_device_name() if arguments.device == "cuda" else f"cpu, {arguments.threads} threads")
    )
    if arguments.tune:
        tune(arguments.batch, dtype, arguments.repeats)
        return
    tasks = {"training, forward and backward": (TRAINING, True), "retrieval, forward only": (RETRIEVAL, False)}
    for task, (groups, backward) in tasks.items():
        print(f"{task}: {', '.join(groups)}")
        best = {}
        for _ in range(arguments.rounds):
            for name, variant in variants.items():
                measured = alone(arguments.device, measure, variant, groups, backward, *settings)
                seconds, mebibytes, scores = measured
                if name in best:
                    seconds, mebibytes = min(seconds, best[name][0]), max(mebibytes, best[name][1])
                best[name] = seconds, mebibytes, scores
        (first_seconds, first_mebibytes, first_scores) = next(iter(best.values()))
        for name, (seconds, mebibytes, scores) in best.items():
            apart = max((first_scores[group] - scores[group]).abs().max().item() for group in groups)
            print(
                f"  {name:12}{seconds:8.4f} s{mebibytes:8.0f} MiB   {seconds / first_seconds:.2f} of the time, "
                f"{mebibytes / first_mebibytes:.2f} of the memory, scores differ by at most {apart:.1e}"
            )


if __name__ == "__main__":
    main()
