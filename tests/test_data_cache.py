# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The cache of decoded media: damage, changes of files, disks that are full or read-only."""

import errno
import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
from PIL import Image
from safetensors.torch import save_file

from helpers.media_files import write_clip
from helpers.training_world import small_processor, small_samples
from modeling_valor.data import files as files_module
from modeling_valor.data.files import WriteError, atomic_write, writing_to
from modeling_valor.data.fingerprints import file_state, fingerprint
from modeling_valor.data.loading import LoadingOptions, cache_folder, load_media
from modeling_valor.data.samples import Sample


OPTIONS = LoadingOptions(sampling="center")


@pytest.fixture(scope="module")
def processor():
    return small_processor()


@pytest.fixture
def messages(monkeypatch, caplog):
    """What was said so far; each test begins as a new process would."""
    monkeypatch.setattr(files_module, "_topics_of_warnings", set())
    monkeypatch.setattr(logging.getLogger("modeling_valor"), "propagate", True)
    caplog.set_level("WARNING")
    return lambda: [r.getMessage() for r in caplog.records if r.name == files_module.logger.name]


@pytest.fixture
def load(processor, tmp_path):
    """`load(sample)`: through the cache below `tmp_path`."""
    folder = cache_folder(tmp_path / "cache", processor, OPTIONS)
    return lambda sample: load_media(sample, processor, cache=folder, **OPTIONS.media_options)


def files_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def write_image(path: Path, colour: str) -> str:
    Image.new("RGB", (16, 16), colour).save(path)
    return str(path)


