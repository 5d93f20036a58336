# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Decoding: the released decoder's sequences, the cache, and everything `generate()` offers."""

import pytest
import torch
from transformers import LogitsProcessor, LogitsProcessorList, set_seed

from helpers.parity import PARITY_SETS
from helpers.tiny import CLS, MASK, MIXED, PROMPT, SEP, alone, tiny_batch, tiny_config, tiny_model
from modeling_valor import ValorForCaptioning, ValorForQuestionAnswering


LENGTH = 12
SMALL_VOCABULARY = {**tiny_config().text_config.to_dict(), "vocab_size": 105}


def generation_batch():
    batch = tiny_batch()
    return {name: batch[name] for name in ("pixel_values_videos", "input_features")}


@pytest.fixture(scope="module")
def load(converted):
    return lambda name, cls=ValorForCaptioning, **kwargs: cls.from_pretrained(converted(name), **kwargs).eval()


@pytest.fixture(scope="module")
def model(load):
    return load("clip-vision-bert-shared")


def inputs_of(recorded, group="tva"):
    inputs = {}
    if "v" in group:
        inputs["pixel_values_videos"] = recorded.inputs["video_pixels"]
    if group.endswith("a"):
        inputs["input_features"] = recorded.inputs["audio_spectrograms"]
    return inputs


def as_recorded(sequences):
    """Ids without [CLS], filled up with [SEP] to the recorded length."""
    words = sequences[:, 1:].clone()
    for row in words:
        ends = (row == SEP).nonzero()
        if len(ends):
            row[ends[0, 0] :] = SEP
    return torch.nn.functional.pad(words, (0, LENGTH - words.shape[1]), value=SEP)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("group", ["tv", "ta", "tva"])
@pytest.mark.parametrize("name", PARITY_SETS)
def test_greedy_and_beam_sequences_are_those_of_the_released_decoder(load, parity, name, group, use_cache):
    recorded, model = parity(name), load(name)
    options = dict(max_new_tokens=LENGTH, use_cache=use_cache, **inputs_of(recorded, group))
    greedy = model.generate(num_beams=1, **options)
    assert (greedy[:, 0] == CLS).all() and greedy.shape[1] <= 1 + LENGTH
    torch.testing.assert_close(as_recorded(greedy), recorded.expected[f"greedy_{group}"])
    beams = model.generate(num_beams=3, return_dict_in_generate=True, **options)
    torch.testing.assert_close(as_recorded(beams.sequences), recorded.expected[f"beam3_{group}"])
    torch.testing.assert_close(beams.sequences_scores, recorded.expected[f"beam3_{group}_logprob"], atol=2e-5, rtol=0)


@pytest.mark.parametrize("group", ["tv", "ta", "tva"])
@pytest.mark.parametrize("name", PARITY_SETS)
def test_greedy_answers_are_those_of_the_released_decoder(load, parity, name, group):
    recorded, model = parity(name), load(name, ValorForQuestionAnswering)
    answers = model.generate(
        question_input_ids=recorded.inputs["question_tokens"],
        max_new_tokens=LENGTH,
        num_beams=1,
        **inputs_of(recorded, group),
    )
    torch.testing.assert_close(as_recorded(answers), recorded.expected[f"qa_greedy_{group}"])


@pytest.mark.parametrize("objective", ["masked", "causal"])
@pytest.mark.parametrize("prompt", [None, PROMPT], ids=["no_prompt", "prompt"])
@pytest.mark.parametrize("kind", ["concat", "parallel", "audio_visual", "visual_audio", "merge"])
def test_cached_equals_uncached(kind, prompt, objective):
    model = tiny_model(
        ValorForCaptioning, cross_attention_type=kind, caption_prompt_ids=prompt, captioning_objective=objective
    )
    batch = generation_batch()
    options = dict(max_new_tokens=8, return_dict_in_generate=True, output_logits=True, min_new_tokens=8, **MIXED)
    cached, uncached = (model.generate(**batch, **options, use_cache=use_cache) for use_cache in (True, False))
    assert torch.equal(cached.sequences, uncached.sequences)
    torch.testing.assert_close(torch.stack(cached.logits), torch.stack(uncached.logits), atol=1e-5, rtol=1e-5)
    beams = [
        model.generate(**batch, **options, num_beams=3, num_return_sequences=3, use_cache=use_cache)
        for use_cache in (True, False)
    ]
    assert torch.equal(beams[0].sequences, beams[1].sequences)
    torch.testing.assert_close(beams[0].sequences_scores, beams[1].sequences_scores, atol=1e-5, rtol=1e-5)


