# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Decoding with a [MASK] query, a cache, and the beam search of the released decoder (section 4.3)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.nn import functional as F
from transformers import GenerationConfig
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.generation.logits_process import LogitsProcessorList
from transformers.generation.stopping_criteria import StoppingCriteriaList
from transformers.generation.utils import GenerateBeamDecoderOnlyOutput, GenerateBeamOutput
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions
from transformers.utils import ModelOutput, logging

from .configuration_valor import GROUP_OF_MODALITIES
from .generation_rows import LeavingCache, WatchedCriteria, rows_are_independent
from .generation_static import StaticDecodingCache, StaticSteps, is_hooked
from .modeling_valor_text import CACHE, ConditionCache, ValorConditions


if TYPE_CHECKING:
    GenerationMixin: Any  # its methods demand a `self` that has what only the finished model has
else:
    from transformers import GenerationMixin


logger = logging.get_logger(__name__)

DEFAULT_MAX_NEW_TOKENS = 30

TEXT_INPUTS = ("input_ids", "prompt_input_ids", "question_input_ids")
TEXT_PROMPTS = ("prompt_input_ids", "prompt_attention_mask", "question_input_ids", "question_attention_mask")
TEXT_MASKS = ("attention_mask", "prompt_attention_mask", "question_attention_mask")

_REASONS = {
    "the decoder predicts one word at a time, at a [MASK] behind the words so far, and cannot check several in one pass.": (
        "assistant_model",
        "assistant_tokenizer",
        "assistant_early_exit",
        "assistant_confidence_threshold",
        "assistant_ensemble_weight",
        "assistant_lookbehind",
        "is_assistant",
        "max_matching_ngram_size",
        "num_assistant_tokens",
        "num_assistant_tokens_schedule",
        "prompt_lookup_num_tokens",
        "speculation_type",
        "target_lookbehind",
        "use_mtp",
    ),
    "transformers keeps this way of decoding in a repository of its own, which knows nothing of the [MASK] query.": (
        "constraints",
        "diversity_penalty",
        "dola_layers",
        "force_words_ids",
        "low_memory",
        "num_beam_groups",
        "penalty_alpha",
    ),
    "it would run the decoder without the video and the sound.": (
        "guidance_scale",
        "negative_prompt_ids",
        "negative_prompt_attention_mask",
    ),
    "the prompt and the [MASK] query run in one pass.": ("prefill_chunk_size",),
    "the words to continue are given as `input_ids`.": ("inputs", "inputs_embeds", "token_healing"),
    "positions follow from the words.": ("position_ids", "token_type_ids"),
    "texts begin with `bos_token_id`, or with the `input_ids` given.": ("decoder_start_token_id",),
    "it belongs to training.": ("labels", "answer_weights"),
    "it belongs to a cache that cannot forget the [MASK] query.": ("cache_config", "max_cache_len"),
    "batches are not continuous here; call `generate` for each batch.": ("continuous_batching_config",),
}
UNSUPPORTED_OPTIONS = {name: reason for reason, names in _REASONS.items() for name in names}
"""Arguments of transformers' `generate` that are refused unless they are off, and why; all others work."""

_OFF = {"guidance_scale": 1, "num_beam_groups": 1}


