# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`clip.mp4#t=30,40` is what a file that is cut there holds."""

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from helpers.films import CASES, film_numbers, write_film
from helpers.media_files import (
    FPS,
    RATE,
    audio_frames,
    block_number,
    blocks,
    tone,
    write_sound,
    write_video,
    write_wav,
)
from modeling_valor import media_container
from modeling_valor.media import (
    MediaError,
    NoVideoError,
    audio_info,
    iterate_frames,
    list_media,
    open_source,
    read_audio,
    read_frames,
    source_name,
)
from modeling_valor.media_fragments import parse_fragment, split_fragment
from modeling_valor.media_sources import media_kind, name_without_suffix


# ---------------------------------------------------------------------------------------------------------------------
# How a part is written
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fragment", "part"),
    [  # the examples of section 4.2.1 of the W3C's recommendation, and what is close to them
        ("#t=10,20", (10, 20)),
        ("#t=,20", (0, 20)),
        ("#t=10", (10, math.inf)),
        ("#t=10,", (10, math.inf)),
        ("#t=npt:10,20", (10, 20)),
        ("#t=npt:,121.5", (0, 121.5)),
        ("#t=0:02:00,121.5", (120, 121.5)),
        ("#t=npt:120,0:02:01.5", (120, 121.5)),
        ("#t=02:01.5,10:02:01", (121.5, 36121)),
        ("#t=100:00:00", (360000, math.inf)),
        ("#t=npt%3A10%2C20", (10, 20)),
        ("#xywh=0,0,5,5&t=1,2&track=a", (1, 2)),
        ("#t=5,6&t=7,8", (7, 8)),
        ("#t=1.,2.25", (1, 2.25)),
    ],
)
def test_fragments_are_those_of_the_recommendation(fragment, part):
    assert split_fragment(f"a#b.mp4{fragment}") == ("a#b.mp4", fragment)
    assert parse_fragment(fragment, "clip.mp4") == part


@pytest.mark.parametrize(
    "fragment",
    [
        "#t=",
        "#t=,",
        "#t=a,b",
        "#t=-1,2",
        "#t=1,-2",
        "#t=1,2,3",
        "#t=10s",
        "#t=smpte:0:01:00",
        "#t=1:60",
        "#t=1:2",
        "#t=1e3",
        "#t=nan",
        "#t=inf",
        "#t=" + "9" * 5000,
        "#t=clock:2009-07-26T11:19:01Z",
        "#t=60:00:00:00",
        "#t=1 2",
        "#t=٣,٤",
    ],
)
def test_nonsense_is_refused_in_one_sentence(fragment):
    with pytest.raises(
        MediaError, match=r"^clip\.mp4 has a fragment that names no part of a file: write seconds"
    ) as error:
        parse_fragment(fragment, "clip.mp4")
    assert len(str(error.value)) < 250


@pytest.mark.parametrize("fragment", ["#t=5,4", "#t=5,5", "#t=,0"])
def test_part_without_length_is_refused(fragment):
    with pytest.raises(MediaError, match="ends before it begins, or is empty"):
        parse_fragment(fragment, "clip.mp4")


def test_names_kinds_and_listings_know_parts():
    assert media_kind("a/clip.MP4#t=1.5,2") == "video" and media_kind("a#t=1.wav") == "audio"
    assert name_without_suffix("a/clip.1.mp4#t=1.5,2") == "a/clip.1#t=1.5,2"
    assert name_without_suffix("a#t=1.wav") == "a#t=1" and name_without_suffix("a.b#t=1") == "a.b#t=1"
    assert list_media("clip.mp4#t=1,2") == ["clip.mp4#t=1,2"]
    assert source_name("https://me:pw@host/c.mp4?x=1#t=3,4") == "https://host/c.mp4?...#t=3,4"
    assert source_name("https://host/c.mp4#t=secret") == "https://host/c.mp4"


def test_file_of_which_this_is_the_name_is_opened(folder):
    path = write_video(folder / "take#t=1,2.mp4", count=30)
    assert len(read_frames(path, 30).indices) == 30
    assert read_frames(f"{path}#t=0.4,0.8", 10).num_available == 10
    plain = write_wav(folder / "take.wav#t=0,1", seconds=2.0)
    assert audio_info(plain).duration == 2.0


def test_addresses_have_parts(folder):
    path = Path(write_video(folder / "plain.mp4", count=30))
    whole = read_frames(path, 30).frames
    for source in (path.as_uri(), path, f"{path.parent}/./{path.name}"):
        source = Path(f"{source}#t=0.4,0.8") if isinstance(source, Path) else f"{source}#t=0.4,0.8"
        assert torch.equal(read_frames(source, 10).frames, whole[10:20])
    with open_source(f"{path}#t=0.4,0.8") as file:
        assert file == str(path) and file.name == f"{path}#t=0.4,0.8" and file.part == (0.4, 0.8)
        assert torch.equal(read_frames(file, 10).frames, whole[10:20])


