# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The heads of VALOR: pretraining, retrieval, captioning and question answering (sections 4.2 and 4.3)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from transformers.cache_utils import Cache
from transformers.initialization import no_init_weights
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
from .configuration_valor import GROUP_OF_MODALITIES
from .generation import ValorGenerationMixin
from .modeling_valor import ValorModel, ValorOutput
from .modeling_valor_base import ValorPreTrainedModel
from .modeling_valor_decoder import LM_HEAD_KEYS, ValorDecoderModel, ValorDecoderOutput
from .modeling_valor_text import ValorConditions, cache_by_either_name


Result = TypeVar("Result")
Head = TypeVar("Head", bound=ValorDecoderModel)


@dataclass
class ValorForPreTrainingOutput(ValorOutput):
    r"""loss (`torch.FloatTensor` of shape `()`): eq. 7.
    captioning_losses (`dict[str, torch.FloatTensor]`):
        Loss of each captioning group, 0 for one that no sample has; the rest is as in `ValorOutput`.
    """

    captioning_losses: dict[str, torch.Tensor] | None = None


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