def flip_last_byte(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def rewrite(path: Path, change) -> None:
    """The same file with other tensors or notes, as sound as before."""
    with safetensors.safe_open(path, "pt") as file:
        notes, tensors = dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(tensors, notes)
    save_file(tensors, path, metadata=notes)


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "only a header": lambda path: path.write_bytes(path.read_bytes()[:64]),
    "garbage": lambda path: path.write_bytes(os.urandom(1000)),
    "one bit": flip_last_byte,
    "other shapes": lambda path: rewrite(path, lambda tensors, notes: tensors.update(pixel_values_videos=torch.zeros(1, 3))),
    "another precision": lambda path: rewrite(
        path, lambda tensors, notes: tensors.update(pixel_values_videos=tensors["pixel_values_videos"].double())
    ),
    "a tensor less": lambda path: rewrite(path, lambda tensors, notes: tensors.pop("input_features")),
    "a tensor more": lambda path: rewrite(path, lambda tensors, notes: tensors.update(more=torch.zeros(1))),
    "odd notes": lambda path: rewrite(path, lambda tensors, notes: notes.update(state="{", checksums="3")),
    "no notes": lambda path: rewrite(path, lambda tensors, notes: notes.clear()),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_decoded_again_and_reported_once(load, messages, tmp_path, damage):
    first, second = small_samples(2)
    expected = [load(first), load(second)]
    for path in files_in(tmp_path):
        DAMAGES[damage](path)
    for sample, media in zip((first, second), expected, strict=True):
        again = load(sample)
        assert again.keys() == media.keys() and all(torch.equal(again[name], media[name]) for name in media)
    (message,) = messages()
    assert "is damaged (" in message and message.endswith("are decoded again.") and str(tmp_path / "cache") in message
    for sample in (first, second):
        load(sample)
    assert len(messages()) == 1
    with safetensors.safe_open(files_in(tmp_path)[0], "pt") as file:
        assert set(json.loads(file.metadata()["checksums"])) == set(expected[0])


def test_what_cannot_be_replaced_is_decoded_each_time(load, messages, tmp_path):
    (sample,) = small_samples(1)
    expected = load(sample)["pixel_values_videos"]
    (path,) = files_in(tmp_path)
    path.unlink()
    path.mkdir()
    assert all(torch.equal(load(sample)["pixel_values_videos"], expected) for _ in range(2))
    assert [message.startswith(start) for message, start in zip(messages(), (f"{path} is", "The cache"), strict=True)]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_cache_that_cannot_be_written_to_is_one_sentence_and_no_error(load, messages, monkeypatch, tmp_path, number):
    def refuse(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    expected = [load(sample)["pixel_values_videos"] for sample in small_samples(2)]
    (message,) = messages()
    assert os.strerror(number) in message and str(tmp_path / "cache") in message and "decoded each time" in message
    monkeypatch.undo()
    assert not files_in(tmp_path) and not list((tmp_path / "cache").rglob("*.partial"))
    assert all(
        torch.equal(load(sample)["pixel_values_videos"], want)
        for sample, want in zip(small_samples(2), expected, strict=True)
    )


def test_a_file_in_the_place_of_a_cache_is_one_sentence(processor, messages, tmp_path):
    (tmp_path / "cache").write_text("no folder")
    folder = cache_folder(tmp_path / "cache", processor, OPTIONS)
    for sample in small_samples(2):
        assert "pixel_values_videos" in load_media(sample, processor, cache=folder, **OPTIONS.media_options)
    (message,) = messages()
    assert message.startswith(f"The cache {folder} cannot be written to (")


def test_frames_in_a_folder_or_list_that_were_rewritten_are_decoded_again(load, tmp_path):
    (tmp_path / "frames").mkdir()
    image = write_image(tmp_path / "frames" / "0.png", "red")
    for source in (str(tmp_path / "frames"), [image, image], f"file://{image}"):
        write_image(tmp_path / "frames" / "0.png", "red")
        before = load(Sample("a", source))["pixel_values_videos"]
        write_image(tmp_path / "frames" / "0.png", "blue")
        os.utime(image, ns=(1, 1))
        after = load(Sample("a", source))["pixel_values_videos"]
        assert not torch.equal(before, after)
        os.rename(tmp_path / "frames", tmp_path / "gone")
        assert torch.equal(load(Sample("a", source))["pixel_values_videos"], after)
        os.rename(tmp_path / "gone", tmp_path / "frames")


def test_arrays_of_one_id_are_told_apart(load):
    red, blue = np.zeros((2, 4, 16, 16, 3), dtype=np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    media = [load(Sample("a", frames))["pixel_values_videos"] for frames in (red, blue, red)]
    assert torch.equal(media[0], media[2]) and not torch.equal(media[0], media[1])


def test_what_an_error_leaves_half_written_is_removed(tmp_path):
    for write in (lambda path: path.write_text("half"), lambda path: (path.mkdir(), (path / "a").write_text("half"))):
        with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "target") as partial:
            write(partial)
            raise ZeroDivisionError
        assert not list(tmp_path.iterdir())


def test_a_full_disk_is_a_sentence_and_other_errors_stay(tmp_path):
    with (
        pytest.raises(
            WriteError, match=f"^{tmp_path} cannot be written to: No space left on device. Free some space, or"
        ),
        writing_to(tmp_path),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(PermissionError), writing_to(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere/clip.mp4")
    with pytest.raises(FileNotFoundError), writing_to(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "gone", str(tmp_path / "a"))


def test_parts_of_one_file_are_told_apart_and_know_when_it_changes(load, tmp_path):
    path = write_clip(tmp_path / "film.mp4", seconds=4)
    parts = [Sample("film", f"{path}#t={start},{start + 1}", f"{path}#t={start},{start + 1}") for start in (0, 2)]
    first, second = map(load, parts)
    assert not torch.equal(first["pixel_values_videos"], second["pixel_values_videos"])
    assert len(files_in(tmp_path / "cache")) == 2
    assert fingerprint(parts[0].video) != fingerprint(parts[1].video) != fingerprint(str(path))
    assert file_state(parts[0].video) == file_state(str(path)) is not None
    write_clip(tmp_path / "film.mp4", seconds=4, brightness=120)
    assert not torch.equal(load(parts[0])["pixel_values_videos"], first["pixel_values_videos"])
