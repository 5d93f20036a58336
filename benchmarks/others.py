# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Captions and embeddings per second beside GIT, X-CLIP and PE-AV of transformers, on the same random frames.

    python benchmarks/others.py [--batch 4] [--frames 8] [--tokens 30] [--beams 3] [--device cuda --dtype bfloat16]

All models have random weights and the shapes that their authors chose: VALOR-L (frames of 224 pixels with CLIP ViT-L/14; audio
clips of 5.12 s), GIT-L and X-CLIP-L/14 (the same ViT-L/14 at 224 pixels), PE-AV with the default configuration of transformers (which
needs `timm`). Captions have exactly `--tokens` words. GIT and X-CLIP do not hear; the ratios are those of VALOR without sound
to them. Reading files is left out: `throughput.py` and `loading.py` measure it.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from pretraining import CONFIGS, seconds
from transformers import (
    GitConfig,
    GitForCausalLM,
    PeAudioVideoConfig,
    PeAudioVideoModel,
    PreTrainedModel,
    XCLIPConfig,
    XCLIPModel,
)
from transformers.utils import is_timm_available, logging

from modeling_valor import ValorConfig, ValorForCaptioning


VIT_L = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
}
TEXT_L = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
SIZE = 224


def git(frames: int) -> GitForCausalLM:
    config = GitConfig(vision_config=VIT_L, num_image_with_embedding=frames, num_hidden_layers=6, **TEXT_L)
    return GitForCausalLM(config)


def x_clip(frames: int) -> XCLIPModel:
    vision = {
        **VIT_L,
        "num_frames": frames,
        "mit_hidden_size": 768,
        "mit_intermediate_size": 3072,
        "mit_num_attention_heads": 12,
    }
    return XCLIPModel(XCLIPConfig(text_config=TEXT_L, vision_config=vision, projection_dim=768))


def measure(function: Callable[[], Any], repeats: int, device: str) -> float:
    """Seconds of the fastest of `repeats` calls after a first one."""
    function()
    return seconds(function, device, repeats)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=30)
    parser.add_argument("--beams", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.set_verbosity_error()
    place = {"device": args.device, "dtype": getattr(torch, args.dtype)}
    where = f"{args.threads} threads" if args.device == "cpu" else torch.cuda.get_device_name()
    print(f"{args.batch} clips of {args.frames} frames of {SIZE} pixels, {where}, {args.dtype}")

    frames = torch.randn(args.batch, args.frames, 3, SIZE, SIZE, **place)
    spectrograms = torch.randn(args.batch, 1, 64, 512, **place)
    baselines: dict[str, float] = {}

    def report(what: str, name: str, function: Callable[[], Any]) -> None:
        rate = args.batch / measure(function, args.repeats, args.device)
        baseline = baselines.setdefault(what, rate)
        print(
            f"  {what:<10} {name:<34} {rate:8.2f} clips/s  {baseline / rate:5.2f}x of it is VALOR without sound",
            flush=True,
        )

    def build(make: Callable[[], PreTrainedModel]) -> PreTrainedModel:
        torch.manual_seed(0)
        return make().to(**place).eval()

    valor = build(lambda: ValorForCaptioning(ValorConfig.from_pretrained(CONFIGS / "valor-large")))
    words = {"max_new_tokens": args.tokens, "min_new_tokens": args.tokens, "num_beams": args.beams}
    fast = {"cache_implementation": "static"} if args.device != "cpu" else {}
    seen, heard = {"pixel_values_videos": frames}, {"input_features": spectrograms}
    report("captions", "VALOR-L", lambda: valor.generate(**seen, **words, **fast))
    report("captions", "VALOR-L with sound", lambda: valor.generate(**seen, **heard, **words, **fast))
    report("embeddings", "VALOR-L", lambda: valor.valor.embed_media(seen))
    report("embeddings", "VALOR-L with sound", lambda: valor.valor.embed_media(seen | heard))

    model = build(lambda: git(args.frames))
    start = torch.full((args.batch, 1), 101, device=args.device)
    report("captions", "GIT-L", lambda: model.generate(input_ids=start, pixel_values=frames, **words))
    model = build(lambda: x_clip(args.frames))
    report("embeddings", "X-CLIP-L/14", lambda: model.get_video_features(pixel_values=frames))
    if is_timm_available():
        model = build(lambda: PeAudioVideoModel(PeAudioVideoConfig()))
        report("embeddings", "PE-AV, frames only", lambda: model.get_video_embeds(pixel_values_videos=frames))
    else:
        print("  PE-AV is left out: it needs `pip install timm`.")


if __name__ == "__main__":
    main()
