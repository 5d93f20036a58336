# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What `valor train` does: from arguments and recipes to the model, the data and the Trainer.

A recipe is a YAML file of the same arguments as the command line's, which overrides it:

    valor train retrieval msrvtt_retrieval --model_name_or_path valor-large --learning_rate 2e-5
"""

import difflib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import yaml
from torch import nn
from transformers import HfArgumentParser, set_seed
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, sort_checkpoints
from transformers.utils import logging

from ..configuration_valor import ValorConfig
from ..data.checks import check_texts
from ..data.failures import FailureLog
from ..data.loading import LoadingOptions
from ..data.mixture import Mixture, Source
from ..data.readers import has_splits, load_samples
from ..data.samples import Sample, each_sample
from ..data.splits import file_of, files_of, first_samples, hold_out
from ..data.text import clean_caption
from ..evaluation.captioning import CAPTION_METRICS
from ..evaluation.inference import evaluate_captioning, evaluate_question_answering, evaluate_retrieval
from ..evaluation.outputs import scale
from ..modeling_valor import ValorPreTrainedModel
from ..processing_valor import ValorProcessor
from ..recipes import find_recipe
from ..video_processing_valor import ValorVideoProcessor
from .arguments import DataArguments, ModelArguments, ValorTrainingArguments
from .model_card import MeasuredTask, model_card, public_name
from .multitask import HEADS, ValorForMultitask
from .overview import describe_training, describe_weights
from .pretrained_parts import (
    build_parts_config,
    fit_processor,
    load_audio_model,
    load_processor,
    load_text_model,
    load_vision_model,
)
from .self_critical import CiderReward, SelfCriticalTrainer
from .trainer import Evaluation, ValorTrainer


logger = logging.get_logger(__name__)

HELD_OUT_SHARE = 0.1
"""Share of a dataset without splits that is measured on and not trained on, unless `validation_share` is given."""

_PLACE = ("dataset", "media", "annotations")
_READING = (*_PLACE, "split", "columns", "validation_share", "limit")


def parse_arguments(
    argv: Sequence[str] | None = None, *more: type, program: str | None = None
) -> tuple[ModelArguments, DataArguments, ValorTrainingArguments, Any]:
    """
    Arguments of a training: an optional recipe first, then `--name value`, which wins.

    Args:
        argv: default: the process's.
        more: further dataclasses of arguments.
        program: what the user called, for messages.

    Raises:
        ValueError: there is no such recipe or argument, or a value is not accepted.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    classes = (ModelArguments, DataArguments, ValorTrainingArguments, *more)
    parser = _ArgumentParser(classes, prog=program)
    names = sorted(entry.name for cls in classes for entry in fields(cls))
    if argv and not argv[0].startswith("-"):
        path = find_recipe(argv.pop(0))
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(recipe, dict):
            raise ValueError(f"{path} is not a recipe: a mapping of arguments to values is accepted.")
        if unknown := sorted(set(recipe) - set(names)):
            raise ValueError(
                f"{path} has {', '.join(unknown)}, which no argument is called{_similar(unknown, names)}."
            )
        parser.set_defaults(**recipe)
    *parsed, rest = parser.parse_args_into_dataclasses(argv, return_remaining_strings=True)
    if rest:
        unknown = [argument for argument in rest if argument.startswith("-")] or rest
        raise ValueError(f"no argument is called {', '.join(unknown)}{_similar(unknown, names)}.")
    return tuple(parsed)


