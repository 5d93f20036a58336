# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`cache_implementation="static"`: the words of the other caches, and steps that can be repeated as a graph."""

import copy
import gc
import pickle
import weakref
from collections import Counter
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, set_seed

from helpers.parity import PARITY_SETS
from helpers.recorded_graph import RecordedGraph
from helpers.tiny import CLS, MIXED, PROMPT, SEP, tiny_batch, tiny_model
from modeling_valor import ValorForCaptioning, ValorForQuestionAnswering, generation, generation_static
from modeling_valor.generation_static import StaticSteps, graphs_of
from modeling_valor.modeling_valor_text import CACHE


BATCH = {name: tiny_batch()[name] for name in ("pixel_values_videos", "input_features")}
OTHER = {name: tiny_batch(seed=1)[name] for name in ("pixel_values_videos", "input_features")}
WAYS = {
    "greedy": {},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "sampling": {"do_sample": True, "num_return_sequences": 2},
    "beams_of_transformers": {"num_beams": 3, "length_penalty": 1.0},
}
QUESTIONS = torch.tensor([[CLS, 120, 121, SEP], [CLS, 130, SEP, 0], [CLS, 140, 141, SEP]])


def until_end(words):
    return words[: words.index(SEP)] if SEP in words else words


def write(model, cache, batch=BATCH, **options):
    set_seed(0)
    options = {"max_new_tokens": 7, "min_new_tokens": 7} | options
    return model.generate(**batch, cache_implementation=cache, return_dict_in_generate=True, **options)


def assert_same(model, batch=BATCH, **options):
    """Words, logits and scores of a static cache are those of a dynamic one."""
    static, dynamic = (write(model, cache, batch, output_logits=True, **options) for cache in ("static", "dynamic"))
    assert torch.equal(static.sequences, dynamic.sequences)
    torch.testing.assert_close(torch.stack(static.logits), torch.stack(dynamic.logits), atol=2e-5, rtol=1e-5)
    if options.get("num_beams", 1) > 1:
        torch.testing.assert_close(static.sequences_scores, dynamic.sequences_scores, atol=2e-5, rtol=1e-5)
        assert torch.equal(static.beam_indices, dynamic.beam_indices)


@pytest.fixture
def recordings(monkeypatch):
    """Steps are recorded on the CPU, as they are on a GPU; counts the recordings."""
    counts = Counter()

    def record(self):
        counts["recorded"] += 1
        start = self.words.position.clone()
        graph = RecordedGraph()
        with graph:
            self.run()
        self.words.position.copy_(start)
        self.graph = graph

    monkeypatch.setattr(generation_static, "GRAPH_DEVICE", "cpu")
    monkeypatch.setattr(generation_static, "in_default_stream", lambda device: True)
    monkeypatch.setattr(StaticSteps, "record", record)
    return counts


# --- The words of the other caches ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PARITY_SETS)
def test_sequences_are_those_of_the_released_decoder(converted, parity, name):
    recorded, model = parity(name), ValorForCaptioning.from_pretrained(converted(name)).eval()
    media = {
        "pixel_values_videos": recorded.inputs["video_pixels"],
        "input_features": recorded.inputs["audio_spectrograms"],
    }
    beams = write(model, "static", media, num_beams=3, max_new_tokens=12, min_new_tokens=None)
    expected = recorded.expected["beam3_tva"]
    for words, others in zip(beams.sequences[:, 1:].tolist(), expected.tolist(), strict=True):
        assert until_end(words) == until_end(others)
    torch.testing.assert_close(beams.sequences_scores, recorded.expected["beam3_tva_logprob"], atol=2e-5, rtol=0)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("objective", ["masked", "causal"])
@pytest.mark.parametrize("kind", ["concat", "parallel", "audio_visual", "visual_audio", "merge"])
def test_words_and_scores_are_those_of_a_dynamic_cache(kind, objective, way):
    options = {"cross_attention_type": kind, "captioning_objective": objective}
    assert_same(tiny_model(ValorForCaptioning, caption_prompt_ids=PROMPT, **options), **MIXED, **WAYS[way])


def test_eager_attention_gives_the_same_words():
    model = tiny_model(ValorForCaptioning, caption_prompt_ids=PROMPT)
    model.set_attn_implementation({"text_config": "eager"})
    assert_same(model, **MIXED)


@pytest.mark.parametrize("way", ["greedy", "beams"])
def test_answers_to_questions_of_different_length(way):
    model = tiny_model(ValorForQuestionAnswering)
    assert_same(model, question_input_ids=QUESTIONS, **MIXED, **WAYS[way])
    assert_same(model, question_input_ids=QUESTIONS[:1].expand(6, -1), **MIXED, **WAYS[way])


