# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The result of an evaluation: metrics, counts, failures, and the predictions or embeddings behind them."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..configuration_valor import ALIGNMENT_GROUPS, MEDIA
from ..data.failures import Failure
from .merging import MergedSamples


@dataclass
class Evaluation:
    """Result of evaluating one task.

    Args:
        metrics: values by name, the same in all processes: "t-av/R@1" (texts to samples), "av-t/R@1" (samples to texts),
            "CIDEr", "accuracy", "accuracy/TYPE".
        counts: numbers of samples, texts and questions; "rows" if rows were merged (`merging.merge_rows`).
        failures: samples that could not be read; they are in no metric.
        predictions: captions and answers, one for each sample or question: {"id", "prediction", ...}. Main process only.
        similarity: score matrix of each group, (texts, samples) on the CPU. Main process only.
        embeddings: of which the scores were computed. Main process only.
    """

    metrics: dict[str, float]
    counts: dict[str, int]
    failures: list[Failure]
    predictions: list[dict[str, Any]] = field(default_factory=list)
    similarity: dict[str, Tensor] = field(default_factory=dict)
    embeddings: "Embeddings | None" = None

    @property
    def retrieval_embeddings(self) -> "Embeddings":
        """The embeddings.

        Raises:
            ValueError: there are none: it is no evaluation of retrieval, or this is not the main process.
        """
        if self.embeddings is None:
            raise ValueError("Only an evaluation of retrieval has embeddings, and only in the main process.")
        return self.embeddings


@dataclass
class Embeddings:
    """Texts and media in the common space, on the CPU. A sample may have several texts, or none.

    Args:
        ids: of the N samples.
        sample_of_text: (T,), index of the sample that each text belongs to.
        texts: T strings.
        text: (T, L, C); (T, C) with coarse alignment, as the following. `text_mask`: (T, L).
        video: (N, F, C), zero for a sample without frames; `None`: no sample has frames. `frame_mask`: (N, F), the model's input.
        audio: (N, A, C), likewise. `audio_mask`: (N, A).
    """

    ids: list[str]
    sample_of_text: Tensor
    texts: list[str]
    text: Tensor
    text_mask: Tensor
    video: Tensor | None = None
    frame_mask: Tensor | None = None
    audio: Tensor | None = None
    audio_mask: Tensor | None = None

    def samples_with(self, modalities: Collection[str]) -> Tensor:
        """Which samples have any of these modalities, (N,) bool."""
        present = torch.zeros(len(self.ids), dtype=torch.bool)
        for modality in MEDIA:
            mask = getattr(self, modality.mask)
            if modality.name in modalities and mask is not None:
                present |= mask.any(dim=1)
        return present

    def members(self, group: str) -> tuple[Tensor, Tensor, Tensor]:
        """The candidates and queries of a modality group: samples that have its modalities, and the queries of these samples.

        Returns:
            (N,) bool, which samples are candidates; (Q,), the queries as rows of [`score`]'s matrix; (Q,), for each query the
            index of its own sample among the candidates.
        """
        query, candidates = ALIGNMENT_GROUPS[group]
        present = self.samples_with(candidates)
        if query == "text":
            sample_of_row = self.sample_of_text
        else:
            present &= self.samples_with([query])
            sample_of_row = torch.arange(len(self.ids))
        rows = present[sample_of_row].nonzero().squeeze(1)
        return present, rows, (present.cumsum(dim=0) - 1)[sample_of_row[rows]]


def count_rows(samples: MergedSamples) -> dict[str, int]:
    """{"rows": number of rows} if rows were merged."""
    return {"rows": samples.num_rows} if samples.num_rows > len(samples) else {}


def failures_of(results: Iterable[object]) -> list[Failure]:
    """The failures among results."""
    return [result for result in results if isinstance(result, Failure)]
