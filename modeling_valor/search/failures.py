# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What could not be read while files are added: noted in a report, and said above a progress bar, each stretch once."""

from dataclasses import dataclass
from typing import Any

from transformers.utils import logging

from .reading import BrokenSegment


logger = logging.get_logger(__name__)


@dataclass
class _Stretch:
    """Broken segments of a file that follow each other."""

    first: BrokenSegment
    last: BrokenSegment
    count: int = 1


class FailureLog:
    """Notes failures in `failures`, by the names of files or parts of them, and logs them above the progress bar `bar`."""

    def __init__(self, failures: dict[str, str], bar: Any):
        self.failures, self.bar = failures, bar
        self._stretches: dict[str, _Stretch] = {}

    def add_file(self, source: str, reason: str) -> None:
        """A file that cannot be used."""
        self._add(source, source, reason)

    def add_segment(self, source: str, segment: BrokenSegment) -> None:
        """A segment that cannot be used, which is said by `end_stretch`, together with those that follow it."""
        stretch = self._stretches.setdefault(source, _Stretch(segment, segment, 0))
        stretch.last = segment
        stretch.count += 1

    def end_stretch(self, source: str) -> None:
        """No broken segment follows: the file goes on, or has ended."""
        stretch = self._stretches.pop(source, None)
        if stretch is None:
            return
        start, end = stretch.first.start, stretch.last.end
        reason = stretch.first.reason
        if stretch.count > 1:
            reason = (
                f"{stretch.count:,} segments of {source}, from {start:.2f} to {end:.2f} seconds, cannot be used; of the first: "
                f"{reason}"
            )
        self._add(f"{source}#t={start:.2f},{end:.2f}", source, reason)

    def _add(self, name: str, source: str, reason: str) -> None:
        self.failures[name] = reason
        with self.bar.external_write_mode():
            logger.warning(reason if source in reason else f"{name}: {reason}")
