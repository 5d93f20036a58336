# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Configurations of the checkpoints that the parts of a new model start from."""

import os
from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig, PreTrainedConfig


def load_part_config(
    source: str | os.PathLike[str] | PreTrainedConfig, model_type: str | None = None
) -> PreTrainedConfig:
    """Configuration of a checkpoint that a part of VALOR starts from.

    Raises:
        `ValueError`: it is of another type than `model_type`.
    """
    config = source if isinstance(source, PreTrainedConfig) else AutoConfig.from_pretrained(source)
    if model_type is not None and config.model_type != model_type:
        name = type(source).__name__ if isinstance(source, PreTrainedConfig) else source
        raise ValueError(f"{name} is of the type {config.model_type!r}; {model_type!r} is accepted here.")
    return config


def config_fields(config: PreTrainedConfig | Mapping[str, Any] | None) -> dict[str, Any]:
    """Fields of a part, without those that describe the file that they come from."""
    fields = config.to_dict() if isinstance(config, PreTrainedConfig) else dict(config or {})
    return {
        name: value
        for name, value in fields.items()
        if name not in ("_name_or_path", "architectures", "dtype", "transformers_version")
    }


def vision_fields(
    source: str | os.PathLike[str] | PreTrainedConfig | Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Fields of a vision encoder: those of a checkpoint, completed by `given` ones of the same type."""
    if isinstance(source, Mapping):
        found = dict(source)
    else:
        config = load_part_config(source)
        found = config_fields(getattr(config, "vision_config", config))
    if found["model_type"] == "clip_vision_model" and "image_size" in given:
        found["image_size"] = given["image_size"]  # its positions are resized
    if found["model_type"] == "vit_mae":
        found["mask_ratio"] = 0.0  # all patches are seen, unlike in its pretraining
    same = given.get("model_type", found["model_type"]) == found["model_type"]
    return {**given, **found} if same else found


__all__ = ["config_fields", "load_part_config", "vision_fields"]
