# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`valor train`: what it hands over, and that a user's mistake is one line and an exit status."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from helpers.training_world import write_checkpoint
from modeling_valor.cli import train as command
from modeling_valor.cli.main import main
from modeling_valor.recipes import recipe_names
from modeling_valor.training import run as training_run
from modeling_valor.training.command_help import GROUPS


ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def handed_over(monkeypatch):
    """What `training.run.run_training` was called with."""
    calls = []
    monkeypatch.setattr(training_run, "run_training", lambda *args: calls.append(args))
    monkeypatch.setattr(command, "_log_on_main_process", lambda is_main: None)
    return calls


def write_dataset(folder, names=("a",)) -> str:
    folder.mkdir(exist_ok=True)
    rows = [{"file_name": f"{name}.mp4", "captions": ["a bell rings"]} for name in names]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


@pytest.mark.parametrize(
    ("name", "recipe", "task", "samples"),
    [
        ("retrieval", "msrvtt_retrieval", "retrieval", None),
        ("captioning", "msrvtt_captioning", "captioning", None),
        ("captioning", "coco_captioning_scst", "captioning", 1),
        ("qa", "music_avqa", "question_answering", None),
        ("pretraining", "valor_tiny", None, None),
    ],
)
def test_a_task_and_a_recipe_are_handed_over(handed_over, monkeypatch, name, recipe, task, samples):
    monkeypatch.chdir(ROOT)  # that recipe's configuration is in the repository
    options = ["--use_cpu", "--bf16", "false", "--learning_rate", "0.25", "--output_dir", "unused"]
    assert main(["train", name, recipe, *options]) == 0
    ((model, data, training, own_task, own_samples),) = handed_over
    assert (own_task, own_samples) == (task, samples) and training.learning_rate == 0.25
    assert (data.dataset, model.config_name) == {
        "msrvtt_retrieval": ("msrvtt", None),
        "msrvtt_captioning": ("msrvtt", None),
        "coco_captioning_scst": ("coco", None),
        "music_avqa": ("music_avqa", None),
        "valor_tiny": ("world/train", "hub_configs/valor-tiny"),
    }[recipe]


