# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.

import functools
import gc
import os
import struct
from fractions import Fraction
from pathlib import Path

import av
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
    tone,
    write_sound,
    write_video,
    write_wav,
)
from modeling_valor import media_decord, media_video
from modeling_valor.media import (
    MediaError,
    NoVideoError,
    audio_info,
    iterate_frames,
    read_audio,
    read_frames,
    segment_indices,
)
from modeling_valor.media_decord import decord


CONTAINERS = {
    "mp4": {},
    "fragmented.mp4": {"movflags": "frag_keyframe+empty_moov"},
    "mov": {},
    "mkv": {},
    "live.mkv": {"live": "1"},
    "webm": {"codec": "libvpx"},
    "avi": {"codec": "mpeg4"},
    "ts": {},
    "flv": {},
    "h264": {},
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", CONTAINERS)
def test_constant_rate_gives_the_frames_of_segment_indices(kind, backend, folder):
    """Whether the container states a number of frames, a duration, both or neither."""
    options = dict(CONTAINERS[kind])
    path = folder / f"constant.{kind}"
    write_video(path, count=90, **options)
    video = read_frames(path, 7, backend=backend)
    assert numbers(video.frames) == video.indices == segment_indices(90, 7)
    assert video.timestamps == pytest.approx([index / FPS for index in video.indices], abs=1e-3)
    assert video.duration == pytest.approx(90 / FPS, abs=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_variable_rate_is_sampled_by_time(kind, backend, folder):
    steps = [2] * 50 + [20] * 10 + [3] * 20
    stamps = [0, *np.cumsum(steps).tolist()]
    path = write_video(folder / f"variable.{kind}", count=len(stamps), stamps=stamps)
    video = read_frames(path, 6, backend=backend)
    # The slow way: the last frame that has begun at the middle of each chosen step of time
    step = video.duration * 100 / video.num_available
    moments = [(index + 0.5) * step for index in segment_indices(video.num_available, 6)]
    expected = [max(number for number, stamp in enumerate(stamps) if stamp <= moment) for moment in moments]
    assert numbers(video.frames) == expected
    assert video.timestamps == pytest.approx([stamps[number] / 100 for number in expected], abs=2e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["mp4", "mkv"])
@pytest.mark.parametrize(("count", "expected"), [(1, [0, 0, 0, 0]), (3, [0, 1, 2, 2]), (4, [0, 1, 2, 3])])
def test_short_video_repeats_its_last_frame(count, expected, kind, backend, folder):
    video = read_frames(write_video(folder / f"short{count}.{kind}", count=count), 4, backend=backend)
    assert numbers(video.frames) == video.indices == expected


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_frames_are_upright_by_the_rotation_that_the_video_states(rotation, backend, folder):
    path = write_video(folder / f"turned{rotation}.mp4", count=3, rotation=rotation)
    frame = read_frames(path, 1, backend=backend).frames[0]
    turned = np.rot90(picture(1), rotation // 90)  # the display matrix turns counterclockwise
    assert frame.shape[1:] == turned.shape[:2]
    assert np.abs(frame.permute(1, 2, 0).float().numpy() - turned).mean() < 6


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("pix_fmt", "size"), [("yuv420p10le", (64, 48)), ("yuv444p", (63, 47)), ("yuvj420p", (64, 48))]
)
def test_depths_and_odd_sizes_look_the_same_to_every_backend(pix_fmt, size, backend, folder):
    path = write_video(folder / f"{pix_fmt}.mp4", count=20, pix_fmt=pix_fmt, size=size)
    frames, reference = (read_frames(path, 4, backend=name).frames.float() for name in (backend, "pyav"))
    assert frames.shape == (4, 3, size[1], size[0])
    assert (frames - reference).abs().mean() < 2
    assert numbers(frames) == segment_indices(20, 4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_frames_before_the_beginning_of_an_edit_are_not_there(backend, folder):
    """A cut without encoding anew keeps what comes before the cut, and says where to begin."""
    stamps = [4 * number - 40 for number in range(60)]
    path = write_video(folder / "edit.mp4", stamps=stamps, avoid_negative_ts="disabled")
    video = read_frames(path, 5, backend=backend)
    assert video.duration == pytest.approx(2.0)
    assert numbers(video.frames) == [10 + index for index in segment_indices(50, 5)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_late_beginning_is_not_part_of_the_video(kind, backend, folder):
    path = write_video(folder / f"late.{kind}", stamps=[4 * number + 300 for number in range(60)])
    video = read_frames(path, 5, backend=backend)
    assert video.duration == pytest.approx(2.4, abs=2e-3)
    assert numbers(video.frames) == video.indices == segment_indices(60, 5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_of_several_video_tracks_every_backend_takes_the_same(backend, folder):
    path = folder / "tracks.mkv"
    with av.open(str(path), "w") as container:
        streams = []
        for size in ((32, 32), (64, 48)):
            stream = container.add_stream("mpeg4", rate=FPS)
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            streams.append(stream)
        for number in range(50):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(picture(number, stream.width, stream.height), "rgb24")
                frame.pts, frame.time_base = number, Fraction(1, FPS)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode())
    assert torch.equal(read_frames(path, 3, backend=backend).frames, read_frames(path, 3, backend="pyav").frames)


def test_cover_picture_is_no_video(folder):
    sound = write_sound(folder / "plain.mp3", tone(1), "mp3")
    path = folder / "cover.mp3"
    Image.fromarray(picture(0)).save(folder / "cover.png")
    cover = b"\0image/png\0\3\0" + (folder / "cover.png").read_bytes()
    size = len(cover) + 10

    def syncsafe(number: int) -> bytes:
        return bytes(number >> shift & 127 for shift in (21, 14, 7, 0))

    tag = b"ID3\3\0\0" + syncsafe(size) + b"APIC" + struct.pack(">IH", len(cover), 0) + cover
    path.write_bytes(tag + Path(sound).read_bytes())
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    with pytest.raises(NoVideoError, match=r"cover\.mp3"):
        read_frames(path, 2)
    assert len(read_audio(path).waveform) > 0.9 * RATE


def test_sound_given_as_video_is_told_apart_and_silent_video_has_no_sound(folder):
    with pytest.raises(NoVideoError, match=r"sound\.wav has no video track, only sound"):
        read_frames(write_wav(folder / "sound.wav"), 4)
    silent = write_video(folder / "silent.mp4", count=4)
    assert read_audio(silent) is None
    assert audio_info(silent) is None


@functools.cache
def write_long_video(path: Path, minutes: int) -> str:
    """The packets of ten seconds of video with two seconds between key frames, over and over."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 32, 32, "yuv420p", 2 * FPS
        stream.options = {"preset": "ultrafast", "bf": "2", "sc_threshold": "0"}
        packets = []
        for number in range(10 * FPS):
            frame = av.VideoFrame.from_ndarray(picture(number, 32, 32), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            packets += stream.encode(frame)
        packets += stream.encode()
        packets = [(bytes(packet), packet.pts, packet.dts, packet.is_keyframe, packet.duration) for packet in packets]
        time_base = stream.codec_context.time_base
        for repeat in range(6 * minutes):
            shift = repeat * int(10 / time_base)
            for content, pts, dts, is_keyframe, duration in packets:
                packet = av.Packet(content)
                packet.stream, packet.time_base, packet.duration = stream, time_base, duration
                packet.pts, packet.dts, packet.is_keyframe = pts + shift, dts + shift, is_keyframe
                container.mux(packet)
    return str(path)


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts"])
def test_cost_does_not_grow_with_the_length_of_the_video(kind, folder):
    path = write_long_video(folder / f"long.{kind}", minutes=20)
    video = read_frames(path, 8)
    count = 20 * 60 * FPS
    assert video.duration == pytest.approx(20 * 60, abs=0.1)
    assert numbers(video.frames) == [index % (10 * FPS) % 100 for index in segment_indices(count, 8)]
    # From the key frame before each, and a few that the decoder gives out of turn; transport streams list no key frames.
    assert video.decoded <= 8 * (2 * FPS + 5) * (3 if kind == "ts" else 1)


def test_random_sampling_repeats_with_the_generator(video):
    first, again, other = (
        read_frames(video, 5, sampling="random", generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert first.indices == again.indices != other.indices
    assert numbers(first.frames) == first.indices


# ---------------------------------------------------------------------------------------------------------------------
# Fallbacks
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["decord", "torchcodec"])
def test_backend_that_fails_hands_over_to_pyav(backend, video, monkeypatch):
    def fail(track, moments):
        raise RuntimeError("this backend never works")

    expected = read_frames(video, 4)
    monkeypatch.setitem(media_video.BACKENDS, backend, fail)
    found = read_frames(video, 4, backend=backend)
    assert expected.backend == found.backend == "pyav"
    assert torch.equal(found.frames, expected.frames)
    monkeypatch.setitem(media_video.BACKENDS, "pyav", fail)
    with pytest.raises(MediaError, match=r"video\.mp4 .*never works"):
        read_frames(video, 4)


def test_backend_that_gives_frames_of_other_times_hands_over_to_pyav(video, monkeypatch):
    def wrong(track, moments):
        return media_video.read_with_pyav(track, [moment + 0.2 for moment in moments])

    monkeypatch.setitem(media_video.BACKENDS, "decord", wrong)
    found = read_frames(video, 4, backend="decord")
    assert found.backend == "pyav"
    assert numbers(found.frames) == segment_indices(60, 4)


@pytest.mark.parametrize("kind", ["mp4", "mkv", "h264", "gif", "folder"])
def test_frames_one_by_one_are_those_read_at_once(kind, tmp_path):
    path = str(tmp_path / f"video.{kind}")
    if kind == "folder":
        os.mkdir(path)
        for number in range(9):
            Image.fromarray(picture(number)).save(f"{path}/{number}.png")
    elif kind == "gif":
        images = [Image.fromarray(picture(number)) for number in range(9)]
        images[0].save(path, save_all=True, append_images=images[1:], duration=40)
    else:
        write_video(path, count=50)
    seen = []

    def count(available, duration):
        seen.append((available, duration))
        return 7

    frames = list(iterate_frames(path, count))
    expected = read_frames(path, 7)
    assert seen == [(expected.num_available, pytest.approx(expected.duration))]
    assert torch.equal(torch.stack(frames), expected.frames)
    everything = torch.stack(list(iterate_frames(path, lambda available, _: 10**6)))
    assert torch.equal(everything, read_frames(path, expected.num_available).frames)


def test_frames_one_by_one_of_what_has_one_or_none(tmp_path):
    Image.fromarray(picture(3)).save(tmp_path / "still.png")
    assert numbers(torch.stack(list(iterate_frames(tmp_path / "still.png", lambda available, _: 5)))) == [3]
    with pytest.raises(NoVideoError):
        next(iterate_frames(write_wav(tmp_path / "sound.wav"), lambda available, _: available))


def test_unknown_backend_is_refused(video):
    with pytest.raises(ValueError, match="pyav, torchcodec, decord"):
        read_frames(video, 4, backend="opencv")


@pytest.mark.skipif(not decord.usable, reason="needs decord")
def test_death_of_decord_costs_a_restart(video):
    assert read_frames(video, 4, backend="decord").backend == "decord"
    decord.process.kill()
    assert read_frames(video, 4, backend="decord").backend == "pyav"
    assert read_frames(video, 4, backend="decord").backend == "decord"


def test_hanging_decord_is_ended(video, tmp_path, monkeypatch):
    program = tmp_path / "hangs.py"
    program.write_text("import sys\nprint('{\"ready\": true}', flush=True)\nsys.stdin.read()\n")
    hanging = media_decord.DecordProcess()
    hanging.usable, hanging.seconds_per_frame, hanging.program = True, 0.1, str(program)
    monkeypatch.setattr(media_video, "decord", hanging)
    assert read_frames(video, 4, backend="decord").backend == "pyav"
    assert hanging.process is None


@pytest.mark.parametrize("backend", BACKENDS)
def test_workers_of_a_data_loader_read_on_their_own(backend, video):
    expected = read_frames(video, 4, backend=backend)
    gc.collect()  # a forked process must not free the encoders that other tests left behind
    loader = torch.utils.data.DataLoader(
        [video] * 4, batch_size=None, num_workers=2, collate_fn=lambda path: read_frames(path, 4, backend=backend)
    )
    for frames in loader:
        assert frames.backend == expected.backend == backend
        assert torch.equal(frames.frames, expected.frames)
    assert read_frames(video, 4, backend=backend).backend == expected.backend
