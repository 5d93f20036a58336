# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The index in PostgreSQL: the tests of `test_search_index` that both backends share, and those of this one."""

import uuid

import numpy as np
import pytest
import test_search_index as shared
import torch
from test_search_index import QUERIES

from helpers.postgres_server import postgres_server
from helpers.segments import model_scores
from modeling_valor.search import ValorIndex
from modeling_valor.search.query import Query, media_query, text_queries, token_set
from modeling_valor.search.ranking import Scoring, scoring_of


valor, processor, texts, segments = shared.valor, shared.processor, shared.texts, shared.segments

for test in (
    shared.test_hits_are_those_of_all_pairs,
    shared.test_one_text_and_several_agree,
    shared.test_segments_without_the_modality_are_not_found,
    shared.test_where_filters,
    shared.test_matches_say_which_second_answered_each_word,
    shared.test_adding_again_changes_nothing,
    shared.test_removal,
    shared.test_names_of_all_kinds,
    shared.test_another_model_is_refused,
    shared.test_the_model_of_the_index_is_the_default,
    shared.test_captions_are_found_by_their_words,
    shared.test_embeddings_of_another_width_or_model,
    shared.test_files_and_info,
):
    globals()[test.__name__] = test


@pytest.fixture(scope="module")
def server():
    try:
        with postgres_server() as url:
            yield url
    except RuntimeError as error:
        pytest.skip(str(error))


@pytest.fixture
def address(server, monkeypatch):
    """Of an index that is not there yet."""
    monkeypatch.setenv("PGPASSWORD", "secret")
    return f"{server}?index={uuid.uuid4().hex}"


@pytest.fixture
def index(address, valor, processor, segments):
    index = ValorIndex(address, model=valor, processor=processor)
    index.add_segments(segments)
    yield index
    index.backend.close()


def scores_by_hand(query, segments, scoring):
    """Eq. 3 of each segment, in float64."""
    scores = []
    for item in segments:
        letters = np.array(list(item.tokens.modalities))
        parts = [list(letter) for letter in scoring.letters] if scoring.by_score else [list(scoring.letters)]
        score = None
        for part in parts:
            chosen = np.isin(letters, part)
            if chosen.any():
                similarity = query.vectors.astype(np.float64) @ item.tokens.embeds[chosen].astype(np.float64).T
                logits = np.zeros(chosen.sum()) if scoring.uniform else item.tokens.weights[chosen].astype(np.float64)
                weights = np.exp(logits - logits.max())
                weights /= weights.sum()
                best = similarity.max(axis=0)
                if query.tokens.zero_padding:
                    best = np.maximum(best, 0)
                own = (query.weights(scoring.uniform) @ similarity.max(axis=1) + weights @ best) / 2
                score = own + (score or 0)
        scores.append(-np.inf if score is None else score)
    return np.array(scores)


@pytest.mark.parametrize("modalities", ["av", "v", "a"])
@pytest.mark.parametrize("nearest_rows", [2, 50, 100_000])
def test_one_statement_ranks_as_the_model_does(index, valor, processor, texts, segments, modalities, nearest_rows):
    scoring = scoring_of(valor.config, "text", modalities)
    queries = text_queries(valor, processor, QUERIES)
    for query, text in zip(queries, texts, strict=True):
        expected = model_scores(valor, text, segments, f"t-{modalities}")
        found = index.backend.rank(query, scoring, 10, nearest_rows=nearest_rows)
        order = np.argsort(-expected, kind="stable")[:10]
        assert found.scores == pytest.approx(expected[order], abs=1e-4)
        of_id = {item.segment.id: score for item, score in zip(segments, expected, strict=True)}
        assert found.scores == pytest.approx([of_id[name] for name in found.ids], abs=1e-4)
        assert found.scores[-1] >= found.bound  # proven


@pytest.mark.parametrize(
    "scoring",
    [
        Scoring("t-av", "av", uniform=True),
        Scoring("t-av", "av", by_score=True, uniform=True),
        Scoring("t-v", "v"),
    ],
)
def test_one_statement_ranks_by_all_kinds_of_scoring(index, valor, processor, segments, scoring):
    query = text_queries(valor, processor, QUERIES[:1])[0]
    found = index.backend.rank(query, scoring, 200)
    expected = scores_by_hand(query, segments, scoring)
    of_id = {item.segment.id: score for item, score in zip(segments, expected, strict=True)}
    assert len(found.ids) == np.isfinite(expected).sum()
    assert found.scores == pytest.approx([of_id[name] for name in found.ids], abs=1e-5)


@pytest.mark.parametrize("kind", ["sound", "padded text"])
def test_one_statement_ranks_other_queries(index, valor, segments, kind):
    """With embeddings that are far from all, so that zeros of padding win."""
    tokens = segments[0].tokens
    embeds, weights = torch.from_numpy(-tokens.embeds.astype(np.float32)), torch.from_numpy(tokens.weights)
    query = media_query("audio", embeds, weights)
    if kind == "padded text":
        query = Query("text", token_set(embeds, weights, zero_padding=True))
    found = index.backend.rank(query, Scoring("t-v", "v"), 200)
    expected = scores_by_hand(query, segments, Scoring("t-v", "v"))
    of_id = {item.segment.id: score for item, score in zip(segments, expected, strict=True)}
    assert len(found.ids) == np.isfinite(expected).sum()
    assert found.scores == pytest.approx([of_id[name] for name in found.ids], abs=1e-5)


def test_one_statement_with_a_condition(index, valor, processor, segments):
    query = text_queries(valor, processor, QUERIES[:1])[0]
    found = index.backend.rank(query, scoring_of(valor.config, "text", "av"), 200, where="source LIKE '%film 1_.%'")
    assert set(found.ids) == {item.segment.id for item in segments if len(item.segment.source) == 19}
    assert found.bound == -np.inf  # all were scored
    nothing = index.backend.rank(query, scoring_of(valor.config, "text", "av"), 200, where="start < 0")
    assert (nothing.ids, len(nothing.scores)) == ([], 0)