def test_help_lists_the_tasks_and_the_recipes(capsys):
    assert main(["train", "--help"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert all(name in printed for name in [*command.TASK_OF_COMMAND, *recipe_names()])
    with pytest.raises(SystemExit):
        main(["train", "qa", "--help"])
    printed = capsys.readouterr().out
    assert printed.startswith("usage: valor train qa [RECIPE] [--ARGUMENT VALUE ...]\n")
    assert "--validation_share" in printed


def test_the_help_of_a_task_is_short_and_another_has_all(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")

    def printed(*argv):
        with pytest.raises(SystemExit) as ended:
            main(["train", *argv])
        assert ended.value.code == 0
        return capsys.readouterr().out

    short, whole = printed("captioning", "--help"), printed("captioning", "--help-all")
    names = {name for group in GROUPS.values() for name in group}
    listed = {line.split()[0].removeprefix("--") for line in short.splitlines() if line.startswith("  --")}
    assert listed == names and len(short.splitlines()) < 100 < 400 < len(whole.splitlines())
    assert all(f"\n  --{name}" in whole for name in (*names, "adam_beta2"))  # none that does not exist
    assert [line[:-1] for line in short.splitlines() if line.endswith(":") and line[0] != " "] == list(GROUPS)
    assert "--help-all" in short and max(map(len, short.splitlines())) <= 100
    assert "self_critical" not in printed("qa", "-h")
    recipe = " ".join(printed("captioning", "coco_captioning_scst", "--help").split())
    assert "--self_critical Train on CIDEr instead of masked words. [default: True]" in recipe


def test_help_does_not_become_an_argument(handed_over):
    assert main(["train", "qa", "--use_cpu", "--bf16", "false", "--output_dir", "unused", "--seed", "3"]) == 0
    assert len(handed_over) == 1 and handed_over[0][2].seed == 3


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["retrieval", "--config_name", "nowhere"], "--config_name nowhere: there is no such folder."),
        (["retrieval", "--config_name", "CHECKPOINT", "--text_model", "CLIPS"], "--text_model CLIPS: "),
        (["retrieval", "msrvtt_retrievel"], "there is no recipe msrvtt_retrievel: "),
        (["qa", "msrvtt_retrieval", "--config_name", "CHECKPOINT"], "question_answering is trained, but the recipe is for"),
        (["retrieval", "--config_name", "CHECKPOINT"], "nothing to do: give --do_train, --do_eval or both."),
        (["retrieval", "--config_name", "CHECKPOINT", "--do_train"], "Give `dataset`, or `sources` in a recipe."),
        (["retrieval", "--dataset", "CLIPS", "--do_train"], "Give a checkpoint as `model_name_or_path`"),
        (["retrieval", "--config_name", "CHECKPOINT", "--dataset", "nowhere", "--do_train"], "'nowhere' is no dataset."),
        (["retrieval", "--config_name", "CHECKPOINT", "--dataset", "CLIPS", "--do_train", "--modalities", "x"], "`modalities` "),
        (["qa", "--config_name", "CHECKPOINT", "--dataset", "CLIPS", "--do_train"], "none of the 1 samples of CLIPS has a quest"),
        (["retrieval", "--config_overrides", "{"], "`config_overrides` is not JSON: "),
        (["retrieval", "--lerning_rate", "1"], "no argument is called --lerning_rate (similar: learning_rate)."),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_exit_status_1(tmp_path, monkeypatch, capsys, argv, message):
    monkeypatch.setattr(command, "_log_on_main_process", lambda is_main: None)
    places = {"CLIPS": write_dataset(tmp_path / "clips"), "CHECKPOINT": str(write_checkpoint(tmp_path / "checkpoint"))}
    argv = [places.get(argument, argument) for argument in argv]
    output = ["--use_cpu", "--bf16", "false", "--report_to", "none", "--output_dir", str(tmp_path / "output")]
    assert main(["train", *argv, *output]) == 1
    said = capsys.readouterr().err
    message = message.replace("CLIPS", places["CLIPS"])
    assert said.startswith(f"valor train: {message}") and said.count("\n") == 1


def test_the_bar_ends_before_the_message(tmp_path, capsys, monkeypatch):
    """Files that are not there, found out in the middle of the training."""
    monkeypatch.setattr(command, "_log_on_main_process", lambda is_main: None)
    clips = write_dataset(tmp_path / "clips", "abcd")
    place = ["--dataset", clips, "--output_dir", str(tmp_path / "output"), "--per_device_train_batch_size", "2"]
    options = ["--do_train", "--use_cpu", "--max_steps", "1", "--report_to", "none", "--dataloader_num_workers", "0"]
    assert main(["train", "retrieval", "--config_name", str(write_checkpoint(tmp_path)), *place, *options]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("valor train: ") and "could not be read, such as" in last and ".mp4 does not exist" in last


def test_an_interrupted_command_has_exit_status_130(monkeypatch, capsys):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(training_run, "run_training", interrupt)
    monkeypatch.setattr(command, "_log_on_main_process", lambda is_main: None)
    assert main(["train", "retrieval", "--use_cpu", "--output_dir", "unused"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_the_examples_are_the_command(handed_over, monkeypatch):
    tasks = {"retrieval": "retrieval", "captioning": "captioning", "pretraining": None}
    for name, task in (*tasks.items(), ("question_answering", "question_answering")):
        monkeypatch.setattr(sys, "argv", [name, "--use_cpu", "--output_dir", "unused"])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(ROOT / "examples" / f"run_{name}.py"), run_name="__main__")
        assert stop.value.code == 0 and handed_over[-1][3] == task
