# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
import dataclasses
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from helpers.training_world import small_config, small_processor, small_samples
from modeling_valor.data.failures import Failure, FailureLog, TooManyFailures
from modeling_valor.data.loading import LoadingOptions, cache_folder, load_sample
from modeling_valor.data.mixture import Mixture, Request, RequestSampler, Source
from modeling_valor.data.samples import Sample, SampleStream, each_sample
from modeling_valor.media import MediaError
from modeling_valor.world.render import write_clip
from modeling_valor.world.scenes import sample_scene


@pytest.fixture(scope="module")
def processor():
    return small_processor()


@pytest.fixture(scope="module")
def config(processor):
    return small_config(processor)


def requests(sampler):
    return [request for (request,) in sampler]


def ids_of(mixture, request):
    source = mixture.sources[request.source]
    candidates = mixture._candidates(request)
    return [next(candidates).id for _ in range(source.batch_size)]


@pytest.mark.parametrize("neighbours", [1, 2])
def test_an_epoch_visits_every_sample_once_over_all_ranks(processor, config, neighbours):
    source = Source("a", small_samples(12), batch_size=2, epochs=2, neighbours=neighbours)
    mixture = Mixture([source], processor, config, seed=3)
    visited = []
    for rank in range(3):
        visited.append([ids_of(mixture, r) for r in requests(RequestSampler([source], None, 3, rank, 3))])
        assert len(visited[-1]) == 4
    first = [name for rank in visited for batch in rank[:2] for name in batch]
    second = [name for rank in visited for batch in rank[2:] for name in batch]
    assert sorted(first) == sorted(second) == sorted(sample.id for sample in source.samples)
    assert first != second
    if neighbours == 2:
        for batch in visited[0]:
            first, other = (int(name.removeprefix("clip")) for name in batch)
            assert first // 2 == other // 2 and first != other


def test_every_source_gets_its_epochs_and_all_ranks_draw_the_same_ones():
    sources = [
        Source("a", small_samples(8), batch_size=2, epochs=3),
        Source("b", small_samples(6), LoadingOptions("retrieval"), batch_size=1, epochs=1),
    ]
    drawn = [[r.source for r in requests(RequestSampler(sources, None, 0, rank, 2))] for rank in range(2)]
    assert drawn[0] == drawn[1]
    # 8 samples are 2 steps of 2 x 2; 6 are 3 steps of 2 x 1
    assert Counter(drawn[0]) == {0: 6, 1: 3}
    assert drawn[0] != sorted(drawn[0])
    # Ten steps divide as 6.67 to 3.33
    assert Counter(r.source for r in requests(RequestSampler(sources, 10, 0, 0, 2))) == {0: 7, 1: 3}


@pytest.mark.parametrize(("world_size", "steps"), [(1, 9), (2, 3)])
def test_an_epoch_has_whole_steps_only(world_size, steps):
    """Of seven samples three steps of two, or one of two on two ranks."""
    assert Source("a", small_samples(7), batch_size=2, epochs=3).num_steps(world_size) == steps


def test_two_sources_of_the_same_samples_have_them_in_different_orders(processor, config):
    sources = [Source(name, small_samples(12), batch_size=12) for name in "ab"]
    mixture = Mixture(sources, processor, config)
    one, other = (ids_of(mixture, request) for request in requests(RequestSampler(sources)))
    assert sorted(one) == sorted(other) and one != other


def test_what_a_batch_lacks_is_filled_in_where_other_ranks_may_have_it(processor, config):
    silent = [dataclasses.replace(sample, audio=None) for sample in small_samples(4)]
    source = Source("a", silent, batch_size=2)
    alone, one_of_two = (Mixture([source], processor, config)[Request(0, 0, 0, 0, size)] for size in (1, 2))
    assert "input_features" not in alone and "audio_mask" not in alone
    assert len(one_of_two["input_features"]) == 2 and not one_of_two["audio_mask"].any()


def test_chance_differs_between_ranks_and_steps(processor, config):
    """One sample, read by two ranks and two steps, is masked in another way by each."""
    source = Source("a", small_samples(1) * 4, LoadingOptions("captioning"), batch_size=2)
    sampler = [requests(RequestSampler([source], 6, 2, rank, 2)) for rank in range(2)]
    assert len({request.seed for rank in sampler for request in rank}) == 12
    mixture = Mixture([source], processor, config)
    masked = [mixture[rank[step]]["labels"].tolist() for rank in sampler for step in range(2)]
    assert all(one != other for i, one in enumerate(masked) for other in masked[:i])


def same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(value, other[name], rtol=0, atol=0)
        else:
            assert value == other[name]


