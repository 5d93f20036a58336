# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""One set of weights for several tasks: what a mixture trains."""

from typing import Any, Literal

from torch import nn
from transformers.trainer_utils import unwrap_peft_model
from transformers.utils import ModelOutput

from ..modeling_valor_base import ValorPreTrainedModel
from ..modeling_valor_heads import (
    HEADS,
    ValorForCaptioning,
    ValorForPreTraining,
    ValorForQuestionAnswering,
)


class ValorForMultitask(ValorForQuestionAnswering, ValorForCaptioning, ValorForPreTraining):
    """VALOR whose every step trains another task.

    All heads have the same parameters, so this class has no others: it only chooses the `forward`. Its checkpoints load
    into any head, and those of any head into it.
    """

    _auto_class = None  # its heads' code can be saved with weights, its own cannot

    def forward(
        self,
        task: Literal["pretraining", "retrieval", "captioning", "question_answering"] = "pretraining",
        **inputs: Any,
    ) -> ModelOutput:
        """The output of the task's own class for `inputs`, which are that class's."""
        return HEADS[task].forward(self, **inputs)


def trained_model(model: nn.Module) -> ValorPreTrainedModel:
    """The model itself, or the one inside of PEFT's adapters.

    Raises:
        ValueError: it is no model of VALOR.
    """
    base = unwrap_peft_model(model)
    if not isinstance(base, ValorPreTrainedModel):
        raise ValueError(f"{type(base).__name__} is not a model of VALOR, so it cannot be trained here.")
    return base


__all__ = ["HEADS", "ValorForMultitask", "trained_model"]
