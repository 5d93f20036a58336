# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Checkpoints that carry their code: whoever has not installed this package loads them with `trust_remote_code=True`."""

import ast
import json
import os
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from transformers import pipeline
from transformers.dynamic_module_utils import get_imports, get_relative_import_files

import modeling_valor
from modeling_valor import (
    ValorForCaptioning,
    ValorForPreTraining,
    ValorForQuestionAnswering,
    ValorModel,
    ValorProcessor,
    ValorVideoSwinConfig,
)
from modeling_valor.modeling_valor_base import AUTO_MAP
from modeling_valor.training.multitask import ValorForMultitask


ROOT = Path(modeling_valor.__file__).parent
REPOSITORY = Path(__file__).resolve().parents[1]
CHECKPOINT = REPOSITORY / "hub_configs" / "valor-tiny"
CLIP = REPOSITORY / "examples" / "media" / "clip-00000.mp4"
QUESTION = "what color is the circle?"
CAPTIONING, ANSWERING = "audiovisual-captioning", "audiovisual-question-answering"
RETRIEVAL, CLASSIFICATION = "audiovisual-retrieval", "zero-shot-audiovisual-classification"
LABELS = ["circle", "square"]

# A user without the package; each part of the checkpoint finds its own code
USER = """
import importlib.util, json, sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "modeling_valor":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NotInstalled())
from transformers import AutoModel, AutoModelForMultimodalLM, AutoModelForPreTraining, AutoProcessor, pipeline

folder, clip, sound, question, *labels = sys.argv[1:]
options = {"trust_remote_code": True}
processor = AutoProcessor.from_pretrained(folder + "/checkpoint", **options)
model = AutoModelForMultimodalLM.from_pretrained(folder + "/checkpoint", **options)
pretraining = AutoModelForPreTraining.from_pretrained(folder + "/checkpoint", **options)
swin = AutoModel.from_pretrained(folder + "/swin", **options)
inputs = processor(videos=clip, return_tensors="pt")
retriever = pipeline("audiovisual-retrieval", model=folder + "/audiovisual-retrieval", device="cpu", **options)
classifier = pipeline(model=folder + "/zero-shot-audiovisual-classification", device="cpu", **options)
captioner = pipeline("audiovisual-captioning", model=folder + "/audiovisual-captioning", device="cpu", **options)
answerer = pipeline(model=folder + "/audiovisual-question-answering", device="cpu", **options)
print(json.dumps({
    "generated": processor.post_process_generation(model.generate(**inputs)),
    "caption": captioner(clip),
    "answer": answerer(clip, question=question),
    "texts": retriever(clip, texts=labels),
    "labels": classifier(clip, candidate_labels=labels),
    "sound": list(processor(videos=sound, return_tensors="pt")),
    "classes": [type(part).__name__ for part in (model, pretraining, swin, swin.vision_model, processor)],
    "package": [name for name in sys.modules if name.split(".")[0] == "modeling_valor"],
}))
"""


@pytest.fixture
def not_registered(monkeypatch):
    """Undoes what `register_for_auto_class` does to the classes."""
    for cls in (ValorForPreTraining, ValorForCaptioning, ValorForQuestionAnswering, ValorModel, ValorProcessor):
        monkeypatch.setattr(cls, "_auto_class", cls._auto_class)
    for cls in (modeling_valor.ValorVideoProcessor, modeling_valor.ValorFeatureExtractor):
        monkeypatch.setattr(cls, "_auto_class", cls._auto_class)


def test_a_checkpoint_saved_with_its_code_works_where_the_package_is_not_installed(tmp_path, not_registered):
    for cls in (ValorForPreTraining, ValorModel, ValorProcessor):
        cls.register_for_auto_class()
    ValorForPreTraining.from_pretrained(CHECKPOINT).save_pretrained(tmp_path / "checkpoint")
    ValorProcessor.from_pretrained(CHECKPOINT).save_pretrained(tmp_path / "checkpoint")
    swin = ValorVideoSwinConfig(embed_dim=8, depths=[1], num_heads=[1], window_size=[2, 2, 2])
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = modeling_valor.ValorConfig(
        vision_config=swin, text_config=small | {"vocab_size": 50}, audio_config=small, projection_dim=8
    )
    ValorModel(config).save_pretrained(tmp_path / "swin")
    expected = {}
    tasks = (
        (CAPTIONING, "caption", {}),
        (ANSWERING, "answer", {"question": QUESTION}),
        (RETRIEVAL, "texts", {"texts": LABELS}),
        (CLASSIFICATION, "labels", {"candidate_labels": LABELS}),
    )
    for task, name, asked in tasks:
        local = pipeline(task, model=str(CHECKPOINT), device="cpu")
        local.save_pretrained(tmp_path / task)
        expected[name] = local(str(CLIP), **asked)

    sound = tmp_path / "sound.wav"
    with wave.open(str(sound), "wb") as file:
        file.setparams((1, 2, 22050, 0, "NONE", ""))
        file.writeframes(np.random.default_rng(0).integers(-9000, 9000, 22050, dtype=np.int16).tobytes())

    command = [sys.executable, "-c", USER, str(tmp_path), str(CLIP), str(sound), QUESTION, *LABELS]
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    user = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert user.returncode == 0, user.stderr
    results = json.loads(user.stdout.splitlines()[-1])
    assert results.pop("package") == []
    assert results.pop("sound") == ["input_features"]  # the parts know each other's errors
    assert results.pop("classes") == [
        "ValorForCaptioning",
        "ValorForPreTraining",
        "ValorModel",
        "ValorVideoSwinModel",
        "ValorProcessor",
    ]
    assert results.pop("generated") == [expected["caption"][0]["generated_text"]]
    assert results == expected
    assert len(expected["caption"][0]["generated_text"].split()) > 3 and expected["answer"][0]["answer"]


