# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Rows of the same media are one clip, different media never share an id, and changed files are other clips."""

import logging
import os

import numpy as np
import pytest
import torch

from modeling_valor.data.samples import Question, Sample
from modeling_valor.evaluation.clips import clip_keys, merge_rows


ARRAY = torch.arange(24, dtype=torch.uint8).view(1, 3, 2, 4)

SAME = [
    ("a.mp4", "a.mp4"),
    ("a.mp4", os.path.abspath("a.mp4")),
    ("~/a.mp4", os.path.expanduser("~/a.mp4")),
    (b"media", b"media"),
    (ARRAY, ARRAY.clone()),
    (ARRAY.numpy(), ARRAY.numpy().copy()),
    ({"bytes": b"media", "path": None}, {"bytes": b"media", "path": None}),
    ({"array": np.ones(3), "sampling_rate": 8}, {"array": np.ones(3), "sampling_rate": 8}),
    (["1.jpg", "2.jpg"], ["1.jpg", "2.jpg"]),
    ("zip://a.mp4::x.zip", "zip://a.mp4::x.zip"),
    (None, None),
]
DIFFERENT = [
    ("a.mp4", "a.wav"),
    ("x/a.mp4", "y/a.mp4"),
    (b"media", b"others"),
    (ARRAY, ARRAY + 1),
    (ARRAY, ARRAY.float()),
    (np.ones(3), np.ones(4)),
    ({"array": np.ones(3), "sampling_rate": 8}, {"array": np.ones(3), "sampling_rate": 9}),
    ("zip://a.mp4::x.zip", "zip://b.mp4::x.zip"),
    (object(), object()),
    ("a.mp4", None),
]


@pytest.mark.parametrize(("first", "second"), SAME)
def test_rows_of_the_same_media_are_one_clip_with_all_captions(first, second, caplog):
    rows = [Sample("a", first, None, ("one", "two")), Sample("b", b"b"), Sample("a", second, None, ("two",))]
    with caplog.at_level(logging.WARNING):
        clips = merge_rows(rows)
    assert [(clip.id, clip.captions) for clip in clips] == [("a", ("one", "two", "two")), ("b", ())]
    assert clips.num_rows == 3
    assert [record.message.partition(":")[0] for record in caplog.records] == ["3 samples are 2 clips"]
    assert merge_rows(clips) is clips


@pytest.mark.parametrize(("first", "second"), DIFFERENT)
def test_different_media_under_one_id_are_refused(first, second):
    with pytest.raises(ValueError, match=r"Two different clips have the id 'a'.*give each clip its own"):
        merge_rows([Sample("a", first), Sample("b"), Sample("a", second)])


def test_the_same_media_under_two_ids_are_one_clip():
    """As in a dataset with a row for each caption and no ids, whose rows are numbered."""
    clips = merge_rows([Sample("0", b"x", b"x", ("one",)), Sample("1", b"x", b"x", ("two",)), Sample("2", b"x", b"y")])
    assert [(clip.id, clip.captions) for clip in clips] == [("0", ("one", "two")), ("2", ())]


def test_what_rows_only_repeat_counts_once():
    first, second = Question("who?", ("dog",)), Question("where?", ("here",))
    (clip,) = merge_rows([Sample("a", b"x", None, ("c", "d"), (question,)) for question in (first, second, first)])
    assert clip.captions == ("c", "d") and clip.questions == (first, second)


def test_samples_that_are_clips_stay_as_they_are(caplog):
    rows = [Sample("a", "a.mp4"), Sample("b", "b.mp4"), Sample("c"), Sample("d")]
    clips = merge_rows(rows)
    assert list(clips) == rows and not caplog.records
    assert list(merge_rows(rows, limit=2)) == rows[:2]


def test_a_limit_counts_clips():
    clips = merge_rows([Sample(name, name.encode(), None, (name,)) for name in "aabacb"], limit=2)
    assert [(clip.id, len(clip.captions)) for clip in clips] == [("a", 3), ("b", 2)] and clips.num_rows == 5


def test_keys_follow_the_files(tmp_path):
    file, frames = tmp_path / "a.mp4", tmp_path / "frames"
    frames.mkdir()
    (frames / "1.jpg").write_bytes(b"1")
    file.write_bytes(b"one")
    samples = [
        Sample("a", str(file), str(file)),
        Sample("f", frames),
        Sample("b", b"bytes"),
        Sample("gone", "gone.mp4"),
    ]
    before = clip_keys(samples)
    assert clip_keys(samples) == before and len(set(before)) == 4

    status = file.stat()
    file.write_bytes(b"two")  # as long as before, and later
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    folder = frames.stat()
    (frames / "1.jpg").write_bytes(b"one")
    os.utime(frames, ns=(folder.st_atime_ns, folder.st_mtime_ns))
    after = clip_keys(samples)
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, False, True, True]


@pytest.mark.parametrize("address", ["file://{}", "zip://clip.mp4::{}", "zip://clip.mp4::file://{}"])
def test_keys_follow_files_at_addresses(address, tmp_path):
    file = tmp_path / "file"
    keys = set()
    for content in (b"", b"one", b"longer"):
        file.write_bytes(content)
        keys |= {clip_keys([Sample("a", address.format(file))])[0] for _ in range(2)}
    assert len(keys) == 3
