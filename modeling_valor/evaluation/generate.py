# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Captions and answers that a model writes for a set of samples, and their metrics (section 4.3).

Training and `valor evaluate` both use these functions. In a distributed job all processes call them and share the work; the
main process computes the metrics and sends them to the others.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from torch import Tensor, nn

from ..data.failures import Failure
from ..data.samples import Question, Sample
from ..generation import ValorGenerationMixin
from ..modeling_valor_heads import ValorForCaptioning, ValorForQuestionAnswering
from ..modeling_valor_text import ValorConditions
from ..processing_valor import ValorProcessor
from ..text_cleaning import clean_question
from .loader import MediaBatch, media_batches
from .merging import merge_rows, sample_keys
from .metrics.answers import accuracy_by_type, mean_percent, score_answers
from .metrics.captioning import CAPTION_METRICS, caption_metrics, check_caption_metrics
from .models import evaluating, on_device, with_head
from .options import MediaOptions, TextOptions, accepts_flat_keywords
from .results import Evaluation, count_rows, failures_of
from .resumable import TextCache, broadcast_from_main, map_resumable, stable_hash


Written: TypeAlias = dict[str, Any]
"""What a model wrote about a sample: "text", a caption, or "answers", one for each question."""


@accepts_flat_keywords
def evaluate_captioning(
    model: nn.Module,
    processor: ValorProcessor,
    samples: Sequence[Sample],
    *,
    media: MediaOptions | None = None,
    generate_kwargs: Mapping[str, Any] | None = None,
    batch_size: int = 16,
    metrics: Sequence[str] = CAPTION_METRICS,
    cache: TextCache | None = None,
    progress: bool = False,
) -> Evaluation:
    """Captions for all samples, and their metrics with the samples' captions as references (`caption_metrics`).

    Samples without reference captions get a caption, too, as test sets with hidden references need; they are in no metric.

    Args:
        media: how the samples are read.
        generate_kwargs: arguments of `generate`; by default one beam (the paper uses 3, section 5.1.2) and the checkpoint's
            `max_new_tokens`.
        metrics: of `CAPTION_METRICS`.
    """
    check_caption_metrics(metrics)
    head, merged = with_head(model, ValorForCaptioning), merge_rows(samples)
    options = _without_none({"num_beams": 1, **(generate_kwargs or {})})

    def write(batch: MediaBatch) -> dict[int, Written | Failure]:
        results: dict[int, Written | Failure] = {**batch.failures}
        if batch.indices:
            texts = _write(head, processor, **on_device(batch.inputs, head.valor), **options)
            results.update((index, {"text": text}) for index, text in zip(batch.indices, texts, strict=True))
        return results

    with evaluating(head):
        results = map_resumable(
            broadcast_from_main(lambda: sample_keys(merged)),
            batch_size,
            lambda batches: map(write, media_batches(merged, processor, batches, media or MediaOptions())),
            cache,
            "captions" if progress else None,
            lambda _, result: isinstance(result.get("text"), str),
        )
    predictions: list[dict[str, Any]] = []

    def measure() -> tuple[dict[str, float], dict[str, int], list[Failure]]:
        for sample, result in zip(merged, results, strict=True):
            if not isinstance(result, Failure):
                entry = {"id": sample.id, "prediction": result["text"], "references": list(sample.captions)}
                predictions.append(entry)
        counts = {"samples": len(predictions), "references": sum(len(entry["references"]) for entry in predictions)}
        return _caption_scores(predictions, metrics), counts | count_rows(merged), failures_of(results)

    return Evaluation(*broadcast_from_main(measure), predictions)


@accepts_flat_keywords
def evaluate_question_answering(
    model: nn.Module,
    processor: ValorProcessor,
    samples: Sequence[Sample],
    *,
    media: MediaOptions | None = None,
    text: TextOptions | None = None,
    generate_kwargs: Mapping[str, Any] | None = None,
    batch_size: int = 16,
    cache: TextCache | None = None,
    progress: bool = False,
) -> Evaluation:
    """Answers to all questions about all samples, and "accuracy" with "accuracy/TYPE" for each type (`answer_accuracy`).

    Questions without reference answers get an answer, too, as test sets with hidden answers need; they are in no metric. A type such as
    "Audio/Counting" counts for "Audio" as well.

    Args:
        media: how the samples are read.
        text: how questions are tokenized.
        generate_kwargs: arguments of `generate`; by default one beam (as in section 5.1.2) and `max_new_tokens=10`.
    """
    head, merged = with_head(model, ValorForQuestionAnswering), merge_rows(samples)
    options = _without_none({"num_beams": 1, "max_new_tokens": 10, **(generate_kwargs or {})})
    write = partial(_answer_batch, head, processor, merged, text or TextOptions(), options, batch_size)
    with evaluating(head):
        results = map_resumable(
            broadcast_from_main(lambda: _keys_of_questions(merged)),
            batch_size,
            lambda batches: map(write, media_batches(merged, processor, batches, media or MediaOptions())),
            cache,
            "answers" if progress else None,
            lambda index, result: _are_texts(result.get("answers"), len(merged[index].questions)),
        )
    predictions: list[dict[str, Any]] = []

    def measure() -> tuple[dict[str, float], dict[str, int], list[Failure]]:
        failures = failures_of(results)
        for sample, result in zip(merged, results, strict=True):
            if not isinstance(result, Failure):
                pairs = zip(sample.questions, result["answers"], strict=True)
                predictions.extend(_answered(sample, question, text) for question, text in pairs)
        counts = {"samples": len(merged) - len(failures), "questions": len(predictions)}
        return _accuracy(predictions), counts | count_rows(merged), failures

    return Evaluation(*broadcast_from_main(measure), predictions)


