# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""transformers' own common tests, taken at test time from the source archive of the installed version.

The archive holds `tests/test_*_common.py`, but not all that these import: small stubs stand for the rest. Importing this
module fetches the archive once (with pip, so that pip's configuration decides where from) and keeps the tests in the
user's cache folder; where it cannot be had, all tests of the importing module are skipped.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import warnings
from pathlib import Path
from types import ModuleType

import pytest
import transformers
from filelock import FileLock


PACKAGE = "transformers_tests"
"""Name under which the tests are imported: `tests`, their own one, is the name of too many folders."""

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modeling-valor"

CONFIG_COMMON_KWARGS = {
    "architectures": ["ValorModel"],
    "chunk_size_feed_forward": 5,
    "dtype": "float16",
    "id2label": {0: "label"},
    "is_encoder_decoder": True,
    "label2id": {"label": 0},
    "output_attentions": True,
    "output_hidden_states": True,
    "problem_type": "regression",
    "return_dict": False,
}
"""What every configuration accepts, each at another value than its default."""

BASE_MODELS = {
    "valor": "ValorModel",
    "valor_audio": "ValorAudioModel",
    "valor_text": "ValorTextModel",
    "valor_video_swin": "ValorVideoSwinModel",
}
"""Models without a loss, by `model_type`."""


def fetch_archive(folder: Path) -> Path:
    """Source archive of the installed transformers, downloaded into `folder` as pip is configured to.

    Raises:
        `RuntimeError`: there is no such archive, or no way to it.
    """
    command = [sys.executable, "-m", "pip", "download", f"transformers=={transformers.__version__}", "--no-deps"]
    command += ["--no-binary", "transformers", "--dest", str(folder), "--quiet", "--retries", "1"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError("pip took more than ten minutes") from error
    archives = list(folder.glob("transformers-*.tar.gz"))
    if result.returncode != 0 or len(archives) != 1:
        lines = [line for line in result.stderr.splitlines() if "ERROR" in line] or result.stderr.splitlines()
        raise RuntimeError(lines[-1] if lines else "there is no archive")
    return archives[0]


def extract_tests(archive: Path, folder: Path) -> None:
    """Writes the modules of the archive's `tests/` into `folder`, as one flat package; nothing else is taken out."""
    with tarfile.open(archive) as files:
        for member in files:
            path = Path(member.name)
            if member.isfile() and path.suffix == ".py" and path.parts[1:-1] == ("tests",):
                (folder / path.name).write_bytes(files.extractfile(member).read())
    if not (folder / "test_modeling_common.py").exists():
        raise RuntimeError(f"{archive.name} holds no tests/test_modeling_common.py")
    (folder / "__init__.py").touch()


def fetch_tests() -> Path:
    """Folder that holds the package `transformers_tests`, from the cache or from the archive."""
    root = CACHE / f"transformers-{transformers.__version__}"
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / "lock"):
        if not (root / PACKAGE).is_dir():
            with tempfile.TemporaryDirectory(dir=root) as scratch:
                tests = Path(scratch) / PACKAGE
                tests.mkdir()
                extract_tests(fetch_archive(Path(scratch)), tests)
                tests.rename(root / PACKAGE)
    return root


def stub(name: str, **members) -> None:
    """Puts a module `name` with `members` in the place of one that the archive lacks."""
    module = ModuleType(name)
    module.__path__ = []
    module.__dict__.update(members)
    sys.modules[name] = module


class GenerationTesterMixin:
    """In place of upstream's mixin of the same name, which is not in the archive; `test_generation.py` tests decoding."""


class ExportTesterMixin:
    """In place of upstream's mixin of the same name, which is not in the archive."""


try:
    sys.path.append(str(fetch_tests()))
except (OSError, RuntimeError) as problem:
    pytest.skip(f"transformers' common tests could not be fetched: {problem}", allow_module_level=True)

stub(f"{PACKAGE}.exporters")
stub(f"{PACKAGE}.exporters.test_export", ExportTesterMixin=ExportTesterMixin)
stub(f"{PACKAGE}.generation")
stub(f"{PACKAGE}.generation.test_utils", GenerationTesterMixin=GenerationTesterMixin)
stub(f"{PACKAGE}.utils")
stub(f"{PACKAGE}.utils.test_configuration_utils", config_common_kwargs=CONFIG_COMMON_KWARGS)
# Upstream's CI keeps the media of its tests in the folder of the tests; here they are never opened
stub("fetch_hub_objects_for_ci", url_to_local_path=lambda url: url)

with warnings.catch_warnings():
    # Marks of upstream's own pytest configuration
    warnings.simplefilter("ignore", pytest.PytestUnknownMarkWarning)
    from transformers_tests import test_modeling_common
    from transformers_tests.test_configuration_common import ConfigTester
    from transformers_tests.test_modeling_common import (
        TEST_EAGER_MATCHES_SDPA_INFERENCE_PARAMETERIZATION,
        ModelTesterMixin,
        _test_eager_matches_sdpa_inference,
        ids_tensor,
        random_attention_mask,
        torch_device,
    )
    from transformers_tests.test_processing_common import ProcessorTesterMixin, floats_list
    from transformers_tests.test_sequence_feature_extraction_common import SequenceFeatureExtractionTestMixin
    from transformers_tests.test_video_processing_common import VideoProcessingTestMixin, prepare_video_inputs

# The tests know base models by this table, which registering a class does not enter it in
test_modeling_common.MODEL_MAPPING_NAMES = {**test_modeling_common.MODEL_MAPPING_NAMES, **BASE_MODELS}


__all__ = [
    "TEST_EAGER_MATCHES_SDPA_INFERENCE_PARAMETERIZATION",
    "ConfigTester",
    "GenerationTesterMixin",
    "ModelTesterMixin",
    "ProcessorTesterMixin",
    "SequenceFeatureExtractionTestMixin",
    "VideoProcessingTestMixin",
    "_test_eager_matches_sdpa_inference",
    "floats_list",
    "ids_tensor",
    "prepare_video_inputs",
    "random_attention_mask",
    "torch_device",
]
