# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""LoRA adapters against the training of all weights: what is trained and saved, time of a step, and what is learned.

A checkpoint learns a caption that it has never written, "the sound of a bell", from rendered clips, with the same steps and batches for
each variant. What counts is the share of unseen clips whose caption is right to the word. CPU time is the median of the steps.

    OMP_NUM_THREADS=1 python benchmarks/adapters.py [--model hub_configs/valor-tiny] [--steps 60] [--clips 100]
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import TrainerCallback, set_seed

from modeling_valor import ValorForCaptioning, ValorProcessor
from modeling_valor.data.loading import LoadingOptions
from modeling_valor.data.mixture import Mixture, Source
from modeling_valor.data.readers import load_samples
from modeling_valor.data.samples import Sample
from modeling_valor.evaluation import evaluate_captioning
from modeling_valor.training import ValorTrainer, ValorTrainingArguments
from modeling_valor.world import write_world


ATTENTION = ["q_proj", "v_proj", "qkv"]
EVERYWHERE = ["q_proj", "k_proj", "v_proj", "qkv", "out_proj", "fc1", "fc2"]
VARIANTS: dict[str, tuple[float, list[str] | None, int]] = {
    "all weights": (3e-4, None, 0),
    "LoRA, attention, r=8": (1e-2, ATTENTION, 8),
    "LoRA, all layers, r=8": (5e-3, EVERYWHERE, 8),
    "LoRA, all layers, r=32": (5e-3, EVERYWHERE, 32),
}
"""Name -> learning rate, layers with adapters, and their rank."""


class StepTimes(TrainerCallback):
    """CPU times of the steps."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.start = time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.times.append(time.process_time() - self.start)


def write_clips(folder: Path, split: str, count: int, seed: int) -> list[Sample]:
    """Rendered clips in which one sound is heard; their only caption names it."""
    write_world(folder, split, count, seed=seed)
    metadata = folder / "metadata.jsonl"
    rows = []
    for row in map(json.loads, metadata.read_text(encoding="utf-8").splitlines()):
        sounds = [item["answer"] for item in row["qa"] if item["question"] == "what is heard?"]
        rows += [{"file_name": row["file_name"], "captions": [f"the sound of a {sound}"]} for sound in sounds]
    metadata.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return list(load_samples(folder, split))


def build(checkpoint: str, name: str) -> nn.Module:
    """The model, with its adapters."""
    _, layers, rank = VARIANTS[name]
    set_seed(0)
    model = ValorForCaptioning.from_pretrained(checkpoint)
    if layers is None:
        return model
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=layers))


def train(model: nn.Module, mixture: Mixture, learning_rate: float, steps: int, folder: Path) -> float:
    """Trains the model; the median CPU time of a step."""
    arguments = ValorTrainingArguments(
        str(folder), max_steps=steps, learning_rate=learning_rate, lr_scheduler_type="cosine", warmup_steps=steps // 10,
        use_cpu=True, save_strategy="no", report_to="none", disable_tqdm=True,
    )  # fmt: skip
    times = StepTimes()
    ValorTrainer(model, arguments, mixture, callbacks=[times]).train()
    return statistics.median(times.times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="hub_configs/valor-tiny")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--clips", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    processor = ValorProcessor.from_pretrained(arguments.model)
    print("| | trained | saved MB | step | right captions |\n| --- | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as name_of_folder:
        folder = Path(name_of_folder)
        samples = write_clips(folder / "train", "train", arguments.clips, seed=7)
        unseen = write_clips(folder / "test", "test", arguments.clips, seed=5001)
        full_step = None
        for number, (name, (learning_rate, _, _)) in enumerate(VARIANTS.items()):
            model = build(arguments.model, name)
            trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
            options = LoadingOptions("captioning")
            source = Source("clips", samples, options, batch_size=8, captioning_groups=["t-av"])
            mixture = Mixture([source], processor, model.config)
            step = train(model, mixture, learning_rate, arguments.steps, folder / f"run-{number}")
            full_step = full_step or step
            model.save_pretrained(folder / f"saved-{number}")
            size = sum(file.stat().st_size for file in (folder / f"saved-{number}").glob("*.safetensors"))
            merged = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
            captions = evaluate_captioning(merged.eval(), processor, unseen, metrics=["BLEU-1"]).predictions
            right = sum(caption["prediction"] == caption["references"][0] for caption in captions)
            print(
                f"| {name} | {trained:,} | {size / 1e6:.2f} | {step / full_step:.2f} | {right} of {len(unseen)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
