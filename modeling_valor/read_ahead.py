# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Reading while a model computes, in threads: decoders and tensors release Python's lock."""

import itertools
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch


S = TypeVar("S")
T = TypeVar("T")

_END: Any = object()


def read_ahead(items: Generator[T, None, None], ahead: int) -> Generator[T, None, None]:
    """The same items in the same order, of which a thread makes up to `ahead` before they are asked for.

    An error comes where its item would have come. Whenever this generator ends or is closed, also by Ctrl-C, the item that
    is being made is waited for, and `items` is closed.

    Args:
        items: made by one thread, one after the other.
        ahead: items that are made and held beyond those that were taken, at least 1.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="read_ahead")
    try:
        coming = deque(pool.submit(next, items, _END) for _ in range(ahead))
        while (item := coming.popleft().result()) is not _END:
            coming.append(pool.submit(next, items, _END))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
        items.close()


def map_ahead(
    function: Callable[[S], T], inputs: Iterable[S], ahead: int, threads: int = 1
) -> Generator[T, None, None]:
    """`map(function, inputs)`, in the same order, of which threads compute up to `ahead` results before they are asked for.

    An error, also of the inputs, comes where its result would have come. Whenever this generator ends or is closed, also by
    Ctrl-C, what the threads have begun is waited for, and nothing more is begun.

    Args:
        function: called in the threads, each of which uses one thread of torch.
        inputs: taken in the caller's thread.
        ahead: results that are computed and held beyond those that were taken, at least 1.
    """
    waiting = iter(inputs)
    pool = ThreadPoolExecutor(
        threads, thread_name_prefix="read_ahead", initializer=torch.set_num_threads, initargs=(1,)
    )
    coming: deque[Future[T]] = deque()

    def begin(count: int) -> None:
        try:
            coming.extend(pool.submit(function, item) for item in itertools.islice(waiting, count))
        except Exception as error:
            coming.append(Future())
            coming[-1].set_exception(error)

    try:
        begin(ahead)
        while coming:
            result = coming.popleft().result()
            begin(1)
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(torch.get_num_threads())  # of this thread also for those that torch starts from now on


def reading_threads(device: torch.device | None = None) -> int:
    """How many threads read for a model on a device (default: an accelerator, where there is one).

    On the CPU one, because the model computes on all cores.
    """
    accelerated = torch.accelerator.is_available() if device is None else device.type != "cpu"
    return min(4, max(1, (os.cpu_count() or 1) // 2)) if accelerated else 1
