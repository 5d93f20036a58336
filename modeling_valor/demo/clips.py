# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Files and links that visitors of the page give, within limits."""

import hashlib
import os
import re
import shutil
import time
import urllib.parse
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
        max_seconds: how much of a file is used, from its beginning.
        work_seconds: the longest work on one request; it ends between two steps, each of which has limits of its own.
        download_seconds: the longest download of a link.
        queue: visitors who may wait at the same time.
        allow_private: accept links to addresses that are not public, such as this machine's own.
    """

    max_mb: float = 100.0
    max_seconds: float = 600.0
    work_seconds: float = 120.0
    download_seconds: float = 60.0
    queue: int = 16
    allow_private: bool = False

    def __post_init__(self) -> None:
        for name in ("max_mb", "max_seconds", "work_seconds", "download_seconds", "queue"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be a positive number, got {getattr(self, name)!r}.")

    @property
    def max_bytes(self) -> int:
        return int(self.max_mb * 1e6)


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
            be fetched.
    """
    address = address.strip()
    if not re.match("https?://", address, re.IGNORECASE):
        raise MediaError("A link begins with http:// or https://.")
    with open_source(
        address,
        max_bytes=limits.max_bytes,
        max_seconds=limits.download_seconds,
        public_only=not limits.allow_private,
    ) as file:
        with open(file, "rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        name = Path(urllib.parse.unquote(urllib.parse.urlsplit(address).path)).name
        name = re.sub(r"[^\w.-]+", "_", name)[-80:].lstrip(".") or "clip"
        path = Path(folder, digest, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, path)
        return Clip(str(path), name, file.part)
