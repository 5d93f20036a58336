# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The index in PostgreSQL: the tests of `test_search_index` that both backends share, and those of this one."""

import json
import math
import multiprocessing
import os
import signal
import threading
import uuid
from dataclasses import replace

import numpy as np
import psycopg
import pytest
import test_search_index as shared
import torch
from test_search_index import QUERIES

from helpers.postgres_server import postgres_server
from helpers.segments import model_scores, random_segments
from modeling_valor.search import EmbeddedSegment, FileState, IndexedFile, Segment, ValorIndex, postgres_connection
from modeling_valor.search import postgres as postgres_module
from modeling_valor.search.postgres import PostgresBackend
from modeling_valor.search.postgres_condition import condition_sql
from modeling_valor.search.query import Query, media_query, text_queries, token_set
from modeling_valor.search.ranking import Scoring, scoring_of
from modeling_valor.search.searching import SearchOptions, collect_hits, rank_hits


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
    shared.test_captions_take_part_where_media_are_the_query,
    shared.test_captions_of_a_checkpoint_that_compares_none_have_no_tokens,
    shared.test_metadata_of_files_is_replaced,
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


@pytest.mark.parametrize("where", [None, "source LIKE '%film 1_.%' AND time < 35"])
@pytest.mark.parametrize("tolerance", [-math.inf, 0.0135])
@pytest.mark.parametrize(("top", "nearest_rows"), [(1, 2), (7, 50), (200, 10)])
def test_hits_of_one_statement_are_those_of_the_two_methods(
    index, valor, processor, top, nearest_rows, tolerance, where
):
    for modalities in ("av", "v", "a"):
        scoring = scoring_of(valor.config, "text", modalities)
        for query in text_queries(valor, processor, QUERIES):
            options = {"where": where, "nearest_rows": nearest_rows, "tolerance": tolerance}
            (expected,) = collect_hits(index.backend, [query], SearchOptions(scoring, top, **options))
            found = rank_hits(index.backend, query, SearchOptions(scoring, top, **options))
            assert [replace(hit, score=0.0) for hit in found] == [replace(hit, score=0.0) for hit in expected]
            assert [hit.score for hit in found] == pytest.approx([hit.score for hit in expected], abs=1e-5)
            assert all(hit.proven for hit in found)


def test_an_index_is_searched_by_one_statement(index, monkeypatch):
    expected = index.search(QUERIES[0])

    def asked(*args):
        raise AssertionError

    monkeypatch.setattr(PostgresBackend, "nearest", asked)
    assert index.search(QUERIES[0]) == expected


# --- where ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("Start<60 AND  END >= 5", '("start" < 60 and "end" >= 5)'),
        ("source LIKE '%it''s\\%'", "(\"source\" like E'%%it''s\\\\%%')"),
        ('"end" BETWEEN -1.5e3 AND .5', '("end" between - 1.5e3 and .5)'),
        ("(metadata->>'n')::int IN (1,2)", "(( \"metadata\" ->> E'n' ) :: int in ( 1 , 2 ))"),
    ],
)
def test_conditions_are_written_anew(where, expected):
    assert condition_sql(where) == expected


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("", "it is empty"),
        ("  ", "it is empty"),
        ("1=1; DROP TABLE tokens", "'; DROP TABLE tokens'"),
        ("DROP TABLE tokens", "'drop'"),
        ("start > (SELECT 1)", "'select'"),
        ("1=1) OR (1=1", "closes before it opens"),
        ("pg_sleep(100) IS NULL", "'pg_sleep'"),
        ("pg_read_file('/etc/passwd') = ''", "'pg_read_file'"),
        ("lo_import('/etc/passwd') > 0", "'lo_import'"),
        ("nextval('x') > 0", "'nextval'"),
        ("\"nextval\"('x') > 0", "'nextval'"),
        ("segment = 'x'", "'segment'"),
        ("colour = 3", "'colour'"),
        ("source = $1", "'$1'"),
        ("source = $$x$$", "'$$x$$'"),
        ("start < 1 /* x */", "'/* x */'"),
        ("start < 1 -- x", "'-- x'"),
        ("source = U&'\\0041'", "not understood"),
        ("source = E'\\' OR 1=1'", "a string follows 'E'"),
        ("source = 'a\0b'", "not understood"),
        ("source = 'open", "not understood"),
        ("`source` = 'x'", "not understood"),
        ("start ^ 2 > 1", "not understood"),
    ],
)
def test_nothing_but_conditions_is_passed_on(where, why):
    with pytest.raises(ValueError, match=r"^[^\n]+$") as error:
        condition_sql(where)
    assert why in str(error.value)


