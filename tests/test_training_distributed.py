# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Two processes train as one process with the joined batch would: the same loss, the same gradient of every parameter."""

import os
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tiny import tiny_batch, tiny_config
from torch.nn.parallel import DistributedDataParallel

from modeling_valor import ValorForPreTraining, ValorForRetrieval
from modeling_valor.captioning import IGNORE_INDEX
from modeling_valor.training import gradient_cached_step


SIZE = 6
CASES = ("retrieval", "no sound on one rank", "chunks", "chunks with captions")


def model_of(case):
    torch.manual_seed(0)
    return (
        (ValorForPreTraining if case == "chunks with captions" else ValorForRetrieval)(tiny_config()).double().train()
    )


def joined_batch(case):
    inputs = {name: v.double() if v.is_floating_point() else v for name, v in tiny_batch(SIZE).items()}
    if case == "no sound on one rank":
        inputs["audio_mask"] = torch.tensor([[True, True], [True, False], [False, False]] + 3 * [[False, False]])
    if case == "chunks with captions":
        # As many words to predict on each rank, so that the mean of the ranks' means is the mean of all
        inputs["labels"] = inputs["input_ids"].clone()
        inputs["labels"][:, [0, 3, 4, 5, 6]] = IGNORE_INDEX
        inputs["decoder_input_ids"] = inputs["input_ids"].masked_fill(inputs["labels"] != IGNORE_INDEX, 103)
        inputs["decoder_attention_mask"] = inputs["attention_mask"]
    return inputs


def loss_and_gradients(case, model, inputs):
    if case.startswith("chunks"):
        loss = gradient_cached_step(
            lambda **chunk: model(**chunk),
            getattr(model, "module", model),
            inputs,
            2,
            lambda loss, **kwargs: loss.backward(**kwargs),
            defer_sync=getattr(model, "no_sync", torch.enable_grad),
        )
    else:
        loss = model(**inputs).loss
        loss.backward()
    # Parameters that take no part have no gradient, or a zero one
    parameters = getattr(model, "module", model).named_parameters()
    return {"loss": loss.detach()} | {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in parameters}


def train_on_rank(rank, port, folder):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    for case in CASES:
        own = {name: value[3 * rank : 3 * rank + 3] for name, value in joined_batch(case).items()}
        model = DistributedDataParallel(model_of(case), find_unused_parameters=True)
        torch.save(loss_and_gradients(case, model, own), folder / f"{case} {rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(train_on_rank, (port, folder), nprocs=2)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_two_processes_have_the_loss_and_gradients_of_one(trained, case):
    expected = loss_and_gradients(case, model_of(case), joined_batch(case))
    ranks = [torch.load(trained / f"{case} {rank}.pt") for rank in range(2)]
    if case == "chunks with captions":  # each rank's captioning loss is that of its own samples
        torch.testing.assert_close((ranks[0]["loss"] + ranks[1]["loss"]) / 2, expected["loss"], rtol=0, atol=1e-6)
    for rank in ranks:
        assert rank.keys() == expected.keys()
        for name, value in expected.items():
            if name != "loss" or case != "chunks with captions":
                torch.testing.assert_close(rank[name], value, rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
