# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The connection to a PostgreSQL server with pgvector: its address, transactions in the schema of an index, errors.

`index` is the name of that schema, and `path` the address that messages show, without a password.
"""

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from transformers.utils import logging

from .backend import UnusableIndexError
from .postgres_statements import ADD_EXTENSION, EXTENSION


try:
    import psycopg
    from pgvector.psycopg import register_vector
except ImportError as error:
    raise ImportError(
        "An index in PostgreSQL needs psycopg and pgvector: `pip install modeling-valor[postgres]` brings them."
    ) from error


logger = logging.get_logger(__name__)

SEARCH_SECONDS = 300
"""A search that takes longer is ended by the server."""

CREATION_LOCK = 0x76616C6F72
"""Number of the lock that makes one index at a time."""

_CONNECTION: dict[str, Any] = {"connect_timeout": 10, "keepalives_idle": 30, "application_name": "modeling-valor"}
_OLDEST_PGVECTOR = (0, 8)  # the first that goes on where a filter left too few rows


class PostgresConnection:
    """A connection that is made when it is needed, and again where the server ended it.

    Args:
        url: as [`PostgresBackend`] takes it.

    Raises:
        ValueError: it is no such address.
    """

    def __init__(self, url: str):
        self._parameters, self.index = _parse(url)
        self.path = _shown(self._parameters, self.index)
        self._lock = threading.Lock()
        self._open: psycopg.Connection | None = None
        self._extension_schema: str | None = None

    @contextmanager
    def transaction(self, writes: bool = False) -> Iterator[psycopg.Connection]:
        """A transaction in which the tables and pgvector are found by their names. Its errors are of one sentence."""
        with self._lock, self._in_one_sentence():
            connection = self._connection()
            with connection.transaction():
                if self._extension_schema is None:
                    self._find_extension(connection)
                set_locally(connection, search_path=self._search_path, jit="off")
                if not writes:
                    set_locally(connection, transaction_read_only="on", statement_timeout=f"{SEARCH_SECONDS}s")
                yield connection

    def execute_alone(self, statement: str) -> None:
        """A statement that no transaction may have."""
        with self._lock, self._in_one_sentence():
            self._connection().execute(encoded(statement))

    def close(self) -> None:
        """Ends the connection."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def make_schema(self, connection: psycopg.Connection) -> None:
        """Adds pgvector to the database and the schema of the index, unless they are there, and has names found in them."""
        connection.execute("SET LOCAL search_path TO DEFAULT")
        self._create_extension(connection)
        self._find_extension(connection)
        if one(connection, "SELECT to_regnamespace(%s)", [quoted(self.index)]) is None:
            connection.execute(encoded(f"CREATE SCHEMA {quoted(self.index)}"))
        set_locally(connection, search_path=self._search_path)

    def has(self, connection: psycopg.Connection, name: str) -> bool:
        """Whether the schema of the index has such a table or index."""
        return one(connection, "SELECT to_regclass(%s)", [f"{quoted(self.index)}.{name}"]) is not None

    def _connection(self) -> psycopg.Connection:
        """The connection; a new one where the server ended it."""
        if self._open is not None:
            try:
                self._open.execute("SELECT 1")
                return self._open
            except psycopg.OperationalError:
                self._open.close()
        try:
            self._open = psycopg.connect(**_CONNECTION | self._parameters, autocommit=True, prepare_threshold=None)
        except psycopg.Error as error:
            raise UnusableIndexError(
                f"The PostgreSQL server of the index {self.path} lets nobody in: {first_sentence(error)}. Check that it "
                "runs, and the user, the password and the database in the address."
            ) from error
        self._open.add_notice_handler(_report)
        self._extension_schema = None
        return self._open

    def _create_extension(self, connection: psycopg.Connection) -> None:
        try:
            connection.execute(ADD_EXTENSION)
        except (psycopg.errors.UndefinedFile, psycopg.errors.FeatureNotSupported) as error:
            raise UnusableIndexError(
                f"The PostgreSQL server of {self.path} lacks pgvector ({first_sentence(error)}): install it there, see "
                "https://github.com/pgvector/pgvector."
            ) from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise UnusableIndexError(
                f"The user of {self.path} may not add pgvector to the database: have its owner run `CREATE EXTENSION "
                "vector`."
            ) from error

    def _find_extension(self, connection: psycopg.Connection) -> None:
        """Notes in which schema pgvector is, if it is there, and has psycopg know its types."""
        found = connection.execute(EXTENSION).fetchone()
        if found is None:
            return
        schema, version = found
        if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_PGVECTOR:
            raise UnusableIndexError(
                f"The index {self.path} needs pgvector 0.8 or later, the database has {version}: install a newer one, then "
                "run `ALTER EXTENSION vector UPDATE`."
            )
        set_locally(connection, search_path=quoted(schema))
        register_vector(connection)
        self._extension_schema = schema

    @property
    def _search_path(self) -> str:
        names = [self.index] if self._extension_schema is None else [self.index, self._extension_schema]
        return ", ".join(map(quoted, names))

    @contextmanager
    def _in_one_sentence(self) -> Iterator[None]:
        """Turns what PostgreSQL raises into an `UnusableIndexError` of one sentence."""
        try:
            yield
        except psycopg.errors.QueryCanceled as error:
            raise UnusableIndexError(
                f"The search of {self.path} took more than {SEARCH_SECONDS} s and was ended: `compact` makes an index."
            ) from error
        except (psycopg.Error, UnicodeEncodeError) as error:
            raise UnusableIndexError(
                f"The index {self.path} cannot be read or written: {first_sentence(error)}. What was complete is kept."
            ) from error


