# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Texts as the 2023 code gives them to its tokenizer, so that released checkpoints get the same input as in training."""

import re
import string


_MARKS = str.maketrans("", "", string.punctuation)
_SPACES = re.compile(" +")


def clean_caption(text: str) -> str:
    """The caption in lower case, without ASCII punctuation, and with single spaces between its words.

    This is the 2023 loader's convention. Each of the 32 marks of `string.punctuation` is taken out and nothing is put in
    its place, so that "a well-lit room" becomes "a welllit room", "red/blue" "redblue" and "it's" "its". Letters beyond
    ASCII, and marks beyond ASCII such as a curly quotation mark, stay.

    The 2023 code collapses spaces before it takes marks out, so it leaves two spaces where a mark stood alone; here they
    are collapsed last, which makes no difference to a tokenizer. Tabs and line breaks count as characters of a word, as
    they did.
    """
    return _SPACES.sub(" ", text.lower().translate(_MARKS)).strip(" ")


def clean_question(text: str) -> str:
    """A question as the 2023 loader cleans it, which is as a caption: "What's on the table?" -> "whats on the table"."""
    return clean_caption(text)


def clean_answer(text: str) -> str:
    """An answer as the 2023 loader cleans those it trains on, which is as a caption: "t-shirt" -> "tshirt".

    Answers to compare with stay as they are annotated. The 2023 evaluation wants them to be equal to the generated text
    letter by letter, so that "t-shirt" was never right; `modeling_valor.evaluation.answer_accuracy` compares them as VQAv2
    does, and takes this form of an answer for the answer.
    """
    return clean_caption(text)
