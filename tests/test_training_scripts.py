# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The example scripts as programs: a few steps each, one killed and resumed, one on two processes."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from helpers.training_world import write_checkpoint
from helpers.warm import WarmProcess, run_warm, torchrun_warm
from modeling_valor import ValorForCaptioning, ValorForQuestionAnswering, ValorForRetrieval
from modeling_valor.training.run import parse_arguments
from modeling_valor.training.run import run_training as train
from modeling_valor.world import write_world


EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
ENVIRONMENT = {
    **os.environ,
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONUNBUFFERED": "1",  # each step is seen when it is done
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, "train", 8, seed=0, workers=1)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def recipe(folder: Path, world: Path, checkpoint: Path, **kwargs) -> Path:
    """Six steps of pretraining and question answering in turn, saved after every second one."""
    common = {"dataset": str(world), "sampling": "random", "batch_size": 2}
    content = {
        "config_name": str(checkpoint),
        "do_train": True,
        "max_steps": 6,
        "logging_steps": 1,
        "save_steps": 2,
        "learning_rate": 1e-3,
        "use_cpu": True,
        "report_to": "none",
        "sources": [
            {"name": "world", "task": "pretraining", **common},
            {"name": "questions", "task": "question_answering", "questions_per_sample": 2, **common},
        ],
        **kwargs,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def run(*command, start=run_warm) -> subprocess.CompletedProcess[str]:
    result = start(*command, env=ENVIRONMENT)
    assert result.returncode == 0, result.stderr[-3000:]
    return result


def losses(output: Path) -> list[float]:
    history = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


KILLED_IN_STEP_4 = """
import os, signal, sys
from modeling_valor.cli.main import main
from modeling_valor.training import ValorTrainer

step = ValorTrainer.training_step

def training_step(self, *arguments):
    if self.state.global_step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *arguments)

ValorTrainer.training_step = training_step
main(["train", "pretraining", *sys.argv[1:]])
"""
"""Between two checkpoints."""


def test_a_run_that_was_killed_resumes_to_the_losses_of_one_that_was_not(tmp_path, world, checkpoint):
    script, options = EXAMPLES / "run_pretraining.py", recipe(tmp_path, world, checkpoint)
    run(script, options, "--output_dir", tmp_path / "whole")
    killed = run_warm("-c", KILLED_IN_STEP_4, options, "--output_dir", tmp_path / "killed", env=ENVIRONMENT)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    assert not (tmp_path / "killed" / "trainer_state.json").exists()
    # As if killed once more, in the middle of writing a checkpoint
    torn = tmp_path / "killed" / "checkpoint-4"
    shutil.rmtree(torn, ignore_errors=True)
    torn.mkdir()
    (torn / "config.json").write_text("{}")
    run(script, options, "--output_dir", tmp_path / "killed")
    whole = losses(tmp_path / "whole")
    assert len(whole) == 6 and losses(tmp_path / "killed") == whole


def test_ctrl_c_saves_the_step_and_a_finished_run_keeps_its_results(tmp_path, world, checkpoint):
    """Ctrl-C reaches the workers of the data loader, too. The run is finished with fewer steps, then started again."""
    options, output = recipe(tmp_path, world, checkpoint, dataloader_num_workers=1), tmp_path / "output"
    arguments = [str(options), "--output_dir", str(output), "--disable_tqdm", "1"]
    program = [EXAMPLES / "run_pretraining.py", *arguments, "--max_steps", "1000"]
    process = WarmProcess(*program, env=ENVIRONMENT, start_new_session=True)
    next(line for line in process.stdout if "'loss'" in line)
    os.killpg(process.pid, signal.SIGINT)
    ended = process.wait()
    assert ended.returncode == 130, ended.stderr[-3000:]
    assert [line for line in ended.stderr.splitlines() if "SIGINT" in line] and "Traceback" not in ended.stderr
    saved = max(int(folder.name.split("-")[1]) for folder in output.glob("checkpoint-*"))
    assert saved < 1000 and not (output / "train_results.json").exists()

    arguments += ["--max_steps", str(saved + 1)]
    train(*parse_arguments(arguments), task=None)
    assert len(losses(output)) == saved + 1
    results = {path: path.read_bytes() for path in output.iterdir() if path.is_file()}
    train(*parse_arguments(arguments), task=None)
    assert {path: path.read_bytes() for path in output.iterdir() if path.is_file()} == results


def test_self_critical_training_takes_the_first_group_of_a_recipe(tmp_path, world, checkpoint):
    """As of msrvtt_captioning.yaml, whose two groups train masked words together."""
    source = {"dataset": str(world), "captioning_groups": ["t-av", "t-v"], "batch_size": 2, "sampling": "random"}
    options = recipe(tmp_path, world, checkpoint, sources=[source], max_steps=1)
    output = tmp_path / "output"
    arguments = [str(options), "--output_dir", str(output), "--max_new_tokens", "4"]
    train(*parse_arguments(arguments), task="captioning", num_sampled_captions=2)
    settings = json.loads((output / "training_run.json").read_text())["settings"]
    assert settings["sources.0.captioning_groups"] == ["t-av"]
    assert any("reward" in entry for entry in json.loads((output / "trainer_state.json").read_text())["log_history"])


def test_two_processes_train_together(tmp_path, world, checkpoint):
    """Retrieval, where each rank's loss is that of all ranks' samples."""
    output = tmp_path / "output"
    arguments = ["--config_name", checkpoint, "--dataset", world, "--output_dir", output, "--do_train", "--use_cpu"]
    steps = ["--max_steps", 2, "--per_device_train_batch_size", 2, "--logging_steps", 1, "--report_to", "none"]
    launched = ["--standalone", "--nproc_per_node", "2", EXAMPLES / "run_retrieval.py"]
    run(*launched, *arguments, *steps, start=torchrun_warm)
    assert len(losses(output)) == 2
    ValorForRetrieval.from_pretrained(output)


@pytest.mark.parametrize(
    ("script", "head", "figures"),
    [
        ("run_retrieval.py", ValorForRetrieval, ["eval_retrieval_t-av/R@1", "eval_retrieval_av-t/MedianR"]),
        ("run_captioning.py", ValorForCaptioning, ["eval_captioning_CIDEr"]),
        ("run_question_answering.py", ValorForQuestionAnswering, ["eval_question_answering_accuracy"]),
    ],
)
def test_a_script_trains_evaluates_and_saves(tmp_path, world, checkpoint, script, head, figures):
    output = tmp_path / "output"
    result = run(
        EXAMPLES / script,
        *("--config_name", checkpoint, "--dataset", world, "--eval_split", "train", "--output_dir", output),
        *("--do_train", "--do_eval", "--use_cpu", "--report_to", "none", "--max_steps", 2, "--logging_steps", 1),
        *("--per_device_train_batch_size", 2, "--max_new_tokens", 4, "--max_eval_samples", 4),
    )
    metrics = json.loads((output / "all_results.json").read_text())
    assert set(figures) <= metrics.keys() and "train_loss" in metrics
    head.from_pretrained(output)
    # What it is about to do is said first, and kept in the model card with what was measured
    said = result.stderr
    for line in (
        "Model: ",
        "Weights: all new",
        "Samples: ",
        "Batch: 2 samples a step.",
        "Steps: 2, which are 0.5 epochs of 4.",
    ):
        assert line in said, said
    assert said.index("Steps: ") < said.index("Training starts at step 0")
    assert "4 of the 4 samples on which" in said
    card = ModelCard.load(output / "README.md")
    assert {entry.metric_name for entry in card.data.eval_results} >= {name.split("_")[-1] for name in figures}
    assert "Batch: 2 samples a step" in card.text and head.__name__ in card.text
