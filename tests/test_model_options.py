# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Every option of the configuration, and what users do with any transformers model: precision, adapters, sharding."""

import warnings

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel
from transformers.utils import logging

from helpers.tiny import MASK, MIXED, PROMPT, SEP, SWIN, alone, tiny_batch, tiny_config, tiny_model
from modeling_valor import (
    ValorForCaptioning,
    ValorForPreTraining,
    ValorForQuestionAnswering,
    ValorForRetrieval,
    ValorModel,
)


GROUPS = ["t-v", "t-a", "t-av", "v-a", "a-tv", "v-ta"]
BERT = {"model_type": "bert", "vocab_size": 200, "hidden_size": 24, "num_hidden_layers": 1}
BERT |= {"num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 20}


def slow_scores(outputs, attention_mask, model, uniform=False, pairs=(("video", "audio"),)):
    """t-av by loops over pairs of samples: the sum over `pairs` of candidate modalities scored jointly."""
    embeds = {name: getattr(outputs, f"{name}_embeds") for name in ("text", "video", "audio")}
    logits = {name: getattr(model, f"{name}_token_weight")(embeds[name]) for name in embeds}
    scores = torch.zeros(len(attention_mask), len(embeds["video"]))
    for i, valid in enumerate(attention_mask.bool()):
        for j in range(scores.shape[1]):
            for modalities in pairs:
                text, others = embeds["text"][i, valid], torch.cat([embeds[m][j] for m in modalities])
                tokens = text @ others.T
                text_weights = logits["text"][i, valid].softmax(0)
                other_weights = torch.cat([logits[m][j] for m in modalities]).softmax(0)
                if uniform:
                    text_weights = torch.full_like(text_weights, 1 / len(text_weights))
                    other_weights = torch.full_like(other_weights, 1 / len(other_weights))
                scores[i, j] += 0.5 * (text_weights @ tokens.amax(1) + other_weights @ tokens.amax(0))
    return scores


@pytest.mark.parametrize(
    ("options", "reference"),
    [
        ({}, {}),
        ({"token_weighting": "uniform"}, {"uniform": True}),
        ({"audiovisual_fusion": "score"}, {"uniform": True, "pairs": (("video",), ("audio",))}),
    ],
    ids=["feature", "uniform", "score"],
)
def test_fine_alignment_is_eq_3(options, reference):
    model, batch = tiny_model(ValorModel, **options), tiny_batch()
    with torch.no_grad():
        outputs = model(**batch, alignment_groups=GROUPS)
        expected = slow_scores(outputs, batch["attention_mask"], model, **reference)
        plain = tiny_model(ValorModel)(**batch, alignment_groups=GROUPS)
    torch.testing.assert_close(outputs.similarity["t-av"], expected, atol=1e-5, rtol=1e-5)
    for group in ("t-v", "t-a", "v-a", "a-tv", "v-ta"):
        torch.testing.assert_close(outputs.similarity[group], plain.similarity[group])


@pytest.mark.parametrize("fusion", ["feature", "score"])
def test_coarse_alignment_is_dot_products_of_whole_samples(fusion):
    model, batch = tiny_model(ValorModel, alignment="coarse", audiovisual_fusion=fusion), tiny_batch()
    with torch.no_grad():
        outputs = model(**batch, return_loss=True)
        text = F.normalize(model.text_projection(outputs.text_model_output.last_hidden_state[:, 0]), dim=-1)
        video = F.normalize(model.video_projection(outputs.vision_model_output.pooler_output.mean(1)), dim=-1)
        audio = F.normalize(model.audio_projection(outputs.audio_model_output.pooler_output.mean(1)), dim=-1)
        expected = {"t-v": text @ video.T, "t-a": text @ audio.T}
        if fusion == "feature":
            joint = F.normalize(model.audiovisual_projection(torch.cat([video, audio], -1)), dim=-1)
            expected["t-av"] = text @ joint.T
        else:
            expected["t-av"] = expected["t-v"] + expected["t-a"]
    assert outputs.text_embeds.shape == (3, 16)
    for group, scores in expected.items():
        torch.testing.assert_close(outputs.similarity[group], scores, atol=1e-6, rtol=1e-5)
    losses = []
    for scores in expected.values():
        logits, diagonal = scores * model.logit_scale.exp(), torch.arange(3)
        losses.append((F.cross_entropy(logits, diagonal) + F.cross_entropy(logits.T, diagonal)) / 2)
    torch.testing.assert_close(outputs.loss, torch.stack(losses).mean(), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="coarse"):
        model(**batch, alignment_groups=["v-a"])


@pytest.mark.parametrize(
    "options",
    [{}, {"alignment": "coarse"}, {"alignment": "coarse", "audiovisual_fusion": "score"}, {"vision_config": SWIN}],
    ids=["fine", "coarse", "coarse_score", "swin"],
)
def test_missing_modality_is_scored_as_running_alone(options):
    model, batch = tiny_model(ValorModel, **options), tiny_batch()
    with torch.no_grad():
        together = model(**batch, **MIXED).similarity
        for sample in range(3):
            single = model(**alone(batch, sample), alignment_groups=["t-av"]).similarity["t-av"]
            torch.testing.assert_close(together["t-av"][sample, sample], single[0, 0], atol=1e-5, rtol=1e-5)
    assert (together["t-v"][:, 1] == -torch.inf).all() and (together["t-a"][:, 2] == -torch.inf).all()


@pytest.mark.parametrize("group", ["t-av", "t-v", "t-a"])
@pytest.mark.parametrize("cls", [ValorModel, ValorForRetrieval])
def test_score_of_a_processors_inputs_is_that_of_each_pair_alone(cls, group):
    """More texts than media, which lack frames or sound; the pairs are scored by `forward`, without masks of media."""
    model, batch = tiny_model(cls), tiny_batch()
    words = ("input_ids", "attention_mask")
    texts = {name: batch[name][[0, 1, 2, 1]] for name in words}
    media = {name: value for name, value in {**batch, **MIXED}.items() if name not in words}
    expected = torch.full((4, 3), -torch.inf)
    with torch.no_grad():
        scores = model.score(texts, media, group=group)
        index = model.embed_media(media)
        for text in range(4):
            length = int(texts["attention_mask"][text].sum())
            for sample in range(3):
                single = {name: value for name, value in alone(batch, sample).items() if name not in words}
                if group == "t-av" or {"t-v": "pixel_values_videos", "t-a": "input_features"}[group] in single:
                    ids = texts["input_ids"][text : text + 1, :length]
                    outputs = model(input_ids=ids, **single, alignment_groups=[group], return_loss=False)
                    expected[text, sample] = outputs.similarity[group][0, 0]
                    torch.testing.assert_close(
                        model.score({"input_ids": ids}, single, group=group)[0, 0], expected[text, sample]
                    )
        halves = model.compute_similarity(**model.embed_texts(texts), **index, group=group)
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(halves, scores)


def test_score_names_the_inputs_that_it_lacks():
    model, batch = tiny_model(ValorModel), tiny_batch()
    sound = {"input_features": batch["input_features"]}
    with pytest.raises(ValueError, match=r"Texts to score need `input_ids`; given are .'input_features'."):
        model.score(sound, batch)
    with pytest.raises(ValueError, match="Media to score need `pixel_values_videos`, `input_features` or both; given"):
        model.score(batch, {"input_ids": batch["input_ids"]})
    with pytest.raises(ValueError, match="'t-v' needs `pixel_values_videos`, not given"):
        model.score(batch, sound, group="t-v")


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


NO_FRAMES, NO_SOUND = ({name: torch.zeros(3, 2, dtype=torch.bool)} for name in ("frame_mask", "audio_mask"))
MASKS = {
    "no mask": {},
    "everything is there": {name: torch.ones_like(mask) for name, mask in MIXED.items()},
    "mixed": MIXED,
    "a sample without anything": {
        name: mask & torch.tensor([[True], [False], [True]]) for name, mask in MIXED.items()
    },
    "no frames": NO_FRAMES,
    "no sound": NO_SOUND,
    "nothing at all": NO_FRAMES | NO_SOUND,
    "a sample without text": {"attention_mask": torch.tensor([[1] * 7, [0] * 7, [1] * 7])},
}


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize(
    "options", [{}, {"alignment": "coarse"}, {"vision_config": SWIN}], ids=["fine", "coarse", "swin"]
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_close_to_float32_whatever_is_masked(dtype, options, masks):
    """Embeddings, losses and gradients of both tasks; what is masked has no embedding and no gradient."""
    results = []
    for precision in (torch.float32, dtype):
        model = tiny_model(ValorForPreTraining, **options)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(0.5)
        model = model.to(precision)
        batch = tiny_batch() | MASKS[masks]
        batch |= {"decoder_input_ids": batch["input_ids"], "labels": batch["input_ids"]}
        batch = {name: v.to(precision) if v.is_floating_point() else v for name, v in batch.items()}
        outputs = model(**batch)
        outputs.loss.backward()
        gradients = torch.cat([p.grad.flatten().float() for p in model.parameters() if p.grad is not None])
        results.append([outputs, gradients])
    (expected, expected_gradients), (actual, gradients) = results
    tolerance = {torch.float16: 0.01, torch.bfloat16: 0.06}[dtype]
    for name in ("loss", "text_embeds", "video_embeds", "audio_embeds"):
        torch.testing.assert_close(actual[name].float(), expected[name], atol=tolerance, rtol=tolerance)
    # Loosely, as similarities that are the same in half precision share the gradient of their maximum
    assert (gradients - expected_gradients).norm() <= 0.3 * expected_gradients.norm()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["concat", "parallel", "audio_visual", "merge"])
def test_half_precision_decoder_is_finite_whatever_is_masked(kind, dtype):
    model = tiny_model(ValorForCaptioning, cross_attention_type=kind).to(dtype)
    model.set_attn_implementation("eager" if kind == "concat" else "sdpa")
    batch = {name: v.to(dtype) if v.is_floating_point() else v for name, v in tiny_batch().items()}
    for masks in MASKS.values():
        model.zero_grad()
        outputs = model(**batch | masks, labels=batch["input_ids"])
        outputs.loss.backward()
        assert outputs.logits.isfinite().all()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


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


@pytest.mark.parametrize("prompt", [None, PROMPT], ids=["no_prompt", "prompt"])
def test_separate_bert_text_encoder(prompt):
    bert = {"model_type": "bert", "vocab_size": 150, "hidden_size": 24, "num_hidden_layers": 1}
    bert |= {"num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 20}
    model = tiny_model(ValorModel, text_encoder_config=bert, retrieval_prompt_ids=prompt)
    ids = tiny_batch()["input_ids"].clamp(max=149)
    with torch.no_grad():
        outputs = model.encode_text(ids).last_hidden_state
        text = ids[0][ids[0] != 0]
        joined, types, positions = text, torch.zeros_like(text), torch.arange(len(text))
        if prompt is not None:
            joined = torch.cat([text, torch.tensor(prompt)])
            types = torch.cat([types, torch.ones(len(prompt), dtype=torch.long)])
            positions = torch.cat([positions, torch.arange(len(prompt))])
        expected = model.text_encoder(joined[None], token_type_ids=types[None], position_ids=positions[None])
    torch.testing.assert_close(outputs[0, : len(text)], expected.last_hidden_state[0, : len(text)], atol=1e-5, rtol=0)
    assert model.get_text_embeds(ids).shape == (3, 7, 16)
    with pytest.raises(ValueError, match="another vocabulary"):
        pretraining = tiny_model(ValorForPreTraining, text_encoder_config=bert)
        pretraining(input_ids=ids, pixel_values_videos=tiny_batch()["pixel_values_videos"])


@pytest.mark.parametrize(
    "vision",
    [
        SWIN,
        {"model_type": "vit", "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16},
        {"model_type": "dinov2", "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28},
        {"model_type": "siglip_vision_model", "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
         "intermediate_size": 32, "patch_size": 8, "image_size": 16},
    ],
    ids=lambda vision: vision["model_type"],
)  # fmt: skip
def test_any_vision_encoder_describes_and_retrieves(vision):
    size = vision["image_size"]
    vision = {**vision, **({"patch_size": 8, "intermediate_size": 32} if vision["model_type"] == "vit" else {})}
    model = tiny_model(ValorForCaptioning, vision_config=vision)
    frames = torch.randn(2, 3, 3, size, size)
    assert model.generate(pixel_values_videos=frames, max_new_tokens=3).shape[0] == 2
    assert model.valor.get_video_embeds(frames).shape == (2, 3, 16)


@pytest.mark.parametrize("vision", [None, SWIN], ids=["clip", "swin"])
def test_padding_frames_change_nothing(vision):
    options = {} if vision is None else {"vision_config": vision}
    model = tiny_model(ValorForCaptioning, **options)
    frames = torch.randn(2, 4, 3, 16, 16)
    padded = torch.cat([frames, torch.full((2, 2, 3, 16, 16), 1e4)], dim=1)
    frame_mask = torch.tensor([[True] * 4 + [False] * 2] * 2)
    ids = tiny_batch()["input_ids"][:2]
    with torch.no_grad():
        torch.testing.assert_close(
            model(input_ids=ids, pixel_values_videos=padded, frame_mask=frame_mask).logits,
            model(input_ids=ids, pixel_values_videos=frames).logits,
            atol=2e-5,
            rtol=1e-5,
        )


def test_temporal_stride_encodes_pairs_of_frames():
    model = tiny_model(ValorForCaptioning, vision_config={**SWIN, "temporal_stride": 2})
    frames, ids = torch.randn(2, 4, 3, 16, 16), tiny_batch()["input_ids"][:2]
    frame_mask = torch.tensor([[True] * 4, [True, True, False, False]])
    features = model.valor.get_video_embeds(frames, frame_mask)
    assert features.shape == (2, 2, 16)
    text = model.valor.get_text_embeds(ids)
    with torch.no_grad():
        scores = model.valor.compute_similarity(text, features, None, ids != 0, frame_mask, group="t-v")
        single = model.valor(input_ids=ids[1:], pixel_values_videos=frames[1:, :2]).similarity["t-v"]
        torch.testing.assert_close(scores[1:, 1:], single, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            model(input_ids=ids, pixel_values_videos=frames, frame_mask=frame_mask).logits[1:],
            model(input_ids=ids[1:], pixel_values_videos=frames[1:, :2]).logits,
            atol=2e-5,
            rtol=1e-5,
        )


@pytest.mark.parametrize("count", [1, 5, 32])
def test_up_to_32_frames_and_clips(count):
    model = tiny_model(ValorForCaptioning)
    batch = tiny_batch(size=1, frames=count, clips=count)
    assert model(**batch, captioning_groups=["t-av"]).logits.shape == (1, 7, 200)


def test_too_many_frames_are_refused():
    with pytest.raises(ValueError, match=r"max_frames=32.*33"):
        tiny_model(ValorForCaptioning)(**tiny_batch(size=1, frames=33))


def test_too_many_frames_are_refused_by_the_number_that_was_asked_for():
    """With a temporal stride the encoder makes 17 tokens of 33 frames: the user has never heard of 17."""
    model = tiny_model(ValorForCaptioning, vision_config={**SWIN, "temporal_stride": 2}, max_frames=16)
    with pytest.raises(ValueError, match=r"`max_frames=16`, 32 frames at a temporal stride of 2, .* has 33\."):
        model(**tiny_batch(size=1, frames=33))
    with pytest.raises(ValueError, match=r"`max_audio_clips=32`, but the audio input has 33\."):
        model(**tiny_batch(size=1, clips=33))


def test_resolution_and_clip_length_may_change():
    model = tiny_model(ValorForCaptioning)
    logits = model(
        input_ids=tiny_batch()["input_ids"],
        pixel_values_videos=torch.randn(3, 1, 3, 24, 32),
        input_features=torch.randn(3, 1, 16, 48),
    ).logits
    assert logits.isfinite().all()


def test_groups_follow_what_is_given():
    config = tiny_config()
    select = lambda requested, *given: config.select_groups("alignment_groups", requested, given)  # noqa: E731
    assert select(None, "text", "video", "audio") == ["t-v", "t-a", "t-av"]
    assert select(None, "text", "video") == ["t-v"]
    assert select(None, "text") == []
    only_joint = tiny_config(alignment_groups=["t-av"])
    assert only_joint.select_groups("alignment_groups", None, ["text", "audio"]) == ["t-av"]
    with pytest.raises(ValueError, match="input_features"):
        select(["t-a"], "text", "video")
    with pytest.raises(ValueError, match="'t-x'"):
        select(["t-x"], "text", "video")
    assert config.select_groups("captioning_groups", None, ["audio"]) == ["t-a"]


def test_no_input_is_refused():
    with pytest.raises(ValueError, match="at least one of"):
        tiny_model(ValorModel)()
    with pytest.raises(ValueError, match="no loss"):
        tiny_model(ValorModel)(input_ids=tiny_batch()["input_ids"], return_loss=True)
    with pytest.raises(ValueError, match="input_ids"):
        tiny_model(ValorForCaptioning)(pixel_values_videos=tiny_batch()["pixel_values_videos"])
    with pytest.raises(ValueError, match="attend to"):
        tiny_model(ValorForCaptioning)(input_ids=tiny_batch()["input_ids"])
    with pytest.raises(ValueError, match="batch_size, frames"):
        tiny_model(ValorModel)(pixel_values_videos=torch.randn(2, 3, 16, 16))
    with pytest.raises(ValueError, match="batch_size, clips"):
        tiny_model(ValorModel)(input_features=torch.randn(2, 16, 32))


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


# --- What any transformers model does ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    tiny_model(ValorForPreTraining, caption_prompt_ids=PROMPT).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("vision", [None, SWIN], ids=["clip", "swin"])
def test_sdpa_and_eager_agree(vision):
    model = tiny_model(ValorForPreTraining, **({} if vision is None else {"vision_config": vision}))
    batch = tiny_batch(frames=3)
    losses = []
    for attention in ("sdpa", "eager"):
        model.set_attn_implementation(attention)
        torch.manual_seed(0)
        losses.append(model(**batch).loss)
    torch.testing.assert_close(*losses, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("vision", "name", "instead"),
    [(SWIN, "ValorVideoSwinModel", "sdpa"), ({"model_type": "convnext", "depths": [1] * 4}, "ConvNextModel", "eager")],
    ids=["swin", "convnext"],
)
def test_parts_that_cannot_take_an_attention_implementation_say_so_once(caplog, vision, name, instead):
    logging.enable_propagation()
    logging.warning_once.cache_clear()
    config = tiny_config(vision_config=vision, text_encoder_config=BERT)
    model = ValorForCaptioning._from_config(config, attn_implementation="flex_attention")
    changed = ValorForCaptioning(tiny_config(vision_config=vision, text_encoder_config=BERT))
    changed.set_attn_implementation("flex_attention")
    logging.disable_propagation()
    for valor in (model.valor, changed.valor):
        assert valor.vision_model.config._attn_implementation == instead
        for part in (valor, valor.text_model, valor.audio_model, valor.text_encoder):
            assert part.config._attn_implementation == "flex_attention"
    message = f"{name} does not support flex_attention and uses {instead}; the other parts use it."
    assert [text for text in caplog.messages if "flex" in text] == [message]
    changed.set_attn_implementation({"vision_config": "eager", "audio_config": "sdpa"})
    assert changed.valor.vision_model.config._attn_implementation == "eager"
    assert changed.valor.audio_model.config._attn_implementation == "sdpa"
    assert changed.valor.text_model.config._attn_implementation == "flex_attention"


def test_attention_implementation_of_a_checkpoint_is_chosen_at_loading(tmp_path):
    tiny_model(ValorForPreTraining, vision_config=SWIN).save_pretrained(tmp_path)
    for load in (AutoModel, ValorForCaptioning):
        model = load.from_pretrained(tmp_path, attn_implementation="flex_attention")
        valor = getattr(model, "valor", model)
        implementations = [part.config._attn_implementation for part in (valor.vision_model, valor.text_model)]
        assert implementations == ["sdpa", "flex_attention"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close_to_full(saved, dtype):
    batch = tiny_batch()
    full, half = (ValorForCaptioning.from_pretrained(saved, dtype=d).eval() for d in (torch.float32, dtype))
    assert half.valor.logit_scale.dtype == dtype
    with torch.no_grad():
        expected = full(**batch, captioning_groups=["t-av"]).logits
        logits = half(**batch, captioning_groups=["t-av"]).logits
        assert logits.dtype == dtype
        torch.testing.assert_close(logits.float(), expected, atol=0.1 * expected.abs().max().item(), rtol=0.1)
        scores = half.valor(**batch).similarity["t-av"]
        torch.testing.assert_close(scores.float(), full.valor(**batch).similarity["t-av"], atol=0.05, rtol=0.05)
    half.generate(pixel_values_videos=batch["pixel_values_videos"].to(dtype), num_beams=2, max_new_tokens=3)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("kind", ["concat", "parallel", "merge"])
def test_gradient_checkpointing_gives_the_same_gradients(kind, reentrant):
    batch, grads = tiny_batch(), []
    for checkpointing in (False, True):
        model = tiny_model(ValorForPreTraining, cross_attention_type=kind, caption_prompt_ids=PROMPT).train()
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": reentrant})
        torch.manual_seed(3)
        model(**batch).loss.backward()
        grads.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name in grads[0]:
        torch.testing.assert_close(grads[1][name], grads[0][name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("cls", [ValorModel, ValorForRetrieval, ValorForCaptioning, ValorForQuestionAnswering])
def test_every_class_loads_from_a_pretraining_checkpoint_without_a_word(saved, cls):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, report = cls.from_pretrained(saved, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    base = model if cls is ValorModel else model.valor
    expected = tiny_model(ValorForPreTraining, caption_prompt_ids=PROMPT).valor.state_dict()
    for name, value in base.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_auto_classes_know_valor(saved):
    assert AutoConfig.from_pretrained(saved).model_type == "valor"
    model = AutoModel.from_pretrained(saved)
    assert type(model) is ValorModel


def test_configuration_can_be_overridden_while_loading(saved):
    model = ValorForRetrieval.from_pretrained(saved, audiovisual_fusion="score", alignment_groups=["t-av"])
    outputs = model(**tiny_batch())
    assert list(outputs.similarity) == ["t-av"]
    scores = model.valor(**tiny_batch(), alignment_groups=["t-v", "t-a"]).similarity
    assert not torch.allclose(outputs.similarity["t-av"], scores["t-v"])


def test_sharded_safetensors_load_back(saved, tmp_path):
    model = ValorForPreTraining.from_pretrained(saved)
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    again = ValorForPreTraining.from_pretrained(tmp_path, device_map="cpu")
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert again.lm_head.decoder.weight is again.valor.text_model.embeddings.word_embeddings.weight


def test_disk_offload_gives_the_same_captions(saved, tmp_path):
    batch = tiny_batch()
    inputs = {name: batch[name] for name in ("pixel_values_videos", "input_features")}
    whole = ValorForCaptioning.from_pretrained(saved)
    parts = {"valor.vision_model": "cpu", "valor.audio_model": "disk", "valor.text_model": "cpu", "lm_head": "cpu"}
    rest = [name for name, _ in whole.valor.named_children() if f"valor.{name}" not in parts]
    device_map = {**parts, **{f"valor.{name}": "cpu" for name in rest}, "valor.logit_scale": "cpu"}
    offloaded = ValorForCaptioning.from_pretrained(saved, device_map=device_map, offload_folder=tmp_path)
    assert torch.equal(offloaded.generate(**inputs, max_new_tokens=4), whole.generate(**inputs, max_new_tokens=4))


def outputs_of(model) -> list[torch.Tensor]:
    """What a head gives for a batch, by all of its ways: losses, scores, texts with and without beams."""
    batch = tiny_batch()
    media = {name: batch[name] for name in ("pixel_values_videos", "input_features")}
    torch.manual_seed(0)
    with torch.no_grad():
        if isinstance(model, (ValorModel, ValorForRetrieval)):
            mixed = model(**batch, **MIXED, return_loss=False).similarity["t-av"]
            return [model(**batch, return_loss=True).loss, model.score(batch, media), mixed]
        if isinstance(model, ValorForPreTraining):
            return [model(**batch).loss]
        question = {}
        if isinstance(model, ValorForQuestionAnswering):
            question["question_input_ids"] = batch["input_ids"]
        texts = [model.generate(**media, **question, max_new_tokens=3, num_beams=beams) for beams in (1, 2)]
        return [model(**batch, **question, labels=batch["input_ids"]).loss, *texts]


PROMPTS = {"caption_prompt_ids": PROMPT, "question_prompt_ids": [110, 111], "retrieval_prompt_ids": PROMPT}


@pytest.mark.parametrize("device_map", ["auto", "parts"])
@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (ValorModel, {"text_encoder_config": BERT, **PROMPTS}),
        (ValorForRetrieval, {"alignment": "coarse"}),
        (ValorForPreTraining, {"vision_config": SWIN, "cross_attention_type": "parallel"}),
        (ValorForCaptioning, PROMPTS),
        (ValorForQuestionAnswering, {"cross_attention_type": "merge", **PROMPTS}),
    ],
)
def test_every_part_may_be_offloaded(tmp_path, cls, options, device_map):
    """ "parts": each of the model's parts lies on the disk, so that all weights are there only while they are used."""
    tiny_model(cls, **options).save_pretrained(tmp_path)
    whole = cls.from_pretrained(tmp_path).eval()
    base = getattr(whole, "valor", whole)
    prefix = "" if base is whole else "valor."
    placing = {"device_map": "auto", "max_memory": {"cpu": 150_000}}
    if device_map == "parts":
        parts = [f"{prefix}{name}" for name, _ in base.named_children()]
        parts += [name for name, _ in whole.named_children() if name == "lm_head"]
        placing = {"device_map": {**dict.fromkeys(parts, "disk"), f"{prefix}logit_scale": "cpu"}}
    offloaded = cls.from_pretrained(tmp_path, offload_folder=tmp_path / "offload", **placing).eval()
    assert "disk" in offloaded.hf_device_map.values()
    for output, expected in zip(outputs_of(offloaded), outputs_of(whole), strict=True):
        torch.testing.assert_close(output, expected)


def test_lora_trains_adapters_only(saved, tmp_path):
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(
        ValorForPreTraining.from_pretrained(saved), peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
    )
    model(**tiny_batch()).loss.backward()
    trained = [name for name, p in model.named_parameters() if p.grad is not None]
    assert trained and all("lora_" in name for name in trained)
    assert {part for part in ("vision_model", "audio_model", "text_model") for name in trained if part in name} == {
        "vision_model",
        "audio_model",
        "text_model",
    }
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(0, 0.1)
    model.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(ValorForPreTraining.from_pretrained(saved), tmp_path)
    features = [m.eval().base_model.model.valor.get_text_embeds(tiny_batch()["input_ids"]) for m in (model, again)]
    torch.testing.assert_close(*features)


@pytest.mark.parametrize("part", ["text", "vision", "audio"])
def test_encoders_compile_without_graph_breaks(part):
    model, batch = tiny_model(ValorModel), tiny_batch()
    module, inputs = {
        "text": (model.text_model, (batch["input_ids"], batch["attention_mask"])),
        "vision": (model.vision_model, (batch["pixel_values_videos"].flatten(0, 1),)),
        "audio": (model.audio_model, (batch["input_features"].flatten(0, 1),)),
    }[part]
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(module, fullgraph=True, backend="eager")(*inputs).last_hidden_state
        torch.testing.assert_close(compiled, module(*inputs).last_hidden_state, atol=1e-5, rtol=1e-5)


def test_vocabulary_can_grow(saved):
    model = ValorForCaptioning.from_pretrained(saved)
    model.resize_token_embeddings(210)
    assert model.lm_head.decoder.weight.shape == (210, 32) and model.lm_head.decoder.bias.shape == (210,)
    assert model.lm_head.decoder.weight is model.get_input_embeddings().weight
    assert model(input_ids=torch.tensor([[101, 205, SEP]]), **frames_only()).logits.shape == (1, 3, 210)


def frames_only():
    return {"pixel_values_videos": tiny_batch(size=1)["pixel_values_videos"]}


def test_attentions_and_hidden_states_on_request():
    model = tiny_model(ValorForCaptioning)
    model.set_attn_implementation("eager")
    outputs = model(**tiny_batch(), captioning_groups=["t-av"], output_attentions=True, output_hidden_states=True)
    assert len(outputs.hidden_states) == 3 and outputs.hidden_states[0].shape == (3, 7, 32)
    assert [a.shape for a in outputs.attentions] == [(3, 4, 7, 7)] * 2
    assert [a.shape for a in outputs.cross_attentions] == [(3, 4, 7, 2 * 5 + 2 * 9)] * 2


@pytest.mark.parametrize(("asked", "expected"), [(None, 0.02), (0.5, 0.5)])
def test_positions_of_a_new_model_are_as_large_as_asked_for(asked, expected):
    config = tiny_config(position_initializer_range=asked)
    torch.manual_seed(0)
    model = ValorModel(config)
    for part in (model.video_condition, model.audio_condition):
        assert part.position_embedding.weight.std().item() == pytest.approx(expected, rel=0.1)
    # Patches of 8 x 8 values of deviation 1/2, times weights of 0.02, have a deviation of 0.08
    positions = model.audio_model.embeddings.position_embedding.weight
    assert positions.std().item() == pytest.approx(0.02, rel=0.15)


@pytest.mark.parametrize("vision", [None, SWIN])
def test_hidden_states_and_attentions_of_masked_samples_are_those_of_samples_alone(vision):
    """What an encoder of images or of sound computes of a frame or clip stands in its place; missing ones are 0."""
    model = tiny_model(ValorModel, **({} if vision is None else {"vision_config": vision}))
    model.set_attn_implementation("eager")
    batch = tiny_batch()
    asked = {"output_hidden_states": True, "output_attentions": vision is None}
    calls = {
        "get_video_features": ("pixel_values_videos", "frame_mask", asked),
        "get_audio_features": (
            "input_features",
            "audio_mask",
            {"output_hidden_states": True, "output_attentions": True},
        ),
    }
    for name, (inputs, mask, options) in calls.items():
        with torch.no_grad():
            together = getattr(model, name)(batch[inputs], MIXED[mask], **options)
            for sample, valid in enumerate(MIXED[mask]):
                for field in ("hidden_states", "attentions") if options["output_attentions"] else ("hidden_states",):
                    assert all((layer[sample, ~valid] == 0).all() for layer in together[field])
                    if not valid.any():
                        continue
                    single = getattr(model, name)(batch[inputs][[sample]][:, valid], **options)
                    for layer, expected in zip(together[field], single[field], strict=True):
                        torch.testing.assert_close(layer[[sample]][:, valid], expected, atol=1e-5, rtol=1e-5)
    if vision is not None:
        with pytest.raises(ValueError, match="no common attentions"):
            model.get_video_features(batch["pixel_values_videos"], MIXED["frame_mask"], output_attentions=True)


def test_features_of_text_leave_the_prompt_out():
    batch = tiny_batch()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    text_encoder = {"model_type": "bert", "vocab_size": 200, "hidden_size": 32, "num_hidden_layers": 2}
    text_encoder |= {"num_attention_heads": 4, "intermediate_size": 48}
    for options in ({}, {"text_encoder_config": text_encoder}):
        model = tiny_model(ValorModel, retrieval_prompt_ids=PROMPT, **options)
        with torch.no_grad():
            outputs = model.get_text_features(**inputs, output_hidden_states=True)
            embeds = model.get_text_embeds(**inputs)
        assert {states.shape for states in outputs.hidden_states} == {(3, 7, 32)}
        assert torch.equal(outputs.hidden_states[-1], outputs.last_hidden_state)
        assert torch.equal(outputs.pooler_output, embeds)
