# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""A user's `where` as SQL of PostgreSQL that can be nothing but a condition.

It is read token by token and written anew from those that are known here: the columns of `WHERE_COLUMNS`, strings,
numbers, comparisons, and a few functions that only compute. SELECT, `;`, comments and all other functions are unknown, so
that no statement, sub-select or side effect can be written. PostgreSQL checks the grammar, in a read-only transaction
with a time limit.
"""

import re

from .backend import WHERE_COLUMNS
from .condition import read_condition


JSON_FUNCTIONS = {
    "json_get_string": "text",
    "json_get_int": "bigint",
    "json_get_float": "float8",
    "json_get_bool": "boolean",
}
"""Functions of LanceDB that the schema of an index has too, and what they return, so that a `where` is the same for both."""

_WORDS = {"and", "or", "not", "in", "like", "ilike", "escape", "between", "is", "null", "true", "false", "cast", "as"}
_TYPES = {"int", "integer", "bigint", "real", "float", "double", "precision", "numeric", "text", "boolean"}
_FUNCTIONS = {
    "lower",
    "upper",
    "length",
    "abs",
    "round",
    "floor",
    "ceil",
    "coalesce",
    "starts_with",
} | JSON_FUNCTIONS.keys()


def condition_sql(where: str) -> str:
    """The condition in parentheses, for psycopg's `execute` with values.

    Raises:
        ValueError: why it is none.
    """
    parts = [_token_sql(found) for found in read_condition(where)]
    return f"({' '.join(parts)})".replace("%", "%%")  # psycopg's sign for a value


def _token_sql(found: re.Match[str]) -> str:
    name: str | None
    if found["string"] is not None:
        return "E" + str(found["string"]).replace(
            "\\", "\\\\"
        )  # the same string, however the server reads backslashes
    name = found["quoted"] if found["quoted"] is not None else found["word"]
    if name is None:
        return str(found[0])
    name = name if found["word"] is None else name.lower()
    if name in WHERE_COLUMNS:
        return f'"{name}"'  # "end" is a word of SQL
    if found["word"] is None or name not in _WORDS | _TYPES | _FUNCTIONS:
        raise ValueError(f"{name!r} is no column, and nothing that a condition may use")
    return name
