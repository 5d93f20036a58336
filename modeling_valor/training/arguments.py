# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The arguments of a training: those that `TrainingArguments` does not have, the model, and the data."""

import json
from dataclasses import dataclass, field
from typing import Any

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
            "help": "Regular expressions for the names of the parameters that are trained with "
            "`new_layers_learning_rate`: those that do not come from pretrained encoders."
        },
    )
    contrastive_chunk_size: int | None = field(
        default=None,
        metadata={
            "help": "Samples whose activations are kept at the same time. A contrastive batch of any size then needs the "
            "memory of one chunk and a second forward pass; the gradients are the same. Default: the whole batch."
        },
    )
    max_failures: float = field(
        default=0.05,
        metadata={"help": "Tolerated share of samples that cannot be read; above it, training stops."},
    )
    max_nonfinite_steps: int = field(
        default=3,
        metadata={
            "help": "Number of consecutive steps with a loss or gradient that is not finite after which training stops. "
            "Such a step changes no weights, and nothing is saved until the next finite step."
        },
    )

    preprocess_on_device: bool = field(
        default=False,
        metadata={
            "help": "Resize and normalise frames, and compute log-mel features, on the training device: the workers send "
            "decoded frames and waveforms. The numbers are the same; samples of a `cache_dir` are prepared already."
        },
    )

    compile_layers: bool = field(
        default=False,
        metadata={
            "help": "Compile each layer of the encoders and the decoder with `torch.compile`, which takes minutes at the first "
            "steps. Evaluation does not use it. `torch_compile` compiles the whole model instead, with breaks."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compile_layers and self.torch_compile:
            raise ValueError("`compile_layers` and `torch_compile` both compile the model: give one of them.")
        if self.contrastive_chunk_size is not None and self.contrastive_chunk_size < 1:
            raise ValueError(f"`contrastive_chunk_size` must be at least 1, got {self.contrastive_chunk_size}.")
        if not 0 <= self.max_failures <= 1:
            raise ValueError(f"`max_failures` is a share between 0 and 1, got {self.max_failures}.")
        if self.max_nonfinite_steps < 1:
            raise ValueError(f"`max_nonfinite_steps` must be at least 1, got {self.max_nonfinite_steps}.")
        if self.ddp_find_unused_parameters is None:
            # Each task leaves some parameters without a gradient
            self.ddp_find_unused_parameters = True


@dataclass
class ModelArguments:
    """Which model is trained."""

    model_name_or_path: str | None = field(default=None, metadata={"help": "Checkpoint to start from."})
    config_name: str | None = field(
        default=None,
        metadata={"help": "Configuration of a model that is trained from scratch, if no checkpoint is given."},
    )
    processor_name: str | None = field(
        default=None, metadata={"help": "Folder or Hub name of the processor. Default: that of the model."}
    )
    text_model: str | None = field(
        default=None, metadata={"help": "BERT from which a new model takes its text weights and its tokenizer."}
    )
    vision_model: str | None = field(
        default=None, metadata={"help": "Checkpoint from which a new model takes its vision encoder, such as CLIP."}
    )
    audio_model: str | None = field(
        default=None, metadata={"help": "AST from which a new model takes its audio encoder."}
    )
    config_overrides: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Fields of the configuration to change, as JSON."}
    )
    video_processor: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Fields of the video processor to change, such as its `size`, as JSON."}
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": '"eager", "sdpa", "flash_attention_2" or "flex_attention".'}
    )

    def __post_init__(self) -> None:
        self.config_overrides = json_object("config_overrides", self.config_overrides)
        self.video_processor = json_object("video_processor", self.video_processor)


