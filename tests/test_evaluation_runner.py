# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
import errno
import json
import os
import re
import shutil
import signal

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from helpers.media_files import write_clip
from helpers.warm import run_warm, torchrun_warm
from modeling_valor import ValorForPreTraining, ValorModel, ValorProcessor
from modeling_valor.cli.main import main
from modeling_valor.data.failures import Failure
from modeling_valor.data.readers import load_samples
from modeling_valor.data.readers.benchmarks import BENCHMARKS
from modeling_valor.evaluation import (
    Evaluation,
    MediaOptions,
    evaluate_captioning,
    evaluate_question_answering,
    evaluate_retrieval,
)
from modeling_valor.evaluation.loader import media_batches
from modeling_valor.evaluation.outputs import eval_results, markdown, submission, update_model_card
from modeling_valor.evaluation.paper import PAPER_METRICS
from modeling_valor.evaluation.runner import Checkpoint, Report, evaluate, read_samples, version_of
from modeling_valor.evaluation.settings import recipe_for
from modeling_valor.text_cleaning import clean_caption
from modeling_valor.world import write_world


TASKS = ("retrieval", "captioning", "qa")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, "test", 5, seed=0, workers=1)
    return str(folder)


@pytest.fixture(scope="module")
def checkpoint(converted):
    return str(converted("clip-vision-bert-shared"))


def arguments(task, world, checkpoint, output, *more):
    sizes = ["--num-frames", "2", "--num-audio-clips", "1", "--batch-size", "2", "--max-new-tokens", "5"]
    where = ["--dataset", world, "--split", "test", "--model", checkpoint, "--output", str(output)]
    return ["evaluate", "--task", task, *where, *sizes, "--metrics", "BLEU-1,CIDEr", "--json", *more]