def _caption_scores(predictions: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> dict[str, float]:
    """Metrics of the captions that have references; none if no caption has."""
    compared = [entry for entry in predictions if entry["references"]]
    texts, references = [entry["prediction"] for entry in compared], [entry["references"] for entry in compared]
    return caption_metrics(texts, references, metrics) if compared else {}


def _accuracy(predictions: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """ "accuracy" of the questions that have answers, and "accuracy/TYPE"; nothing where no question has."""
    compared = [entry for entry in predictions if entry["answers"]]
    if not compared:
        return {}
    scores = score_answers([entry["prediction"] for entry in compared], [entry["answers"] for entry in compared])
    types = [entry["type"].split("/") if entry["type"] else () for entry in compared]
    by_type = {f"accuracy/{name}": value for name, value in accuracy_by_type(scores, types).items()}
    return {"accuracy": mean_percent(scores), **by_type}


def _answered(sample: Sample, question: Question, text: str) -> dict[str, Any]:
    return {
        "id": sample.id,
        "question_id": question.id,
        "question": question.text,
        "prediction": text,
        "answers": list(question.answers),
        "type": question.type,
    }


# --- Writing ----------------------------------------------------------------------------------------------------------


def _answer_batch(
    head: ValorForQuestionAnswering,
    processor: ValorProcessor,
    samples: Sequence[Sample],
    text: TextOptions,
    options: Mapping[str, Any],
    batch_size: int,
    batch: MediaBatch,
) -> dict[int, Written | Failure]:
    """Answers to all questions about the samples of a batch, `batch_size` questions at a time.

    A sample is encoded once for all its questions. Questions of about the same length are answered together.
    """
    asked = [
        (row, place, clean_question(question.text) if text.clean else question.text)
        for row, index in enumerate(batch.indices)
        for place, question in enumerate(samples[index].questions)
    ]
    answers: dict[int, list[str]] = {index: [""] * len(samples[index].questions) for index in batch.indices}
    if asked:
        conditions = head.valor.encode_conditions(**on_device(batch.inputs, head.valor))
    asked.sort(key=lambda question: len(question[2].split()))
    for start in range(0, len(asked), batch_size):
        rows, places, questions = map(list, zip(*asked[start : start + batch_size], strict=True))
        encoded = processor(question=questions, max_length=text.max_length, return_tensors="pt")
        inputs = on_device(encoded, head.valor)
        texts = _write(head, processor, conditions=_rows(conditions, rows), **inputs, **options)
        for row, place, written in zip(rows, places, texts, strict=True):
            answers[batch.indices[row]][place] = written
    return {**batch.failures, **{index: {"answers": texts} for index, texts in answers.items()}}


def _write(head: ValorGenerationMixin, processor: ValorProcessor, **arguments: Any) -> list[str]:
    """The texts that a head generates; `arguments` are those of `generate`."""
    output = head.generate(**arguments)
    return processor.post_process_generation(output if isinstance(output, Tensor) else output["sequences"])


def _without_none(generate_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `generate` without those that are None, for which the checkpoint has a value."""
    return {name: value for name, value in generate_kwargs.items() if value is not None}


def _keys_of_questions(samples: Sequence[Sample]) -> list[str]:
    questions = ([question.text for question in sample.questions] for sample in samples)
    return list(map(stable_hash, sample_keys(samples), questions))


def _are_texts(value: Any, number: int) -> bool:
    return isinstance(value, list) and len(value) == number and all(isinstance(text, str) for text in value)


def _rows(conditions: ValorConditions, rows: list[int]) -> ValorConditions:
    """Conditions of some samples, with repetitions."""
    return ValorConditions(**{name: value[rows] for name, value in conditions.items() if value is not None})