# ---------------------------------------------------------------------------------------------------------------------
# What a part holds
# ---------------------------------------------------------------------------------------------------------------------

PARTS = ((0.0, 1.6), (1.2, 3.0), (2.03, 2.47), (3.33, 9.9), (4.7, 4.8))


def cut_anew(path: str, start: float, end: float, folder: Path) -> str:
    """The frames that begin in a part of a film, counted from its first packet, in a file of their own, without loss."""
    with av.open(path) as film:
        begin = film.start_time / 1e6
        frames = [frame for frame in film.decode(video=0) if -1e-3 <= frame.time - begin - start < end - start - 1e-3]
    name = folder / f"cut_{Path(path).name}_{start}.mkv"
    with av.open(str(name), "w") as container:
        stream = container.add_stream("ffv1", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame.to_ndarray(), "yuv420p")
            picture.pts = round((frame.time - frames[0].time) * FPS)
            picture.time_base = Fraction(1, FPS)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return str(name)


@pytest.mark.parametrize("late", [0, 100])
@pytest.mark.parametrize(("codec", "kind"), [case for case in CASES if case[1] != "avi"])
def test_frames_of_a_part_are_those_of_a_file_that_is_cut_there(codec, kind, late, tmp_path, folder):
    if late and (codec, kind) == ("mpeg4", "ts"):
        pytest.skip("has no headers there")
    path = write_film(folder / f"{codec}_{late}.{kind}", codec, range(late, late + 120))
    for start, end in PARTS:
        cut = cut_anew(path, start, end, tmp_path)
        for wanted in (1, 4, 7):
            part, own = read_frames(f"{path}#t={start},{end}", wanted), read_frames(cut, wanted)
            assert film_numbers(part) == film_numbers(own)
            assert part.indices == own.indices
            assert part.duration == pytest.approx(own.duration, abs=2e-3)
            assert part.timestamps == pytest.approx(own.timestamps, abs=2e-3)


STEPS = [1] * 40 + [9] * 20 + [2] * 30 + [40] + [1] * 29


@pytest.mark.parametrize("small", [2**26, 0])
@pytest.mark.parametrize("kind", ["mp4", "mkv", "mov", "ts"])
def test_variable_rates_are_cut_by_the_frames_times(kind, small, folder, monkeypatch):
    """Also where only the packets around the part are looked at, as in large files."""
    stamps = np.cumsum([0, *STEPS[:-1]]).tolist()
    path = write_film(folder / f"h264_steps.{kind}", "h264", stamps)
    monkeypatch.setattr(media_container, "_SMALL", small)
    for start, end in ((0.0, 1.0), (1.6, 4.0), (2.0, 8.8), (9.0, 12.0)):
        own = [number for number, stamp in enumerate(stamps) if round(start * FPS) <= stamp < round(end * FPS)]
        earlier = stamps[own[0]] / FPS - start > 0.25  # twice the mean time between frames
        numbers = film_numbers(read_frames(f"{path}#t={start},{end}", len(own) + 1))
        assert numbers == ([own[0] - 1, *own] if earlier else [*own, own[-1]])


def test_slide_is_seen_in_a_part_in_which_no_frame_begins(folder):
    path = write_film(folder / "slides.mp4", "mpeg4", [0, 250, 500, 750])
    for (start, end), expected in {(12, 18): [1], (5, 15): [0, 1], (20, 30): [2], (25, 40): [2, 3]}.items():
        video = read_frames(f"{path}#t={start},{end}", 2)
        assert sorted(set(film_numbers(video))) == expected
        assert video.duration == pytest.approx(min(end, 30.04) - start, abs=0.05)
        assert all(time >= 0 for time in video.timestamps)


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts"])
def test_part_is_read_from_the_key_frame_before_it_and_not_from_the_beginning(kind, folder):
    path = write_film(folder / f"h264_long.{kind}", "h264", range(2000))
    assert film_numbers(read_frames(f"{path}#t=70,71", 25)) == list(range(1750, 1775))
    assert read_frames(f"{path}#t=70,71", 25).decoded < 25 + 25 + 8


