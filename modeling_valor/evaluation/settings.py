# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Settings of an evaluation; by default those of the paper for each benchmark."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ..configuration_valor import GROUP_OF_LETTERS
from ..data.loading import Modalities
from ..data.readers.benchmarks import BENCHMARKS
from .metrics.captioning import CAPTION_METRICS, check_caption_metrics
from .options import TEXT_LENGTH
from .retrieve import check_groups


EVALUATION_TASKS = {"retrieval": "retrieval", "captioning": "captioning", "qa": "question_answering"}
"""Tasks that can be evaluated: short name (in the command and in names of folders) -> name."""

_ANSWER_TOKENS = 10


@dataclass(frozen=True)
class Recipe:
    """All settings on which the metrics of an evaluation depend, apart from the checkpoint and the files.

    Args:
        task: a value of `EVALUATION_TASKS`.
        dataset: a benchmark's name, or any other argument of `data.readers.load_samples`.
        split: name of the split; None: all samples of a dataset without splits.
        modalities: which modalities of each sample are used.
        other_modalities: modalities with which captions and answers are measured too, one at a time. Retrieval has `groups`.
        num_frames, num_audio_clips: of each sample; None: the checkpoint's numbers.
        groups: modality groups of retrieval; the first is the main one.
        paragraph: join the captions of a sample into one text. The readers of benchmarks do this where it is usual.
        max_length: tokens of a text in retrieval, or of a question.
        num_beams, max_new_tokens: for captions and answers; `max_new_tokens=None`: the checkpoint's number.
        metrics: of captioning.
        dual_softmax: also compute the metrics of retrieval with this post-processing.
        limit: evaluate only this number of samples, the first ones; None: all.
    """

    task: str
    dataset: str
    split: str | None = None
    modalities: Modalities = "av"
    other_modalities: tuple[Modalities, ...] = ()
    num_frames: int | None = None
    num_audio_clips: int | None = None
    groups: tuple[str, ...] = ("t-av",)
    paragraph: bool = False
    max_length: int = TEXT_LENGTH
    num_beams: int = 1
    max_new_tokens: int | None = None
    metrics: tuple[str, ...] = CAPTION_METRICS
    dual_softmax: bool = False
    limit: int | None = None

    @property
    def title(self) -> str:
        """The benchmark's name in the paper; other datasets keep their name."""
        return BENCHMARKS[self.dataset].title if self.dataset in BENCHMARKS else self.dataset


def recipe_for(task: str, dataset: str, **changes: Any) -> Recipe:
    """The paper's settings for a task of a benchmark, or defaults for another dataset, changed by all `changes` but `None`.

    By default the modalities are those of the benchmark: video and audio for VALOR-32K, audio for AudioCaps. Several, such
    as "av,v,a", are evaluated one after the other; the first is the main one.

    Raises:
        ValueError: the task, a modality, a group or a metric is unknown, a number is not positive, or the paper does not
            evaluate the task on the benchmark.
    """
    if task not in EVALUATION_TASKS.values():
        raise ValueError(f"`task` must be one of {', '.join(EVALUATION_TASKS.values())}, got {task!r}.")
    changes = {name: value for name, value in changes.items() if value is not None}
    recipe = Recipe(task, dataset, num_beams=3 if task == "captioning" else 1)
    if task == "question_answering":
        recipe = dataclasses.replace(recipe, max_new_tokens=_ANSWER_TOKENS)
    if dataset in BENCHMARKS:
        recipe = _of_benchmark(recipe)
    if "modalities" in changes:
        changes = _fields_of_modalities(task, changes.pop("modalities").split(",")) | changes
    recipe = dataclasses.replace(recipe, **changes)
    check_caption_metrics(recipe.metrics)
    _check_groups_of(recipe)
    for name in ("num_frames", "num_audio_clips", "max_length", "num_beams", "max_new_tokens", "limit"):
        if getattr(recipe, name) is not None and getattr(recipe, name) < 1:
            raise ValueError(f"`{name}` must be at least 1, got {getattr(recipe, name)}.")
    return recipe


def _check_groups_of(recipe: Recipe) -> None:
    check_groups(recipe.groups)
    for group in recipe.groups:
        if recipe.task == "retrieval" and not set(group) <= set(recipe.modalities) | {"t", "-"}:
            raise ValueError(
                f"Group {group!r} needs more than the modalities {recipe.modalities!r} that are read; pass other "
                "`modalities`, or other groups."
            )


def _fields_of_modalities(task: str, wanted: Sequence[str]) -> dict[str, Any]:
    """The fields of a recipe for these modalities."""
    unknown = [name for name in wanted if name not in GROUP_OF_LETTERS]
    if unknown or len(set(wanted)) < len(wanted):
        raise ValueError(
            f"Modalities {','.join(wanted)!r} were given; pass av, v or a, or several different ones of them as in av,v,a."
        )
    main, *others = wanted
    if task == "retrieval":  # embeddings of video and audio serve all groups
        return {"modalities": "av" if others else main, "groups": tuple(GROUP_OF_LETTERS[name] for name in wanted)}
    return {"modalities": main, "other_modalities": tuple(others), "groups": (GROUP_OF_LETTERS[main],)}


def _of_benchmark(recipe: Recipe) -> Recipe:
    benchmark = BENCHMARKS[recipe.dataset]
    if recipe.task not in benchmark.settings:
        raise ValueError(
            f"{benchmark.title} is for {' and '.join(benchmark.tasks)}, not for {recipe.task}; to evaluate this task anyway, "
            "pass the folder of the data as the dataset."
        )
    settings = benchmark.settings[recipe.task]
    max_length = settings.max_question_length if recipe.task == "question_answering" else settings.max_length
    return dataclasses.replace(
        recipe,
        split=settings.test_split,
        modalities=cast(Modalities, settings.groups[0].removeprefix("t-")),
        groups=settings.groups[:1],
        num_frames=settings.num_frames,
        num_audio_clips=settings.num_audio_clips,
        max_length=max_length or TEXT_LENGTH,
        num_beams=settings.num_beams,
    )


def scale(task: str) -> int:
    """Factor from computed metrics to those of the paper's tables: captioning metrics are computed as fractions."""
    return 100 if task == "captioning" else 1


def on_paper_scale(task: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics of an [`Evaluation`] as in the paper's tables, logs, model cards and JSON; see [`scale`]."""
    return {name: scale(task) * value for name, value in metrics.items()}
