# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""One training run (`valor train`): from arguments and recipes to the model, the data and the Trainer.

A recipe is a YAML file of the same arguments as the command line's, which overrides it:

    valor train retrieval msrvtt_retrieval --model_name_or_path valor-large --learning_rate 2e-5
"""

import difflib
import sys
from argparse import SUPPRESS
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, cast

import yaml
from transformers import HfArgumentParser, set_seed
from transformers.utils import logging

from ..data.mixture import Mixture, Source
from ..data.samples import Sample
from ..hub import hub_errors, push_files
from ..modeling_valor_decoder import ValorDecoderModel
from ..processing_valor import ValorProcessor
from ..publishing import add_code, read_folder
from ..recipes import find_recipe
from .arguments import DataArguments, ModelArguments, ValorTrainingArguments
from .command_help import ShortHelp
from .data import EVALUATIONS, build_evaluation, build_source, read_data, scaled
from .initialization import build_model, initialize_model
from .model_card import MeasuredTask, model_card, public_name
from .multitask import HEADS
from .overview import describe_training, describe_weights
from .resume import last_checkpoint
from .self_critical import SelfCriticalTrainer
from .trainer import EvaluationFunction, ValorTrainer


logger = logging.get_logger(__name__)


def parse_arguments(
    argv: Sequence[str] | None = None, *more: type[Any], program: str | None = None
) -> tuple[ModelArguments, DataArguments, ValorTrainingArguments, Any]:
    """Parses the arguments of a training: an optional recipe, then `--name value`, which overrides it.

    Args:
        argv: the arguments; default: those of the process.
        more: further dataclasses of arguments.
        program: name of the program, for messages.

    Raises:
        ValueError: there is no such recipe or argument, or a value is not accepted.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    classes: tuple[Any, ...] = (ModelArguments, DataArguments, ValorTrainingArguments, *more)
    # The default usage would list two hundred arguments before the first that is explained
    parser = _ArgumentParser(classes, prog=program, usage="%(prog)s [RECIPE] [--ARGUMENT VALUE ...]")
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
    parsed: tuple[Any, ...] = parser.parse_args_into_dataclasses(argv, return_remaining_strings=True)
    if rest := parsed[-1]:
        unknown = [argument for argument in rest if argument.startswith("-")] or rest
        raise ValueError(f"no argument is called {', '.join(unknown)}{_similar(unknown, names)}.")
    return parsed[:-1]


class _ArgumentParser(HfArgumentParser):
    """Parser whose errors are one line, without the usage, and whose help is short; `--help-all` is argparse's own."""

    def __init__(self, classes: Sequence[type[Any]], **kwargs: Any) -> None:
        super().__init__(cast(Any, classes), add_help=False, **kwargs)
        unlisted: dict[str, Any] = {"dest": SUPPRESS, "default": SUPPRESS}
        self.add_argument("-h", "--help", action=ShortHelp, nargs=0, help="Show the most used arguments.", **unlisted)
        self.add_argument("--help-all", "--help_all", action="help", help="Show all arguments.", **unlisted)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _similar(unknown: Sequence[str], names: Sequence[str]) -> str:
    """Similar names, as the end of an error message."""
    plain = [name.lstrip("-").partition("=")[0].replace("-", "_") for name in unknown]
    likely = [match for name in plain for match in difflib.get_close_matches(name, names, n=1)]
    return f" (similar: {', '.join(likely)})" if likely else ""


def run_training(
    model_args: ModelArguments,
    data_args: DataArguments,
    args: ValorTrainingArguments,
    task: str | None,
    num_sampled_captions: int | None = None,
) -> dict[str, float]:
    """Trains (`do_train`) and evaluates (`do_eval`) as the arguments say; returns the last metrics.

    Training resumes from `resume_from_checkpoint`, or else from the last checkpoint in `output_dir`.

    Args:
        task: the task that is trained; None: the tasks of the sources, on one set of weights.
        num_sampled_captions: number of captions sampled for each video, to train on their CIDEr ([`SelfCriticalTrainer`]).
    """
    if not args.do_train and not args.do_eval:
        raise ValueError("nothing to do: give --do_train, --do_eval or both.")
    set_seed(args.seed)
    sources, measured = read_data(data_args, args, task)
    model, processor, new = initialize_model(model_args, task)
    check_groups(model, sources)
    evaluations = {
        name: scaled(entry["task"], build_evaluation(entry, processor, samples))
        for name, (entry, samples) in measured.items()
    }
    sampling = None
    if num_sampled_captions:
        sampling = {"num_samples": num_sampled_captions, "max_new_tokens": data_args.max_new_tokens}
    with hub_errors(args.hub_model_id or args.output_dir):  # with `push_to_hub`, the repository is created here
        trainer = build_trainer(model, processor, args, sources, evaluations, sampling)
    overview = {}
    if args.do_train:
        sizes = {name: len(samples) for name, (_, samples) in measured.items()}
        overview = describe_training(trainer, sources, sizes, describe_weights(model_args, model, new))
        if trainer.is_world_process_zero():
            logger.info("\n".join(f"{heading}: {text}." for heading, text in overview.items()))
        model_class = HEADS[task or "pretraining"].__name__
        build_card = partial(
            model_card,
            public_repo(trainer),
            model_class,
            overview,
            base_model=model_args.model_name_or_path,
            config=model.config,
        )
        trainer.model_card = build_card(measured={})  # for uploads during the training
        train(trainer)
    metrics = {}
    if args.do_eval:
        metrics = trainer.evaluate()
        trainer.log_metrics("eval", metrics)
        trainer.save_metrics("eval", metrics)
    if args.do_train:
        tasks = {name: measured_task(name, entry, samples, metrics) for name, (entry, samples) in measured.items()}
        publish(trainer, build_card(measured=tasks))
    return metrics


