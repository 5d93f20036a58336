# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Multimodal Grouping Alignment (section 4.2): how well texts, videos and sounds match, and the loss on it.

Scores and loss are separate: `grouped_similarity` (fine-grained, eq. 3) and `coarse_similarity` (Table 10) give score
matrices, `contrastive_loss` (eq. 2) takes one. In distributed training `similarity_over_ranks` gives a rank's rows of the
score matrices, and `contrastive_losses` takes them. `mean_of_groups` averages the losses of several modality groups.
`alignment_blocks` computes the scores in little memory, `alignment_ranks` is what the ranks exchange. Nothing here has
parameters.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from .alignment_blocks import Comparison, compare, score_dtype
from .alignment_ranks import RankSamples, gather_tokens
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
    parts = {group: _comparisons(group, given, fusion, uniform_audiovisual) for group in groups}
    similarity = _compare_parts(given, given, parts)
    return {
        group: score if GROUPS[group][0] in parts[group][0].rows else score.mT for group, score in similarity.items()
    }


def similarity_over_ranks(
    text: TokenSet | None,
    video: TokenSet | None,
    audio: TokenSet | None,
    groups: Iterable[str],
    fusion: str = "feature",
    uniform_audiovisual: bool = False,
) -> tuple[dict[str, Tensor], RankSamples]:
    """Fine-grained similarity of this rank's samples with those of all ranks, with gradients to the tokens of all ranks.

    A group's two sides are interchangeable in the contrastive loss. Text, where a group has it, is on the side of the
    rows: it has the most tokens, and rows need not leave their rank. Otherwise all is as in `grouped_similarity`.

    Args:
        text, video, audio: tokens of this rank's samples, which match each other.
        groups, fusion, uniform_audiovisual: as of `grouped_similarity`, the same on every rank.

    Returns:
        (group -> (samples of this rank, samples of all ranks), where the samples of this rank are among all).

    Raises:
        ValueError: as `grouped_similarity`, or a modality is there on some ranks only.
    """
    modalities = {"text": text, "video": video, "audio": audio}
    given = {modality: tokens for modality, tokens in modalities.items() if tokens is not None}
    parts = {group: _comparisons(group, given, fusion, uniform_audiovisual) for group in groups}
    columns = {str(modality) for group_parts in parts.values() for part in group_parts for modality in part.columns}
    of_all_ranks, samples = gather_tokens(modalities, columns)
    return _compare_parts(given, of_all_ranks, parts), samples


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


def coarse_similarities(
    groups: Sequence[str], text: TokenSet | None, candidates: Mapping[str, TokenSet | None]
) -> dict[str, Tensor]:
    """`coarse_similarity` for several modality groups, of sets of one token.

    Args:
        groups: "t-v", "t-a", "t-av".
        text: the texts; None where there are none.
        candidates: "video", "audio" and "audiovisual" -> their embeddings with the masks of those that lack the modality; None,
            or no entry, where there are none.

    Returns:
        group -> (texts, candidates).

    Raises:
        ValueError: as `coarse_similarity`.
    """
    embeds = {name: None if tokens is None else tokens.embeds[:, 0] for name, tokens in candidates.items()}
    present = {
        name: None if tokens is None or tokens.mask is None else tokens.mask[:, 0]
        for name, tokens in candidates.items()
    }
    return {
        group: coarse_similarity(
            None if text is None else text.embeds[:, 0],
            embeds.get("video"),
            embeds.get("audio"),
            group,
            audiovisual=embeds.get("audiovisual"),
            video_present=present.get("video"),
            audio_present=present.get("audio"),
        )
        for group in groups
    }


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
    if keep is not None:
        similarity = similarity.masked_fill(torch.diag(~keep), -torch.inf)
    losses, _ = contrastive_losses({"": similarity}, logit_scale, RankSamples((len(similarity),)))
    return losses[""]


