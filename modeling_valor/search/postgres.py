# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""An index in PostgreSQL with pgvector: a schema of the tables "segments", "tokens", "files" and "about".

A fifth table, "caption_tokens", is made once there are tokens of captions: searches by words never look into it. Each
change is one transaction, so that a killed writer leaves nothing, and tokens cannot be without their segment. `rank` searches
with a single SQL statement, exact scores (eq. 3) included; [`ValorIndex`] uses it.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .backend import CAPTIONS_HELP, SEGMENT_COLUMNS, WHERE_COLUMNS, no_condition
from .postgres_condition import condition_sql
from .postgres_connection import CREATION_LOCK, PostgresConnection, encoded, first_sentence, one, quoted, set_locally
from .postgres_statements import (
    ABOUT,
    ALL,
    CAPTION_TOKENS,
    COPY_TOKENS,
    FIND_CAPTIONS,
    NEAREST,
    RANK,
    TABLES,
)
from .query import HEAVY_ROWS, Query
from .ranking import Scoring, score_bound
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


try:
    import psycopg
    from pgvector import HalfVector, Vector
except ImportError as error:
    raise ImportError(
        "An index in PostgreSQL needs psycopg and pgvector: `pip install modeling-valor[postgres]` brings them."
    ) from error


FLAT_ROWS = 100_000
"""Up to so many token rows are compared one by one; `compact` makes an approximate index (HNSW) of more."""

_EXACT_ERROR = 1e-5  # of a dot product of unit vectors in float32
_NEAREST_ROWS = 50  # that each token of a query looks for, where all rows are compared


