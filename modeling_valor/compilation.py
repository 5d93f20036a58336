# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Compiled layers of encoders and decoder, in place of a compiled model."""

from contextlib import AbstractContextManager
from typing import cast

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .modeling_valor_video_swin import ValorVideoSwinBlock


RECOMPILE_LIMIT = 64


def compile_layers(model: nn.Module, backend: str = "inductor") -> int:
    """Has `torch.compile` compile each layer of the encoders and of the decoder, at its first step; returns how many.

    All layers of a kind share one compiled program, so it takes as long as a few layers, and what depends on a batch, such
    as which samples have audio, stays in Python. Parameters keep their names, and FSDP and DDP their hooks.
    """
    # transformers wraps the `forward` of all kinds of layers in one function, whose programs are counted together
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILE_LIMIT)
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        # Swin's layers differ in width, and with a symbol for each width Inductor reasons for minutes
        layer.compile(backend=backend, dynamic=False if isinstance(layer, ValorVideoSwinBlock) else None)
    return len(layers)


def without_compiled_layers() -> AbstractContextManager[None]:
    """Compiled layers run as they are written: decoding would compile them for each length of a text."""
    return cast(AbstractContextManager[None], torch.compiler.set_stance("force_eager"))


__all__ = ["compile_layers", "without_compiled_layers"]
