# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""ValorModel and its encoders: text, vision and audio of every kind, lengths, hidden states."""

import pytest
import torch

from helpers.tiny import MIXED, PROMPT, SWIN, tiny_batch, tiny_config, tiny_model
from modeling_valor import (
    ValorForCaptioning,
    ValorForPreTraining,
    ValorModel,
)


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
