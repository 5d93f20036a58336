# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`evaluate` module of `modeling_valor.evaluation.answer_accuracy`."""

import evaluate

from modeling_valor.evaluation import answer_accuracy
from modeling_valor.evaluation.module_info import TEXT, TEXTS, metric_info


class ValorAnswers(evaluate.Metric):
    """Accuracy of answers, for all questions and for each type of question."""

    def _info(self) -> evaluate.MetricInfo:
        inputs = "predictions: one answer per question; references: right answers of each question."
        return metric_info(answer_accuracy, inputs, predictions=TEXT, references=TEXTS)

    def _compute(
        self, predictions: list[str], references: list[list[str]], types: list[str] | None = None
    ) -> dict[str, float | dict[str, float]]:
        return answer_accuracy(predictions, references, types)
