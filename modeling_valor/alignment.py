# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Multimodal Grouping Alignment (section 4.2): how well texts, videos and sounds match, and the loss on it.

Scoring is apart from the loss: `grouped_similarity` (fine-grained, eq. 3) and `coarse_similarity` (Table 10) give score
matrices, `contrastive_loss` (eq. 2) takes one, and `gather_samples` joins the samples of all ranks before either.
`mean_of_groups` is what becomes of the losses of several modality groups.
Nothing here has parameters.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .configuration_valor import ALIGNMENT_GROUPS as GROUPS


# How many row tokens and column tokens meet in one block. On a CPU such a block stays in the cache, where everything
# but its matrix products is cheap, and each of a few threads has that many row tokens; an accelerator wants few large
# kernels.
_CPU_BLOCK = (768, 2560)
_CPU_THREADS = 4
_ACCELERATOR_BLOCK = (1024, 8192)

# Added to the similarities of tokens that no maximum may choose. Finite in any type, also when two of them meet, because
# infinity times a weight or a gradient of zero would be NaN.
_EXCLUDED = -1e4


@dataclass(frozen=True)
class TokenSet:
    """One modality's token embeddings of B samples, as fine-grained similarity takes them.

    Args:
        embeds: (B, N, C), L2-normalised, with N of at least 1.
        mask: (B, N) bool, False at padding; a sample without any True lacks the modality. None: all tokens are valid.
        weight_logits: (B, N), f(e) of eq. 3 before its softmax. None: all valid tokens weigh the same.
        zero_padding: similarities of padded tokens count as 0 in the maxima over this set, as the 2023 checkpoints treat
            padded text, instead of being left out (eq. 3). Their weight is 0 either way.

    Raises:
        ValueError: shapes, or the mask's type, are not these.
    """

    embeds: Tensor
    mask: Tensor | None = None
    weight_logits: Tensor | None = None
    zero_padding: bool = False

    def __post_init__(self):
        shape = tuple(self.embeds.shape)
        if len(shape) != 3 or shape[1] == 0:
            raise ValueError(
                f"Token embeddings of shape {shape} were given; (samples, tokens, width) with at least one token is "
                "accepted. Mask the tokens of samples that lack the modality."
            )
        for name, tensor in (("mask", self.mask), ("weight_logits", self.weight_logits)):
            if tensor is not None and tuple(tensor.shape) != shape[:2]:
                raise ValueError(
                    f"{name} of shape {tuple(tensor.shape)} was given for token embeddings of shape {shape}; pass one "
                    f"entry per token, {shape[:2]}."
                )
        if self.mask is not None and self.mask.dtype != torch.bool:
            raise ValueError(f"A mask of type {self.mask.dtype} was given; pass a bool mask, such as `mask.bool()`.")


def grouped_similarity(
    text: TokenSet | None,
    video: TokenSet | None,
    audio: TokenSet | None,
    groups: Iterable[str],
    fusion: str = "feature",
    uniform_audiovisual: bool = False,
) -> dict[str, Tensor]:
    """Fine-grained similarity of every query with every candidate, for several modality groups in one pass.

    S = 1/2 [sum_i w_i max_j <a_i, b_j> + sum_j w_j max_i <a_i, b_j>], where the weights of a side are the softmax of
    `weight_logits` over the valid tokens of all its modalities. Groups share token similarities: the best audiovisual
    match of a word is the better one of its best video match and its best audio match.

    A sample that lacks one modality of a joint group scores as it would with the other one alone, as does the whole batch
    where one is None; a sample with nothing left scores -inf.

    Token similarities exist one block at a time and are computed again for the gradient. Above inputs, result and
    gradients the pass needs some tens of megabytes on a CPU, whatever the number of samples.

    Args:
        text, video, audio: tokens of each modality; None where it is not there.
        groups: keys of `ALIGNMENT_GROUPS`. Samples of the first letter are the rows.
        fusion: what t-av is. "feature" compares with the tokens of both modalities; "score" is S(t, v) + S(t, a) with
            uniform weights, of twice the range. Other groups stay as they are.
        uniform_audiovisual: uniform weights for t-av, on both sides.

    Returns:
        group -> (queries, candidates), float32, or float64 for float64 embeddings.

    Raises:
        ValueError: an unknown group or fusion, a group that lacks its modalities, or numbers of samples that disagree.

    Source: section 4.2, eq. 3; Table 8 for the groups, Table 10 for fusion and weights.
    """
    given = {"text": text, "video": video, "audio": audio}
    given = {modality: tokens for modality, tokens in given.items() if tokens is not None}
    if fusion not in ("feature", "score"):
        raise ValueError(f'fusion="{fusion}" was given; pass "feature" or "score".')

    parts = {group: _comparisons(group, given, fusion, uniform_audiovisual) for group in groups}
    comparisons = list(dict.fromkeys(part for group_parts in parts.values() for part in group_parts))
    matrices = dict(zip(comparisons, _compare(given, given, comparisons), strict=True))
    similarity = {}
    for group, group_parts in parts.items():
        query, _ = GROUPS[group]
        similarity[group] = _sum_of_present(
            [matrices[part] if query in part.rows else matrices[part].mT for part in group_parts]
        )
    return similarity


