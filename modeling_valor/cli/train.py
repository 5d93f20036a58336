# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`valor train`: pretrain VALOR, or fine-tune it for retrieval, captioning or question answering."""

import argparse
import logging
import textwrap
from collections.abc import Sequence
from pathlib import Path

from ..recipes import recipe_names


TASK_OF_COMMAND = {
    "retrieval": "retrieval",
    "captioning": "captioning",
    "qa": "question_answering",
    "pretraining": None,
}
"""Name of a task on the command line -> its name in `training.run.run_training`."""

EXAMPLES = """
examples:
  valor train retrieval --model_name_or_path valor-base --dataset my_videos --do_train --do_eval --output_dir out
  valor train captioning valor32k_captioning --model_name_or_path valor-large --media videos --annotations valor32k
  torchrun --nproc_per_node 8 -m modeling_valor.cli.main train retrieval msrvtt_retrieval ...

RECIPE is a YAML file of arguments, which the command line overrides, or the name of one of these:
"""


def main(argv: Sequence[str]) -> int:
    """Runs `valor train` with the arguments `argv` and returns the exit status."""
    names = textwrap.fill(", ".join(recipe_names()), 100, initial_indent="  ", subsequent_indent="  ")
    parser = argparse.ArgumentParser(
        prog="valor train",
        usage="valor train {" + ",".join(TASK_OF_COMMAND) + "} [RECIPE] [--ARGUMENT VALUE ...]",
        description=f"{__doc__} `valor train TASK --help` lists the arguments of a task.",
        epilog=EXAMPLES + names,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "task", choices=TASK_OF_COMMAND, help="`pretraining` also trains one model for several tasks at once"
    )
    task = parser.parse_args(argv[:1]).task

    from ..training.arguments import SelfCriticalArguments
    from ..training.run import parse_arguments, run_training
    from .arguments import check_model, model_type_of

    more = [SelfCriticalArguments] if task == "captioning" else []
    model_args, data_args, training_args, *critical = parse_arguments(argv[1:], *more, program=f"valor train {task}")
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
