# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`valor train`: pretrain VALOR, or fine-tune it for retrieval, captioning or question answering."""

import logging
from pathlib import Path

import typer

from ..recipes import recipe_names
from .arguments import check_model, model_type_of, new_app


TASK_OF_COMMAND = {
    "retrieval": "retrieval",
    "captioning": "captioning",
    "qa": "question_answering",
    "pretraining": None,
}
"""Name of a task on the command line -> its name in `training.run.run_training`."""

TASKS = {
    "retrieval": "Train retrieval.",
    "captioning": "Train captioning; --self_critical trains on CIDEr.",
    "qa": "Train question answering.",
    "pretraining": "Pretrain (MGA and MGC), or train one model for several tasks at once.",
}
"""Name of a task -> its line of help."""

app = new_app(
    no_args_is_help=True,
    help="Pretrain VALOR, or fine-tune it for retrieval, captioning or question answering.\n\n"
    "`valor train TASK [RECIPE] [--ARGUMENT VALUE ...]` trains; `valor train TASK --help` shows the arguments of a task that most "
    "trainings need, `--help-all` all. RECIPE is a YAML file of arguments, which the command line overrides, or the name of one of these: "
    + ", ".join(recipe_names()),
    epilog="Examples:\n\n"
    "valor train retrieval --model_name_or_path valor-base --dataset my_videos --do_train --do_eval --output_dir out\n\n"
    "valor train captioning valor32k_captioning --model_name_or_path valor-large --media videos --annotations valor32k\n\n"
    "torchrun --nproc_per_node 8 -m modeling_valor.cli.main train retrieval msrvtt_retrieval ...",
)


def train(context: typer.Context) -> int:
    """Runs the training of the task that the command is named after, with arguments that Trainer's parser reads."""
    task = context.info_name or ""

    from ..training.arguments import SelfCriticalArguments
    from ..training.run import parse_arguments, run_training

    more = [SelfCriticalArguments] if task == "captioning" else []
    model_args, data_args, training_args, *critical = parse_arguments(
        context.args, *more, program=f"valor train {task}"
    )
    for option in ("model_name_or_path", "config_name"):
        if (name := getattr(model_args, option)) is not None:
            check_model(name, f"--{option}", needs_weights=option == "model_name_or_path")
    for option in ("text_model", "vision_model", "audio_model"):
        name = getattr(model_args, option)
        if name is not None and not Path(name).is_file():  # a file of Video Swin's authors has no configuration
            model_type_of(name, f"--{option}")
    _log_on_main_process(training_args.process_index == 0)
    num_sampled_captions = next((own.num_sampled_captions for own in critical if own.self_critical), None)
    run_training(model_args, data_args, training_args, TASK_OF_COMMAND[task], num_sampled_captions)
    return 0


def _log_on_main_process(is_main: bool) -> None:
    """Shows the messages of this package on the main process only."""
    logger = logging.getLogger("modeling_valor")
    logger.setLevel(logging.INFO if is_main else logging.ERROR)
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler())


for _task, _line in TASKS.items():
    app.command(
        _task,
        help=_line,
        add_help_option=False,  # `--help`, too, is for Trainer's parser
        context_settings={
            "allow_extra_args": True,
            "allow_interspersed_args": False,
            "ignore_unknown_options": True,
        },
    )(train)
