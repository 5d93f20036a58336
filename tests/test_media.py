# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.

import functools
import io
import os
import socket
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.media_files import (
    BACKENDS,
    FPS,
    RATE,
    numbers,
    picture,
    png_header,
    seconds_at_most,
    tone,
    write_video,
    write_wav,
)
from modeling_valor import media_container, media_tracks
from modeling_valor.media import (
    DamagedMediaWarning,
    MediaError,
    NoVideoError,
    audio_info,
    list_frame_files,
    open_source,
    read_audio,
    read_frames,
    read_image,
    segment_indices,
)


SHARED = Path(__file__).resolve().parents[2] / "shared"


# ---------------------------------------------------------------------------------------------------------------------
# Which frames
# ---------------------------------------------------------------------------------------------------------------------


def test_segment_indices_are_those_of_the_2023_code(fixture_json):
    for case in fixture_json("frame_indices"):
        assert segment_indices(case["n_frames"], case["sample_num"]) == case["picked"]


def test_random_indices_lie_in_their_segments_and_repeat_with_the_seed():
    drawn = [segment_indices(37, 8, "random", torch.Generator().manual_seed(seed)) for seed in range(50)]
    edges = [0, 5, 10, 15, 20, 25, 29, 33, 37]
    for indices in drawn:
        assert all(a <= index < b for index, a, b in zip(indices, edges[:-1], edges[1:], strict=True))
    assert {indices[0] for indices in drawn} == set(range(5))
    assert drawn[7] == segment_indices(37, 8, "random", torch.Generator().manual_seed(7))


@pytest.mark.parametrize(
    ("available", "wanted", "sampling"), [(0, 1, "center"), (5, 0, "center"), (5, 2, "middle"), (5, 10**15, "center")]
)
def test_segment_indices_refuses_what_makes_no_sense(available, wanted, sampling):
    with pytest.raises(ValueError, match="must be"):
        segment_indices(available, wanted, sampling)


def test_frame_files_are_in_natural_order(tmp_path):
    for name in ("frame_10.jpg", "frame_2.jpg", "frame_1.PNG", "notes.txt", "2.jpg", "b3a.png"):
        (tmp_path / name).touch()
    names = [path.name for path in list_frame_files(tmp_path)]
    assert names == ["2.jpg", "b3a.png", "frame_1.PNG", "frame_2.jpg", "frame_10.jpg"]
    with pytest.raises(MediaError, match="no image files"):
        list_frame_files(tmp_path / "..")


# ---------------------------------------------------------------------------------------------------------------------
# Sources
# ---------------------------------------------------------------------------------------------------------------------


def test_every_kind_of_source_gives_the_same_frames_and_sound(video, server):
    content = Path(video).read_bytes()
    file = io.BytesIO(content)
    file.read()
    frames, sound = read_frames(video, 4).frames, read_audio(video).waveform
    for source in (
        Path(video),
        content,
        bytearray(content),
        file,
        f"{server[0]}/video.mp4",
        f"{server[0]}/to?/video.mp4",
    ):
        assert torch.equal(read_frames(source, 4).frames, frames)
        assert torch.equal(read_audio(source).waveform, sound)


def test_temporary_files_are_removed(video):
    with open_source(Path(video).read_bytes()) as path:
        assert os.path.isfile(path)
    assert not os.path.exists(os.path.dirname(path))


@pytest.mark.parametrize(
    "source",
    [
        "ftp://127.0.0.1/a.mp4",
        "RTSP://127.0.0.1/a",
        "data://text/plain,a",
        "rtsp://127.0.0.1/a",
    ],
)
def test_only_http_addresses_are_fetched(source):
    with pytest.raises(MediaError, match="only http and https"), open_source(source):
        pass


def test_redirection_to_a_file_is_refused(server):
    with pytest.raises(MediaError, match="could not be fetched"), open_source(f"{server[0]}/to?file:///etc/hostname"):
        pass


def test_errors_of_a_server_are_told(server):
    with pytest.raises(MediaError, match="404"), open_source(f"{server[0]}/none.mp4"):
        pass


def test_downloads_are_limited_in_size_and_time(server):
    with pytest.raises(MediaError, match="limit of 1000 bytes"), open_source(f"{server[0]}/video.mp4", max_bytes=1000):
        pass
    with pytest.raises(MediaError, match="limit of 0 seconds"), open_source(f"{server[0]}/video.mp4", max_seconds=0):
        pass


def test_silent_server_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/a.mp4"
        with pytest.raises(MediaError, match="could not be fetched"), open_source(address, timeout=0.1):
            pass


