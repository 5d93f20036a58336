# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`valor search`: find videos, audio files or images by a text, best match first."""

import argparse
import json
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
    """Runs `valor search` with the arguments `argv` and returns the exit status, 1 if any file cannot be read."""
    parser = argparse.ArgumentParser(prog="valor search", description=__doc__)
    parser.add_argument("text", type=written_text, help="text to search for")
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="video, audio or image files, folders of these, or URLs; a folder of images only is one video",
    )
    add_model_arguments(parser)
    add_media_arguments(parser, argv)
    parser.add_argument("--top", type=positive_count, help="number of files to print (default: all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object per file")
    args = parser.parse_args(argv)

    import torch
    from tqdm import tqdm

    from .. import ValorForRetrieval
    from ..configuration_valor import GROUP_OF_LETTERS
    from ..data.samples import Sample
    from ..evaluation.loader import MediaOptions, media_batches

    files, num_empty = list_samples(parser.prog, args.files)
    if not files:
        return 1
    model, processor = load(ValorForRetrieval, args)
    samples = [Sample(id=file, video=file, audio=file) for file in files]
    rows = range(len(samples))
    batches = [rows[start : start + args.batch_size] for start in rows[:: args.batch_size]]
    options = MediaOptions(args.modalities, args.num_frames, args.num_audio_clips, args.workers)

    scores: dict[str, float] = {}
    query = model.embed_texts(processor(text=args.text, return_tensors="pt").to(model.device))
    with tqdm(total=len(samples), unit="file", disable=None) as progress:
        for batch in media_batches(samples, processor, batches, options):
            for failure in batch.failures.values():
                progress.write(f"valor search: {failure.reason.removeprefix(failure.id + ': ')}", file=sys.stderr)
            if batch.indices:
                inputs = {
                    name: value.to(model.device, model.dtype if value.is_floating_point() else None)
                    for name, value in batch.inputs.items()
                }
                with torch.no_grad():
                    media = model.embed_media(inputs)
                    row = model.compute_similarity(**query, **media, group=GROUP_OF_LETTERS[args.modalities])[0]
                scores.update(zip((files[index] for index in batch.indices), row.tolist(), strict=True))
            progress.update(len(batch.indices) + len(batch.failures))
    for file, score in sorted(scores.items(), key=lambda pair: -pair[1])[: args.top]:
        print(json.dumps({"file": file, "score": score}) if args.json else f"{score:.3f}  {on_one_line(file)}")
    return int(num_empty > 0 or len(scores) < len(samples))
