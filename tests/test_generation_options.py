# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Every argument of transformers' `generate`: it works as its name says, or one sentence refuses it."""

import inspect
import warnings

import pytest
import torch
from transformers import (
    CompileConfig,
    DynamicCache,
    EncoderDecoderCache,
    GenerationConfig,
    GenerationMixin,
    LogitsProcessorList,
    StaticCache,
    SuppressTokensLogitsProcessor,
    WatermarkingConfig,
    set_seed,
)

from helpers.tiny import CLS, MASK, PROMPT, SEP, tiny_batch, tiny_config, tiny_model
from modeling_valor import ValorForCaptioning, ValorForQuestionAnswering
from modeling_valor.generation import UNSUPPORTED_OPTIONS
from modeling_valor.modeling_valor_text import CACHE
from modeling_valor.training.vocabulary import train_tokenizer


STEPS = 4
MEDIA = {name: tiny_batch()[name] for name in ("pixel_values_videos", "input_features")}


@pytest.fixture(scope="module")
def model():
    return tiny_model(ValorForCaptioning)


def write(model, **options):
    set_seed(0)
    return model.generate(**MEDIA, **({"max_new_tokens": STEPS} | options))


@pytest.fixture(scope="module")
def greedy(model):
    """Without [SEP] among the words of any sample."""
    sequences = write(model)
    assert not (sequences == SEP).any() and sequences.shape == (3, 1 + STEPS)
    return sequences


@pytest.fixture(scope="module")
def log_probs(model):
    """Of the first word after [CLS], (3, 200), by the model's `forward`."""
    ids = torch.tensor([[CLS, MASK]] * 3)
    with torch.no_grad():
        return model(input_ids=ids, **MEDIA, captioning_groups=["t-av"]).logits[:, -1].log_softmax(dim=-1)


def eager_to_end(seed: int = 0):
    """A model that says [SEP] as soon as it may."""
    model = tiny_model(ValorForCaptioning, seed)
    model.lm_head.decoder.bias.data[SEP] = 1e3
    return model


# --- What works -------------------------------------------------------------------------------------------------------

SAME_AS_GREEDY = {
    "attention_mask": {"attention_mask": torch.ones(3, 1, dtype=torch.long)},
    "cache_implementation": {"cache_implementation": "dynamic"},
    "compile_config": {"compile_config": CompileConfig()},
    "disable_compile": {"disable_compile": True},
    "do_sample": {"do_sample": False},
    "epsilon_cutoff": {"epsilon_cutoff": 0.99, "do_sample": True},
    "generation_config": {"generation_config": GenerationConfig(num_beams=1, max_new_tokens=STEPS)},
    "max_length": {"max_length": 1 + STEPS, "max_new_tokens": None},
    "min_p": {"min_p": 1.0, "do_sample": True},
    "num_beams": {"num_beams": 1},
    "cache": {"cache": DynamicCache},
    "synced_gpus": {"synced_gpus": False},
    "temperature": {"temperature": 1e-4, "do_sample": True},
    "top_h": {"top_h": 1e-3, "do_sample": True},
    "top_k": {"top_k": 1, "do_sample": True},
    "top_p": {"top_p": 1e-4, "do_sample": True},
    "use_cache": {"use_cache": False},
}
"""Options of which a value leaves only the most likely word."""


@pytest.mark.parametrize("option", SAME_AS_GREEDY)
def test_options_that_leave_only_the_most_likely_word(model, greedy, option):
    options = {name: value() if inspect.isclass(value) else value for name, value in SAME_AS_GREEDY[option].items()}
    assert torch.equal(write(model, **options), greedy)


def only(*words):
    """Whether words other than these are missing."""
    return lambda ids: set(ids.flatten().tolist()) <= set(words)


