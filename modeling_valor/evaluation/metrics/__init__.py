# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The metrics of the paper's tables: retrieval, captioning and answers, without a model."""

from .answers import answer_accuracy, normalize_answer
from .captioning import CAPTION_METRICS, caption_metrics
from .retrieval import retrieval_metrics, retrieval_metrics_in_blocks
from .tokenizer import tokenize


__all__ = [
    "CAPTION_METRICS",
    "answer_accuracy",
    "caption_metrics",
    "normalize_answer",
    "retrieval_metrics",
    "retrieval_metrics_in_blocks",
    "tokenize",
]