class _ArgumentParser(HfArgumentParser):
    """Without three pages of usage before each message."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _similar(unknown: Sequence[str], names: Sequence[str]) -> str:
    """Names that may have been meant, for the end of a sentence."""
    plain = [name.lstrip("-").partition("=")[0].replace("-", "_") for name in unknown]
    likely = [match for name in plain for match in difflib.get_close_matches(name, names, n=1)]
    return f" (similar: {', '.join(likely)})" if likely else ""


def build_model(args: ModelArguments, task: str | None) -> tuple[ValorPreTrainedModel, ValorProcessor]:
    """The model for a task (None: for several), new or from a checkpoint, and its processor; see [`initialize_model`]."""
    return initialize_model(args, task)[:2]


def initialize_model(args: ModelArguments, task: str | None) -> tuple[ValorPreTrainedModel, ValorProcessor, set[str]]:
    """
    The model for a task (None: for several), its processor, and the names of parameters that no checkpoint had.

    Raises:
        ValueError: neither a checkpoint, nor a configuration, nor a `text_model` is given, or the video processor has no
            such field.
    """
    source = args.model_name_or_path or args.config_name
    if source is None and args.text_model is None:
        raise ValueError(
            "Give a checkpoint as `model_name_or_path`, or for a new model the checkpoints that its parts start from "
            "(`text_model`, `vision_model`, `audio_model`), its `config_name`, or both."
        )
    head = ValorForMultitask if task is None else HEADS[task]
    overrides = args.config_overrides or {}
    if args.processor_name is not None:
        processor = ValorProcessor.from_pretrained(args.processor_name)
    else:
        processor = load_processor(source, args.text_model, args.vision_model)
    if args.model_name_or_path is not None:
        config = changed_config(ValorConfig.from_pretrained(source), overrides)
        model, info = head.from_pretrained(
            source, config=config, attn_implementation=args.attn_implementation, output_loading_info=True
        )
        new = set(info["missing_keys"]) | {name for name, *_ in info["mismatched_keys"]}
    else:
        config = build_parts_config(
            args.config_name, args.text_model, args.vision_model, args.audio_model, processor.tokenizer
        )
        config = changed_config(config, overrides)
        if args.processor_name is None:
            fit_processor(processor, config, args.config_name)
        model = head._from_config(config, attn_implementation=args.attn_implementation)
        new = {name for name, _ in model.named_parameters()}
    for load, checkpoint in (
        (load_text_model, args.text_model),
        (load_vision_model, args.vision_model),
        (load_audio_model, args.audio_model),
    ):
        if checkpoint is not None:
            new -= load(model, checkpoint)
    if args.video_processor:
        processor.video_processor = changed_video_processor(processor.video_processor, args.video_processor)
    return model, processor, new & {name for name, _ in model.named_parameters()}


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
    return [build_source(entry) for entry in source_entries(args, training, task)]


def source_entries(args: DataArguments, training: ValorTrainingArguments, task: str | None) -> list[dict[str, Any]]:
    """What [`build_source`] takes for each source.

    Raises:
        ValueError: neither `dataset` nor `sources` is given.
    """
    entries = args.sources
    if entries is None:
        if args.dataset is None:
            raise ValueError("Give `dataset`, or `sources` in a recipe.")
        entries = [{"name": args.dataset}]
    shared = {**_shared(args), "batch_size": training.per_device_train_batch_size}
    if task is not None:
        shared["task"] = task
    return [{**shared, **entry} for entry in entries]


def _shared(args: DataArguments) -> dict[str, Any]:
    names = (
        "dataset",
        "media",
        "annotations",
        "columns",
        "modalities",
        "num_frames",
        "num_audio_clips",
        "max_length",
        "cache_dir",
    )
    return {
        **{name: getattr(args, name) for name in names},
        "split": args.train_split,
        "limit": args.max_train_samples,
    }


def build_source(entry: dict[str, Any]) -> Source:
    """
    A source from one mapping: where its samples are, and the fields of `Source` and `LoadingOptions`.

    `validation_share` of the samples are left out, and only the first `limit` of the others taken. Whatever else the
    mapping has is for the reader of the dataset.
    """
    entry = dict(entry)
    where = {name: entry.pop(name, None) for name in (*_PLACE, "split", "columns")}
    share, limit = entry.pop("validation_share", None), entry.pop("limit", None)
    option_names = {option.name for option in fields(LoadingOptions)}
    source_names = {option.name for option in fields(Source)} - {"samples", "options"}
    reading = {name: entry.pop(name) for name in list(entry) if name not in option_names | source_names}
    options = LoadingOptions(**{name: entry.pop(name) for name in list(entry) if name in option_names})
    entry.setdefault("name", where["dataset"])
    try:
        samples = load_samples(**where, **reading)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise ValueError(
            f"the source {entry['name']!r} has {', '.join(reading)}: not all of these are fields of a source, or options of "
            f"its dataset ({error})."
        ) from error
    check_texts(samples, options.task, where["dataset"])
    if share is not None:
        samples = hold_out(samples, share)[0]
    if limit is not None:
        samples = first_samples(samples, limit)
    return Source(samples=samples, options=options, **entry)


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
    if not args.do_train and not args.do_eval:
        raise ValueError("nothing is to be done: give --do_train, --do_eval or both.")
    set_seed(args.seed)
    sources, measured = read_data(data_args, args, task)
    model, processor, new = initialize_model(model_args, task)
    evaluations = {
        name: on_paper_scale(entry["task"], build_evaluation(entry, processor, samples))
        for name, (entry, samples) in measured.items()
    }
    for source in sources:
        for name in ("alignment_groups", "captioning_groups"):
            model.config.check_groups(getattr(source, name) or [], name)
    mixture, trainer_class, options = None, ValorTrainer, {}
    if args.do_train:
        if num_sampled_captions is not None:
            for source in sources:
                source.options = replace(source.options, references=True)
                source.captioning_groups = first_group(source)
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
        evaluations=evaluations,
        processing_class=processor,
        **options,
    )
    overview = {}
    if args.do_train:
        sizes = {name: len(samples) for name, (_, samples) in measured.items()}
        overview = describe_training(trainer, sources, sizes, describe_weights(model_args, model, new))
        if trainer.is_world_process_zero():
            logger.info("\n".join(f"{heading}: {text}." for heading, text in overview.items()))
    if args.do_train and (args.resume_from_checkpoint is not None or not trainer.load_finished()):
        checkpoint = args.resume_from_checkpoint
        if checkpoint is None:
            checkpoint = last_checkpoint(args.output_dir)
        if checkpoint is None and trainer.is_world_process_zero():
            logger.info(f"Begins at step 0, because there is no checkpoint in {args.output_dir}.")
        with closing_progress_bar(trainer):
            result = trainer.train(resume_from_checkpoint=checkpoint)
        trainer.save_model()
        if result.metrics:
            trainer.log_metrics("train", result.metrics)
            trainer.save_metrics("train", result.metrics)
        trainer.save_state()
    metrics = {}
    if args.do_eval:
        metrics = trainer.evaluate()
        trainer.log_metrics("eval", metrics)
        trainer.save_metrics("eval", metrics)
    if args.do_train:
        base = model_args.model_name_or_path
        trainer.model_card = model_card(
            Path(args.output_dir).resolve().name,
            type(model).__name__ if task is not None else HEADS["pretraining"].__name__,
            overview,
            {name: measured_task(name, entry, samples, metrics) for name, (entry, samples) in measured.items()},
            base,
        )
        trainer.create_model_card()
        if args.push_to_hub:
            trainer.push_to_hub()
    return metrics


@contextmanager
def closing_progress_bar(trainer: ValorTrainer) -> Iterator[None]:
    """Ends the line of the progress bar where an error ends the training, so that the message has a line of its own."""
    try:
        yield
    except BaseException:
        for callback in trainer.callback_handler.callbacks:
            if (bar := getattr(callback, "training_bar", None)) is not None:
                bar.close()
        raise


def on_paper_scale(task: str, evaluation: Evaluation) -> Evaluation:
    """The same with its metrics as the paper prints them: recalls and accuracies in percent, captioning times 100."""
    return lambda model: {name: scale(task) * value for name, value in evaluation(model).items()}


def measured_task(
    name: str, entry: Mapping[str, Any], samples: Sequence[Sample], metrics: Mapping[str, float]
) -> MeasuredTask:
    """What the model card says of an evaluation; `metrics` are those of the Trainer."""
    prefix = f"eval_{name}_"
    own = {key.removeprefix(prefix): value for key, value in metrics.items() if key.startswith(prefix)}
    split, share = entry["split"], entry.get("validation_share")
    split = split if share is None else f"{share:.0%} of {split}, held out"
    return MeasuredTask(entry["task"], public_name(entry["dataset"]), split, len(samples), own)


def first_group(source: Source) -> list[str] | None:
    """The one captioning group that self-critical training takes of a source: the first, which recipes measure."""
    groups = source.captioning_groups
    if groups is None or len(groups) < 2:
        return groups
    logger.warning(f"Self-critical training takes one group: {groups[0]} of {', '.join(groups)} of {source.name!r}.")
    return list(groups[:1])


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


# --- Data: what is trained on, what is measured -----------------------------------------------------------------------


def read_data(
    args: DataArguments, training: ValorTrainingArguments, task: str | None
) -> tuple[list[Source], dict[str, tuple[dict[str, Any], list[Sample]]]]:
    """The sources of `do_train`, and by name what `do_eval` and `eval_steps` measure: options, and samples that are others.

    Nothing is decoded.

    Raises:
        ValueError: the arguments or a dataset do not fit.
    """
    trained = source_entries(args, training, task) if training.do_train else []
    measured = evaluation_entries(args, training, task)
    if task is not None:
        check_task(task, trained, measured)
    keep_apart(args.validation_share, args.train_split, trained, measured)
    sources = [build_source(entry) for entry in trained]
    files = set().union(*(files_of(source.samples) for source in sources if measured))
    evaluations = {}
    for name, entry in measured.items():
        samples = samples_to_measure(entry)
        if not samples:
            raise ValueError(
                f"{name} has no samples to measure: give a larger `validation_share`, or an `eval_dataset` or `eval_split`."
            )
        if known := sum(file_of(sample) in files for sample in samples):
            logger.warning(f"{known} of the {len(samples)} samples on which {name} is measured are also trained.")
        evaluations[name] = entry, samples
    return sources, evaluations


def evaluation_entries(
    args: DataArguments, training: ValorTrainingArguments, task: str | None
) -> dict[str, dict[str, Any]]:
    """What [`build_evaluation`] takes, by name: the recipe's `evaluations`, or the script's task."""
    if not (training.do_eval or training.eval_strategy != "no"):
        return {}
    entries = args.evaluations
    if entries is None:
        tasks = ["retrieval", "captioning"] if task in (None, "pretraining") else [task]
        entries = [{"task": name} for name in tasks] if args.dataset or args.eval_dataset else []
    shared = {"task": task, **_shared_evaluation(args, training)} if entries else {}
    entries = [{**shared, **entry} for entry in entries]
    if task is None and not all(entry.get("task") in EVALUATIONS for entry in entries):
        raise ValueError(f"each of `evaluations` needs a `task`, one of {', '.join(EVALUATIONS)}.")
    return {entry.get("name", entry["task"]): entry for entry in entries}


def _shared_evaluation(args: DataArguments, training: ValorTrainingArguments) -> dict[str, Any]:
    if args.eval_dataset is None:
        where = {"dataset": args.dataset, "media": args.media, "annotations": args.annotations}
    else:
        where = {"dataset": args.eval_dataset, "media": args.eval_media, "annotations": args.eval_annotations}
    has_parts = args.eval_dataset is None or has_splits(args.eval_dataset, args.eval_annotations)
    return {
        **where,
        "columns": args.columns,
        **{name: getattr(args, name) for name in ("modalities", "max_length", "num_beams", "max_new_tokens")},
        "num_frames": args.eval_num_frames or args.num_frames,
        "num_audio_clips": args.eval_num_audio_clips or args.num_audio_clips,
        "split": args.eval_split or ("val" if has_parts else None),
        "batch_size": training.per_device_eval_batch_size,
        "num_workers": training.dataloader_num_workers,
        "limit": args.max_eval_samples,
        "max_failures": training.max_failures,
    }


def check_task(task: str, trained: Sequence[Mapping[str, Any]], measured: Mapping[str, Mapping[str, Any]]) -> None:
    """
    Raises:
        ValueError: a source is of another task, or what is measured is all of others, as with another task's recipe.
    """
    others = {entry["task"] for entry in trained} - {task} or {entry["task"] for entry in measured.values()}
    if others and task not in others:
        raise ValueError(
            f"{task} is trained, but the recipe is for {', '.join(sorted(others))}: train that, or `pretraining`, which "
            "trains several tasks."
        )


def keep_apart(
    share: float | None, train_split: str, trained: Sequence[dict[str, Any]], measured: Mapping[str, dict[str, Any]]
) -> None:
    """
    Lets entries that read the same samples hold some of them out: sets `validation_share` in all of them.

    These are entries of one dataset where a `share` is given, or else where the dataset has no splits and the two do not
    name the same one on purpose.

    Raises:
        ValueError: a `share` is given, and nothing that is measured is also trained.
    """
    for name, entry in measured.items():
        shared = [other for other in trained if all(other.get(key) == entry.get(key) for key in _PLACE)]
        splits = [other["split"] for other in shared]
        own_share = share
        on_purpose = entry["split"] in splits
        if share is None and shared and not on_purpose and not has_splits(entry["dataset"], entry.get("annotations")):
            own_share = HELD_OUT_SHARE
            logger.warning_once(
                f"{entry['dataset']} has no splits: {own_share:.0%} of it, the same samples in every run, are held out and "
                "measured, the others are trained. --validation_share sets the share, --eval_dataset names other data."
            )
        elif share is None and not trained and not has_splits(entry["dataset"], entry.get("annotations")):
            logger.warning_once(
                f"{entry['dataset']} has no splits: all of it is measured, also what a training may have used. "
                f"--validation_share {HELD_OUT_SHARE:g} measures what a training holds out."
            )
        if own_share is None:
            continue
        if trained and not shared:
            raise ValueError(
                f"`validation_share` holds out samples that are trained, but {name} is measured on {entry['dataset']}, which "
                "is not: leave it out."
            )
        for other in (entry, *shared):
            other["validation_share"] = own_share
        entry["split"] = splits[0] if splits else train_split


EVALUATIONS = {
    "retrieval": (evaluate_retrieval, ("num_beams", "max_new_tokens")),
    "captioning": (evaluate_captioning, ("max_length",)),
    "question_answering": (evaluate_question_answering, ("max_length",)),
}
"""What measures each task, and the shared options that it has no use for."""


def samples_to_measure(entry: Mapping[str, Any]) -> list[Sample]:
    """The samples of an evaluation: of `split`, or the `validation_share` of it that is held out; the first `limit`."""
    samples = load_samples(**{name: entry.get(name) for name in (*_PLACE, "split", "columns")})
    check_texts(samples, entry["task"], entry["dataset"])
    if entry.get("validation_share") is not None:
        samples = hold_out(samples, entry["validation_share"])[1]
    return list(islice(each_sample(samples), entry.get("limit")))


def build_evaluation(
    entry: Mapping[str, Any], processor: ValorProcessor, samples: Sequence[Sample] | None = None
) -> Evaluation:
    """
    One evaluation from one mapping: `task`, where its samples are, and the arguments of `evaluation.evaluate_...`.

    Samples that cannot be read are named in a warning. More than the share `max_failures` of them is an error.

    Args:
        samples: those of the mapping, where they have been read already.

    Raises:
        ValueError: the task is not one that can be measured.
    """
    if entry["task"] not in EVALUATIONS:
        raise ValueError(f"`task` of an evaluation must be one of {', '.join(EVALUATIONS)}, got {entry['task']!r}.")
    samples = samples_to_measure(entry) if samples is None else samples
    entry = dict(entry)
    task = entry.pop("task")
    measure, unused = EVALUATIONS[task]
    name, max_failures = entry.pop("name", task), entry.pop("max_failures", 1.0)
    options = {key: value for key, value in entry.items() if key not in (*_READING, *unused)}
    if task == "captioning":  # METEOR and SPICE start a Java program each time; a recipe may ask for them
        options.setdefault("metrics", [metric for metric in CAPTION_METRICS if metric not in ("METEOR", "SPICE")])

    def evaluate(model: nn.Module) -> dict[str, float]:
        result = measure(model, processor, samples, **options)
        log = FailureLog(max_failures, len(samples), consequence="and are in no metric")
        log.update(len(samples), result.failures)
        if log.failures:
            logger.warning_once(f"{name}: {log.report()}")
        return result.metrics

    return evaluate
