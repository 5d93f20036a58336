# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Retrieval metrics: recall and rank, in both directions, from whole similarity matrices or blocks of their rows."""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor


logger = logging.getLogger(__name__)

RECALLS = (1, 5, 10)

_ROWS_OF_A_BLOCK = 512


def retrieval_metrics(
    similarity: Tensor, positives: Sequence[Sequence[int]], dual_softmax: bool = False, temperature: float = 0.01
) -> dict[str, float]:
    """ "R@1", "R@5", "R@10" in percent, "MedianR" and "MeanR" of the queries in the rows of `similarity`.

    `similarity` is (queries, items), a tensor or array of any floating type, with -inf for items that are no candidates;
    `positives` has the column indices of each query's right items. The rank of a query is that of its best right item, 1
    for the first; wrong items with the same similarity are ranked before it, so a constant matrix has no recall. Queries
    without a right item are excluded.

    `dual_softmax` multiplies each similarity with a softmax of similarity / `temperature` over all queries of its item
    (Cheng et al., 2021), before ranking. It uses the other queries of the test set, so report it separately. The default
    temperature fits similarities in [-1, 1], as `ValorModel.compute_similarity` returns them. The product of a negative
    similarity decreases when its softmax increases. So if any are negative, the lowest is subtracted from all, with one
    warning.

    Raises:
        ValueError: If a similarity is NaN or inf, or `positives` does not fit the matrix.
    """
    similarity = torch.as_tensor(similarity)
    return retrieval_metrics_in_blocks(
        lambda: torch.split(similarity, _ROWS_OF_A_BLOCK), positives, dual_softmax, temperature
    )[0]


def retrieval_metrics_in_blocks(
    blocks: Callable[[], Iterable[Tensor]],
    positives: Sequence[Sequence[int]],
    dual_softmax: bool = False,
    temperature: float = 0.01,
) -> tuple[dict[str, float], dict[str, float]]:
    """`retrieval_metrics` of both directions, queries to items and items to queries, without the whole matrix.

    `blocks()` returns the similarity matrix as consecutive blocks of rows, (rows, items) each, on any device. It is called
    two times, and once more for `dual_softmax`, and must return the same blocks each time. Memory is a few times that of
    one block. `positives` has each query's right items, and thereby each item's right queries.
    """
    pairs = _Pairs(positives)
    normalizers, shift = _dual_softmax_terms(blocks, temperature) if dual_softmax else (None, 0.0)
    if shift:
        logger.warning(
            f"Some similarities are negative, down to {-shift:.4g}: dual softmax uses similarities + {shift:.4g}, because "
            "products of negative ones would have the wrong order."
        )

    def scored() -> Iterable[tuple[Tensor, Tensor, Tensor]]:
        """Each block's mask of right pairs, its scores for its queries and its scores for all items."""
        start = 0
        for block in blocks():
            block = _checked(block, start)
            right = pairs.mask(start, block)
            start += block.shape[0]
            if normalizers is None:
                yield right, block, block
            else:
                logits = block.double() / temperature
                yield (
                    right,
                    _multiply(block, shift, logits - normalizers.to(block.device)),
                    _multiply(block, shift, logits - logits.logsumexp(dim=1, keepdim=True)),
                )
        if start != len(positives):
            raise ValueError(f"The similarity matrix has {start} rows, but `positives` has {len(positives)} queries.")

    # One tensor for all ranks: many small tensors would keep the allocator from reusing the memory of blocks
    query_ranks, start = torch.empty(len(positives), dtype=torch.long), 0
    best_of_items: Any = None  # until there is a block
    for right, for_queries, for_items in scored():
        stop = start + len(right)
        if stop <= len(positives):
            query_ranks[start:stop] = _ranks(for_queries, right, _best(for_queries, right, dim=1), dim=1)
        start = stop
        best = _best(for_items, right, dim=0)
        best_of_items = best if best_of_items is None else torch.maximum(best_of_items, best)
    wrong_before = reduce(
        torch.add, (_ranks(for_items, right, best_of_items, dim=0) - 1 for right, _, for_items in scored())
    )
    item_ranks = wrong_before.cpu() + 1
    return _metrics(query_ranks[pairs.queries]), _metrics(item_ranks[pairs.items])


@dataclass(frozen=True)
class QueryRanks:
    """Ranks of the right items of Q queries, and their top items.

    Args:
        ranks: (Q,), the rank of the best right item as in [`retrieval_metrics`]; 0 for queries without right items.
        best, best_scores: (Q,), that item and its similarity; undefined if the rank is 0.
        top, top_scores: (Q, K), the first K items and their similarities.
    """

    ranks: Tensor
    best: Tensor
    best_scores: Tensor
    top: Tensor
    top_scores: Tensor


