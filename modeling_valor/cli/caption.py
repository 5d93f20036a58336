# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`valor caption`: describe video and sound files, or answer a question about them."""

import argparse
import json
import sys
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Runs `valor caption` with the arguments `argv` and gives the exit status, 1 if any file could not be described."""
    parser = argparse.ArgumentParser(prog="valor caption", description=__doc__)
    parser.add_argument("files", nargs="+", metavar="FILE", help="video, sound or image files, or their URLs")
    parser.add_argument("--model", required=True, help="folder or Hub name of a converted or trained checkpoint")
    parser.add_argument("--question", help="answer this instead of describing")
    parser.add_argument("--modalities", choices=("av", "v", "a"), default="av", help="what to use of each file")
    parser.add_argument("--num-frames", type=int, help="frames of each video (default: the checkpoint's)")
    parser.add_argument("--num-audio-clips", type=int, help="5.12 s clips of each sound (default: the checkpoint's)")
    parser.add_argument("--num-beams", type=int, help="beams of the search (default: the checkpoint's)")
    parser.add_argument("--max-new-tokens", type=int, help="longest text in tokens (default: the checkpoint's)")
    parser.add_argument("--json", action="store_true", help="print one JSON object per file")
    args = parser.parse_args(argv)

    from transformers import pipeline
    from transformers.utils import logging

    from ..media import MediaError

    logging.disable_progress_bar()
    task = "audiovisual-captioning" if args.question is None else "audiovisual-question-answering"
    options = {
        name: value
        for name in ("question", "modalities", "num_frames", "num_audio_clips", "num_beams", "max_new_tokens")
        if (value := getattr(args, name)) is not None
    }
    describe = pipeline(task, model=args.model)
    failed = False
    for file in args.files:
        try:
            result = describe(file, **options)[0]
        except MediaError as error:
            print(f"valor caption: {error}", file=sys.stderr)
            failed = True
            continue
        text = result.pop("generated_text" if args.question is None else "answer")
        print(json.dumps({"file": file, "text": text, **result}) if args.json else f"{file}: {text}")
    return int(failed)
