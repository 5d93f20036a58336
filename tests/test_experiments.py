# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The experiments of examples/experiments: their catalogue, resuming, tables from results, and real data."""

import io
import itertools
import json
import shutil
import sys
import tarfile
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image


sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples" / "experiments"))

import harness
import real_data
import report
import run_experiments
from catalogue import EXPERIMENTS, MODALITY_GROUPS, SCALES, Experiment, Finding, Measure, Scale, Stage, Variant
from harness import Place, config_of, prepare_model, recipe_of, run_variant, settings_of

from modeling_valor import ValorConfig
from modeling_valor.data.samples import Question, Sample
from modeling_valor.training.multitask import ValorForMultitask
from modeling_valor.training.run import build_source, parse_arguments
from modeling_valor.training.trainer import ValorTrainer


VARIANTS = [(e, v) for e in EXPERIMENTS.values() for v in e.variants]

MINIATURE = Scale(
    "miniature",
    train_clips=4,
    test_clips=4,
    portraits=8,
    steps={"texts": 1, "portraits": 1, "pretraining": 2, "downstream": 2, "finetuning": 1, "real": 2},
    finetuned=("question_answering",),
    batch_size=2,
    num_frames=2,
    image_size=32,
    model={
        "projection_dim": 16,
        "text_config": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
        "audio_config": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
        "vision_config": {
            "image_size": 32,
            "embed_dim": 16,
            "depths": [1],
            "num_heads": [2],
            "window_size": [2, 2, 2],
        },
    },
    arguments={"bf16": False, "use_cpu": True, "save_steps": 1, "logging_steps": 1},
    workers=0,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiments")
    return Place(folder / "work", folder / "results")


# --- The catalogue ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    return prepare_model(Place(folder, folder), SCALES["small"], "world")


@pytest.mark.parametrize(("experiment", "variant"), VARIANTS, ids=lambda value: getattr(value, "name", None))
def test_every_variant_has_a_valid_configuration_and_model(experiment, variant, small_model):
    config = config_of(variant, small_model)
    with torch.device("meta"):
        model = ValorForMultitask(config)
    assert (config.text_encoder_config is not None) == ("not shared" in variant.name)
    assert 1e6 < model.num_parameters() < 3e6
    for name, value in variant.config.items():
        assert name == "text_encoder_config" or getattr(config, name) == value


@pytest.mark.parametrize("scale", SCALES.values(), ids=lambda scale: scale.name)
@pytest.mark.parametrize(("experiment", "variant"), VARIANTS, ids=lambda value: getattr(value, "name", None))
def test_every_stage_is_a_recipe_of_the_scripts(experiment, variant, scale, tmp_path, place, monkeypatch):
    monkeypatch.setattr("modeling_valor.training.data.load_samples", lambda **kwargs: [])
    config = ValorConfig(**variant.config if "text_encoder_config" not in variant.config else {})
    for stage in variant.stages:
        recipe = recipe_of(experiment, stage, scale, place, seed=3) | {"output_dir": str(tmp_path), "bf16": False}
        path = tmp_path / "recipe.yaml"
        path.write_text(json.dumps(recipe))
        _, data, training = parse_arguments([str(path)])
        assert training.max_steps == scale.steps[stage.steps] and training.seed == 3
        for entry in data.sources:
            source = build_source(dict(entry))
            config.check_groups(source.alignment_groups or [], "alignment_groups")
            config.check_groups(source.captioning_groups or [], "captioning_groups")


def test_modality_groups_are_those_of_table_8():
    # The rows of the paper's table: T-V, T-A, T-AV, V-A, A-TV, V-TA
    marks = {"M1": "100000", "M2": "010000", "M3": "001000", "M4": "101000", "M5": "011000", "M6": "111000"}
    order = ("t-v", "t-a", "t-av", "v-a", "a-tv", "v-ta")
    for name, row in {**marks, "M7": "111111"}.items():
        assert set(MODALITY_GROUPS[name]) == {group for group, mark in zip(order, row, strict=True) if mark == "1"}


def test_findings_compare_variants_and_measures_that_exist():
    for experiment in EXPERIMENTS.values():
        names = {variant.name: variant for variant in experiment.variants}
        columns = {measure.column: measure for measure in experiment.measures}
        assert len(names) == len(experiment.variants) and len(columns) == len(experiment.measures)
        for column, *rows in itertools.chain.from_iterable(finding.comparisons for finding in experiment.findings):
            for row in rows:
                assert names[row].own(columns[column]) is not None
        for variant in experiment.variants:
            assert variant.columns is None or set(variant.columns) <= set(columns)


def test_pretraining_reads_only_what_its_groups_need():
    modalities = {
        variant.name: variant.stages[0].sources[0]["modalities"] for variant in EXPERIMENTS["table9"].variants
    }
    assert modalities == {"M1": "v", "M2": "a", "M3": "av", "M4": "av", "M5": "av", "M6": "av"}


# --- Running ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_experiment():
    """Two variants with one beginning, and every kind of measure of the world."""
    first = Stage(({"name": "both", "task": "pretraining", "dataset": "world", "modalities": "av", "neighbours": 2},))
    second = Stage(({"name": "words", "task": "captioning", "dataset": "world", "modalities": "v"},), "downstream")
    measures = (
        Measure("T-AV", "retrieval", "t-av/R@1"),
        Measure("T-V", "retrieval", "t-v/R@1"),
        Measure("CIDEr", "captioning", "CIDEr"),
        Measure("QA", "question_answering", "accuracy", finetuned=True),
        Measure("T-A, fine-tuned", "retrieval", "t-a/R@1", "a", finetuned=True),
    )
    return Experiment("tiny", "Tiny", (Variant("one", (first,)), Variant("two", (first, second))), measures)


@pytest.fixture(scope="module")
def tiny_results(tiny_experiment, place):
    harness.prepare_world(place, MINIATURE, workers=1)
    return [run_variant(tiny_experiment, variant, MINIATURE, place) for variant in tiny_experiment.variants]


def test_a_variant_is_trained_measured_and_written(tiny_results, tiny_experiment):
    first, second = (json.loads(path.read_text()) for path in tiny_results)
    assert first["metrics"].keys() == {
        "world/retrieval/av",
        "world/captioning/av",
        "world/question_answering/av/finetuned",
    }
    assert {"t-av/R@1", "t-v/R@1"} <= first["metrics"]["world/retrieval/av"].keys()
    assert "T-A, fine-tuned" not in report.table(
        tiny_experiment, MINIATURE, report.values_of(tiny_experiment, MINIATURE, [first])
    )
    # The second variant begins with the first one's stage: two more, of which one is for questions
    assert len(first["training_seconds"]) == 2 and len(second["training_seconds"]) == 3
    assert first["training_seconds"][0] == second["training_seconds"][0]


def test_all_variants_start_from_one_vision_encoder_and_one_bert(tiny_results, tiny_experiment, place):
    vision = harness.prepare_vision(place, MINIATURE)
    assert yaml.safe_load((vision / "recipe.yaml").read_text())["sources"][0]["dataset"].endswith("/portraits")
    recipes = [yaml.safe_load(path.read_text()) for path in (place.work / "stages").glob("*/recipe.yaml")]
    text = harness.prepare_text(place, MINIATURE, tiny_experiment)
    new = [recipe for recipe in recipes if "config_name" in recipe and recipe["output_dir"] != str(vision)]
    assert new and all((recipe["vision_model"], recipe["text_model"]) == (str(vision), str(text)) for recipe in new)
    assert not any("vision_model" in recipe for recipe in recipes if "model_name_or_path" in recipe)


def test_what_has_run_is_not_run_again_unless_its_settings_changed(tiny_results, tiny_experiment, place, monkeypatch):
    class Trains(Exception):
        pass

    def train(*args):
        raise Trains

    monkeypatch.setattr(harness, "train", train)
    variant = tiny_experiment.variants[0]
    assert run_variant(tiny_experiment, variant, MINIATURE, place) == tiny_results[0]
    settings = settings_of(tiny_experiment, variant, replace(MINIATURE, workers=9))
    assert settings == json.loads(tiny_results[0].read_text())["settings"]
    for changed in (
        {"scale": replace(MINIATURE, steps={**MINIATURE.steps, "pretraining": 3})},
        {"scale": replace(MINIATURE, test_clips=3)},
        {"scale": MINIATURE, "seed": 1},
        {"scale": MINIATURE, "max_steps": 1},
    ):
        with pytest.raises(Trains):
            run_variant(tiny_experiment, variant, place=place, **changed)


def test_a_stage_that_was_killed_goes_on_from_its_checkpoint(tiny_experiment, place, monkeypatch):
    """After the second of three steps the run ends; the weights are those of a run that did not."""
    stage, model = tiny_experiment.variants[0].stages[0], prepare_model(place, MINIATURE, "world")
    recipe = recipe_of(tiny_experiment, stage, MINIATURE, place, seed=5, max_steps=3)
    config = config_of(tiny_experiment.variants[0], model)
    whole = harness.train(place, MINIATURE, model, recipe, config, {})
    weights = (whole / "model.safetensors").read_bytes()
    shutil.rmtree(whole)
    steps = ValorTrainer.training_step

    def dying(self, *args, **kwargs):
        if self.state.global_step == 2:
            raise KeyboardInterrupt
        return steps(self, *args, **kwargs)

    monkeypatch.setattr(ValorTrainer, "training_step", dying)
    with pytest.raises(KeyboardInterrupt):
        harness.train(place, MINIATURE, model, recipe, config, {})
    assert not (whole / "done.json").exists() and (whole / "checkpoint-2").is_dir()
    monkeypatch.setattr(ValorTrainer, "training_step", steps)
    assert harness.train(place, MINIATURE, model, recipe, config, {}) == whole
    assert (whole / "model.safetensors").read_bytes() == weights
    assert not list(whole.glob("checkpoint-*"))
    assert json.loads((whole / "done.json").read_text())["seconds"] is None


def test_guessed_answers_are_the_commonest_of_the_same_question():
    def sample(name, *pairs):
        return Sample(name, questions=tuple(Question(text, (answer,)) for text, answer in pairs))

    train = [sample("1", ("is it red?", "no")), sample("2", ("is it red?", "no"), ("is it big?", "yes"))]
    # "no", "yes"; an unknown question by its beginning, "no", and by all answers, "no"
    test = [sample("3", ("is it red?", "no"), ("is it big?", "no"), ("is it old?", "no"), ("what is it?", "star"))]
    assert harness.guess_answers(train, test) == 50.0


# --- Reporting --------------------------------------------------------------------------------------------------------


@pytest.fixture
def paper():
    """An experiment of three variants and two measures, as it could stand in the catalogue."""
    measures = (Measure("R", "retrieval", "t-av/R@1"), Measure("C", "captioning", "CIDEr"))
    finding = Finding("B is better than A.", (("R", "B", "A"), ("C", "B", "A")))
    rows = (Variant("A", ()), Variant("B", ()), Variant("C", (), columns=("R",)))
    return Experiment("paper", "Paper", rows, measures, (finding, Finding("All is well.")))


def write_result(place, experiment, name, seed, recall, cider, **changes):
    variant = next(variant for variant in experiment.variants if variant.name == name)
    path = place.result(experiment, MINIATURE, variant, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "variant": name,
        "seed": seed,
        "metrics": {"world/retrieval/av": {"t-av/R@1": recall}, "world/captioning/av": {"CIDEr": cider}},
        "settings": settings_of(experiment, variant, MINIATURE),
        "device": "slide rule",
        "training_seconds": [10, 20],
    }
    path.write_text(json.dumps({**content, **changes}))


def rows_of(text):
    return [line for line in text.splitlines() if line.startswith("|")]


def test_tables_hold_means_of_seeds_and_say_what_has_not_run(tmp_path, paper):
    place = Place(tmp_path / "work", tmp_path / "results")
    write_result(place, paper, "A", 0, 10.0, 0.5)
    write_result(place, paper, "A", 1, 20.0, 0.7)
    write_result(place, paper, "C", 0, 16.0, 0.0)
    write_result(place, paper, "B", 0, 99.0, 9.0, settings={})  # of older settings
    text = report.section(paper, MINIATURE, place, tmp_path / "plots", tmp_path / "page.md")
    assert rows_of(text) == [
        "| | R | C |",
        "| --- | ---: | ---: |",
        "| A | 15.0 ± 7.1 | **60.0** ± 14.1 |",
        "| B | not run yet | not run yet |",
        "| C | **16.0** | - |",
    ]
    assert "2 of 3 variants have run, 3 runs in all, on slide rule; training took 30 to 30 s" in text
    assert "- B is better than A. *Not run yet.*" in text and "- All is well. *See the table.*" in text


def test_findings_are_judged_by_means_and_their_errors(paper):
    comparisons = paper.findings[0].comparisons

    def judge(a, b, other_a=(1.0,), other_b=(2.0,)):
        values = {("A", "R"): a, ("B", "R"): b, ("A", "C"): other_a, ("B", "C"): other_b}
        return report.verdict(comparisons, values)

    assert judge([1.0], [2.0]) == "Holds: 2 of 2 comparisons come out as in the paper. One seed only."
    assert judge([2.0], [1.0], [2.0], [1.0]).startswith("Does not hold: 0 of 2")
    assert "the other way: R: B 1.0, A 2.0" in judge([2.0], [1.0])
    assert "unclear: R: B 1.0, A 1.0" in judge([1.0], [1.0])
    # Standard deviation 1 in both: the difference 1.5 is below twice the error, 2 * sqrt(1/3 + 1/3) = 1.63
    unclear = judge([1.0, 2.0, 3.0], [2.5, 3.5, 4.5])
    assert "unclear: R: B 3.5, A 2.0" in unclear and unclear.startswith("Holds in part: 1 of 2")
    assert judge([1.0, 2.0, 3.0], [2.7, 3.7, 4.7]).startswith("Holds: 2 of 2")


def test_the_page_is_filled_between_its_markers_only(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table8 small -->\nold\n<!-- end -->\nafter\n")
    place = Place(tmp_path, tmp_path / "results")
    report.write_page(page, place)
    once = page.read_text()
    assert once.startswith("before\n<!-- table8 small -->\n") and once.endswith("<!-- end -->\nafter\n")
    assert "old" not in once and "| M7 | not run yet |" in once
    report.write_page(page, place)
    assert page.read_text() == once
    page.write_text("<!-- table99 small -->\n<!-- end -->\n")
    with pytest.raises(ValueError, match="table99"):
        report.write_page(page, place)


def test_the_repository_page_is_what_its_results_say(tmp_path):
    """No number in docs/experiments.md that no result stands for."""
    page = tmp_path / "docs" / "experiments.md"
    page.parent.mkdir()
    page.write_text(run_experiments.PAGE.read_text())
    report.write_page(page, Place(tmp_path, run_experiments.RESULTS))
    assert rows_of(page.read_text()) == rows_of(run_experiments.PAGE.read_text())


def test_plots_show_what_has_run(tmp_path, paper):
    pytest.importorskip("matplotlib")
    plot = tmp_path / "plot.png"
    assert report.draw(paper, {("A", "R"): [1.0, 2.0], ("B", "R"): [], ("C", "R"): [3.0]}, plot)
    with Image.open(plot) as image:
        assert image.format == "PNG"


# --- Real data --------------------------------------------------------------------------------------------------------


def sound_bytes(seed: int, pitch: float) -> bytes:
    rng = np.random.default_rng(seed)
    times = np.arange(4000) / 8000
    samples = 8000 * np.sin(2 * np.pi * pitch * times) + 300 * rng.standard_normal(4000)
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


def image_bytes(seed: int, color: tuple[int, int, int]) -> bytes:
    noise = np.random.default_rng(seed).integers(-20, 20, (12, 12, 3))
    file = io.BytesIO()
    Image.fromarray(np.clip(noise + np.array(color), 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Every set in small: two classes, four files to train on and two to test, told apart by pitch and by color."""
    folder, files = tmp_path_factory.mktemp("sets"), {}
    for name, kind in (("esc10_vorbis", "wav"), ("animals", "wav"), ("cifar10", "png"), ("flickr1k", "png")):
        rows = []
        for index in range(12):
            label, split = ("cat", "dog")[index % 2], "train" if index < 8 else "test"
            content = (
                sound_bytes(index, (300, 1500)[index % 2])
                if kind == "wav"
                else image_bytes(index, ((200, 0, 0), (0, 0, 200))[index % 2])
            )
            row = {"file": f"{name}/{label}/{index}.{kind}", "split": split}
            if name == "flickr1k":
                row["captions"] = [f"one {label} in the sun", f"a {label} runs"]
            else:
                row |= {"label": label, "caption": f"a {label} is here"}
            files[row["file"]] = content
            rows.append(row)
        (folder / f"{name}_manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        with tarfile.open(folder / f"{name}.tar", "w") as tar:
            for row in [*rows, {"file": f"{name}/../../escaped.txt"}, {"file": f"{name}/unnamed.txt"}]:
                member = tarfile.TarInfo(row["file"])
                content = files.get(row["file"], b"unwanted")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    pairs = [
        {
            "image": f"cifar10/{label}/{index}.png",
            "audio": f"animals/{label}/{index}.wav",
            "label": label,
            "captions": [real_data.PAIR_PROMPTS[label]],
            "split": "train" if index < 8 else "test",
        }
        for index in range(12)
        for label in [("cat", "dog")[index % 2]]
    ]
    (folder / "av_pairs_manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    return folder


@pytest.fixture(scope="module")
def real_place(sets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    real_data.prepare_real_data(sets, folder / "work" / "real-data")
    return Place(folder / "work", folder / "results")


def test_archives_become_folders_of_what_manifests_name(sets, real_place):
    folder = real_place.work / "real-data"
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert not list(real_place.work.parent.rglob("escaped.txt")) and "animals/unnamed.txt" not in names
    assert len([name for name in names if name.endswith((".wav", ".png"))]) == 48
    sample, *_ = samples = real_data.load_samples(folder / "esc10.jsonl", "test")
    assert len(samples) == 4 and sample.video is None and Path(sample.audio).read_bytes().startswith(b"RIFF")
    assert sample.captions == ("a cat is here", "the sound of cat", "we hear that a cat is here", "a recording of cat")
    pair = real_data.load_samples(folder / "pairs.jsonl", "train")[1]
    assert (Path(pair.video).name, Path(pair.audio).name) == ("1.png", "1.wav")
    assert real_data.read_labels(folder / "pairs.jsonl", "test") == ["cat", "dog"] * 2
    photograph = real_data.load_samples(folder / "flickr.jsonl", "train")[0]
    assert photograph.audio is None and photograph.captions == ("one cat in the sun", "a cat runs")


def test_data_that_is_not_there_is_named(sets, tmp_path):
    with pytest.raises(ValueError, match=r"esc10_vorbis_manifest\.jsonl"):
        real_data.prepare_real_data(tmp_path, tmp_path / "out")
    manifest = sets / "esc10_vorbis_manifest.jsonl"
    (tmp_path / manifest.name).write_text(manifest.read_text())
    with pytest.raises(ValueError, match=r"esc10_vorbis\.tar does not exist"):
        real_data.prepare_real_data(tmp_path, tmp_path / "out")
    (tmp_path / manifest.name).write_text('{"file": "../../outside.wav", "split": "train"}\n')
    with pytest.raises(ValueError, match="outside of its archive"):
        real_data.prepare_real_data(tmp_path, tmp_path / "out")


def test_a_model_of_real_data_trains_and_is_measured(real_place):
    """All sets jointly, two steps; the vocabulary is the captions' own."""
    experiment = EXPERIMENTS["real-data"]
    variant = next(variant for variant in experiment.variants if variant.name == "all jointly")
    metrics = json.loads(run_variant(experiment, variant, MINIATURE, real_place).read_text())["metrics"]
    assert len(metrics) == 11
    assert metrics["esc10/classes/a"].keys() == {"accuracy", "mAP"}
    assert metrics["flickr/retrieval/v"]["t-v/R@10"] == 100.0  # of four photographs
    tokenizer = harness.ValorProcessor.from_pretrained(prepare_model(real_place, MINIATURE, "real-data")).tokenizer
    assert tokenizer.tokenize("a recording of cat") == ["a", "recording", "of", "cat"]


def test_baselines_tell_what_is_easily_told(real_place):
    pytest.importorskip("sklearn")
    from baselines import measure_baselines

    metrics = measure_baselines(real_place.work / "real-data")
    for name in ("esc10/classes/a", "cifar10/classes/v", "pairs/classes/av"):
        assert metrics["baseline"][name] == {"accuracy": 100.0, "mAP": 100.0}
        assert metrics["chance"][name]["accuracy"] == 50.0
    measured = {measure.run: measure.metric for measure in EXPERIMENTS["real-data"].measures}
    assert all(metric in metrics[kind][run] for run, metric in measured.items() for kind in metrics)


def test_average_precision_against_a_hand_calculation():
    # Ranked: right, wrong, right: (1/1 + 2/3) / 2
    assert real_data.average_precision(np.array([3.0, 2.0, 1.0]), np.array([True, False, True])) == pytest.approx(
        5 / 6
    )
    # Equal scores: the wrong one first
    assert real_data.average_precision(np.zeros(2), np.array([True, False])) == 0.5
    scores = np.array([[2.0, 1.0], [2.0, 3.0], [5.0, 4.0]])
    assert real_data.class_figures(scores, ["a", "b"], ["a", "b", "b"])["accuracy"] == pytest.approx(200 / 3)


def test_chance_of_average_precision_is_the_mean_over_all_orders():
    pytest.importorskip("sklearn")
    from baselines import expected_precision

    for relevant, count in ((1, 4), (2, 5), (3, 3)):
        truth = np.arange(count) < relevant
        orders = [truth[list(order)] for order in itertools.permutations(range(count))]
        precisions = [real_data.average_precision(-np.arange(count, dtype=float), order) for order in orders]
        assert expected_precision(relevant, count) == pytest.approx(np.mean(precisions))


def test_the_shared_sets_are_read(shared, tmp_path):
    """The manifests of the real data as they are, without extracting all of it."""
    data = shared / "data"
    counts = {
        "esc10": (240, 80),
        "animals": (700, 87),
        "cifar10": (10000, 2000),
        "flickr": (800, 100),
        "pairs": (1635, 324),
    }
    for name, (train, test) in counts.items():
        rows = [real_data.row_of(name, row) for row in real_data.read_manifest(data, real_data.SETS[name])]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert [len(real_data.load_samples(path, split)) for split in ("train", "test")] == [train, test]
        if name != "flickr":
            assert set(real_data.read_labels(path, "test")) <= real_data.prompts_of(path).keys()
    some = {row["file"] for row in real_data.read_manifest(data, "animals")[:3]}
    real_data._extract(data / "animals.tar", some, tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.opus")} == some
