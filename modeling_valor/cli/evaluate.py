# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`valor evaluate`: evaluate a checkpoint on a benchmark or an annotated folder."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from .arguments import (
    Annotations,
    BatchSize,
    ComputeDtype,
    Device,
    Json,
    MaxFailures,
    Model,
    Workers,
    choose_device,
    choose_dtype,
    new_app,
)


app = new_app()


@app.command(
    epilog="Several processes (`accelerate launch -m modeling_valor.cli.main evaluate ...`, `torchrun -m ...`) share the work and "
    "give the same metrics. An interrupted evaluation resumes where it stopped, if it is started again with the same arguments."
)
def evaluate(
    task: Annotated[Literal["retrieval", "captioning", "qa"], typer.Option(help="What is evaluated.")],
    dataset: Annotated[str, typer.Option(help="A benchmark's name, a folder with metadata.jsonl, shards, ...")],
    model: Model,
    split: Annotated[
        str | None, typer.Option(help="Split of the dataset.", show_default="the one that the paper reports")
    ] = None,
    media: Annotated[str | None, typer.Option(help="Folder of a benchmark's videos, images or audio files.")] = None,
    annotations: Annotations = None,
    modalities: Annotated[
        str | None,
        typer.Option(help="What to use of each sample: av, v or a; av,v,a evaluates each of them."),
    ] = None,
    num_frames: Annotated[int | None, typer.Option(min=1, help="Frames of each video.")] = None,
    num_audio_clips: Annotated[int | None, typer.Option(min=1, help="Audio clips of 5.12 s of each sample.")] = None,
    groups: Annotated[
        str | None,
        typer.Option(help="Modality groups of retrieval, such as t-av,t-v.", show_default="those of --modalities"),
    ] = None,
    paragraph: Annotated[
        bool | None, typer.Option("--paragraph", help="Join the captions of a sample into one text.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=1, help="Longest text of retrieval, or question, in tokens.")
    ] = None,
    beams: Annotated[int | None, typer.Option(min=1, help="Number of beams of captions and answers.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest caption or answer, in tokens.")] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Metrics of captioning, such as BLEU-4,CIDEr.", show_default="all")
    ] = None,
    dual_softmax: Annotated[
        bool | None, typer.Option("--dual-softmax", help="Also evaluate retrieval with dual softmax.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Evaluate only the first N samples.")] = None,
    batch_size: BatchSize = 16,
    workers: Workers = 0,
    device: Device = None,
    dtype: ComputeDtype = "auto",
    output: Annotated[str, typer.Option(help="Folder for results and caches.")] = "evaluations",
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Neither read nor write cached features and predictions.")
    ] = False,
    model_card: Annotated[str | None, typer.Option(help="README.md to whose metadata the metrics are added.")] = None,
    report: Annotated[
        str | None,
        typer.Option(help="HTML page to write: table, charts, examples with players; an existing page is replaced."),
    ] = None,
    max_failures: MaxFailures = 0.05,
    as_json: Json = False,
) -> int:
    """Evaluate a checkpoint on a benchmark or an annotated folder.

    For a benchmark, the defaults of frames, audio clips, text length, beams and split are the paper's settings. The
    results are written even where too many samples cannot be read.
    """
    import torch
    from accelerate import PartialState

    from ..data.failures import FailureLog
    from ..evaluation import outputs
    from ..evaluation.report import check_report_path, write_html
    from ..evaluation.resumable import broadcast_from_main
    from ..evaluation.runner import check_model, load_and_evaluate
    from ..evaluation.settings import EVALUATION_TASKS, recipe_for

    if device is not None:
        choose_device(device)
    recipe = recipe_for(
        EVALUATION_TASKS[task],
        dataset,
        split=split,
        modalities=modalities,
        num_frames=num_frames,
        num_audio_clips=num_audio_clips,
        groups=tuple(groups.split(",")) if groups else None,
        paragraph=paragraph,
        max_length=max_length,
        num_beams=beams,
        max_new_tokens=max_new_tokens,
        metrics=tuple(metrics.split(",")) if metrics else None,
        dual_softmax=dual_softmax,
        limit=limit,
    )
    folder = Path(output)
    log = FailureLog(max_failures)

    def check() -> None:
        """Finds, before the work, errors that would only show after it."""
        check_model(model)
        outputs.check_writable(folder)
        if report:
            check_report_path(Path(report))
        if model_card:
            outputs.check_model_card(Path(model_card))

    state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available())
    try:
        broadcast_from_main(check)
        place = device or state.device
        kind: str = broadcast_from_main(lambda: choose_dtype("valor evaluate", dtype, place, model))
        results = load_and_evaluate(
            recipe,
            model,
            media=media,
            annotations=annotations,
            device=place,
            dtype=None if kind == "auto" else getattr(torch, kind),
            batch_size=batch_size,
            num_workers=workers,
            cache=None if no_cache else folder / "cache",
            progress=not as_json,
        )
    finally:
        state.destroy_process_group()
    if not state.is_main_process:
        return 0
    # Printed first, so that the results are not lost if they cannot be written
    print(json.dumps(results.to_dict()) if as_json else outputs.markdown(results), flush=True)
    files = outputs.save(results, outputs.results_folder(results, folder))
    if report:
        write_html(results, Path(report))
        files.append(Path(report))
    if model_card:
        outputs.update_model_card(Path(model_card), results)
        files.append(Path(model_card))
    if not as_json:
        print("Written: " + ", ".join(map(str, files)))
    log.total = len(results.samples)
    log.update(log.total, results.evaluation.failures)
    return 0
