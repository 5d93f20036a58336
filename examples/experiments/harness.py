# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Runs variants: renders the world, trains stage after stage through the scripts' own code, measures, writes JSON.

Everything may be killed at any moment and started again. A stage goes on from its last checkpoint; a stage that several
variants begin with is trained once; a variant whose JSON is there, made with the same settings, is not run again.
"""

import hashlib
import json
import platform
import random
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import yaml
from catalogue import EXPERIMENTS, Experiment, Measure, Scale, Stage, Variant, portraits
from filelock import FileLock
from real_data import PAIR_PROMPTS, TEMPLATES, evaluate_classes, exact_captions, vocabulary_of
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
    set_seed,
)

from modeling_valor import ValorConfig, ValorProcessor
from modeling_valor.data.files import atomic_write
from modeling_valor.data.readers import load_samples
from modeling_valor.data.samples import Sample
from modeling_valor.evaluation import caption_metrics, evaluate_captioning
from modeling_valor.evaluation.options import group_keywords
from modeling_valor.recipes import find_recipe
from modeling_valor.text_cleaning import clean_caption, clean_question
from modeling_valor.training.multitask import ValorForMultitask
from modeling_valor.training.run import ModelArguments, build_evaluation, build_model, parse_arguments, run_training
from modeling_valor.training.vocabulary import train_tokenizer
from modeling_valor.world import write_portraits, write_world


REPOSITORY = Path(__file__).resolve().parents[2]

WORLD_SEEDS = {"train": 1, "test": 7, "portraits": 3}
"""Worlds of the two splits and of the still images. The splits hold out combinations; the test seed is used for nothing
else besides."""

MASKED = 0.3
"""Share of words that are masked while texts are learned: twice BERT's, as the texts are short."""


@dataclass(frozen=True)
class Place:
    """Folders of one run of the harness.

    Args:
        work: for rendered clips, extracted data, caches and checkpoints; may be deleted when all has run.
        results: for the JSON of each variant.
    """

    work: Path
    results: Path

    def result(self, experiment: Experiment, scale: Scale, variant: Variant, seed: int) -> Path:
        return self.results / scale.name / experiment.name / f"{slug(variant.name)}-seed{seed}.json"

    def dataset(self, name: str, scale: Scale, split: str) -> str:
        """What `load_samples` reads the samples of a dataset from."""
        if name == "world":
            return str(self.work / f"world-{scale.name}" / split)
        if name == "portraits":
            return str(self.work / f"world-{scale.name}" / name)
        return str(self.work / "real-data" / f"{name}.jsonl")


def slug(name: str) -> str:
    """A variant's name as a file name."""
    return "".join(letter if letter.isalnum() or letter == "." else "-" for letter in name).replace("--", "-")


def digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def settings_of(experiment: Experiment, variant: Variant, scale: Scale) -> dict[str, Any]:
    """All that a variant's metrics depend on besides the seed and the code; a result of others is out of date."""
    measures = [own for measure in experiment.measures if (own := variant.own(measure)) and is_measured(own, scale)]
    return json.loads(
        json.dumps(
            {
                "arguments": training_arguments(experiment, scale),
                "vocabulary": experiment.vocabulary,
                "scale": {name: value for name, value in asdict(scale).items() if name != "workers"},
                "config": dict(variant.config),
                "stages": [asdict(stage) for stage in variant.stages],
                "runs": sorted({measure.run for measure in measures}),
                "world": WORLD_SEEDS,
                **({} if experiment.vocabulary == "world" else {"texts": [TEMPLATES, PAIR_PROMPTS]}),
            }
        )
    )


def is_measured(measure: Measure, scale: Scale) -> bool:
    return not measure.finetuned or measure.task in scale.finetuned


def is_done(path: Path, settings: Mapping[str, Any]) -> bool:
    """Whether there is a result of just these settings."""
    return path.is_file() and json.loads(path.read_text(encoding="utf-8"))["settings"] == settings


