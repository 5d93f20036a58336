# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`valor search`: the videos, sounds or images that a text describes, best first."""

import argparse
import json
import sys
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Runs `valor search` with the arguments `argv` and gives the exit status, 1 if any file could not be read."""
    parser = argparse.ArgumentParser(prog="valor search", description=__doc__)
    parser.add_argument("text", help="what to look for")
    parser.add_argument("files", nargs="+", metavar="FILE", help="video, sound or image files, or their URLs")
    parser.add_argument("--model", required=True, help="folder or Hub name of a converted or trained checkpoint")
    parser.add_argument("--modalities", choices=("av", "v", "a"), default="av", help="what to compare of each file")
    parser.add_argument("--num-frames", type=int, help="frames of each video (default: the checkpoint's)")
    parser.add_argument("--num-audio-clips", type=int, help="5.12 s clips of each sound (default: the checkpoint's)")
    parser.add_argument("--batch-size", type=int, default=8, help="files encoded together (default: 8)")
    parser.add_argument("--top", type=int, help="how many to print (default: all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object per file")
    args = parser.parse_args(argv)

    import torch
    from transformers.utils import logging

    from .. import ValorForRetrieval, ValorProcessor
    from ..evaluation.inference import GROUP_OF
    from ..media import MediaError

    logging.disable_progress_bar()
    model, processor = ValorForRetrieval.from_pretrained(args.model).eval(), ValorProcessor.from_pretrained(args.model)
    options = {name: value for name in ("num_frames", "num_audio_clips") if (value := getattr(args, name)) is not None}
    samples, found, failed = [], [], False
    for file in args.files:
        try:
            samples.append(processor(videos=[file], modalities=args.modalities, return_tensors="pt", **options).data)
            found.append(file)
        except (MediaError, ValueError) as error:
            print(f"valor search: {error}", file=sys.stderr)
            failed = True
    if not found:
        return 1

    text = processor(text=args.text, return_tensors="pt")
    scores = []
    with torch.no_grad():
        query = model.embed_texts(text)
        for start in range(0, len(samples), args.batch_size):
            media = model.embed_media(processor.pad(samples[start : start + args.batch_size]))
            scores += model.compute_similarity(**query, **media, group=GROUP_OF[args.modalities])[0].tolist()
    ranked = sorted(zip(found, scores, strict=True), key=lambda pair: -pair[1])[: args.top]
    for file, score in ranked:
        print(json.dumps({"file": file, "score": score}) if args.json else f"{score:.3f}  {file}")
    return int(failed)
