# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Which files of a checkpoint's folder are published, and why others are left out."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from huggingface_hub.repocard import metadata_load
from safetensors import SafetensorError, safe_open
from transformers.dynamic_module_utils import get_relative_import_files
from yaml import YAMLError


PUBLISHED = (
    "config.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.j*",
    "chat_templates/*.jinja",
    "model*.safetensors",
    "model.safetensors.index.json",
    "adapter_config.json",
    "adapter_model.safetensors",
    "README.md",
    "LICENSE*",
    "NOTICE*",
    "CITATION.cff",
)
"""Patterns of what `from_pretrained` and readers of the model card need, without which a file is uploaded only if named."""

TRAINING_STATE = (
    "checkpoint-*/*",
    "global_step*/*",
    "runs/*",
    "wandb/*",
    "optimizer*",
    "scheduler*",
    "scaler*",
    "rng_state*",
    "trainer_state.json",
    "training_args.bin",
    "pytorch_model_fsdp*",
    "events.out.tfevents*",
)
TEMPORARY = ("*.tmp", "*.temp", "*.partial", "*.part", "*.lock", "*.swp", "*~", "*.pyc", "__pycache__/*", "tmp*")
NEVER = {"state of a training": TRAINING_STATE, "temporary": TEMPORARY}
"""Reason -> patterns of files that are never uploaded."""


@dataclass(frozen=True)
class LeftOut:
    """A file of the folder that is not uploaded, or a folder with `files` such files."""

    path: str
    reason: str
    files: int = 1


@dataclass
class FolderContents:
    """What of a folder is uploaded, path in the repository -> file or content, and what is not."""

    files: dict[str, Path | bytes] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)

    def size(self, path: str) -> int:
        """Bytes of a file."""
        content = self.files[path]
        return len(content) if isinstance(content, bytes) else content.stat().st_size

    def json(self, path: str) -> dict[str, Any]:
        """Content of a JSON file.

        Raises:
            ValueError: it is no JSON object.
        """
        return _read_json(self.files[path], path)


def read_folder(folder: str | Path, include: Sequence[str] = ()) -> FolderContents:
    """Sorts the files of a folder into those that are uploaded and those that are left out.

    Args:
        folder: of a checkpoint.
        include: patterns of further files to upload, such as "examples/*.mp4"; hidden and temporary files and states of a
            training are left out all the same.

    Raises:
        ValueError: the folder's weights are incomplete or damaged, its card is no card, or a pattern matches nothing.
    """
    contents, unused, published = FolderContents(), set(include), (*PUBLISHED, *own_code(Path(folder)))
    others: dict[str, list[str]] = {}
    for path, file in _walk(Path(folder)):
        if reason := _never(path, file):
            others.setdefault(reason, []).append(path)
        elif any(fnmatch(path, pattern) for pattern in published if ("/" in pattern) == ("/" in path)):
            contents.files[path] = file
        elif matching := {pattern for pattern in include if fnmatch(path, pattern)}:
            contents.files[path] = file
            unused -= matching
        else:
            others.setdefault("not part of a checkpoint; --include adds it", []).append(path)
    if unused:
        raise ValueError(f"--include {sorted(unused)[0]!r} matches no file of {folder} that may be uploaded.")
    contents.left_out = [entry for reason, paths in others.items() for entry in _grouped(paths, reason)]
    _check_weights(Path(folder), contents)
    _check_card(contents)
    return contents


def own_code(folder: Path) -> list[str]:
    """Names of the Python files in a folder that its configurations name, and of those that these import.

    Raises:
        ValueError: a configuration is no JSON object.
    """
    modules: set[str] = set()
    for name in ("config.json", "processor_config.json"):
        if (folder / name).is_file():
            modules |= _named_modules(_read_json(folder / name, name))
    files = {folder / f"{module}.py" for module in modules}
    files |= {Path(needed) for file in files if file.is_file() for needed in get_relative_import_files(file)}
    return sorted(file.name for file in files if file.is_file() and file.parent == folder)


def _named_modules(config: dict[str, Any]) -> set[str]:
    """Modules in the `auto_map` and the `custom_pipelines` of a configuration, which name `module.Class`."""
    named = [*(config.get("auto_map") or {}).values()]
    named += [entry.get("impl") for entry in (config.get("custom_pipelines") or {}).values()]
    return {name.partition(".")[0] for name in named if isinstance(name, str) and "--" not in name}


def _read_json(content: Path | bytes, name: str) -> dict[str, Any]:
    try:
        read = json.loads(content if isinstance(content, bytes) else content.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{name} is no valid JSON: {error}.") from error
    if not isinstance(read, dict):
        raise ValueError(f"{name} holds no JSON object.")
    return read


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """Path in the folder and file, in order; links to files are followed, links to folders are not."""
    for file in sorted(folder.rglob("*")):
        if file.is_symlink() or not file.is_dir():
            yield file.relative_to(folder).as_posix(), file


def _never(path: str, file: Path) -> str | None:
    """Why a file is never uploaded, `None` if it may be."""
    if any(part.startswith(".") for part in path.split("/")):
        return "hidden"
    if not file.is_file():
        return "no file: a broken link, or one to a folder"
    for reason, patterns in NEVER.items():
        for pattern in patterns:
            if fnmatch(path, pattern) or fnmatch(path, f"*/{pattern}"):
                return reason
    return None


def _grouped(paths: Sequence[str], reason: str) -> Iterator[LeftOut]:
    """An entry for each file, and one for each folder at the top."""
    folders: dict[str, int] = {}
    for path in paths:
        top, slash, _ = path.partition("/")
        folders[top + slash] = folders.get(top + slash, 0) + 1
    for path, count in folders.items():
        yield LeftOut(path, reason, count)


def _check_weights(folder: Path, contents: FolderContents) -> None:
    weights = {path for path in contents.files if path.endswith(".safetensors") and "/" not in path}
    if "model.safetensors.index.json" in contents.files:
        shards = set(contents.json("model.safetensors.index.json").get("weight_map", {}).values())
        if missing := sorted(shards - weights):
            raise ValueError(f"{folder} lacks {missing[0]}, which model.safetensors.index.json names.")
    for path in sorted(weights):
        try:
            with safe_open(str(contents.files[path]), framework="pt"):
                pass
        except SafetensorError as error:
            raise ValueError(f"{folder}/{path} is damaged ({error}).") from error


def _check_card(contents: FolderContents) -> None:
    """Checks the metadata of a README.md as far as that is possible without the Hub."""
    card = contents.files.get("README.md")
    if isinstance(card, Path):
        try:
            ModelCardData(**(metadata_load(card) or {}))
        except (ValueError, TypeError, KeyError, AttributeError, YAMLError) as error:
            raise ValueError(
                f"{card} has no valid metadata of a model card: {' '.join(str(error).split())}"
            ) from error
