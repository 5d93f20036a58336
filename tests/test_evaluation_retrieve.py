# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Retrieval: embeddings and scores against one padded batch, metrics against the matrix, caches, modalities."""

from pathlib import Path

import pytest
import torch

from helpers.evaluation_world import OPTIONS
from helpers.media_files import write_clip
from helpers.tiny import tiny_model
from modeling_valor import (
    ValorForRetrieval,
    ValorModel,
    ValorProcessor,
)
from modeling_valor.data.samples import Sample
from modeling_valor.evaluation import (
    MediaOptions,
    TextOptions,
    evaluate_retrieval,
    retrieval_metrics,
)
from modeling_valor.evaluation.resumable import TensorCache
from modeling_valor.evaluation.retrieve import embed, score
from modeling_valor.text_cleaning import clean_caption


MEDIA = MediaOptions("av", 2, 1)
ONE = {"num_frames": 2, "num_audio_clips": 1, "return_tensors": "pt"}
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def reference_scores(model, processor, samples, group="t-av"):
    """Each text with each sample, all in one batch padded to 40 tokens."""
    texts = [clean_caption(caption) for sample in samples for caption in sample.captions]
    text = processor(text=texts, padding="max_length", return_tensors="pt")
    media = processor(videos=[sample.video for sample in samples], **ONE)
    valor = model.valor
    with torch.no_grad():
        return valor.compute_similarity(
            valor.get_text_embeds(**text),
            valor.get_video_embeds(media["pixel_values_videos"]),
            valor.get_audio_embeds(media["input_features"]),
            text["attention_mask"],
            group=group,
        )


@pytest.mark.parametrize("group", ["t-av", "t-v", "t-a"])
def test_scores_of_batches_equal_those_of_one_padded_batch(model, processor, samples, group):
    embeddings, failures = embed(model, processor, samples, MEDIA, batch_size=2)
    assert not failures and embeddings.sample_of_text.tolist() == [0, 0, 1, 2, 3, 4]
    expected = reference_scores(model, processor, samples, group)
    torch.testing.assert_close(score(model, embeddings, group), expected, atol=2e-5, rtol=0)


def test_recall_in_both_directions_is_that_of_the_matrix(model, processor, samples):
    result = evaluate_retrieval(model, processor, samples, ["t-av"], dual_softmax=True, **OPTIONS)
    matrix = result.similarity["t-av"]
    forth = retrieval_metrics(matrix, [[0], [0], [1], [2], [3], [4]])
    back = retrieval_metrics(matrix.mT, [[0, 1], [2], [3], [4], [5]])
    dual = retrieval_metrics(matrix, [[0], [0], [1], [2], [3], [4]], dual_softmax=True)
    assert {name: result.metrics[f"t-av/{name}"] for name in forth} == forth
    assert {name: result.metrics[f"av-t/{name}"] for name in back} == back
    assert {name: result.metrics[f"t-av/DSL/{name}"] for name in dual} == dual
    assert result.counts == {"samples": 5, "texts": 6, "t-av/queries": 6, "t-av/candidates": 5}


def test_paragraphs_join_the_captions_of_a_sample(model, processor, samples):
    embeddings, _ = embed(model, processor, samples[:2], MEDIA, TextOptions(paragraph=True))
    assert embeddings.texts[0] == " ".join(map(clean_caption, samples[0].captions))
    assert embeddings.sample_of_text.tolist() == [0, 1]


@pytest.fixture
def seeing(model, processor, monkeypatch):
    """The model with encoders that know colours: everything is right at the first place."""

    def vision(self, pixel_values_videos, frame_mask=None):
        means = pixel_values_videos.mean(dim=(-1, -2))
        features = torch.zeros(*means.shape[:-1], model.config.projection_dim)
        features[..., :3] = torch.nn.functional.one_hot(means.argmax(dim=-1), 3).float()
        return features

    def text(self, input_ids, attention_mask):
        features = torch.zeros(*input_ids.shape, model.config.projection_dim)
        for row, words in enumerate(processor.tokenizer.batch_decode(input_ids, skip_special_tokens=True)):
            features[row, :, list(COLOURS).index(words.split()[-1])] = 1
        return features

    monkeypatch.setattr(ValorModel, "get_video_embeds", vision)
    monkeypatch.setattr(ValorModel, "get_text_embeds", text)
    return model