# --- Preparing --------------------------------------------------------------------------------------------------------


def prepare_world(place: Place, scale: Scale, workers: int | None = None) -> None:
    """Renders what is not there of the world's clips. Complete splits are left alone, so that several runs may use them."""
    for split, count in (("train", scale.train_clips), ("test", scale.test_clips)):
        folder = place.dataset("world", scale, split)
        if not _holds(folder, count):
            write_world(folder, split, count, WORLD_SEEDS[split], workers, progress=True)
    folder = place.dataset("portraits", scale, "train")
    if not _holds(folder, scale.portraits):
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed, or had another number
        write_portraits(folder, scale.portraits, WORLD_SEEDS["portraits"], workers=workers, progress=True)


def _holds(folder: str, count: int) -> bool:
    metadata = Path(folder, "metadata.jsonl")
    return metadata.is_file() and len(metadata.read_text(encoding="utf-8").splitlines()) == count


def prepare_model(place: Place, scale: Scale, vocabulary: str) -> Path:
    """A folder with the configuration of valor-tiny at this scale, and its processor with the vocabulary asked for."""
    base = REPOSITORY / "hub_configs" / "valor-tiny"
    wanted = [scale.model, scale.num_frames, scale.image_size, (base / "config.json").read_text(), _files(base)]
    if vocabulary != "world":
        wanted.append(TEMPLATES)
    folder = place.work / "models" / f"{vocabulary}-{digest(wanted)}"
    with locked(folder):
        if not folder.is_dir():
            processor = ValorProcessor.from_pretrained(base)
            if vocabulary != "world":
                texts = vocabulary_of(place.work / "real-data")
                processor.tokenizer = train_tokenizer(texts, 4000, model_max_length=64)
            processor.video_processor.num_frames = scale.num_frames
            processor.video_processor.size = {"height": scale.image_size, "width": scale.image_size}
            config = _merged(ValorConfig.from_pretrained(base).to_dict(), scale.model)
            config["text_config"]["vocab_size"] = len(processor.tokenizer)
            with atomic_write(folder) as partial:
                processor.save_pretrained(partial)
                ValorConfig.from_dict(config).save_pretrained(partial)
    return folder


def prepare_vision(place: Place, scale: Scale, max_steps: int | None = None) -> Path:
    """The vision encoder that all models on the world start with, trained once for all variants and seeds."""
    model, experiment = prepare_model(place, scale, "world"), EXPERIMENTS["figure6"]
    recipe = recipe_of(experiment, portraits(scale), scale, place, 0, max_steps)
    return train(place, scale, model, recipe, ValorConfig.from_pretrained(model), {})


def prepare_text(place: Place, scale: Scale, experiment: Experiment, max_steps: int | None = None) -> Path:
    """The BERT that text encoders and decoders start with: it has learned the language of the training texts by masked
    language modelling, once for all variants and seeds, and has seen and heard nothing.
    """
    model = prepare_model(place, scale, experiment.vocabulary)
    known = {option.name for option in fields(TrainingArguments)}
    arguments = {name: value for name, value in training_arguments(experiment, scale).items() if name in known}
    arguments |= {
        "max_steps": scale.steps["texts"] if max_steps is None else max_steps,
        "per_device_train_batch_size": 4 * scale.batch_size,
        "disable_tqdm": True,
    }
    config = bert_of(ValorConfig.from_pretrained(model))
    origin = [arguments, config.to_dict(), _files(model), scale.train_clips, WORLD_SEEDS["train"]]
    folder = place.work / "stages" / f"text-{digest(origin)}"
    with locked(folder):
        if not (folder / "done.json").is_file():
            tokenizer = AutoTokenizer.from_pretrained(model)
            texts = [
                tokenizer(text, truncation=True, max_length=config.max_position_embeddings)
                for text in training_texts(experiment, scale, place)
            ]
            set_seed(0)
            trainer = Trainer(
                BertForMaskedLM(config),
                TrainingArguments(str(folder), **arguments),
                DataCollatorForLanguageModeling(tokenizer, mlm_probability=MASKED),
                texts,
            )
            started, resumed = time.monotonic(), any(folder.glob("checkpoint-*"))
            trainer.train(resume_from_checkpoint=resumed)
            trainer.save_model()
            _finish(folder, None if resumed else time.monotonic() - started, arguments["max_steps"])
    return folder


