# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`valor convert`: a released 2023 checkpoint to a folder for `from_pretrained`."""

import argparse
import json
import sys
from collections.abc import Sequence


DTYPES = ("float32", "bfloat16", "float16")


def main(argv: Sequence[str]) -> int:
    """Runs `valor convert` with the arguments `argv` and returns the exit status, 1 if the checkpoint cannot be converted."""
    parser = argparse.ArgumentParser(prog="valor convert", description=__doc__)
    parser.add_argument(
        "checkpoint", help="model_step_N.pt, a .safetensors file with the same keys, or the folder of the training run"
    )
    parser.add_argument(
        "--hps", help="hps.json of the checkpoint (default: ../log/hps.json, relative to the checkpoint)"
    )
    parser.add_argument("--vocab", help="vocabulary file of BERT; without it no tokenizer is written")
    parser.add_argument("--output", required=True, help="folder to write to")
    parser.add_argument("--dtype", choices=DTYPES, help="data type of the weights (default: the checkpoint's)")
    parser.add_argument("--max-shard-size", default="5GB", help="larger models are written in shards (default: 5GB)")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    args = parser.parse_args(argv)

    import torch

    from ..convert_valor_checkpoint import ConversionError, convert

    try:
        summary = convert(
            args.checkpoint,
            args.hps,
            args.vocab,
            args.output,
            dtype=getattr(torch, args.dtype) if args.dtype else None,
            max_shard_size=args.max_shard_size,
        )
    except ConversionError as error:
        print(f"valor convert: {error}", file=sys.stderr)
        return 1
    print(json.dumps(summary.to_dict(), indent=2) if args.json else summary)
    return 0
