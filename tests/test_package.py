# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What `import modeling_valor` does and does not do."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoProcessor, AutoTokenizer
from transformers.models.auto.video_processing_auto import AutoVideoProcessor
from transformers.pipelines import PIPELINE_REGISTRY

import modeling_valor


ROOT = Path(__file__).resolve().parents[1]


def test_importing_the_package_imports_no_model_and_no_decoder():
    code = (
        "import sys, transformers.models.auto.processing_auto, transformers.pipelines; before = set(sys.modules); "
        "import modeling_valor; print(*sorted(set(sys.modules) - before))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    ours = [name for name in loaded.stdout.split() if name.startswith("modeling_valor")]
    configuration = ["configuration_checks", "configuration_valor", "tokenization_valor"]
    assert ours == ["modeling_valor", *(f"modeling_valor.{name}" for name in configuration)]
    heavy = {"av", "decord", "torchcodec", "torchaudio", "datasets", "transformers.models.clip.modeling_clip"}
    assert not heavy & set(loaded.stdout.split())


@pytest.mark.parametrize("name", modeling_valor.__all__)
def test_every_public_name_is_there(name):
    assert getattr(modeling_valor, name).__name__ == name
    assert name in dir(modeling_valor)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="ValorForDancing"):
        modeling_valor.ValorForDancing  # noqa: B018


def test_auto_classes_load_every_part_of_a_checkpoint(converted):
    folder = converted("clip-vision-bert-shared")
    for auto, expected in (
        (AutoConfig, "ValorConfig"),
        (AutoModel, "ValorModel"),
        (AutoProcessor, "ValorProcessor"),
        (AutoFeatureExtractor, "ValorFeatureExtractor"),
        (AutoVideoProcessor, "ValorVideoProcessor"),
        (AutoTokenizer, "BertTokenizer"),
    ):
        assert type(auto.from_pretrained(folder)).__name__ == expected


@pytest.mark.parametrize(
    ("config", "model"),
    [
        (modeling_valor.ValorTextConfig(num_hidden_layers=1), "ValorTextModel"),
        (modeling_valor.ValorAudioConfig(num_hidden_layers=1), "ValorAudioModel"),
        (modeling_valor.ValorVideoSwinConfig(depths=[1], num_heads=[1], embed_dim=8), "ValorVideoSwinModel"),
    ],
)
def test_parts_are_auto_models(config, model):
    assert type(AutoModel.from_config(config)).__name__ == model


def test_pipelines_are_registered():
    for task in ("audiovisual-captioning", "audiovisual-question-answering"):
        assert task in PIPELINE_REGISTRY.get_supported_tasks()


def test_an_installed_package_has_the_recipes_and_the_modules_of_evaluate(tmp_path, monkeypatch):
    """What a wheel takes, as setup.py says it."""
    from setuptools import Distribution

    monkeypatch.chdir(ROOT)
    given = {}
    monkeypatch.setattr("setuptools.setup", lambda **kwargs: given.update(kwargs))
    runpy.run_path(str(ROOT / "setup.py"))
    build = Distribution({name: given[name] for name in ("packages", "package_data")}).get_command_obj("build_py")
    build.ensure_finalized()
    files = {f"{folder}/{name}" for _, folder, _, names in build.data_files for name in names}
    wanted = [*(ROOT / "modeling_valor").rglob("*.yaml"), *(ROOT / "modeling_valor").rglob("evaluate_modules/*/*.py")]
    assert len(wanted) > 30 and {path.name for path in wanted} <= {Path(name).name for name in files}
