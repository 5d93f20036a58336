# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Outputs of a finished evaluation: JSON, a Markdown table, submission files, entries of a model card."""

import dataclasses
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import EvalResult
from huggingface_hub.repocard import metadata_load, metadata_save
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from torch import Tensor
from yaml import YAMLError

from ..data.display import visible
from ..data.failures import Failure
from ..data.files import atomic_write, writing_to
from ..data.readers.benchmarks import BENCHMARKS
from .paper import PAPER_METRICS
from .rankings import ranking_records
from .resumable import stable_hash
from .retrieve import reverse
from .runner import Report
from .settings import EVALUATION_TASKS, on_paper_scale, scale


CARD_TASKS = {
    "retrieval": ("audiovisual-retrieval", "Text-to-Audiovisual Retrieval"),
    "captioning": ("audiovisual-captioning", "Audiovisual Captioning"),
    "question_answering": ("audiovisual-question-answering", "Audiovisual Question Answering"),
}
"""Task of a model card's entries: type and name."""

_RETRIEVAL_COLUMNS = ("R@1", "R@5", "R@10", "MedianR", "MeanR")


# --- Tables -----------------------------------------------------------------------------------------------------------


def headline(report: Report) -> str:
    """The evaluated dataset, number of samples, checkpoint and settings, in one line."""
    recipe, counts = report.recipe, report.evaluation.counts
    split = "all" if recipe.split is None else recipe.split
    part = "" if recipe.limit is None else f", first {recipe.limit:,} samples only"
    *first, last = recipe.modalities, *recipe.other_modalities
    numbers = ", ".join(
        f"{counts[name]:,} {name}" for name in ("samples", "texts", "references", "questions") if name in counts
    )
    looked_at = ["modalities " + " and ".join(filter(None, (", ".join(first), last)))]
    for letter, number, what in (("v", recipe.num_frames, "frame"), ("a", recipe.num_audio_clips, "audio clip")):
        if any(letter in modalities for modalities in (recipe.modalities, *recipe.other_modalities)):
            amount = f"{number} {what}{'s' * (number != 1)}" if number else f"the checkpoint's number of {what}s"
            looked_at.append(amount)
    if recipe.task != "retrieval":
        looked_at.append(f"{recipe.num_beams} beams" if recipe.num_beams > 1 else "greedy search")
    name = recipe.task.replace("_", " ")
    return (
        f"{recipe.title}, {name}, split {split}{part}: N = {numbers}. Checkpoint {report.checkpoint.name} "
        f"({report.checkpoint.version[:12]}), {', '.join(looked_at)}."
    )


@dataclass(frozen=True)
class MetricRow:
    """A row of the table of metrics.

    Args:
        name: the direction of retrieval, or the model.
        size: number of queries, samples or questions.
        values: one for each column; None: not available.
    """

    name: str
    size: int | None
    values: list[float | None]


def metric_table(report: Report) -> tuple[list[str], list[MetricRow]]:
    """Columns and rows of the metrics, on the scale of the paper, whose rows are the last; none if there are no metrics."""
    recipe = report.recipe
    if not report.evaluation.metrics:
        return [], []
    columns = list(_RETRIEVAL_COLUMNS if recipe.task == "retrieval" else report.evaluation.metrics)
    rows = list((_retrieval_rows if recipe.task == "retrieval" else _rows_of_modalities)(report, columns))
    for row in PAPER_METRICS.get((recipe.task, recipe.dataset), ()):
        values = [row.metrics.get(column) for column in columns]
        rows.append(MetricRow(f"{row.model}, paper, {row.table}", None, values))
    return columns, rows


def _retrieval_rows(report: Report, columns: Sequence[str]) -> Iterator[MetricRow]:
    """A row for each direction of each group, without and with dual softmax."""
    metrics, counts = report.evaluation.metrics, report.evaluation.counts
    for group in report.recipe.groups:
        sizes = {group: counts[f"{group}/queries"], reverse(group): counts[f"{group}/candidates"]}
        for direction, size in sizes.items():
            for prefix, what in (("", ""), ("DSL/", ", dual softmax")):
                names = [f"{direction}/{prefix}{column}" for column in columns]
                if names[0] in metrics:
                    yield MetricRow(f"{direction_name(direction)}{what}", size, [metrics[name] for name in names])


