# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Files of token embeddings, for search engines of one's own: Parquet or safetensors."""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from .segments import EmbeddedSegment, FileState, IndexedFile, Segment, SegmentTokens


NOTE = "modeling_valor"
"""Key of the metadata in which a file of token embeddings says what it is, as JSON."""


@dataclass(frozen=True)
class TokenFileNote:
    """What a file of token embeddings says about itself.

    Args:
        model: Hub name or path of the checkpoint.
        revision: hash of its weights.
        width: of the embeddings.
        files: those that are complete.
    """

    model: str
    revision: str
    width: int
    files: Sequence[IndexedFile] = field(default_factory=tuple)

    def to_json(self) -> str:
        files = [
            {
                "source": file.source,
                "size": file.state.size,
                "modified": file.state.modified,
                "segmentation": file.segmentation,
                "seconds": file.seconds,
                "segments": file.segments,
            }
            for file in self.files
        ]
        return json.dumps({"model": self.model, "revision": self.revision, "width": self.width, "files": files})

    @classmethod
    def from_json(cls, text: str | bytes) -> "TokenFileNote":
        """Reads what `to_json` wrote.

        Raises:
            KeyError, ValueError: it is something else.
        """
        about = json.loads(text)
        files = [
            IndexedFile(state=FileState(file.pop("size"), file.pop("modified")), **file) for file in about.pop("files")
        ]
        return cls(**about, files=files)


class TokenWriter(Protocol):
    """Takes segments with their tokens, some at a time."""

    def write(self, segments: Sequence[EmbeddedSegment]) -> None: ...

    def close(self) -> None: ...


class ParquetWriter:
    """A row for each token: source, start, end, modality, time, weight, embedding (fixed-size list of float16).

    Rows are written as they come, those of a segment one after the other. The metadata has a [`TokenFileNote`].
    """

    def __init__(self, path: Path, note: TokenFileNote):
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.embedding = pa.list_(pa.float16(), note.width)
        columns = {"source": pa.string(), "start": pa.float64(), "end": pa.float64(), "modality": pa.string()}
        columns |= {"time": pa.float32(), "weight": pa.float32(), "embedding": self.embedding}
        self.schema = pa.schema(columns, metadata={NOTE: note.to_json()})
        self.writer = pq.ParquetWriter(path, self.schema)

    def write(self, segments: Sequence[EmbeddedSegment]) -> None:
        import pyarrow as pa

        if not segments:
            return
        tensors = _concatenate(segments)
        rows = tensors["segments"]
        columns = [
            pa.array([item.segment.source for item in segments]).take(rows),
            pa.array([item.segment.start for item in segments], pa.float64()).take(rows),
            pa.array([item.segment.end for item in segments], pa.float64()).take(rows),
            pa.array(list("".join(item.tokens.modalities for item in segments))),
            pa.array(tensors["times"]),
            pa.array(tensors["weights"]),
            pa.FixedSizeListArray.from_arrays(pa.array(tensors["embeds"].reshape(-1)), type=self.embedding),
        ]
        self.writer.write_table(pa.Table.from_arrays(columns, schema=self.schema))

    def close(self) -> None:
        self.writer.close()


class SafetensorsWriter:
    """Tensors `embeds` (N, C) float16, `weights` and `times` (N,) float32, `modalities` (N,) uint8, `segments` (N,) int64.

    A modality is the letter's code, 118 for "v" and 97 for "a"; `segments` are places in the list `segments` of the
    metadata, JSON of source, start and end. All is held in memory until the end.
    """

    def __init__(self, path: Path, note: TokenFileNote):
        self.path, self.note = path, note
        self.items: list[EmbeddedSegment] = []

    def write(self, segments: Sequence[EmbeddedSegment]) -> None:
        self.items += segments

    def close(self) -> None:
        from safetensors.numpy import save_file

        segments = [
            {"source": item.segment.source, "start": item.segment.start, "end": item.segment.end}
            for item in self.items
        ]
        tensors = _concatenate(self.items)
        self.path.touch()
        mode = self.path.stat().st_mode
        save_file(tensors, self.path, {"segments": json.dumps(segments), NOTE: self.note.to_json()})
        self.path.chmod(mode)  # safetensors writes files that only their owner can read