WORDS = {
    "bad_words_ids": ({"bad_words_ids": [[w] for w in range(200) if w not in (150, 151)]}, only(150, 151, SEP, 0)),
    "begin_suppress_tokens": (
        {"begin_suppress_tokens": [w for w in range(200) if w != 150]},
        lambda ids: (ids[:, 0] == 150).all() and (ids[:, 1:] != 150).any(),
    ),
    "encoder_no_repeat_ngram_size": (
        {"encoder_no_repeat_ngram_size": 1, "input_ids": torch.arange(104, 143)[None], "max_new_tokens": 8},
        lambda ids: not set(ids.flatten().tolist()) & set(range(104, 143)),
    ),
    "encoder_repetition_penalty": ({"encoder_repetition_penalty": 1e6}, only(CLS)),
    "eos_token_id": ({"eos_token_id": list(range(200))}, lambda ids: ids.shape == (3, 1)),
    "forced_bos_token_id": ({"forced_bos_token_id": 150}, lambda ids: (ids[:, 0] == 150).all()),
    "forced_eos_token_id": ({"forced_eos_token_id": 150}, lambda ids: (ids[:, -1] == 150).all()),
    "logits_processor": (
        {"logits_processor": LogitsProcessorList([SuppressTokensLogitsProcessor(range(150))])},
        only(*range(150, 200)),
    ),
    "max_new_tokens": ({"max_new_tokens": 2}, lambda ids: ids.shape == (3, 2)),
    "max_time": ({"max_time": -1.0}, lambda ids: ids.shape == (3, 1)),
    "no_repeat_ngram_size": (
        {"no_repeat_ngram_size": 1, "max_new_tokens": 30},
        lambda ids: all(len(set(row.tolist())) == 30 for row in ids),
    ),
    "num_return_sequences": ({"num_return_sequences": 2, "do_sample": True}, lambda ids: len(ids) == 6),
    "prefix_allowed_tokens_fn": (
        {"prefix_allowed_tokens_fn": lambda sample, ids: [150 + sample]},
        lambda ids: ids.tolist() == [[150] * STEPS, [151] * STEPS, [152] * STEPS],
    ),
    "repetition_penalty": (
        {"repetition_penalty": 1e6, "max_new_tokens": 12},
        lambda ids: all(len(set(row.tolist())) == 12 for row in ids),
    ),
    "sequence_bias": ({"sequence_bias": {(150,): 1e4}}, only(150)),
    "stopping_criteria": ({"stopping_criteria": [lambda ids, _: ids[:, -1] > 0]}, lambda ids: ids.shape == (3, 1)),
    "suppress_tokens": ({"suppress_tokens": list(range(150))}, only(*range(150, 200))),
    "watermarking_config": (
        {"watermarking_config": WatermarkingConfig(bias=1e4, greenlist_ratio=0.3)},
        lambda ids: all(
            WatermarkingConfig(bias=1.0, greenlist_ratio=0.3)
            .construct_processor(200, "cpu")(ids[:, :i], torch.zeros(3, 200))[torch.arange(3), ids[:, i]]
            .all()
            for i in range(1, STEPS)
        ),
    ),
}
"""Options with what the written words, (3, steps), then are."""


@pytest.mark.parametrize("option", WORDS)
def test_options_that_choose_words(model, option):
    options, holds = WORDS[option]
    start = options["input_ids"].shape[1] if "input_ids" in options else 1
    assert holds(write(model, **options)[:, start:])


ENDS = {
    "exponential_decay_length_penalty": ({"exponential_decay_length_penalty": (1, 1e6)}, 4),
    "min_length": ({"min_length": 4}, 5),
    "min_new_tokens": ({"min_new_tokens": 2}, 4),
}
"""Options with the length of sequences of a model that would end at once, or never."""


@pytest.mark.parametrize("num_beams", [1, 2])
@pytest.mark.parametrize("option", ENDS)
def test_options_that_move_the_end(option, num_beams):
    options, length = ENDS[option]
    model = tiny_model(ValorForCaptioning) if option.startswith("exponential") else eager_to_end()
    sequences = write(model, max_new_tokens=8, num_beams=num_beams, **options)
    assert sequences.shape[1] == length and (sequences[:, -1] == SEP).all()


