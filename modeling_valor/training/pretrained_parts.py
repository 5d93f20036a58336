# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What a new model starts with (section 4.1): BERT as text encoder and decoder, CLIP or Video Swin, and AST.

New layers keep their random values: cross-attention, projections, token weights, and the decoder's frame and clip positions.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, PreTrainedModel

from ..conversion.tensors import new_name
from ..feature_extraction_valor import ValorFeatureExtractor
from ..modeling_valor import ValorModel, ValorPreTrainedModel
from ..modeling_valor_audio import resize_position_embedding
from ..processing_valor import ValorProcessor, load_tokenizer
from ..video_processing_valor import ValorVideoProcessor


POSITIONS = "embeddings.position_embedding.weight"
"""Of CLIP and of the audio encoder: the class token, then a grid of patches."""

BERT_HEAD_NAMES = {
    "cls.predictions.transform.dense.": "lm_head.dense.",
    "cls.predictions.transform.LayerNorm.": "lm_head.norm.",
    "cls.predictions.bias": "lm_head.decoder.bias",
}

AST_NAMES = [
    (r"^embeddings\.cls_token", "embeddings.class_embedding"),
    (r"^embeddings\.patch_embeddings\.projection\.", "embeddings.patch_embedding."),
    (r"^embeddings\.position_embeddings", POSITIONS),
    (r"\.attention\.([qkv])_proj\.", r".self_attn.\1_proj."),
    (r"\.attention\.o_proj\.", ".self_attn.out_proj."),
    (r"\.layernorm_before\.", ".layer_norm1."),
    (r"\.layernorm_after\.", ".layer_norm2."),
    (r"^layernorm\.", "layer_norm."),
]


def load_processor(name: str, text_model: str) -> ValorProcessor:
    """The processor of `name`, a folder that need not have a tokenizer, with the tokenizer of `text_model`.

    Raises:
        OSError: `text_model` has no tokenizer.
    """
    settings, _ = ValorProcessor.get_processor_dict(name)
    parts = [
        load_tokenizer(text_model),
        ValorVideoProcessor(**settings["video_processor"]),
        ValorFeatureExtractor(**settings["feature_extractor"]),
    ]
    return ValorProcessor.from_args_and_dict(parts, settings)


def load_text_model(model: ValorPreTrainedModel, checkpoint: str) -> None:
    """Copies BERT into the decoder and its head, and into the text encoder where that is a BERT of its own.

    Raises:
        ValueError: the checkpoint is not a BERT, or has another size.
    """
    bert = _of_type("bert", AutoModelForMaskedLM, checkpoint).state_dict()
    text_encoder = model.valor.text_encoder
    tensors = {}
    for key, tensor in bert.items():
        if key.startswith("bert."):
            name = key.removeprefix("bert.")
            tensors[new_name(f"multimodal_encoder.{name}")] = tensor
            if text_encoder is not None and text_encoder.config.model_type == "bert":
                tensors[f"valor.text_encoder.{name}"] = tensor
        for prefix, new_prefix in BERT_HEAD_NAMES.items():
            if key.startswith(prefix):
                tensors[key.replace(prefix, new_prefix)] = tensor
    own = model.state_dict().keys()
    _copy(
        model, {key: tensor for key, tensor in tensors.items() if key.startswith("valor.") or key in own}, checkpoint
    )


