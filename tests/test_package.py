# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What `import modeling_valor` does and does not do."""

import ast
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForMultimodalLM,
    AutoModelForPreTraining,
    AutoModelForVisualQuestionAnswering,
    AutoProcessor,
    AutoTokenizer,
    AutoVideoProcessor,
)
from transformers.pipelines import PIPELINE_REGISTRY

import modeling_valor
from helpers.tiny import tiny_config


ROOT = Path(__file__).resolve().parents[1]


def test_importing_the_package_imports_no_folder_and_no_library_of_single_functions():
    code = (
        "import sys, transformers; before = set(sys.modules); import modeling_valor; print(*set(sys.modules) - before)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    ours = {name for name in loaded.stdout.split() if name.startswith("modeling_valor.")}
    assert len(ours) > 20 and all(name.count(".") == 1 for name in ours)  # the flat root, nothing of the folders
    assert not {"decord", "evaluate"} & set(loaded.stdout.split())


@pytest.mark.parametrize("name", modeling_valor.__all__)
def test_every_public_name_is_there(name):
    assert getattr(modeling_valor, name).__name__ == name
    assert name in dir(modeling_valor)


def test_auto_classes_load_every_part_of_a_checkpoint(converted):
    folder = converted("clip-vision-bert-shared")
    for auto, expected in (
        (AutoConfig, "ValorConfig"),
        (AutoModel, "ValorModel"),
        (AutoModelForPreTraining, "ValorForPreTraining"),
        (AutoModelForMultimodalLM, "ValorForCaptioning"),
        (AutoModelForVisualQuestionAnswering, "ValorForQuestionAnswering"),
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


def test_every_library_that_the_package_imports_is_declared():
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    names = {"PIL": "pillow", "yaml": "pyyaml"}
    with open(ROOT / "pyproject.toml", "rb") as file:
        project = tomllib.load(file)["project"]
    optional = [requirement for extra in project["optional-dependencies"].values() for requirement in extra]
    declared = {re.match(r"[\w-]+", requirement)[0] for requirement in [*project["dependencies"], *optional]}
    imported = set()
    for file in (ROOT / "modeling_valor").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(node.module.split(".")[0])
    others = imported - set(sys.stdlib_module_names) - {"modeling_valor", "valor_cli", "triton"}  # torch brings Triton
    assert len(others) > 15
    assert {names.get(name, name) for name in others} <= declared


def test_models_on_the_hub_are_tagged():
    model = AutoModel.from_config(tiny_config())
    model.add_model_tags("mine")
    assert model.model_tags == ["valor", "mine"]
    assert AutoModelForMultimodalLM.from_config(tiny_config()).model_tags == ["valor"]


def test_pipelines_are_registered():
    for task in ("audiovisual-captioning", "audiovisual-question-answering"):
        assert task in PIPELINE_REGISTRY.get_supported_tasks()


def test_distributions_hold_the_package_and_its_files_and_no_tests(tmp_path):
    """The wheel, built from the unpacked sdist, has every file of the package; neither has tests."""
    source = tmp_path / "source"
    shutil.copytree(ROOT / "modeling_valor", source / "modeling_valor", ignore=shutil.ignore_patterns("__pycache__"))
    (source / "tests").mkdir()
    for file in [*ROOT.glob("*.*"), ROOT / "LICENSE", ROOT / "tests" / "test_package.py"]:
        if file.is_file():
            shutil.copy(file, source / file.relative_to(ROOT))
    build = "import sys, setuptools.build_meta as build; getattr(build, sys.argv[1])(sys.argv[2])"
    subprocess.run([sys.executable, "-c", build, "build_sdist", tmp_path], cwd=source, check=True, capture_output=True)
    (sdist,) = tmp_path.glob("*.tar.gz")
    assert sdist.name == f"modeling_valor-{modeling_valor.__version__}.tar.gz"
    with tarfile.open(sdist) as archive:
        assert not [name for name in archive.getnames() if "/tests" in name]
        archive.extractall(tmp_path, filter="data")
    unpacked = tmp_path / sdist.name.removesuffix(".tar.gz")
    subprocess.run(
        [sys.executable, "-c", build, "build_wheel", tmp_path], cwd=unpacked, check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        described = archive.read(metadata).decode()
    expected = {
        path.relative_to(source).as_posix() for path in (source / "modeling_valor").rglob("*") if path.is_file()
    }
    assert names == {"valor_cli.py", *expected}
    assert {"modeling_valor/py.typed", "modeling_valor/recipes/valor_tiny.yaml"} <= names
    extras = {line.split()[1] for line in described.splitlines() if line.startswith("Provides-Extra:")}
    assert extras >= {"test", "dev", "torchcodec", "captions", "experiments"}


def _modules_imported(path: Path, name: str, modules: set[str]) -> set[str]:
    """Names of this package's modules that a module imports when it is imported itself, packages above them included."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    pending = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package.rsplit(".", node.level - 1)[0] + (f".{node.module}" if node.module else "")
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)} & modules
        elif not isinstance(node, ast.FunctionDef) and not _is_for_types(node):
            pending += ast.iter_child_nodes(node)
    parents = {imported.rsplit(".", depth)[0] for imported in found for depth in range(1, imported.count("."))}
    return {other for other in found | parents if other != name and not f"{name}.".startswith(f"{other}.")}


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def test_modules_import_one_another_in_no_circle():
    """So that each can be imported first."""
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (ROOT / "modeling_valor").rglob("*.py")
    }
    modules = set(paths) - {"modeling_valor"}
    graph = {name: _modules_imported(paths[name], name, modules) for name in modules}
    assert len(list(TopologicalSorter(graph).static_order())) == len(modules) > 100  # a `CycleError` names the circle


def test_the_former_name_of_the_type_of_evaluations_warns():
    import modeling_valor.training as training

    with pytest.warns(FutureWarning, match="is now called `EvaluationFunction`"):
        assert training.Evaluation is training.EvaluationFunction
    with pytest.raises(AttributeError, match="no attribute 'Evaluator'"):
        _ = training.Evaluator