def fine_similarity(queries: Sequence[TokenSet], candidates: Sequence[TokenSet]) -> Tensor:
    """Fine-grained similarity of the joint tokens of `queries` with the joint tokens of `candidates`.

    The rules are those of `grouped_similarity`: [text] and [video, audio] give t-av.

    Returns:
        (samples of the queries, samples of the candidates).

    Raises:
        ValueError: numbers of samples or widths that disagree.

    Source: section 4.2, eq. 3.
    """
    rows, columns = dict(enumerate(queries)), dict(enumerate(candidates))
    return _compare(rows, columns, [_Comparison(tuple(rows), tuple(columns))])[0]


def coarse_similarity(
    text: Tensor | None,
    video: Tensor | None,
    audio: Tensor | None,
    group: str,
    audiovisual: Tensor | None = None,
    video_present: Tensor | None = None,
    audio_present: Tensor | None = None,
) -> Tensor:
    """Dot products of whole-sample embeddings: every text with every candidate.

    Args:
        text, video, audio: (B, C), L2-normalised; None where the group does not need them.
        group: "t-v", "t-a" or "t-av".
        audiovisual: (B, C), the joint embedding that t-av compares with (feature fusion). None: t-av is the sum of t-v and
            t-a (score fusion), or the one of them that is there.
        video_present, audio_present: (B,) bool, False where a sample lacks the modality; a sample with nothing left scores
            -inf. None: all samples have it.

    Returns:
        (texts, candidates), float32, or float64 for float64 embeddings.

    Raises:
        ValueError: another group, or one whose embeddings are None.

    Source: Table 10.
    """
    candidates = {"t-v": [(video, video_present)], "t-a": [(audio, audio_present)]}
    candidates["t-av"] = [*candidates["t-v"], *candidates["t-a"]]
    if group not in candidates:
        raise ValueError(f'Group "{group}" was given; coarse alignment has {", ".join(candidates)} only.')
    if group == "t-av" and audiovisual is not None:
        present = None if video_present is None or audio_present is None else video_present | audio_present
        candidates["t-av"] = [(audiovisual, present)]
    parts = [(embeds, present) for embeds, present in candidates[group] if embeds is not None]
    if text is None or not parts:
        raise ValueError(f'Group "{group}" was given without the embeddings of both its sides; pass them.')
    scores = []
    for embeds, present in parts:
        with torch.autocast(text.device.type, enabled=False):
            score = (text @ embeds.to(text.dtype).mT).to(_score_dtype(text.dtype))
        scores.append(score if present is None else score.masked_fill(~present, -torch.inf))
    return _sum_of_present(scores)