def test_typical_p_chooses_the_most_typical_word(model, log_probs):
    entropy = -(log_probs.exp() * log_probs).sum(dim=1, keepdim=True)
    expected = (entropy + log_probs).abs().argmin(dim=1)
    assert torch.equal(write(model, typical_p=1e-4, do_sample=True, top_k=0, max_new_tokens=1)[:, 1], expected)


def test_eta_cutoff_leaves_out_words_by_the_entropy(model, log_probs):
    entropy = -(log_probs.exp() * log_probs).sum(dim=1, keepdim=True)
    kept = log_probs.exp() >= torch.minimum(torch.tensor(0.1), 0.1**0.5 * (-entropy).exp())
    options = {"do_sample": True, "top_k": 0, "max_new_tokens": 1, "num_return_sequences": 200}
    words = write(model, eta_cutoff=0.1, **options)[:, 1].view(3, 200)
    assert kept.gather(1, words).all() and not kept.gather(1, write(model, **options)[:, 1].view(3, 200)).all()


def test_pad_token_id_fills_ended_texts(model, greedy):
    sequences = write(model, eos_token_id=int(greedy[0, 1]), pad_token_id=7)
    assert sequences[0].tolist() == [*greedy[0, :2].tolist(), 7, 7, 7] and len(set(greedy[:, 1].tolist())) > 1


def test_bos_token_id_begins_the_texts(model):
    sequences = write(model, bos_token_id=150)
    assert (sequences[:, 0] == 150).all()
    assert torch.equal(sequences, write(model, input_ids=torch.tensor([[150]])))


def test_remove_invalid_values_repairs_scores():
    model = tiny_model(ValorForCaptioning)
    model.lm_head.decoder.bias.data[150] = torch.nan
    assert (write(model, max_new_tokens=1)[:, 1] == 150).all()
    assert (write(model, max_new_tokens=1, remove_invalid_values=True)[:, 1] != 150).all()


def test_stop_strings_and_their_tokenizer():
    tokenizer = train_tokenizer(["abcdef a drum rings"], 100)
    special = {"vocab_size": len(tokenizer), "bos_token_id": 2, "eos_token_id": 3, "mask_token_id": 4}
    model = tiny_model(ValorForCaptioning, text_config={**tiny_config().text_config.to_dict(), **special})
    model.lm_head.decoder.bias.data[tokenizer.convert_tokens_to_ids("drum")] = 1e3
    words = write(model, stop_strings=["drum"], tokenizer=tokenizer)
    assert tokenizer.batch_decode(words[:, 1:]) == ["drum"] * 3


def test_outputs_of_every_step(greedy, log_probs):
    model = tiny_model(ValorForCaptioning)
    model.set_attn_implementation("eager")
    names = ("output_scores", "output_logits", "output_attentions", "output_hidden_states")
    outputs = write(model, return_dict_in_generate=True, **dict.fromkeys(names, True))
    assert torch.equal(outputs.sequences, greedy)
    assert len(outputs.scores) == len(outputs.logits) == len(outputs.attentions) == len(outputs.hidden_states) == STEPS
    torch.testing.assert_close(outputs.logits[0].log_softmax(dim=-1), log_probs, atol=1e-5, rtol=1e-5)
    assert outputs.attentions[1][0].shape == (3, 4, 2, 3) and outputs.hidden_states[1][0].shape == (3, 2, 32)


@pytest.mark.parametrize("num_beams", [1, 2])
def test_renormalize_logits_makes_scores_log_probabilities(model, num_beams):
    options = {"do_sample": True, "top_k": 5, "num_beams": num_beams, "output_scores": True}
    outputs = write(model, **options, renormalize_logits=True, return_dict_in_generate=True)
    torch.testing.assert_close(outputs.scores[0].exp().sum(dim=1), torch.ones(3 * num_beams))