@dataclass
class DataArguments:
    """What it is trained and measured on. `sources` and `evaluations` come from recipes; else `dataset` is both.

    Training and evaluation never share samples unless `train_split` and `eval_split` are the same: of a `dataset` without
    splits a part is held out (`training.data.HELD_OUT_SHARE`, or `validation_share`).
    """

    dataset: str | None = field(
        default=None,
        metadata={"help": "A benchmark's name, a folder, tar shards or a Hub dataset, to train and evaluate on."},
    )
    eval_dataset: str | None = field(
        default=None, metadata={"help": "Dataset to evaluate on, if it is another one than `dataset`."}
    )
    train_split: str = field(
        default="train", metadata={"help": 'Split to train on: "train/" of a folder, or a column `split`.'}
    )
    eval_split: str | None = field(
        default=None,
        metadata={
            "help": 'Split to evaluate on (default: "val", also called "validation"; all of an `eval_dataset` without splits).'
        },
    )
    validation_share: float | None = field(
        default=None,
        metadata={
            "help": "Share of `train_split` to hold out for evaluation, such as 0.1; the same samples in every run."
        },
    )
    max_train_samples: int | None = field(
        default=None, metadata={"help": "Train on the first N samples of each source."}
    )
    max_eval_samples: int | None = field(default=None, metadata={"help": "Evaluate on the first N samples."})
    media: str | None = field(default=None, metadata={"help": "Folder of a benchmark's videos and audio files."})
    annotations: str | None = field(default=None, metadata={"help": "Folder of a benchmark's annotation files."})
    eval_media: str | None = field(default=None, metadata={"help": "`media` of `eval_dataset`."})
    eval_annotations: str | None = field(default=None, metadata={"help": "`annotations` of `eval_dataset`."})
    columns: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": 'Names of the columns that are not found by themselves, as JSON: \'{"captions": "description"}\'.'
        },
    )
    modalities: str = field(
        default="av", metadata={"help": 'Video and audio of each sample ("av"), or one of them ("v", "a").'}
    )
    num_frames: int | None = field(default=None, metadata={"help": "Frames of each video (default: the processor's)."})
    num_audio_clips: int | None = field(
        default=None, metadata={"help": "Audio clips of 5.12 s of each sample (default: the processor's)."}
    )
    max_length: int = field(default=40, metadata={"help": "Longest caption or answer, in tokens."})
    eval_num_frames: int | None = field(
        default=None, metadata={"help": "Frames for evaluation (default: num_frames)."}
    )
    eval_num_audio_clips: int | None = field(
        default=None, metadata={"help": "Audio clips for evaluation (default: num_audio_clips)."}
    )
    num_beams: int = field(default=1, metadata={"help": "Number of beams in evaluation."})
    max_new_tokens: int = field(default=40, metadata={"help": "Longest generated text in evaluation, in tokens."})
    cache_dir: str | None = field(default=None, metadata={"help": "Folder for a cache of decoded frames and audio."})
    sources: list[dict[str, Any]] | None = field(
        default=None,
        metadata={"help": "Mixture: fields of `Source` and `LoadingOptions`, and `dataset`, `split`, ..."},
    )
    evaluations: list[dict[str, Any]] | None = field(
        default=None, metadata={"help": "Evaluations: `name`, `task`, `dataset`, `split` and their options."}
    )

    def __post_init__(self) -> None:
        self.columns = json_object("columns", self.columns)
        if self.validation_share is not None and not 0 < self.validation_share < 1:
            raise ValueError(
                f"`validation_share` is a share between 0 and 1, such as 0.1, got {self.validation_share:g}."
            )
        if self.validation_share is not None and self.eval_dataset is not None:
            raise ValueError("`eval_dataset` and `validation_share` both say what to measure on: give one of them.")
        for name in ("max_train_samples", "max_eval_samples"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")


def json_object(name: str, value: dict[str, Any] | str | None) -> dict[str, Any] | None:
    """The value of an argument that the command line gives as JSON.

    Raises:
        ValueError: a text is not a JSON object.
    """
    if not isinstance(value, str):
        return value
    try:
        parsed = json.loads(value)
    except ValueError as error:
        raise ValueError(f"`{name}` is not JSON: {error}.") from error
    if not isinstance(parsed, dict):
        raise ValueError(f"`{name}` must be a JSON object such as '{{\"name\": ...}}', got {value}.")
    return parsed


@dataclass
class SelfCriticalArguments:
    """Training a captioner on a reward, after training on masked words."""

    self_critical: bool = field(default=False, metadata={"help": "Train on CIDEr instead of masked words."})
    num_sampled_captions: int = field(default=1, metadata={"help": "Captions sampled for each video in a step."})


__all__ = ["DataArguments", "ModelArguments", "SelfCriticalArguments", "ValorTrainingArguments", "json_object"]
