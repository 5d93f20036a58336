# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What `TrainingArguments` does not have."""

from dataclasses import dataclass, field

from transformers import TrainingArguments


@dataclass
class ValorTrainingArguments(TrainingArguments):
    """`TrainingArguments` with the learning rates and the large contrastive batches of VALOR's training (section 5.1)."""

    vision_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Learning rate of the vision encoder; 5e-7 for a pretrained CLIP in the 2023 recipes. "
            "Default: `learning_rate`."
        },
    )
    new_layers_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Learning rate of the layers named in `new_layers`. Default: `learning_rate`."},
    )
    new_layers: list[str] = field(
        default_factory=lambda: ["cross_attention", "_projection", "_condition", "_token_weight", "logit_scale"],
        metadata={
            "help": "Regular expressions for the names of parameters that do not come from pretrained encoders and learn "
            "at `new_layers_learning_rate`."
        },
    )
    contrastive_chunk_size: int | None = field(
        default=None,
        metadata={
            "help": "Samples whose activations are kept at a time. A contrastive batch of any size then needs the memory "
            "of one chunk, for a second forward pass and exactly the same gradients. Default: the whole batch."
        },
    )
    max_failures: float = field(
        default=0.05,
        metadata={"help": "Tolerated share of samples that cannot be read; above it the training stops."},
    )

    def __post_init__(self):
        super().__post_init__()
        if self.contrastive_chunk_size is not None and self.contrastive_chunk_size < 1:
            raise ValueError(f"`contrastive_chunk_size` must be at least 1, got {self.contrastive_chunk_size}.")
        if not 0 <= self.max_failures <= 1:
            raise ValueError(f"`max_failures` is a share between 0 and 1, got {self.max_failures}.")
        if self.ddp_find_unused_parameters is None:
            # Each task leaves some parameters without a gradient
            self.ddp_find_unused_parameters = True


__all__ = ["ValorTrainingArguments"]
