# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What becomes a file of token embeddings, kept so that a killed run goes on: a file of SQLite beside it."""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.files import WriteError, remove
from .segments import EmbeddedSegment, FileState, IndexedFile, Segment, SegmentTokens
from .token_files import READERS, TokenFileNote, read_note


_TABLES = """
CREATE TABLE IF NOT EXISTS about (note TEXT);
CREATE TABLE IF NOT EXISTS files (
    source TEXT PRIMARY KEY, size INTEGER, modified INTEGER, segmentation TEXT, seconds REAL, segments INTEGER
);
CREATE TABLE IF NOT EXISTS segments (
    source TEXT, start REAL, "end" REAL, size INTEGER, modified INTEGER, revision TEXT,
    modalities TEXT, times BLOB, weights BLOB, embeds BLOB,
    PRIMARY KEY (source, start, "end")
);
"""


class TokenStore:
    """The segments of a file of token embeddings, `output`: those that it has, and those that are embedded for it now.

    The latter are in `output` + ".unfinished", a file of SQLite, until `output` is written anew. Each `write` is a transaction, so that whenever the process is killed nothing else is lost.

    Args:
        note: the model that embeds now.

    Raises:
        ValueError: another run writes the same output, an interrupted run used another model, or its file is damaged.
        WriteError: the file cannot be written.
    """

    def __init__(self, output: Path, note: TokenFileNote):
        self.output, self.note = output, note
        self.path = output.with_name(f"{output.name}.unfinished")
        before = read_note(output)
        self.is_replaced = output.exists() and (before is None or before.revision != note.revision)
        """Whether the output is there and of no use, because it is of another model, or no file of token embeddings."""
        finished = () if before is None or self.is_replaced else before.files
        self.is_finished = False
        self.sources_of_output = frozenset(file.source for file in finished)
        with contextlib.ExitStack() as on_error, self._in_a_sentence():
            self.database = sqlite3.connect(self.path, timeout=0)
            on_error.callback(self.database.close)
            self.database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self.database.executescript(f"BEGIN EXCLUSIVE;{_TABLES}COMMIT;")
            self._check_model()
            rows = self.database.execute("SELECT source FROM segments UNION SELECT source FROM files").fetchall()
            begun = {source for (source,) in rows}
            on_error.pop_all()
        self.finished = {file.source: file for file in finished if file.source not in begun}
        """Files of which the output has what is wanted, so far as is known."""

    def _check_model(self) -> None:
        rows = self.database.execute("SELECT note FROM about").fetchall()
        if not rows:
            with self.database:
                self.database.execute("INSERT INTO about VALUES (?)", (self.note.to_json(),))
            return
        before = TokenFileNote.from_json(rows[0][0])
        if before.revision != self.note.revision:
            raise ValueError(
                f"{self.path} is of an interrupted run with the model {before.model} (weights {before.revision}), not with "
                f"{self.note.model} (weights {self.note.revision}): use that one, or remove the file to begin anew."
            )

    @contextlib.contextmanager
    def _in_a_sentence(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorname", "")
            if code.startswith("SQLITE_BUSY"):
                message = f"{self.output} is being written by another run: wait for it, or choose another file."
                raise ValueError(message) from error
            if code in ("SQLITE_NOTADB", "SQLITE_CORRUPT", "SQLITE_ERROR"):
                message = f"{self.path} is damaged, or no file of an interrupted run: remove it to begin anew."
                raise ValueError(message) from error
            raise WriteError(
                f"{self.path} cannot be written to ({error}). What is complete is kept, and the same command goes on from there."
            ) from error

    # --- As an index has them -------------------------------------------------------------------------------------------

    def files(self) -> Iterator[IndexedFile]:
        """All files that are complete."""
        yield from self.finished.values()
        with self._in_a_sentence():
            rows = self.database.execute("SELECT * FROM files").fetchall()
        for source, size, modified, segmentation, seconds, segments in rows:
            yield IndexedFile(source, FileState(size, modified), segmentation, seconds, segments)

    def unfinished(self) -> list[str]:
        """Sources that have segments without being complete."""
        with self._in_a_sentence():
            rows = self.database.execute("SELECT source FROM segments EXCEPT SELECT source FROM files").fetchall()
        return [source for (source,) in rows]

    def segments(self, *, source: str) -> list[Segment]:
        """Segments that are embedded for a source now."""
        return [item.segment for item in self.embedded([source])]

    def write(self, segments: Sequence[EmbeddedSegment], files: Sequence[IndexedFile] = ()) -> None:
        """Adds segments with their tokens, and files that are complete with them."""
        with self._in_a_sentence(), self.database:
            self.database.executemany(
                f"INSERT OR REPLACE INTO segments VALUES ({', '.join('?' * 10)})", map(_to_row, segments)
            )
            self.database.executemany(
                f"INSERT OR REPLACE INTO files VALUES ({', '.join('?' * 6)})",
                [
                    (file.source, file.state.size, file.state.modified, file.segmentation, file.seconds, file.segments)
                    for file in files
                ],
            )

    def delete(self, sources: Sequence[str]) -> int:
        """Forgets files with all their segments; returns the number of segments that were embedded for them now."""
        count = 0
        with self._in_a_sentence(), self.database:
            for source in sources:
                self.finished.pop(source, None)
                count += self.database.execute("DELETE FROM segments WHERE source = ?", (source,)).rowcount
                self.database.execute("DELETE FROM files WHERE source = ?", (source,))
        return count

    # --- To the output --------------------------------------------------------------------------------------------------

    def count(self) -> tuple[int, int]:
        """Number of complete files, and of segments, that are embedded for the output now."""
        with self._in_a_sentence():
            (files,) = self.database.execute("SELECT COUNT(*) FROM files").fetchone()
            (segments,) = self.database.execute("SELECT COUNT(*) FROM segments").fetchone()
        return files, segments

    def embedded(self, sources: Iterable[str]) -> Iterator[EmbeddedSegment]:
        """What is embedded for sources now, in their order and by start and end."""
        for source in sources:
            with self._in_a_sentence():
                rows = self.database.execute(
                    'SELECT * FROM segments WHERE source = ? ORDER BY start, "end"', (source,)
                ).fetchall()
            yield from (_from_row(row, self.note.width) for row in rows)

    def kept(self, sources: Iterable[str]) -> Iterator[EmbeddedSegment]:
        """What the output has of sources that stay as they are, in its order."""
        wanted = self.finished.keys() & set(sources)
        if wanted:
            yield from (item for item in READERS[self.output.suffix](self.output) if item.segment.source in wanted)

    def finish(self) -> None:
        """Says that all is in the output."""
        self.is_finished = True

    def close(self) -> None:
        """Ends this run. What is embedded and not in the output yet stays for the next one."""
        with contextlib.suppress(sqlite3.Error, WriteError):
            self.is_finished = self.is_finished or not any(self.count())
        self.database.close()
        if self.is_finished:
            for ending in ("", "-journal"):
                remove(self.path.with_name(self.path.name + ending))


def _to_row(item: EmbeddedSegment) -> tuple[Any, ...]:
    segment, tokens = item.segment, item.tokens
    return (
        *(segment.source, segment.start, segment.end, segment.state.size, segment.state.modified, segment.revision),
        tokens.modalities,
        np.asarray(tokens.times, dtype="<f4").tobytes(),
        np.asarray(tokens.weights, dtype="<f4").tobytes(),
        np.asarray(tokens.embeds, dtype="<f2").tobytes(),
    )


def _from_row(row: Sequence[Any], width: int) -> EmbeddedSegment:
    source, start, end, size, modified, revision, letters, times, weights, embeds = row
    modalities = "".join(dict.fromkeys(letters))
    tokens = SegmentTokens(
        letters,
        np.frombuffer(times, dtype="<f4"),
        np.frombuffer(weights, dtype="<f4"),
        np.frombuffer(embeds, dtype="<f2").reshape(-1, width),
    )
    return EmbeddedSegment(Segment(source, start, end, modalities, FileState(size, modified), revision), tokens)