def contrastive_loss(similarity: Tensor, logit_scale: Tensor | float, keep: Tensor | None = None) -> Tensor:
    """Contrastive loss of a batch of pairs: the mean of its 2B row and column cross-entropies.

    Args:
        similarity: (B, B) with the pairs on the diagonal. In distributed training, that of the samples of all ranks.
        logit_scale: log of the inverse temperature: scores are multiplied by its exponential.
        keep: (B,) bool, False for pairs to drop, from rows and from columns. None: none. Pairs that lack a side, with -inf
            on the diagonal, are always dropped.

    Returns:
        A scalar; zero, with zero gradients, if no pair is left.

    Raises:
        ValueError: `similarity` is not square.

    Source: section 4.2, eq. 2.
    """
    if similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1]:
        raise ValueError(
            f"Similarities of shape {tuple(similarity.shape)} were given; the contrastive loss takes a square matrix with "
            "the pairs on its diagonal."
        )
    kept = similarity.diagonal() != -torch.inf
    if keep is not None:
        kept = kept & keep
    # A dropped pair keeps nothing but its own entry, so that its cross-entropies are exactly zero.
    both_kept = kept[:, None] & kept
    own = torch.eye(len(kept), dtype=torch.bool, device=kept.device)
    logits = similarity.to(_score_dtype(similarity.dtype)).masked_fill(~both_kept, 0)
    logits = logits * torch.as_tensor(logit_scale, dtype=logits.dtype, device=logits.device).exp()
    logits = logits.masked_fill(~(both_kept | own), -torch.inf)
    log_likelihood = logits.log_softmax(dim=1).diagonal() + logits.log_softmax(dim=0).diagonal()
    return -log_likelihood.sum() / (2 * kept.sum().clamp(min=1))


def mean_of_groups(losses: Sequence[Tensor], present: Sequence[Tensor]) -> Tensor:
    """Mean of the losses of those modality groups that any sample has; zero, with zero gradients, if there is none.

    Args:
        losses: a scalar for each group, zero for an absent one.
        present: a bool scalar for each group, the same on every rank.

    Source: section 4.2, eq. 4 and 6.
    """
    present = torch.stack(tuple(present))
    losses = torch.stack(tuple(losses))
    return (losses * present).sum() / present.sum().clamp(min=1)


def gather_samples(
    embeds: Sequence[Tensor | None], masks: Sequence[Tensor | None]
) -> tuple[tuple[Tensor | None, ...], tuple[Tensor | None, ...]]:
    """The samples of all ranks, in the order of the ranks, with gradients.

    Args:
        embeds: (B, N, C) or (B, C) of each modality, None for one that is not there.
        masks: (B, N) bool or None of each. Ranks may differ in B and in N: shorter samples are padded and masked.

    Returns:
        (embeds, masks) with the samples of all ranks; as they were given, where training is not distributed.

    Raises:
        ValueError: a modality is there on some ranks only. Such ranks would wait for each other; they can pass embeddings
            whose mask is False everywhere.
    """
    if not is_distributed():
        return tuple(embeds), tuple(masks)
    device = next((part.device for part in embeds if part is not None), torch.device("cpu"))
    given = _all_gather(torch.tensor([part is not None for part in embeds], device=device))
    if any(rank.ne(given[0]).any() for rank in given):
        raise ValueError(
            f"The ranks have different modalities: {[rank.tolist() for rank in given]}. Pass all of them on every rank, "
            "masked where a rank's samples lack one."
        )
    all_embeds, all_masks = [], []
    for part, mask in zip(embeds, masks, strict=True):
        if part is not None and mask is None:
            mask = part.new_ones(len(part), part.shape[1] if part.ndim == 3 else 1)
        all_embeds.append(None if part is None else gather_with_gradient(part))
        all_masks.append(None if part is None else gather_with_gradient(mask.bool()))
    return tuple(all_embeds), tuple(all_masks)


def gather_with_gradient(tensor: Tensor) -> Tensor:
    """The tensors of all ranks, joined along their first dimension in the order of the ranks, with gradients.

    Sizes may differ between ranks: along the other dimensions shorter tensors get zeros (False) at their end.

    A rank's part receives the sum of all ranks' gradients. With the same loss of the gathered tensors on each of W ranks
    that is W times the gradient of a single process, and the mean that DistributedDataParallel takes over the ranks makes
    it equal; parameters used after gathering have the full gradient on every rank, which the mean keeps.
    """
    if not is_distributed():
        return tensor
    shapes = torch.stack(_all_gather(torch.tensor(tensor.shape, device=tensor.device)))
    largest = shapes.amax(dim=0).tolist()
    missing = [size - own for size, own in zip(largest, tensor.shape, strict=True)]
    padded = F.pad(tensor, [amount for size in reversed(missing) for amount in (0, size)])
    parts = _AllGather.apply(padded)
    return torch.cat([part[:samples] for part, samples in zip(parts, shapes[:, 0].tolist(), strict=True)])


