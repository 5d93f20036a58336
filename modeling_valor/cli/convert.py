# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`valor convert`: a released 2023 checkpoint to a folder for `from_pretrained`."""

import json
import sys
from typing import Annotated

import typer

from .arguments import Json, WeightsDtype, new_app


app = new_app()


@app.command()
def convert(
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="model_step_N.pt, a .safetensors file with the same keys, the folder of the training run, or a zip of it as it "
            "was downloaded."
        ),
    ],
    output: Annotated[str, typer.Option(help="Folder to write to.")],
    hps: Annotated[
        str | None,
        typer.Option(
            help="hps.json of the checkpoint.",
            show_default="../log/hps.json, relative to the checkpoint, or log/hps.json",
        ),
    ] = None,
    vocab: Annotated[
        str | None, typer.Option(help="Vocabulary file of BERT; without it no tokenizer is written.")
    ] = None,
    member: Annotated[
        str | None,
        typer.Option(help="Checkpoint in a zip, with or without its folders.", show_default="the latest step"),
    ] = None,
    dtype: WeightsDtype = None,
    max_shard_size: Annotated[str, typer.Option(help="Larger models are written in shards.")] = "5GB",
    as_json: Json = False,
) -> int:
    """Turn a released 2023 checkpoint into a folder for `from_pretrained`.

    The exit status is 1 if the checkpoint cannot be converted.
    """
    import torch

    from ..convert_valor_checkpoint import ConversionError
    from ..convert_valor_checkpoint import convert as convert_checkpoint

    try:
        summary = convert_checkpoint(
            checkpoint,
            hps,
            vocab,
            output,
            dtype=getattr(torch, dtype) if dtype else None,
            max_shard_size=max_shard_size,
            member=member,
        )
    except ConversionError as error:
        print(f"valor convert: {error}", file=sys.stderr)
        return 1
    print(json.dumps(summary.to_dict(), indent=2) if as_json else summary)
    return 0
