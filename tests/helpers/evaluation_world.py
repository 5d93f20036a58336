# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""A few rendered samples, for tests of evaluation; run as a program, one process of a distributed evaluation."""

import dataclasses
import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from modeling_valor import ValorForPreTraining, ValorProcessor
from modeling_valor.data.samples import Question, Sample
from modeling_valor.evaluation import (
    MediaOptions,
    evaluate_captioning,
    evaluate_question_answering,
    evaluate_retrieval,
)


OPTIONS = {"media": MediaOptions("av", 2, 1), "batch_size": 2}


def read_world(folder: Path) -> list[Sample]:
    """The samples of a `valor world` folder; the first has two captions, the others one."""
    samples = []
    for index, line in enumerate((folder / "metadata.jsonl").read_text().splitlines()):
        row = json.loads(line)
        questions = tuple(Question(qa["question"], (qa["answer"],), qa["about"]) for qa in row["qa"])
        file = str(folder / row["file_name"])
        captions = tuple(row["captions"][: 2 if index == 0 else 1])
        samples.append(Sample(row["file_name"], file, file, captions, questions[: 1 + index % 3]))
    return samples


def evaluate_all(checkpoint: str, samples: list[Sample]) -> dict[str, float]:
    """Metrics and predictions of all three tasks."""
    model, processor = ValorForPreTraining.from_pretrained(checkpoint), ValorProcessor.from_pretrained(checkpoint)
    texts = {"generate_kwargs": {"max_new_tokens": 5}, **OPTIONS}
    results = {
        "retrieval": evaluate_retrieval(model, processor, samples, ["t-av", "t-v", "t-a", "v-a"], **OPTIONS),
        "captioning": evaluate_captioning(model, processor, samples, metrics=["BLEU-1", "CIDEr"], **texts),
        "qa": evaluate_question_answering(model, processor, samples, **texts),
    }
    return {
        task: {
            "metrics": result.metrics,
            "counts": result.counts,
            "failures": [dataclasses.asdict(failure) for failure in result.failures],
            "predictions": result.predictions,
        }
        for task, result in results.items()
    }


def main(rank: int, processes: int, rendezvous: str, checkpoint: str, folder: str, output: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=processes)
    results = evaluate_all(checkpoint, read_world(Path(folder)))
    Path(output, f"{rank}.json").write_text(json.dumps(results))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
