# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""
Pretrain VALOR with MGA and MGC (section 4.2), or train one set of weights for several tasks at once.

    python examples/run_pretraining.py examples/recipes/valor_tiny.yaml --output_dir valor-tiny
    torchrun --nproc_per_node 8 examples/run_pretraining.py examples/recipes/pretrain_valor_large.yaml --output_dir out
"""

from modeling_valor.training.recipes import parse_arguments, run


def main() -> None:
    run(*parse_arguments(), task=None)


if __name__ == "__main__":
    main()
