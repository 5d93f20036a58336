# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Vision encoders of VALOR under one call: frames in, tokens and global features out (sections 4.1, 4.2)."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only
from transformers import MODEL_MAPPING, AutoModel, CLIPVisionConfig, CLIPVisionModel, PreTrainedConfig, PreTrainedModel
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.clip.modeling_clip import CLIPVisionEmbeddings
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, logging
from transformers.utils.generic import is_flash_attention_requested, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .alignment_ranks import is_distributed
from .modeling_valor_audio import resize_position_embedding
from .modeling_valor_video_swin import ValorVideoSwinModel


logger = logging.get_logger(__name__)


class ValorCLIPVisionEmbeddings(CLIPVisionEmbeddings):
    """CLIP's embeddings, resized to another resolution as in the 2023 code: bilinear, where CLIP's own is bicubic."""

    image_size: int
    patch_size: int

    def interpolate_pos_encoding(self, embeddings: torch.Tensor, height: int, width: int) -> torch.Tensor:
        side = self.image_size // self.patch_size
        new_grid = (height // self.patch_size, width // self.patch_size)
        return resize_position_embedding(self.position_embedding(self.position_ids[0]), (side, side), new_grid)


class ValorCLIPVisionModel(CLIPVisionModel):
    """CLIP's vision transformer as VALOR-large uses it (section 4.1); the tensors are those of [`CLIPVisionModel`].

    It differs in two points: images of any size are accepted without asking for it, and the last norm is applied to
    every token, because the decoder attends to all of them.
    """

    config: CLIPVisionConfig
    base_model_prefix = "vision_model"
    _no_split_modules = ["ValorCLIPVisionEmbeddings", "CLIPEncoderLayer"]
    _can_compile_fullgraph = True

    def __init__(self, config: CLIPVisionConfig):
        super().__init__(config)
        self.embeddings = ValorCLIPVisionEmbeddings(config)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> BaseModelOutputWithPooling:
        r"""Encodes images, each by itself.

        Args:
            pixel_values (`torch.Tensor` of shape `(images, channels, height, width)`): normalised pixels.

        Returns:
            `last_hidden_state` of shape `(images, 1 + patches, hidden_size)`, normalised, and `pooler_output` of shape
            `(images, hidden_size)`, its class token.
        """
        hidden_states = self.pre_layrnorm(self.embeddings(pixel_values, interpolate_pos_encoding=True))
        hidden_states = self.encoder(inputs_embeds=hidden_states, **kwargs).last_hidden_state
        last_hidden_state = self.post_layernorm(hidden_states)
        return BaseModelOutputWithPooling(last_hidden_state=last_hidden_state, pooler_output=last_hidden_state[:, 0])


VISION_MODELS: dict[str, type[PreTrainedModel]] = {
    "clip_vision_model": ValorCLIPVisionModel,
    "valor_video_swin": ValorVideoSwinModel,
}
"""Vision encoders of the paper by `model_type`; any other one is what AutoModel makes of its configuration."""


def supported_attention(model_class: type[PreTrainedModel], requested: str | None) -> str | None:
    """The attention implementation of a part if `requested` is that of the whole model; a warning if it is another one."""
    if requested is None:
        return None
    if is_flash_attention_requested(requested_attention_implementation=requested):
        supported = model_class._supports_flash_attn
    else:
        supported = "flex_attention" not in requested or model_class._supports_flex_attn
    if supported:
        return requested
    fallback = "sdpa" if model_class._supports_sdpa else "eager"
    logger.warning_once(
        f"{model_class.__name__} does not support {requested} and uses {fallback}; the other parts use it."
    )
    return fallback


def build_part(config: PreTrainedConfig, **kwargs: Any) -> PreTrainedModel:
    """Model of a part that AutoModel knows, with random weights, with the dtype of `config` and, if the model supports it, its
    attention implementation.

    Raises:
        ValueError: if `config` belongs to no model that AutoModel knows.
    """
    model_class = VISION_MODELS.get(config.model_type) or MODEL_MAPPING.get(type(config), None)
    if isinstance(model_class, type) and issubclass(model_class, PreTrainedModel):
        config._attn_implementation = supported_attention(model_class, config._attn_implementation)
    if config.model_type in VISION_MODELS:
        return VISION_MODELS[config.model_type]._from_config(config, **kwargs)
    return AutoModel.from_config(config, **kwargs)


def build_vision_model(config: PreTrainedConfig) -> PreTrainedModel:
    """Vision encoder of `config` with random weights, as of [`build_part`].

    Raises:
        ValueError: if `config` belongs to no model that AutoModel knows, or to one that needs more than pixels.
    """
    model = build_part(config)
    _, *others = inspect.signature(model.forward).parameters.values()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    needed = [other.name for other in others if other.default is inspect.Parameter.empty and other.kind in named]
    if needed:
        raise ValueError(
            f"The vision encoder {config.model_type!r} cannot be used: besides pixels it needs {', '.join(needed)}."
        )
    return model


def vision_hidden_size(config: PreTrainedConfig) -> int:
    """Width of the tokens that the vision encoder of `config` returns.

    Raises:
        ValueError: if the configuration has neither `hidden_size` nor `hidden_sizes`.
    """
    for name in ("hidden_size", "hidden_sizes"):
        size = getattr(config, name, None)
        if size is not None:
            return size if isinstance(size, int) else size[-1]
    raise ValueError(
        f"The vision encoder {config.model_type!r} cannot be used: its configuration states neither `hidden_size` nor "
        "`hidden_sizes`, so the width of its tokens is unknown."
    )


def encodes_frames_together(vision_model: PreTrainedModel) -> bool:
    """Whether the encoder takes videos, as Video Swin does, rather than images."""
    return vision_model.main_input_name == "pixel_values_videos"


def has_class_token(vision_model: PreTrainedModel) -> bool:
    """Whether the first of the encoder's tokens stands for the whole image."""
    embeddings = getattr(vision_model, "embeddings", None)
    return any(getattr(embeddings, name, None) is not None for name in ("cls_token", "class_embedding"))


def encoded_frame_mask(config: PreTrainedConfig, frame_mask: torch.Tensor) -> torch.Tensor:
    """Which of the frames that [`encode_frames`] returns are valid, (B, F) to (B, ceil(F / stride)).

    With a temporal stride of 1, and for all image encoders, this is `frame_mask` itself. With a larger one the valid
    frames of a sample are encoded as if they were consecutive, and a result keeps the place of its first frame.
    """
    stride = getattr(config, "temporal_stride", 1)
    if stride == 1:
        return frame_mask
    starts = frame_mask & ((frame_mask.cumsum(dim=1) - 1) % stride == 0)
    return nn.functional.pad(starts, (0, -starts.shape[1] % stride)).unflatten(1, (-1, stride)).any(dim=2)


def encode_images(
    vision_model: PreTrainedModel, pixel_values: torch.Tensor, **kwargs: Any
) -> BaseModelOutputWithPooling:
    """Tokens and global feature of each image, (N, 3, H, W) to (N, T, C) and (N, C), from any vision encoder, and its
    hidden states and attentions where they are asked for.

    Feature maps count as tokens in row-major order. The global feature is the class token where the encoder has one,
    else the mean over the tokens (section 4.2: "global average pooling or using CLS token feature").
    """
    if "interpolate_pos_encoding" in inspect.signature(vision_model.forward).parameters:
        size = vision_model.config.image_size
        trained_size = (size, size) if isinstance(size, int) else tuple(size)
        kwargs["interpolate_pos_encoding"] = trained_size != tuple(pixel_values.shape[2:])
    outputs = vision_model(pixel_values.to(vision_model.dtype), **kwargs)
    tokens = outputs.last_hidden_state
    if tokens.ndim == 4:
        tokens = tokens.flatten(2).transpose(1, 2)
    width = vision_hidden_size(vision_model.config)
    if tokens.shape[0] != pixel_values.shape[0] or tokens.shape[2] != width:
        raise ValueError(
            f"The vision encoder {vision_model.config.model_type!r} returns {tuple(tokens.shape)} for {len(pixel_values)} "
            f"images, but (images, tokens, {width}) is needed: it cannot be used."
        )
    return BaseModelOutputWithPooling(
        last_hidden_state=tokens,
        pooler_output=tokens[:, 0] if has_class_token(vision_model) else tokens.mean(dim=1),
        hidden_states=getattr(outputs, "hidden_states", None),
        attentions=getattr(outputs, "attentions", None),
    )


def encode_each(
    encode: Callable[[torch.Tensor], BaseModelOutputWithPooling], items: torch.Tensor, mask: torch.Tensor | None
) -> BaseModelOutputWithPooling:
    """Encodes frames or audio clips, (B, F, ...), each by itself: results (B, F, ...), zero where `mask`, (B, F), is False.

    Masked ones never reach the encoder, so that what they hold changes nothing. A batch without any valid one costs a pass
    of zero gradient over zeros: ranks of a distributed training run the same modules.

    Args:
        encode: takes (N, ...) and returns results (N, ...).
    """
    if mask is None or mask.all():
        return tree_map_only(
            torch.Tensor, lambda result: result.unflatten(0, items.shape[:2]), encode(items.flatten(0, 1))
        )
    mask = mask.bool()
    results = encode(items[mask] if mask.any() else torch.zeros_like(items[:1, 0]))
    encoded = tree_map_only(torch.Tensor, lambda result: result.new_zeros(*mask.shape, *result.shape[1:]), results)
    if not mask.any():
        return tree_map(add_zero_gradient, encoded, results)
    for target, result in zip(tensors_of(encoded), tensors_of(results), strict=True):
        target[mask] = result
    return encoded


def tensors_of(outputs: BaseModelOutputWithPooling) -> list[torch.Tensor]:
    """All tensors of an encoder's outputs; of `output_hidden_states=[0, 2]`, the hidden states in between are `None`."""
    return [leaf for leaf in tree_leaves(outputs) if leaf is not None]


def add_zero_gradient(target: torch.Tensor | None, result: torch.Tensor | None) -> torch.Tensor | None:
    """`target` itself, with a gradient of zero to what `result` was computed from; both may be `None` (`tensors_of`)."""
    return None if target is None or result is None else target + 0 * result.sum()


def encode_frames(
    vision_model: PreTrainedModel,
    pixel_values_videos: torch.Tensor,
    frame_mask: torch.Tensor | None = None,
    **kwargs: Unpack[TransformersKwargs],
) -> BaseModelOutputWithPooling:
    """Tokens and global feature of each frame, from an encoder of images or of videos.

    Masked frames never reach the encoder, so that what they hold changes nothing: an image encoder sees the valid
    frames of the batch, Video Swin the valid frames of each sample as one video. Samples with the same number of valid
    frames go through Video Swin together; a batch costs one pass per such number. Where its weights are sharded over ranks,
    which gather them together, all ranks run as many passes as the one that needs most.

    Args:
        pixel_values_videos (`torch.Tensor` of shape `(B, F, 3, H, W)`): normalised frames.
        frame_mask (`torch.Tensor` of shape `(B, F)`, *optional*): False or 0 where there is no frame.
        kwargs: passed to the encoder.

    Returns:
        Tokens (B, F, T, C) and global features (B, F, C), zero for masked frames; where they are asked for also
        `hidden_states` and `attentions` of an image encoder, (B, F, ...), or of Video Swin as it returns them. With a
        `temporal_stride` above 1 F becomes ceil(F / stride), and [`encoded_frame_mask`] says which of them are valid.

    Raises:
        ValueError: if the frames have another number of axes, or the mask another shape, or if attentions of Video Swin
            are asked for where frames are masked: samples differ in the windows that attend.
    """
    if pixel_values_videos.ndim != 5:
        raise ValueError(
            "`pixel_values_videos` must be (batch_size, frames, channels, height, width), "
            f"got {tuple(pixel_values_videos.shape)}; an image is a video of one frame."
        )
    if frame_mask is not None and frame_mask.shape != pixel_values_videos.shape[:2]:
        raise ValueError(
            f"`frame_mask` must be (batch_size, frames), here {tuple(pixel_values_videos.shape[:2])}, "
            f"got {tuple(frame_mask.shape)}."
        )
    if encodes_frames_together(vision_model):
        return encode_videos(vision_model, pixel_values_videos, frame_mask, **kwargs)
    return encode_each(partial(encode_images, vision_model, **kwargs), pixel_values_videos, frame_mask)


def encode_videos(
    vision_model: PreTrainedModel, pixel_values_videos: torch.Tensor, frame_mask: torch.Tensor | None, **kwargs: Any
) -> BaseModelOutputWithPooling:
    """`encode_frames` of an encoder of videos: the valid frames of each sample are one video."""
    mask = None if frame_mask is None or frame_mask.all() else frame_mask.bool()
    groups = [] if mask is None else group_by_length(mask)
    passes = 1 if mask is None else len(groups)
    # Before the first pass: afterwards ranks might wait for weights that another one does not gather
    missing = passes_of_all_ranks(vision_model, max(passes, 1), pixel_values_videos.device) - passes
    encoded: BaseModelOutputWithPooling | None = None
    if mask is None:
        encoded = vision_model(pixel_values_videos, **kwargs)
    else:
        encoded_mask = encoded_frame_mask(vision_model.config, mask)
        for length, samples in groups:
            frames = pixel_values_videos[mask & samples[:, None]]
            results = vision_model(frames.unflatten(0, (-1, length)), **kwargs)
            encoded = zeros_for(results, encoded_mask) if encoded is None else encoded
            for target, result in zip(tensors_of(encoded), tensors_of(results), strict=True):
                target[encoded_mask & samples[:, None]] = result.flatten(0, 1)
    # Passes of zero gradient, over one empty frame: ranks of a distributed training run the same modules, also one whose
    # samples have no frames
    for _ in range(missing):
        results = vision_model(torch.zeros_like(pixel_values_videos[:1, :1]), **kwargs)
        encoded = zeros_for(results, encoded_mask) if encoded is None else encoded
        encoded = tree_map(add_zero_gradient, encoded, results)
    return cast(BaseModelOutputWithPooling, encoded)


def zeros_for(results: BaseModelOutputWithPooling, mask: torch.Tensor) -> BaseModelOutputWithPooling:
    """Zeros of the shape that results (n, frames, ...) of videos have in a batch of the mask (B, F): (B, F, ...)."""
    if results.attentions is not None:
        raise ValueError(
            "Video Swin has no common attentions for samples of which frames are masked: give samples with the same "
            "number of frames, without a mask."
        )
    return tree_map_only(torch.Tensor, lambda result: result.new_zeros(*mask.shape, *result.shape[2:]), results)


def group_by_length(frame_mask: torch.Tensor) -> list[tuple[int, torch.Tensor]]:
    """Samples that go through an encoder of videos together, (B,), and how many valid frames each of them has."""
    lengths = frame_mask.sum(dim=1)
    return [(length, lengths == length) for length in lengths.unique().tolist() if length > 0]


def passes_of_all_ranks(vision_model: PreTrainedModel, passes: int, device: torch.device) -> int:
    """The number of passes that this rank must run: its own, or the maximum of all ranks if the weights are sharded."""
    if not is_sharded(vision_model):
        return passes
    most = torch.tensor(passes, device=device)
    torch.distributed.all_reduce(most, op=torch.distributed.ReduceOp.MAX)
    return int(most)


def is_sharded(model: nn.Module) -> bool:
    """Whether the weights are sharded over ranks (FSDP, DeepSpeed ZeRO 3), which gather them at every call of a layer."""
    if not is_distributed():
        return False
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel  # absent in builds without distributed

    fsdp = (FSDPModule, FullyShardedDataParallel)
    return is_deepspeed_zero3_enabled() or any(isinstance(module, fsdp) for module in model.modules())


__all__ = [
    "ValorCLIPVisionModel",
    "build_part",
    "build_vision_model",
    "encode_each",
    "encode_frames",
    "encoded_frame_mask",
    "vision_hidden_size",
]
