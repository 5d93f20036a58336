# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The configuration of a 2023 checkpoint, from the shapes of its tensors and from its options."""

import math
import re
from collections.abc import Mapping
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import BertConfig, BertTokenizer, CLIPTextConfig, CLIPVisionConfig

from ..configuration_valor import ValorAudioConfig, ValorConfig, ValorTextConfig, ValorVideoSwinConfig
from ..tokenization_valor import BERT_BASE_UNCASED_PROMPTS, TASK_PROMPTS, encode_prompts, special_token_ids
from .options import (
    ALIGNMENTS,
    BERT_BASE_UNCASED_SIZE,
    CAPTIONING_OBJECTIVES,
    CROSS_ATTENTION_TYPES,
    ConversionError,
    accepts_hps,
    choose,
    listing,
    read_options,
)
from .tensors import strip_prefix


def size_of(state_dict: Mapping[str, Tensor], key: str, dimension: int) -> int:
    """One size of a tensor that every checkpoint of this layout has."""
    if key not in state_dict:
        raise ConversionError(
            f"This is not a complete VALOR checkpoint of 2023: it has no tensor `{key}`. Its {len(state_dict)} tensors "
            f"begin with {listing(state_dict, 3)}."
        )
    if state_dict[key].ndim <= dimension:
        raise ConversionError(f"The tensor `{key}` has the shape {tuple(state_dict[key].shape)}: too few dimensions.")
    return state_dict[key].shape[dimension]


def count_layers(state_dict: Mapping[str, Tensor], prefix: str) -> int:
    """Different numbers that follow `prefix`."""
    numbers = (re.match(rf"{re.escape(prefix)}(\d+)\.", key) for key in state_dict)
    return len({number[1] for number in numbers if number})