def test_each_step_runs_two_tokens_and_conditions_are_projected_once():
    model = tiny_model(ValorForCaptioning, caption_prompt_ids=PROMPT)
    lengths, projected = [], []
    model.valor.text_model.layers[0].register_forward_hook(lambda _, args, __: lengths.append(args[0].shape[1]))
    cross_attention = model.valor.text_model.layers[0].cross_attention["audiovisual"]
    cross_attention.k_proj.register_forward_hook(lambda _, args, __: projected.append(args[0].shape[0]))
    model.generate(**generation_batch(), max_new_tokens=5, min_new_tokens=5, num_beams=4)
    assert lengths == [len(PROMPT) + 2, 2, 2, 2, 2]
    assert projected == [3]


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}], ids=["greedy", "beam"])
def test_mixed_batch_equals_each_sample_alone(options):
    model, batch = tiny_model(ValorForCaptioning, caption_prompt_ids=PROMPT), generation_batch()
    together = model.generate(**batch, **MIXED, max_new_tokens=6, min_new_tokens=6, **options)
    for sample in range(3):
        single = model.generate(**alone(batch, sample), max_new_tokens=6, min_new_tokens=6, **options)
        assert torch.equal(together[sample : sample + 1], single)


def exhaustive(model, conditions, length):
    """Every caption of at most `length` words with its sum of log-probabilities, by brute force."""
    found, open_captions = {}, {(): 0.0}
    for step in range(length):
        grown = {}
        for words, score in open_captions.items():
            ids = torch.tensor([[CLS, *words, MASK]])
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), conditions=conditions).logits[0, -1]
            for word, log_prob in enumerate(logits.log_softmax(-1).tolist()):
                (found if word == SEP or step == length - 1 else grown)[(*words, word)] = score + log_prob
        open_captions = grown
    return found


def test_as_many_beams_as_captions_find_the_best_ones():
    model = tiny_model(ValorForCaptioning, text_config={**SMALL_VOCABULARY})
    conditions = model.valor.encode_conditions(torch.randn(1, 2, 3, 16, 16))
    with torch.no_grad():
        captions = exhaustive(model, conditions, 2)
    best = sorted(captions.items(), key=lambda item: -item[1])[:5]
    beams = model.generate(
        conditions=conditions, num_beams=105, num_return_sequences=5, max_new_tokens=2, return_dict_in_generate=True
    )
    found = [tuple(row[1 : 1 + len(words)].tolist()) for row, (words, _) in zip(beams.sequences, best, strict=True)]
    assert found == [words for words, _ in best]
    torch.testing.assert_close(beams.sequences_scores, torch.tensor([s for _, s in best]), atol=2e-5, rtol=1e-5)


def test_returned_sequences_are_distinct_and_sorted():
    model = tiny_model(ValorForCaptioning)
    result = model.generate(
        **generation_batch(), num_beams=4, num_return_sequences=4, max_new_tokens=5, return_dict_in_generate=True,
        output_scores=True,
    )  # fmt: skip
    scores = result.sequences_scores.view(3, 4)
    assert (scores[:, :-1] >= scores[:, 1:]).all()
    for captions in result.sequences.view(3, 4, -1):
        assert len({tuple(caption.tolist()) for caption in captions}) == 4
    steps = model.compute_transition_scores(result.sequences, result.scores, result.beam_indices)
    torch.testing.assert_close(steps.sum(dim=1), result.sequences_scores, atol=1e-4, rtol=1e-5)


