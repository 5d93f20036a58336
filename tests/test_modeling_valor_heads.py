# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The heads: losses, labels, prompts, and what they refuse."""

import pytest
import torch
from torch.nn import functional as F

from helpers.tiny import MASK, MIXED, PROMPT, tiny_batch, tiny_model
from modeling_valor import (
    ValorForCaptioning,
    ValorForPreTraining,
    ValorForQuestionAnswering,
    ValorForRetrieval,
)


def test_pretraining_with_missing_modalities_has_finite_gradients_and_the_right_targets():
    model, batch = tiny_model(ValorForPreTraining), tiny_batch()
    decoder_input_ids = batch["input_ids"].masked_fill(batch["input_ids"] > MASK, MASK)
    labels = batch["input_ids"].masked_fill(decoder_input_ids != MASK, -100)
    outputs = model(**batch, **MIXED, decoder_input_ids=decoder_input_ids, labels=labels)
    outputs.loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    # t-v is learned from the samples that have frames, 0 and 2
    seen = [0, 2]
    captioner = tiny_model(ValorForCaptioning)
    captioner.load_state_dict(model.state_dict())
    alone_loss = captioner(
        input_ids=decoder_input_ids[seen],
        labels=labels[seen],
        pixel_values_videos=batch["pixel_values_videos"][seen],
        frame_mask=MIXED["frame_mask"][seen],
    ).loss
    torch.testing.assert_close(outputs.captioning_losses["t-v"], alone_loss, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cls", [ValorForRetrieval, ValorForCaptioning, ValorForPreTraining])
@pytest.mark.parametrize("options", [{}, {"alignment": "coarse"}], ids=["fine", "coarse"])
def test_groups_that_no_sample_has_are_left_out_of_the_mean(cls, options):
    """Silent clips cost the same with sound that is masked and without any: t-v, and t-av which then is t-v."""
    model, batch = tiny_model(cls, **options), tiny_batch()
    if cls is not ValorForRetrieval:
        batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    if cls is ValorForPreTraining:
        batch["decoder_input_ids"] = batch["input_ids"]
    silent = model(**batch, audio_mask=torch.zeros(3, 2, dtype=torch.bool)).loss
    del batch["input_features"]
    torch.testing.assert_close(silent, model(**batch).loss, atol=1e-5, rtol=1e-5)


def test_pretraining_loss_is_eq_7():
    model, batch = tiny_model(ValorForPreTraining, alignment_loss_weight=0.5, mask_probability=1.0), tiny_batch()
    outputs = model(**batch)
    mean = lambda losses: torch.stack(list(losses.values())).mean()  # noqa: E731
    expected = 0.5 * mean(outputs.alignment_losses) + mean(outputs.captioning_losses)
    torch.testing.assert_close(outputs.loss, expected)
    assert list(outputs.captioning_losses) == list(outputs.alignment_losses) == ["t-v", "t-a", "t-av"]
    only_captions = model(**batch, alignment_groups=[], captioning_groups=["t-a"])
    torch.testing.assert_close(only_captions.loss, only_captions.captioning_losses["t-a"])
    only_alignment = model(**batch, captioning_groups=[])
    torch.testing.assert_close(only_alignment.loss, 0.5 * mean(only_alignment.alignment_losses))


@pytest.mark.parametrize("left_out", ["alignment_groups", "captioning_groups"])
def test_a_task_without_groups_is_left_out_of_pretraining(left_out):
    """Whether the call or the configuration has the empty list."""
    batch = tiny_batch()
    batch |= {"decoder_input_ids": batch["input_ids"], "labels": batch["input_ids"]}
    by_call = tiny_model(ValorForPreTraining)(**batch, **{left_out: []})
    by_config = tiny_model(ValorForPreTraining, **{left_out: []})(**batch)
    losses = by_call.captioning_losses if left_out == "alignment_groups" else by_call.alignment_losses
    weight = 1 if left_out == "alignment_groups" else 1.5
    torch.testing.assert_close(by_call.loss, weight * torch.stack(list(losses.values())).mean())
    torch.testing.assert_close(by_config.loss, by_call.loss)


@pytest.mark.parametrize("cls", [ValorForCaptioning, ValorForQuestionAnswering])
def test_a_decoder_without_groups_is_refused(cls):
    batch = tiny_batch()
    if cls is ValorForQuestionAnswering:
        batch["question_input_ids"] = batch["input_ids"]
    with pytest.raises(ValueError, match=r"None of the captioning groups \[\] can be computed"):
        tiny_model(cls)(**batch, captioning_groups=[])
    del batch["input_features"]
    if cls is ValorForCaptioning:
        for groups in ([], ["t-a"]):
            with pytest.raises(ValueError, match="None of the captioning groups"):
                tiny_model(cls, captioning_groups=groups)(**batch)
    with pytest.raises(ValueError, match="None of the captioning groups"):
        tiny_model(ValorForPreTraining, captioning_groups=["t-a"])(**tiny_batch() | {"input_features": None})


def test_labels_and_masked_text_come_together():
    model, batch = tiny_model(ValorForPreTraining), tiny_batch()
    with pytest.raises(ValueError, match="`labels` need `decoder_input_ids`"):
        model(**batch, labels=batch["input_ids"])
    with pytest.raises(ValueError, match="`decoder_input_ids` need `labels`"):
        model(**batch, decoder_input_ids=batch["input_ids"])


def test_causal_objective_predicts_the_next_word():
    model, batch = tiny_model(ValorForPreTraining, captioning_objective="causal"), tiny_batch()
    outputs = model(**batch, captioning_groups=["t-av"], alignment_groups=[])
    captioner = tiny_model(ValorForCaptioning, captioning_objective="causal")
    captioner.load_state_dict(model.state_dict())
    logits = captioner(**batch, captioning_groups=["t-av"]).logits
    words, valid = batch["input_ids"][:, 1:], batch["attention_mask"][:, 1:].bool()
    expected = F.cross_entropy(logits[:, :-1][valid], words[valid])
    torch.testing.assert_close(outputs.loss, expected, atol=1e-5, rtol=1e-5)


def test_encoders_run_once_for_all_groups_of_both_tasks():
    model, batch, runs = tiny_model(ValorForPreTraining), tiny_batch(), []
    for name in ("vision_model", "audio_model"):
        getattr(model.valor, name).register_forward_hook(lambda *_, name=name: runs.append(name))
    model(**batch)
    assert sorted(runs) == ["audio_model", "vision_model"]


def test_label_smoothing_is_used_for_captions_only():
    batch = tiny_batch()
    labels, question = batch["input_ids"], batch["input_ids"]
    inputs = {name: batch[name] for name in ("input_ids", "pixel_values_videos")}
    plain, smooth = (tiny_model(ValorForCaptioning, label_smoothing=s) for s in (0.0, 0.2))
    logits = plain(**inputs).logits.flatten(0, 1)
    target = torch.full_like(logits, 0.2 / 199).scatter(1, labels.reshape(-1, 1), 0.8)
    expected = (target * (target.log() - logits.log_softmax(-1))).sum(1).mean()
    torch.testing.assert_close(smooth(**inputs, labels=labels).loss, expected, atol=1e-5, rtol=1e-5)
    answers = [
        tiny_model(ValorForQuestionAnswering, label_smoothing=s)(**inputs, labels=labels, question_input_ids=question)
        for s in (0.0, 0.2)
    ]
    torch.testing.assert_close(answers[0].loss, answers[1].loss)


@pytest.mark.parametrize("prompt", [PROMPT, PROMPT[1:-1]], ids=["with_cls_and_sep", "bare"])
def test_question_prompt_stands_after_the_questions_cls(prompt):
    batch, plain = tiny_batch(), tiny_model(ValorForQuestionAnswering)
    inputs = {name: batch[name] for name in ("input_ids", "pixel_values_videos")}
    question = batch["input_ids"]
    longer = torch.cat([question[:, :1], torch.tensor([[110, 111]] * 3), question[:, 1:]], dim=1)
    prompted = tiny_model(ValorForQuestionAnswering, question_prompt_ids=prompt)
    torch.testing.assert_close(
        prompted(**inputs, question_input_ids=question).logits, plain(**inputs, question_input_ids=longer).logits
    )


def test_answers_come_from_one_group_of_the_modalities_given():
    model, batch = tiny_model(ValorForQuestionAnswering), tiny_batch()
    question = batch["input_ids"]
    torch.testing.assert_close(
        model(**batch, question_input_ids=question).logits,
        model(**batch, question_input_ids=question, captioning_groups=["t-av"]).logits,
    )
    with pytest.raises(ValueError, match="question_input_ids"):
        model(**batch)


def test_retrieval_scores_what_is_not_paired_without_a_loss():
    model, batch = tiny_model(ValorForRetrieval), tiny_batch()
    frames = batch["pixel_values_videos"]
    with torch.no_grad():
        assert model(pixel_values_videos=frames).loss is None
        outputs = model(input_ids=batch["input_ids"][:2], pixel_values_videos=frames)
        paired = model(input_ids=batch["input_ids"], pixel_values_videos=frames)
    assert outputs.loss is None and outputs.similarity["t-v"].shape == (2, 3)
    torch.testing.assert_close(outputs.similarity["t-v"], paired.similarity["t-v"][:2])
    assert paired.loss is not None
