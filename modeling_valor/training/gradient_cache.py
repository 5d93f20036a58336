# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Contrastive batches larger than memory, with exactly the gradients of the whole batch.

The contrastive loss needs all embeddings of a batch at once, but no activations of the encoders. So embeddings are computed
chunk by chunk without activations; the loss gives their gradients; and each chunk is encoded once more, with activations,
to carry its part of these gradients through the encoders. Costs a second forward pass; memory is that of one chunk.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import get_device_states, set_device_states

from ..alignment_ranks import mean_over_ranks
from ..captioning import IGNORE_INDEX
from ..configuration_valor import CAPTIONING_GROUPS, MEDIA, MODALITIES
from ..modeling_valor import ValorModel
from ..modeling_valor_heads import ValorForPreTraining, ValorForRetrieval


ENCODER_INPUTS = [name for modality in MODALITIES for name in (modality.input, modality.mask)]
# Parameters that take part after the embeddings: in the scores and in the loss on them
SCORING = (*(f"{modality.name}_token_weight." for modality in MODALITIES), "audiovisual_projection.", "logit_scale")


def gradient_cached_step(
    forward: Callable[..., Any],
    model: ValorForPreTraining | ValorForRetrieval,
    inputs: dict[str, Any],
    chunk_size: int,
    backward: Callable[..., None],
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
    defer_sync: Callable[[], AbstractContextManager[Any]] = nullcontext,
    record: Callable[[dict[str, dict[str, Tensor]]], None] | None = None,
) -> Tensor:
    """Adds the gradients of a batch's loss to those of the model, `chunk_size` samples at a time.

    Args:
        forward: runs the model, wrapped for distributed training where it is, on a chunk of `inputs`.
        model: the model itself.
        inputs: the batch; with `labels` MGC and MGA are trained (eq. 7), without them MGA only.
        backward: runs the backward pass of a loss, with the arguments of `Tensor.backward`.
        precision: context of the forward passes, such as autocast.
        defer_sync: context in which the wrapped model does not exchange gradients; the last chunk runs outside of it.
        record: takes the losses of the modality groups, as the model's output has them.

    Returns:
        The loss, detached: equal to that of the whole batch.

    Source: section 4.2, eq. 2 to 7; the method is that of Gao et al., "Scaling Deep Contrastive Learning Batch Size under
    Memory Limited Setup" (2021).
    """
    record = record or _ignore
    inputs = dict(inputs)
    alignment_groups = inputs.pop("alignment_groups", None)
    with_captions = inputs.get("labels") is not None
    chunks = _split(inputs, chunk_size)
    embeds, states = _embed_chunks(model.valor, chunks, precision)
    with precision():
        alignment, alignment_losses = _alignment_loss(model, embeds, inputs, alignment_groups)
    if with_captions:
        alignment = model.config.alignment_loss_weight * alignment
    scoring = _scoring_parameters(model.valor)
    grads, scoring_grads = _alignment_gradients(alignment, embeds, scoring, chunk_size)
    if scoring_grads:
        with defer_sync():  # every rank has the mean over the ranks already
            backward(_products(scoring_grads), inputs=scoring)
    record({"alignment_losses": alignment_losses})
    if not with_captions and len(scoring) == sum(parameter.requires_grad for parameter in model.parameters()):
        return alignment.detach()

    targets = {"num_targets": _num_targets(inputs)} if with_captions else {}
    total = alignment.detach()
    captioning_losses: dict[str, Tensor] = {}
    for index, (chunk, state) in enumerate(zip(chunks, states, strict=True)):
        state.restore()
        with nullcontext() if index == len(chunks) - 1 else defer_sync():
            with precision():
                outputs = forward(**chunk, alignment_groups=[], **targets)
            loss = _alignment_part(outputs, grads[index])
            if with_captions and outputs.captioning_losses:
                loss = loss + outputs.loss
                total = total + outputs.loss.detach()
                _add(captioning_losses, outputs.captioning_losses)
            if loss.requires_grad:
                backward(loss)
    record({"captioning_losses": captioning_losses})
    return total


def _ignore(losses: dict[str, dict[str, Tensor]]) -> None:
    """Records nothing."""


def _embed_chunks(
    valor: ValorModel, chunks: list[dict[str, Any]], precision: Callable[[], AbstractContextManager[Any]]
) -> tuple[list[Tensor | None], list["_RandomState"]]:
    """The embeddings of a batch by modality, leaves of the graph, and the state of the generators before each chunk."""
    states, parts = [], []
    for chunk in chunks:
        states.append(_RandomState.now(chunk["input_ids"]))
        with torch.no_grad(), precision():
            outputs = valor(**{name: chunk.get(name) for name in ENCODER_INPUTS}, alignment_groups=[])
        parts.append([getattr(outputs, f"{modality.name}_embeds") for modality in MODALITIES])
    embeds = [None if pieces[0] is None else torch.cat(pieces).requires_grad_() for pieces in zip(*parts, strict=True)]
    return embeds, states


