# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The run that a checkpoint belongs to. A run resumes only its own checkpoints, and reports settings that have changed."""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, sort_checkpoints
from transformers.utils import logging

from ..data.mixture import Source
from ..data.samples import Sample, SampleStream
from .arguments import ValorTrainingArguments
from .multitask import trained_model


logger = logging.get_logger(__name__)

TRAINING_RUN_NAME = "training_run.json"

RESTORED = (
    "learning_rate",
    "vision_learning_rate",
    "new_layers_learning_rate",
    "new_layers",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "logging_steps",
    "eval_steps",
    "save_steps",
)
"""Arguments that a resumed run takes from the checkpoint (optimizer, scheduler and state), whatever value is given."""

SETTINGS = (
    *RESTORED,
    "num_train_epochs",
    "max_steps",
    "gradient_accumulation_steps",
    "contrastive_chunk_size",
    "lr_scheduler_type",
    "warmup_steps",
    "optim",
    "max_grad_norm",
    "seed",
    "data_seed",
    "bf16",
    "fp16",
    "dataloader_num_workers",
)
"""Arguments that a run depends on."""

UNTRAINED = ("_name_or_path", "architectures", "dtype", "transformers_version")
"""Fields of a configuration that training does not depend on."""

_NUM_DIGESTED = 64
"""Samples of a source whose texts are compared."""


def describe_run(model: nn.Module, args: ValorTrainingArguments, sources: Sequence[Source]) -> dict[str, Any]:
    """A description of a run as JSON: `model`, `tasks` and `data`, which must not change, and `settings`, which may.

    Args:
        model: before it is wrapped or sharded.
    """
    base = trained_model(model)
    arguments = args.to_dict()
    settings = {name: arguments[name] for name in SETTINGS} | {"processes": args.world_size}
    config = flatten({"config": base.config.to_dict()})
    settings |= {name: value for name, value in config.items() if name.split(".")[-1] not in UNTRAINED}
    for index, source in enumerate(sources):  # their names may be paths, so their numbers are used
        own = {name: getattr(source, name) for name in ("batch_size", "epochs", "steps", "neighbours")}
        own |= {name: getattr(source, name) for name in ("alignment_groups", "captioning_groups")}
        options = {name: value for name, value in asdict(source.options).items() if name != "task"}
        settings |= flatten({f"sources.{index}": own | options})
    shapes = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
    record = {
        "model": {"class": type(base).__name__, "parameters": digest(shapes)},
        "tasks": [source.options.task for source in sources],
        "data": [describe_samples(source.samples) for source in sources],
        "settings": settings,
    }
    return json.loads(json.dumps(record, default=str))


def describe_samples(samples: Sequence[Sample] | SampleStream) -> dict[str, Any]:
    """The number of samples, and a digest of the ids and texts of some of them. A stream is not read."""
    if isinstance(samples, SampleStream):
        return {"stream": type(samples).__name__}
    count = len(samples)
    chosen = sorted({index * count // _NUM_DIGESTED for index in range(_NUM_DIGESTED)}) if count else []
    texts = [
        [sample.id, list(sample.captions), [question.text for question in sample.questions]]
        for sample in (samples[index] for index in chosen)
    ]
    return {"samples": count, "digest": digest(texts)}


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:24]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def check_same_run(folder: str | os.PathLike[str], run: Mapping[str, Any]) -> str:
    """The differences between the run that wrote a folder and the run that resumes from it, as a sentence for the log.

    Raises:
        ValueError: the folder belongs to another model, task or dataset.
    """
    try:
        before = json.loads(Path(folder, TRAINING_RUN_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"It cannot be checked whether it belongs to this run: it has no readable {TRAINING_RUN_NAME}."
    for part, name in (("tasks", "task"), ("model", "model"), ("data", "dataset")):
        if before.get(part) != run[part]:
            old, new = (_in_words(part, record.get(part)) for record in (before, run))
            raise ValueError(
                f"{os.fspath(folder)} belongs to a run with another {name} ({old}) than this one ({new}). Choose another "
                "`output_dir`. To start from the weights of that run, give its folder as `model_name_or_path`."
            )
    restored, changed = [], []
    old, new = before["settings"], run["settings"]
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            if name in RESTORED:
                restored.append(f"{name} stays {old.get(name)} ({new.get(name)} was given)")
            else:
                changed.append(f"{name} is {new.get(name)} (was {old.get(name)})")
    differences = restored + changed
    return f"What differs: {'; '.join(differences)}." if differences else "All settings are the same."


def _in_words(part: str, value: Any) -> str:
    if part == "tasks":
        return ", ".join(sorted(set(value)))
    if part == "model":
        return f"{value['class']}, parameters {value['parameters'][:6]}"
    return ", ".join(
        entry.get("stream") or f"{entry['samples']} samples, digest {entry['digest'][:6]}" for entry in value
    )


def last_checkpoint(output_dir: str | os.PathLike[str]) -> str | None:
    """The last complete checkpoint, or None.

    `transformers.trainer_utils.get_last_checkpoint` also returns one that is incomplete because the run was killed while it
    was written.
    """
    for folder in reversed(sort_checkpoints(os.fspath(output_dir))):
        if not re.fullmatch(rf"{PREFIX_CHECKPOINT_DIR}-\d+", os.path.basename(folder)):
            continue  # a copy with another name
        try:  # the state is what Trainer writes last
            json.loads(Path(folder, TRAINER_STATE_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            logger.warning(f"{folder} is incomplete and is skipped.")
        else:
            return folder
    return None


def global_step(folder: str | os.PathLike[str]) -> int:
    """The number of trained steps of a saved folder; 0 if it cannot be read."""
    try:
        return int(json.loads(Path(folder, TRAINER_STATE_NAME).read_text(encoding="utf-8"))["global_step"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


__all__ = ["TRAINING_RUN_NAME", "check_same_run", "describe_run", "describe_samples", "global_step", "last_checkpoint"]
