# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Training: the Trainer, contrastive batches larger than memory, several tasks on one set of weights."""

from .arguments import ValorTrainingArguments
from .gradient_cache import gradient_cached_step
from .multitask import HEADS, ValorForMultitask
from .nonfinite import TrainingDiverged
from .self_critical import CiderReward, SelfCriticalTrainer
from .trainer import Evaluation, ValorTrainer


__all__ = [
    "HEADS",
    "CiderReward",
    "Evaluation",
    "SelfCriticalTrainer",
    "TrainingDiverged",
    "ValorForMultitask",
    "ValorTrainer",
    "ValorTrainingArguments",
    "gradient_cached_step",
]
