# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Multimodal Grouping Alignment (section 4.2): how well texts, videos and sounds match, and the loss on it.

Scoring and loss are separate. `grouped_similarity` (fine-grained, eq. 3) and `coarse_similarity` (Table 10) give score
matrices, `contrastive_loss` (eq. 2) takes one, whatever it was made from; `gather_tokens` and `gather_with_gradient`
join the samples of all ranks before either. Nothing here has parameters.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


GROUPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "t-v": ("text", ("video",)),
    "t-a": ("text", ("audio",)),
    "t-av": ("text", ("video", "audio")),
    "v-a": ("video", ("audio",)),
    "a-tv": ("audio", ("text", "video")),
    "v-ta": ("video", ("text", "audio")),
}
"""Modality groups (Table 8): the query's modality, whose samples are the rows of a score matrix, and the candidates'."""

# Tokens of the rows and of the columns whose similarities exist at one time. On a CPU a block of them stays in the
# cache, which makes everything but the matrix products cheap; a GPU wants few, large kernels.
_BLOCK_TOKENS = {"cpu": (384, 2560)}
_BLOCK_TOKENS_ACCELERATOR = (2048, 8192)


@dataclass(frozen=True)
class TokenSet:
    """One modality's token embeddings for B samples, as the fine-grained similarity takes them.

    Args:
        embeds: (B, N, C), L2-normalised; N >= 1.
        mask: (B, N) bool, False at padding; a sample with no True lacks this modality. None: all are valid.
        weight_logits: (B, N), f(e) of eq. 3 before its softmax. None: all valid tokens weigh the same.
        zero_padding: similarities of padded positions count as 0 in the maxima over this modality's tokens, which is how
            the 2023 checkpoints treat padded text, instead of being left out (eq. 3). Their weight is 0 either way.

    Raises:
        ValueError: if the shapes or the mask's type disagree with the above.
    """

    embeds: Tensor
    mask: Tensor | None = None
    weight_logits: Tensor | None = None
    zero_padding: bool = False

    def __post_init__(self):
        if self.embeds.ndim != 3 or self.embeds.shape[1] == 0:
            raise ValueError(
                f"Token embeddings of shape {tuple(self.embeds.shape)} were given; (samples, tokens, channels) with at "
                "least one token is accepted. Mask the samples that lack the modality."
            )
        for name, tensor in (("mask", self.mask), ("weight_logits", self.weight_logits)):
            if tensor is not None and tensor.shape != self.embeds.shape[:2]:
                raise ValueError(
                    f"{name} of shape {tuple(tensor.shape)} was given for embeddings of shape "
                    f"{tuple(self.embeds.shape)}; it needs one entry per token, {tuple(self.embeds.shape[:2])}."
                )
        if self.mask is not None and self.mask.dtype != torch.bool:
            raise ValueError(f"A mask of type {self.mask.dtype} was given; pass a bool mask (for example `mask != 0`).")


