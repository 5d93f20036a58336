# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Time and peak memory of retrieval scoring as `valor evaluate` does it, against one einsum over all tokens.

The einsum makes all token similarities at once, (texts, clips, text tokens, frames and sounds), as the 2023 code did: they
are multiplied by the masks of both sides and reduced to scores by maxima and weights. "Masked in place" is the same with
what can be saved without blocks: no masks but that of the texts, in place, and maxima without their positions. "Product
alone" is the matrix product of all tokens without anything else, about half of the einsum's time; scoring in blocks comes
to less where texts end with padding, which it leaves out.

Each variant runs in processes of its own, which take turns; the best time counts, and memory is the peak above the inputs.
On a machine with other work look at CPU time with one thread: it does not count waiting.

    python benchmarks/evaluation.py [--texts 1000] [--clips 1000] [--shortest 42]
"""

import argparse
import multiprocessing
import re
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from modeling_valor.alignment import TokenSet, grouped_similarity
from modeling_valor.evaluation import retrieval_metrics


TEXT_TOKENS, FRAMES, CLIPS, WIDTH = 42, 8, 2, 512
ROWS = 512  # texts of a block, as in `modeling_valor.evaluation.retrieve`


def make_embeddings(texts: int, clips: int, shortest: int) -> dict[str, TokenSet]:
    """Texts of `shortest` to 42 tokens, each somewhat like its clip: ranks are neither all first nor all chance."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    topics = noise(clips, 1, WIDTH) / 8
    lengths = torch.randint(shortest, TEXT_TOKENS + 1, (texts, 1), generator=generator)
    mask = torch.arange(TEXT_TOKENS) < lengths
    sizes = {"text": TEXT_TOKENS, "video": FRAMES, "audio": CLIPS}
    tokens = {}
    for name, count in sizes.items():
        rows = topics[torch.arange(texts) % clips] if name == "text" else topics
        embeds = F.normalize(rows + noise(len(rows), count, WIDTH), dim=-1)
        text = name == "text"  # its padding counts as 0, as in the released checkpoints
        tokens[name] = TokenSet(embeds, mask if text else None, noise(len(rows), count), zero_padding=text)
    return tokens


def one_einsum(tokens: dict[str, TokenSet]) -> Tensor:
    clips, clip_weights, text_weights = joined(tokens)
    text_mask, clip_mask = tokens["text"].mask.to(clips.dtype), torch.ones_like(clip_weights)
    similarities = torch.einsum("tnc,kmc->tknm", tokens["text"].embeds, clips)
    similarities = torch.einsum("tknm,tn->tknm", similarities, text_mask)
    similarities = torch.einsum("tknm,km->tknm", similarities, clip_mask)
    forth = torch.einsum("tkn,tn->tk", similarities.max(dim=3).values, text_weights)
    back = torch.einsum("tkm,km->tk", similarities.max(dim=2).values, clip_weights)
    return (forth + back) / 2


def masked_in_place(tokens: dict[str, TokenSet]) -> Tensor:
    text = tokens["text"]
    clips, clip_weights, text_weights = joined(tokens)
    similarities = torch.einsum("tnc,kmc->tknm", text.embeds, clips)
    similarities.masked_fill_(~text.mask[:, None, :, None], 0)
    forth = torch.einsum("tkn,tn->tk", similarities.amax(dim=3), text_weights)
    back = torch.einsum("tkm,km->tk", similarities.amax(dim=2), clip_weights)
    return (forth + back) / 2


def joined(tokens: dict[str, TokenSet]) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens of the clips, their weights and those of the texts' tokens."""
    text, video, audio = tokens.values()
    clips = torch.cat([video.embeds, audio.embeds], dim=1)
    clip_weights = torch.cat([video.weight_logits, audio.weight_logits], dim=1).softmax(dim=1)
    return clips, clip_weights, text.weight_logits.masked_fill(~text.mask, -torch.inf).softmax(dim=1)


def in_blocks(tokens: dict[str, TokenSet]) -> Tensor:
    text, video, audio = tokens.values()
    blocks = []
    for start in range(0, len(text.embeds), ROWS):
        rows = slice(start, start + ROWS)
        block = TokenSet(text.embeds[rows], text.mask[rows], text.weight_logits[rows], text.zero_padding)
        blocks.append(grouped_similarity(block, video, audio, ["t-av"])["t-av"])
    return torch.cat(blocks)


def product_alone(tokens: dict[str, TokenSet]) -> None:
    text, video, audio = tokens.values()
    clips = torch.cat([video.embeds, audio.embeds], dim=1).flatten(0, 1)
    torch.mm(text.embeds.flatten(0, 1), clips.mT)


VARIANTS = {
    "one einsum": one_einsum,
    "masked in place": masked_in_place,
    "product alone": product_alone,
    "in blocks": in_blocks,
}


def memory(field: str) -> float:
    """VmRSS, what is held now, or VmHWM, the most that was held; in MiB."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


@torch.no_grad()
def measure(
    variant: Callable, texts: int, clips: int, shortest: int, threads: int
) -> tuple[float, float, float, Tensor | None]:
    """(seconds, seconds of CPU time, MiB, scores), in the process it is called in."""
    torch.set_num_threads(threads)
    variant(make_embeddings(8, 8, shortest))  # what libraries set up once is not counted
    tokens = make_embeddings(texts, clips, shortest)
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    start, cpu_start = time.perf_counter(), time.process_time()
    scores = variant(tokens)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    return seconds, cpu_seconds, memory("VmHWM") - before, scores


def ranks(scores: Tensor) -> Tensor:
    """Rank of each text's clip."""
    right = torch.arange(len(scores)) % scores.shape[1]
    return (scores >= scores.gather(1, right[:, None])).sum(dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--shortest", type=int, default=12, help="tokens of the shortest texts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="processes per variant, which take turns")
    arguments = parser.parse_args()
    print(
        f"{arguments.texts} texts x {arguments.clips} clips, {arguments.shortest} to {TEXT_TOKENS} text tokens, {FRAMES} "
        f"frames + {CLIPS} clips, width {WIDTH}, float32, {arguments.threads} threads"
    )
    sizes = (arguments.texts, arguments.clips, arguments.shortest, arguments.threads)
    results = {name: [] for name in VARIANTS}
    for _ in range(arguments.rounds):
        for name, variant in VARIANTS.items():
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
                results[name].append(process.submit(measure, variant, *sizes).result())
    best = {}
    for name, turns in results.items():
        seconds, cpu_seconds, mebibytes, _ = zip(*turns, strict=True)
        best[name] = min(seconds), min(cpu_seconds), max(mebibytes)
        print("  {:16}{:8.3f} s{:8.3f} s of CPU{:8.0f} MiB".format(name, *best[name]))
    ours = results["in blocks"][0][-1]
    for name in ("one einsum", "masked in place"):
        ratios = [mine / theirs for mine, theirs in zip(best["in blocks"], best[name], strict=True)]
        theirs = results[name][0][-1]
        differing = (ranks(theirs) != ranks(ours)).sum().item()
        print(
            "  in blocks / {}: {:.2f} of the time, {:.2f} of the CPU time, {:.3f} of the memory".format(name, *ratios)
            + f"; scores differ by at most {(theirs - ours).abs().max():.1e}, {differing} of {len(ours)} ranks differ"
        )
    positives = [[text % arguments.clips] for text in range(arguments.texts)]
    print(f"  {retrieval_metrics(ours, positives)}")


if __name__ == "__main__":
    main()
