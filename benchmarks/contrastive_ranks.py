# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What a contrastive step costs one of several ranks: its own rows of the score matrices, against all samples by all.

One process is rank 0 of a simulated group in which exchanges cost nothing: every rank has the same samples, so both variants
must give the same loss. The bytes that a rank receives are printed instead. A step is gathering, three groups of scores, the
losses and the gradients of the rank's own embeddings. Time is that of the processors, or of the GPU.

    python benchmarks/contrastive_ranks.py [--batch 1024] [--ranks 8] [--device cuda --dtype bfloat16]
"""

import argparse
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from alignment import CLIPS, FRAMES, LOGIT_SCALE, TEXT_TOKENS, TRAINING, WIDTH, alone, forget_peak, make_batch, memory
from torch import Tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from modeling_valor import alignment_ranks
from modeling_valor.alignment import (
    TokenSet,
    contrastive_loss,
    contrastive_losses,
    grouped_similarity,
    similarity_over_ranks,
)


def all_by_all(tokens: dict[str, TokenSet]) -> Tensor:
    """Each rank gathers the samples of all, and compares all of them with all."""
    gathered, _ = alignment_ranks.gather_tokens(tokens, list(tokens))
    similarity = grouped_similarity(**gathered, groups=TRAINING)
    return sum(contrastive_loss(scores, LOGIT_SCALE) for scores in similarity.values())


def own_rows(tokens: dict[str, TokenSet]) -> Tensor:
    similarity, samples = similarity_over_ranks(**tokens, groups=TRAINING)
    losses, _ = contrastive_losses(similarity, LOGIT_SCALE, samples)
    return sum(losses.values())


def step(variant: Callable, tokens: dict[str, TokenSet]) -> float:
    loss = variant(tokens)
    torch.autograd.grad(loss, [leaf for part in tokens.values() for leaf in (part.embeds, part.weight_logits)])
    return loss.item()


def received(variant: Callable, tokens: dict[str, TokenSet], ranks: int) -> float:
    """MiB that a rank receives from the others in a forward pass; the gradients go back the same way."""
    sizes, all_gather = [], alignment_ranks._all_gather

    def counted(tensor: Tensor) -> Tensor:
        sizes.append(tensor.nbytes)
        return all_gather(tensor)

    alignment_ranks._all_gather = counted
    with torch.no_grad():
        variant(tokens)
    alignment_ranks._all_gather = all_gather
    return sum(sizes) * (ranks - 1) / 2**20


def measure(
    variant: Callable, samples: int, ranks: int, device: str, dtype: torch.dtype, threads: int, repeats: int
) -> tuple[float, float, float, float]:
    """(seconds, MiB above the rank's own samples, MiB received, loss), in the process it is called in."""
    torch.set_num_threads(threads)
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
    step(variant, make_batch(8, device, dtype))  # what libraries set up once is not counted
    tokens = make_batch(samples // ranks, device, dtype)
    forget_peak(device)
    before, _ = memory(device)
    clock = time.perf_counter if device == "cuda" else time.process_time
    seconds = []
    for _ in range(repeats):
        start = clock()
        loss = step(variant, tokens)  # waits for the device
        seconds.append(clock() - start)
        if len(seconds) == 1:
            _, peak = memory(device)
    transfer = received(variant, tokens, ranks)
    dist.destroy_process_group()
    return min(seconds), peak - before, transfer, loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=1024, help="samples of all ranks together")
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    dtype = getattr(torch, arguments.dtype)
    settings = (arguments.batch, arguments.ranks, arguments.device, dtype, arguments.threads, arguments.repeats)
    print(
        f"{arguments.batch} samples on {arguments.ranks} ranks, {TEXT_TOKENS} text tokens, {FRAMES} frames + {CLIPS} clips, "
        f"width {WIDTH}, {arguments.dtype}, {', '.join(TRAINING)}, {arguments.device}, {arguments.threads} threads"
    )
    results = {}
    for name, variant in {"all by all": all_by_all, "own rows": own_rows}.items():
        results[name] = alone(arguments.device, measure, variant, *settings)
        seconds, mebibytes, transfer, _ = results[name]
        print(f"  {name:12}{seconds:9.4f} s{mebibytes:8.0f} MiB{transfer:8.1f} MiB received")
    before, now = results.values()
    time_ratio, memory_ratio, transfer_ratio = (new / old for new, old in zip(now[:3], before[:3], strict=True))
    print(f"  {'ratio':12}{time_ratio:8.3f}  {memory_ratio:8.3f}    {transfer_ratio:8.3f}")
    print(f"  losses differ by {abs(before[3] - now[3]):.1e}")


if __name__ == "__main__":
    main()