def grouped_similarity(
    text: TokenSet | None,
    video: TokenSet | None,
    audio: TokenSet | None,
    groups: Iterable[str],
    fusion: str = "feature",
    uniform_audiovisual: bool = False,
) -> dict[str, Tensor]:
    """Fine-grained similarity of every query with every candidate, for several modality groups in one pass.

    S = 1/2 [sum_i w_i max_j <a_i, b_j> + sum_j w_j max_i <a_i, b_j>], with w the softmax of `weight_logits` over the
    valid tokens of all the modalities on that side. Groups share the token similarities of their modalities: the row
    maximum of t-av is the larger of those of t-v and t-a.

    A modality that a sample lacks (all masked, or given as None for the whole batch) takes no part: in a joint group the
    sample scores as it would with the other modality alone, and where nothing is left the score is -inf.

    Token similarities are computed in blocks of bounded size and recomputed for the gradient, so that the memory above
    the inputs, the result and the gradients stays at a few tens of megabytes whatever the number of samples.

    Args:
        text, video, audio: the tokens of each modality, None where no group needs it.
        groups: names from `GROUPS`. The first letter's samples are the rows.
        fusion: what t-av is: "feature" joins the tokens of both modalities, "score" is S(t, v) + S(t, a) with uniform
            weights (so its range doubles). Other groups are as ever.
        uniform_audiovisual: give the valid tokens of t-av uniform weights, on both sides.

    Returns:
        group -> (queries, candidates) in float32 (float64 for float64 embeddings).

    Raises:
        ValueError: for an unknown group or fusion, a group whose modality is None, or sample counts that do not match.

    Source: section 4.2, eq. 3; Table 8 (groups); Table 10 (fusion and weights).
    """
    tokens = {"text": text, "video": video, "audio": audio}
    tokens = {modality: given for modality, given in tokens.items() if given is not None}
    if fusion not in ("feature", "score"):
        raise ValueError(f'Audiovisual fusion "{fusion}" was given; "feature" and "score" are accepted.')

    plans = {group: _plan(group, tokens, fusion, uniform_audiovisual) for group in groups}
    comparisons = list(dict.fromkeys(comparison for plan in plans.values() for comparison in plan))
    matrices = dict(zip(comparisons, _compare(tokens, tokens, comparisons), strict=True))
    scores = {}
    for group, plan in plans.items():
        query, _ = GROUPS[group]
        oriented = [matrices[item] if query in item.rows else matrices[item].mT for item in plan]
        scores[group] = _sum_of_present(oriented)
    return scores


def fine_similarity(queries: Sequence[TokenSet], candidates: Sequence[TokenSet]) -> Tensor:
    """Fine-grained similarity of one group: the joint tokens of `queries` against the joint tokens of `candidates`.

    Everything is as in `grouped_similarity`; for example, queries=[text] and candidates=[video, audio] give t-av.

    Returns:
        (samples in queries, samples in candidates).

    Source: section 4.2, eq. 3.
    """
    rows, columns = dict(enumerate(queries)), dict(enumerate(candidates))
    return _compare(rows, columns, [_Comparison(tuple(rows), tuple(columns))])[0]


def coarse_similarity(
    text: Tensor,
    video: Tensor | None = None,
    audio: Tensor | None = None,
    audiovisual: Tensor | None = None,
    group: str = "t-av",
    video_present: Tensor | None = None,
    audio_present: Tensor | None = None,
) -> Tensor:
    """Similarity of whole-sample embeddings: the dot product of every text with every candidate.

    Args:
        text, video, audio: (B, C), L2-normalised.
        audiovisual: (B, C), the normalised joint embedding for t-av. None: t-av is the sum of t-v and t-a
            (score fusion), of which a sample that lacks one modality keeps the other.
        group: "t-v", "t-a" or "t-av".
        video_present, audio_present: (B,) bool, False where a sample lacks the modality; a candidate without any of the
            group's modalities scores -inf. None: all have it.

    Returns:
        (texts, candidates) in float32 (float64 for float64 embeddings).

    Raises:
        ValueError: for another group, or when the group's embeddings are missing.

    Source: Table 10 (coarse-grained alignment).
    """
    candidates = {"t-v": [(video, video_present)], "t-a": [(audio, audio_present)]}
    candidates["t-av"] = candidates["t-v"] + candidates["t-a"]
    if group not in candidates:
        raise ValueError(f'Group "{group}" was asked for; coarse alignment has only {", ".join(candidates)}.')
    if group == "t-av" and audiovisual is not None:
        either = None if video_present is None or audio_present is None else video_present | audio_present
        candidates["t-av"] = [(audiovisual, either)]
    if any(embeds is None for embeds, _ in candidates[group]):
        raise ValueError(
            f'Group "{group}" needs embeddings that were not given; pass '
            + ("`audiovisual`, or both `video` and `audio`." if group == "t-av" else "its video or audio embeddings.")
        )

    def score(embeds: Tensor, present: Tensor | None) -> Tensor:
        with torch.autocast(text.device.type, enabled=False):
            products = (text @ embeds.mT).to(_score_dtype(text.dtype))
        return products if present is None else products.masked_fill(~present, -torch.inf)

    return _sum_of_present([score(embeds, present) for embeds, present in candidates[group]])