def set_locally(connection: psycopg.Connection, **settings: str) -> None:
    """Settings until the end of the transaction."""
    calls = ", ".join(["set_config(%s, %s, true)"] * len(settings))
    connection.execute(encoded(f"SELECT {calls}"), [value for item in settings.items() for value in item])


def encoded(sql: str) -> bytes:
    """A statement that is put together, which psycopg takes as bytes only."""
    return sql.encode()


def one(connection: psycopg.Connection, statement: str, values: Sequence[Any] = ()) -> Any:
    """The only value of the only row; None without a row."""
    row = connection.execute(encoded(statement), values).fetchone()
    return None if row is None else row[0]


def quoted(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def _parse(url: str) -> tuple[dict[str, Any], str]:
    """The parameters of a connection, and the name of the index."""
    help = (
        "postgresql://user:password@host:port/database?index=name is accepted; in a name or a password write "
        f"{', '.join(f'{sign} as {quote(sign, safe=str())}' for sign in '@/:%?')}."
    )
    found = re.fullmatch(r"(postgres(?:ql)?://(?:[^@/]*@)?[^@?]*)(?:\?([^@]*))?", url)
    if found is None:
        raise ValueError(f"The address of the PostgreSQL server is not understood: {help}")
    options = dict(parse_qsl(found[2] or "", keep_blank_values=True))
    index = options.pop("index", "valor")
    if not 0 < len(index.encode()) < 64 or "\0" in index:
        raise ValueError(f"index={index!r} was given; a name of 1 to 63 bytes is accepted.")
    try:
        parameters = psycopg.conninfo.conninfo_to_dict(f"{found[1]}?{urlencode(options, quote_via=quote)}")
    except psycopg.Error:
        raise ValueError(f"The address of the PostgreSQL server is not understood: {help}") from None
    return parameters, index


def _shown(parameters: Mapping[str, Any], index: str) -> str:
    """The address without the password."""
    user = f"{parameters['user']}@" if "user" in parameters else ""
    port = f":{parameters['port']}" if "port" in parameters else ""
    return f"postgresql://{user}{parameters.get('host', '')}{port}/{parameters.get('dbname', '')}?index={index}"


def _report(notice: psycopg.errors.Diagnostic) -> None:
    """Says what the server warns of, such as a table that this user may not vacuum."""
    if notice.severity_nonlocalized == "WARNING":
        logger.warning(f"PostgreSQL: {notice.message_primary}.")


def first_sentence(error: BaseException) -> str:
    """What an error says, without the statement that it is in."""
    diagnostic = getattr(error, "diag", None)
    text = (diagnostic and diagnostic.message_primary) or " ".join(str(error).split())
    return text.rstrip(". ")[:300]
