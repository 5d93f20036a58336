# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`python -m modeling_valor.cli.main COMMAND ...`, for launchers that start modules; the same as `valor COMMAND ...`."""

import sys

from valor_cli import COMMANDS, main


__all__ = ["COMMANDS", "main"]

if __name__ == "__main__":
    sys.exit(main())
