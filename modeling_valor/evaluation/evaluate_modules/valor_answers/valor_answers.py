# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`evaluate` module of `modeling_valor.evaluation.answer_accuracy`."""

import datasets
import evaluate

from modeling_valor.evaluation import answer_accuracy


class ValorAnswers(evaluate.Metric):
    """Accuracy of answers, whole and by type of question."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=answer_accuracy.__doc__,
            citation="",
            inputs_description="predictions: one answer per question; references: right answers of each question.",
            features=datasets.Features(
                {
                    "predictions": datasets.Value("string"),
                    "references": datasets.Sequence(datasets.Value("string")),
                }
            ),
        )

    def _compute(
        self, predictions: list[str], references: list[list[str]], types: list[str] | None = None
    ) -> dict[str, float | dict[str, float]]:
        return answer_accuracy(predictions, references, types)
