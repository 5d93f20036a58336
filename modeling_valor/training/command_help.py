# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The short help of `valor train TASK`: the arguments that most trainings set, in groups, out of about two hundred."""

import argparse
from collections.abc import Iterator, Mapping
from typing import Any


GROUPS: Mapping[str, Mapping[str, str]] = {
    "Model": {
        "model_name_or_path": "",
        "config_name": "",
        "config_overrides": "",
    },
    "Data": {
        "dataset": "",
        "media": "",
        "annotations": "",
        "train_split": "",
        "modalities": "",
        "num_frames": "",
        "num_audio_clips": "",
        "max_train_samples": "",
        "cache_dir": "",
    },
    "Training": {
        "do_train": "Train.",
        "output_dir": "Folder for checkpoints and the trained model; the same command goes on from the last checkpoint in it.",
        "num_train_epochs": "Times that all samples are seen.",
        "max_steps": "Number of steps, instead of epochs.",
        "per_device_train_batch_size": "Samples of a step on each device.",
        "gradient_accumulation_steps": "Batches of a step; for retrieval they do not see each other.",
        "learning_rate": "Highest learning rate.",
        "vision_learning_rate": "Learning rate of the vision encoder, by default the same.",
        "new_layers_learning_rate": "Learning rate of layers that are new, by default the same.",
        "warmup_steps": "Steps (or, below 1, share of all steps) in which the learning rate grows from 0.",
        "seed": "Of everything that is drawn at random.",
    },
    "Self-critical training": {
        "self_critical": "",
        "num_sampled_captions": "",
    },
    "Evaluation": {
        "do_eval": "Evaluate: after the training, or without one.",
        "eval_dataset": "",
        "eval_split": "",
        "validation_share": "",
        "eval_strategy": "When to evaluate during the training.",
        "eval_steps": "Steps from one evaluation to the next, with `--eval_strategy steps`.",
        "max_eval_samples": "",
        "num_beams": "",
    },
    "Memory and speed": {
        "bf16": "Compute in bfloat16, with weights in float32.",
        "gradient_checkpointing": "Compute activations again in the backward pass, to save memory.",
        "contrastive_chunk_size": "Samples whose activations are kept at once, so that a batch of any size fits.",
        "dataloader_num_workers": "Processes that read samples, for each device.",
        "preprocess_on_device": "",
        "compile_layers": "",
        "use_cpu": "Train on the CPU.",
    },
    "Checkpoints and logs": {
        "save_steps": "Steps from one checkpoint to the next.",
        "save_total_limit": "Newest checkpoints to keep.",
        "logging_steps": "Steps from one line of the log to the next.",
        "report_to": "Where metrics are logged, such as tensorboard or wandb.",
        "push_to_hub": "Upload the model to the Hub.",
    },
}
"""Headings, names of arguments, and what they do; "": the first sentence of the argument's own help."""

ALL = "`--help-all` lists all arguments, those of `TrainingArguments` of transformers included."


class ShortHelp(argparse.Action):
    """Prints the short help and ends the program; `--help-all` is argparse's own action "help"."""

    def __call__(self, parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> None:
        print(short_help(parser), end="")
        parser.exit()


def short_help(parser: argparse.ArgumentParser) -> str:
    """The usage, and [`GROUPS`] with their defaults, which a recipe may have set."""
    actions = {action.dest: action for action in parser._actions}
    formatter = _Formatter(parser.prog, max_help_position=34)
    formatter.add_usage(parser.usage, [], [])
    for heading, texts in GROUPS.items():
        formatter.start_section(heading)
        formatter.add_arguments(list(_described(actions, texts)))
        formatter.end_section()
    formatter.add_text(ALL)
    return formatter.format_help()


def _described(actions: Mapping[str, argparse.Action], texts: Mapping[str, str]) -> Iterator[argparse.Action]:
    """Copies of the actions of a group that the parser has, with their short texts."""
    for name, text in texts.items():
        if name not in actions:
            continue
        action = actions[name]
        text = text or _first_sentence(action.help or "")
        is_set = action.default not in (None, False, [], "none") and not (name == "max_steps" and action.default < 0)
        default = f" [default: {action.default}]".replace("%", "%%") if is_set else ""
        yield argparse.Action([f"--{name}"], name, metavar=_metavar(action), help=text + default, nargs=action.nargs)


def _metavar(action: argparse.Action) -> str | None:
    """What stands for the value: the choices, or the kind of number; "" for a switch."""
    if action.choices is not None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    if isinstance(action.default, bool) or action.nargs == "?":
        return ""
    return {int: "N", float: "X"}.get(getattr(action, "type", None), "TEXT")  # type: ignore[arg-type]


def _first_sentence(text: str) -> str:
    """Up to the first full stop that ends a sentence."""
    sentence, stop, _ = text.partition(". ")
    return sentence + (stop and ".")


class _Formatter(argparse.HelpFormatter):
    """`--name VALUE`, without the second spelling of each name, and without brackets around the values of switches."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        return f"{action.option_strings[0]} {action.metavar}".rstrip()
