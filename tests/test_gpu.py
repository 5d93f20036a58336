# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What only a GPU does: CUDA graphs of decoding steps, compiled layers, media prepared there. Kernels: test_alignment_triton.py."""

import copy
import threading

import pytest
import torch
from test_generation_static import BATCH, OTHER, QUESTIONS, WAYS, NoSecondTime, write

from helpers.tiny import MIXED, PROMPT, tiny_batch, tiny_config, tiny_model
from modeling_valor import ValorForCaptioning, ValorForPreTraining, ValorForQuestionAnswering
from modeling_valor.compilation import compile_layers
from modeling_valor.generation_static import StaticSteps, graphs_of


pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def to_gpu(batch):
    return {name: value.cuda() for name, value in batch.items()}


def assert_same(model, batch=BATCH, **options):
    """Words and logits of a static cache are those of a dynamic one, and its steps were a CUDA graph."""
    options = {name: value.cuda() if isinstance(value, torch.Tensor) else value for name, value in options.items()}
    static, dynamic = (
        write(model, cache, to_gpu(batch), output_logits=True, **options) for cache in ("static", "dynamic")
    )
    assert torch.equal(static.sequences, dynamic.sequences)
    torch.testing.assert_close(torch.stack(static.logits), torch.stack(dynamic.logits), atol=2e-5, rtol=1e-5)
    assert graphs_of(model.valor.text_model).steps and not graphs_of(model.valor.text_model).failed


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["concat", "parallel", "audio_visual", "visual_audio", "merge"])
def test_words_of_a_graph_are_those_of_a_dynamic_cache(kind, way):
    model = tiny_model(ValorForCaptioning, caption_prompt_ids=PROMPT, cross_attention_type=kind).cuda()
    for batch in (BATCH, OTHER, BATCH):  # recorded for the first one, repeated for the others
        assert_same(model, batch, **MIXED, **WAYS[way])


def test_graphs_of_questions_processors_and_causal_words():
    assert_same(tiny_model(ValorForCaptioning, captioning_objective="causal").cuda(), num_beams=2)
    assert_same(tiny_model(ValorForQuestionAnswering).cuda(), question_input_ids=QUESTIONS)
    model = tiny_model(ValorForCaptioning).cuda()
    assert_same(model, logits_processor=[NoSecondTime()], num_beams=2)


def test_a_graph_follows_weights_that_change():
    model = tiny_model(ValorForCaptioning).cuda()
    assert_same(model)
    model.load_state_dict(tiny_model(ValorForCaptioning, seed=1).state_dict())
    assert_same(model)
    assert len(graphs_of(model.valor.text_model).steps) == 1


def test_several_threads_decode_with_one_model():
    model = tiny_model(ValorForCaptioning).cuda()
    expected = {
        name: write(model, "dynamic", to_gpu(batch)).sequences for name, batch in {"a": BATCH, "b": OTHER}.items()
    }
    wrong = []

    def decode(name, batch):
        for _ in range(10):
            if not torch.equal(write(model, "static", to_gpu(batch)).sequences, expected[name]):
                wrong.append(name)

    threads = [threading.Thread(target=decode, args=pair) for pair in (("a", BATCH), ("b", OTHER))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_decoding_goes_on_where_a_step_cannot_be_recorded(monkeypatch):
    model, run = tiny_model(ValorForCaptioning).cuda(), StaticSteps.run
    expected = write(model, "dynamic", to_gpu(BATCH)).sequences

    def waits(self):
        run(self)
        self.logits.sum().item()

    monkeypatch.setattr(StaticSteps, "run", waits)
    assert torch.equal(write(model, "static", to_gpu(BATCH)).sequences, expected)
    assert graphs_of(model.valor.text_model).failed
    torch.cuda.synchronize()


def test_gradients_of_compiled_layers():
    groups = {"alignment_groups": ["t-v", "t-av"], "captioning_groups": ["t-v", "t-a", "t-av"]}
    torch.manual_seed(0)
    model = ValorForPreTraining(tiny_config(**groups)).cuda().train()
    compiled = copy.deepcopy(model)
    compile_layers(compiled)
    for batch in (tiny_batch(), tiny_batch(), tiny_batch() | MIXED):
        batch = to_gpu(batch)
        results = []
        for one in (model, compiled):
            one.zero_grad()
            torch.manual_seed(0)
            loss = one(**batch).loss
            loss.backward()
            gradients = {name: p.grad.clone() for name, p in one.named_parameters() if p.grad is not None}
            results.append({"loss": loss.detach()} | gradients)
        torch.testing.assert_close(*results, atol=1e-5, rtol=1e-4)