def _alignment_gradients(
    loss: Tensor, embeds: list[Tensor | None], scoring: Sequence[Tensor], chunk_size: int
) -> tuple[list[tuple[Tensor | None, ...]], list[tuple[Tensor, Tensor]]]:
    """The gradients of a loss with respect to the embeddings, for each chunk by modality, and to the scoring parameters.

    The latter are pairs of a parameter and the mean over the ranks of its gradients, without parameters that take no part.
    """
    leaves = [value for value in embeds if value is not None]
    num_chunks = math.ceil(len(leaves[0]) / chunk_size)
    computed = iter(torch.autograd.grad(loss, [*leaves, *scoring], allow_unused=True))
    pieces: list[tuple[Tensor | None, ...]] = []
    for value in embeds:
        grad = None if value is None else next(computed)
        if value is not None and grad is None:  # of a modality that is in no group
            grad = torch.zeros_like(value)
        pieces.append((None,) * num_chunks if grad is None else torch.split(grad, chunk_size))
    of_scoring = [
        (parameter, mean_over_ranks(grad))
        for parameter, grad in zip(scoring, computed, strict=True)
        if grad is not None
    ]
    return list(zip(*pieces, strict=True)), of_scoring


def _scoring_parameters(valor: ValorModel) -> list[Tensor]:
    """The trained parameters that are used after the embeddings."""
    return [
        parameter
        for name, parameter in valor.named_parameters()
        if parameter.requires_grad and name.startswith(SCORING)
    ]


def _alignment_part(outputs: Any, grads: Sequence[Tensor | None]) -> Tensor:
    """A loss with these gradients with respect to the embeddings of a chunk."""
    return _products(
        (getattr(outputs, f"{modality.name}_embeds"), grad)
        for modality, grad in zip(MODALITIES, grads, strict=True)
        if grad is not None
    )


def _products(tensors: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """A scalar whose gradient with respect to the first tensor of each pair is the second one."""
    return torch.stack([(value * grad).sum() for value, grad in tensors]).sum()


def _add(totals: dict[str, Tensor], losses: dict[str, Tensor]) -> None:
    """Adds the losses of a chunk to those of the chunks before it."""
    for group, loss in losses.items():
        totals[group] = totals[group] + loss.detach() if group in totals else loss.detach()


def _split(inputs: dict[str, Any], chunk_size: int) -> list[dict[str, Any]]:
    """Chunks of a batch; what is not a tensor belongs to each of them."""
    num_chunks = math.ceil(len(inputs["input_ids"]) / chunk_size)
    parts = {
        name: torch.split(value, chunk_size) if isinstance(value, Tensor) else [value] * num_chunks
        for name, value in inputs.items()
    }
    return [dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True)]


def _alignment_loss(
    model: ValorForPreTraining | ValorForRetrieval,
    embeds: list[Tensor | None],
    inputs: dict[str, Any],
    groups: Sequence[str] | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean contrastive loss of the modality groups (eq. 4) on the samples of all ranks, and the loss of each."""
    valor = model.valor
    masks: list[Tensor | None] = [
        valor.text_attention_mask(inputs["input_ids"], inputs.get("attention_mask")),
        valor.encoded_frame_mask(inputs.get("frame_mask")),
        inputs.get("audio_mask"),
    ]
    given = [modality.name for modality, value in zip(MODALITIES, embeds, strict=True) if value is not None]
    groups = model.config.select_groups("alignment_groups", groups, given)
    loss, losses, _ = valor.alignment_loss(groups, embeds, masks, all_ranks=True)
    return loss, losses


def _num_targets(inputs: dict[str, Any]) -> dict[str, Tensor]:
    """How many words of a batch each captioning group predicts, the mean over all ranks: none of samples without any of its
    modalities.
    """
    targets = (inputs["labels"] != IGNORE_INDEX).sum(dim=1)
    counts = {}
    for group, modalities in CAPTIONING_GROUPS.items():
        present = torch.zeros_like(targets, dtype=torch.bool)
        for modality in MEDIA:
            if modality.name in modalities and inputs.get(modality.input) is not None:
                mask = inputs.get(modality.mask)
                present |= True if mask is None else mask.any(dim=1)
        counts[group] = (targets * present).sum()
    return dict(zip(counts, mean_over_ranks(torch.stack(list(counts.values())).float()), strict=True))


@dataclass
class _RandomState:
    """The state of the random number generators, to run the same dropout once more."""

    cpu: Tensor
    devices: list[int]
    states: list[Tensor]

    @classmethod
    def now(cls, *tensors: Tensor) -> "_RandomState":
        return cls(torch.get_rng_state(), *get_device_states(*tensors))

    def restore(self) -> None:
        torch.set_rng_state(self.cpu)
        set_device_states(self.devices, self.states)


__all__ = ["gradient_cached_step"]
