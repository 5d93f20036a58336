# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Tiny models and batches for tests that need no recorded weights."""

import torch

from modeling_valor import ValorConfig


CLS, SEP, MASK = 101, 102, 103
PROMPT = [CLS, 110, 111, SEP]

SWIN = {
    "model_type": "valor_video_swin",
    "embed_dim": 8,
    "depths": [1, 2],
    "num_heads": [2, 4],
    "window_size": [2, 2, 2],
    "image_size": 16,
}


def tiny_config(**kwargs) -> ValorConfig:
    """A VALOR of 100,000 parameters without dropout: 16 x 16 pixels, 16 x 32 spectrograms, 200 words."""
    encoder = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    defaults = {
        "text_config": {"vocab_size": 200, "hidden_size": 32, "max_position_embeddings": 48, **encoder, **dropout},
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 48,
            "patch_size": 8,
            "image_size": 16,
            **encoder,
        },
        "audio_config": {
            "num_mel_bins": 16,
            "max_length": 32,
            "patch_size": 8,
            "hidden_size": 32,
            **encoder,
            **dropout,
        },
        "projection_dim": 16,
    }
    return ValorConfig(**{**defaults, **kwargs})


def tiny_model(cls, seed: int = 0, **kwargs):
    """A model with weights large enough that words, frames and clips matter."""
    torch.manual_seed(seed)
    model = cls(tiny_config(**kwargs)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 or "embedding" in name or name.endswith("bias"):
                parameter.normal_(0, 0.3)
    return model


def tiny_batch(size: int = 3, frames: int = 2, clips: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random frames and clips, and texts of which the first is padded."""
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(104, 200, (size, 7), generator=generator)
    input_ids[:, 0], input_ids[:, -1] = CLS, SEP
    input_ids[0, 4:] = torch.tensor([SEP, 0, 0])
    return {
        "input_ids": input_ids,
        "attention_mask": (input_ids != 0).long(),
        "pixel_values_videos": torch.randn(size, frames, 3, 16, 16, generator=generator),
        "input_features": torch.randn(size, clips, 16, 32, generator=generator),
    }


# Sample 0 has everything, sample 1 one clip and no frame, sample 2 one frame and no clip
MIXED = {
    "frame_mask": torch.tensor([[True, True], [False, False], [True, False]]),
    "audio_mask": torch.tensor([[True, True], [True, False], [False, False]]),
}


def alone(batch: dict[str, torch.Tensor], sample: int) -> dict[str, torch.Tensor]:
    """A sample of a `MIXED` batch by itself, without what it lacks."""
    single = {name: value[sample : sample + 1] for name, value in batch.items()}
    if sample == 1:
        del single["pixel_values_videos"]
        single["input_features"] = single["input_features"][:, :1]
    elif sample == 2:
        del single["input_features"]
        single["pixel_values_videos"] = single["pixel_values_videos"][:, :1]
    return single
