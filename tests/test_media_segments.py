# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""One pass over a film gives what its parts give one by one, and what a decoder gives that never seeks."""

import itertools
import warnings
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from helpers.films import CASES, NUM_FRAMES, decoded_in_order, film_numbers, write_film
from helpers.media_files import FPS, RATE, tone, write_sound, write_video
from modeling_valor import media_container
from modeling_valor.cli.timelines import choose_boundaries
from modeling_valor.media import (
    DamagedMediaWarning,
    MediaError,
    NoVideoError,
    read_audio,
    read_frames,
    segment_indices,
)
from modeling_valor.media_segments import fixed_segments, iterate_segments, shot_segments
from modeling_valor.search.reading import Segmentation


@pytest.mark.parametrize(
    ("duration", "seconds", "stride", "expected"),
    [
        (25.0, 10.0, None, [(0, 10), (10, 20), (20, 25)]),
        (20.0, 10.0, None, [(0, 10), (10, 20)]),
        (20.4, 10.0, None, [(0, 10), (10, 20.4)]),
        (4.0, 10.0, None, [(0, 4)]),
        (0.0, 10.0, None, [(0, 0)]),
        (25.0, 10.0, 5.0, [(0, 10), (5, 15), (10, 20), (15, 25)]),
        (23.0, 10.0, 5.0, [(0, 10), (5, 15), (10, 20), (15, 23)]),
        (65.0, 10.0, 30.0, [(0, 10), (30, 40), (60, 65)]),
        (50.0, 10.0, 30.0, [(0, 10), (30, 40)]),
    ],
)
def test_fixed_segments_cover_the_file(duration, seconds, stride, expected):
    assert fixed_segments(duration, seconds, stride) == expected


def test_gaps_between_segments_are_said_once():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        fixed_segments(20.0, 2.0, 2.0)
        choose_boundaries(2.0, 7.5, "fixed")(20.0)  # `valor caption`
        Segmentation(2.0, 7.5).boundaries(None)(20.0)  # an index
    assert [str(one.message) for one in said] == ["Segments of 2 s every 7.5 s leave out what lies between them."]


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_segments_have_a_positive_length(seconds):
    with pytest.raises(ValueError, match="positive length"):
        fixed_segments(10.0, seconds)


@pytest.mark.parametrize(("codec", "kind"), CASES)
def test_frames_of_segments_are_those_that_decoding_in_order_gives(codec, kind, folder):
    path = write_film(folder / f"{codec}.{kind}", codec)
    numbers = [number for number, _ in decoded_in_order(path)]
    segments = list(iterate_segments(path, lambda duration: fixed_segments(duration, 0.8, 0.4), num_frames=4))
    assert len(segments) == 11
    for place, segment in enumerate(segments):
        own = numbers[10 * place : 10 * place + 20]
        assert segment.error is None and segment.audio is None
        assert film_numbers(segment.frames) == [own[index] for index in segment_indices(len(own), 4)]
        assert film_numbers(read_frames(f"{path}#t={segment.start:.3f},{segment.end:.3f}", 4)) == film_numbers(
            segment.frames
        )
        expected = [place * 0.4 + index / FPS for index in segment.frames.indices]
        assert segment.frames.timestamps == pytest.approx(expected, abs=2e-3)


def test_nothing_is_decoded_twice(folder, monkeypatch):
    path, decoded = write_film(folder / "h264_open.mkv", "h264_open"), []
    frames = media_container.Decoder.frames
    monkeypatch.setattr(
        media_container.Decoder,
        "frames",
        lambda self, packets=None: (decoded.append(frame.pts) or frame for frame in frames(self, packets)),
    )
    for segment in iterate_segments(path, lambda duration: fixed_segments(duration, 1.0, 0.1), num_frames=8):
        assert segment.error is None
    assert len(decoded) == len(set(decoded)) <= NUM_FRAMES


def test_sound_of_segments_is_that_of_the_whole_file(folder):
    path = write_video(folder / "with_sound.mp4", count=100, sound=True)
    whole = read_audio(path).waveform
    segments = list(iterate_segments(path, lambda duration: fixed_segments(duration, 1.5, 0.5), num_frames=2))
    assert len(segments) == 6
    for place, segment in enumerate(segments):
        first = round(place * 0.5 * RATE)
        assert segment.audio.sampling_rate == RATE
        assert torch.equal(segment.audio.waveform, whole[first : None if place == 5 else first + round(1.5 * RATE)])


def test_sound_files_have_segments_without_frames(folder):
    path = write_sound(folder / "tone.flac", tone(2.5), "flac")
    segments = list(iterate_segments(path, [(0, 1), (1.5, 9)]))
    assert [(segment.start, segment.end) for segment in segments] == [(0, 1), (1.5, 2.5)]
    assert all(segment.frames is None and segment.error is None for segment in segments)
    assert np.allclose(segments[1].audio.waveform.numpy(), tone(2.5)[round(1.5 * RATE) :], atol=1e-4)
    with pytest.raises(MediaError, match="no video track"):
        next(iterate_segments(path, modalities="v"))


