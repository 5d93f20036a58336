# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The decoder with its prediction head, of which every head is made: prompts, conditions, groups and their losses (section 4.2)."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import CompileConfig, GenerationConfig
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache
from transformers.modeling_outputs import (
    BaseModelOutputWithPastAndCrossAttentions,
    CausalLMOutputWithCrossAttentions,
)
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs

from .captioning import IGNORE_INDEX, captioning_losses
from .configuration_valor import CAPTIONING_GROUPS, ValorConfig
from .modeling_valor import ValorModel
from .modeling_valor_base import ValorPreTrainedModel
from .modeling_valor_text import CACHE, ValorConditions


LM_HEAD_KEYS = [
    f"lm_head.{name}" for name in ("dense.weight", "dense.bias", "norm.weight", "norm.bias", "decoder.bias")
]
"""Parameters of [`ValorLMHead`], without its matrix, which is the word embedding."""

HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")
"""Arguments of `from_pretrained` that say where and how files are fetched."""


@dataclass
class ValorDecoderOutput(CausalLMOutputWithCrossAttentions):
    """Output of a head with the decoder, `CausalLMOutputWithCrossAttentions` and the losses of the groups.

    Args:
        captioning_losses (`dict[str, torch.FloatTensor]`, returned when `labels` are given):
            Loss of each captioning group, 0 for one that no sample has.
    """

    captioning_losses: dict[str, torch.Tensor] | None = None


class ValorLMHead(nn.Module):
    """BERT's prediction head; its output matrix is the word embedding."""

    def __init__(self, config: ValorConfig):
        super().__init__()
        text_config = config.text_config
        self.dense = nn.Linear(text_config.hidden_size, text_config.hidden_size)
        self.activation_fn = ACT2FN[text_config.hidden_act]
        self.norm = nn.LayerNorm(text_config.hidden_size, eps=text_config.layer_norm_eps)
        self.decoder = nn.Linear(text_config.hidden_size, text_config.vocab_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.norm(self.activation_fn(self.dense(hidden_states))))


