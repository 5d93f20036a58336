# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The paper's trainings and those of valor-tiny as YAML files: arguments of `valor train`, which the command line overrides."""

import difflib
from pathlib import Path


def recipe_names() -> list[str]:
    """The recipes that come with the package, such as "msrvtt_retrieval"."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """A recipe by its file, or by the name of one that comes with the package, with or without ".yaml".

    Raises:
        ValueError: there is no such file and no such recipe.
    """
    path = Path(name)
    if path.is_file():
        return path
    own = Path(__file__).parent / f"{name.removesuffix('.yaml')}.yaml"
    if path.name == name and own.is_file():
        return own
    names = recipe_names()
    likely = difflib.get_close_matches(path.stem, names, n=3) or names
    raise ValueError(
        f"there is no recipe {name}: give a YAML file, or the name of one of ours, such as {', '.join(likely)}."
    )


__all__ = ["find_recipe", "recipe_names"]
