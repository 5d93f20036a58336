# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.token_rows import KINDS, SCORINGS, plain_scores, random_query, random_rows, softmax
from modeling_valor.alignment import TokenSet
from modeling_valor.search import Segment
from modeling_valor.search.query import MAX_LENGTH, Query
from modeling_valor.search.ranking import (
    Scoring,
    join_neighbours,
    padded_tokens,
    score_bound,
    score_segments,
    select_rows,
)


@pytest.mark.parametrize("scoring", SCORINGS.values(), ids=SCORINGS)
@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS)
def test_scores_are_those_of_a_loop(scoring, kinds):
    rng = np.random.default_rng(0)
    for zero_padding in (False, True):
        query, rows = random_query(rng, 4, 0, zero_padding), random_rows(rng, kinds, 20, 0)
        expected = plain_scores(query, rows, scoring, zero_padding)
        ids, scores = score_segments(query, rows, scoring)
        found = {name: score for name, score in zip(ids, scores, strict=True) if score != -math.inf}
        assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("scoring", SCORINGS.values(), ids=SCORINGS)
@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("shift", [0, 1.5, -1.5])
@pytest.mark.parametrize("zero_padding", [False, True])
def test_no_segment_outside_the_lists_exceeds_the_bound(scoring, kinds, shift, zero_padding):
    """Random cases against brute force; a shift of the segments away from the query makes all similarities negative."""
    rng = np.random.default_rng(1)
    outside, gaps = 0, []
    for trial in range(40):
        query = random_query(rng, [1, 3, 7][trial % 3], -shift, zero_padding)
        rows = random_rows(rng, kinds, 30, shift)
        taken = np.isin(rows.modalities, list(scoring.letters))
        if not taken.any():
            continue
        similarity = query.vectors @ rows.embeds[taken].astype(np.float32).T
        scores = plain_scores(query, rows, scoring, zero_padding)
        for n in (1, 2, 5, 15):
            order = np.argsort(-similarity, axis=1)[:, :n]
            union = set(rows.segments[taken][order].flatten())
            last = np.take_along_axis(similarity, order, axis=1)[:, -1]
            bound = score_bound(query, last, scoring)
            rest = [score for name, score in scores.items() if name not in union]
            outside += len(rest)
            gaps += [bound - score for score in rest]
    assert all(gap >= -1e-5 for gap in gaps)
    if len(kinds) > 1 and scoring.letters != "a":
        assert outside > 1000


@pytest.mark.parametrize("shift", [0, 1.5, -1.5])
@pytest.mark.parametrize("zero_padding", [False, True])
def test_scores_and_bound_with_captions_of_segments(shift, zero_padding):
    """Padded captions take part in the maxima over their segment: similarities below 0 become 0 where there is one."""
    rng = np.random.default_rng(2)
    scoring = Scoring("a-tv", "vt", zero_padding=zero_padding)
    outside = 0
    for trial in range(20):
        query = replace(random_query(rng, [1, 3, 7][trial % 3], -shift), modality="audio")
        rows = random_rows(rng, ["vvt", "tt", "v", "vttt", "a"], 30, shift)
        taken = rows.modalities != "a"
        similarity = query.vectors.astype(np.float64) @ rows.embeds.astype(np.float64).T
        expected = {}
        for name in dict.fromkeys(rows.segments[taken]):
            own = (rows.segments == name) & taken
            floor = 0.0 if zero_padding and "t" in rows.modalities[own] else -math.inf
            best = np.maximum(similarity[:, own].max(axis=1), floor)
            score = query.weights(False) @ best + softmax(rows.weights[own]) @ similarity[:, own].max(axis=0)
            expected[name] = score / 2
        ids, scores = score_segments(query, select_rows(rows, taken), scoring)
        assert dict(zip(ids, scores, strict=True)) == pytest.approx(expected, abs=1e-5)
        for n in (1, 2, 5, 15):
            order = np.argsort(-similarity[:, taken], axis=1)[:, :n]
            union = set(rows.segments[taken][order].flatten())
            last = np.take_along_axis(similarity[:, taken], order, axis=1)[:, -1]
            rest = [score for name, score in expected.items() if name not in union]
            outside += len(rest)
            assert all(score <= score_bound(query, last, scoring) + 1e-5 for score in rest)
    assert outside > 500


def test_a_caption_as_long_as_texts_can_be_has_no_padding():
    rows = random_rows(np.random.default_rng(3), [MAX_LENGTH * "t", 4 * "t"], 2, 0)
    own = np.array([0] * MAX_LENGTH + [1] * 4)
    long = padded_tokens(rows, own, 2, "t", zero_padding=True)
    assert long.mask.sum(dim=1).tolist() == [MAX_LENGTH, 4] and long.mask.shape == (2, MAX_LENGTH)
    short = select_rows(rows, rows.segments == "s1")
    assert padded_tokens(short, np.zeros(4, int), 1, "t", zero_padding=True).mask.shape == (1, 5)


def test_the_bound_is_reached_by_a_segment_just_outside():
    """A segment with one token, as similar to the only query token as the last of the list: S = t."""
    query = Query("text", TokenSet(torch.tensor([[[1.0, 0.0]]]), weight_logits=torch.zeros(1, 1)))
    assert score_bound(query, np.array([0.25]), Scoring("t-v", "v")) == pytest.approx(0.25)
    assert score_bound(query, np.array([-0.5]), Scoring("t-v", "v")) == pytest.approx(-0.5)
    # Two scores may add up, or one may be missing
    assert score_bound(query, np.array([0.25]), SCORINGS["score"]) == pytest.approx(0.5)
    assert score_bound(query, np.array([-0.5]), SCORINGS["score"]) == pytest.approx(-0.5)


def test_lists_of_all_rows_leave_nothing_outside():
    query = random_query(np.random.default_rng(0), 3, 0)
    assert score_bound(query, np.array([0.5, -math.inf, 0.1]), Scoring("t-av", "av")) == -math.inf


def segment(start, source="a.mp4", seconds=10):
    return Segment(source, float(start), float(start + seconds))


def test_neighbours_that_score_alike_are_one_part():
    ranked = [
        (segment(20), 0.9),
        (segment(10), 0.88),
        (segment(20, "b.mp4"), 0.87),
        (segment(50), 0.86),
        (segment(30), 0.86),
        (segment(40), 0.85),  # joins 20-40 and 50-60
        (segment(0), 0.5),
    ]
    parts = join_neighbours(ranked, 3, tolerance=0.06)
    assert [([item.start for item in part], part[0].source, score) for part, score in parts] == [
        ([10, 20, 30, 40, 50], "a.mp4", 0.9),
        ([20], "b.mp4", 0.87),
        ([0], "a.mp4", 0.5),
    ]
    apart = join_neighbours(ranked, 3, tolerance=-math.inf)
    assert [score for _, score in apart] == [0.9, 0.88, 0.87]


def test_a_part_is_completed_after_the_last_of_the_top():
    ranked = [(segment(20), 0.9), (segment(0, "b.mp4"), 0.89), (segment(10), 0.88), (segment(70), 0.87)]
    parts = join_neighbours(ranked, 2, tolerance=0.05)
    assert [[item.start for item in part] for part, _ in parts] == [[10, 20], [0]]


def test_overlapping_segments_touch():
    ranked = [(segment(5), 0.9), (segment(0), 0.9), (segment(15.5), 0.9)]
    parts = join_neighbours(ranked, 3, tolerance=0.0)
    assert [[item.start for item in part] for part, _ in parts] == [[0, 5], [15.5]]