@pytest.mark.parametrize(
    "where",
    ["nonsense here", "start", "1=1 OR", "((start < 1)", "source::int = 1", "1/0 = 1", "modality < 3", "start < 'x'"],
)
def test_where_that_is_no_condition(index, where):
    with pytest.raises(ValueError, match="no condition that PostgreSQL understands") as error:
        index.search(QUERIES[0], where=where)
    assert "\n" not in str(error.value)
    assert index.search(QUERIES[0])


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("metadata->>'camera' = 'c1'", 42),
        ("metadata @> '{\"number\": 3}'", 1),
        ("json_get_int(metadata, 'camera') = 1", 0),
        ("json_get_float(metadata, 'number') < 1.5", 2),
        ("modality = 'a' AND source ILIKE '%FILM 1.%'", 4),
        ("source = 'C:\\new'", 0),
        ("lower(source) LIKE '%\\_%' OR NOT start < 50", 20),
    ],
)
def test_conditions_of_postgres(index, where, count):
    assert len(index.search(QUERIES[0], top=200, where=where, join=False)) == count


def test_searches_cannot_write(index):
    for statement in ("DELETE FROM tokens", "CREATE TABLE more (x int)"):
        with (
            pytest.raises(ValueError, match="read-only transaction"),
            index.backend._server.transaction() as connection,
        ):
            connection.execute(statement)


def test_a_search_that_takes_too_long_is_ended(index, server, monkeypatch):
    monkeypatch.setattr(postgres_connection, "SEARCH_SECONDS", 0.2)
    with psycopg.connect(server) as other:
        other.execute(f'LOCK TABLE "{index.backend.index}".tokens')
        with pytest.raises(ValueError, match=r"took more than 0\.2 s"):
            index.search(QUERIES[0])
    assert index.search(QUERIES[0])


# --- Writers ----------------------------------------------------------------------------------------------------------


def contents(backend):
    return {name: backend.sizes()[name] for name in ("segments", "tokens")}


def counts(segments):
    return {"segments": len(segments), "tokens": sum(len(item.tokens.modalities) for item in segments)}


def test_what_is_written_is_read(index, segments):
    segment = Segment(
        "s3://bucket/" + os.urandom(3000).hex(),
        0.1,
        1e6,
        "va",
        FileState(5, 2**62),
        "",
        "A dog.",
        {"a": [1, None, "é\n"]},
    )
    index.add_segments([EmbeddedSegment(segment, segments[0].tokens)])
    assert index.backend.segments([segment.id, "nothing"]) == [segment]
    assert index.segments(segment.source) == [segment]
    rows = index.backend.tokens([segment.id, "nothing"])
    expected = segments[0].tokens
    assert "".join(rows.modalities) == expected.modalities
    for name in ("times", "weights", "embeds"):
        found = getattr(rows, name)
        assert found.dtype == getattr(expected, name).dtype
        assert np.array_equal(found, getattr(expected, name))
    file = IndexedFile(segment.source, segment.state, "shots", 1.5, 1)
    index.add_segments([], [file, replace(file, seconds=2.5), file])
    index.add_segments([], [file])
    assert list(index.backend.files()) == [file]


