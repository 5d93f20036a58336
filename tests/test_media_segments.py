# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""One pass over a film gives what its parts give one by one, and what a decoder gives that never seeks."""

import numpy as np
import pytest
import torch

from helpers.films import CASES, NUM_FRAMES, decoded_in_order, film_numbers, write_film
from helpers.media_files import FPS, RATE, tone, write_sound, write_video
from modeling_valor import media_container
from modeling_valor.media import MediaError, read_audio, read_frames, segment_indices
from modeling_valor.media_segments import fixed_segments, iterate_segments


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
