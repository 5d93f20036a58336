# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The example configurations of Accelerate and DeepSpeed, read by Accelerate and transformers themselves; no process is started."""

from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType
from accelerate.utils.deepspeed import HfDeepSpeedConfig
from accelerate.utils.launch import prepare_multi_gpu_env


FOLDER = Path(__file__).resolve().parents[1] / "examples" / "accelerate"
TYPES = {
    "ddp": DistributedType.MULTI_GPU,
    "fsdp2": DistributedType.FSDP,
    "deepspeed": DistributedType.DEEPSPEED,
}


def launch_arguments(name: str):
    """What `accelerate launch --config_file` makes of the file."""
    parser = launch_command_parser()
    arguments = parser.parse_args(
        ["--config_file", str(FOLDER / f"{name}.yaml"), "examples/run_retrieval.py", "--bf16"]
    )
    return _validate_launch_command(arguments)[0]


@pytest.mark.parametrize("name", TYPES)
def test_the_file_is_one_of_accelerates_for_the_papers_eight_gpus(name):
    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    assert config.distributed_type == TYPES[name] and config.num_processes == 8 and config.num_machines == 1
    assert {path.stem for path in FOLDER.glob("*.yaml")} == TYPES.keys()


def test_ddp_is_launched_on_all_gpus():
    arguments = launch_arguments("ddp")
    assert arguments.multi_gpu and arguments.num_processes == 8 and not (arguments.use_fsdp or arguments.use_deepspeed)
    assert prepare_multi_gpu_env(arguments)["ACCELERATE_MIXED_PRECISION"] == "bf16"


def test_fsdp_is_its_second_version_and_saves_whole_checkpoints():
    environment = prepare_multi_gpu_env(launch_arguments("fsdp2"))
    expected = {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_RESHARD_AFTER_FORWARD": "true",
        "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
        "FSDP_ACTIVATION_CHECKPOINTING": "false",
    }
    assert environment.items() >= expected.items()
    assert "FSDP_TRANSFORMER_CLS_TO_WRAP" not in environment  # the Trainer chooses the layers of the model at hand


def test_deepspeed_has_a_file_that_exists_and_leaves_the_optimizer_to_the_trainer():
    arguments = launch_arguments("deepspeed")
    assert arguments.use_deepspeed
    file = FOLDER.parents[1] / arguments.deepspeed_config_file
    assert file == FOLDER / "deepspeed_zero2.json"
    config = HfDeepSpeedConfig(str(file))
    assert config.is_zero2() and not config.is_offload()
    for name in ("bf16.enabled", "gradient_clipping", "gradient_accumulation_steps", "train_micro_batch_size_per_gpu"):
        assert config.get_value(name) == "auto"
    # With an optimizer of its own the learning rates of the encoders would be passed over
    assert "optimizer" not in config.config
