# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Portraits: still images of one thing each, for vision encoders that are trained from scratch.

In a video, a thing covers a tenth of the picture and captions state ten other facts, so shapes are learned last. A portrait
shows one thing on its background, without time. The thing is anywhere in a whole frame, as in a video: a model that was
trained on close-ups, with the shape in the middle, does not recognise shapes in other places.
"""

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from ..data.files import atomic_write, process_map
from .drawing import draw_still
from .language import describe_still, questions_on_still
from .render import METADATA
from .scenes import BACKGROUNDS, COLORS, SHAPES, SIZES, TEXTURES, Scene, Thing


def sample_portrait(index: int, seed: int) -> Scene:
    """The portrait number `index`: a scene of one thing, without acts and sounds.

    All appearances are equally likely, and they belong to no split: splits hold out appearances together with sounds.

    Eight neighbours (indices 8k to 8k + 7) have the eight shapes, in one color on one background. In a batch of them, color
    and background cannot tell pictures apart, so contrastive learning has to use the shapes.
    """
    family, member = divmod(index, len(SHAPES))
    rng = np.random.default_rng([seed, family, *b"portraits"])
    background, color = BACKGROUNDS[rng.integers(len(BACKGROUNDS))], COLORS[rng.integers(len(COLORS))]
    shape = SHAPES[rng.permutation(len(SHAPES))[member]]
    rng = np.random.default_rng([seed, index, *b"portrait"])
    size, texture = SIZES[rng.integers(len(SIZES))], TEXTURES[rng.integers(len(TEXTURES))]
    return Scene(background, (Thing(size, texture, color, shape),), (), (), int(rng.integers(2**31)))


def draw_portrait(portrait: Scene) -> np.ndarray:
    """The picture, uint8 (`FRAME_SIZE`, `FRAME_SIZE`, 3). A third of the things are rotated, as if they were spinning."""
    rng = portrait.generator("frames")
    angle = rng.uniform(-np.pi, np.pi) if rng.random() < 1 / 3 else 0.0
    return draw_still(portrait.things[0], portrait.background, angle, rng)


def write_portraits(
    directory: str | os.PathLike[str], count: int, seed: int, workers: int | None = None, progress: bool = False
) -> None:
    """Writes the first `count` portraits as PNG files and `metadata.jsonl` with captions and questions, in about 5 ms each.

    Args:
        directory: created if needed; must be empty.
        workers: processes, by default one for each core.

    Raises:
        ValueError: a count, seed or number of workers out of range; a directory with other files.
    """
    workers = os.cpu_count() or 1 if workers is None else workers
    if count < 1 or seed < 0 or workers < 1:
        raise ValueError(
            f"count and workers must be at least 1 and seed 0, got count={count}, workers={workers} and seed={seed}."
        )
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise ValueError(f"{directory} is not empty: choose another folder.")
    write = partial(_write_portrait, directory=directory, seed=seed)
    with (
        process_map(workers, chunksize=64) as mapped,
        atomic_write(directory / METADATA) as path,
        path.open("w", encoding="utf-8") as file,
    ):
        rows = mapped(write, range(count))
        for row in tqdm(rows, total=count, unit="image", disable=None if progress else True):
            file.write(json.dumps(row) + "\n")


def _write_portrait(index: int, directory: Path, seed: int) -> dict[str, Any]:
    portrait, name = sample_portrait(index, seed), f"portrait-{index:05d}.png"
    Image.fromarray(draw_portrait(portrait)).save(directory / name)
    return {"file_name": name, "captions": describe_still(portrait), "qa": questions_on_still(portrait)}
