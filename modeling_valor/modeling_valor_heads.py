# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The heads of VALOR: pretraining, retrieval, captioning and question answering (sections 4.2 and 4.3)."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import nn
from transformers import CompileConfig, GenerationConfig
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache
from transformers.initialization import no_init_weights
from transformers.modeling_outputs import (
    BaseModelOutputWithPastAndCrossAttentions,
    CausalLMOutputWithCrossAttentions,
)
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple
from transformers.utils.loading_report import LoadStateDictInfo

from .captioning import (
    IGNORE_INDEX,
    answer_token_weights,
    captioning_losses,
    mask_tokens,
    next_word_labels,
)
from .configuration_valor import CAPTIONING_GROUPS, GROUP_OF_MODALITIES, ValorConfig
from .generation import ValorGenerationMixin
from .modeling_valor import ValorModel, ValorOutput, ValorPreTrainedModel
from .modeling_valor_text import CACHE, ValorConditions, cache_by_either_name


Result = TypeVar("Result")
Head = TypeVar("Head", bound="ValorDecoderModel")

LM_HEAD_KEYS = [
    f"lm_head.{name}" for name in ("dense.weight", "dense.bias", "norm.weight", "norm.bias", "decoder.bias")
]
"""Parameters of [`ValorLMHead`], without its matrix, which is the word embedding."""

AUTO_MAP = {
    "AutoConfig": "configuration_valor.ValorConfig",
    "AutoModel": "modeling_valor.ValorModel",
    "AutoModelForPreTraining": "modeling_valor_heads.ValorForPreTraining",
    "AutoModelForMultimodalLM": "modeling_valor_heads.ValorForCaptioning",
    "AutoModelForVisualQuestionAnswering": "modeling_valor_heads.ValorForQuestionAnswering",
}
"""Auto classes that load any checkpoint saved with its code, as `module.Class` of the files saved with it."""

HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")
"""Arguments of `from_pretrained` that say where and how files are fetched."""


@dataclass
class ValorForPreTrainingOutput(ValorOutput):
    r"""loss (`torch.FloatTensor` of shape `()`): eq. 7.
    captioning_losses (`dict[str, torch.FloatTensor]`):
        Loss of each captioning group, 0 for one that no sample has; the rest is as in `ValorOutput`.
    """

    captioning_losses: dict[str, torch.Tensor] | None = None


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


def delegate(method: Callable[..., Result]) -> Callable[..., Result]:
    """A method of a head that calls the same method of its `valor`, with its signature and docstring."""

    @wraps(method)
    def call(self: ValorDecoderModel, *args: Any, **kwargs: Any) -> Result:
        return getattr(self.valor, method.__name__)(*args, **kwargs)

    return call


class ValorForRetrieval(ValorDecoderModel):
    """VALOR for text-to-video, text-to-audio and text-to-audiovisual retrieval (section 4.3).

    The decoder head of a checkpoint is kept and saved, but not used. If a checkpoint has none, there is no warning, and the
    random head is not saved, so that it cannot be loaded as a captioner.
    """

    _keys_to_ignore_on_load_missing = LM_HEAD_KEYS

    def _adjust_missing_and_unexpected_keys(self, loading_info: LoadStateDictInfo) -> None:
        if not loading_info.missing_keys.isdisjoint(LM_HEAD_KEYS):
            self._keys_to_ignore_on_save.update(LM_HEAD_KEYS)
        super()._adjust_missing_and_unexpected_keys(loading_info)

    get_text_embeds = delegate(ValorModel.get_text_embeds)
    get_video_embeds = delegate(ValorModel.get_video_embeds)
    get_audio_embeds = delegate(ValorModel.get_audio_embeds)
    get_text_features = delegate(ValorModel.get_text_features)
    get_video_features = delegate(ValorModel.get_video_features)
    get_audio_features = delegate(ValorModel.get_audio_features)
    embed_texts = delegate(ValorModel.embed_texts)
    embed_media = delegate(ValorModel.embed_media)
    score = delegate(ValorModel.score)
    compute_similarity = delegate(ValorModel.compute_similarity)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        audio_mask: torch.Tensor | None = None,
        alignment_groups: Sequence[str] | None = None,
        return_loss: bool | None = True,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ValorOutput:
        r"""As [`ValorModel.forward`]; the loss is the mean over the groups asked for (section 4.3: the one of the task).

        There is no loss where the inputs are not pairs: for one modality alone, or for more texts than videos.
        """
        inputs = {"text": input_ids, "video": pixel_values_videos, "audio": input_features}
        sizes = {name: len(value) for name, value in inputs.items() if value is not None}
        groups = self.config.select_groups("alignment_groups", alignment_groups, list(sizes))
        return_loss = return_loss and bool(groups) and len(set(sizes.values())) == 1
        return self.valor(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values_videos=pixel_values_videos,
            frame_mask=frame_mask,
            input_features=input_features,
            audio_mask=audio_mask,
            alignment_groups=alignment_groups,
            return_loss=return_loss,
            **kwargs,
        )


