# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Compiled layers: the gradients of layers that are not, few compilations, and none for evaluation."""

from functools import partial

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from helpers.tiny import MIXED, tiny_batch, tiny_config, tiny_model
from helpers.training_step import assert_step_is_that_of_hand, train
from modeling_valor import ValorForCaptioning, ValorForPreTraining
from modeling_valor.compilation import compile_layers, without_compiled_layers
from modeling_valor.training import ValorTrainingArguments, trainer


GROUPS = {"alignment_groups": ["t-v", "t-a", "t-av"], "captioning_groups": ["t-v", "t-a", "t-av"]}


@pytest.fixture
def counted():
    torch._dynamo.reset()
    yield CompileCounterWithBackend("eager")
    torch._dynamo.reset()


def step(model, batch):
    """Loss and gradients of a pretraining step."""
    model.zero_grad()
    torch.manual_seed(0)
    loss = model(**batch).loss
    loss.backward()
    return {"loss": loss.detach()} | {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_gradients_with_activation_checkpointing_are_those_of_layers_that_are_not_compiled(counted):
    torch.manual_seed(0)
    model = ValorForPreTraining(tiny_config(**GROUPS)).train()
    names = set(model.state_dict())
    batches = [tiny_batch(), tiny_batch() | MIXED]
    expected = [step(model, batch) for batch in batches]
    model.gradient_checkpointing_enable()
    assert compile_layers(model, backend=counted) == 6
    for batch, gradients in zip(batches, expected, strict=True):
        torch.testing.assert_close(step(model, batch), gradients, rtol=1e-5, atol=1e-6)
    assert set(model.state_dict()) == names
    compiled = counted.frame_count
    assert compiled <= 8  # layers of a kind share a program, so fewer than 6 layers for each of 2 batches
    step(model, batches[0])
    assert counted.frame_count == compiled


def test_a_training_step_is_that_of_a_model_that_is_not_compiled(counted, monkeypatch, tmp_path):
    monkeypatch.setattr(trainer, "compile_layers", partial(compile_layers, backend=counted))
    monkeypatch.setattr("helpers.training_step.STEP", {**train.__globals__["STEP"], "compile_layers": True})
    compiled = train("ValorTrainer", "retrieval", tmp_path, 1)
    assert counted.frame_count > 2
    assert_step_is_that_of_hand("ValorTrainer", "retrieval", [compiled], 1)


def test_captions_are_written_by_layers_that_are_not_compiled(counted):
    model = tiny_model(ValorForCaptioning)
    batch = {name: tiny_batch()[name] for name in ("pixel_values_videos", "input_features")}
    expected = model.generate(**batch, max_new_tokens=4)
    compile_layers(model, backend=counted)
    with without_compiled_layers():
        assert torch.equal(model.generate(**batch, max_new_tokens=4), expected)
    assert counted.frame_count == 0


def test_one_way_of_compiling_is_chosen(tmp_path):
    with pytest.raises(ValueError, match="`compile_layers` and `torch_compile` both"):
        ValorTrainingArguments(str(tmp_path), compile_layers=True, torch_compile=True)