def test_one_row_per_caption_counts_as_one_row_per_sample(seeing, processor):
    """R@1 of a model that is right: 100 in both forms, not 0 because a sample competes with itself."""
    videos = {
        name: torch.tensor(colour, dtype=torch.uint8)[None, :, None, None].expand(2, 3, 32, 32).clone()
        for name, colour in COLOURS.items()
    }
    texts = {name: tuple(f"{word} {name}" for word in ("a", "some", "more")) for name in videos}
    whole = [Sample(name, video, None, texts[name]) for name, video in videos.items()]
    rows = [Sample(name, video.clone(), None, (text,)) for name, video in videos.items() for text in texts[name]]
    options = {"media": MediaOptions("v", 2), "batch_size": 2}
    expected = evaluate_retrieval(seeing, processor, whole, **options)
    result = evaluate_retrieval(seeing, processor, rows, **options)
    assert expected.metrics["t-v/R@1"] == expected.metrics["v-t/R@1"] == 100
    assert result.metrics == expected.metrics
    assert result.counts == {**expected.counts, "rows": 9} and "rows" not in expected.counts


def test_groups_count_the_samples_that_have_their_modalities(model, processor, samples, tmp_path):
    silent = str(write_clip(tmp_path / "silent.mp4", hertz=None))
    whole = [samples[0], Sample("silent", silent, silent, ("a white bar",)), *samples[1:]]
    result = evaluate_retrieval(model, processor, whole, ["t-av", "t-a", "v-a"], **OPTIONS)
    expected = evaluate_retrieval(model, processor, samples, ["t-a", "v-a"], **OPTIONS)
    assert (result.counts["t-av/queries"], result.counts["t-a/queries"], result.counts["v-a/queries"]) == (7, 6, 5)
    for name, value in expected.metrics.items():
        assert result.metrics[name] == value


@pytest.mark.parametrize("change", [{}, {"padded_similarity": "zero"}, {"alignment": "coarse"}])
def test_any_batch_size_gives_the_same_scores(processor, samples, change):
    texts = {"vocab_size": 1024}
    config = tiny_model(ValorForRetrieval).config
    model = tiny_model(
        ValorForRetrieval,
        text_config={**config.text_config.to_dict(), **texts},
        vision_config={**config.vision_config.to_dict(), "image_size": 32},
        audio_config={**config.audio_config.to_dict(), "num_mel_bins": 64, "max_length": 512, "patch_size": 16},
        **change,
    )
    matrices = [
        evaluate_retrieval(model, processor, samples, media=MEDIA, batch_size=size).similarity for size in (1, 5)
    ]
    torch.testing.assert_close(matrices[0]["t-av"], matrices[1]["t-av"], atol=1e-5, rtol=0)


def test_cached_embeddings_of_an_encoder_with_a_temporal_stride_are_used(samples, tmp_path, caplog, monkeypatch):
    """valor-tiny has one video token for two frames, so embeddings are half as long as their masks."""
    folder = Path(__file__).parents[1] / "hub_configs" / "valor-tiny"
    model, processor = ValorForRetrieval.from_pretrained(folder).eval(), ValorProcessor.from_pretrained(folder)
    caches = {"samples": TensorCache(tmp_path / "samples")}
    options = {**OPTIONS, "media": MediaOptions("av", 4, 1), "groups": ["t-v"]}
    first = evaluate_retrieval(model, processor, samples[:2], caches=caches, **options)
    monkeypatch.setattr(ValorModel, "get_video_features", lambda *_, **__: pytest.fail("samples are encoded again"))
    again = evaluate_retrieval(model, processor, samples[:2], caches=caches, **options)
    assert torch.equal(again.similarity["t-v"], first.similarity["t-v"])
    assert not caplog.records
    with pytest.warns(FutureWarning, match='now called "samples"'):
        evaluate_retrieval(model, processor, samples[:2], caches={"clips": caches["samples"]}, **options)
