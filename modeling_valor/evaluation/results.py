# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What a measurement returns: metrics, counts, failures, and what they were computed from."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..configuration_valor import ALIGNMENT_GROUPS, MEDIA
from ..data.failures import Failure
from .clips import Clips


@dataclass
class Evaluation:
    """What was measured.

    Args:
        metrics: values by name, the same in all processes: "t-av/R@1" (texts to clips), "av-t/R@1" (clips to texts),
            "CIDEr", "accuracy", "accuracy/sight".
        counts: on how many clips, texts and questions; "rows", where several samples were one clip (`clips.merge_rows`).
        failures: samples that could not be read; they are in no metric.
        predictions: captions and answers, one for each clip or question: {"id", "prediction", ...}. Main process only.
        similarity: score matrix of each group, (texts, clips) on the CPU. Main process only.
        embeddings: what the scores were made from. Main process only.
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
    """Texts and clips in the common space, on the CPU. Their numbers differ: a clip may have several texts, or none.

    Args:
        ids: of the clips, N.
        clip_of_text: (T,), the clip that each text belongs to.
        texts: T strings.
        text: (T, L, C); (T, C) with coarse alignment, as the following. `text_mask`: (T, L).
        video: (N, F, C), zero where a clip has no frames; `None`: no clip has. `frame_mask`: (N, F) as the model took it.
        audio: (N, A, C), likewise. `audio_mask`: (N, A).
    """

    ids: list[str]
    clip_of_text: Tensor
    texts: list[str]
    text: Tensor
    text_mask: Tensor
    video: Tensor | None = None
    frame_mask: Tensor | None = None
    audio: Tensor | None = None
    audio_mask: Tensor | None = None

    def clips_with(self, modalities: Collection[str]) -> Tensor:
        """Which clips have frames, sound or either, (N,) bool."""
        present = torch.zeros(len(self.ids), dtype=torch.bool)
        for modality in MEDIA:
            mask = getattr(self, modality.mask)
            if modality.name in modalities and mask is not None:
                present |= mask.any(dim=1)
        return present

    def members(self, group: str) -> tuple[Tensor, Tensor, Tensor]:
        """What takes part in a modality group: clips that have its modalities, and queries whose clip is one of them.

        Returns:
            (N,) bool, which clips are candidates; (Q,), the queries as rows of [`score`]'s matrix; (Q,), for each query its
            own clip's place among the candidates.
        """
        query, candidates = ALIGNMENT_GROUPS[group]
        clips = self.clips_with(candidates)
        if query == "text":
            clip_of_row = self.clip_of_text
        else:
            clips &= self.clips_with([query])
            clip_of_row = torch.arange(len(self.ids))
        rows = clips[clip_of_row].nonzero().squeeze(1)
        return clips, rows, (clips.cumsum(dim=0) - 1)[clip_of_row[rows]]


def rows_of(clips: Clips) -> dict[str, int]:
    """How many rows the clips were, where some were merged."""
    return {"rows": clips.num_rows} if clips.num_rows > len(clips) else {}


def failures_of(results: Iterable[object]) -> list[Failure]:
    return [result for result in results if isinstance(result, Failure)]