def test_two_writers_of_the_same_segments(index, segments, valor, address):
    new = random_segments(valor, 60, seed=3)
    new = [EmbeddedSegment(replace(item.segment, source="/new" + item.segment.source), item.tokens) for item in new]
    files = [IndexedFile(item.segment.source, FileState(), "10.0 s", 60.0, 6) for item in new]
    backends = [PostgresBackend(address) for _ in range(3)]
    start = threading.Barrier(len(backends))
    errors = []

    def write(number):
        start.wait()
        try:
            for place in range(0, 60, 10):
                part = slice(place, place + 15) if number % 2 else slice(45 - place, 60 - place)
                backends[number].write(new[part][::-1], files[part])
                backends[number].set_captions({item.segment.id: "a dog" for item in new[part]})
        except ValueError as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(len(backends))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert contents(index.backend) == counts([*segments, *new])
    assert len(list(index.backend.files())) == len({file.source for file in files})
    for backend in backends:
        backend.close()


def _write_until_killed(address, segments):
    made = iter(range(100))
    vector = postgres_module.HalfVector

    def dying(row):
        if next(made) == 40:
            os.kill(os.getpid(), signal.SIGKILL)
        return vector(row)

    postgres_module.HalfVector = dying
    PostgresBackend(address).write(segments, [IndexedFile(segments[0].segment.source, FileState(), "", 1.0, 1)])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_writer_leaves_nothing(index, segments, valor, address):
    new = random_segments(valor, 30, seed=3)
    new = [EmbeddedSegment(replace(item.segment, source="/new.mp4"), item.tokens) for item in new[:6]] + [
        EmbeddedSegment(replace(item.segment, source="/new.mp4", end=1000.0 + place), item.tokens)
        for place, item in enumerate(new)
    ]
    writer = multiprocessing.get_context("fork").Process(target=_write_until_killed, args=(address, new))
    writer.start()
    writer.join()
    assert writer.exitcode == -signal.SIGKILL
    assert contents(index.backend) == counts(segments)
    assert list(index.backend.files()) == []
    index.add_segments(new)
    assert contents(index.backend) == counts([*segments, *new])


def test_a_connection_that_the_server_ended_is_made_anew(index, server):
    before = index.search(QUERIES[0])
    with psycopg.connect(server, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'modeling-valor' "
        )
    assert index.search(QUERIES[0]) == before


def test_text_that_postgres_cannot_keep(index, segments):
    for part in (
        Segment("/bad\udcff.mp4", 0, 1, "va"),
        Segment("/zero.mp4", 0, 1, "va", caption="a\0b"),
        Segment("/zero.mp4", 0, 1, "va", metadata={"x": float("nan")}),
    ):
        with pytest.raises(ValueError, match=r"cannot be read or written: [^\n]+What was complete is kept"):
            index.add_segments([EmbeddedSegment(part, segments[0].tokens)])
    assert contents(index.backend) == counts(segments)


# --- The database -----------------------------------------------------------------------------------------------------


def test_an_approximate_index_finds_the_same_and_proves_nothing(index, monkeypatch, valor, processor):
    exact = index.search(QUERIES, top=3, join=False)
    monkeypatch.setattr(postgres_module, "FLAT_ROWS", 300)
    index.compact()
    assert index.info()["index"] == "HNSW"
    hits = index.search(QUERIES, top=3, join=False)
    assert [shared.names(row) for row in hits] == [shared.names(row) for row in exact]
    assert not any(hit.proven for row in hits for hit in row)
    assert index.search(QUERIES, top=3, join=False, exact=True) == exact
    query, scoring = text_queries(valor, processor, QUERIES[:1])[0], scoring_of(valor.config, "text", "av")
    found = index.backend.rank(query, scoring, 3)
    assert found.ids == [hit.segments[0].id for hit in exact[0]]
    assert found.bound == np.inf
    assert index.backend.rank(query, scoring, 3, exact=True).bound < np.inf


def test_compaction_frees_space(index, segments):
    many = [
        EmbeddedSegment(replace(segments[0].segment, source="/many.mp4", start=float(place)), segments[0].tokens)
        for place in range(500)
    ]
    index.add_segments(many)
    before, size = index.search(QUERIES, top=5, where="source <> '/many.mp4'"), index.info()["bytes"]
    index.remove("/many.mp4")
    index.compact()
    assert index.search(QUERIES, top=5) == before
    assert index.info()["bytes"] < size


