# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.

import io
import logging
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoVideoProcessor
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.video_utils import VideoMetadata

from helpers.media_files import torchcodec_works
from modeling_valor import video_processing_valor
from modeling_valor.media import MediaError, NoVideoError, read_frames
from modeling_valor.video_processing_valor import ValorVideoProcessor


STATISTICS = {
    "clip_stats": (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD),
    "imagenet_stats": (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def video(folder) -> str:
    """40 frames of 64 x 48, each brighter than the one before."""
    path = folder / "video.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(40):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 + 5 * number, dtype=np.uint8), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 20)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


@pytest.fixture
def processor() -> ValorVideoProcessor:
    return ValorVideoProcessor(num_frames=4, size={"height": 32, "width": 32})


def noise(count: int, height: int = 40, width: int = 56, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def pixels(processor, videos, **kwargs) -> torch.Tensor:
    return processor(videos, return_tensors="pt", **kwargs).pixel_values_videos


# ---------------------------------------------------------------------------------------------------------------------
# Numbers
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("mode", ["none", "crop_flip"])
@pytest.mark.parametrize("statistics", STATISTICS)
def test_transform_is_that_of_the_2023_code(statistics, mode, antialias, load_fixture):
    recorded = load_fixture("video_transform")
    mean, std = STATISTICS[statistics]
    processor = ValorVideoProcessor(
        num_frames=3,
        size={"height": 64, "width": 64} if mode == "none" else {"shortest_edge": 64},
        do_center_crop=mode == "crop_flip",
        crop_size={"height": 64, "width": 64},
        antialias=antialias,
        image_mean=mean,
        image_std=std,
    )
    expected = recorded[f"{statistics}/{mode}/{'antialias' if antialias else 'no_antialias'}"]
    assert torch.allclose(pixels(processor, recorded["frames_uint8"])[0], expected, rtol=0, atol=2e-5)


def test_sample_frames_is_that_of_the_2023_code(fixture_json):
    processor = ValorVideoProcessor()
    for case in fixture_json("frame_indices"):
        metadata = VideoMetadata(total_num_frames=case["n_frames"])
        assert processor.sample_frames(metadata, num_frames=case["sample_num"]).tolist() == case["picked"]


def test_crop_of_an_odd_rest_is_rounded_as_torchvision_rounds_it():
    frame = torch.arange(7.0).expand(1, 3, 4, 7) * 10
    processor = ValorVideoProcessor(
        do_resize=False, do_center_crop=True, crop_size={"height": 4, "width": 4}, do_rescale=False, do_normalize=False
    )
    assert pixels(processor, frame, do_sample_frames=False)[0, 0, 0, 0].tolist() == [20, 30, 40, 50]


# ---------------------------------------------------------------------------------------------------------------------
# Kinds of input
# ---------------------------------------------------------------------------------------------------------------------


def test_every_kind_of_file_gives_the_frames_of_the_video(video, processor):
    expected = pixels(processor, read_frames(video, 4).frames)
    content = Path(video).read_bytes()
    for source in (video, Path(video), content, io.BytesIO(content)):
        assert torch.equal(pixels(processor, source), expected)


def test_every_kind_of_frames_gives_the_same(processor, tmp_path):
    array = noise(9)
    images = [Image.fromarray(frame) for frame in array]
    files = [tmp_path / f"{number}.png" for number in range(9)]
    for image, file in zip(images, files, strict=True):
        image.save(file)
    expected = pixels(processor, array)
    assert torch.equal(expected, pixels(processor, array[[1, 3, 5, 7]], do_sample_frames=False))
    tensor = torch.from_numpy(array).permute(0, 3, 1, 2)
    for frames in (
        tensor,
        list(array),
        list(tensor),
        images,
        tuple(images),
        [files],
        [list(map(str, files))],
        tmp_path,
        [array],
    ):
        assert torch.equal(pixels(processor, frames), expected)


@pytest.mark.parametrize("library", ["decord", "torchcodec", "torchcodec NHWC"])
def test_decoders_of_other_libraries_are_sampled_by_frame_number(library, video, processor):
    if library == "decord":
        decoder = pytest.importorskip("decord").VideoReader(video)
    else:
        if not torchcodec_works():
            pytest.skip("needs torchcodec and FFmpeg")
        from torchcodec.decoders import VideoDecoder

        decoder = VideoDecoder(video, dimension_order="NHWC" if "NHWC" in library else "NCHW")
    expected = processor(video, return_tensors="pt", return_metadata=True)
    for form in (decoder, [decoder], [[decoder]]):
        features = processor(form, return_tensors="pt", return_metadata=True)
        assert (features.pixel_values_videos - expected.pixel_values_videos).abs().max() < 0.03
        (metadata,) = features["video_metadata"]
        assert metadata.frames_indices == [4, 14, 24, 34]
        assert (metadata.total_num_frames, metadata.fps, metadata.duration) == (40, 20, 2)
    batch = pixels(processor, [decoder, video, noise(4)])
    assert (batch[0] - batch[1]).abs().max() < 0.03
    assert len(pixels(processor, decoder, fps=3)[0]) == 6
    assert len(pixels(processor, decoder, num_frames=50)[0]) == 50


def test_a_decoder_that_fails_is_a_media_error(processor):
    class Broken:
        def __len__(self):
            return 9

        def get_avg_fps(self):
            return 25.0

        def get_batch(self, indices):
            raise RuntimeError("no such packet")

    with pytest.raises(MediaError, match="<Broken> cannot be decoded: no such packet"):
        processor(Broken())


def test_a_decoder_of_sound_is_no_video(processor):
    """decord's AudioReader has a length and batches, as its VideoReader, but no frame rate."""

    class AudioReader:
        shape = (1, 9)

        def __len__(self):
            return 9

        def get_batch(self, indices):
            raise AssertionError("sound is read as frames")

    with pytest.raises(ValueError, match=r"A video cannot be made of AudioReader.*`\(waveform, rate\)`"):
        processor(AudioReader())


def test_images_of_different_sizes_in_a_folder_are_no_video(processor, tmp_path):
    for width in (32, 48):
        Image.new("RGB", (width, 32)).save(tmp_path / f"{width}.png")
    with pytest.raises(MediaError, match="as the frames of one video: give the images by themselves"):
        processor(str(tmp_path))


def test_frames_may_bring_their_metadata(processor):
    """What `transformers.video_utils.load_video` gives: sampled frames, and which frames of the video they are."""
    array = noise(9)
    expected = pixels(processor, array)
    metadata = VideoMetadata(total_num_frames=90, fps=10.0, duration=9.0, frames_indices=list(range(5, 90, 10)))
    for pair in ((array, metadata), (list(array), dict(metadata)), [(array, metadata)], [[array, dict(metadata)]]):
        features = processor(pair, return_tensors="pt", return_metadata=True)
        assert torch.equal(features.pixel_values_videos, expected)
        assert features["video_metadata"][0].frames_indices == [15, 35, 55, 75]
    assert metadata.frames_indices == list(range(5, 90, 10))  # the user's own
    assert torch.equal(pixels(processor, [(array, {"fps": 10.0}), array]), expected.repeat(2, 1, 1, 1, 1))
    assert len(pixels(processor, (array, metadata), fps=0.5)[0]) == 4  # 9 seconds, not 0.9
    assert len(pixels(processor, (array, {"fps": 4.5}), fps=1)[0]) == 2


def test_entries_of_datasets_are_their_files(processor, video):
    entry = {"path": video, "bytes": None}
    assert torch.equal(pixels(processor, [entry, video])[0], pixels(processor, entry)[0])
    assert torch.equal(pixels(processor, {"bytes": Path(video).read_bytes(), "path": None}), pixels(processor, video))


def test_image_is_one_frame_however_it_comes(processor, tmp_path):
    array = noise(1)
    image = Image.fromarray(array[0])
    image.save(tmp_path / "image.png")
    content = (tmp_path / "image.png").read_bytes()
    expected = pixels(processor, array, do_sample_frames=False)
    assert expected.shape == (1, 1, 3, 32, 32)
    for source in (
        image,
        [image],
        [[image]],
        array[0],
        [array[0]],
        tmp_path / "image.png",
        [str(tmp_path / "image.png")],
        content,
    ):
        assert torch.equal(pixels(processor, source), expected)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_images_of_every_mode_become_rgb(mode, processor):
    image = Image.fromarray(noise(1)[0]).convert(mode)
    assert torch.equal(pixels(processor, image), pixels(processor, image.convert("RGB")))


def test_gray_arrays_become_rgb(processor):
    gray = noise(5)[..., 0]
    expected = pixels(processor, np.repeat(gray[..., None], 3, -1))
    assert torch.equal(pixels(processor, gray[..., None]), expected)
    assert torch.equal(pixels(processor, list(gray)), expected)


def test_short_video_repeats_its_last_frame(processor):
    array = noise(3)
    assert torch.equal(pixels(processor, array), pixels(processor, array[[0, 1, 2, 2]], do_sample_frames=False))


def test_missing_video_is_zeros_that_are_masked(processor):
    features = processor(None, return_tensors="pt")
    assert features.pixel_values_videos.shape == (1, 4, 3, 32, 32)
    assert not features.pixel_values_videos.any()
    assert features.frame_mask.dtype == torch.bool
    assert not features.frame_mask.any()


# ---------------------------------------------------------------------------------------------------------------------
# Batches
# ---------------------------------------------------------------------------------------------------------------------


def test_batch_equals_its_samples_alone(video, processor):
    samples = [
        video,
        noise(9),
        Image.fromarray(noise(1, seed=1)[0]),
        None,
        [Image.fromarray(frame) for frame in noise(6)],
    ]
    features = processor(samples, return_tensors="pt")
    assert features.frame_mask.tolist() == [[True] * 4, [True] * 4, [True] + [False] * 3, [False] * 4, [True] * 4]
    for index, sample in enumerate(samples):
        if sample is not None:
            alone = pixels(processor, sample)[0]
            assert torch.equal(features.pixel_values_videos[index, : len(alone)], alone)
    assert not features.pixel_values_videos[~features.frame_mask].any()


def test_mask_is_given_only_where_a_frame_is_missing(video, processor):
    assert list(processor([video, noise(9)], return_tensors="pt")) == ["pixel_values_videos"]
    assert list(processor([None, noise(9)], return_tensors="pt")) == ["pixel_values_videos", "frame_mask"]


def test_array_of_five_dimensions_is_a_batch(processor):
    batch = np.stack([noise(4, seed=0), noise(4, seed=1)])
    assert torch.equal(pixels(processor, batch), pixels(processor, list(batch)))


def test_numpy_comes_out_on_demand(processor):
    features = processor([noise(4), None], return_tensors="np")
    assert isinstance(features.pixel_values_videos, np.ndarray)
    assert features.pixel_values_videos.dtype == np.float32
    assert features.frame_mask.dtype == bool


def test_different_sizes_are_refused_where_one_tensor_is_asked_for():
    processor = ValorVideoProcessor(num_frames=2, size={"shortest_edge": 16})
    videos = [noise(2, 32, 48), noise(2, 48, 32)]
    with pytest.raises(ValueError, match="do_center_crop"):
        processor(videos, return_tensors="pt")
    assert [clip.shape for clip in processor(videos).pixel_values_videos] == [(2, 3, 16, 24), (2, 3, 24, 16)]
    assert pixels(processor, videos, do_center_crop=True, crop_size=16).shape == (2, 2, 3, 16, 16)


# ---------------------------------------------------------------------------------------------------------------------
# Options
# ---------------------------------------------------------------------------------------------------------------------


def test_random_sampling_and_flips_repeat_with_the_seed(video, processor):
    options = {"sampling": "random", "do_flip": True, "num_frames": 3}
    array = noise(40)
    drawn = [pixels(processor, [video, array], generator=seed, **options) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    generator = torch.Generator().manual_seed(1)
    assert torch.equal(pixels(processor, [video, array], generator=generator, **options), drawn[0])


def test_flip_mirrors_a_whole_video_half_of_the_time(processor):
    array = noise(4)
    plain = pixels(processor, array)[0]
    mirrored = pixels(processor, array[:, :, ::-1])[0]
    clips = pixels(processor, [array] * 40, do_flip=True, generator=0)
    flipped = [torch.allclose(clip, mirrored, atol=1e-5) for clip in clips]
    assert all(torch.equal(clip, plain) for clip, is_flipped in zip(clips, flipped, strict=True) if not is_flipped)
    assert 10 < sum(flipped) < 30


def test_metadata_tells_where_the_frames_are_from(video, processor):
    known, missing = processor([video, None], return_metadata=True, return_tensors="pt")["video_metadata"]
    assert missing is None
    assert (known.total_num_frames, known.fps, known.duration) == (40, pytest.approx(20), pytest.approx(2))
    assert known.frames_indices == [4, 14, 24, 34]
    assert (known.height, known.width) == (48, 64)


@pytest.mark.parametrize("available, indices", [(1, [0, 0, 0, 0, 0]), (3, [0, 1, 2, 2, 2])])
def test_the_last_frame_is_repeated_wherever_the_number_was_set(available, indices, processor, tmp_path):
    """As in the 2023 code: 1 frame, 4 wanted -> 0, 0, 0, 0."""
    array = noise(available)
    expected = pixels(processor, array[indices], do_sample_frames=False)
    files = [tmp_path / f"{number}.png" for number in range(available)]
    for frame, file in zip(array, files, strict=True):
        Image.fromarray(frame).save(file)
    videos = [array, torch.from_numpy(array).permute(0, 3, 1, 2), *([] if available == 1 else [list(array), tmp_path])]
    for video in videos:
        assert torch.equal(pixels(processor, video, num_frames=5), expected)
        own = ValorVideoProcessor(num_frames=5, size={"height": 32, "width": 32})
        assert torch.equal(pixels(own, video), expected)


def test_backend_is_the_one_asked_for(video):
    processor = ValorVideoProcessor(num_frames=2, backend="pyav")
    assert processor(video, return_metadata=True)["video_metadata"][0].video_backend == "pyav"
    with pytest.raises(Exception, match="backend"):
        processor(video, backend="opencv")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"antialias": False},
        {"size": {"shortest_edge": 36}, "do_center_crop": True, "crop_size": 32},
        {"resample": 3},
    ],
)
def test_frames_that_are_too_large_together_are_resized_one_by_one(options, video, processor):
    options = {"return_tensors": "pt", "return_metadata": True, **options}
    expected = processor(video, **options)
    features = processor(video, media_limits={"read_bytes": 3 * 64 * 48 * 3}, **options)
    assert torch.equal(features.pixel_values_videos, expected.pixel_values_videos)
    (metadata,), (expected,) = features["video_metadata"], expected["video_metadata"]
    assert (metadata.height, metadata.width) == (expected.height, expected.width) == (48, 64)
    with pytest.raises(MediaError, match="4 pictures of 64 x 48"):
        processor(video, media_limits={"read_bytes": 3 * 64 * 48 * 3}, crop_scale=(0.8, 1.0))


@pytest.mark.parametrize("reload", [ValorVideoProcessor, AutoVideoProcessor])
def test_processor_is_the_same_after_saving_and_loading(reload, tmp_path, video):
    processor = ValorVideoProcessor(
        num_frames=3,
        sampling="random",
        antialias=False,
        backend="pyav",
        do_center_crop=True,
        size={"shortest_edge": 24},
    )
    assert processor.save_pretrained(tmp_path) == [str(tmp_path / "video_preprocessor_config.json")]
    again = reload.from_pretrained(tmp_path)
    assert type(again) is ValorVideoProcessor
    assert again.to_dict() == processor.to_dict()
    assert torch.equal(pixels(again, video, generator=3), pixels(processor, video, generator=3))


@pytest.mark.parametrize(
    "frames, warns",
    [
        (noise(4).astype(np.float32), False),
        (noise(4).astype(np.float32) / 255, True),
        (torch.from_numpy(noise(4)).double() / 127.5 - 1, True),
        (noise(4), False),
        (noise(4) // 255, False),
    ],
)
def test_frames_that_look_rescaled_already_are_said(frames, warns, processor, caplog, monkeypatch):
    video_processing_valor.logger.warning_once.cache_clear()
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    processor(frames)
    assert ["do_rescale=False" in record.message for record in caplog.records] == [True] * warns
    caplog.clear()
    processor(frames, do_rescale=False)
    assert not caplog.records


def test_unknown_arguments_are_refused_by_name(processor):
    with pytest.raises(TypeError, match="num_frame'"):
        processor(noise(4), num_frame=2)


def test_limits_of_media_are_the_processors_or_the_calls(video, processor, tmp_path):
    closed = ValorVideoProcessor(media_limits={"public_only": True})
    closed.save_pretrained(tmp_path)
    for refusing in (closed, ValorVideoProcessor.from_pretrained(tmp_path)):
        for source in (video, [[video, video]]):
            with pytest.raises(MediaError, match="only http and https"):
                refusing(source)
        assert refusing(Path(video).read_bytes()) and refusing(video, media_limits={})
    with pytest.raises(MediaError, match="limit of 100 bytes"):
        processor(Path(video).read_bytes(), media_limits={"max_bytes": 100})
    with pytest.raises(ValueError, match="media_limits"):
        ValorVideoProcessor(media_limits={"max_byte": 100})


# ---------------------------------------------------------------------------------------------------------------------
# Bad input
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "video",
    [
        5,
        noise(0),
        [],
        [[]],
        {"video": 1},
        np.zeros((2, 2, 2, 2, 2, 2)),
        [noise(1)[0], noise(1, 20, 20)[0]],
        [noise(2), "a", 5],
        noise(2)[:, :0],
        np.full((2, 20, 20, 3), np.nan),
        np.full((2, 20, 20, 3), np.inf, dtype=np.float32),
        (noise(2), {"fps": "fast"}),
        (noise(2), {"fps": -1}),
    ],
)
def test_what_is_no_video_is_refused(video, processor):
    with pytest.raises(ValueError, match=r"video|frames|exist"):
        processor(video)


def test_file_with_sound_only_is_told_apart(processor, tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4000), dtype=np.float32), "fltp", "mono")
        frame.rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(NoVideoError, match=r"sound\.mp4"):
        processor(tmp_path / "sound.mp4")