def load_vision_model(model: ValorPreTrainedModel, checkpoint: str) -> None:
    """
    Copies a vision encoder, or that of a CLIP or another VALOR, into the model. Positions of CLIP are resized to the
    model's resolution.

    Args:
        checkpoint: a checkpoint of transformers, or a file (.pth, .pt) of the authors of Video Swin.

    Raises:
        ValueError: the checkpoint is of another kind or size.
    """
    vision_model = model.valor.vision_model
    config = vision_model.config
    if Path(checkpoint).suffix in (".pth", ".pt"):
        tensors = _video_swin_tensors(checkpoint)
    else:
        pretrained = _vision_encoder(checkpoint, type(config))
        tensors, own_config = pretrained.state_dict(), pretrained.config
        if config.model_type == "clip_vision_model":
            old, new = (2 * [c.image_size // c.patch_size] for c in (own_config, config))
            tensors[POSITIONS] = resize_position_embedding(tensors[POSITIONS], old, new)
    _copy(vision_model, tensors, checkpoint, complete=True)


def load_audio_model(model: ValorPreTrainedModel, checkpoint: str) -> None:
    """
    Copies an AST into the audio encoder as the 2023 code does: without its distillation token, and with the positions of
    its overlapping patches resized to the grid of those here.

    Raises:
        ValueError: the checkpoint is not an AST, or has another size.
    """
    audio_model = model.valor.audio_model
    pretrained = _of_type("audio-spectrogram-transformer", AutoModel, checkpoint)
    tensors = {}
    for key, tensor in pretrained.state_dict().items():
        name = key
        for pattern, replacement in AST_NAMES:
            name = re.sub(pattern, replacement, name)
        tensors[name] = tensor
    del tensors["embeddings.distillation_token"]
    tensors["embeddings.class_embedding"] = tensors["embeddings.class_embedding"].flatten()
    positions, config = tensors[POSITIONS][0], pretrained.config
    positions = torch.cat([positions[:1], positions[2:]])  # without the distillation token's
    rows = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
    grid = (rows, (len(positions) - 1) // rows)
    tensors[POSITIONS] = resize_position_embedding(positions, grid, audio_model.embeddings.grid)
    _copy(audio_model, tensors, checkpoint, complete=True)


def _vision_encoder(checkpoint: str, config_class: type) -> PreTrainedModel:
    if AutoConfig.from_pretrained(checkpoint).model_type == "valor":
        return ValorModel.from_pretrained(checkpoint, dtype=torch.float32).vision_model
    config = config_class.from_pretrained(checkpoint)
    model, info = AutoModel.from_pretrained(checkpoint, config=config, output_loading_info=True)
    if info["missing_keys"]:
        raise ValueError(
            f"{checkpoint} has no {config.model_type}: {sorted(info['missing_keys'])[:3]} and more are missing."
        )
    return model


def _of_type(model_type: str, auto_class: type, checkpoint: str) -> PreTrainedModel:
    found = AutoConfig.from_pretrained(checkpoint).model_type
    if found != model_type:
        raise ValueError(f"{checkpoint} is of the type {found!r}; {model_type!r} is accepted here.")
    return auto_class.from_pretrained(checkpoint, dtype=torch.float32)


def _video_swin_tensors(path: str) -> dict[str, Tensor]:
    content = torch.load(path, map_location="cpu", weights_only=True)
    content = content.get("state_dict", content)
    backbone = {
        key.removeprefix("backbone."): tensor for key, tensor in content.items() if key.startswith("backbone.")
    }
    return {
        new_name(f"video_encoder.{key}").removeprefix("valor.vision_model."): tensor
        for key, tensor in (backbone or content).items()
        if not key.endswith(".relative_position_index")
    }


def _copy(module: nn.Module, tensors: Mapping[str, Tensor], checkpoint: str, complete: bool = False) -> None:
    """Copies tensors into a module that must have them all; with `complete` it has no others."""
    own = module.state_dict()
    wrong = [key for key in tensors if key not in own or own[key].shape != tensors[key].shape]
    missing = sorted(own.keys() - tensors.keys()) if complete else []
    if wrong or missing:
        raise ValueError(
            f"{checkpoint} does not fit the model's configuration: {len(wrong)} of its tensors have no place of their shape "
            f"there, such as {wrong[:3]}, and {len(missing)} are missing, such as {missing[:3]}. Choose a checkpoint of that "
            "kind and size, or change `config_overrides`."
        )
    module.load_state_dict(tensors, strict=False)


__all__ = ["load_audio_model", "load_processor", "load_text_model", "load_vision_model"]
