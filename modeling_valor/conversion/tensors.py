# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The tensors of a 2023 checkpoint under the names that they have here."""

import re
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..configuration_valor import ValorConfig
from ..modeling_valor_heads import ValorForPreTraining
from .options import ConversionError, listing


Renamings = Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]
"""Patterns, and what replaces their matches, in the order in which they are applied."""

CLIP_NAMES: Renamings = [
    (r"^class_embedding", "embeddings.class_embedding"),
    (r"^conv1\.", "embeddings.patch_embedding."),
    (r"^token_embedding\.", "embeddings.token_embedding."),
    (r"^positional_embedding", "embeddings.position_embedding.weight"),
    (r"^ln_pre\.", "pre_layrnorm."),
    (r"^ln_post\.", "post_layernorm."),
    (r"^ln_final\.", "final_layer_norm."),
    (r"^transformer\.resblocks\.", "encoder.layers."),
    (r"\.attn\.in_proj_", ".self_attn.{qkv}_proj."),
    (r"\.attn\.out_proj\.", ".self_attn.out_proj."),
    (r"\.ln_([12])\.", r".layer_norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
]

BERT_NAMES: Renamings = [
    (r"^embeddings\.prompt_embedding\.weight", "embeddings.prompt_embedding"),
    (r"^embeddings\.LayerNorm\.", "embeddings.norm."),
    (r"^encoder\.layer\.", "layers."),
    (r"\.attention\.self\.", ".self_attention."),
    (r"\.attention\.output\.dense\.", ".self_attention.out_proj."),
    (r"\.attention\.output\.LayerNorm\.", ".self_attention_norm."),
    (r"\.cross_attn\.(?:cross|output)\.", ".cross_attention.audiovisual."),
    (r"\.cross_attn_v\.(?:cross|output)\.", ".cross_attention.video."),
    (r"\.cross_attn_a\.(?:cross|output)\.", ".cross_attention.audio."),
    (r"(\.cross_attention\.\w+)\.dense\.", r"\1.out_proj."),
    (r"(\.cross_attention\.\w+)\.LayerNorm\.", r"\1.norm."),
    (r"\.(query|key|value)\.", lambda match: f".{match[1][0]}_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.output\.LayerNorm\.", ".mlp_norm."),
]

VIDEO_SWIN_NAMES: Renamings = [
    (r"^patch_embed\.proj\.", "patch_embedding."),
    (r"^patch_embed\.norm\.", "patch_norm."),
    (r"^layers\.", "stages."),
    (r"\.attn\.proj\.", ".attention.out_proj."),
    (r"\.attn\.", ".attention."),
]

AUDIO_NAMES: Renamings = [
    (r"^cls_token", "embeddings.class_embedding"),
    (r"^first_conv\.", "embeddings.patch_embedding."),
    (r"^position_embeddings\.", "embeddings.position_embedding."),
    (r"^last_layernorm\.", "layer_norm."),
    (r"^layer\.", "layers."),
    (r"\.attention\.linears\.([0-3])\.", lambda match: f".self_attn.{('q', 'k', 'v', 'out')[int(match[1])]}_proj."),
    (r"\.layernorm([12])\.", r".layer_norm\1."),
    (r"\.ff_layer\.linear([12])\.", r".mlp.fc\1."),
]

MODEL_NAMES: Renamings = [
    (r"^contra_head_t\.linear\.", "text_projection."),
    (r"^contra_head_v\.linear\.", "video_projection."),
    (r"^contra_head_a\.linear\.", "audio_projection."),
    (r"^(text|video|audio)_fine_weight\.0\.", r"\1_token_weight.fc1."),
    (r"^(text|video|audio)_fine_weight\.2\.", r"\1_token_weight.fc2."),
    (r"^va_fusion\.", "audiovisual_projection."),
    (r"^hidden_trans_(video|audio)_multimodal\.0\.", r"\1_condition.projection."),
    (r"^hidden_trans_(video|audio)_multimodal\.1\.", r"\1_condition.norm."),
    (r"^(video|audio)_frame_embedding", r"\1_condition.position_embedding.weight"),
    (r"^(video|audio)_type_embeddings", r"\1_condition.type_embedding"),
]

# 2023 prefix, new prefix, renamings of what follows: the first prefix that fits counts
SECTIONS: Sequence[tuple[str, str, Renamings]] = [
    ("multimodal_encoder.", "valor.text_model.", BERT_NAMES),
    ("txt_encoder.", "valor.text_encoder.", []),
    ("clip_model.visual.", "valor.vision_model.", CLIP_NAMES),
    ("clip_model.", "valor.text_encoder.", CLIP_NAMES),
    ("video_encoder.", "valor.vision_model.", VIDEO_SWIN_NAMES),
    ("audio_embeddings.", "valor.audio_model.", AUDIO_NAMES),
    ("audio_encoder.", "valor.audio_model.", AUDIO_NAMES),
    ("cls.", "lm_head.", [(r"^layernorm\.", "norm.")]),
    ("", "valor.", MODEL_NAMES),
]

WORD_EMBEDDINGS = "valor.text_model.embeddings.word_embeddings.weight"
OUTPUT_EMBEDDINGS = "lm_head.decoder.weight"


def strip_prefix(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without the `module.` that distributed training leaves at their front."""
    return {key.removeprefix("module."): tensor for key, tensor in state_dict.items()}


def new_name(key: str) -> str:
    """A 2023 name in this package; `{qkv}` in it stands for three tensors that the 2023 one has stacked."""
    prefix, new_prefix, renamings = next(section for section in SECTIONS if key.startswith(section[0]))
    name = key.removeprefix(prefix)
    for pattern, replacement in renamings:
        name = re.sub(pattern, replacement, name)
    return new_prefix + name


def unused_patterns(state_dict: Mapping[str, Tensor], config: ValorConfig) -> list[str]:
    """Which 2023 names a model of `config` has no use for."""
    encoder = config.text_encoder_config.model_type if config.text_encoder_config is not None else None
    clip_vision = config.vision_config.model_type == "clip_vision_model"
    clip_heads = clip_vision and encoder == "clip_text_model" and "contra_head_t.linear.weight" not in state_dict
    patterns = [
        r"(multimodal_encoder|txt_encoder)\.pooler\.",
        r"video_encoder\..*\.relative_position_index$",
        r"clip_model\.prompt_embedding\.",
        r"contra_temp$" if clip_vision else r"clip_model\.logit_scale$",
    ]
    if not clip_vision:
        patterns.append(r"clip_model\.visual\.")
    if encoder != "clip_text_model":
        patterns.append(r"clip_model\.(transformer|token_embedding|positional_embedding|ln_final)")
    if encoder != "bert":
        patterns.append(r"txt_encoder\.")
    if not clip_heads:
        patterns.append(r"clip_model\.(visual\.proj|text_projection)$")
    return patterns


def check_repeated(state_dict: Mapping[str, Tensor], config: ValorConfig) -> None:
    """Tensors that should only repeat a shared one must equal it, or what they hold would be lost."""
    repeated = {"cls.decoder.weight": "multimodal_encoder.embeddings.word_embeddings.weight"}
    if config.text_encoder_config is None:
        repeated |= {
            key: key.replace("txt_encoder.", "multimodal_encoder.", 1)
            for key in state_dict
            if key.startswith("txt_encoder.")
        }
    for key, source in repeated.items():
        if key in state_dict and source in state_dict and not torch.equal(state_dict[key], state_dict[source]):
            raise ConversionError(
                f"`{key}` should repeat `{source}` but differs from it. If the text encoder is separate, the option "
                "`share_txt_and_multimodal` must be false."
            )


def extend_positions(positions: Tensor, num_trained: int) -> Tensor:
    """Frame or clip embeddings whose untrained rows repeat the last trained one, as the 2023 loader has them."""
    if not 0 < num_trained < len(positions):
        return positions
    return torch.cat(
        [positions[:num_trained], positions[num_trained - 1 :][:1].expand(len(positions) - num_trained, -1)]
    )


def join_prompt_type(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """A separate BERT has no type vector for prompts of its own: it becomes token type 1, which 2023 never used."""
    prompt = state_dict.pop("txt_encoder.embeddings.prompt_embedding.weight", None)
    types = "txt_encoder.embeddings.token_type_embeddings.weight"
    if prompt is not None and types in state_dict:
        state_dict[types] = torch.cat([state_dict[types][:1], prompt])
    return state_dict


def new_tensors(key: str, tensor: Tensor, config: ValorConfig) -> dict[str, Tensor]:
    """A 2023 tensor as this package has it, or the three that it stacks."""
    if key == "contra_temp":
        return {"valor.logit_scale": -tensor.log()}
    if key == "clip_model.logit_scale":
        return {"valor.logit_scale": tensor}
    if key == "clip_model.text_projection":
        return {"valor.text_projection.weight": tensor.mT}
    if key == "clip_model.visual.proj":
        return {"valor.video_projection.weight": tensor.mT}
    name = new_name(key)
    if "{qkv}" in name:
        return {name.format(qkv=part): rows for part, rows in zip("qkv", tensor.tensor_split(3), strict=True)}
    return {name: tensor}


def convert_state_dict(
    state_dict: Mapping[str, Tensor],
    config: ValorConfig,
    num_trained_frames: int = 0,
    num_trained_clips: int = 0,
) -> tuple[dict[str, Tensor], list[str]]:
    """Gives the tensors of [`ValorForPreTraining`] and the 2023 names that it has no use for.

    Tensors are views of the given ones wherever that is possible, so this costs next to no memory. Of the frame and
    clip embeddings, rows beyond the number trained are set to the last trained one (0: all are trained).

    Raises:
        `ConversionError`: naming every tensor that is missing, unexpected or of the wrong shape.
    """
    state_dict = strip_prefix(state_dict)
    check_repeated(state_dict, config)
    if config.text_encoder_config is not None and config.text_encoder_config.model_type == "bert":
        state_dict = join_prompt_type(state_dict)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in ValorForPreTraining(config).state_dict().items()}
    converted, unused, problems = _rename_tensors(state_dict, config, shapes)
    problems += [f"missing `{name}`" for name in shapes if name not in converted and name != OUTPUT_EMBEDDINGS]
    if problems:
        raise ConversionError("The checkpoint and its options do not fit together: " + listing(problems, 8, quote=""))
    converted[OUTPUT_EMBEDDINGS] = converted[WORD_EMBEDDINGS]
    for name, trained in (("video", num_trained_frames), ("audio", num_trained_clips)):
        positions = f"valor.{name}_condition.position_embedding.weight"
        converted[positions] = extend_positions(converted[positions], trained)
    return converted, unused


def _rename_tensors(
    state_dict: Mapping[str, Tensor], config: ValorConfig, shapes: Mapping[str, torch.Size]
) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """Tensors by their new names, the 2023 names that are not used, and in words what does not fit `shapes`."""
    unused_pattern = re.compile("|".join(unused_patterns(state_dict, config)))
    converted: dict[str, Tensor] = {}
    unused: list[str] = []
    problems: list[str] = []
    for key, tensor in state_dict.items():
        if unused_pattern.match(key) or key == "cls.decoder.weight":
            unused.append(key)
            continue
        for name, values in new_tensors(key, tensor, config).items():
            if name not in shapes:
                problems.append(f"unexpected `{key}`")
                break
            while values.ndim > len(shapes[name]) and values.shape[0] == 1:
                values = values[0]
            if values.shape != shapes[name]:
                problems.append(f"`{key}` has the shape {tuple(tensor.shape)}, not that of {tuple(shapes[name])}")
                break
            converted[name] = values
    return converted, unused, problems
