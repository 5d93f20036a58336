# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Size, speed and metrics of a checkpoint with smaller weights on the CPU: bfloat16, int8 and int4 against float32.

Each variant is made, saved and loaded again, and the loaded one is measured: the size of its weights in the file and in memory, the
CPU time of captions and embeddings (variants take turns, the best of some rounds counts), and the metrics of `valor
evaluate` on rendered clips that valor-tiny has not seen. Needs `pip install ".[quantisation]"`.

    OMP_NUM_THREADS=1 python benchmarks/quantisation.py [--model hub_configs/valor-tiny] [--clips 100] [--rounds 5]
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig, IntxWeightOnlyConfig
from torchao.quantization.granularity import PerGroup
from transformers import TorchAoConfig

from modeling_valor import ValorForPreTraining, ValorProcessor
from modeling_valor.data.readers import load_samples
from modeling_valor.data.samples import Sample
from modeling_valor.evaluation import evaluate_captioning, evaluate_question_answering, evaluate_retrieval
from modeling_valor.modeling_valor_heads import ValorForCaptioning, as_head
from modeling_valor.world import write_world


VARIANTS: dict[str, tuple[torch.dtype, Callable[[], Any] | None]] = {
    "float32": (torch.float32, None),
    "bfloat16": (torch.bfloat16, None),
    "int8 weights": (torch.float32, Int8WeightOnlyConfig),
    "int8 weights and activations": (torch.float32, Int8DynamicActivationInt8WeightConfig),
    "int4 weights, groups of 32": (
        torch.float32,
        lambda: IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32)),
    ),
}
"""Name -> type of what is not quantised, and torchao's configuration."""

SEED = 5001  # of the clips on the card of valor-tiny


def load_variant(checkpoint: str, name: str, folder: Path) -> tuple[ValorForPreTraining, int]:
    """The model after saving and loading, and the size of its weights in the file in bytes."""
    dtype, config = VARIANTS[name]
    options = {} if config is None else {"quantization_config": TorchAoConfig(config())}
    ValorForPreTraining.from_pretrained(checkpoint, dtype=dtype, **options).save_pretrained(folder)
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return ValorForPreTraining.from_pretrained(folder, dtype=dtype).eval(), size


def bytes_in_memory(model: nn.Module) -> int:
    """Bytes of the weights and buffers; those of a quantised weight are its integers and its scales."""

    def parts(tensor: Tensor) -> list[Tensor]:
        if not hasattr(tensor, "__tensor_flatten__"):
            return [tensor]
        return [part for name in tensor.__tensor_flatten__()[0] for part in parts(getattr(tensor, name))]

    tensors = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    return sum(part.numel() * part.element_size() for tensor in tensors.values() for part in parts(tensor.data))


def measure(model: nn.Module, processor: ValorProcessor, samples: list[Sample]) -> dict[str, float]:
    """Recalls, CIDEr and accuracy, as on the model's card."""
    retrieval = evaluate_retrieval(model, processor, samples, groups=["t-av", "t-v", "t-a"]).metrics
    captions = evaluate_captioning(model, processor, samples, metrics=["CIDEr"]).metrics
    answers = evaluate_question_answering(model, processor, samples).metrics
    recalls = {f"R@1 {group}": retrieval[f"{group}/R@1"] for group in ("t-av", "t-v", "t-a")}
    return {**recalls, "CIDEr": 100 * captions["CIDEr"], "answers": answers["accuracy"]}


def seconds(work: Callable[[], object]) -> float:
    """CPU time of this process."""
    start = time.process_time()
    with torch.inference_mode():
        work()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="hub_configs/valor-tiny")
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    processor = ValorProcessor.from_pretrained(arguments.model)
    with tempfile.TemporaryDirectory() as folder:
        write_world(Path(folder, "clips"), "test", arguments.clips, seed=SEED)
        samples = list(load_samples(Path(folder, "clips"), "test"))
        models, sizes = {}, {}
        for number, name in enumerate(VARIANTS):
            models[name], sizes[name] = load_variant(arguments.model, name, Path(folder, str(number)))
        media = processor(videos=[sample.video for sample in samples[:8]], return_tensors="pt")
        captioners = {name: as_head(model, ValorForCaptioning).eval() for name, model in models.items()}
        work = {
            "embed": lambda name: models[name].valor.embed_media(media),
            "caption": lambda name: captioners[name].generate(**media, min_new_tokens=20, max_new_tokens=20),
        }
        times: dict[tuple[str, str], float] = {}
        for _ in range(arguments.rounds):
            for task, run in work.items():
                for name in VARIANTS:
                    spent = seconds(lambda run=run, name=name: run(name))
                    times[task, name] = min(spent, times.get((task, name), spent))
        metrics = {name: measure(model, processor, samples) for name, model in models.items()}

    columns = ["file MB", "memory MB", *(f"{task} time" for task in work), *metrics["float32"]]
    print(f"| {arguments.clips} clips, torch {torch.__version__} |", " | ".join(columns), "|")
    print("| --- |", " | ".join("---:" for _ in columns), "|")
    for name in VARIANTS:
        ratios = [f"{times[task, name] / times[task, 'float32']:.2f}" for task in work]
        values = [f"{value:.1f}" for value in metrics[name].values()]
        row = [f"{sizes[name] / 1e6:.1f}", f"{bytes_in_memory(models[name]) / 1e6:.1f}", *ratios, *values]
        print(f"| {name} |", " | ".join(row), "|", flush=True)


if __name__ == "__main__":
    main()