class NoSecondTime(LogitsProcessor):
    """Of a user: reads the words in Python."""

    def __call__(self, input_ids, scores):
        for row, words in enumerate(input_ids.tolist()):
            scores[row, words] = -torch.inf
        return scores


def test_continued_words_and_processors():
    model = tiny_model(ValorForCaptioning)
    words = torch.tensor([[CLS, 110, 111]])
    assert_same(model, input_ids=words, logits_processor=LogitsProcessorList([NoSecondTime()]), num_beams=2)
    assert_same(model, repetition_penalty=1.3, no_repeat_ngram_size=2)


class Streamed(list):
    def put(self, value):
        self.extend(value.flatten().tolist())

    def end(self):
        self.append("end")


def test_words_are_streamed_as_they_are_written():
    model, one = tiny_model(ValorForCaptioning), {name: value[:1] for name, value in BATCH.items()}
    streamed = {cache: Streamed() for cache in ("static", "dynamic")}
    for cache, streamer in streamed.items():
        write(model, cache, one, streamer=streamer)
    assert streamed["static"] == streamed["dynamic"] and len(streamed["static"]) == 9


def test_captions_that_end_early_are_padded_alike():
    model = tiny_model(ValorForCaptioning)
    model.lm_head.decoder.bias.data[SEP] = 8.0
    for options in ({}, {"num_beams": 3}):
        static, dynamic = (
            model.generate(**BATCH, max_new_tokens=12, cache_implementation=cache, **options)
            for cache in ("static", "dynamic")
        )
        assert torch.equal(static, dynamic) and static.shape[1] < 13 and (static[:, 1:] == SEP).any(dim=1).all()


@pytest.mark.parametrize("steps", [3, 4, 5])
def test_looking_every_few_steps_whether_all_are_finished_changes_nothing(monkeypatch, steps):
    model = tiny_model(ValorForCaptioning)
    model.lm_head.decoder.bias.data[SEP] = 8.0
    for options in (
        {"num_beams": 3},
        {"num_beams": 3, "num_return_sequences": 3},
        {"num_beams": 2, "max_new_tokens": 1},
        {"num_beams": 3, "logits_processor": LogitsProcessorList([lambda input_ids, scores: scores + 2])},
    ):
        options = {"max_new_tokens": 11, "cache_implementation": "static"} | options
        every = model.generate(**BATCH, **options)
        with monkeypatch.context() as patch:
            patch.setattr(generation, "steps_between_checks", lambda device: steps)
            assert torch.equal(model.generate(**BATCH, **options), every)


def test_what_a_static_cache_cannot_do_a_dynamic_one_does_which_is_said(monkeypatch):
    said = []
    monkeypatch.setattr(generation.logger, "warning_once", said.append)
    model = tiny_model(ValorForCaptioning)
    static, dynamic = (write(model, cache, output_attentions=True) for cache in ("static", "dynamic"))
    torch.testing.assert_close(static.attentions[3], dynamic.attentions[3])
    model.set_attn_implementation({"text_config": "flex_attention"})
    cache = model.static_cache(GenerationConfig(cache_implementation="static"), {})
    assert not model._valid_auto_compile_criteria(
        {CACHE: cache}, GenerationConfig()
    )  # compiling it here would take a minute
    assert said == [
        f'`cache_implementation="static"` is taken as "dynamic", because {reason}.'
        for reason in ("attentions or hidden states are asked for", 'attention is "flex_attention"')
    ]


@pytest.mark.parametrize("part", ["model", "text_model"])
@pytest.mark.parametrize("way", ["greedy", "beams"])
def test_hooks_of_what_static_steps_do_not_call_are_not_left_out(part, way):
    model = tiny_model(ValorForCaptioning)

    def other_words(module, args, output):
        values = output.logits if module is model else output.last_hidden_state
        values.copy_(values.flip(-1))

    (model if part == "model" else model.valor.text_model).register_forward_hook(other_words)
    assert_same(model, **WAYS[way])


def test_a_decoder_on_several_devices_has_a_dynamic_cache():
    model = tiny_model(ValorForCaptioning)
    cache = model.static_cache(GenerationConfig(cache_implementation="static"), {})
    assert model._valid_auto_compile_criteria({CACHE: cache}, GenerationConfig())
    model.valor.text_model.layers[1].to("meta")
    assert not model._valid_auto_compile_criteria({CACHE: cache}, GenerationConfig())


