# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Losses and gradients that are no numbers: such steps are skipped, and several in a row end the training."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


class TrainingDiverged(RuntimeError):
    """Loss or gradient were not finite for several steps in a row."""


@dataclass
class TrainedBatch:
    """One batch of a step: its source, the ids of its samples, and whether its loss is finite."""

    source: str
    ids: Sequence[str]
    is_finite: bool = True

    def name(self, most: int = 8) -> str:
        shown = ", ".join(self.ids[:most])
        return f"{self.source!r}: {shown}" + (f" and {len(self.ids) - most} more" if len(self.ids) > most else "")


class NonfiniteSteps:
    """Counts steps without a finite loss and gradient, in a row and since the last log.

    Args:
        limit: so many in a row raise [`TrainingDiverged`].
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.in_a_row = 0
        self.logged: list[bool] = []

    def update(self, step: int, is_finite: bool, batches: Sequence[TrainedBatch] = ()) -> str | None:
        """Counts a step; returns a sentence where it is not finite.

        Args:
            batches: those of the step on all ranks, needed where it is not finite.

        Raises:
            TrainingDiverged: it is the last one that is tolerated.
        """
        self.logged.append(is_finite)
        self.in_a_row = 0 if is_finite else self.in_a_row + 1
        if is_finite:
            return None
        culprits = [batch for batch in batches if not batch.is_finite]
        what, samples = ("loss", culprits) if culprits else ("gradient", batches)
        names = "; ".join(batch.name() for batch in samples)
        if self.in_a_row < self.limit:
            return f"Step {step} is left out, because its {what} is not finite, with the samples of {names}."
        raise TrainingDiverged(
            f"The {what} of step {step} is not finite, with the samples of {names}. It is the last of {self.in_a_row} "
            f"such steps in a row (`max_nonfinite_steps`), of which none has changed the weights or was saved. Look at "
            "these samples, lower the learning rate, or train in bf16 rather than fp16."
        )

    def log(self, logs: dict[str, float]) -> None:
        """Adds how many steps were left out since the last log; where all were, the loss is no number either."""
        left_out = self.logged.count(False)
        if left_out:
            logs["nonfinite_steps"] = left_out
            if left_out == len(self.logged):
                logs["loss"] = math.nan
        self.logged.clear()


def is_finite(value: Tensor | float) -> bool:
    return math.isfinite(value.item() if isinstance(value, Tensor) else value)


__all__ = ["NonfiniteSteps", "TrainedBatch", "TrainingDiverged"]
