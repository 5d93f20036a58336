# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Training batches from loaded samples: tokens, masks and labels of each task."""

from collections.abc import Sequence
from typing import Any

import torch

from ..captioning import IGNORE_INDEX, mask_tokens, next_word_labels
from ..configuration_valor import ValorConfig
from ..processing_valor import ValorProcessor
from .loading import LoadedSample, LoadingOptions
from .raw_media import pack


class ValorCollator:
    """Makes one batch of loaded samples of one task.

    Args:
        processor: tokenizes, and pads frames and audio.
        config: special tokens, masking and objective of the model that is trained.
    """

    def __init__(self, processor: ValorProcessor, config: ValorConfig):
        self.processor = processor
        self.config = config

    def __call__(
        self, samples: Sequence[LoadedSample], options: LoadingOptions, seed: int, complete: bool = False
    ) -> dict[str, Any]:
        """The model's inputs. `seed` determines the random masks.

        Args:
            complete: return frames and audio, masked, even if no sample of the batch has them, because samples of other
                ranks may have them.

        Returns:
            Frames and audio of B samples, or a [`RawMedia`] of them as `raw_media`; and
            - retrieval: `input_ids`, `attention_mask`;
            - pretraining: the same, and `decoder_input_ids`, `decoder_attention_mask`, `labels` for MGC;
            - captioning: masked `input_ids` (k * B, L), `attention_mask` and `labels`, for k captions of each sample; with
              the option `references`, all captions of each as lists of strings;
            - question answering: `question_input_ids` (k * B, Q), and the answers as masked `input_ids` and `labels`.
        """
        batch: dict[str, Any]
        if raw := [sample.raw for sample in samples if sample.raw is not None]:
            media = pack(raw, self.processor, options.raw_options)
            batch, present = {"raw_media": media}, media.input_names
        else:
            batch = dict(self.processor.pad([sample.media for sample in samples]))
            present = list(batch)
        if complete:
            batch.update(self.missing_media(present, options, len(samples)))
        if options.task == "question_answering":
            return batch | self.questions_and_answers(samples, options)
        generator = torch.Generator().manual_seed(seed)
        text = self.tokenize([text for sample in samples for text in sample.captions], options.max_length)
        if options.task == "captioning":
            batch.update(self.caption_targets(**text, generator=generator))
            if options.references:
                batch["references"] = [sample.references for sample in samples]
            return batch
        batch.update(text)
        if options.task == "pretraining":
            targets = self.caption_targets(**text, generator=generator)
            batch.update(
                decoder_input_ids=targets["input_ids"],
                decoder_attention_mask=targets["attention_mask"],
                labels=targets["labels"],
            )
        return batch

    def questions_and_answers(
        self, samples: Sequence[LoadedSample], options: LoadingOptions
    ) -> dict[str, torch.Tensor]:
        """The questions of all samples, and the answers as targets."""
        questions = [text for sample in samples for text in sample.questions]
        answers = [text for sample in samples for text in sample.answers]
        encoded = self.tokenize(questions, options.max_question_length)
        inputs = {f"question_{name}": value for name, value in encoded.items()}
        return inputs | self.answer_targets(**self.tokenize(answers, options.max_length))

    def missing_media(self, present: Sequence[str], options: LoadingOptions, size: int) -> dict[str, torch.Tensor]:
        """Zeros and masks for modalities of the options whose input is not among those present."""
        parts = {"v": self.processor.video_processor, "a": self.processor.feature_extractor}
        sizes = {"v": {"num_frames": options.num_frames}, "a": {"num_audio_clips": options.num_audio_clips}}
        missing = {}
        for modality in options.modalities:
            if parts[modality].model_input_names[0] not in present:
                nothing = parts[modality]([None], return_tensors="pt", **sizes[modality])
                missing.update({name: value.repeat_interleave(size, dim=0) for name, value in nothing.items()})
        return missing

    def tokenize(self, texts: list[str], max_length: int) -> dict[str, torch.Tensor]:
        return dict(self.processor(text=texts, max_length=max_length, return_tensors="pt"))

    def caption_targets(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """Captions with masked words (section 4.2), unmasked for the "causal" objective, and their labels."""
        if self.config.captioning_objective == "causal":
            labels = next_word_labels(input_ids, attention_mask)
        else:
            text_config = self.config.text_config
            input_ids, labels = mask_tokens(
                input_ids,
                attention_mask,
                text_config.mask_token_id,
                text_config.vocab_size,
                self.config.mask_probability,
                generator,
            )
        return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}

    def answer_targets(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """Answers with all tokens but [CLS] masked, as in the 2023 code, and their labels."""
        if self.config.captioning_objective == "causal":
            labels = next_word_labels(input_ids, attention_mask)
        else:
            asked = attention_mask.bool()
            asked[:, 0] = False
            labels = input_ids.masked_fill(~asked, IGNORE_INDEX)
            input_ids = input_ids.masked_fill(asked, self.config.text_config.mask_token_id)
        return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