def test_its_cache_is_not_returned_and_no_other_is_taken():
    model = tiny_model(ValorForCaptioning)
    assert write(model, "static").get(CACHE) is None
    with pytest.raises(ValueError, match="makes its own"):
        model.generate(**BATCH, cache_implementation="static", cache=write(model, "dynamic")[CACHE])


def test_from_a_generation_config():
    model = tiny_model(ValorForCaptioning)
    dynamic = write(model, None).sequences
    model.generation_config.cache_implementation = "static"
    outputs = model.generate(**BATCH, max_new_tokens=7, min_new_tokens=7, return_dict_in_generate=True)
    assert torch.equal(outputs.sequences, dynamic) and outputs.get(CACHE) is None


def test_more_words_than_positions_are_refused_in_one_sentence():
    model = tiny_model(ValorForCaptioning)
    with pytest.raises(ValueError, match="The text has 49 tokens, but the model has only 48 positions"):
        write(model, "static", max_new_tokens=60, min_new_tokens=60)


def test_there_are_places_for_as_many_words_as_positions(monkeypatch):
    places = []
    monkeypatch.setattr(StaticSteps, "run", lambda self: places.append(self.words.states.shape[-2]))
    with pytest.raises(TypeError):  # as there are no logits
        write(tiny_model(ValorForCaptioning), "static", max_new_tokens=1_000_000)
    assert places == [56]


# --- As a graph -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["concat", "parallel", "merge"])
def test_a_recorded_step_is_repeated_for_other_videos_of_the_same_shapes(recordings, kind):
    model = tiny_model(ValorForCaptioning, cross_attention_type=kind, caption_prompt_ids=PROMPT)
    others = {"frame_mask": MIXED["frame_mask"].flip(0), "audio_mask": MIXED["audio_mask"].flip(0)}
    assert_same(model, **MIXED, num_beams=2)
    assert_same(model, OTHER, **others, num_beams=2)
    assert recordings["recorded"] == 1
    assert_same(model, OTHER, num_beams=3)  # without masks and with more beams it is another step
    assert_same(model, num_beams=3)
    assert_same(model, OTHER, **MIXED, num_beams=2)
    assert recordings["recorded"] == 2


def test_a_recorded_step_answers_other_questions(recordings):
    model = tiny_model(ValorForQuestionAnswering)
    assert_same(model, question_input_ids=QUESTIONS)
    assert_same(model, OTHER, question_input_ids=QUESTIONS.flip(0))
    assert recordings["recorded"] == 1


def test_weights_that_change_are_followed(recordings):
    model = tiny_model(ValorForCaptioning)
    assert_same(model)
    model.load_state_dict(tiny_model(ValorForCaptioning, seed=1).state_dict())  # in the same places
    assert_same(model)
    assert recordings["recorded"] == 1
    model.lm_head.dense.weight = torch.nn.Parameter(torch.randn(32, 32))
    assert_same(model)
    assert recordings["recorded"] == 2
    dense = model.lm_head.dense
    dense.weight.data = dense.weight.data.T  # in the same place
    assert_same(model)
    assert recordings["recorded"] == 3


def test_another_precision_is_another_step_whichever_way_it_is_set(recordings):
    model = tiny_model(ValorForCaptioning)
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        for times, precision in enumerate(("ieee", "tf32"), start=1):
            matmul.fp32_precision = precision
            assert_same(model)
            assert recordings["recorded"] == times
    finally:
        matmul.fp32_precision = before


def test_a_graph_is_of_the_weights_that_it_was_recorded_with(recordings):
    model = tiny_model(ValorForCaptioning)

    class Replaced(LogitsProcessor):
        """New weights in the middle of a caption."""

        def __call__(self, input_ids, scores):
            if input_ids.shape[1] == 5:
                model.lm_head.dense.weight = torch.nn.Parameter(torch.randn(32, 32))
            return scores

    write(model, "static", logits_processor=LogitsProcessorList([Replaced()]))
    assert_same(model)
    assert recordings["recorded"] == 2


def test_two_at_once_do_not_share_a_graph(recordings):
    model, inner = tiny_model(ValorForCaptioning), []

    class Another(LogitsProcessor):
        """Describes other videos while these are described."""

        def __call__(self, input_ids, scores):
            if input_ids.shape[1] == 4 and not inner:
                inner.append(write(model, "static", OTHER).sequences)
            return scores

    expected = [write(model, "dynamic", batch).sequences for batch in (BATCH, OTHER)]
    outer = write(model, "static", logits_processor=LogitsProcessorList([Another()])).sequences
    assert torch.equal(outer, expected[0]) and torch.equal(inner[0], expected[1])
    assert recordings["recorded"] == 2