def contrastive_loss(similarity: Tensor, logit_scale: Tensor | float, keep: Tensor | None = None) -> Tensor:
    """Contrastive loss over a batch of pairs, both ways: the mean of the 2B row and column cross-entropies.

    Args:
        similarity: (B, B), matching pairs on the diagonal; in distributed training the matrix of all ranks' samples.
        logit_scale: log of the inverse temperature; scores are multiplied by exp(logit_scale).
        keep: (B,) bool, False for pairs to leave out, as rows and as columns. A pair whose own score is -inf (one side is
            missing) is always left out. None: keep the others.

    Returns:
        A scalar; 0, with zero gradients, when no pair is left.

    Raises:
        ValueError: if `similarity` is not square.

    Source: section 4.2, eq. 2.
    """
    if similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1]:
        raise ValueError(
            f"Similarities of shape {tuple(similarity.shape)} were given; the contrastive loss takes a square matrix "
            "with the matching pairs on its diagonal."
        )
    kept = similarity.diagonal() > -torch.inf
    if keep is not None:
        kept = kept & keep
    # A pair left out keeps its own entry only, so its cross-entropies are exactly 0 and the shape stays static.
    scale = torch.as_tensor(logit_scale, device=similarity.device).exp()
    logits = similarity.to(_score_dtype(similarity.dtype)).masked_fill(~(kept[:, None] & kept), 0) * scale
    own = torch.eye(len(kept), dtype=torch.bool, device=kept.device)
    logits = logits.masked_fill(~(kept[:, None] & kept | own), -torch.inf)
    rows, columns = logits.log_softmax(dim=1).diagonal(), logits.log_softmax(dim=0).diagonal()
    return -(rows + columns).sum() / (2 * kept.sum().clamp(min=1))


def gather_tokens(tokens: TokenSet) -> TokenSet:
    """The token sets of all ranks, joined along the samples in rank order, with gradients.

    Ranks may differ in samples and in tokens per sample: shorter ones are padded and masked. Every rank has to call this
    for the same modalities in the same order, with an all-False mask where its samples lack one. Without distributed
    training it returns its argument.
    """
    if not _is_distributed():
        return tokens
    mask = tokens.mask if tokens.mask is not None else tokens.embeds.new_ones(tokens.embeds.shape[:2]).bool()
    logits = tokens.weight_logits
    return TokenSet(
        embeds=gather_with_gradient(tokens.embeds),
        mask=gather_with_gradient(mask),
        weight_logits=None if logits is None else gather_with_gradient(logits),
        zero_padding=tokens.zero_padding,
    )


def gather_samples(
    embeds: Sequence[Tensor | None], masks: Sequence[Tensor | None]
) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """The embeddings of several modalities and their masks, of all ranks, joined along the samples in rank order.

    A modality is None on all ranks or on none. Without distributed training the arguments come back as they are.
    """
    if not _is_distributed():
        return list(embeds), list(masks)
    # A rank may have nothing to mask where another one has: let all of them send a mask
    masks = [
        None if given is None else given.new_ones(given.shape[:2], dtype=torch.bool) if mask is None else mask.bool()
        for given, mask in zip(embeds, masks, strict=True)
    ]
    return tuple([None if t is None else gather_with_gradient(t) for t in tensors] for tensors in (embeds, masks))


