# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""From queries to hits: candidates of a backend, their exact scores, neighbours joined.

A backend that ranks by itself (`RankingBackend`) is asked for the best segments; of any other, `nearest` and `tokens` give
the candidates, which are scored here. Either way more is looked for until the hits are proven.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .backend import Backend, RankingBackend
from .query import Query
from .ranking import Hit, Scoring, join_neighbours, make_hit, score_bound, score_segments, select_rows
from .segments import Segment, TokenRows


NEAREST_ROWS = 50
"""Token rows that each token of a query looks for first; their number grows, by 4 each time, until the hits are proven."""

MOST_NEAREST_ROWS = 800
"""How far their number grows."""

Parts = list[tuple[list[Segment], float]]


@dataclass(frozen=True)
class SearchOptions:
    """What is looked for with a query, among what, and how thoroughly.

    Args:
        scoring: how a query is compared.
        top: number of hits.
        where, exact: as in [`Backend.nearest`].
        nearest_rows: token rows that each token of a query looks for first, by default what is best for the backend.
        tolerance: as in `join_neighbours`.
    """

    scoring: Scoring
    top: int
    where: str | None = None
    exact: bool = False
    nearest_rows: int | None = None
    tolerance: float = -math.inf


def find_hits(backend: Backend, queries: Sequence[Query], options: SearchOptions) -> list[list[Hit]]:
    """The best hits of each query."""
    ranked: list[list[Hit]] = []
    if isinstance(backend, RankingBackend) and "t" not in options.scoring.letters:
        for query in queries:
            hits = rank_hits(backend, query, options)
            if hits is None:
                break
            ranked.append(hits)
    return ranked if len(ranked) == len(queries) else collect_hits(backend, queries, options)


def rank_hits(backend: RankingBackend, query: Query, options: SearchOptions) -> list[Hit] | None:
    """The best hits of a query by a backend that ranks, or None where it does not."""
    scoring, top = options.scoring, options.top
    wanted = top
    while True:
        found = backend.rank(
            query, scoring, wanted, options.where, options.exact, options.nearest_rows, limit=4 * wanted
        )
        if found is None:
            return None
        ranked = list(zip(found.ids, found.scores.tolist(), strict=True))
        parts, complete = _best_parts(backend, ranked, top, options.tolerance)
        complete = complete or len(ranked) < 4 * wanted
        proven = found.bound == math.inf or (len(parts) >= top and parts[-1][1] >= found.bound)
        if len(ranked) < wanted or (complete and len(parts) >= top and proven):
            break
        wanted *= 4
    rows = backend.tokens([segment.id for part, _ in parts for segment in part], scoring.letters)
    return _make_hits(query, parts, rows, found.bound)


def collect_hits(backend: Backend, queries: Sequence[Query], options: SearchOptions) -> list[list[Hit]]:
    """The best hits of each query by the token rows of any backend."""
    scoring, top = options.scoring, options.top
    results: list[list[Hit]] = [[] for _ in queries]
    pending = list(range(len(queries)))
    n = first = options.nearest_rows or NEAREST_ROWS
    while pending:
        vectors = [queries[index].vectors for index in pending]
        nearest = backend.nearest(np.concatenate(vectors), n, scoring.letters, options.where, options.exact)
        ends = np.cumsum([len(part) for part in vectors])
        lists = [slice(end - len(part), end) for end, part in zip(ends, vectors, strict=True)]
        candidates = [np.unique(np.concatenate(nearest.segments[part]).astype(str)) for part in lists]
        rows = backend.tokens(np.unique(np.concatenate(candidates)).tolist(), scoring.letters)
        still = []
        for index, own, part in zip(pending, candidates, lists, strict=True):
            found = rows if len(pending) == 1 else select_rows(rows, np.isin(rows.segments.astype(str), own))
            last = [values[-1] if len(values) >= n else -math.inf for values in nearest.similarities[part]]
            bound = math.inf
            if nearest.exact:
                bound = score_bound(queries[index], np.array(last) + nearest.error, scoring)
            ids, scores = score_segments(queries[index], found, scoring)
            ranked = sorted(zip(ids, scores.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))
            parts, _ = _best_parts(backend, ranked, top, options.tolerance)
            results[index] = _make_hits(queries[index], parts, found, bound)
            enough = len(results[index]) >= top and (not nearest.exact or results[index][-1].proven)
            if not enough and max(last) > -math.inf:
                still.append(index)
        n *= 4
        pending = still if n <= max(MOST_NEAREST_ROWS, first) else []
    return results


def _best_parts(
    backend: Backend, ranked: Sequence[tuple[str, float]], top: int, tolerance: float
) -> tuple[Parts, bool]:
    """The best `top` parts of files among ranked segments, and whether no later segment could change them."""
    parts: Parts = []
    looked_at: list[tuple[Segment, float]] = []
    for start in range(0, len(ranked), 4 * top):
        chunk = dict(ranked[start : start + 4 * top])
        # Tokens that a killed writer left have no segment
        looked_at += [(segment, chunk[segment.id]) for segment in backend.segments(list(chunk))]
        parts = join_neighbours(looked_at, top, tolerance)
        if len(parts) >= top and looked_at[-1][1] < parts[-1][1] - max(tolerance, 0):
            return parts, True
    return parts, False


def _make_hits(query: Query, parts: Parts, rows: TokenRows, bound: float) -> list[Hit]:
    """Hits of parts of files; those that reach `bound` are proven. `rows` has the tokens of their segments, at least."""
    names = rows.segments.astype(str)
    chosen = {segment.id for part, _ in parts for segment in part}
    own = {name: select_rows(rows, names == name) for name in chosen}
    return [make_hit(query, part, score, score >= bound, own) for part, score in parts]
