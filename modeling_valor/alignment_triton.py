# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The kernels of `alignment_fused`: weighted maxima over either side's tokens, and the gradient to the pairs that they chose.

A program compares row tokens of a few samples with all tokens of a few column samples. Its similarities exist in registers
only, (TOKENS, ROWS, FIRST or SECOND, COLUMNS): tokens of the row samples in turns, row samples, tokens of the first or the
second column set, column samples. All are powers of 2, and what fills them up has no weight.

Scores are those of PARTS comparisons. Two bits of USES for each, from the lowest, say which of the column sets it uses.
"""

# In `try`, because remote code needs the packages that are imported outside of one
try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ImportError("The kernels of fine-grained similarity need `triton`, which torch brings on Linux.") from error


# Batches differ in these, and each kind of number would be compiled by itself
_NUMBERS = ("num_rows", "row_count", "num_columns", "first_count", "second_count", "part_stride", "row_stride")
_SLICES = ("row_bias", "row_weights", "column_bias", "column_weights", "score_grads")

# Similarity of what fills up a tile. Finite, because it is multiplied by weights of zero.
_OUTSIDE = tl.constexpr(-1e30)


@triton.jit
def _load_columns(
    column_tokens, num_columns, column_count, offset, set_count, first_column, channel, width,
    PADDED: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Some channels of the tokens of one column set, which begins at `offset`: (channels, PADDED * COLUMNS)."""
    right = tl.arange(0, PADDED * COLUMNS)
    token, column = right // COLUMNS, first_column + right % COLUMNS
    index = column.to(tl.int64) * column_count + offset + token
    return tl.load(
        column_tokens + index[None, :] * width + channel[:, None],
        mask=((token < set_count) & (column < num_columns))[None, :] & (channel < width)[:, None],
        other=0.0,
    )