def test_a_function_as_custom_generate(model, greedy):
    def decode(model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs):
        return model._sample(input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs)

    assert torch.equal(write(model, custom_generate=decode), greedy)


def exhaustive(model, length, penalty):
    """All texts of at most `length` words, with their log-probability divided by their length to the power of `penalty`."""
    conditions = model.valor.encode_conditions(MEDIA["pixel_values_videos"][:1])
    found, prefixes = {}, {(): 0.0}
    for step in range(length):
        grown = {}
        for words, score in prefixes.items():
            ids = torch.tensor([[CLS, *words, MASK]])
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), conditions=conditions).logits[0, -1]
            for word, log_prob in enumerate(logits.log_softmax(-1).tolist()):
                (found if word == SEP or step == length - 1 else grown)[(*words, word)] = score + log_prob
        prefixes = grown
    return {words: score / len(words) ** penalty for words, score in found.items()}


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize(
    ("options", "penalty"),
    [({"length_penalty": 2.0}, 2.0), ({"length_penalty": -1.0, "early_stopping": "never"}, -1.0), ({}, 0.0),
     ({"early_stopping": "never"}, 0.0)],
)  # fmt: skip
def test_length_penalty_and_early_stopping_find_the_best_texts(options, penalty, use_cache):
    text = {**tiny_config().text_config.to_dict(), "vocab_size": 105}
    model = tiny_model(ValorForCaptioning, text_config=text)
    model.lm_head.decoder.bias.data[SEP] += 2
    with torch.no_grad():
        texts = exhaustive(model, 2, penalty)
    best = sorted(texts, key=texts.get)[-3:][::-1]
    beams = model.generate(
        pixel_values_videos=MEDIA["pixel_values_videos"][:1], num_beams=105, num_return_sequences=3, max_new_tokens=2,
        return_dict_in_generate=True, output_scores=True, use_cache=use_cache, **options,
    )  # fmt: skip
    assert [tuple(row[1 : 1 + len(words)].tolist()) for row, words in zip(beams.sequences, best, strict=True)] == best
    torch.testing.assert_close(beams.sequences_scores, torch.tensor([texts[w] for w in best]), atol=1e-4, rtol=1e-4)


def test_a_length_penalty_of_the_generation_config_counts(model):
    options = {"num_beams": 3, "return_dict_in_generate": True, "output_scores": True}
    configs = [
        GenerationConfig(max_new_tokens=STEPS, **options, **penalty) for penalty in ({}, {"length_penalty": 1.0})
    ]
    scores = [model.generate(**MEDIA, generation_config=config) for config in configs]
    torch.testing.assert_close(scores[0].sequences_scores, scores[1].sequences_scores * STEPS)


# --- Texts, samples and caches ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("cls", [ValorForCaptioning, ValorForQuestionAnswering])
def test_one_prompt_serves_all_samples(cls, num_beams):
    model, prompt = tiny_model(cls), torch.tensor([PROMPT])
    name = "prompt_input_ids" if cls is ValorForCaptioning else "question_input_ids"
    one = write(model, num_beams=num_beams, **{name: prompt})
    assert torch.equal(one, write(model, num_beams=num_beams, **{name: prompt.expand(3, -1)}))
    mask = name.replace("input_ids", "attention_mask")
    masked = write(model, num_beams=num_beams, **{name: prompt, mask: torch.tensor([[1, 1, 0, 0]])})
    assert torch.equal(masked, write(model, num_beams=num_beams, **{name: prompt[:, :2]}))


