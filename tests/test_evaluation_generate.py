# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Captions and answers against `generate` one by one, and their metrics."""

import dataclasses

import pytest

from helpers.evaluation_world import OPTIONS
from helpers.tiny import tiny_model
from modeling_valor import (
    ValorForCaptioning,
    ValorForQuestionAnswering,
    ValorModel,
    ValorProcessor,
)
from modeling_valor.data.samples import Question
from modeling_valor.evaluation import (
    TextOptions,
    caption_metrics,
    evaluate_captioning,
    evaluate_question_answering,
)
from modeling_valor.evaluation.models import with_head
from modeling_valor.text_cleaning import clean_question


ONE = {"num_frames": 2, "num_audio_clips": 1, "return_tensors": "pt"}


def test_captions_are_those_of_generate_and_scored_by_caption_metrics(model, processor, samples):
    result = evaluate_captioning(
        model,
        processor,
        samples,
        generate_kwargs={"num_beams": 3, "max_new_tokens": 5},
        metrics=["BLEU-1", "CIDEr"],
        **OPTIONS,
    )
    head = with_head(model, ValorForCaptioning)
    written = []
    for sample in samples:
        ids = head.generate(**processor(videos=sample.video, **ONE), num_beams=3, max_new_tokens=5)
        written += processor.post_process_generation(ids)
    assert [entry["prediction"] for entry in result.predictions] == written
    assert result.metrics == caption_metrics(
        written, [list(sample.captions) for sample in samples], ["BLEU-1", "CIDEr"]
    )


def test_answers_are_those_of_generate_one_by_one(model, processor, samples):
    result = evaluate_question_answering(model, processor, samples, generate_kwargs={"max_new_tokens": 4}, **OPTIONS)
    head = with_head(model, ValorForQuestionAnswering)
    asked = [(sample, question) for sample in samples for question in sample.questions]
    for entry, (sample, question) in zip(result.predictions, asked, strict=True):
        inputs = processor(videos=sample.video, question=clean_question(question.text), **ONE)
        expected = processor.post_process_generation(head.generate(**inputs, max_new_tokens=4))
        assert (entry["prediction"], entry["question"], entry["type"]) == (expected[0], question.text, question.type)
    types = {f"accuracy/{question.type}" for _, question in asked}
    assert set(result.metrics) == {"accuracy", *types}


def test_questions_are_cleaned_where_that_is_wanted(model, processor, samples, monkeypatch):
    asked, call = [], ValorProcessor.__call__

    def recording(self, *args, **kwargs):
        asked.extend(kwargs.get("question") or ())
        return call(self, *args, **kwargs)

    monkeypatch.setattr(ValorProcessor, "__call__", recording)
    sample = dataclasses.replace(samples[0], questions=(Question("What's Red?", ("bell",)),))
    for clean in (True, False):
        evaluate_question_answering(
            model, processor, [sample], text=TextOptions(clean=clean), generate_kwargs={"max_new_tokens": 1}, **OPTIONS
        )
    assert asked == ["whats red", "What's Red?"]


def test_right_answers_count(model, processor, samples):
    """Answers that equal what the model writes make 100 percent of their type."""
    written = evaluate_question_answering(
        model, processor, samples, generate_kwargs={"max_new_tokens": 4}, **OPTIONS
    ).predictions
    answers = iter([entry["prediction"] for entry in written])
    right = [
        dataclasses.replace(
            sample,
            questions=tuple(
                dataclasses.replace(question, answers=(next(answers),), type=f"{question.type}/all")
                for question in sample.questions
            ),
        )
        for sample in samples
    ]
    metrics = evaluate_question_answering(
        model, processor, right, generate_kwargs={"max_new_tokens": 4}, **OPTIONS
    ).metrics
    assert set(metrics.values()) == {100.0} and {"accuracy", "accuracy/sight", "accuracy/sight/all"} <= set(metrics)


def test_models_without_a_decoder_head_cannot_write(processor, samples):
    with pytest.raises(ValueError, match="no decoder head"):
        evaluate_captioning(tiny_model(ValorModel), processor, samples)