def printed(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.fixture(scope="module")
def metrics_of_tasks(world, checkpoint):
    """Metrics of all three tasks, computed without the runner."""
    model, processor = ValorForPreTraining.from_pretrained(checkpoint), ValorProcessor.from_pretrained(checkpoint)
    samples = load_samples(world, "test")
    options = {"media": MediaOptions("av", 2, 1), "batch_size": 2}
    beams, greedy = ({"num_beams": number, "max_new_tokens": 5} for number in (3, 1))
    captions = evaluate_captioning(
        model, processor, samples, generate_kwargs=beams, metrics=["BLEU-1", "CIDEr"], **options
    )
    return {
        "retrieval": evaluate_retrieval(model, processor, samples, **options).metrics,
        "captioning": {name: 100 * value for name, value in captions.metrics.items()},
        "qa": evaluate_question_answering(model, processor, samples, generate_kwargs=greedy, **options).metrics,
    }


def test_a_split_of_a_folder_without_splits_is_said_to_be_all_of_it(world, tmp_path, caplog):
    rows = [{"file_name": "a.mp4", "captions": ["a dog"]}, {"file_name": "b.mp4", "captions": ["a cat"]}]
    for name, more in (("whole", {}), ("parts", {"split": "test"})):
        (tmp_path / name).mkdir()
        lines = [json.dumps(row | more) + "\n" for row in rows]
        (tmp_path / name / "metadata.jsonl").write_text("".join(lines))
    for name in (str(tmp_path / "whole"), str(tmp_path / "parts"), world):
        assert read_samples(recipe_for("captioning", name, split="test"))
    assert read_samples(recipe_for("captioning", str(tmp_path / "whole")))
    (record,) = caplog.records
    assert record.message == f"{tmp_path / 'whole'} has no splits: all samples are evaluated as 'test'."


@pytest.mark.parametrize("task", TASKS)
def test_the_command_prints_the_metrics_and_the_settings(task, world, checkpoint, metrics_of_tasks, tmp_path, capsys):
    assert main(arguments(task, world, checkpoint, tmp_path, "--no-cache")) == 0
    result = printed(capsys)
    assert result["metrics"] == metrics_of_tasks[task]
    assert (result["split"], result["checkpoint"], result["modalities"]) == ("test", checkpoint, "av")
    assert result["counts"]["samples"] == 5
    (folder,) = tmp_path.iterdir()
    assert json.loads((folder / "results.json").read_text()) == result
    table = (folder / "results.md").read_text()
    assert "split test: N = 5 samples" in table and checkpoint in table and "modalities av" in table
    assert (folder / "predictions.jsonl").exists() == (task != "retrieval")


KILLED = """
import os, signal, sys
from modeling_valor.cli.main import main
from modeling_valor.evaluation import resumable

for task in sys.argv[1].split(","):
    child = os.fork()
    if child == 0:
        for cache in (resumable.TensorCache, resumable.TextCache):
            def add(self, results, keep=cache.add):
                keep(self, results)
                os.kill(os.getpid(), signal.SIGKILL)
            cache.add = add
        os._exit(main([part.replace("TASK", task) for part in sys.argv[2:]]))
    _, status = os.waitpid(child, 0)
    print(os.WTERMSIG(status), flush=True)
"""


def test_a_killed_evaluation_goes_on_to_the_same_metrics(world, checkpoint, metrics_of_tasks, tmp_path, capsys):
    command = arguments("TASK", world, checkpoint, tmp_path)
    killed = run_warm("-c", KILLED, ",".join(TASKS), *command)
    assert killed.returncode == 0, killed.stderr
    assert killed.stdout.split() == [str(int(signal.SIGKILL))] * 3
    # One batch of samples of each task was kept
    assert sorted(folder.name.split("-")[0] for folder in (tmp_path / "cache").iterdir()) == [
        "answers",
        "captions",
        "samples",
    ]
    for task in TASKS:
        assert main(arguments(task, world, checkpoint, tmp_path)) == 0
        assert printed(capsys)["metrics"] == metrics_of_tasks[task]


def test_a_finished_evaluation_is_read_from_its_cache(world, checkpoint, tmp_path, capsys, monkeypatch):
    assert main(arguments("retrieval", world, checkpoint, tmp_path)) == 0
    first = printed(capsys)
    for name in ("get_video_embeds", "get_audio_embeds", "get_text_embeds"):
        monkeypatch.delattr(f"modeling_valor.modeling_valor.ValorModel.{name}")
    assert main(arguments("retrieval", world, checkpoint, tmp_path)) == 0
    assert printed(capsys) == first
    # The same features serve other groups, and part of the samples
    assert main(arguments("retrieval", world, checkpoint, tmp_path, "--groups", "t-v", "--limit", "3")) == 0
    assert printed(capsys)["counts"]["samples"] == 3


@pytest.mark.parametrize("task", TASKS)
def test_modalities_are_measured_side_by_side_in_one_run(task, world, checkpoint, metrics_of_tasks, tmp_path, capsys):
    assert main(arguments(task, world, checkpoint, tmp_path, "--modalities", "av,v,a")) == 0
    together = printed(capsys)
    (folder,) = tmp_path.glob(f"{task}-*")
    table = (folder / "results.md").read_text()
    alone = {}
    for modality in ("v", "a"):
        assert main(arguments(task, world, checkpoint, tmp_path / modality, "--modalities", modality)) == 0
        alone[modality] = printed(capsys)
    if task == "retrieval":
        expected = metrics_of_tasks[task] | alone["v"]["metrics"] | alone["a"]["metrics"]
        assert together["metrics"] == pytest.approx(expected) and len(expected) == 3 * 2 * 5
        assert together["settings"]["groups"] == ["t-av", "t-v", "t-a"]
        return
    assert together["metrics"] == metrics_of_tasks[task] and "modalities av, v and a, 2 frames, 1 audio clip" in table
    for modality in ("v", "a"):
        assert together["other_modalities"][modality]["metrics"] == alone[modality]["metrics"]
        assert (folder / f"predictions-{modality}.jsonl").exists() and f"| this checkpoint, {modality} | " in table
    entries = json.loads((folder / "model-index.json").read_text())[0]["results"][0]["metrics"]
    assert {"qa": "v/accuracy", "captioning": "v/CIDEr"}[task] in {entry["name"] for entry in entries}


def test_modalities_beside_are_read_from_the_cache_of_those_alone(world, checkpoint, tmp_path, capsys, monkeypatch):
    for modality in ("av", "a"):
        assert main(arguments("qa", world, checkpoint, tmp_path, "--modalities", modality)) == 0
    alone = printed(capsys)
    monkeypatch.delattr("modeling_valor.modeling_valor.ValorModel.encode_conditions")
    assert main(arguments("qa", world, checkpoint, tmp_path, "--modalities", "av,a")) == 0
    assert printed(capsys)["other_modalities"]["a"]["metrics"] == alone["metrics"]


def test_two_processes_of_torchrun_give_the_metrics_of_one(world, checkpoint, metrics_of_tasks, tmp_path):
    launched = ["--standalone", "--nproc-per-node", "2", "-m", "modeling_valor.cli.main"]
    run = torchrun_warm(*launched, *arguments("qa", world, checkpoint, tmp_path, "--device", "cpu"))
    assert run.returncode == 0, run.stderr
    (line,) = [line for line in run.stdout.splitlines() if line.startswith("{")]
    assert json.loads(line)["metrics"] == metrics_of_tasks["qa"]


def test_broken_files_are_named_in_the_results(checkpoint, tmp_path, capsys):
    write_clip(tmp_path / "whole.mp4")
    (tmp_path / "broken.mp4").write_text("no video")
    rows = [{"file_name": name, "captions": ["a bar"]} for name in ("whole.mp4", "broken.mp4")]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    where = ["--dataset", str(tmp_path), "--model", checkpoint, "--output", str(tmp_path / "out")]
    command = ["evaluate", "--task", "captioning", *where, "--metrics", "BLEU-1", "--max-new-tokens", "3"]
    assert main([*command, "--max-failures", "0.5"]) == 0
    text = capsys.readouterr().out
    assert "N = 1 samples" in text and "in no metric: 1." in text and "- broken: " in text
    shutil.rmtree(tmp_path / "out")
    assert main(command) == 1
    printed = capsys.readouterr()
    assert printed.out == text and list((tmp_path / "out").rglob("results.json"))
    line = printed.err.strip().splitlines()[-1]
    assert (
        line.startswith("valor evaluate: 1 of 2 samples could not be read, more than the 5% that") and "broken" in line
    )


def test_what_cannot_be_measured_is_said_in_a_sentence(world, checkpoint, tmp_path, capsys):
    ValorModel.from_pretrained(checkpoint).save_pretrained(tmp_path / "retrieval")
    ValorProcessor.from_pretrained(checkpoint).save_pretrained(tmp_path / "retrieval")
    assert main(arguments("captioning", world, str(tmp_path / "retrieval"), tmp_path)) == 1
    assert "no decoder head" in capsys.readouterr().err
    assert main(arguments("qa", "clotho", checkpoint, tmp_path)) == 1
    assert "Clotho is for retrieval and captioning" in capsys.readouterr().err
    assert main(arguments("qa", "nowhere", checkpoint, tmp_path)) == 1
    assert "nowhere" in capsys.readouterr().err


def test_a_benchmark_of_images_is_captioned_for_its_server(checkpoint, tmp_path, capsys):
    images = []
    for number in (391895, 184613):
        name = f"COCO_val2014_{number:012d}.jpg"
        Image.new("RGB", (40, 30), (number % 256, 90, 30)).save(tmp_path / name)
        images.append({"filename": name, "split": "test", "sentences": [{"raw": "A red square."}]})
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": images}))
    where = ["--dataset", "coco", "--media", str(tmp_path), "--model", checkpoint, "--output", str(tmp_path / "out")]
    assert main(["evaluate", "--task", "captioning", *where, "--metrics", "CIDEr", "--max-new-tokens", "3"]) == 0
    text = capsys.readouterr().out
    assert "MSCOCO, captioning, split test: N = 2 samples" in text and "modalities v, 1 frame, 3 beams" in text
    assert "| VALOR-L, paper, Table 7 |  | 152.5 |" in text
    (file,) = (tmp_path / "out").glob("*/submission.json")
    entries = json.loads(file.read_text())
    assert [entry["image_id"] for entry in entries] == [391895, 184613]
    assert all(entry.keys() == {"image_id", "caption"} for entry in entries)


# ----------------------------------------------------------------------------- what the cache depends on


def test_a_cache_serves_one_version_of_a_checkpoint(world, checkpoint, tmp_path):
    """Two models of different versions, and one recipe: each has its own results, whoever was first."""
    processor = ValorProcessor.from_pretrained(checkpoint)
    models = [ValorForPreTraining.from_pretrained(checkpoint).eval() for _ in range(2)]
    torch.nn.init.normal_(models[1].valor.text_projection.weight)
    torch.nn.init.normal_(models[1].lm_head.decoder.weight)
    samples = load_samples(world, "test")[:3]
    for task in ("retrieval", "captioning"):
        recipe = recipe_for(task, world, num_frames=2, num_audio_clips=1, max_new_tokens=3, metrics=("BLEU-1",))

        def measure(number, cache, recipe=recipe):
            version = Checkpoint("mine", f"version {number}", models[number], processor)
            evaluation = evaluate(recipe, version, samples, cache=cache).evaluation
            return evaluation.similarity.get("t-av", torch.zeros(1)).tolist(), evaluation.predictions

        alone = [measure(number, None) for number in range(2)]
        assert alone[0] != alone[1]
        assert [measure(number, tmp_path) for number in (0, 1, 0, 1)] == alone * 2


SETTINGS_OF_RESULTS = [
    *(("retrieval", setting) for setting in ({"num_frames": 1}, {"num_audio_clips": 2}, {"max_length": 4})),
    *(("captioning", setting) for setting in ({"modalities": "v"}, {"max_new_tokens": 2}, {"num_beams": 3})),
    *(("question_answering", setting) for setting in ({"max_length": 4}, {"max_new_tokens": 2})),
]


@pytest.mark.parametrize(("task", "setting"), SETTINGS_OF_RESULTS)
def test_a_cache_serves_one_setting_of_what_results_depend_on(task, setting, world, checkpoint, tmp_path):
    torch.manual_seed(0)
    model, processor = (
        ValorForPreTraining.from_pretrained(checkpoint).eval(),
        ValorProcessor.from_pretrained(checkpoint),
    )
    torch.nn.init.normal_(model.lm_head.decoder.weight, std=0.1)
    samples = load_samples(world, "test")[:3]

    def measure(cache, **options):
        options = {"num_frames": 2, "num_audio_clips": 1, "max_new_tokens": 4, "num_beams": 1, **options}
        recipe = recipe_for(task, world, metrics=("BLEU-1",), **options)
        evaluation = evaluate(recipe, Checkpoint("mine", "1", model, processor), samples, cache=cache).evaluation
        return evaluation.similarity.get("t-av", torch.zeros(1)).tolist(), evaluation.predictions

    alone = [measure(None), measure(None, **setting)]
    assert alone[0] != alone[1]
    assert [measure(tmp_path), measure(tmp_path, **setting), measure(tmp_path)] == [*alone, alone[0]]


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.safetensors", "model.pt", "config.json", "vocab.txt", "chat_template.jinja"]
)
def test_the_version_of_a_folder_follows_its_weights_and_settings(name, tmp_path):
    versions = set()
    for content in (None, b"one", b"two!"):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        versions |= {version_of(str(tmp_path), None), version_of(str(tmp_path), None)}
    assert len(versions) == 3