@pytest.mark.parametrize("boundaries", [[(1, 0)], [(-1, 1)], [(9, 10)]])
def test_segments_outside_of_the_file_are_refused(boundaries, folder):
    path = write_sound(folder / "tone.flac", tone(2.5), "flac")
    with pytest.raises(ValueError, match=r"2\.50 seconds long and has no segment"):
        list(iterate_segments(path, boundaries))


# ---------------------------------------------------------------------------------------------------------------------
# Damage
# ---------------------------------------------------------------------------------------------------------------------


def without_packets(path: str, copy: Path, first: float, last: float) -> str:
    """A copy of a film with empty codes in place of the packets between two moments."""
    content = bytearray(Path(path).read_bytes())
    with av.open(path) as container:
        for packet in container.demux():
            if packet.size and packet.pos is not None and first <= float(packet.dts * packet.time_base) < last:
                content[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    copy.write_bytes(content)
    return str(copy)


def test_broken_stretch_costs_its_segments_and_not_the_file(folder):
    """Three of ten seconds of a film whose key frames are a second apart are zeros."""
    path = write_film(folder / "ten_seconds.mp4", "h264", range(250))
    broken = without_packets(path, folder / "broken.mp4", 3.9, 6.9)
    with pytest.warns(DamagedMediaWarning, match=r"broken\.mp4 is damaged"):
        segments = list(iterate_segments(broken, lambda duration: fixed_segments(duration, 1.0), num_frames=3))
    assert len(segments) == 10
    for place, segment in enumerate(segments):
        if place in (4, 5):
            assert segment.frames is None
            assert f"broken.mp4 cannot be decoded from {place}.00 to {place + 1}.00 seconds" in segment.error
        elif place not in (3, 6):  # at the edges there are frames to use
            assert segment.error is None
            assert film_numbers(segment.frames) == [25 * place + index for index in segment_indices(25, 3)]


def test_file_that_cannot_be_read_at_all_is_an_error(folder):
    (folder / "text.mp4").write_text("no film")
    with pytest.raises(MediaError, match=r"text\.mp4 is not a video or sound file"):
        next(iterate_segments(folder / "text.mp4"))


def test_pictures_are_segments(folder):
    images = [Image.fromarray(np.full((8, 8, 3), 20 * number, np.uint8)) for number in range(10)]
    images[0].save(folder / "still.png")
    (still,) = iterate_segments(folder / "still.png", num_frames=4)
    assert (still.start, still.end, len(still.frames.frames)) == (0, 0, 1)
    images[0].save(folder / "steps.gif", save_all=True, append_images=images[1:], duration=500)
    steps = list(
        iterate_segments(folder / "steps.gif", lambda duration: fixed_segments(duration, 2.0, 0.5), num_frames=2)
    )
    assert [(segment.start, segment.end) for segment in steps] == [
        (0.5 * place, 0.5 * place + 2) for place in range(7)
    ]
    shown = [segment.frames.frames[:, 0, 0, 0].tolist() for segment in steps]
    assert np.allclose(shown, [[20 * place, 20 * (place + 2)] for place in range(7)], atol=8)


# ---------------------------------------------------------------------------------------------------------------------
# Shots
# ---------------------------------------------------------------------------------------------------------------------


def test_shots_begin_where_the_picture_changes(folder):
    pytest.importorskip("scenedetect")
    path, cuts, generator = folder / "shots.mkv", (0, 60, 150, 210), np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for number in range(275):
            if number in cuts:
                shot = np.kron(generator.integers(0, 255, (6, 10, 3)), np.ones((16, 16, 1))).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(np.roll(shot, number // 8, 1), "rgb24")
            frame.pts, frame.time_base = number + 40, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    edges = [cut / FPS for cut in cuts]
    assert shot_segments(path) == [pytest.approx(pair, abs=2e-3) for pair in itertools.pairwise([*edges, 11.0])]
    part = shot_segments(f"{path}#t=1,8")
    assert part == [pytest.approx(pair, abs=2e-3) for pair in itertools.pairwise([0, 1.4, 5.0, 7.0])]
    halves = shot_segments(path, max_seconds=2.0)
    assert len(halves) == 8 and all(end - start <= 2.0 + 1e-6 for start, end in halves)
    assert len(list(iterate_segments(path, shot_segments(path), num_frames=2))) == 4
    with pytest.raises(NoVideoError):
        shot_segments(write_sound(folder / "shotless.flac", tone(1), "flac"))
