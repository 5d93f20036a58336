# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Recall and time of searches in a large index (LanceDB): in memory, and by the rows that words look for where it is larger.

Segments are random but structured: each is a rendered clip's own tokens, moved by random combinations of what tells the
clips' tokens of that modality apart. So they crowd where real ones do, which is harder than independent noise. Queries are
the clips' captions. The baseline, in the same run, is all pairs: the score of every query with every segment. Times are of
whole searches, text encoder included, after warm-up; the load of the machine is printed with them, and so is the time that
the processor worked for a query, which other programs do not change.

    python benchmarks/search.py --world DIR --segments 100000 --threads 2
"""

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from modeling_valor import ValorModel, ValorProcessor
from modeling_valor.alignment import TokenSet, grouped_similarity
from modeling_valor.search import EmbeddedSegment, Segment, SegmentTokens, ValorIndex, lance
from modeling_valor.search.query import HEAVY_WORDS, text_queries


MODEL = Path(__file__).parent.parent / "hub_configs" / "valor-tiny"
LETTERS = "vvvva"
SPREAD = 0.6  # length of the move of a token of length 1
BATCH = 5000


def embed_clips(valor: ValorModel, processor: ValorProcessor, clips: Sequence[Path]) -> torch.Tensor:
    """(clips, 5, C): four frame tokens and one audio clip of each."""
    rows = []
    for clip in clips:
        with torch.no_grad():
            media = valor.embed_media(processor(videos=[str(clip)], num_audio_clips=1, return_tensors="pt"))
        if "audio_embeds" in media and media["video_embeds"].shape[1] == 4:
            rows.append(torch.cat([media["video_embeds"][0], media["audio_embeds"][0]]))
    return torch.stack(rows)


def make_tokens(real: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """(count, 5, C), float16."""
    generator = torch.Generator().manual_seed(seed)
    base = real[torch.randint(len(real), (count,), generator=generator)]
    moves = torch.empty_like(base)
    for columns in (slice(0, 4), slice(4, 5)):
        own = real[:, columns].flatten(0, 1)
        own = own - own.mean(0)
        mix = torch.randn(count * (columns.stop - columns.start), len(own), generator=generator) / len(own) ** 0.5
        moves[:, columns] = (mix @ own).view(count, -1, own.shape[1])
    scale = moves.norm(dim=-1).mean()
    return torch.nn.functional.normalize(base + SPREAD * moves / scale, dim=-1).half()


def weights_of(valor: ValorModel, tokens: torch.Tensor) -> torch.Tensor:
    """(count, 5), f(e) of eq. 3."""
    with torch.no_grad():
        video, audio = valor.video_token_weight(tokens[:, :4].float()), valor.audio_token_weight(tokens[:, 4:].float())
    return torch.cat([video, audio], dim=1)


def make_segments(real: torch.Tensor, valor: ValorModel, count: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Tokens and weights of all segments, `BATCH` at a time."""
    for start in range(0, count, BATCH):
        tokens = make_tokens(real, min(BATCH, count - start), seed=start)
        yield tokens, weights_of(valor, tokens)