class PostgresBackend:
    """The [`Backend`] of PostgreSQL.

    Args:
        url: `postgresql://user:password@host:port/database`, as libpq reads it, so that the password may also be in
            `PGPASSWORD` or `~/.pgpass`. `?index=NAME` is the schema of the index, "valor" by default.

    Raises:
        ValueError: it is no such address.
    """

    def __init__(self, url: str):
        self._server = PostgresConnection(url)
        self.path, self.index = self._server.path, self._server.index

    # --- Search -------------------------------------------------------------------------------------------------------

    def nearest(
        self, vectors: np.ndarray, n: int, modalities: str = "va", where: str | None = None, exact: bool = False
    ) -> NearestRows:
        condition = self._condition(where)
        with self._server.transaction() as connection, self._checked(where):
            parts = [
                self._nearest(connection, table, vectors, n, modalities, condition, exact)
                for table in self._token_tables(connection, modalities)
            ]
        return merge_nearest(parts, n)

    def _nearest(
        self,
        connection: psycopg.Connection,
        table: str,
        vectors: np.ndarray,
        n: int,
        modalities: str,
        condition: str | None,
        exact: bool,
    ) -> NearestRows:
        exact = exact or not self._is_indexed(connection, table)
        values = {"seekers": _vectors(vectors), "n": n, "letters": list(modalities)}
        self._look_far(connection, n)
        rows = connection.execute(_nearest_sql(condition, exact, table), values).fetchall()
        similarities: list[list[float]] = [[] for _ in vectors]
        segments: list[list[str]] = [[] for _ in vectors]
        for word, segment, similarity in rows:
            similarities[word - 1].append(similarity)
            segments[word - 1].append(segment)
        return NearestRows(
            [np.array(values, dtype=np.float32) for values in similarities],
            [np.array(names, dtype=object) for names in segments],
            exact=exact,
            error=_EXACT_ERROR if exact else 0.0,
        )

    def tokens(self, segments: Sequence[str], modalities: str = "va") -> TokenRows:
        rows: list[tuple[Any, ...]] = []
        with self._server.transaction() as connection, connection.cursor(binary=True) as cursor:
            for table in self._token_tables(connection, modalities):
                statement = (
                    f"SELECT segment, modality, time, weight, embedding FROM {table} "
                    "WHERE segment = ANY(%s) AND modality = ANY(%s) ORDER BY segment, place"
                )
                rows += cursor.execute(encoded(statement), [list(segments), list(modalities)]).fetchall()
        segment, modality, time, weight, embeds = zip(*rows, strict=True) if rows else ((),) * 5
        return TokenRows(
            np.array(segment, dtype=object),
            np.array(modality, dtype=object),
            np.array(time, dtype=np.float32),
            np.array(weight, dtype=np.float32),
            np.stack([row.to_numpy() for row in embeds]) if rows else np.empty((0, 0), dtype=np.float16),
        )

    def rank(
        self,
        query: Query,
        scoring: Scoring,
        top: int,
        where: str | None = None,
        exact: bool = False,
        nearest_rows: int | None = None,
        limit: int | None = None,
    ) -> RankedSegments:
        """As in [`RankingBackend`], by one SQL statement: nearest token rows, candidates and their exact scores.

        Where the nearest rows prove no ranking, the statement is repeated with all segments as candidates. In an approximate
        index, which proves nothing, only the tokens of the query with the greatest weights look for rows, by default 1,000
        each.
        """
        condition = self._condition(where)
        padded = query.tokens.zero_padding and not bool(query.mask.all())
        values: dict[str, Any] = {
            "vectors": _vectors(query.vectors),
            "weights": query.weights(scoring.uniform).tolist(),
            "letters": list(scoring.letters),
            "uniform": scoring.uniform,
            "by_score": scoring.by_score,
            "least": 0.0 if padded else -math.inf,
            "limit": max(top, limit or 0),
        }
        with self._server.transaction() as connection, self._checked(where):
            exact = exact or not self._is_indexed(connection)
            if exact:
                values["seekers"], n = values["vectors"], nearest_rows or _NEAREST_ROWS
            else:
                values["seekers"] = _vectors(query.heaviest(scoring.uniform))
                n = nearest_rows or max(HEAVY_ROWS, 2 * top)
            self._look_far(connection, n)
            rows = self._ranked(connection, _nearest_sql(condition, exact), values | {"n": n})
            bound = math.inf
            if exact and rows:
                bound = score_bound(query, np.array(rows[0][2]) + _EXACT_ERROR, scoring)
                if bound > -math.inf and (len(rows) < top or rows[top - 1][1] < bound):
                    rows = self._ranked(connection, _filled(ALL, condition), values | {"n": None})
                    bound = -math.inf
        ids, scores = [row[0] for row in rows], np.array([row[1] for row in rows], dtype=np.float32)
        return RankedSegments(ids, scores, bound)

    def _ranked(
        self, connection: psycopg.Connection, candidates: str, values: Mapping[str, Any]
    ) -> list[tuple[str, float, list[float]]]:
        """Id, score and last similarities of the best segments among the candidates."""
        return connection.execute(encoded(RANK.replace("{nearest}", candidates)), values).fetchall()

    # --- Contents -----------------------------------------------------------------------------------------------------

    def about(self) -> dict[str, Any] | None:
        with self._server.transaction() as connection:
            return self._about(connection)

    def create(self, about: Mapping[str, Any]) -> None:
        with self._server.transaction(writes=True) as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [CREATION_LOCK])
            if self._about(connection) is not None:
                return
            self._server.make_schema(connection)
            connection.execute(encoded(TABLES.format(width=int(about["width"]))))
            connection.execute("INSERT INTO about VALUES (%s)", [json.dumps(dict(about))])

    def segments(
        self, ids: Sequence[str] | None = None, source: str | None = None, uncaptioned: bool = False
    ) -> list[Segment]:
        columns = 'id, source, start, "end", modalities, size, modified, revision, caption, metadata'
        condition, order, values = "caption IS NULL" if uncaptioned else "true", "", list[Any]()
        if ids is not None:
            condition, values = "id = ANY(%s)", [list(ids)]
        elif source is not None:
            condition, order, values = "source = %s", 'ORDER BY start, "end"', [source]
        with self._server.transaction() as connection:
            rows = connection.execute(
                encoded(f"SELECT {columns} FROM segments WHERE {condition} {order}"), values
            ).fetchall()
        found = {row[0]: _segment(*row[1:]) for row in rows}
        return list(found.values()) if ids is None else [found[name] for name in ids if name in found]

    def files(self) -> Iterator[IndexedFile]:
        with self._server.transaction() as connection:
            rows = connection.execute(
                "SELECT source, size, modified, segmentation, seconds, segments FROM files"
            ).fetchall()
        for source, size, modified, *rest in rows:
            yield IndexedFile(source, FileState(size, modified), *rest)

    def unfinished(self) -> list[str]:
        with self._server.transaction() as connection:
            rows = connection.execute(
                "SELECT source FROM segments EXCEPT SELECT source FROM files ORDER BY 1"
            ).fetchall()
        return [source for (source,) in rows]

    def is_empty(self) -> bool:
        with self._server.transaction() as connection:
            return not one(connection, "SELECT EXISTS (SELECT FROM segments)")

    def sizes(self) -> dict[str, Any]:
        with self._server.transaction() as connection:
            return {
                "segments": one(connection, "SELECT count(*) FROM segments"),
                "tokens": one(connection, "SELECT count(*) FROM tokens"),
                "caption_tokens": sum(
                    one(connection, f"SELECT count(*) FROM {table}") for table in self._token_tables(connection, "t")
                ),
                "bytes": one(
                    connection,
                    "SELECT sum(pg_total_relation_size(name::regclass))::bigint FROM unnest(%s::text[]) AS name",
                    [["segments", "files", "about", *self._token_tables(connection, "vat")]],
                ),
                "index": "HNSW" if self._is_indexed(connection) else None,
            }

    # --- Changes ------------------------------------------------------------------------------------------------------

    def write(self, segments: Sequence[EmbeddedSegment], files: Sequence[IndexedFile] = ()) -> None:
        items = {item.segment.id: item for item in segments}
        # In one order, so that two writers of the same segments wait for each other and not in a circle
        rows = [_segment_row(items[name].segment) for name in sorted(items)]
        with self._server.transaction(writes=True) as connection, connection.cursor() as cursor:
            cursor.execute(
                'INSERT INTO segments (id, source, start, "end", modalities, size, modified, revision, caption, metadata) '
                'SELECT id, source, start, "end", modalities, size, modified, revision, caption, metadata '
                "FROM json_populate_recordset(NULL::segments, %s) ON CONFLICT (id) DO NOTHING RETURNING id",
                [json.dumps(rows)],
            )
            new = [name for (name,) in cursor.fetchall()]
            self._copy_tokens(cursor, "tokens", {name: items[name].tokens for name in new})
            captioned = {name: items[name].caption_tokens for name in new}
            self._copy_tokens(cursor, "caption_tokens", {name: own for name, own in captioned.items() if own})
            if files:
                cursor.execute("LOCK TABLE files IN SHARE ROW EXCLUSIVE MODE")
                latest = {file.source: file for file in files}
                cursor.execute("DELETE FROM files WHERE source = ANY(%s)", [list(latest)])
                cursor.execute(
                    "INSERT INTO files SELECT * FROM json_populate_recordset(NULL::files, %s)",
                    [json.dumps([_file_row(file) for file in latest.values()])],
                )

    def _copy_tokens(self, cursor: psycopg.Cursor, table: str, tokens: Mapping[str, SegmentTokens]) -> None:
        """Writes tokens of segments, by the segments' ids, into a table."""
        if not tokens:
            return
        if table not in self._token_tables(cursor.connection, "vat"):
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [CREATION_LOCK])
            if table not in self._token_tables(cursor.connection, "vat"):
                cursor.execute(CAPTION_TOKENS)
        with cursor.copy(encoded(COPY_TOKENS.format(table=table))) as copy:
            copy.set_types(["text", "int2", "text", "float4", "float4", "halfvec"])
            for name, own in tokens.items():
                columns = own.modalities, own.times, own.weights, own.embeds
                for place, (letter, time, weight, embeds) in enumerate(zip(*columns, strict=True)):
                    copy.write_row((name, place, letter, float(time), float(weight), HalfVector(embeds)))

    def delete(self, sources: Sequence[str]) -> int:
        with self._server.transaction(writes=True) as connection:
            connection.execute("LOCK TABLE segments IN SHARE ROW EXCLUSIVE MODE")
            connection.execute("DELETE FROM files WHERE source = ANY(%s)", [list(sources)])
            return connection.execute("DELETE FROM segments WHERE source = ANY(%s)", [list(sources)]).rowcount

    def set_captions(
        self, captions: Mapping[str, str | None], tokens: Mapping[str, SegmentTokens] | None = None
    ) -> None:
        with self._server.transaction(writes=True) as connection, connection.cursor() as cursor:
            cursor.execute("LOCK TABLE segments IN SHARE ROW EXCLUSIVE MODE")
            cursor.execute(
                "UPDATE segments SET caption = new.caption FROM json_each_text(%s) AS new (id, caption) "
                "WHERE segments.id = new.id RETURNING segments.id",
                [json.dumps(dict(captions))],
            )
            found = {name for (name,) in cursor.fetchall()}
            for table in self._token_tables(connection, "t"):
                cursor.execute(encoded(f"DELETE FROM {table} WHERE segment = ANY(%s)"), [list(found)])
            self._copy_tokens(
                cursor, "caption_tokens", {name: own for name, own in (tokens or {}).items() if name in found}
            )

    def set_metadata(self, metadata: Mapping[str, Mapping[str, Any]]) -> list[str]:
        values = json.dumps({source: dict(own) for source, own in metadata.items()})
        with self._server.transaction(writes=True) as connection:
            connection.execute("LOCK TABLE segments IN SHARE ROW EXCLUSIVE MODE")
            rows = connection.execute(
                "UPDATE segments SET metadata = new.metadata::jsonb FROM json_each(%s) AS new (source, metadata) "
                "WHERE segments.source = new.source AND segments.metadata <> new.metadata::jsonb RETURNING segments.source",
                [values],
            ).fetchall()
        return sorted({source for (source,) in rows})

    def find_captions(self, words: str, top: int, where: str | None = None) -> list[tuple[str, float]]:
        condition = self._condition(where, SEGMENT_COLUMNS) or "true"
        with self._server.transaction() as connection, self._checked(where, SEGMENT_COLUMNS):
            if one(connection, "SELECT 1 FROM segments WHERE caption IS NOT NULL LIMIT 1") is None:
                raise ValueError(f"The index {self.path} has no captions: {CAPTIONS_HELP}.")
            statement = FIND_CAPTIONS.replace("{condition}", condition)
            return connection.execute(encoded(statement), {"words": words, "top": top}).fetchall()

    def compact(self) -> None:
        with self._server.transaction(writes=True) as connection:
            tables = self._token_tables(connection, "vat")
            for table in tables:
                rows = one(connection, f"SELECT count(*) FROM {table}")
                if rows > FLAT_ROWS and not self._is_indexed(connection, table):
                    connection.execute(
                        encoded(f"CREATE INDEX {table}_embedding ON {table} USING hnsw (embedding halfvec_ip_ops)")
                    )
        for table in (*tables, "segments", "files"):
            self._server.execute_alone(f"VACUUM (ANALYZE) {quoted(self.index)}.{table}")

    def close(self) -> None:
        self._server.close()

    # --- Inside -------------------------------------------------------------------------------------------------------

    def _look_far(self, connection: psycopg.Connection, n: int) -> None:
        """Has the approximate index look at enough rows for `n` that meet a condition."""
        set_locally(
            connection, **{"hnsw.ef_search": str(min(1000, max(100, n))), "hnsw.iterative_scan": "strict_order"}
        )

    def _about(self, connection: psycopg.Connection) -> dict[str, Any] | None:
        return one(connection, ABOUT) if self._server.has(connection, "about") else None

    def _is_indexed(self, connection: psycopg.Connection, table: str = "tokens") -> bool:
        return self._server.has(connection, f"{table}_embedding")

    def _token_tables(self, connection: psycopg.Connection, modalities: str) -> list[str]:
        """The tables that have tokens of these modalities."""
        tables = ["tokens"] if set("va") & set(modalities) else []
        return tables + ["caption_tokens"] * ("t" in modalities and self._server.has(connection, "caption_tokens"))

    @staticmethod
    def _condition(where: str | None, columns: Sequence[str] = WHERE_COLUMNS) -> str | None:
        if where is None:
            return None
        try:
            return condition_sql(where)
        except ValueError as error:
            raise no_condition(where, "PostgreSQL", first_sentence(error), columns) from error

    @contextmanager
    def _checked(self, where: str | None, columns: Sequence[str] = WHERE_COLUMNS) -> Iterator[None]:
        """Errors of a statement are those of `where`, if there is one: the rest of it is always the same."""
        try:
            yield
        except (psycopg.DataError, psycopg.ProgrammingError) as error:
            kept = (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedTable)
            if where is None or isinstance(error, kept):
                raise
            raise no_condition(where, "PostgreSQL", first_sentence(error), columns) from error


