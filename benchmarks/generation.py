# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Decoding time with each cache, at the shape of VALOR-large: 8 frames of 257 tokens and a clip of 129.

Encoders are left out, since they run once in every variant. The baseline is the 2023 decoder's way: each step runs the
whole sequence and projects the keys and values of all conditions again, for every beam, with attention as explicit
matrix products ("eager"; PyTorch had no fused one). `use_cache=False` also runs the whole sequence at each step, but
with conditions once for each sample; "dynamic" is what `generate` does, and "static" its
`cache_implementation="static"`. Weights are random and no sequence may end early, so that all variants decode the same number of
words; their captions are compared.

    python benchmarks/generation.py [--tokens 30] [--beams 3] [--batch 1] [--frames 8] [--threads N]
                                    [--device cuda --dtype bfloat16] [--profile]

`--profile` also prints where the time of the static cache goes. With `--leaving`, captions of a batch have 0.4 to 1 times `--tokens`
words, and time with finished samples leaving is compared with that of all rows up to the last word (CPU time on a CPU):

    python benchmarks/generation.py --leaving --batch 16 --tokens 20 [--frames 2] [--beams 3]
"""

import argparse
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from pretraining import print_profile
from transformers.utils import logging

from modeling_valor import ValorConfig, ValorForCaptioning
from modeling_valor.generation_rows import LeavingCache
from modeling_valor.modeling_valor_text import ValorConditions


FRAMES, FRAME_TOKENS, CLIP_TOKENS = 8, 257, 129


def build_model() -> ValorForCaptioning:
    """VALOR-large's decoder with random weights, and encoders of minimal size, which this benchmark never calls."""
    torch.manual_seed(0)
    config = ValorConfig(
        vision_config={"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1},
        audio_config={"num_hidden_layers": 1},
        caption_prompt_ids=[101, 6235, 1996, 2678, 2007, 3019, 2653, 102],
    )
    return ValorForCaptioning(config).eval()


@torch.no_grad()
def decode_as_2023(model: ValorForCaptioning, conditions: ValorConditions, tokens: int, beams: int) -> torch.Tensor:
    """Beam search (greedy for one beam) that keeps nothing from step to step, with conditions repeated for each beam."""
    model.set_attn_implementation({"text_config": "eager"})
    text_config = model.config.text_config
    repeated = ValorConditions(**{name: value.repeat_interleave(beams, dim=0) for name, value in conditions.items()})
    samples, device = len(conditions.video), conditions.device
    words = torch.full((samples * beams, 1), text_config.bos_token_id, device=device)
    first_rows = torch.arange(samples, device=device)[:, None] * beams
    scores = torch.full((samples, beams), -torch.inf, device=device)
    scores[:, 0] = 0
    for _ in range(tokens):
        queries = torch.nn.functional.pad(words, (0, 1), value=text_config.mask_token_id)
        logits = model(
            input_ids=queries, conditions=repeated, captioning_groups=["t-av"], use_cache=False, logits_to_keep=1
        ).logits
        log_probs = logits[:, -1].float().log_softmax(dim=-1)
        log_probs[:, text_config.eos_token_id] = -torch.inf
        vocab_size = log_probs.shape[1]
        scores, chosen = (scores[:, :, None] + log_probs.view(samples, beams, -1)).flatten(1).topk(beams)
        rows = (first_rows + chosen // vocab_size).flatten()
        words = torch.cat([words[rows], (chosen % vocab_size).view(-1, 1)], dim=1)
    model.set_attn_implementation({"text_config": "sdpa"})
    return words[::beams]


def seconds(
    function: Callable[[], torch.Tensor], clock: Callable[[], float] = time.perf_counter
) -> tuple[float, torch.Tensor]:
    start = clock()
    result = function().cpu()
    return clock() - start, result


def compare_leaving(model: ValorForCaptioning, conditions: ValorConditions, args: Any, where: str) -> None:
    """Prints the time of a batch whose captions have 0.4 to 1 times `--tokens` words with all rows and without finished ones."""
    least, most = round(0.4 * args.tokens), args.tokens
    lengths = torch.linspace(least, most, args.batch).round().long()[torch.randperm(args.batch)].to(conditions.device)
    clock = time.process_time if args.device == "cpu" else time.perf_counter
    for beams in sorted({1, args.beams}):
        row_lengths = lengths.repeat_interleave(beams)
        options: dict[str, Any] = {"num_beams": beams, "max_new_tokens": most, "min_new_tokens": most}
        options["stopping_criteria"] = [lambda ids, _, ends=row_lengths: ids.shape[1] > ends]

        def decode(options: dict[str, Any] = options) -> torch.Tensor:
            return model.generate(conditions=conditions, **options)

        def decode_all_rows() -> torch.Tensor:
            with patch.object(LeavingCache, "leave", lambda self, conditions: None):
                return decode()

        def decode_one_word(options: dict[str, Any] = options) -> torch.Tensor:
            return decode({**options, "max_new_tokens": 1, "min_new_tokens": 1})

        runs: dict[str, list[tuple[float, torch.Tensor]]] = {"one": [], "all": [], "fewer": []}
        decode_one_word()  # warm-up
        for _ in range(args.repeats):
            for name, function in (("one", decode_one_word), ("all", decode_all_rows), ("fewer", decode)):
                runs[name].append(seconds(function, clock))
        (one, _), (baseline, expected), (duration, words) = (
            min(times, key=lambda run: run[0]) for times in runs.values()
        )
        print(
            f"{'greedy' if beams == 1 else f'beam {beams}'}, {least} to {most} words (mean {lengths.float().mean():.1f}), {args.batch} x "
            f"({args.frames} frames + 1 clip), {where}, {args.dtype}, the same words in "
            f"{(words == expected).all(dim=1).sum().item()} of {args.batch}\n"
            f"  {'':23} {'whole':>9} {'ratio':>6} {'after the first word':>21} {'ratio':>6}"
        )
        for variant, spent in (("all rows (baseline)", baseline), ("finished samples leave", duration)):
            print(
                f"  {variant:23} {spent * 1e3:6.0f} ms {spent / baseline:6.2f} {(spent - one) * 1e3:18.0f} ms "
                f"{(spent - one) / (baseline - one):6.2f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=30)
    parser.add_argument("--beams", type=int, default=3)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--leaving", action="store_true", help="compare with and without finished samples")
    parser.add_argument("--repeats", type=int, default=1, help="the fastest counts")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.set_verbosity_error()
    place = {"device": args.device, "dtype": getattr(torch, args.dtype)}
    model = build_model().to(**place)
    hidden_size = model.config.text_config.hidden_size
    conditions = ValorConditions(
        video=torch.randn(args.batch, args.frames * FRAME_TOKENS, hidden_size, **place),
        audio=torch.randn(args.batch, CLIP_TOKENS, hidden_size, **place),
    )
    where = f"{args.threads} threads" if args.device == "cpu" else torch.cuda.get_device_name()
    if args.leaving:
        compare_leaving(model, conditions, args, where)
        return

    for beams in sorted({1, args.beams}):
        options = {"conditions": conditions, "num_beams": beams, "min_new_tokens": args.tokens}
        options["max_new_tokens"] = args.tokens
        variants = {
            "2023 (baseline)": lambda beams=beams: decode_as_2023(model, conditions, args.tokens, beams),
            "use_cache=False": lambda options=options: model.generate(use_cache=False, **options),
            "dynamic": lambda options=options: model.generate(**options),
            "static": lambda options=options: model.generate(cache_implementation="static", **options),
        }
        model.generate(**options)  # warm-up
        model.generate(**options, cache_implementation="static")
        name = "greedy" if beams == 1 else f"beam {beams}"
        print(f"{name}, {args.tokens} tokens, {args.batch} x ({args.frames} frames + 1 clip), {where}, {args.dtype}")
        baseline, expected = None, None
        for variant, decode in variants.items():
            duration, words = min((seconds(decode) for _ in range(args.repeats)), key=lambda result: result[0])
            baseline, expected = baseline or duration, words if expected is None else expected
            same = (words == expected).all(dim=1).sum().item()
            print(
                f"  {variant:<16} {duration * 1e3:9.0f} ms  {baseline / duration:5.1f}x faster than 2023, the same words in "
                f"{same} of {args.batch}",
                flush=True,
            )
        if args.profile:
            print_profile(variants["static"], args.device)


if __name__ == "__main__":
    main()
