# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Finished samples leave a batch: fewer rows in the decoder, and the words and scores of all rows, or of each sample alone."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import DynamicCache, LogitsProcessorList, WatermarkingConfig, set_seed

from helpers.tiny import CLS, PROMPT, SEP, tiny_batch, tiny_model
from modeling_valor import ValorForCaptioning, ValorForQuestionAnswering, generation
from modeling_valor.generation_rows import LeavingCache
from modeling_valor.modeling_valor_text import CACHE


LENGTHS = (5, 2, 7, 3, 9, 4)
"""Words of the text about each sample, [SEP] included."""
SAMPLES, STEPS = len(LENGTHS), max(LENGTHS)
OTHER_WORDS = list(range(104, 200))
BATCH = {name: tiny_batch(SAMPLES)[name] for name in ("pixel_values_videos", "input_features")}
# All of it, one clip, one frame; twice
MIXED = {
    "frame_mask": torch.tensor([[True, True], [False, False], [True, False]] * 2),
    "audio_mask": torch.tensor([[True, True], [True, False], [False, False]] * 2),
}
WAYS = {
    "greedy": {},
    "beams": {"num_beams": 3},
    "returned beams": {"num_beams": 3, "num_return_sequences": 3},
    "sampling": {"do_sample": True},
    "returned samples": {"do_sample": True, "num_return_sequences": 2},
}
QUESTIONS = torch.tensor([[CLS, 120 + i, 121, SEP] if i % 2 else [CLS, 130 + i, SEP, 0] for i in range(2 * SAMPLES)])


def write(model, batch=BATCH, **options):
    set_seed(0)
    return model.generate(**batch, **({"max_new_tokens": STEPS, "return_dict_in_generate": True} | options))


