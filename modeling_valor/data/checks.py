# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Checks of a dataset before its media are decoded: whether it has the texts that a task needs."""

import copy
from collections.abc import Sequence
from itertools import islice
from typing import Any

from .readers.records import KEYS
from .samples import Sample, SampleStream, SampleTable, each_sample


MAX_CHECKED = 100
"""Number of samples to check if each has to be read; annotations in memory are all checked."""


def _has_texts(sample: Sample, task: str) -> bool:
    if task == "question_answering":
        return any(question.answers for question in sample.questions)
    return bool(sample.captions)


def check_texts(samples: Sequence[Sample] | SampleStream, task: str, name: str) -> None:
    """Checks that some sample of a dataset, called `name` in the error, has the texts of a task.

    Raises:
        ValueError: no sample has a caption, or for question answering a question with an answer. The message lists the
            columns of the dataset and the accepted ones.
    """
    if isinstance(samples, SampleStream):
        stream: Any = copy.copy(samples)
        stream.shuffle_buffer = 0  # otherwise the buffer is filled before the first sample is returned
        samples = stream
    limit = None if isinstance(samples, (SampleTable, list)) else MAX_CHECKED
    count = 0
    for sample in islice(each_sample(samples), limit):
        count += 1
        if _has_texts(sample, task):
            return
    if count == 0:
        return
    if task == "question_answering":
        what, fields = "question with an answer", ["questions", "answers"]
    else:
        what, fields = "caption", ["captions"]
    accepted = " and ".join(f"{field} ({', '.join(KEYS[field])})" for field in fields)
    columns = ", ".join(getattr(samples, "column_names", None) or ["unknown"])
    raise ValueError(
        f"none of {'the' if limit is None else 'the first'} {count} samples of {name} has a {what}. Its columns are {columns}; "
        f'accepted are {accepted}: rename a column, or name it in a training, such as --columns \'{{"{fields[0]}": "COLUMN"}}\'.'
    )
