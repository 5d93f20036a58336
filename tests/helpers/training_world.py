# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""A model of 60,000 parameters and clips of a few bytes, for tests of training; run as a program, one rank of it."""

from pathlib import Path

import numpy as np

from modeling_valor import ValorConfig, ValorFeatureExtractor, ValorProcessor, ValorVideoProcessor
from modeling_valor.data.samples import Question, Sample
from modeling_valor.training.vocabulary import train_tokenizer

from .tiny import tiny_config


WORDS = [
    "a",
    "red",
    "blue",
    "circle",
    "square",
    "star",
    "bell",
    "drum",
    "horn",
    "rings",
    "beats",
    "honks",
    "while",
    "and",
    "then",
    "moves",
    "up",
    "down",
    "left",
]


def small_samples(count: int, seed: int = 0) -> list[Sample]:
    """Clips as arrays: four frames of 16 x 16 pixels, a tenth of a second of sound, two captions, two questions."""
    rng = np.random.default_rng(seed)
    samples = []
    for index in range(count):
        captions = tuple(" ".join(rng.choice(WORDS, size=int(rng.integers(4, 9)))) for _ in range(2))
        questions = tuple(Question(f"{captions[i]} ?", (str(rng.choice(WORDS)),)) for i in range(2))
        frames = rng.integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
        sound = (0.1 * rng.standard_normal(2205)).astype(np.float32)
        samples.append(Sample(f"clip{index}", frames, sound, captions, questions))
    return samples


def small_processor() -> ValorProcessor:
    return ValorProcessor(
        train_tokenizer([" ".join(WORDS)], 100, model_max_length=48),
        ValorVideoProcessor(num_frames=2, size={"height": 16, "width": 16}),
        ValorFeatureExtractor(num_audio_clips=1, sampling_rate=22050),
    )


def small_config(processor: ValorProcessor, **kwargs) -> ValorConfig:
    """`tiny_config` with the processor's words and whole spectrograms, which are cut into eight patches."""
    base = tiny_config().to_dict()
    text = {"vocab_size": len(processor.tokenizer), "bos_token_id": 2, "eos_token_id": 3, "mask_token_id": 4}
    audio = {"num_mel_bins": 64, "max_length": 512, "patch_size": 64}
    parts = {
        "text_config": {**base["text_config"], **text},
        "audio_config": {**base["audio_config"], **audio},
        "vision_config": base["vision_config"],
    }
    return ValorConfig(**{**parts, "projection_dim": 16, **kwargs})


def write_checkpoint(folder: Path, **kwargs) -> Path:
    """A folder with the configuration and the processor of a new model."""
    processor = small_processor()
    processor.save_pretrained(folder)
    small_config(processor, **kwargs).save_pretrained(folder)
    return folder