def query_ranks(similarity: Tensor, positives: Sequence[Sequence[int]], top: int = 3) -> QueryRanks:
    """Ranks of the queries in the rows of `similarity`, one by one; arguments are those of [`retrieval_metrics`].

    On the CPU, in blocks of rows.
    """
    pairs, blocks = _Pairs(positives), []
    for start in range(0, len(similarity), _ROWS_OF_A_BLOCK):
        block = similarity[start : start + _ROWS_OF_A_BLOCK]
        right = pairs.mask(start, block)
        best_scores = _best(block, right, dim=1)
        best = (right & (block == best_scores[:, None])).int().argmax(dim=1)
        ranks = _ranks(block, right, best_scores, dim=1).where(right.any(dim=1), 0)
        top_scores, items = block.topk(min(top, block.shape[1]), dim=1)
        blocks.append((ranks, best, best_scores, items, top_scores))
    return QueryRanks(*(torch.cat(part).cpu() for part in zip(*blocks, strict=True)))


class _Pairs:
    """The right (query, item) pairs, sorted by query; `queries` and `items` are those that occur in one."""

    def __init__(self, positives: Sequence[Sequence[int]]) -> None:
        self.rows = torch.repeat_interleave(torch.tensor([len(items) for items in positives], dtype=torch.long))
        self.columns = torch.tensor([item for items in positives for item in items], dtype=torch.long)
        if not len(self.columns):
            raise ValueError("No query has a right item; `positives` needs at least one query with an item.")
        self.queries, self.items = torch.unique(self.rows), torch.unique(self.columns)

    def mask(self, start: int, block: Tensor) -> Tensor:
        """Which entries of the rows from `start` on are right pairs, as a bool tensor of the block's shape."""
        if self.columns.min() < 0 or self.columns.max() >= block.shape[1]:
            raise ValueError(
                f"`positives` has items {self.columns.min()} to {self.columns.max()}, "
                f"but the similarity matrix has columns 0 to {block.shape[1] - 1}."
            )
        low, high = torch.searchsorted(self.rows, torch.tensor([start, start + block.shape[0]])).tolist()
        mask = torch.zeros(block.shape, dtype=torch.bool)
        mask[self.rows[low:high] - start, self.columns[low:high]] = True
        return mask.to(block.device)


def _checked(block: Tensor, start: int) -> Tensor:
    block = torch.as_tensor(block)
    if block.dim() != 2 or not block.is_floating_point():
        raise ValueError(f"Similarities are matrices of floats, not {block.dtype} of shape {tuple(block.shape)}.")
    broken = ~(block < math.inf)
    if broken.any():
        row, column = broken.nonzero()[0].tolist()
        raise ValueError(
            f"The similarity of query {start + row} and item {column} is {block[row, column].item()}; "
            "similarities must be numbers, or -inf for items that are no candidates."
        )
    return block


def _dual_softmax_terms(blocks: Callable[[], Iterable[Tensor]], temperature: float) -> tuple[Tensor, float]:
    """log of each item's denominator, (items,), in double precision, and the shift that makes all finite similarities >= 0."""
    total: Any = None  # until there is a block
    shift, start = 0.0, 0
    for block in blocks():
        block = _checked(block, start)
        start += block.shape[0]
        part = (block.double() / temperature).logsumexp(dim=0).cpu()
        total = part if total is None else torch.logaddexp(total, part)
        shift = max(shift, -block.masked_fill(block == -math.inf, 0).min().item())
    return total, shift


def _multiply(similarity: Tensor, shift: float, log_softmax: Tensor) -> Tensor:
    """(similarity + shift) * exp(log_softmax) in double precision, -inf where the similarity is."""
    product = (similarity.double() + shift) * log_softmax.exp()
    return product.masked_fill(similarity == -math.inf, -math.inf)


def _best(scores: Tensor, right: Tensor, dim: int) -> Tensor:
    return scores.masked_fill(~right, -math.inf).amax(dim=dim)


def _ranks(scores: Tensor, right: Tensor, best: Tensor, dim: int) -> Tensor:
    """One more than the number of wrong candidates that score at least `best`."""
    return 1 + ((scores >= best.unsqueeze(dim)) & ~right).sum(dim=dim)


def _metrics(ranks: Tensor) -> dict[str, float]:
    ranks = ranks.double()
    return {
        **{f"R@{k}": 100 * (ranks <= k).double().mean().item() for k in RECALLS},
        "MedianR": ranks.quantile(0.5).item(),
        "MeanR": ranks.mean().item(),
    }