def gather_with_gradient(tensor: Tensor) -> Tensor:
    """The tensors of all ranks, joined along dimension 0 in rank order, with gradients.

    Sizes may differ between ranks: in the other dimensions, shorter tensors are padded with zeros (False) at their end.

    The gradient of a rank's part is the sum over ranks. When every rank computes the same loss from the gathered tensors,
    that is W times the single process's gradient, which DistributedDataParallel's mean over W ranks undoes; parameters
    used after gathering have the whole gradient on every rank, which the mean keeps. Loss and gradients therefore equal
    those of a single process with the joined batch.
    """
    if not _is_distributed():
        return tensor
    shape = torch.tensor(tensor.shape, device=tensor.device)
    shapes = [torch.empty_like(shape) for _ in range(dist.get_world_size())]
    dist.all_gather(shapes, shape)
    shapes = torch.stack(shapes)
    longest = shapes.amax(dim=0).tolist()
    padding = [pad for size, most in zip(tensor.shape, longest, strict=True) for pad in (most - size, 0)][::-1]
    parts = _AllGather.apply(F.pad(tensor, padding))
    return torch.cat([part[:samples] for part, samples in zip(parts, shapes[:, 0].tolist(), strict=True)])


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class _AllGather(torch.autograd.Function):
    """One tensor of every rank; the backward pass sums the gradients of all ranks."""

    @staticmethod
    def forward(ctx, tensor: Tensor) -> tuple[Tensor, ...]:
        parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, tensor.contiguous())
        return tuple(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor) -> Tensor:
        summed = torch.stack(grads)
        dist.all_reduce(summed)
        return summed[dist.get_rank()]


@dataclass(frozen=True)
class _Comparison:
    """One score matrix to compute: the joint tokens of the modalities in `rows` against those in `columns`."""

    rows: tuple[Hashable, ...]
    columns: tuple[Hashable, ...]
    uniform: bool = False


def _plan(group: str, tokens: Mapping[str, TokenSet], fusion: str, uniform: bool) -> list[_Comparison]:
    """The comparisons whose sum is a group's score.

    Text, which has the most tokens, always is on the rows' side, so that groups with the text as query and groups with
    the text as candidate share its similarities; the latter's matrices are transposed afterwards.
    """
    if group not in GROUPS:
        raise ValueError(f'Modality group "{group}" was given; {", ".join(GROUPS)} are accepted.')
    query, candidates = GROUPS[group]
    candidates_given = tuple(modality for modality in candidates if modality in tokens)
    if query not in tokens or not candidates_given:
        raise ValueError(
            f'Group "{group}" compares {query} with {" and ".join(candidates)}, but only '
            f"{', '.join(tokens) or 'nothing'} was given; pass the missing tokens or leave the group out."
        )
    audiovisual = group == "t-av"
    if audiovisual and fusion == "score":
        return [_Comparison((query,), (candidate,), uniform=True) for candidate in candidates_given]
    rows, columns = (query,), candidates_given
    if "text" in columns:
        rows, columns = columns, rows
    return [_Comparison(rows, columns, uniform=audiovisual and uniform)]


def _sum_of_present(scores: list[Tensor]) -> Tensor:
    """The sum of score matrices, where -inf (missing) counts as nothing unless all are missing."""
    if len(scores) == 1:
        return scores[0]
    missing = torch.stack([score == -torch.inf for score in scores])
    total = sum(score.masked_fill(absent, 0) for score, absent in zip(scores, missing, strict=True))
    return total.masked_fill(missing.all(dim=0), -torch.inf)


