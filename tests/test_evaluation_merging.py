# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Rows of the same media are one sample, different media never share an id, and changed files are other samples."""

import logging
import os

import numpy as np
import pytest
import torch

from modeling_valor.data.samples import Question, Sample
from modeling_valor.evaluation.merging import merge_rows, sample_keys


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
def test_rows_of_the_same_media_are_one_sample_with_all_captions(first, second, caplog):
    rows = [Sample("a", first, None, ("one", "two")), Sample("b", b"b"), Sample("a", second, None, ("two",))]
    with caplog.at_level(logging.WARNING):
        merged = merge_rows(rows)
    assert [(sample.id, sample.captions) for sample in merged] == [("a", ("one", "two", "two")), ("b", ())]
    assert merged.num_rows == 3
    assert [record.message.partition(":")[0] for record in caplog.records] == ["3 rows are 2 samples"]
    assert merge_rows(merged) is merged


@pytest.mark.parametrize(("first", "second"), DIFFERENT)
def test_different_media_under_one_id_are_refused(first, second):
    with pytest.raises(
        ValueError, match=r"Two samples with different media have the id 'a'.*give each sample an id of its own"
    ):
        merge_rows([Sample("a", first), Sample("b"), Sample("a", second)])


def test_the_same_media_under_two_ids_are_one_sample():
    """As in a dataset with a row for each caption and no ids, whose rows are numbered."""
    merged = merge_rows(
        [Sample("0", b"x", b"x", ("one",)), Sample("1", b"x", b"x", ("two",)), Sample("2", b"x", b"y")]
    )
    assert [(sample.id, sample.captions) for sample in merged] == [("0", ("one", "two")), ("2", ())]


def test_what_rows_only_repeat_counts_once():
    first, second = Question("who?", ("dog",)), Question("where?", ("here",))
    (sample,) = merge_rows([Sample("a", b"x", None, ("c", "d"), (question,)) for question in (first, second, first)])
    assert sample.captions == ("c", "d") and sample.questions == (first, second)


def test_samples_with_different_media_stay_as_they_are(caplog):
    rows = [Sample("a", "a.mp4"), Sample("b", "b.mp4"), Sample("c"), Sample("d")]
    merged = merge_rows(rows)
    assert list(merged) == rows and not caplog.records
    assert list(merge_rows(rows, limit=2)) == rows[:2]


def test_a_limit_counts_merged_samples():
    merged = merge_rows([Sample(name, name.encode(), None, (name,)) for name in "aabacb"], limit=2)
    assert [(sample.id, len(sample.captions)) for sample in merged] == [("a", 3), ("b", 2)] and merged.num_rows == 5


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
    before = sample_keys(samples)
    assert sample_keys(samples) == before and len(set(before)) == 4

    status = file.stat()
    file.write_bytes(b"two")  # as long as before, and later
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    folder = frames.stat()
    (frames / "1.jpg").write_bytes(b"one")
    os.utime(frames, ns=(folder.st_atime_ns, folder.st_mtime_ns))
    after = sample_keys(samples)
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, False, True, True]


@pytest.mark.parametrize("address", ["file://{}", "zip://clip.mp4::{}", "zip://clip.mp4::file://{}"])
def test_keys_follow_files_at_addresses(address, tmp_path):
    file = tmp_path / "file"
    keys = set()
    for content in (b"", b"one", b"longer"):
        file.write_bytes(content)
        keys |= {sample_keys([Sample("a", address.format(file))])[0] for _ in range(2)}
    assert len(keys) == 3