def test_one_beginning_serves_all_samples(model, greedy):
    begun = write(model, input_ids=torch.tensor([[CLS]]), num_beams=2)
    assert torch.equal(begun, write(model, num_beams=2))


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"use_cache": False}, {"cross_attention_type": "merge"}])
def test_several_questions_about_each_sample_are_consecutive_rows(options):
    """Its video is encoded once and answers are those of one question at a time."""
    kind = options.pop("cross_attention_type", "concat")
    model = tiny_model(ValorForQuestionAnswering, cross_attention_type=kind)
    questions = torch.tensor([[CLS, word, SEP] for word in range(110, 116)])
    encoded = []
    model.valor.vision_model.register_forward_hook(lambda _, args, __: encoded.append(len(args[0])))
    together = write(model, question_input_ids=questions, **options)
    assert encoded == [6]  # two frames of three samples
    for row, question in enumerate(questions):
        media = {name: value[row // 2 : row // 2 + 1] for name, value in MEDIA.items()}
        alone = model.generate(**media, question_input_ids=question[None], max_new_tokens=STEPS, **options)
        assert together[row, : alone.shape[1]].tolist() == alone[0].tolist()


@pytest.mark.parametrize(
    "texts",
    [{"input_ids": torch.full((2, 1), CLS)}, {"prompt_input_ids": torch.tensor(PROMPT)},
     {"input_ids": torch.full((4, 1), CLS)}, {"prompt_input_ids": torch.ones(6, 2), "input_ids": torch.ones(3, 1)}],
)  # fmt: skip
def test_texts_that_do_not_fit_the_samples_are_refused(model, texts):
    with pytest.raises(ValueError, match="were given for 3 samples"):
        write(model, **texts)


CACHES = {
    "dynamic": lambda model: DynamicCache(),
    "with config": lambda model: DynamicCache(config=model.config.text_config),
    "both": lambda model: EncoderDecoderCache(DynamicCache(), DynamicCache()),
    "both with config": lambda model: EncoderDecoderCache(
        DynamicCache(config=model.config.text_config), DynamicCache(config=model.config.text_config)
    ),
}


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_a_cache_has_the_same_effect_by_its_name_before_and_after_transformers_5_24(model, name):
    """Of `generate`, and of `forward`, which reads on behind what the cache holds."""
    filled = write(model, return_dict_in_generate=True, **{name: DynamicCache()})
    assert torch.equal(filled.sequences, write(model))
    ids = torch.tensor([[CLS, 8, 9, MASK]] * 3)
    options = MEDIA | {"captioning_groups": ["t-av"], "use_cache": True, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        whole = model(input_ids=ids, **options).logits
        cache = model(input_ids=ids[:, :2], **options | {"attention_mask": torch.ones_like(ids[:, :2])})[CACHE]
        with warnings.catch_warnings(record=True) as caught:
            rest = model(input_ids=ids[:, 2:], **options, **{name: cache}).logits
    torch.testing.assert_close(rest, whole[:, 2:])
    assert any("`past_key_values` is deprecated" in str(one.message) for one in caught) == (name != "cache")


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"num_beams": 3, "do_sample": True}])
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("kind", ["concat", "parallel"])
def test_a_users_own_cache_gives_the_same_words(cache, options, kind):
    model = tiny_model(ValorForCaptioning, cross_attention_type=kind)
    assert torch.equal(write(model, cache=CACHES[cache](model), **options), write(model, **options))


def test_other_and_filled_caches_are_refused(model):
    with pytest.raises(ValueError, match="is a StaticCache"):
        write(model, cache=StaticCache(model.config.text_config, 9))
    filled = write(model, return_dict_in_generate=True)[CACHE]
    with pytest.raises(ValueError, match="holds 4 tokens already"):
        write(model, cache=filled)


# --- Modality groups --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_cache", [True, False])
def test_one_captioning_group_is_what_the_text_is_about(model, use_cache):
    chosen = write(model, captioning_groups=["t-v"], use_cache=use_cache)
    alone = model.generate(pixel_values_videos=MEDIA["pixel_values_videos"], max_new_tokens=STEPS)
    assert torch.equal(chosen, alone)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("groups", [[], ["t-v", "t-a"]])
def test_no_or_several_captioning_groups_are_refused(model, groups, use_cache):
    with pytest.raises(ValueError, match="one group at a time"):
        write(model, captioning_groups=groups, use_cache=use_cache)


