# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The recipes against the arguments that they set, the table of benchmarks and each other; nothing is trained or read."""

import inspect
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from helpers.training_world import small_processor, small_samples, write_checkpoint
from modeling_valor import ValorConfig, ValorForRetrieval
from modeling_valor.data.loading import LoadingOptions
from modeling_valor.data.mixture import Mixture, Source
from modeling_valor.data.readers.benchmarks import BENCHMARKS
from modeling_valor.evaluation.options import group_keywords
from modeling_valor.evaluation.paper import PAPER_METRICS
from modeling_valor.recipes import find_recipe, recipe_names
from modeling_valor.training import ValorTrainer, ValorTrainingArguments
from modeling_valor.training.arguments import SelfCriticalArguments
from modeling_valor.training.run import EVALUATIONS, ModelArguments, build_model, parse_arguments


EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
RECIPES = {name: find_recipe(name) for name in recipe_names()}
PRETRAINING = [
    "pretrain_valor_base",
    "pretrain_valor_large",
    "valor_tiny",
    "valor_tiny_lessons",
    "valor_tiny_portraits",
]
SELF_CRITICAL = ["coco_captioning_scst", "vatex_captioning_scst"]
DOWNSTREAM = [name for name in RECIPES if name not in PRETRAINING]
GPUS = 8
"""The paper's (section 5.1.3); its batch sizes are those of all together."""

TASKS = ("retrieval", "captioning", "question_answering")


def read(name: str) -> dict:
    return yaml.safe_load(RECIPES[name].read_text(encoding="utf-8"))


def task_of(name: str) -> str:
    return next((task for task in TASKS[:2] if task in name), TASKS[2])


def parse(name: str, *more: str):
    classes = [SelfCriticalArguments] if name in SELF_CRITICAL else []
    return parse_arguments([str(RECIPES[name]), "--use_cpu", "--output_dir", "unused", *more], *classes)


def test_a_recipe_is_found_by_its_name_and_by_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "mine.yaml"
    own.write_text("learning_rate: 0.5")
    assert find_recipe("mine.yaml").read_text() == own.read_text()
    assert find_recipe("msrvtt_qa") == find_recipe("msrvtt_qa.yaml") == RECIPES["msrvtt_qa"]
    assert (EXAMPLES / "recipes" / "msrvtt_qa.yaml").resolve() == RECIPES["msrvtt_qa"].resolve()  # where they were
    with pytest.raises(ValueError, match=r"no recipe recipes/msrvtt_qb\.yaml: .* such as msrvtt_qa"):
        find_recipe("recipes/msrvtt_qb.yaml")


def test_a_wrong_argument_is_one_sentence_with_the_one_that_was_meant(tmp_path, capsys):
    with pytest.raises(ValueError, match=r"no argument is called --eval_datset \(similar: eval_dataset\)"):
        parse_arguments(["msrvtt_qa", "--eval_datset", "clips", "--use_cpu"])
    (tmp_path / "recipe.yaml").write_text("learning_rat: 1")
    with pytest.raises(ValueError, match=r"has learning_rat, which no argument is called \(similar: learning_rate\)"):
        parse_arguments([str(tmp_path / "recipe.yaml")])
    with pytest.raises(SystemExit) as stop:
        parse_arguments(["--learning_rate", "fast"], program="valor train qa")
    assert stop.value.code == 2
    assert (
        capsys.readouterr().err
        == "valor train qa: argument --learning_rate/--learning-rate: invalid float value: 'fast'\n"
    )


def test_every_task_of_every_benchmark_has_a_recipe_and_no_other_is_there():
    covered = {(read(name)["dataset"], task_of(name)) for name in DOWNSTREAM}
    assert covered == {(name, task) for name, benchmark in BENCHMARKS.items() for task in benchmark.tasks}
    assert len(DOWNSTREAM) == len(covered) + len(SELF_CRITICAL)
    assert set(PRETRAINING) | set(SELF_CRITICAL) <= RECIPES.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_a_script_takes_the_recipe_and_the_command_line_wins(name):
    model, data, training, *_ = parse(name, "--learning_rate", "0.25", "--media", "clips")
    assert training.learning_rate == 0.25 and data.media == "clips"
    for entry_name, value in read(name).items():
        if entry_name not in ("learning_rate", "report_to"):
            holder = next(a for a in (model, data, training, *_) if hasattr(a, entry_name))
            assert getattr(holder, entry_name) == value, entry_name