def test_sampling_repeats_with_the_seed_and_returns_several_sequences():
    model, batch = tiny_model(ValorForCaptioning), generation_batch()
    draws = []
    for seed in (0, 0, 1):
        set_seed(seed)
        draws.append(model.generate(**batch, do_sample=True, top_p=0.9, num_return_sequences=2, max_new_tokens=5))
    assert draws[0].shape[0] == 6
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_beam_sampling_runs():
    set_seed(0)
    sequences = tiny_model(ValorForCaptioning).generate(
        **generation_batch(), do_sample=True, num_beams=2, max_new_tokens=4
    )
    assert sequences.shape[0] == 3 and (sequences[:, 0] == CLS).all()


def test_streamer_gets_the_words_of_the_result():
    class Collector:
        def __init__(self):
            self.ids = []

        def put(self, value):
            self.ids += value.flatten().tolist()

        def end(self):
            self.ids.append("end")

    model, collector = tiny_model(ValorForCaptioning), Collector()
    single = {name: value[:1] for name, value in generation_batch().items()}
    sequences = model.generate(**single, max_new_tokens=5, streamer=collector)
    assert collector.ids == [*sequences[0].tolist(), "end"]


@pytest.mark.parametrize("num_beams", [1, 3])
def test_logits_processors_act_on_the_mask_position(num_beams):
    class Only(LogitsProcessor):
        def __call__(self, input_ids, scores):
            keep = 120 + input_ids.shape[1]
            return torch.full_like(scores, -1e4).index_fill(1, torch.tensor([keep]), 0.0)

    sequences = tiny_model(ValorForCaptioning).generate(
        **generation_batch(), max_new_tokens=4, num_beams=num_beams, logits_processor=LogitsProcessorList([Only()])
    )
    assert sequences.tolist() == [[CLS, 121, 122, 123, 124]] * 3


def test_generation_continues_given_words():
    model, batch = tiny_model(ValorForCaptioning, caption_prompt_ids=PROMPT), generation_batch()
    whole = model.generate(**batch, max_new_tokens=6, min_new_tokens=6)
    continued = model.generate(input_ids=whole[:, :4], **batch, max_new_tokens=3, min_new_tokens=3)
    assert torch.equal(continued, whole)


def test_a_given_prompt_replaces_that_of_the_configuration():
    batch, prompt = generation_batch(), torch.tensor([PROMPT]).expand(3, -1)
    given = tiny_model(ValorForCaptioning).generate(**batch, prompt_input_ids=prompt, num_beams=2, max_new_tokens=5)
    configured = tiny_model(ValorForCaptioning, caption_prompt_ids=PROMPT)
    assert torch.equal(given, configured.generate(**batch, num_beams=2, max_new_tokens=5))
    assert torch.equal(
        configured.generate(**batch, prompt_input_ids=prompt[:, :2], max_new_tokens=5),
        tiny_model(ValorForCaptioning, caption_prompt_ids=PROMPT[:2]).generate(**batch, max_new_tokens=5),
    )


def test_encoded_conditions_can_be_used_again():
    model, batch = tiny_model(ValorForCaptioning), generation_batch()
    conditions = model.valor.encode_conditions(batch["pixel_values_videos"], input_features=batch["input_features"])
    assert torch.equal(
        model.generate(conditions=conditions, max_new_tokens=5), model.generate(**batch, max_new_tokens=5)
    )


def test_nothing_to_describe_is_refused():
    with pytest.raises(ValueError, match="nothing to describe"):
        tiny_model(ValorForCaptioning).generate(max_new_tokens=2)


def test_padded_words_to_continue_are_refused():
    ids = torch.tensor([[CLS, 110], [CLS, 0], [CLS, 111]])
    with pytest.raises(ValueError, match="padding"):
        tiny_model(ValorForCaptioning).generate(input_ids=ids, attention_mask=ids != 0, **generation_batch())
