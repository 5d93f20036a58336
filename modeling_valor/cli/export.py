# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`valor export`: a checkpoint's towers, its score and its decoder as programs that run without this package."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from .arguments import Json, check_model, load, new_app


app = new_app()


@app.command()
def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Folder or Hub name of a converted or trained checkpoint.")
    ],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Folder to write to, new or empty.")],
    format: Annotated[
        Literal["torch", "onnx"], typer.Option(help="torch.export (.pt2), or ONNX (needs the extra `onnx`).")
    ] = "torch",
    captions: Annotated[
        bool, typer.Option("--captions", help="Also the decoder: the logits of the next word of a caption.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Write a checkpoint's towers and its score as programs of torch.export or ONNX, which run without this package.

    A program for texts, one for frames and one for audio clips give token embeddings and the logits of their weights; one for
    each modality group takes those of both sides and gives scores. All run in float32, at any batch size and number of frames
    or clips. Each is compared with the model before anything is written. programs.json says what each takes and gives.
    """
    from .. import ValorForCaptioning, ValorModel
    from ..integrations.export import choose_exporter, export_programs

    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"OUTPUT {output} exists and is not an empty folder; name a new one.")
    choose_exporter(format)  # what is missing is said before the weights are read
    model_class: type[ValorModel] | type[ValorForCaptioning] = ValorForCaptioning if captions else ValorModel
    loaded, processor = load(model_class, check_model(model, "MODEL"), "cpu", "float32")
    exported = export_programs(loaded, processor, format)
    exported.save(output)
    if as_json:
        print(json.dumps({"output": str(output), "differences": exported.differences, **exported.description}))
        return 0
    for name, program in exported.description["programs"].items():
        difference = exported.differences[name]
        print(f"{output / program['file']}: differs from the model by {difference:.1e} at most")
    return 0
