# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What writing many files with many processes takes, so that a run may be killed at any moment and go on later."""

import multiprocessing
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A hidden name of this process beside `path` to write to, which becomes `path` when the block ends well.

    For a file or a folder. Leftovers of runs that were killed are named `.*.partial`.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    yield partial
    os.replace(partial, path)


def end_with_parent() -> None:
    """Lets a worker process end when the program is killed; by itself it would wait for work forever."""

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
