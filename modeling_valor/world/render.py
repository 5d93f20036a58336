# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Scenes to files: H.264 and AAC in mp4, and the metadata that makes a folder of them a dataset."""

import json
import os
from collections.abc import Iterator
from itertools import count as counted
from itertools import islice
from pathlib import Path
from typing import Any

import av
from tqdm.auto import tqdm

from ..data.files import atomic_write, process_map, sole_writer
from .drawing import FRAME_RATE, FRAME_SIZE, render_frames
from .language import LESSONS, describe, questions
from .scenes import Scene, sample_scene
from .sounds import render_audio


METADATA = "metadata.jsonl"
ORIGIN = ".world.json"  # split and seed of a directory, so that two are never mixed


def write_clip(scene: Scene, path: str | os.PathLike[str]) -> None:
    """Renders a scene to an mp4 file of about 50 kB: 5 seconds, 128 pixels square at 10 frames per second, 22,050 Hz mono.

    The same scene gives the same bytes on the same machine and the same PyAV. The file gets its name when it is complete.
    Takes about 0.1 s.
    """
    samples, sampling_rate = render_audio(scene)
    with atomic_write(Path(path)) as partial, av.open(str(partial), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=FRAME_RATE, options={"preset": "veryfast", "crf": "20"})
        video.width = video.height = FRAME_SIZE
        video.pix_fmt = "yuv420p"
        video.thread_count = 1  # with more, the bytes would depend on the machine's cores
        audio = container.add_stream("aac", rate=sampling_rate, layout="mono", bit_rate=64_000)
        for pixels in render_frames(scene):
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode())
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = sampling_rate
        frame.pts = 0  # lets the muxer note the encoder's delay, so that players start at the first sample
        container.mux(audio.encode(frame))
        container.mux(audio.encode())


def write_world(
    directory: str | os.PathLike[str],
    split: str,
    count: int,
    seed: int,
    workers: int | None = None,
    progress: bool = False,
    things: int | None = None,
    about: str | None = None,
) -> int:
    """Writes the first `count` clips of a split and then `metadata.jsonl`; returns the number of clips it rendered.

    `datasets.load_dataset("videofolder", data_dir=directory)` reads the result: each row holds `file_name`, `captions`
    (five) and `qa` (a list of {"question", "answer", "about": "sight" | "sound" | "both"}). Existing clips
    are kept, so an interrupted run resumes where it stopped, and a larger `count` extends a smaller one.

    Args:
        directory: created if needed; holds one split of one seed.
        split, seed: as in `sample_scene`.
        count: how many clips, at least 1.
        workers: processes, by default one for each core; 1 renders in this process.
        progress: show a progress bar, in a terminal only.
        things: 1 or 2: only clips that show this number of things.
        about: one of `LESSONS`: only clips about which such questions can be asked, with all of these questions.

    Raises:
        ValueError: an unknown split; a count, seed, number of workers or lesson out of range; a directory with other
            clips, or one that another run is writing to.
    """
    workers = os.cpu_count() or 1 if workers is None else workers
    if count < 1 or workers < 1:
        raise ValueError(f"count and workers must be at least 1, got count={count} and workers={workers}.")
    if things not in (None, 1, 2) or about not in (None, *LESSONS):
        raise ValueError(
            f"There are clips of 1 or 2 things and questions about {', '.join(LESSONS)}, "
            f"got things={things!r} and about={about!r}."
        )
    scenes = list(islice(_scenes(split, seed, things, about), count))
    origin = {"split": split, "seed": seed}
    if things is not None:
        origin["things"] = things
    if about is not None:
        origin["about"] = about
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with sole_writer(directory, ".world.lock"):
        return _write_missing(directory, origin, scenes, workers, progress)


def _scenes(split: str, seed: int, things: int | None, about: str | None) -> Iterator[Scene]:
    """All scenes of a split in their order, without end; with `things` or `about`, those that fit."""
    for scene in (sample_scene(split, index, seed) for index in counted()):
        if things in (None, len(scene.things)) and (about is None or questions(scene, about)):
            yield scene


def _write_missing(directory: Path, origin: dict[str, Any], scenes: list[Scene], workers: int, progress: bool) -> int:
    _claim(directory, origin)
    names = [f"clip-{index:05d}.mp4" for index in range(len(scenes))]
    missing = [index for index, name in enumerate(names) if not (directory / name).exists()]
    jobs = [scenes[index] for index in missing], [directory / names[index] for index in missing]
    with process_map(workers, chunksize=8) as mapped:
        for _ in tqdm(mapped(write_clip, *jobs), total=len(missing), unit="clip", disable=None if progress else True):
            pass
    with atomic_write(directory / METADATA) as partial, partial.open("w", encoding="utf-8") as file:
        for name, scene in zip(names, scenes, strict=True):
            row = {"file_name": name, "captions": describe(scene), "qa": questions(scene, origin.get("about"))}
            file.write(json.dumps(row) + "\n")
    for leftover in directory.glob(".*.partial"):  # of runs that were killed
        leftover.unlink(missing_ok=True)
    return len(missing)


def _claim(directory: Path, origin: dict[str, Any]) -> None:
    """Writes split and seed of the clips to the directory; raises an error if it holds other clips."""
    note = directory / ORIGIN
    if note.exists():
        found = json.loads(note.read_text(encoding="utf-8"))
        if found != origin:
            raise ValueError(f"{directory} holds clips of {found}, not of {origin}: choose another directory.")
    elif any(directory.glob("*.mp4")):
        raise ValueError(f"{directory} holds clips that are not of this world: choose an empty directory.")
    else:
        with atomic_write(note) as partial:
            partial.write_text(json.dumps(origin), encoding="utf-8")
