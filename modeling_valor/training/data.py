# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Sources and evaluations from arguments and recipes; they share samples only on purpose."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from itertools import islice
from typing import Any

from torch import nn
from transformers.utils import logging

from ..data.checks import check_texts
from ..data.failures import FailureLog
from ..data.loading import LoadingOptions
from ..data.mixture import Source
from ..data.readers import has_splits, load_samples
from ..data.samples import Sample, each_sample
from ..data.splits import file_of, files_of, first_samples, hold_out
from ..evaluation.generate import evaluate_captioning, evaluate_question_answering
from ..evaluation.metrics.captioning import CAPTION_METRICS
from ..evaluation.options import group_keywords
from ..evaluation.results import Evaluation
from ..evaluation.retrieve import evaluate_retrieval
from ..evaluation.settings import on_paper_scale
from ..processing_valor import ValorProcessor
from .arguments import DataArguments, ValorTrainingArguments
from .trainer import EvaluationFunction


logger = logging.get_logger(__name__)

HELD_OUT_SHARE = 0.1
"""Share of a dataset without splits that is measured on and not trained on, unless `validation_share` is given."""

_PLACE = ("dataset", "media", "annotations")
_READING = (*_PLACE, "split", "columns", "validation_share", "limit")


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
        if num_trained := sum(file_of(sample) in files for sample in samples):
            logger.warning(
                f"{num_trained} of the {len(samples)} samples on which {name} is measured are also trained."
            )
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
    """Checks that a recipe's sources are of the task that is trained.

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
    """Lets entries that read the same samples hold some of them out: sets `validation_share` in all of them.

    These are entries of one dataset where a `share` is given, or else where the dataset has no splits and the two do not
    name the same one on purpose.

    Raises:
        ValueError: a `share` is given, and nothing that is measured is also trained.
    """
    for name, entry in measured.items():
        shared = [other for other in trained if all(other.get(key) == entry.get(key) for key in _PLACE)]
        splits = [other["split"] for other in shared]
        on_purpose = entry["split"] in splits
        own_share = share
        if share is None and (not trained or (shared and not on_purpose)):
            own_share = _share_without_splits(entry, is_trained=bool(trained))
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


def _share_without_splits(entry: Mapping[str, Any], is_trained: bool) -> float | None:
    """The share to hold out of a dataset without splits, with a warning; None if it has splits or is only measured."""
    if has_splits(entry["dataset"], entry.get("annotations")):
        return None
    if not is_trained:
        logger.warning_once(
            f"{entry['dataset']} has no splits: all of it is measured, also what a training may have used. "
            f"--validation_share {HELD_OUT_SHARE:g} measures what a training holds out."
        )
        return None
    logger.warning_once(
        f"{entry['dataset']} has no splits: {HELD_OUT_SHARE:.0%} of it, the same samples in every run, are held out and "
        "measured, the others are trained. --validation_share sets the share, --eval_dataset names other data."
    )
    return HELD_OUT_SHARE


# --- Sources ----------------------------------------------------------------------------------------------------------


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
    """A source from one mapping: where its samples are, and the fields of `Source` and `LoadingOptions`.

    `validation_share` of the samples are left out, and only the first `limit` of the others taken. Whatever else the
    mapping has is for the reader of the dataset.
    """
    entry = dict(entry)
    where: dict[str, Any] = {name: entry.pop(name, None) for name in (*_PLACE, "split", "columns")}
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


# --- Evaluations ------------------------------------------------------------------------------------------------------


EVALUATIONS: dict[str, tuple[Callable[..., Evaluation], tuple[str, ...]]] = {
    "retrieval": (evaluate_retrieval, ("num_beams", "max_new_tokens")),
    "captioning": (evaluate_captioning, ("max_length",)),
    "question_answering": (evaluate_question_answering, ("max_length",)),
}
"""For each task the function that evaluates it, and the shared options that the function does not take."""


def samples_to_measure(entry: Mapping[str, Any]) -> list[Sample]:
    """The samples of an evaluation: of `split`, or the `validation_share` of it that is held out; the first `limit`."""
    where: dict[str, Any] = {name: entry.get(name) for name in (*_PLACE, "split", "columns")}
    samples = load_samples(**where)
    check_texts(samples, entry["task"], entry["dataset"])
    if entry.get("validation_share") is not None:
        samples = hold_out(samples, entry["validation_share"])[1]
    return list(islice(each_sample(samples), entry.get("limit")))


def build_evaluation(
    entry: Mapping[str, Any], processor: ValorProcessor, samples: Sequence[Sample] | None = None
) -> EvaluationFunction:
    """One evaluation from one mapping: `task`, where its samples are, and the arguments of `evaluation.evaluate_...`.

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
    arguments = group_keywords(options, measure)

    def evaluate(model: nn.Module) -> dict[str, float]:
        result = measure(model, processor, samples, **arguments)
        log = FailureLog(max_failures, len(samples), consequence="and are in no metric")
        log.update(len(samples), result.failures)
        if log.failures:
            logger.warning_once(f"{name}: {log.report()}")
        return result.metrics

    return evaluate


def scaled(task: str, evaluation: EvaluationFunction) -> EvaluationFunction:
    """The same with its metrics as the paper prints them: recalls and accuracies in percent, captioning times 100."""
    return lambda model: on_paper_scale(task, evaluation(model))
