# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Which frame is it? Films whose frames carry their number, against a decoder that goes through them from the beginning."""

import itertools
import warnings
from bisect import bisect_right
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from helpers.films import CASES, NUM_FRAMES, decoded_in_order, film_numbers, write_film
from helpers.media_files import (
    BACKENDS,
    FPS,
    RATE,
    audio_frames,
    block_number,
    blocks,
    picture,
    tone,
    write_sound,
    write_video,
)
from modeling_valor import media_container, media_video
from modeling_valor.media import (
    MediaError,
    audio_info,
    iterate_frames,
    read_audio,
    read_frames,
    segment_indices,
)


FILMS = Path(__file__).parent / "fixtures" / "timing"
COUNTS = (1, 2, 3, 5, 8, 13, 21, 32)


# ---------------------------------------------------------------------------------------------------------------------
# The frames that were asked for
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("x265_default.mp4", 600),
        ("tc1339_g3.mp4", 161),
        ("mpeg4_b.mkv", 300),
        ("mpeg2_b.mov", 300),
        ("h264.avi", 300),
        ("mp4b_g15.avi", 300),
        ("flv1.flv", 60),
        ("subs.mkv", 60),
        ("zero.mp4", 60),
        ("emptyaudio.mkv", 60),
    ],
)
def test_films_that_were_read_wrongly_give_the_frames_of_segment_indices(name, count, backend):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for wanted in COUNTS:
            video = read_frames(FILMS / name, wanted, backend=backend)
            assert film_numbers(video) == video.indices == segment_indices(count, wanted)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("codec", "kind"), CASES)
def test_every_backend_gives_what_decoding_in_order_gives(codec, kind, backend, folder):
    path = write_film(folder / f"{codec}.{kind}", codec)
    numbers = [number for number, _ in decoded_in_order(path)]
    assert numbers == list(range(NUM_FRAMES))
    for wanted in COUNTS:
        video = read_frames(path, wanted, backend=backend)
        assert film_numbers(video) == segment_indices(NUM_FRAMES, wanted)
        assert video.timestamps == pytest.approx([index / FPS for index in video.indices], abs=2e-3)


@pytest.mark.parametrize(
    ("codec", "kind"),
    [
        ("h264", "mp4"),
        ("h264_open", "mkv"),
        ("h264_refresh", "mp4"),
        ("h265_open", "mp4"),
        ("h264", "avi"),
        ("mpeg4", "avi"),
    ],
)
def test_large_files_of_which_only_the_ends_are_surveyed_give_the_same(codec, kind, folder, monkeypatch):
    path = write_film(folder / f"{codec}.{kind}", codec)
    monkeypatch.setattr(media_container, "_SMALL", 0)
    for wanted in COUNTS:
        video = read_frames(path, wanted)
        assert film_numbers(video) == video.indices == segment_indices(NUM_FRAMES, wanted)


STEPS = [1] * 40 + [9] * 20 + [2] * 30 + [40] + [1] * 29


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts", "flv", "fragmented.mp4"])
@pytest.mark.parametrize("codec", ["h264", "h264_open", "mpeg4", "h265_open"])
def test_variable_rates_with_b_frames_are_sampled_by_time(codec, kind, backend, folder):
    if (kind, codec) in [("flv", "mpeg4"), ("flv", "h265_open")]:
        pytest.skip("not in this container")
    stamps = tuple(itertools.accumulate([0, *STEPS[:-1]]))
    options = {"movflags": "frag_keyframe+empty_moov"} if kind == "fragmented.mp4" else {}
    path = write_film(folder / f"{codec}_variable.{kind}", codec, stamps, **options)
    shown = decoded_in_order(path)
    start = shown[0][1]
    for wanted in COUNTS:
        video = read_frames(path, wanted, backend=backend)
        assert video.duration == pytest.approx((stamps[-1] + 1) / FPS, abs=0.3)
        moments = [start + (index + 0.501) * video.duration / video.num_available for index in video.indices]
        assert film_numbers(video) == [[n for n, time in shown if time <= moment][-1] for moment in moments]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts", "avi"])
