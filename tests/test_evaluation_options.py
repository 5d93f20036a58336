# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Options of evaluations: grouped keywords, workers and caches of media."""

import dataclasses
import shutil
import warnings
from pathlib import Path

import pytest
import torch

from helpers.evaluation_world import OPTIONS
from modeling_valor.evaluation import (
    MediaOptions,
    TextOptions,
    evaluate_retrieval,
)
from modeling_valor.evaluation.options import accepts_flat_keywords


def test_keywords_of_before_are_grouped_with_a_warning():
    @accepts_flat_keywords
    def evaluate(*, media=None, text=None, generate_kwargs=None, batch_size=16):
        return media, text, generate_kwargs, batch_size

    media, text = MediaOptions("v", num_frames=4, cache="folder"), TextOptions(30, clean=False)
    grouped = media, text, {"num_beams": 3}, 8
    with pytest.warns(
        FutureWarning, match="`evaluate` takes modalities, num_frames, media_cache, max_question_length, c"
    ):
        flat = {"modalities": "v", "num_frames": 4, "media_cache": "folder", "max_question_length": 30}
        assert evaluate(**flat, clean_text=False, num_beams=3, batch_size=8) == grouped
    with warnings.catch_warnings(action="error"):
        assert evaluate(media=media, text=text, generate_kwargs={"num_beams": 3}, batch_size=8) == grouped
    with pytest.raises(TypeError, match="got both `media` and num_frames"):
        evaluate(media=media, num_frames=2)
    with pytest.raises(TypeError, match="unexpected keyword argument 'num_beams'"):
        evaluate_retrieval(None, None, [], num_beams=3)


def test_workers_decode_the_same(model, processor, samples):
    options = {**OPTIONS, "batch_size": 3}
    alone = evaluate_retrieval(model, processor, samples, **options)
    workers = evaluate_retrieval(
        model, processor, samples, **{**options, "media": MediaOptions("av", 2, 1, num_workers=2)}
    )
    assert torch.equal(alone.similarity["t-av"], workers.similarity["t-av"])


def test_a_media_cache_saves_decoding(model, processor, samples, tmp_path):
    expected = evaluate_retrieval(model, processor, samples, **OPTIONS).similarity["t-av"]
    copies = [shutil.copy(sample.video, tmp_path) for sample in samples]
    samples = [dataclasses.replace(sample, video=c, audio=c) for sample, c in zip(samples, copies, strict=True)]
    evaluate_retrieval(model, processor, samples, media=MediaOptions("av", 2, 1, cache=tmp_path), batch_size=2)
    for copy in copies:
        Path(copy).unlink()
    cached = evaluate_retrieval(
        model, processor, samples, media=MediaOptions("av", 2, 1, cache=tmp_path), batch_size=2
    ).similarity["t-av"]
    torch.testing.assert_close(cached, expected, atol=1e-2, rtol=0)
