# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""How fine-grained similarity (section 4.2, eq. 3) is computed for many samples in little memory.

The plain form, of one comparison of a side of rows with a side of columns, is this:

    def plain_scores(rows, columns):
        similarity = torch.einsum("anc,bmc->abnm", rows.embeds, columns.embeds)  # (A, B, N, M)
        row_side = best(similarity, columns.mask[None, :, None], columns.zero_padding)  # (A, B, N)
        column_side = best(similarity.mT, rows.mask[:, None, None], rows.zero_padding)  # (A, B, M)
        row_part = torch.einsum("abn,an->ab", row_side, weights(rows))
        column_part = torch.einsum("abm,bm->ab", column_side, weights(columns))
        absent = ~rows.mask.any(1)[:, None] | ~columns.mask.any(1)
        return (0.5 * (row_part + column_part)).masked_fill(absent, -torch.inf)

    def best(similarity, mask, zero_padding):
        return similarity.masked_fill(~mask, 0.0 if zero_padding else -1e4).amax(-1)

    def weights(tokens):
        return tokens.weight_logits.masked_fill(~tokens.mask, -1e4).softmax(-1)

It holds A x B x N x M token similarities, and autograd holds them again. Here they exist one block at a time: the forward
pass keeps only the scores, and the backward pass computes each block once more and gives the gradient to the chosen pairs.
Several comparisons share the similarities of the sets that they have in common.
"""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers.utils import logging


if TYPE_CHECKING:
    from .alignment import TokenSet


logger = logging.get_logger(__name__)

# Row tokens and column tokens of one block. On a CPU such a block stays in the cache, where everything but its matrix
# products is cheap, and each of a few threads has this number of row tokens.
_CPU_BLOCK = (768, 2560)
_CPU_THREADS = 4

# An accelerator needs few large kernels: token similarities of one block, at least and at most. Larger ones gain nothing.
_ACCELERATOR_BLOCKS = (2**23, 2**27)
_USED_MEMORY = 1 / 4  # of what is free
_BLOCK_COPIES = (
    3  # the backward pass holds similarities and gradient of a block; the third is for what is small beside them
)

# Added to the similarities of tokens that no maximum may choose. Finite in any type, also if it is added twice, because
# infinity times a weight or a gradient of zero would be NaN.
EXCLUDED = -1e4


_kernel_errors: list[Exception] = []  # why the kernel is not used any more, in this process


@dataclass(frozen=True)
class Comparison:
    """One score matrix: the joint tokens of the sets named in `rows` against those of the sets named in `columns`."""

    rows: tuple[Hashable, ...]
    columns: tuple[Hashable, ...]
    uniform: bool = False


def score_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def compare(
    rows: Mapping[Any, "TokenSet"], columns: Mapping[Any, "TokenSet"], comparisons: Sequence[Comparison]
) -> list[Tensor]:
    """The score matrix (row samples, column samples) of each comparison, -inf where a sample has no valid token.

    By a kernel (`alignment_fused`) where there is one; otherwise in blocks, of all tokens of the rows with all tokens of the
    columns, once. Groups with the text as query use all of these similarities; with all six groups an eighth is not used,
    such as video with video.
    """
    if not comparisons:
        return []
    rows = {name: rows[name] for item in comparisons for name in item.rows}
    columns = {name: columns[name] for item in comparisons for name in item.columns}
    _check_sizes(rows, columns)
    matrices: Sequence[Tensor] | None = None
    if has_kernel(next(iter(rows.values())).embeds.device):
        matrices = _compare_by_kernel(rows, columns, comparisons)
    if matrices is None:
        matrices = _compare_blockwise(rows, columns, comparisons)
    scores = []
    for item, score in zip(comparisons, matrices, strict=True):
        score = _exclude_absent(score, [rows[name] for name in item.rows], dim=1)
        scores.append(_exclude_absent(score, [columns[name] for name in item.columns], dim=0))
    return scores


def has_kernel(device: torch.device) -> bool:
    """Whether `alignment_fused` runs on a device: with Triton, on NVIDIA's GPUs since Ampere; not in compiled code."""
    if device.type != "cuda" or torch.version.hip is not None or torch.compiler.is_compiling() or _kernel_errors:
        return False
    return find_spec("triton") is not None and torch.cuda.get_device_capability(device) >= (8, 0)


