# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Retrieval tasks of mteb from annotated files of one's own.

samples = load_samples("clips")
mteb.evaluate(encoder, [retrieval_task(samples, category) for category in CATEGORIES])
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from datasets import Audio, Dataset, Video
from transformers.utils import logging

from ..configuration_valor import MODALITIES
from ..data.samples import Sample
from ..evaluation.resumable import stable_hash
from .mteb import AbsTaskRetrieval, RetrievalSplitData, TaskMetadata


logger = logging.get_logger(__name__)

CATEGORIES = ("t2v", "v2t", "t2a", "a2t", "t2va", "va2t", "v2a", "a2v", "vt2a", "at2v")
"""What is searched by what, in mteb's letters: `t2va` is text to video and audio."""

COLUMNS = {modality.letter: modality.name for modality in MODALITIES}


def retrieval_task(samples: Sequence[Sample], category: str, name: str = "MyVideos") -> AbsTaskRetrieval:
    """A retrieval task over samples, such as `data.loading.load_samples` returns.

    A side with text has a row for each caption of a sample, any other side has one for each sample. Right is what is of the
    same sample.

    Args:
        samples: with paths or URLs. Those that have nothing of a side are left out, which is said.
        category: one of `CATEGORIES`.
        name: the beginning of the task's name. A hash of captions and paths follows, by which mteb keeps results of different
            samples apart.

    Raises:
        ValueError: another category, or no sample has what it compares.
    """
    if category not in CATEGORIES:
        raise ValueError(f"category={category!r} was given; {', '.join(CATEGORIES)} are accepted.")
    sides = category.split("2")
    kept = [sample for sample in samples if all(_has(sample, side) for side in sides)]
    if not kept:
        raise ValueError(f"None of the {len(samples)} samples has what {category} compares.")
    if len(kept) < len(samples):
        logger.warning(f"{len(samples) - len(kept)} of {len(samples)} samples have nothing of a side of {category}.")
    queries, corpus = (_rows(kept, side) for side in sides)
    right: defaultdict[int, dict[str, int]] = defaultdict(dict)
    for item in corpus:
        right[item["sample"]][item["id"]] = 1
    digest = stable_hash([[sample.id, str(sample.video), str(sample.audio), *sample.captions] for sample in kept])
    kind: dict[str, Any] = {
        "category": category,
        "modalities": [COLUMNS[letter] for letter in category.replace("2", "")],
    }
    metadata = TaskMetadata(
        name=f"{name}-{digest[:8]}-{category}",
        description=f"{category} retrieval over {len(kept)} samples.",
        dataset={"path": f"local/{name}", "revision": digest},
        type="Any2AnyRetrieval",
        **kind,
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
        is_public=False,
    )
    task: AbsTaskRetrieval = type("LocalRetrieval", (AbsTaskRetrieval,), {"metadata": metadata})()
    task.dataset = {
        "default": {
            "test": RetrievalSplitData(
                queries=_dataset(queries),
                corpus=_dataset(corpus),
                relevant_docs={query["id"]: right[query["sample"]] for query in queries},
                top_ranked=None,
            )
        }
    }
    task.data_loaded = True
    return task


def _has(sample: Sample, side: str) -> bool:
    """Whether a sample has all texts and any of the media of a side."""
    media = [sample.video if letter == "v" else sample.audio for letter in side if letter != "t"]
    return ("t" not in side or bool(sample.captions)) and (not media or any(part is not None for part in media))


def _rows(samples: Sequence[Sample], side: str) -> list[dict[str, Any]]:
    """The rows of a side, each with an `id` and the `sample` that it is of."""
    rows = []
    for number, sample in enumerate(samples):
        media = {COLUMNS[letter]: getattr(sample, COLUMNS[letter]) for letter in side if letter != "t"}
        texts = [{"text": caption} for caption in sample.captions] if "t" in side else [{}]
        for place, text in enumerate(texts):
            rows.append({"id": f"{number}-{place}", "sample": number, **text, **media})
    return rows


def _dataset(rows: Sequence[dict[str, Any]]) -> Dataset:
    columns = {name: [row[name] for row in rows] for name in rows[0] if name != "sample"}
    dataset = Dataset.from_dict(columns)
    for name, kind in (("video", Video), ("audio", Audio)):
        if name in columns:
            dataset = dataset.cast_column(name, kind(decode=False))
    return dataset
