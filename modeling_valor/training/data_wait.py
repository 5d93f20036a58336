# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""How much of a training's time goes by waiting for data, and what to do about it."""

import os
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from ..data.mixture import Source
from ..data.samples import SampleStream, sample_at
from .arguments import ValorTrainingArguments


T = TypeVar("T")

WINDOW = 50
"""Steps over which the share is judged."""

MUCH = 0.2
"""Share of waiting that is worth a word."""


class DataWait:
    """Measures the share of step time that passes while the next batches are not there.

    The first step is not counted, because workers are started in it, and neither is the one after `forget`.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self.clock = clock
        self._since: float | None = None
        self._logged = [0.0, 0.0]  # seconds of waiting, and of all
        self._window = [0.0, 0.0]
        self._steps = 0

    def fetch(self, get: Callable[[], T]) -> T:
        """The result of `get`, which waits for the batches of a step."""
        start = self.clock()
        result = get()
        end = self.clock()
        if self._since is not None:
            self._steps += 1
            for sums in (self._logged, self._window):
                sums[0] += end - start
                sums[1] += end - self._since
        self._since = end
        return result

    def forget(self) -> None:
        """The time until the next batches is none of training, such as that of an evaluation."""
        self._since = None

    def pop_share(self) -> float | None:
        """The share since the last call; None where no step was counted."""
        waited, total = self._logged
        self._logged = [0.0, 0.0]
        return waited / total if total else None

    def pop_large_share(self) -> float | None:
        """At the end of a window of steps its share, if that is worth a word."""
        if self._steps < WINDOW:
            return None
        waited, total = self._window
        self._window, self._steps = [0.0, 0.0], 0
        return waited / total if total and waited / total > MUCH else None


def advice(share: float, args: ValorTrainingArguments, sources: Sequence[Source]) -> str:
    """One line: what was measured, and what of the ways to read faster is not used yet."""
    ways = []
    cores = os.cpu_count() or 1
    if args.dataloader_num_workers < cores:
        ways.append(f"more --dataloader_num_workers ({args.dataloader_num_workers} of {cores} cores)")
    if any(source.cache_dir is None and not is_extracted(source) for source in sources):
        ways.append("`valor extract`, which decodes a dataset once")
    if not args.preprocess_on_device and any(source.cache_dir is None for source in sources):
        ways.append("--preprocess_on_device, which resizes on the accelerator")
    what = f"Training waited for data {share:.0%} of the time of the last {WINDOW} steps"
    return f"{what}. What helps: {'; '.join(ways)}." if ways else f"{what}, with all that makes reading faster in use."


def is_extracted(source: Source) -> bool:
    """Whether the samples of a source are folders of frames, as `valor extract` writes them, or sound only."""
    if isinstance(source.samples, SampleStream) or not len(source.table):
        return False
    video = sample_at(source.table, 0).video
    return video is None or (isinstance(video, str | os.PathLike) and os.path.isdir(video))


__all__ = ["DataWait", "advice", "is_extracted"]
