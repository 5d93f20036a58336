# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Measure a VALOR checkpoint with mteb, on tasks of the benchmark or on annotated files of one's own.

    pip install "modeling-valor[mteb]"
    valor world clips --split test --count 16 --seed 42
    python examples/mteb_valor.py --model hub_configs/valor-tiny --data clips
    python examples/mteb_valor.py --model casia/valor-l --tasks VALOR32KT2VARetrieval MSRVTTVA2T --num-frames 8 --num-audio-clips 2

Tasks of the benchmark are downloaded from the Hub, with their videos. docs/mteb.md says what is measured.
"""

import argparse
import sys
from pathlib import Path

import mteb
from mteb.cache import ResultCache

from modeling_valor.data.readers import load_samples
from modeling_valor.integrations.mteb import ValorEncoder
from modeling_valor.integrations.mteb_tasks import CATEGORIES, retrieval_task


METRICS = ("ndcg_at_10", "hit_rate_at_1", "hit_rate_at_5", "hit_rate_at_10")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="folder or Hub name of a checkpoint")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--tasks", nargs="+", help="names of mteb's tasks")
    source.add_argument("--data", help="folder of files with metadata.jsonl, as `valor evaluate` takes it")
    parser.add_argument(
        "--categories", nargs="+", default=CATEGORIES, choices=CATEGORIES, help="of --data: query2items"
    )
    parser.add_argument("--num-frames", type=int, help="of each video; by default as many as the checkpoint says")
    parser.add_argument("--num-audio-clips", type=int, help="clips of 5.12 seconds of each sound")
    parser.add_argument("--max-length", type=int, default=40, help="longest text, in tokens")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=0, help="processes that read files")
    parser.add_argument("--device", help="by default an accelerator, if there is one")
    parser.add_argument("--dtype", help="such as bfloat16; by default the checkpoint's")
    parser.add_argument("--results", type=Path, help="folder for mteb's result files; by default none are kept")
    return parser.parse_args()


def measure(args: argparse.Namespace) -> None:
    if args.tasks:
        tasks = list(mteb.get_tasks(tasks=args.tasks))
    else:
        samples = list(load_samples(args.data))
        tasks = [retrieval_task(samples, category, Path(args.data).resolve().name) for category in args.categories]
    encoder = ValorEncoder(
        args.model,
        device=args.device,
        dtype=args.dtype,
        num_frames=args.num_frames,
        num_audio_clips=args.num_audio_clips,
        max_length=args.max_length,
    )
    cache = None if args.results is None else ResultCache(args.results)
    print(f"{'task':40}", *(f"{name:>14}" for name in METRICS))
    for task in tasks:
        options = {"batch_size": args.batch_size, "show_progress_bar": False}
        results = mteb.evaluate(
            encoder, [task], encode_kwargs=options, cache=cache, num_proc=args.workers or None, show_progress_bar=False
        )
        for split, subsets in results.task_results[0].scores.items():
            for scores in subsets:
                name = f"{task.metadata.name} ({split})"
                print(f"{name:40}", *(f"{scores.get(metric, float('nan')):14.4f}" for metric in METRICS))


if __name__ == "__main__":
    try:
        measure(parse_arguments())
    except (ImportError, KeyError, OSError, ValueError) as error:
        sys.exit(f"error: {error.args[0] if isinstance(error, KeyError) else error}")
