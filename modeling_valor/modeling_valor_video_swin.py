# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The Video Swin Transformer of VALOR-base: all frames of a video to one grid of tokens per frame (section 4.1)."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.clip.modeling_clip import eager_attention_forward
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_valor import ValorVideoSwinConfig


def partition_windows(hidden_states: torch.Tensor, window: Sequence[int]) -> torch.Tensor:
    """Cuts (batch, F, H, W, C), whose sizes are multiples of `window`, into (batch * windows, tokens, C)."""
    for axis, size in enumerate(window):
        hidden_states = hidden_states.unflatten(1 + 2 * axis, (-1, size))
    windows = hidden_states.permute(0, 1, 3, 5, 2, 4, 6, 7)  # (batch, windows along F, H, W, tokens along F, H, W, C)
    return windows.flatten(4, 6).flatten(0, 3)


def join_windows(windows: torch.Tensor, window: Sequence[int], grid: Sequence[int]) -> torch.Tensor:
    """Undoes [`partition_windows`]: (batch * windows, tokens, C) to (batch, F, H, W, C) for a `grid` of (F, H, W)."""
    counts = [extent // size for extent, size in zip(grid, window, strict=True)]
    windows = windows.unflatten(1, tuple(window)).unflatten(0, (-1, *counts))
    return windows.permute(0, 1, 4, 2, 5, 3, 6, 7).flatten(5, 6).flatten(3, 4).flatten(1, 2)


def relative_position_index(window: Sequence[int], num_tokens: int, device: torch.device) -> torch.Tensor:
    """Row of the relative position bias table for each pair of a window's first `num_tokens` tokens.

    Tokens are numbered in the full `window`, frames outer and columns inner. Where a smaller input has shrunk the
    window, its tokens take the rows of the full window's first tokens: with fewer rows or columns these are not the
    geometric relations, but they are what the 2023 checkpoints were trained with.

    Returns:
        `torch.LongTensor` of shape `(num_tokens, num_tokens)`.
    """
    _, rows, columns = window
    token = torch.arange(num_tokens, device=device)
    index = torch.zeros(num_tokens, num_tokens, dtype=torch.long, device=device)
    for size, position in zip(
        window, (token // (rows * columns), token // columns % rows, token % columns), strict=True
    ):
        index = index * (2 * size - 1) + position[:, None] - position[None, :] + size - 1
    return index


def shifted_window_mask(
    grid: Sequence[int], window: Sequence[int], shift: Sequence[int], device: torch.device
) -> torch.Tensor:
    """The mask between tokens that are in one window only because of the cyclic shift.

    After the shift, the last `shift` positions of an axis are those that came around from its beginning. `grid`
    (frames, rows, columns) includes the padding to whole windows, which is not masked.

    Returns:
        `torch.BoolTensor` of shape `(windows, tokens, tokens)`: True where attention is allowed.
    """
    region = torch.zeros(1, 1, 1, dtype=torch.long, device=device)
    for axis, (extent, size) in enumerate(zip(grid, shift, strict=True)):
        came_around = torch.arange(extent, device=device) >= extent - size
        region = 2 * region + came_around.view([-1 if axis == other else 1 for other in range(3)])
    regions = partition_windows(region[None, ..., None], window).squeeze(-1)  # (windows, tokens)
    return regions[:, :, None] == regions[:, None, :]


class ValorVideoSwinDropPath(nn.Module):
    """Stochastic depth: in training, drops a residual branch for a whole sample with probability `drop_prob`."""

    def __init__(self, drop_prob: float):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if not self.training or self.drop_prob == 0.0:
            return hidden_states
        keep_prob = 1 - self.drop_prob
        kept = torch.rand(hidden_states.shape[0], 1, 1, 1, 1, device=hidden_states.device) < keep_prob
        return hidden_states * kept / keep_prob


class ValorVideoSwinAttention(nn.Module):
    """Self-attention within each window, with a learned bias for each relative position and head."""

    def __init__(self, config: ValorVideoSwinConfig, hidden_size: int, num_heads: int):
        super().__init__()
        self.config = config
        self.num_heads = num_heads
        self.head_dim = hidden_size // num_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_probs_dropout_prob
        self.is_causal = False
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.out_proj = nn.Linear(hidden_size, hidden_size)
        num_relations = math.prod(2 * size - 1 for size in config.window_size)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(num_relations, num_heads))

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_index: torch.Tensor,
        window_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        input_shape = hidden_states.shape[:-1]  # (batch * windows, tokens)
        qkv = self.qkv(hidden_states).view(*input_shape, 3, self.num_heads, self.head_dim)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (batch * windows, heads, tokens, head_dim)

        attention_mask = self.relative_position_bias_table[position_index].permute(2, 0, 1).unsqueeze(0)
        if window_mask is not None:
            attention_mask = attention_mask + window_mask.unsqueeze(1)  # (windows, heads, tokens, tokens)
            batch_size = input_shape[0] // window_mask.shape[0]
            attention_mask = attention_mask.expand(batch_size, *attention_mask.shape).flatten(0, 1)

        attention_interface: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        attn_output, attn_weights = attention_interface(
            self,
            query,
            key,
            value,
            attention_mask,
            scaling=self.scaling,
            dropout=self.attention_dropout if self.training else 0.0,
            **kwargs,
        )
        return self.out_proj(attn_output.reshape(*input_shape, -1)), attn_weights


class ValorVideoSwinMLP(nn.Module):
    def __init__(self, config: ValorVideoSwinConfig, hidden_size: int):
        super().__init__()
        intermediate_size = int(hidden_size * config.mlp_ratio)
        self.fc1 = nn.Linear(hidden_size, intermediate_size)
        self.activation_fn = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(intermediate_size, hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = self.dropout(self.activation_fn(self.fc1(hidden_states)))
        return self.dropout(self.fc2(hidden_states))


class ValorVideoSwinBlock(GradientCheckpointingLayer):
    """Attention within windows that are cut after a cyclic shift, then a feed-forward; each has its norm in front."""

    def __init__(self, config: ValorVideoSwinConfig, hidden_size: int, num_heads: int, drop_path_rate: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.attention = ValorVideoSwinAttention(config, hidden_size, num_heads)
        self.norm2 = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.mlp = ValorVideoSwinMLP(config, hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.drop_path = ValorVideoSwinDropPath(drop_path_rate)

    def forward(
        self,
        hidden_states: torch.Tensor,
        window: Sequence[int],
        shift: Sequence[int],
        position_index: torch.Tensor,
        window_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        frames, rows, columns = hidden_states.shape[1:4]
        missing_frames, missing_rows, missing_columns = (
            -extent % size for extent, size in zip((frames, rows, columns), window, strict=True)
        )
        grid = nn.functional.pad(
            self.norm1(hidden_states), (0, 0, 0, missing_columns, 0, missing_rows, 0, missing_frames)
        )
        if any(shift):
            grid = grid.roll([-size for size in shift], dims=(1, 2, 3))
        windows, _ = self.attention(partition_windows(grid, window), position_index, window_mask, **kwargs)
        attended = join_windows(windows, window, grid.shape[1:4])
        if any(shift):
            attended = attended.roll(list(shift), dims=(1, 2, 3))
        attended = attended[:, :frames, :rows, :columns]

        hidden_states = hidden_states + self.drop_path(self.dropout(attended))
        return hidden_states + self.drop_path(self.mlp(self.norm2(hidden_states)))


class ValorVideoSwinPatchMerging(nn.Module):
    """Joins 2 x 2 neighbouring tokens: (batch, F, H, W, C) to (batch, F, ceil(H / 2), ceil(W / 2), 2 * C)."""

    def __init__(self, config: ValorVideoSwinConfig, hidden_size: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * hidden_size, eps=config.layer_norm_eps)
        self.reduction = nn.Linear(4 * hidden_size, 2 * hidden_size, bias=False)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        rows, columns = hidden_states.shape[2:4]
        hidden_states = nn.functional.pad(hidden_states, (0, 0, 0, columns % 2, 0, rows % 2))
        corners = ((0, 0), (1, 0), (0, 1), (1, 1))
        hidden_states = torch.cat([hidden_states[:, :, row::2, column::2] for row, column in corners], dim=-1)
        return self.reduction(self.norm(hidden_states))


class ValorVideoSwinStage(nn.Module):
    """Blocks of one resolution, every second one with shifted windows, then the merging of patches if there is one."""

    def __init__(self, config: ValorVideoSwinConfig, stage: int, drop_path_rates: Sequence[float]):
        super().__init__()
        self.window_size = config.window_size
        hidden_size = config.embed_dim * 2**stage
        self.blocks = nn.ModuleList(
            [ValorVideoSwinBlock(config, hidden_size, config.num_heads[stage], rate) for rate in drop_path_rates]
        )
        is_last = stage == len(config.depths) - 1
        self.downsample = None if is_last else ValorVideoSwinPatchMerging(config, hidden_size)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> torch.Tensor:
        grid, device = hidden_states.shape[1:4], hidden_states.device
        # An axis that fits into one window is one window, and shifting it would change nothing
        window = [size if extent > size else extent for extent, size in zip(grid, self.window_size, strict=True)]
        shift = [size // 2 if extent > size else 0 for extent, size in zip(grid, self.window_size, strict=True)]
        padded_grid = [extent + -extent % size for extent, size in zip(grid, window, strict=True)]

        position_index = relative_position_index(self.window_size, math.prod(window), device)
        window_mask = None
        if any(shift):
            allowed = shifted_window_mask(padded_grid, window, shift, device)
            window_mask = torch.where(allowed, 0.0, -100.0).to(hidden_states.dtype)  # Swin's finite minus infinity

        for index, block in enumerate(self.blocks):
            if index % 2 == 0:
                hidden_states = block(hidden_states, window, (0, 0, 0), position_index, **kwargs)
            else:
                hidden_states = block(hidden_states, window, shift, position_index, window_mask, **kwargs)
        return hidden_states if self.downsample is None else self.downsample(hidden_states)


class ValorVideoSwinPreTrainedModel(PreTrainedModel):
    config: ValorVideoSwinConfig
    base_model_prefix = "vision_model"
    main_input_name = "pixel_values_videos"
    input_modalities = ["video"]
    supports_gradient_checkpointing = True
    _no_split_modules = ["ValorVideoSwinBlock"]
    _supports_sdpa = True
    # The position bias is a float mask per head: flash attention takes no such mask, flex reads that of one head
    _supports_flash_attn = False
    _supports_flex_attn = False
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": ValorVideoSwinStage, "attentions": ValorVideoSwinAttention}
    _input_embed_layer = "patch_embedding"

    def __init__(self, config: ValorVideoSwinConfig, *inputs: Any, **kwargs: Any) -> None:
        config.validate()  # `from_pretrained` overrides fields after the configuration was validated
        super().__init__(config, *inputs, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ValorVideoSwinAttention):
            init.trunc_normal_(module.relative_position_bias_table, std=self.config.initializer_range)


class ValorVideoSwinModel(ValorVideoSwinPreTrainedModel):
    """Video Swin Transformer with a temporal stride of 1, so that every frame keeps its own grid of tokens (section 4.1).

    Frames are encoded together: windows of attention span up to `config.window_size[0]` of them.
    """

    def __init__(self, config: ValorVideoSwinConfig):
        super().__init__(config)
        frames, height, width = config.patch_size
        self.patch_embedding = nn.Conv3d(
            config.num_channels,
            config.embed_dim,
            kernel_size=(frames, height, width),
            stride=(config.temporal_stride, height, width),
        )
        self.patch_norm = nn.LayerNorm(config.embed_dim, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        num_blocks = sum(config.depths)
        rates = iter(config.drop_path_rate * block / max(num_blocks - 1, 1) for block in range(num_blocks))
        self.stages = nn.ModuleList(
            [
                ValorVideoSwinStage(config, stage, list(itertools.islice(rates, depth)))
                for stage, depth in enumerate(config.depths)
            ]
        )
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self, pixel_values_videos: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> BaseModelOutputWithPooling:
        r"""Encodes the frames of each video together.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(batch_size, frames, channels, height, width)`): normalised
                frames of any size and number. Height and width are padded with zeros to whole patches, and after the
                last frame come as many frames of zeros as a patch is longer than one frame.

        Returns:
            `last_hidden_state` of shape `(batch_size, ceil(frames / config.temporal_stride), tokens, hidden_size)`,
            tokens in row-major order, and `pooler_output` of shape `(batch_size, ..., hidden_size)`, its mean over the
            tokens of each frame. `hidden_states`, where asked for, are (batch_size, frames, rows, columns, channels)
            before the first stage and after each; `attentions` are one per block, (batch_size * windows, heads,
            tokens, tokens).

        Raises:
            ValueError: if `pixel_values_videos` has another number of axes.
        """
        if pixel_values_videos.ndim != 5:
            raise ValueError(
                "`pixel_values_videos` must be (batch_size, frames, channels, height, width), "
                f"got {tuple(pixel_values_videos.shape)}; an image is a video of one frame."
            )
        patch_frames, patch_rows, patch_columns = self.config.patch_size
        rows, columns = pixel_values_videos.shape[3:]
        pixels = pixel_values_videos.to(self.patch_embedding.weight.dtype).transpose(1, 2)  # (batch, 3, F, H, W)
        pixels = nn.functional.pad(pixels, (0, -columns % patch_columns, 0, -rows % patch_rows, 0, patch_frames - 1))
        hidden_states = self.patch_embedding(pixels).movedim(1, -1)  # (batch, F, H, W, C) from here on
        hidden_states = self.dropout(self.patch_norm(hidden_states))
        for stage in self.stages:
            hidden_states = stage(hidden_states, **kwargs)
        last_hidden_state = self.norm(hidden_states).flatten(2, 3)
        return BaseModelOutputWithPooling(
            last_hidden_state=last_hidden_state, pooler_output=last_hidden_state.mean(dim=2)
        )


__all__ = ["ValorVideoSwinModel", "ValorVideoSwinPreTrainedModel"]
