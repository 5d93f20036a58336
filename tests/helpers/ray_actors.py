# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Readers and models for Ray that decode and compute nothing, and processes that are killed by SIGKILL half-way, once each.

Ray's workers import this module, so that it must not import torch: each of them would take seconds to start. A process
leaves a file of its name in the folder of markers before it is killed.
"""

import json
import os
import signal
from pathlib import Path

import numpy as np


SEGMENTS = {"broken.mp4": 0, "film.mp4": 7, "silent.mp4": 3}
"""Names of files, and how many segments of 4 s each of them has; 0: it cannot be read."""

WIDTH = 256  # of valor-tiny


def kill_once(markers: Path, name: str, pid: int) -> None:
    try:
        os.close(os.open(markers / name, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(pid, signal.SIGKILL)


def spans(source: str) -> list[dict]:
    """`start`, `end` and `error` of the segments of a file."""
    count = SEGMENTS[os.path.basename(source)]
    found = [{"start": 4.0 * place, "end": 4.0 * place + 4.0, "error": ""} for place in range(count)]
    return found or [{"start": 0.0, "end": 0.0, "error": f"{source} is broken."}]


def embedding(source: str, start: float) -> np.ndarray:
    """The tokens of a segment, (2, C): other ones for each."""
    generator = np.random.default_rng([*os.path.basename(source).encode(), int(start)])
    values = generator.normal(size=(2, WIDTH))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)


def make_reader(markers: Path, kills: bool) -> type:
    class Reader:
        """In the place of [`ValorReader`]; it is killed when it has given a segment, and before it gives the next one."""

        def __init__(self, model: str, **options):
            pass

        @property
        def segmentation(self):
            from modeling_valor.search.reading import Segmentation

            return Segmentation(4.0, 4.0)

        def __call__(self, batch):
            for count, row in enumerate(self.rows(batch)):
                if count == 1 and kills:
                    kill_once(markers, "reader", os.getpid())
                yield {name: [value] for name, value in row.items()}

        def rows(self, batch):
            others = [name for name in batch if name not in ("path", "done")]
            for place, source in enumerate(map(str, batch["path"])):
                given = {name: batch[name][place] for name in others}
                wanted = [{}]
                if "start" not in batch:
                    done = json.loads(batch["done"][place])
                    wanted = [span for span in spans(source) if [span["start"], span["end"]] not in done]
                for span in wanted:
                    seconds = 4.0 * SEGMENTS[os.path.basename(source)]
                    about = {"source": source, "file_seconds": seconds, "file_segments": len(wanted)}
                    yield {**given, **span, **about}

    return Reader


def make_model(markers: Path, kills: bool) -> type:
    class Model:
        """In the place of [`ValorEmbedder`]; it is killed when it has computed its second batch, before anybody has that."""

        def __init__(self, model: str, **options):
            self.calls = 0

        def __call__(self, batch):
            results = self.compute(batch)
            self.calls += 1
            if self.calls == 2 and kills:
                kill_once(markers, "model", os.getpid())
            return results

        def compute(self, batch):
            count = len(batch["source"])
            embeds = [embedding(*row) for row in zip(batch["source"], batch["start"], strict=True)]
            return {name: list(values) for name, values in batch.items()} | {
                "modalities": ["" if error else "va" for error in batch["error"]],
                "revision": [""] * count,
                "token_modalities": ["va"] * count,
                "token_times": [np.array([start, start + 2], np.float32) for start in batch["start"]],
                "token_weights": [np.zeros(2, np.float32)] * count,
                "token_embeds": embeds,
            }

    return Model


def make_captioner(markers: Path, kills: bool) -> type:
    class Captioner(make_model(markers, kills)):
        """In the place of [`CaptionRows`]."""

        def compute(self, batch):
            names = ("id", "source", "start", "end", "error")
            captions = [f"second {start:g}" for start in batch["start"]]
            return {name: list(batch[name]) for name in names} | {
                "modalities": ["av"] * len(captions),
                "caption": captions,
            }

    return Captioner


def make_planner(folder: str | Path) -> type:
    from modeling_valor.integrations.caption_folder import caption_id
    from modeling_valor.search.sources import list_items

    planned = {
        item.source: [
            {"path": item.source, **span, "id": caption_id(item.source, span["start"], span["end"], item.state)}
            for span in spans(item.source)
        ]
        for item in list_items(folder)[0]
    }

    class Planner:
        """In the place of `_Planner`; the ids are those of the files as they are now."""

        def __init__(self, model: str, **options):
            pass

        def __call__(self, batch):
            for source in map(str, batch["path"]):
                rows = planned[source]
                yield {name: [row[name] for row in rows] for name in rows[0]}

    return Planner


def stand_ins(markers: Path, folder: str | Path, kills: bool) -> dict[str, type]:
    """What takes the place of names in `modeling_valor.integrations.ray`, for the files of a folder."""
    return {
        "ValorReader": make_reader(markers, kills),
        "ValorEmbedder": make_model(markers, kills),
        "CaptionRows": make_captioner(markers, kills),
        "_Planner": make_planner(folder),
    }