class ValorForPreTraining(ValorDecoderModel):
    """VALOR with both pretraining tasks, MGA and MGC (section 4.2). Its checkpoint loads into every other class."""

    default_auto_class = "AutoModelForPreTraining"

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        audio_mask: torch.Tensor | None = None,
        alignment_groups: Sequence[str] | None = None,
        captioning_groups: Sequence[str] | None = None,
        prompt_input_ids: torch.Tensor | None = None,
        prompt_attention_mask: torch.Tensor | None = None,
        num_targets: Mapping[str, torch.Tensor] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ValorForPreTrainingOutput:
        r"""The loss of eq. 7: alpha * L_MGA + L_MGC. Encoders run once for all groups of both tasks.

        Args:
            decoder_input_ids (`torch.LongTensor` of shape `(batch_size, length)`, *optional*):
                Masked text, in the decoder's vocabulary. Without it `input_ids` are masked here, anew at every call
                (or shifted, for the "causal" objective); needed where the text encoder has another vocabulary.
            labels (`torch.LongTensor` of shape `(batch_size, length)`, *optional*):
                Targets of `decoder_input_ids`, -100 where there is none.
            alignment_groups, captioning_groups (`list[str]`, *optional*):
                By default those of the configuration for which inputs are given; an empty list, here or there, leaves
                a task out.
            num_targets (`dict[str, torch.Tensor]`, *optional*):
                Words that each captioning group predicts in the batch (the mean over ranks), where this is a part of it.

        Raises:
            `ValueError`: neither video nor audio, or only one of `decoder_input_ids` and `labels`.
        """
        if input_ids is None or (pixel_values_videos is None and input_features is None):
            raise ValueError(
                "Pretraining needs `input_ids` and at least one of `pixel_values_videos` and `input_features`."
            )
        with_alignment, with_captioning = (
            bool(getattr(self.config, name) if groups is None else groups)
            for name, groups in (("alignment_groups", alignment_groups), ("captioning_groups", captioning_groups))
        )
        outputs = self.valor(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values_videos=pixel_values_videos,
            frame_mask=frame_mask,
            input_features=input_features,
            audio_mask=audio_mask,
            alignment_groups=alignment_groups,
            return_loss=with_alignment,
            **kwargs,
        )
        losses = [self.config.alignment_loss_weight * outputs.loss] if with_alignment else []

        given = [
            name for name, value in (("video", pixel_values_videos), ("audio", input_features)) if value is not None
        ]
        group_losses: dict[str, torch.Tensor] = {}
        if with_captioning:
            groups = self.select_captioning_groups(captioning_groups, given)
            decoder_input_ids, decoder_attention_mask, labels = self.decoder_inputs(
                input_ids, attention_mask, decoder_input_ids, decoder_attention_mask, labels
            )
            conditions = self.valor.embed_conditions(
                outputs.vision_model_output.last_hidden_state if "video" in given else None,
                frame_mask,
                outputs.audio_model_output.last_hidden_state if "audio" in given else None,
                audio_mask,
            )
            _, states = self.decode(
                decoder_input_ids,
                decoder_attention_mask,
                conditions,
                groups,
                *self.caption_prompt(prompt_input_ids, prompt_attention_mask, conditions.device),
                **kwargs,
            )
            group_logits, group_labels = {}, {}
            for group, hidden_states in zip(groups, states, strict=True):
                targets = self.labels_of(labels, conditions, group)
                # The vocabulary is large, so only labelled positions are predicted
                group_logits[group] = self.lm_head(hidden_states[targets != IGNORE_INDEX])
                group_labels[group] = targets[targets != IGNORE_INDEX]
            loss, group_losses = captioning_losses(group_logits, group_labels, num_targets, over_ranks=self.training)
            losses.append(loss)
        total = sum(losses) if losses else None
        return ValorForPreTrainingOutput(**{**outputs, "loss": total}, captioning_losses=group_losses)

    def decoder_inputs(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        decoder_input_ids: torch.Tensor | None,
        decoder_attention_mask: torch.Tensor | None,
        labels: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Inputs and labels of the decoder, made from the text if they are not given."""
        if (decoder_input_ids is None) != (labels is None):
            given, missing = ("decoder_input_ids", "labels") if labels is None else ("labels", "decoder_input_ids")
            raise ValueError(f"`{given}` need `{missing}`; without both, `input_ids` are masked by the model.")
        if decoder_input_ids is not None and labels is not None:
            mask = self.valor.text_attention_mask(decoder_input_ids, decoder_attention_mask)
            return decoder_input_ids, mask, labels
        text_config = self.config.text_config
        if self.config.text_encoder_config is not None and (
            self.config.text_encoder_config.vocab_size != text_config.vocab_size
        ):
            raise ValueError(
                "The text encoder has another vocabulary than the decoder: give the decoder's masked text as "
                "`decoder_input_ids` with `labels`."
            )
        mask = self.valor.text_attention_mask(input_ids, attention_mask)
        if self.config.captioning_objective == "causal":
            return input_ids, mask, next_word_labels(input_ids, mask)
        masked, labels = mask_tokens(
            input_ids, mask, text_config.mask_token_id, text_config.vocab_size, self.config.mask_probability
        )
        return masked, mask, labels


class ValorForCaptioning(ValorDecoderModel, ValorGenerationMixin):
    """VALOR that describes videos, sounds or both (section 4.3)."""

    default_auto_class = "AutoModelForMultimodalLM"

    @cache_by_either_name
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        audio_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        captioning_groups: Sequence[str] | None = None,
        prompt_input_ids: torch.Tensor | None = None,
        prompt_attention_mask: torch.Tensor | None = None,
        question_input_ids: torch.Tensor | None = None,
        question_attention_mask: torch.Tensor | None = None,
        conditions: ValorConditions | None = None,
        cache: Cache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ValorDecoderOutput:
        r"""Predicts the masked words of captions (or the next ones, with the "causal" objective).

        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, length)`): masked captions, `[CLS] ... [SEP]`.
            labels (`torch.LongTensor` of shape `(batch_size, length)`, *optional*):
                The word at this very position, -100 where there is none to predict.
            captioning_groups (`list[str]`, *optional*):
                By default those of the configuration for which inputs are given. The loss is their mean (eq. 6).
            prompt_input_ids (`torch.LongTensor` of shape `(batch_size, prompt_length)`, *optional*):
                Replaces the configuration's prompt.
            question_input_ids (`torch.LongTensor` of shape `(batch_size, question_length)`, *optional*):
                A question, `[CLS] ... [SEP]`, to answer instead, as [`ValorForQuestionAnswering`] does.
            conditions (`ValorConditions`, *optional*): in place of video and audio inputs, already encoded.
            logits_to_keep (`int` or `torch.Tensor`): compute logits for the last so many positions (0: all), or for these.

        Returns:
            `logits` of shape `(batch_size, length, vocab_size)`, those of the last group where there are several.
        """
        conditions = self.conditions_of(conditions, pixel_values_videos, frame_mask, input_features, audio_mask)
        groups = self.select_captioning_groups(captioning_groups, conditions.modalities)
        prompt = self.text_prompt(
            conditions.device,
            prompt_input_ids,
            prompt_attention_mask,
            question_input_ids,
            question_attention_mask,
        )
        return self.predict(
            input_ids,
            attention_mask,
            conditions,
            groups,
            prompt,
            labels,
            label_smoothing=self.config.label_smoothing,
            logits_to_keep=logits_to_keep,
            cache=cache,
            use_cache=use_cache,
            **kwargs,
        )


class ValorForQuestionAnswering(ValorDecoderModel, ValorGenerationMixin):
    """VALOR that answers questions about videos and sounds in words of the whole vocabulary (section 4.3)."""

    default_auto_class = "AutoModelForVisualQuestionAnswering"

    @cache_by_either_name
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        question_input_ids: torch.Tensor | None = None,
        question_attention_mask: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        audio_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        captioning_groups: Sequence[str] | None = None,
        answer_weights: torch.Tensor | None = None,
        conditions: ValorConditions | None = None,
        cache: Cache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ValorDecoderOutput:
        r"""Predicts the masked words of answers; the question is the decoder's prompt.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, length)`): masked answers, `[CLS] ... [SEP]`.
            question_input_ids (`torch.LongTensor` of shape `(batch_size, question_length)`): `[CLS] ... [SEP]`.
            labels (`torch.LongTensor` of shape `(batch_size, length)`, *optional*):
                The word at this very position, -100 where there is none to predict.
            captioning_groups (`list[str]`, *optional*): by default the one made of the modalities given.
            answer_weights (`torch.FloatTensor` of shape `(batch_size,)`, *optional*):
                For several answers to a question, each a row of the batch: weights that add up to 1 for each question.

        Returns:
            `loss`, the mean over an answer's tokens, then over answers (weighted); `logits` of shape
            `(batch_size, length, vocab_size)`.
        """
        if question_input_ids is None:
            raise ValueError("Give the question as `question_input_ids`.")
        conditions = self.conditions_of(conditions, pixel_values_videos, frame_mask, input_features, audio_mask)
        if captioning_groups is None:
            captioning_groups = [GROUP_OF_MODALITIES[conditions.modalities]]
        groups = self.select_captioning_groups(captioning_groups, conditions.modalities)
        return self.predict(
            input_ids,
            attention_mask,
            conditions,
            groups,
            self.question_prompt(question_input_ids, question_attention_mask),
            labels,
            weights=None if labels is None else answer_token_weights(labels, answer_weights),
            logits_to_keep=logits_to_keep,
            cache=cache,
            use_cache=use_cache,
            **kwargs,
        )


HEADS: dict[str, type[ValorDecoderModel]] = {
    "pretraining": ValorForPreTraining,
    "retrieval": ValorForRetrieval,
    "captioning": ValorForCaptioning,
    "question_answering": ValorForQuestionAnswering,
}
"""The class that does each task: its `forward` trains it."""


def as_head(model: ValorPreTrainedModel, head_class: type[Head]) -> Head:
    """The model as a `head_class`, such as `ValorForCaptioning` for a `ValorForPreTraining`.

    It is made of the model's own `valor` and `lm_head`: nothing is copied or moved, so it follows every later change of
    the weights. Takes some milliseconds, as the head's own modules are made on the meta device.

    Raises:
        ValueError: the model has no `lm_head`.
    """
    if isinstance(model, head_class) and type(model).forward is head_class.forward:  # not a `ValorForMultitask`
        return model
    if not hasattr(model, "lm_head") or not model._keys_to_ignore_on_save.isdisjoint(LM_HEAD_KEYS):
        raise ValueError(
            f"{type(model).__name__} has no decoder head, so it cannot write text. Load the checkpoint as "
            f"{head_class.__name__} or ValorForPreTraining."
        )
    with torch.device("meta"), no_init_weights():
        head = head_class(model.config)
    decoder = cast(ValorDecoderModel, model)
    head.valor, head.lm_head = decoder.valor, decoder.lm_head
    if model.generation_config is not None:
        head.generation_config = model.generation_config
    head.training = model.training
    return head


__all__ = [
    "HEADS",
    "ValorForCaptioning",
    "ValorForPreTraining",
    "ValorForPreTrainingOutput",
    "ValorForQuestionAnswering",
    "ValorForRetrieval",
    "as_head",
]
