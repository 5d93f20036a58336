# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Retrieval metrics against ten lines of plain Python and hand calculations."""

import math
import statistics

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import rankdata

from modeling_valor.evaluation import retrieval_metrics, retrieval_metrics_in_blocks
from modeling_valor.evaluation.metrics.retrieval import query_ranks


def slow_metrics(similarity, positives):
    """The metrics from scipy's ranks of each row without its other right items."""
    ranks = []
    for row, right in zip(np.asarray(similarity, dtype=float), positives, strict=True):
        if right:
            best = max(right, key=lambda item: row[item])
            kept = [item for item in range(len(row)) if item == best or item not in right]
            ranks.append(float(rankdata(-row[kept], method="max")[kept.index(best)]))
    recalls = {f"R@{k}": 100 * sum(rank <= k for rank in ranks) / len(ranks) for k in (1, 5, 10)}
    return {**recalls, "MedianR": statistics.median(ranks), "MeanR": statistics.mean(ranks)}


@pytest.fixture
def problem():
    """Similarities with many ties, some -inf, and right items of which some queries and some items have none."""
    generator = np.random.default_rng(0)
    similarity = generator.integers(0, 12, (40, 17)) / 12
    similarity[generator.random(similarity.shape) < 0.1] = -math.inf
    positives = [generator.choice(16, generator.integers(0, 4), replace=False).tolist() for _ in range(40)]
    backwards = [[query for query, items in enumerate(positives) if item in items] for item in range(17)]
    return torch.from_numpy(similarity), positives, backwards


def test_metrics_equal_scipy_ranks(problem):
    similarity, positives, _ = problem
    assert retrieval_metrics(similarity, positives) == pytest.approx(slow_metrics(similarity, positives))


@pytest.mark.parametrize("rows", [1, 7, 40])
@pytest.mark.parametrize("dual_softmax", [False, True])
def test_blocks_of_any_size_equal_the_whole_matrix_in_both_directions(problem, rows, dual_softmax):
    similarity, positives, backwards = problem
    to_items, to_queries = retrieval_metrics_in_blocks(lambda: similarity.split(rows), positives, dual_softmax)
    assert to_items == retrieval_metrics(similarity, positives, dual_softmax)
    assert to_queries == retrieval_metrics(similarity.T, backwards, dual_softmax)


def test_dual_softmax_equals_scipy_softmax_over_queries(problem):
    similarity, positives, _ = problem
    similarity = similarity.clamp(min=-1)
    expected = slow_metrics(similarity * softmax(similarity.numpy() / 0.05, axis=0), positives)
    assert retrieval_metrics(similarity, positives, dual_softmax=True, temperature=0.05) == pytest.approx(expected)


def test_dual_softmax_takes_an_item_from_a_query_that_wants_it_less():
    similarity = torch.tensor([[0.9, 0.1], [0.6, 0.5]])
    assert retrieval_metrics(similarity, [[0], [1]])["R@1"] == 50
    assert retrieval_metrics(similarity, [[0], [1]], dual_softmax=True)["R@1"] == 100


def test_dual_softmax_does_not_invert_negative_similarities(caplog):
    """A cosine of a trained model minus one: the right pairs are the highest, and all of them are negative."""
    similarity = torch.eye(6) * 0.3 - 1 + torch.linspace(0, 0.1, 36).view(6, 6)
    right = [[item] for item in range(6)]
    with caplog.at_level("WARNING"):
        shifted = retrieval_metrics(similarity, right, dual_softmax=True)
    assert retrieval_metrics(similarity, right)["R@1"] == shifted["R@1"] == 100
    (record,) = caplog.records
    assert "negative, down to -0.9971" in record.message
    assert shifted == retrieval_metrics(similarity + 1, right, dual_softmax=True)


def test_dual_softmax_shifts_by_the_lowest_similarity(problem, caplog):
    similarity, positives, backwards = problem
    negative = similarity - 0.5
    lowest = negative[negative > -math.inf].min()
    assert lowest < 0
    expected = retrieval_metrics(negative - lowest, positives, dual_softmax=True)
    assert not caplog.records
    both = retrieval_metrics_in_blocks(lambda: negative.split(7), positives, dual_softmax=True)
    assert both == (expected, retrieval_metrics((negative - lowest).T, backwards, dual_softmax=True))
    assert len(caplog.records) == 1


