# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Retrieval query by query: the rank of each query's right item, and the top items."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .metrics.retrieval import query_ranks
from .results import Embeddings, Evaluation
from .retrieve import reverse


@dataclass(frozen=True)
class Ranking:
    """One query of one direction, such as "t-av" (a text among samples) or "av-t" (a sample among texts).

    Args:
        direction: modality group, or its reverse.
        query: row of the query: a text of [`Embeddings.texts`] if the direction begins with "t", else a sample.
        rank: of the right item, 1 for the first; wrong items with the same score are ranked before it.
        item, score: the right item, or the best of several, and its score.
        top: the items with the highest scores, and these scores.
    """

    direction: str
    query: int
    rank: int
    item: int
    score: float
    top: tuple[tuple[int, float], ...]


def rankings(evaluation: Evaluation, group: str, backwards: bool = False, top: int = 3) -> list[Ranking]:
    """All queries of a modality group that was measured, or, `backwards`, of its reverse; in their order."""
    present, rows, right = evaluation.retrieval_embeddings.members(group)
    columns = present.nonzero().squeeze(1)
    scores, positives = evaluation.similarity[group], right.unsqueeze(1).tolist()
    if scores.shape != (len(rows), len(columns)):
        scores = scores[rows][:, columns]
    queries, items, direction = rows, columns, group
    if backwards:
        positives = [[] for _ in columns]
        for row, sample in enumerate(right.tolist()):
            positives[sample].append(row)
        scores, queries, items, direction = scores.mT, columns, rows, reverse(group)
    found = query_ranks(scores, positives, top)
    first = zip(items[found.top].tolist(), found.top_scores.tolist(), strict=True)
    return [
        Ranking(direction, query, rank, item, score, tuple(zip(*best, strict=True)))
        for query, rank, item, score, best in zip(
            queries.tolist(),
            found.ranks.tolist(),
            items[found.best].tolist(),
            found.best_scores.tolist(),
            first,
            strict=True,
        )
        if rank
    ]


def ranking_records(evaluation: Evaluation, groups: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Every query of both directions of the groups, as a line of `ranks.jsonl`."""
    embeddings = evaluation.retrieval_embeddings
    for group in groups:
        for backwards in (False, True):
            for ranking in rankings(evaluation, group, backwards):
                query_is_text, item_is_text = (end == "t" for end in ranking.direction.split("-"))
                yield {
                    "direction": ranking.direction,
                    "query": name_of(embeddings, ranking.query, query_is_text),
                    "rank": ranking.rank,
                    "right": name_of(embeddings, ranking.item, item_is_text),
                    "score": round(ranking.score, 6),
                    "top": [[name_of(embeddings, item, item_is_text), round(score, 6)] for item, score in ranking.top],
                }


def name_of(embeddings: Embeddings, index: int, is_text: bool) -> str:
    """The text, or the id of the sample."""
    return embeddings.texts[index] if is_text else embeddings.ids[index]