@pytest.mark.parametrize("name", DOWNSTREAM)
def test_the_recipe_is_the_table_of_benchmarks(name):
    recipe, task = read(name), task_of(name)
    benchmark = BENCHMARKS[recipe["dataset"]]
    settings = benchmark.settings[task]
    modalities = recipe["modalities"]
    (source,) = recipe["sources"]
    assert modalities == {"t-av": "av", "t-v": "v", "t-a": "a"}[settings.groups[0]]
    assert recipe["train_split"] == settings.train_split and settings.train_split in benchmark.splits
    for kind, train, test in (
        ("num_frames", settings.train_num_frames, settings.num_frames),
        ("num_audio_clips", settings.train_num_audio_clips, settings.num_audio_clips),
    ):
        if {"num_frames": "v", "num_audio_clips": "a"}[kind] in modalities:
            assert recipe[kind] == train and recipe.get(f"eval_{kind}", train) == test
        else:
            assert kind not in recipe and f"eval_{kind}" not in recipe
    assert recipe["max_length"] == settings.max_length
    assert source.get("max_question_length") == settings.max_question_length
    if name not in SELF_CRITICAL:  # these train on whole captions, of the group that the paper reports
        assert recipe["learning_rate"] == settings.learning_rate and recipe["num_train_epochs"] == settings.epochs
        assert source["alignment_groups" if task == "retrieval" else "captioning_groups"] == list(settings.groups)
    if "eval_split" in recipe:
        (evaluation,) = recipe["evaluations"]
        assert recipe["eval_split"] == settings.test_split and settings.test_split in benchmark.splits
        assert evaluation["task"] == task and task in EVALUATIONS
        assert recipe.get("num_beams", 1) == settings.num_beams
        assert evaluation.get("groups", list(settings.groups)) == list(settings.groups)
        assert evaluation.get("max_question_length") == settings.max_question_length
    else:
        assert "evaluations" not in recipe and recipe["dataset"] == "vqav2"  # its answers are not public
    size = {"height": settings.resolution, "width": settings.resolution}
    if settings.crop:
        assert source["transforms"] == {"crop_scale": [0.8, 1.0], "do_flip": True}
        assert recipe["video_processor"] == {
            "size": {"shortest_edge": settings.resolution},
            "do_center_crop": True,
            "crop_size": size,
        }
    else:
        assert "transforms" not in source
        assert recipe.get("video_processor", {"size": {"height": 224, "width": 224}}) == {"size": size}
    assert recipe.get("vision_learning_rate", 5e-7) == 5e-7 and ("vision_learning_rate" in recipe) == (
        "v" in modalities
    )


@pytest.mark.parametrize("name", DOWNSTREAM)
def test_batch_sizes_are_those_of_the_papers_gpus_together(name):
    recipe = read(name)
    total = BENCHMARKS[recipe["dataset"]].settings[task_of(name)].batch_size
    assert recipe["per_device_train_batch_size"] * GPUS == total
    line = f"per_device_train_batch_size: {total // GPUS} # {total} on {GPUS} GPUs"
    assert line in RECIPES[name].read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize(
    ("name", "steps", "batch_size", "sources"),
    [("pretrain_valor_base", 200_000, 512, 3), ("pretrain_valor_large", 500_000, 1024, 7)],
)
def test_pretraining_is_table_2(name, steps, batch_size, sources):
    recipe = read(name)
    assert recipe["max_steps"] == steps and recipe["config_overrides"]["alignment_loss_weight"] == 1.5
    assert ValorConfig.from_pretrained(str(EXAMPLES.parent / recipe["config_name"])).alignment_loss_weight == 1.5
    assert len(recipe["sources"]) == sources
    for source in recipe["sources"]:
        three = source["name"] == "valor-1m"  # the only dataset with sound
        groups = ["t-av", "t-v", "t-a"] if three else ["t-v"]
        assert source["alignment_groups"] == source["captioning_groups"] == groups
        assert source.get("modalities", recipe["modalities"]) == ("av" if three else "v")
        assert source["batch_size"] * GPUS == (512 if three else batch_size)
        assert (
            f"batch_size: {source['batch_size']} # {source['batch_size'] * GPUS} on {GPUS} GPUs"
            in RECIPES[name].read_text()
        )


@pytest.mark.parametrize("name", RECIPES)
def test_entries_are_fields_of_what_they_make(name):
    recipe = read(name)
    known = {f.name for cls in (Source, LoadingOptions) for f in fields(cls)} - {"samples", "options"}
    reading = {"dataset", "split", "media", "annotations"}
    for entry in recipe["sources"]:
        assert entry.keys() <= known | reading
    for entry in recipe.get("evaluations", []):
        measure = EVALUATIONS[entry["task"]][0]
        accepted = group_keywords(dict.fromkeys(entry.keys() - {"task", "name"}), measure)
        assert accepted.keys() <= inspect.signature(measure).parameters.keys() | {"groups"}


def metric_names(recipe: dict) -> set[str]:
    figures = {"captioning": ["CIDEr"], "question_answering": ["accuracy"]}
    names = set()
    for entry in recipe["evaluations"]:
        own = figures.get(entry["task"]) or [f"{group}/R@1" for group in entry["groups"]]
        names |= {f"{entry.get('name', entry['task'])}_{figure}" for figure in own}
    return names


@pytest.mark.parametrize("name", [name for name in DOWNSTREAM if "evaluations" in read(name)])
def test_the_best_checkpoint_is_that_of_the_papers_figure(name):
    recipe = read(name)
    settings = BENCHMARKS[recipe["dataset"]].settings[task_of(name)]
    best = recipe["metric_for_best_model"]
    assert best in metric_names(recipe) and (
        task_of(name) != "retrieval" or best == f"retrieval_{settings.groups[0]}/R@1"
    )
    training = parse(name)[2]
    assert training.load_best_model_at_end and training.greater_is_better and training.do_eval
    assert training.get_warmup_steps(1000) == (50 if name == "msrvtt_captioning" else 100)