def _compare_by_kernel(
    rows: Mapping[Any, "TokenSet"], columns: Mapping[Any, "TokenSet"], comparisons: Sequence[Comparison]
) -> Sequence[Tensor] | None:
    """`compare_fused`; None also if the kernel cannot be built here, such as without a C compiler, which is said once."""
    from .alignment_fused import compare_fused

    try:
        return compare_fused(rows, columns, comparisons)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        _kernel_errors.append(error)
        logger.warning(
            f"The kernel of fine-grained similarity does not run here ({type(error).__name__}: {error}); the same scores are "
            "computed more slowly from now on."
        )
        return None


def _compare_blockwise(
    rows: Mapping[Any, "TokenSet"], columns: Mapping[Any, "TokenSet"], comparisons: Sequence[Comparison]
) -> Sequence[Tensor]:
    """The score matrix of each comparison, without regard to absent samples."""
    row_embeds, row_side = join_tokens(rows)
    column_embeds, column_side = join_tokens(columns)
    weights: list[Tensor] = []
    for item in comparisons:
        weights += token_weights([rows[name] for name in item.rows], item.uniform)
        weights += token_weights([columns[name] for name in item.columns], item.uniform)
    plan = _Plan(comparisons, row_side, column_side)
    matrices: Sequence[Tensor] = _BlockwiseScores.apply(plan, row_embeds, column_embeds, *weights)
    return matrices


def _check_sizes(rows: Mapping[Any, "TokenSet"], columns: Mapping[Any, "TokenSet"]) -> None:
    """Raises a `ValueError` if token sets of one side differ in their samples, or any in their widths."""
    for sets in (rows, columns):
        samples = {name: len(tokens.embeds) for name, tokens in sets.items()}
        if len(set(samples.values())) > 1:
            raise ValueError(
                f"Different numbers of samples are on one side of the scores: {samples}. They must be equal; compute "
                "groups of other sizes in a separate call."
            )
    widths = sorted({tokens.embeds.shape[2] for tokens in (*rows.values(), *columns.values())})
    if len(widths) > 1:
        raise ValueError(f"Embeddings of widths {widths} were given; all modalities must have the same.")


def _exclude_absent(score: Tensor, sets: Sequence["TokenSet"], dim: int) -> Tensor:
    """A score matrix with -inf for samples of one side without any valid token; `dim` is the axis of the other side."""
    masks = [tokens.mask for tokens in sets if tokens.mask is not None]
    if len(masks) < len(sets):
        return score
    absent = ~torch.cat(masks, dim=1).any(dim=1)
    return score.masked_fill(absent.unsqueeze(dim), -torch.inf)


def token_weights(sets: Sequence["TokenSet"], uniform: bool) -> Sequence[Tensor]:
    """The weights (B, N) of each set's tokens, by one softmax over the valid tokens of all."""
    logits = []
    for tokens in sets:
        part = tokens.weight_logits
        if part is None or uniform:
            part = tokens.embeds.new_zeros(tokens.embeds.shape[:2])
        part = part.to(score_dtype(tokens.embeds.dtype))
        # Finite, because the softmax of a sample without any valid token must not be NaN.
        logits.append(part if tokens.mask is None else part.masked_fill(~tokens.mask, torch.finfo(part.dtype).min))
    return torch.split(torch.cat(logits, dim=1).softmax(dim=1), [part.shape[1] for part in logits], dim=1)


@dataclass(frozen=True)
class TokenSide:
    """For the joined tokens of one side: the set of each, which are padding, and which no maximum may choose."""

    slices: dict[Hashable, slice]
    padding: Tensor | None
    excluded: Tensor | None


def join_tokens(sets: Mapping[Hashable, "TokenSet"]) -> tuple[Tensor, TokenSide]:
    """All tokens of a side, (B, N, C). A single set is taken as it is, since text would be costly to copy."""
    slices, padding, excluded, start = {}, [], [], 0
    for name, tokens in sets.items():
        stop = start + tokens.embeds.shape[1]
        slices[name], start = slice(start, stop), stop
        padding.append(
            torch.zeros_like(tokens.embeds[:, :, 0], dtype=torch.bool) if tokens.mask is None else ~tokens.mask
        )
        absent = padding[-1].all(dim=1, keepdim=True).expand_as(padding[-1])
        excluded.append(absent if tokens.zero_padding else padding[-1])
    parts = [tokens.embeds for tokens in sets.values()]
    embeds = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
    if all(tokens.mask is None for tokens in sets.values()):
        return embeds, TokenSide(slices, None, None)
    return embeds, TokenSide(slices, torch.cat(padding, dim=1), torch.cat(excluded, dim=1))


