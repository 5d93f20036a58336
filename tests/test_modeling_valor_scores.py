# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""ValorModel: the scores of modality groups, by loops over pairs of samples."""

import pytest
import torch
from torch.nn import functional as F

from helpers.tiny import MIXED, SWIN, alone, tiny_batch, tiny_config, tiny_model
from modeling_valor import (
    ValorForCaptioning,
    ValorForRetrieval,
    ValorModel,
)


GROUPS = ["t-v", "t-a", "t-av", "v-a", "a-tv", "v-ta"]


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
