# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The model card of a checkpoint that lies in a folder."""

import math
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from safetensors import safe_open

from ..configuration_valor import ValorConfig
from ..model_card import build_model_card
from .files import FolderContents


def build_folder_card(source: str, folder: str | Path, contents: FolderContents, **fields: Any) -> ModelCard:
    """A card for users who load the folder's checkpoint from `source`; `fields` are those of [`build_model_card`]."""
    config = ValorConfig.from_pretrained(folder)
    return build_model_card(
        source,
        config,
        model_class=(config.architectures or ["ValorForPreTraining"])[0],
        num_parameters=count_parameters(contents) or None,
        **fields,
    )


def count_parameters(contents: FolderContents) -> int:
    """Number of parameters in the weights of a folder, read from their headers."""
    total = 0
    for path, file in contents.files.items():
        if path.endswith(".safetensors"):
            with safe_open(str(file), framework="pt") as weights:
                total += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return total