def mean_over_ranks(tensor: Tensor) -> Tensor:
    """The mean of a tensor over all ranks, without gradients; itself where training is not distributed."""
    if not is_distributed():
        return tensor
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def is_distributed() -> bool:
    """Whether several processes train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _all_gather(tensor: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return parts


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor: Tensor) -> tuple[Tensor, ...]:
        return tuple(_all_gather(tensor))

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor) -> Tensor:
        total = torch.stack(grads)
        dist.all_reduce(total)
        return total[dist.get_rank()]


@dataclass(frozen=True)
class _Comparison:
    """One score matrix: the joint tokens of the sets named in `rows` against those of the sets named in `columns`."""

    rows: tuple[Hashable, ...]
    columns: tuple[Hashable, ...]
    uniform: bool = False


def _comparisons(group: str, given: Mapping[str, TokenSet], fusion: str, uniform: bool) -> list[_Comparison]:
    """The comparisons that a group's score is the sum of.

    Text always is on the side of the rows, so that groups with the text as query share its similarities with groups that
    have it as a candidate; the matrices of the latter are transposed in the end.
    """
    if group not in GROUPS:
        raise ValueError(f'Group "{group}" was given; {", ".join(GROUPS)} are accepted.')
    query, candidates = GROUPS[group]
    candidates_given = tuple(modality for modality in candidates if modality in given)
    if query not in given or not candidates_given:
        raise ValueError(
            f'Group "{group}" compares {query} with {" and ".join(candidates)}, but the tokens given are of '
            f"{', '.join(given) or 'nothing'}; pass what is missing or leave the group out."
        )
    if group == "t-av" and fusion == "score":
        return [_Comparison((query,), (candidate,), uniform=True) for candidate in candidates_given]
    uniform = uniform and group == "t-av"
    if "text" in candidates_given:
        return [_Comparison(candidates_given, (query,), uniform)]
    return [_Comparison((query,), candidates_given, uniform)]


def _sum_of_present(scores: Sequence[Tensor]) -> Tensor:
    """The sum of score matrices in which -inf stands for a missing score; -inf where all are missing."""
    if len(scores) == 1:
        return scores[0]
    missing = [score == -torch.inf for score in scores]
    total = sum(score.masked_fill(absent, 0) for score, absent in zip(scores, missing, strict=True))
    return total.masked_fill(reduce(torch.logical_and, missing), -torch.inf)


def _score_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _compare(
    rows: Mapping[Hashable, TokenSet], columns: Mapping[Hashable, TokenSet], comparisons: Sequence[_Comparison]
) -> list[Tensor]:
    """The score matrix (row samples, column samples) of each comparison, -inf where a sample has no valid token.

    All tokens of the rows meet all tokens of the columns once. For groups with the text as query nothing of that is in
    vain; for all six groups an eighth is, such as video with video.
    """
    if not comparisons:
        return []
    rows = {name: rows[name] for item in comparisons for name in item.rows}
    columns = {name: columns[name] for item in comparisons for name in item.columns}
    for sets in (rows, columns):
        samples = {name: len(tokens.embeds) for name, tokens in sets.items()}
        if len(set(samples.values())) > 1:
            raise ValueError(
                f"Different numbers of samples meet on one side of the scores: {samples}. They must be equal; compute "
                "groups of other sizes in a separate call."
            )
    widths = sorted({tokens.embeds.shape[2] for tokens in (*rows.values(), *columns.values())})
    if len(widths) > 1:
        raise ValueError(f"Embeddings of widths {widths} were given; all modalities must have the same.")

    row_embeds, row_side = _join(rows)
    column_embeds, column_side = _join(columns)
    weights = []
    for item in comparisons:
        weights += _token_weights([rows[name] for name in item.rows], item.uniform)
        weights += _token_weights([columns[name] for name in item.columns], item.uniform)
    plan = _Plan(comparisons, row_side, column_side)
    matrices = _BlockwiseScores.apply(plan, row_embeds, column_embeds, *weights)
    scores = []
    for item, score in zip(comparisons, matrices, strict=True):
        for names, sets, dim in ((item.rows, rows, 1), (item.columns, columns, 0)):
            masks = [sets[name].mask for name in names]
            if all(mask is not None for mask in masks):
                absent = ~torch.cat(masks, dim=1).any(dim=1)
                score = score.masked_fill(absent.unsqueeze(dim), -torch.inf)
        scores.append(score)
    return scores


def _token_weights(sets: Sequence[TokenSet], uniform: bool) -> Sequence[Tensor]:
    """The weights (B, N) of each set's tokens, by one softmax over the valid tokens of all."""
    logits = []
    for tokens in sets:
        part = tokens.weight_logits
        if part is None or uniform:
            part = tokens.embeds.new_zeros(tokens.embeds.shape[:2])
        part = part.to(_score_dtype(tokens.embeds.dtype))
        # Finite, because the softmax of a sample without any valid token must not be NaN.
        logits.append(part if tokens.mask is None else part.masked_fill(~tokens.mask, torch.finfo(part.dtype).min))
    return torch.cat(logits, dim=1).softmax(dim=1).split([part.shape[1] for part in logits], dim=1)


