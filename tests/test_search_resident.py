# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
import numpy as np
import pytest

from helpers.token_rows import KINDS, SCORINGS, plain_scores, random_query, random_rows
from modeling_valor.search.ranking import Scoring
from modeling_valor.search.resident import ERROR, ResidentTokens


@pytest.fixture(params=[False, True], ids=["", "zero padding"])
def zero_padding(request):
    return request.param


@pytest.mark.parametrize("scoring", SCORINGS.values(), ids=SCORINGS)
@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("shift", [0, 1.5])
def test_scores_are_those_of_a_loop_but_for_rounding(scoring, kinds, shift, zero_padding, monkeypatch):
    monkeypatch.setattr("modeling_valor.search.resident._SEGMENTS_AT_ONCE", 3)
    rng = np.random.default_rng(0)
    query, rows = random_query(rng, 4, -shift, zero_padding), random_rows(rng, kinds, 50, shift)
    expected = plain_scores(query, rows, scoring, zero_padding)
    resident = ResidentTokens(rows)
    found = dict(zip(resident.ids.tolist(), resident.scores(query, scoring), strict=True))
    assert {name for name, score in found.items() if score > -np.inf} == expected.keys()
    error = ERROR * (2 if scoring.by_score else 1)
    assert all(abs(found[name] - score) <= error for name, score in expected.items())


@pytest.mark.parametrize("scoring", SCORINGS.values(), ids=SCORINGS)
def test_the_best_are_among_the_chosen_and_nothing_else_exceeds_the_bound(scoring, zero_padding):
    rng = np.random.default_rng(1)
    others = 0
    for _ in range(20):
        query, rows = random_query(rng, 5, 0, zero_padding), random_rows(rng, KINDS["all"], 300, 0)
        scores = plain_scores(query, rows, scoring, zero_padding)
        best = sorted(scores, key=scores.get, reverse=True)[:10]
        ids, bound = ResidentTokens(rows).best(query, scoring, 10)
        assert set(best) <= set(ids)
        rest = [score for name, score in scores.items() if name not in ids]
        assert max(rest, default=-np.inf) <= bound <= scores[best[-1]] + 1e-6
        others += len(rest)
    assert others > 2000


def test_only_what_is_allowed_is_chosen():
    rng = np.random.default_rng(2)
    query, rows = random_query(rng, 5, 0), random_rows(rng, KINDS["all"], 40, 0)
    ids, bound = ResidentTokens(rows).best(query, Scoring("t-av", "av"), 10, ["s3", "s4", "s5", "of another index"])
    assert sorted(ids) == ["s3", "s4", "s5"] and bound == -np.inf
    assert ResidentTokens(rows).best(query, Scoring("t-av", "av"), 10, []) == ([], -np.inf)


@pytest.mark.parametrize("letters", ["av", "v", "a"])
def test_tokens_are_those_of_the_segments(letters):
    rows = random_rows(np.random.default_rng(3), KINDS["all"], 40, 0)
    rows.times[:] = np.arange(len(rows))
    found = ResidentTokens(rows).tokens(["s7", "unknown", "s0", "s7"], letters)
    expected = np.isin(rows.segments, ["s0", "s7"]) & np.isin(rows.modalities, list(letters))
    assert sorted(found.times) == sorted(rows.times[expected])
    places = found.times.astype(int)
    for name in ("segments", "modalities", "weights", "embeds"):
        assert (getattr(found, name) == getattr(rows, name)[places]).all()


def test_an_index_without_tokens():
    rng = np.random.default_rng(4)
    rows = random_rows(rng, ["v"], 0, 0)
    resident = ResidentTokens(rows)
    assert resident.best(random_query(rng, 3, 0), Scoring("t-v", "v"), 5) == ([], -np.inf)
    assert len(resident.tokens(["s0"])) == 0