class ValorGenerationMixin(GenerationMixin):
    """`generate()` for a decoder that predicts a word at a [MASK] placed after the words so far.

    Each step runs two tokens, the newest word and [MASK]; the cache then forgets [MASK]. The first step also runs the
    prompt, and computes the cross-attention keys and values, one row per sample whatever the number of beams. Samples
    whose texts are finished leave the batch (`generation_rows.py`).
    """

    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        audio_mask: torch.Tensor | None = None,
        conditions: ValorConditions | None = None,
        generation_config: GenerationConfig | None = None,
        **kwargs: Any,
    ) -> torch.Tensor | ModelOutput:
        r"""Describes (or answers about) videos and sounds.

        Greedy by default; `num_beams`, `do_sample`, `num_return_sequences`, `streamer`, `logits_processor` and the other
        arguments of [`~transformers.GenerationMixin.generate`] work, except those in `UNSUPPORTED_OPTIONS`, such as assisted
        decoding. Beams are the released decoder's: scores are sums of log-probabilities, a finished beam keeps its slot,
        and the best sum wins. With `do_sample`, `length_penalty` or `early_stopping` they are those of transformers, where
        `length_penalty` is 0 (sums) unless it is given.

        Args:
            input_ids (`torch.LongTensor` of shape `(texts, length)`, *optional*):
                Words to continue, beginning with [CLS], without padding. By default [CLS] alone.
            pixel_values_videos, frame_mask, input_features, audio_mask:
                What to describe, `batch_size` samples; one modality is enough.
            conditions (`ValorConditions`, *optional*):
                Encoded video and audio (`model.valor.encode_conditions(...)`), to be used again without encoding.
            kwargs:
                `prompt_input_ids` or `question_input_ids` of shape `(texts, length)` with their masks;
                `captioning_groups`, a list of the one group to attend to, by default all modalities given; and arguments of
                `transformers`' `generate`. `texts` is 1 (for all samples), `batch_size` or a multiple of it: several texts
                of a sample are consecutive rows, and its video and sound are encoded once.

        Returns:
            Ids of shape `(texts * num_return_sequences, <= 1 + max_new_tokens)` beginning with [CLS], padded after [SEP];
            with `return_dict_in_generate=True` a `ModelOutput`, whose `cache` is `None` where finished samples have left it.

        Raises:
            `ValueError`: without any modality; `input_ids` that are padded; texts that do not fit the samples; no or several
                groups; an argument that cannot work.
        """
        self.check_options(generation_config, kwargs)
        if "cache" in kwargs:
            kwargs[CACHE] = kwargs.pop("cache")
        static = self.static_cache(generation_config, kwargs)
        if static is not None:
            kwargs[CACHE] = static
        if conditions is None:
            if pixel_values_videos is None and input_features is None:
                raise ValueError(
                    "There is nothing to describe: give `pixel_values_videos`, `input_features` or both to `generate`."
                )
            conditions = self.valor.encode_conditions(pixel_values_videos, frame_mask, input_features, audio_mask)
        kwargs["captioning_groups"] = self.decoding_group(kwargs.get("captioning_groups"), conditions.modalities)
        if input_ids is None:
            bos_token_id = kwargs.get("bos_token_id") or self.config.get_text_config(decoder=True).bos_token_id
            samples = conditions[conditions.modalities[0]]
            input_ids = torch.full((1, 1), bos_token_id, dtype=torch.long, device=samples.device)
        kwargs.update(self.expand_texts({"input_ids": input_ids, **kwargs}, conditions))
        input_ids, attention_mask = kwargs.pop("input_ids"), kwargs.pop("attention_mask", None)
        if attention_mask is not None and not attention_mask.all():
            raise ValueError(
                "`generate` continues texts of equal length, but `attention_mask` marks padding in `input_ids`. "
                "Generate texts of different length one by one, or start from [CLS] alone."
            )
        limits = generation_config or self.generation_config
        if all(requested_option(name, kwargs, limits) is None for name in ("max_new_tokens", "max_length")):
            kwargs["max_new_tokens"] = DEFAULT_MAX_NEW_TOKENS
        try:
            outputs = super().generate(
                input_ids=input_ids,
                attention_mask=torch.ones_like(input_ids),
                conditions=conditions,
                generation_config=generation_config,
                **kwargs,
            )
        finally:
            if static is not None:
                static.close()
        return outputs if static is None else without_cache(outputs)  # the next call uses its memory again

    def check_options(self, generation_config: GenerationConfig | None, options: dict[str, Any]) -> None:
        """Raises a `ValueError` for options that are given, here or in the configuration, and cannot work."""
        for name, reason in UNSUPPORTED_OPTIONS.items():
            value = requested_option(name, options, generation_config, self.generation_config)
            if value is not None and value is not False and not (name in _OFF and value == _OFF[name]):
                raise ValueError(f"`{name}` cannot be used with {type(self).__name__}: {reason}")
        if isinstance(options.get("custom_generate"), str):
            raise ValueError(
                f"`custom_generate={options['custom_generate']!r}` cannot be used with {type(self).__name__}: the code of "
                "that repository knows nothing of the [MASK] query. Pass a function."
            )
        cache = requested_option("cache_implementation", options, generation_config, self.generation_config)
        if cache not in (None, "dynamic", "offloaded", "static"):
            raise ValueError(
                f"`cache_implementation={cache!r}` cannot be used with {type(self).__name__}: the [MASK] query needs a cache "
                'that can forget its last token. Leave it unset, or use "dynamic", "static" or "offloaded".'
            )
        if cache == "static" and any(options.get(name) is not None for name in ("cache", CACHE)):
            raise ValueError(
                'A `cache` was given together with `cache_implementation="static"`, which makes its own. Give one.'
            )
        if cache == "offloaded" and not torch.accelerator.is_available():
            raise ValueError(
                '`cache_implementation="offloaded"` moves the cache of an accelerator to the CPU, and there is none here. Leave '
                "it unset."
            )

    def static_cache(
        self, generation_config: GenerationConfig | None, options: dict[str, Any]
    ) -> StaticDecodingCache | None:
        """The cache that `cache_implementation="static"` asks for; else `None`."""
        asked = requested_option("cache_implementation", options, generation_config, self.generation_config)
        if asked != "static" or requested_option("use_cache", options, generation_config) is False:
            return None
        return StaticDecodingCache(self.config.get_text_config(decoder=True))

    def static_step(
        self,
        input_ids: torch.Tensor,
        cache: StaticDecodingCache,
        conditions: ValorConditions,
        captioning_groups: list[str],
        **kwargs: Any,
    ) -> CausalLMOutputWithCrossAttentions:
        """A step of `cache_implementation="static"`; its logits are overwritten by the next one."""
        if cache.get_seq_length() == 0:
            return self(
                input_ids=input_ids, cache=cache, conditions=conditions, captioning_groups=captioning_groups, **kwargs
            )
        if cache.steps is None:
            prompt = self.text_prompt(conditions.device, **{name: kwargs.get(name) for name in TEXT_PROMPTS})
            cache.start(self, conditions, captioning_groups[0], prompt)
        outputs: dict[str, Any] = {"logits": cast(StaticSteps, cache.steps)(input_ids), CACHE: cache}
        return CausalLMOutputWithCrossAttentions(**outputs)

    def _valid_auto_compile_criteria(self, model_kwargs: dict[str, Any], generation_config: GenerationConfig) -> bool:
        """Whether `get_compiled_call`, or [`static_step`], decodes: static steps are what transformers compiles `forward` for."""
        if not isinstance(model_kwargs.get(CACHE), StaticDecodingCache):
            return super()._valid_auto_compile_criteria(model_kwargs, generation_config)
        text_model = self.valor.text_model
        attention = text_model.config._attn_implementation
        if attention not in ("eager", "sdpa"):
            reason = f'attention is "{attention}"'
        elif generation_config.output_attentions or generation_config.output_hidden_states:
            reason = "attentions or hidden states are asked for"
        elif is_hooked(self) or is_hooked(text_model):  # its steps call the layers themselves
            reason = "the model or its `text_model` has hooks, or a `forward` of its own"
        elif len({weight.device for weight in text_model.parameters()}) > 1:
            reason = "the decoder is on several devices"
        else:
            return True
        logger.warning_once(f'`cache_implementation="static"` is taken as "dynamic", because {reason}.')
        return False

    def decoding_group(self, requested: Sequence[str] | None, modalities: tuple[str, ...]) -> list[str]:
        """The modality group that the text is conditioned on, as a list; by default that of all given modalities."""
        if requested is None:
            requested = [GROUP_OF_MODALITIES[modalities]]
        if len(requested) != 1:
            raise ValueError(
                f"`captioning_groups={list(requested)}` was given to `generate`, which writes for one group at a time. Give "
                "a list of one, or none for all modalities given."
            )
        return self.config.select_groups("captioning_groups", requested, modalities)

    @staticmethod
    def expand_texts(inputs: dict[str, Any], conditions: ValorConditions) -> dict[str, torch.Tensor]:
        """The texts among `inputs` and their masks, all with the same number of rows, a multiple of the samples'."""
        texts = {name: inputs[name] for name in (*TEXT_INPUTS, *TEXT_MASKS) if inputs.get(name) is not None}
        samples = len(conditions[conditions.modalities[0]])
        rows = max(samples, *(len(value) for value in texts.values()))
        wrong = {name: tuple(v.shape) for name, v in texts.items() if v.ndim != 2 or len(v) not in (1, rows)}
        if wrong or rows % samples != 0:
            shapes = wrong or {name: tuple(value.shape) for name, value in texts.items()}
            raise ValueError(
                f"Texts of shapes {shapes} were given for {samples} samples. Give texts of shape (rows, length): one row for "
                "all samples, one for each, or the same number of consecutive rows for each."
            )
        return {name: value.expand(rows, -1) for name, value in texts.items()}

    def _prepare_generation_config(
        self, generation_config: GenerationConfig | None, **kwargs: Any
    ) -> tuple[GenerationConfig, dict[str, Any]]:
        prepared, model_kwargs = super()._prepare_generation_config(generation_config, **kwargs)
        if requested_option("length_penalty", kwargs, generation_config, self.generation_config) is None:
            prepared.length_penalty = 0.0  # sums of log-probabilities, where transformers would fill in means
        if prepared.cache_implementation == "static":  # `generate` has made the cache
            prepared.cache_implementation = None
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if getattr(prepared, name) is None:
                setattr(prepared, name, getattr(self.config.get_text_config(decoder=True), name))
        return prepared, model_kwargs

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        cache: EncoderDecoderCache | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        conditions: ValorConditions | None = None,
        captioning_groups: list[str] | None = None,
        use_cache: bool | None = None,
        next_sequence_length: int | None = None,
        is_first_iteration: bool | None = None,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        cache = past_key_values if cache is None else cache  # the name in transformers 5.23
        if isinstance(cache, LeavingCache) and conditions is not None:
            cache.leave(conditions)
            if cache.rows is not None:
                conditions, input_ids = cache.conditions, cache.select(input_ids)
                kwargs = {name: cache.select(value) for name, value in kwargs.items()}
        text = input_ids
        if self.config.captioning_objective == "masked":
            mask_token_id = self.config.get_text_config(decoder=True).mask_token_id
            text = F.pad(text, (0, 1), value=mask_token_id)
        attended = text
        # The cache holds the prefix and all words but the newest, or nothing yet
        if cache is not None and cache.get_seq_length() > 0:
            text = text[:, input_ids.shape[1] - 1 :]
        return {
            **kwargs,
            "input_ids": text,
            # Explicit, because the default mask would treat a generated [PAD] as padding
            "attention_mask": torch.ones_like(attended),
            "cache": cache,
            "conditions": conditions,
            "captioning_groups": captioning_groups,
            "use_cache": use_cache,
            "logits_to_keep": 1,
        }

    def _update_model_kwargs_for_generation(
        self, outputs: ModelOutput, model_kwargs: dict[str, Any], **kwargs: Any
    ) -> dict[str, Any]:
        model_kwargs = super()._update_model_kwargs_for_generation(outputs, model_kwargs, **kwargs)
        cache = model_kwargs.get(CACHE)
        if isinstance(cache, LeavingCache):
            outputs["logits"] = cache.fill(outputs["logits"])
        if cache is not None and self.config.captioning_objective == "masked":
            cache.crop(-1)
        return model_kwargs

    def _prepare_cache_for_generation(
        self, generation_config: GenerationConfig, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        is_given = model_kwargs.get(CACHE) is not None
        super()._prepare_cache_for_generation(generation_config, model_kwargs, *args, **kwargs)
        cache = model_kwargs.get(CACHE)
        if cache is None:
            return
        if isinstance(cache, StaticDecodingCache):
            cache.max_words, cache.may_record = generation_config.max_length, not generation_config.disable_compile
            return
        words = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
        if not isinstance(words, DynamicCache):
            raise ValueError(
                f"`cache` is a {type(words).__name__}, but the [MASK] query needs a cache that can forget its last "
                "token. Leave it unset, or give a `DynamicCache`."
            )
        if words.get_seq_length() > 0:
            raise ValueError(
                f"`cache` holds {words.get_seq_length()} tokens already, but `generate` fills an empty cache. "
                "Continue a text by its `input_ids` alone."
            )
        # The cache of the conditions must be one that does not follow the beams, whichever was given
        if is_given or words.offloading or not self.samples_may_leave(generation_config):
            model_kwargs[CACHE] = EncoderDecoderCache(words, ConditionCache())
        else:
            model_kwargs[CACHE] = LeavingCache(words)

    def samples_may_leave(self, generation_config: GenerationConfig) -> bool:
        """Whether a batch without finished samples gives what all rows would: not where their outputs are asked for."""
        outputs = ("output_scores", "output_logits", "output_attentions", "output_hidden_states")
        return not any(getattr(generation_config, name) for name in outputs) and rows_are_independent(self)

    def _sample(
        self,
        input_ids: torch.Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        synced_gpus: bool = False,
        **model_kwargs: Any,
    ) -> ModelOutput | torch.Tensor:
        """Greedy decoding and sampling of transformers, which finished samples leave where it pads them."""
        cache = model_kwargs.get(CACHE)
        may_leave = not synced_gpus and treats_rows_alone(logits_processor)
        pads_finished = any(hasattr(criterion, "eos_token_id") for criterion in stopping_criteria)
        if isinstance(cache, LeavingCache) and may_leave and pads_finished:
            stopping_criteria = WatchedCriteria(stopping_criteria, cache, steps_between_checks(input_ids.device))
        outputs = super()._sample(
            input_ids, logits_processor, stopping_criteria, generation_config, synced_gpus=synced_gpus, **model_kwargs
        )
        return without_cache(outputs) if isinstance(cache, LeavingCache) and cache.rows is not None else outputs

    def _beam_search(
        self,
        input_ids: torch.Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        synced_gpus: bool = False,
        **model_kwargs: Any,
    ) -> GenerateBeamOutput | torch.Tensor:
        """Beam search of the released decoder: a fixed number of beams, sums of log-probabilities, no length penalty.

        With `do_sample`, `length_penalty` or `early_stopping`, the beam search of transformers is used instead.

        A finished beam keeps its slot and its score. (In the 2023 code it also fills all slots below it. Scores only
        decrease, so the beams below it could not have won; here these slots continue with other captions.) A sample is done,
        and changes no more, when its best beam is finished, or all of them if several sequences are requested.
        """
        if generation_config.do_sample or generation_config.early_stopping or generation_config.length_penalty != 0:
            if isinstance(model_kwargs.get(CACHE), StaticDecodingCache):
                logger.warning_once(
                    '`cache_implementation="static"` is taken as "dynamic", because the beam search of transformers (`do_sample`, '
                    "`length_penalty`, `early_stopping`) calls the model itself."
                )
            return super()._beam_search(
                input_ids, logits_processor, stopping_criteria, generation_config, synced_gpus, **model_kwargs
            )
        num_beams, num_returned = generation_config.num_beams, generation_config.num_return_sequences
        batch_size, device = input_ids.shape[0] // num_beams, input_ids.device
        prompt_length = input_ids.shape[1]
        pad_token_id = cast(torch.Tensor, generation_config._pad_token_tensor).to(device)
        first_rows = torch.arange(batch_size, device=device)[:, None] * num_beams

        # All beams start equal, so only the first one has candidates at the first step
        scores = torch.zeros(batch_size, num_beams, device=device)
        scores[:, 1:] = -torch.inf
        finished = torch.zeros(batch_size, num_beams, dtype=torch.bool, device=device)
        beam_indices = torch.empty(input_ids.shape[0], 0, dtype=torch.long, device=device)
        all_scores: tuple[Any, ...] = ()
        all_logits: tuple[Any, ...] = ()
        attentions: tuple[Any, ...] = ()
        hidden_states: tuple[Any, ...] = ()

        forward = self.__call__
        if self._valid_auto_compile_criteria(model_kwargs, generation_config):
            forward = self.static_step
        check_every = 1 if synced_gpus or generation_config.return_dict_in_generate else steps_between_checks(device)
        cache = model_kwargs.get(CACHE)
        may_leave = isinstance(cache, LeavingCache) and not synced_gpus and treats_rows_alone(logits_processor)

        this_peer_finished = False
        while self._has_unfinished_sequences(this_peer_finished, synced_gpus, device=device):
            outputs = forward(**self.prepare_inputs_for_generation(input_ids, **model_kwargs), return_dict=True)
            model_kwargs = self._update_model_kwargs_for_generation(outputs, model_kwargs)
            if synced_gpus and this_peer_finished:
                continue

            logits = cast(torch.Tensor, outputs.logits)[:, -1].to(copy=True, dtype=torch.float32, device=device)
            log_probs = logits_processor(cast("torch.LongTensor", input_ids), F.log_softmax(logits, dim=-1))
            scores, beams, words = next_beams(scores, log_probs, finished, pad_token_id)
            rows = (first_rows + beams).flatten()
            finished = finished.gather(1, beams)
            input_ids = torch.cat([input_ids[rows], words.view(-1, 1)], dim=1)
            taken = torch.where(finished.view(-1, 1), -1, rows[:, None])
            beam_indices = torch.cat([beam_indices[rows], taken], dim=1)
            finished = finished | stopping_criteria(input_ids, None).view_as(finished)
            if num_returned == 1:  # the sample is done, however long others take
                finished = finished | finished[:, :1]
            if (cache := model_kwargs.get(CACHE)) is not None:
                cache.reorder_cache(rows)
            length = input_ids.shape[1]
            if (length - prompt_length) % check_every == 0 or length == stopping_criteria.max_length:
                are_finished = finished.flatten().cpu()
                this_peer_finished = bool(are_finished.all())
                if may_leave:
                    cast(LeavingCache, cache).note(are_finished)

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
            sequences=cast("torch.LongTensor", sequences),
            sequences_scores=scores[:, :num_returned].flatten(),
            scores=all_scores or None,
            logits=all_logits or None,
            beam_indices=cast("torch.LongTensor", beam_indices),
            attentions=attentions or None,
            hidden_states=hidden_states or None,
            **{CACHE: cache if not isinstance(cache, LeavingCache) or cache.rows is None else None},
        )


