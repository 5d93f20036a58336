# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What writing many files with many processes takes, so that a run may be killed at any moment and go on later."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A hidden name of this process beside `path` to write to, which becomes `path` when the block ends well.

    For a file or a folder. Leftovers of runs that were killed are named `.*.partial`.
    """
    hidden = path.with_name(f".{path.name}.{os.getpid()}.partial")
    yield hidden
    os.replace(hidden, path)


@contextmanager
def mapping(workers: int, chunksize: int) -> Iterator[Callable]:
    """A `map` over so many processes, which end with this one; for one it is Python's own, in this process."""
    if workers == 1:
        yield map
        return
    with ProcessPoolExecutor(workers, initializer=end_with_parent) as pool:
        yield partial(pool.map, chunksize=chunksize)


def end_with_parent() -> None:
    """Lets a worker process end when the program is killed; by itself it would wait for work forever."""

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
