# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Multimodal Grouping Captioning (MGC): masks of words, and the loss of predicting them (section 4.2, eq. 5 and 6)."""

from collections.abc import Mapping

import torch
from torch.nn import functional as F

from .alignment import mean_of_groups
from .alignment_ranks import mean_over_ranks
from .configuration_valor import CAPTIONING_GROUPS


IGNORE_INDEX = -100


def mask_tokens(
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    mask_token_id: int,
    vocab_size: int,
    mask_probability: float = 0.6,
    generator: torch.Generator | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks words for causal masked language modelling (section 4.2), as the 2023 code does.

    Every token but the first ([CLS]) and the padding is chosen with `mask_probability`, [SEP] included; a text in which
    none was chosen is drawn again. Of the chosen ones 80% become [MASK], 10% a random word, 10% stay.

    Args:
        input_ids (`torch.LongTensor` of shape `(batch_size, length)`): texts.
        attention_mask (`torch.Tensor` of shape `(batch_size, length)`, *optional*): 0 or False for padding.
        generator (`torch.Generator`, *optional*): makes the draw repeatable; on the device of `input_ids`.

    Returns:
        Masked ids and labels, both `(batch_size, length)`; labels are -100 where nothing was masked.
    """

    def draw(shape: torch.Size) -> torch.Tensor:
        return torch.rand(shape, generator=generator, device=input_ids.device)

    candidates = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
    candidates = candidates.clone()
    candidates[:, 0] = False
    chosen = candidates & (draw(input_ids.shape) < mask_probability)
    while (again := candidates.any(dim=1) & ~chosen.any(dim=1)).any():
        chosen[again] = candidates[again] & (draw(candidates[again].shape) < mask_probability)

    labels = input_ids.masked_fill(~chosen, IGNORE_INDEX)
    replacement = draw(input_ids.shape)
    # Ids up to [MASK] are special or unused in BERT vocabularies; in some others it is the last, after the words
    first, end = (mask_token_id + 1, vocab_size) if mask_token_id + 1 < vocab_size else (0, mask_token_id)
    random_words = torch.randint(first, end, input_ids.shape, generator=generator, device=input_ids.device)
    masked = torch.where(chosen & (replacement < 0.8), mask_token_id, input_ids)
    return torch.where(chosen & (replacement >= 0.8) & (replacement < 0.9), random_words, masked), labels


def next_word_labels(input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
    """Labels of the "causal" objective: at each position the next token, -100 at the end and for padding."""
    labels = torch.full_like(input_ids, IGNORE_INDEX)
    labels[:, :-1] = input_ids[:, 1:]
    if attention_mask is not None:
        labels[:, :-1].masked_fill_(~attention_mask[:, 1:].bool(), IGNORE_INDEX)
    return labels


def step_queries(sequences: torch.Tensor, mask_token_id: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Input of one decoder pass that predicts every word of finished texts as decoding would have predicted it.

    Decoding reads [CLS] y_1 .. y_(t-1) [MASK] to predict y_t (section 4.3). Here the text is followed by one [MASK] for each
    step t, at position t, which sees the text before t and itself; the text sees no [MASK].

    Args:
        sequences (`torch.LongTensor` of shape `(batch_size, 1 + steps)`): texts that begin with [CLS].

    Returns:
        Ids of shape `(batch_size, 2 * steps)`; their positions, `(2 * steps,)`; which attends to which, a bool mask of shape
        `(batch_size, 1, 2 * steps, 2 * steps)`. The last `steps` rows of the output predict `sequences[:, 1:]`.
    """
    rows, steps = sequences.shape[0], sequences.shape[1] - 1
    queries = torch.full_like(sequences[:, 1:], mask_token_id)
    order = torch.arange(steps, device=sequences.device)
    before = order[:, None] >= order
    itself = torch.eye(2 * steps, dtype=torch.bool, device=sequences.device)[:, steps:]
    attends = torch.cat([before.repeat(2, 1), itself], dim=1)
    return (
        torch.cat([sequences[:, :-1], queries], dim=1),
        torch.cat([order, order + 1]),
        attends.expand(rows, 1, -1, -1),
    )


def answer_token_weights(labels: torch.Tensor, answer_weights: torch.Tensor | None = None) -> torch.Tensor:
    """Weights with which [`captioning_loss`] is the mean over an answer's tokens, then over answers (section 4.3).

    Args:
        labels (`torch.LongTensor` of shape `(batch_size, length)`): -100 where there is no target.
        answer_weights (`torch.Tensor` of shape `(batch_size,)`, *optional*): for several answers to a question, weights
            that add up to 1 for each question; the result is then the mean over questions.

    Returns:
        Float32, of the shape of `labels`.
    """
    targets = labels != IGNORE_INDEX
    weights = targets / targets.sum(dim=1, keepdim=True).clamp(min=1)
    return weights if answer_weights is None else weights * answer_weights.float()[:, None]


def total_weight(labels: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """The divisor of [`captioning_loss`]: the number of targets, or the sum of their weights; float32."""
    targets = (labels != IGNORE_INDEX).float()
    return (targets if weights is None else targets * weights).sum()


def captioning_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
    total: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cross-entropy at the labelled positions, averaged over all of them (eq. 5).

    With `label_smoothing` s it is the KL divergence to the distribution that gives the target 1 - s and every other
    word s / (V - 1), summed over the vocabulary; it contains the entropy of that distribution, as in the 2023 code.

    Args:
        logits (`torch.Tensor` of shape `(..., vocab_size)`): computed in float32 whatever their dtype.
        labels (`torch.LongTensor` of shape `(...)`): -100 where there is no target. With no target at all the loss is 0.
        weights (`torch.Tensor` of shape `(...)`, *optional*): of each target, such as [`answer_token_weights`]; by default
            all weigh the same.
        total (`torch.Tensor` of shape `()`, *optional*): what the weighted sum is divided by, where the targets here are
            only a part; by default [`total_weight`] of the targets here.
    """
    targets = labels != IGNORE_INDEX
    if total is None:
        total = total_weight(labels, weights)
    logits, labels = logits[targets].float(), labels[targets]
    if label_smoothing == 0:
        losses = F.cross_entropy(logits, labels, reduction="none")
    else:
        smoothed = torch.full_like(logits, label_smoothing / (logits.shape[-1] - 1))
        smoothed.scatter_(1, labels[:, None], 1 - label_smoothing)
        losses = F.kl_div(F.log_softmax(logits, dim=-1), smoothed, reduction="none").sum(dim=1)
    if weights is not None:
        losses = losses * weights[targets]
    return losses.sum() / total.clamp(min=torch.finfo(torch.float32).tiny)


def captioning_losses(
    logits: Mapping[str, torch.Tensor],
    labels: Mapping[str, torch.Tensor],
    num_targets: Mapping[str, torch.Tensor] | None = None,
    weights: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
    over_ranks: bool = False,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The mean loss of the modality groups that any sample has (eq. 6), and the loss of each.

    A group's sum is divided by its number of targets; with `over_ranks` by the mean of this number over all ranks. So the mean
    that DistributedDataParallel takes is the loss, and the gradient, of a single process with the samples of all ranks, also
    where a rank has few samples of a group or none.

    Args:
        logits: group -> `(..., vocab_size)`.
        labels: group -> `(...)`, -100 where there is no target.
        num_targets: group -> what its sum is divided by, where the batch is only a part.
        weights, label_smoothing: as of [`captioning_loss`].
        over_ranks: whether other ranks train with this one.
    """
    if num_targets is None:
        counts = {group: total_weight(targets, weights) for group, targets in labels.items()}
        # An entry for every group, because other ranks may have other groups
        none = torch.zeros_like(next(iter(counts.values())))
        totals = torch.stack([counts.get(group, none) for group in CAPTIONING_GROUPS])
        num_targets = dict(zip(CAPTIONING_GROUPS, mean_over_ranks(totals) if over_ranks else totals, strict=True))
    losses = {
        group: captioning_loss(logits[group], labels[group], weights, label_smoothing, num_targets[group])
        for group in logits
    }
    return mean_of_groups(list(losses.values()), [num_targets[group] > 0 for group in losses]), losses