def treats_rows_alone(logits_processor: LogitsProcessorList) -> bool:
    """Whether scores of one row cannot depend on another's: not known of a processor that is not of transformers."""
    return all(type(processor).__module__.startswith("transformers.") for processor in logits_processor)


def without_cache(outputs: ModelOutput | torch.Tensor) -> ModelOutput | torch.Tensor:
    """What `generate` returns, without a cache that does not hold all rows of it."""
    return type(outputs)(**{**outputs, CACHE: None}) if isinstance(outputs, ModelOutput) else outputs


def steps_between_checks(device: torch.device) -> int:
    """Steps after which it is read whether all beams are finished: a GPU would wait for Python at each of them.

    Steps too many write padding, which is cut off.
    """
    return 1 if device.type == "cpu" else 4


def next_beams(
    scores: torch.Tensor, log_probs: torch.Tensor, finished: torch.Tensor, pad_token_id: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The best continuations of the beams of each sample; a finished beam continues with padding only, at no cost.

    Args:
        scores: sum of log-probabilities of each beam, (batch_size, num_beams).
        log_probs: of the next words, (batch_size * num_beams, vocab_size).
        finished: (batch_size, num_beams).

    Returns:
        Scores of the new beams, best first, the beams that they continue, and their words; each (batch_size, num_beams).
    """
    num_beams, vocab_size = scores.shape[1], log_probs.shape[-1]
    candidates = scores[:, :, None] + log_probs.view(*scores.shape, vocab_size)
    stay = torch.full_like(candidates, -torch.inf)
    stay[:, :, pad_token_id] = scores
    candidates = torch.where(finished[:, :, None], stay, candidates)
    scores, chosen = candidates.flatten(1).topk(num_beams, dim=1)
    return scores, chosen // vocab_size, chosen % vocab_size


def requested_option(name: str, options: dict[str, Any], *configs: GenerationConfig | None) -> Any:
    """The value of an option: that of the call, or by default that of the first configuration that has one; else None."""
    if options.get(name) is not None:
        return options[name]
    values = (getattr(config, name, None) for config in configs)
    return next((value for value in values if value is not None), None)


__all__ = ["UNSUPPORTED_OPTIONS", "ValorGenerationMixin"]
