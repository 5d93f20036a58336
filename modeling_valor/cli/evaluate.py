# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`valor evaluate`: evaluate a checkpoint on a benchmark or an annotated folder."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from .arguments import positive_count


TASKS = ("retrieval", "captioning", "qa")

EPILOG = """
For a benchmark, the defaults of frames, audio clips, text length, beams and split are the paper's settings. Several processes
(`accelerate launch -m modeling_valor.cli.main evaluate ...`, `torchrun -m ...`) share the work and give the same metrics. An
interrupted evaluation resumes where it stopped, if it is started again with the same arguments.
"""


def main(argv: Sequence[str]) -> int:
    """Runs `valor evaluate` with the arguments `argv` and returns the exit status, 1 if it cannot be evaluated."""
    parser = argparse.ArgumentParser(prog="valor evaluate", description=__doc__, epilog=EPILOG)
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument(
        "--dataset", required=True, help="a benchmark's name, a folder with metadata.jsonl, shards, ..."
    )
    parser.add_argument("--model", required=True, help="folder or Hub name of a converted or trained checkpoint")
    parser.add_argument("--split", help="split of the dataset (default: the one that the paper reports)")
    parser.add_argument("--media", help="folder of a benchmark's videos, images or audio files")
    parser.add_argument("--annotations", help="folder of a benchmark's annotations (default: that of the media)")
    parser.add_argument("--modalities", help="what to use of each sample: av, v or a; av,v,a evaluates each of them")
    parser.add_argument("--num-frames", type=positive_count, help="frames of each video")
    parser.add_argument("--num-audio-clips", type=positive_count, help="audio clips of 5.12 s of each sample")
    parser.add_argument(
        "--groups", help="modality groups of retrieval, such as t-av,t-v (default: those of --modalities)"
    )
    parser.add_argument(
        "--paragraph", action="store_true", default=None, help="join the captions of a sample into one text"
    )
    parser.add_argument("--max-length", type=positive_count, help="longest text of retrieval, or question, in tokens")
    parser.add_argument("--beams", type=positive_count, help="number of beams of captions and answers")
    parser.add_argument("--max-new-tokens", type=positive_count, help="longest caption or answer, in tokens")
    parser.add_argument("--metrics", help="metrics of captioning, such as BLEU-4,CIDEr (default: all)")
    parser.add_argument(
        "--dual-softmax", action="store_true", default=None, help="also evaluate retrieval with dual softmax"
    )
    parser.add_argument("--limit", type=positive_count, help="evaluate only the first N samples")
    parser.add_argument("--batch-size", type=positive_count, default=16, help="samples in a batch (default: 16)")
    parser.add_argument(
        "--workers", type=int, default=0, help="worker processes that decode files (default: 0, in the main process)"
    )
    parser.add_argument("--device", help="such as cuda:1 or cpu (default: a GPU of this process, if available)")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="data type of the weights (default: the checkpoint's)",
    )
    parser.add_argument("--output", default="evaluations", help="folder for results and caches (default: evaluations)")
    parser.add_argument(
        "--no-cache", action="store_true", help="neither read nor write cached features and predictions"
    )
    parser.add_argument("--model-card", help="README.md to whose metadata the metrics are added")
    parser.add_argument(
        "--report",
        help="HTML page to write: table, charts, examples with players; an existing page is replaced",
    )
    parser.add_argument(
        "--max-failures",
        type=float,
        default=0.05,
        help="tolerated share of samples that cannot be read (default: 0.05); above it the results are written and the exit status is 1",
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON, without a progress bar")
    args = parser.parse_args(argv)

    import torch
    from accelerate import PartialState

    from ..data.failures import FailureLog
    from ..evaluation import outputs
    from ..evaluation.report import check_report_path, write_html
    from ..evaluation.resumable import broadcast_from_main
    from ..evaluation.runner import check_model, run
    from ..evaluation.settings import TASKS as TASK_NAMES
    from ..evaluation.settings import recipe_for

    if args.device is not None:
        check_device(args.device)
    recipe = recipe_for(
        TASK_NAMES[args.task],
        args.dataset,
        split=args.split,
        modalities=args.modalities,
        num_frames=args.num_frames,
        num_audio_clips=args.num_audio_clips,
        groups=tuple(args.groups.split(",")) if args.groups else None,
        paragraph=args.paragraph,
        max_length=args.max_length,
        num_beams=args.beams,
        max_new_tokens=args.max_new_tokens,
        metrics=tuple(args.metrics.split(",")) if args.metrics else None,
        dual_softmax=args.dual_softmax,
        limit=args.limit,
    )
    output = Path(args.output)
    log = FailureLog(args.max_failures)

    def check() -> None:
        """Finds, before the work, errors that would only show after it."""
        check_model(args.model)
        outputs.check_writable(output)
        if args.report:
            check_report_path(Path(args.report))
        if args.model_card:
            outputs.check_model_card(Path(args.model_card))

    state = PartialState(cpu=args.device == "cpu" or not torch.cuda.is_available())
    try:
        broadcast_from_main(check)
        report = run(
            recipe,
            args.model,
            media=args.media,
            annotations=args.annotations,
            device=args.device or state.device,
            dtype=getattr(torch, args.dtype) if args.dtype else None,
            batch_size=args.batch_size,
            num_workers=args.workers,
            cache=None if args.no_cache else output / "cache",
            progress=not args.json,
        )
    finally:
        state.destroy_process_group()
    if not state.is_main_process:
        return 0
    # Printed first, so that the results are not lost if they cannot be written
    print(json.dumps(report.to_dict()) if args.json else outputs.markdown(report), flush=True)
    files = outputs.save(report, outputs.results_folder(report, output))
    if args.report:
        write_html(report, Path(args.report))
        files.append(Path(args.report))
    if args.model_card:
        outputs.update_model_card(Path(args.model_card), report)
        files.append(Path(args.model_card))
    if not args.json:
        print("Written: " + ", ".join(map(str, files)))
    log.total = len(report.samples)
    log.update(log.total, report.evaluation.failures)
    return 0


def check_device(name: str) -> None:
    """Checks that a device of this name exists.

    Raises:
        ValueError: there is no such device.
    """
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        found = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise ValueError(f"There is no device {name!r} here; there are {', '.join(found)}.") from error