@dataclass(frozen=True)
class _Side:
    """Which tokens of the joined sets of one side are whose, are padding, and may not be chosen by any maximum."""

    slices: dict[Hashable, slice]
    padding: Tensor | None
    excluded: Tensor | None


def _join(sets: Mapping[Hashable, TokenSet]) -> tuple[Tensor, _Side]:
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
    embeds = [tokens.embeds for tokens in sets.values()]
    embeds = embeds[0] if len(embeds) == 1 else torch.cat(embeds, dim=1)
    if all(tokens.mask is None for tokens in sets.values()):
        return embeds, _Side(slices, None, None)
    return embeds, _Side(slices, torch.cat(padding, dim=1), torch.cat(excluded, dim=1))


_Pair = tuple[Hashable, Hashable]  # a set of the rows and a set of the columns


@dataclass(frozen=True)
class _Plan:
    """What one pass computes from the joined tokens of its rows and columns.

    Token weights are a list: for each comparison those of its rows' sets, (row samples, N), then those of its columns'.
    """

    comparisons: Sequence[_Comparison]
    rows: _Side
    columns: _Side

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
        row_tokens, column_tokens = _ACCELERATOR_BLOCK
        if row_embeds.device.type == "cpu":
            row_tokens, column_tokens = _CPU_BLOCK
            row_tokens *= min(torch.get_num_threads(), _CPU_THREADS)
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


_Samples = slice | Tensor  # some samples of a side; as a tensor their indices


