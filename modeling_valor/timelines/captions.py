# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""A caption for each segment of a film."""

import itertools
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from ..media_segments import Boundaries, fixed_segments, iterate_segments
from ..media_sources import MediaSource
from ..pipelines import AudiovisualCaptioningPipeline
from ..read_ahead import read_ahead


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

    While the model describes some segments, a thread reads the next ones, `batch_size` at most.

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
    preprocess, forward, _ = pipeline._sanitize_parameters(on_error="skip", **options)
    preprocess, forward = pipeline._preprocess_params | preprocess, pipeline._forward_params | forward
    with closing(read_ahead(_prepared(pipeline, source, boundaries, preprocess), batch_size)) as prepared:
        while batch := list(itertools.islice(prepared, batch_size)):
            spans, samples = zip(*batch, strict=True)
            results = pipeline.forward({"sample": list(samples)}, **forward)["result"]
            for (start, end), result in zip(spans, results, strict=True):
                best: Any = pipeline.postprocess({"result": [result]})[0]
                error = " ".join(best.get("error", "").split()) or None
                yield TimedCaption(start, end, best[pipeline.text_key], best["modalities"], error)


def _prepared(
    pipeline: AudiovisualCaptioningPipeline, source: MediaSource, boundaries: Boundaries, options: Mapping[str, Any]
) -> Generator[tuple[tuple[float, float], dict[str, Any]], None, None]:
    """Start and end of each segment, and what the model takes of it; so little of a film of large frames is held."""
    processor: Any = pipeline.processor
    segments = iterate_segments(
        source,
        boundaries,
        num_frames=options.get("num_frames") or processor.video_processor.num_frames,
        modalities=options.get("modalities") or "av",
        limits=processor.media_limits or processor.video_processor.media_limits,
    )
    for segment in segments:
        yield (segment.start, segment.end), pipeline.preprocess(segment, **options)["sample"]
