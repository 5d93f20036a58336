# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Fingerprints of media without decoding them: path or content, and whether files have changed."""

import hashlib
import os
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..media_fragments import split_fragment
from ..media_sources import media_source


class IncomparableError(ValueError):
    """Media without a fingerprint, such as a generator."""


def fingerprint(source: Any, with_state: bool = False) -> Any:
    """A JSON-serialisable value that identifies a medium: the path or URL of a file (with a part such as `#t=30,40`), or a
    hash of bytes and arrays.

    Args:
        with_state: include size and time of files, so that the fingerprint changes when a file is rewritten.

    Raises:
        IncomparableError: the medium cannot be identified.
    """
    file = media_source(source)
    if isinstance(file, (str, os.PathLike)):
        place = _place(file)
        return [place, file_state(file)] if with_state else place
    if isinstance(file, (bytes, bytearray, memoryview)):
        return hashlib.sha256(file).hexdigest()
    if isinstance(source, torch.Tensor):
        tensor = source.detach().cpu().contiguous()
        return [str(tensor.dtype), *fingerprint(tensor.reshape(-1).view(torch.uint8).numpy()), list(tensor.shape)]
    if isinstance(source, (np.ndarray, Image.Image)):
        array: Any = np.ascontiguousarray(source)
        return [str(array.dtype), list(array.shape), hashlib.sha256(array).hexdigest()]
    if isinstance(source, Mapping):
        return {str(name): fingerprint(value, with_state) for name, value in source.items()}
    if isinstance(source, (list, tuple)):
        return [fingerprint(value, with_state) for value in source]
    if source is None or isinstance(source, (int, float)):
        return source
    name = getattr(source, "name", None)  # a file object
    if isinstance(name, str):
        return name
    raise IncomparableError(f"a {type(source).__name__} has no fingerprint")


def file_state(source: Any) -> list[Any] | None:
    """Size and time of change of a file, of the files of a folder, or of each file of a list; None without a file."""
    if isinstance(source, (list, tuple)):
        return [file_state(item) for item in source]
    file = media_source(source)
    if not isinstance(file, (str, os.PathLike)):
        return None
    path = _local_path(file)
    try:
        if os.path.isdir(path):
            with os.scandir(path) as entries:
                return sorted([entry.name, *_size_and_time(entry.stat())] for entry in entries)
        return _size_and_time(os.stat(path))
    except (OSError, ValueError):
        return None


def is_unchanged(now: Any, then: Any) -> bool:
    """Whether files are unchanged by their [`file_state`]; files that no longer exist count as unchanged."""
    if now is None or now == then:
        return True
    nested = isinstance(now, list) and isinstance(then, list) and len(now) == len(then)
    return nested and all(map(is_unchanged, now, then))


def _place(file: str | os.PathLike[str]) -> str:
    """The absolute path of a local file, with the part of it (`#t=30,40`), or a URL unchanged."""
    name = os.fsdecode(file)
    is_address = "://" in name or name.startswith("data:")
    if is_address and not name.startswith("file://"):
        return name
    path = _local_path(name)
    part = "" if os.path.lexists(name) else split_fragment(name)[1]
    return path + part


def _local_path(file: str | os.PathLike[str]) -> str:
    """The absolute path of a file by its path or `file://` URL, or of its archive."""
    name = os.fsdecode(file)
    name = name.rpartition("::")[2] if "://" in name else name
    if name.startswith("file://"):
        name = urllib.request.url2pathname(urllib.parse.urlsplit(name).path)
    return os.path.abspath(name if os.path.exists(name) else os.path.expanduser(split_fragment(name)[0]))


def _size_and_time(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns]