def contrastive_losses(
    similarity: Mapping[str, Tensor], logit_scale: Tensor | float, samples: RankSamples
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """`contrastive_loss` of the samples of all ranks for each group, from this rank's rows of the score matrices.

    The row cross-entropies are those of this rank; of the columns the ranks exchange the sums over their rows.

    Args:
        similarity: group -> (samples of this rank, samples of all ranks), the pairs where `samples` says.
        logit_scale: log of the inverse temperature.
        samples: where the samples of this rank are among all.

    Returns:
        (group -> a scalar, for each group whether any pair has both its sides), the same on every rank.

    Source: section 4.2, eq. 2.
    """
    pairs = [scores.detach().diagonal(samples.start) for scores in similarity.values()]
    all_pairs = samples.join(torch.stack(pairs, dim=1)).unbind(dim=1)
    sums = [
        _cross_entropy_sums(scores, of_pairs, logit_scale, samples.start)
        for scores, of_pairs in zip(similarity.values(), all_pairs, strict=True)
    ]
    own_sums, column_sums = torch.split(samples.gather(torch.stack(sums)), [1, len(all_pairs[0])], dim=2)
    totals = own_sums.sum(dim=(0, 2)) + column_sums.logsumexp(dim=0).sum(dim=1)  # (groups,)
    num_pairs = torch.stack([(of_pairs != -torch.inf).sum() for of_pairs in all_pairs])
    losses = totals / (2 * num_pairs.clamp(min=1))
    return dict(zip(similarity, losses.unbind(), strict=True)), list((num_pairs > 0).unbind())


def _cross_entropy_sums(similarity: Tensor, all_pairs: Tensor, logit_scale: Tensor | float, start: int) -> Tensor:
    """A rank's part of the cross-entropies of rows and columns, (1 + samples of all ranks,).

    First the sum of its rows' cross-entropies. Then for each column log sum exp(logit - logit of the column's pair) over
    its rows; the sum of these of all ranks is the column's cross-entropy.

    Args:
        similarity: (samples of this rank, samples of all ranks).
        all_pairs: (samples of all ranks,), the scores of all pairs, -inf where one is to be dropped.
        start: column of the first row's pair.
    """
    dtype = score_dtype(similarity.dtype)
    scale = torch.as_tensor(logit_scale, dtype=dtype, device=similarity.device).exp()
    kept = all_pairs != -torch.inf
    both_kept = kept[start : start + len(similarity), None] & kept
    own = torch.zeros_like(both_kept)
    own.diagonal(start).fill_(True)
    # A dropped pair keeps nothing but its own entry, so that its cross-entropies are exactly zero. The others are finite,
    # because a rank may have no row for a column.
    logits = similarity.to(dtype).masked_fill(~both_kept, 0) * scale
    logits = logits.masked_fill(~(both_kept | own), torch.finfo(dtype).min)
    pair_logits = (all_pairs.to(dtype).masked_fill(~kept, 0) * scale).detach()
    columns = (logits - pair_logits).logsumexp(dim=0)
    own_pairs = logits.diagonal(start)
    # Zero, with the gradient that the logits of the pairs have in the columns, from which they were subtracted as constants
    of_columns = own_pairs.detach() - own_pairs
    rows = of_columns - logits.log_softmax(dim=1).diagonal(start)
    return torch.cat([rows.sum()[None], columns])


def mean_of_groups(losses: Sequence[Tensor], present: Sequence[Tensor]) -> Tensor:
    """Mean of the losses of those modality groups that any sample has; zero, with zero gradients, if there is none.

    Args:
        losses: a scalar for each group, zero for an absent one.
        present: a bool scalar for each group, the same on every rank.

    Source: section 4.2, eq. 4 and 6.
    """
    is_present = torch.stack(tuple(present))
    return (torch.stack(tuple(losses)) * is_present).sum() / is_present.sum().clamp(min=1)


def _comparisons(group: str, given: Mapping[str, TokenSet], fusion: str, uniform: bool) -> list[Comparison]:
    """The comparisons that a group's score is the sum of.

    Text always is on the side of the rows, so that groups with the text as query share its similarities with groups that
    have it as a candidate; the matrices of the latter are transposed in the end.
    """
    if fusion not in ("feature", "score"):
        raise ValueError(f'fusion="{fusion}" was given; pass "feature" or "score".')
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


def _compare_parts(
    rows: Mapping[str, TokenSet], columns: Mapping[str, TokenSet], parts: Mapping[str, Sequence[Comparison]]
) -> dict[str, Tensor]:
    """The score matrix of each group, the sum of its comparisons."""
    comparisons = list(dict.fromkeys(part for group_parts in parts.values() for part in group_parts))
    matrices = dict(zip(comparisons, compare(rows, columns, comparisons), strict=True))
    return {group: _sum_of_present([matrices[part] for part in group_parts]) for group, group_parts in parts.items()}


def _sum_of_present(scores: Sequence[Tensor]) -> Tensor:
    """The sum of score matrices in which -inf stands for a missing score; -inf where all are missing."""
    if len(scores) == 1:
        return scores[0]
    missing = [score == -torch.inf for score in scores]
    total = reduce(torch.add, (score.masked_fill(absent, 0) for score, absent in zip(scores, missing, strict=True)))
    return total.masked_fill(reduce(torch.logical_and, missing), -torch.inf)
