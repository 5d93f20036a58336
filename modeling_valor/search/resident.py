# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""All tokens of an index in memory, so that a query is compared with every segment and no better one can be missed.

All segments are compared in bfloat16, whose matrix products take a quarter of the time of float32 on processors that have
instructions for them. What rounding may change is bounded by `ERROR`, and the best segments are scored by what is stored.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .query import Query
from .ranking import Scoring
from .segments import TokenRows


ERROR = 2.0**-6
"""How much a rounded score may differ from the exact one: both embeddings and their product have a relative error of 2^-8 at
most, which makes 3 * 2^-8 for unit vectors; a score is the mean of two weighted means of such products."""

_SEGMENTS_AT_ONCE = 2**17


@dataclass(frozen=True)
class _Block:
    """The segments that have the same numbers of tokens of each modality.

    Args:
        letters: the modality of each of T tokens, such as "vvvva".
        segments: (S,), places of the segments.
        embeds: T tensors (S, C), bfloat16. Maxima over tokens are then those of whole rows.
        weights: (T, S), f(e) of eq. 3.
    """

    letters: str
    segments: np.ndarray
    embeds: Sequence[Tensor]
    weights: Tensor


class ResidentTokens:
    """The tokens of all segments of an index.

    Args:
        rows: the token rows of the index, in any order.
    """

    def __init__(self, rows: TokenRows):
        self.ids, own = np.unique(rows.segments.astype(str), return_inverse=True)
        order = np.lexsort((rows.modalities.astype(str), own))
        self._first = np.searchsorted(own[order], np.arange(len(self.ids) + 1))
        self._modalities = rows.modalities[order].astype(str)
        self._times, self._weights, self._embeds = rows.times[order], rows.weights[order], rows.embeds[order]
        self._blocks = list(self._make_blocks())
        self._last: tuple[Query, Scoring, np.ndarray] | None = None

    def _make_blocks(self) -> Iterator[_Block]:
        if not len(self.ids):
            return
        letters, kind = np.unique(self._modalities, return_inverse=True)
        before = [np.concatenate([[0], np.cumsum(kind == place)]) for place in range(len(letters))]
        counts = np.stack([np.diff(own[self._first]) for own in before], axis=1)
        weights = torch.from_numpy(self._weights.astype(np.float32))
        for numbers in np.unique(counts, axis=0):
            segments = np.flatnonzero((counts == numbers).all(axis=1))
            rows = self._first[segments] + np.arange(numbers.sum())[:, None]
            yield _Block(
                "".join(np.repeat(letters, numbers)),
                segments,
                [torch.from_numpy(self._embeds[own]).bfloat16() for own in rows],
                weights[torch.from_numpy(rows)],
            )

    def places(self, ids: Sequence[str] | np.ndarray) -> np.ndarray:
        """Where segments are in `ids` of the index, each once; those that it does not have are passed over."""
        names = np.unique(np.asarray(ids, dtype=str))
        places = np.searchsorted(self.ids, names)
        return places[self.ids[places % max(len(self.ids), 1)] == names] if len(self.ids) else places[:0]

    def tokens(self, ids: Sequence[str], modalities: str = "va") -> TokenRows:
        """The rows of these modalities of segments."""
        places = self.places(ids)
        counts = self._first[places + 1] - self._first[places]
        rows = np.repeat(self._first[places] - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        segments = np.repeat(self.ids[places], counts)
        chosen = np.isin(self._modalities[rows], list(modalities))
        rows = rows[chosen]
        return TokenRows(
            segments[chosen], self._modalities[rows], self._times[rows], self._weights[rows], self._embeds[rows]
        )

    def scores(self, query: Query, scoring: Scoring) -> np.ndarray:
        """S of eq. 3 of all segments, (segments,), float32, rounded: see `ERROR`. -inf: it has none of the modalities."""
        last = self._last  # of this call, whatever other threads search for
        if last is None or last[0] is not query or last[1] != scoring:
            last = self._last = query, scoring, self._compute_scores(query, scoring)
        return last[2]

    def _compute_scores(self, query: Query, scoring: Scoring) -> np.ndarray:
        words = torch.from_numpy(query.vectors).bfloat16()
        weights = torch.from_numpy(query.weights(scoring.uniform)).float()
        least = 0.0 if query.tokens.zero_padding and not bool(query.mask.all()) else -math.inf
        groups = list(scoring.letters) if scoring.by_score else [scoring.letters]
        scores = np.full(len(self.ids), -np.inf, dtype=np.float32)
        for block in self._blocks:
            parts = [
                _score(words, weights, block, chosen, scoring.uniform, least)
                for letters in groups
                if (chosen := [place for place, letter in enumerate(block.letters) if letter in letters])
            ]
            if parts:
                scores[block.segments] = torch.stack(parts).sum(dim=0).numpy()
        return scores

    def best(
        self, query: Query, scoring: Scoring, count: int, allowed: Sequence[str] | None = None
    ) -> tuple[list[str], float]:
        """Ids of segments, among them the `count` best by their exact scores, and a bound that no other segment exceeds.

        Args:
            allowed: ids of those that may be found, by default all.
        """
        scores = self.scores(query, scoring)
        if allowed is not None:
            places = self.places(allowed)
            scores, everything = np.full_like(scores, -np.inf), scores
            scores[places] = everything[places]
        error = ERROR * (len(scoring.letters) if scoring.by_score else 1)
        least = -np.inf if len(scores) <= count else np.partition(scores, -count)[-count] - 2 * error
        chosen = (scores >= least) & (scores > -np.inf)
        others = scores[~chosen]
        bound = float(others.max(initial=-np.inf)) + error
        return self.ids[chosen].tolist(), bound


def _score(
    words: Tensor, weights: Tensor, block: _Block, chosen: Sequence[int], uniform: bool, least: float
) -> Tensor:
    """S of eq. 3 with some tokens of each segment of a block, (S,); `least` is what padded text is similar to all."""
    logits = block.weights[chosen]
    token_weights = (torch.zeros_like(logits) if uniform else logits).softmax(dim=0)
    scores = []
    for start in range(0, len(block.segments), _SEGMENTS_AT_ONCE):
        part = slice(start, start + _SEGMENTS_AT_ONCE)
        of_words: Tensor | None = None
        of_tokens = torch.zeros_like(token_weights[0, part])
        for token, token_weight in zip(chosen, token_weights[:, part], strict=True):
            similarities = words @ block.embeds[token][part].T
            of_words = similarities if of_words is None else torch.maximum(of_words, similarities)
            of_tokens += token_weight * similarities.amax(dim=0).float().clamp(min=least)
        assert of_words is not None  # `chosen` is not empty
        scores.append(0.5 * (weights @ of_words.float() + of_tokens))
    return torch.cat(scores)
