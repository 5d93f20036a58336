# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Token embeddings of media as a file, for those who bring their own search engine: Parquet or safetensors."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from transformers.utils import logging

from ..data.files import atomic_write, check_not_input
from .adding import AddReport, Plan, add_items
from .backend import Backend
from .embedding import EmbeddingModel
from .reading import Segmentation
from .segments import EmbeddedSegment, IndexedFile
from .sources import Source, list_items


logger = logging.get_logger(__name__)


class TokenWriter(Protocol):
    """Takes segments as a [`Backend`] does."""

    def write(self, segments: Sequence[EmbeddedSegment], files: Sequence[IndexedFile] = ()) -> None: ...

    def close(self) -> None: ...


class ParquetWriter:
    """A row for each token: source, start, end, modality, time, weight, embedding (fixed-size list of float16).

    Rows are written as they come. `about` (model, weights, width) is the file's metadata.
    """

    def __init__(self, path: Path, about: dict[str, Any]):
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.embedding = pa.list_(pa.float16(), about["width"])
        columns = {"source": pa.string(), "start": pa.float64(), "end": pa.float64(), "modality": pa.string()}
        columns |= {"time": pa.float32(), "weight": pa.float32(), "embedding": self.embedding}
        self.schema = pa.schema(columns, metadata={"modeling_valor": json.dumps(about)})
        self.writer = pq.ParquetWriter(path, self.schema)

    def write(self, segments: Sequence[EmbeddedSegment], files: Sequence[IndexedFile] = ()) -> None:
        import pyarrow as pa

        for item in segments:
            tokens, count = item.tokens, len(item.tokens.modalities)
            embeds = pa.array(np.ascontiguousarray(tokens.embeds, dtype=np.float16).reshape(-1))
            columns = [
                pa.array([item.segment.source] * count),
                pa.array([item.segment.start] * count, pa.float64()),
                pa.array([item.segment.end] * count, pa.float64()),
                pa.array(list(tokens.modalities)),
                pa.array(np.asarray(tokens.times, dtype=np.float32)),
                pa.array(np.asarray(tokens.weights, dtype=np.float32)),
                pa.FixedSizeListArray.from_arrays(embeds, type=self.embedding),
            ]
            self.writer.write_table(pa.Table.from_arrays(columns, schema=self.schema))

    def close(self) -> None:
        self.writer.close()


class SafetensorsWriter:
    """Tensors `embeds` (N, C) float16, `weights` and `times` (N,) float32, `modalities` (N,) uint8, `segments` (N,) int64.

    A modality is the letter's code, 118 for "v" and 97 for "a"; `segments` are places in the list `segments` of the
    metadata, JSON of source, start and end. All is held in memory until the end.
    """

    def __init__(self, path: Path, about: dict[str, Any]):
        self.path, self.about = path, about
        self.items: list[EmbeddedSegment] = []

    def write(self, segments: Sequence[EmbeddedSegment], files: Sequence[IndexedFile] = ()) -> None:
        self.items += segments

    def close(self) -> None:
        from safetensors.numpy import save_file

        tokens = [item.tokens for item in self.items]
        counts = [len(own.modalities) for own in tokens]
        empty = np.zeros((0, self.about["width"]), dtype=np.float16)
        letters = "".join(own.modalities for own in tokens)
        tensors = {
            "embeds": np.concatenate([empty, *(own.embeds.astype(np.float16) for own in tokens)]),
            "weights": np.concatenate([empty[:, 0], *(own.weights for own in tokens)]).astype(np.float32),
            "times": np.concatenate([empty[:, 0], *(own.times for own in tokens)]).astype(np.float32),
            "modalities": np.frombuffer(letters.encode(), dtype=np.uint8),
            "segments": np.repeat(np.arange(len(tokens), dtype=np.int64), counts),
        }
        segments = [
            {"source": item.segment.source, "start": item.segment.start, "end": item.segment.end}
            for item in self.items
        ]
        metadata = {"segments": json.dumps(segments), "modeling_valor": json.dumps(self.about)}
        self.path.touch()
        mode = self.path.stat().st_mode
        save_file(tensors, self.path, metadata)
        self.path.chmod(mode)  # safetensors writes files that only their owner can read


WRITERS: dict[str, Callable[[Path, dict[str, Any]], TokenWriter]] = {
    ".parquet": ParquetWriter,
    ".safetensors": SafetensorsWriter,
}


def check_output(path: str | os.PathLike[str]) -> None:
    """Checks that token embeddings can be written to a file.

    Raises:
        ValueError: its name has an ending that stands for no format, or it is a folder.
        OSError: its folder is not there or cannot be written.
    """
    path = Path(path)
    if path.suffix not in WRITERS or path.is_dir():
        raise ValueError(f"{path} is given as output; a file that ends in {' or '.join(WRITERS)} is accepted.")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise OSError(f"{path} cannot be written: there is no folder {path.parent} that can be written to.")


@contextmanager
def open_writer(path: str | os.PathLike[str], model: EmbeddingModel) -> Iterator[TokenWriter]:
    """A writer of a file that appears when it is complete; the ending of its name is the format."""
    about = {"model": model.name, "revision": model.revision, "width": model.config.projection_dim}
    with atomic_write(Path(path)) as partial:
        writer = WRITERS[Path(path).suffix](partial, about)
        yield writer
        writer.close()


def embed_files(
    sources: Iterable[Source],
    output: str | os.PathLike[str],
    model: EmbeddingModel,
    segmentation: Segmentation,
    *,
    batch_size: int = 16,
    workers: int = 0,
    progress: bool = True,
) -> AddReport:
    """Writes the token embeddings of media to a file, `.parquet` or `.safetensors`, as `ValorIndex.add` stores them.

    Args:
        sources, batch_size, workers, progress: as in [`ValorIndex.add`].

    Returns:
        What was written and what could not be read.

    Raises:
        ValueError, OSError: as in [`check_output`], the output is one of the sources, or there is nothing to embed.
    """
    check_output(output)
    items, failures = list_items(list(sources))
    check_not_input(output, [item.source for item in items])
    for reason in failures.values():
        logger.warning(reason)
    report = AddReport(failures=failures)
    with open_writer(output, model) as writer:
        add_items(
            cast(Backend, writer),
            model,
            Plan(items, {}),
            segmentation,
            report,
            batch_size=batch_size,
            workers=workers,
            caption=False,
            progress=progress,
        )
        if not report.segments:
            raise ValueError(f"There is nothing to embed in what was given; {output} is not written.")
    return report
