# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.

import contextlib
import functools
import gc
import http.server
import io
import os
import signal
import socket
import struct
import threading
import warnings
import wave
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from modeling_valor import media, media_backends, media_decord
from modeling_valor.media import (
    MediaError,
    NoVideoError,
    audio_info,
    iterate_frames,
    list_frame_files,
    open_source,
    read_audio,
    read_frames,
    read_image,
    segment_indices,
)
from modeling_valor.media_decord import decord


SHARED = Path(__file__).resolve().parents[2] / "shared"
FPS = 25
RATE = 16_000


def torchcodec_works() -> bool:
    try:
        import torchcodec
    except (ImportError, OSError, RuntimeError):
        return False
    return getattr(torchcodec, "ffmpeg_major_version", None) is not None


BACKENDS = [
    pytest.param("decord", marks=pytest.mark.skipif(not decord.usable, reason="needs decord")),
    pytest.param("torchcodec", marks=pytest.mark.skipif(not torchcodec_works(), reason="needs torchcodec and FFmpeg")),
    "pyav",
]


# ---------------------------------------------------------------------------------------------------------------------
# Media made here: the brightness of a frame's halves tells its number, its red upper left corner which way is up
# ---------------------------------------------------------------------------------------------------------------------


def picture(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    pixels[:, : width // 2] = 30 + 20 * (number // 10 % 10)
    pixels[:, width // 2 :] = 30 + 20 * (number % 10)
    pixels[: height // 4, : width // 4] = (255, 0, 0)
    return pixels


def numbers(frames: torch.Tensor) -> list[int]:
    """The numbers (modulo 100) of frames (F, 3, H, W)."""
    rows, width = frames.float()[:, :, frames.shape[2] // 2 :].mean((1, 2)), frames.shape[3]
    tens, units = rows[:, 2 : width // 2 - 2].mean(1), rows[:, width // 2 + 2 : -2].mean(1)
    return [
        10 * round((ten - 30) / 20) + round((unit - 30) / 20)
        for ten, unit in zip(tens.tolist(), units.tolist(), strict=True)
    ]


def write_video(
    path,
    count: int = 60,
    stamps=None,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    gop: int = 12,
    rotation: int = 0,
    format: str | None = None,
    sound: bool = False,
    **options: str,
) -> str:
    """A video of `count` pictures; `stamps` are their times in hundredths of a second."""
    with av.open(str(path), "w", format=format, options=options) as container:
        stream = container.add_stream(codec, rate=FPS)
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.gop_size = gop
        if codec == "libx264":
            stream.options = {"preset": "ultrafast", "crf": "4", "bf": "2", "sc_threshold": "0"}
        if stamps is not None:
            stream.codec_context.time_base = stream.time_base = Fraction(1, 100)
        if rotation:
            stream.set_display_rotation(rotation)
        if sound:
            audio = container.add_stream("aac", rate=RATE, layout="mono")
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), "rgb24")
            frame.pts = number if stamps is None else stamps[number]
            frame.time_base = Fraction(1, FPS) if stamps is None else Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound:
            for frame in audio_frames(tone(count / FPS), 1024):
                container.mux(audio.encode(frame))
            container.mux(audio.encode())
    return str(path)


def tone(seconds: float, rate: int = RATE) -> np.ndarray:
    """A rising tone: no part of it is like another."""
    time = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * (200 + 40 * time) * time)).astype(np.float32)


def audio_frames(samples: np.ndarray, size: int, rate: int = RATE, layout: str = "mono"):
    samples = np.atleast_2d(samples)
    for start in range(0, samples.shape[1], size):
        interleaved = samples[:, start : start + size].T.reshape(1, -1).copy()
        frame = av.AudioFrame.from_ndarray(interleaved, "flt", layout)
        frame.rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        yield frame


def write_sound(path, samples: np.ndarray, codec: str, rate: int = RATE, layout: str = "mono", **options: str) -> str:
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        size = stream.codec_context.frame_size or 1024
        convert = av.AudioResampler(stream.format, layout, rate)
        for frame in audio_frames(samples, size, rate, layout):
            for part in convert.resample(frame):
                container.mux(stream.encode(part))
        container.mux(stream.encode())
    return str(path)


def write_wav(path, seconds: float = 1.0, channels: int = 1) -> str:
    samples = np.repeat((tone(seconds) * 32767).astype("<i2")[:, None], channels, 1)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())
    return str(path)


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="session")
def video(folder) -> str:
    """60 frames, 2.4 seconds, with sound."""
    return write_video(folder / "video.mp4", sound=True)


