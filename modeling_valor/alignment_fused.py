# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Fine-grained similarity (section 4.2, eq. 3) on a GPU: token similarities exist in registers only.

A program compares some tokens of a few row samples with all tokens of a few column samples, takes the maxima over either
side's tokens, and weighs them. The forward pass writes nothing but the scores. The backward pass computes the similarities
again and writes their gradient, a block at a time, which is zero but at the chosen pairs; matrix products with the tokens
of the other side make the tokens' gradients of it. Equal maxima share a gradient equally, as in `alignment_blocks`, whose
scores these are; but similarities are float32 here, also those of tokens in half precision.

A pass has one set of row tokens and one or two sets of column tokens, which is what every modality group needs.
"""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .alignment_blocks import EXCLUDED, Comparison, TokenSide, join_tokens, token_weights
from .alignment_triton import gradient_kernel, score_kernel


if TYPE_CHECKING:
    from .alignment import TokenSet


_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_TILE = (128, 96)  # row tokens and column tokens that a program compares at a time
_WARPS, _STAGES = 4, 3
_LARGEST_SET = 64  # tokens of a column sample, which a program compares together
_GRADIENT_BLOCK = 2**25  # similarities whose gradient exists at a time
_LONGEST_ROW = 2**14  # column tokens among them


def compare_fused(
    rows: Mapping[Any, "TokenSet"], columns: Mapping[Any, "TokenSet"], comparisons: Sequence[Comparison]
) -> list[Tensor] | None:
    """The score matrix (row samples, column samples) of each comparison, without regard to absent samples.

    Returns:
        None where the kernel cannot do it: tokens of another type than float32, bfloat16 and float16, more than 64 of them
        in a sample of the side that has several sets, or several sets on both sides.
    """
    passes = _split(comparisons)
    if passes is None:
        return None
    prepared = []
    for (side, name), items in passes.items():
        own, other = (rows, columns) if side == "rows" else (columns, rows)
        names = [item.columns if side == "rows" else item.rows for item in items]
        column_sets = {part: other[part] for of_item in names for part in of_item}
        if len(column_sets) > 2 or not _is_supported(own[name], list(column_sets.values())):
            return None
        prepared.append(
            (own[name], column_sets, [(of_item, item.uniform) for of_item, item in zip(names, items, strict=True)])
        )
    scores: dict[Comparison, Tensor] = {}
    for ((side, _), items), arguments in zip(passes.items(), prepared, strict=True):
        for item, score in zip(items, _score_pass(*arguments).unbind(), strict=True):
            scores[item] = score if side == "rows" else score.mT
    return [scores[item] for item in comparisons]


def _split(comparisons: Sequence[Comparison]) -> dict[tuple[str, Hashable], list[Comparison]] | None:
    """The comparisons by the side that has a single set and by this set; None if both sides of one have several."""
    passes: dict[tuple[str, Hashable], list[Comparison]] = {}
    for item in comparisons:
        side = "rows" if len(item.rows) == 1 else "columns"
        single = getattr(item, side)
        if len(single) > 1:
            return None
        passes.setdefault((side, single[0]), []).append(item)
    return passes


def _is_supported(row: "TokenSet", columns: Sequence["TokenSet"]) -> bool:
    dtypes = {tokens.embeds.dtype for tokens in (row, *columns)}
    return dtypes.issubset(_DTYPES) and max(tokens.embeds.shape[1] for tokens in columns) <= _LARGEST_SET


def _score_pass(
    row: "TokenSet", columns: Mapping[Hashable, "TokenSet"], parts: Sequence[tuple[Sequence[Hashable], bool]]
) -> Tensor:
    """Scores (parts, row samples, column samples); a part is the names of its column sets, and whether weights are uniform."""
    row_embeds, row_side = join_tokens({"": row})
    column_embeds, column_side = join_tokens(columns)
    row_weights: list[Tensor] = []
    column_weights: list[Tensor] = []
    uses = 0
    for index, (names, uniform) in enumerate(parts):
        row_weights += token_weights([row], uniform)
        weights = dict(zip(names, token_weights([columns[name] for name in names], uniform), strict=True))
        unused = {
            name: torch.zeros_like(tokens.embeds[:, :, 0], dtype=row_weights[0].dtype)
            for name, tokens in columns.items()
        }
        column_weights.append(torch.cat([weights.get(name, unused[name]) for name in columns], dim=1))
        uses |= sum(1 << bit for bit, name in enumerate(columns) if name in names) << (2 * index)
    counts = tuple(tokens.embeds.shape[1] for tokens in columns.values())
    layout = _Layout(row_side, column_side, counts, uses)
    scores: Tensor = _FusedScores.apply(
        layout, row_embeds, column_embeds, torch.stack(row_weights, dim=1), torch.stack(column_weights, dim=1)
    )
    return scores


@dataclass(frozen=True)
class _Layout:
    """What a pass knows beside its tensors.

    Args:
        counts: tokens of a sample in the one or two column sets.
        uses: two bits for each part, from the lowest, whether it uses the first and the second of these sets.
    """

    rows: TokenSide
    columns: TokenSide
    counts: tuple[int, ...]
    uses: int


class _FusedScores(torch.autograd.Function):
    """Scores (parts, A, B) of row tokens (A, N, C) and column tokens (B, M, C) with weights (A, parts, N), (B, parts, M)."""

    @staticmethod
    def forward(ctx: Any, layout: _Layout, *tensors: Tensor) -> Tensor:
        ctx.layout = layout
        ctx.save_for_backward(*tensors)
        return _Operands.prepare(layout, *tensors).scores()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, score_grads: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        operands, score_grads = _Operands.prepare(ctx.layout, *tensors), score_grads.contiguous()
        totals = [torch.zeros_like(tensor, dtype=torch.float32) for tensor in tensors]
        with torch.autocast(score_grads.device.type, enabled=False):
            for rows, columns in operands.gradient_blocks():
                block = operands.block(rows, columns)
                grads = block.gradients(score_grads[:, rows, columns])
                for total, grad, samples in zip(totals, grads, (rows, columns, rows, columns), strict=True):
                    total[samples] += grad
        for total, side in zip(totals, (ctx.layout.rows, ctx.layout.columns), strict=False):
            if side.padding is not None:
                total.masked_fill_(side.padding[:, :, None], 0)
        return None, *(total.to(tensor.dtype) for total, tensor in zip(totals, tensors, strict=True))


@dataclass(frozen=True)
class _Operands:
    """What the kernels read: tokens, zero at padding, what to add to exclude some of them from maxima, and weights."""

    row_tokens: Tensor  # (A, N, C)
    row_bias: Tensor | None  # (A, N)
    row_weights: Tensor  # (A, parts, N)
    column_tokens: Tensor  # (B, M, C)
    column_bias: Tensor | None  # (B, M)
    column_weights: Tensor  # (B, parts, M)
    counts: tuple[int, ...]
    uses: int

    @classmethod
    def prepare(
        cls, layout: _Layout, row_embeds: Tensor, column_embeds: Tensor, row_weights: Tensor, column_weights: Tensor
    ) -> "_Operands":
        dtype = torch.promote_types(row_embeds.dtype, column_embeds.dtype)
        return cls(
            *_load(row_embeds.to(dtype), layout.rows),
            row_weights,
            *_load(column_embeds.to(dtype), layout.columns),
            column_weights,
            layout.counts,
            layout.uses,
        )

    def block(self, rows: slice, columns: slice) -> "_Operands":
        return _Operands(
            self.row_tokens[rows],
            None if self.row_bias is None else self.row_bias[rows],
            self.row_weights[rows],
            self.column_tokens[columns],
            None if self.column_bias is None else self.column_bias[columns],
            self.column_weights[columns],
            self.counts,
            self.uses,
        )

    def scores(self) -> Tensor:
        """(parts, A, B)."""
        parts = self.row_weights.shape[1]
        tile = _Tile.choose(self.row_tokens.shape[1], self.counts, at_once=16)
        scores = self.row_weights.new_empty(parts, len(self.row_tokens), len(self.column_tokens))
        if scores.numel():
            with torch.cuda.device_of(scores):  # type: ignore[no-untyped-call]
                score_kernel[self.grid(tile)](scores, **self.arguments(tile), PARTS_PADDED=_next_power_of_2(parts))
        return scores

    def gradients(self, score_grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The gradients of row tokens, column tokens, row weights and column weights, from those of the scores."""
        (num_rows, row_count, width), (num_columns, column_count, _) = self.row_tokens.shape, self.column_tokens.shape
        parts = self.row_weights.shape[1]
        tile = _Tile.choose(row_count, self.counts, at_once=64)
        row_blocks, column_blocks = self.grid(tile)
        # Column tokens come first in the similarities' gradient, so that programs write contiguous memory
        grads = self.row_tokens.new_empty(num_rows * row_count, column_count * num_columns)
        row_weight_grads = self.row_weights.new_empty(column_blocks, num_rows, parts, row_count)
        column_weight_grads = self.row_weights.new_zeros(row_blocks, num_columns, parts, column_count)
        with torch.cuda.device_of(grads):  # type: ignore[no-untyped-call]
            gradient_kernel[(row_blocks, column_blocks)](
                grads,
                row_weight_grads,
                column_weight_grads,
                score_grads,
                score_grads.stride(0),
                score_grads.stride(1),
                **self.arguments(tile),
                AT_ONCE=row_count <= tile.tokens,
            )
        row_grads = grads @ self.column_tokens.transpose(0, 1).reshape(-1, width)
        column_grads = (grads.mT @ self.row_tokens.flatten(0, 1)).view(column_count, num_columns, width)
        return (
            row_grads.view_as(self.row_tokens),
            column_grads.transpose(0, 1),
            row_weight_grads.sum(dim=0),
            column_weight_grads.sum(dim=0),
        )

    def gradient_blocks(self) -> Iterator[tuple[slice, slice]]:
        """Samples of the rows and of the columns whose similarities have their gradient in memory together."""
        (num_rows, row_count, _), (num_columns, column_count, _) = self.row_tokens.shape, self.column_tokens.shape
        columns = max(1, min(num_columns, _LONGEST_ROW // column_count))
        rows = max(1, _GRADIENT_BLOCK // (columns * column_count * row_count))
        for row in range(0, num_rows, rows):
            for column in range(0, num_columns, columns):
                yield slice(row, row + rows), slice(column, column + columns)

    def grid(self, tile: "_Tile") -> tuple[int, int]:
        return math.ceil(len(self.row_tokens) / tile.rows), math.ceil(len(self.column_tokens) / tile.columns)

    def arguments(self, tile: "_Tile") -> dict[str, Any]:
        """The arguments that both kernels have in common."""
        num_rows, row_count, width = self.row_tokens.shape
        full = self.row_tokens.dtype == torch.float32
        return {
            "row_tokens": self.row_tokens,
            "row_bias": self.row_bias,
            "row_weights": self.row_weights,
            "num_rows": num_rows,
            "row_count": row_count,
            "column_tokens": self.column_tokens,
            "column_bias": self.column_bias,
            "column_weights": self.column_weights,
            "num_columns": len(self.column_tokens),
            "first_count": self.counts[0],
            "second_count": self.counts[1] if len(self.counts) > 1 else 0,
            "width": width,
            "USES": self.uses,
            "PARTS": self.row_weights.shape[1],
            "TOKENS": tile.tokens,
            "ROWS": tile.rows,
            "FIRST": tile.padded[0],
            "SECOND": tile.padded[1] if len(tile.padded) > 1 else 0,
            "COLUMNS": tile.columns,
            "CHANNELS": 32 if full else 64,
            "PRECISION": _precision(),
            "num_warps": _WARPS,
            "num_stages": _STAGES,
        }


def _precision() -> str:
    """How float32 is multiplied: as torch does it on this GPU."""
    # `torch.get_float32_matmul_precision` raises an error where this was set
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"


def _next_power_of_2(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _load(embeds: Tensor, side: TokenSide) -> tuple[Tensor, Tensor | None]:
    if side.padding is None or side.excluded is None:
        return embeds.contiguous(), None
    tokens = embeds.masked_fill(side.padding[:, :, None], 0).contiguous()
    return tokens, side.excluded.to(torch.float32) * EXCLUDED


@dataclass(frozen=True)
class _Tile:
    """What a program compares at a time, in powers of 2.

    Args:
        tokens: tokens of a row sample; it takes as many turns as the sample has more.
        rows: row samples.
        padded: tokens of a column sample in each set; all of them at once.
        columns: column samples.
    """

    tokens: int
    rows: int
    padded: tuple[int, ...]
    columns: int

    @classmethod
    def choose(cls, row_count: int, counts: Sequence[int], at_once: int) -> "_Tile":
        """Tiles of at most `_TILE`, or with a single column sample, and at most `at_once` tokens of a row sample."""
        tokens = min(at_once, _next_power_of_2(row_count))
        padded = [_next_power_of_2(count) for count in counts]
        columns = 1 << (max(1, _TILE[1] // sum(padded)).bit_length() - 1)
        # Products of tensor cores have at least 16 columns
        return cls(tokens, _TILE[0] // tokens, tuple(max(count, 16 // columns) for count in padded), columns)