def training_texts(experiment: Experiment, scale: Scale, place: Place) -> list[str]:
    """All captions of the training split, and its questions with their answers."""
    if experiment.vocabulary != "world":
        return list(vocabulary_of(place.work / "real-data"))
    texts = []
    for sample in load_samples(place.dataset("world", scale, "train"), "train"):
        texts += map(clean_caption, sample.captions)
        texts += [f"{clean_question(question.text)} {question.answers[0]}" for question in sample.questions]
    return texts


def locked(folder: Path) -> FileLock:
    """Lets one process at a time make a folder; the others wait, and find it made."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(folder.with_name(f".{folder.name}.lock"))


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **base,
        **{
            name: _merged(base[name], value)
            if isinstance(value, Mapping) and isinstance(base.get(name), Mapping)
            else value
            for name, value in changes.items()
        },
    }


def config_of(variant: Variant, model: Path) -> ValorConfig:
    """The configuration of the model folder with the variant's changes."""
    base = ValorConfig.from_pretrained(model)
    config = base.to_dict() | dict(variant.config)
    if config["text_encoder_config"] == "bert":
        config["text_encoder_config"] = bert_of(base).to_dict()
    return ValorConfig.from_dict(config)


def bert_of(config: ValorConfig) -> BertConfig:
    """A BERT of the size of the text encoder."""
    same = (
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "pad_token_id",
    )
    return BertConfig(**{name: getattr(config.text_config, name) for name in same})


# --- Training ---------------------------------------------------------------------------------------------------------


def training_arguments(experiment: Experiment, scale: Scale) -> dict[str, Any]:
    """What the base recipe says of training, with the scale's changes; nothing of its data."""
    recipe = yaml.safe_load(find_recipe(experiment.recipe).read_text(encoding="utf-8"))
    for name in ("sources", "dataset", "cache_dir", "config_name", "use_cpu"):
        recipe.pop(name, None)
    return {**recipe, "do_train": True, "report_to": "none", **scale.arguments}


def recipe_of(
    experiment: Experiment, stage: Stage, scale: Scale, place: Place, seed: int, max_steps: int | None = None
) -> dict[str, Any]:
    """The base recipe with the stage's sources and the scale's numbers: what `valor train pretraining` would take."""
    common = {
        "batch_size": scale.batch_size,
        "num_frames": scale.num_frames,
        "sampling": "center",
        "split": "train",
        "steps": 1,
        "cache_dir": str(place.work / "cache"),
    }
    sources = [
        {**common, **source, "dataset": place.dataset(source["dataset"], scale, "train")} for source in stage.sources
    ]
    return {
        **training_arguments(experiment, scale),
        "max_steps": scale.steps[stage.steps] if max_steps is None else max_steps,
        "seed": seed,
        "dataloader_num_workers": scale.workers,
        "save_total_limit": 1,
        "disable_tqdm": True,
        "sources": sources,
    }