def test_the_readme_has_every_recipe_with_the_papers_figure():
    rows = [
        line.strip("| ").split("|") for line in (EXAMPLES / "README.md").read_text().splitlines() if ".yaml` |" in line
    ]
    rows = {row[0].strip(" `").removesuffix(".yaml"): [cell.strip() for cell in row[1:]] for row in rows}
    assert rows.keys() - {"pretrain_valor_base.yaml`, `pretrain_valor_large"} == set(DOWNSTREAM)
    figure = {"retrieval": "R@1", "captioning": "CIDEr", "question_answering": "accuracy"}
    for name in DOWNSTREAM:
        dataset, task = read(name)["dataset"], task_of(name)
        title, base, large, table = rows[name]
        assert title == BENCHMARKS[dataset].title
        expected = {"VALOR-B": "", "VALOR-L": ""}
        reinforced = task == "captioning" and dataset in ("coco", "vatex")
        if (name in SELF_CRITICAL) == reinforced:
            for row in PAPER_METRICS.get((task, dataset), []):
                if "DSL" not in row.model:
                    expected[row.model.split()[0]] = str(row.metrics[figure[task]])
                    assert table == row.table
        assert [base, large] == list(expected.values()), name


def test_settings_of_the_video_processor_are_changed_and_saved(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    changes = {"size": {"shortest_edge": 8}, "do_center_crop": True, "crop_size": {"height": 8, "width": 8}}
    _, processor = build_model(ModelArguments(config_name=str(checkpoint), video_processor=changes), "retrieval")
    frames = small_samples(1)[0].video
    assert processor(videos=[frames], modalities="v", return_tensors="pt").pixel_values_videos.shape == (1, 2, 3, 8, 8)
    assert processor.video_processor.num_frames == small_processor().video_processor.num_frames
    processor.save_pretrained(tmp_path / "saved")
    again = type(processor).from_pretrained(tmp_path / "saved")
    assert again.video_processor.to_dict() == processor.video_processor.to_dict()
    with pytest.raises(ValueError, match="no sizes"):
        build_model(ModelArguments(config_name=str(checkpoint), video_processor={"sizes": 8}), "retrieval")


def test_options_of_the_model_are_json_on_the_command_line():
    model = parse_arguments(["--config_overrides", '{"alignment": "coarse"}', "--output_dir", "unused", "--use_cpu"])[
        0
    ]
    assert model.config_overrides == {"alignment": "coarse"}


@pytest.mark.parametrize("start", ["config_name", "model_name_or_path"])
def test_parts_of_the_configuration_are_changed_field_by_field(tmp_path, start):
    checkpoint = write_checkpoint(tmp_path)
    before = ValorConfig.from_pretrained(checkpoint)
    ValorForRetrieval(before).save_pretrained(checkpoint)
    size = before.text_config.hidden_size
    bert = {
        "model_type": "bert",
        "vocab_size": before.text_config.vocab_size,
        "hidden_size": size,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "max_position_embeddings": 48,
    }
    changes = {"text_encoder_config": bert, "audio_config": {"hidden_dropout_prob": 0.25}}
    model, _ = build_model(ModelArguments(**{start: str(checkpoint)}, config_overrides=changes), "retrieval")
    assert model.config.audio_config.hidden_dropout_prob == 0.25
    assert model.config.audio_config.hidden_size == before.audio_config.hidden_size
    assert model.config.text_encoder_config.num_hidden_layers == 1
    assert type(model.valor.text_encoder).__name__ == "BertModel"
    with pytest.raises(ValueError, match="no alpha"):
        build_model(ModelArguments(**{start: str(checkpoint)}, config_overrides={"alpha": 1}), "retrieval")


@pytest.mark.parametrize(("epochs", "accumulation", "steps"), [(3.0, 1, 12), (0.5, 1, 2), (3.0, 2, 6)])
def test_epochs_are_those_of_the_data_and_no_batch_comes_twice(tmp_path, epochs, accumulation, steps):
    model, processor = build_model(ModelArguments(config_name=str(write_checkpoint(tmp_path))), "retrieval")
    source = Source("world", small_samples(8), LoadingOptions("retrieval"), batch_size=2)
    arguments = ValorTrainingArguments(
        output_dir=str(tmp_path / "output"),
        num_train_epochs=epochs,
        gradient_accumulation_steps=accumulation,
        use_cpu=True,
        save_strategy="no",
        dataloader_num_workers=0,
    )
    trainer = ValorTrainer(model, arguments, Mixture([source], processor, model.config), processing_class=processor)
    requests = [request for batch in trainer.get_train_dataloader().batch_sampler for request in batch]
    assert [request.visit for request in requests] == list(range(steps * accumulation))
    assert trainer.train().global_step == steps
