# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Files to token embeddings and to captions as functions of batches, for libraries that map batches on many machines.

A batch is a dict of columns, each a list or an array. One row comes in for each file, and one goes out for each segment;
what cannot be read or computed is a sentence in the column `error`.
"""

import contextlib
import itertools
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import safetensors.torch
import torch
from transformers.utils import logging

from ..data.failures import describe
from ..media_segments import MediaSegment, iterate_segments
from ..modeling_valor_base import to_device
from ..modeling_valor_heads import ValorForCaptioning
from ..pipelines_base import AudiovisualPipeline
from ..processing_valor import ValorProcessor
from ..search.embedding import EmbeddingModel
from ..search.reading import Segmentation, prepare_segment


logger = logging.get_logger(__name__)

Row = dict[str, Any]
Columns = dict[str, list[Any]]
Span = tuple[float, float]

_READ_BY_MEDIA = ("http", "https", "hf", "file", "data", "zip", "tar")


class ValorReader:
    """Reads files into segments as the model takes them, on a machine that needs no accelerator.

    Args:
        model: folder or Hub name of a checkpoint, for its processor.
        segment_seconds: length of a segment.
        stride: seconds from one beginning to the next; by default segments lie end to end.
        segments: "fixed", or "shots", which PySceneDetect finds.
        modalities: what is read of each file, "av", "v" or "a".
        num_frames: frames of each segment, by default those of the checkpoint's processor.
        path: name of the column with paths or addresses.
        batch_size: rows of each batch that is returned, at most.

    Raises:
        ValueError: an option is not what is accepted.
        OSError: there is no such checkpoint.
    """

    def __init__(
        self,
        model: str,
        segment_seconds: float = 10.0,
        stride: float | None = None,
        *,
        segments: str = "fixed",
        modalities: str = "av",
        num_frames: int | None = None,
        path: str = "path",
        batch_size: int = 16,
    ):
        self.path, self.batch_size = path, batch_size
        self.processor = ValorProcessor.from_pretrained(model)
        if segments not in ("fixed", "shots"):
            raise ValueError(f'segments={segments!r} was given; "fixed" and "shots" are accepted.')
        self.segmentation = Segmentation(
            segment_seconds,
            segment_seconds if stride is None else stride,
            segments == "shots",
            modalities,
            self.processor.video_processor.num_frames if num_frames is None else num_frames,
        )

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> Iterator[Columns]:
        """The segments of a batch of files, some at a time, so that a long film fills no memory.

        Args:
            batch: a column of paths; any others are repeated for each segment. With columns `start` and `end` a row is one
                segment of its file, and rows of one file are decoded in one pass if they follow each other. `done` may
                hold segments to pass over, as JSON: `[[0.0, 10.0]]`; if all are done, the last one comes again.

        Returns:
            Batches of the columns of `batch`, with `source` in the place of the path, and `start`, `end` (seconds),
            `file_seconds` (how long the file is), `file_segments` (number of rows that this file has), `inputs` (bytes of
            safetensors, empty where there is nothing) and `error` (empty where there is none).
        """
        rows = self.read(to_rows(batch))
        while chunk := list(itertools.islice(rows, self.batch_size)):
            yield to_columns(chunk)

    def read(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The segments of rows, one by one."""
        counter = itertools.count()

        def file_of(row: Row) -> tuple[int, str]:
            # Segments of one file belong together; whole files are each by themselves, and so is what has an error
            return (-1 if "start" in row and not row.get("error") else next(counter)), str(row[self.path])

        for (_, source), members in itertools.groupby(rows, file_of):
            of_file = [{name: value for name, value in row.items() if name != self.path} for row in members]
            if of_file[0].get("error"):
                yield {**of_file[0], "source": source, "file_seconds": 0.0, "file_segments": 1, "inputs": b""}
            elif "start" in of_file[0]:
                of_file.sort(key=lambda row: (row["end"], row["start"]))
                spans = [(float(row["start"]), float(row["end"])) for row in of_file]
                for row, read in zip(of_file, self._read_file(source, spans), strict=True):
                    yield {**row, "source": source, **read}
            else:
                done = json.loads(of_file[0].pop("done", "[]"))
                for read in self._read_file(source, None, {(start, end) for start, end in done}):
                    yield {**of_file[0], "source": source, **read}

    def spans(self, source: str) -> list[Row]:
        """`start` and `end` of the segments of a file, of which nothing is decoded; a row with the `error` instead."""
        found: list[Span] = []
        try:
            with open_media(source) as media:
                boundaries = self.segmentation.boundaries(media)

                def note(duration: float) -> list[Span]:
                    found.extend(boundaries(duration) if callable(boundaries) else boundaries)
                    return []

                list(iterate_segments(media, note, modalities=self.segmentation.modalities))
        except Exception as error:
            return [{"start": 0.0, "end": 0.0, "error": describe(error)}]
        return [{"start": float(start), "end": float(end), "error": ""} for start, end in found]

    def _read_file(
        self, source: str, spans: Sequence[Span] | None, done: Collection[Span] = frozenset()
    ) -> Iterator[Row]:
        """A row for each segment of a file, or for each of `spans`, also if the file breaks off; one at least."""
        planned: list[Span] = []
        about = {"file_seconds": 0.0}

        def plan(duration: float) -> list[Span]:
            about["file_seconds"] = duration
            found = list(boundaries(duration) if callable(boundaries) else boundaries)
            missing = [span for span in found if (round(span[0], 3), round(span[1], 3)) not in done]
            planned.extend(sorted(missing or found[-1:], key=lambda span: (span[1], span[0])))
            return planned

        count = 0
        try:
            with open_media(source) as media:
                boundaries = self.segmentation.boundaries(media) if spans is None else spans
                for segment in iterate_segments(
                    media,
                    plan,
                    num_frames=self.segmentation.num_frames,
                    modalities=self.segmentation.modalities,
                    threads=1,
                ):
                    yield {**about, "file_segments": len(planned), **self._row(segment)}
                    count += 1
            return
        except Exception as error:  # one file less, not the end of a long run
            reason = describe(error)
        for start, end in planned[count:] or spans or [(0.0, 0.0)]:
            yield {
                **about,
                "file_segments": max(1, len(planned)),
                "start": float(start),
                "end": float(end),
                "inputs": b"",
                "error": reason,
            }

    def _row(self, segment: MediaSegment) -> Row:
        row: Row = {"start": segment.start, "end": segment.end, "inputs": b"", "error": segment.error or ""}
        if segment.error is None and (segment.frames is not None or segment.audio is not None):
            try:
                inputs, times = prepare_segment(self.processor, self.segmentation, segment)
            except Exception as error:
                return {**row, "error": describe(error)}
            tensors = {f"times.{letter}": torch.from_numpy(np.asarray(times[letter])) for letter in times}
            tensors |= {f"inputs.{name}": value.contiguous() for name, value in inputs.items()}
            row["inputs"] = safetensors.torch.save(tensors)
        return row


