# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Pretrained parts of a new model (section 4.1): BERT as text encoder and decoder, CLIP or Video Swin, and AST.

New layers keep their random weights: cross-attention, projections, token weights, and the decoder's positions of frames and audio clips.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForMaskedLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, SizeDict
from transformers.utils import logging

from ..configuration_parts import config_fields, load_part_config
from ..configuration_valor import ValorConfig
from ..conversion.files import read_torch_file
from ..conversion.sizes import video_swin_sizes
from ..conversion.tensors import new_name
from ..feature_extraction_valor import ValorFeatureExtractor
from ..modeling_valor import ValorModel
from ..modeling_valor_audio import resize_position_embedding
from ..modeling_valor_decoder import ValorDecoderModel
from ..modeling_valor_heads import ValorForRetrieval
from ..processing_valor import ValorProcessor
from ..tokenization_valor import TASK_PROMPTS, load_tokenizer, translate_prompts
from ..video_processing_valor import ValorVideoProcessor


logger = logging.get_logger(__name__)

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


def build_parts_config(
    source: str | None,
    text_model: str | None,
    vision_model: str | None,
    audio_model: str | None,
    tokenizer: PreTrainedTokenizerBase,
) -> ValorConfig:
    """Configuration of a model that starts from pretrained parts: [`ValorConfig.from_parts`], also for files of Video Swin.

    Args:
        source: a configuration whose other fields are kept; its task prompts get the ids of `tokenizer`.
    """
    fields: dict[str, Any] = {} if source is None else config_fields(ValorConfig.from_pretrained(source))
    # The tokenizer of a CLIP text encoder, while prompts and special tokens are the decoder's
    is_clip = config_fields(fields.get("text_encoder_config")).get("model_type") == "clip_text_model"
    if source is not None and not is_clip:
        prompts = {name: fields[name] for name in TASK_PROMPTS}
        fields |= translate_prompts(prompts, tokenizer, _tokenizer_or_none(source))
    vision: str | dict[str, Any] | None = vision_model
    if vision_model is not None and _is_video_swin_file(vision_model):
        tensors = _video_swin_file(vision_model)
        vision = video_swin_sizes({f"video_encoder.{key}": tensor for key, tensor in tensors.items()})
    return ValorConfig.from_parts(text_model, vision, audio_model, None if is_clip else tokenizer, **fields)


def load_processor(source: str | None, text_model: str | None, vision_model: str | None = None) -> ValorProcessor:
    """The processor of a model that starts from pretrained parts.

    Args:
        source: folder or Hub name of a processor, which need not have a tokenizer; `None`: a new processor.
        text_model: checkpoint of the tokenizer; by default that of `source`.
        vision_model: checkpoint by whose mean and standard deviation pixels are normalised; by default by those of `source`.

    Raises:
        OSError: `text_model` or `source` has no tokenizer.
        ValueError: neither is given.
    """
    if text_model is None:
        if source is None:
            raise ValueError("Give a `source` or a `text_model`, from which the processor takes its tokenizer.")
        processor = ValorProcessor.from_pretrained(source)
    else:
        settings = {} if source is None else ValorProcessor.get_processor_dict(source)[0]
        parts = [
            load_tokenizer(text_model),
            ValorVideoProcessor(**settings.get("video_processor", {})),
            ValorFeatureExtractor(**settings.get("feature_extractor", {})),
        ]
        processor = ValorProcessor.from_args_and_dict(parts, settings)
    if vision_model is not None:
        for name, value in pixel_statistics(vision_model).items():
            setattr(processor.video_processor, name, value)
    return processor


def pixel_statistics(checkpoint: str) -> dict[str, list[float]]:
    """Mean and standard deviation of pixels for a vision encoder, {} and a warning where it comes without them."""
    if _is_video_swin_file(checkpoint):
        return {"image_mean": list(IMAGENET_DEFAULT_MEAN), "image_std": list(IMAGENET_DEFAULT_STD)}
    is_valor = AutoConfig.from_pretrained(checkpoint).model_type == "valor"
    try:
        processor = (ValorVideoProcessor if is_valor else AutoImageProcessor).from_pretrained(checkpoint)
        return {"image_mean": list(processor.image_mean), "image_std": list(processor.image_std)}
    except (OSError, ValueError, AttributeError, TypeError):
        logger.warning(
            f"{checkpoint} comes without an image processor: pixels are normalised as the model's own processor does. Give "
            "`image_mean` and `image_std` in `video_processor` if that is wrong."
        )
        return {}


def fit_processor(processor: ValorProcessor, config: ValorConfig, source: str | None) -> None:
    """Sets the processor of `source`, or a new one, to the frame and spectrogram sizes of a new `config`."""
    before = None if source is None else ValorConfig.from_pretrained(source)
    side = getattr(config.vision_config, "image_size", None)
    if side is not None and (before is None or side != getattr(before.vision_config, "image_size", None)):
        rows, columns = (side, side) if isinstance(side, int) else side
        square = SizeDict(height=rows, width=columns)
        video_processor = processor.video_processor
        video_processor.size = SizeDict(shortest_edge=max(rows, columns)) if video_processor.do_center_crop else square
        video_processor.crop_size = square
    if before is None:
        processor.feature_extractor.feature_size = config.audio_config.num_mel_bins
        processor.feature_extractor.clip_length = config.audio_config.max_length


