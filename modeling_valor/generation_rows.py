# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Decoding without finished samples: the decoder of a batch runs for the rows of those whose texts go on.

The loops of `generate` keep all rows, and write padding into finished ones. Only what they call has fewer: the cache and the
inputs of the decoder are those of the samples that are left, and its logits are filled up with zeros, which no word follows.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.generation.stopping_criteria import StoppingCriteriaList

from .generation_static import is_hooked
from .modeling_valor_text import ConditionCache, ValorConditions, ValorTextAttention


if TYPE_CHECKING:
    from .modeling_valor_decoder import ValorDecoderModel


class LeavingCache(EncoderDecoderCache):
    """A dynamic cache that finished samples leave.

    A sample leaves with all of its rows (beams, returned sequences, questions), because they share its video and sound.
    Samples from the end take the places that become free, so that little is copied, and nothing is held twice.
    """

    def __init__(self, words: DynamicCache) -> None:
        super().__init__(words, ConditionCache())
        self.finished: torch.Tensor | None = None
        self.samples: list[int] = []
        self.num_rows = 0
        self.rows: torch.Tensor | None = None
        """Of the samples that are left, in the order of `samples`; `None` as long as all are here."""
        self.conditions: ValorConditions | None = None

    def note(self, finished: torch.Tensor) -> None:
        """Tells which rows of the loop are finished, (rows,); they leave before the next step."""
        self.finished = finished

    def leave(self, conditions: ValorConditions) -> None:
        """Takes out the samples whose rows are all finished, given the conditions of all samples of the batch."""
        if self.finished is None:
            return
        finished, self.finished = self.finished, None
        num_samples = len(conditions[conditions.modalities[0]])
        per_sample = len(finished) // num_samples
        if self.rows is None:
            self.samples, self.num_rows = list(range(num_samples)), len(finished)
        is_done = finished.view(-1, per_sample).all(dim=1).tolist()
        open_places = [place for place, sample in enumerate(self.samples) if not is_done[sample]]
        left = len(open_places)
        if left in (0, len(self.samples)):
            return
        free = [place for place in range(left) if is_done[self.samples[place]]]
        moves = list(zip(free, (place for place in open_places if place >= left), strict=True))
        move_rows(self.cross_attention_cache, moves, left, 1)
        move_rows(self.self_attention_cache, moves, left, per_sample)
        places = list(range(left))
        for free_place, place in moves:
            places[free_place] = place
        self.samples = [self.samples[place] for place in places]
        self.conditions = (conditions if self.conditions is None else self.conditions).select(places)
        rows = torch.tensor(self.samples)[:, None] * per_sample + torch.arange(per_sample)
        self.rows = rows.flatten().to(conditions.device)

    def select(self, values: Any) -> Any:
        """The rows that are left of a tensor with a row for each of the loop's; anything else as it is."""
        if self.rows is None or not isinstance(values, torch.Tensor):
            return values
        return values[self.rows.to(values.device)]

    def fill(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits of all rows of the loop, 0 for those that are not here."""
        if self.rows is None:
            return logits
        filled = logits.new_zeros(self.num_rows, *logits.shape[1:])
        filled[self.rows.to(logits.device)] = logits
        return filled

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Takes rows of the loop, as it has them: the row that each of its rows goes on from, one of the same sample."""
        if self.rows is not None:
            places = torch.arange(len(self.rows), device=self.rows.device)
            beam_idx = beam_idx[self.rows] - (self.rows - places)
        super().reorder_cache(cast("torch.LongTensor", beam_idx))


def move_rows(cache: Cache, moves: Sequence[tuple[int, int]], samples: int, per_sample: int) -> None:
    """Copies the rows of samples to other places, `(to, from)`, in place, and keeps those of the first `samples`."""
    for layer in cast(Any, cache.layers):
        for states in (layer.keys, layer.values):
            by_sample = states.unflatten(0, (-1, per_sample))
            for free_place, place in moves:
                by_sample[free_place] = by_sample[place]
        layer.keys, layer.values = (states[: samples * per_sample] for states in (layer.keys, layer.values))


class WatchedCriteria(StoppingCriteriaList):
    """Stopping criteria of a loop that tell its cache every few steps which rows they have stopped so far."""

    def __init__(self, criteria: StoppingCriteriaList, cache: LeavingCache, check_every: int) -> None:
        super().__init__(criteria)
        self.cache, self.check_every = cache, check_every
        self.stopped: torch.Tensor | None = None
        self.steps = 0

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        stopped = super().__call__(input_ids, scores, **kwargs)
        self.stopped = stopped if self.stopped is None else self.stopped | stopped
        self.steps += 1
        if self.steps % self.check_every == 0:
            self.cache.note(self.stopped)
        return stopped


def rows_are_independent(model: "ValorDecoderModel") -> bool:
    """Whether the decoder computes for each row what it would without the others.

    Not with dropout, which draws numbers for all rows, and not with hooks, such as PEFT's of an adapter for each row: they may
    have a value for each row, or collect one.
    """
    modules = [model, *model.valor.text_model.modules(), *model.lm_head.modules()]
    draws = (nn.Dropout, ValorTextAttention)
    return not any(is_hooked(module) or (module.training and isinstance(module, draws)) for module in modules)


__all__ = ["LeavingCache", "WatchedCriteria", "rows_are_independent"]