@pytest.mark.parametrize("codec", ["h264_open", "mpeg4"])
def test_late_beginnings_are_no_part_of_a_film(codec, kind, backend, folder):
    if (codec, kind) == ("mpeg4", "ts"):
        pytest.skip("has no headers there")
    path = write_film(folder / f"{codec}_late.{kind}", codec, tuple(range(100, 100 + NUM_FRAMES)))
    for wanted in COUNTS:
        assert film_numbers(read_frames(path, wanted, backend=backend)) == segment_indices(NUM_FRAMES, wanted)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("codec", ["h264", "h264_open", "mpeg4", "h265_open"])
def test_what_an_edit_list_leaves_out_is_not_there(codec, backend, folder):
    """The cut lies in the middle of a group of pictures, whose first frames are in the file."""
    path = write_film(
        folder / f"{codec}_edit.mp4", codec, tuple(range(-33, NUM_FRAMES - 33)), avoid_negative_ts="disabled"
    )
    numbers = [number for number, _ in decoded_in_order(path)]
    assert numbers == list(range(33, NUM_FRAMES))
    for wanted in COUNTS:
        indices = segment_indices(len(numbers), wanted)
        assert film_numbers(read_frames(path, wanted, backend=backend)) == [numbers[index] for index in indices]


def test_pause_before_the_last_b_frames_does_not_lengthen_the_film():
    video = read_frames(FILMS / "slides.mp4", 8)
    assert video.duration == pytest.approx(32.04)
    assert film_numbers(video) == [0, 3, 3, 3, 3, 3, 5, 8]


def test_slides_in_matroska_are_seen_from_the_first_on():
    """FFmpeg says that this film of thirty slides of ten seconds starts with the sixth."""
    for wanted in COUNTS:
        video = read_frames(FILMS / "long_slides.mkv", wanted)
        assert film_numbers(video) == segment_indices(30, min(wanted, 30)) + [29] * (wanted - 30)
        assert video.duration == pytest.approx(300)


def test_last_frame_without_a_duration_lasts_as_long_as_others():
    assert read_frames(FILMS / "flv1.flv", 4).duration == pytest.approx(2.4)


@pytest.mark.parametrize("astray", [2**30, -(2**30), 7000])
def test_seeking_that_leads_elsewhere_is_noticed(astray, folder, monkeypatch):
    """Whatever a container's seeking does: the frames are those that the survey expects, or the film is decoded anew."""
    path, seek = write_film(folder / "astray.mkv", "mpeg4"), media_container.Decoder.seek
    monkeypatch.setattr(media_container.Decoder, "seek", lambda self, stamp: seek(self, stamp + astray))
    for wanted in COUNTS:
        assert film_numbers(read_frames(path, wanted)) == segment_indices(NUM_FRAMES, wanted)


@pytest.mark.parametrize("kind", ["mkv", "mp4", "ts"])
def test_key_frames_spare_decoding(kind, folder):
    """Also where the first decoding times are negative."""
    path = write_film(folder / f"h264_cost.{kind}", "h264")
    with av.open(path) as container:
        assert kind == "ts" or next(container.demux()).dts is None or next(container.demux()).dts <= 0
    for wanted in COUNTS:  # from the key frame on, and a few that the decoder gives out of turn
        assert read_frames(path, wanted).decoded <= sum(i % 25 + 4 for i in segment_indices(NUM_FRAMES, wanted))


def test_film_without_times_is_decoded_once_however_many_frames_are_taken(folder, monkeypatch):
    path = write_film(folder / "h264_once.avi", "h264")
    decoded = []
    frames = media_container.Decoder.frames
    monkeypatch.setattr(
        media_container.Decoder,
        "frames",
        lambda self, packets=None: (decoded.append(frame) or frame for frame in frames(self, packets)),
    )
    numbers = [block_number(frame) for frame in iterate_frames(path, lambda available, _: available)]
    assert numbers == list(range(NUM_FRAMES))
    assert len(decoded) == NUM_FRAMES


# ---------------------------------------------------------------------------------------------------------------------
# Times that cannot be believed
# ---------------------------------------------------------------------------------------------------------------------