def head_count(options: Mapping[str, Any], part: str, width: int) -> int:
    """Attention heads of a BERT, CLIP or AST stack: 64 wide, unless the options hold `{part}_num_attention_heads`."""
    heads: int = options.get(f"{part}_num_attention_heads", width // 64)
    if heads < 1 or width % heads != 0 or (width % 64 != 0 and f"{part}_num_attention_heads" not in options):
        raise ConversionError(
            f"The {part} stack is {width} wide, which is no multiple of the head width 64: give the number of heads as "
            f"`{part}_num_attention_heads` in the options."
        )
    return heads


def clip_sizes(
    state_dict: Mapping[str, Tensor], options: Mapping[str, Any], prefix: str, part: str, width: int
) -> dict[str, Any]:
    """Fields that both configurations of CLIP share."""
    blocks = f"{prefix}transformer.resblocks."
    return {
        "hidden_size": width,
        "intermediate_size": size_of(state_dict, f"{blocks}0.mlp.c_fc.weight", 0),
        "num_hidden_layers": count_layers(state_dict, blocks),
        "num_attention_heads": head_count(options, part, width),
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    }


def clip_vision_config(state_dict: Mapping[str, Tensor], options: Mapping[str, Any]) -> CLIPVisionConfig:
    """CLIP's vision encoder. Its resolution is that of the position embedding, not that of the options."""
    prefix = "clip_model.visual."
    patches = size_of(state_dict, f"{prefix}positional_embedding", 0) - 1
    side, patch_size = math.isqrt(patches), size_of(state_dict, f"{prefix}conv1.weight", 3)
    if side * side != patches:
        raise ConversionError(
            f"`{prefix}positional_embedding` has {patches} positions of patches, which is no square."
        )
    return CLIPVisionConfig(
        **clip_sizes(state_dict, options, prefix, "vision", size_of(state_dict, f"{prefix}conv1.weight", 0)),
        image_size=side * patch_size,
        patch_size=patch_size,
        projection_dim=size_of(state_dict, f"{prefix}proj", 1),
    )


def video_swin_sizes(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    """Fields of Video Swin that its tensors fix; the number of heads is a dimension of its tables of relative positions."""
    prefix = "video_encoder."
    embed_dim = size_of(state_dict, f"{prefix}patch_embed.proj.weight", 0)
    tables = [
        f"{prefix}layers.{stage}.blocks.0.attn.relative_position_bias_table"
        for stage in range(count_layers(state_dict, f"{prefix}layers."))
    ]
    return {
        "model_type": ValorVideoSwinConfig.model_type,
        "patch_size": [size_of(state_dict, f"{prefix}patch_embed.proj.weight", axis) for axis in (2, 3, 4)],
        "embed_dim": embed_dim,
        "depths": [count_layers(state_dict, f"{prefix}layers.{stage}.blocks.") for stage in range(len(tables))],
        "num_heads": [size_of(state_dict, table, 1) for table in tables],
        "mlp_ratio": size_of(state_dict, f"{prefix}layers.0.blocks.0.mlp.fc1.weight", 0) / embed_dim,
    }


def video_swin_config(state_dict: Mapping[str, Tensor], options: Mapping[str, Any]) -> ValorVideoSwinConfig:
    """Video Swin, at the resolution of the options."""
    return ValorVideoSwinConfig(image_size=options["video_resolution"] or 224, **video_swin_sizes(state_dict))


def audio_config(state_dict: Mapping[str, Tensor], options: Mapping[str, Any]) -> ValorAudioConfig:
    """AST; the options say how its patches are laid out, and must agree with their number."""
    width = size_of(state_dict, "audio_embeddings.first_conv.weight", 0)
    patch_size = size_of(state_dict, "audio_embeddings.first_conv.weight", 3)
    patches = size_of(state_dict, "audio_embeddings.position_embeddings.weight", 0) - 1
    rows = options["audio_melbins"] // patch_size
    length = options["audio_target_length"] or patches // max(rows, 1) * patch_size
    if rows * (length // patch_size) != patches:
        raise ConversionError(
            f"The options say {options['audio_melbins']} mel bins x {length} frames in patches of {patch_size}, but the "
            f"checkpoint has {patches} positions of patches: `audio_melbins` or `audio_target_length` is of another model."
        )
    return ValorAudioConfig(
        num_mel_bins=options["audio_melbins"],
        max_length=length,
        patch_size=patch_size,
        hidden_size=width,
        num_hidden_layers=count_layers(state_dict, "audio_encoder.layer."),
        num_attention_heads=head_count(options, "audio", width),
        intermediate_size=size_of(state_dict, "audio_encoder.layer.0.ff_layer.linear1.weight", 0),
    )


def bert_sizes(state_dict: Mapping[str, Tensor], options: Mapping[str, Any], prefix: str, part: str) -> dict[str, Any]:
    """Fields of a BERT configuration."""
    width = size_of(state_dict, f"{prefix}embeddings.word_embeddings.weight", 1)
    return {
        "vocab_size": size_of(state_dict, f"{prefix}embeddings.word_embeddings.weight", 0),
        "hidden_size": width,
        "num_hidden_layers": count_layers(state_dict, f"{prefix}encoder.layer."),
        "num_attention_heads": head_count(options, part, width),
        "intermediate_size": size_of(state_dict, f"{prefix}encoder.layer.0.intermediate.dense.weight", 0),
        "max_position_embeddings": size_of(state_dict, f"{prefix}embeddings.position_embeddings.weight", 0),
        "type_vocab_size": size_of(state_dict, f"{prefix}embeddings.token_type_embeddings.weight", 0),
    }


def text_encoder_config(
    state_dict: Mapping[str, Tensor], options: Mapping[str, Any]
) -> BertConfig | CLIPTextConfig | None:
    """The text encoder's configuration where it is not the decoder's stack. In CLIP's vocabulary 0 is padding here."""
    if options["txt_encoder_type"].startswith("clip"):
        vocab_size = size_of(state_dict, "clip_model.token_embedding.weight", 0)
        width = size_of(state_dict, "clip_model.token_embedding.weight", 1)
        return CLIPTextConfig(
            **clip_sizes(state_dict, options, "clip_model.", "text_encoder", width),
            vocab_size=vocab_size,
            max_position_embeddings=size_of(state_dict, "clip_model.positional_embedding", 0),
            projection_dim=size_of(state_dict, "clip_model.text_projection", 1),
            pad_token_id=0,
            bos_token_id=vocab_size - 2,
            eos_token_id=vocab_size - 1,
        )
    if options["share_txt_and_multimodal"]:
        return None
    return BertConfig(**bert_sizes(state_dict, options, "txt_encoder.", "text_encoder"), layer_norm_eps=1e-12)


def prompt_ids(options: Mapping[str, Any], vocab_size: int, tokenizer: BertTokenizer | None) -> dict[str, list[int]]:
    """The task prompts as ids, {} without prompts; the question's has no [CLS] and [SEP]."""
    if not options["use_task_prompt"]:
        return {}
    if tokenizer is not None:
        return encode_prompts(TASK_PROMPTS, tokenizer)
    if vocab_size != BERT_BASE_UNCASED_SIZE:
        raise ConversionError(
            f"The checkpoint uses task prompts and its vocabulary of {vocab_size} entries is not bert-base-uncased's: "
            "give its vocabulary file (--vocab), from which the ids of the prompts follow."
        )
    return BERT_BASE_UNCASED_PROMPTS


def check_encoder_types(options: Mapping[str, Any], vision: str) -> None:
    """Raises a `ConversionError` unless the options name the encoders of the checkpoint, of which `vision` is one."""
    for option, accepted in (("audio_encoder_type", "ast"), ("multimodal_encoder_type", "bert")):
        if not options[option].startswith(accepted):
            raise ConversionError(f"The option `{option}` is {options[option]!r}; accepted is {accepted!r}.")
    if not (options["video_encoder_type"] or vision).startswith(vision):
        raise ConversionError(
            f"The option `video_encoder_type` is {options['video_encoder_type']!r}, but the checkpoint holds a {vision} "
            "encoder: the options are of another model."
        )


def text_config_with_tokenizer(
    state_dict: Mapping[str, Tensor], options: Mapping[str, Any], tokenizer: BertTokenizer | None
) -> ValorTextConfig:
    """The configuration of the decoder's stack, with the special tokens of the tokenizer, which must have its vocabulary."""
    text_config = ValorTextConfig(**bert_sizes(state_dict, options, "multimodal_encoder.", "text"))
    if tokenizer is not None:
        if len(tokenizer) != text_config.vocab_size:
            raise ConversionError(
                f"The vocabulary has {len(tokenizer)} entries, but the checkpoint embeds {text_config.vocab_size} words: "
                "it is of another model."
            )
        text_config.update(special_token_ids(tokenizer))
    return text_config


@accepts_hps
def config_from_checkpoint(
    state_dict: Mapping[str, Tensor], options: Mapping[str, Any], tokenizer: BertTokenizer | None = None
) -> ValorConfig:
    """The configuration of a 2023 checkpoint: sizes from the shapes of its tensors, the rest from its options.

    Args:
        state_dict: tensors by their 2023 names; only shapes are read, so they may be on the meta device.
        options: the options, as in `log/hps.json`; what is missing takes the 2023 program's default.
        tokenizer: the checkpoint's tokenizer. Without it special tokens and prompts have bert-base-uncased's ids.

    Raises:
        `ConversionError`: a tensor from which a size follows is missing, or an option is unknown or of another model.
    """
    state_dict, options = strip_prefix(state_dict), read_options(options)
    video_swin = "video_encoder.patch_embed.proj.weight" in state_dict
    check_encoder_types(options, "videoswin" if video_swin else "clip")
    text_config = text_config_with_tokenizer(state_dict, options, tokenizer)
    text_encoder = text_encoder_config(state_dict, options)
    prompts = prompt_ids(options, text_config.vocab_size, tokenizer)
    if text_encoder is not None and text_encoder.model_type == "clip_text_model":
        prompts = {name: ids for name, ids in prompts.items() if name != "retrieval_prompt_ids"}
    cross_attention = choose(options, "cross_attn_type", CROSS_ATTENTION_TYPES)
    try:
        return ValorConfig(
            vision_config=(video_swin_config if video_swin else clip_vision_config)(state_dict, options),
            audio_config=audio_config(state_dict, options),
            text_config=text_config,
            text_encoder_config=text_encoder,
            projection_dim=size_of(state_dict, "contra_head_a.linear.weight", 0),
            alignment=choose(options, "contra_type", ALIGNMENTS),
            audiovisual_fusion="score" if options["late_fusion"] else "feature",
            token_weighting="uniform" if options["fineweight_type"] == "none" else "learned",
            cross_attention_type=cross_attention if options["multimodal_use_cross_attn"] else "merge",
            captioning_objective=choose(options, "caption_type", CAPTIONING_OBJECTIVES),
            label_smoothing=options["label_smoothing"],
            alignment_loss_weight=options["contra_loss_ratio"],
            max_frames=size_of(state_dict, "video_frame_embedding", 1),
            max_audio_clips=size_of(state_dict, "audio_frame_embedding", 1),
            padded_similarity="zero",
            **prompts,
        )
    except StrictDataclassError as error:
        raise ConversionError(f"The options make no model: {error.__cause__ or error}") from error