@pytest.mark.parametrize("task", TASKS)
def test_media_that_were_rendered_again_are_evaluated_again(task, checkpoint, tmp_path, capsys, monkeypatch):
    decoded = []

    def counted(samples, processor, batches, options):
        decoded.extend(samples[index].id for batch in batches for index in batch)
        return media_batches(samples, processor, batches, options)

    for module in ("retrieve", "generate"):
        monkeypatch.setattr(f"modeling_valor.evaluation.{module}.media_batches", counted)
    folder = tmp_path / "world"
    write_world(folder, "test", 3, seed=0, workers=1)
    write_world(tmp_path / "other", "test", 2, seed=1, workers=1)

    def run(*more):
        decoded.clear()
        assert main(arguments(task, str(folder), checkpoint, tmp_path / "out", *more)) == 0
        return printed(capsys), list(decoded)

    first, every = run()
    assert len(every) == 3 and run() == (first, [])
    for file in (tmp_path / "other").glob("*.mp4"):
        file.replace(folder / file.name)
    second, again = run()
    assert again == every[:2]
    assert run("--no-cache") == (second, every)
    assert task != "retrieval" or second["metrics"] != first["metrics"]


# ----------------------------------------------------------------------------- results


def test_runs_do_not_take_each_others_folders(world, checkpoint, tmp_path, capsys):
    copies = [shutil.copytree(checkpoint, tmp_path / name / "model") for name in ("a", "b")]
    out = tmp_path / "out"

    def run(model, *more):
        assert main(arguments("retrieval", world, str(model), out, *more)) == 0
        capsys.readouterr()
        return {path.parent.name: path.stat().st_mtime_ns for path in out.glob("*/results.json")}

    folders, seen = {}, []
    for model, more in (
        (copies[0], ()),
        (copies[1], ()),
        (copies[0], ("--limit", "3")),
        (copies[0], ("--num-frames", "1")),
        (copies[0], ("--dtype", "bfloat16")),
    ):
        now = run(model, *more)
        assert all(now[name] == time for name, time in folders.items())
        seen += now.keys() - folders.keys()
        folders = now
    assert len(seen) == 5 and all(name.startswith("retrieval-world") for name in seen)
    assert seen[0].rpartition("-")[0] == seen[1].rpartition("-")[0] and "-model-first3-" in seen[2]
    assert run(copies[0]).keys() == folders.keys()  # the same run again has the same folder