def test_a_batch_is_a_function_of_its_request(processor, config):
    source = Source("a", small_samples(8), batch_size=3)
    wanted = requests(RequestSampler([source], 5, 1))[3]
    one, other = (Mixture([source], processor, config, seed=1) for _ in range(2))
    for earlier in requests(RequestSampler([source], 5, 1))[:3]:
        one[earlier]
    same(one[wanted], other[wanted])


class CountingStream(SampleStream):
    """Every `partitions`-th of 20 samples, in another order each epoch."""

    def __init__(self, samples):
        self.all = samples

    def samples(self, partition: int, partitions: int, epoch: int, seed: int) -> Iterator[Sample]:
        part = self.all[partition::partitions]
        yield from part if epoch % 2 == 0 else part[::-1]


def test_a_stream_that_is_resumed_gives_the_batches_of_one_that_was_not(processor, config):
    stream = Source("s", CountingStream(small_samples(20)), batch_size=2, steps=9)
    other = Source("b", small_samples(4), batch_size=2, steps=3)
    sampler = RequestSampler([stream, other], None, 5, rank=1, world_size=2, num_workers=2)
    whole = Mixture([stream, other], processor, config)
    all_ids = [ids_of(whole, request) for request in requests(sampler)]
    for start in (1, 4, 7):
        resumed = Mixture([stream, other], processor, config)
        assert [ids_of(resumed, request) for request in requests(sampler)[start:]] == all_ids[start:]


def test_stream_parts_are_disjoint_between_ranks_and_workers(processor, config):
    stream = Source("s", CountingStream(small_samples(20)), batch_size=1, steps=10)
    seen = []
    for rank in range(2):
        sampler = RequestSampler([stream], 10, 0, rank=rank, world_size=2, num_workers=2)
        mixture = Mixture([stream], processor, config)
        seen += [ids_of(mixture, request)[0] for request in requests(sampler)]
    assert sorted(seen) == sorted(f"clip{index}" for index in range(20))


def test_each_sample_is_given_once_by_lists_and_by_streams():
    samples = small_samples(5)
    assert list(each_sample(samples)) == list(each_sample(CountingStream(samples))) == samples


def test_a_loader_with_workers_gives_the_batches_of_one_without(processor, config):
    sources = [
        Source("a", small_samples(8), batch_size=2),
        Source("q", small_samples(6, 1), LoadingOptions("question_answering", questions_per_sample=2), batch_size=2),
    ]
    mixture = Mixture(sources, processor, config)
    alone, shared = (list(mixture.loader(6, num_workers=workers)) for workers in (0, 2))
    assert len(alone) == len(shared) == 6
    for one, other in zip(alone, shared, strict=True):
        same(one, other)


def test_epochs_in_a_row_share_an_iterator_and_any_epoch_can_be_the_first(processor, config, monkeypatch):
    mixture = Mixture([Source("a", small_samples(8), batch_size=2)], processor, config)
    whole = list(mixture.loader(7))
    loader = mixture.loader(7, epoch_steps=3)
    begun, iterate = [], RequestSampler.__iter__
    monkeypatch.setattr(RequestSampler, "__iter__", lambda self: begun.append(self.epoch) or iterate(self))
    epochs = []
    for epoch in (0, 1, 2, 1, 2):
        loader.set_epoch(epoch)
        epochs.append(list(loader))
    assert begun == [0, 1] and len(loader) == 3
    for epoch, batches in zip((0, 1, 2, 1, 2), epochs, strict=True):
        expected = whole[3 * epoch : 3 * epoch + 3]
        assert len(batches) == len(expected)
        for one, other in zip(batches, expected, strict=True):
            same(one, other)


def test_a_broken_sample_is_replaced_and_reported(processor, config):
    samples = [*small_samples(5), Sample("broken", "no such file.mp4", None, ("a bell",))]
    source = Source("a", samples, batch_size=3, epochs=1)
    mixture = Mixture([source], processor, config)
    failures, sizes = [], []
    for request in requests(RequestSampler([source], 2, 0)):
        batch = mixture[request]
        failures += batch["failures"]
        sizes.append(len(batch["input_ids"]))
        assert batch["num_read"] == 3 + len(batch["failures"])
    assert sizes == [3, 3]
    assert {failure.id for failure in failures} == {"broken"}
    assert "no such file.mp4" in failures[0].reason


def test_a_broken_sample_of_a_stream_does_not_shift_what_comes_later(processor, config):
    samples = small_samples(6)
    samples[2] = Sample("broken", "no such file.mp4", None, ("a bell",))
    stream = Source("s", CountingStream(samples), batch_size=2, steps=3)
    mixture = Mixture([stream], processor, config)
    batches = [mixture[request] for request in requests(RequestSampler([stream]))]
    assert [batch["ids"] for batch in batches] == [["clip0", "clip1"], ["clip3", "clip3"], ["clip4", "clip5"]]
    assert [{failure.id for failure in batch["failures"]} for batch in batches] == [set(), {"broken"}, set()]


