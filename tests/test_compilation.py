# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Compiled layers: the gradients of layers that are not, few compilations, and none for evaluation."""

import copy
import logging
import os
import pickle
from functools import partial
from unittest import mock

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from helpers.tiny import CLS, MIXED, SWIN, tiny_batch, tiny_config, tiny_model
from helpers.training_step import assert_step_is_that_of_hand, train
from modeling_valor import ValorForCaptioning, ValorForPreTraining, ValorForRetrieval
from modeling_valor.compilation import compile_layers, without_compiled_layers
from modeling_valor.training import ValorTrainingArguments, trainer


GROUPS = {"alignment_groups": ["t-v", "t-a", "t-av"], "captioning_groups": ["t-v", "t-a", "t-av"]}


@pytest.fixture
def counted():
    torch._dynamo.reset()
    config = torch._dynamo.config
    unchanged = {name: getattr(config, name) for name in ("optimize_ddp", "recompile_limit", "specialize_int")}
    # Options of training set variables of Accelerate
    with config.patch(unchanged), mock.patch.dict(os.environ):
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


def batch_of(size, length, with_frames, with_sound):
    """Of `size` samples, so many of the first ones have frames, and so many sound."""
    batch = tiny_batch(size)
    batch["input_ids"] = torch.randint(104, 200, (size, length), generator=torch.Generator().manual_seed(length))
    batch["input_ids"][:, 0] = CLS
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    for name, count in {"frame_mask": with_frames, "audio_mask": with_sound}.items():
        batch[name] = (torch.arange(size) < count)[:, None].expand(size, 2)
    return batch


def symbolic_axes(program):
    """The axes of inputs whose size is a symbol in a program."""
    inputs = [node.meta["example_value"] for node in program.graph.find_nodes(op="placeholder")]
    sizes = [pair for value in inputs if isinstance(value, torch.Tensor) for pair in enumerate(value.shape)]
    return {axis for axis, size in sizes if not isinstance(size, int) and not size.node.expr.is_number}


def test_only_sizes_that_batches_change_are_symbols_and_programs_stay_few(counted, caplog):
    torch.manual_seed(0)
    model = ValorForRetrieval(tiny_config(vision_config={**SWIN, "drop_path_rate": 0.2})).train()
    sizes = [(4, 7, 4, 4), (4, 9, 3, 3), (4, 5, 2, 2), (3, 12, 3, 2), (5, 8, 4, 5)]
    batches = [batch_of(*size) for size in sizes]
    expected = [step(model, batch) for batch in batches]
    compile_layers(model, backend=counted)
    programs = []
    for batch, gradients in zip(batches, expected, strict=True):
        torch.testing.assert_close(step(model, batch), gradients, rtol=1e-5, atol=1e-6)
        programs.append(counted.frame_count)
    assert set().union(*map(symbolic_axes, counted.graphs)) == {0, 1}  # samples, words; not the widths of layers
    assert programs[0] == 5 and programs[1] == programs[2] and programs[-1] <= 12

    # More programs than the limit: PyTorch says so, and layers run as they are written
    batch = batch_of(1, 7, 1, 1)
    logger = logging.getLogger("torch._dynamo.convert_frame")
    logger.addHandler(caplog.handler)
    with without_compiled_layers():
        gradients = step(model, batch)
    with torch._dynamo.config.patch(recompile_limit=1):
        torch.testing.assert_close(step(model, batch), gradients, rtol=1e-5, atol=1e-6)
    logger.removeHandler(caplog.handler)
    assert counted.frame_count == programs[-1] and "hit config.recompile_limit" in caplog.text


def with_options(folder, **options):
    return train("ValorTrainer", "retrieval", folder, 1, **options)


def test_a_training_step_is_that_of_a_model_that_is_not_compiled(counted, monkeypatch, tmp_path):
    monkeypatch.setattr(trainer, "compile_layers", partial(compile_layers, backend=counted))
    compiled = with_options(tmp_path, compile_layers=True)
    assert counted.frame_count == 3
    assert_step_is_that_of_hand("ValorTrainer", "retrieval", [compiled], 1)
    # In bfloat16 with the same operations, which round in the same way; programs of Inductor round less often
    rounded, both = with_options(tmp_path, bf16=True), with_options(tmp_path, bf16=True, compile_layers=True)
    assert counted.frame_count == 6
    torch.testing.assert_close(both["gradients"], rounded["gradients"], rtol=1e-6, atol=1e-7)
    assert both["loss"] == rounded["loss"] != compiled["loss"]


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


def test_a_compiled_model_is_pickled_and_copied_with_layers_that_are_its_own(counted):
    model = tiny_model(ValorForCaptioning)
    compile_layers(model, backend=counted)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        layer = other.valor.text_model.layers[0]
        assert layer.forward.__self__ is layer is not model.valor.text_model.layers[0]
