# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Results of all three tasks: merged rows, unreadable samples, and their counts."""

import dataclasses
from functools import partial

import pytest

from helpers.evaluation_world import OPTIONS
from modeling_valor.data.samples import Sample
from modeling_valor.evaluation import (
    evaluate_captioning,
    evaluate_question_answering,
    evaluate_retrieval,
)


@pytest.mark.parametrize(
    "evaluate",
    [evaluate_retrieval, partial(evaluate_captioning, metrics=["CIDEr"]), evaluate_question_answering],
    ids=["retrieval", "captioning", "qa"],
)
def test_merged_rows_have_the_results_of_one_sample_and_different_media_of_one_id_are_refused(
    model, processor, samples, evaluate
):
    rows = [
        dataclasses.replace(sample, captions=(caption,))
        for sample in [samples[0], samples[0], *samples[1:]]
        for caption in sample.captions[:1]
    ]
    rows[1] = dataclasses.replace(rows[1], captions=samples[0].captions[1:])
    expected, result = (evaluate(model, processor, given, **OPTIONS) for given in (samples, rows))
    assert (result.metrics, result.predictions) == (expected.metrics, expected.predictions)
    assert result.counts == {**expected.counts, "rows": 6}
    with pytest.raises(ValueError, match="Two samples with different media have the id"):
        evaluate(model, processor, [samples[0], dataclasses.replace(samples[1], id=samples[0].id)], **OPTIONS)


def test_unreadable_samples_are_listed_and_in_no_metric(model, processor, samples, tmp_path):
    (tmp_path / "broken.mp4").write_text("no video")
    broken = Sample("broken", str(tmp_path / "broken.mp4"), captions=("a dog",), questions=samples[0].questions)
    whole = [*samples[:2], broken, *samples[2:]]
    for evaluate, options in (
        (evaluate_retrieval, OPTIONS),
        (evaluate_captioning, {"metrics": ["BLEU-1", "CIDEr"], "generate_kwargs": {"max_new_tokens": 4}, **OPTIONS}),
        (evaluate_question_answering, {"generate_kwargs": {"max_new_tokens": 4}, **OPTIONS}),
    ):
        result = evaluate(model, processor, whole, **{**options, "batch_size": 3})
        assert [failure.id for failure in result.failures] == ["broken"]
        assert result.counts["samples"] == 5
        assert result.metrics == evaluate(model, processor, samples, **options).metrics