def test_packed_b_frames_in_avi_come_in_their_order():
    """Of this film by libxvid, FFmpeg takes empty packets for frames and frames of two for one: it guesses times wrongly."""
    numbers = [number for number, _ in decoded_in_order(str(FILMS / "packed_b.avi"))]
    assert numbers == sorted(set(numbers))
    assert film_numbers(read_frames(FILMS / "packed_b.avi", len(numbers))) == numbers
    assert [block_number(frame) for frame in iterate_frames(FILMS / "packed_b.avi", lambda n, _: n)] == numbers
    with av.open(str(FILMS / "packed_b.avi")) as container:  # the grid of the container says when one is shown
        grid = [packet.dts for packet in container.demux() if packet.size]
    times = [(place - grid[1]) / FPS for place in [*grid[1:], grid[-1] + 1]]  # a frame late
    for wanted in COUNTS:
        video = read_frames(FILMS / "packed_b.avi", wanted)
        moments = [(index + 0.501) * video.duration / len(numbers) for index in video.indices]
        places = [bisect_right(times, moment) - 1 for moment in moments]
        assert film_numbers(video) == [numbers[place] for place in places]
        assert video.timestamps == pytest.approx([times[place] for place in places])


def test_avi_on_a_grid_of_half_frames_lasts_as_long_as_it_does(folder):
    """As ffmpeg writes it when it copies: two units for each frame, of which the last has one."""
    path = write_film(folder / "h264_halves.avi", "h264")
    copy = folder / "h264_copied.avi"
    with av.open(path) as source, av.open(str(copy), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        stream.time_base = Fraction(1, 2 * FPS)
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.dts, packet.pts, packet.time_base = 2 * packet.dts, None, Fraction(1, 2 * FPS)
                packet.stream = stream
                container.mux(packet)
    for wanted in COUNTS:
        video = read_frames(copy, wanted)
        assert video.duration == pytest.approx(NUM_FRAMES / FPS)
        assert film_numbers(video) == video.indices == segment_indices(NUM_FRAMES, wanted)


def test_program_stream_whose_times_run_backwards_is_decoded_in_order():
    path = FILMS / "times_back.mpg"
    times = [time for _, time in decoded_in_order(str(path))]
    assert times != sorted(times)
    for wanted in COUNTS:
        video = read_frames(path, wanted)
        assert film_numbers(video) == video.indices == segment_indices(150, wanted)
        assert video.timestamps == pytest.approx([index / FPS for index in video.indices], abs=0.09)
    assert video.duration == pytest.approx(6)


@pytest.mark.parametrize(("codec", "kind"), [("vp9", "webm"), ("h264", "mkv"), ("h264_open", "mkv")])
def test_film_of_which_half_has_no_times_is_seen_whole(codec, kind, folder):
    """Matroska loses times before zero, or repeats them."""
    stamps = tuple(range(-60, NUM_FRAMES - 60))
    path = write_film(folder / f"{codec}_negative.{kind}", codec, stamps, avoid_negative_ts="disabled")
    times = [time for _, time in decoded_in_order(path)]
    assert None in times or len(set(times)) < NUM_FRAMES
    for wanted in COUNTS:
        video = read_frames(path, wanted)
        assert film_numbers(video) == video.indices == segment_indices(NUM_FRAMES, wanted)
        assert video.duration == pytest.approx(NUM_FRAMES / FPS)


# ---------------------------------------------------------------------------------------------------------------------
# Who may read what
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS[:-1])
def test_backend_reads_what_it_is_known_to_read_rightly_and_says_once_what_not(backend, folder, caplog, monkeypatch):
    monkeypatch.setattr(media_video.logger, "propagate", True)
    monkeypatch.setattr(media_video, "_said", set())
    assert read_frames(write_film(folder / "own.mp4", "h264"), 4, backend=backend).backend == backend
    assert caplog.messages == []
    cases = {
        "h265_open.mp4": "groups of pictures are open",
        "h264_refresh.mp4": "no points of random access",
        "h264_dense.mp4": "too close to each other",
        "h264.mkv": "does not list all its frames",
        "mpeg2.mov": "its codec is mpeg2video",
    }
    for name, why in cases.items():
        path = write_film(folder / name, name.split(".")[0])
        for _ in range(2):
            assert read_frames(path, 4, backend=backend).backend == "pyav"
        (message,) = caplog.messages
        assert why in message
        assert name in message
        assert "\n" not in message
        caplog.clear()


