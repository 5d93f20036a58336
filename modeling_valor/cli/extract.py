# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`valor extract`: decode the frames and the sound of a dataset once, to a folder that training reads quickly."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from .arguments import positive_count


def main(argv: Sequence[str]) -> int:
    """Runs `valor extract` with the arguments `argv` and gives the exit status, 1 if too many clips cannot be read."""
    parser = argparse.ArgumentParser(prog="valor extract", description=__doc__)
    parser.add_argument(
        "source",
        help="folder with metadata.jsonl, folder of the 2023 layout, benchmark, tar shards or dataset on the Hub",
    )
    parser.add_argument("output", help="folder to write to; a run that was cut short goes on where it stopped")
    parser.add_argument("--split", help="which part of the source")
    parser.add_argument("--media", help="folder of the media, where the source is a benchmark or has them elsewhere")
    parser.add_argument("--annotations", help="annotations, where the source has them elsewhere")
    rate = parser.add_mutually_exclusive_group()
    rate.add_argument("--frames-per-second", type=float, default=2.0, help="frames of each second (default: 2)")
    rate.add_argument("--num-frames", type=positive_count, help="instead, frames of each clip")
    parser.add_argument(
        "--short-side", type=positive_count, default=256, help="larger frames are reduced to this (default: 256)"
    )
    parser.add_argument("--workers", type=positive_count, help="processes (default: one for each core)")
    parser.add_argument(
        "--max-failures", type=float, default=0.05, help="tolerated share of clips that cannot be read (default: 0.05)"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    args = parser.parse_args(argv)

    from ..data.extract import ExtractOptions, extract
    from ..data.failures import TooManyFailures
    from ..data.readers import load_samples

    try:
        result = extract(
            load_samples(args.source, args.split, media=args.media, annotations=args.annotations),
            args.output,
            ExtractOptions(args.frames_per_second, args.num_frames, args.short_side),
            workers=args.workers,
            max_failures=args.max_failures,
            progress=not args.json,
            origin=args.source if args.split is None else f"{args.source}, {args.split}",
        )
    except (TooManyFailures, ValueError, OSError) as error:
        print(f"valor extract: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(asdict(result)))
        return 0
    print(f"{args.output}: {result.clips} clips, {result.extracted} of them decoded now.")
    for what, found in (
        ("could not be read", result.failures),
        ("are damaged and used as far as they go", result.damaged),
    ):
        if found:
            print(f"{len(found)} clips {what}:", *list(found.values())[:10], sep="\n  ", file=sys.stderr)
            if len(found) > 10:
                print(f"  and {len(found) - 10} more", file=sys.stderr)
    return 0
