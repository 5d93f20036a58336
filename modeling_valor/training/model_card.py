# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The README.md of a trained model: its data, its training, and its metrics."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from huggingface_hub import EvalResult

from .. import __version__
from ..configuration_valor import ValorConfig
from ..evaluation.outputs import CARD_TASKS
from ..model_card import build_model_card


MARK = "<!-- Written by modeling-valor after training; delete this line to keep your own changes. -->"


@dataclass(frozen=True)
class MeasuredTask:
    """One evaluation.

    Args:
        task: "retrieval", "captioning" or "question_answering".
        dataset, split: where it was measured; a text such as "10% of train, held out" for a part of a split.
        samples: their number.
        metrics: recalls and accuracies in percent, captioning metrics times 100.
    """

    task: str
    dataset: str
    split: str | None
    samples: int
    metrics: Mapping[str, float]


def public_name(name: str) -> str:
    """A name without the folders of this machine: the last part of a local path, or the name on the Hub."""
    return Path(name).resolve().name if os.path.exists(name) else name


def model_card(
    name: str,
    model_class: str,
    overview: Mapping[str, str],
    measured: Mapping[str, MeasuredTask],
    base_model: str | None = None,
    config: ValorConfig | None = None,
) -> str:
    """The text of a model card.

    Args:
        name: name of the model.
        model_class: the class of modeling_valor that loads it.
        overview: what `overview.describe_training` returns.
        measured: name of each evaluation -> its metrics.
        base_model: the checkpoint that the training started from; it is in the metadata if it is a name on the Hub.
        config: of the model, for the table of its parts.
    """
    versions = f"modeling-valor {__version__}, transformers {transformers.__version__}, torch {torch.__version__}"
    card = build_model_card(
        name,
        config,
        model_class=model_class,
        base_model=None if base_model is None or os.path.exists(base_model) else base_model,
        training={**overview, "Versions": versions},
        eval_results=[entry for part in measured.values() for entry in _eval_results(part)],
        metrics={_title(label, part): part.metrics for label, part in measured.items()},
        summary=f"VALOR, trained with modeling-valor {__version__}.",
        mark=MARK,
    )
    return str(card)


def _title(label: str, part: MeasuredTask) -> str:
    split = "" if part.split is None else f", split {part.split}"
    return f"{label} ({part.dataset}{split}, {part.samples:,} samples)"


def _eval_results(part: MeasuredTask) -> Sequence[EvalResult]:
    task_type, task_name = CARD_TASKS[part.task]
    return [
        EvalResult(
            task_type=task_type,
            task_name=task_name,
            dataset_type=part.dataset,
            dataset_name=part.dataset,
            dataset_split=part.split,
            metric_type=metric.lower().replace("@", "_at_").replace("/", "_"),
            metric_name=metric,
            metric_value=round(value, 2),
        )
        for metric, value in part.metrics.items()
    ]


def write_model_card(text: str, folder: str | os.PathLike[str]) -> bool:
    """Writes README.md and returns True; a README.md that this package did not write is kept, and the result is False."""
    path = Path(folder, "README.md")
    if path.exists() and MARK not in path.read_text(encoding="utf-8"):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return True


__all__ = ["MeasuredTask", "model_card", "public_name", "write_model_card"]
