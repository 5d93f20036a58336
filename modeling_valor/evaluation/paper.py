# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Metrics of VALOR-B and VALOR-L in the paper, to compare with those measured here.

They are of fine-tuned models, with video and audio where a benchmark has both. In percent; captioning metrics times 100.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class PaperRow:
    """A model's metrics on one benchmark.

    Args:
        model: "VALOR-B" or "VALOR-L", with what was special.
        table: of the paper.
        metrics: by the names that are used here.
    """

    model: str
    table: str
    metrics: dict[str, float]


_MODELS = {
    "base": "VALOR-B",
    "large": "VALOR-L",
    "large_dsl": "VALOR-L with DSL",
    "base_rl": "VALOR-B with reinforcement",
    "large_rl": "VALOR-L with reinforcement",
}


def _rows(table: str, names: str, **models: tuple[float | None, ...]) -> list[PaperRow]:
    """A row for each model, which are keys of `_MODELS`."""
    return [
        PaperRow(
            model,
            table,
            {name: value for name, value in zip(names.split(), values, strict=True) if value is not None},
        )
        for model, values in ((_MODELS[key], values) for key, values in models.items())
    ]


_RECALL = "R@1 R@5 R@10"
_CAPTIONS = "BLEU-4 METEOR ROUGE-L CIDEr"

PAPER_METRICS: dict[tuple[str, str], list[PaperRow]] = {
    ("retrieval", "valor32k"): _rows(
        "Table 3", _RECALL, base=(67.9, 89.7, 94.4), large=(73.2, 91.6, 95.4), large_dsl=(80.9, 93.9, 97.1)
    ),
    ("retrieval", "msrvtt"): _rows(
        "Table 3", _RECALL, base=(43.0, 72.2, 82.1), large=(54.4, 79.8, 87.6), large_dsl=(59.9, 83.5, 89.6)
    ),
    ("retrieval", "didemo"): _rows(
        "Table 3", _RECALL, base=(52.2, 80.8, 86.8), large=(57.6, 83.3, 88.8), large_dsl=(61.5, 85.3, 90.4)
    ),
    ("retrieval", "activitynet"): _rows(
        "Table 3", _RECALL, base=(50.5, 79.6, 89.1), large=(63.4, 87.8, 94.1), large_dsl=(70.1, 90.8, 95.3)
    ),
    ("retrieval", "lsmdc"): _rows(
        "Table 3", _RECALL, base=(25.1, 45.8, 55.2), large=(31.8, 52.8, 62.4), large_dsl=(34.2, 56.0, 64.1)
    ),
    ("retrieval", "vatex"): _rows(
        "Table 3", _RECALL, base=(67.5, 94.1, 97.4), large=(76.9, 96.7, 98.6), large_dsl=(78.5, 97.1, 98.7)
    ),
    ("retrieval", "clotho"): _rows("Table 6", _RECALL, base=(17.5, 42.7, 55.3)),
    ("retrieval", "audiocaps"): _rows("Table 6", _RECALL, base=(40.1, 73.9, 83.1)),
    ("retrieval", "coco"): _rows("Table 7", _RECALL, large=(61.4, 84.4, 90.9)),
    ("captioning", "valor32k"): _rows(
        "Table 4", _CAPTIONS, base=(8.9, 14.8, 30.8, 55.7), large=(9.6, 15.4, 31.8, 61.5)
    ),
    ("captioning", "msvd"): _rows(
        "Table 4", _CAPTIONS, base=(76.1, 48.0, 85.2, 162.1), large=(80.7, 51.0, 87.9, 178.5)
    ),
    ("captioning", "msrvtt"): _rows(
        "Table 4", _CAPTIONS, base=(53.8, 32.3, 67.0, 66.6), large=(54.4, 32.9, 68.0, 74.0)
    ),
    ("captioning", "vatex"): _rows(
        "Table 4", _CAPTIONS, base_rl=(41.9, 26.6, 54.6, 73.9), large_rl=(45.6, 29.4, 57.4, 95.8)
    ),
    ("captioning", "clotho"): _rows("Table 6", _CAPTIONS, base=(16.2, 17.4, 38.2, 42.3)),
    ("captioning", "audiocaps"): _rows("Table 6", _CAPTIONS, base=(27.0, 23.1, 49.4, 74.1)),
    ("captioning", "coco"): _rows("Table 7", "CIDEr SPICE", large=(152.5, 25.7)),
    ("question_answering", "msrvtt_qa"): _rows("Table 5", "accuracy", base=(46.7,), large=(49.2,)),
    ("question_answering", "msvd_qa"): _rows("Table 5", "accuracy", base=(56.4,), large=(60.0,)),
    ("question_answering", "tgif_frame"): _rows("Table 5", "accuracy", base=(74.5,), large=(78.7,)),
    ("question_answering", "activitynet_qa"): _rows("Table 5", "accuracy", base=(44.8,), large=(48.6,)),
    ("question_answering", "music_avqa"): _rows("Table 5", "accuracy", base=(76.6,), large=(78.9,)),
    ("question_answering", "vqav2"): _rows("Table 7, test-std", "accuracy", large=(78.62,)),
}
"""(task, benchmark) -> rows; names as in `data.readers.benchmarks.BENCHMARKS`."""
