# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Training: the Trainer, contrastive batches larger than memory, several tasks on one set of weights."""

import warnings
from typing import Any

from .arguments import ValorTrainingArguments
from .gradient_cache import gradient_cached_step
from .multitask import HEADS, ValorForMultitask
from .nonfinite import TrainingDiverged
from .self_critical import CiderReward, SelfCriticalTrainer
from .trainer import EvaluationFunction, ValorTrainer


__all__ = [
    "HEADS",
    "CiderReward",
    "EvaluationFunction",
    "SelfCriticalTrainer",
    "TrainingDiverged",
    "ValorForMultitask",
    "ValorTrainer",
    "ValorTrainingArguments",
    "gradient_cached_step",
]


def __getattr__(name: str) -> Any:
    if name != "Evaluation":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(
        "`training.Evaluation` is now called `EvaluationFunction`; the old name goes with the next version.",
        FutureWarning,
        stacklevel=2,
    )
    return EvaluationFunction
