# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What may be spent on a file, the one exception type for what cannot be read, and the warning for what is damaged."""

import contextlib
import dataclasses
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast


class MediaError(ValueError):
    """A file that cannot be used: one sentence that names it and says why."""


class NoVideoError(MediaError):
    """A sound file given as a video; `read_audio` may still read it."""


class DamagedMediaWarning(UserWarning):
    """A file that can be read only in part, and is used as far as it goes; the message names it and says why."""


_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line and direction marks, and bytes of names that are not UTF-8."""


def printable(text: str) -> str:
    """One line of text, cut if it is very long, that cannot change how a terminal shows it."""
    text = _UNPRINTABLE.sub(lambda found: repr(found[0])[1:-1], text)
    return text if len(text) <= 1000 else f"{text[:100]}...{text[-200:]}"


def reason(error: BaseException) -> str:
    """An exception's message as part of a sentence."""
    text = getattr(error, "strerror", None) or str(error).strip().split("\n")[0] or type(error).__name__
    return printable(text.rstrip("."))


@dataclass(frozen=True)
class MediaLimits:
    """How much may be spent on a source, and which sources are accepted.

    Args:
        timeout: seconds to wait for a connection and for each piece of a download.
        max_bytes: the largest download, `data:` URL or file object.
        max_seconds: the longest download, from the request on.
        public_only: for services that are given sources by strangers: accept URLs of public addresses (also after a
            redirect) and content (bytes, file objects, `data:` URLs), but no private addresses, paths or archives.
        private_hosts: hosts, `name` or `name:port`, that are accepted although their addresses are not public.
        read_seconds: the longest time for opening a file and searching through it, beyond the decoding that is asked
            for; a large file has a second more for each 50 MB.
        read_bytes: the most memory for the pictures of one file, as they are decoded.
    """

    timeout: float = 30.0
    max_bytes: int = 2 * 1024**3
    max_seconds: float = 600.0
    public_only: bool = False
    private_hosts: tuple[str, ...] = ()
    read_seconds: float = 5.0
    read_bytes: int = 500_000_000

    @classmethod
    def of(cls, limits: "MediaLimits | Mapping[str, Any] | None") -> "MediaLimits":
        """Limits out of a mapping of those that differ from the defaults, as a processor's configuration has them.

        Raises:
            ValueError: a name that is no limit, or a value that is not positive.
        """
        if isinstance(limits, MediaLimits):
            return limits
        fields = {field.name: field.default for field in dataclasses.fields(cls)}
        for name, value in (limits or {}).items():
            if name not in fields:
                raise ValueError(f"`media_limits` has {name!r}, but there is only {', '.join(fields)}.")
            if name == "private_hosts":
                if not isinstance(value, (list, tuple)) or not all(isinstance(host, str) for host in value):
                    raise ValueError(
                        f"`media_limits` has {value!r} for {name!r}, which must be a list of names of hosts."
                    )
                continue
            is_switch = isinstance(fields[name], bool)
            if isinstance(value, bool) != is_switch or not (
                is_switch or (isinstance(value, (int, float)) and value > 0)
            ):
                accepted = "true or false" if is_switch else "a positive number"
                raise ValueError(f"`media_limits` has {value!r} for {name!r}, which must be {accepted}.")
        return cls(**(limits or {}))

    @classmethod
    def checked(cls, limits: "MediaLimits | Mapping[str, Any] | None") -> dict[str, Any] | None:
        """Limits as a processor's configuration has them, after the check of `of`."""
        cls.of(limits)
        if isinstance(limits, MediaLimits):
            return dataclasses.asdict(limits)
        return cast("dict[str, Any] | None", limits)


class Budget:
    """What is left of the time and memory of one file, for all that is read of it.

    Beyond `read_seconds`, a large file has a second for each 50 MB, in which a slow disk reads them.
    """

    def __init__(self, name: str, limits: MediaLimits, size: int = 0):
        self.name, self.limits = name, limits
        self.size, self.seconds = size, limits.read_seconds + size / 5e7
        self._spent = 0.0
        self._since: float | None = None

    def allow_a_whole_pass(self) -> None:
        """Gives ten times the time, for a file of which everything is read."""
        self.seconds = 10 * (self.limits.read_seconds + self.size / 5e7)

    @property
    def seconds_left(self) -> float:
        """At least a millisecond, as FFmpeg takes 0 for no limit."""
        running = 0.0 if self._since is None else time.monotonic() - self._since
        return max(self.seconds - self._spent - running, 1e-3)

    def check_time(self) -> None:
        """Checks that there is time left.

        Raises:
            MediaError: the time is used up.
        """
        if self.seconds_left <= 1e-3:
            raise MediaError(
                f"{self.name} takes longer than the limit of {round(self.seconds, 1):g} seconds to open and search through."
            )

    @contextlib.contextmanager
    def charged(self) -> Iterator[None]:
        """Counts the time of a `with` block in which nothing is decoded that was asked for.

        Raises:
            MediaError: the time is used up, whatever the block raises in consequence.
        """
        if self._since is not None:  # what is around this block counts it
            yield
            return
        self._since = since = time.monotonic()
        try:
            yield
        except Exception:
            self._stop(since)
            raise
        self._stop(since)

    def _stop(self, since: float) -> None:
        self._spent += time.monotonic() - since
        self._since = None
        self.check_time()

    def check_memory(self, size: int, what: str) -> None:
        """Refuses what would need `size` bytes, before they are taken.

        Raises:
            MediaError: they are more than the limit.
        """
        if size > self.limits.read_bytes:
            raise MediaError(
                f"{self.name} needs {size / 1e6:,.0f} MB for {what}, more than the limit of "
                f"{self.limits.read_bytes / 1e6:,.0f} MB (`read_bytes`)."
            )


def budget_of(path: str, name: str) -> Budget:
    """The budget of a `LocalFile`, or a new one for any other path."""
    return getattr(path, "budget", None) or Budget(name, MediaLimits())
