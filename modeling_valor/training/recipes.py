# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What the training scripts share: arguments and recipes, and from them the model, the data and the Trainer.

A recipe is a YAML file of the same arguments as the command line's, which overrides it:

    python run_retrieval.py recipes/msrvtt_retrieval.yaml --model_name_or_path valor-large --learning_rate 2e-5
"""

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser, set_seed
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, sort_checkpoints
from transformers.utils import logging

from ..configuration_valor import ValorConfig
from ..data.loading import LoadingOptions
from ..data.mixture import Mixture, Source
from ..data.readers import load_samples
from ..data.samples import each_sample
from ..data.text import clean_caption
from ..evaluation.captioning import CAPTION_METRICS
from ..evaluation.inference import evaluate_captioning, evaluate_question_answering, evaluate_retrieval
from ..modeling_valor import ValorPreTrainedModel
from ..processing_valor import ValorProcessor
from ..video_processing_valor import ValorVideoProcessor
from .arguments import ValorTrainingArguments
from .multitask import HEADS, ValorForMultitask
from .pretrained_parts import load_audio_model, load_processor, load_text_model, load_vision_model
from .self_critical import CiderReward, SelfCriticalTrainer
from .trainer import Evaluation, ValorTrainer


logger = logging.get_logger(__name__)


@dataclass
class ModelArguments:
    """Which model is trained."""

    model_name_or_path: str | None = field(default=None, metadata={"help": "Checkpoint to start from."})
    config_name: str | None = field(
        default=None, metadata={"help": "Configuration of a model with new weights, where no checkpoint is given."}
    )
    processor_name: str | None = field(
        default=None, metadata={"help": "Folder or Hub name of the processor. Default: where the model comes from."}
    )
    text_model: str | None = field(
        default=None, metadata={"help": "BERT that a new model starts with, and whose tokenizer it takes."}
    )
    vision_model: str | None = field(
        default=None, metadata={"help": "Checkpoint whose vision encoder a new model starts with, such as CLIP's."}
    )
    audio_model: str | None = field(default=None, metadata={"help": "AST that a new model starts with."})
    config_overrides: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Fields of the configuration to change, as JSON."}
    )
    video_processor: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Fields of the video processor to change, such as its `size`, as JSON."}
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": '"eager", "sdpa", "flash_attention_2" or "flex_attention".'}
    )

    def __post_init__(self):
        for name in ("config_overrides", "video_processor"):
            if isinstance(getattr(self, name), str):
                setattr(self, name, json.loads(getattr(self, name)))


@dataclass
class DataArguments:
    """What it is trained and measured on. `sources` and `evaluations` come from recipes; else `dataset` is both."""

    dataset: str | None = field(
        default=None, metadata={"help": "A benchmark's name, a folder, tar shards or a Hub dataset."}
    )
    train_split: str = field(default="train", metadata={"help": "Split to train on."})
    eval_split: str = field(default="val", metadata={"help": "Split to measure on."})
    media: str | None = field(default=None, metadata={"help": "Folder of a benchmark's videos and sounds."})
    annotations: str | None = field(default=None, metadata={"help": "Folder of a benchmark's annotation files."})
    modalities: str = field(default="av", metadata={"help": '"av", "v" or "a": what is read of each clip.'})
    num_frames: int | None = field(default=None, metadata={"help": "Frames of each clip (default: the processor's)."})
    num_audio_clips: int | None = field(
        default=None, metadata={"help": "5.12 s clips of its sound (default: the processor's)."}
    )
    max_length: int = field(default=40, metadata={"help": "Tokens of a caption or answer at the most."})
    eval_num_frames: int | None = field(
        default=None, metadata={"help": "Frames for evaluation (default: num_frames)."}
    )
    eval_num_audio_clips: int | None = field(
        default=None, metadata={"help": "Audio clips for evaluation (default: num_audio_clips)."}
    )
    num_beams: int = field(default=1, metadata={"help": "Beams of captions in evaluation."})
    max_new_tokens: int = field(default=40, metadata={"help": "Length of generated text in evaluation."})
    cache_dir: str | None = field(default=None, metadata={"help": "Folder to keep decoded frames and sound in."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Measure on the first so many samples."})
    sources: list[dict[str, Any]] | None = field(
        default=None,
        metadata={"help": "Mixture: fields of `Source` and `LoadingOptions`, and `dataset`, `split`, ..."},
    )
    evaluations: list[dict[str, Any]] | None = field(
        default=None, metadata={"help": "Evaluations: `name`, `task`, `dataset`, `split` and their options."}
    )


def parse_arguments(
    argv: Sequence[str] | None = None, *more: type
) -> tuple[ModelArguments, DataArguments, ValorTrainingArguments, Any]:
    """Arguments of a script: an optional recipe first, then `--name value`, which wins.

    Raises:
        ValueError: the recipe names an argument that does not exist, or is not a mapping.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    classes = (ModelArguments, DataArguments, ValorTrainingArguments, *more)
    parser = HfArgumentParser(classes)
    if argv and argv[0].endswith((".yaml", ".yml")):
        path = argv.pop(0)
        with open(path, encoding="utf-8") as file:
            recipe = yaml.safe_load(file)
        if not isinstance(recipe, dict):
            raise ValueError(f"{path} is not a recipe: a mapping of arguments to values is accepted.")
        known = {entry.name for cls in classes for entry in fields(cls)}
        if unknown := sorted(set(recipe) - known):
            raise ValueError(f"{path} has {', '.join(unknown)}, which no argument is called.")
        parser.set_defaults(**recipe)
    return parser.parse_args_into_dataclasses(argv)


