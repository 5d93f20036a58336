# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Decoding: the released decoder's sequences, the cache, and everything `generate()` offers."""

import pytest
import torch
from conftest import PARITY_GROUPS, PARITY_SETS
from transformers import LogitsProcessor, LogitsProcessorList, set_seed

from modeling_valor import ValorForCaptioning, ValorForQuestionAnswering


CLS, SEP, MASK, PAD = 101, 102, 103, 0
LENGTH = 12


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
    beams = model.generate(num_beams=3, return_dict_in_generate=True, output_scores=True, **options)
    torch.testing.assert_close(as_recorded(beams.sequences), recorded.expected[f"beam3_{group}"])
    torch.testing.assert_close(
        beams.sequences_scores, recorded.expected[f"beam3_{group}_logprob"], atol=2e-5, rtol=0
    )


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
