# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Annotation files as text, JSON and tables, in UTF-8 with or without a byte order mark. Every error names file and line."""

import codecs
import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any


MAX_DEPTH = 64
"""Maximum depth of nested lists and objects in annotations; Python's own functions fail at some hundreds."""

BYTE_ORDER_MARK = "\ufeff"


def read_text(path: Path) -> str:
    """All text of a file.

    Raises:
        ValueError: the file is not text in UTF-8.
    """
    return "".join(_lines(path))


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbers and texts of the lines that are not blank, without line breaks.

    Raises:
        ValueError: the file is not text in UTF-8.
    """
    for number, line in enumerate(_lines(path), start=1):
        text = line.rstrip("\r\n").lstrip(BYTE_ORDER_MARK)  # files that were joined have more than one mark
        if text.strip():
            yield number, text


def read_names(path: Path) -> list[str]:
    """The names of the samples of a split: a JSON list, or a text file with a name in each line.

    Raises:
        ValueError: the file is not of this kind, or empty.
    """
    names = read_json(path) if path.suffix == ".json" else [line.strip() for _, line in read_lines(path)]
    if not isinstance(names, list) or not names or not all(type(name) in (str, int) for name in names):
        raise ValueError(f"{path} must be a list of the samples' names, and not empty.")
    return [str(name) for name in names]


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        ValueError: it is not JSON.
    """
    return parse_json(read_text(path), str(path), whole_file=True)


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The line numbers and rows of a JSON Lines file, a JSON object in each line.

    Raises:
        ValueError: a line is none.
    """
    for number, line in read_lines(path):
        place = f"{path}, line {number}"
        row = parse_json(line, place)
        if not isinstance(row, dict):
            raise ValueError(f"{place}: a row must be a JSON object, got {line.strip()[:80]}.")
        yield number, row


_SEPARATORS = ((";", "semicolons"), ("\t", "tabs"))


def read_table(path: Path) -> Iterator[tuple[int, dict[str, str | None]]]:
    """The line numbers and rows of a CSV file whose first line names the columns; missing cells are `None`.

    Raises:
        ValueError: it is no CSV file, its columns are not separated by commas, a row has more cells than columns, or two
            columns have the same name.
    """
    reader = csv.reader(_lines(path, newline=""))
    columns: list[str] | None = None
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            hint = ": a quotation mark may not be closed" if "field limit" in str(error) else ""
            raise ValueError(f"{path}, line {reader.line_num}: this is not CSV ({error}){hint}.") from error
        if cells is None:
            return
        place = f"{path}, line {reader.line_num}"
        if columns is None:
            columns = cells
            if len(columns) == 1 and (
                separator := next((name for sign, name in _SEPARATORS if sign in columns[0]), None)
            ):
                raise ValueError(f"{place}: the columns are separated by {separator}; save the file with commas.")
            duplicates = [name for name, count in Counter(filter(None, columns)).items() if count > 1]
            if duplicates:
                raise ValueError(f"{place}: {len(columns)} columns are named, of which several are {duplicates[0]!r}.")
        elif cells:
            if any(cells[len(columns) :]):
                raise ValueError(
                    f"{place}: there are more columns than the {len(columns)} of the first line; a text with commas needs "
                    "quotation marks around it."
                )
            yield reader.line_num, dict(zip_longest(columns, cells[: len(columns)]))


def parse_json(text: str | bytes, place: str, whole_file: bool = False) -> Any:
    """The value of a JSON text in UTF-8.

    Args:
        place: the text's name in errors.
        whole_file: errors name the line within the text; otherwise it is one line of a file, which `place` names.

    Raises:
        ValueError: it is not JSON, its depth is more than `MAX_DEPTH`, or it has half of a surrogate pair, which is no
            character and cannot be written to a file.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        value = json.loads(text)
        if re.search(r"\\u[dD][89a-fA-F]", text):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{place} is not text in UTF-8: {error.reason} at byte {error.start}.") from error
    except UnicodeEncodeError as error:
        raise ValueError(f"{place}: a text has half of a surrogate pair, which is no character.") from error
    except RecursionError as error:
        raise ValueError(f"{place}: lists and objects are nested more than {MAX_DEPTH} deep.") from error
    except json.JSONDecodeError as error:
        where = f"{place}, line {error.lineno}" if whole_file else place
        raise ValueError(f"{where}: this is not JSON: {error.msg} at character {error.colno}.") from error
    except ValueError as error:  # a number of too many digits
        raise ValueError(f"{place}: this is not JSON: {error}.") from error
    if _is_deep(value):
        raise ValueError(f"{place}: lists and objects are nested more than {MAX_DEPTH} deep.")
    return value


def _is_deep(value: Any) -> bool:
    level = [value] if isinstance(value, (list, dict)) else []
    for _ in range(MAX_DEPTH):
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, (list, dict))
        ]
    return bool(level)


def _lines(path: Path, newline: str = "\n") -> Iterator[str]:
    try:
        with path.open(encoding="utf-8-sig", newline=newline) as file:
            for number, line in enumerate(file, start=1):
                if "\0" in line:
                    raise ValueError(f"{path} is not text in UTF-8: line {number} has NUL characters, as UTF-16 has.")
                yield line
    except UnicodeDecodeError as error:
        raise ValueError(_encoding_error(path)) from error


def _encoding_error(path: Path) -> str:
    """Where and why a file is not UTF-8."""
    start = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                utf16 = number == 1 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
                kind = ", as UTF-16 has" if utf16 else ""
                return (
                    f"{path} is not text in UTF-8: line {number}, {error.reason} at byte {start + error.start}{kind}; save "
                    "the file in UTF-8."
                )
            start += len(line)
    return f"{path} is not text in UTF-8: it ends in the middle of a character."
