# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Media fragments: `clip.mp4#t=30,40` is the part of a file from second 30 to second 40 (W3C Media Fragments URI 1.0)."""

import math
import re
import urllib.parse
from typing import NamedTuple

from .media_limits import MediaError


class Part(NamedTuple):
    """A part of a file, in seconds from where its first track begins; an infinite `end` is that of the file."""

    start: float
    end: float


_FRAGMENT = re.compile(r"#(?:[^#&]*&)*t=[^#]*\Z")
_TIME = re.compile(
    r"(?:(?:(?P<hours>\d{1,9}):)?(?P<minutes>[0-5]?\d):(?=[0-5]\d(?:\.|\Z)))?(?P<seconds>\d{1,9}(?:\.\d*)?)",
    re.ASCII,
)


def split_fragment(address: str) -> tuple[str, str]:
    """An address without its temporal fragment, and the fragment, from its `#` on; empty where there is none.

    Other fragments, and names with a `#` in them, are left as they are.
    """
    found = _FRAGMENT.search(address)
    return (address, "") if found is None else (address[: found.start()], found[0])


def parse_fragment(fragment: str, name: str) -> Part:
    """The part that a fragment names: `#t=30,40`, `#t=30` (to the end) or `#t=,10` (from the beginning).

    A time is in seconds (`90.5`) or has minutes and hours (`1:30.5`, `0:01:30.5`), with or without `npt:` before it.

    Args:
        name: what to call the source in messages.

    Raises:
        MediaError: the fragment names no part of positive length.
    """
    values = [pair[2:] for pair in fragment[1:].split("&") if pair.startswith("t=")]
    text = urllib.parse.unquote(values[-1])  # of several, the last one counts
    first, _, last = text.removeprefix("npt:").partition(",")
    start = _seconds(first) if first else 0.0
    end = _seconds(last) if last else math.inf
    if start is None or end is None or not (first or last):
        raise MediaError(
            f"{name} has a fragment that names no part of a file: write seconds, such as #t=30,40, #t=30 (to the end) or #t=,40, "
            "or #t=0:01:30,0:01:40."
        )
    if end <= start:
        raise MediaError(f"{name} names a part that ends before it begins, or is empty.")
    return Part(start, end)


def _seconds(text: str) -> float | None:
    """The seconds that a time is, as W3C's "npt" writes it; None for any other text."""
    if (time := _TIME.fullmatch(text)) is None:
        return None
    return 3600 * int(time["hours"] or 0) + 60 * int(time["minutes"] or 0) + float(time["seconds"])
