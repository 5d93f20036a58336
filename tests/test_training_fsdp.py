# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Training with the model divided over two processes (FSDP2), which are this file as a program, against training with a replica on each."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from helpers.sharded import shard_on_cpu, sharded_environment
from helpers.training_world import small_samples, write_checkpoint
from helpers.warm import torchrun_warm
from modeling_valor.data.loading import LoadingOptions
from modeling_valor.data.mixture import Mixture, Source
from modeling_valor.evaluation import evaluate_captioning, evaluate_retrieval
from modeling_valor.training import ValorForMultitask, ValorTrainer, ValorTrainingArguments
from modeling_valor.training.run import ModelArguments, build_model


STEPS = 2


def train(start: str, folder: str, **kwargs) -> None:
    """A step of retrieval and one of captioning, each of them saved.

    Then three samples are measured, two on one process and one on the other.
    """
    torch.manual_seed(0)
    model, processor = build_model(ModelArguments(config_name=start), task=None)
    samples = small_samples(8)
    sources = [Source(task, samples, LoadingOptions(task), batch_size=2) for task in ("retrieval", "captioning")]
    options = {"save_steps": 1, "eval_strategy": "steps", "eval_steps": STEPS, "logging_steps": 1, "use_cpu": True}
    evaluations = {
        "retrieval": lambda model: evaluate_retrieval(model, processor, samples[:3]).metrics,
        "captioning": lambda model: (
            evaluate_captioning(
                model, processor, samples[:3], generate_kwargs={"max_new_tokens": 4}, metrics=["CIDEr"]
            ).metrics
        ),
    }
    trainer = ValorTrainer(
        model,
        ValorTrainingArguments(output_dir=folder, max_steps=STEPS, **options),
        Mixture(sources, processor, model.config),
        evaluations,
        processing_class=processor,
    )
    trainer.train(**kwargs)
    trainer.save_model()
    trainer.save_state()
    AcceleratorState._reset_state(True)


def main(start: str, folder: str) -> None:
    torch.distributed.init_process_group("gloo")
    os.environ["ACCELERATE_USE_FSDP"] = "false"
    train(start, f"{folder}/replicas")
    os.environ["ACCELERATE_USE_FSDP"] = "true"
    shard_on_cpu()
    train(start, f"{folder}/divided")
    train(start, f"{folder}/resumed", resume_from_checkpoint=f"{folder}/divided/checkpoint-1")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where two processes have written everything."""
    folder = tmp_path_factory.mktemp("fsdp")
    start = write_checkpoint(tmp_path_factory.mktemp("checkpoint"))
    environment = {**os.environ, **sharded_environment()}
    result = torchrun_warm("--standalone", "--nproc_per_node", "2", __file__, start, folder, env=environment)
    assert result.returncode == 0, result.stderr[-6000:]
    return folder


def history(folder: Path) -> dict[str, list[float]]:
    """All that was logged, without times."""
    logged = {}
    for entry in json.loads((folder / "trainer_state.json").read_text())["log_history"]:
        for name, value in entry.items():
            if "runtime" not in name and "per_second" not in name:
                logged.setdefault(name, []).append(value)
    return logged


def same_weights(one: Path, other: Path, tolerance: float) -> None:
    expected = load_file(other / "model.safetensors")
    for name, tensor in load_file(one / "model.safetensors").items():
        torch.testing.assert_close(tensor, expected.pop(name), atol=tolerance, rtol=0, msg=name)
    assert not expected


def test_a_divided_model_trains_and_measures_as_replicas_do(folder):
    expected = history(folder / "replicas")
    assert len(expected["loss"]) == STEPS and {"loss/retrieval", "loss/captioning"} <= expected.keys()
    assert {"eval_retrieval_t-av/R@1", "eval_captioning_CIDEr"} <= expected.keys()
    assert history(folder / "divided") == {name: pytest.approx(values, abs=1e-4) for name, values in expected.items()}
    same_weights(folder / "divided", folder / "replicas", 1e-5)


def test_a_divided_model_is_resumed(folder):
    assert history(folder / "resumed")["loss"] == pytest.approx(history(folder / "divided")["loss"], abs=1e-6)
    same_weights(folder / "resumed", folder / "divided", 1e-6)


def test_the_checkpoint_is_one_of_any_other_training(folder):
    model, info = ValorForMultitask.from_pretrained(folder / "divided", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert model.config.architectures == ["ValorForMultitask"]


if __name__ == "__main__":
    main(*sys.argv[1:])
