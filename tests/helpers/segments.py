# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Random segments with tokens near those that a model gives to texts, and their scores by the model itself."""

from collections.abc import Sequence

import numpy as np
import torch

from modeling_valor import ValorModel
from modeling_valor.search import EmbeddedSegment, Segment, SegmentTokens


def random_segments(
    valor: ValorModel,
    count: int,
    seed: int = 0,
    kinds: Sequence[str] = ("vvva", "vvva", "vv", "a", "v", "vvvva"),
    per_file: int = 6,
    centres: np.ndarray | None = None,
) -> list[EmbeddedSegment]:
    """Segments of 10 s of files of `per_file` segments, in turn with tokens of these modalities.

    Args:
        centres: (N, C), what tokens lie around; random directions by default.
    """
    rng = np.random.default_rng(seed)
    width = valor.config.projection_dim
    centres = rng.normal(size=(20, width)) if centres is None else centres
    segments = []
    for index in range(count):
        letters = kinds[index % len(kinds)]
        embeds = centres[rng.integers(0, len(centres), len(letters))] + 0.05 * rng.normal(size=(len(letters), width))
        embeds = (embeds / np.linalg.norm(embeds, axis=1, keepdims=True)).astype(np.float16)
        start = 10.0 * (index % per_file)
        segment = Segment(
            f"/videos/film {index // per_file}.mp4",
            start,
            start + 10,
            "".join(dict.fromkeys(letters)),
            metadata={"camera": f"c{index // per_file % 3}", "number": index},
        )
        times = (start + rng.uniform(0, 10, len(letters))).astype(np.float32)
        segments.append(
            EmbeddedSegment(segment, SegmentTokens(letters, times, weight_logits(valor, letters, embeds), embeds))
        )
    return segments


def weight_logits(valor: ValorModel, letters: str, embeds: np.ndarray) -> np.ndarray:
    """f(e) of eq. 3 by the model."""
    layers = {"v": valor.video_token_weight, "a": valor.audio_token_weight}
    with torch.no_grad():
        return np.array(
            [
                float(layers[letter](torch.from_numpy(row.astype(np.float32))[None, None])[0, 0])
                for letter, row in zip(letters, embeds, strict=True)
            ],
            dtype=np.float32,
        )


def model_scores(
    valor: ValorModel, text: dict[str, torch.Tensor], segments: Sequence[EmbeddedSegment], group: str = "t-av"
) -> np.ndarray:
    """The model's own score of one text with each segment by itself; -inf where the group's modalities are missing."""
    scores = []
    for item in segments:
        media = {}
        for letter, name in (("v", "video"), ("a", "audio")):
            chosen = np.array(list(item.tokens.modalities)) == letter
            if letter in group.removeprefix("t-") and chosen.any():
                media[f"{name}_embeds"] = torch.from_numpy(item.tokens.embeds[chosen].astype(np.float32))[None]
        with torch.no_grad():
            scores.append(float(valor.compute_similarities([group], **text, **media)[group]) if media else -np.inf)
    return np.array(scores)
