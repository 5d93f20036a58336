# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Masking and the objectives of MGC, against hand calculations."""

import math

import pytest
import torch

from modeling_valor.captioning import answer_token_weights, captioning_loss, mask_tokens, next_word_labels


CLS, SEP, MASK = 101, 102, 103


def captions(rows=2000, length=12, padding=3):
    ids = torch.randint(1000, 2000, (rows, length + padding), generator=torch.Generator().manual_seed(1))
    ids[:, 0], ids[:, length - 1], ids[:, length:] = CLS, SEP, 0
    return ids, ids != 0


def test_masking_follows_the_80_10_10_rule():
    ids, attention_mask = captions()
    masked, labels = mask_tokens(ids, attention_mask, MASK, 30522, 0.6, torch.Generator().manual_seed(0))
    chosen = labels != -100
    candidates = attention_mask.clone()
    candidates[:, 0] = False
    assert not (chosen & ~candidates).any(), "[CLS] and padding are never masked"
    assert (labels[chosen] == ids[chosen]).all() and (masked[~chosen] == ids[~chosen]).all()
    share = lambda condition, among: condition[among].float().mean().item()  # noqa: E731
    assert share(chosen, candidates) == pytest.approx(0.6, abs=0.01)
    assert share(chosen[:, 11], slice(None)) == pytest.approx(0.6, abs=0.04), "[SEP] is masked like any word"
    assert share(masked == MASK, chosen) == pytest.approx(0.8, abs=0.01)
    assert share(masked == ids, chosen) == pytest.approx(0.1, abs=0.01)
    drawn = masked[chosen & (masked != MASK) & (masked != ids)]
    assert drawn.min() > MASK and drawn.max() < 30522 and drawn.max() > 29000


def test_random_words_come_from_before_a_mask_that_is_the_last_of_the_vocabulary():
    ids = torch.randint(4, 2999, (500, 12), generator=torch.Generator().manual_seed(1))
    masked, labels = mask_tokens(ids, None, 2999, 3000, 0.6, torch.Generator().manual_seed(0))
    drawn = masked[(labels != -100) & (masked != 2999) & (masked != ids)]
    assert len(drawn) > 200 and drawn.max() < 2999 and drawn.float().mean().item() == pytest.approx(1500, rel=0.1)


def test_every_text_has_a_masked_word_however_short():
    ids = torch.tensor([[CLS, SEP, 0, 0], [CLS, 2000, SEP, 0]]).repeat(500, 1)
    _, labels = mask_tokens(ids, ids != 0, MASK, 30522, 0.05)
    assert (labels != -100).any(dim=1).all()


def test_masking_repeats_with_the_generator():
    ids, attention_mask = captions(rows=4)
    first, second = (
        mask_tokens(ids, attention_mask, MASK, 30522, generator=torch.Generator().manual_seed(7)) for _ in range(2)
    )
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_next_word_labels_by_hand():
    ids = torch.tensor([[CLS, 5, 6, SEP, 0]])
    assert next_word_labels(ids, ids != 0).tolist() == [[5, 6, SEP, -100, -100]]
    assert next_word_labels(ids[:, :4]).tolist() == [[5, 6, SEP, -100]]


def test_captioning_loss_by_hand():
    logits = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]]))
    labels = torch.tensor([[0, -100, 1]])
    assert captioning_loss(logits, labels).item() == pytest.approx(-(math.log(0.5) + math.log(0.2)) / 2)


def test_label_smoothing_is_a_kl_divergence():
    probabilities = torch.tensor([0.5, 0.3, 0.2])
    smoothed = [0.9, 0.05, 0.05]
    expected = sum(t * math.log(t / p) for t, p in zip(smoothed, probabilities.tolist(), strict=True))
    loss = captioning_loss(probabilities.log()[None, None], torch.tensor([[0]]), label_smoothing=0.1)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_no_target_at_all_costs_nothing():
    logits = torch.randn(2, 3, 5, requires_grad=True)
    labels = torch.full((2, 3), -100)
    for loss in (captioning_loss(logits, labels), captioning_loss(logits, labels, answer_token_weights(labels))):
        assert loss.item() == 0
        loss.backward()
    assert (logits.grad == 0).all()


def test_answer_loss_weighs_answers_not_tokens():
    logits = torch.log(torch.tensor([0.5, 0.3, 0.2])).expand(3, 2, 3)
    labels = torch.tensor([[0, 0], [1, -100], [2, 0]])
    answers = [-math.log(0.5), -math.log(0.3), -(math.log(0.2) + math.log(0.5)) / 2]
    assert captioning_loss(logits, labels, answer_token_weights(labels)).item() == pytest.approx(sum(answers) / 3)
    # Two questions: the first has one answer, the second two that were given 3 times and once
    weights = torch.tensor([1.0, 0.75, 0.25])
    expected = (answers[0] + 0.75 * answers[1] + 0.25 * answers[2]) / 2
    loss = captioning_loss(logits, labels, answer_token_weights(labels, weights))
    assert loss.item() == pytest.approx(expected)