def build_model(args: ModelArguments, task: str | None) -> tuple[ValorPreTrainedModel, ValorProcessor]:
    """The model for a task (None: for several), new or from a checkpoint, and its processor.

    Raises:
        ValueError: neither a checkpoint nor a configuration is given, or the video processor has no such field.
    """
    source = args.model_name_or_path or args.config_name
    if source is None:
        raise ValueError("Give a checkpoint as `model_name_or_path`, or the `config_name` of a new model.")
    head = ValorForMultitask if task is None else HEADS[task]
    config = changed_config(ValorConfig.from_pretrained(source), args.config_overrides or {})
    if args.model_name_or_path is not None:
        model = head.from_pretrained(source, config=config, attn_implementation=args.attn_implementation)
    else:
        model = head._from_config(config, attn_implementation=args.attn_implementation)
    for load, checkpoint in (
        (load_text_model, args.text_model),
        (load_vision_model, args.vision_model),
        (load_audio_model, args.audio_model),
    ):
        if checkpoint is not None:
            load(model, checkpoint)
    if args.text_model is not None and args.processor_name is None:
        processor = load_processor(source, args.text_model)
    else:
        processor = ValorProcessor.from_pretrained(args.processor_name or source)
    if args.video_processor:
        processor.video_processor = changed_video_processor(processor.video_processor, args.video_processor)
    return model, processor


def changed_config(config: ValorConfig, changes: Mapping[str, Any]) -> ValorConfig:
    """The same with other fields. A mapping for a part, such as `text_config`, changes the fields that it names, and where
    it names another `model_type`, it is the whole part.

    Raises:
        ValueError: there is no such field.
    """
    settings = config.to_dict()
    for name, value in changes.items():
        if name not in settings:
            raise ValueError(f"The configuration has no {name}; it has {', '.join(sorted(settings))}.")
        part = settings[name]
        if isinstance(part, dict) and isinstance(value, Mapping):
            kind = part.get("model_type")
            value = {**part, **value} if value.get("model_type", kind) == kind else value
        settings[name] = value
    return ValorConfig.from_dict(settings)


def changed_video_processor(processor: ValorVideoProcessor, changes: Mapping[str, Any]) -> ValorVideoProcessor:
    """The same with other settings, in training, in evaluation and in the saved checkpoint."""
    settings = processor.to_dict()
    if unknown := sorted(set(changes) - set(settings)):
        raise ValueError(f"The video processor has no {', '.join(unknown)}; it has {', '.join(sorted(settings))}.")
    return ValorVideoProcessor(**{**settings, **changes})


def build_sources(args: DataArguments, training: ValorTrainingArguments, task: str | None) -> list[Source]:
    """The sources of the mixture, read but not decoded."""
    entries = args.sources
    if entries is None:
        if args.dataset is None:
            raise ValueError("Give `dataset`, or `sources` in a recipe.")
        entries = [{"name": args.dataset}]
    shared = {**_shared(args), "batch_size": training.per_device_train_batch_size}
    if task is not None:
        shared["task"] = task
    return [build_source({**shared, **entry}) for entry in entries]


def _shared(args: DataArguments) -> dict[str, Any]:
    names = (
        "dataset",
        "media",
        "annotations",
        "modalities",
        "num_frames",
        "num_audio_clips",
        "max_length",
        "cache_dir",
    )
    return {**{name: getattr(args, name) for name in names}, "split": args.train_split}


def build_source(entry: dict[str, Any]) -> Source:
    """A source from one mapping: where its samples are, and the fields of `Source` and `LoadingOptions`."""
    entry = dict(entry)
    where = {name: entry.pop(name, None) for name in ("dataset", "split", "media", "annotations")}
    option_names = {option.name for option in fields(LoadingOptions)}
    source_names = {option.name for option in fields(Source)} - {"samples", "options"}
    reading = {name: entry.pop(name) for name in list(entry) if name not in option_names | source_names}
    options = LoadingOptions(**{name: entry.pop(name) for name in list(entry) if name in option_names})
    entry.setdefault("name", where["dataset"])
    return Source(samples=load_samples(**where, **reading), options=options, **entry)


