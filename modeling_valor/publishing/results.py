# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Metrics of `valor evaluate` for a model card."""

import json
from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import EvalResult

from ..evaluation.outputs import results_entries


def read_results(places: Iterable[str]) -> list[EvalResult]:
    """Entries of a model card's metadata from what `valor evaluate` wrote.

    Args:
        places: its `results.json` files, or folders that hold one each.

    Raises:
        ValueError: a place holds no results of `valor evaluate`.
    """
    return [entry for place in places for entry in _read(Path(place))]


def _read(place: Path) -> list[EvalResult]:
    path = place / "results.json" if place.is_dir() else place
    try:
        return results_entries(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ValueError(f"--results {place}: there is no results.json of `valor evaluate`.") from error
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ValueError(f"--results {place}: these are no results of `valor evaluate` ({error!r}).") from error