class ValorDecoderModel(ValorPreTrainedModel):
    """The base of all heads: the decoder with its prediction head. A checkpoint of one head loads into all others."""

    generation_config: (
        Any  # a GenerationConfig, or None where neither the head can generate nor the checkpoint has one
    )
    _tied_weights_keys = {"lm_head.decoder.weight": "valor.text_model.embeddings.word_embeddings.weight"}

    def __init__(self, config: ValorConfig):
        super().__init__(config)
        self.valor = ValorModel(config)
        self.lm_head = ValorLMHead(config)
        if not self.can_generate():
            # Later that of the checkpoint: heads that can generate may be made of this one, or of the checkpoint that it saves
            self.generation_config = None
        self.post_init()

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, *args: Any, **kwargs: Any
    ) -> Any:
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        if not cls.can_generate() and pretrained_model_name_or_path is not None:
            model = loaded[0] if isinstance(loaded, tuple) else loaded
            with suppress(OSError):  # there is none in the checkpoint
                model.generation_config = GenerationConfig.from_pretrained(
                    pretrained_model_name_or_path, **{name: kwargs[name] for name in HUB_OPTIONS if name in kwargs}
                )
        return loaded

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], is_main_process: bool = True, *args: Any, **kwargs: Any
    ) -> None:
        super().save_pretrained(save_directory, is_main_process, *args, **kwargs)
        if not self.can_generate() and self.generation_config is not None and is_main_process:
            self.generation_config.save_pretrained(save_directory)

    def get_compiled_call(self, compile_config: CompileConfig | None) -> Callable[..., Any]:
        """What `generate` calls for each word where it would call a compiled `forward`: a step over static tensors."""
        return getattr(self, "static_step", None) or super().get_compiled_call(compile_config)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.valor.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.valor.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head.decoder

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.lm_head.decoder = value

    def decode(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        conditions: ValorConditions,
        groups: Sequence[str],
        prompt_input_ids: torch.Tensor | None,
        prompt_attention_mask: torch.Tensor | None,
        cache: Cache | None = None,
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[BaseModelOutputWithPastAndCrossAttentions, list[torch.Tensor]]:
        """Runs the decoder for all groups side by side; returns its output and (batch_size, length, hidden) per group."""
        past_length = cache.get_seq_length() if cache is not None else 0
        if attention_mask is None and past_length == 0:
            attention_mask = self.valor.text_attention_mask(input_ids, None)
        outputs = self.valor.text_model(
            input_ids,
            attention_mask,
            prompt_input_ids=prompt_input_ids,
            prompt_attention_mask=prompt_attention_mask,
            conditions=conditions,
            groups=[CAPTIONING_GROUPS[group] for group in groups],
            cache=cache,
            use_cache=bool(use_cache),
            is_causal=True,
            **kwargs,
        )
        return outputs, list(outputs.last_hidden_state.chunk(len(groups)))

    def caption_prompt(
        self,
        prompt_input_ids: torch.Tensor | None,
        prompt_attention_mask: torch.Tensor | None,
        device: torch.device,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """The given prompt, or by default that of the configuration."""
        if prompt_input_ids is None:
            return self.valor.prompt("caption_prompt_ids", device), None
        return prompt_input_ids, self.valor.text_attention_mask(prompt_input_ids, prompt_attention_mask)

    def question_prompt(
        self, question_input_ids: torch.Tensor, question_attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The question with the configuration's prompt after its [CLS]."""
        mask = self.valor.text_attention_mask(question_input_ids, question_attention_mask)
        prompt = self.valor.prompt("question_prompt_ids", question_input_ids.device)
        if prompt is None:
            return question_input_ids, mask
        text_config = self.config.text_config
        prompt = prompt[(prompt != text_config.bos_token_id) & (prompt != text_config.eos_token_id)]
        prompt = prompt.expand(len(question_input_ids), -1)
        return (
            torch.cat([question_input_ids[:, :1], prompt, question_input_ids[:, 1:]], dim=1),
            torch.cat([mask[:, :1], torch.ones_like(prompt, dtype=torch.bool), mask[:, 1:]], dim=1),
        )

    def text_prompt(
        self,
        device: torch.device,
        prompt_input_ids: torch.Tensor | None = None,
        prompt_attention_mask: torch.Tensor | None = None,
        question_input_ids: torch.Tensor | None = None,
        question_attention_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """What the decoder reads before the text: the question, the prompt given, or that of the configuration."""
        if question_input_ids is None:
            return self.caption_prompt(prompt_input_ids, prompt_attention_mask, device)
        if prompt_input_ids is not None:
            raise ValueError("Give `prompt_input_ids` to describe or `question_input_ids` to answer, not both.")
        return self.question_prompt(question_input_ids, question_attention_mask)

    def conditions_of(
        self,
        conditions: ValorConditions | None,
        pixel_values_videos: torch.Tensor | None,
        frame_mask: torch.Tensor | None,
        input_features: torch.Tensor | None,
        audio_mask: torch.Tensor | None,
    ) -> ValorConditions:
        """The given conditions, or by default those of the inputs; a `ValueError` without either."""
        if conditions is not None:
            return conditions
        if pixel_values_videos is None and input_features is None:
            raise ValueError("The decoder needs `pixel_values_videos`, `input_features` or both to attend to.")
        return self.valor.encode_conditions(pixel_values_videos, frame_mask, input_features, audio_mask)

    def select_captioning_groups(self, requested: Sequence[str] | None, modalities: Sequence[str]) -> list[str]:
        """The captioning groups to compute; a `ValueError` if there is none."""
        groups = self.config.select_groups("captioning_groups", requested, modalities)
        if not groups:
            asked = self.config.captioning_groups if requested is None else requested
            raise ValueError(
                f"None of the captioning groups {list(asked)} can be computed from {list(modalities)}; give at least one."
            )
        return groups

    @staticmethod
    def labels_of(labels: torch.Tensor, conditions: ValorConditions, group: str) -> torch.Tensor:
        """Labels without those of samples that have none of the group's modalities."""
        present = conditions.present(CAPTIONING_GROUPS[group])
        if present is None:
            return labels
        # Several texts of a sample are consecutive rows
        present = present.repeat_interleave(len(labels) // len(present))
        return labels.masked_fill(~present[:, None], IGNORE_INDEX)

    def predict(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        conditions: ValorConditions,
        groups: Sequence[str],
        prompt: tuple[torch.Tensor | None, torch.Tensor | None],
        labels: torch.Tensor | None,
        weights: torch.Tensor | None = None,
        label_smoothing: float = 0.0,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> ValorDecoderOutput:
        """Decodes for all groups: the mean of their losses (eq. 6), and the logits of the last one."""
        if input_ids is None:
            raise ValueError("Give the masked text as `input_ids`, or use `generate` to have text written.")
        outputs, states = self.decode(input_ids, attention_mask, conditions, groups, *prompt, **kwargs)
        loss = losses = None
        if labels is None:
            kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits = self.lm_head(states[-1][:, kept])
        else:
            group_logits = {group: self.lm_head(hidden) for group, hidden in zip(groups, states, strict=True)}
            group_labels = {group: self.labels_of(labels, conditions, group) for group in groups}
            loss, losses = captioning_losses(
                group_logits,
                group_labels,
                weights=weights,
                label_smoothing=label_smoothing,
                over_ranks=self.training,
            )
            logits = group_logits[groups[-1]]
        return ValorDecoderOutput(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            cross_attentions=outputs.cross_attentions,
            captioning_losses=losses,
            **{CACHE: outputs.get(CACHE)},
        )


__all__ = ["ValorDecoderModel", "ValorDecoderOutput"]