def run(
    model_args: ModelArguments,
    data_args: DataArguments,
    args: ValorTrainingArguments,
    task: str | None,
    num_sampled_captions: int | None = None,
) -> dict[str, float]:
    """Trains (`do_train`) and measures (`do_eval`) as the arguments say; gives the last figures.

    Training goes on from `resume_from_checkpoint`, or by itself from the last checkpoint in `output_dir`.

    Args:
        task: the scripts' task; None: those of the sources, on one set of weights.
        num_sampled_captions: train on the CIDEr of so many sampled captions of each clip ([`SelfCriticalTrainer`]).
    """
    set_seed(args.seed)
    model, processor = build_model(model_args, task)
    mixture, trainer_class, options = None, ValorTrainer, {}
    if args.do_train:
        sources = build_sources(data_args, args, task)
        if num_sampled_captions is not None:
            for source in sources:
                source.options = replace(source.options, references=True)
            corpus = [
                [clean_caption(text) for text in sample.captions]
                for source in sources
                for sample in each_sample(source.samples)
            ]
            trainer_class = SelfCriticalTrainer
            options = {
                "reward": CiderReward(corpus),
                "num_samples": num_sampled_captions,
                "max_new_tokens": data_args.max_new_tokens,
            }
        mixture = Mixture(
            sources, processor, model.config, seed=args.seed if args.data_seed is None else args.data_seed
        )
    trainer = trainer_class(
        model,
        args,
        train_dataset=mixture,
        evaluations=build_evaluations(data_args, args, processor, task),
        processing_class=processor,
        **options,
    )
    if args.do_train:
        checkpoint = args.resume_from_checkpoint
        if checkpoint is None:
            checkpoint = last_checkpoint(args.output_dir)
        result = trainer.train(resume_from_checkpoint=checkpoint)
        trainer.save_model()
        trainer.log_metrics("train", result.metrics)
        trainer.save_metrics("train", result.metrics)
        trainer.save_state()
    if not args.do_eval:
        return {}
    metrics = trainer.evaluate()
    trainer.log_metrics("eval", metrics)
    trainer.save_metrics("eval", metrics)
    return metrics


def last_checkpoint(output_dir: str | os.PathLike) -> str | None:
    """
    The last checkpoint that was written to its end, or None.

    That of transformers would also be one that the run was killed in the middle of writing, which cannot be resumed.
    """
    for folder in reversed(sort_checkpoints(os.fspath(output_dir))):
        if not re.fullmatch(rf"{PREFIX_CHECKPOINT_DIR}-\d+", os.path.basename(folder)):
            continue  # somebody's copy of one
        try:  # the state is what Trainer writes last
            json.loads(Path(folder, TRAINER_STATE_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            logger.warning(f"{folder} was not written to its end and is passed over.")
        else:
            return folder
    return None


def build_evaluations(
    args: DataArguments, training: ValorTrainingArguments, processor: ValorProcessor, task: str | None
) -> dict[str, Evaluation]:
    """What `do_eval` and `eval_steps` measure: the recipe's `evaluations`, or the script's task on `eval_split`."""
    if not (training.do_eval or training.eval_strategy != "no"):
        return {}
    entries = args.evaluations
    if entries is None:
        tasks = ["retrieval", "captioning"] if task in (None, "pretraining") else [task]
        entries = [{"task": name} for name in tasks] if args.dataset else []
    return {
        entry.get("name", entry["task"]): build_evaluation({**_shared_evaluation(args, training), **entry}, processor)
        for entry in entries
    }


def _shared_evaluation(args: DataArguments, training: ValorTrainingArguments) -> dict[str, Any]:
    names = ("dataset", "media", "annotations", "modalities", "max_length", "num_beams", "max_new_tokens")
    return {
        **{name: getattr(args, name) for name in names},
        "num_frames": args.eval_num_frames or args.num_frames,
        "num_audio_clips": args.eval_num_audio_clips or args.num_audio_clips,
        "split": args.eval_split,
        "batch_size": training.per_device_eval_batch_size,
        "num_workers": training.dataloader_num_workers,
        "limit": args.max_eval_samples,
    }


EVALUATIONS = {
    "retrieval": (evaluate_retrieval, ("num_beams", "max_new_tokens")),
    "captioning": (evaluate_captioning, ("max_length",)),
    "question_answering": (evaluate_question_answering, ("max_length",)),
}
"""What measures each task, and the shared options that it has no use for."""


def build_evaluation(entry: dict[str, Any], processor: ValorProcessor) -> Evaluation:
    """One evaluation from one mapping: `task`, where its samples are, and the arguments of `evaluation.evaluate_...`.

    Raises:
        ValueError: the task is not one that can be measured.
    """
    entry = {name: value for name, value in entry.items() if name != "name"}
    task, limit = entry.pop("task"), entry.pop("limit", None)
    if task not in EVALUATIONS:
        raise ValueError(f"`task` of an evaluation must be one of {', '.join(EVALUATIONS)}, got {task!r}.")
    measure, unused = EVALUATIONS[task]
    where = {name: entry.pop(name, None) for name in ("dataset", "split", "media", "annotations")}
    samples = list(islice(each_sample(load_samples(**where)), limit))
    options = {name: value for name, value in entry.items() if name not in unused}
    if task == "captioning":  # METEOR and SPICE start a Java program each time; a recipe may ask for them
        options.setdefault("metrics", [name for name in CAPTION_METRICS if name not in ("METEOR", "SPICE")])
    return lambda model: measure(model, processor, samples, **options).metrics