def _rows_of_modalities(report: Report, columns: Sequence[str]) -> Iterator[MetricRow]:
    """A row of captioning or question answering for each of the modalities."""
    task = report.recipe.task
    for part in (report, *report.others):
        name = f"this checkpoint, {part.recipe.modalities}" if report.others else "this checkpoint"
        size = part.evaluation.counts["samples" if task == "captioning" else "questions"]
        metrics = on_paper_scale(task, part.evaluation.metrics)
        yield MetricRow(name, size, [metrics.get(column) for column in columns])


def notes(report: Report) -> list[str]:
    """Sentences to print below the table."""
    recipe, failures = report.recipe, report.evaluation.failures
    lines = []
    if "rows" in report.evaluation.counts:
        lines.append(
            f"{report.evaluation.counts['rows']:,} rows are {len(report.samples):,} samples: rows with the same media were "
            "merged, with all their captions and questions."
        )
    if recipe.dual_softmax and any(_lowest(scores) < 0 for scores in report.evaluation.similarity.values()):
        lines.append("Dual softmax is of scores from which the lowest is subtracted, because some are negative.")
    if not report.evaluation.metrics:
        lines.append("The split has nothing to compare with; predictions were written.")
    elif scale(recipe.task) != 1:
        lines.append("Captioning metrics are multiplied by 100, as in the paper.")
    if (recipe.task, recipe.dataset) in PAPER_METRICS:
        lines.append("The paper's metrics are of models that were fine-tuned on the benchmark.")
    if failures:
        lines.append(f"Samples that could not be read, and are in no metric: {len(failures)}.")
    for other in report.others:
        if other.evaluation.failures:
            number = len(other.evaluation.failures)
            lines.append(f"Samples that could not be read with modalities {other.recipe.modalities}: {number}.")
    return lines


def markdown(report: Report) -> str:
    """The headline and a table of the metrics, with those of the paper in the last rows."""
    columns, rows = metric_table(report)
    lines = [headline(report), ""]
    if rows:
        lines += [_line(["", "N", *columns]), _line(["---", *["---:"] * (len(columns) + 1)])]
        lines += [_line([row.name, *cells(row)]) for row in rows]
    for note in notes(report):
        lines += ["", note]
    failures = report.evaluation.failures
    if failures:
        lines += ["", *(f"- {named_reason(failure)}" for failure in failures[:10])]
        if len(failures) > 10:
            lines.append(f"- and {len(failures) - 10} more, in results.json")
    return visible("\n".join(lines) + "\n")


def named_reason(failure: Failure) -> str:
    """The reason of a failure, with the id of the sample in front."""
    return failure.reason if failure.reason.startswith(f"{failure.id}: ") else f"{failure.id}: {failure.reason}"


def _lowest(scores: Tensor) -> float:
    return scores.masked_fill(scores == -torch.inf, 0).min().item()


def cells(row: MetricRow) -> list[str]:
    """Size and values of a row as text."""
    values = ("" if value is None else f"{value:.1f}" for value in row.values)
    return ["" if row.size is None else f"{row.size:,}", *values]


def direction_name(group: str) -> str:
    """ "t-av" -> "text to video with audio (t-av)"."""
    letters = {"t": "text", "v": "video", "a": "audio", "av": "video with audio"}
    query, candidate = group.split("-")
    return f"{letters[query]} to {letters[candidate]} ({group})"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


# --- Submissions ------------------------------------------------------------------------------------------------------


def _captions_by_id(predictions: Sequence[dict[str, Any]]) -> dict[str, str]:
    """VATEX: {"videoID": caption}."""
    return {entry["id"]: entry["prediction"] for entry in predictions}