def build(index: ValorIndex, segments: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> tuple[int, float]:
    """Writes all segments, ten seconds each, in films of an hour; returns token rows and seconds of writing."""
    number, seconds = 0, 0.0
    for tokens, weights in segments:
        batch = []
        for embeds, logits in zip(tokens.numpy(), weights.numpy(), strict=True):
            begin = 10.0 * (number % 360)
            segment = Segment(f"/videos/film {number // 360}.mp4", begin, begin + 10, "va")
            times = begin + np.array([1.25, 3.75, 6.25, 8.75, 5.0], dtype=np.float32)
            batch.append(EmbeddedSegment(segment, SegmentTokens(LETTERS, times, logits, embeds)))
            number += 1
        start = time.perf_counter()
        index.add_segments(batch)
        seconds += time.perf_counter() - start
    return number * len(LETTERS), seconds


def all_pairs(
    index: ValorIndex, texts: Sequence[str], segments: Iterator[tuple[torch.Tensor, torch.Tensor]]
) -> tuple[list[list[tuple[str, float]]], list[np.ndarray]]:
    """The exact best ten of each text, as (source, start), and their scores."""
    sets = [query.tokens for query in text_queries(index.model.valor, index.model.processor, texts)]
    embeds, mask, weights = (
        torch.nn.utils.rnn.pad_sequence([getattr(tokens, name)[0] for tokens in sets], batch_first=True)
        for name in ("embeds", "mask", "weight_logits")
    )
    queries = TokenSet(embeds, mask, weights)
    blocks = [grouped_similarity(queries, *_sets(*block), ["t-av"])["t-av"] for block in segments]
    per_text = torch.cat(blocks, dim=1)
    best = [row.topk(10) for row in per_text]
    names = [
        [(f"/videos/film {number // 360}.mp4", 10.0 * (number % 360)) for number in top.indices.tolist()]
        for top in best
    ]
    return names, [top.values.numpy() for top in best]


def _sets(tokens: torch.Tensor, weights: torch.Tensor) -> tuple[TokenSet, TokenSet]:
    tokens = tokens.float()
    return (
        TokenSet(tokens[:, :4], weight_logits=weights[:, :4]),
        TokenSet(tokens[:, 4:], weight_logits=weights[:, 4:]),
    )


def measure(
    index: ValorIndex, texts: Sequence[str], truth, n: int | None = None, top: int = 10, **options
) -> dict[str, float]:
    """Recall against `truth`, times in ms and what was looked at, of searches one by one."""
    names, scores = truth
    times, first, same, shared, proven, candidates = [], [], [], [], [], []
    tokens = index.backend.tokens

    def counted(ids, letters="va"):
        candidates.append(len(ids))
        return tokens(ids, letters)

    index.backend.tokens = counted
    for text in texts[:5]:
        index.search(text, top=top, join=False, nearest_rows=n, **options)
    candidates.clear()
    worked = resource.getrusage(resource.RUSAGE_SELF)
    for text, wanted, best in zip(texts, names, scores, strict=True):
        start = time.perf_counter()
        hits = index.search(text, top=top, join=False, nearest_rows=n, **options)
        times.append(1000 * (time.perf_counter() - start))
        found = [(hit.source, hit.start) for hit in hits]
        # Of equal scores either may come first
        first.append(found[0] == wanted[0] or abs(hits[0].score - best[0]) < 1e-6)
        same.append(set(found) == set(wanted[:top]))
        shared.append(len(set(found) & set(wanted[:top])) / top)
        proven.append(hits[0].proven)
    del index.backend.tokens
    after = resource.getrusage(resource.RUSAGE_SELF)
    worked_ms = 1000 * (after.ru_utime + after.ru_stime - worked.ru_utime - worked.ru_stime) / len(texts)
    return {
        "n": n or "-",
        "top1": 100 * np.mean(first),
        "top10": 100 * np.mean(same),
        "shared": 100 * np.mean(shared),
        "median": np.median(times),
        "p95": np.percentile(times, 95),
        "cpu": worked_ms,
        "candidates": sum(candidates) / len(texts),
        "proven": 100 * np.mean(proven),
    }


def show(kind: str, row: dict[str, float]) -> None:
    print(
        f"{kind:12} n={row['n']:<4} top 1 {row['top1']:5.1f} %, top 10 the same {row['top10']:5.1f} % (shared {row['shared']:5.1f} %), "
        f"median {row['median']:6.1f} ms, p95 {row['p95']:6.1f} ms, processor {row['cpu']:6.1f} ms, "
        f"candidates {row['candidates']:6.0f}, top 1 proven {row['proven']:5.1f} %; load {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", type=Path, required=True, help="folder of clips that `valor world` rendered")
    parser.add_argument("--clips", type=int, default=300, help="number of clips to start from")
    parser.add_argument("--segments", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--exact-queries", type=int, default=50, help="of them, searched for by comparing all rows")
    parser.add_argument("--n", type=int, nargs="+", default=[100, 200, 400, 800, 1000, 1600])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--index", type=Path, help="keep the index here, and use one that is there")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = [json.loads(line) for line in (args.world / "metadata.jsonl").read_text().splitlines()]
    texts = list(dict.fromkeys(row["captions"][0] for row in rows))[: args.queries]
    with tempfile.TemporaryDirectory() as folder:
        index = ValorIndex(args.index or Path(folder) / "index.lance", model=str(MODEL))
        valor, processor = index.model.valor, index.model.processor
        real = embed_clips(valor, processor, [args.world / row["file_name"] for row in rows[: args.clips]])
        print(
            f"{len(real)} clips with sound, {args.segments} segments of {len(LETTERS)} tokens, {len(texts)} captions"
        )
        if index.info()["segments"] < args.segments:
            count, seconds = build(index, make_segments(real, valor, args.segments))
            print(f"written: {count / seconds:.0f} token rows per second (load {os.getloadavg()[0]:.1f})", flush=True)
            start = time.perf_counter()
            index.compact()
            print(f"approximate index and compaction: {time.perf_counter() - start:.0f} s", flush=True)
        info = index.info()
        print(f"{info['bytes'] / info['segments'] * 360 / 1e6:.2f} MB per hour of video, index {info['index']}")
        start = time.perf_counter()
        truth = all_pairs(index, texts, make_segments(real, valor, args.segments))
        print(f"all pairs: {1000 * (time.perf_counter() - start) / len(texts):.0f} ms per query", flush=True)
        start = time.perf_counter()
        index.search(texts[0])
        print(f"first search, which reads the tokens into memory: {time.perf_counter() - start:.1f} s")
        show("in memory", measure(index, texts, truth))
        lance.RESIDENT_NUMBERS = 0
        index = ValorIndex(index.path, model=valor, processor=processor)
        print(f"As if it were too large for memory: {HEAVY_WORDS} words, {lance.NPROBES} partitions looked into")
        for n in args.n:
            show("approximate", measure(index, texts, truth, n))
        few = args.exact_queries
        show("exact, top 1", measure(index, texts[:few], [part[:few] for part in truth], top=1, exact=True))


if __name__ == "__main__":
    main()
