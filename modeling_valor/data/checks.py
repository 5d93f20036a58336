# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What can be known of a dataset before anything is decoded: whether it has the texts that a task needs."""

import copy
from collections.abc import Sequence
from itertools import islice
from typing import Any

from .readers.records import KEYS
from .samples import Sample, SampleStream, SampleTable, each_sample


MOST_LOOKED_AT = 100
"""Samples that are looked at where each has to be read for it; annotations in memory are all looked at."""


def check_texts(samples: Sequence[Sample] | SampleStream, task: str, name: str) -> None:
    """Refuses a dataset, called `name`, in which no sample has what a task trains or measures.

    Raises:
        ValueError: none has a caption, or for question answering none a question with an answer; the message has the
            dataset's columns and those that are accepted.
    """
    if isinstance(samples, SampleStream):
        stream: Any = copy.copy(samples)
        stream.shuffle_buffer = 0  # otherwise as many samples are read before the first one comes
        samples = stream
    limit = None if isinstance(samples, (SampleTable, list)) else MOST_LOOKED_AT
    count = 0
    for sample in islice(each_sample(samples), limit):
        count += 1
        if any(question.answers for question in sample.questions) if task == "question_answering" else sample.captions:
            return
    if count == 0:
        return
    if task == "question_answering":
        what, fields = "question with an answer", ["questions", "answers"]
    else:
        what, fields = "caption", ["captions"]
    accepted = " and ".join(f"{field} ({', '.join(KEYS[field])})" for field in fields)
    columns = ", ".join(getattr(samples, "column_names", None) or ["none that are known"])
    raise ValueError(
        f"none of {'the' if limit is None else 'the first'} {count} samples of {name} has a {what}. Its columns are {columns}; "
        f'accepted are {accepted}: rename a column, or name it in a training, such as --columns \'{{"{fields[0]}": "COLUMN"}}\'.'
    )
