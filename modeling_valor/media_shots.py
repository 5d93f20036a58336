# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The shots of a film, by PySceneDetect."""

import contextlib
import itertools
import math
import os
from collections.abc import Mapping
from typing import Any

from .media_images import animation, open_image
from .media_limits import MediaLimits
from .media_parts import cut_pictures, wanted_part
from .media_sources import LocalFile, MediaSource, list_frame_files, open_source
from .media_tracks import file_clock, part_bounds, video_track
from .media_video import Cursor


_WIDTH = 256
"""Width of the pictures that are compared; PySceneDetect's own."""


def shot_segments(
    source: MediaSource,
    *,
    min_seconds: float = 1.0,
    max_seconds: float = 30.0,
    limits: MediaLimits | Mapping[str, Any] | None = None,
    threads: int = 0,
) -> list[tuple[float, float]]:
    """The shots of a film as segments for [`iterate_segments`], from its beginning to its end; the film is decoded once.

    Cuts are where PySceneDetect's `AdaptiveDetector` finds them with its own thresholds. Animations and folders of frames
    are one shot.

    Args:
        min_seconds: the shortest shot.
        max_seconds: longer shots are divided into equal segments that are not longer.
        limits: as in [`open_source`].
        threads: of the decoder; by default as many as FFmpeg chooses.

    Raises:
        NoVideoError: the file holds only sound.
        MediaError: the file cannot be read.
        ImportError: PySceneDetect is not installed.
        ValueError: the lengths are not positive.
    """
    if not 0 < min_seconds < math.inf or not max_seconds >= min_seconds:
        raise ValueError(f"Shots from {min_seconds!r} to {max_seconds!r} seconds cannot be found.")
    with open_source(source, limits) as path:
        path.budget.allow_a_whole_pass()
        duration, cuts = _cuts(path, min_seconds, threads)
    edges = [0.0, *(time for time in cuts if 0 < time < duration), duration]
    segments = []
    for start, end in itertools.pairwise(edges):
        count = max(math.ceil((end - start) / max_seconds - 1e-6), 1)
        step = (end - start) / count
        segments += [(start + place * step, start + (place + 1) * step) for place in range(count)]
    return segments


def _cuts(path: LocalFile, min_seconds: float, threads: int) -> tuple[float, list[float]]:
    """The duration of what the source names, and where it is cut, in seconds from its beginning."""
    try:
        from scenedetect import AdaptiveDetector, FrameTimecode
    except ImportError as error:
        raise ImportError('Segments by shots need PySceneDetect: `pip install "modeling-valor[shots]"`.') from error
    if (duration := _duration_of_pictures(path)) is not None:
        return duration, []
    with video_track(path, head=32, thorough=True) as track:
        begin, end = part_bounds(path, file_clock(path, video=track))
        part, rate = wanted_part(path, track), 1 / track.step
        detector, cuts = AdaptiveDetector(min_scene_len=min_seconds), []
        times: list[float] = []
        with contextlib.closing(Cursor(track.container, track, threads)) as cursor:
            for time, frame in cursor.frames_from(part.start):
                if time >= part.end:
                    break
                height = max(round(_WIDTH * frame.height / frame.width), 1)
                picture = frame.reformat(_WIDTH, height, "bgr24", threads=1).to_ndarray()
                cuts += detector.process_frame(FrameTimecode(len(times), rate), picture)
                times.append(time)
            cuts += detector.post_process(FrameTimecode(len(times), rate))
    return end - begin, [times[cut.frame_num] - begin for cut in cuts if cut.frame_num < len(times)]


def _duration_of_pictures(path: LocalFile) -> float | None:
    """The duration of an animation, or of a folder of frames; None for films."""
    if os.path.isdir(path):
        return float(len(cut_pictures(path, len(list_frame_files(path)), 1.0)))
    if (image := open_image(path, path.name)) is None:
        return None
    with image:
        available, step = animation(path, image)
        return len(cut_pictures(path, available, step)) * step if available > 1 else 0.0