def ending(lengths=LENGTHS, per_sample=1, exactly=False):
    """Texts about a sample may end one word before its length, and end there; the others of its texts one word later."""

    def allowed_words(text, ids):
        missing = lengths[text // per_sample] + text % per_sample - len(ids)
        return [SEP] if missing == 0 else OTHER_WORDS + [SEP] * (missing == 1 and not exactly)

    return {"prefix_allowed_tokens_fn": allowed_words}


def rows_of_steps(model, layer=0):
    """Fills a list with the rows that a layer of the decoder sees at each step."""
    rows, watched = [], model.valor.text_model.layers[layer]

    class Watched(type(watched)):  # not a hook, with which all rows stay
        def forward(self, hidden_states, *args, **kwargs):
            rows.append(hidden_states.shape[0])
            return super().forward(hidden_states, *args, **kwargs)

    watched.__class__ = Watched
    return rows


def assert_same(model, batch=BATCH, per_sample=1, **options):
    """Words and scores are those of all rows, with fewer rows in the decoder. Returns the rows of each step."""
    options = ending(per_sample=per_sample) | options
    rows = rows_of_steps(model)
    left = write(model, batch, **options)
    seen, rows[:] = list(rows), []
    stayed = write(model, batch, **options, output_scores=True)
    assert set(rows) == {rows[0]} and seen[0] == rows[0] and len(seen) == len(rows)
    assert seen == sorted(seen, reverse=True) and len(set(seen)) > 3 and left.get(CACHE) is None
    assert torch.equal(left.sequences, stayed.sequences)
    if options.get("num_beams", 1) > 1:
        torch.testing.assert_close(left.sequences_scores, stayed.sequences_scores, atol=2e-5, rtol=0)
        assert torch.equal(left.beam_indices, stayed.beam_indices)
    return seen


@pytest.mark.parametrize("way", ["returned beams", "returned samples"])
@pytest.mark.parametrize("objective", ["masked", "causal"])
@pytest.mark.parametrize("kind", ["concat", "parallel", "audio_visual", "visual_audio", "merge"])
def test_words_and_scores_are_those_of_all_rows(kind, objective, way):
    options = {"cross_attention_type": kind, "captioning_objective": objective}
    model = tiny_model(ValorForCaptioning, caption_prompt_ids=PROMPT, **options)
    assert_same(model, **MIXED, **WAYS[way], per_sample=2 if way == "returned samples" else 1)


@pytest.mark.parametrize("way", ["greedy", "returned beams"])
def test_a_mixed_batch_equals_each_sample_alone(way):
    model = tiny_model(ValorForCaptioning, caption_prompt_ids=PROMPT)
    rows = rows_of_steps(model)
    together = write(model, **MIXED, **WAYS[way], **ending()).sequences.view(SAMPLES, -1, 1 + STEPS)
    assert rows[-1] < rows[0]
    for sample in range(SAMPLES):
        single = {name: value[sample : sample + 1] for name, value in (BATCH | MIXED).items()}
        alone = write(model, single, **WAYS[way], **ending(LENGTHS[sample:])).sequences
        length = alone.shape[1]
        assert torch.equal(together[sample, :, :length], alone) and not together[sample, :, length:].any()


@pytest.mark.parametrize("way", ["greedy", "beams"])
def test_answers_to_questions_of_different_length(way):
    model = tiny_model(ValorForQuestionAnswering)
    assert_same(model, question_input_ids=QUESTIONS[:SAMPLES], **MIXED, **WAYS[way])
    seen = assert_same(model, question_input_ids=QUESTIONS, **MIXED, **WAYS[way], per_sample=2)
    assert all(rows % (2 * WAYS[way].get("num_beams", 1)) == 0 for rows in seen)  # both questions of a sample, or none


def test_the_rows_of_every_step_are_those_of_samples_that_go_on():
    """By hand, where every text has exactly its length."""
    model = tiny_model(ValorForCaptioning)
    rows = [rows_of_steps(model, layer) for layer in (0, 1)]
    words = write(model, **ending(exactly=True)).sequences
    assert rows[0] == rows[1] == [6, 6, 5, 4, 3, 2, 2, 1, 1]
    assert (words != 0).sum(dim=1).tolist() == [1 + length for length in LENGTHS]


def test_the_cache_of_the_conditions_is_moved_in_its_place(monkeypatch):
    model, places = tiny_model(ValorForCaptioning), []
    leave = LeavingCache.leave

    def watched(self, conditions):
        leave(self, conditions)
        for layer in self.cross_attention_cache.layers:
            places.append((layer.keys.untyped_storage().data_ptr(), layer.values.untyped_storage().data_ptr()))
            assert self.rows is None or len(layer.keys) == len(self.samples) == len(self.conditions.video)

    monkeypatch.setattr(LeavingCache, "leave", watched)
    assert_same(model)
    steps = places[: len(places) // 2]
    assert len(set(steps)) == 2  # one for each layer


@pytest.mark.parametrize("way", WAYS)
def test_looking_every_few_steps_gives_the_same_words(monkeypatch, way, steps=2):
    model = tiny_model(ValorForCaptioning)
    options = WAYS[way] | ending(per_sample=2 if way == "returned samples" else 1)
    expected = write(model, **options).sequences
    monkeypatch.setattr(generation, "steps_between_checks", lambda device: steps)
    rows = rows_of_steps(model)
    words = write(model, **options, return_dict_in_generate=False)
    assert torch.equal(words, expected) and rows[-1] < rows[0]
    changes = [step for step in range(1, len(rows)) if rows[step] != rows[step - 1]]
    assert changes and all(step % steps == 0 for step in changes)


PROCESSORS = {
    "filters": {"do_sample": True, "top_k": 20, "top_p": 0.9, "min_p": 0.01, "typical_p": 0.9, "temperature": 2.0},
    "cutoffs": {"do_sample": True, "epsilon_cutoff": 0.01, "eta_cutoff": 0.01, "top_h": 0.5},
    "repetition": {"num_beams": 2, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "renormalize_logits": True},
    "words": {"bad_words_ids": [[150], [151, 152]], "sequence_bias": {(160,): 2.0}, "suppress_tokens": [153]},
    "end": {"exponential_decay_length_penalty": (3, 1.5), "remove_invalid_values": True},
    "watermark": {"watermarking_config": WatermarkingConfig(bias=2.0)},
}


@pytest.mark.parametrize("options", PROCESSORS.values(), ids=PROCESSORS)
def test_processors_of_transformers_take_the_rows_of_finished_samples(options):
    assert_same(tiny_model(ValorForCaptioning), **options)


class Streamed(list):
    def put(self, value):
        self.append(value.tolist())

    def end(self):
        self.append("end")


def test_a_streamer_gets_the_words_of_all_rows():
    model = tiny_model(ValorForCaptioning)
    streamed, rows = Streamed(), rows_of_steps(model)
    words = write(model, **ending(), streamer=streamed).sequences
    assert rows[-1] < rows[0] and streamed == [words[:, 0:1].tolist(), *words[:, 1:].T.tolist(), "end"]


def test_captions_of_valor_tiny_are_those_of_each_clip_alone(tiny_checkpoint):
    """16 samples of noise, of another colour and strength each."""
    model, generator = tiny_checkpoint[0], torch.Generator().manual_seed(0)
    size, audio = model.config.vision_config.image_size, model.config.audio_config
    frames = torch.randn(16, 1, 3, size, size, generator=generator) * torch.linspace(0, 3, 16).view(16, 1, 1, 1, 1)
    colours = torch.randn(16, 1, 3, 1, 1, generator=generator)
    sounds = torch.randn(16, 1, audio.num_mel_bins, audio.max_length, generator=generator)
    conditions = model.valor.encode_conditions(frames + colours, input_features=sounds)
    together = model.generate(conditions=conditions, max_new_tokens=24)
    lengths = (together != 0).sum(dim=1)
    assert len(lengths.unique()) > 3
    for sample, length in enumerate(lengths):
        alone = model.generate(conditions=conditions.select([sample]), max_new_tokens=24)
        assert torch.equal(together[sample : sample + 1, :length], alone)


# --- Where all rows stay ----------------------------------------------------------------------------------------------


def with_adapters(model):
    """Two adapters, one for each half of the rows."""
    lora = LoraConfig(target_modules=r".*text_model.*fc1", init_lora_weights=False)
    adapted = get_peft_model(model, lora).eval()
    adapted.add_adapter("other", lora)
    return adapted


STAYING = {
    "logits": {"output_logits": True},
    "attentions": {"output_attentions": True},
    "hidden states": {"output_hidden_states": True},
    "own processor": {"logits_processor": LogitsProcessorList([lambda ids, scores: scores - scores.mean()])},
    "own cache": {CACHE: "new"},
    "beams of transformers": {"num_beams": 2, "length_penalty": 1.0},
    "no padding": {"eos_token_id": None, "stopping_criteria": [lambda ids, _: ids[:, -1] == SEP]},
    "adapters": {"adapter_names": ["default"] * 3 + ["other"] * 3},
}


@pytest.mark.parametrize("name", STAYING)
def test_all_rows_stay_where_leaving_could_be_seen(name):
    model, options = tiny_model(ValorForCaptioning), dict(STAYING[name])
    model.set_attn_implementation("eager") if name == "attentions" else None
    rows = rows_of_steps(model)
    if CACHE in options:
        options[CACHE] = DynamicCache()
    if name == "no padding":
        model.config.text_config.eos_token_id = None
        model.generation_config.eos_token_id = None
    outputs = write(with_adapters(model) if name == "adapters" else model, **(ending() | options))
    assert set(rows) == {rows[0]} and len(rows) > 2 and outputs.get(CACHE) is not None


@pytest.mark.parametrize("part", ["layer", "model"])
def test_all_rows_stay_with_hooks(part):
    """They may have a value for each row."""
    model = tiny_model(ValorForCaptioning)
    rows = rows_of_steps(model, layer=1)
    steering = torch.randn(len(BATCH["input_features"]), 1, 32)
    hooked = model if part == "model" else model.valor.text_model.layers[0]

    def steer(module, args, output):
        states = output.logits if part == "model" else output
        states.add_(steering[:, :, :1])

    hooked.register_forward_hook(steer)
    write(model, **ending())
    assert len(set(rows)) == 1 and len(rows) > 2


def test_all_rows_stay_with_dropout():
    model = tiny_model(ValorForCaptioning)
    for part, stay in ((model.valor.vision_model, False), (model.valor.text_model.layers[1], True)):
        rows = rows_of_steps(model.eval())
        part.train()
        write(model, **ending())
        assert (len(set(rows)) == 1) == stay