_Pair = tuple[Hashable, Hashable]  # a set of the rows and a set of the columns


@dataclass(frozen=True)
class _Plan:
    """What one pass computes from the joined tokens of its rows and columns.

    Token weights are a list: for each comparison those of its rows' sets, (row samples, N), then those of its columns'.
    """

    comparisons: Sequence[Comparison]
    rows: TokenSide
    columns: TokenSide

    @property
    def weight_sides(self) -> list[tuple[str, int]]:
        """Whose tokens each of the weights is for, "rows" or "columns", and where these begin among the joined ones."""
        return [
            (side, getattr(self, side).slices[name].start)
            for item in self.comparisons
            for side in ("rows", "columns")
            for name in getattr(item, side)
        ]

    def pairs(self, similarities: Tensor) -> dict[_Pair, Tensor]:
        """Views of a block's similarities (n, N, M, q): those of each pair of sets that some comparison needs."""
        return {
            (row, column): similarities[:, self.rows.slices[row], self.columns.slices[column]]
            for item in self.comparisons
            for row in item.rows
            for column in item.columns
        }

    def blocks(self, row_embeds: Tensor, column_embeds: Tensor, weights: Sequence[Tensor]) -> Iterator["_Block"]:
        """The blocks that together hold every row sample against every column sample."""
        dtype = torch.promote_types(row_embeds.dtype, column_embeds.dtype)
        row_tokens, column_tokens = _block_size(row_embeds, column_embeds, dtype)
        row_blocks = list(_row_blocks(row_embeds, self.rows, row_tokens))
        for columns in _slices(column_embeds, column_tokens):
            right, right_bias = _load(column_embeds, self.columns, columns, column_embeds.shape[1], dtype)
            right, right_bias = right.transpose(0, 1).contiguous(), None if right_bias is None else right_bias.mT
            for rows, length in row_blocks:
                left, left_bias = _load(row_embeds, self.rows, rows, length, dtype)
                taken = {"rows": (rows, length), "columns": (columns, column_embeds.shape[1])}
                sliced = []
                for weight, (side, start) in zip(weights, self.weight_sides, strict=True):
                    samples, stop = taken[side]
                    sliced.append(weight[samples, : stop - start])
                yield _Block(rows, columns, left, left_bias, right, right_bias, sliced)


def _block_size(row_embeds: Tensor, column_embeds: Tensor, dtype: torch.dtype) -> tuple[int, int]:
    """Row tokens and column tokens of a block."""
    device = row_embeds.device
    if device.type == "cpu":
        row_tokens, column_tokens = _CPU_BLOCK
        return row_tokens * min(torch.get_num_threads(), _CPU_THREADS), column_tokens
    row_tokens, column_tokens = (embeds.shape[0] * embeds.shape[1] for embeds in (row_embeds, column_embeds))
    return accelerator_block(free_memory(device), row_tokens, column_tokens, dtype.itemsize)