def test_paths_that_are_no_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    for name, why in (("none.mp4", "does not exist"), ("pipe.mp4", "is neither a file nor a folder")):
        with pytest.raises(MediaError, match=f"{name} {why}"):
            read_frames(tmp_path / name, 2)
    with pytest.raises(MediaError, match="folder"):
        audio = tmp_path / "folder.wav"
        audio.mkdir()
        with media_container.open_container(str(audio), "folder.wav"):
            pass
    with pytest.raises(MediaError, match="is not a path"):
        read_frames(5, 2)
    with pytest.raises(MediaError, match="binary mode"):
        read_frames(io.StringIO("text"), 2)


# ---------------------------------------------------------------------------------------------------------------------
# Images
# ---------------------------------------------------------------------------------------------------------------------


def test_image_is_upright_by_its_exif_orientation(tmp_path):
    upright = Image.fromarray(picture(0))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to show
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    assert torch.equal(read_image(tmp_path / "turned.png"), torch.from_numpy(picture(0)).permute(2, 0, 1))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1"])
def test_images_of_every_mode_become_rgb(mode, tmp_path):
    name = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    image = Image.fromarray(picture(30)).convert(mode)
    image.save(name)
    assert torch.equal(read_image(name), torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1))


def test_animation_is_an_image_by_its_first_frame_and_a_video_by_all(tmp_path):
    frames = [Image.fromarray(picture(number)) for number in range(12)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=50)
    assert numbers(read_image(tmp_path / "a.gif")[None]) == [0]
    video = read_frames(tmp_path / "a.gif", 4)
    assert video.indices == numbers(video.frames) == [1, 4, 7, 10]
    assert video.timestamps == pytest.approx([0.05, 0.2, 0.35, 0.5])


def test_still_image_as_a_video_is_one_frame(tmp_path):
    Image.fromarray(picture(7)).save(tmp_path / "photo.mp4", format="jpeg")
    video = read_frames(tmp_path / "photo.mp4", 8)
    assert video.frames.shape == (1, 3, 48, 64)
    assert read_audio(tmp_path / "photo.mp4") is None


def test_folder_of_frames_is_a_video_of_which_only_the_chosen_are_opened(tmp_path):
    for number in range(12):
        Image.fromarray(picture(number)).save(tmp_path / f"{number}.png")
    (tmp_path / "0.png").write_bytes(b"broken")
    video = read_frames(tmp_path, 4)
    assert video.indices == numbers(video.frames) == [1, 4, 7, 10]
    assert read_audio(tmp_path) is None
    with pytest.raises(MediaError, match=r"0\.png"):
        read_frames(tmp_path, 12)


def test_image_of_enormous_size_is_refused_before_it_is_decoded(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png_header(40_000, 40_000))
    for read in (read_image, functools.partial(read_frames, num_frames=2)):
        with pytest.raises(MediaError, match=r"bomb\.png"):
            read(tmp_path / "bomb.png")


