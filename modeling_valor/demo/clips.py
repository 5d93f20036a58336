# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Files and links that visitors of the page give, within limits."""

import contextlib
import hashlib
import os
import re
import shutil
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..media_fragments import Part
from ..media_limits import MediaError, MediaLimits
from ..media_sources import LocalFile, open_source


@dataclass(frozen=True)
class DemoLimits:
    """What one visitor may ask for.

    Args:
        max_mb: the largest upload or download, in millions of bytes.
        max_total_mb: all files that visitors gave and that are not deleted yet, in millions of bytes.
        max_files: number of these files.
        max_seconds: how much of a file is used, from its beginning.
        work_seconds: the longest work on one request; it ends between two steps, each of which has limits of its own.
        download_seconds: the longest download of a link.
        queue: visitors who may wait at the same time.
        allow_private: accept links to addresses that are not public, such as this machine's own.
    """

    max_mb: float = 100.0
    max_total_mb: float = 2000.0
    max_files: int = 1000
    max_seconds: float = 600.0
    work_seconds: float = 120.0
    download_seconds: float = 60.0
    queue: int = 16
    allow_private: bool = False

    def __post_init__(self) -> None:
        for name in (
            "max_mb",
            "max_total_mb",
            "max_files",
            "max_seconds",
            "work_seconds",
            "download_seconds",
            "queue",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be a positive number, got {getattr(self, name)!r}.")

    @property
    def max_bytes(self) -> int:
        return int(self.max_mb * 1e6)

    def check_room(self, folder: str | os.PathLike[str], incoming: int = 0) -> None:
        """Refuses a further file where visitors gave as much as is kept at once.

        Args:
            folder: where their files are.
            incoming: bytes that are on their way.

        Raises:
            MediaError: there are too many files, or too large ones.
        """
        sizes = [size for _, size in _files_below(folder)]
        if len(sizes) >= self.max_files or sum(sizes) + incoming > self.max_total_mb * 1e6:
            raise MediaError(
                f"This page keeps {self.max_total_mb:g} MB and {self.max_files} files of its visitors at once, and has no room "
                "for more: try again later. Each is deleted an hour after it was given."
            )


@dataclass(frozen=True)
class Clip:
    """A file that a visitor gave: a copy in the app's own folder, the name to show, and the part of it that is wanted."""

    path: str
    name: str
    part: Part | None = None

    def open(self, part: Part | None = None) -> LocalFile:
        """The file as the package reads it, with fresh limits, and named without its folder; `part` replaces its own."""
        return LocalFile(self.path, self.name, MediaLimits(), part or self.part)


class TimeLimitError(Exception):
    """The work on a request took too long."""


class Deadline:
    """Ends a request that takes too long, between its steps."""

    def __init__(self, seconds: float):
        self.seconds, self.end = seconds, time.monotonic() + seconds

    @property
    def passed(self) -> bool:
        return time.monotonic() > self.end

    def check(self) -> None:
        """Raises a `TimeLimitError` once the time is up."""
        if self.passed:
            raise TimeLimitError(f"This takes longer than the limit of {self.seconds:g} seconds: try a shorter clip.")


_TEMPORARY = re.compile("tmp[a-z0-9_]{8}")
"""Names that Python gives temporary files: `GRADIO_TEMP_DIR` may be a folder that also holds other files."""


def delete_leftovers(folder: str | os.PathLike[str], seconds: float) -> None:
    """Deletes the parts of uploads that were broken off, which Gradio forgets: temporary files of this age right in its folder."""
    for path, _ in _files_below(folder):
        is_part = path.parent == Path(folder) and _TEMPORARY.fullmatch(path.name)
        if is_part and time.time() - path.lstat().st_ctime > seconds:
            path.unlink(missing_ok=True)


def _files_below(folder: str | os.PathLike[str]) -> Iterator[tuple[Path, int]]:
    """The files in a folder and in those below it, and their sizes in bytes."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            with contextlib.suppress(OSError):  # deleted meanwhile
                yield path, path.lstat().st_size


def uploaded(path: str, limits: DemoLimits) -> Clip:
    """The clip of a file that was uploaded or recorded.

    Raises:
        MediaError: it is too large.
    """
    clip = Clip(path, os.path.basename(path))
    if os.path.getsize(path) > limits.max_bytes:
        raise MediaError(f"{clip.name} is larger than the limit of {limits.max_mb:g} MB.")
    return clip


def fetch_link(address: str, limits: DemoLimits, folder: str | os.PathLike[str]) -> Clip:
    """Downloads a link into `folder`, where a file is known by what it holds.

    Raises:
        MediaError: it is no http(s) link, leads to an address that is not public, is too large, takes too long or cannot
            be fetched; or there is no room for it.
    """
    address = address.strip()
    if not re.match("https?://", address, re.IGNORECASE):
        raise MediaError("A link begins with http:// or https://.")
    limits.check_room(folder)
    with open_source(
        address,
        max_bytes=limits.max_bytes,
        max_seconds=limits.download_seconds,
        public_only=not limits.allow_private,
    ) as file:
        with open(file, "rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        limits.check_room(folder, os.path.getsize(file))
        name = Path(urllib.parse.unquote(urllib.parse.urlsplit(address).path)).name
        name = re.sub(r"[^\w.-]+", "_", name)[-80:].lstrip(".") or "clip"
        path = Path(folder, digest, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, path)
        return Clip(str(path), name, file.part)
