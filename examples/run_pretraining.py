# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Pretrain VALOR with MGA and MGC (section 4.2), or train one set of weights for several tasks at once: the same as
`valor train pretraining`.

    python examples/run_pretraining.py valor_tiny --output_dir valor-tiny
    torchrun --nproc_per_node 8 examples/run_pretraining.py pretrain_valor_large --output_dir out
"""

import sys

from modeling_valor.cli.main import main


if __name__ == "__main__":
    sys.exit(main(["train", "pretraining", *sys.argv[1:]]))
