# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The BERT stack of VALOR: text encoder and multimodal decoder in one (section 4.1, Figure 7)."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.clip.modeling_clip import eager_attention_forward
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.deprecation import deprecate_kwarg
from transformers.utils.generic import is_flash_attention_requested, merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .configuration_valor import CROSS_ATTENTION_BLOCKS, MEDIA, ValorAudioConfig, ValorTextConfig


if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

CACHE = "cache" if "cache" in BaseModelOutputWithPastAndCrossAttentions.__dataclass_fields__ else "past_key_values"
"""Name of the cache in outputs and in `generate` of the installed transformers: 5.24 changed it to `cache`."""

cache_by_either_name = deprecate_kwarg("past_key_values", "5.40.0", new_name="cache")
"""Lets a `forward` take its `cache` by the name that it had before transformers 5.24, too."""


def all_true(mask: torch.Tensor) -> bool:
    """Whether a mask leaves nothing out; while a program is exported it may, because the program is for all values."""
    return not torch.compiler.is_exporting() and bool(mask.all())


@dataclass
class ValorConditions(ModelOutput):
    """What the decoder is conditioned on: the tokens of all frames and of all audio clips (section 4.2, F_v' and F_a').

    video (`torch.Tensor` of shape `(batch_size, num_frames * tokens_per_frame, hidden_size)`, *optional*)
    video_mask (`torch.BoolTensor` of shape `(batch_size, num_frames * tokens_per_frame)`, *optional*): `None` when every frame is there.
    audio, audio_mask: the same for the audio clips.
    """

    video: torch.Tensor | None = None
    video_mask: torch.Tensor | None = None
    audio: torch.Tensor | None = None
    audio_mask: torch.Tensor | None = None

    @property
    def modalities(self) -> tuple[str, ...]:
        """The given modalities, video before audio as everywhere in VALOR."""
        return tuple(modality.name for modality in MEDIA if getattr(self, modality.name) is not None)

    @property
    def device(self) -> torch.device:
        """The device of the tokens; the model's own `device` is "meta" if parts of it are offloaded."""
        return self[self.modalities[0]].device

    def mask(self, modality: str) -> torch.Tensor | None:
        """Mask of the modality's tokens; `None` when all of them are valid."""
        return getattr(self, f"{modality}_mask")

    def join(self, modalities: Sequence[str]) -> torch.Tensor:
        """Tokens of `modalities`, one after the other."""
        return torch.cat([self[name] for name in modalities], dim=1)

    def full_mask(self, modality: str) -> torch.Tensor:
        """Mask of the modality's tokens, all True when all of them are valid."""
        if (mask := self.mask(modality)) is not None:
            return mask
        return torch.ones(self[modality].shape[:2], dtype=torch.bool, device=self[modality].device)

    def join_masks(self, modalities: Sequence[str]) -> torch.Tensor | None:
        """Mask of the tokens that `join` returns; `None` when all of them are valid."""
        if all(self.mask(name) is None for name in modalities):
            return None
        return torch.cat([self.full_mask(name) for name in modalities], dim=1)

    def present(self, modalities: Sequence[str]) -> torch.Tensor | None:
        """Which samples have any valid token of `modalities`, (batch_size,); `None` when all of them have."""
        masks = [self.mask(name) for name in modalities if name in self.modalities]
        valid = [mask.any(dim=1) for mask in masks if mask is not None]
        if not valid or len(valid) < len(masks):
            return None
        return torch.stack(valid).any(dim=0)

    def select(self, rows: Sequence[int]) -> "ValorConditions":
        """The conditions of these samples, in this order; a sample may be named several times."""
        return ValorConditions(**{name: value[rows] for name, value in self.items()})


class ConditionCache(DynamicCache):
    """Cross-attention keys and values, one entry per decoder block, with one row per sample.

    All beams and all returned sequences of a sample look at the same video, so nothing here follows them: keys and
    values are computed once, stored once and never moved.
    """

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        pass

    def batch_repeat_interleave(self, repeats: int) -> None:
        pass


@dataclass
class CrossAttentionStep:
    """One cross-attention of one modality group, the same in every layer: its block, and the tokens that it attends to.

    present (`torch.BoolTensor` of shape `(group_rows, 1, 1)`, *optional*): samples that have any of these tokens; the
        others skip the block, its norm included.
    """

    block: str
    tokens: slice
    attention_mask: "torch.Tensor | BlockMask | None"
    present: torch.Tensor | None