@triton.jit
def _column_bias(
    column_bias, num_columns, column_count, offset, set_count, first_column,
    PADDED: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """What to add to the similarities of the tokens of one column set, (PADDED * COLUMNS,)."""
    right = tl.arange(0, PADDED * COLUMNS)
    token, column = right // COLUMNS, first_column + right % COLUMNS
    is_column = (token < set_count) & (column < num_columns)
    bias = tl.where(is_column, 0.0, _OUTSIDE)
    if column_bias is not None:
        index = column.to(tl.int64) * column_count + offset + token
        bias += tl.load(column_bias + index, mask=is_column, other=0.0)
    return bias


@triton.jit
def _similarities(
    row_tokens, row_bias, num_rows, row_count, first_token, first_row,
    column_tokens, column_bias, num_columns, first_count, second_count, first_column,
    width,
    TOKENS: tl.constexpr, ROWS: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr, COLUMNS: tl.constexpr,
    CHANNELS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Row tokens against those of the first and of the second column set; without a second one, against the first twice.

    Tokens come before samples, so that a thread of a tensor core's result holds several tokens of a sample.
    """
    left = tl.arange(0, TOKENS * ROWS)
    token, row = first_token + left // ROWS, first_row + left % ROWS
    is_row = (token < row_count) & (row < num_rows)
    left_index = row.to(tl.int64) * row_count + token
    column_count = first_count + second_count
    first = tl.zeros((TOKENS * ROWS, FIRST * COLUMNS), tl.float32)
    if SECOND > 0:
        second = tl.zeros((TOKENS * ROWS, SECOND * COLUMNS), tl.float32)
    for start in range(0, width, CHANNELS):
        channel = start + tl.arange(0, CHANNELS)
        left_part = tl.load(
            row_tokens + left_index[:, None] * width + channel[None, :],
            mask=is_row[:, None] & (channel < width)[None, :],
            other=0.0,
        )
        right_part = _load_columns(
            column_tokens, num_columns, column_count, 0, first_count, first_column, channel, width, FIRST, COLUMNS
        )
        first = tl.dot(left_part, right_part, first, input_precision=PRECISION)
        if SECOND > 0:
            right_part = _load_columns(
                column_tokens, num_columns, column_count, first_count, second_count, first_column, channel, width,
                SECOND, COLUMNS,
            )  # fmt: skip
            second = tl.dot(left_part, right_part, second, input_precision=PRECISION)
    left_bias = tl.where(is_row, 0.0, _OUTSIDE)
    if row_bias is not None:
        left_bias += tl.load(row_bias + left_index, mask=is_row, other=0.0)
    right_bias = _column_bias(column_bias, num_columns, column_count, 0, first_count, first_column, FIRST, COLUMNS)
    first = tl.reshape(first + left_bias[:, None] + right_bias[None, :], (TOKENS, ROWS, FIRST, COLUMNS))
    if SECOND > 0:
        right_bias = _column_bias(
            column_bias, num_columns, column_count, first_count, second_count, first_column, SECOND, COLUMNS
        )
        second = tl.reshape(second + left_bias[:, None] + right_bias[None, :], (TOKENS, ROWS, SECOND, COLUMNS))
    else:
        second = first
    return first, second


@triton.jit
def _load_row_weights(
    row_weights, part, num_rows, row_count, first_token, first_row,
    PARTS: tl.constexpr, TOKENS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """(TOKENS, ROWS)."""
    token, row = first_token + tl.arange(0, TOKENS)[:, None], first_row + tl.arange(0, ROWS)[None, :]
    index = (row.to(tl.int64) * PARTS + part) * row_count + token
    return tl.load(row_weights + index, mask=(token < row_count) & (row < num_rows), other=0.0)


@triton.jit
def _load_column_weights(
    column_weights, part, num_columns, column_count, offset, set_count, first_column,
    PARTS: tl.constexpr, PADDED: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """(PADDED, COLUMNS)."""
    token, column = tl.arange(0, PADDED)[:, None], first_column + tl.arange(0, COLUMNS)[None, :]
    index = (column.to(tl.int64) * PARTS + part) * column_count + offset + token
    return tl.load(column_weights + index, mask=(token < set_count) & (column < num_columns), other=0.0)


@triton.jit(do_not_specialize=_NUMBERS, do_not_specialize_on_alignment=_SLICES)
def score_kernel(
    scores,
    row_tokens, row_bias, row_weights, num_rows, row_count,
    column_tokens, column_bias, column_weights, num_columns, first_count, second_count,
    width,
    USES: tl.constexpr, PARTS: tl.constexpr, PARTS_PADDED: tl.constexpr,
    TOKENS: tl.constexpr, ROWS: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr, COLUMNS: tl.constexpr,
    CHANNELS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The scores of some row samples with some column samples."""
    first_row, first_column = tl.program_id(0) * ROWS, tl.program_id(1) * COLUMNS
    column_count = first_count + second_count
    part_index = tl.arange(0, PARTS_PADDED)[:, None, None]
    total = tl.zeros((PARTS_PADDED, ROWS, COLUMNS), tl.float32)
    first_best = tl.full((ROWS, FIRST, COLUMNS), float("-inf"), tl.float32)
    if SECOND > 0:
        second_best = tl.full((ROWS, SECOND, COLUMNS), float("-inf"), tl.float32)
    for first_token in range(0, row_count, TOKENS):
        first, second = _similarities(
            row_tokens, row_bias, num_rows, row_count, first_token, first_row,
            column_tokens, column_bias, num_columns, first_count, second_count, first_column,
            width, TOKENS, ROWS, FIRST, SECOND, COLUMNS, CHANNELS, PRECISION,
        )  # fmt: skip
        best_in_first = tl.max(first, axis=2)
        first_best = tl.maximum(first_best, tl.max(first, axis=0))
        if SECOND > 0:
            best_in_second = tl.max(second, axis=2)
            second_best = tl.maximum(second_best, tl.max(second, axis=0))
        for part in tl.static_range(PARTS):
            if ((USES >> (2 * part)) & 3) == 1:
                best = best_in_first
            elif ((USES >> (2 * part)) & 3) == 2:
                best = best_in_second
            else:
                best = tl.maximum(best_in_first, best_in_second)
            weights = _load_row_weights(
                row_weights, part, num_rows, row_count, first_token, first_row, PARTS, TOKENS, ROWS
            )
            total += tl.where(part_index == part, tl.sum(weights[:, :, None] * best, axis=0)[None, :, :], 0.0)
    for part in tl.static_range(PARTS):
        if ((USES >> (2 * part)) & 1) == 1:
            weights = _load_column_weights(
                column_weights, part, num_columns, column_count, 0, first_count, first_column, PARTS, FIRST, COLUMNS
            )
            total += tl.where(part_index == part, tl.sum(weights[None, :, :] * first_best, axis=1)[None, :, :], 0.0)
        if ((USES >> (2 * part)) & 2) == 2:
            weights = _load_column_weights(
                column_weights, part, num_columns, column_count, first_count, second_count, first_column,
                PARTS, SECOND, COLUMNS,
            )  # fmt: skip
            total += tl.where(part_index == part, tl.sum(weights[None, :, :] * second_best, axis=1)[None, :, :], 0.0)
    row = first_row + tl.arange(0, ROWS)[None, :, None]
    column = first_column + tl.arange(0, COLUMNS)[None, None, :]
    tl.store(
        scores + (part_index.to(tl.int64) * num_rows + row) * num_columns + column,
        total * 0.5,
        mask=(part_index < PARTS) & (row < num_rows) & (column < num_columns),
    )


@triton.jit
def _load_score_grads(
    score_grads, part, part_stride, row_stride, num_rows, num_columns, first_row, first_column,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """(ROWS, COLUMNS), of the sum of both halves of a score."""
    row, column = first_row + tl.arange(0, ROWS)[:, None], first_column + tl.arange(0, COLUMNS)[None, :]
    index = part * tl.cast(part_stride, tl.int64) + row.to(tl.int64) * row_stride + column
    return tl.load(score_grads + index, mask=(row < num_rows) & (column < num_columns), other=0.0) * 0.5


@triton.jit
def _update_best(best, ties, similarities):
    """The maxima (ROWS, PADDED, COLUMNS) over row tokens, and how many of them are equal, with some more row tokens."""
    new = tl.max(similarities, axis=0)
    new_ties = tl.sum((similarities == new[None, :, :, :]).to(tl.float32), axis=0)
    ties = tl.where(new > best, new_ties, tl.where(new == best, ties + new_ties, ties))
    return tl.maximum(best, new), ties


@triton.jit
def _store_gradient(
    grads, similarities, best_of_rows, row_grads, best_of_columns, ties, column_grads,
    num_rows, row_count, first_token, first_row, num_columns, column_count, offset, set_count, first_column,
    TOKENS: tl.constexpr, ROWS: tl.constexpr, PADDED: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Writes the gradient of similarities (TOKENS, ROWS, PADDED, COLUMNS) from those of the maxima over either side."""
    chosen = similarities == best_of_rows[:, :, None, :]
    shares = row_grads / tl.sum(chosen.to(tl.float32), axis=2)
    gradient = tl.where(chosen, shares[:, :, None, :], 0.0)
    shares = column_grads / ties
    gradient += tl.where(similarities == best_of_columns[None, :, :, :], shares[None, :, :, :], 0.0)
    left, right = tl.arange(0, TOKENS * ROWS)[:, None], tl.arange(0, PADDED * COLUMNS)[None, :]
    token, row = first_token + left // ROWS, first_row + left % ROWS
    set_token, column = right // COLUMNS, first_column + right % COLUMNS
    index = (row.to(tl.int64) * row_count + token) * column_count + offset + set_token
    tl.store(
        grads + index * num_columns + column,
        tl.reshape(gradient, (TOKENS * ROWS, PADDED * COLUMNS)),
        mask=(token < row_count) & (row < num_rows) & (set_token < set_count) & (column < num_columns),
    )


@triton.jit
def _column_gradient(
    score_grads, part_stride, row_stride, num_rows, first_row,
    column_weights, num_columns, column_count, offset, set_count, first_column,
    BIT: tl.constexpr, USES: tl.constexpr, PARTS: tl.constexpr,
    ROWS: tl.constexpr, PADDED: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The gradient of the best match of each column token of a set, (ROWS, PADDED, COLUMNS)."""
    total = tl.zeros((ROWS, PADDED, COLUMNS), tl.float32)
    for part in tl.static_range(PARTS):
        if ((USES >> (2 * part + BIT)) & 1) == 1:
            grads = _load_score_grads(
                score_grads, part, part_stride, row_stride, num_rows, num_columns, first_row, first_column,
                ROWS, COLUMNS,
            )  # fmt: skip
            weights = _load_column_weights(
                column_weights, part, num_columns, column_count, offset, set_count, first_column,
                PARTS, PADDED, COLUMNS,
            )  # fmt: skip
            total += grads[:, None, :] * weights[None, :, :]
    return total


@triton.jit
def _store_column_weight_gradient(
    column_weight_grads, best, score_grads, part_stride, row_stride, num_rows, first_row,
    num_columns, column_count, offset, set_count, first_column,
    BIT: tl.constexpr, USES: tl.constexpr, PARTS: tl.constexpr,
    ROWS: tl.constexpr, PADDED: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Writes the gradient of a set's token weights, of the row samples of this program."""
    token, column = tl.arange(0, PADDED)[:, None], first_column + tl.arange(0, COLUMNS)[None, :]
    is_inside = (token < set_count) & (column < num_columns)
    block = tl.program_id(0).to(tl.int64) * num_columns
    for part in tl.static_range(PARTS):
        if ((USES >> (2 * part + BIT)) & 1) == 1:
            grads = _load_score_grads(
                score_grads, part, part_stride, row_stride, num_rows, num_columns, first_row, first_column,
                ROWS, COLUMNS,
            )  # fmt: skip
            index = ((block + column) * PARTS + part) * column_count + offset + token
            tl.store(column_weight_grads + index, tl.sum(grads[:, None, :] * best, axis=0), mask=is_inside)


@triton.jit(do_not_specialize=_NUMBERS, do_not_specialize_on_alignment=_SLICES)
def gradient_kernel(
    grads, row_weight_grads, column_weight_grads, score_grads, part_stride, row_stride,
    row_tokens, row_bias, row_weights, num_rows, row_count,
    column_tokens, column_bias, column_weights, num_columns, first_count, second_count,
    width,
    USES: tl.constexpr, PARTS: tl.constexpr,
    TOKENS: tl.constexpr, ROWS: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr, COLUMNS: tl.constexpr,
    CHANNELS: tl.constexpr, PRECISION: tl.constexpr, AT_ONCE: tl.constexpr,
):  # fmt: skip
    """The gradients of the similarities and weights of some row samples with some column samples.

    If not all tokens of a row sample are compared `AT_ONCE`, the maxima over them are computed before.
    """
    first_row, first_column = tl.program_id(0) * ROWS, tl.program_id(1) * COLUMNS
    column_count = first_count + second_count
    first_best = tl.full((ROWS, FIRST, COLUMNS), float("-inf"), tl.float32)
    first_ties = tl.zeros((ROWS, FIRST, COLUMNS), tl.float32)
    first_grads = _column_gradient(
        score_grads, part_stride, row_stride, num_rows, first_row,
        column_weights, num_columns, column_count, 0, first_count, first_column,
        0, USES, PARTS, ROWS, FIRST, COLUMNS,
    )  # fmt: skip
    if SECOND > 0:
        second_best = tl.full((ROWS, SECOND, COLUMNS), float("-inf"), tl.float32)
        second_ties = tl.zeros((ROWS, SECOND, COLUMNS), tl.float32)
        second_grads = _column_gradient(
            score_grads, part_stride, row_stride, num_rows, first_row,
            column_weights, num_columns, column_count, first_count, second_count, first_column,
            1, USES, PARTS, ROWS, SECOND, COLUMNS,
        )  # fmt: skip
    if not AT_ONCE:
        for first_token in range(0, row_count, TOKENS):
            first, second = _similarities(
                row_tokens, row_bias, num_rows, row_count, first_token, first_row,
                column_tokens, column_bias, num_columns, first_count, second_count, first_column,
                width, TOKENS, ROWS, FIRST, SECOND, COLUMNS, CHANNELS, PRECISION,
            )  # fmt: skip
            first_best, first_ties = _update_best(first_best, first_ties, first)
            if SECOND > 0:
                second_best, second_ties = _update_best(second_best, second_ties, second)

    block = tl.program_id(1).to(tl.int64) * num_rows
    for first_token in range(0, row_count, TOKENS):
        first, second = _similarities(
            row_tokens, row_bias, num_rows, row_count, first_token, first_row,
            column_tokens, column_bias, num_columns, first_count, second_count, first_column,
            width, TOKENS, ROWS, FIRST, SECOND, COLUMNS, CHANNELS, PRECISION,
        )  # fmt: skip
        best_in_first = tl.max(first, axis=2)
        row_grads_in_first = tl.zeros((TOKENS, ROWS, COLUMNS), tl.float32)
        if AT_ONCE:
            first_best, first_ties = _update_best(first_best, first_ties, first)
        if SECOND > 0:
            best_in_second = tl.max(second, axis=2)
            row_grads_in_second = tl.zeros((TOKENS, ROWS, COLUMNS), tl.float32)
            if AT_ONCE:
                second_best, second_ties = _update_best(second_best, second_ties, second)

        token, row = first_token + tl.arange(0, TOKENS)[:, None], first_row + tl.arange(0, ROWS)[None, :]
        for part in tl.static_range(PARTS):
            of_scores = _load_score_grads(
                score_grads, part, part_stride, row_stride, num_rows, num_columns, first_row, first_column,
                ROWS, COLUMNS,
            )  # fmt: skip
            weights = _load_row_weights(
                row_weights, part, num_rows, row_count, first_token, first_row, PARTS, TOKENS, ROWS
            )
            of_best = weights[:, :, None] * of_scores[None, :, :]
            if ((USES >> (2 * part)) & 3) == 1:
                best = best_in_first
                row_grads_in_first += of_best
            elif ((USES >> (2 * part)) & 3) == 2:
                best = best_in_second
                row_grads_in_second += of_best
            else:
                best = tl.maximum(best_in_first, best_in_second)
                share = tl.where(
                    best_in_first > best_in_second, 1.0, tl.where(best_in_first == best_in_second, 0.5, 0.0)
                )
                row_grads_in_first += of_best * share
                row_grads_in_second += of_best * (1.0 - share)
            tl.store(
                row_weight_grads + ((block + row) * PARTS + part) * row_count + token,
                tl.sum(of_scores[None, :, :] * best, axis=2),
                mask=(token < row_count) & (row < num_rows),
            )
        _store_gradient(
            grads, first, best_in_first, row_grads_in_first, first_best, first_ties, first_grads,
            num_rows, row_count, first_token, first_row, num_columns, column_count, 0, first_count, first_column,
            TOKENS, ROWS, FIRST, COLUMNS,
        )  # fmt: skip
        if SECOND > 0:
            _store_gradient(
                grads, second, best_in_second, row_grads_in_second, second_best, second_ties, second_grads,
                num_rows, row_count, first_token, first_row,
                num_columns, column_count, first_count, second_count, first_column,
                TOKENS, ROWS, SECOND, COLUMNS,
            )  # fmt: skip
    _store_column_weight_gradient(
        column_weight_grads, first_best, score_grads, part_stride, row_stride, num_rows, first_row,
        num_columns, column_count, 0, first_count, first_column,
        0, USES, PARTS, ROWS, FIRST, COLUMNS,
    )  # fmt: skip
    if SECOND > 0:
        _store_column_weight_gradient(
            column_weight_grads, second_best, score_grads, part_stride, row_stride, num_rows, first_row,
            num_columns, column_count, first_count, second_count, first_column,
            1, USES, PARTS, ROWS, SECOND, COLUMNS,
        )  # fmt: skip