def _score_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _compare(
    rows: Mapping[Hashable, TokenSet], columns: Mapping[Hashable, TokenSet], comparisons: list[_Comparison]
) -> list[Tensor]:
    """The (row samples, column samples) score matrix of each comparison; -inf where a side has no valid token."""
    if not comparisons:
        return []
    rows = {name: rows[name] for item in comparisons for name in item.rows}
    columns = {name: columns[name] for item in comparisons for name in item.columns}
    for sets in (rows, columns):
        samples = {name: len(tokens.embeds) for name, tokens in sets.items()}
        if len(set(samples.values())) > 1:
            raise ValueError(
                f"Different numbers of samples were given on one side of the comparison: {samples}. They must be equal; "
                "score groups of other sizes in separate calls."
            )
    widths = {tokens.embeds.shape[2] for tokens in (*rows.values(), *columns.values())}
    if len(widths) > 1:
        raise ValueError(f"Embeddings of widths {sorted(widths)} were given; all modalities must have the same width.")

    weights = []
    for item in comparisons:
        weights += _token_weights([rows[name] for name in item.rows], item.uniform)
        weights += _token_weights([columns[name] for name in item.columns], item.uniform)
    plan = _Plan(_terms(comparisons), _masks(rows), _masks(columns))
    embeds = [tokens.embeds for tokens in (*rows.values(), *columns.values())]
    matrices = _BlockwiseScores.apply(plan, *embeds, *weights)

    scores = []
    for item, matrix in zip(comparisons, matrices, strict=True):
        for names, sets, dim in ((item.rows, rows, 1), (item.columns, columns, 0)):
            masks = [sets[name].mask for name in names]
            if all(mask is not None for mask in masks):
                present = torch.cat(masks, dim=1).any(dim=1)
                matrix = matrix.masked_fill(~present.unsqueeze(dim), -torch.inf)
        scores.append(matrix)
    return scores


def _token_weights(sets: list[TokenSet], uniform: bool) -> list[Tensor]:
    """The weights (B, N) of each set's tokens: one softmax over the valid tokens of all sets."""
    logits = []
    for tokens in sets:
        given = tokens.weight_logits
        if given is None or uniform:
            given = tokens.embeds.new_zeros(tokens.embeds.shape[:2])
        given = given.to(_score_dtype(tokens.embeds.dtype))
        # A finite minimum: a sample without any valid token must not turn into NaN.
        logits.append(given if tokens.mask is None else given.masked_fill(~tokens.mask, torch.finfo(given.dtype).min))
    weights = torch.cat(logits, dim=1).softmax(dim=1)
    return list(weights.split([part.shape[1] for part in logits], dim=1))


# What follows is one pass over the token similarities, in blocks: its plan, its blocks and the scores of a block.

_Pair = tuple[Hashable, Hashable]  # (a modality of the rows, a modality of the columns)
_Masks = dict[Hashable, tuple[Tensor | None, Tensor | None]]
_ROWS, _COLUMNS = 0, 1


@dataclass(frozen=True)
class _Term:
    """One weighted sum of a score: over a modality's tokens on one side, of their best match in any of `pairs`."""

    score: int
    side: int
    pairs: list[_Pair]


def _terms(comparisons: list[_Comparison]) -> list[_Term]:
    terms = []
    for score, item in enumerate(comparisons):
        terms += [_Term(score, _ROWS, [(row, column) for column in item.columns]) for row in item.rows]
        terms += [_Term(score, _COLUMNS, [(row, column) for row in item.rows]) for column in item.columns]
    return terms


def _masks(sets: Mapping[Hashable, TokenSet]) -> _Masks:
    """name -> (the padding, the tokens that no maximum may choose), each (B, N) bool or None."""
    masks = {}
    for name, tokens in sets.items():
        padding = excluded = None if tokens.mask is None else ~tokens.mask
        if tokens.zero_padding and padding is not None:
            excluded = padding.all(dim=1, keepdim=True).expand_as(padding)
        masks[name] = padding, excluded
    return masks


