# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`valor caption`: describe video and audio files, or answer a question about them."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence

from .arguments import (
    add_media_arguments,
    add_model_arguments,
    list_samples,
    load,
    on_one_line,
    positive_count,
    written_text,
)


def main(argv: Sequence[str]) -> int:
    """Runs `valor caption` with the arguments `argv` and returns the exit status, 1 if any file cannot be described."""
    parser = argparse.ArgumentParser(prog="valor caption", description=__doc__)
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="video, audio or image files, folders of these, or URLs; a folder of images only is one video",
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--question",
        type=written_text,
        action="append",
        help="answer this question instead of describing the file; may be repeated",
    )
    add_media_arguments(parser, argv)
    parser.add_argument("--num-beams", type=positive_count, help="number of beams (default: the checkpoint's)")
    parser.add_argument(
        "--max-new-tokens", type=positive_count, help="longest text, in tokens (default: the checkpoint's)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per file (and question)")
    args = parser.parse_args(argv)

    from tqdm import tqdm
    from transformers.pipelines.pt_utils import KeyDataset

    from .. import (
        AudiovisualCaptioningPipeline,
        AudiovisualQuestionAnsweringPipeline,
        ValorForCaptioning,
        ValorForQuestionAnswering,
    )

    logging.getLogger("modeling_valor.pipelines").setLevel(logging.ERROR)  # what is skipped is printed below
    pipeline_class, model_class = AudiovisualCaptioningPipeline, ValorForCaptioning
    if args.question is not None:
        pipeline_class, model_class = AudiovisualQuestionAnsweringPipeline, ValorForQuestionAnswering
    files, num_empty = list_samples(parser.prog, args.files)
    if not files:
        return 1
    model, processor = load(model_class, args)
    describe = pipeline_class(model=model, processor=processor, device=model.device)
    names = ("modalities", "num_frames", "num_audio_clips", "num_beams", "max_new_tokens")
    options = {name: value for name in names if (value := getattr(args, name)) is not None}

    samples = [{"video": file, "question": args.question} if args.question else {"video": file} for file in files]
    results = describe(
        KeyDataset([{"sample": sample} for sample in samples], "sample"),
        batch_size=args.batch_size,
        num_workers=args.workers,
        on_error="skip",
        **options,
    )
    failed = num_empty > 0
    progress = tqdm(zip(files, results, strict=True), total=len(files), unit="file", disable=None)
    for file, texts in progress:
        texts = texts if args.question else [texts]
        if error := texts[0][0].get("error"):
            progress.write(f"valor caption: {error}", file=sys.stderr)
            failed = True
            continue
        if coverage := texts[0][0].get("coverage"):
            used = [
                f"{coverage[name]} {noun}{'' if coverage[name] == 1 else 's'}"
                for name, noun in (("frames", "frame"), ("audio_clips", "audio clip"))
                if name in coverage
            ]
            progress.write(
                f"valor caption: of the {coverage['duration']:.0f} seconds of {on_one_line(file)} only {' and '.join(used)} were used "
                "(--num-frames, --num-audio-clips).",
                file=sys.stderr,
            )
        for question, (result, *_) in zip(args.question or [None], texts, strict=True):
            text = result.pop(pipeline_class.text_key)
            if args.json:
                asked = {} if question is None else {"question": question}
                line = json.dumps({"file": file, **asked, "text": text, **result})
            else:
                line = f"{on_one_line(file)}: {text}" if len(texts) == 1 else f"{on_one_line(file)}: {question} {text}"
            progress.write(line)
    return int(failed)