def load_text_model(model: ValorDecoderModel, checkpoint: str) -> set[str]:
    """Copies BERT into the decoder and its head, and into the text encoder where that is a BERT of its own.

    Returns:
        The names of the tensors that were copied.

    Raises:
        ValueError: the checkpoint is not a BERT, or has another size.
    """
    bert, missing = _load(AutoModelForMaskedLM, checkpoint, load_part_config(checkpoint, "bert"), optional="cls.")
    has_head = hasattr(model, "lm_head") and not isinstance(model, ValorForRetrieval)  # which only keeps one
    if missing and has_head:
        logger.warning(f"{checkpoint} has no head that predicts words: the model's starts from random values.")
    text_encoder = model.valor.text_encoder
    tensors = {}
    for key, tensor in bert.state_dict().items():
        if key.startswith("bert."):
            name = key.removeprefix("bert.")
            tensors[new_name(f"multimodal_encoder.{name}")] = tensor
            if text_encoder is not None and text_encoder.config.model_type == "bert":
                tensors[f"valor.text_encoder.{name}"] = tensor
        for prefix, new_prefix in BERT_HEAD_NAMES.items():
            if key.startswith(prefix) and not missing:
                tensors[key.replace(prefix, new_prefix)] = tensor
    tensors = {key: tensor for key, tensor in tensors.items() if has_head or key.startswith("valor.")}
    _copy(model, tensors, checkpoint)
    return set(tensors)


def load_vision_model(model: ValorDecoderModel, checkpoint: str) -> set[str]:
    """Copies a vision encoder, or that of a CLIP or another VALOR, into the model. Positions of CLIP are resized to the
    model's resolution.

    Args:
        checkpoint: a checkpoint of transformers, or a file (.pth, .pt) of the authors of Video Swin.

    Returns:
        The names of the tensors that were copied.

    Raises:
        ValueError: the checkpoint is of another kind or size.
    """
    vision_model = model.valor.vision_model
    config = vision_model.config
    if _is_video_swin_file(checkpoint):
        tensors = {
            new_name(f"video_encoder.{key}").removeprefix("valor.vision_model."): tensor
            for key, tensor in _video_swin_file(checkpoint).items()
        }
    else:
        pretrained = _vision_encoder(checkpoint, type(config))
        tensors, own_config = pretrained.state_dict(), pretrained.config
        if config.model_type == "clip_vision_model":
            old, new = (2 * [c.image_size // c.patch_size] for c in (own_config, config))
            tensors[POSITIONS] = resize_position_embedding(tensors[POSITIONS], old, new)
    _copy(vision_model, tensors, checkpoint, complete=True)
    return {f"valor.vision_model.{name}" for name in tensors}


def load_audio_model(model: ValorDecoderModel, checkpoint: str) -> set[str]:
    """Copies an AST into the audio encoder as the 2023 code does: without its distillation token, and with the positions of
    its overlapping patches resized to the grid of those here.

    Returns:
        The names of the tensors that were copied.

    Raises:
        ValueError: the checkpoint is not an AST, or has another size.
    """
    audio_model = model.valor.audio_model
    pretrained, _ = _load(AutoModel, checkpoint, load_part_config(checkpoint, "audio-spectrogram-transformer"))
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
    return {f"valor.audio_model.{name}" for name in tensors}


def _vision_encoder(checkpoint: str, config_class: type[PreTrainedConfig]) -> PreTrainedModel:
    if AutoConfig.from_pretrained(checkpoint).model_type == "valor":
        return ValorModel.from_pretrained(checkpoint, dtype=torch.float32).vision_model
    return _load(AutoModel, checkpoint, config_class.from_pretrained(checkpoint))[0]


def _load(
    auto_class: type[AutoModel] | type[AutoModelForMaskedLM],
    checkpoint: str,
    config: PreTrainedConfig,
    optional: str | None = None,
) -> tuple[PreTrainedModel, list[str]]:
    """The model of `config` from a checkpoint that may hold other parts, which are ignored; and the names of missing tensors.

    Raises:
        ValueError: tensors are missing whose names do not begin with `optional`.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # transformers lists the tensors of the other parts, such as CLIP's text encoder
    try:
        model, info = auto_class.from_pretrained(
            checkpoint, config=config, dtype=torch.float32, output_loading_info=True
        )
    finally:
        logging.set_verbosity(verbosity)
    missing = sorted(info["missing_keys"])
    if needed := [key for key in missing if optional is None or not key.startswith(optional)]:
        raise ValueError(
            f"{checkpoint} has no {config.model_type}: it lacks {len(needed)} of its tensors, such as {needed[:3]}."
        )
    return model, missing


def _tokenizer_or_none(source: str) -> PreTrainedTokenizerBase | None:
    try:
        return load_tokenizer(source)
    except OSError:
        return None


def _is_video_swin_file(checkpoint: str) -> bool:
    return Path(checkpoint).suffix in (".pth", ".pt")


def _video_swin_file(path: str) -> dict[str, Tensor]:
    """Tensors of Video Swin in a file of its authors, of a classifier or of the backbone alone."""
    content = read_torch_file(path)
    content = content.get("state_dict", content)
    backbone = {
        key.removeprefix("backbone."): tensor for key, tensor in content.items() if key.startswith("backbone.")
    }
    return {
        key: tensor for key, tensor in (backbone or content).items() if not key.endswith(".relative_position_index")
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


__all__ = [
    "build_parts_config",
    "fit_processor",
    "load_audio_model",
    "load_processor",
    "load_text_model",
    "load_vision_model",
]
