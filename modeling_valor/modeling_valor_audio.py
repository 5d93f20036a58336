# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The Audio Spectrogram Transformer of VALOR: one clip of sound to one sequence of tokens (section 4.1)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_valor import ValorAudioConfig
from .modeling_valor_text import ValorTextAttention, ValorTextMLP


def resize_position_embedding(
    position_embedding: torch.Tensor, grid: Sequence[int], new_grid: Sequence[int]
) -> torch.Tensor:
    """Learned positions for a grid of patches other than the one they were trained for.

    Args:
        position_embedding (`torch.Tensor` of shape `(1 + rows * columns, hidden_size)`): class token first.
        grid: rows and columns of patches in `position_embedding`.
        new_grid: rows and columns wanted.

    Returns:
        `torch.Tensor` of shape `(1 + new_rows * new_columns, hidden_size)`: the class row as it was, the others
        resized bilinearly in float32 (corners not aligned, no antialiasing: what the 2023 code does when it loads a
        checkpoint). With an unchanged grid it is `position_embedding` itself.
    """
    if tuple(grid) == tuple(new_grid):
        return position_embedding
    patches = position_embedding[1:].unflatten(0, tuple(grid)).permute(2, 0, 1).unsqueeze(0).float()
    patches = nn.functional.interpolate(patches, size=tuple(new_grid), mode="bilinear", align_corners=False)
    return torch.cat([position_embedding[:1], patches[0].flatten(1).T.to(position_embedding.dtype)])


class ValorAudioEmbeddings(nn.Module):
    """The class token, then one token per square patch, mel axis outer and time axis inner; each plus its position."""

    def __init__(self, config: ValorAudioConfig):
        super().__init__()
        self.patch_size = config.patch_size
        self.grid = (config.num_mel_bins // config.patch_size, config.max_length // config.patch_size)
        self.class_embedding = nn.Parameter(torch.zeros(config.hidden_size))
        self.patch_embedding = nn.Conv2d(1, config.hidden_size, config.patch_size, stride=config.patch_size)
        self.position_embedding = nn.Embedding(1 + self.grid[0] * self.grid[1], config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_features: torch.Tensor) -> torch.Tensor:
        if input_features.ndim != 3 or min(input_features.shape[1:]) < self.patch_size:
            raise ValueError(
                f"`input_features` must be (clips, mel, time) and hold at least one patch of {self.patch_size} x "
                f"{self.patch_size}, got {tuple(input_features.shape)}; flatten the clips of a batch first."
            )
        spectrograms = input_features.unsqueeze(1).to(self.patch_embedding.weight.dtype)
        patches = self.patch_embedding(spectrograms)  # (clips, hidden_size, mel patches, time patches)
        position_ids = torch.arange(self.position_embedding.num_embeddings, device=patches.device)
        positions = resize_position_embedding(self.position_embedding(position_ids), self.grid, patches.shape[2:])
        class_tokens = self.class_embedding.expand(patches.shape[0], 1, -1)
        return self.dropout(torch.cat([class_tokens, patches.flatten(2).transpose(1, 2)], dim=1) + positions)


class ValorAudioAttention(ValorTextAttention):
    """Self-attention over the tokens of one clip."""


class ValorAudioLayer(GradientCheckpointingLayer):
    """Self-attention and feed-forward, each with its norm in front."""

    def __init__(self, config: ValorAudioConfig):
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = ValorAudioAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = ValorTextMLP(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> torch.Tensor:
        normalized = self.layer_norm1(hidden_states)
        attn_output, _ = self.self_attn(normalized, *self.self_attn.project_key_value(normalized), **kwargs)
        hidden_states = hidden_states + self.dropout(attn_output)
        return hidden_states + self.dropout(self.mlp(self.layer_norm2(hidden_states)))


class ValorAudioPreTrainedModel(PreTrainedModel):
    config: ValorAudioConfig
    base_model_prefix = "audio_model"
    main_input_name = "input_features"
    input_modalities = ["audio"]
    supports_gradient_checkpointing = True
    _no_split_modules = ["ValorAudioEmbeddings", "ValorAudioLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": ValorAudioLayer, "attentions": ValorAudioAttention}
    _input_embed_layer = "patch_embedding"

    def __init__(self, config: ValorAudioConfig, *inputs: Any, **kwargs: Any) -> None:
        config.validate()  # `from_pretrained` overrides fields after the configuration was validated
        super().__init__(config, *inputs, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ValorAudioEmbeddings):
            init.normal_(module.class_embedding, std=self.config.initializer_range)
            # A quarter of the embedding of a patch with standard deviation 1/2. If positions are smaller, little of them is
            # left after the layers of a model that is trained from scratch, and it cannot learn which sound is heard first
            init.normal_(
                module.position_embedding.weight, std=self.config.initializer_range * self.config.patch_size / 8
            )


class ValorAudioModel(ValorAudioPreTrainedModel):
    """AST: a vision transformer over the log-mel spectrogram of one clip (section 4.1).

    As in the 2023 checkpoints patches do not overlap, there is one class token and no distillation token.
    """

    def __init__(self, config: ValorAudioConfig):
        super().__init__(config)
        self.embeddings = ValorAudioEmbeddings(config)
        self.layers = nn.ModuleList([ValorAudioLayer(config) for _ in range(config.num_hidden_layers)])
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self, input_features: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> BaseModelOutputWithPooling:
        r"""Encodes clips, each by itself.

        Args:
            input_features (`torch.Tensor` of shape `(clips, mel, time)`): normalised log-mel spectrograms. A size
                other than `(config.num_mel_bins, config.max_length)` resizes the positions; an incomplete patch at
                the end of an axis is left out.

        Returns:
            `last_hidden_state` of shape `(clips, 1 + patches, hidden_size)` and `pooler_output` of shape
            `(clips, hidden_size)`, its class token.

        Raises:
            ValueError: if `input_features` has another number of axes or holds no whole patch.
        """
        hidden_states = self.embeddings(input_features)
        for layer in self.layers:
            hidden_states = layer(hidden_states, **kwargs)
        last_hidden_state = self.layer_norm(hidden_states)
        return BaseModelOutputWithPooling(last_hidden_state=last_hidden_state, pooler_output=last_hidden_state[:, 0])


__all__ = ["ValorAudioModel", "ValorAudioPreTrainedModel"]