@dataclass(frozen=True)
class _Plan:
    """What the tensors of a pass are: the embeddings of the rows, those of the columns, then the weights of each term."""

    terms: list[_Term]
    row_masks: _Masks
    column_masks: _Masks

    @property
    def pairs(self) -> list[_Pair]:
        """The pairs of modalities whose token similarities are needed, each once."""
        return list(dict.fromkeys(pair for term in self.terms for pair in term.pairs))

    def split(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """(row embeddings, column embeddings, weights)."""
        rows, columns = len(self.row_masks), len(self.row_masks) + len(self.column_masks)
        return list(tensors[:rows]), list(tensors[rows:columns]), list(tensors[columns:])


@dataclass(frozen=True)
class _Block:
    """The tokens of some row samples and of some column samples.

    `left` and `right` are name -> (tokens, bias): tokens (n, N, C) and (M, q, C), zero at padding, and a bias, (n, N) and
    (M, q), that keeps excluded tokens out of the maxima. Columns are token-major, so that the maxima over either side's
    tokens run along contiguous memory.
    """

    rows: slice
    columns: slice
    left: dict[Hashable, tuple[Tensor, Tensor | None]]
    right: dict[Hashable, tuple[Tensor, Tensor | None]]
    weights: list[Tensor]

    def similarities(self, pair: _Pair) -> Tensor:
        """(n, N, M, q), the similarity of every row token with every column token."""
        (rows, row_bias), (columns, column_bias) = self.left[pair[0]], self.right[pair[1]]
        similarities = rows.flatten(0, 1) @ columns.flatten(0, 1).mT
        similarities = similarities.view(*rows.shape[:2], *columns.shape[:2])
        if row_bias is not None:
            similarities += row_bias[:, :, None, None]
        if column_bias is not None:
            similarities += column_bias
        return similarities


def _blocks(plan: _Plan, tensors: Sequence[Tensor]) -> Iterator[_Block]:
    row_embeds, column_embeds, weights = plan.split(tensors)
    dtype = reduce(torch.promote_types, (embeds.dtype for embeds in (*row_embeds, *column_embeds)))
    for columns in _slices(column_embeds, _COLUMNS):
        right = {}
        for name, (tokens, bias) in _load(column_embeds, plan.column_masks, columns, dtype).items():
            right[name] = tokens.transpose(0, 1).contiguous(), None if bias is None else bias.mT
        for rows in _slices(row_embeds, _ROWS):
            left = _load(row_embeds, plan.row_masks, rows, dtype)
            sliced = [
                weight[rows if term.side == _ROWS else columns] for term, weight in zip(plan.terms, weights, strict=True)
            ]
            yield _Block(rows, columns, left, right, sliced)


def _slices(embeds: Sequence[Tensor], side: int) -> Iterator[slice]:
    """Slices of the samples, each with no more tokens, over all modalities, than a block may have (or one sample)."""
    tokens = _BLOCK_TOKENS.get(embeds[0].device.type, _BLOCK_TOKENS_ACCELERATOR)[side]
    step = max(1, tokens // sum(part.shape[1] for part in embeds))
    return (slice(start, start + step) for start in range(0, len(embeds[0]), step))


def _load(
    embeds: Sequence[Tensor], masks: _Masks, samples: slice, dtype: torch.dtype
) -> dict[Hashable, tuple[Tensor, Tensor | None]]:
    """name -> (tokens, bias) of the samples, as `_Block` describes them, both sample-major."""
    loaded = {}
    for part, (name, (padding, excluded)) in zip(embeds, masks.items(), strict=True):
        tokens, bias = part[samples].to(dtype), None
        if padding is not None:
            tokens = tokens.masked_fill(padding[samples, :, None], 0)
            # Two of them must not overflow: infinity times a weight or a gradient of zero would be NaN.
            bias = excluded[samples].to(dtype) * (torch.finfo(dtype).min / 4)
        loaded[name] = tokens, bias
    return loaded


def _block_scores(
    terms: list[_Term], best: Mapping[_Pair, tuple[Tensor, Tensor]], weights: Sequence[Tensor]
) -> list[Tensor]:
    """The scores (n, q) of a block from the best matches, (n, N, q) and (n, M, q), of its row and its column tokens."""
    scores = {}
    for term, weight in zip(terms, weights, strict=True):
        matches = reduce(torch.maximum, (best[pair][term.side] for pair in term.pairs))
        weight = weight[:, :, None] if term.side == _ROWS else weight.mT
        scores[term.score] = scores.get(term.score, 0) + (matches * weight).sum(dim=1) / 2
    return list(scores.values())


class _BlockwiseScores(torch.autograd.Function):
    """The scores of all comparisons. Only the inputs are kept for the backward pass, which computes each block again.

    Under autocast the embeddings keep their own type.
    """

    @staticmethod
    def forward(ctx, plan: _Plan, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.plan = plan
        ctx.save_for_backward(*tensors)
        row_embeds, column_embeds, weights = plan.split(tensors)
        count = 1 + max(term.score for term in plan.terms)
        scores = [weights[0].new_empty(len(row_embeds[0]), len(column_embeds[0])) for _ in range(count)]
        with torch.autocast(weights[0].device.type, enabled=False):
            for block in _blocks(plan, tensors):
                best = {}
                for pair in plan.pairs:
                    similarities = block.similarities(pair)
                    best[pair] = similarities.amax(dim=2), similarities.amax(dim=1)
                for score, part in zip(scores, _block_scores(plan.terms, best, block.weights), strict=True):
                    score[block.rows, block.columns] = part
        return tuple(scores)

    @staticmethod
    @once_differentiable
    def backward(ctx, *score_grads: Tensor) -> tuple[Tensor | None, ...]:
        plan, tensors = ctx.plan, ctx.saved_tensors
        grads = [torch.zeros_like(tensor, dtype=_score_dtype(tensor.dtype)) for tensor in tensors]
        row_grads, column_grads, weight_grads = plan.split(grads)
        row_grads = dict(zip(plan.row_masks, row_grads, strict=True))
        column_grads = dict(zip(plan.column_masks, column_grads, strict=True))
        with torch.autocast(grads[0].device.type, enabled=False):
            for block in _blocks(plan, tensors):
                similarities = {pair: block.similarities(pair) for pair in plan.pairs}
                best = {pair: (x.amax(2).requires_grad_(), x.amax(1).requires_grad_()) for pair, x in similarities.items()}
                weights = [weight.detach().requires_grad_() for weight in block.weights]
                with torch.enable_grad():
                    scores = _block_scores(plan.terms, best, weights)
                    inputs = [*weights, *(side for sides in best.values() for side in sides)]
                    block_grads = torch.autograd.grad(scores, inputs, [grad[block.rows, block.columns] for grad in score_grads])
                for term, total, grad in zip(plan.terms, weight_grads, block_grads):
                    total[block.rows if term.side == _ROWS else block.columns] += grad
                best_grads = block_grads[len(weights):]
                for (row, column), by_row, by_column in zip(plan.pairs, best_grads[::2], best_grads[1::2], strict=True):
                    x = similarities[row, column]
                    grad = _maximum_grad(x, best[row, column][0], by_row, 2)
                    grad += _maximum_grad(x, best[row, column][1], by_column, 1)
                    grad = grad.flatten(2, 3).flatten(0, 1)
                    left, right = block.left[row][0], block.right[column][0]
                    row_grads[row][block.rows] += (grad @ right.flatten(0, 1)).view_as(left)
                    column_grads[column][block.columns] += (grad.mT @ left.flatten(0, 1)).view_as(right).transpose(0, 1)
        for part, masks in ((row_grads, plan.row_masks), (column_grads, plan.column_masks)):
            for name, (padding, _) in masks.items():
                if padding is not None:
                    part[name].masked_fill_(padding[:, :, None], 0)
        return None, *(grad.to(tensor.dtype) for grad, tensor in zip(grads, tensors, strict=True))


def _maximum_grad(values: Tensor, maximum: Tensor, grad: Tensor, dim: int) -> Tensor:
    """The gradient of `values.amax(dim)`, which equal maxima share."""
    chosen = torch.eq(values, maximum.unsqueeze(dim), out=torch.empty_like(values))
    return chosen.mul_((grad / chosen.sum(dim)).unsqueeze(dim))
