# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Tiny models and their inputs, as transformers' common tests ask for them."""

import numpy as np
import torch
from transformers import BertConfig, CLIPVisionConfig, PreTrainedConfig

from modeling_valor import ValorAudioConfig, ValorConfig, ValorTextConfig, ValorVideoSwinConfig

from .upstream import floats_list, ids_tensor, prepare_video_inputs, random_attention_mask, torch_device


def floats_tensor(shape):
    """Upstream's function of this name draws number by number in Python."""
    return torch.rand(*shape, device=torch_device)


class ModelTester:
    """A configuration and inputs for it; the other attributes are what the tests compare outputs with."""

    batch_size = 4
    is_training = True

    def get_config(self) -> PreTrainedConfig:
        raise NotImplementedError

    def get_inputs(self) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    def prepare_config_and_inputs_for_common(self) -> tuple[PreTrainedConfig, dict[str, torch.Tensor]]:
        return self.get_config(), self.get_inputs()


class TextModelTester(ModelTester):
    seq_length = 7
    hidden_size = 32
    num_hidden_layers = 2
    num_attention_heads = 4
    vocab_size = 99

    def get_config(self) -> ValorTextConfig:
        return ValorTextConfig(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=37,
            max_position_embeddings=64,
            bos_token_id=1,
            eos_token_id=2,
            mask_token_id=3,
        )

    def get_inputs(self) -> dict[str, torch.Tensor]:
        shape = [self.batch_size, self.seq_length]
        return {"input_ids": ids_tensor(shape, self.vocab_size), "attention_mask": random_attention_mask(shape)}


class AudioModelTester(ModelTester):
    num_mel_bins = 16
    max_length = 32
    seq_length = 1 + 2 * 4
    hidden_size = 32
    num_hidden_layers = 2
    num_attention_heads = 4

    def get_config(self) -> ValorAudioConfig:
        return ValorAudioConfig(
            num_mel_bins=self.num_mel_bins,
            max_length=self.max_length,
            patch_size=8,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=37,
        )

    def get_inputs(self) -> dict[str, torch.Tensor]:
        return {"input_features": floats_tensor([self.batch_size, self.num_mel_bins, self.max_length])}


class VideoSwinModelTester(ModelTester):
    """Three frames of 8 x 8 tokens do not fit windows of (2, 3, 3), so that shifting and padding take part."""

    num_frames = 3
    image_size = 32
    hidden_state_shapes = [(4, 3, 8, 8, 16), (4, 3, 4, 4, 32), (4, 3, 4, 4, 32)]
    # (batch_size * windows, heads, tokens, tokens) of each block
    attention_shapes = [(4 * 2 * 3 * 3, 2, 18, 18), (4 * 2 * 3 * 3, 2, 18, 18), (4 * 2 * 2 * 2, 4, 18, 18)]

    def get_config(self) -> ValorVideoSwinConfig:
        return ValorVideoSwinConfig(
            image_size=self.image_size,
            embed_dim=16,
            depths=(2, 1),
            num_heads=(2, 4),
            window_size=(2, 3, 3),
        )

    def get_inputs(self) -> dict[str, torch.Tensor]:
        shape = [self.batch_size, self.num_frames, 3, self.image_size, self.image_size]
        return {"pixel_values_videos": floats_tensor(shape)}


class ValorModelTester(ModelTester):
    """VALOR-large in small: CLIP encodes the frames, the decoder's stack the text."""

    num_frames = VideoSwinModelTester.num_frames
    num_audio_clips = 2
    prompt_length = 4
    seq_length = TextModelTester.seq_length
    encoder_seq_length = prompt_length + seq_length
    hidden_size = TextModelTester.hidden_size
    num_hidden_layers = TextModelTester.num_hidden_layers
    num_attention_heads = TextModelTester.num_attention_heads

    def __init__(self):
        self.text, self.audio, self.video = TextModelTester(), AudioModelTester(), VideoSwinModelTester()

    def get_vision_config(self) -> PreTrainedConfig:
        return CLIPVisionConfig(
            hidden_size=24,
            intermediate_size=37,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=4,
            image_size=self.video.image_size,
            patch_size=16,
        )

    def get_text_encoder_config(self) -> PreTrainedConfig | None:
        return None

    def get_config(self) -> ValorConfig:
        return ValorConfig(
            vision_config=self.get_vision_config(),
            audio_config=self.audio.get_config(),
            text_config=self.text.get_config(),
            text_encoder_config=self.get_text_encoder_config(),
            projection_dim=24,
            max_frames=4,
            max_audio_clips=4,
            retrieval_prompt_ids=[1, 5, 2],
            caption_prompt_ids=[1, 6, 7, 2],
        )

    def get_inputs(self) -> dict[str, torch.Tensor]:
        shape = [self.batch_size, self.num_audio_clips, self.audio.num_mel_bins, self.audio.max_length]
        return {**self.text.get_inputs(), **self.video.get_inputs(), "input_features": floats_tensor(shape)}


class ValorSwinModelTester(ValorModelTester):
    """VALOR-base in small: Video Swin encodes the frames."""

    def get_vision_config(self) -> PreTrainedConfig:
        return self.video.get_config()


class ValorBertModelTester(ValorModelTester):
    """The text encoder is a model of its own.

    The tests of gradient checkpointing watch the first layer, and need it to run once in a forward pass; a shared stack
    runs twice in pretraining.
    """

    def get_text_encoder_config(self) -> PreTrainedConfig:
        return BertConfig(
            vocab_size=self.text.vocab_size + 10,
            hidden_size=self.hidden_size,
            num_hidden_layers=1,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=37,
            max_position_embeddings=64,
        )


class VideoProcessorTester:
    batch_size = 3
    num_frames = 4
    num_channels = 3

    def prepare_video_processor_dict(self) -> dict:
        return {
            "size": {"shortest_edge": 20},
            "crop_size": {"height": 18, "width": 18},
            "do_center_crop": True,
            "num_frames": self.num_frames,
        }

    def expected_output_video_shape(self, videos) -> tuple[int, ...]:
        return self.num_frames, self.num_channels, 18, 18

    def prepare_video_inputs(self, equal_resolution=False, return_tensors="pil") -> list:
        return prepare_video_inputs(
            batch_size=self.batch_size,
            num_frames=self.num_frames,
            num_channels=self.num_channels,
            min_resolution=30,
            max_resolution=80,
            equal_resolution=equal_resolution,
            return_tensors=return_tensors,
        )


class FeatureExtractionTester:
    """Sequences of feature vectors of rising length, to be padded."""

    batch_size = 5
    feature_size = 16
    min_seq_length = 40
    seq_length_diff = 20
    max_seq_length = min_seq_length + (batch_size - 1) * seq_length_diff

    def prepare_feat_extract_dict(self) -> dict:
        return {"feature_size": self.feature_size, "num_audio_clips": 2, "clip_length": 128}

    def prepare_inputs_for_common(self, equal_length=False, numpify=False) -> list:
        lengths = range(self.min_seq_length, self.max_seq_length + 1, self.seq_length_diff)
        sequences = [
            floats_list((self.max_seq_length if equal_length else length, self.feature_size)) for length in lengths
        ]
        return [np.asarray(sequence) for sequence in sequences] if numpify else sequences
