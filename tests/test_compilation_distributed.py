# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Compiled layers on two processes, replicated (DDP) and sharded (FSDP2, DeepSpeed): steps are those of a model that is not compiled."""

import importlib.metadata
import importlib.util
import os
from datetime import timedelta
from functools import partial

import pytest
import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState
from torch._dynamo.testing import CompileCounterWithBackend

from helpers.sharded import shard_on_cpu, sharded_environment
from helpers.training_step import assert_step_is_that_of_hand, model_of, train
from helpers.warm import start_ranks_in
from modeling_valor import ValorForRetrieval
from modeling_valor.compilation import compile_layers
from modeling_valor.training import trainer


KINDS = 3  # layers of text, vision and audio
SAVED = {"save_strategy": "steps", "save_steps": 1}
ZERO_2 = {
    "zero_optimization": {"stage": 2},
    "zero_allow_untested_optimizer": True,
    "zero_force_ds_cpu_optimizer": False,
    **dict.fromkeys(["train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping"], "auto"),
}
# Version 0.19.8 cannot broadcast a parameter without dimensions
HAS_DEEPSPEED = importlib.util.find_spec("deepspeed") and importlib.metadata.version("deepspeed") != "0.19.8"
CASES = {
    "ddp": {"gradient_accumulation_steps": 2},
    **({"deepspeed": {"deepspeed": ZERO_2, "ddp_backend": "gloo"}} if HAS_DEEPSPEED else {}),
    "fsdp": {"gradient_accumulation_steps": 2, "gradient_checkpointing": True, **SAVED},
    "fsdp, checkpointed by Accelerate": {},
}


def train_on_rank(rank, port, folder):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2", "DS_ACCELERATOR": "cpu"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2, timeout=timedelta(seconds=60))
    dist._DEFAULT_FIRST_BUCKET_BYTES = 1  # a bucket of DDP ends within a layer
    for case, options in CASES.items():
        if case == "fsdp":
            os.environ |= sharded_environment()
            shard_on_cpu()
        os.environ["ACCELERATE_USE_DEEPSPEED"] = str(case == "deepspeed").lower()
        os.environ["FSDP_ACTIVATION_CHECKPOINTING"] = str("by Accelerate" in case).lower()
        torch._dynamo.reset()
        counted = CompileCounterWithBackend("eager")
        trainer.compile_layers = partial(compile_layers, backend=counted)
        options = {"gradient_accumulation_steps": 1, "compile_layers": True, "ddp_bucket_cap_mb": 1, **options}
        step = train("ValorTrainer", "retrieval", folder, **options)
        step["programs"] = counted.frame_count
        nodes = [node for program in counted.graphs for node in program.graph.nodes]
        step["inputs"] = {type(node.meta["example_value"]).__name__ for node in nodes if node.op == "placeholder"}
        step["methods"] = {node.target for node in nodes if node.op == "call_method"}
        step["breaks"] = list(torch._dynamo.utils.counters["graph_break"])
        torch.save(step, folder / f"{case} {rank}.pt")
        AcceleratorState._reset_state(True)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    start_ranks_in(folder, train_on_rank, 2)
    return folder


def ranks_of(case, folder):
    return [torch.load(folder / f"{case} {rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_steps_of_compiled_layers_are_those_of_hand(case, folder):
    assert_step_is_that_of_hand(
        "ValorTrainer", "retrieval", ranks_of(case, folder), CASES[case].get("gradient_accumulation_steps", 1)
    )


@pytest.mark.parametrize("case", CASES)
def test_a_kind_of_layer_is_one_program_without_hooks(case, folder):
    # Texts of another length, in the second of accumulated batches, are a program more
    programs = KINDS + CASES[case].get("gradient_accumulation_steps", 1) - 1
    for rank in ranks_of(case, folder):
        assert rank["programs"] == programs
        assert rank["inputs"] <= {"Parameter", "FakeTensor", "SymInt"}  # no DTensor: they are gathered outside
        assert "item" not in rank["methods"]  # numbers of FSDP's layers, such as the epsilon of a norm, are constants
        assert not rank["breaks"]


def test_the_checkpoint_of_a_sharded_and_compiled_model_is_that_of_any_other(folder):
    model, info = ValorForRetrieval.from_pretrained(folder / "checkpoint-1", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    start = dict(model_of("ValorTrainer", "retrieval").named_parameters())
    learned = {name: start[name].detach() - parameter.detach() for name, parameter in model.named_parameters()}
    torch.testing.assert_close(learned, ranks_of("fsdp", folder)[0]["gradients"], rtol=0, atol=1e-6)