def read_note(path: Path) -> TokenFileNote | None:
    """What a file of token embeddings says about itself; None if there is no such file, or it is another one."""
    try:
        return _NOTES[path.suffix](path)
    except Exception:  # a file of any other kind may raise anything
        return None


def _parquet_note(path: Path) -> TokenFileNote:
    import pyarrow.parquet as pq

    return TokenFileNote.from_json(pq.read_schema(path).metadata[NOTE.encode()])


def _safetensors_note(path: Path) -> TokenFileNote:
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        return TokenFileNote.from_json(file.metadata()[NOTE])


def read_parquet(path: Path) -> Iterator[EmbeddedSegment]:
    """The segments of a file that a [`ParquetWriter`] wrote, in their order."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group).combine_chunks()
            names = zip(*(table[name].to_pylist() for name in ("source", "start", "end")), strict=True)
            found = [(name, sum(1 for _ in rows)) for name, rows in itertools.groupby(names)]
            letters = "".join(table["modality"].to_pylist())
            times, weights = (table[name].to_numpy() for name in ("time", "weight"))
            embeds = table["embedding"].chunk(0).flatten().to_numpy().reshape(len(letters), -1)
            yield from _segments(found, letters, times, weights, embeds)


def read_safetensors(path: Path) -> Iterator[EmbeddedSegment]:
    """The segments of a file that a [`SafetensorsWriter`] wrote, in their order."""
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        names = [(row["source"], row["start"], row["end"]) for row in json.loads(file.metadata()["segments"])]
    counts = np.bincount(tensors["segments"], minlength=len(names)).tolist()
    letters = tensors["modalities"].tobytes().decode()
    yield from _segments(
        list(zip(names, counts, strict=True)), letters, tensors["times"], tensors["weights"], tensors["embeds"]
    )


def _concatenate(segments: Sequence[EmbeddedSegment]) -> dict[str, np.ndarray]:
    """The tokens of segments, one after the other, as [`SafetensorsWriter`] describes them."""
    tokens = [item.tokens for item in segments]
    return {
        "embeds": np.concatenate([own.embeds for own in tokens]).astype(np.float16),
        "weights": np.concatenate([own.weights for own in tokens]).astype(np.float32),
        "times": np.concatenate([own.times for own in tokens]).astype(np.float32),
        "modalities": np.frombuffer("".join(own.modalities for own in tokens).encode(), dtype=np.uint8),
        "segments": np.repeat(np.arange(len(tokens), dtype=np.int64), [len(own.modalities) for own in tokens]),
    }


def _segments(
    found: Sequence[tuple[tuple[str, float, float], int]],
    letters: str,
    times: np.ndarray,
    weights: np.ndarray,
    embeds: np.ndarray,
) -> Iterator[EmbeddedSegment]:
    """Segments of tokens that lie one after the other, by their source, start and end and their numbers of tokens."""
    begin = 0
    for name, count in found:
        own = slice(begin, begin + count)
        modalities = "".join(dict.fromkeys(letters[own]))
        tokens = SegmentTokens(letters[own], times[own], weights[own], embeds[own])
        yield EmbeddedSegment(Segment(*name, modalities), tokens)
        begin += count


WRITERS: dict[str, Callable[[Path, TokenFileNote], TokenWriter]] = {
    ".parquet": ParquetWriter,
    ".safetensors": SafetensorsWriter,
}
READERS: dict[str, Callable[[Path], Iterator[EmbeddedSegment]]] = {
    ".parquet": read_parquet,
    ".safetensors": read_safetensors,
}
_NOTES: dict[str, Callable[[Path], TokenFileNote]] = {
    ".parquet": _parquet_note,
    ".safetensors": _safetensors_note,
}