class _SegmentModel:
    """What [`ValorEmbedder`] and [`ValorCaptioner`] share: rows in, those that can be read through the model, rows out."""

    empty: Row
    """Columns of a row of which nothing can be computed."""

    def __init__(self, model: str, batch_size: int, reader_options: Mapping[str, Any]):
        self.batch_size, self.reader = batch_size, ValorReader(model, **reader_options)
        self.processor = self.reader.processor

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> Columns:
        rows = iter(to_rows(batch)) if "inputs" in batch else self.reader.read(to_rows(batch))
        results: list[Row] = []
        while chunk := list(itertools.islice(rows, self.batch_size)):
            results += self._compute_rows(chunk)
        return to_columns(results)

    def compute(self, inputs: Mapping[str, torch.Tensor], times: Mapping[str, list[Any]]) -> list[Row]:
        """The columns of each row of a batch."""
        raise NotImplementedError

    def _compute_rows(self, rows: Sequence[Row]) -> list[Row]:
        inputs = [row.pop("inputs") for row in rows]
        results = [{**row, **self.empty} for row in rows]
        usable = [place for place, content in enumerate(inputs) if content]
        for place, columns in zip(usable, self._attempt([inputs[place] for place in usable]), strict=True):
            results[place].update(columns)
        return results

    def _attempt(self, contents: Sequence[bytes]) -> list[Row]:
        """Computes all at once; where that fails, such as for lack of memory, each by itself."""
        if not contents:
            return []
        try:
            tensors = [safetensors.torch.load(content) for content in contents]
            inputs = self.processor.pad([_named(part, "inputs.") for part in tensors])
            times = {
                letter: [part.get(f"times.{letter}", torch.empty(0)).numpy() for part in tensors] for letter in "va"
            }
            return self.compute(inputs, times)
        except torch.AcceleratorError:  # the device does not compute any more
            raise
        except Exception as error:
            if len(contents) == 1:
                return [{"error": describe(error)}]
            logger.warning_once(
                f"A batch of {len(contents)} segments failed ({error}); its segments are computed alone."
            )
        return [row for content in contents for row in self._attempt([content])]


