# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""An index in LanceDB: a folder, or an object store such as `s3://bucket/index.lance`.

Four tables: "tokens" and "segments", "files" that are complete, and "about", which is made last, so that an index is there
or it is not. A fifth, "captions", is made once there are tokens of captions: searches by words never look into it. Tokens
have the columns of their segment that a `where` condition may name. A segment counts once its own row is there, which is
written after its tokens; tokens without it are what a killed writer left.
"""

import json
import math
import os
import re
import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute  # `pa.compute`
import torch
from filelock import FileLock

from .backend import CAPTIONS_HELP, SEGMENT_COLUMNS, WHERE_COLUMNS, UnusableIndexError, no_condition
from .condition import read_condition
from .query import HEAVY_ROWS, Query
from .ranking import Scoring, score_segments
from .resident import ResidentTokens
from .segments import (
    EmbeddedSegment,
    FileState,
    IndexedFile,
    NearestRows,
    RankedSegments,
    Segment,
    SegmentTokens,
    TokenRows,
    merge_nearest,
)


os.environ.setdefault("LANCEDB_LOG", "error")  # it would warn of each table that it makes

try:
    import lancedb
except ImportError as error:
    raise ImportError("An index needs LanceDB: `pip install modeling-valor[search]` brings it.") from error


FLAT_ROWS = 100_000
"""Up to so many token rows are compared one by one; `compact` makes an approximate index of more."""

RESIDENT_NUMBERS = 2**28
"""Up to so many numbers are read into memory at the first search, 4 bytes each: a million token rows of width 256."""

NPROBES = 20  # partitions of the approximate index that a query looks into
ROWS_PER_PARTITION = 4096
WRITES_BETWEEN_COMPACTIONS = 256

_SCANNED_ROWS = 16_384  # of a block of the exact search: 16 MB at a width of 256
_EXACT_ERROR = 1e-5  # of a dot product of unit vectors in float32
_TOKEN_COLUMNS = ["segment", "modality", "time", "weight", "embedding"]  # as in `TokenRows`
_OWN_NAMES = {".lock", "tokens.lance", "segments.lance", "files.lance", "captions.lance", "about.lance"}
_LETTERS = {"tokens": "va", "captions": "t"}  # of the tables of tokens
_MADE = b"made"  # key of the schema of "tokens": a random name of the index
_State = tuple[bytes | None, int]  # of the token table: which index it is of, and its version
_ALL = 2**31 - 1  # LanceDB returns 10 rows unless it is told how many


class LanceBackend:
    """The [`Backend`] of LanceDB.

    Args:
        path: a folder, or the address of an object store.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = os.fspath(path)
        self._is_local = "://" not in self.path
        self._writes = 0
        self._resident: tuple[_State, ResidentTokens] | None = None
        self._about: tuple[bytes | None, dict[str, Any]] | None = None
        if self._is_local:
            self._check_folder()

    # --- Search -------------------------------------------------------------------------------------------------------

    def nearest(
        self, vectors: np.ndarray, n: int, modalities: str = "va", where: str | None = None, exact: bool = False
    ) -> NearestRows:
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        letters = self._letters_of_tables(modalities)
        return merge_nearest([self._nearest(name, vectors, n, own, where, exact) for name, own in letters.items()], n)

    def _nearest(
        self, name: str, vectors: np.ndarray, n: int, letters: str, where: str | None, exact: bool
    ) -> NearestRows:
        condition = self._condition(name, letters, where)
        if exact or self._vector_index(name) is None:
            return self._scan(name, vectors, n, condition)
        table = self._table(name)
        with self._in_one_sentence():
            query = table.search(vectors, vector_column_name="embedding").distance_type("dot")
            query = query.maximum_nprobes(0).minimum_nprobes(NPROBES)  # more where a condition leaves too few rows
            query = query.select(["segment", "_distance"]).limit(n)
            rows = (query if condition is None else query.where(condition, prefilter=True)).to_arrow()
        of_vector = np.zeros(len(rows), dtype=int)  # a single vector has no number
        if "query_index" in rows.column_names:
            of_vector = rows["query_index"].to_numpy()
        similarities = 1 - rows["_distance"].to_numpy()
        segments = rows["segment"].to_numpy(zero_copy_only=False)
        order = np.lexsort((-similarities, of_vector))
        parts = np.split(order, np.searchsorted(of_vector[order], np.arange(1, len(vectors))))
        return NearestRows([similarities[part] for part in parts], [segments[part] for part in parts], exact=False)

    def rank(
        self,
        query: Query,
        scoring: Scoring,
        top: int,
        where: str | None = None,
        exact: bool = False,
        nearest_rows: int | None = None,
        limit: int | None = None,
    ) -> RankedSegments | None:
        """As in [`RankingBackend`]: of all segments in memory where they fit, or of what an approximate index finds.

        In an approximate index only the tokens of the query with the greatest weights look for rows, by default 1,000 each.
        """
        resident = self._resident_tokens()
        if resident is not None:
            allowed = None if where is None else self._segments_where(where, scoring.letters)
            ids, bound = resident.best(query, scoring, max(top, limit or 0), allowed)
        elif exact or self._vector_index("tokens") is None:
            return None
        else:
            words = query.heaviest(scoring.uniform)
            nearest = self.nearest(words, nearest_rows or max(HEAVY_ROWS, 2 * top), scoring.letters, where)
            ids, bound = np.unique(np.concatenate(nearest.segments).astype(str)).tolist(), math.inf
        rows = self.tokens(ids, scoring.letters)
        ids, scores = score_segments(query, rows, scoring)
        order = np.lexsort((np.array(ids, dtype=str), -scores))[: max(top, limit or 0)]
        return RankedSegments([ids[place] for place in order], scores[order], bound)

    def _resident_tokens(self, load: bool = True) -> ResidentTokens | None:
        """All tokens as they are now; None where they are too many, or too far away, to be read for a search.

        Args:
            load: read them where they are not in memory.
        """
        table = self._table("tokens")
        with self._in_one_sentence():
            state, count = (self._made(), table.version), table.count_rows()
            resident = self._resident  # of this call, whatever other threads do
            if resident is not None and resident[0] == state:
                return resident[1]
            self._resident = None  # before more memory is taken
            width = table.schema.field("embedding").type.list_size
            if not load or width * count > RESIDENT_NUMBERS or (count > FLAT_ROWS and not self._is_local):
                return None
            rows = table.search().select(_TOKEN_COLUMNS).limit(_ALL).to_arrow()
            resident = self._resident = state, ResidentTokens(_token_rows(rows))
        return resident[1]

    def _segments_where(self, where: str, letters: str) -> list[str]:
        """Ids of the segments of which a token of these modalities meets a condition."""
        condition = self._condition("tokens", self._letters_of_tables(letters)["tokens"], where)
        with self._in_one_sentence():
            rows = self._table("tokens").search().where(condition).select(["segment"]).limit(_ALL).to_arrow()
        ids: list[str] = pa.compute.unique(rows["segment"]).to_pylist()
        return ids

    def _scan(self, name: str, vectors: np.ndarray, n: int, condition: str | None) -> NearestRows:
        """The exact lists, by one pass over all rows for all vectors together."""
        queries = torch.from_numpy(vectors)
        best = torch.empty(len(vectors), 0)
        segments = np.empty((len(vectors), 0), dtype=object)
        for batch in self._read(name, condition, ["segment", "embedding"]):
            if not len(batch):
                continue
            embeds = torch.from_numpy(_embeddings(batch).astype(np.float32))
            found = (queries @ embeds.T).topk(min(n, len(batch)), dim=1)
            names = batch["segment"].take(pa.array(found.indices.flatten().numpy())).to_numpy(zero_copy_only=False)
            segments = np.concatenate([segments, names.reshape(found.indices.shape)], axis=1)
            best = torch.cat([best, found.values], dim=1)
            kept = best.topk(min(n, best.shape[1]), dim=1)
            best, segments = kept.values, np.take_along_axis(segments, kept.indices.numpy(), axis=1)
        return NearestRows(list(best.numpy()), list(segments), exact=True, error=_EXACT_ERROR)

    def tokens(self, segments: Sequence[str], modalities: str = "va") -> TokenRows:
        resident = self._resident_tokens(load=False)
        if resident is not None and set(modalities) <= set(_LETTERS["tokens"]):
            return resident.tokens(segments, modalities)
        condition = f"segment IN ({_literals(segments)})" if len(segments) else "false"
        parts = []
        for name, letters in self._letters_of_tables(modalities).items():
            own = condition if letters == _LETTERS[name] else f"{condition} AND modality IN ({_literals(letters)})"
            parts.append(self._table(name).search().where(own).select(_TOKEN_COLUMNS).limit(_ALL).to_arrow())
        return _token_rows(pa.concat_tables(parts))

    # --- Contents -----------------------------------------------------------------------------------------------------

    def about(self) -> dict[str, Any] | None:
        if self._is_local and not os.path.isdir(os.path.join(self.path, "about.lance")):
            return None
        with self._in_one_sentence():
            about = self._about  # of this call, whatever other threads do
            if about is not None and about[0] == self._made():
                return about[1]
            if "about" not in self._names():
                return None
            text = self._table("about").search().limit(1).to_list()[0]["about"]
            about = self._about = self._made(), json.loads(text)
        return about[1]

    def _made(self) -> bytes | None:
        """What tells an index from one that is made again in its place, whose versions have the same numbers."""
        made: bytes | None = (self._table("tokens").schema.metadata or {}).get(_MADE)
        return made

    def create(self, about: Mapping[str, Any]) -> None:
        with self._in_one_sentence(), self._alone():
            if "about" in self._names():
                return
            for name, schema in _schemas(about["width"]).items():
                self._connection.create_table(name, schema=schema, mode="overwrite")
            self._table("segments").create_index("id", config=lancedb.index.BTree())
            self._table("tokens").create_index("segment", config=lancedb.index.BTree())
            self._connection.create_table("about", pa.table({"about": [json.dumps(dict(about))]}))

    def segments(
        self, ids: Sequence[str] | None = None, source: str | None = None, uncaptioned: bool = False
    ) -> list[Segment]:
        condition = "caption IS NULL" if uncaptioned else None
        if ids is not None:
            condition = f"id IN ({_literals(ids)})" if len(ids) else "false"
        elif source is not None:
            condition = f"source = {_literals([source])}"
        rows = [row for batch in self._read("segments", condition) for row in batch.to_pylist()]
        if ids is not None:
            by_id = {row["id"]: row for row in rows}
            rows = [by_id[name] for name in ids if name in by_id]
        elif source is not None:
            rows.sort(key=lambda row: (row["start"], row["end"]))
        return [_segment(row) for row in rows]

    def files(self) -> Iterator[IndexedFile]:
        for batch in self._read("files"):
            for row in batch.to_pylist():
                state = FileState(row.pop("size"), row.pop("modified"))
                yield IndexedFile(state=state, **row)

    def is_empty(self) -> bool:
        with self._in_one_sentence():
            return not self._table("segments").count_rows()

    def unfinished(self) -> list[str]:
        complete = {file.source for file in self.files()}
        batches = self._read("segments", columns=["source"])
        sources = {source for batch in batches for source in pa.compute.unique(batch["source"]).to_pylist()}
        return sorted(sources - complete)

    def sizes(self) -> dict[str, Any]:
        segments, tokens = (self._table(name).count_rows() for name in ("segments", "tokens"))
        captions = self._table("captions").count_rows() if "captions" in self._names() else 0
        return {
            "segments": segments,
            "tokens": tokens,
            "caption_tokens": captions,
            "bytes": self._bytes(),
            "index": self._vector_index(),
        }

    # --- Changes ------------------------------------------------------------------------------------------------------

    def write(self, segments: Sequence[EmbeddedSegment], files: Sequence[IndexedFile] = ()) -> None:
        with self._in_one_sentence(), self._alone():
            new = {item.segment.id: item for item in segments}
            for segment in self.segments(list(new)):
                del new[segment.id]
            if new:
                table = self._table("segments")
                captioned = {name: item.caption_tokens for name, item in new.items() if item.caption_tokens}
                self._replace_tokens("captions", [item.segment for item in new.values()], captioned)
                tokens = {name: item.tokens for name, item in new.items()}
                self._replace_tokens("tokens", [item.segment for item in new.values()], tokens)
                table.add(_segment_table([item.segment for item in new.values()], table.schema))
                if any(item.segment.caption for item in new.values()):
                    self._index_captions(table)
            if files:
                self._replace_files(files)
            self._writes += 1
            if self._writes % WRITES_BETWEEN_COMPACTIONS == 0:
                self._optimize(timedelta(hours=1))

    def _replace_tokens(self, name: str, segments: Sequence[Segment], tokens: Mapping[str, SegmentTokens]) -> None:
        """Stores tokens of segments, by the segments' ids, in the place of those that are there."""
        if name not in self._names():
            if not tokens:
                return
            self._connection.create_table(name, schema=self._table("tokens").schema, exist_ok=True)
            self._table(name).create_index("segment", config=lancedb.index.BTree())
        table = self._table(name)
        before = f"segment IN ({_literals([segment.id for segment in segments])})"
        if table.count_rows(before):
            table.delete(before)
        if tokens:
            table.add(_token_table([(segment, tokens[segment.id]) for segment in segments if segment.id in tokens]))

    def _replace_files(self, files: Sequence[IndexedFile]) -> None:
        table = self._table("files")
        rows = [
            {**vars(file), "size": file.state.size, "modified": file.state.modified}
            for file in {file.source: file for file in files}.values()
        ]
        data = pa.Table.from_pylist(rows, table.schema)
        table.merge_insert("source").when_matched_update_all().when_not_matched_insert_all().execute(data)

    def delete(self, sources: Sequence[str]) -> int:
        if not sources:
            return 0
        condition = f"source IN ({_literals(sources)})"
        with self._in_one_sentence(), self._alone():
            count: int = self._table("segments").count_rows(condition)
            # In this order, so that a file that is listed as complete always is
            for name in ("files", "segments", *self._token_tables()):
                self._table(name).delete(condition)
        return count

    def set_captions(
        self, captions: Mapping[str, str | None], tokens: Mapping[str, SegmentTokens] | None = None
    ) -> None:
        with self._in_one_sentence(), self._alone():
            table = self._table("segments")
            found = [replace(item, caption=captions[item.id]) for item in self.segments(list(captions))]
            if found:
                self._replace_tokens("captions", found, tokens or {})
                rows = _segment_table(found, table.schema)
                table.merge_insert("id").when_matched_update_all().execute(rows)
            self._index_captions(table)

    def set_metadata(self, metadata: Mapping[str, Mapping[str, Any]]) -> list[str]:
        with self._in_one_sentence(), self._alone():
            changed = set()
            for batch in self._read("segments", columns=["source", "metadata"]):
                for source, text in zip(batch["source"].to_pylist(), batch["metadata"].to_pylist(), strict=True):
                    if source in metadata and json.loads(text) != json.loads(json.dumps(metadata[source])):
                        changed.add(source)
            if changed:
                names = sorted(changed)
                rows = _as_table(
                    {"source": pa.array(names), "metadata": pa.array(json.dumps(metadata[n]) for n in names)}
                )
                for table in (*self._token_tables(), "segments"):  # segments last: they tell whether it is done
                    self._table(table).merge_insert("source").when_matched_update_all().execute(rows)
        return sorted(changed)

    def find_captions(self, words: str, top: int, where: str | None = None) -> list[tuple[str, float]]:
        table = self._table("segments")
        if not _has_captions(table):
            raise ValueError(f"The index {self.path} has no captions: {CAPTIONS_HELP}.")
        self._check(where, "segments")
        query = table.search(words, query_type="fts", fts_columns="caption").select(["id", "_score"]).limit(top)
        with self._in_one_sentence():
            rows = (query if where is None else query.where(f"({where})", prefilter=True)).to_list()
        return [(row["id"], row["_score"]) for row in rows]

    def _index_captions(self, table: Any) -> None:
        """Later captions are found without being in the index of words; `compact` adds them."""
        if not _has_captions(table):
            table.create_index("caption", config=lancedb.index.FTS())

    def compact(self) -> None:
        with self._in_one_sentence(), self._alone():
            for name in self._token_tables():
                rows = self._table(name).count_rows()
                if rows > FLAT_ROWS and self._vector_index(name) is None:
                    # Quantised to a bit for each number: candidates are scored by their stored embeddings in any case
                    partitions = max(1, rows // ROWS_PER_PARTITION)
                    config = lancedb.index.IvfRq(distance_type="dot", num_partitions=partitions, num_bits=1)
                    self._table(name).create_index("embedding", config=config)
            self._optimize(timedelta(0))

    def close(self) -> None:
        self.__dict__.pop("_connection", None)

    # --- Inside -------------------------------------------------------------------------------------------------------

    def _check_folder(self) -> None:
        """Raises a `ValueError` for a file, and for a folder that is in use for something else."""
        if not os.path.exists(self.path):
            return
        if not os.path.isdir(self.path):
            raise UnusableIndexError(f"{self.path} is a file; an index is a folder: give the name of a new one.")
        with self._in_one_sentence():
            names = set(os.listdir(self.path))
        if "about.lance" not in names and names - _OWN_NAMES:
            raise UnusableIndexError(
                f"{self.path} is a folder of other files and no index: give the name of a new folder."
            )

    @cached_property
    def _connection(self) -> Any:
        with self._in_one_sentence():
            return lancedb.connect(self.path, read_consistency_interval=timedelta(0))

    @cached_property
    def _tables(self) -> dict[str, Any]:
        return {}

    def _names(self) -> list[str]:
        return list(self._connection.list_tables().tables)

    def _table(self, name: str) -> Any:
        if name not in self._tables:
            with self._in_one_sentence():
                self._tables[name] = self._connection.open_table(name)
        return self._tables[name]

    def _read(self, name: str, condition: str | None = None, columns: list[str] | None = None) -> Iterator[Any]:
        """Record batches of the rows that meet a condition."""
        query = self._table(name).search().limit(_ALL)
        query = query if condition is None else query.where(condition)
        query = query if columns is None else query.select(columns)
        with self._in_one_sentence():
            yield from query.to_batches(batch_size=_SCANNED_ROWS)

    def _token_tables(self) -> list[str]:
        """The tables of tokens that are there."""
        return [name for name in _LETTERS if name in self._names()]

    def _letters_of_tables(self, modalities: str) -> dict[str, str]:
        """The tables that have tokens of these modalities, each with their letters."""
        letters = {name: "".join(letter for letter in own if letter in modalities) for name, own in _LETTERS.items()}
        return {
            name: own for name, own in letters.items() if own and (name == "tokens" or name in self._token_tables())
        }

    def _vector_index(self, name: str = "tokens") -> str | None:
        """Kind of the approximate index of a table of tokens, if there is one."""
        for index in self._table(name).list_indices():
            if index.columns == ["embedding"]:
                return str(index.index_type)
        return None

    def _condition(self, name: str, letters: str, where: str | None) -> str | None:
        self._check(where, name)
        parts = [] if where is None else [f"({where})"]
        if letters != _LETTERS[name]:
            parts.append(f"modality IN ({_literals(letters)})")
        return " AND ".join(parts) or None

    def _check(self, where: str | None, table: str) -> None:
        """Raises a `ValueError` unless `where` is one condition by itself, so that it cannot end the one it is put into."""
        if where is None:
            return
        try:
            read_condition(where)
            self._table(table).search().where(f"({where})").select(["source"]).limit(1).to_arrow()
        except (ValueError, RuntimeError, OSError) as error:
            columns = SEGMENT_COLUMNS if table == "segments" else WHERE_COLUMNS
            raise no_condition(where, "LanceDB", _first_sentence(error), columns) from error

    def _optimize(self, keep: timedelta) -> None:
        with warnings.catch_warnings():  # readers look for the latest version each time
            warnings.filterwarnings("ignore", message="optimize.cleanup_older_than=0.")
            for name in (*self._token_tables(), "segments", "files"):
                self._table(name).optimize(cleanup_older_than=keep)

    def _bytes(self) -> int | None:
        if not self._is_local:
            return None
        files = (os.path.join(folder, name) for folder, _, names in os.walk(self.path) for name in names)
        return sum(os.path.getsize(file) for file in files if os.path.exists(file))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Lets one process write at a time. Object stores have no locks; there LanceDB orders the writes itself."""
        if not self._is_local:
            yield
            return
        os.makedirs(self.path, exist_ok=True)
        with FileLock(os.path.join(self.path, ".lock")):
            yield

    @contextmanager
    def _in_one_sentence(self) -> Iterator[None]:
        """Turns what LanceDB raises into an `UnusableIndexError` of one sentence."""
        try:
            yield
        except (OSError, RuntimeError) as error:
            raise UnusableIndexError(
                f"The index {self.path} cannot be read or written: {_first_sentence(error)}. What was complete is kept."
            ) from error


def _has_captions(table: Any) -> bool:
    return any(index.index_type == "FTS" for index in table.list_indices())


def _schemas(width: int) -> dict[str, pa.Schema]:
    part = [("source", pa.string()), ("start", pa.float64()), ("end", pa.float64())]
    state = [("size", pa.int64()), ("modified", pa.int64())]
    metadata = ("metadata", pa.json_(pa.utf8()))
    return {
        "tokens": pa.schema(
            [
                ("segment", pa.string()),
                ("modality", pa.string()),
                ("time", pa.float32()),
                ("weight", pa.float32()),
                ("embedding", pa.list_(pa.float16(), width)),
                *part,
                metadata,
            ],
            metadata={_MADE: uuid.uuid4().hex},
        ),
        "segments": pa.schema(
            [
                ("id", pa.string()),
                *part,
                ("modalities", pa.string()),
                *state,
                ("revision", pa.string()),
                ("caption", pa.string()),
                metadata,
            ]
        ),
        "files": pa.schema(
            [
                ("source", pa.string()),
                *state,
                ("segmentation", pa.string()),
                ("seconds", pa.float64()),
                ("segments", pa.int64()),
            ]
        ),
    }


def _token_table(items: Sequence[tuple[Segment, SegmentTokens]]) -> pa.Table:
    segments, tokens = zip(*items, strict=True)
    counts = [len(own.modalities) for own in tokens]
    embeds = np.concatenate([own.embeds for own in tokens]).astype(np.float16)
    rows = np.repeat(np.arange(len(segments)), counts)
    parts = [
        {
            "segment": segment.id,
            "source": segment.source,
            "start": segment.start,
            "end": segment.end,
            "metadata": json.dumps(segment.metadata),
        }
        for segment in segments
    ]
    columns = {name: pa.array([part[name] for part in parts]).take(pa.array(rows)) for name in parts[0]}
    columns["modality"] = pa.array(list("".join(own.modalities for own in tokens)))
    columns["time"] = pa.array(np.concatenate([own.times for own in tokens]), pa.float32())
    columns["weight"] = pa.array(np.concatenate([own.weights for own in tokens]), pa.float32())
    columns["embedding"] = pa.FixedSizeListArray.from_arrays(pa.array(embeds.reshape(-1)), embeds.shape[1])
    return _as_table(columns)


def _segment_table(segments: Sequence[Segment], schema: pa.Schema) -> pa.Table:
    types = {"size": pa.int64(), "modified": pa.int64(), "caption": pa.string()}
    rows = [
        {
            **vars(segment),
            "id": segment.id,
            "size": segment.state.size,
            "modified": segment.state.modified,
            "metadata": json.dumps(segment.metadata),
        }
        for segment in segments
    ]
    return _as_table({name: pa.array([row[name] for row in rows], types.get(name)) for name in schema.names})


def _as_table(columns: dict[str, pa.Array]) -> pa.Table:
    columns["metadata"] = pa.ExtensionArray.from_storage(pa.json_(pa.utf8()), columns["metadata"])
    return pa.table(columns)


def _segment(row: dict[str, Any]) -> Segment:
    return Segment(
        source=row["source"],
        start=row["start"],
        end=row["end"],
        modalities=row["modalities"],
        state=FileState(row["size"], row["modified"]),
        revision=row["revision"],
        caption=row["caption"],
        metadata=json.loads(row["metadata"]),
    )


def _token_rows(table: pa.Table) -> TokenRows:
    segments, modalities, times, weights = (table[name].to_numpy(zero_copy_only=False) for name in _TOKEN_COLUMNS[:-1])
    return TokenRows(segments, modalities, times, weights, _embeddings(table))


def _embeddings(rows: Any) -> np.ndarray:
    """(N, C), float16, of a record batch or of a table of one chunk."""
    column = rows["embedding"]
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    values: np.ndarray = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(rows), column.type.list_size)


def _literals(values: Iterable[str]) -> str:
    """Strings as an SQL list."""
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)


def _first_sentence(error: BaseException) -> str:
    """What an error says, without the place in LanceDB's source."""
    text = re.sub(r",? ?(/\S+\.rs:\d+(:\d+)?|\S+/src/\S+)", "", " ".join(str(error).split()))
    return text.removeprefix("lance error: ").rstrip(". ")[:300]