def train(
    place: Place,
    scale: Scale,
    model: Path,
    recipe: dict[str, Any],
    config: ValorConfig,
    start: Path | Mapping[str, Path],
) -> Path:
    """Trains one stage, or finds it trained; gives its folder, with weights and processor.

    It starts from the stage `start`, or from new weights with the parts that `start` names ("text_model", "vision_model").

    The folder is called by all that the weights depend on, so that variants with equal beginnings share them.
    """
    if isinstance(start, Path):
        origin = {"parent": start.name}
    else:
        parts = {name: part.name for name, part in start.items()}
        origin = {"config": config.to_dict(), "processor": _files(model), **parts}
    world = [scale.train_clips, scale.portraits, WORLD_SEEDS]
    folder = place.work / "stages" / digest([_without_paths(recipe), origin, world])
    with locked(folder):
        if not (folder / "done.json").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            if isinstance(start, Path):
                weights = {"model_name_or_path": str(start)}
            else:
                config.save_pretrained(folder / "new")
                weights = {"config_name": str(folder / "new"), "processor_name": str(model)}
                weights |= {name: str(part) for name, part in start.items()}
            path = folder / "recipe.yaml"
            path.write_text(yaml.safe_dump({**recipe, **weights, "output_dir": str(folder)}), encoding="utf-8")
            resumed, started = any(folder.glob("checkpoint-*")), time.monotonic()
            run_training(*parse_arguments([str(path)]), task=None)
            _finish(folder, None if resumed else time.monotonic() - started, recipe["max_steps"])
    return folder


def _finish(folder: Path, seconds: float | None, steps: int) -> None:
    """Leaves the weights only, and a note that they are complete."""
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    write_json(folder / "done.json", {"seconds": None if seconds is None else round(seconds, 1), "steps": steps})


def _files(model: Path) -> str:
    """A digest of a processor's files."""
    return digest({path.name: path.read_text() for path in model.glob("*.json") if path.name != "config.json"})


