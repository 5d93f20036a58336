# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Is the right moment of a long film found? Rendered clips are joined to films, indexed, and searched by their captions.

`valor world` renders the clips, five seconds each. They are joined in their order to films of ten minutes, which `ValorIndex.add`
cuts without knowing where a clip begins. Each caption is searched for; the right moment is that of its clip, or of another
one with the same caption. Printed are the share of captions whose right moment is the first hit, or among the first five,
against all clips compared as files of their own (`compute_similarity`, no films and no index), in the same run.

    python benchmarks/search_films.py --clips 1000 --workers 2
    python benchmarks/search_films.py --world DIR      # of a folder that was rendered before
"""

import argparse
import json
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from modeling_valor import ValorModel, ValorProcessor
from modeling_valor.search import Hit, ValorIndex


MODEL = Path(__file__).parent.parent / "hub_configs" / "valor-tiny"
CLIP_SECONDS = 5.0


def join_clips(clips: Sequence[Path], film: Path) -> None:
    """Joins clips to one film, decoded and encoded anew; a clip that is silent for a while stays so."""
    with av.open(str(film), "w") as out:
        video = out.add_stream("libx264", rate=10, options={"crf": "18", "preset": "veryfast", "g": "50"})
        video.width, video.height, video.pix_fmt = 128, 128, "yuv420p"
        audio = out.add_stream("aac", rate=22050, layout="mono")
        resample = av.AudioResampler("fltp", "mono", 22050)
        for place, clip in enumerate(clips):
            with av.open(str(clip)) as source:
                frames = list(source.decode(video=0))
            for number, frame in enumerate(frames[: int(10 * CLIP_SECONDS)]):
                picture = frame.reformat(width=128, height=128, format="yuv420p")
                picture.pts, picture.time_base = int(place * 10 * CLIP_SECONDS) + number, Fraction(1, 10)
                out.mux(video.encode(picture))
            samples = np.zeros(int(22050 * CLIP_SECONDS), dtype=np.float32)
            with av.open(str(clip)) as source:
                if source.streams.audio:
                    parts = [part.to_ndarray()[0] for raw in source.decode(audio=0) for part in resample.resample(raw)]
                    sound = np.concatenate(parts)[: len(samples)]
                    samples[: len(sound)] = sound
            frame = av.AudioFrame.from_ndarray(samples[None], "fltp", "mono")
            frame.rate, frame.pts = 22050, place * len(samples)
            out.mux(audio.encode(frame))
        out.mux(video.encode(None))
        out.mux(audio.encode(None))


def clip_ranks(captions: Sequence[str], clips: Sequence[Path]) -> float:
    """Share of captions whose clip, or one of the same caption, scores best when each clip is a file of its own."""
    valor, processor = ValorModel.from_pretrained(MODEL).eval(), ValorProcessor.from_pretrained(MODEL)
    scores = []
    with torch.no_grad():
        texts = valor.embed_texts(processor(text=list(captions), return_tensors="pt"))
        for first in range(0, len(clips), 16):
            batch = [processor(videos=[str(clip)], return_tensors="pt") for clip in clips[first : first + 16]]
            scores.append(valor.compute_similarity(**texts, **valor.embed_media(processor.pad(batch))))
    best = torch.cat(scores, dim=1).argmax(dim=1).tolist()
    return float(np.mean([captions[index] == caption for index, caption in zip(best, captions, strict=True)]))


def is_right(hit: Hit, places: Sequence[tuple[str, float]]) -> bool:
    """Whether at least half of one of the right clips lies in a hit."""
    return any(
        Path(hit.source).name == film
        and min(hit.end, start + CLIP_SECONDS) - max(hit.start, start) >= CLIP_SECONDS / 2
        for film, start in places
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--world", type=Path, help="folder of rendered clips; by default they are rendered")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seconds", type=float, nargs="+", default=[10.0, 5.0], help="lengths of segments to try")
    parser.add_argument("--stride", type=float, help="by default segments lie end to end")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--no-baseline", action="store_true", help="do not compare clips as files of their own")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        world = args.world or folder / "world"
        if args.world is None:
            subprocess.run(["valor", "world", str(world), "--split", "test", "--count", str(args.clips)], check=True)
        rows = [json.loads(line) for line in (world / "metadata.jsonl").read_text().splitlines()][: args.clips]
        captions = [row["captions"][0] for row in rows]
        clips = [world / row["file_name"] for row in rows]
        per_film = int(args.minutes * 60 / CLIP_SECONDS)
        places = defaultdict(list)
        (folder / "films").mkdir()
        for first in range(0, len(clips), per_film):
            film = folder / "films" / f"film{first // per_film}.mp4"
            join_clips(clips[first : first + per_film], film)
            for place, caption in enumerate(captions[first : first + per_film]):
                places[caption].append((film.name, place * CLIP_SECONDS))
        print(
            f"{len(clips)} clips in {len(list((folder / 'films').iterdir()))} films, {len(places)} different captions"
        )
        if not args.no_baseline:
            print(f"clips as files of their own, no index: {clip_ranks(captions, clips):.1%} first")
        for seconds in args.seconds:
            index = ValorIndex(folder / f"{seconds}.lance", model=str(MODEL))
            start = time.perf_counter()
            report = index.add(folder / "films", segment_seconds=seconds, stride=args.stride, workers=args.workers)
            speed = report.seconds / (time.perf_counter() - start)
            hits = index.search(captions, top=5)
            right = [[is_right(hit, places[text]) for hit in row] for text, row in zip(captions, hits, strict=True)]
            length = np.mean([row[0].end - row[0].start for row in hits])
            print(
                f"segments of {seconds:g} s: first {np.mean([row[0] for row in right]):.1%}, among five "
                f"{np.mean([any(row) for row in right]):.1%}, first hit {length:.1f} s long, proven "
                f"{np.mean([row[0].proven for row in hits]):.1%}, indexed {speed:.0f}x real time",
                flush=True,
            )


if __name__ == "__main__":
    main()
