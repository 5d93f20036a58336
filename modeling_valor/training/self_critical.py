# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Self-critical training: captions that score better than the greedy one become more likely, others less."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from transformers.trainer_utils import unwrap_peft_model

from ..captioning import step_queries
from ..compilation import without_compiled_layers
from ..configuration_valor import GROUP_OF_MODALITIES, MASKS
from ..data.mixture import Source
from ..data.samples import each_sample
from ..evaluation.metrics.captioning import CiderScorer
from ..evaluation.models import evaluating
from ..modeling_valor_heads import ValorForCaptioning
from ..modeling_valor_text import ValorConditions
from ..text_cleaning import clean_caption
from .trainer import ValorTrainer


Reward = Callable[[list[str], Sequence[Sequence[str]]], list[float]]
"""Scores one caption for each sample against the sample's references."""


class CiderReward:
    """CIDEr-D with the document frequencies of a training set.

    Args:
        references: the cleaned captions of all its samples.
    """

    def __init__(self, references: Sequence[Sequence[str]]):
        self.scorer = CiderScorer(references)

    @classmethod
    def of_sources(cls, sources: Sequence[Source]) -> "CiderReward":
        """CIDEr-D with the document frequencies of all samples of a training."""
        samples = chain.from_iterable(each_sample(source.samples) for source in sources)
        return cls([[clean_caption(text) for text in sample.captions] for sample in samples])

    def __call__(self, captions: list[str], references: Sequence[Sequence[str]]) -> list[float]:
        return [self.scorer.score(*pair) for pair in zip(captions, references, strict=True)]


class SelfCriticalTrainer(ValorTrainer):
    """Fine-tunes a captioner on a reward of whole captions (Rennie et al., 2017), as VALOR's COCO captioner was (Table 7).

    Each step has captions sampled for the batch, and the greedy one written. The loss is -(reward of the sample - reward of
    the greedy caption) times the sample's mean log-probability. All words of all samples are scored in one decoder pass.

    Captions are sampled from and scored by one modality group: that of the source, or by default the one made of the
    modalities that are given.

    Args:
        reward: scores captions; by default the training sets' CIDEr-D.
        num_samples: captions sampled for each video in a step.
        max_new_tokens: their length at the most.
    """

    def __init__(
        self,
        model: ValorForCaptioning,
        *args: Any,
        reward: Reward | None = None,
        num_samples: int = 1,
        max_new_tokens: int = 30,
        **kwargs: Any,
    ):
        """As `ValorTrainer`, for sources of one captioning group each.

        Raises:
            ValueError: a source has several captioning groups, or none.
        """
        super().__init__(model, *args, **kwargs)
        sources = [] if self.train_dataset is None else self.train_dataset.sources
        for source in sources:
            if source.captioning_groups is not None and len(source.captioning_groups) != 1:
                raise ValueError(
                    "Self-critical training samples and scores the captions of one modality group, but the source "
                    f"{source.name!r} has {list(source.captioning_groups)}: give it one as `captioning_groups`."
                )
        if reward is None and sources:
            reward = CiderReward.of_sources(sources)
        self.reward, self.num_samples, self.max_new_tokens = reward, num_samples, max_new_tokens
        self.rewards: list[Tensor] = []

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        references = inputs["references"]
        media = {name: inputs[name] for name in chain.from_iterable(MASKS.items()) if name in inputs}
        captioner = unwrap_peft_model(self.accelerator.unwrap_model(model))
        with evaluating(captioner), without_compiled_layers():
            conditions = captioner.valor.encode_conditions(**media)
            groups = inputs.get("captioning_groups") or [GROUP_OF_MODALITIES[conditions.modalities]]
            greedy = self.write(captioner, conditions, captioning_groups=groups)
            sampling = {"do_sample": True, "top_k": 0, "num_return_sequences": self.num_samples}
            sampled = self.write(captioner, conditions, captioning_groups=groups, **sampling)
        baseline = self.score(greedy, references).repeat_interleave(self.num_samples)
        rewards = self.score(sampled, [own for own in references for _ in range(self.num_samples)])
        self.rewards.append(rewards.mean())

        log_probs, valid = self.log_probabilities(model, sampled, media, groups)
        per_caption = (log_probs * valid).sum(dim=1) / valid.sum(dim=1).clamp(min=1)
        loss = -((rewards - baseline).to(per_caption) * per_caption).mean()
        return (loss, {"rewards": rewards}) if return_outputs else loss

    def write(self, captioner: ValorForCaptioning, conditions: ValorConditions, **options: Any) -> torch.Tensor:
        """Captions as ids, (rows, length); rows of one sample are consecutive."""
        options = {"do_sample": False, "num_beams": 1, "max_new_tokens": self.max_new_tokens, **options}
        output = captioner.generate(conditions=conditions, **options)
        return output if isinstance(output, Tensor) else output["sequences"]

    def score(self, sequences: torch.Tensor, references: Sequence[Sequence[str]]) -> Tensor:
        """The reward of each caption, (rows,)."""
        if self.reward is None:
            raise ValueError("Self-critical training needs a `reward`, or a `train_dataset` whose captions are one.")
        captions = self.processing_class.post_process_generation(sequences)
        return torch.tensor(self.reward(captions, references), device=sequences.device)

    def log_probabilities(
        self,
        model: nn.Module,
        sequences: torch.Tensor,
        media: dict[str, Tensor],
        groups: Sequence[str],
    ) -> tuple[Tensor, Tensor]:
        """Log-probability of every word at its step, (rows, steps), and which are words: up to the first [SEP]."""
        config = self.model.config
        steps = sequences.shape[1] - 1
        if config.captioning_objective == "masked":
            input_ids, position_ids, attends = step_queries(sequences, config.text_config.mask_token_id)
            text = {"input_ids": input_ids, "position_ids": position_ids, "attention_mask": attends}
        else:
            text = {"input_ids": sequences[:, :-1], "attention_mask": torch.ones_like(sequences[:, :-1])}
        outputs = model(**text, **media, captioning_groups=groups, logits_to_keep=steps)
        words = sequences[:, 1:]
        log_probs = outputs.logits.float().log_softmax(dim=-1).gather(-1, words[..., None]).squeeze(-1)
        ended = (words == config.text_config.eos_token_id).cumsum(dim=1)
        valid = (ended == 0) | ((ended == 1) & (words == config.text_config.eos_token_id))
        return log_probs, valid.to(log_probs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the mean reward of the captions that all ranks have sampled since the last log."""
        if "loss" in logs and self.rewards:
            logs["reward"] = self.mean_over_ranks(self.rewards)
            self.rewards.clear()
        super().log(logs, start_time)


__all__ = ["CiderReward", "Reward", "SelfCriticalTrainer"]
