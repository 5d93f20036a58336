# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Samples that cannot be read: whatever they raise is their own failure, by name, and one rule says how many are too many."""

from collections.abc import Sequence

import pytest
from PIL import Image

from helpers.training_world import small_config, small_processor, small_samples
from modeling_valor.data.extract import extract
from modeling_valor.data.failures import Failure, FailureLog, TooManyFailures
from modeling_valor.data.loading import LoadingOptions
from modeling_valor.data.mixture import Mixture, RequestSampler, Source
from modeling_valor.data.readers import read_folder
from modeling_valor.data.samples import Sample, each_sample
from modeling_valor.evaluation.loader import MediaOptions, media_batches


class Hostile:
    """A file that raises what no reader expects."""

    def __init__(self, error: Exception):
        self.name, self.error = "hostile", error

    def read(self, size: int = -1) -> bytes:
        raise self.error


HOSTILE = [ZeroDivisionError("by zero"), RuntimeError("Expected a tensor"), RecursionError("too deep"), KeyError("x")]


class BadRows(Sequence):
    """Samples of which every fourth cannot even be described."""

    def __init__(self, samples: list[Sample]):
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        if index % 4 == 3:
            raise TypeError(f"row {index} is no row")
        return self.samples[index]


@pytest.fixture(scope="module")
def processor():
    return small_processor()


def batches(processor, samples, task: str = "retrieval") -> list[dict]:
    source = Source("a", samples, LoadingOptions(task), batch_size=len(samples) // 2)
    mixture = Mixture([source], processor, small_config(processor), seed=1)
    return [mixture[request] for (request,) in RequestSampler([source], 2, 1)]


@pytest.mark.parametrize("error", HOSTILE, ids=lambda error: type(error).__name__)
def test_in_training_whatever_a_sample_raises_is_its_failure(processor, error):
    samples = [*small_samples(5), Sample("bad", Hostile(error), None, ("a bell",))]
    failures = [failure for batch in batches(processor, samples) for failure in batch["failures"]]
    assert {failure.id for failure in failures} == {"bad"}
    assert str(error.args[0]) in failures[0].reason


def test_in_training_a_row_that_is_none_is_named(processor):
    found = batches(processor, BadRows(small_samples(8)))
    assert all(len(batch["input_ids"]) == 4 for batch in found)
    failures = {failure.id for batch in found for failure in batch["failures"]}
    assert any("row 3 is no row" in name for name in failures) and any("row 7" in name for name in failures)


@pytest.mark.parametrize("error", HOSTILE, ids=lambda error: type(error).__name__)
def test_in_evaluation_whatever_a_sample_raises_is_its_failure(processor, error):
    samples = BadRows([*small_samples(2), Sample("bad", Hostile(error)), *small_samples(1)])
    (batch,) = media_batches(samples, processor, [range(4)], MediaOptions())
    assert batch.indices == [0, 1] and batch.failures.keys() == {2, 3}
    assert batch.failures[2].id == "bad" and str(error.args[0]) in batch.failures[2].reason
    assert "row 3 is no row" in batch.failures[3].id


@pytest.mark.parametrize("workers", [1, 2])
def test_in_extraction_whatever_a_sample_raises_is_its_failure(tmp_path, workers):
    image = str(tmp_path / "image.png")

    Image.new("RGB", (8, 8)).save(image)
    samples = [
        *(Sample(f"bad{number}", Hostile(error)) for number, error in enumerate(HOSTILE)),
        Sample("a lone \ud800 surrogate", image),
        Sample("text", image, captions=("a lone \ud800 surrogate",)),
        Sample("", image),
        Sample("good", image, captions=("a plane",)),
    ]
    result = extract(samples, tmp_path / "out", workers=workers, max_failures=0.9)
    assert (result.samples, result.extracted) == (1, 1)
    names = [sample.id.replace("\ud800", r"\ud800") for sample in samples]
    assert sorted(result.failures) == sorted(name for name in names if name != "good")
    for number, error in enumerate(HOSTILE):
        assert str(error.args[0]) in result.failures[f"bad{number}"]
    assert list(read_folder(tmp_path / "out")) == [
        Sample("good", str(tmp_path / "out" / "clips" / "good"), None, ("a plane",))
    ]
    assert len((tmp_path / "out" / "failures.jsonl").read_text().splitlines()) == 7


def test_all_samples_of_a_list_are_given_though_one_cannot_be_had():
    given = list(each_sample(BadRows(small_samples(6))))
    assert [sample.id for sample in given if sample.captions] == ["clip0", "clip1", "clip2", "clip4", "clip5"]
    assert len(given) == 6 and "row 3 is no row" in given[3].id


def test_the_share_is_that_of_all_samples_where_their_number_is_known():
    log = FailureLog(max_share=0.25, total=8)
    log.update(1, [Failure("one", "gone")])
    log.update(5)
    log.update(2, [Failure("two", "gone"), Failure("one", "gone")])
    with pytest.raises(
        TooManyFailures, match=r"^3 of 8 samples could not be read, more than the 25% .* 3 x gone, such as one"
    ) as error:
        log.update(1, [Failure("three", "gone")])
    assert "\n" not in str(error.value)


def test_without_a_number_the_share_is_looked_at_after_some_patience():
    log = FailureLog(max_share=0.1, patience=20)
    log.update(4, [Failure("one", "gone"), Failure("two", "broken")])
    log.update(36)
    log.update(0, [Failure("three", "gone"), Failure("four", "gone")])
    with pytest.raises(TooManyFailures, match=r"5 of 40 samples"):
        log.update(0, [Failure("five", "x")])


def test_a_log_says_what_failed_in_one_line():
    assert FailureLog().report() == "All samples could be read."
    log = FailureLog(1.0, 20, failures={f"n{n}": f"reason {n}." for n in range(12)} | {"x": "reason 3."})
    start = (
        "13 of 20 samples could not be read and were left out: 2 x reason 3, such as n3; n0 (reason 0); n1 (reason 1);"
    )
    assert log.report().startswith(start) and log.report().endswith("; and 2 other reasons.")
    with pytest.raises(ValueError, match=r"a share from 0 to 1"):
        FailureLog(1.5)


def test_hostile_files_cost_a_sample_and_no_run(shared, processor, tmp_path):
    hostile = [shared / "media" / "hostile" / "resample_crash.mp4", *(shared / "media" / "hostile").glob("*.wav")]
    samples = [Sample(path.name, str(path), str(path), ("a bell",)) for path in hostile]
    result = extract(samples, tmp_path, workers=1, max_failures=1.0)
    assert result.samples + len(result.failures) == len(samples)
    (batch,) = media_batches(samples, processor, [range(len(samples))], MediaOptions())
    assert len(batch.indices) + len(batch.failures) == len(samples)