def _row_blocks(embeds: Tensor, side: _Side, tokens: int) -> Iterator[tuple[_Samples, int]]:
    """Row samples that make a block of so many tokens, and how many tokens of each of them it takes.

    On a CPU samples of about the same length share a block, and the padding that all of them end with is left out: with
    captions of 12 to 42 tokens that saves a third of the products. An accelerator would have to wait for the lengths.
    """
    count = embeds.shape[1]
    if side.padding is None or embeds.device.type != "cpu":
        yield from ((rows, count) for rows in _slices(embeds, tokens))
        return
    lengths = (torch.arange(1, count + 1) * ~side.padding).amax(dim=1)
    # Where padding counts as 0 in the maxima, how much of it there is makes no difference, but some must be left
    lengths += (side.padding & ~side.excluded).any(dim=1)
    lengths, order = lengths.clamp(max(part.start for part in side.slices.values()) + 1, count).sort(descending=True)
    start = 0
    while start < len(order):
        length = int(lengths[start])
        stop = start + max(1, tokens // length)
        yield order[start:stop], length
        start = stop


def _slices(embeds: Tensor, tokens: int) -> Iterator[slice]:
    """Slices of the samples that have at most so many tokens, or are a single sample."""
    step = max(1, tokens // embeds.shape[1])
    return (slice(start, start + step) for start in range(0, len(embeds), step))


def _load(
    embeds: Tensor, side: _Side, samples: _Samples, length: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    """The first tokens of some samples, (n, N, C), zero at padding; and what keeps them from the maxima if added, (n, N)."""
    tokens = embeds[samples, :length].to(dtype)
    if side.padding is None:
        return tokens, None
    padding, excluded = side.padding[samples, :length], side.excluded[samples, :length]
    return tokens.masked_fill(padding[:, :, None], 0), excluded.to(dtype) * _EXCLUDED


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
    """What gradients of a block's scores make of its left tokens, right tokens and weights. Equal maxima share theirs."""
    similarities = block.similarities()
    pairs = plan.pairs(similarities)
    row_best = [part.amax(dim=2).requires_grad_() for part in pairs.values()]
    column_best = [part.amax(dim=1).requires_grad_() for part in pairs.values()]
    weights = [weight.detach().requires_grad_() for weight in block.weights]
    with torch.enable_grad():
        by_pair = (dict(zip(pairs, best, strict=True)) for best in (row_best, column_best))
        scores = _weigh(plan.comparisons, *by_pair, weights)
        grads = torch.autograd.grad(scores, [*row_best, *column_best, *weights], score_grads)
    count = len(pairs)
    row_grads, column_grads, weight_grads = grads[:count], grads[count : 2 * count], grads[2 * count :]

    similarity_grad = torch.zeros_like(similarities)
    for index, (part, grad) in enumerate(zip(pairs.values(), plan.pairs(similarity_grad).values(), strict=True)):
        torch.eq(part, row_best[index][:, :, None], out=grad)
        grad *= (row_grads[index] / grad.sum(dim=2))[:, :, None]
        chosen = part.eq_(column_best[index][:, None])  # in place: the similarities are of no more use
        grad.addcmul_(chosen, (column_grads[index] / chosen.sum(dim=1))[:, None])
    similarity_grad = similarity_grad.flatten(2, 3).flatten(0, 1)  # (n * N, M * q)
    left_grad = (similarity_grad @ block.right.flatten(0, 1)).view_as(block.left)
    right_grad = (similarity_grad.mT @ block.left.flatten(0, 1)).view_as(block.right)
    return left_grad, right_grad, weight_grads


def _weigh(
    comparisons: Sequence[_Comparison],
    row_best: Mapping[_Pair, Tensor],
    column_best: Mapping[_Pair, Tensor],
    weights: Sequence[Tensor],
) -> list[Tensor]:
    """Eq. 3 for each comparison, (n, q), from the best match of each row token (n, N, q) and column token (n, M, q)."""
    weights = iter(weights)
    scores = []
    for item in comparisons:
        score = 0
        for row in item.rows:
            best, weight = reduce(torch.maximum, (row_best[row, column] for column in item.columns)), next(weights)
            score = score + torch.einsum("ni,niq->nq", weight, best.to(weight.dtype))
        for column in item.columns:
            best, weight = reduce(torch.maximum, (column_best[row, column] for row in item.rows)), next(weights)
            score = score + torch.einsum("qj,njq->nq", weight, best.to(weight.dtype))
        scores.append(score / 2)
    return scores


class _BlockwiseScores(torch.autograd.Function):
    """The score matrices of a plan. Only the inputs are kept for the backward pass, which computes each block again.

    Under autocast the similarities are computed in the embeddings' own type, as without it.
    """

    @staticmethod
    def forward(ctx, plan: _Plan, row_embeds: Tensor, column_embeds: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
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
    def backward(ctx, *score_grads: Tensor) -> tuple[Tensor | None, ...]:
        plan, tensors = ctx.plan, ctx.saved_tensors
        row_grad, column_grad, *weight_grads = (
            torch.zeros_like(part, dtype=_score_dtype(part.dtype)) for part in tensors
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
