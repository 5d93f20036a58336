# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`evaluate` module of `modeling_valor.evaluation.caption_metrics`."""

import datasets
import evaluate

from modeling_valor.evaluation import CAPTION_METRICS, caption_metrics


class ValorCaptioning(evaluate.Metric):
    """BLEU, ROUGE-L, CIDEr, METEOR and SPICE."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=caption_metrics.__doc__,
            citation="",
            inputs_description="predictions: one caption per sample; references: a list of captions per sample.",
            features=datasets.Features(
                {
                    "predictions": datasets.Value("string"),
                    "references": datasets.Sequence(datasets.Value("string")),
                }
            ),
        )

    def _compute(
        self, predictions: list[str], references: list[list[str]], metrics: tuple[str, ...] = CAPTION_METRICS
    ) -> dict[str, float]:
        return caption_metrics(predictions, references, metrics)