def test_several_indexes_in_one_database(index, server, valor, processor, segments):
    other = ValorIndex(f"{server}?index=other films 日本", model=valor, processor=processor)
    other.add_segments(segments[:3])
    assert contents(other.backend) == counts(segments[:3])
    assert contents(index.backend) == counts(segments)
    third = ValorIndex(server, model=valor, processor=processor)
    assert third.info()["segments"] == 0
    assert third.path.endswith("?index=valor")
    with psycopg.connect(server) as connection:
        connection.execute(f'DROP SCHEMA "{other.backend.index}" CASCADE')
    assert index.search(QUERIES[0])
    assert other.backend.about() is None


def test_no_index_a_newer_format_and_one_made_twice(address):
    with pytest.raises(ValueError, match="There is no index at"):
        ValorIndex(address)
    backend = PostgresBackend(address)
    backend.create({"version": 99, "width": 8})
    backend.create({"version": 1, "width": 16})
    assert backend.about() == {"version": 99, "width": 8}
    with pytest.raises(ValueError, match="newer version of modeling-valor"):
        ValorIndex(address)


def one_sentence(function, *args):
    with pytest.raises(ValueError, match=r"^[^\n]+$") as error:
        function(*args)
    assert "secret" not in str(error.value)
    return str(error.value)


def test_servers_that_are_not_there_and_users_that_may_not(server, address, index, monkeypatch):
    monkeypatch.delenv("PGPASSWORD")
    absent = "postgresql://me:secret2@127.0.0.1:1/films"
    assert "Connection refused" in one_sentence(ValorIndex, absent)
    assert "password authentication failed" in one_sentence(ValorIndex, server.replace("secret", "secret2"))
    assert "no password supplied" in one_sentence(ValorIndex, server.replace(":secret", ""))
    assert '"nothing" does not exist' in one_sentence(ValorIndex, server.removesuffix("postgres") + "nothing")
    with psycopg.connect(server, autocommit=True) as owner:
        owner.execute("CREATE ROLE guest LOGIN PASSWORD 'secret3'")
        owner.execute("CREATE DATABASE guests OWNER guest")
    guest = server.replace("postgres:secret", "guest:secret3")
    backend = PostgresBackend(guest.removesuffix("postgres") + "guests")
    assert backend.about() is None
    assert "may not add pgvector" in one_sentence(backend.create, {"width": 8})
    backend = PostgresBackend(f"{guest}?index=mine")
    assert "permission denied for database" in one_sentence(backend.create, {"width": 8})
    assert "permission denied for schema" in one_sentence(
        PostgresBackend(f"{guest}?index={index.backend.index}").about
    )
    with psycopg.connect(server, autocommit=True) as owner:
        owner.execute(f'GRANT USAGE ON SCHEMA "{index.backend.index}" TO guest')
        owner.execute(f'GRANT SELECT ON ALL TABLES IN SCHEMA "{index.backend.index}" TO guest')
    reader = ValorIndex(f"{guest}?index={index.backend.index}")
    assert reader.search(QUERIES[0])
    assert "permission denied for table" in one_sentence(reader.remove, "/videos/film 0.mp4")


def test_a_server_without_pgvector(address, monkeypatch):
    monkeypatch.setattr(postgres_connection, "ADD_EXTENSION", "CREATE EXTENSION pgvector_is_not_here")
    backend = PostgresBackend(address)
    assert "lacks pgvector" in one_sentence(backend.create, {"width": 8})
    assert backend.about() is None


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:secret@ss@host/films",
        "postgresql://me:se/secret@host/films",
        "postgresql://me:secret@host/films?colour=red",
        "postgresql://me:secret@host:port/films",
        "postgresql://me:secret@host/films?index=",
        "postgresql://me:secret@host/films?index=" + 64 * "x",
    ],
)
def test_addresses_that_are_none(url):
    one_sentence(ValorIndex, url)


def test_messages_have_no_password(index, server):
    assert index.path == server.replace(":secret", "") + f"?index={index.backend.index}"
    assert "secret" not in json.dumps(index.info())
