# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`valor world`: render a folder of labelled videos with sound."""

import argparse
import json
import sys
from collections.abc import Sequence

from ..world import LESSONS, SPLITS, write_portraits, write_world
from .arguments import positive_count


def main(argv: Sequence[str]) -> int:
    """Runs `valor world` with the arguments `argv` and returns the exit status, 1 if the files cannot be written."""
    parser = argparse.ArgumentParser(prog="valor world", description=__doc__)
    parser.add_argument("directory", help="folder to write to; an interrupted run resumes where it stopped")
    parser.add_argument(
        "--split",
        choices=SPLITS,
        default="train",
        help="train, or test with combinations that are not in train (default: train)",
    )
    parser.add_argument(
        "--count", type=positive_count, default=8, help="number of videos, or of images with --portraits (default: 8)"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed; each seed gives other videos (default: 0)")
    parser.add_argument(
        "--portraits",
        action="store_true",
        help="write still images of single things instead of videos; they have no splits",
    )
    parser.add_argument("--things", type=int, choices=(1, 2), help="only videos that show this number of things")
    parser.add_argument("--about", choices=LESSONS, help="write all questions of this kind and no others")
    parser.add_argument("--workers", type=positive_count, help="number of processes (default: one for each core)")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    args = parser.parse_args(argv)

    summary = {"directory": args.directory, "seed": args.seed}
    lesson = {"things": args.things, "about": args.about}
    if args.portraits and any(lesson.values()):
        parser.error("--things and --about choose among videos: leave them out with --portraits.")
    options = {"workers": args.workers, "progress": not args.json}
    try:
        if args.portraits:
            write_portraits(args.directory, args.count, args.seed, **options)
            summary |= {"portraits": args.count}
            message = f"{args.directory}: {args.count} portraits."
        else:
            rendered = write_world(args.directory, args.split, args.count, args.seed, **options, **lesson)
            summary |= {"split": args.split, "clips": args.count, "rendered": rendered}
            message = (
                f"{args.directory}: {args.count} videos of the {args.split} split, {rendered} of them rendered now."
            )
    except (ValueError, OSError) as error:
        print(f"valor world: {error}", file=sys.stderr)
        return 1
    print(json.dumps(summary) if args.json else message)
    return 0