def test_groups_that_cannot_be_are_refused(model):
    with pytest.raises(ValueError, match="'t-x'"):
        write(model, captioning_groups=["t-x"])
    with pytest.raises(ValueError, match="needs `input_features`"):
        model.generate(pixel_values_videos=MEDIA["pixel_values_videos"], captioning_groups=["t-a"])


# --- What is refused --------------------------------------------------------------------------------------------------

ON = {
    "assistant_early_exit": 1,
    "assistant_model": object(),
    "continuous_batching_config": object(),
    "diversity_penalty": 0.5,
    "guidance_scale": 1.5,
    "num_beam_groups": 2,
    "penalty_alpha": 0.6,
    "position_ids": torch.arange(1),
    "prompt_lookup_num_tokens": 3,
}


@pytest.mark.parametrize("option", UNSUPPORTED_OPTIONS)
def test_options_that_cannot_work_are_refused_in_one_sentence(model, option):
    with pytest.raises(ValueError) as error:
        write(model, **{option: ON.get(option, 1 if option.startswith("num") else True)})
    assert str(error.value) == f"`{option}` cannot be used with ValorForCaptioning: {UNSUPPORTED_OPTIONS[option]}"


def test_options_of_a_generation_config_are_refused_too(model):
    with pytest.raises(ValueError, match="prompt_lookup_num_tokens"):
        write(model, generation_config=GenerationConfig(prompt_lookup_num_tokens=3))
    own = tiny_model(ValorForCaptioning)
    own.generation_config.assistant_early_exit = 1
    with pytest.raises(ValueError, match="assistant_early_exit"):
        write(own)


@pytest.mark.parametrize("value", ["hybrid", "quantized", "paged", "offloaded_static"])
def test_caches_that_cannot_forget_are_refused(model, value):
    with pytest.raises(ValueError, match=f"cache_implementation='{value}'"):
        write(model, cache_implementation=value)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="says what a CPU cannot do")
def test_offloading_from_a_cpu_is_refused(model):
    with pytest.raises(ValueError, match="there is none here"):
        write(model, cache_implementation="offloaded")


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs an accelerator")
def test_an_offloaded_cache_gives_the_same_words():
    device = torch.accelerator.current_accelerator()
    model, media = tiny_model(ValorForCaptioning).to(device), {name: value.to(device) for name, value in MEDIA.items()}
    for options in ({}, {"num_beams": 3}):
        plain, offloaded = (
            model.generate(**media, max_new_tokens=STEPS, cache_implementation=cache, **options)
            for cache in (None, "offloaded")
        )
        assert torch.equal(plain, offloaded)


def test_custom_generate_of_a_repository_is_refused(model):
    with pytest.raises(ValueError, match="custom_generate='transformers-community/dola'"):
        write(model, custom_generate="transformers-community/dola")


def test_options_that_are_off_are_accepted(model, greedy):
    off = {"guidance_scale": 1.0, "num_beam_groups": 1, "diversity_penalty": None, "token_healing": False}
    assert torch.equal(write(model, **off), greedy)


def test_every_option_of_transformers_is_tested_here():
    """A new one, of a new version of transformers, has to get its place in one of the tables."""
    options = set(GenerationConfig().to_dict()) | set(inspect.signature(GenerationMixin.generate).parameters)
    tested = {*SAME_AS_GREEDY, *WORDS, *ENDS, *UNSUPPORTED_OPTIONS}
    tested |= {"bos_token_id", "custom_generate", "early_stopping", "length_penalty", "output_attentions"}
    tested |= {"output_hidden_states", "output_logits", "output_scores", "remove_invalid_values", "renormalize_logits"}
    tested |= {"eta_cutoff", "pad_token_id", "return_dict_in_generate", "stop_strings", "streamer", "typical_p"}
    assert options - tested == {"self", "kwargs", "_from_model_config", "transformers_version"}