@pytest.fixture
def server(video):
    """An address that serves the video, and the paths that were asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path.startswith("/to?"):
                self.send_response(302)
                self.send_header("Location", self.path[4:])
                self.end_headers()
            elif self.path == "/video.mp4":
                self.send_response(200)
                self.end_headers()
                self.wfile.write(Path(video).read_bytes())
            else:
                self.send_error(404)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()


@contextlib.contextmanager
def seconds_at_most(limit: int):
    def stop(*args):
        raise TimeoutError(f"not done after {limit} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(limit)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


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


@pytest.mark.parametrize(("available", "wanted", "sampling"), [(0, 1, "center"), (5, 0, "center"), (5, 2, "middle")])
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
        "file:///etc/hostname",
        "ftp://127.0.0.1/a.mp4",
        "FILE:///etc/hostname",
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
        with media_backends.open_container(str(audio), "folder.wav"):
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
# Video
# ---------------------------------------------------------------------------------------------------------------------


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
    # AVI with B-frames has no times at all, and stands apart
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


def test_long_video_is_not_given_to_decord_unasked(folder):
    assert read_frames(write_long_video(folder / "long.mp4", minutes=20), 2).backend == "pyav"


def test_random_sampling_repeats_with_the_generator(video):
    first, again, other = (
        read_frames(video, 5, sampling="random", generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert first.indices == again.indices != other.indices
    assert numbers(first.frames) == first.indices


# ---------------------------------------------------------------------------------------------------------------------
# Fallbacks
# ---------------------------------------------------------------------------------------------------------------------


def test_backend_that_fails_hands_over_to_the_next(video, monkeypatch):
    def fail(track, moments):
        raise RuntimeError("this backend never works")

    expected = read_frames(video, 4, backend="pyav").frames
    monkeypatch.setitem(media_backends.BACKENDS, "decord", fail)
    after_decord = read_frames(video, 4)
    monkeypatch.setitem(media_backends.BACKENDS, "torchcodec", fail)
    assert after_decord.backend == ("torchcodec" if torchcodec_works() else "pyav")
    assert read_frames(video, 4, backend="torchcodec").backend == "pyav"
    assert torch.equal(after_decord.frames, expected)
    monkeypatch.setitem(media_backends.BACKENDS, "pyav", fail)
    with pytest.raises(MediaError, match=r"video\.mp4 .*never works"):
        read_frames(video, 4)


@pytest.mark.parametrize("kind", ["mp4", "mkv", "h264", "gif", "folder"])
@pytest.mark.parametrize("decord_too", [True, False])
def test_frames_one_by_one_are_those_read_at_once(kind, decord_too, tmp_path, monkeypatch):
    if not decord_too:
        monkeypatch.setattr(media_backends, "BACKENDS", {"pyav": media_backends.read_with_pyav})
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

    frames = list(iterate_frames(path, count, max_bytes=2 * 64 * 48 * 3))
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
    with pytest.raises(ValueError, match="decord, torchcodec, pyav"):
        read_frames(video, 4, backend="opencv")


@pytest.mark.skipif(not decord.usable, reason="needs decord")
def test_death_of_decord_costs_a_restart(video):
    assert read_frames(video, 4).backend == "decord"
    decord.process.kill()
    assert read_frames(video, 4).backend == "pyav"
    assert read_frames(video, 4).backend == "decord"


def _serve():
    """Stands for a decord that hangs."""
    import sys

    print('{"ready": true}', flush=True)
    for _ in sys.stdin:
        pass


def test_hanging_decord_is_ended(video, monkeypatch):
    hanging = media_decord.DecordProcess()
    hanging.usable, hanging.seconds_per_frame = True, 0.1
    monkeypatch.setattr(media_decord, "_serve", _serve)
    monkeypatch.setattr(media_backends, "decord", hanging)
    assert read_frames(video, 4).backend == "pyav"
    assert hanging.process is None


def test_workers_of_a_data_loader_read_on_their_own(video):
    expected = read_frames(video, 4)
    gc.collect()  # a forked process must not free the encoders that other tests left behind
    loader = torch.utils.data.DataLoader(
        [video] * 4, batch_size=None, num_workers=2, collate_fn=lambda path: read_frames(path, 4)
    )
    for frames in loader:
        assert frames.backend == expected.backend
        assert torch.equal(frames.frames, expected.frames)
    assert read_frames(video, 4).backend == expected.backend


# ---------------------------------------------------------------------------------------------------------------------
# Sound
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2])
def test_a_plain_wave_file_gives_the_same_sound_without_a_decoder(channels, tmp_path, monkeypatch):
    path = write_wav(tmp_path / "plain.wav", seconds=2.0, channels=channels)
    windows = [(0.0, 0.5), (1.9, 3.0), (5.0, 6.0), (0.25, 0.25)]
    plain = read_audio(path), read_audio(path, windows=windows), read_audio(path, max_seconds=0.3), audio_info(path)
    monkeypatch.setattr(media, "_open_wave", lambda path: None)
    decoded = read_audio(path), read_audio(path, windows=windows), read_audio(path, max_seconds=0.3), audio_info(path)
    assert plain[3] == decoded[3]
    for one, other in zip(plain[:3], decoded[:3], strict=True):
        assert (one.sampling_rate, one.duration) == (other.sampling_rate, other.duration)
        pieces = [audio.waveform if isinstance(audio.waveform, list) else [audio.waveform] for audio in (one, other)]
        assert all(torch.equal(*pair) for pair in zip(*pieces, strict=True))


@pytest.mark.parametrize("channels", [1, 2])
def test_waveform_is_the_mean_of_the_channels(channels, folder):
    samples = np.random.default_rng(0).integers(-30_000, 30_000, (500, channels)).astype("<i2")
    with wave.open(str(folder / "noise.wav"), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(samples.tobytes())
    audio = read_audio(folder / "noise.wav")
    assert audio.waveform.dtype == torch.float32
    assert np.allclose(audio.waveform.numpy(), (samples / 32768).mean(1), atol=1e-6)
    assert (audio.sampling_rate, audio.duration) == (8000, pytest.approx(500 / 8000))
    assert audio_info(folder / "noise.wav") == media.AudioInfo(8000, 500 / 8000, channels)


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le"])
def test_sample_formats_are_scaled_to_one(codec, folder):
    path = write_sound(folder / f"{codec}.wav", tone(0.2), codec)
    assert np.abs(read_audio(path).waveform.numpy() - tone(0.2)).max() < (1 / 100 if codec == "pcm_u8" else 1e-5)


SOUNDS = {
    "wav": "pcm_s16le",
    "flac": "flac",
    "mp3": "mp3",
    "m4a": "aac",
    "mp4": "aac",
    "mkv": "aac",
    "ts": "aac",
    "aac": "aac",
}


@pytest.mark.parametrize("kind", SOUNDS)
def test_windows_are_parts_of_the_whole(kind, folder):
    path = write_sound(folder / f"windows.{kind}", tone(12), SOUNDS[kind])
    whole = read_audio(path).waveform
    windows = [(7.0, 8.5), (0.0, 0.5), (3.21, 3.4), (11.5, 60.0), (500.0, 501.0)]
    audio = read_audio(path, windows=windows)
    assert len(audio.waveform[-1]) == 0
    for (begin, end), piece in zip(windows[:-1], audio.waveform, strict=False):
        expected = whole[round(begin * RATE) : round(end * RATE)]
        # Matroska rounds times to milliseconds
        slack = RATE // 1000 if kind == "mkv" else 0
        assert abs(len(piece) - len(expected)) <= slack
        errors = [
            float(
                (piece[max(shift, 0) : 3000] - expected[max(-shift, 0) :][: len(piece[max(shift, 0) : 3000])])
                .abs()
                .max()
            )
            for shift in range(-slack, slack + 1)
        ]
        assert min(errors) < 2e-3


def test_windows_of_a_long_track_cost_little(folder, monkeypatch):
    path = write_sound(folder / "long.m4a", np.tile(tone(10), 12), "aac")
    decoded = []
    frames = media_backends.Decoder.frames
    monkeypatch.setattr(
        media_backends.Decoder, "frames", lambda self: (decoded.append(frame) or frame for frame in frames(self))
    )
    audio = read_audio(path, windows=[(60.0, 62.0), (110.0, 112.0)])
    assert audio.duration == pytest.approx(120, abs=0.1)
    assert sum(frame.samples for frame in decoded) < 2 * 3 * RATE
    assert torch.allclose(audio.waveform[0], torch.from_numpy(tone(2)), atol=0.05)


def test_only_the_first_seconds_are_read(folder):
    audio = read_audio(write_wav(folder / "three.wav", seconds=3), max_seconds=1.5)
    assert len(audio.waveform) == 1.5 * RATE
    assert audio.duration == pytest.approx(3)


def test_gap_between_packets_is_silence(folder):
    with av.open(str(folder / "gap.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for second in (0, 1, 4):
            frame = av.AudioFrame.from_ndarray(np.full((1, RATE), 8192, dtype=np.int16), "s16", "mono")
            frame.rate, frame.pts, frame.time_base = RATE, second * RATE, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    seconds = read_audio(folder / "gap.mkv").waveform.view(5, RATE)
    assert seconds.mean(1).tolist() == [0.25, 0.25, 0, 0, 0.25]


def test_eight_channels_are_read(folder):
    """PyAV itself reads beyond the planes of such frames."""
    samples = np.stack([tone(1) * (channel == 2) for channel in range(8)])
    path = write_sound(folder / "surround.m4a", samples, "aac", layout="7.1")
    assert audio_info(path).channels == 8
    assert np.abs(read_audio(path).waveform.numpy()[: len(tone(1))] - tone(1) / 8).mean() < 0.01


def test_channels_in_an_order_of_their_own_are_read(folder):
    """PyAV itself frees the description of such an order twice, which ends the process."""
    samples = np.random.default_rng(0).integers(-3000, 3000, (RATE, 2)).astype(">i2")
    order = struct.pack(">III", 0, 0, 2) + b"".join(struct.pack(">IIfff", label, 0, 0, 0, 0) for label in (2, 1))
    content = b"caff" + struct.pack(">HH", 1, 0)
    content += b"desc" + struct.pack(">qd4sIIIII", 32, RATE, b"lpcm", 0, 4, 1, 2, 16)
    content += b"chan" + struct.pack(">q", len(order)) + order
    content += b"data" + struct.pack(">qI", samples.nbytes + 4, 0) + samples.tobytes()
    for _ in range(3):
        assert np.allclose(read_audio(content).waveform.numpy(), samples.mean(1) / 32768, atol=1e-6)
        assert audio_info(content).channels == 2


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
    with pytest.warns(UserWarning, match=f"truncated.{kind} .*as far as it goes") as warned:
        video = read_frames(path, 6)
    assert len(warned) == 1
    assert 0.5 < video.duration < 3.0
    assert video.indices == segment_indices(round(video.duration * FPS), 6)
    assert numbers(video.frames) == [round(seconds * FPS) for seconds in video.timestamps]
    assert max(abs(a - b) for a, b in zip(numbers(video.frames), video.indices, strict=True)) <= 1


@pytest.mark.parametrize("backend", [None, "pyav"])
def test_damaged_video_is_used_as_far_as_it_goes_with_one_warning(backend, folder, capfd):
    content = Path(write_video(folder / "good.mp4", count=90, size=(320, 240), movflags="faststart")).read_bytes()
    path = folder / "damaged.mp4"
    path.write_bytes(damage(content, 0.4, 0.6, 300))
    with pytest.warns(UserWarning, match=r"damaged\.mp4 is damaged .*as far as it goes") as warned:
        video = read_frames(path, 6, backend=backend)
    assert len(warned) == 1
    assert video.frames.shape == (6, 3, 240, 320)
    assert numbers(video.frames[:2]) == video.indices[:2]
    assert capfd.readouterr() == ("", "")


def test_frames_of_enormous_size_are_refused(video, tmp_path, monkeypatch):
    monkeypatch.setattr(media, "MAX_VIDEO_PIXELS", 64 * 48 - 1)
    with pytest.raises(MediaError, match=r"video\.mp4 measures 64 x 48"):
        read_frames(video, 2)


def test_truncated_sound_is_used_as_far_as_it_goes_with_one_warning(folder):
    content = Path(write_wav(folder / "whole.wav", seconds=4)).read_bytes()
    (folder / "half.wav").write_bytes(content[: 44 + RATE * 4])
    with pytest.warns(UserWarning, match=r"half\.wav .*as far as it goes") as warned:
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
    hands_over = name.endswith(("fire_rot180_vfr.mp4", "mmaction_test.avi", "nasa_13013.mp4"))
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
