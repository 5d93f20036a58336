# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Random token rows and queries, and their scores by a loop over segments."""

import math

import numpy as np
import torch

from modeling_valor.search.query import Query, token_set
from modeling_valor.search.ranking import Scoring
from modeling_valor.search.segments import TokenRows


WIDTH = 6
KINDS = {"all": ["vva", "vv", "a", "va"], "one token": ["v", "a"], "frames only": ["vvv", "v"]}
SCORINGS = {
    "t-av": Scoring("t-av", "av"),
    "t-v": Scoring("t-v", "v"),
    "t-a": Scoring("t-a", "a"),
    "uniform": Scoring("t-av", "av", uniform=True),
    "score": Scoring("t-av", "av", by_score=True, uniform=True),
}


def directions(rng, count, shift):
    """Unit vectors; with a shift they lie on one side, so that similarities with its opposite are negative."""
    rows = rng.normal(size=(count, WIDTH)) + shift
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def random_rows(rng, kinds, count, shift):
    letters = [kinds[index % len(kinds)] for index in range(count)]
    total = sum(map(len, letters))
    return TokenRows(
        segments=np.array([f"s{index}" for index, own in enumerate(letters) for _ in own]),
        modalities=np.array(list("".join(letters))),
        times=np.zeros(total),
        weights=3 * rng.normal(size=total),
        embeds=directions(rng, total, shift).astype(np.float16),
    )


def random_query(rng, length, shift, zero_padding=False):
    embeds = torch.from_numpy(directions(rng, length, shift)).float()
    return Query("text", token_set(embeds, torch.from_numpy(2 * rng.normal(size=length)), zero_padding))


def softmax(logits):
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def plain_score(query, embeds, weights, uniform, floor):
    """Eq. 3 of one text and one segment. `floor`: what padded text has for a similarity."""
    similarity = query.vectors.astype(np.float64) @ embeds.astype(np.float64).T
    text = query.weights(uniform)
    own = np.full(len(embeds), 1 / len(embeds)) if uniform else softmax(weights)
    return 0.5 * (text @ similarity.max(axis=1) + own @ np.maximum(similarity.max(axis=0), floor))


def plain_scores(query, rows, scoring, zero_padding):
    """The score of each segment, by its id, with a loop over segments."""
    floor = 0.0 if zero_padding else -math.inf
    scores = {}
    for name in dict.fromkeys(rows.segments):
        sets = [scoring.letters] if not scoring.by_score else list(scoring.letters)
        parts = [(rows.segments == name) & np.isin(rows.modalities, list(letters)) for letters in sets]
        parts = [part for part in parts if part.any()]
        if parts:
            scores[name] = sum(
                plain_score(query, rows.embeds[part], rows.weights[part], scoring.uniform, floor) for part in parts
            )
    return scores
