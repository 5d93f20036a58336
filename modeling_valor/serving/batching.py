# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Threads that work through a queue and do together what is alike."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar


Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class _Job:
    key: Hashable
    run: Callable[[list[Any]], list[Any]]
    item: Any
    retry: bool
    future: "Future[Any]" = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


class BatchQueue:
    """A queue whose items are worked on in batches of equal keys, oldest first.

    The threads are daemons: one that hangs does not keep the process alive.

    Args:
        name: of the threads.
        threads: how many work at once; one, where it is a model that works.
        max_batch: items of a batch, at most.
        max_wait: seconds that an item waits for others like it before it is begun, if a thread is free.
    """

    def __init__(self, name: str, threads: int = 1, max_batch: int = 1, max_wait: float = 0.0):
        self.max_batch, self.max_wait = max_batch, max_wait
        self.sizes: deque[int] = deque(maxlen=1000)
        """Sizes of the newest batches."""
        self._waiting: deque[_Job] = deque()
        self._running = 0
        self._stopped = False
        self._changed = threading.Condition()
        for number in range(threads):
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True).start()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return self._running

    def submit(
        self, key: Hashable, run: Callable[[list[Item]], list[Result]], item: Item, retry: bool = True
    ) -> "Future[Result]":
        """Puts an item into the queue; the future has its result.

        Args:
            key: items with equal keys may be in one batch.
            run: makes the results of a batch, in its order; equal for equal keys.
            retry: if a batch fails, try its items one by one, so that only those fail which must.
        """
        job = _Job(key, run, item, retry)
        with self._changed:
            if self._stopped:
                raise RuntimeError("the server is stopping")
            self._waiting.append(job)
            self._changed.notify_all()
        return job.future

    async def call(
        self, key: Hashable, run: Callable[[list[Item]], list[Result]], item: Item, retry: bool = True
    ) -> Result:
        """The result of an item; where the caller is cancelled, what is not begun is left out."""
        return await asyncio.wrap_future(self.submit(key, run, item, retry))

    def stop(self) -> None:
        """Ends the threads after what they are doing; what waits is cancelled."""
        with self._changed:
            self._stopped = True
            for job in self._waiting:
                job.future.cancel()
            self._waiting.clear()
            self._changed.notify_all()

    def _work(self) -> None:
        while jobs := self._next_batch():
            self.sizes.append(len(jobs))
            _finish(jobs)
            with self._changed:
                self._running -= len(jobs)

    def _next_batch(self) -> list[_Job]:
        """The oldest item and those that may join it; nothing once the queue is stopped."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or self._stopped)
                if self._stopped:
                    return []
                oldest = self._waiting[0]
                left = oldest.since + self.max_wait - time.monotonic()
                alike = [job for job in self._waiting if job.key == oldest.key][: self.max_batch]
                if len(alike) < self.max_batch and left > 0:
                    self._changed.wait(left)
                    continue
                self._waiting = deque(job for job in self._waiting if job not in alike)
                begun = [job for job in alike if job.future.set_running_or_notify_cancel()]
                if begun:
                    self._running += len(begun)
                    return begun


def _finish(jobs: list[_Job]) -> None:
    """Sets the results of a batch, or its error."""
    try:
        results = jobs[0].run([job.item for job in jobs])
        if len(results) != len(jobs):
            raise RuntimeError(f"{len(jobs)} items have {len(results)} results")
    except BaseException as error:  # a thread that ended would leave all later requests without an answer
        if len(jobs) > 1 and jobs[0].retry:
            for job in jobs:
                _finish([job])
            return
        for job in jobs:
            job.future.set_exception(error)
        return
    for job, result in zip(jobs, results, strict=True):
        job.future.set_result(result)