def hooked(model):
    model.valor.text_model.layers[1].register_forward_hook(lambda *_: None)


def with_adapter(model):
    inject_adapter_in_model(LoraConfig(target_modules=["q_proj"], init_lora_weights=False), model.valor.text_model)


@pytest.mark.parametrize(
    "change", [hooked, with_adapter, torch.nn.Module.train], ids=["hooks", "adapters", "training"]
)
def test_what_a_graph_would_not_follow_is_not_recorded(recordings, change):
    model = tiny_model(ValorForCaptioning)
    change(model)
    model.eval() if change is with_adapter else None
    assert_same(model)
    assert not recordings["recorded"]


def test_a_model_whose_attentions_were_asked_for_is_recorded_all_the_same(recordings):
    model = tiny_model(ValorForCaptioning)
    write(model, "dynamic", output_attentions=True)
    assert_same(model)
    assert recordings["recorded"] == 1


def test_a_model_with_graphs_is_freed_with_its_last_name(recordings):
    model = tiny_model(ValorForCaptioning)
    write(model, "static")
    assert_same(model)
    assert recordings["recorded"] == 1
    freed = weakref.ref(model.valor.text_model)
    gc.disable()
    try:
        del model
        assert freed() is None
    finally:
        gc.enable()


class Streams:
    """What `torch.cuda` knows of devices and streams."""

    def __init__(self, fails):
        self.device, self.current, self.fails = 0, {0: "default of 0", 1: "default of 1"}, fails

    def current_stream(self, device):
        return SimpleNamespace(device=device.index, name=self.current[device.index], wait_stream=lambda other: None)

    def Stream(self, device):
        return SimpleNamespace(device=device.index, name=f"other of {device.index}", wait_stream=lambda other: None)

    @contextmanager
    def stream(self, stream):
        before = self.device, self.current[stream.device]
        self.device, self.current[stream.device] = stream.device, stream.name
        try:
            yield
        finally:
            self.device, self.current[stream.device] = before

    @contextmanager
    def graph(self, graph, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"
        self.device, self.current[stream.device], before = stream.device, stream.name, self.current[stream.device]
        yield
        if self.fails:  # as PyTorch, which then stays in the stream
            raise RuntimeError("capture was invalidated")
        self.current[stream.device] = before


@pytest.mark.parametrize("fails", [False, True])
def test_a_step_is_recorded_on_the_device_of_the_model_whatever_device_is_current(monkeypatch, fails):
    streams, runs = Streams(fails), []
    for name in ("current_stream", "Stream", "stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, getattr(streams, name))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", SimpleNamespace)
    monkeypatch.setattr(generation_static, "recording_stream", generation_static.recording_stream.__wrapped__)
    position = SimpleNamespace(device=torch.device("cuda:1"), clone=lambda: position, copy_=lambda other: None)
    steps = SimpleNamespace(
        words=SimpleNamespace(position=position), run=lambda: runs.append((streams.device, streams.current[1]))
    )
    with pytest.raises(RuntimeError) if fails else nullcontext():
        StaticSteps.record(steps)
    assert runs == [(1, "other of 1")] * 3
    assert streams.device == 0 and streams.current == {0: "default of 0", 1: "default of 1"}


def test_neither_under_autocast_nor_where_compiling_is_off(recordings):
    model = tiny_model(ValorForCaptioning)
    assert_same(model, disable_compile=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        write(model, "static")
    assert not recordings["recorded"]


def test_a_step_that_cannot_be_recorded_runs_as_it_is_which_is_said_once(recordings, monkeypatch):
    said = []
    monkeypatch.setattr(generation_static.logger, "warning_once", said.append)
    run = StaticSteps.run

    def waiting(self):
        run(self)
        self.words.position[0].item()

    monkeypatch.setattr(StaticSteps, "run", waiting)
    model = tiny_model(ValorForCaptioning)
    assert_same(model)
    assert_same(model, OTHER)
    assert recordings["recorded"] == 1  # which is not tried again
    assert said == [
        "Decoding runs without a CUDA graph, which is slower: operation not permitted when stream is capturing"
    ]


def test_no_more_than_two_graphs_are_kept_and_copies_of_a_model_have_none(recordings):
    model = tiny_model(ValorForCaptioning)
    for beams in (1, 2, 3):
        write(model, "static", num_beams=beams)
    assert len(graphs_of(model.valor.text_model).steps) == 2 and recordings["recorded"] == 3
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert not graphs_of(other.valor.text_model).steps
        assert_same(other)