def test_query_ranks_are_those_of_the_metrics(problem):
    similarity, positives, _ = problem
    found = query_ranks(similarity, positives, top=2)
    counted = found.ranks[found.ranks > 0].double()
    metrics = retrieval_metrics(similarity, positives)
    assert counted.mean().item() == metrics["MeanR"] and len(counted) == sum(map(bool, positives))
    for row, right in enumerate(positives):
        if right:
            assert found.best_scores[row] == similarity[row, found.best[row]] == similarity[row, right].max()
        assert sorted(similarity[row].tolist())[-2:] == found.top_scores[row].tolist()[::-1]


def test_ranks_by_hand():
    similarity = [[0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [0.9, 0.5, 0.1]]
    metrics = retrieval_metrics(np.array(similarity), [[0], [1, 2], [2]])
    assert metrics == pytest.approx({"R@1": 100 / 3, "R@5": 100, "R@10": 100, "MedianR": 2, "MeanR": 2})


def test_the_median_of_an_even_number_of_ranks_is_between_the_middle_two():
    similarity = torch.tensor([[0.9, 0.5, 0.3, 0.1]] * 4)
    metrics = retrieval_metrics(similarity, [[0], [1], [3], [3]])
    assert (metrics["MedianR"], metrics["MeanR"]) == (3, 2.75)


def test_a_constant_matrix_retrieves_nothing():
    metrics = retrieval_metrics(torch.zeros(20, 20), [[item] for item in range(20)])
    assert metrics == {"R@1": 0, "R@5": 0, "R@10": 0, "MedianR": 20, "MeanR": 20}


def test_a_right_item_at_minus_infinity_comes_last():
    assert retrieval_metrics(torch.tensor([[-math.inf, 0.2, -math.inf]]), [[0]])["MeanR"] == 3


def test_queries_without_a_right_item_are_excluded():
    similarity = torch.tensor([[0.9, 0.1], [0.9, 0.1]])
    assert retrieval_metrics(similarity, [[0], []])["R@1"] == 100


def test_half_precision_keeps_its_ties():
    similarity = torch.tensor([[0.1, 0.10001]], dtype=torch.bfloat16)
    assert retrieval_metrics(similarity, [[1]])["MeanR"] == 2


def test_blocks_need_no_whole_matrix():
    generator = torch.Generator().manual_seed(0)
    texts, videos = torch.randn(1000, 8, generator=generator), torch.randn(200, 8, generator=generator)
    largest = 0

    def blocks():
        nonlocal largest
        for rows in texts.split(100):
            block = rows @ videos.T
            largest = max(largest, block.numel())
            yield block

    positives = [[text // 5] for text in range(1000)]
    to_videos, to_texts = retrieval_metrics_in_blocks(blocks, positives)
    assert largest == 100 * 200
    assert to_videos == retrieval_metrics(texts @ videos.T, positives)
    assert to_texts == retrieval_metrics(videos @ texts.T, [list(range(5 * i, 5 * i + 5)) for i in range(200)])


@pytest.mark.parametrize(
    ("similarity", "positives", "message"),
    [
        (torch.tensor([[0.0, 1.0], [0.0, math.nan]]), [[0], [0]], "query 1 and item 1 is nan"),
        (torch.tensor([[math.inf, 1.0]]), [[0]], "query 0 and item 0 is inf"),
        (torch.zeros(2, 2), [[0], [2]], "items 0 to 2"),
        (torch.zeros(2, 2), [[0]], "has 2 rows, but `positives` has 1"),
        (torch.zeros(2, 2), [[], []], "No query has a right item"),
        (torch.zeros(2, 2, dtype=torch.long), [[0], [1]], "matrices of floats"),
    ],
)
def test_unfit_similarities_are_named(similarity, positives, message):
    with pytest.raises(ValueError, match=message):
        retrieval_metrics(similarity, positives)
