# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The recorded outputs of the 2023 code (`fixtures/README.md`)."""

import functools
import json
import lzma
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
from torch import Tensor


FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
EXAMPLE = FIXTURES.parents[1] / "examples" / "checkpoint_2023"

PARITY_SETS = ("clip-vision-bert-shared", "videoswin-bert-shared", "clip-vision-clip-text")
"""Layouts of the 2023 code with recorded outputs: VALOR-large, VALOR-base, and CLIP as both vision and text encoder."""

EXAMPLE_SET = "clip-vision-bert-shared"
"""The one whose checkpoint is the repository's example, as the 2023 program wrote it."""

PARITY_GROUPS = {"tv": "t-v", "ta": "t-a", "tva": "t-av", "va": "v-a", "atv": "a-tv", "vta": "v-ta"}
"""Modality groups as the recorded outputs name them, and as the package does."""


def load_fixture(name: str) -> dict[str, Tensor]:
    """Tensors of `fixtures/{name}.planes.xz`, a safetensors file whose bytes were regrouped so that they compress.

    The header is as in the format. In the body all first bytes of the 4-byte words come first, then all second bytes,
    and so on; bytes after the last whole word follow.
    """
    packed = lzma.decompress((FIXTURES / f"{name}.planes.xz").read_bytes())
    start = 8 + int.from_bytes(packed[:8], "little")
    end = start + (len(packed) - start) // 4 * 4
    words = np.frombuffer(packed[start:end], dtype=np.uint8).reshape(4, -1).T
    return safetensors.torch.load(packed[:start] + words.tobytes() + packed[end:])


def fixture_json(name: str) -> dict | list:
    """Content of `fixtures/{name}.json`."""
    return json.loads((FIXTURES / f"{name}.json").read_text())


@dataclass(frozen=True)
class Parity:
    """One recorded run of the 2023 code (`fixtures/README.md`). Its tensors are shared by all tests: do not write to them."""

    name: str
    checkpoint: dict[str, Tensor]
    inputs: dict[str, Tensor]
    expected: dict[str, Tensor]
    grads: dict[str, float | None]
    aliases: dict[str, str]
    captions: dict[str, list[str]]
    hps: dict
    vocab: Path


@functools.cache
def load_parity(name: str) -> Parity:
    """The recorded run `name` of `PARITY_SETS`."""
    if name == EXAMPLE_SET:
        checkpoint = safetensors.torch.load_file(EXAMPLE / "ckpt" / "model_step_0.safetensors")
        hps = json.loads((EXAMPLE / "log" / "hps.json").read_text())
    else:
        checkpoint, hps = load_fixture(f"{name}/checkpoint"), fixture_json(f"{name}/hps")
    tensors = {part: load_fixture(f"{name}/{part}") for part in ("inputs", "expected")}
    records = {part: fixture_json(f"{name}/{part}") for part in ("grads", "aliases", "captions")}
    return Parity(name=name, checkpoint=checkpoint, hps=hps, **tensors, **records, vocab=FIXTURES / "vocab.txt")
