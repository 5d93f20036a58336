# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Evaluated models: wrapped, in training, in lower precision; nothing of them is changed."""

from functools import partial

import pytest
import torch

from helpers.evaluation_world import OPTIONS
from modeling_valor import (
    ValorForCaptioning,
    ValorForPreTraining,
    ValorModel,
)
from modeling_valor.evaluation import (
    evaluate_captioning,
    evaluate_question_answering,
    evaluate_retrieval,
)
from modeling_valor.evaluation.models import with_head


def test_a_head_shares_the_modules_of_the_model_that_is_trained(model):
    head = with_head(model, ValorForCaptioning)
    assert type(head) is ValorForCaptioning and head.valor is model.valor and head.lm_head is model.lm_head
    assert {id(part) for part in head.parameters()} == {id(part) for part in model.parameters()}
    assert with_head(head, ValorForCaptioning) is head


@pytest.mark.parametrize(
    "evaluate",
    [evaluate_retrieval, partial(evaluate_captioning, metrics=["BLEU-1"]), evaluate_question_answering],
    ids=["retrieval", "captioning", "qa"],
)
def test_training_goes_on_as_before(checkpoint, processor, samples, evaluate):
    model = ValorForPreTraining.from_pretrained(checkpoint).train()
    model.valor.vision_model.eval()  # frozen parts stay in evaluation mode
    modes = [module.training for module in model.modules()]
    storage = [parameter.data_ptr() for parameter in model.parameters()]
    generator = torch.get_rng_state()
    evaluate(model, processor, samples[:2], **OPTIONS)
    assert modes == [module.training for module in model.modules()]
    assert storage == [parameter.data_ptr() for parameter in model.parameters()]
    assert torch.equal(generator, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_base_model_and_wrapped_models_can_be_measured(checkpoint, model, processor, samples):
    expected = evaluate_retrieval(model, processor, samples, **OPTIONS).similarity["t-av"]
    base = ValorModel.from_pretrained(checkpoint)
    wrapped = torch.nn.DataParallel(model)
    for other in (base, wrapped):
        assert torch.equal(evaluate_retrieval(other, processor, samples, **OPTIONS).similarity["t-av"], expected)


def test_half_precision_models_can_be_measured(checkpoint, processor, samples):
    model = ValorForPreTraining.from_pretrained(checkpoint, dtype=torch.bfloat16)
    assert evaluate_retrieval(model, processor, samples, **OPTIONS).similarity["t-av"].dtype == torch.float32
    captions = evaluate_captioning(
        model, processor, samples[:2], generate_kwargs={"max_new_tokens": 3}, metrics=["BLEU-1"], **OPTIONS
    )
    assert captions.counts["samples"] == 2
    assert evaluate_question_answering(model, processor, samples[:2], **OPTIONS).counts["questions"] == 3


def test_models_can_be_measured_in_mixed_precision(model, processor, samples):
    expected = evaluate_retrieval(model, processor, samples, **OPTIONS).similarity["t-av"]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = evaluate_retrieval(model, processor, samples, **OPTIONS).similarity["t-av"]
        answers = evaluate_question_answering(
            model, processor, samples[:2], generate_kwargs={"max_new_tokens": 3}, **OPTIONS
        )
    assert answers.counts["questions"] == 3
    torch.testing.assert_close(mixed, expected, atol=5e-2, rtol=0)
