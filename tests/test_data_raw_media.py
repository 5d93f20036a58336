# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Frames and sound that workers only read: prepared later, they are those of the processor."""

import numpy as np
import pytest
import torch

from helpers.media_files import tone, write_sound, write_video
from helpers.training_world import small_config, small_processor, small_samples
from modeling_valor.data.collation import ValorCollator
from modeling_valor.data.loading import LoadingOptions, load_sample
from modeling_valor.data.mixture import Mixture, RequestSampler, Source
from modeling_valor.data.samples import Sample
from modeling_valor.media import MediaError


@pytest.fixture(scope="module")
def processor():
    return small_processor()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files of several sizes and rates: name -> (video, audio)."""
    folder = tmp_path_factory.mktemp("raw")
    rng = np.random.default_rng(0)
    loud_and_quiet = (0.3 * rng.standard_normal(5 * 48000) * np.linspace(0, 1, 5 * 48000) ** 4).astype(np.float32)
    small = write_video(folder / "small.mp4", 12, size=(64, 48), sound=True)
    wide = write_video(folder / "wide.mp4", 3, size=(160, 48))
    large = write_video(folder / "large.mp4", 4, size=(320, 240))
    stereo = write_sound(
        folder / "stereo.wav", np.stack([loud_and_quiet, -loud_and_quiet / 2]), "pcm_s16le", 48000, "stereo"
    )
    same_rate = write_sound(folder / "same.wav", tone(13, 22050), "pcm_s16le", 22050)
    long = write_sound(folder / "long.wav", tone(61, 8000), "pcm_s16le", 8000)
    short = write_sound(folder / "short.wav", tone(0.02, 22050), "pcm_s16le", 22050)
    return {
        "own sound": (small, small),
        "two channels": (wide, stereo),
        "16 bits of this rate": (large, same_rate),
        "more than a minute": (small, long),
        "less than a window": (wide, short),
        "no sound": (large, large),
        "no frames": (None, same_rate),
    }


def batches(processor, samples, options, complete=False):
    """The inputs of a batch as workers prepare it, and as it is prepared from what they read."""
    collate = ValorCollator(processor, small_config(processor))
    results = []
    for raw in (False, True):
        loaded = [load_sample(sample, processor, options, seed, raw=raw) for seed, sample in enumerate(samples)]
        results.append(collate(loaded, options, seed=0, complete=complete))
    usual, other = results
    media = other.pop("raw_media")
    return usual, {**other, **media.to(torch.device("cpu")).prepare(processor)}, media


def assert_same(usual, other):
    assert usual.keys() == other.keys()
    for name, value in usual.items():
        assert other[name].dtype == value.dtype
        torch.testing.assert_close(other[name], value, rtol=0, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}")


TRANSFORMS = {
    "stretched": {},
    "centre": {"size": {"shortest_edge": 16}, "do_center_crop": True, "crop_size": {"height": 16, "width": 16}},
    "augmented": {"crop_scale": (0.5, 1.0), "do_flip": True},
    "without antialiasing": {"antialias": False, "do_flip": True},
}


@pytest.mark.parametrize(
    "transforms, side",
    [("stretched", 112), ("centre", 24), ("augmented", 24), ("augmented", 112), ("without antialiasing", 24)],
)
def test_what_is_prepared_later_is_what_the_processor_gives(processor, files, monkeypatch, transforms, side):
    """With 112 pixels all frames are sent as they were decoded, with 24 those of two small files only."""
    options = TRANSFORMS[transforms]
    if transforms == "centre":
        options = {
            "size": {"shortest_edge": side},
            "do_center_crop": True,
            "crop_size": {"height": side, "width": side},
        }
    else:
        options = {**options, "size": {"height": side, "width": side}}
    samples = [Sample(name, video, audio, ("a bell rings",)) for name, (video, audio) in files.items()]
    loading = LoadingOptions("retrieval", num_frames=3, num_audio_clips=2, transforms=options)
    usual, other, media = batches(processor, samples, loading)
    assert_same(usual, other)
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor.clone())
    assert_same(other, {**other, **media.pin_memory().prepare(processor)})
    assert sum(tensor.nbytes for tensor in pinned) == media.num_bytes
    if transforms != "augmented":  # which cuts out squares of any size
        assert media.prepared == ([] if side == 112 else [1, 2, 4, 5])
    assert media.waveforms.dtype == torch.float32  # of files of all kinds; those of one 16-bit file are int16


def test_real_clips(processor, shared):
    """Of real cameras and microphones, at the size of the released models."""
    paths = sorted((shared / "media" / "real" / "video").glob("*"))[3:6]
    samples = [Sample(path.name, str(path), str(path), ("a bell rings",)) for path in paths]
    options = LoadingOptions("retrieval", num_frames=2, transforms={"size": {"height": 224, "width": 224}})
    readable = []
    for sample in samples:
        try:
            load_sample(sample, processor, options, 0)
        except MediaError:
            continue
        readable.append(sample)
    usual, other, _ = batches(processor, readable, options)
    assert_same(usual, other)


def test_16_bit_sound_is_sent_in_16_bits(processor, files):
    sample = Sample("sound", None, files["16 bits of this rate"][1], ("a bell rings",))
    options = LoadingOptions("retrieval", sampling="center")
    usual, other, media = batches(processor, [sample], options)
    assert media.waveforms.dtype == torch.int16
    assert media.num_bytes == 2 * (511 * 220 + 551) + 4  # 511 steps and a window of the analysis, and the mean
    assert_same(usual, other)


def test_a_batch_without_a_modality_has_zeros_where_other_ranks_have_it(processor, files):
    sample = Sample("frames", files["no sound"][0], None, ("a bell rings",))
    usual, other, _ = batches(processor, [sample], LoadingOptions("retrieval"), complete=True)
    assert "audio_mask" in other and not other["audio_mask"].any()
    assert_same(usual, other)


def test_what_cannot_be_read_or_overflows_is_one_error_as_without_it(processor, files):
    loud = 1e20 * tone(1, 22050)
    for sample, why in (
        (Sample("loud", None, loud, ("a",)), "no finite features"),
        (Sample("silent", None, files["no sound"][0], ("a",)), "nothing of the modalities"),
        (Sample("absent", "absent.mp4", None, ("a",)), "absent.mp4"),
    ):
        with pytest.raises(MediaError, match=why):
            load_sample(sample, processor, LoadingOptions("retrieval"), 0, raw=True)


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_of_workers_are_the_same(processor, workers):
    """Raw media pass through a process of their own as well."""
    config, samples = small_config(processor), small_samples(4)
    sources = [Source("all", samples, LoadingOptions("retrieval", sampling="center"), batch_size=2)]
    usual = [Mixture(sources, processor, config)[request] for (request,) in RequestSampler(sources)]
    mixture = Mixture(sources, processor, config, preprocess_on_device=True)
    for batch, expected in zip(mixture.loader(num_workers=workers), usual, strict=True):
        media = batch.pop("raw_media").prepare(processor)
        tensors = {name: value for name, value in expected.items() if isinstance(value, torch.Tensor)}
        assert_same(tensors, {name: value for name, value in {**batch, **media}.items() if name in tensors})


def test_samples_of_a_cache_are_sent_as_they_are(processor, tmp_path):
    options = LoadingOptions("retrieval", sampling="center")
    sources = [Source("all", small_samples(2), options, batch_size=2, cache_dir=tmp_path)]
    ((request,),) = RequestSampler(sources)
    batch = Mixture(sources, processor, small_config(processor), preprocess_on_device=True)[request]
    assert "raw_media" not in batch and "pixel_values_videos" in batch