def test_by_default_pyav_reads(folder):
    assert read_frames(write_film(folder / "own.mp4", "h264"), 4).backend == "pyav"


# ---------------------------------------------------------------------------------------------------------------------
# Joined files
# ---------------------------------------------------------------------------------------------------------------------


def test_joined_transport_streams_are_seen_and_heard_as_a_whole():
    numbers = [*range(60), *range(100, 160)]
    for wanted in (*COUNTS, 120):
        video = read_frames(FILMS / "cat.ts", wanted)
        assert film_numbers(video) == [numbers[index] for index in segment_indices(120, wanted)]
        assert video.timestamps == pytest.approx([index / FPS for index in video.indices], abs=1e-3)
    assert video.duration == pytest.approx(4.8)
    sound = read_audio(FILMS / "cat.ts")
    assert sound.duration == pytest.approx(len(sound.waveform) / sound.sampling_rate, abs=0.01)
    assert sound.duration == pytest.approx(4.8, abs=0.1)


@pytest.mark.parametrize(("codec", "kind"), [("vp9", "webm"), ("h264", "mkv"), ("h264_open", "mkv")])
def test_joined_matroska_is_seen_as_a_whole(codec, kind, folder):
    part, path = write_film(folder / f"{codec}.{kind}", codec), folder / f"{codec}_joined.{kind}"
    path.write_bytes(2 * Path(part).read_bytes())
    for wanted in (*COUNTS, 2 * NUM_FRAMES):
        video = read_frames(path, wanted)
        assert film_numbers(video) == [index % NUM_FRAMES for index in segment_indices(2 * NUM_FRAMES, wanted)]
    assert video.duration == pytest.approx(2 * NUM_FRAMES / FPS, abs=0.05)


def test_pauses_in_matroska_are_no_joints(folder):
    stamps = tuple(range(0, 40 * 500, 500))  # twenty seconds each, with B-frames
    path = write_film(folder / "h264_pauses.mkv", "h264", stamps)
    video = read_frames(path, 40)
    assert film_numbers(video) == list(range(40))
    assert video.duration == pytest.approx(39 * 20, abs=21)


def test_joined_theora_has_no_frames_in_its_headers():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for wanted in (*COUNTS, 60):
            video = read_frames(FILMS / "joined.ogv", wanted)
            assert film_numbers(video) == [index % 30 for index in segment_indices(60, wanted)]
    assert video.duration == pytest.approx(2.4)


@pytest.mark.parametrize("kind", ["ogg", "mka"])
def test_joined_sound_is_as_long_as_it_is(kind, folder):
    parts = [write_sound(folder / f"part{seconds}.{kind}", tone(seconds), "flac") for seconds in (2, 3)]
    path = folder / f"joined.{kind}"
    path.write_bytes(b"".join(Path(part).read_bytes() for part in parts))
    sound = read_audio(path)
    assert audio_info(path).duration == sound.duration == pytest.approx(5, abs=0.01)
    assert np.allclose(sound.waveform.numpy(), np.concatenate([tone(2), tone(3)]), atol=1e-3)
    (piece,) = read_audio(path, windows=[(3.0, 4.0)]).waveform
    assert torch.equal(piece, sound.waveform[3 * RATE : 4 * RATE])


# ---------------------------------------------------------------------------------------------------------------------
# Orientation
# ---------------------------------------------------------------------------------------------------------------------

ONE = 2**16
UPRIGHT = {  # a, b, c, d of a display matrix, and the picture that players show
    "plain": ((1, 0, 0, 1), lambda p: p),
    "mirrored": ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda p: p[::-1]),
    "half": ((-1, 0, 0, -1), lambda p: p[::-1, ::-1]),
    "clockwise": ((0, 1, -1, 0), lambda p: p[::-1].swapaxes(0, 1)),
    "counterclockwise": ((0, -1, 1, 0), lambda p: p[:, ::-1].swapaxes(0, 1)),
    "transposed": ((0, 1, 1, 0), lambda p: p.swapaxes(0, 1)),
    "transverse": ((0, -1, -1, 0), lambda p: p[::-1, ::-1].swapaxes(0, 1)),
    "zero": ((0, 0, 0, 0), lambda p: p),
    "ten degrees": ((0.985, 0.174, -0.174, 0.985), lambda p: p),
    "eighty degrees": ((0.174, 0.985, -0.985, 0.174), lambda p: p[::-1].swapaxes(0, 1)),
    "half the size": ((0.5, 0, 0, 0.5), lambda p: p),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", UPRIGHT)
