# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Video Swin sharded over two processes (FSDP2) whose clips differ in length; the processes are this file as a program."""

import datetime
import sys

import torch
from torch import distributed

from helpers.tiny import SWIN
from helpers.warm import torchrun_warm
from modeling_valor import ValorVideoSwinConfig, ValorVideoSwinModel
from modeling_valor.modeling_valor_vision import encode_frames


RANKS = 2

# Frames of each clip; a rank needs one pass for every different number of them
LENGTHS = {
    "one_rank_whole": [[3, 3, 3], [1, 2, 3]],
    "one_rank_empty": [[0, 0, 0], [1, 3, 2]],
}


def loss_of(model: ValorVideoSwinModel, lengths: list[int], rank: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rank)
    frames = torch.randn(len(lengths), 3, 3, 16, 16, generator=generator)
    frame_mask = torch.arange(3) < torch.tensor(lengths)[:, None]
    tokens, pooled = encode_frames(model, frames, None if frame_mask.all() else frame_mask)[:2]
    return tokens.square().sum() + pooled.sum()


def build_swin() -> ValorVideoSwinModel:
    torch.manual_seed(0)
    return ValorVideoSwinModel(ValorVideoSwinConfig(**SWIN, drop_path_rate=0.0))


def main(folder: str) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    distributed.init_process_group("gloo", timeout=datetime.timedelta(seconds=20))
    rank, mesh = distributed.get_rank(), init_device_mesh("cpu", (RANKS,))
    model = build_swin()
    for stage in model.stages:
        for block in stage.blocks:
            fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for case, lengths in LENGTHS.items():
        model.zero_grad()
        loss_of(model, lengths[rank], rank).backward()
        grads = {name: parameter.grad.full_tensor() for name, parameter in model.named_parameters()}
        if rank == 0:
            torch.save(grads, f"{folder}/{case}.pt")
    distributed.destroy_process_group()


def test_ranks_whose_clips_differ_in_length_train_a_sharded_encoder_as_one_process_does(tmp_path):
    result = torchrun_warm("--standalone", f"--nproc_per_node={RANKS}", __file__, tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    for case, ranks in LENGTHS.items():
        grads = torch.load(tmp_path / f"{case}.pt", weights_only=True)
        model = build_swin()
        (sum(loss_of(model, lengths, rank) for rank, lengths in enumerate(ranks)) / RANKS).backward()
        assert grads.keys() == dict(model.named_parameters()).keys()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(grads[name], parameter.grad, atol=1e-4, rtol=1e-4, msg=f"{case} {name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
