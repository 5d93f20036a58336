# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Well-formed files of every kind that the package reads, and damaged copies of them: the same ones for the same seed."""

import io
import json
import random
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from PIL import Image

from modeling_valor import ValorFeatureExtractor, ValorForRetrieval, ValorVideoProcessor

from .media_files import write_video, write_wav
from .tiny import tiny_model


KINDS = (
    *("mp4", "mkv", "webm", "wav", "png", "gif", "tar", "jsonl"),
    *("model.safetensors", "config.json", "processor_config.json"),
)
"""Kinds of files, by their suffix or, where readers ask for it, by their name."""


def write_originals(folder: Path) -> dict[str, bytes]:
    """The content of a small well-formed file of each of `KINDS`, made in `folder`."""
    write_video(folder / "clip.mp4", count=12, sound=True)
    write_video(folder / "clip.mkv", count=12, sound=True)
    write_video(folder / "clip.webm", count=6, codec="libvpx-vp9" if "libvpx-vp9" in av.codecs_available else "vp8")
    write_wav(folder / "clip.wav", seconds=0.3)
    pictures = [Image.fromarray(np.full((24, 32, 3), 40 * number, dtype=np.uint8)) for number in range(4)]
    pictures[0].save(folder / "clip.png", save_all=True, append_images=pictures[1:], duration=100)
    pictures[0].save(folder / "clip.gif", save_all=True, append_images=pictures[1:], duration=100)

    rows = [
        {
            "file_name": f"clip-{number}.mp4",
            "captions": ["a bell rings", "été"],
            "qa": [{"question": "?", "answer": "bell"}],
        }
        for number in range(3)
    ]
    (folder / "clip.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with tarfile.open(folder / "clip.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for number in range(3):
            for suffix, content in (
                ("png", (folder / "clip.png").read_bytes()),
                ("json", json.dumps(rows[0]).encode()),
            ):
                member = tarfile.TarInfo(f"clip-{number}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))

    checkpoint = folder / "checkpoint"
    tiny_model(ValorForRetrieval).save_pretrained(checkpoint)
    parts = {"video_processor": ValorVideoProcessor(num_frames=2), "feature_extractor": ValorFeatureExtractor()}
    settings = {name: json.loads(part.to_json_string()) for name, part in parts.items()}
    (checkpoint / "processor_config.json").write_text(json.dumps({"processor_class": "ValorProcessor", **settings}))
    return {kind: (checkpoint / kind if "." in kind else folder / f"clip.{kind}").read_bytes() for kind in KINDS}


def mutate(content: bytes, kind: str, random_numbers: random.Random) -> bytes:
    """A copy with one to four damages."""
    is_text = kind == "jsonl" or kind.endswith(".json")
    choices = TEXT_MUTATIONS + BINARY_MUTATIONS[:2] if is_text else BINARY_MUTATIONS
    mutated = bytearray(content)
    for _ in range(random_numbers.randint(1, 4)):
        if mutated:
            random_numbers.choice(choices)(mutated, random_numbers)
    return bytes(mutated)


def _flip(content: bytearray, random_numbers: random.Random) -> None:
    for _ in range(random_numbers.choice((1, 1, 4, 32))):
        content[random_numbers.randrange(len(content))] ^= 1 << random_numbers.randrange(8)


def _truncate(content: bytearray, random_numbers: random.Random) -> None:
    del content[random_numbers.randrange(len(content)) :]


def _fill(content: bytearray, random_numbers: random.Random) -> None:
    start, length = _piece(content, random_numbers)
    filler = random_numbers.choice((b"\x00", b"\xff", None))
    piece = random_numbers.randbytes(length) if filler is None else filler * length
    content[start : start + length] = piece[: len(content) - start]


def _remove(content: bytearray, random_numbers: random.Random) -> None:
    start, length = _piece(content, random_numbers)
    del content[start : start + length]


def _repeat(content: bytearray, random_numbers: random.Random) -> None:
    start, length = _piece(content, random_numbers)
    content[start:start] = content[start : start + length] * random_numbers.choice((1, 2, 50))


def _set_number(content: bytearray, random_numbers: random.Random) -> None:
    """Writes an extreme number where headers may have a size, a count or a time."""
    value = random_numbers.choice((0, 1, 2, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, len(content)))
    # Headers lie at the beginning, in mp4 and mkv also at the end
    place = random_numbers.choice(
        (random_numbers.randrange(len(content)), random_numbers.randrange(min(256, len(content))))
    )
    packed = struct.pack(random_numbers.choice((">I", "<I")), value)
    content[place : place + 4] = packed[: len(content) - place]


def _set_value(content: bytearray, random_numbers: random.Random) -> None:
    """Puts an odd JSON value, or odd text, in the place of something between separators."""
    places = [index for index, byte in enumerate(content) if byte in b':,[]{}"\n']
    if len(places) > 1:
        number = random_numbers.randrange(len(places) - 1)
        content[places[number] + 1 : places[number + 1]] = random_numbers.choice(ODD_VALUES)


def _piece(content: bytearray, random_numbers: random.Random) -> tuple[int, int]:
    start = random_numbers.randrange(len(content))
    return start, random_numbers.choice((1, 4, 16, 188, 512, 4096))


ODD_VALUES = (
    *(b"null", b"-1", b"0", b"1e999", b"NaN", b"true", b"1" * 400, b'""', b"{}", b"[]", b'"\\ud800"', b'"\x00"'),
    *(b"[" * 3000, b'{"a":' * 3000, b"1000000000", b"0.5", b'"../../etc/passwd"', b'"http://127.0.0.1:1/x"'),
)
"""Values where a reader expects another kind, another size or an end."""

BINARY_MUTATIONS: tuple[Callable, ...] = (_flip, _truncate, _fill, _remove, _repeat, _set_number)
TEXT_MUTATIONS: tuple[Callable, ...] = (_set_value, _set_value, _remove, _repeat)
