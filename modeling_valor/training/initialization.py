# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The model that a training starts with: new, from a checkpoint, or with parts from checkpoints of their own."""

from collections.abc import Mapping
from typing import Any

from ..configuration_valor import ValorConfig
from ..modeling_valor_decoder import ValorDecoderModel
from ..processing_valor import ValorProcessor
from ..video_processing_valor import ValorVideoProcessor
from .arguments import ModelArguments, json_object
from .multitask import HEADS, ValorForMultitask
from .pretrained_parts import (
    build_parts_config,
    fit_processor,
    load_audio_model,
    load_processor,
    load_text_model,
    load_vision_model,
)


def build_model(args: ModelArguments, task: str | None) -> tuple[ValorDecoderModel, ValorProcessor]:
    """The model for a task (None: for several), new or from a checkpoint, and its processor; see [`initialize_model`]."""
    return initialize_model(args, task)[:2]


def initialize_model(args: ModelArguments, task: str | None) -> tuple[ValorDecoderModel, ValorProcessor, set[str]]:
    """The model for a task (None: for several), its processor, and the names of parameters that no checkpoint had.

    Raises:
        ValueError: neither a checkpoint, nor a configuration, nor a `text_model` is given, or the video processor has no
            such field.
    """
    source = args.model_name_or_path or args.config_name
    if source is None and args.text_model is None:
        raise ValueError(
            "Give a checkpoint as `model_name_or_path`, or for a new model the checkpoints that its parts start from "
            "(`text_model`, `vision_model`, `audio_model`), its `config_name`, or both."
        )
    head = ValorForMultitask if task is None else HEADS[task]
    if args.processor_name is not None:
        processor = ValorProcessor.from_pretrained(args.processor_name)
    else:
        processor = load_processor(source, args.text_model, args.vision_model)
    if args.model_name_or_path is not None:
        model, new = _load_model(head, args.model_name_or_path, args)
    else:
        model, new = _new_model(head, args, processor)
    new -= _load_parts(model, args)
    if changes := json_object("video_processor", args.video_processor):
        processor.video_processor = changed_video_processor(processor.video_processor, changes)
    return model, processor, new & {name for name, _ in model.named_parameters()}


def _load_model(
    head: type[ValorDecoderModel], checkpoint: str, args: ModelArguments
) -> tuple[ValorDecoderModel, set[str]]:
    """A checkpoint as a head, and the names of the tensors that it lacks."""
    config = changed_config(
        ValorConfig.from_pretrained(checkpoint), json_object("config_overrides", args.config_overrides) or {}
    )
    model, info = head.from_pretrained(
        checkpoint, config=config, attn_implementation=args.attn_implementation, output_loading_info=True
    )
    return model, set(info["missing_keys"]) | {name for name, *_ in info["mismatched_keys"]}


def _new_model(
    head: type[ValorDecoderModel], args: ModelArguments, processor: ValorProcessor
) -> tuple[ValorDecoderModel, set[str]]:
    """A head with random weights, and the names of its parameters. Sets the processor, unless it was given, to its sizes."""
    config = build_parts_config(
        args.config_name, args.text_model, args.vision_model, args.audio_model, processor.tokenizer
    )
    config = changed_config(config, json_object("config_overrides", args.config_overrides) or {})
    if args.processor_name is None:
        fit_processor(processor, config, args.config_name)
    model = head._from_config(config, attn_implementation=args.attn_implementation)
    return model, {name for name, _ in model.named_parameters()}


def _load_parts(model: ValorDecoderModel, args: ModelArguments) -> set[str]:
    """Copies the checkpoints of the parts into the model; returns the names of the tensors."""
    loaded: set[str] = set()
    for load, checkpoint in (
        (load_text_model, args.text_model),
        (load_vision_model, args.vision_model),
        (load_audio_model, args.audio_model),
    ):
        if checkpoint is not None:
            loaded |= load(model, checkpoint)
    return loaded


def changed_config(config: ValorConfig, changes: Mapping[str, Any]) -> ValorConfig:
    """The same with other fields. A mapping for a part, such as `text_config`, changes the fields that it names, and where
    it names another `model_type`, it is the whole part.

    Raises:
        ValueError: there is no such field.
    """
    settings = config.to_dict()
    for name, value in changes.items():
        if name not in settings:
            raise ValueError(f"The configuration has no {name}; it has {', '.join(sorted(settings))}.")
        part = settings[name]
        if isinstance(part, dict) and isinstance(value, Mapping):
            kind = part.get("model_type")
            value = {**part, **value} if value.get("model_type", kind) == kind else value
        settings[name] = value
    return ValorConfig.from_dict(settings)


def changed_video_processor(processor: ValorVideoProcessor, changes: Mapping[str, Any]) -> ValorVideoProcessor:
    """The same with other settings, in training, in evaluation and in the saved checkpoint."""
    settings = processor.to_dict()
    if unknown := sorted(set(changes) - set(settings)):
        raise ValueError(f"The video processor has no {', '.join(unknown)}; it has {', '.join(sorted(settings))}.")
    return ValorVideoProcessor(**{**settings, **changes})


__all__ = ["build_model", "changed_config", "changed_video_processor", "initialize_model"]