def relative_imports(file: Path) -> set[str]:
    """Modules of relative imports anywhere in a file, with their leading dots."""
    nodes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom) and node.level]
    assert all(node.module for node in nodes), (
        f"{file.name}: `from . import x` is not followed; write `from .x import`"
    )
    return {"." * node.level + node.module for node in nodes}


def test_what_travels_imports_only_flat_files_beside_it():
    start = {ROOT / f"{entry.split('.')[0]}.py" for entry in AUTO_MAP.values()}
    start |= {ROOT / "processing_valor.py", ROOT / "pipelines.py", ROOT / "pipelines_retrieval.py"}
    walked, ahead = set(), sorted(start)
    while ahead:
        file = ahead.pop()
        walked.add(file)
        needed = {ROOT / f"{name[1:]}.py" for name in relative_imports(file)}
        assert all(other.parent == ROOT and other.exists() for other in needed), (file.name, relative_imports(file))
        ahead += needed - walked
    assert len(walked) > 20
    # transformers finds them by a regular expression
    assert {Path(file) for entry in start for file in get_relative_import_files(entry)} | start == walked


def test_nothing_that_travels_names_the_package():
    """Absolute imports of the package would fail where it is not installed."""
    for entry in (ROOT / "pipelines.py", ROOT / "pipelines_retrieval.py", ROOT / "modeling_valor_heads.py"):
        for file in [entry, *map(Path, get_relative_import_files(entry))]:
            modules = [
                name
                for node in ast.walk(ast.parse(file.read_text()))
                if isinstance(node, ast.Import | ast.ImportFrom)
                for name in (
                    [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                )
                if name and getattr(node, "level", 0) == 0
            ]
            assert not [name for name in modules if name.split(".")[0] == "modeling_valor"], file.name


def test_what_travels_demands_only_packages_that_every_user_needs():
    """Of code from the Hub, transformers imports whatever any file imports, in functions too, unless a `try` is around it."""
    pipelines = [ROOT / "pipelines.py", ROOT / "pipelines_retrieval.py"]
    files = [file for entry in pipelines for file in (entry, *map(Path, get_relative_import_files(entry)))]
    demanded = {name for file in files for name in get_imports(file)} - sys.stdlib_module_names
    needed = {"PIL", "av", "fsspec", "huggingface_hub", "numpy", "torch", "torchvision", "transformers"}
    assert demanded == needed
    only_on_unix = {"fcntl", "grp", "pwd", "resource", "termios"}
    assert not [file.name for file in files if only_on_unix & set(get_imports(file))]


def test_without_registration_no_code_is_saved(tmp_path):
    ValorProcessor.from_pretrained(CHECKPOINT).save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.py"))


def saved_files(pipe, folder: Path) -> dict[str, bytes]:
    """What model and processor of a pipeline save when they are saved by themselves, without the weights."""
    pipe.model.save_pretrained(folder)
    pipe.processor.save_pretrained(folder)
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix != ".safetensors"}


def test_a_saved_pipeline_leaves_nothing_registered(tmp_path):
    pipe = pipeline(CAPTIONING, model=str(CHECKPOINT), device="cpu")
    before = saved_files(pipe, tmp_path / "before")
    pipe.save_pretrained(tmp_path / "pipeline")
    assert (tmp_path / "pipeline" / "pipelines.py").exists()
    assert saved_files(pipe, tmp_path / "after") == before
    assert not [name for name in before if name.endswith(".py")] and "auto_map" not in str(before)


def test_a_pipeline_that_cannot_be_saved_leaves_nothing_registered(tmp_path):
    pipe = pipeline(ANSWERING, model=str(CHECKPOINT), device="cpu")
    before = saved_files(pipe, tmp_path / "before")
    (tmp_path / "pipeline" / "config.json").mkdir(parents=True)
    with pytest.raises(OSError):
        pipe.save_pretrained(tmp_path / "pipeline")
    assert saved_files(pipe, tmp_path / "after") == before


def test_the_class_of_mixtures_saves_no_code_of_its_own(not_registered):
    ValorForCaptioning.register_for_auto_class()
    assert ValorForCaptioning._auto_class == "AutoModelForMultimodalLM" and ValorForMultitask._auto_class is None
