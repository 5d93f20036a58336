# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The console command `valor`: finds the module of a command in `modeling_valor.cli` and runs it.

It lies outside the package, because importing the package imports torch: `valor --help` must not wait for that.
"""

import importlib
import importlib.metadata
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command


COMMANDS = {
    "caption": "describe video and audio files, or answer a question about them",
    "convert": "turn a released 2023 checkpoint into a folder for from_pretrained",
    "demo": "serve a page to describe videos and sounds, ask about them, and search an index",
    "embed": "write token embeddings of media to a file, for a search engine of your own",
    "export": "write programs of torch.export or ONNX, to deploy a checkpoint without this package",
    "extract": "decode the frames and the audio of a dataset once, so that training reads them faster",
    "evaluate": "measure a checkpoint on a benchmark or an annotated folder",
    "index": "make an index of media to search, and keep it up to date",
    "info": "show versions, devices, decoding backends and extras, for reports of faults",
    "push": "publish the folder of a checkpoint on the Hub, with its code and a model card",
    "search": "find moments in an index of media by a text, or files without an index",
    "serve": "answer requests about videos and sounds over HTTP, as OpenAI's API has them",
    "statistics": "measure how long captions are and how often they name sounds (Table 1 of the paper)",
    "train": "pretrain VALOR, or fine-tune it for retrieval, captioning or question answering",
    "world": "render a small data set of labelled videos with sound",
}
"""Commands and their line of help. The module `modeling_valor.cli.COMMAND` has `app`, whose commands return an exit status."""

INTERRUPTED, READER_GONE = 130, 141
"""Exit status after Ctrl-C, and if the reader of the output has closed it: 128 and the signal's number, as in shells."""


class _Commands(TyperGroup):
    """The commands, whose modules are imported when they are run: the list of commands must not wait for torch."""

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        self.commands = {name: TyperCommand(name, help=line) for name, line in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        return name, get_command(importlib.import_module(f"modeling_valor.cli.{name}").app), rest


app = typer.Typer(
    cls=_Commands,
    add_completion=False,  # each press of Tab would import torch
    rich_markup_mode="markdown",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="`valor COMMAND --help` explains a command. With --debug an error is shown with its traceback.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"valor {importlib.metadata.version('modeling-valor')}")
        raise typer.Exit()


@app.callback()
def valor(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """VALOR: vision, audio and language in one model."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `valor` with the arguments `argv` (default: the process's) and returns the exit status."""
    is_process = argv is None
    argv, debug = pop_debug(sys.argv[1:] if argv is None else argv)
    program = f"valor {argv[0]}" if argv and argv[0] in COMMANDS else "valor"
    if is_process and not debug:
        warnings.showwarning = _print_once(program)
    if is_process and program != "valor train":  # which shows more, on the main process only
        _name_in_messages(program)
    return run_guarded(program, lambda: _run_command(argv), debug)


def pop_debug(argv: Sequence[str]) -> tuple[list[str], bool]:
    """The arguments without a bare `--debug`, and whether it was given; `--debug VALUE` is an option of Trainer's."""
    kept, debug = [], False
    for index, argument in enumerate(argv):
        value = argv[index + 1] if index + 1 < len(argv) else ""
        if argument == "--debug" and value not in ("underflow_overflow", "tpu_metrics_debug"):
            debug = True
        else:
            kept.append(argument)
    return kept, debug


def run_guarded(program: str, run: Callable[[], int | None], debug: bool = False) -> int:
    """Runs a program and returns its exit status; an error ends it with one line instead of a traceback.

    Args:
        program: its name, which begins the line.
        run: the program; `None` counts as 0, and a `SystemExit` passes.
        debug: print the traceback too.

    Returns:
        1 after an error, 2 after arguments that the program does not take, 130 after Ctrl-C, 141 if the reader of the output has closed it.
    """
    try:
        return run() or 0
    except BrokenPipeError:
        # Python would complain again when it flushes the output at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    except typer.TyperException as error:
        message = _one_line(error.format_message()).replace(": Value error, ", ": ").rstrip(".")
        if message:  # none after help, which is printed
            print(f"{program}: {message} (`{program} --help` explains the arguments).", file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, Exception) as error:
        if debug:
            traceback.print_exc()
        interrupted = isinstance(error, KeyboardInterrupt)
        print(f"{program}: {'interrupted.' if interrupted else describe_error(error)}", file=sys.stderr)
        return INTERRUPTED if interrupted else 1


def describe_error(error: BaseException) -> str:
    """One line about an error: its message alone where that is written for users, else its type, too."""
    message = _one_line(_without_traceback(error))
    ours = type(error).__module__.partition(".")[0] == "modeling_valor"
    if message and (ours or isinstance(error, (ValueError, OSError, ImportError, EOFError))):
        return message
    return f"{type(error).__name__}: {message} (--debug shows where it comes from)."


def _without_traceback(error: BaseException) -> str:
    """The message of an error; of one in a worker of a data loader, which brings its traceback along, what stood there."""
    message = str(error)
    if "in DataLoader worker process" not in message:
        return message
    return re.split(rf"^(?:[\w.]+\.)?{type(error).__name__}: ", message, flags=re.MULTILINE)[-1]


def _print_once(program: str) -> Callable[..., None]:
    """A `warnings.showwarning` that prints each message once, because the frames and the audio of a file give the same one."""
    printed = set()

    def show(message: object, *_: object) -> None:
        line = f"{program}: {_one_line(message)}"
        if line not in printed:
            printed.add(line)
            print(line, file=sys.stderr)

    return show


def _name_in_messages(program: str) -> None:
    """Lets what the package logs begin with the program's name."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"{program}: %(message)s"))
    logging.getLogger("modeling_valor").addHandler(handler)


def _one_line(message: object) -> str:
    return " ".join(str(message).split())


def _run_command(argv: list[str]) -> int | None:
    """Runs a command without Typer's own handling of errors, and returns its exit status."""
    commands = get_command(app)
    try:
        with commands.make_context("valor", argv) as context:
            status: int | None = commands.invoke(context)
            return status
    except typer.Exit as stop:  # after --help or --version
        return stop.exit_code


if __name__ == "__main__":
    sys.exit(main())
