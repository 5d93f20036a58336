# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The metrics of the paper's tables, and the statistics of its Table 1.

Each is also a module of the `evaluate` library, which loads from the installed package without a network:
`evaluate.load(str(EVALUATE_MODULES / "valor_captioning"))`.
"""

import importlib
from pathlib import Path
from typing import Any

from .metrics import (
    CAPTION_METRICS,
    answer_accuracy,
    caption_metrics,
    normalize_answer,
    retrieval_metrics,
    retrieval_metrics_in_blocks,
    tokenize,
)
from .statistics import (
    PAPER_STATISTICS,
    audio_concept_density,
    audio_concepts,
    caption_length,
    caption_statistics,
    read_captions,
)


EVALUATE_MODULES = Path(__file__).parent / "evaluate_modules"
"""Folder of the `evaluate` modules: `valor_retrieval`, `valor_captioning`, `valor_answers`, `valor_audio_concepts`."""

# Imported on first use, because they import the models
_MODULE_OF = {
    "Evaluation": ".results",
    "MediaOptions": ".options",
    "TextOptions": ".options",
    "evaluate_captioning": ".generate",
    "evaluate_question_answering": ".generate",
    "evaluate_retrieval": ".retrieve",
}

__all__ = [
    *_MODULE_OF,
    "CAPTION_METRICS",
    "EVALUATE_MODULES",
    "PAPER_STATISTICS",
    "answer_accuracy",
    "audio_concept_density",
    "audio_concepts",
    "caption_length",
    "caption_metrics",
    "caption_statistics",
    "normalize_answer",
    "read_captions",
    "retrieval_metrics",
    "retrieval_metrics_in_blocks",
    "tokenize",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name], __name__), name)
