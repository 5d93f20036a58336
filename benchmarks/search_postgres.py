# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Search in PostgreSQL + pgvector by one SQL statement, against the scores of all segments in torch.

    python tests/helpers/postgres_server.py        # a server to try it with; prints its address
    python benchmarks/search_postgres.py postgresql://... [--segments 10000] [--queries 20] [--tokens 5]

Segments have tokens around those of texts by valor-tiny and around random directions. The index is a schema of its own,
which is dropped in the end.
"""

import argparse
import itertools
import os
import time
from statistics import median

import numpy as np
import psycopg
import torch

from modeling_valor import ValorModel, ValorProcessor
from modeling_valor.search import EmbeddedSegment, Segment, SegmentTokens, postgres
from modeling_valor.search.query import Query, text_queries
from modeling_valor.search.ranking import Scoring, score_segments, scoring_of
from modeling_valor.search.segments import TokenRows


MODEL = "hub_configs/valor-tiny"
TOP, BATCH = 10, 500
COLOURS, SHAPES = ["red", "green", "blue", "yellow", "white"], ["circle", "square", "triangle"]
WAYS = ["left", "right", "up", "down"]


def make_queries(valor: ValorModel) -> list[Query]:
    """Texts of valor-tiny's world."""
    texts = [f"a {colour} {shape} moves {way}" for colour, shape, way in itertools.product(COLOURS, SHAPES, WAYS)]
    return text_queries(valor, ValorProcessor.from_pretrained(MODEL), texts)


def make_segments(valor: ValorModel, queries: list[Query], count: int, tokens: int) -> list[EmbeddedSegment]:
    """Each has frames and a sound near some of 40 directions, half of which are tokens of texts."""
    rng = np.random.default_rng(0)
    real = np.concatenate([query.vectors for query in queries])
    real = real[rng.permutation(len(real))[:20]]
    random = rng.normal(size=real.shape)
    centres = np.concatenate([real, random / np.linalg.norm(random, axis=1, keepdims=True)])
    embeds = centres[rng.integers(0, len(centres), (count, tokens))]
    embeds = embeds + 0.05 * rng.normal(size=embeds.shape)
    embeds = (embeds / np.linalg.norm(embeds, axis=2, keepdims=True)).astype(np.float16)
    with torch.no_grad():
        frames, sound = torch.from_numpy(embeds.astype(np.float32)).split([tokens - 1, 1], dim=1)
        weights = torch.cat([valor.video_token_weight(frames), valor.audio_token_weight(sound)], dim=1).numpy()
    letters, times = "v" * (tokens - 1) + "a", np.arange(tokens, dtype=np.float32)
    return [
        EmbeddedSegment(
            Segment(f"/videos/{place // 60}.mp4", 10.0 * (place % 60), 10.0 * (place % 60) + 10, "va"),
            SegmentTokens(letters, times, weights[place], embeds[place]),
        )
        for place in range(count)
    ]


def all_rows(segments: list[EmbeddedSegment]) -> TokenRows:
    """Their tokens, as a backend returns them."""
    return TokenRows(
        np.repeat([item.segment.id for item in segments], [len(item.tokens.modalities) for item in segments]),
        np.array(list("".join(item.tokens.modalities for item in segments))),
        *(
            np.concatenate([getattr(item.tokens, name) for item in segments])
            for name in ("times", "weights", "embeds")
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--segments", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=5, help="of a segment, the last one of sound")
    args = parser.parse_args()

    valor = ValorModel.from_pretrained(MODEL).eval()
    queries = make_queries(valor)[: args.queries]
    segments = make_segments(valor, queries, args.segments, args.tokens)
    scoring = scoring_of(valor.config, "text", "av")
    name = f"benchmark_{os.getpid()}"
    backend = postgres.PostgresBackend(f"{args.url}{'&' if '?' in args.url else '?'}index={name}")
    backend.create({"version": 1, "width": valor.config.projection_dim})
    try:
        start = time.perf_counter()
        for place in range(0, len(segments), BATCH):
            backend.write(segments[place : place + BATCH])
        seconds = time.perf_counter() - start
        backend.compact()
        sizes = backend.sizes()
        print(
            f"{sizes['segments']} segments, {sizes['tokens']} tokens of {valor.config.projection_dim}: written at "
            f"{sizes['tokens'] / seconds:.0f} tokens per second, {sizes['bytes'] / sizes['tokens']:.0f} bytes per token, "
            f"{torch.get_num_threads()} threads of torch"
        )
        compare(backend, queries, all_rows(segments), scoring)
    finally:
        backend.close()
        with psycopg.connect(args.url, autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA {name} CASCADE".encode())


def compare(backend: postgres.PostgresBackend, queries: list[Query], rows: TokenRows, scoring: Scoring) -> None:
    """Prints how often both agree, and their times."""
    expected, times = [], []
    for query in queries:
        start = time.perf_counter()
        names, scores = score_segments(query, rows, scoring)
        times.append(time.perf_counter() - start)
        best = np.argsort(-scores, kind="stable")[:TOP]
        expected.append(([names[place] for place in best], scores[best]))
    report("all segments in torch", times, times)
    measure("one statement, exact", backend, queries, scoring, expected, times)
    postgres.FLAT_ROWS = 0
    start = time.perf_counter()
    backend.compact()
    print(f"HNSW: made in {time.perf_counter() - start:.1f} s")
    measure("one statement, HNSW", backend, queries, scoring, expected, times)


def measure(
    title: str,
    backend: postgres.PostgresBackend,
    queries: list[Query],
    scoring: Scoring,
    expected: list[tuple[list[str], np.ndarray]],
    baseline: list[float],
) -> None:
    """Prints how often the ranking is that of `expected`, and its times."""
    backend.rank(queries[0], scoring, TOP)  # warm-up
    times, same, shares, error, proven = [], 0, [], 0.0, 0
    for query, (names, scores) in zip(queries, expected, strict=True):
        start = time.perf_counter()
        found = backend.rank(query, scoring, TOP)
        times.append(time.perf_counter() - start)
        same += found.ids == names
        shares.append(len(set(found.ids) & set(names)) / TOP)
        if found.ids == names:
            error = max(error, float(np.abs(found.scores - scores).max()))
        proven += bool(found.scores[-1] >= found.bound)
    report(title, times, baseline)
    print(
        f"    the same top {TOP} in the same order: {same} of {len(queries)} queries, {100 * np.mean(shares):.1f} % of the hits; "
        f"proven: {proven}; scores differ by at most {error:.1e}"
    )


def report(title: str, times: list[float], baseline: list[float]) -> None:
    print(f"{title}: median {1000 * median(times):.0f} ms, {median(times) / median(baseline):.2f} x torch")


if __name__ == "__main__":
    main()