def accelerator_block(free: int | None, row_tokens: int, column_tokens: int, itemsize: int) -> tuple[int, int]:
    """Row tokens and column tokens of a block on an accelerator.

    About square, or longer where one side has few tokens. The number of similarities is a power of 2, so that other
    blocks, which round differently, are chosen only where the free memory differs much.

    Args:
        free: free memory in bytes; None: unknown, which gives the smallest block.
        row_tokens, column_tokens: the tokens of all samples of each side.
        itemsize: bytes of a similarity.
    """
    fewest, most = _ACCELERATOR_BLOCKS
    affordable = 0 if free is None else int(free * _USED_MEMORY) // (itemsize * _BLOCK_COPIES)
    similarities = 1 << (min(max(affordable, fewest), most).bit_length() - 1)
    rows = max(1, min(row_tokens, math.isqrt(similarities)))
    columns = max(1, min(column_tokens, similarities // rows))
    return similarities // columns, columns


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on an accelerator, those included that torch holds and does not use; None if it does not tell."""
    module: Any = getattr(torch, device.type, None)
    if not hasattr(module, "mem_get_info"):
        return None
    free, _ = module.mem_get_info(device)
    return int(free + module.memory_reserved(device) - module.memory_allocated(device))


_Samples = slice | Tensor  # some samples of a side; as a tensor their indices


def _row_blocks(embeds: Tensor, side: TokenSide, tokens: int) -> Iterator[tuple[_Samples, int]]:
    """Row samples that fill a block of this number of tokens, and the number of tokens of each that it needs.

    On a CPU samples of about the same length share a block, and the padding that all of them end with is left out: with
    captions of 12 to 42 tokens that saves a third of the products. An accelerator would have to wait for the lengths.
    """
    count = embeds.shape[1]
    if side.padding is None or side.excluded is None or embeds.device.type != "cpu":
        yield from ((rows, count) for rows in _slices(embeds, tokens))
        return
    lengths = (torch.arange(1, count + 1) * ~side.padding).amax(dim=1)
    # If padding counts as 0 in the maxima, its amount makes no difference, but at least one token of it must stay
    lengths += (side.padding & ~side.excluded).any(dim=1)
    lengths, order = lengths.clamp(max(part.start for part in side.slices.values()) + 1, count).sort(descending=True)
    start = 0
    while start < len(order):
        length = int(lengths[start])
        stop = start + max(1, tokens // length)
        yield order[start:stop], length
        start = stop


def _slices(embeds: Tensor, tokens: int) -> Iterator[slice]:
    """Slices of the samples with at most this number of tokens each, or with a single sample."""
    step = max(1, tokens // embeds.shape[1])
    return (slice(start, start + step) for start in range(0, len(embeds), step))


def _load(
    embeds: Tensor, side: TokenSide, samples: _Samples, length: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    """The first tokens of some samples, (n, N, C), zero at padding; and what to add to exclude them from maxima, (n, N)."""
    tokens = embeds[samples, :length].to(dtype)
    if side.padding is None or side.excluded is None:
        return tokens, None
    padding, excluded = side.padding[samples, :length], side.excluded[samples, :length]
    return tokens.masked_fill(padding[:, :, None], 0), excluded.to(dtype) * EXCLUDED


@dataclass(frozen=True)
class _Block:
    """Some row samples, (n, N, C), against some column samples, (M, q, C).

    Column tokens come first, so that the maxima over either side's tokens run along contiguous memory.
    """

    rows: _Samples
    columns: slice
    left: Tensor
    left_bias: Tensor | None
    right: Tensor
    right_bias: Tensor | None
    weights: list[Tensor]

    def similarities(self) -> Tensor:
        """(n, N, M, q), every row token with every column token."""
        similarities = self.left.flatten(0, 1) @ self.right.flatten(0, 1).mT
        similarities = similarities.view(*self.left.shape[:2], *self.right.shape[:2])
        if self.left_bias is not None:
            similarities += self.left_bias[:, :, None, None]
        if self.right_bias is not None:
            similarities += self.right_bias
        return similarities


def _block_scores(plan: _Plan, block: _Block) -> list[Tensor]:
    """A block's part (n, q) of each score matrix."""
    pairs = plan.pairs(block.similarities())
    row_best = {pair: part.amax(dim=2) for pair, part in pairs.items()}
    column_best = {pair: part.amax(dim=1) for pair, part in pairs.items()}
    return _weigh(plan.comparisons, row_best, column_best, block.weights)


def _block_grads(plan: _Plan, block: _Block, score_grads: Sequence[Tensor]) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
    """The gradients of a block's left tokens, right tokens and weights. Equal maxima share a gradient equally."""
    similarities = block.similarities()
    pairs = plan.pairs(similarities)
    row_best = [part.amax(dim=2).requires_grad_() for part in pairs.values()]
    column_best = [part.amax(dim=1).requires_grad_() for part in pairs.values()]
    weights = [weight.detach().requires_grad_() for weight in block.weights]
    with torch.enable_grad():
        best_of_rows, best_of_columns = (dict(zip(pairs, best, strict=True)) for best in (row_best, column_best))
        scores = _weigh(plan.comparisons, best_of_rows, best_of_columns, weights)
        grads = torch.autograd.grad(scores, [*row_best, *column_best, *weights], score_grads)
    count = len(pairs)
    row_grads, column_grads, weight_grads = grads[:count], grads[count : 2 * count], grads[2 * count :]

    similarity_grad = torch.zeros_like(similarities)
    for index, (part, grad) in enumerate(zip(pairs.values(), plan.pairs(similarity_grad).values(), strict=True)):
        torch.eq(part, row_best[index][:, :, None], out=grad)
        grad *= (row_grads[index] / grad.sum(dim=2))[:, :, None]
        chosen = part.eq_(column_best[index][:, None])  # in place: the similarities are not needed any more
        grad.addcmul_(chosen, (column_grads[index] / chosen.sum(dim=1))[:, None])
    similarity_grad = similarity_grad.flatten(2, 3).flatten(0, 1)  # (n * N, M * q)
    left_grad = (similarity_grad @ block.right.flatten(0, 1)).view_as(block.left)
    right_grad = (similarity_grad.mT @ block.left.flatten(0, 1)).view_as(block.right)
    return left_grad, right_grad, weight_grads


def _weigh(
    comparisons: Sequence[Comparison],
    row_best: Mapping[_Pair, Tensor],
    column_best: Mapping[_Pair, Tensor],
    weights: Sequence[Tensor],
) -> list[Tensor]:
    """Eq. 3 for each comparison, (n, q), from the best match of each row token (n, N, q) and column token (n, M, q)."""
    remaining = iter(weights)
    scores = []
    for item in comparisons:
        parts = []
        for row in item.rows:
            best, weight = reduce(torch.maximum, (row_best[row, column] for column in item.columns)), next(remaining)
            parts.append(torch.einsum("ni,niq->nq", weight, best.to(weight.dtype)))
        for column in item.columns:
            best, weight = reduce(torch.maximum, (column_best[row, column] for row in item.rows)), next(remaining)
            parts.append(torch.einsum("qj,njq->nq", weight, best.to(weight.dtype)))
        scores.append(reduce(torch.add, parts) / 2)
    return scores


class _BlockwiseScores(torch.autograd.Function):
    """The score matrices of a plan. Only the inputs are kept for the backward pass, which computes each block again.

    Under autocast the similarities are computed in the embeddings' own type, as without it.
    """

    @staticmethod
    def forward(
        ctx: Any, plan: _Plan, row_embeds: Tensor, column_embeds: Tensor, *weights: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.plan = plan
        ctx.save_for_backward(row_embeds, column_embeds, *weights)
        scores = [weights[0].new_empty(len(row_embeds), len(column_embeds)) for _ in plan.comparisons]
        with torch.autocast(row_embeds.device.type, enabled=False):
            for block in plan.blocks(row_embeds, column_embeds, weights):
                parts = _block_scores(plan, block)
                for score, part in zip(scores, parts, strict=True):
                    score[block.rows, block.columns] = part
        return tuple(scores)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *score_grads: Tensor) -> tuple[Tensor | None, ...]:
        plan, tensors = ctx.plan, ctx.saved_tensors
        row_grad, column_grad, *weight_grads = (
            torch.zeros_like(part, dtype=score_dtype(part.dtype)) for part in tensors
        )
        with torch.autocast(row_grad.device.type, enabled=False):
            for block in plan.blocks(*tensors[:2], tensors[2:]):
                part_grads = [grad[block.rows, block.columns] for grad in score_grads]
                left_grad, right_grad, block_weight_grads = _block_grads(plan, block, part_grads)
                row_grad[block.rows, : left_grad.shape[1]] += left_grad
                column_grad[block.columns] += right_grad.transpose(0, 1)
                for total, (side, _), grad in zip(weight_grads, plan.weight_sides, block_weight_grads, strict=True):
                    total[getattr(block, side), : grad.shape[1]] += grad
        for grad, side in ((row_grad, plan.rows), (column_grad, plan.columns)):
            if side.padding is not None:
                grad.masked_fill_(side.padding[:, :, None], 0)
        grads = (row_grad, column_grad, *weight_grads)
        return None, *(grad.to(tensor.dtype) for grad, tensor in zip(grads, tensors, strict=True))
