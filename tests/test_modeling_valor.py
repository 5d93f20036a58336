# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The whole model against the recorded outputs of the 2023 code: features, scores, losses, logits, gradients."""

import pytest
import torch

from helpers.parity import PARITY_GROUPS, PARITY_SETS
from modeling_valor import ValorForCaptioning, ValorForPreTraining, ValorForQuestionAnswering, ValorForRetrieval
from modeling_valor.convert_valor_checkpoint import convert_state_dict


CAPTIONING = ["tv", "ta", "tva"]
TOLERANCE = 2e-5


def close(actual, expected, tolerance=TOLERANCE):
    torch.testing.assert_close(actual.detach(), expected, atol=tolerance, rtol=0)


def model_inputs(recorded, text=True):
    """The recorded inputs under the names of this package."""
    inputs = {
        "pixel_values_videos": recorded.inputs["video_pixels"],
        "input_features": recorded.inputs["audio_spectrograms"],
    }
    if text:
        inputs["input_ids"] = recorded.inputs["clip_tokens" if "clip_tokens" in recorded.inputs else "txt_tokens"]
        inputs["attention_mask"] = (inputs["input_ids"] != 0).long()
    return inputs


def masked_caption(recorded):
    """The caption as the 2023 masker left it, and its labels (-1 there, -100 here)."""
    labels = recorded.inputs["masked_labels"]
    return recorded.inputs["masked_tokens"], labels.masked_fill(labels == -1, -100)


@pytest.fixture(scope="module", params=PARITY_SETS)
def name(request):
    return request.param


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def attention(request):
    return request.param


@pytest.fixture(scope="module")
def recorded(parity, name):
    return parity(name)


@pytest.fixture(scope="module")
def load(converted, name, attention):
    """`load(cls)`: the converted checkpoint as any of the classes."""
    return lambda cls, **kwargs: cls.from_pretrained(converted(name), attn_implementation=attention, **kwargs).eval()


@pytest.fixture(scope="module")
def retrieval_output(load, recorded):
    model = load(ValorForRetrieval)
    with torch.no_grad():
        return model(**model_inputs(recorded), alignment_groups=list(PARITY_GROUPS.values()))


def test_encoders_and_features_are_those_of_2023(retrieval_output, recorded):
    expected = recorded.expected
    close(retrieval_output.text_model_output.last_hidden_state, expected["txt_output"])
    close(retrieval_output.vision_model_output.last_hidden_state, expected["video_output"])
    close(retrieval_output.audio_model_output.last_hidden_state, expected["audio_output"])
    close(retrieval_output.text_embeds, expected["feat_t"])
    close(retrieval_output.video_embeds, expected["feat_v"])
    close(retrieval_output.audio_embeds, expected["feat_a"])


@pytest.mark.parametrize("group", PARITY_GROUPS)
def test_scores_and_contrastive_losses_are_those_of_2023(retrieval_output, recorded, group):
    close(retrieval_output.similarity[PARITY_GROUPS[group]], recorded.expected[f"score_{group}"])
    close(retrieval_output.alignment_losses[PARITY_GROUPS[group]], recorded.expected[f"contra_loss_{group}"])


def test_similarity_of_features_is_the_similarity_of_the_batch(load, recorded, retrieval_output):
    model, inputs = load(ValorForRetrieval), model_inputs(recorded)
    with torch.no_grad():
        text = model.get_text_embeds(inputs["input_ids"], inputs["attention_mask"])
        video = model.get_video_embeds(inputs["pixel_values_videos"])
        audio = model.get_audio_embeds(inputs["input_features"])
        scores = model.compute_similarity(text[:2], video, audio, inputs["attention_mask"][:2], group="t-av")
    close(scores, recorded.expected["score_tva"][:2])


