# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The code of a checkpoint, with which users without this package load it."""

import json
from pathlib import Path
from typing import Any

from transformers.dynamic_module_utils import get_relative_import_files

from .. import pipelines, pipelines_retrieval
from ..hub import pipeline_entries
from ..modeling_valor_base import AUTO_MAP
from .files import FolderContents


PROCESSOR = "processing_valor.ValorProcessor"
PARTS = {
    "video_processor": ("AutoVideoProcessor", "video_processing_valor.ValorVideoProcessor"),
    "feature_extractor": ("AutoFeatureExtractor", "feature_extraction_valor.ValorFeatureExtractor"),
}
"""Part of a processor's configuration -> its Auto class, and its class."""


def add_code(contents: FolderContents) -> list[str]:
    """Adds the code, and its names in the configurations, where a checkpoint does not bring its own.

    The same files and names as `push_to_hub` of a model and a processor; the folder itself is not changed.

    Returns:
        Paths of the added files; none if the checkpoint has the code that its configuration names.
    """
    config = contents.json("config.json")
    if _has_code(config, contents):
        return []
    tasks = pipeline_entries(pipelines.__name__, pipelines_retrieval.__name__)
    config |= {"auto_map": dict(AUTO_MAP), "custom_pipelines": tasks}
    contents.files["config.json"] = _json(config)
    if "processor_config.json" in contents.files:
        processor = contents.json("processor_config.json")
        processor["auto_map"] = {"AutoProcessor": PROCESSOR}
        for name, (auto_class, part_class) in PARTS.items():
            if name in processor:
                processor[name]["auto_map"] = {"AutoProcessor": PROCESSOR, auto_class: part_class}
        contents.files["processor_config.json"] = _json(processor)
    code = code_files()
    contents.files |= code
    return sorted(code)


def code_files() -> dict[str, Path]:
    """Name -> file of every module that travels with a checkpoint."""
    entries = [*AUTO_MAP.values(), PROCESSOR, *(part_class for _, part_class in PARTS.values())]
    entries += ["pipelines.", "pipelines_retrieval."]
    start = [str(Path(__file__).parents[1] / f"{entry.partition('.')[0]}.py") for entry in entries]
    files = {file for entry in start for file in (entry, *get_relative_import_files(entry))}
    return {Path(file).name: Path(file) for file in files}


def _has_code(config: dict[str, Any], contents: FolderContents) -> bool:
    names = (config.get("auto_map") or {}).values()
    return bool(names) and all(f"{name.partition('.')[0]}.py" in contents.files for name in names)


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
