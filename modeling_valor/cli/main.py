# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`valor COMMAND ...`: hands over to the module of that name in this folder, and imports no other."""

import argparse
import importlib
import sys
from collections.abc import Sequence


COMMANDS = {
    "caption": "describe video and sound files, or answer a question about them",
    "convert": "turn a released 2023 checkpoint into a folder for from_pretrained",
    "extract": "decode the frames and the sound of a dataset once, for training that reads them often",
    "evaluate": "measure a checkpoint on a benchmark or an annotated folder",
    "search": "find videos, sounds or images by a text",
    "statistics": "how long captions are and how much they say about sound, beside the paper's Table 1",
    "world": "write a small world of rendered, labelled audio-visual clips",
}
"""Commands and their line of help. The module `modeling_valor.cli.COMMAND` has `main(argv) -> int`, its exit status."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `valor` with the arguments `argv` (default: the process's) and gives the exit status."""
    parser = argparse.ArgumentParser(prog="valor", description="VALOR: vision, audio and language in one model.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, line in COMMANDS.items():
        commands.add_parser(name, help=line, add_help=False)
    argv = sys.argv[1:] if argv is None else list(argv)
    command = parser.parse_args(argv[:1]).command
    return importlib.import_module(f"modeling_valor.cli.{command}").main(argv[1:])


if __name__ == "__main__":
    sys.exit(main())