@dataclass
class CrossAttentionPlan:
    """The tokens that each modality group attends to, by block. One plan, with its masks, is used by all layers.

    blocks (`dict[str, list[str]]`): the modalities whose tokens each block attends to.
    groups (`list[list[CrossAttentionStep]]`): the steps of each group, in the order in which they are applied.
    """

    blocks: dict[str, list[str]]
    groups: list[list[CrossAttentionStep]]


class ValorTextEmbeddings(nn.Module):
    """Word + position + type, normalised. A task prompt has a type vector of its own."""

    def __init__(self, config: ValorTextConfig):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.prompt_embedding = nn.Parameter(torch.zeros(config.hidden_size))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        is_prompt: bool = False,
    ) -> torch.Tensor:
        if inputs_embeds is None:
            inputs_embeds = self.word_embeddings(input_ids)
        if position_ids is None:
            position_ids = torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device)
        # Called, not indexed: the weights of a part that is offloaded are there only while it is called
        token_type = (
            self.prompt_embedding if is_prompt else self.token_type_embeddings(torch.zeros_like(position_ids[..., :1]))
        )
        return self.dropout(self.norm(inputs_embeds + self.position_embeddings(position_ids) + token_type))


class ValorTextAttention(nn.Module):
    """Multi-head attention; keys and values may be of other tokens than the queries."""

    def __init__(self, config: ValorTextConfig | ValorAudioConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_probs_dropout_prob
        self.is_causal = False

        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def split_heads(self, states: torch.Tensor) -> torch.Tensor:
        return states.view(*states.shape[:-1], -1, self.head_dim).transpose(1, 2)

    def project_key_value(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(batch_size, length, hidden_size) -> keys and values, (batch_size, heads, length, head_dim)."""
        return self.split_heads(self.k_proj(states)), self.split_heads(self.v_proj(states))

    def forward(
        self,
        hidden_states: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        attention_interface: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        attn_output, attn_weights = attention_interface(
            self,
            self.split_heads(self.q_proj(hidden_states)),
            key,
            value,
            attention_mask,
            dropout=0.0 if not self.training else self.attention_dropout,
            scaling=self.scaling,
            **kwargs,
        )
        return self.out_proj(attn_output.reshape(*hidden_states.shape)), attn_weights


class ValorTextCrossAttention(ValorTextAttention):
    """Cross-attention of the decoder with the norm that follows it."""

    def __init__(self, config: ValorTextConfig):
        super().__init__(config)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


class ValorTextMLP(nn.Module):
    """The feed-forward part of a layer, of text and of audio."""

    def __init__(self, config: ValorTextConfig | ValorAudioConfig):
        super().__init__()
        self.activation_fn = ACT2FN[config.hidden_act]
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation_fn(self.fc1(hidden_states)))


class ValorTextLayer(GradientCheckpointingLayer):
    """Self-attention, cross-attention (decoder only), feed-forward; a norm after each, as in BERT."""

    def __init__(self, config: ValorTextConfig, layer_idx: int):
        super().__init__()
        self.layer_idx = layer_idx
        self.cross_attention_type = config.cross_attention_type
        self.self_attention = ValorTextAttention(config)
        self.self_attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.cross_attention = nn.ModuleDict(
            {
                block: ValorTextCrossAttention(config)
                for block in sorted(CROSS_ATTENTION_BLOCKS[config.cross_attention_type])
            }
        )
        self.mlp = ValorTextMLP(config)
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(  # type: ignore[misc]  # TransformersKwargs has `is_causal`, too
        self,
        hidden_states: torch.Tensor,
        *condition_states: torch.Tensor | None,  # positional, so that reentrant gradient checkpointing sees them
        attention_mask: torch.Tensor | None = None,
        cross_attention_plan: CrossAttentionPlan | None = None,
        cache: EncoderDecoderCache | None = None,
        is_causal: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        key, value = self.self_attention.project_key_value(hidden_states)
        if cache is not None:
            key, value = cache.self_attention_cache.update(key, value, self.layer_idx)
        attn_output, _ = self.self_attention(
            hidden_states, key, value, attention_mask=attention_mask, is_causal=is_causal, **kwargs
        )
        hidden_states = self.self_attention_norm(hidden_states + self.dropout(attn_output))

        if cross_attention_plan is not None:
            keys_values = self.condition_key_values(cross_attention_plan.blocks, condition_states, cache)
            groups = hidden_states.chunk(len(cross_attention_plan.groups))
            hidden_states = torch.cat(
                [
                    self.attend_to_conditions(group, steps, keys_values, **kwargs)
                    for group, steps in zip(groups, cross_attention_plan.groups, strict=True)
                ]
            )

        return self.mlp_norm(hidden_states + self.dropout(self.mlp(hidden_states)))

    def cross_attention_block(self, name: str) -> "ValorTextCrossAttention":
        return cast(ValorTextCrossAttention, self.cross_attention[name])

    def condition_key_values(
        self,
        blocks: Collection[str],
        condition_states: Sequence[Any],  # tensors; None where the cache has their keys and values
        cache: EncoderDecoderCache | None,
    ) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values of each block, computed once for all modality groups and all steps of decoding."""
        keys_values = {}
        for i, (block, states) in enumerate(zip(blocks, condition_states, strict=True)):
            if cache is None:
                keys_values[block] = self.cross_attention_block(block).project_key_value(states)
                continue
            cache_idx = self.layer_idx * len(blocks) + i
            if not cache.is_updated.get(cache_idx):
                key, value = self.cross_attention_block(block).project_key_value(states)
                cache.cross_attention_cache.update(key, value, cache_idx)
                cache.is_updated[cache_idx] = True
            layer: Any = cache.cross_attention_cache.layers[cache_idx]
            keys_values[block] = layer.keys, layer.values
        return keys_values

    def attend_to_conditions(
        self,
        hidden_states: torch.Tensor,
        steps: Sequence[CrossAttentionStep],
        keys_values: dict[str, tuple[torch.Tensor, torch.Tensor]],
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        """Figure 7 for one modality group: the blocks one after the other, or in parallel and added ("parallel")."""
        outputs = []
        for step in steps:
            block = self.cross_attention_block(step.block)
            key, value = (states[:, :, step.tokens] for states in keys_values[step.block])
            # The beams of a sample share its keys and values: fold them into the query's length
            queries = hidden_states.reshape(key.shape[0], -1, hidden_states.shape[-1])
            attn_output, _ = block(queries, key, value, attention_mask=step.attention_mask, is_causal=False, **kwargs)
            output = block.norm(hidden_states + self.dropout(attn_output.view_as(hidden_states)))
            if self.cross_attention_type == "parallel":
                outputs.append((output, step.present))
            else:
                hidden_states = output if step.present is None else torch.where(step.present, output, hidden_states)
        if not outputs:
            return hidden_states
        if all(present is None for _, present in outputs):
            return sum(output for output, _ in outputs)
        masks = [torch.ones_like(hidden_states[:, :1, :1], dtype=torch.bool) if p is None else p for _, p in outputs]
        total = sum(output * present for (output, _), present in zip(outputs, masks, strict=True))
        return torch.where(torch.stack(masks).any(dim=0), total, hidden_states)


class ValorTextPreTrainedModel(PreTrainedModel):
    config: ValorTextConfig
    base_model_prefix = "text_model"
    input_modalities = ["text"]
    supports_gradient_checkpointing = True
    _no_split_modules = ["ValorTextEmbeddings", "ValorTextLayer"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_record_outputs = {
        "hidden_states": ValorTextLayer,
        "attentions": OutputRecorder(ValorTextAttention, index=1, layer_name="self_attention"),
        "cross_attentions": OutputRecorder(ValorTextCrossAttention, index=1),
    }

    def __init__(self, config: ValorTextConfig, *inputs: Any, **kwargs: Any) -> None:
        config.validate()  # `from_pretrained` overrides fields after the configuration was validated
        super().__init__(config, *inputs, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ValorTextEmbeddings):
            init.normal_(module.prompt_embedding, mean=0.0, std=self.config.initializer_range)


class ValorTextModel(ValorTextPreTrainedModel):
    """BERT as text encoder, and with `conditions` to attend to as decoder (section 4.1).

    As an encoder (`is_causal=False`) every token sees the text and the prompt. As a decoder (`is_causal=True`) a word
    sees the prompt and the words up to itself, and the prompt sees only the prompt. The prompt comes before the text,
    so it is a prefix that can be cached. Positions start at 0 again after it.
    """

    _input_embed_layer = "word_embeddings"

    def __init__(self, config: ValorTextConfig):
        super().__init__(config)
        self.embeddings = ValorTextEmbeddings(config)
        self.layers = nn.ModuleList([ValorTextLayer(config, layer_idx=i) for i in range(config.num_hidden_layers)])
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.embeddings.word_embeddings = cast(nn.Embedding, value)

    @cache_by_either_name
    @merge_with_config_defaults
    @capture_outputs
    def forward(  # type: ignore[misc]  # TransformersKwargs has `is_causal` and `position_ids`, too
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        prompt_input_ids: torch.Tensor | None = None,
        prompt_attention_mask: torch.Tensor | None = None,
        conditions: ValorConditions | None = None,
        groups: Sequence[Sequence[str]] | None = None,
        cache: Cache | None = None,
        use_cache: bool | None = None,
        is_causal: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        r"""input_ids (`torch.LongTensor` of shape `(batch_size, length)`):
            The text. With a filled cache only its new tokens; `attention_mask` then covers the cached ones as well.
        attention_mask (`torch.Tensor` of shape `(batch_size, length)`, *optional*):
            0 or False for padding. A bool mask of shape `(batch_size, 1, length, length)` says which token attends to
            which, in place of the causal or bidirectional order; a prompt is seen by all, and does not see the text.
        prompt_input_ids (`torch.LongTensor` of shape `(batch_size, prompt_length)`, *optional*):
            A task prompt or a question. Needed at every step of decoding, if only for its length.
        conditions (`ValorConditions`, *optional*):
            Video and audio tokens. May have fewer rows than the text has, when each row serves several beams.
        groups (`list[tuple[str]]`, *optional*):
            Modalities that the text attends to, one tuple per pass; by default one pass with all that is given. The
            passes run side by side: keys and values of the conditions are computed once for all of them.

        Returns:
            `last_hidden_state` of shape `(len(groups) * batch_size, length, hidden_size)`, the text's rows only.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give exactly one of `input_ids` and `inputs_embeds`.")
        text = input_ids if input_ids is not None else inputs_embeds
        assert text is not None  # as checked above
        rows, text_length = text.shape[:2]
        conditions, groups = self.select_conditions(conditions, groups)
        cache = self.prepare_cache(cache, use_cache and is_causal, len(groups))
        past_length = cache.get_seq_length() if cache is not None else 0

        merged, attended = (conditions, None) if self.config.cross_attention_type == "merge" else (None, conditions)
        prefix_length, prefix_mask = self.prefix_mask(prompt_input_ids, prompt_attention_mask, merged, groups, rows)
        if position_ids is None:
            position_ids = self.text_positions(max(past_length - prefix_length, 0), text_length, text.device)
        hidden_states = self.embeddings(input_ids, position_ids, inputs_embeds).repeat(len(groups), 1, 1)
        if past_length == 0 and prefix_length > 0:
            prefix = self.prefix_embeddings(prompt_input_ids, merged, len(groups), rows)
            hidden_states = torch.cat([prefix, hidden_states], dim=1)

        self_attention_mask = self.self_attention_mask(
            hidden_states, attention_mask, prefix_length, prefix_mask, len(groups), cache, is_causal
        )
        plan: CrossAttentionPlan | None = None
        condition_states: list[torch.Tensor | None] = []
        if attended is not None:
            plan = self.plan_cross_attention(attended, groups, hidden_states)
            is_cached = isinstance(cache, EncoderDecoderCache) and len(cache.is_updated) > 0
            condition_states = [None if is_cached else attended.join(names) for names in plan.blocks.values()]

        for layer in self.layers:
            hidden_states = layer(
                hidden_states,
                *condition_states,
                attention_mask=self_attention_mask,
                cross_attention_plan=plan,
                cache=cache,
                is_causal=is_causal,
                **kwargs,
            )

        cached: dict[str, Any] = {CACHE: cache}
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=hidden_states[:, -text_length:], **cached)

    @staticmethod
    def select_conditions(
        conditions: ValorConditions | None, groups: Sequence[Sequence[str]] | None
    ) -> tuple[ValorConditions | None, Sequence[Sequence[str]]]:
        """The conditions, `None` where they are empty, and the modality groups that attend to them."""
        if conditions is None or not conditions.modalities:
            return None, [()]
        return conditions, [conditions.modalities] if groups is None else groups

    def prepare_cache(self, cache: Cache | None, use_cache: bool | None, num_groups: int) -> Cache | None:
        """The cache given, or a new one, with a part for the conditions; a `ValueError` for several groups."""
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config)
        if isinstance(cache, EncoderDecoderCache) and not isinstance(cache.cross_attention_cache, ConditionCache):
            cache = cache.self_attention_cache
        if isinstance(cache, DynamicCache):
            cache = EncoderDecoderCache(cache, ConditionCache())
        if cache is not None and num_groups > 1:
            raise ValueError(f"A cache serves one modality group at a time, got {num_groups} groups.")
        return cache

    def text_positions(self, start: int, length: int, device: torch.device) -> torch.Tensor:
        """Positions of the text's new tokens; a `ValueError` where the model has too few."""
        self.check_length(start + length)
        return torch.arange(start, start + length, device=device)

    def check_length(self, length: int) -> None:
        """Raises a `ValueError` for a text of more tokens than the model has positions."""
        most = self.config.max_position_embeddings
        if length > most:
            raise ValueError(f"The text has {length} tokens, but the model has only {most} positions. Truncate it.")

    def prefix_mask(
        self,
        prompt_input_ids: torch.Tensor | None,
        prompt_attention_mask: torch.Tensor | None,
        merged: ValorConditions | None,
        groups: Sequence[Sequence[str]],
        rows: int,
    ) -> tuple[int, torch.Tensor | None]:
        """Length of what precedes the text (prompt, then merged conditions) and its mask, (groups * rows, length)."""
        parts, lengths = [], []
        if prompt_input_ids is not None:
            lengths.append(prompt_input_ids.shape[1])
            mask = prompt_attention_mask
            parts.append(None if mask is None else mask.bool().expand(rows, -1).repeat(len(groups), 1))
        if merged is not None:
            for name in merged.modalities:
                lengths.append(merged[name].shape[1])
                mask = merged.full_mask(name)
                mask = mask.repeat_interleave(rows // mask.shape[0], dim=0)
                parts.append(torch.cat([mask if name in group else torch.zeros_like(mask) for group in groups]))
        if all(part is None for part in parts):
            return sum(lengths), None
        valid = next(part for part in parts if part is not None)
        return sum(lengths), torch.cat(
            [
                valid.new_ones(len(groups) * rows, length) if part is None else part
                for part, length in zip(parts, lengths, strict=True)
            ],
            dim=1,
        )

    def prefix_embeddings(
        self,
        prompt_input_ids: torch.Tensor | None,
        merged: ValorConditions | None,
        num_groups: int,
        rows: int,
    ) -> torch.Tensor:
        parts = []
        if prompt_input_ids is not None:
            parts.append(self.embeddings(prompt_input_ids, is_prompt=True).expand(rows, -1, -1))
        if merged is not None:
            states = merged.join(merged.modalities)
            parts.append(states.repeat_interleave(rows // states.shape[0], dim=0))
        return torch.cat(parts, dim=1).repeat(num_groups, 1, 1)

    def self_attention_mask(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        prefix_length: int,
        prefix_mask: torch.Tensor | None,
        num_groups: int,
        cache: Cache | None,
        is_causal: bool,
    ) -> "torch.Tensor | BlockMask | None":
        """Mask over [prefix; text]: the prefix is bidirectional and sees no text, the text is causal in a decoder."""
        rows, length = hidden_states.shape[:2]
        past_length = cache.get_seq_length() if cache is not None else 0
        if attention_mask is not None and attention_mask.ndim == 4:
            return self.explicit_mask(hidden_states, attention_mask.repeat(num_groups, 1, 1, 1), prefix_mask)
        if attention_mask is not None or prefix_mask is not None:
            if attention_mask is None:
                attention_mask = torch.ones(
                    rows, past_length + length - prefix_length, dtype=torch.bool, device=hidden_states.device
                )
            else:
                attention_mask = attention_mask.bool().repeat(num_groups, 1)
            if prefix_mask is None:
                prefix_mask = attention_mask.new_ones(rows, prefix_length)
            attention_mask = torch.cat([prefix_mask, attention_mask], dim=1)

        block_sequence_ids = None
        if is_causal and past_length == 0 and prefix_length > 0:
            if is_flash_attention_requested(self.config):
                raise ValueError(
                    "Flash attention cannot express a prompt (or merged conditions) before causal text. Use "
                    '`attn_implementation={"text_config": "sdpa"}` (or "flex_attention") for the text model.'
                )
            positions = torch.arange(length, device=hidden_states.device)
            block_sequence_ids = torch.where(positions < prefix_length, 0, -1).expand(rows, -1)
        if not is_causal:
            return create_bidirectional_mask(self.config, hidden_states, attention_mask)
        return create_causal_mask(
            self.config, hidden_states, attention_mask, cache, block_sequence_ids=block_sequence_ids
        )

    @staticmethod
    def explicit_mask(
        hidden_states: torch.Tensor, allowed: torch.Tensor, prefix_mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Additive mask over [prefix; text] from the pairs of text tokens, (rows, 1, L, L), that may attend."""
        rows, length = hidden_states.shape[:2]
        prefix_length = length - allowed.shape[-1]
        if prefix_length > 0:
            allowed = F.pad(allowed, (0, 0, prefix_length, 0))
            if prefix_mask is None:
                prefix_mask = allowed.new_ones(rows, prefix_length)
            allowed = torch.cat([prefix_mask[:, None, None].expand(-1, -1, length, -1), allowed], dim=-1)
        mask = torch.zeros(allowed.shape, dtype=hidden_states.dtype, device=hidden_states.device)
        return mask.masked_fill(~allowed, torch.finfo(mask.dtype).min)

    def plan_cross_attention(
        self, conditions: ValorConditions, groups: Sequence[Sequence[str]], hidden_states: torch.Tensor
    ) -> CrossAttentionPlan:
        """The tokens that each group attends to, by block. Masks are made once, not once per layer."""
        blocks: dict[str, list[str]] = {}
        for block in CROSS_ATTENTION_BLOCKS[self.config.cross_attention_type]:
            attended = conditions.modalities if block == "audiovisual" else (block,)
            if modalities := [name for name in attended if name in conditions.modalities]:
                blocks[block] = modalities
        masks = {block: conditions.join_masks(modalities) for block, modalities in blocks.items()}
        states = hidden_states[: hidden_states.shape[0] // len(groups)]  # those of one group
        steps = [
            [
                self.cross_attention_step(block, tokens, masks[block], states)
                for block, modalities in blocks.items()
                if (tokens := self.attended_tokens(conditions, modalities, group)) is not None
            ]
            for group in groups
        ]
        return CrossAttentionPlan(blocks, steps)

    @staticmethod
    def attended_tokens(conditions: ValorConditions, modalities: Sequence[str], group: Sequence[str]) -> slice | None:
        """Which of the tokens of a block's `modalities` a group attends to; `None` for none of them."""
        wanted = [name for name in modalities if name in group]
        if not wanted:
            return None
        lengths = {name: conditions[name].shape[1] for name in modalities}
        start = sum(lengths[name] for name in modalities[: modalities.index(wanted[0])])
        return slice(start, start + sum(lengths[name] for name in wanted))

    def cross_attention_step(
        self, block: str, tokens: slice, mask: torch.Tensor | None, hidden_states: torch.Tensor
    ) -> CrossAttentionStep:
        """One step of a group, with `mask` of shape (samples, tokens of the block) and the states of the group's rows."""
        if mask is None or all_true(mask := mask[:, tokens]):
            return CrossAttentionStep(block, tokens, None, None)
        samples, rows = mask.shape[0], hidden_states.shape[0]
        is_present = mask.any(dim=1)
        attention_mask = create_bidirectional_mask(
            config=self.config,
            inputs_embeds=hidden_states.reshape(samples, -1, hidden_states.shape[-1]),
            # An all-masked row would make softmax NaN; its result is discarded by `present`
            attention_mask=mask | ~is_present[:, None],
        )
        present = None if all_true(is_present) else is_present.repeat_interleave(rows // samples).view(-1, 1, 1)
        return CrossAttentionStep(block, tokens, attention_mask, present)


__all__ = ["ValorConditions", "ValorTextModel", "ValorTextPreTrainedModel"]
