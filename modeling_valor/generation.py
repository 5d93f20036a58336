# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Decoding with a [MASK] query, a cache, and the beam search of the released decoder (section 4.3)."""

from typing import Any

import torch
from torch.nn import functional as F
from transformers import GenerationConfig, GenerationMixin
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.generation.logits_process import LogitsProcessorList
from transformers.generation.stopping_criteria import StoppingCriteriaList
from transformers.generation.utils import GenerateBeamDecoderOnlyOutput, GenerateBeamOutput
from transformers.utils import ModelOutput

from .modeling_valor_text import ConditionCache, ValorConditions


DEFAULT_MAX_NEW_TOKENS = 30

GROUP_OF_MODALITIES = {("video",): "t-v", ("audio",): "t-a", ("video", "audio"): "t-av"}


class ValorGenerationMixin(GenerationMixin):
    """
    `generate()` for a decoder that predicts a word at a [MASK] placed after the words so far.

    Each step runs two tokens, the newest word and [MASK]; the cache then forgets [MASK]. The first step also runs the
    prompt, and computes the cross-attention keys and values, one row per sample whatever the number of beams.
    """

    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values_videos: torch.FloatTensor | None = None,
        frame_mask: torch.BoolTensor | None = None,
        input_features: torch.FloatTensor | None = None,
        audio_mask: torch.BoolTensor | None = None,
        conditions: ValorConditions | None = None,
        generation_config: GenerationConfig | None = None,
        **kwargs,
    ) -> torch.LongTensor | ModelOutput:
        r"""
        Describes (or answers about) videos and sounds.

        Greedy by default; `num_beams`, `do_sample`, `num_return_sequences`, `streamer`, `logits_processor` and all other
        arguments of [`~transformers.GenerationMixin.generate`] work. Beams are the released decoder's: scores are sums
        of log-probabilities, a finished beam keeps its slot, and the best sum wins.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, length)`, *optional*):
                Words to continue, beginning with [CLS], without padding. By default [CLS] alone.
            pixel_values_videos, frame_mask, input_features, audio_mask:
                What to describe; one modality is enough.
            conditions (`ValorConditions`, *optional*):
                Encoded video and audio (`model.valor.encode_conditions(...)`), to be used again without encoding.

        Returns:
            Ids of shape `(batch_size * num_return_sequences, <= 1 + max_new_tokens)` beginning with [CLS], padded after
            [SEP]; with `return_dict_in_generate=True` a `ModelOutput`.

        Raises:
            `ValueError`: without any modality, or if `input_ids` are padded.
        """
        if conditions is None:
            if pixel_values_videos is None and input_features is None:
                raise ValueError(
                    "There is nothing to describe: give `pixel_values_videos`, `input_features` or both to `generate`."
                )
            conditions = self.valor.encode_conditions(pixel_values_videos, frame_mask, input_features, audio_mask)
        batch_size, device = len(conditions[conditions.modalities[0]]), self.device
        text_config = self.config.get_text_config(decoder=True)
        if input_ids is None:
            input_ids = torch.full((batch_size, 1), text_config.bos_token_id, dtype=torch.long, device=device)
        attention_mask = kwargs.pop("attention_mask", None)
        if attention_mask is not None and not attention_mask.all():
            raise ValueError(
                "`generate` continues texts of equal length, but `attention_mask` marks padding in `input_ids`. "
                "Generate texts of different length one by one, or start from [CLS] alone."
            )
        limits = generation_config or self.generation_config
        if limits.max_new_tokens is None and limits.max_length is None and not kwargs.keys() & {"max_length"}:
            kwargs.setdefault("max_new_tokens", DEFAULT_MAX_NEW_TOKENS)
        return super().generate(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            conditions=conditions,
            generation_config=generation_config,
            **kwargs,
        )

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        past_key_values: EncoderDecoderCache | None = None,
        conditions: ValorConditions | None = None,
        captioning_groups: list[str] | None = None,
        use_cache: bool | None = None,
        next_sequence_length: int | None = None,
        is_first_iteration: bool | None = None,
        attention_mask: torch.Tensor | None = None,
        **kwargs,
    ) -> dict[str, Any]:
        text = input_ids
        if self.config.captioning_objective == "masked":
            mask_token_id = self.config.get_text_config(decoder=True).mask_token_id
            text = F.pad(text, (0, 1), value=mask_token_id)
        attended = text
        # The cache holds the prefix and all words but the newest, or nothing yet
        if past_key_values is not None and past_key_values.get_seq_length() > 0:
            text = text[:, input_ids.shape[1] - 1 :]
        return {
            **kwargs,
            "input_ids": text,
            # Said outright: by default the model would take a generated [PAD] for padding
            "attention_mask": torch.ones_like(attended),
            "past_key_values": past_key_values,
            "conditions": conditions,
            "captioning_groups": captioning_groups or [GROUP_OF_MODALITIES[conditions.modalities]],
            "use_cache": use_cache,
            "logits_to_keep": 1,
        }

    def _update_model_kwargs_for_generation(
        self, outputs: ModelOutput, model_kwargs: dict[str, Any], **kwargs
    ) -> dict[str, Any]:
        model_kwargs = super()._update_model_kwargs_for_generation(outputs, model_kwargs, **kwargs)
        cache = model_kwargs.get("past_key_values")
        if cache is not None and self.config.captioning_objective == "masked":
            cache.crop(-1)
        return model_kwargs

    def _prepare_cache_for_generation(
        self, generation_config: GenerationConfig, model_kwargs: dict[str, Any], *args, **kwargs
    ) -> None:
        super()._prepare_cache_for_generation(generation_config, model_kwargs, *args, **kwargs)
        cache = model_kwargs.get("past_key_values")
        if cache is None or isinstance(cache, EncoderDecoderCache):
            return
        if not isinstance(cache, DynamicCache):
            raise ValueError(
                f"`cache_implementation={generation_config.cache_implementation!r}` is not supported: the [MASK] query "
                'needs a cache that can forget its last token. Leave it unset or use "dynamic".'
            )
        model_kwargs["past_key_values"] = EncoderDecoderCache(cache, ConditionCache())

    def _beam_search(
        self,
        input_ids: torch.LongTensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        synced_gpus: bool = False,
        **model_kwargs,
    ) -> GenerateBeamOutput | torch.LongTensor:
        """
        Beam search of the released decoder: a fixed number of beams, sums of log-probabilities, no length penalty.

        A finished beam stays in its slot with an unchanged score. (The 2023 code lets it fill all slots below it too;
        scores only fall, so what was below it could never have won, and here these slots go on to offer other captions.)
        A sample is done when its best beam is finished, or all of them where several sequences are asked for.
        """
        if generation_config.do_sample:
            return super()._beam_search(
                input_ids, logits_processor, stopping_criteria, generation_config, synced_gpus, **model_kwargs
            )
        num_beams, num_returned = generation_config.num_beams, generation_config.num_return_sequences
        batch_size, device = input_ids.shape[0] // num_beams, input_ids.device
        prompt_length = input_ids.shape[1]
        pad_token_id = generation_config._pad_token_tensor.to(device)
        first_rows = torch.arange(batch_size, device=device)[:, None] * num_beams

        # All beams start equal: only the first one may offer words at the first step
        scores = torch.zeros(batch_size, num_beams, device=device)
        scores[:, 1:] = -torch.inf
        finished = torch.zeros(batch_size, num_beams, dtype=torch.bool, device=device)
        beam_indices = torch.empty(input_ids.shape[0], 0, dtype=torch.long, device=device)
        all_scores, all_logits, attentions, hidden_states = (), (), (), ()

        this_peer_finished = False
        while self._has_unfinished_sequences(this_peer_finished, synced_gpus, device=device):
            outputs = self(**self.prepare_inputs_for_generation(input_ids, **model_kwargs), return_dict=True)
            model_kwargs = self._update_model_kwargs_for_generation(outputs, model_kwargs)
            if synced_gpus and this_peer_finished:
                continue

            logits = outputs.logits[:, -1].to(copy=True, dtype=torch.float32, device=device)
            log_probs = logits_processor(input_ids, F.log_softmax(logits, dim=-1))
            vocab_size = log_probs.shape[-1]
            candidates = scores[:, :, None] + log_probs.view(batch_size, num_beams, vocab_size)
            stay = torch.full_like(candidates, -torch.inf)
            stay[:, :, pad_token_id] = scores
            candidates = torch.where(finished[:, :, None], stay, candidates)
            scores, chosen = candidates.flatten(1).topk(num_beams, dim=1)

            beams, words = chosen // vocab_size, chosen % vocab_size
            rows = (first_rows + beams).flatten()
            finished = finished.gather(1, beams)
            input_ids = torch.cat([input_ids[rows], words.view(-1, 1)], dim=1)
            taken = torch.where(finished.view(-1, 1), -1, rows[:, None])
            beam_indices = torch.cat([beam_indices[rows], taken], dim=1)
            finished = finished | stopping_criteria(input_ids, None).view_as(finished)
            if (cache := model_kwargs.get("past_key_values")) is not None:
                cache.reorder_cache(rows)
            this_peer_finished = bool((finished[:, 0] if num_returned == 1 else finished).all())

            if generation_config.return_dict_in_generate:
                all_scores += (log_probs,) if generation_config.output_scores else ()
                all_logits += (logits,) if generation_config.output_logits else ()
                attentions += (outputs.attentions,) if generation_config.output_attentions else ()
                hidden_states += (outputs.hidden_states,) if generation_config.output_hidden_states else ()

        best = (first_rows + torch.arange(num_returned, device=device)).flatten()
        sequences, beam_indices = input_ids[best], beam_indices[best]
        longest = prompt_length + int((beam_indices >= 0).sum(dim=1).max())
        sequences, beam_indices = sequences[:, :longest], beam_indices[:, : longest - prompt_length]
        if not generation_config.return_dict_in_generate:
            return sequences
        return GenerateBeamDecoderOnlyOutput(
            sequences=sequences,
            sequences_scores=scores[:, :num_returned].flatten(),
            scores=all_scores or None,
            logits=all_logits or None,
            beam_indices=beam_indices,
            attentions=attentions or None,
            hidden_states=hidden_states or None,
            past_key_values=model_kwargs.get("past_key_values"),
        )


__all__ = ["ValorGenerationMixin"]
