# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Annotation files to rows that know where they stand, so that an error can say it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....media_sources import name_without_suffix
from ..records import short
from ..text_files import BYTE_ORDER_MARK, read_json, read_lines, read_names, read_objects, read_table


@dataclass(frozen=True)
class Row:
    """One entry of an annotation file.

    Args:
        values: what it says, by column.
        place: the file and the line or item, as an error names it.
    """

    values: Mapping[str, Any]
    place: str

    def value(self, *columns: str) -> Any:
        """The value of the first of `columns` that has one.

        Raises:
            ValueError: none of them does.
        """
        for column in columns:
            if self.values.get(column) is not None:
                return self.values[column]
        available = ", ".join(repr(column) for column in self.values)
        raise ValueError(
            f"{self.place}: there is no {' or '.join(map(repr, columns))}, only {available or 'nothing'}."
        )

    def text(self, *columns: str) -> str:
        """The same as text; numbers are written out.

        Raises:
            ValueError: there is no value, or it is blank or neither a text nor a number.
        """
        value = self.value(*columns)
        if isinstance(value, (str, int, float)) and str(value).strip():
            return str(value).replace(BYTE_ORDER_MARK, "")
        raise ValueError(f"{self.place}: {' or '.join(map(repr, columns))} must be a text, got {short(value)}.")

    def texts(self, *columns: str) -> tuple[str, ...]:
        """A list of texts, or one text as a list of one; blank ones are left out.

        Raises:
            ValueError: there is no value, or it holds anything but texts.
        """
        value = self.value(*columns)
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{self.place}: {' or '.join(map(repr, columns))} must be texts, got {short(value)}.")
        return tuple(text.replace(BYTE_ORDER_MARK, "") for text in texts if text.strip())

    def number(self, column: str) -> int:
        """A whole number.

        Raises:
            ValueError: there is none.
        """
        value = self.value(column)
        try:
            return int(value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"{self.place}: {column!r} must be a whole number, got {short(value)}.") from None

    def within(self, column: str) -> list["Row"]:
        """The rows in a list of objects.

        Raises:
            ValueError: there is no such list.
        """
        return list(_objects(self.value(column), f"{self.place}, {column!r}"))


def read_rows(path: Path, *keys: str, columns: Sequence[str] | None = None, delimiter: str = ",") -> Iterator[Row]:
    """The rows of a `.json`, `.jsonl`, or else a delimited file.

    Args:
        keys: in JSON, the way from the top to the list of rows. An object of objects is a list, too, whose rows have
            the key as `key`.
        columns: names of the columns of a delimited file without a header.
        delimiter: "," has the quotation rules of CSV; with a tab, quotation marks are letters like others.

    Raises:
        ValueError: the file is not of this kind, or a line has another number of columns.
    """
    if path.suffix == ".json":
        yield from _json_rows(path, keys)
    elif path.suffix == ".jsonl":
        for number, values in read_objects(path):
            yield Row(values, f"{path}, line {number}")
    elif delimiter == ",":
        for number, values in read_table(path):
            yield Row(values, f"{path}, line {number}")
    else:
        yield from _split_rows(path, columns, delimiter)


def read_ids(path: Path) -> list[str]:
    """Ids of a split: a CSV file with a column `video_id`, or what `text_files.read_names` takes.

    Raises:
        ValueError: the file is not of this kind.
    """
    names = [row.text("video_id") for row in read_rows(path)] if path.suffix == ".csv" else read_names(path)
    return [without_suffix(name) for name in names]


def without_suffix(name: str) -> str:
    """A media file's name without ".mp4", ".wav" and the like; other dots are part of the name."""
    return name_without_suffix(name)


def _json_rows(path: Path, keys: Sequence[str]) -> Iterator[Row]:
    content, place = read_json(path), str(path)
    for key in keys:
        content, place = Row(content if isinstance(content, dict) else {}, place).value(key), f"{place}, {key!r}"
    yield from _objects(content, place)


def _objects(content: Any, place: str) -> Iterator[Row]:
    if isinstance(content, dict):
        items = [
            (repr(key), {**value, "key": key} if isinstance(value, dict) else value) for key, value in content.items()
        ]
    elif isinstance(content, list):
        items = [(f"item {number}", item) for number, item in enumerate(content, start=1)]
    else:
        raise ValueError(f"{place} must be a list of objects, got {short(content)}.")
    for name, item in items:
        if not isinstance(item, dict):
            raise ValueError(f"{place}, {name}: this must be an object, got {short(item)}.")
        yield Row(item, f"{place}, {name}")


def _split_rows(path: Path, columns: Sequence[str] | None, delimiter: str) -> Iterator[Row]:
    for number, line in read_lines(path):
        place, fields = f"{path}, line {number}", line.split(delimiter)
        if columns is None:
            columns = fields
        elif len(fields) != len(columns):
            raise ValueError(
                f"{place}: there are {len(fields)} columns instead of {len(columns)}: {', '.join(columns)}."
            )
        else:
            yield Row(dict(zip(columns, fields, strict=True)), place)
