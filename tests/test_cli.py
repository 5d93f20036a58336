# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The `valor` command as users type it."""

import importlib.metadata
import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import valor_cli
from modeling_valor.cli.main import COMMANDS, main


CLIPS = sorted((Path(__file__).resolve().parents[1] / "examples" / "media").glob("*.mp4"))


def test_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(command in printed for command in COMMANDS)


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_import_neither_torch_nor_the_package(option):
    code = f"""
import sys, valor_cli
assert valor_cli.main([{option!r}]) == 0
assert not {{"torch", "transformers", "modeling_valor"}} & set(sys.modules)
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert option == "--help" or printed == f"valor {importlib.metadata.version('modeling-valor')}\n"


def _raise(error):
    raise error


@pytest.mark.parametrize(
    "error, status, line",
    [
        (ValueError("clip.mp4 is\nempty."), 1, "valor x: clip.mp4 is empty.\n"),
        (KeyboardInterrupt(), 130, "valor x: interrupted.\n"),
        (
            RuntimeError("shapes differ"),
            1,
            "valor x: RuntimeError: shapes differ (--debug shows where it comes from).\n",
        ),
    ],
)
def test_an_error_is_one_line_and_an_exit_status(error, status, line, capsys):
    assert valor_cli.run_guarded("valor x", lambda: _raise(error)) == status
    assert capsys.readouterr().err == line
    assert valor_cli.run_guarded("valor x", lambda: _raise(error), debug=True) == status
    assert "Traceback" in (printed := capsys.readouterr().err) and printed.endswith(line)


def test_an_error_in_a_worker_of_a_data_loader_is_its_message():
    from torch._utils import ExceptionWrapper

    from modeling_valor.data.failures import TooManyFailures

    for error, said in (
        (TooManyFailures("20 samples in a row could not be read."), "20 samples in a row could not be read."),
        (KeyError("x"), "KeyError: 'x' (--debug shows where it comes from)."),
    ):
        try:
            raise error
        except Exception:
            wrapper = ExceptionWrapper(where="in DataLoader worker process 0")
        with pytest.raises(type(error)) as raised:
            wrapper.reraise()
        assert valor_cli.describe_error(raised.value) == said


def test_debug_is_ours_without_a_value_and_trainers_with_one():
    assert valor_cli.pop_debug(["train", "--debug", "--bf16"]) == (["train", "--bf16"], True)
    given = ["train", "--debug", "underflow_overflow"]
    assert valor_cli.pop_debug(given) == (given, False)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    assert main([command, "--help"]) == 0
    assert f"valor {command}" in capsys.readouterr().out


def test_choices_are_those_of_the_modules_that_are_not_imported_for_the_help():
    from typing import get_args

    from modeling_valor.cli.world import world
    from modeling_valor.world import LESSONS, SPLITS

    parameters = inspect.signature(world).parameters
    choices = {name: get_args(get_args(parameters[name].annotation)[0]) for name in ("split", "about")}
    assert choices["split"] == SPLITS
    assert get_args(choices["about"][0]) == LESSONS


def test_without_a_command_its_help_is_printed_and_the_arguments_are_wrong(capsys):
    assert main([]) == 2
    assert "Usage: valor" in (printed := capsys.readouterr()).out and printed.err == ""


def test_info_shows_what_is_installed(capsys):
    """Against the libraries' own word, and a backend and an extra that cannot work."""
    import av
    import torch

    assert main(["info", "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["packages"]["torch"] == importlib.metadata.version("torch")
    assert info["ffmpeg libraries of av"]["libavcodec"] == ".".join(map(str, av.library_versions["libavcodec"]))
    assert info["decoding backends"]["pyav"] == "works"
    assert len(info["devices"]) == 1 + torch.accelerator.device_count()
    assert info["extras"]["test"] == "installed"
    assert main(["info"]) == 0
    assert "  pyav: works" in capsys.readouterr().out.splitlines()


def test_info_says_what_a_backend_fails_with_and_what_an_extra_lacks(monkeypatch):
    from modeling_valor.cli import info

    def fail(track, moments):
        raise RuntimeError("libavcodec.so.61\nis missing")

    monkeypatch.setitem(info.BACKENDS, "decord", fail)
    monkeypatch.setattr(info, "version_of", lambda name: None if name == "pycocoevalcap" else "1.0")
    assert info.describe_backends()["decord"] == "fails: libavcodec.so.61 is missing"
    extras = info.describe_extras()
    assert extras["captions"] == "lacks pycocoevalcap" and extras["experiments"] == "installed"


def test_caption_prints_what_the_pipeline_says(converted, capsys):
    from transformers import pipeline

    folder = str(converted("clip-vision-bert-shared"))
    assert main(["caption", *map(str, CLIPS), "--model", folder, "--max-new-tokens", "5", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    captioner = pipeline("audiovisual-captioning", model=folder)
    for clip, line in zip(CLIPS, lines, strict=True):
        expected = captioner(str(clip), max_new_tokens=5)[0]["generated_text"]
        assert line == {"file": str(clip), "text": expected, "modalities": "av"}


def test_a_broken_file_is_named_and_the_others_are_described(converted, capsys, tmp_path):
    broken = tmp_path / "text.mp4"
    broken.write_text("this is no video")
    folder = str(converted("clip-vision-bert-shared"))
    arguments = ["--model", folder, "--max-new-tokens", "3", "--question", "what is heard ?", "--modalities", "a"]
    assert main(["caption", str(broken), str(CLIPS[0]), *arguments]) == 1
    printed = capsys.readouterr()
    assert "text.mp4" in printed.err and printed.out.startswith(f"{CLIPS[0]}: ")


def test_several_questions_about_a_file_are_answered_in_order(converted, capsys):
    folder = str(converted("clip-vision-bert-shared"))
    questions = ["what is heard ?", "what barks ?"]
    arguments = [str(CLIPS[0]), "--model", folder, "--max-new-tokens", "3", "--json"]
    assert main(["caption", *arguments, "--question", questions[0], "--question", questions[1]]) == 0
    together = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for question in questions:
        assert main(["caption", *arguments, "--question", question]) == 0
    assert together == [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["question"] for line in together] == questions


@pytest.mark.parametrize("command", [["caption"], ["search", "a dog barks"]])
def test_workers_and_batches_change_nothing(converted, capsys, command):
    arguments = [*command, *map(str, CLIPS), "--model", str(converted("clip-vision-bert-shared")), "--json"]
    outputs = []
    for options in (["--batch-size", "1"], ["--batch-size", "2"], ["--workers", "1", "--device", "cpu"]):
        assert main([*arguments, *options]) == 0
        outputs.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    for output in outputs[1:]:
        for line, expected in zip(output, outputs[0], strict=True):
            assert line.pop("score", 0) == pytest.approx(expected.get("score", 0), abs=1e-5)
            assert line == {name: value for name, value in expected.items() if name != "score"}


def test_a_gpu_that_has_bfloat16_computes_in_it_unless_told_otherwise(tmp_path, capsys, monkeypatch):
    import torch

    from modeling_valor import ValorConfig
    from modeling_valor.cli.arguments import choose_dtype

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    for name in ("float32", "float16"):
        ValorConfig(dtype=name).save_pretrained(tmp_path / name)
    full, half = str(tmp_path / "float32"), str(tmp_path / "float16")
    assert choose_dtype("valor caption", "auto", "cuda:1", full) == "bfloat16"
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "valor caption: the model computes in bfloat16; --dtype float32 is slower and rounds less."
    for dtype, device, model in (
        ("float32", "cuda", full),
        ("auto", "cpu", full),
        ("auto", "cuda", half),
        ("auto", "cuda", str(tmp_path / "absent")),
    ):
        assert choose_dtype("valor caption", dtype, device, model) == dtype
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    assert choose_dtype("valor caption", "auto", "cuda", full) == "auto"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", [["caption"], ["search", "a dog barks"]])
@pytest.mark.parametrize(
    "options, message",
    [
        (["--model", "{empty}"], "this folder has no config.json"),
        (["--model", "{adapter}"], "holds an adapter and no model: merge it"),
        (["--model", "{empty}/missing"], "there is no such folder"),
        (["--model", "{bert}"], "this is a 'bert' checkpoint"),
        (["--model", "{base}"], "this folder has a configuration only, without weights"),
        (["--model", "casia/missing"], "no such folder, and casia/missing is not in the cache, and HF_HUB_OFFLINE=1"),
        (["--model", "{valor}", "--device", "cuda:99"], "this machine has no such device"),
    ],
)
def test_a_wrong_model_or_device_is_one_sentence(converted, capsys, tmp_path, command, options, message):
    folders = {"empty": tmp_path / "empty", "bert": tmp_path / "bert", "valor": converted("clip-vision-bert-shared")}
    folders["base"] = CLIPS[0].parents[2] / "hub_configs" / "valor-base"
    folders["adapter"] = tmp_path / "adapter"
    for name in ("adapter", "bert", "empty"):
        folders[name].mkdir()
    (folders["adapter"] / "adapter_config.json").write_text("{}")
    (folders["bert"] / "config.json").write_text('{"model_type": "bert"}')
    options = [option.format(**folders) for option in options]
    capsys.readouterr()  # progress of the fixture
    assert main([*command, str(CLIPS[0]), *options]) == 1
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == 1 and message in printed[0] and options[-1] in printed[0]


def test_damaged_weights_are_one_sentence(converted, capsys, tmp_path):
    shutil.copytree(converted("clip-vision-bert-shared"), tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    capsys.readouterr()
    assert main(["caption", str(CLIPS[0]), "--model", str(tmp_path / "model")]) == 1
    (message,) = capsys.readouterr().err.splitlines()
    assert "its weights are damaged" in message and str(tmp_path / "model") in message


def test_help_shows_the_numbers_of_the_checkpoint(capsys):
    tiny = CLIPS[0].parents[2] / "hub_configs" / "valor-tiny"
    settings = json.loads((tiny / "processor_config.json").read_text())
    numbers = settings["video_processor"]["num_frames"], settings["feature_extractor"]["num_audio_clips"]
    for given in (["--model", str(tiny)], [f"--model={tiny}"]):
        assert main(["caption", *given, "--help"]) == 0
        printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
        for option, number in zip(("--num-frames", "--num-audio-clips"), numbers, strict=True):
            assert f"[default: ({number}, this checkpoint's)]" in printed.partition(f" {option} ")[2]
    assert main(["caption", "--help"]) == 0
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "this checkpoint's)]" not in printed and "[default: (the checkpoint's)]" in printed


def test_a_folder_of_media_is_a_collection_and_of_images_one_video(converted, capsys, tmp_path):
    from PIL import Image

    media = tmp_path / "media"
    (media / "frames").mkdir(parents=True)
    (media / "empty").mkdir()
    for clip in CLIPS:
        shutil.copy(clip, media)
    (media / "notes.txt").write_text("no medium")
    for number in range(2):
        Image.new("RGB", (64, 48), (90, 120, 30 * number)).save(media / "frames" / f"frame_{number}.png")
    expected = {str(media / clip.name) for clip in CLIPS} | {str(media / "frames")}
    options = ["--model", str(converted("clip-vision-bert-shared")), "--json"]
    for command, more in ((["caption"], ["--max-new-tokens", "2"]), (["search", "a bell rings"], [])):
        assert main([*command, str(media), *more, *options]) == 0
        printed = capsys.readouterr()
        assert {json.loads(line)["file"] for line in printed.out.splitlines()} == expected
        assert f"{media} holds 3 media files" in printed.err
        assert f"{media / 'frames'} holds images only, which are taken for the frames of one video" in printed.err
        assert main([*command, str(media / "empty"), str(CLIPS[0]), *more, *options]) == 1
        assert f"{media / 'empty'} holds no media files" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", " ", "clip.mp4"], "'TEXT [FILE]': the text is empty"),
        (["caption", "clip.mp4", "--question", ""], "'--question': the text is empty"),
        (["caption", "clip.mp4", "--modalities", "x"], "'--modalities': 'x' is not one of 'av', 'v', 'a'"),
    ],
)
def test_what_asks_for_nothing_is_refused(capsys, arguments, message):
    assert main([*arguments, "--model", "none"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"valor {arguments[0]}: Invalid value for {message} (`valor {arguments[0]} --help` ")


@pytest.mark.parametrize("command", [["caption", "--max-new-tokens", "2"], ["search", "a bell rings"]])
def test_a_name_that_is_no_line_of_text_is_printed_with_escapes(converted, capfd, tmp_path, command):
    """A line break, and a byte of Latin-1 as old disks have them, which no terminal's UTF-8 can encode."""
    names = {b"two\nlines.mp4": r"two\nlines.mp4", b"caf\xe9.mp4": r"caf\udce9.mp4"}
    for name in names:
        shutil.copy(CLIPS[0], tmp_path / os.fsdecode(name))
    model = ["--model", str(converted("clip-vision-bert-shared"))]
    assert main([command[0], *command[1:], str(tmp_path), *model]) == 0
    lines = [line for line in capfd.readouterr().out.splitlines() if str(tmp_path) in line]
    assert len(lines) == 2
    assert all(any(name in line for line in lines) for name in names.values())


def test_a_warning_is_printed_once(capsys):
    show = valor_cli._print_once("valor caption")
    for line in (1, 2):
        show(UserWarning("a.mp4 ends\nearly."), UserWarning, "media.py", line)
    assert capsys.readouterr().err == "valor caption: a.mp4 ends early.\n"


def test_search_ranks_files_by_their_similarity(converted, capsys, tmp_path):
    """Against the model's scores of all pairs in one batch."""
    import torch

    from modeling_valor import ValorForRetrieval, ValorProcessor

    folder, text = str(converted("clip-vision-bert-shared")), "a bell rings"
    broken = tmp_path / "text.mp4"
    broken.write_text("this is no video")
    arguments = ["--model", folder, "--json", "--batch-size", "1"]
    assert main(["search", text, *map(str, CLIPS), str(broken), *arguments]) == 1
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    processor, model = ValorProcessor.from_pretrained(folder), ValorForRetrieval.from_pretrained(folder).eval()
    inputs = processor(text=[text], videos=list(map(str, CLIPS)), return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs).similarity["t-av"][0].tolist()
    ranked = sorted(zip(map(str, CLIPS), expected, strict=True), key=lambda pair: -pair[1])
    assert [line["file"] for line in lines] == [file for file, _ in ranked]
    assert [line["score"] for line in lines] == pytest.approx([score for _, score in ranked], abs=2e-5)
    assert "text.mp4" in printed.err


@pytest.mark.parametrize(
    "argv",
    [
        ["caption", "x.mp4", "--model", "m", "--num-beams", "0"],
        ["search", "a dog", "x.mp4", "--model", "m", "--top", "-1"],
        ["evaluate", "--task", "retrieval", "--dataset", "d", "--model", "m", "--limit", "0"],
        ["extract", "d", "out", "--num-frames", "0"],
        ["world", "out", "--count", "0"],
    ],
)
def test_counts_are_whole_numbers_of_at_least_1(argv, capsys):
    assert main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"Invalid value for '{argv[-2]}': Input should be greater than or equal to 1" in line
