# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""A caption for each segment of a film."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..media_segments import Boundaries, MediaSegment, fixed_segments, iterate_segments
from ..media_sources import MediaSource
from ..pipelines import AudiovisualCaptioningPipeline


@dataclass(frozen=True)
class TimedCaption:
    """What happens from `start` to `end`, in seconds of the file's clock.

    `modalities` are what the text was made from, "av", "v" or "a". Where a segment cannot be described, `text` is None and
    `error` says why, in one sentence.
    """

    start: float
    end: float
    text: str | None
    modalities: str = ""
    error: str | None = None


def caption_timeline(
    pipeline: AudiovisualCaptioningPipeline,
    source: MediaSource,
    boundaries: Boundaries = fixed_segments,
    *,
    batch_size: int = 8,
    **options: Any,
) -> Iterator[TimedCaption]:
    """Captions of the segments of a film or sound file, in their order, as they are made; the file is decoded once.

    ```python
    >>> captioner = pipeline("audiovisual-captioning", model="casia/valor-l")
    >>> for caption in caption_timeline(captioner, "film.mp4"):
    ...     print(caption.start, caption.text)
    ```

    Args:
        boundaries: of the segments, as [`iterate_segments`] takes them: by default ten seconds each.
        batch_size: segments that go through the model together.
        options: as the pipeline takes them: `modalities`, `num_frames`, `num_beams`, `max_new_tokens` and others.

    Raises:
        MediaError: the file cannot be read at all. A stretch that cannot be read costs its segments only.
    """
    processor: Any = pipeline.processor
    limits = processor.media_limits or processor.video_processor.media_limits
    segments = iterate_segments(
        source,
        boundaries,
        num_frames=options.get("num_frames") or processor.video_processor.num_frames,
        modalities=options.get("modalities") or "av",
        limits=limits,
    )
    spans: deque[tuple[float, float]] = deque()

    def noted() -> Iterator[MediaSegment]:
        for segment in segments:
            spans.append((segment.start, segment.end))
            yield segment

    results: Any = pipeline(noted(), batch_size=batch_size, num_workers=0, on_error="skip", **options)
    for best, *_ in results:
        yield TimedCaption(
            *spans.popleft(),
            best[pipeline.text_key],
            best["modalities"],
            " ".join(best.get("error", "").split()) or None,
        )
