# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Losses and gradients that are NaN or infinite: such steps are skipped, and several in a row end the training."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


class TrainingDiverged(RuntimeError):
    """The loss or the gradient was not finite for several steps in a row."""


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
        limit: this number of steps in a row raises [`TrainingDiverged`].
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.in_a_row = 0
        self.logged: list[bool] = []

    def update(self, step: int, is_finite: bool, batches: Sequence[TrainedBatch] = ()) -> str | None:
        """Counts a step; returns a warning if it is not finite.

        Args:
            batches: the batches of the step on all ranks; needed if it is not finite.

        Raises:
            TrainingDiverged: there were `limit` such steps in a row.
        """
        self.logged.append(is_finite)
        self.in_a_row = 0 if is_finite else self.in_a_row + 1
        if is_finite:
            return None
        nonfinite = [batch for batch in batches if not batch.is_finite]
        what, samples = ("loss", nonfinite) if nonfinite else ("gradient", batches)
        names = "; ".join(batch.name() for batch in samples)
        if self.in_a_row < self.limit:
            return f"Step {step} is skipped, because its {what} is not finite. Its samples are of {names}."
        raise TrainingDiverged(
            f"The {what} of step {step} is not finite. Its samples are of {names}. It was the last of {self.in_a_row} such "
            "steps in a row (`max_nonfinite_steps`). None of them changed the weights or was saved. Check these samples, "
            "lower the learning rate, or train in bf16 instead of fp16."
        )

    def log(self, logs: dict[str, float]) -> None:
        """Adds the number of steps that were skipped since the last log; the loss is NaN if all of them were."""
        skipped = self.logged.count(False)
        if skipped:
            logs["nonfinite_steps"] = skipped
            if skipped == len(self.logged):
                logs["loss"] = math.nan
        self.logged.clear()


def is_finite(value: Tensor | float) -> bool:
    return math.isfinite(value.item() if isinstance(value, Tensor) else value)


__all__ = ["NonfiniteSteps", "TrainedBatch", "TrainingDiverged"]
