# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What the ranks of a distributed training tell each other, so that a contrastive loss sees the samples of all of them.

Each rank compares its own rows of a score matrix with the columns of all ranks (`gather_tokens`), and of the columns it
needs no more than the sums over the other ranks' rows (`RankSamples.gather`): of B samples on W ranks a rank computes
B / W x B scores.

Gradients: what is gathered receives the sum of the gradients of all ranks. Where each of W ranks has the same loss, that
is W times the gradient of a single process, and the mean over the ranks that DistributedDataParallel takes makes it equal.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


if TYPE_CHECKING:
    from .alignment import TokenSet


def is_distributed() -> bool:
    """Whether several processes run together, in a process group of torch."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def mean_over_ranks(tensor: Tensor) -> Tensor:
    """The mean of a tensor over all ranks, without gradients; itself where training is not distributed."""
    if not is_distributed():
        return tensor
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


@dataclass(frozen=True)
class RankSamples:
    """Which of all samples are on this rank.

    Args:
        counts: the number of samples of each rank. A single number: all samples are here, and nothing is exchanged.
        rank: this rank.
    """

    counts: tuple[int, ...]
    rank: int = 0

    @property
    def start(self) -> int:
        """How many samples are on the ranks before this one."""
        return sum(self.counts[: self.rank])

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensors of all ranks, (W, ...), with gradients. They have the same shape on every rank."""
        if len(self.counts) == 1:
            return tensor[None]
        gathered: Tensor = _AllGather.apply(tensor)
        return gathered

    def join(self, tensor: Tensor) -> Tensor:
        """What each rank has of its samples, (samples, ...), for the samples of all ranks, with gradients."""
        largest = max(self.counts)
        gathered = self.gather(_pad(tensor, (largest, *tensor.shape[1:])))
        if min(self.counts) == largest:
            return gathered.flatten(0, 1)
        return torch.cat([part[:count] for part, count in zip(gathered, self.counts, strict=True)])


def gather_tokens(
    tokens: Mapping[str, "TokenSet | None"], names: Collection[str]
) -> tuple[dict[str, "TokenSet"], RankSamples]:
    """Token sets with the samples of all ranks, in the order of the ranks, with gradients.

    Args:
        tokens: this rank's samples of each modality, None for a modality that is not there. The names are the same on every
            rank; ranks may differ in their numbers of samples and tokens, and in whether they have masks: shorter samples
            are padded and masked.
        names: which of the sets to gather.

    Returns:
        (the sets of `names`, where the samples of this rank are). Without distributed training the sets are as given.

    Raises:
        ValueError: a modality is there on some ranks only. Such ranks would wait for each other; they can pass tokens whose
            mask is False everywhere.
    """
    given = {name: part for name, part in tokens.items() if part is not None}
    if not is_distributed():
        return {name: given[name] for name in names}, RankSamples((len(next(iter(given.values())).embeds),))
    sizes = _sizes_of_all_ranks(tokens)
    present = [[part[0] >= 0 for part in rank] for rank in sizes]
    if any(rank != present[0] for rank in present):
        raise ValueError(
            f"The ranks have different modalities: {present}, each in the order {', '.join(tokens)}. Pass all of them on "
            "every rank, masked where a rank's samples lack one."
        )
    first = present[0].index(True)
    samples = RankSamples(tuple(rank[first][0] for rank in sizes), dist.get_rank())
    gathered = {}
    for name, *of_ranks in zip(tokens, *sizes, strict=True):
        if name in names:
            length = max(tokens_of_rank for _, tokens_of_rank, _ in of_ranks)
            is_masked = any(masked or count < length for _, count, masked in of_ranks)
            gathered[name] = _gather_set(given[name], length, is_masked, samples)
    return gathered, samples


def _gather_set(tokens: "TokenSet", length: int, is_masked: bool, samples: RankSamples) -> "TokenSet":
    """A set with the samples of all ranks, each with this number of tokens, and with a mask only if any rank needs one."""
    embeds, mask, logits = tokens.embeds, tokens.mask, tokens.weight_logits
    count, _, width = embeds.shape
    if is_masked and mask is None:
        mask = torch.ones(embeds.shape[:2], dtype=torch.bool, device=embeds.device)
    return replace(
        tokens,
        embeds=samples.join(_pad(embeds, (count, length, width))),
        mask=None if mask is None else samples.join(_pad(mask, (count, length))),
        weight_logits=None if logits is None else samples.join(_pad(logits, (count, length))),
    )


def _sizes_of_all_ranks(tokens: Mapping[str, "TokenSet | None"]) -> list[list[list[int]]]:
    """For each rank and set its samples, its tokens and whether it has a mask; (-1, -1, 0) for a set that is not there."""
    device, sizes = torch.device("cpu"), []
    for part in tokens.values():
        if part is not None:
            device = part.embeds.device
        sizes.append([-1, -1, 0] if part is None else [*part.embeds.shape[:2], int(part.mask is not None)])
    gathered: list[list[list[int]]] = _all_gather(torch.tensor(sizes, device=device)).tolist()
    return gathered


def _pad(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The tensor with zeros (False) at the end of each of its dimensions."""
    missing = [size - own for size, own in zip(shape, tensor.shape, strict=True)]
    if not any(missing):
        return tensor
    return F.pad(tensor, [amount for size in reversed(missing) for amount in (0, size)])


def _all_gather(tensor: Tensor) -> Tensor:
    """(W, ...)."""
    gathered = tensor.new_empty(dist.get_world_size(), *tensor.shape)
    # Since torch 2.14 under the first of these names
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    gather(gathered.view(-1), tensor.reshape(-1))
    return gathered


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return _all_gather(tensor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        own = grad.new_empty(grad.shape[1:])
        reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
        reduce_scatter(own.view(-1), grad.reshape(-1))
        return own