def test_own_limit_holds_where_pillows_is_lifted(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    (tmp_path / "bomb.png").write_bytes(png_header(40_000, 40_000))
    with pytest.raises(MediaError, match=r"bomb\.png measures 40000 x 40000"):
        read_image(tmp_path / "bomb.png")


def test_broken_images_are_media_errors(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)).save(
        tmp_path / "whole.jpg"
    )
    content = (tmp_path / "whole.jpg").read_bytes()
    for broken, why in ((content[: len(content) // 2], "truncated"), (b"", "empty"), (b"no image", "not an image")):
        (tmp_path / "broken.jpg").write_bytes(broken)
        with pytest.raises(MediaError, match=rf"broken\.jpg .*{why}"):
            read_image(tmp_path / "broken.jpg")


# ---------------------------------------------------------------------------------------------------------------------
# Bad input
# ---------------------------------------------------------------------------------------------------------------------


def test_playlists_open_nothing(server, video, tmp_path):
    """A file that is a list of other files or addresses must not make the reader open them."""
    (tmp_path / "video.mp4").write_bytes(Path(video).read_bytes())
    address, asked = server
    lists = [
        f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n"
        for target in (f"{address}/video.mp4", f"file://{tmp_path}/video.mp4", "video.mp4", "file:///etc/passwd")
    ]
    lists += [f"ffconcat version 1.0\nfile {target}\n" for target in ("video.mp4", f"{address}/video.mp4")]
    lists += [f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=a\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {address[-4:]} RTP/AVP 96\n"]
    lists += [f'<?xml version="1.0"?><MPD><BaseURL>{address}/video.mp4</BaseURL></MPD>']
    for content in lists:
        for name in ("list.mp4", "list.m3u8", "list.wav"):
            (tmp_path / name).write_text(content)
            for read in (functools.partial(read_frames, num_frames=2), read_audio, audio_info):
                with pytest.raises(MediaError, match=name):
                    read(tmp_path / name)
    assert asked == []


def test_path_is_never_taken_for_a_protocol(video, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("concat:a.mp4", "http:a.mp4", "frame%03d.mp4"):
        Path(name).write_bytes(Path(video).read_bytes())
        assert len(read_frames(name, 2).frames) == 2


def damage(content: bytes, begin: float, end: float, count: int) -> bytes:
    """Random bytes in a part of the file."""
    random = np.random.default_rng(0)
    content = bytearray(content)
    for place in random.integers(int(begin * len(content)), int(end * len(content)), count):
        content[place] = random.integers(256)
    return bytes(content)


BROKEN = {
    "empty.mp4": lambda video: b"",
    "text.mp4": lambda video: b"this is no video\n" * 10,
    "random.mp4": lambda video: np.random.default_rng(0).bytes(20_000),
    "random.mkv": lambda video: b"\x1a\x45\xdf\xa3" + np.random.default_rng(0).bytes(20_000),
    "payload.mp4": lambda video: video[:40] + np.random.default_rng(0).bytes(len(video) // 2) + b"moov",
    "no_index.mp4": lambda video: video[: len(video) // 2],
}


@pytest.mark.parametrize("name", BROKEN)
def test_file_that_is_no_video_is_a_media_error_that_names_it(name, video, tmp_path, capfd):
    (tmp_path / name).write_bytes(BROKEN[name](Path(video).read_bytes()))
    for read in (functools.partial(read_frames, num_frames=4), read_audio, audio_info):
        with seconds_at_most(5), pytest.raises(MediaError, match=name):
            read(tmp_path / name)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_truncated_video_is_used_as_far_as_it_goes_with_one_warning(kind, folder):
    options = {"movflags": "faststart"} if kind == "mp4" else {}
    content = Path(write_video(folder / f"whole.{kind}", count=90, **options)).read_bytes()
    path = folder / f"truncated.{kind}"
    path.write_bytes(content[: len(content) // 2])
    with pytest.warns(DamagedMediaWarning, match=f"truncated.{kind} .*as far as it goes") as warned:
        video = read_frames(path, 6)
    assert len(warned) == 1
    assert 0.5 < video.duration < 3.0
    assert video.indices == segment_indices(round(video.duration * FPS), 6)
    assert numbers(video.frames) == [round(seconds * FPS) for seconds in video.timestamps]
    assert max(abs(a - b) for a, b in zip(numbers(video.frames), video.indices, strict=True)) <= 1


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_what_frames_and_sound_of_a_file_lack_is_shown_once(kind, folder):
    options = {"movflags": "faststart"} if kind == "mp4" else {}
    content = Path(write_video(folder / f"complete.{kind}", count=90, sound=True, **options)).read_bytes()
    path = folder / f"cut.{kind}"
    path.write_bytes(content[: len(content) // 2])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")  # as Python has it outside of tests
        read_frames(path, 6)
        read_audio(path)
    assert [warning.category for warning in caught] == [DamagedMediaWarning]


@pytest.mark.parametrize("backend", [None, "pyav"])
def test_damaged_video_is_used_as_far_as_it_goes_with_one_warning(backend, folder, capfd):
    content = Path(write_video(folder / "good.mp4", count=90, size=(320, 240), movflags="faststart")).read_bytes()
    path = folder / "damaged.mp4"
    path.write_bytes(damage(content, 0.4, 0.6, 300))
    with pytest.warns(DamagedMediaWarning, match=r"damaged\.mp4 is damaged .*as far as it goes") as warned:
        video = read_frames(path, 6, backend=backend)
    assert len(warned) == 1
    assert video.frames.shape == (6, 3, 240, 320)
    assert numbers(video.frames[:2]) == video.indices[:2]
    assert capfd.readouterr() == ("", "")


def test_frames_of_enormous_size_are_refused(video, tmp_path, monkeypatch):
    monkeypatch.setattr(media_tracks, "MAX_VIDEO_PIXELS", 64 * 48 - 1)
    with pytest.raises(MediaError, match=r"video\.mp4 measures 64 x 48"):
        read_frames(video, 2)


def test_truncated_sound_is_used_as_far_as_it_goes_with_one_warning(folder):
    content = Path(write_wav(folder / "whole.wav", seconds=4)).read_bytes()
    (folder / "half.wav").write_bytes(content[: 44 + RATE * 4])
    with pytest.warns(DamagedMediaWarning, match=r"half\.wav .*as far as it goes") as warned:
        audio = read_audio(folder / "half.wav")
    assert len(warned) == 1
    assert np.allclose(audio.waveform.numpy(), tone(4)[: 2 * RATE], atol=1e-4)
    assert audio.duration == pytest.approx(2)


def test_sound_file_without_samples_is_a_media_error(folder):
    (folder / "header.wav").write_bytes(Path(write_wav(folder / "whole.wav")).read_bytes()[:44])
    for read in (read_audio, audio_info):
        with pytest.raises(MediaError, match=r"header\.wav"):
            read(folder / "header.wav")


# ---------------------------------------------------------------------------------------------------------------------
# Real and broken files that are not part of the repository
# ---------------------------------------------------------------------------------------------------------------------


def shared_files(folder: str) -> list[str]:
    root = SHARED / "media"
    return sorted(str(path.relative_to(root)) for path in root.glob(f"{folder}/*")) or ["none"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [*shared_files("real/video"), *shared_files("real/video_silent")])
def test_real_videos_look_the_same_to_every_backend(name, backend, shared):
    path = shared / "media" / name
    if name.endswith("audio_only_opus.mp4"):
        with pytest.raises(NoVideoError):
            read_frames(path, 8, backend=backend)
        return
    video, reference = (read_frames(path, 8, backend=choice) for choice in (backend, "pyav"))
    assert video.indices == reference.indices == segment_indices(reference.num_available, 8)
    assert video.timestamps == pytest.approx(reference.timestamps, abs=1e-4)
    assert (video.frames.float() - reference.frames).abs().mean() < (2 if "10bit" in name else 0.01)
    hands_over = not name.endswith((".mp4", ".mov")) or name.endswith(
        ("fire_rot180_vfr.mp4", "nasa_13013.mp4", "phone_portrait_rot90_vfr.mp4")
    )
    assert video.backend == backend or hands_over


@pytest.mark.parametrize("name", [*shared_files("real/audio"), *shared_files("real/video")])
def test_real_sound_is_as_long_as_it_says(name, shared):
    audio, info = read_audio(shared / "media" / name), audio_info(shared / "media" / name)
    assert audio.sampling_rate == info.sampling_rate
    assert len(audio.waveform) / audio.sampling_rate == pytest.approx(info.duration, abs=0.03)
    assert 1e-4 < audio.waveform.abs().max() <= 1.5


@pytest.mark.parametrize("name", shared_files("real/images"))
def test_real_images_are_as_pillow_reads_them(name, shared):
    image = read_image(shared / "media" / name)
    assert np.array_equal(image.permute(1, 2, 0), Image.open(shared / "media" / name).convert("RGB"))


OUTCOMES = {  # frames, sound
    "damaged_frames.mp4": ("warns", "reads"),
    "header_only.wav": (NoVideoError, MediaError),
    "jpeg_named.mp4": ("reads", None),
    "text_named.jpg": (MediaError, MediaError),
    "text_named.mp4": (MediaError, MediaError),
    "text_named.wav": (MediaError, MediaError),
    "truncated.jpg": (MediaError, None),
    "truncated.mkv": ("warns", "warns"),
    "truncated.ogg": (NoVideoError, "reads"),
    "truncated.wav": (NoVideoError, "warns"),
    "truncated_faststart.mp4": ("warns", "warns"),
    "truncated_no_moov.mp4": (MediaError, MediaError),
    "zero_byte.jpg": (MediaError, MediaError),
    "zero_byte.mp4": (MediaError, MediaError),
}


@pytest.mark.parametrize("name", shared_files("broken"))
def test_broken_files_have_the_outcome_that_is_defined(name, shared, capfd):
    path = shared / "media" / name
    for read, outcome in zip(
        (functools.partial(read_frames, num_frames=8), read_audio), OUTCOMES[path.name], strict=True
    ):
        with warnings.catch_warnings(record=True) as warned, seconds_at_most(5):
            warnings.simplefilter("always")
            if isinstance(outcome, type):
                with pytest.raises(MediaError, match=path.name) as raised:
                    read(path)
                assert raised.type is outcome
            else:
                assert (read(path) is None) == (outcome is None)
        assert [path.name in str(warning.message) for warning in warned] == [True] * (outcome == "warns")
    assert capfd.readouterr() == ("", "")
