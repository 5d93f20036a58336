# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What of a video track, or of a row of pictures, lies between two moments."""

import dataclasses
import math
from bisect import bisect_left
from collections.abc import Sequence

from .media_container import BEYOND_THE_END, Track, open_container
from .media_limits import MediaError, NoVideoError, budget_of
from .media_sources import LocalFile
from .media_tracks import Clock, file_clock, part_bounds


_EARLY = 1e-3
"""A frame may begin so many seconds before a part and belong to it: some containers round times to milliseconds."""


def cut(track: Track, begin: float, end: float) -> Track | None:
    """What of a video track lies between two moments, as a track of its own; None where it has no picture there.

    A frame belongs to the part in which it begins, as where FFmpeg cuts. One that began before and stays on the screen
    for much longer than frames do, such as a slide, belongs to it as well. The result says which frames to choose; they
    are read with the whole track.
    """
    if end <= track.start + _EARLY or begin >= track.end:
        return None
    if begin <= track.start and end >= track.end:
        return track
    begin, end = max(begin, track.start), min(end, track.end)
    known = track.stamps or _stamps_around(track, begin, end)
    places = range(len(known) or track.num_frames)
    patience = min(2 * track.step, 1.0)

    def stamp(place: int) -> float:
        return known[place] if known else track.start + place * track.step

    def next_frame(place: int, moment: float) -> float | None:
        """When the next frame begins, or the track ends, if that is soon after a moment."""
        following = stamp(place) if place < len(places) else track.end
        return following if following - moment <= patience else None

    first, last = (bisect_left(places, moment - _EARLY, key=stamp) for moment in (begin, end))
    start = begin if first == 0 else next_frame(first, begin) if first < last else None
    stop = next_frame(last, end) if first < last else None
    own = known[first - (start is None) : last]
    start, stop = begin if start is None else start, end if stop is None else stop
    return dataclasses.replace(
        track,
        start=start,
        end=stop,
        num_frames=max(len(own) if known else round((stop - start) / track.step), 1),
        stamps=own,
    )


def wanted_part(path: LocalFile, track: Track) -> Track:
    """What of a video track the source names: all of it, or the frames of a part of the file.

    Raises:
        NoVideoError: the part has sound only.
        MediaError: the part begins after the end of the file.
    """
    if path.part is None:
        return track
    part = cut(track, *part_bounds(path, file_clock(path, video=track)))
    if part is None:
        raise NoVideoError(
            f"{path.name} has no picture, only sound: the video of the file begins later or ends before."
        )
    return part


def nearest_inside(part: Track, times: Sequence[float]) -> list[int] | None:
    """For each frame, shown at these times, the nearest one that is of the part; None where none is.

    Frames that cannot be decoded are replaced by others on the screen around that time, which may be of other parts.
    """
    earliest = (part.stamps[0] if part.stamps else part.start - part.step) - _EARLY
    inside = [place for place, time in enumerate(times) if earliest <= time < part.end]
    return [min(inside, key=lambda other: abs(times[other] - time)) for time in times] if inside else None


def _stamps_around(track: Track, begin: float, end: float) -> tuple[float, ...]:
    """When frames are shown, from one that is shown at `begin` to one after `end`, of a track that was not surveyed whole.

    None where the packets do not say so.
    """
    if track.entries or track.timing not in ("pts", "dts"):
        return ()
    budget = budget_of(track.path, track.name)
    with budget.charged(), open_container(track.path, track.name) as container:
        stream = container.streams[track.index]
        tick = float(stream.time_base or 0)
        container.seek(BEYOND_THE_END, stream=stream)  # loads the index of key frames, which Matroska keeps at the end
        for back in (0, 1, 5, 21, 85, 341, math.inf):
            place = max(begin - back, track.start)
            container.seek(math.floor(place / tick), stream=stream)
            stamps = []
            for packet in container.demux(stream):
                budget.check_time()
                decoded = packet.dts if packet.dts is not None or not packet.is_keyframe else packet.pts
                if decoded is not None and decoded * tick > end + 2:
                    break
                stamp = packet.dts if track.timing == "dts" else packet.pts
                if packet.size and not packet.is_discard and stamp is not None:
                    stamps.append(stamp * tick)
            stamps.sort()
            if stamps and (stamps[0] <= begin or place <= track.start):
                return tuple(stamps)
    return ()


def cut_pictures(path: LocalFile, available: int, step: float, begin: float = 0.0, end: float = math.inf) -> range:
    """Which of a file's pictures, `step` seconds apart, are of the part between two moments of what the source names.

    Raises:
        MediaError: the source names a part, and the file is a still image or ends before it begins.
    """
    clock = Clock(0.0, available * step)
    if path.part is not None and available == 1:
        raise MediaError(f"{path.name} is a still image, which has no parts in time.")
    start, stop = part_bounds(path, clock)
    first, last = (math.ceil((moment - _EARLY) / step) for moment in (start + begin, min(start + end, stop)))
    first = min(first, available - 1)
    return range(first, max(last, first + 1))