def _captions_of_images(predictions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """COCO: [{"image_id": 391895, "caption": "..."}]; the number ends the image's name."""
    return [{"image_id": _number(entry["id"]), "caption": entry["prediction"]} for entry in predictions]


def _answers_by_question(predictions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """VQAv2: [{"question_id": 458752000, "answer": "..."}]."""
    return [{"question_id": _number(entry["question_id"]), "answer": entry["prediction"]} for entry in predictions]


def _number(name: str | None) -> int:
    digits = re.search(r"\d+$", name or "")
    if digits is None:
        raise ValueError(f"The submission needs a number for each entry, but {name!r} does not end with one.")
    return int(digits[0])


SUBMISSIONS: dict[tuple[str, str], Callable[[Sequence[dict[str, Any]]], Any]] = {
    ("captioning", "vatex"): _captions_by_id,
    ("captioning", "coco"): _captions_of_images,
    ("question_answering", "vqav2"): _answers_by_question,
}
"""(task, benchmark) -> function that makes the content of the JSON file for the benchmark's server."""


def submission(report: Report) -> Any | None:
    """Content of the JSON file for the benchmark's server; `None` for benchmarks without a server."""
    form = SUBMISSIONS.get((report.recipe.task, report.recipe.dataset))
    return None if form is None else form(report.evaluation.predictions)


# --- Model card -------------------------------------------------------------------------------------------------------


def eval_results(report: Report) -> list[EvalResult]:
    """The main metrics of an evaluation as entries of a model card, with the settings that they depend on."""
    return results_entries(report.to_dict())


def results_entries(results: Mapping[str, Any]) -> list[EvalResult]:
    """Entries of a model card of the content of a results.json ([`Report.to_dict`])."""
    recipe, task = results["settings"], results["task"]
    task_type, task_name = CARD_TASKS[task]
    named = recipe["dataset"] in BENCHMARKS
    settings = {
        "modalities": results["modalities"],
        "num_frames": recipe["num_frames"],
        "num_audio_clips": recipe["num_audio_clips"],
        "num_beams": None if task == "retrieval" else recipe["num_beams"],
        "limit": recipe["limit"],
        **results["counts"],
    }
    wanted = {
        "retrieval": lambda name: name.rpartition("/")[2].startswith("R@"),
        "captioning": lambda name: True,
        "question_answering": lambda name: name == "accuracy",
    }[task]
    named_metrics = [(name, name, value) for name, value in results["metrics"].items()]
    for modalities, other in results["other_modalities"].items():
        named_metrics += [(f"{modalities}/{name}", name, value) for name, value in other["metrics"].items()]
    return [
        EvalResult(
            task_type=task_type,
            task_name=task_name,
            dataset_type=recipe["dataset"] if named else Path(recipe["dataset"]).name,
            dataset_name=results["dataset"] if named else Path(recipe["dataset"]).name,
            dataset_split=results["split"],
            dataset_args={name: value for name, value in settings.items() if value is not None},
            metric_type=name.lower().replace("@", "_at_").replace("/", "_"),
            metric_name=name,
            metric_value=round(value, 2),
        )
        for name, plain_name, value in named_metrics
        if wanted(plain_name)
    ]


def model_index(report: Report) -> list[dict[str, Any]]:
    """`model-index` of a model card's metadata, with the entries of [`eval_results`]."""
    return eval_results_to_model_index(Path(report.checkpoint.name).name, eval_results(report))


def update_model_card(path: Path, report: Report) -> None:
    """Adds the metrics to the metadata of a model card (README.md); they replace earlier ones of the same kind."""
    metadata = (metadata_load(path) if path.exists() else None) or {}
    name = Path(report.checkpoint.name).name
    previous: list[EvalResult] = []
    if "model-index" in metadata:
        name, previous = model_index_to_eval_results(metadata["model-index"])
    new = eval_results(report)

    def kind(entry: EvalResult) -> tuple[str | None, ...]:
        return entry.task_type, entry.dataset_type, entry.dataset_split, entry.metric_type

    replaced = {kind(entry) for entry in new}
    entries = [entry for entry in previous if kind(entry) not in replaced] + new
    metadata["model-index"] = eval_results_to_model_index(name, entries)
    with writing_to(path.parent), atomic_write(path) as partial:
        if path.exists():
            shutil.copy(path, partial)
        metadata_save(partial, metadata)


def check_model_card(path: Path) -> None:
    """Checks that metrics can be written into this model card.

    Raises:
        ValueError: the file has no valid metadata of a model card, or its `model-index` has another form.
        OSError: its folder cannot be written.
    """
    try:
        metadata = (metadata_load(path) if path.exists() else None) or {}
        if "model-index" in metadata:
            model_index_to_eval_results(metadata["model-index"])
    except (ValueError, TypeError, KeyError, AttributeError, YAMLError) as error:
        raise ValueError(
            f"{path} is no model card that results can be added to: {' '.join(str(error).split())}"
        ) from error
    check_writable(path.parent)


# --- Files ------------------------------------------------------------------------------------------------------------


def results_folder(report: Report, output: Path) -> Path:
    """Folder for the results of an evaluation: output/TASK-DATASET-SPLIT-MODEL-DIGEST, with "-firstN" before the digest if
    the samples were limited.

    The digest is a hash of everything on which the results depend (the checkpoint and its version, the data, and all
    settings). So different evaluations have different folders, and a repeated evaluation has the same folder.
    """
    recipe, checkpoint = report.recipe, report.checkpoint
    task = next(name for name, value in EVALUATION_TASKS.items() if value == recipe.task)
    names = [task, Path(recipe.dataset).resolve().name, recipe.split or "all", Path(checkpoint.name).resolve().name]
    names += [] if recipe.limit is None else [f"first{recipe.limit}"]
    places = [_place(place) for place in (recipe.dataset, checkpoint.name, *report.source)]
    settings = dataclasses.asdict(dataclasses.replace(recipe, dataset=""))
    digest = stable_hash(places, checkpoint.version, settings, str(checkpoint.model.dtype))[:8]
    return output / "-".join(re.sub(r"[^\w.+-]+", "_", name) for name in [*names, digest])


def _place(name: str | None) -> str | None:
    return str(Path(name).resolve()) if name is not None and Path(name).exists() else name


def check_writable(folder: Path) -> None:
    """Creates the folder if it does not exist, and checks that it can be written.

    Raises:
        OSError: it cannot be created or written; the message names it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise type(error)(f"Nothing can be written to {folder}: {error.strerror}. Give another place.") from error


def save(report: Report, folder: Path) -> list[Path]:
    """Writes results.json, results.md, model-index.json and, as far as the task has them, ranks.jsonl, predictions.jsonl and
    submission.json, each atomically. Returns their paths.

    Predictions with other modalities (`Recipe.other_modalities`) are in files of their own, such as predictions-v.jsonl.
    """
    contents = {
        "results.json": _json(report.to_dict()),
        "results.md": markdown(report),
        "model-index.json": _json(model_index(report)),
    }
    if report.evaluation.similarity:
        contents["ranks.jsonl"] = _json_lines(ranking_records(report.evaluation, report.recipe.groups))
    if report.evaluation.predictions:
        contents["predictions.jsonl"] = _json_lines(report.evaluation.predictions)
        for other in report.others:
            contents[f"predictions-{other.recipe.modalities}.jsonl"] = _json_lines(other.evaluation.predictions)
        if (submitted := submission(report)) is not None:
            contents["submission.json"] = json.dumps(submitted, ensure_ascii=False)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_text(folder / name, content)
    return [folder / name for name in contents]


def write_text(path: Path, content: str) -> None:
    """Writes a file atomically; lone surrogates are written as escapes.

    Raises:
        WriteError: the disk is full or read-only.
    """
    with writing_to(path.parent), atomic_write(path) as partial:
        partial.write_bytes(content.encode("utf-8", "backslashreplace"))


def _json_lines(entries: Iterable[Any]) -> str:
    return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
