# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Compiled layers of encoders and decoder, in place of a compiled model."""

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from itertools import count
from types import FunctionType, MethodType
from typing import Any, cast

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer


RECOMPILE_LIMIT = 64

_numbers = count()


def compile_layers(model: nn.Module, backend: str | Callable[..., Any] = "inductor") -> int:
    """Has `torch.compile` compile each layer of the encoders and of the decoder, at its first step; returns how many.

    All layers of a kind share their compiled programs, so it takes as long as a few layers, and what depends on a batch, such
    as which samples have audio, stays in Python. Parameters keep their names, and hooks of layers, such as those of FSDP, stay
    outside of what is compiled. Call it before the model is sharded or wrapped for several processes.

    A program is compiled again for the first batch of another size, and then takes any size. After `RECOMPILE_LIMIT` programs
    of one kind of layer PyTorch warns, and runs such layers as they are written wherever none of the programs fits.
    """
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, RECOMPILE_LIMIT)
    # DDP would cut programs where its buckets of gradients end, and cannot cut checkpointed ones; layers are short enough
    config.optimize_ddp = False
    # Swin's windows and shifts: with a symbol for each of them, Inductor reasons for minutes
    config.specialize_int = True
    compiled: dict[Hashable, Callable[..., Any]] = {}
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        kind = (type(layer), *((name, parameter.shape) for name, parameter in layer.named_parameters()))
        if kind not in compiled:
            program = torch.compile(_forward_of_kind(type(layer).__name__), backend=backend)
            program.__name__ = "forward"  # by which a pickled layer finds its method, the one that is not compiled
            compiled[kind] = program
        layer.forward = MethodType(compiled[kind], layer)
    return len(layers)


def _forward_of_kind(name: str) -> Callable[..., Any]:
    """A function that calls the `forward` of a layer's class, with code of its own.

    PyTorch counts programs by code, and takes a size that has changed between two calls of it for one that batches change.
    With the code that all layers have in common, the widths of encoders would become symbols.
    """
    return FunctionType(_forward.__code__.replace(co_name=f"{name}_{next(_numbers)}"), globals())


def _forward(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return type(layer).forward(layer, *args, **kwargs)


def without_compiled_layers() -> AbstractContextManager[None]:
    """Compiled layers run as they are written: decoding would compile them for each length of a text."""
    return cast(AbstractContextManager[None], torch.compiler.set_stance("force_eager"))


__all__ = ["compile_layers", "without_compiled_layers"]
