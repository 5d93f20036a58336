# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""CPU time to read frames of the films in a folder: today's reader against the one that tried decord first.

    python benchmarks/decoding.py FOLDER [--num_frames 8] [--repeats 8]

The time of decord's own process counts, other work on the machine does not. The former reader gave wrong frames in some
of these files (open groups of pictures); it is here for its speed only.
"""

import argparse
import contextlib
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import psutil

from modeling_valor.media import MediaError, frame_moments, open_source, read_frames, segment_indices
from modeling_valor.media_decord import decord
from modeling_valor.media_tracks import video_track
from modeling_valor.media_video import read_with_decord, read_with_pyav


SIZES = {"up to 50 kB": 5e4, "up to 200 kB": 2e5, "up to 1 MB": 1e6, "larger": float("inf")}


def read_as_formerly(path: Path, num_frames: int) -> None:
    """decord for short films with one video track in mp4, mov, mkv or webm; PyAV for others and where decord fails."""
    with open_source(path) as file, video_track(file, head=num_frames + 32) as track:
        moments = list(frame_moments(track, segment_indices(track.num_frames, num_frames), num_frames).values())
        if track.family in ("mov", "matroska") and track.alone and not track.truncated:
            with contextlib.suppress(Exception):
                return read_with_decord(track, moments)
        return read_with_pyav(track, moments)


def cpu_seconds() -> float:
    """Of this process and of decord's."""
    other = psutil.Process(decord.process.pid).cpu_times() if decord.process else None
    return time.process_time() + (other.user + other.system if other else 0.0)


def measure(read: Callable, path: Path, num_frames: int, repeats: int) -> float:
    read(path, num_frames)
    start = cpu_seconds()
    for _ in range(repeats):
        read(path, num_frames)
    return (cpu_seconds() - start) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--num_frames", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=8)
    options = parser.parse_args()
    warnings.simplefilter("ignore")

    totals = defaultdict(lambda: [0, 0.0, 0.0])
    print(f"{'file':40} {'kB':>7} {'former':>9} {'today':>9} {'ratio':>6}")
    for path in sorted(path for path in options.folder.rglob("*") if path.is_file()):
        try:
            times = [
                measure(read, path, options.num_frames, options.repeats) for read in (read_as_formerly, read_frames)
            ]
        except MediaError:
            continue
        size = path.stat().st_size
        print(f"{path.name[-40:]:40} {size / 1e3:7.0f} {times[0]:8.4f}s {times[1]:8.4f}s {times[1] / times[0]:6.2f}")
        for name in (next(name for name, limit in SIZES.items() if size <= limit), "all"):
            totals[name] = [total + one for total, one in zip(totals[name], (1, *times), strict=True)]
    for name in [*SIZES, "all"]:
        if name in totals:
            count, former, today = totals[name]
            print(f"{name + f', {count} files':40} {'':7} {former:8.4f}s {today:8.4f}s {today / former:6.2f}")


if __name__ == "__main__":
    main()
