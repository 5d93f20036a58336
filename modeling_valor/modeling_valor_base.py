# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What all of VALOR's classes have in common: loading, saving with their code, publishing, and what they support."""

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from huggingface_hub import CommitInfo, ModelCard
from transformers import PreTrainedModel
from transformers.utils import logging

from .alignment_ranks import is_distributed
from .configuration_valor import MODALITIES, ValorConfig
from .hub import hub_errors, keep_available_code, pipeline_entries, push_saved, restored, saved_with_code
from .model_card import build_model_card
from .modeling_valor_vision import supported_attention


logger = logging.get_logger(__name__)

AUTO_MAP = {
    "AutoConfig": "configuration_valor.ValorConfig",
    "AutoModel": "modeling_valor.ValorModel",
    "AutoModelForPreTraining": "modeling_valor_heads.ValorForPreTraining",
    "AutoModelForMultimodalLM": "modeling_valor_heads.ValorForCaptioning",
    "AutoModelForVisualQuestionAnswering": "modeling_valor_heads.ValorForQuestionAnswering",
}
"""Auto classes that load any checkpoint saved with its code, as `module.Class` of the files saved with it."""


class ValorPreTrainedModel(PreTrainedModel):
    """The base of [`ValorModel`] and of its heads."""

    config: ValorConfig
    base_model_prefix = "valor"
    input_modalities = [modality.name for modality in MODALITIES]
    supports_gradient_checkpointing = True
    # Losses are means over the batch, which gradient accumulation has to divide by its steps
    accepts_loss_kwargs = False
    _no_split_modules = ["ValorTextEmbeddings", "ValorTextLayer", "ValorConditionEmbeddings"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _keys_to_ignore_on_save: set[str]  # PreTrainedModel makes a set of it
    default_auto_class = "AutoModel"
    """The Auto class that loads models of this class."""

    def __init__(self, config: ValorConfig, *inputs: Any, **kwargs: Any) -> None:
        config.validate()  # `from_pretrained` overrides fields after the configuration was validated
        super().__init__(config, *inputs, **kwargs)
        self.add_model_tags("valor")

    @classmethod
    def register_for_auto_class(cls, auto_class: str | type[Any] | None = None) -> None:
        """From now on `save_pretrained` and `push_to_hub` of this class save the code with the weights, so that users without
        this package load them with `trust_remote_code=True`, each head by its own Auto class.
        """
        super().register_for_auto_class(auto_class or cls.default_auto_class)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, *args: Any, **kwargs: Any
    ) -> Any:
        with hub_errors(pretrained_model_name_or_path):
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        code = saved_with_code(self) if kwargs.get("push_to_hub") else nullcontext()
        with code, restored((self.config, "auto_map"), (self.config, "custom_pipelines")):
            if self._auto_class is None:
                keep_available_code(self.config, save_directory)
            else:
                # They import this module, and the heads; being named here, they travel with it
                from .pipelines import AudiovisualGenerationPipeline
                from .pipelines_retrieval import AudiovisualAlignmentPipeline

                self.config.auto_map = dict(AUTO_MAP)
                tasks = getattr(self.config, "custom_pipelines", None)
                self.config.custom_pipelines = tasks or pipeline_entries(
                    AudiovisualGenerationPipeline.__module__, AudiovisualAlignmentPipeline.__module__
                )
            super().save_pretrained(save_directory, *args, **kwargs)

    def push_to_hub(  # type: ignore[override]  # with fields of the card, and what the Hub returns
        self,
        repo_id: str,
        *,
        max_shard_size: int | str = "50GB",
        card: Mapping[str, Any] | None = None,
        tags: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> CommitInfo:
        """Uploads the weights, the configuration, the code, and a model card where the repository has none.

        A processor is uploaded by its own `push_to_hub`, into the same repository.

        Args:
            repo_id: `owner/name`, or a name in your own namespace; it is created if it does not exist.
            max_shard_size: larger weights are split into files of this size.
            card: fields of a new card, arguments of `model_card.build_model_card`, such as `{"license": "mit"}`.
            tags: of a new card.
            kwargs: `private`, `revision`, `token`, `commit_message`, `commit_description`, `create_pr`.

        Raises:
            OSError: the Hub cannot be reached, or does not accept the upload.
        """
        with saved_with_code(self):
            return push_saved(
                lambda folder: self.save_pretrained(folder, max_shard_size=max_shard_size),
                repo_id,
                build_card=lambda name: self.build_model_card(name, **{"tags": tags or (), **(card or {})}),
                **{"commit_message": "Upload model", **kwargs},
            )

    def build_model_card(self, source: str, **fields: Any) -> ModelCard:
        """A card of this model for users who load it from `source`; `fields` are those of `model_card.build_model_card`."""
        return build_model_card(
            source,
            self.config if isinstance(self.config, ValorConfig) else None,
            **{"model_class": type(self).__name__, "num_parameters": self.num_parameters(), **fields},
        )

    def _activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: dict[str, Any] | None = None, *args: Any, **kwargs: Any
    ) -> None:
        options = activation_checkpointing_kwargs or {}
        if is_distributed() and options.get("use_reentrant"):
            logger.warning_once(
                "`use_reentrant=True` does not work in distributed training, where some parameters take no part in a step: "
                "gradient checkpointing is not reentrant here."
            )
            activation_checkpointing_kwargs = {**options, "use_reentrant": False}
        super()._activation_checkpointing_enable(activation_checkpointing_kwargs, *args, **kwargs)

    def set_attn_implementation(
        self, attn_implementation: str | dict[str, str | None], *args: Any, **kwargs: Any
    ) -> None:
        """Sets it for all parts, or by part (`{"vision_config": "eager"}`). Parts that do not support it use sdpa."""
        if isinstance(attn_implementation, str):
            parts = [part for part in self.base_model.children() if isinstance(part, PreTrainedModel)]
            by_part: dict[str, str | None] = {"": attn_implementation}
            for name in self.config.sub_configs:
                for part in parts:
                    if part.config is getattr(self.config, name):
                        by_part[name] = supported_attention(type(part), attn_implementation)
            attn_implementation = by_part
        super().set_attn_implementation(attn_implementation, *args, **kwargs)


def to_device(inputs: Mapping[str, torch.Tensor], device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Tensors as keyword arguments of a model: on its device, floating-point ones in its dtype."""
    return {name: value.to(device, dtype if value.is_floating_point() else None) for name, value in inputs.items()}


__all__ = ["AUTO_MAP", "ValorPreTrainedModel", "to_device"]