def test_too_many_broken_samples_are_an_error(processor, config):
    broken = [Sample(f"broken{index}", "absent.mp4", None, ("a bell",)) for index in range(30)]
    source = Source("a", broken, batch_size=2)
    with pytest.raises(RuntimeError, match=r"20 samples in a row of 'a' could not be read, such as: .*absent\.mp4"):
        Mixture([source], processor, config)[requests(RequestSampler([source], 1, 0))[0]]
    log = FailureLog(max_share=0.1, patience=20)
    log.update(8, [Failure("one", "no such file"), Failure("two", "no such file")])
    log.update(8, [Failure("two", "no such file")])  # the same one in the next epoch
    with pytest.raises(TooManyFailures, match=r"3 of 17 samples could not be read, more than the 10%") as error:
        log.update(1, [Failure("three", "truncated")])
    assert "2 x no such file" in str(error.value)


def test_cached_tensors_are_those_of_the_media_to_half_precision(processor, tmp_path):
    sample = _clip(tmp_path / "clip.mp4", seed=0)
    options = LoadingOptions(sampling="center")
    folder = cache_folder(tmp_path, processor, options)
    plain = load_sample(sample, processor, options, seed=0).media
    written = load_sample(sample, processor, options, seed=0, cache=folder).media
    Path(sample.video).unlink()
    read = load_sample(sample, processor, options, seed=0, cache=folder).media
    for name in plain:
        torch.testing.assert_close(written[name], read[name], rtol=0, atol=0)
        torch.testing.assert_close(plain[name], read[name], rtol=1e-3, atol=1e-3)
    assert cache_folder(tmp_path, processor, LoadingOptions(sampling="center", num_frames=4)) != folder
    with pytest.raises(ValueError, match="cannot store random results"):
        cache_folder(tmp_path, processor, LoadingOptions(sampling="random"))
    with pytest.raises(ValueError, match="no random transforms"):
        cache_folder(tmp_path, processor, LoadingOptions(sampling="center", transforms={"crop_scale": (0.8, 1.0)}))


def _clip(path: Path, seed: int) -> Sample:
    path.parent.mkdir(exist_ok=True)
    write_clip(sample_scene("train", 0, seed), path)
    return Sample("clip", str(path), str(path), ("a clip",))


def test_a_cache_tells_clips_of_one_name_apart(processor, tmp_path):
    first, second = (_clip(tmp_path / str(seed) / "clip.mp4", seed) for seed in range(2))
    options = LoadingOptions(sampling="center")
    folder = cache_folder(tmp_path, processor, options)

    def load(sample: Sample, cache: Path | None = folder) -> torch.Tensor:
        return load_sample(sample, processor, options, seed=0, cache=cache).media["pixel_values_videos"]

    expected = load(second, None)
    assert not torch.equal(load(first), load(second))
    torch.testing.assert_close(load(second), expected, rtol=1e-3, atol=1e-3)
    shutil.copy(second.video, first.video)  # another clip takes its place
    torch.testing.assert_close(load(first), expected, rtol=1e-3, atol=1e-3)
    assert len(list(folder.rglob("*.safetensors"))) == 2


def test_a_cache_does_not_need_the_modality_that_is_not_wanted(processor, tmp_path):
    whole = small_samples(1)[0]
    broken = Sample("broken", whole.video, "gone.wav", whole.captions)
    folder = cache_folder(tmp_path, processor, LoadingOptions(sampling="center"))
    for _ in range(2):
        sight = load_sample(broken, processor, LoadingOptions(sampling="center", modalities="v"), 0, folder).media
        assert "pixel_values_videos" in sight and "input_features" not in sight
        with pytest.raises(MediaError, match="gone"):
            load_sample(broken, processor, LoadingOptions(sampling="center"), 0, folder)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p, c: Mixture([], p, c), "at least one source"),
        (lambda p, c: Mixture([Source("a", small_samples(2))] * 2, p, c), "different names"),
        (lambda p, c: RequestSampler([Source("a", small_samples(3), batch_size=2)], world_size=2), "fewer than one step"),
        (lambda p, c: RequestSampler([Source("s", CountingStream([]))]), "set its `steps`"),
        (lambda p, c: LoadingOptions("translation"), "must be one of pretraining"),
        (lambda p, c: LoadingOptions("retrieval", captions_per_sample=2), "Only captioning"),
    ],
)  # fmt: skip
def test_bad_mixtures_raise_one_clear_sentence(processor, config, make, message):
    with pytest.raises(ValueError, match=message):
        make(processor, config)
