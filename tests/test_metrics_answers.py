# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Accuracy of answers against the definition of VQAv2 and hand calculations."""

import random
import string

import pytest

from modeling_valor.evaluation import answer_accuracy, normalize_answer
from modeling_valor.text_cleaning import clean_answer


@pytest.mark.parametrize(
    ("answer", "normalized"),
    [
        ("The two Dogs!", "2 dogs"),
        (" a  violin.\n", "violin"),
        ("none", "0"),
        ("ten", "10"),
        ("dont", "don't"),
        ("it's", "it's"),
        ("black-and-white", "black and white"),
        ("left, right", "left right"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("yes/no", "yes no"),
        ("what?", "what"),
        ("a", ""),
    ],
)
def test_answers_are_compared_as_in_vqav2(answer, normalized):
    assert normalize_answer(answer).strip() == normalized


def test_one_answer_is_an_exact_match():
    result = answer_accuracy(["Two.", "the piano", "guitar"], ["2", "piano", ["drum"]])
    assert result == {"accuracy": pytest.approx(200 / 3)}


HARD = [
    "t-shirt",
    "T-Shirt",
    "yes/no",
    "3.5",
    "1,000",
    "it's",
    "don't",
    "rock 'n' roll",
    "black-and-white",
    "$5",
    "a/c",
]


@pytest.mark.parametrize("answer", HARD)
def test_an_answer_in_the_form_of_training_is_right(answer):
    """What a perfectly trained model writes counts in full, with one annotator and with ten."""
    written = clean_answer(answer)
    assert answer_accuracy([written, written], [answer, [answer] * 10])["accuracy"] == 100


def test_every_answer_is_right_in_the_form_of_training():
    draw = random.Random(0)
    marks = string.punctuation + string.ascii_letters + "0123456789  éß"
    answers = ["".join(draw.choices(marks, k=draw.randint(1, 12))) for _ in range(500)]
    assert answer_accuracy([clean_answer(answer) for answer in answers], answers)["accuracy"] == 100


def test_other_forms_stay_wrong():
    assert answer_accuracy(["tshirt", "shirt", "t", "35"], ["t shirt", "t-shirt", "t-shirt", "3,6"])["accuracy"] == 0


@pytest.mark.parametrize("equal", range(11))
def test_several_answers_are_the_mean_over_leaving_each_out(equal):
    answers = ["red"] * equal + ["blue", "green", "grey", "pink", "white", "black", "gold", "tan", "teal", "plum"][
        equal:
    ]
    rest = [answers[:left] + answers[left + 1 :] for left in range(10)]
    expected = sum(min(1, others.count("red") / 3) for others in rest) / 10
    assert answer_accuracy(["red"], [answers])["accuracy"] == pytest.approx(100 * expected)


def test_types_are_reported_at_every_level():
    types = [("Audio", "Counting"), ("Audio", "Comparative"), ("Visual", "Counting"), "Other"]
    result = answer_accuracy(["one", "yes", "two", "no"], ["one", "no", "two", "no"], types)
    assert result["accuracy"] == 75
    assert result["accuracy_by_type"] == {
        "Audio": 50,
        "Audio/Comparative": 0,
        "Audio/Counting": 100,
        "Other": 100,
        "Visual": 100,
        "Visual/Counting": 100,
    }


@pytest.mark.parametrize(
    ("predictions", "answers", "types", "message"),
    [
        (["a"], ["a", "b"], None, "1 predictions, 2 answers"),
        (["a"], ["a"], ["x", "y"], "2 types"),
        ([], [], None, "0 predictions"),
        (["a"], [[]], None, "Question 0 has no answer"),
    ],
)
def test_unfit_answers_are_named(predictions, answers, types, message):
    with pytest.raises(ValueError, match=message):
        answer_accuracy(predictions, answers, types)
