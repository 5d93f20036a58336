# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""FSDP2 on processors.

Accelerate shards models over accelerators only; on CPU it quietly replicates them. So a process is told that it has an
accelerator, called "cpu". The rest is what GPUs run, on gloo in place of NCCL.
"""

from pathlib import Path

import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_multi_gpu_env


CONFIG = Path(__file__).resolve().parents[2] / "examples" / "accelerate" / "fsdp2.yaml"


def sharded_environment() -> dict[str, str]:
    """The variables that `accelerate launch` gives to two processes of the example's configuration, in float32."""
    options = ["--config_file", str(CONFIG), "--num_processes", "2", "--mixed_precision", "no", "script.py"]
    launch, *_ = _validate_launch_command(launch_command_parser().parse_args(options))
    return {**prepare_multi_gpu_env(launch), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def shard_on_cpu() -> None:
    """Has Accelerate shard the models of this process, from now on."""
    PartialState._prepare_backend = lambda *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)
    PartialState.set_device = lambda self: setattr(self, "device", torch.device("cpu"))