@pytest.mark.parametrize("task", TASKS)
def test_a_run_in_which_everything_failed_is_an_error_and_leaves_earlier_results(task, checkpoint, tmp_path, capsys):
    write_clip(tmp_path / "a.mp4")
    question = {"question": "what moves?", "answer": "a bar"}
    row = {"file_name": "a.mp4", "captions": ["a bar"], "qa": [question]}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    command = arguments(task, str(tmp_path), checkpoint, tmp_path / "out")
    assert main(command) == 0
    before = {path: path.read_bytes() for path in tmp_path.glob("out/*/results.*")}
    assert before
    capsys.readouterr()
    (tmp_path / "a.mp4").write_bytes(b"broken")
    assert main(command) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "could be read" in error and "a.mp4" in error
    assert {path: path.read_bytes() for path in tmp_path.glob("out/*/results.*")} == before


REFUSED = {
    "--metrics CIDER": "no caption metric 'CIDER'; choose from BLEU-1",
    "--metrics ,": "no caption metric ''",
    "--groups t-va": "not in 't-va'",
    "--groups t-a --modalities v": "needs more than the modalities 'v'",
    "--device cuda:99": "this machine has no such device. Available: cpu",
    "--device gpu": "this machine has no such device",
    "--report page.txt": "page.txt is no report",
    "--report .": "is a folder",
    "--model-card page.txt/README.md": "Nothing can be written to",
    "--model-card binary.md": "is no model card",
    "--output page.txt": "Nothing can be written to page.txt",
    "--model .": "has no config.json",
    "--model ./nowhere/model": "no checkpoint at ./nowhere/model",
}


