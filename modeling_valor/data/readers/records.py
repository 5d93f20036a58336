# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Captions and questions from a record: a line of metadata, a row of a dataset, a JSON file of a tar shard."""

import itertools
import json
import math
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from ..samples import Question, RecordError
from .text_files import BYTE_ORDER_MARK, parse_json


KEYS = {
    "id": ("id", "__key__", "key", "video_id", "clip_id", "image_id", "audio_id", "uid"),
    "captions": ("captions", "caption", "texts", "text", "txt"),
    "questions": ("qa", "questions", "question"),
    "answers": ("answers", "answer"),
    "type": ("about", "type", "question_type", "answer_type"),
    "question_id": ("question_id", "id"),
}
"""Accepted names of each field; the first that has a value is used."""


MAX_ANSWER_WEIGHTS = 1000
"""The largest sum of a question's `answer_weights`; those of VQAv2 are at most 1 each."""


def look_up(record: Mapping[str, Any], field: str) -> Any:
    """The value of the first of `KEYS[field]` that the record has a value for, or None."""
    return next((record[key] for key in KEYS[field] if record.get(key) is not None), None)


def name_columns(columns: Mapping[str, str | Sequence[str] | None] | None) -> dict[str, tuple[str, ...]]:
    """Field of `KEYS` -> its columns, for each field in `columns` (by any of its names); no columns: the field is ignored.

    Raises:
        ValueError: a field does not exist.
    """
    named = {}
    for field, given in (columns or {}).items():
        key = next((key for key, aliases in KEYS.items() if field == key or field in aliases), None)
        if key is None:
            raise ValueError(f"`columns` has the entry {field!r}, but a column can only be one of {', '.join(KEYS)}.")
        named[key] = as_names(given)
    return named


def as_names(given: str | Sequence[str] | None) -> tuple[str, ...]:
    """One name, several or none as a tuple."""
    if given is None:
        return ()
    return (given,) if isinstance(given, str) else tuple(given)