def test_broken_file_in_a_batch_is_named(video, processor, tmp_path):
    (tmp_path / "broken.mp4").write_text("no video")
    with pytest.raises(MediaError, match=r"broken\.mp4"):
        processor([video, tmp_path / "broken.mp4"])


def ramp(frames: int, height: int, width: int) -> torch.Tensor:
    """Frames (F, 3, H, W) whose first two channels are the row and the column of each pixel."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns, rows * 0]).to(torch.uint8).repeat(frames, 1, 1, 1)


def test_a_random_square_is_the_same_in_all_frames_and_covers_the_share_of_area_asked_for():
    processor = ValorVideoProcessor(
        num_frames=3, size={"height": 64, "width": 64}, do_rescale=False, do_normalize=False, do_sample_frames=False
    )
    sides, corners = [], set()
    for seed in range(40):
        (clip,) = processor(
            ramp(3, 100, 80), crop_scale=(0.5, 0.75), generator=seed, return_tensors="pt"
        ).pixel_values_videos
        assert clip.shape == (3, 3, 64, 64)
        torch.testing.assert_close(clip[1:], clip[:1].expand(2, -1, -1, -1))
        # Resizing keeps a ramp a ramp: its slope is the scale
        sides.append(float(clip[0, 0, 40, 0] - clip[0, 0, 20, 0]) / 20 * 64)
        corners.add((round(float(clip[0, 0, 0, 0])), round(float(clip[0, 1, 0, 0]))))
    shares = [side**2 / 8000 for side in sides]
    assert 0.49 < min(shares) < 0.55 and 0.7 < max(shares) < 0.76
    assert len(corners) > 20


def test_a_square_that_does_not_fit_is_the_largest_one_in_the_centre():
    """As torchvision's RandomResizedCrop, which the 2023 code used."""
    processor = ValorVideoProcessor(size={"height": 40, "width": 40}, do_rescale=False, do_normalize=False)
    frames = ramp(1, 40, 160)
    clip = processor([frames], crop_scale=(0.8, 1.0), num_frames=1, return_tensors="pt").pixel_values_videos
    torch.testing.assert_close(clip[0], frames[..., 60:100].float())
