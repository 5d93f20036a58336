# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Arguments that several commands share: the checkpoint, the device, and how much of a file is used."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from .. import ValorPreTrainedModel, ValorProcessor


DTYPES = ("auto", "float32", "bfloat16", "float16")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `--model`, and the options of device, data type and batch size."""
    parser.add_argument("--model", required=True, help="folder or Hub name of a converted or trained checkpoint")
    parser.add_argument("--device", help="such as cuda:1 or cpu (default: a GPU, if available)")
    parser.add_argument(
        "--dtype", choices=DTYPES, default="auto", help="data type of the weights (default: the checkpoint's)"
    )
    parser.add_argument("--batch-size", type=positive_count, default=8, help="files in a batch (default: 8)")
    parser.add_argument(
        "--workers", type=int, default=0, help="worker processes that decode files (default: 0, in the main process)"
    )


def add_media_arguments(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """Adds what is used of each file. With `--help`, the defaults of the checkpoint that `argv` names are shown."""
    frames, audio_clips = "the checkpoint's", "the checkpoint's"
    if {"-h", "--help"} & set(argv) and (settings := _processor_settings(argv)):
        frames = f"{settings['video_processor']['num_frames']}, this checkpoint's"
        audio_clips = f"{settings['feature_extractor']['num_audio_clips']}, this checkpoint's"
    media = parser.add_argument_group(
        "how much of a file is used",
        "A file of any length is represented by a few evenly spaced frames and a few audio clips. "
        "What lies between them is not used: give more for a long file. `--model CHECKPOINT --help` shows a checkpoint's numbers.",
    )
    media.add_argument(
        "--modalities", choices=("av", "v", "a"), default="av", help="video and audio (av), or one of them (v, a)"
    )
    media.add_argument("--num-frames", type=positive_count, help=f"frames of each video (default: {frames})")
    media.add_argument(
        "--num-audio-clips", type=positive_count, help=f"audio clips of 5.12 s of each file (default: {audio_clips})"
    )


def list_samples(program: str, files: Sequence[str]) -> tuple[list[str], int]:
    """The samples that files, URLs and folders stand for (`list_media`), and how many of these hold none.

    Messages on standard error say how many media files a folder holds, and which folders are taken for one video.
    """
    from ..media import MediaError, list_media

    samples, num_empty = [], 0
    for file in files:
        try:
            found = list_media(file)
        except MediaError as error:
            print(f"{program}: {error}", file=sys.stderr)
            num_empty += 1
            continue
        if found != [file]:
            print(
                f"{program}: {file} holds {len(found)} media files; files of other kinds are left out.",
                file=sys.stderr,
            )
        samples += found
    frame_folders = [sample for sample in samples if os.path.isdir(os.path.expanduser(sample))]
    if frame_folders:
        first, more = frame_folders[0], len(frame_folders) - 1
        print(
            f"{program}: {first}{f' (and {more} more)' if more else ''} holds images only, which are taken for the frames of "
            f"one video; to take each by itself, name the files: {first}/*",
            file=sys.stderr,
        )
    return samples, num_empty


def load(
    model_class: type["ValorPreTrainedModel"], args: argparse.Namespace
) -> tuple["ValorPreTrainedModel", "ValorProcessor"]:
    """The model and the processor that `--model`, `--device` and `--dtype` name.

    Raises:
        ValueError: there is no such checkpoint, or it is damaged, or there is no such device.
    """
    from safetensors import SafetensorError
    from transformers.utils import logging

    from .. import ValorProcessor

    logging.disable_progress_bar()
    device = choose_device(args.device)
    try:
        model = model_class.from_pretrained(check_model(args.model), dtype=args.dtype)
    except SafetensorError as error:
        raise ValueError(f"--model {args.model}: its weights are damaged ({error}).") from error
    return model.to(device).eval(), ValorProcessor.from_pretrained(args.model)


def check_model(name: str, option: str = "--model", needs_weights: bool = True) -> str:
    """Checks that a folder or Hub name, given as `option`, is a VALOR checkpoint, and returns it.

    Args:
        needs_weights: refuse a folder with a configuration only.

    Raises:
        ValueError: there is none; one sentence says why.
    """
    if os.path.isdir(name):
        if not os.path.isfile(os.path.join(name, "config.json")):
            raise ValueError(f"{option} {name}: this folder has no config.json, so it is no checkpoint.")
    elif os.path.exists(name) or name.count("/") != 1 or name.startswith((".", "~", "/")):
        raise ValueError(f"{option} {name}: there is no such folder.")
    model_type = model_type_of(name, option)
    if model_type != "valor":
        raise ValueError(f"{option} {name}: this is a {model_type!r} checkpoint; a VALOR checkpoint is needed.")
    if (
        needs_weights
        and os.path.isdir(name)
        and not any(path.suffix in (".safetensors", ".bin") for path in Path(name).iterdir())
    ):
        raise ValueError(f"{option} {name}: this folder has a configuration only, without weights.")
    return name


def model_type_of(name: str, option: str) -> str:
    """What kind of model a checkpoint, given as `option`, is of.

    Raises:
        ValueError: there is no such checkpoint.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(name).model_type
    except (OSError, ValueError) as error:
        if os.path.isdir(name):
            raise ValueError(f"{option} {name}: {' '.join(str(error).split())}") from error
        raise ValueError(
            f"{option} {name}: there is no such folder, and the Hub gives no checkpoint of this name (wrong name, no "
            "access, or no connection)."
        ) from error


def choose_device(name: str | None) -> str:
    """The device of this name, or the best one available.

    Raises:
        ValueError: this machine has no such device.
    """
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if name is None:
        return "cpu" if accelerator is None else accelerator.type
    available = ["cpu"]
    if accelerator is not None:
        available += [accelerator.type, *(f"{accelerator.type}:{i}" for i in range(torch.accelerator.device_count()))]
    if name not in available:
        raise ValueError(f"--device {name}: this machine has no such device. Available: {', '.join(available)}.")
    return name


def positive_count(text: str) -> int:
    """The whole number of at least 1 that an argument is."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number


def written_text(text: str) -> str:
    """An argument that has words in it: a model would answer nothing as if something had been asked."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the text is empty")
    return text


def on_one_line(name: str) -> str:
    """A file's name on one line: line breaks, and bytes that are no text in UTF-8, as escapes."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name)


def _processor_settings(argv: Sequence[str]) -> dict | None:
    """Content of `processor_config.json` of the checkpoint that `--model` names, where it is on this machine."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--model")
    model = parser.parse_known_args(list(argv))[0].model
    if model is None:
        return None
    from transformers.utils import cached_file

    try:
        path = cached_file(model, "processor_config.json", local_files_only=True)
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
