# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Configurations and processors with values that no model has are refused before anything is made of them."""

import json
import math
import resource

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from helpers.tiny import tiny_config
from modeling_valor import ValorConfig, ValorFeatureExtractor, ValorForRetrieval, ValorModel, ValorVideoProcessor


CLIP = {"model_type": "clip_vision_model"}
SWIN = {"model_type": "valor_video_swin"}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"text_config": {"num_hidden_layers": 10**9}}, "`valor_text` are those of a model of 1,000,000,000 layers"),
        (
            {"vision_config": {**CLIP, "num_hidden_layers": 10**9}},
            "`vision_config` are those of a model of 1,000,000,000",
        ),
        (
            {"vision_config": {**SWIN, "depths": [10**9, 1, 1, 1]}},
            "`valor_video_swin` are those of a model of 1,000,000,003",
        ),
        (
            {"vision_config": {**SWIN, "window_size": [10**5] * 3}},
            "`valor_video_swin` are those of a model of 24 layers",
        ),
        (
            {"vision_config": {**CLIP, "image_size": 10**7}},
            "`vision_config` are those of a model of 12 layers and about",
        ),
        (
            {"audio_config": {"num_mel_bins": 10**7, "max_length": 10**7}},
            "`valor_audio` are those of a model of 12 layers",
        ),
        ({"projection_dim": 10**7}, r"`valor` are those of a model of 0 layers and about 6\.0e\+14 parameters"),
        ({"max_frames": 10**12}, r"`max_frames` must be above 0 and below 2\*\*31, got 1000000000000"),
        ({"text_config": {"hidden_size": -768}}, "`hidden_size` must be above 0 .*got -768"),
        ({"text_config": {"num_attention_heads": 0}}, "`num_attention_heads` must be above 0"),
        (
            {"text_config": {"hidden_act": "gelum"}},
            "`hidden_act` must be an activation of transformers, .* got 'gelum'",
        ),
        ({"vision_config": {**CLIP, "hidden_act": "0"}}, r"`vision_config\.hidden_act` must be an activation"),
        ({"audio_config": {"patch_size": 0}}, "`patch_size` must be above 0"),
        ({"vision_config": {**CLIP, "patch_size": 0}}, r"`vision_config\.patch_size` must be above 0"),
        (
            {"vision_config": {**CLIP, "attention_dropout": math.nan}},
            r"`vision_config\.attention_dropout` must be at least 0",
        ),
        (
            {"vision_config": {**SWIN, "num_heads": [4, 8, -16, 32]}},
            r"`num_heads` must be above 0 .*got \[4, 8, -16, 32\]",
        ),
        (
            {"text_encoder_config": {"model_type": "bert", "vocab_size": 10**11}},
            r"`text_encoder_config\.vocab_size` must be",
        ),
        (
            {"text_config": {"hidden_dropout_prob": 1.5}},
            "`hidden_dropout_prob` must be at least 0 and below 1, got 1.5",
        ),
        ({"text_config": {"layer_norm_eps": 0.0}}, "`layer_norm_eps` must be above 0"),
        ({"initializer_range": math.nan}, "`initializer_range` must be at least 0 .*got nan"),
        ({"logit_scale_init_value": math.inf}, "`logit_scale_init_value` must be between -20 and 20, got inf"),
        ({"alignment_loss_weight": -math.inf}, "`alignment_loss_weight` must be at least 0"),
    ],
)
def test_a_configuration_that_no_model_has_is_refused(fields, reason):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(StrictDataclassError, match=reason):
        ValorConfig(**fields)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kilobytes


def test_nothing_of_a_checkpoint_with_such_a_configuration_is_made(tmp_path):
    ValorModel(tiny_config()).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 10**9
    (tmp_path / "config.json").write_text(json.dumps(config))
    for load in (AutoConfig, ValorForRetrieval):
        with pytest.raises(StrictDataclassError, match="1,000,000,000 layers"):
            load.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "vision", ["convnext", "swin", "siglip_vision_model", "dinov3_vit", "hiera", "pvt", "resnet", "internvl_vision"]
)
def test_the_configurations_that_there_are_are_accepted(vision):
    ValorConfig(vision_config={"model_type": vision})


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"image_std": [0.5, 0.0, 0.5]}, r"`image_std` must be between 1e-09 and 1e\+06, got \(0\.5, 0\.0, 0\.5\)"),
        ({"image_mean": [math.nan] * 3}, "`image_mean` must be between"),
        ({"size": {"height": -224, "width": 224}}, "`size` must be between 1 and 16384"),
        ({"size": {"shortest_edge": 10**9}}, "`size` must be between 1 and 16384"),
        ({"num_frames": 0}, "`num_frames` must be between 1 and"),
        ({"num_frames": 10**9}, "`num_frames` must be between 1 and"),
        ({"rescale_factor": math.nan}, "`rescale_factor` must be between"),
    ],
)
def test_a_video_processor_with_impossible_values_is_refused(fields, reason):
    with pytest.raises(ValueError, match=reason):
        ValorVideoProcessor(**fields)
    with pytest.raises(ValueError, match=next(iter(fields))):
        ValorVideoProcessor()(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), return_tensors="pt", **fields)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"std": 0.0}, r"`std` must be between 1e-09 and 1e\+06, got 0\.0"),
        ({"std": math.nan}, "`std` must be between .*got nan"),
        ({"mean": math.inf}, "`mean` must be between"),
        ({"feature_size": -64}, "`feature_size` must be between 1 and 4096"),
        ({"clip_length": 10**12}, "`clip_length` must be between"),
        ({"sampling_rate": 0}, "`sampling_rate` must be between"),
        ({"num_audio_clips": 0}, "`num_audio_clips` must be between"),
        ({"frame_shift_ms": -10.0}, "`frame_shift_ms` must be between"),
    ],
)
def test_a_feature_extractor_with_impossible_values_is_refused(fields, reason, tmp_path):
    with pytest.raises(ValueError, match=reason):
        ValorFeatureExtractor(**fields)
    settings = {**ValorFeatureExtractor().to_dict(), **fields}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=reason):
        ValorFeatureExtractor.from_pretrained(tmp_path)
