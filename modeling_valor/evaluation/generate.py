# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Captions and answers that a model writes for a set of samples, and their metrics (section 4.3).

The one way to measure them, in training and in `valor evaluate`. Every function runs in all processes of a distributed
job, which share the work; metrics are computed by the main process and the same in all of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ..data.failures import Failure
from ..data.samples import Question, Sample
from ..modeling_valor_heads import ValorForCaptioning, ValorForQuestionAnswering
from ..modeling_valor_text import ValorConditions
from ..processing_valor import ValorProcessor
from ..text_cleaning import clean_question
from .clips import clip_keys, merge_rows
from .loader import MediaBatch, media_batches
from .metrics.answers import answer_accuracy
from .metrics.captioning import CAPTION_METRICS, caption_metrics, check_caption_metrics
from .models import evaluating, on_device, with_head
from .options import MediaOptions, TextOptions, accepts_flat_keywords
from .results import Evaluation, failures_of, rows_of
from .resumable import Result, ResultCache, broadcast_from_main, failed_result, map_resumable, stable_hash


def caption(
    model: nn.Module,
    processor: ValorProcessor,
    samples: Sequence[Sample],
    media: MediaOptions | None = None,
    generate_kwargs: Mapping[str, Any] | None = None,
    batch_size: int = 16,
    cache: ResultCache | None = None,
    progress: bool = False,
) -> list[Result] | None:
    """{"text": caption} of each sample, or {"failure": ...}; in the main process only."""
    head, options = with_head(model, ValorForCaptioning), _without_none(generate_kwargs)

    def write(batch: MediaBatch) -> dict[int, Result]:
        results = {index: failed_result(failure) for index, failure in batch.failures.items()}
        if batch.indices:
            ids = head.generate(**on_device(batch.inputs, head.valor), **options)
            texts = processor.post_process_generation(ids)
            results.update((index, {"text": text}) for index, text in zip(batch.indices, texts, strict=True))
        return results

    with evaluating(head):
        return map_resumable(
            broadcast_from_main(lambda: clip_keys(samples)),
            batch_size,
            lambda batches: map(write, media_batches(samples, processor, batches, media or MediaOptions())),
            cache,
            "captions" if progress else None,
            lambda _, result: isinstance(result.get("text"), str),
        )


def answer(
    model: nn.Module,
    processor: ValorProcessor,
    samples: Sequence[Sample],
    media: MediaOptions | None = None,
    text: TextOptions | None = None,
    generate_kwargs: Mapping[str, Any] | None = None,
    batch_size: int = 16,
    cache: ResultCache | None = None,
    progress: bool = False,
) -> list[Result] | None:
    """{"answers": one for each question} of each sample, or {"failure": ...}; in the main process only.

    A clip is encoded once for all its questions, of which `batch_size` are answered together.
    """
    head, options = with_head(model, ValorForQuestionAnswering), _without_none(generate_kwargs)
    text = text or TextOptions()

    def write(batch: MediaBatch) -> dict[int, Result]:
        results: dict[int, dict[str, Any]] = {
            index: failed_result(failure) for index, failure in batch.failures.items()
        }
        results.update((index, {"answers": []}) for index in batch.indices)
        asked = [
            (row, clean_question(question.text) if text.clean else question.text)
            for row, index in enumerate(batch.indices)
            for question in samples[index].questions
        ]
        inputs: dict[str, Any] = on_device(batch.inputs, head.valor) if asked else {}
        conditions: Any = head.valor.encode_conditions(**inputs) if asked else None
        for start in range(0, len(asked), batch_size):
            rows, questions = zip(*asked[start : start + batch_size], strict=True)
            encoded = processor(question=list(questions), max_length=text.max_length, return_tensors="pt")
            ids = head.generate(conditions=_rows(conditions, rows), **on_device(encoded, head.valor), **options)
            for row, written in zip(rows, processor.post_process_generation(ids), strict=True):
                results[batch.indices[row]]["answers"].append(written)
        return results

    with evaluating(head):
        return map_resumable(
            broadcast_from_main(lambda: _keys_of_questions(samples)),
            batch_size,
            lambda batches: map(write, media_batches(samples, processor, batches, media or MediaOptions())),
            cache,
            "answers" if progress else None,
            lambda index, result: _are_texts(result.get("answers"), len(samples[index].questions)),
        )


