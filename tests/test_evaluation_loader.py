# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Batches of media for evaluation, read by threads of this process."""

import threading

import pytest
import torch

from modeling_valor.data.samples import Sample
from modeling_valor.evaluation import loader
from modeling_valor.evaluation.options import MediaOptions
from modeling_valor.media import MediaError


class Padding:
    """A processor that joins numbers."""

    def pad(self, samples):
        return {"pixel_values_videos": torch.cat([sample["pixel_values_videos"] for sample in samples])}


@pytest.fixture
def reading(monkeypatch):
    """Loading a sample gives its number, except of 3; the event is set when 4 is loaded."""
    later = threading.Event()

    def load(sample, processor, **options):
        number = int(sample.id)
        if number == 4:
            later.set()
        if number == 3:
            raise MediaError("three is broken")
        return {"pixel_values_videos": torch.tensor([number])}

    monkeypatch.setattr(loader, "load_media", load)
    return later


SAMPLES = [Sample(str(number)) for number in range(6)]


def test_the_next_batch_is_read_while_one_is_used(reading):
    before = threading.active_count()
    batches = loader.media_batches(SAMPLES, Padding(), [[0, 1], [4, 3, 2], [5]], MediaOptions())
    first = next(batches)
    assert reading.wait(timeout=60)  # nobody has asked for 4 yet
    second, third = batches
    assert first.indices == [0, 1] and second.indices == [4, 2] and third.indices == [5]
    assert second.inputs["pixel_values_videos"].tolist() == [4, 2]
    assert [failure.reason for failure in second.failures.values()] == ["three is broken"] and list(
        second.failures
    ) == [3]
    assert threading.active_count() == before


def test_whoever_stops_early_leaves_no_thread(reading):
    before = threading.active_count()
    batches = loader.media_batches(SAMPLES, Padding(), [[0], [1], [2]], MediaOptions())
    next(batches)
    batches.close()
    assert threading.active_count() == before