@pytest.mark.parametrize("small", [2**26, 0])
@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts"])
def test_sound_and_frames_share_one_clock(kind, small, folder, monkeypatch):
    """The sound begins two seconds after the pictures, and both begin late."""
    path = folder / f"clock.{kind}"
    if not path.exists():
        with av.open(str(path), "w") as container:
            video = container.add_stream("libx264", rate=FPS, options={"g": "25"})
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            audio = container.add_stream("mp2", rate=RATE, layout="mono")
            for number in range(100):
                frame = av.VideoFrame.from_ndarray(blocks(number), "rgb24")
                frame.pts, frame.time_base = number + 50, Fraction(1, FPS)
                container.mux(video.encode(frame))
            container.mux(video.encode())
            convert = av.AudioResampler(audio.format, "mono", RATE)
            for frame in audio_frames(tone(4), 1152):
                frame.pts += 4 * RATE
                for part in convert.resample(frame):
                    container.mux(audio.encode(part))
            container.mux(audio.encode())
    monkeypatch.setattr(media_container, "_SMALL", small)
    whole = read_audio(path).waveform
    with av.open(str(path)) as container:
        starts = [float(stream.start_time * stream.time_base) for stream in container.streams]
    later = starts[1] - starts[0]  # the encoder begins with a little silence
    assert film_numbers(read_frames(f"{path}#t=1,1.4", 10)) == list(range(25, 35))
    assert read_audio(f"{path}#t=0,1.9") is None and audio_info(f"{path}#t=0,1.9") is None
    for start, end in ((3.0, 3.5), (1.0, 2.5)):
        part = read_audio(f"{path}#t={start},{end}").waveform
        expected = whole[round(max(start - later, 0) * RATE) : round((end - later) * RATE)]
        length = min(len(part), len(expected))
        assert abs(len(part) - len(expected)) <= 16
        middle = part[16 : length - 16]  # containers round times to milliseconds
        assert min((middle - expected[shift : shift + len(middle)]).abs().mean() for shift in range(33)) < 0.02
    with pytest.raises(NoVideoError, match="no picture, only sound"):
        read_frames(f"{path}#t=5,6", 2)
    assert audio_info(f"{path}#t=5,6").duration == pytest.approx(1, abs=0.05)
    with pytest.raises(MediaError, match=r"begins after the end of the file, which is 6\.0\d seconds long"):
        read_frames(f"{path}#t=9,10", 2)
    with pytest.raises(MediaError, match=r"begins after the end of the file, which is 6\.0\d seconds long"):
        read_audio(f"{path}#t=9,10")


@pytest.mark.parametrize(
    ("kind", "codec"), [("flac", "flac"), ("wav", "pcm_s16le"), ("mp4", "aac"), ("mp3", "mp3"), ("mkv", "flac")]
)
def test_sound_of_a_part_is_that_of_the_whole(kind, codec, folder):
    path = write_sound(folder / f"whole_{codec}.{kind}", tone(5), codec)
    whole = read_audio(path).waveform
    for start, end in ((0, 1), (1.25, 3.5), (2.0001, 2.9999), (4.5, 9)):
        expected = whole[round(start * RATE) : round(end * RATE)]
        part = read_audio(f"{path}#t={start},{end}")
        assert torch.allclose(part.waveform, expected, atol=2e-3)
        assert part.duration == pytest.approx(min(end, 5) - start, abs=0.1)
        window = read_audio(f"{path}#t={start},{end}", windows=[(0.25, 0.5), (0.4, 99)]).waveform
        assert torch.allclose(window[0], expected[RATE // 4 : RATE // 2], atol=2e-3)
        assert torch.allclose(window[1], expected[round(0.4 * RATE) :], atol=2e-3)


def test_frames_one_by_one_are_those_of_the_part(folder):
    path = write_film(folder / "h264.mp4", "h264")
    frames = iterate_frames(f"{path}#t=1,3", lambda available, duration: round(duration * 5))
    assert [block_number(frame) for frame in frames] == list(range(27, 75, 5))


def test_pictures_have_parts_where_they_have_times(folder):
    from PIL import Image

    images = [Image.fromarray(np.full((8, 8, 3), 20 * number, np.uint8)) for number in range(10)]
    images[0].save(folder / "steps.gif", save_all=True, append_images=images[1:], duration=500)
    shown = read_frames(folder / "steps.gif#t=1,2.5", 3).frames[:, 0, 0, 0].tolist()
    assert shown == pytest.approx([40, 60, 80], abs=6)
    (folder / "frames").mkdir()
    for number, image in enumerate(images):
        image.save(folder / "frames" / f"{number}.png")
    assert read_frames(folder / "frames#t=7,9", 2).frames[:, 0, 0, 0].tolist() == [140, 160]
    with pytest.raises(MediaError, match="still image, which has no parts in time"):
        read_frames(folder / "frames" / "0.png#t=0,1", 1)
    with pytest.raises(MediaError, match=r"which is 5\.00 seconds long"):
        read_frames(folder / "steps.gif#t=5", 1)