def _without_none(generate_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Arguments of `generate`, of which None is the checkpoint's value."""
    return {name: value for name, value in (generate_kwargs or {}).items() if value is not None}


def _keys_of_questions(samples: Sequence[Sample]) -> list[str]:
    questions = ([question.text for question in sample.questions] for sample in samples)
    return list(map(stable_hash, clip_keys(samples), questions))


def _are_texts(value: Any, number: int) -> bool:
    return isinstance(value, list) and len(value) == number and all(isinstance(text, str) for text in value)


def _rows(conditions: ValorConditions, rows: Sequence[int]) -> ValorConditions:
    """Conditions of some samples, with repetitions."""
    return ValorConditions(**{name: value[list(rows)] for name, value in conditions.items() if value is not None})


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
    cache: ResultCache | None = None,
    progress: bool = False,
) -> Evaluation:
    """Captions for all samples, and their scores against the samples' captions (`caption_metrics`).

    Samples without captions get one too, as test sets with hidden captions need; they are in no figure.

    Args:
        media: how the clips are read.
        generate_kwargs: of `generate`; by default one beam (the paper's are 3, section 5.1.2) and the checkpoint's
            `max_new_tokens`.
        metrics: of `CAPTION_METRICS`.
    """
    check_caption_metrics(metrics)
    samples = merge_rows(samples)
    options = {"num_beams": 1, **(generate_kwargs or {})}
    results = caption(model, processor, samples, media, options, batch_size, cache, progress)
    predictions = []

    def measure() -> tuple[dict[str, float], dict[str, int], list[Failure]]:
        written = [(sample, result) for sample, result in zip(samples, results, strict=True) if "text" in result]
        for sample, result in written:
            references = list(sample.captions)
            predictions.append({"id": sample.id, "prediction": result["text"], "references": references})
        compared = [entry for entry in predictions if entry["references"]]
        figures = {}
        if compared:
            texts, references = zip(*((entry["prediction"], entry["references"]) for entry in compared), strict=True)
            figures = caption_metrics(list(texts), list(references), metrics)
        counts = {"clips": len(written), "references": sum(len(entry["references"]) for entry in compared)}
        return figures, counts | rows_of(samples), failures_of(results)

    figures, counts, failures = broadcast_from_main(measure)
    return Evaluation(figures, counts, failures, predictions)


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
    cache: ResultCache | None = None,
    progress: bool = False,
) -> Evaluation:
    """Answers to all questions about all samples, and "accuracy" with "accuracy/TYPE" for each type (`answer_accuracy`).

    Questions without answers get one too, as test sets with hidden answers need; they are in no figure. A type such as
    "Audio/Counting" counts for "Audio" as well.

    Args:
        media: how the clips are read.
        text: how questions are tokenized.
        generate_kwargs: of `generate`; by default one beam (as in section 5.1.2) and 10 tokens (`max_new_tokens`).
    """
    samples = merge_rows(samples)
    options = {"num_beams": 1, "max_new_tokens": 10, **(generate_kwargs or {})}
    results = answer(model, processor, samples, media, text, options, batch_size, cache, progress)
    predictions = []

    def measure() -> tuple[dict[str, float], dict[str, int], list[Failure]]:
        read = [(sample, result) for sample, result in zip(samples, results, strict=True) if "answers" in result]
        for sample, result in read:
            for question, text in zip(sample.questions, result["answers"], strict=True):
                predictions.append(_answered(sample, question, text))
        compared = [entry for entry in predictions if entry["answers"]]
        figures = {}
        if compared:
            accuracy = answer_accuracy(
                [entry["prediction"] for entry in compared],
                [entry["answers"] for entry in compared],
                [entry["type"].split("/") if entry["type"] else () for entry in compared],
            )
            by_type = accuracy.pop("accuracy_by_type", {})
            figures = {**accuracy, **{f"accuracy/{name}": value for name, value in by_type.items()}}
        counts = {"clips": len(read), "questions": len(predictions)}
        return figures, counts | rows_of(samples), failures_of(results)

    figures, counts, failures = broadcast_from_main(measure)
    return Evaluation(figures, counts, failures, predictions)


def _answered(sample: Sample, question: Question, text: str) -> dict[str, Any]:
    return {
        "id": sample.id,
        "question_id": question.id,
        "question": question.text,
        "prediction": text,
        "answers": list(question.answers),
        "type": question.type,
    }
