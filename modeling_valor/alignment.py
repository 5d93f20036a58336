# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Multimodal Grouping Alignment (section 4.2): how well texts, videos and sounds match, and the loss on it.

Scores and loss are separate: `grouped_similarity` (fine-grained, eq. 3) and `coarse_similarity` (Table 10) give score
matrices, `contrastive_loss` (eq. 2) takes one, and `gather_samples` joins the samples of all ranks before either.
`mean_of_groups` averages the losses of several modality groups. `alignment_blocks` computes the scores in little memory.
Nothing here has parameters.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .alignment_blocks import Comparison, compare, score_dtype
from .configuration_valor import ALIGNMENT_GROUPS as GROUPS


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

    def __post_init__(self) -> None:
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
        text, video, audio: tokens of each modality; None if it is absent.
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
    modalities = {"text": text, "video": video, "audio": audio}
    given = {modality: tokens for modality, tokens in modalities.items() if tokens is not None}
    if fusion not in ("feature", "score"):
        raise ValueError(f'fusion="{fusion}" was given; pass "feature" or "score".')

    parts = {group: _comparisons(group, given, fusion, uniform_audiovisual) for group in groups}
    comparisons = list(dict.fromkeys(part for group_parts in parts.values() for part in group_parts))
    matrices = dict(zip(comparisons, compare(given, given, comparisons), strict=True))
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
    return compare(rows, columns, [Comparison(tuple(rows), tuple(columns))])[0]


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
            score = (text @ embeds.to(text.dtype).mT).to(score_dtype(text.dtype))
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
    logits = similarity.to(score_dtype(similarity.dtype)).masked_fill(~both_kept, 0)
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
    is_present = torch.stack(tuple(present))
    return (torch.stack(tuple(losses)) * is_present).sum() / is_present.sum().clamp(min=1)


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
        all_masks.append(None if part is None or mask is None else gather_with_gradient(mask.bool()))
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
    """Whether several processes run together, in a process group of torch."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _all_gather(tensor: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return parts


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> tuple[Tensor, ...]:
        return tuple(_all_gather(tensor))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = torch.stack(grads)
        dist.all_reduce(total)
        return total[dist.get_rank()]


def _comparisons(group: str, given: Mapping[str, TokenSet], fusion: str, uniform: bool) -> list[Comparison]:
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
        return [Comparison((query,), (candidate,), uniform=True) for candidate in candidates_given]
    uniform = uniform and group == "t-av"
    if "text" in candidates_given:
        return [Comparison(candidates_given, (query,), uniform)]
    return [Comparison((query,), candidates_given, uniform)]


def _sum_of_present(scores: Sequence[Tensor]) -> Tensor:
    """The sum of score matrices in which -inf stands for a missing score; -inf where all are missing."""
    if len(scores) == 1:
        return scores[0]
    missing = [score == -torch.inf for score in scores]
    total = reduce(torch.add, (score.masked_fill(absent, 0) for score, absent in zip(scores, missing, strict=True)))
    return total.masked_fill(reduce(torch.logical_and, missing), -torch.inf)