def test_every_backend_shows_the_picture_that_players_show(name, backend, folder):
    (a, b, c, d), upright = UPRIGHT[name]
    matrix = [round(value * ONE) for value in (a, b, 0, c, d, 0, 0, 0)] + [2**30]
    path = write_video(folder / f"{name}.mp4", count=1, matrix=matrix)
    frame = read_frames(path, 1, backend=backend).frames[0].permute(1, 2, 0).numpy().astype(float)
    expected = upright(picture(0))
    assert frame.shape == expected.shape
    assert np.abs(frame - expected).mean() < 6


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["hflip.mp4", "rot90_hflip.mp4"])
def test_films_of_front_cameras_are_mirrored(name, backend):
    for wanted in COUNTS:
        frames = read_frames(FILMS / name, wanted, backend=backend).frames
        plain = frames.flip(3) if name == "hflip.mp4" else frames.transpose(2, 3)
        assert [block_number(frame) for frame in plain] == segment_indices(60, wanted)


# ---------------------------------------------------------------------------------------------------------------------
# Empty tracks and tags
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts", "avi", "flv"])
def test_sound_track_without_packets_is_no_sound(kind, folder):
    path = folder / f"empty_sound.{kind}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.add_stream("aac", rate=RATE, layout="mono")
        for number in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(blocks(number), "rgb24")))
        container.mux(stream.encode())
    assert read_audio(path) is None
    assert audio_info(path) is None
    assert film_numbers(read_frames(path, 2)) == segment_indices(10, 2)


def test_declared_sound_of_real_files_is_no_sound():
    assert read_audio(FILMS / "emptyaudio.mkv") is None


def test_track_with_sound_is_heard_beside_an_empty_one(folder):
    path = folder / "second_track.mkv"
    with av.open(str(path), "w") as container:
        container.add_stream("aac", rate=48_000, layout="stereo")
        stream = container.add_stream("flac", rate=RATE, layout="mono")
        convert = av.AudioResampler(stream.format, "mono", RATE)
        for frame in audio_frames(tone(1), 1024):
            for part in convert.resample(frame):
                container.mux(stream.encode(part))
        container.mux(stream.encode())
    assert len(read_audio(path).waveform) == RATE


def test_sound_file_with_an_empty_track_is_a_media_error(folder):
    path = folder / "nothing.mkv"
    with av.open(str(path), "w") as container:
        container.add_stream("aac", rate=RATE, layout="mono")
        container.start_encoding()
    with pytest.raises(MediaError, match=r"nothing\.mkv"):
        read_audio(path)


@pytest.mark.parametrize("kind", ["mp4", "mkv", "3gp", "avi", "flv"])
def test_tags_never_decide(kind, folder):
    """Tags of files, tracks, chapters and subtitles in whatever encoding."""
    path = folder / f"tags.{kind}"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = container.metadata["comment"] = "a plain title"
        stream = container.add_stream("mpeg4" if kind != "flv" else "flv", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.metadata.update({"title": "a plain title", "handler_name": "a plain title"})
        if kind == "mkv":
            container.set_chapters(
                [
                    {
                        "id": 1,
                        "start": 0,
                        "end": 1000,
                        "time_base": Fraction(1, 1000),
                        "metadata": {"title": "a plain title"},
                    }
                ]
            )
        for number in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(blocks(number), "rgb24")))
        container.mux(stream.encode())
    content = path.read_bytes()
    assert b"a plain title" in content
    path.write_bytes(content.replace(b"a plain title", b"a \xfel\xffin \xc3itl\x80"))
    assert film_numbers(read_frames(path, 2)) == segment_indices(10, 2)
    assert read_audio(path) is None