def rename_columns(record: Mapping[str, Any], named: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The record with fields renamed to their first usual name; `named` is the result of `name_columns`."""
    values = {field: [record.get(name) for name in names] for field, names in named.items()}
    renamed = {key: value for key, value in record.items() if not any(key in KEYS[field] for field in named)}
    for field, found in values.items():
        renamed[KEYS[field][0]] = found[0] if len(found) == 1 else found or None
    return renamed


def captions_of(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The captions of a record: one text or a list of them under `captions`, `caption`, `texts` or `text`.

    A list may also be written as JSON, as in a CSV file. Blank texts are left out.

    Raises:
        RecordError: a caption is no text.
    """
    found = _unpacked(look_up(record, "captions"))
    if found is None:
        return ()
    texts = [found] if isinstance(found, str) else found
    if not isinstance(texts, (list, tuple)) or not all(text is None or isinstance(text, str) for text in texts):
        raise RecordError(f"captions must be a text or a list of texts, got {short(found)}.")
    return tuple(plain for text in texts if text and (plain := _plain(text)).strip())


def questions_of(record: Mapping[str, Any]) -> tuple[Question, ...]:
    """The questions of a record.

    They are a list of objects under `qa` or `questions`, each with `question`, `answer` or `answers`, and optionally
    `about` or `type` and `question_id`; or `question` and `answer` (`answers`) of the record itself, one each or two
    lists of one length. Answers of several annotators are a list of texts or of objects with `answer`.

    With `answer_weights`, as the 2023 files of VQAv2 have them, answers are repeated in proportion to their weights, to
    the precision of one tenth. An answer with the weight 0 is left out; the sum is at most `MAX_ANSWER_WEIGHTS`. With
    `choice`, a number is the index of the answer in that list.

    Raises:
        RecordError: questions or answers have an invalid form.
    """
    found = _unpacked(look_up(record, "questions"))
    if found is None:
        return ()
    if isinstance(found, str):
        found = [{**record, "question": found, "id": record.get("question_id")}]
    if not isinstance(found, (list, tuple)):
        raise RecordError(f"questions must be a list of objects or of texts, got {short(found)}.")
    if found and all(isinstance(question, str) for question in found):
        found = _with_answers(found, _unpacked(look_up(record, "answers")))
    return tuple(map(_question, found))


def _with_answers(questions: Sequence[str], answers: Any) -> list[dict[str, Any]]:
    """Objects of questions and answers from two lists of one length, or from questions only."""
    answers = [None] * len(questions) if answers is None else answers
    if not isinstance(answers, (list, tuple)) or len(answers) != len(questions):
        raise RecordError(f"{len(questions)} questions need a list of {len(questions)} answers, got {short(answers)}.")
    return [{"question": question, "answer": answer} for question, answer in zip(questions, answers, strict=True)]


def _question(item: Any) -> Question:
    if not isinstance(item, Mapping) or not isinstance(item.get("question"), str):
        raise RecordError(f"a question must be an object with a text `question`, got {short(item)}.")
    kind, name = look_up(item, "type"), look_up(item, "question_id")
    return Question(
        text=_plain(item["question"]),
        answers=tuple(_plain(str(answer)) for answer in _answers(item)),
        type=None if kind is None else str(kind),
        id=None if name is None else str(name),
    )


def _answers(item: Mapping[str, Any]) -> list[Any]:
    """The answers of a question: texts, numbers or truth values, repeated in proportion to their weights."""
    found, weights = _chosen(item, _unpacked(look_up(item, "answers"))), item.get("answer_weights")
    if not isinstance(found, (list, tuple)):
        found = [] if found is None else [found]
    answers = [answer.get("answer") if isinstance(answer, Mapping) else answer for answer in found]
    if not all(isinstance(answer, (str, bool)) or _is_number(answer) for answer in answers):
        raise RecordError(f"answers must be texts, got {short(answers)}.")
    return answers if weights is None else _weighted(answers, _unpacked(weights))


def _chosen(item: Mapping[str, Any], answers: Any) -> Any:
    """The answer that a number selects from the list `choice`; other answers unchanged."""
    choice = item.get("choice")
    if not isinstance(answers, int) or not isinstance(choice, (list, tuple)):
        return answers
    if not 0 <= answers < len(choice):
        raise RecordError(f"the answer is number {answers} of {len(choice)} choices, in {short(item)}.")
    return choice[answers]


def _weighted(answers: list[Any], weights: Any) -> list[Any]:
    """Answers repeated in proportion to their weights."""
    if not isinstance(weights, (list, tuple)) or len(weights) != len(answers):
        raise RecordError(f"{len(answers)} answers need as many answer_weights, got {short(weights)}.")
    if not all(_is_number(weight) and weight >= 0 for weight in weights) or not 0 < sum(weights) <= MAX_ANSWER_WEIGHTS:
        raise RecordError(
            f"answer_weights must be numbers from 0 on with a sum above 0 and at most {MAX_ANSWER_WEIGHTS:,}, got "
            f"{short(weights)}."
        )
    counts = [max(1, round(10 * weight)) if weight else 0 for weight in weights]
    if len(set(counts) - {0}) == 1:  # equal weights: each answer once
        counts = [min(count, 1) for count in counts]
    repeated = map(itertools.repeat, answers, counts)
    return list(itertools.chain.from_iterable(repeated))


def _is_number(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, float) and math.isfinite(value)
    )


def _plain(text: str) -> str:
    """A text without byte order marks, which may be inside of a text if files were joined."""
    return text.replace(BYTE_ORDER_MARK, "")


def _unpacked(value: Any) -> Any:
    """A list that is written as JSON, as in a cell of a CSV file; any other value as it is."""
    if isinstance(value, str) and value.lstrip().startswith("[") and value.rstrip().endswith("]"):
        try:
            return parse_json(value, "a list in a text")
        except ValueError as error:
            if not isinstance(error.__cause__, json.JSONDecodeError):
                raise RecordError(str(error)) from error
    return value


def short(value: Any) -> str:
    """A value as text of limited length, for messages."""
    text = _REPR.repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 80
