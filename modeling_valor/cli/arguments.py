# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Arguments that several commands share: the checkpoint, the device, and how much of a file is used."""

import errno
import itertools
import json
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, cast

import typer
from typer.core import TyperCommand, TyperOption


if TYPE_CHECKING:
    import torch

    from .. import ValorPreTrainedModel, ValorProcessor

ModelClass = TypeVar("ModelClass", bound="ValorPreTrainedModel")


def has_text(text: str | list[str] | None) -> str | list[str] | None:
    """Refuses a text without words: a model would answer nothing as if something had been asked."""
    if any(not one.strip() for one in ([text] if isinstance(text, str) else text or [])):
        raise typer.BadParameter("the text is empty.")
    return text


_MEDIA_PANEL = "How much of a file is used"

MediaFiles = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE",
        help="Video, audio or image files, folders of these, or URLs; a folder of images only is one video.",
    ),
]
Model = Annotated[str, typer.Option(help="Folder or Hub name of a converted or trained checkpoint.")]
IndexModel = Annotated[
    str | None,
    typer.Option(help="Folder or Hub name of a converted or trained checkpoint.", show_default="the one of the index"),
]
Device = Annotated[str | None, typer.Option(help="Such as cuda:1 or cpu.", show_default="a GPU, if available")]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(help="Data type of the weights; auto is the checkpoint's."),
]
ComputeDtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(
        help="Data type in which the model computes; auto is bfloat16 on a GPU that has it, else the checkpoint's."
    ),
]
WeightsDtype = Annotated[
    Literal["float32", "bfloat16", "float16"] | None,
    typer.Option(help="Data type of the weights.", show_default="the checkpoint's"),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Files in a batch.")]
Workers = Annotated[
    int, typer.Option(min=0, help="Worker processes that decode files; with 0, threads of the main process do.")
]
Processes = Annotated[
    int | None, typer.Option("--workers", min=1, help="Number of processes.", show_default="one for each core")
]
Modalities = Annotated[
    Literal["av", "v", "a"],
    typer.Option(rich_help_panel=_MEDIA_PANEL, help="Video and audio (av), or one of them (v, a)."),
]
NumFrames = Annotated[
    int | None,
    typer.Option(min=1, rich_help_panel=_MEDIA_PANEL, help="Frames of each video.", show_default="the checkpoint's"),
]
NumAudioClips = Annotated[
    int | None,
    typer.Option(
        min=1,
        rich_help_panel=_MEDIA_PANEL,
        help="Audio clips of 5.12 s of each file.",
        show_default="the checkpoint's",
    ),
]
SEGMENTS_PANEL = "Segments of a file"
Stride = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        rich_help_panel=SEGMENTS_PANEL,
        help="From the beginning of one segment to that of the next.",
        show_default="the length of a segment",
    ),
]
Segments = Annotated[
    Literal["fixed", "shots"],
    typer.Option(
        rich_help_panel=SEGMENTS_PANEL, help="Segments of one length, or the shots of a film (PySceneDetect)."
    ),
]
MaxFailures = Annotated[
    float,
    typer.Option(
        help="Tolerated share of samples that cannot be read; with more of them the exit status is 1.",
    ),
]
Annotations = Annotated[str | None, typer.Option(help="Folder of the annotations.", show_default="that of the media")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def new_app(**settings: Any) -> typer.Typer:
    """A Typer app of a command, whose help is Markdown; `settings` are further ones of `typer.Typer`."""
    return typer.Typer(rich_markup_mode="markdown", add_completion=False, **settings)


class CheckpointCommand(TyperCommand):
    """A command whose help shows the numbers of the checkpoint that `--model` names, where it is on this machine."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if set(ctx.help_option_names) & set(args) and (settings := _processor_settings(args)):
            parts = {"num_frames": "video_processor", "num_audio_clips": "feature_extractor"}
            for param in cast(list[TyperOption], self.params):
                number = settings.get(parts.get(param.name or "", ""), {}).get(param.name)
                if number is not None:
                    param.show_default = f"{number}, this checkpoint's"
        return super().parse_args(ctx, args)


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
    model_class: type[ModelClass],
    model: str,
    device: str | None = None,
    dtype: str = "auto",
    program: str | None = None,
) -> tuple[ModelClass, "ValorProcessor"]:
    """The model and the processor that `--model`, `--device` and `--dtype` name.

    Args:
        program: of which "auto" is the data type of `choose_dtype`; None: "auto" is the checkpoint's.

    Raises:
        ValueError: there is no such checkpoint, or it is damaged, or there is no such device.
    """
    from safetensors import SafetensorError
    from transformers.utils import logging

    from .. import ValorProcessor

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    device = choose_device(device)
    check_model(model)
    dtype = dtype if program is None else choose_dtype(program, dtype, device, model)
    try:
        loaded = model_class.from_pretrained(model, dtype=dtype)
    except SafetensorError as error:
        raise ValueError(f"--model {model}: its weights are damaged ({error}).") from error
    return loaded.to(device).eval(), ValorProcessor.from_pretrained(model)


def check_model(name: str, option: str = "--model", needs_weights: bool = True) -> str:
    """Checks that a folder or Hub name, given as `option`, is a VALOR checkpoint, and returns it.

    Args:
        needs_weights: refuse a folder with a configuration only.

    Raises:
        ValueError: there is none; one sentence says why.
    """
    if os.path.isdir(name):
        if not os.path.isfile(os.path.join(name, "config.json")):
            if os.path.isfile(os.path.join(name, "adapter_config.json")):
                raise ValueError(
                    f"{option} {name}: this folder holds an adapter and no model: merge it into its checkpoint, as "
                    "docs/quantisation.md shows."
                )
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

    from ..hub import hub_reason

    try:
        return str(AutoConfig.from_pretrained(name).model_type)
    except (OSError, ValueError) as error:
        if os.path.isdir(name):
            raise ValueError(f"{option} {name}: {' '.join(str(error).split())}") from error
        reason = hub_reason(error, name) or "the Hub gives no checkpoint of this name."
        raise ValueError(f"{option} {name}: there is no such folder, and {reason}") from error


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


def choose_dtype(program: str, dtype: str, device: "str | torch.device", model: str) -> str:
    """What "auto" stands for: "bfloat16" for float32 weights on a GPU that computes in it, which is said, else "auto"."""
    import torch
    from transformers import AutoConfig

    if dtype != "auto" or torch.device(device).type != "cuda":
        return dtype
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        return dtype
    try:
        config = AutoConfig.from_pretrained(model)
    except (OSError, ValueError):  # which is said where it is loaded
        return dtype
    if config.dtype in (torch.bfloat16, torch.float16):
        return dtype
    print(f"{program}: the model computes in bfloat16; --dtype float32 is slower and rounds less.", file=sys.stderr)
    return "bfloat16"


def check_port(host: str, port: int) -> None:
    """Refuses a port that something else listens on, before a model is loaded; 0 is any free one.

    Raises:
        ValueError: the port is taken, or this machine has no such address.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do, for ports just left
            listener.bind(address)
    except OSError as error:
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be listened on ({error.strerror})"
        raise ValueError(f"Port {port} of {host} {reason}: choose another one with --port.") from error


def on_one_line(name: str) -> str:
    """A file's name on one line: line breaks, and bytes that are no text in UTF-8, as escapes."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name)


def _processor_settings(arguments: Sequence[str]) -> dict[str, Any] | None:
    """Content of `processor_config.json` of the checkpoint that `--model` names, where it is on this machine."""
    named = [value for option, value in itertools.pairwise(arguments) if option == "--model"]
    named += [argument.removeprefix("--model=") for argument in arguments if argument.startswith("--model=")]
    if not named:
        return None
    from transformers.utils import cached_file

    try:
        path = cached_file(named[-1], "processor_config.json", local_files_only=True)
        settings: dict[str, Any] | None = None if path is None else json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return settings
