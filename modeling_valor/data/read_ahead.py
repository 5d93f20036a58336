# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Reading while a model computes, in a thread: decoders and tensors release Python's lock."""

from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar


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
