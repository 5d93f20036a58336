# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What a CUDA graph does, on a CPU: operations recorded once, and repeated on the same tensors."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class RecordedGraph(TorchDispatchMode):
    """Records the operations of PyTorch that run inside; `replay` repeats them and writes to the tensors that they wrote to.

    Reading a value of a tensor raises a `RuntimeError`, as it does while a CUDA graph is recorded.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        outputs = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, outputs))
        return outputs

    def replay(self) -> None:
        for func, args, kwargs, outputs in self.operations:
            repeated = func(*args, **kwargs)
            if any(result.alias_info is not None for result in func._schema.returns):
                continue  # a view of what was recorded, or written in place
            for old, new in zip(tree_leaves(outputs), tree_leaves(repeated), strict=True):
                if isinstance(old, torch.Tensor):
                    old.copy_(new)