def _nearest_sql(condition: str | None, exact: bool, table: str = "tokens") -> str:
    distance = "tokens.embedding <#> query.vector::halfvec"
    if exact:  # of float32, and no expression that an index has
        distance = "tokens.embedding::vector <#> query.vector"
    return _filled(NEAREST.replace("{distance}", distance), condition, table)


def _filled(sql: str, condition: str | None, table: str = "tokens") -> str:
    tables = f"{table} AS tokens"
    if condition is not None:
        tables += " JOIN segments ON segments.id = tokens.segment"
    return sql.replace("{tables}", tables).replace("{condition}", condition or "true")  # which may have any strings


def _vectors(rows: np.ndarray) -> list[Vector]:
    return [Vector(row) for row in np.asarray(rows, dtype=np.float32)]


def _segment_row(segment: Segment) -> dict[str, Any]:
    row = {**vars(segment), **vars(segment.state), "id": segment.id, "metadata": dict(segment.metadata)}
    del row["state"]
    return row


def _file_row(file: IndexedFile) -> dict[str, Any]:
    row = {**vars(file), **vars(file.state)}
    del row["state"]
    return row


def _segment(*row: Any) -> Segment:
    source, start, end, modalities, size, modified, revision, caption, metadata = row
    return Segment(source, start, end, modalities, FileState(size, modified), revision, caption, metadata)