def _without_paths(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe by what it trains on, not by where that lies."""
    sources = [{**source, "dataset": Path(source["dataset"]).name, "cache_dir": None} for source in recipe["sources"]]
    return {**recipe, "sources": sources, "dataloader_num_workers": None}


def finetuning(measure: Measure) -> Stage:
    """The stage that trains a copy for one measure."""
    source = {"name": measure.task, "task": measure.task, "dataset": measure.dataset, "modalities": measure.modalities}
    if measure.task == "question_answering":
        source["questions_per_sample"] = 4
    if measure.task == "retrieval" and measure.modalities == "av":
        source["neighbours"] = 2
    return Stage((source,), "finetuning")


# --- Measuring --------------------------------------------------------------------------------------------------------


def measure_run(place: Place, scale: Scale, checkpoint: Path, measures: Sequence[Measure]) -> dict[str, float]:
    """All metrics of one evaluation of a checkpoint, of which `measures` (with the same `run`) take some."""
    first = measures[0]
    task = "retrieval" if first.task == "classes" else first.task
    model, processor = build_model(ModelArguments(model_name_or_path=str(checkpoint)), task)
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    where = {"dataset": place.dataset(first.dataset, scale, "test"), "split": "test"}
    options = {
        "modalities": first.modalities,
        "num_frames": scale.num_frames,
        "num_workers": scale.workers,
        "media_cache": str(place.work / "cache"),
        "batch_size": 50,
    }
    if first.task == "classes":
        return evaluate_classes(model, processor, Path(where["dataset"]), "test", **options)
    if first.task == "captioning":
        options |= {"max_new_tokens": 40, "num_beams": 1, "metrics": ("BLEU-4", "ROUGE-L", "CIDEr")}
        arguments = group_keywords(options, evaluate_captioning)
        evaluation = evaluate_captioning(model, processor, load_samples(**where), **arguments)
        return {**evaluation.metrics, "exact": exact_captions(evaluation.predictions)}
    if first.task == "retrieval":
        options["groups"] = sorted({measure.metric.split("/")[0] for measure in measures})
    return build_evaluation({"task": first.task, **where, **options}, processor)(model)


def run_variant(
    experiment: Experiment,
    variant: Variant,
    scale: Scale,
    place: Place,
    seed: int = 0,
    max_steps: int | None = None,
) -> Path:
    """Trains and measures one variant with one seed, unless its result is there; gives the result's path.

    Args:
        max_steps: of every stage, to try things out; such results are marked by their settings.
    """
    path, settings = place.result(experiment, scale, variant, seed), settings_of(experiment, variant, scale)
    if max_steps is not None:
        settings["max_steps"] = max_steps
    if is_done(path, settings):
        return path
    model = prepare_model(place, scale, experiment.vocabulary)
    parts = {"text_model": prepare_text(place, scale, experiment, max_steps)}
    if experiment.vocabulary == "world":
        parts["vision_model"] = prepare_vision(place, scale, max_steps)
    config, checkpoint, trained = config_of(variant, model), parts, []

    def next_stage(stage: Stage, start: Path | Mapping[str, Path]) -> Path:
        recipe = recipe_of(experiment, stage, scale, place, seed, max_steps)
        trained.append(train(place, scale, model, recipe, config, start))
        return trained[-1]

    for stage in variant.stages:
        checkpoint = next_stage(stage, checkpoint)
    runs = defaultdict(list)
    for measure in experiment.measures:
        own = variant.own(measure)
        if own is not None and is_measured(own, scale):
            runs[own.run].append(own)
    metrics, started = {}, time.monotonic()
    for name, measures in runs.items():
        measured = next_stage(finetuning(measures[0]), checkpoint) if measures[0].finetuned else checkpoint
        # A file of its own for each evaluation, so that a run that is killed does not begin again
        what = [name, sorted(measure.metric for measure in measures), scale.test_clips, WORLD_SEEDS["test"]]
        part = measured / f"{digest(what)}.json"
        if not part.is_file():
            write_json(part, measure_run(place, scale, measured, measures))
        metrics[name] = json.loads(part.read_text(encoding="utf-8"))
    write_json(
        path,
        {
            "experiment": experiment.name,
            "variant": variant.name,
            "scale": scale.name,
            "seed": seed,
            "metrics": metrics,
            "training_seconds": [json.loads((stage / "done.json").read_text())["seconds"] for stage in trained],
            "measuring_seconds": round(time.monotonic() - started, 1),
            "parameters": _parameters(checkpoint),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else _processor(),
            "torch": torch.__version__,
            "settings": settings,
        },
    )
    return path


def write_json(path: Path, content: Any) -> None:
    """Writes a file that appears under its name when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _parameters(checkpoint: Path) -> int:
    with torch.device("meta"):
        return ValorForMultitask(ValorConfig.from_pretrained(checkpoint)).num_parameters()


def _processor() -> str:
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"


# --- What guessing gives ----------------------------------------------------------------------------------------------


def measure_guessing(place: Place, scale: Scale) -> Path:
    """Writes the metrics of guesses on the rendered test clips, without video and audio.

    Retrieval by drawing; each question answered with the answer that the training clips give most often to that very
    question, or to its first two words; captions of randomly drawn training clips.
    """
    path = place.results / scale.name / "world.json"
    settings = {"train_clips": scale.train_clips, "test_clips": scale.test_clips, "world": WORLD_SEEDS}
    if is_done(path, settings):
        return path
    samples = {split: load_samples(place.dataset("world", scale, split), split) for split in ("train", "test")}
    train, test = list(samples["train"]), list(samples["test"])
    rng = random.Random(0)
    captions = [rng.choice(rng.choice(train).captions) for _ in test]
    metrics = {
        "R@1": 100 / len(test),
        "accuracy": guess_answers(train, test),
        "CIDEr": caption_metrics(captions, [sample.captions for sample in test], ("CIDEr",))["CIDEr"],
    }
    write_json(path, {"metrics": metrics, "settings": settings})
    return path


def guess_answers(train: Sequence[Sample], test: Sequence[Sample]) -> float:
    """Accuracy in percent of the answer most often given to each question."""
    seen = defaultdict(Counter)
    for sample in train:
        for question in sample.questions:
            for key in (question.text, " ".join(question.text.split()[:2]), ""):
                seen[key].update(question.answers)
    right = []
    for sample in test:
        for question in sample.questions:
            keys = (question.text, " ".join(question.text.split()[:2]), "")
            counts = next(seen[key] for key in keys if key in seen)
            right.append(counts.most_common(1)[0][0] in question.answers)
    return 100 * sum(right) / len(right)
