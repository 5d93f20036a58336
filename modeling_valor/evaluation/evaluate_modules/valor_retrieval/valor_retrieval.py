# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`evaluate` module of `modeling_valor.evaluation.retrieval_metrics`."""

import datasets
import evaluate
import numpy as np
import torch

from modeling_valor.evaluation import retrieval_metrics
from modeling_valor.evaluation.module_info import metric_info


class ValorRetrieval(evaluate.Metric):
    """R@1, R@5, R@10, MedianR and MeanR."""

    def _info(self) -> evaluate.MetricInfo:
        return metric_info(
            retrieval_metrics,
            "predictions: rows of the similarity matrix; references: right columns of each row.",
            predictions=datasets.Sequence(datasets.Value("float64")),
            references=datasets.Sequence(datasets.Value("int64")),
        )

    def _compute(
        self,
        predictions: list[list[float]],
        references: list[list[int]],
        dual_softmax: bool = False,
        temperature: float = 0.01,
    ) -> dict[str, float]:
        similarity = torch.from_numpy(np.asarray(predictions, dtype=np.float64))
        return retrieval_metrics(similarity, references, dual_softmax, temperature)