class ValorEmbedder(_SegmentModel):
    """Token embeddings of files: paths in, segments out. A callable for `map_batches` of Ray Data, for Daft, `datasets.map`.

    Args:
        model: folder or Hub name of a checkpoint with fine alignment.
        batch_size: segments that go through the model together.
        device, dtype: where and in which type it computes; by default an accelerator if there is one, and the type of
            the checkpoint.
        reader_options: those of [`ValorReader`]; of no use for batches that come from one.

    ```python
    >>> embed = ValorEmbedder("hub_configs/valor-tiny", segment_seconds=5.0)
    >>> embed({"path": ["clip.mp4"]})["start"]
    [0.0, 5.0]
    ```
    """

    def __init__(
        self,
        model: str,
        *,
        batch_size: int = 16,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        **reader_options: Any,
    ):
        super().__init__(model, batch_size, reader_options)
        self.model = EmbeddingModel(model, self.processor, device, dtype)
        self.revision = self.model.revision  # loads the weights
        width = self.model.config.projection_dim
        self.empty = {
            "modalities": "",
            "revision": self.revision,
            "token_modalities": "",
            "token_times": np.zeros(0, np.float32),
            "token_weights": np.zeros(0, np.float32),
            "token_embeds": np.zeros((0, width), np.float16),
        }

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> Columns:
        """Embeds the segments of files, or those that a [`ValorReader`] has read.

        Args:
            batch: as for [`ValorReader`], or what it returns.

        Returns:
            A row for each segment: the columns of [`ValorReader`] without `inputs`, `modalities` ("va", "v", "a", or ""
            where nothing could be embedded), `revision` (hash of the weights), and of its N tokens `token_modalities` (N
            letters), `token_times` (N,) in seconds, `token_weights` (N,) and `token_embeds` (N, C), float16, as in
            [`SegmentTokens`].
        """
        return super().__call__(batch)

    def compute(self, inputs: Mapping[str, torch.Tensor], times: Mapping[str, list[Any]]) -> list[Row]:
        rows = []
        for tokens in self.model.embed(inputs, times):
            rows.append(
                {}
                if tokens is None
                else {
                    "modalities": "".join(dict.fromkeys(tokens.modalities)),
                    "token_modalities": tokens.modalities,
                    "token_times": tokens.times,
                    "token_weights": tokens.weights,
                    "token_embeds": tokens.embeds,
                }
            )
        return rows


class ValorCaptioner(_SegmentModel):
    """Captions of files: paths in, segments out. A callable for `map_batches` of Ray Data, for Daft, `datasets.map`.

    Args:
        model: folder or Hub name of a checkpoint with a decoder.
        batch_size: segments that go through the model together.
        device, dtype: as for [`ValorEmbedder`].
        generate_kwargs: arguments of `generate`, such as `num_beams`.
        reader_options: those of [`ValorReader`].
    """

    empty = {"modalities": "", "caption": ""}

    def __init__(
        self,
        model: str,
        *,
        batch_size: int = 16,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        generate_kwargs: Mapping[str, Any] | None = None,
        **reader_options: Any,
    ):
        super().__init__(model, batch_size, reader_options)
        device = device or torch.accelerator.current_accelerator(check_available=True) or "cpu"
        self.model = ValorForCaptioning.from_pretrained(model).to(device=device, dtype=dtype).eval()
        self.generate_kwargs = dict(generate_kwargs or {})

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> Columns:
        """Captions the segments of files, or those that a [`ValorReader`] has read.

        Args:
            batch: as for [`ValorReader`], or what it returns.

        Returns:
            A row for each segment: the columns of [`ValorReader`] without `inputs`, `modalities` ("av", "v" or "a": what
            the caption was made from) and `caption`; both are empty where there is none.
        """
        return super().__call__(batch)

    def compute(self, inputs: Mapping[str, torch.Tensor], times: Mapping[str, list[Any]]) -> list[Row]:
        count = len(times["v"])
        modalities = AudiovisualPipeline.modalities_of(dict(inputs), count)
        weight = next(self.model.parameters())
        with torch.no_grad():
            ids = self.model.generate(**to_device(inputs, weight.device, weight.dtype), **self.generate_kwargs)
        captions = self.processor.post_process_generation(ids)
        return [{"modalities": own, "caption": text} for own, text in zip(modalities, captions, strict=True)]


class CaptionRows(ValorCaptioner):
    """Captions of segments that have an `id`, without the columns that a table of captions has no use for."""

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> Columns:
        captioned = super().__call__(batch)
        names = ("id", "source", "start", "end", "modalities", "caption", "error")
        return {name: captioned[name] for name in names}


@contextlib.contextmanager
def open_media(source: str) -> Iterator[Any]:
    """What the decoders take: a path or an address as it is, the file in another store (`s3://`, `gs://`) opened."""
    scheme, is_address, _ = source.partition("://")
    if not is_address or scheme.lower() in _READ_BY_MEDIA:
        yield source
        return
    import fsspec

    with fsspec.open(source, "rb") as file:
        yield file


def to_rows(batch: Mapping[str, Sequence[Any]]) -> list[Row]:
    """The rows of a dict of columns."""
    return [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]


def to_columns(rows: Sequence[Row]) -> Columns:
    """The columns of rows that all have the same names."""
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def _named(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