@pytest.mark.parametrize("given", REFUSED)
def test_what_is_mistyped_is_refused_before_anything_is_decoded(given, checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.txt").write_text("my notes")
    (tmp_path / "binary.md").write_bytes(b"---\n\xff: [\n---\n")
    monkeypatch.setattr("modeling_valor.evaluation.runner.load_and_evaluate", None)  # would be a TypeError
    task = "retrieval" if "--groups" in given else "captioning"
    command = ["evaluate", "--task", task, "--dataset", "world", "--model", checkpoint]
    assert main([*command, *given.split()]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("valor evaluate: ") and REFUSED[given] in line
    assert (tmp_path / "page.txt").read_text() == "my notes"


@pytest.mark.parametrize(("name", "number"), [("limit", -1), ("num_frames", 0), ("num_beams", 0)])
def test_numbers_below_one_are_refused(name, number, capsys):
    with pytest.raises(ValueError, match=f"`{name}` must be at least 1, got {number}"):
        recipe_for("captioning", "world", **{name: number})
    flag = {"num_beams": "--beams"}.get(name, f"--{name.replace('_', '-')}")
    command = ["evaluate", "--task", "captioning", "--dataset", "world", "--model", "."]
    assert main([*command, flag, str(number)]) == 2
    assert f"'{flag}': Input should be greater than or equal to 1" in capsys.readouterr().err


@pytest.mark.parametrize(("task", "what"), [("retrieval", "caption"), ("qa", "question with an answer")])
def test_data_without_the_texts_of_a_task_are_refused_before_anything_is_decoded(task, what, tmp_path, capsys):
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "gone.mp4", "title": "a dog"}')
    assert main(arguments(task, str(tmp_path), "owner/never-loaded", tmp_path / "out")) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"has a {what}" in line and "title" in line


def test_results_are_printed_even_where_they_cannot_be_written(world, checkpoint, tmp_path, capsys, monkeypatch):
    def full(self, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    assert main(arguments("retrieval", world, checkpoint, tmp_path)) == 1
    output = capsys.readouterr()
    assert json.loads(output.out)["counts"]["samples"] == 5
    line = output.err.splitlines()[-1]
    assert str(tmp_path) in line and "cannot be written to: No space left on device" in line


def test_ranks_of_every_query_are_saved(world, checkpoint, tmp_path, capsys):
    assert main(arguments("retrieval", world, checkpoint, tmp_path, "--groups", "t-av,v-a")) == 0
    metrics = printed(capsys)["metrics"]
    (file,) = tmp_path.glob("*/ranks.jsonl")
    entries = [json.loads(line) for line in file.read_text().splitlines()]
    for direction in ("t-av", "av-t", "v-a", "a-v"):
        ranks = [entry["rank"] for entry in entries if entry["direction"] == direction]
        assert sum(ranks) / len(ranks) == pytest.approx(metrics[f"{direction}/MeanR"])
        assert 100 * ranks.count(1) / len(ranks) == pytest.approx(metrics[f"{direction}/R@1"])
    captions = {sample.id: sample.captions for sample in load_samples(world, "test")}
    for entry in entries:
        if entry["direction"] == "t-av":
            assert entry["query"] in map(clean_caption, captions[entry["right"]])
        if entry["direction"] == "av-t":
            assert entry["right"] in map(clean_caption, captions[entry["query"]])
        scores = dict(map(tuple, entry["top"]))
        assert len(scores) == 3 and list(scores.values()) == sorted(scores.values(), reverse=True)
        assert entry["rank"] != 1 or scores[entry["right"]] == entry["score"] == max(scores.values())


def test_settings_are_those_in_force(world, checkpoint, tmp_path, capsys):
    """Where a number is left to the checkpoint, results have the checkpoint's number."""
    where = ["--dataset", world, "--model", checkpoint, "--output", str(tmp_path), "--json", "--limit", "1"]
    assert main(["evaluate", "--task", "retrieval", *where]) == 0
    result = printed(capsys)
    processor = ValorProcessor.from_pretrained(checkpoint)
    assert result["settings"]["num_frames"] == processor.video_processor.num_frames == 2
    assert result["settings"]["num_audio_clips"] == processor.feature_extractor.num_audio_clips == 1
    assert result["versions"].keys() == {"modeling-valor", "transformers", "torch"}
    (table,) = tmp_path.glob("*/results.md")
    assert "2 frames, 1 audio clip" in table.read_text()


# ----------------------------------------------------------------------------- recipes


def test_every_benchmark_has_a_recipe_and_the_papers_metrics():
    tasks = {(task, name) for name, benchmark in BENCHMARKS.items() for task in benchmark.tasks}
    without_metrics = {("retrieval", "msvd")}  # not in the paper
    assert set(PAPER_METRICS) == tasks - without_metrics
    for task, name in tasks:
        recipe = recipe_for(task, name)
        assert recipe.split in BENCHMARKS[name].splits
        assert ("v" in recipe.modalities) <= (recipe.num_frames is not None)
        assert recipe.num_beams == (3 if task == "captioning" else 1)


def test_recipes_take_other_modalities_with_their_group():
    assert recipe_for("retrieval", "valor32k").groups == ("t-av",)
    assert recipe_for("retrieval", "valor32k", modalities="a").groups == ("t-a",)
    assert recipe_for("retrieval", "folder", modalities="v", num_frames=3).num_frames == 3
    assert recipe_for("captioning", "valor32k", modalities="v,a").other_modalities == ("a",)
    for unknown in ("va", "av,av", ""):
        with pytest.raises(ValueError, match="pass av, v or a"):
            recipe_for("captioning", "valor32k", modalities=unknown)
    assert recipe_for("retrieval", "didemo").max_length > 60 and BENCHMARKS["didemo"].paragraph
    with pytest.raises(ValueError, match="must be one of retrieval"):
        recipe_for("dancing", "folder")


def test_paper_figures_stand_in_the_paper(shared):
    """Each row of metrics is one line of the paper's tables; the text has lost the slashes between recalls."""
    lines = [re.sub(r"[\s*]", "", line) for line in (shared / "paper.txt").read_text().splitlines()]
    for (task, name), rows in PAPER_METRICS.items():
        for row in rows:
            model = "VALOR" + ("L" if "VALOR-L" in row.model else "B") + ("DSL" if "DSL" in row.model else "")
            values = "".join(f"{value:.2f}" if name == "vqav2" else f"{value:.1f}" for value in row.metrics.values())
            found = [line for line in lines if line.startswith(model) and values in line]
            assert found, (task, name, row)


# ----------------------------------------------------------------------------- outputs


def report_of(task, dataset, metrics, predictions=(), **counts):
    evaluation = Evaluation(metrics, {"samples": 2, **counts}, [Failure("x", "gone")], list(predictions))
    return Report(recipe_for(task, dataset), Checkpoint("models/mine", "c0ffee", None, None), evaluation, [])


RETRIEVAL = {
    f"{group}/{name}": 50.0 for group in ("t-av", "av-t") for name in ("R@1", "R@5", "R@10", "MedianR", "MeanR")
}
SIZES = {"texts": 4, "t-av/queries": 4, "t-av/candidates": 2}


def test_tables_have_the_papers_metrics_below(capsys):
    lines = markdown(report_of("retrieval", "valor32k", RETRIEVAL, **SIZES)).splitlines()
    assert lines[0] == (
        "VALOR-32K, retrieval, split test: N = 2 samples, 4 texts. Checkpoint models/mine (c0ffee), modalities av, "
        "8 frames, 2 audio clips."
    )
    assert "| text to video with audio (t-av) | 4 | 50.0 | 50.0 | 50.0 | 50.0 | 50.0 |" in lines
    assert "| video with audio to text (av-t) | 2 | 50.0 | 50.0 | 50.0 | 50.0 | 50.0 |" in lines
    assert "| VALOR-B, paper, Table 3 |  | 67.9 | 89.7 | 94.4 |  |  |" in lines
    captions = markdown(report_of("captioning", "audiocaps", {"BLEU-4": 0.25, "CIDEr": 0.7}))
    assert "| this checkpoint | 2 | 25.0 | 70.0 |" in captions and "| 27.0 | 74.1 |" in captions


def test_submissions_have_the_form_of_their_servers():
    captions = [{"id": "abc_000001_000011", "prediction": "a dog"}]
    assert submission(report_of("captioning", "vatex", {}, captions)) == {"abc_000001_000011": "a dog"}
    answers = [{"id": "COCO_test2015_000000262144", "question_id": "262144000", "prediction": "two"}]
    assert submission(report_of("question_answering", "vqav2", {}, answers)) == [
        {"question_id": 262144000, "answer": "two"}
    ]
    assert submission(report_of("captioning", "msvd", {}, captions)) is None
    with pytest.raises(ValueError, match="does not end with one"):
        submission(report_of("captioning", "coco", {}, [{"id": "first", "prediction": "a dog"}]))


def test_a_model_card_gets_figures_in_place_of_earlier_ones(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("---\nlicense: mit\n---\n# Mine\n")
    for value in (0.5, 0.75):
        update_model_card(path, report_of("captioning", "audiocaps", {"CIDEr": value}))
    update_model_card(path, report_of("retrieval", "valor32k", RETRIEVAL, **SIZES))
    card = ModelCard.load(path)
    assert card.data.license == "mit" and card.text.strip() == "# Mine"
    found = {(entry.dataset_name, entry.metric_name): entry.metric_value for entry in card.data.eval_results}
    assert found[("AudioCaps", "CIDEr")] == 75.0 and found[("VALOR-32K", "t-av/R@1")] == 50.0
    assert len(found) == len(card.data.eval_results) == 7
    assert {entry.dataset_split for entry in card.data.eval_results} == {"test"}


def test_entries_of_model_cards_say_what_was_seen_and_heard():
    (entry,) = eval_results(report_of("question_answering", "music_avqa", {"accuracy": 76.6, "accuracy/Audio": 1.0}))
    assert entry.task_type == "audiovisual-question-answering" and entry.metric_value == 76.6
    assert entry.dataset_args == {
        "modalities": "av",
        "num_frames": 8,
        "num_audio_clips": 8,
        "num_beams": 1,
        "samples": 2,
    }
