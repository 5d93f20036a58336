# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`evaluate` module of `modeling_valor.evaluation.caption_metrics`."""

import evaluate

from modeling_valor.evaluation import CAPTION_METRICS, caption_metrics
from modeling_valor.evaluation.module_info import TEXT, TEXTS, metric_info


class ValorCaptioning(evaluate.Metric):
    """BLEU, ROUGE-L, CIDEr, METEOR and SPICE."""

    def _info(self) -> evaluate.MetricInfo:
        inputs = "predictions: one caption per sample; references: a list of captions per sample."
        return metric_info(caption_metrics, inputs, predictions=TEXT, references=TEXTS)

    def _compute(
        self, predictions: list[str], references: list[list[str]], metrics: tuple[str, ...] = CAPTION_METRICS
    ) -> dict[str, float]:
        return caption_metrics(predictions, references, metrics)
