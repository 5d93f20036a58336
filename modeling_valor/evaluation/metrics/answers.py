# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Accuracy of answers, with the normalisation and the soft accuracy of VQAv2."""

import re
from collections import defaultdict
from collections.abc import Sequence

from ...text_cleaning import clean_answer


_NUMBER_WORDS = "zero one two three four five six seven eight nine ten"
_CONTRACTIONS = (
    "ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's i'm "
    "i've isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've "
    "shouldn't that'd that's there'd there're there's they'd they'll they're they've 'twas wasn't we'd've we've "
    "weren't what'll what're what's what've when's where'd where's where've who'd who'll who's who've why'll why're "
    "why's won't would've wouldn't y'all you'd you'll you're you've"
)
_NUMBERS = {word: str(number) for number, word in enumerate(_NUMBER_WORDS.split())} | {"none": "0"}
_WITH_APOSTROPHE = {word.replace("'", ""): word for word in _CONTRACTIONS.split()}
_ARTICLES = {"a", "an", "the"}

_COMMA_OF_NUMBER = re.compile(r"(?<=\d),(?=\d)")
_PERIOD = re.compile(r"\.(?!\d)")
_MARKS = ';/[]"{}()=+\\_-><@`,?!'


def normalize_answer(answer: str) -> str:
    """The answer as VQAv2's evaluation compares it: "The two dogs!" becomes "2 dogs".

    Lower case; no articles, full stops or other marks (a mark between two words becomes a space, as does a hyphen);
    number words up to ten become digits, and contractions get their apostrophe.
    """
    text = answer.replace("\n", " ").replace("\t", " ").strip()
    has_grouped_number = bool(_COMMA_OF_NUMBER.search(text))
    result = text
    for mark in _MARKS:
        beside_space = mark + " " in text or " " + mark in text
        result = result.replace(mark, "" if beside_space or has_grouped_number else " ")
    words = (_NUMBERS.get(word, word) for word in _PERIOD.sub("", result).lower().split())
    return " ".join(_WITH_APOSTROPHE.get(word, word) for word in words if word not in _ARTICLES)


def answer_accuracy(
    predictions: Sequence[str],
    answers: Sequence[str | Sequence[str]],
    types: Sequence[str | Sequence[str]] | None = None,
) -> dict[str, float | dict[str, float]]:
    """{"accuracy": percent} of the questions, and {"accuracy_by_type": {type: percent}} where `types` is given.

    One answer to a question (a string, or a list of one) is an exact match after `normalize_answer`. Several are
    VQAv2's soft accuracy, made for ten: min(1, equal answers / 3), averaged over leaving each answer out in turn.
    Both sides are always normalised; VQAv2's program skips that where all answers of a question are the same.

    The cleaned form of an answer, on which models are trained (`text_cleaning.clean_answer`), is accepted, too: a model that
    was trained on "t-shirt" writes "tshirt", which VQAv2's program would reject.

    A type is a string, or a sequence from the general to the particular: ("Audio", "Counting") counts for "Audio" and
    for "Audio/Counting".

    Raises:
        ValueError: If the lists differ in length, or a question has no answer.
    """
    types = [()] * len(predictions) if types is None else types
    if not predictions or not len(predictions) == len(answers) == len(types):
        raise ValueError(
            f"Got {len(predictions)} predictions, {len(answers)} answers and {len(types)} types; "
            "every question needs one of each, and there must be at least one question."
        )
    scores = score_answers(predictions, answers)
    result: dict[str, float | dict[str, float]] = {"accuracy": mean_percent(scores)}
    if by_type := accuracy_by_type(scores, types):
        result["accuracy_by_type"] = by_type
    return result


def score_answers(predictions: Sequence[str], answers: Sequence[str | Sequence[str]]) -> list[float]:
    """The score of each question from 0 to 1; arguments and errors are those of [`answer_accuracy`]."""
    scores = []
    for question, (prediction, given) in enumerate(zip(predictions, answers, strict=True)):
        given = [given] if isinstance(given, str) else given
        if not given:
            raise ValueError(f"Question {question} has no answer; leave it out or add one.")
        scores.append(_soft_accuracy(normalize_answer(prediction), [_accepted_forms(answer) for answer in given]))
    return scores


def accuracy_by_type(scores: Sequence[float], types: Sequence[str | Sequence[str]]) -> dict[str, float]:
    """Mean score of each type in percent, sorted by name; `types` are those of [`answer_accuracy`]."""
    by_type: dict[str, list[float]] = defaultdict(list)
    for score, kind in zip(scores, types, strict=True):
        levels = [kind] if isinstance(kind, str) else list(kind)
        for depth in range(1, len(levels) + 1):
            by_type["/".join(levels[:depth])].append(score)
    return {name: mean_percent(by_type[name]) for name in sorted(by_type)}


def mean_percent(scores: Sequence[float]) -> float:
    """The mean of scores from 0 to 1, in percent."""
    return 100 * sum(scores) / len(scores)


def _accepted_forms(answer: str) -> set[str]:
    """The answer as written, and as cleaned for training."""
    return {normalize_answer(answer), normalize_answer(clean_answer(answer))}


def _soft_accuracy(prediction: str, answers: list[set[str]]) -> float:
    """1 or 0 for a single answer; for several, the mean of min(1, equal / 3) over all subsets without one answer."""
    equal = sum(prediction in forms for forms in answers)
    if len(answers) == 1:
        return float(equal)
    left_equal, left_other = min(1.0, (equal - 1) / 3), min(1.0, equal / 3)
    return (equal * left_equal + (len(answers) - equal) * left_other) / len(answers)