def test_conditions_are_those_of_2023(load, recorded):
    inputs = model_inputs(recorded, text=False)
    with torch.no_grad():
        conditions = load(ValorForCaptioning).valor.encode_conditions(**inputs)
    close(conditions.video, recorded.expected["video_input"])
    close(conditions.audio, recorded.expected["audio_input"])


@pytest.mark.parametrize("group", CAPTIONING)
def test_caption_logits_and_losses_are_those_of_2023(load, recorded, group):
    input_ids, labels = masked_caption(recorded)
    with torch.no_grad():
        outputs = load(ValorForCaptioning)(
            input_ids=input_ids,
            labels=labels,
            captioning_groups=[PARITY_GROUPS[group]],
            **model_inputs(recorded, text=False),
        )
    close(outputs.logits, recorded.expected[f"caption_logits_{group}"])
    close(outputs.loss, recorded.expected[f"caption_loss_{group}"])


@pytest.mark.parametrize("group", CAPTIONING)
def test_answer_logits_and_losses_are_those_of_2023(load, recorded, group):
    labels = recorded.inputs["answer_labels"]
    with torch.no_grad():
        outputs = load(ValorForQuestionAnswering)(
            input_ids=recorded.inputs["masked_answer_tokens"],
            labels=labels.masked_fill(labels == -1, -100),
            question_input_ids=recorded.inputs["question_tokens"],
            captioning_groups=[PARITY_GROUPS[group]],
            **model_inputs(recorded, text=False),
        )
    close(outputs.logits, recorded.expected[f"qa_logits_{group}"])
    close(outputs.loss, recorded.expected[f"qa_loss_{group}"])


def test_pretraining_loss_and_every_gradient_are_those_of_2023(load, recorded):
    decoder_input_ids, labels = masked_caption(recorded)
    # A missing gradient in the recording means that the parameter took no part
    model = load(ValorForPreTraining, alignment_loss_weight=1.5)
    outputs = model(decoder_input_ids=decoder_input_ids, labels=labels, **model_inputs(recorded))
    alignment = 1.5 * torch.stack([outputs.alignment_losses[g] for g in ("t-v", "t-a", "t-av")]).mean()
    captioning = torch.stack([outputs.captioning_losses[g] for g in ("t-v", "t-a", "t-av")]).mean()
    close(alignment, recorded.expected["pt_contra_loss_x1.5"])
    close(captioning, recorded.expected["pt_caption_loss"])
    close(outputs.loss, recorded.expected["total_loss"])

    outputs.loss.backward()
    # The converter renames a 2023 gradient as it renames the 2023 parameter: feed it ids in place of values
    checkpoint = recorded.checkpoint
    ids = {key: torch.full_like(value, i, dtype=torch.float64) for i, (key, value) in enumerate(checkpoint.items())}
    renamed, _ = convert_state_dict(ids, model.config)
    grads = dict(model.named_parameters())
    squares = torch.zeros(len(ids), dtype=torch.float64)
    for key, which in renamed.items():
        if key != "valor.logit_scale" and key in grads and grads[key].grad is not None:
            squares.index_add_(0, which.flatten().long(), grads[key].grad.flatten().double().square())
    compared = 0
    for i, key in enumerate(checkpoint):
        expected = recorded.grads.get(key)
        if expected is None or key == "contra_temp" or key.endswith("logit_scale"):
            continue
        torch.testing.assert_close(
            squares[i].sqrt().item(), expected, rtol=1e-4, atol=1e-6, msg=lambda m, key=key: f"{key}: {m}"
        )
        compared += 1
    assert compared > 100
    # d/d(temperature) and d/d(its negative logarithm) differ by the temperature
    scale_grad = model.valor.logit_scale.grad.abs().item()
    if recorded.grads.get("clip_model.logit_scale") is not None:
        assert scale_grad == pytest.approx(recorded.grads["clip_model.logit_scale"], rel=1e-4)
    else:
        temperature = checkpoint["contra_temp"].item()
        assert scale_grad / temperature == pytest.approx(recorded.grads["contra_temp"], rel=1e-4)
