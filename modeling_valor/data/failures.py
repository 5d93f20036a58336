# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Samples that could not be read are counted and named; too many of them are an error. Training, extraction and evaluation
use the same rule.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from ..media import MediaError
from ..media_limits import reason
from .samples import RecordError, printable


MAX_FAILURES = 0.05
"""Default of the tolerated share of unreadable samples."""

T = TypeVar("T")


class TooManyFailures(RuntimeError):
    """More samples than are tolerated could not be read."""


@dataclass(frozen=True)
class Failure:
    """A sample that could not be read, and why."""

    id: str
    reason: str


def attempt(name: str, read: Callable[[], T]) -> T | Failure:
    """The result of `read()`, or the failure of the sample `name` if `read` raises any exception."""
    try:
        return read()
    except Exception as error:
        return Failure(printable(str(name)), describe(error))


def describe(error: Exception) -> str:
    """An exception in one sentence, with the name of its class unless it is one of this package."""
    if isinstance(error, (MediaError, RecordError)):
        return printable(str(error))
    return printable(f"it cannot be read ({type(error).__name__}: {reason(error)}).")


@dataclass
class FailureLog:
    """Counts samples that could not be read, and raises an error if they are too many.

    Args:
        max_share: tolerated share of failures among all samples.
        total: number of all samples; None: unknown, so the share is that of the samples read so far.
        patience: if `total` is unknown, number of samples to read before the share is checked.
        consequence: what happens to the failures, a phrase for `report`.
    """

    max_share: float = MAX_FAILURES
    total: int | None = None
    patience: int = 100
    consequence: str = "and were left out"
    read: int = 0
    failures: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.max_share <= 1:
            raise ValueError(f"`max_failures` is a share from 0 to 1, got {self.max_share}.")

    def update(self, num_read: int, failures: Iterable[Failure] = ()) -> None:
        """Counts samples that were tried (`num_read` includes the failures).

        Raises:
            TooManyFailures: more than `max_share` of the samples could not be read.
        """
        self.read += num_read
        self.failures.update((failure.id, failure.reason) for failure in failures)
        self.check()

    def check(self) -> None:
        """Raises `TooManyFailures` if more than `max_share` of the samples could not be read."""
        total = max(self.read, self.patience) if self.total is None else self.total
        if len(self.failures) > self.max_share * total:
            raise TooManyFailures(
                f"{self._counts()}, more than the {self.max_share:.0%} that `max_failures` tolerates: "
                f"{summary(self.failures)}."
            )

    def report(self) -> str:
        """Number of failures and their reasons, in one line."""
        if not self.failures:
            return "All samples could be read."
        return f"{self._counts()} {self.consequence}: {summary(self.failures)}."

    def _counts(self) -> str:
        total = self.read if self.total is None else self.total
        return f"{len(self.failures)} of {total} samples could not be read"


def summary(failures: Mapping[str, str], most: int = 10) -> str:
    """Names and reasons of the first failures; a reason that several share is listed once."""
    reasons = Counter(failures.values())
    names: dict[str, str] = {}
    for name, why in failures.items():
        names.setdefault(why, name)
    parts = [
        f"{names[why]} ({why.rstrip('.')})" if count == 1 else f"{count} x {why.rstrip('.')}, such as {names[why]}"
        for why, count in reasons.most_common(most)
    ]
    others = len(reasons) - len(parts)
    return "; ".join(parts) + (f"; and {others} other reasons" if others > 0 else "")
