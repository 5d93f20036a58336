# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""One evaluation from the name of a checkpoint to its metrics: `valor evaluate` without the command line."""

import dataclasses
import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel
from transformers.utils import logging

from .. import __version__
from ..data.checks import check_texts
from ..data.readers import has_splits, load_samples
from ..data.samples import Sample, SampleStream, each_sample
from ..modeling_valor_heads import HEADS
from ..processing_valor import ValorProcessor
from ..world.render import ORIGIN
from .generate import evaluate_captioning, evaluate_question_answering
from .merging import merge_rows
from .options import MediaOptions, TextOptions
from .results import Evaluation
from .resumable import TensorCache, TextCache, broadcast_from_main, stable_hash
from .retrieve import evaluate_retrieval
from .settings import Recipe, on_paper_scale


logger = logging.get_logger(__name__)

_WEIGHTS_AND_SETTINGS = (".safetensors", ".bin", ".pt", ".pth", ".json", ".txt", ".model", ".jinja", ".py")


@dataclass(frozen=True)
class Checkpoint:
    """A model to evaluate.

    Args:
        name: folder, or name on the Hub.
        version: commit on the Hub; for a folder a hash that changes with its content.
        model, processor: ready to run.
    """

    name: str
    version: str
    model: PreTrainedModel
    processor: ValorProcessor


