# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Writing files safely: atomically, by one run at a time, in processes that end with the program."""

import errno
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

from filelock import FileLock, Timeout
from transformers.utils import logging

from ..media_limits import MediaError
from ..media_sources import split_part


logger = logging.get_logger(__name__)

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


_topics_of_warnings: set[str] = set()


def warn_once(topic: str, message: str) -> None:
    """Logs a warning, unless this process has already logged one about the topic."""
    if topic not in _topics_of_warnings:
        _topics_of_warnings.add(topic)
        logger.warning(message)


class WriteError(OSError):
    """A folder cannot be written: its disk is full or read-only, or the user has no permission."""


@contextmanager
def writing_to(directory: str | os.PathLike[str]) -> Iterator[None]:
    """Turns the errors of a full or read-only disk into one sentence that names the folder.

    Raises:
        WriteError: a file or folder cannot be written.
    """
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        elsewhere = isinstance(error.filename, str) and not os.path.abspath(error.filename).startswith(
            os.path.abspath(directory)
        )
        if error.errno not in (*_FULL, *_READ_ONLY) or elsewhere:
            raise
        remedy = "Free some space, or choose" if error.errno in _FULL else "Choose"
        raise WriteError(
            f"{os.fspath(directory)} cannot be written to: {error.strerror}. {remedy} another folder; what is complete is kept."
        ) from error


def make_folder(directory: Path) -> None:
    """Creates a folder and its parents if they do not exist.

    Raises:
        WriteError: it cannot be created.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{directory} cannot be made a folder: {error.strerror}. Choose another one.") from error


def check_not_input(output: str | os.PathLike[str], inputs: Iterable[str]) -> None:
    """Checks that an output would not replace one of the media files that it is made of.

    Raises:
        ValueError: it would.
    """
    if not os.path.exists(output):
        return
    for name in inputs:
        try:
            path = os.path.expanduser(split_part(name)[0])
        except MediaError:  # whoever reads it says why
            continue
        if os.path.exists(path) and os.path.samefile(path, output):
            raise ValueError(f"{os.fspath(output)} is one of the files to read: give the output another name.")


@contextmanager
def sole_writer(directory: Path, name: str) -> Iterator[None]:
    """Makes this run the only one that writes to `directory`, with a lock on its file `name`. The lock ends with the process.

    Raises:
        ValueError: another run has the lock.
    """
    lock = FileLock(directory / name, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise ValueError(
            f"{directory} is being written by another run: wait for it, or choose another folder."
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which replaces `path` when the block ends without an error.

    For a file or a folder. After an error it is removed; killed runs leave files named `.*.partial`.
    """
    partial_path = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial_path
        os.replace(partial_path, path)
    except BaseException:
        remove(partial_path)
        raise


def remove(path: Path) -> None:
    """Removes a file or folder if it exists; errors are ignored."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(OSError):
        path.unlink(missing_ok=True)


@contextmanager
def process_map(workers: int, chunksize: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """A `map` over `workers` processes, which end with this one; with one worker it is the built-in `map`."""
    if workers == 1:
        yield map
        return
    with ProcessPoolExecutor(workers, initializer=end_with_parent) as pool:
        yield partial(pool.map, chunksize=chunksize)


def end_with_parent() -> None:
    """Makes a worker process end when the program is killed; otherwise it would wait for work forever."""

    def watch() -> None:
        cast(BaseProcess, multiprocessing.parent_process()).join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
