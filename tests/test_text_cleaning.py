# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Cleaning of texts against a slow reading of the 2023 convention, and examples by hand."""

import string

import pytest

from modeling_valor.text_cleaning import clean_answer, clean_caption, clean_question


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("A dog barks.", "a dog barks"),
        ("  A  dog   barks ", "a dog barks"),
        ("a well-lit room, red/blue", "a welllit room redblue"),
        ("It's 5 o'clock - isn't it?!", "its 5 oclock isnt it"),
        ("rock & roll", "rock roll"),
        ("electric_bass", "electricbass"),
        ("Ein Café “heute”", "ein café “heute”"),
        ("a\tdog\nbarks", "a\tdog\nbarks"),
        (string.punctuation, ""),
        ("", ""),
    ],
)
def test_captions_lose_case_marks_and_spaces(text, cleaned):
    assert clean_caption(text) == cleaned
    assert clean_caption(cleaned) == cleaned


def test_words_are_those_of_one_mark_after_another(shared):
    """Marks taken out in turn, as the 2023 code does it; what is left is compared as a tokenizer would split it."""
    files = [*shared.glob("annotations/*/*.csv"), *shared.glob("annotations/*/*.json")]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()[::50]]
    assert len(lines) > 1000
    for line in lines:
        slow = " ".join(word for word in line.split(" ") if word).lower()
        for mark in string.punctuation:
            slow = slow.replace(mark, "")
        assert clean_caption(line).split() == slow.split()


def test_questions_and_answers_are_cleaned_alike():
    assert clean_question("What's on the table?") == "whats on the table"
    assert clean_answer("T-shirt") == "tshirt"