@dataclass(frozen=True)
class Report:
    """A finished evaluation.

    Args:
        recipe: the settings that were used, including the numbers that come from the checkpoint.
        others: the evaluations with the other modalities of the recipe (`Recipe.other_modalities`).
        source: paths of the media and the annotations.
    """

    recipe: Recipe
    checkpoint: Checkpoint
    evaluation: Evaluation
    samples: Sequence[Sample]
    others: tuple["Report", ...] = ()
    source: tuple[str | None, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The metrics and everything that they depend on, as JSON-serialisable values."""
        return {
            "task": self.recipe.task,
            "dataset": self.recipe.title,
            "split": self.recipe.split,
            "checkpoint": self.checkpoint.name,
            "checkpoint_version": self.checkpoint.version,
            "modalities": self.recipe.modalities,
            "counts": self.evaluation.counts,
            "metrics": on_paper_scale(self.recipe.task, self.evaluation.metrics),
            "settings": dataclasses.asdict(self.recipe),
            "failures": [dataclasses.asdict(failure) for failure in self.evaluation.failures],
            "other_modalities": {
                other.recipe.modalities: {
                    "counts": other.evaluation.counts,
                    "metrics": on_paper_scale(self.recipe.task, other.evaluation.metrics),
                    "failures": [dataclasses.asdict(failure) for failure in other.evaluation.failures],
                }
                for other in self.others
            },
            "package_version": __version__,
            "versions": versions(),
        }


def versions() -> dict[str, str]:
    """Versions of this package and of the packages on which results depend."""
    return {
        "modeling-valor": __version__,
        "transformers": transformers.__version__,
        "torch": str(torch.__version__),
    }


def check_model(name: str) -> None:
    """Checks the name of a checkpoint before it is loaded.

    Raises:
        ValueError: it is neither a folder with a checkpoint nor a valid name on the Hub.
    """
    folder = Path(name)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ValueError(f"The folder {name} has no config.json, so it is no checkpoint; `valor convert` makes one.")
    if not folder.is_dir() and (
        folder.exists() or folder.is_absolute() or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name)
    ):
        raise ValueError(
            f"There is no checkpoint at {name}: give its folder, or a name on the Hub such as owner/name."
        )


def load_checkpoint(
    name: str, task: str, device: str | torch.device = "cpu", dtype: torch.dtype | str | None = None
) -> Checkpoint:
    """The head for a task, and its processor.

    Raises:
        ValueError: there is no such checkpoint, or it has no decoder and the task needs one.
    """
    options: dict[str, Any] = {} if dtype is None else {"dtype": dtype}
    try:
        # Any: transformers annotates neither the pair that is returned nor `to` as a method
        loaded: Any = HEADS[task].from_pretrained(name, output_loading_info=True, **options)
    except OSError as error:
        raise ValueError(f"The checkpoint {name} cannot be loaded: {error}") from error
    model, info = loaded
    if any(key.startswith("lm_head.") for key in info["missing_keys"]):
        raise ValueError(
            f"{name} has no decoder head (lm_head), so it cannot write text: it was saved without one. "
            "Measure retrieval, or give a checkpoint of pretraining, captioning or question answering."
        )
    processor = ValorProcessor.from_pretrained(name)
    return Checkpoint(name, version_of(name, model), model.to(device).eval(), processor)


def version_of(name: str, model: PreTrainedModel) -> str:
    """The commit of a model from the Hub; for a folder a hash of its path and of its files' names, sizes and times."""
    folder = Path(name)
    if not folder.is_dir():
        return getattr(model.config, "_commit_hash", None) or name
    files = sorted(file for file in folder.iterdir() if file.suffix in _WEIGHTS_AND_SETTINGS)
    return stable_hash(
        str(folder.resolve()), [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    )


def read_samples(recipe: Recipe, media: str | None = None, annotations: str | None = None) -> Sequence[Sample]:
    """The samples of a recipe, at most `limit`, with rows of the same media merged (`merging.merge_rows`).

    The samples of a stream are kept in memory, undecoded, and `limit` is a number of its rows.
    """
    samples = load_samples(recipe.dataset, recipe.split, media, annotations)
    is_rendered = (Path(recipe.dataset) / ORIGIN).is_file()  # its reader checks the split
    if recipe.split is not None and not is_rendered and not has_splits(recipe.dataset, annotations):
        logger.warning_once(f"{recipe.dataset} has no splits: all samples are evaluated as {recipe.split!r}.")
    if isinstance(samples, SampleStream):
        samples = list(itertools.islice(each_sample(samples), recipe.limit))
    samples = merge_rows(samples, recipe.limit)
    if not len(samples):
        raise ValueError(f"{recipe.title} has no samples in the split {recipe.split!r}.")
    # Test sets may hide captions and answers, but retrieval needs texts, and question answering needs questions
    needed = {"retrieval": "captions", "question_answering": "questions"}.get(recipe.task)
    if needed and not any(getattr(sample, needed) for sample in samples):
        check_texts(samples.samples, recipe.task, recipe.title)
    return samples


def evaluate(
    recipe: Recipe,
    checkpoint: Checkpoint,
    samples: Sequence[Sample],
    *,
    batch_size: int = 16,
    num_workers: int = 0,
    cache: str | os.PathLike[str] | None = None,
    source: Sequence[str | None] = (),
    progress: bool = False,
) -> Report:
    """Evaluates a checkpoint on samples. All processes of a distributed job call it, and get the same metrics.

    With several modalities (`Recipe.other_modalities`) samples are read and encoded once for each of them.

    Args:
        cache: folder that stores embeddings (of retrieval) and predictions after each batch. The same evaluation resumes
            after an interruption, and reuses the embeddings if only the groups or the post-processing change. Results of
            other versions of the checkpoint or other settings are never used.
        source: identifies the samples' files together with their names, such as the folder of the media.
        batch_size: number of samples in a batch. It changes the metrics by rounding only.

    Raises:
        ValueError: no sample could be read.
    """
    samples = merge_rows(samples)
    reports = []
    for modalities in (recipe.modalities, *recipe.other_modalities):
        part = dataclasses.replace(recipe, modalities=modalities, other_modalities=())
        caches = None if cache is None else _Caches(Path(cache), part, checkpoint, source)
        evaluation = _measure(part, checkpoint, samples, batch_size, num_workers, caches, progress)
        if evaluation.failures and not evaluation.counts["samples"]:
            first_failure = evaluation.failures[0]
            raise ValueError(
                f"None of the {len(samples)} samples could be read with modalities {modalities}. The first is "
                f"{first_failure.id}: {first_failure.reason}"
            )
        reports.append(Report(in_force(part, checkpoint), checkpoint, evaluation, samples, source=tuple(source)))
    first, *others = reports
    recipe = dataclasses.replace(first.recipe, other_modalities=recipe.other_modalities)
    return dataclasses.replace(first, recipe=recipe, others=tuple(others))


class _Caches:
    """The caches of an evaluation with one set of modalities, below a common folder.

    The name of each has a hash of everything that its content depends on.
    """

    def __init__(self, root: Path, recipe: Recipe, checkpoint: Checkpoint, source: Sequence[str | None]):
        dataset = Path(recipe.dataset)
        self.root, self.recipe = root, recipe
        self.made_from = [
            *(__version__, checkpoint.version, str(checkpoint.model.dtype), *source),
            *(str(dataset.resolve()) if dataset.exists() else recipe.dataset, recipe.split),
            *(recipe.modalities, recipe.num_frames, recipe.num_audio_clips),
        ]

    def embeddings(self) -> dict[str, TensorCache]:
        """Those of [`evaluate_retrieval`]."""
        return {
            "samples": TensorCache(self._folder("samples")),
            "texts": TensorCache(self._folder("texts", self.recipe.max_length)),
        }

    def captions(self) -> TextCache:
        return TextCache(self._folder("captions", self.recipe.num_beams, self.recipe.max_new_tokens))

    def answers(self) -> TextCache:
        recipe = self.recipe
        return TextCache(self._folder("answers", recipe.max_length, recipe.num_beams, recipe.max_new_tokens))

    def _folder(self, kind: str, *more: int | None) -> Path:
        return self.root / f"{kind}-{stable_hash(*self.made_from, *more)}"


def _measure(
    recipe: Recipe,
    checkpoint: Checkpoint,
    samples: Sequence[Sample],
    batch_size: int,
    num_workers: int,
    caches: _Caches | None,
    progress: bool,
) -> Evaluation:
    """Evaluates one task with one set of modalities."""
    model, processor = checkpoint.model, checkpoint.processor
    media = MediaOptions(recipe.modalities, recipe.num_frames, recipe.num_audio_clips, num_workers)
    text = TextOptions(recipe.max_length, paragraph=recipe.paragraph)
    if recipe.task == "retrieval":
        return evaluate_retrieval(
            model,
            processor,
            samples,
            recipe.groups,
            media=media,
            text=text,
            batch_size=batch_size,
            dual_softmax=recipe.dual_softmax,
            caches=None if caches is None else caches.embeddings(),
            progress=progress,
        )
    generate_kwargs = {"num_beams": recipe.num_beams, "max_new_tokens": recipe.max_new_tokens}
    if recipe.task == "captioning":
        return evaluate_captioning(
            model,
            processor,
            samples,
            media=media,
            generate_kwargs=generate_kwargs,
            batch_size=batch_size,
            metrics=recipe.metrics,
            cache=None if caches is None else caches.captions(),
            progress=progress,
        )
    return evaluate_question_answering(
        model,
        processor,
        samples,
        media=media,
        text=text,
        generate_kwargs=generate_kwargs,
        batch_size=batch_size,
        cache=None if caches is None else caches.answers(),
        progress=progress,
    )


def in_force(recipe: Recipe, checkpoint: Checkpoint) -> Recipe:
    """The recipe, with the checkpoint's numbers instead of None."""
    processor, generation = checkpoint.processor, getattr(checkpoint.model, "generation_config", None)
    defaults = {
        "num_frames": processor.video_processor.num_frames,
        "num_audio_clips": processor.feature_extractor.num_audio_clips,
        "max_new_tokens": getattr(generation, "max_new_tokens", None),
    }
    return dataclasses.replace(
        recipe, **{name: value for name, value in defaults.items() if getattr(recipe, name) is None}
    )


def load_and_evaluate(
    recipe: Recipe,
    model: str,
    *,
    media: str | None = None,
    annotations: str | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str | None = None,
    **options: Any,
) -> Report:
    """Loads samples and checkpoint and evaluates them; `options` are those of [`evaluate`]. `outputs` writes the report."""
    samples = read_samples(recipe, media, annotations)
    checkpoint = load_checkpoint(model, recipe.task, device, dtype)
    # Machines may report different times for the same files, so all processes use the version of the main one
    checkpoint = dataclasses.replace(checkpoint, version=broadcast_from_main(lambda: checkpoint.version))
    return evaluate(recipe, checkpoint, samples, source=(media, annotations), **options)
