# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Access to an evaluated model, wrapped for training or not: its base model, its heads, evaluation mode."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from ..modeling_valor import ValorModel
from ..modeling_valor_base import ValorPreTrainedModel, to_device
from ..modeling_valor_decoder import ValorDecoderModel
from ..modeling_valor_heads import as_head


Head = TypeVar("Head", bound=ValorDecoderModel)


def unwrapped(model: nn.Module) -> ValorPreTrainedModel:
    """The VALOR model inside of DistributedDataParallel and PEFT."""
    inner: Any = getattr(model, "module", model)
    return cast(ValorPreTrainedModel, inner.get_base_model() if hasattr(inner, "get_base_model") else inner)


def base_model(model: nn.Module) -> ValorModel:
    """The [`ValorModel`] of a head, or of any module that has one as `valor`; the model itself if it is one."""
    model = unwrapped(model)
    return model if isinstance(model, ValorModel) else cast(ValorDecoderModel, model).valor


def with_head(model: nn.Module, head_class: type[Head]) -> Head:
    """The model, or what wraps it for training, as a `head_class`; see [`as_head`]."""
    return as_head(unwrapped(model), head_class)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards each module returns to its previous mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def on_device(inputs: Mapping[str, Tensor], valor: ValorModel) -> dict[str, Any]:
    """Tensors as keyword arguments for the model: on its device, floating-point ones in its dtype."""
    weight = valor.text_projection.weight
    return to_device(inputs, weight.device, weight.dtype)