def check_groups(model: ValorDecoderModel, sources: Sequence[Source]) -> None:
    """Raises a `ValueError` if the model cannot train the modality groups of a source."""
    for source in sources:
        model.config.check_groups(source.alignment_groups or [], "alignment_groups")
        model.config.check_groups(source.captioning_groups or [], "captioning_groups")


def public_repo(trainer: ValorTrainer) -> str:
    """What users of the trained checkpoint give to `from_pretrained`: its name on the Hub, or that of its folder."""
    folder = Path(trainer.args.output_dir).resolve().name
    return (
        (trainer.hub_model_id or folder) if trainer.args.push_to_hub else folder
    )  # the main process alone knows both


def publish(trainer: ValorTrainer, card: str) -> None:
    """Writes the model card of a training, and uploads its folder with its code if `push_to_hub` is set."""
    trainer.model_card = card
    trainer.create_model_card()
    if trainer.args.push_to_hub:
        with hub_errors(public_repo(trainer)):
            trainer.push_to_hub()
        if trainer.is_world_process_zero():
            push_code(trainer)


def push_code(trainer: ValorTrainer) -> None:
    """Uploads the code of the trained checkpoint, which `Trainer.push_to_hub` leaves out."""
    contents = read_folder(str(trainer.args.output_dir))
    if "config.json" not in contents.files:  # adapters of PEFT, which are loaded into another checkpoint
        return
    code = add_code(contents)
    files = {path: content for path, content in contents.files.items() if path in code or isinstance(content, bytes)}
    args = trainer.args
    push_files(
        trainer.hub_model_id, files, commit_message="Add code", token=args.hub_token, revision=args.hub_revision
    )


def build_trainer(
    model: ValorDecoderModel,
    processor: ValorProcessor,
    args: ValorTrainingArguments,
    sources: Sequence[Source],
    evaluations: dict[str, EvaluationFunction],
    sampling: Mapping[str, int] | None = None,
) -> ValorTrainer:
    """Builds the Trainer, with a mixture of the sources if `do_train` is set.

    Args:
        sampling: options of [`SelfCriticalTrainer`], which then trains on CIDEr; None: masked captioning.
    """
    trainer_class: type[ValorTrainer] = ValorTrainer
    options: dict[str, Any] = {}
    if args.do_train and sampling:
        for source in sources:
            source.options = replace(source.options, references=True)
            source.captioning_groups = first_group(source)
        trainer_class, options = SelfCriticalTrainer, dict(sampling)
    seed = args.seed if args.data_seed is None else args.data_seed
    mixture = None
    if args.do_train:
        mixture = Mixture(sources, processor, model.config, seed, preprocess_on_device=args.preprocess_on_device)
    return trainer_class(
        model, args, train_dataset=mixture, evaluations=evaluations, processing_class=processor, **options
    )


def train(trainer: ValorTrainer) -> None:
    """Trains from the given checkpoint, or the last one in `output_dir`, and saves the model and its metrics."""
    args = trainer.args
    checkpoint = args.resume_from_checkpoint
    if checkpoint is None and trainer.load_finished():
        return
    if checkpoint is None:
        checkpoint = last_checkpoint(args.output_dir)
    if checkpoint is None and trainer.is_world_process_zero():
        logger.info(f"Training starts at step 0, because there is no checkpoint in {args.output_dir}.")
    with closing_progress_bar(trainer):
        result = trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    if result.metrics:
        trainer.log_metrics("train", result.metrics)
        trainer.save_metrics("train", result.metrics)
    trainer.save_state()


@contextmanager
def closing_progress_bar(trainer: ValorTrainer) -> Iterator[None]:
    """Closes the progress bar if an error ends the training, so that the message starts on a new line."""
    try:
        yield
    except BaseException:
        for callback in trainer.callback_handler.callbacks:
            if (bar := getattr(callback, "training_bar", None)) is not None:
                bar.close()
        raise


def measured_task(
    name: str, entry: Mapping[str, Any], samples: Sequence[Sample], metrics: Mapping[str, float]
) -> MeasuredTask:
    """Builds the model card's entry of an evaluation; `metrics` are those of the Trainer."""
    prefix = f"eval_{name}_"
    own = {key.removeprefix(prefix): value for key, value in metrics.items() if key.startswith(prefix)}
    split, share = entry["split"], entry.get("validation_share")
    split = split if share is None else f"{share:.0%} of {split}, held out"
    return MeasuredTask(entry["task"], public_name(entry["dataset"]), split, len(samples), own)


def first_group(source: Source) -> list[str] | None:
    """The first captioning group of a source, the only one that self-critical training uses."""
    groups = source.captioning_groups
    if groups is None or len(groups) < 2:
        return None if groups is None else list(groups)
    logger.warning(f"Self-critical training takes one group: {groups[0]} of {', '.join(groups)} of {source.name!r}.")
    return list(groups[:1])


__all__ = [
    "EVALUATIONS",
    "ModelArguments",
    "build_evaluation",
    "build_model",
    "build_source",
    "parse_arguments",
    "run_training",
]
