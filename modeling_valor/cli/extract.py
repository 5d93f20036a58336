# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`valor extract`: decode the frames and the audio of a dataset once, to a folder that training reads faster."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from .arguments import positive_count


def main(argv: Sequence[str]) -> int:
    """Runs `valor extract` with the arguments `argv` and returns the exit status, 1 if too many samples cannot be read."""
    parser = argparse.ArgumentParser(prog="valor extract", description=__doc__)
    parser.add_argument(
        "source",
        help="folder with metadata.jsonl, folder of the 2023 layout, benchmark, tar shards or dataset on the Hub",
    )
    parser.add_argument("output", help="folder to write to; an interrupted run resumes where it stopped")
    parser.add_argument("--split", help="split of the source")
    parser.add_argument(
        "--media", help="folder of the media, if the source is a benchmark or keeps them in another folder"
    )
    parser.add_argument("--annotations", help="annotations, if the source keeps them in another folder")
    rate = parser.add_mutually_exclusive_group()
    rate.add_argument("--frames-per-second", type=float, default=2.0, help="frames of each second (default: 2)")
    rate.add_argument("--num-frames", type=positive_count, help="frames of each video, instead of a rate")
    parser.add_argument(
        "--short-side",
        type=positive_count,
        default=256,
        help="shorter side, in pixels, to which larger frames are resized (default: 256)",
    )
    parser.add_argument("--workers", type=positive_count, help="number of processes (default: one for each core)")
    parser.add_argument(
        "--max-failures",
        type=float,
        default=0.05,
        help="tolerated share of samples that cannot be read (default: 0.05)",
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
    print(f"{args.output}: {result.clips} samples, {result.extracted} of them decoded now.")
    for what, found in (
        ("could not be read", result.failures),
        ("are damaged and used up to the damage", result.damaged),
    ):
        if found:
            print(f"{len(found)} samples {what}:", *list(found.values())[:10], sep="\n  ", file=sys.stderr)
            if len(found) > 10:
                print(f"  and {len(found) - 10} more", file=sys.stderr)
    return 0
