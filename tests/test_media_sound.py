# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.

import struct
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from helpers.media_files import RATE, tone, write_sound, write_wav
from modeling_valor import media, media_audio, media_container
from modeling_valor.media import DamagedMediaWarning, MediaError, audio_info, open_source, read_audio


@pytest.mark.parametrize("channels", [1, 2])
def test_a_plain_wave_file_gives_the_same_sound_without_a_decoder(channels, tmp_path, monkeypatch):
    path = write_wav(tmp_path / "plain.wav", seconds=2.0, channels=channels)
    windows = [(0.0, 0.5), (1.9, 3.0), (5.0, 6.0), (0.25, 0.25)]
    plain = read_audio(path), read_audio(path, windows=windows), read_audio(path, max_seconds=0.3), audio_info(path)
    monkeypatch.setattr(media_audio, "_open_wave", lambda path: None)
    decoded = read_audio(path), read_audio(path, windows=windows), read_audio(path, max_seconds=0.3), audio_info(path)
    assert plain[3] == decoded[3]
    for one, other in zip(plain[:3], decoded[:3], strict=True):
        assert (one.sampling_rate, one.duration) == (other.sampling_rate, other.duration)
        pieces = [audio.waveform if isinstance(audio.waveform, list) else [audio.waveform] for audio in (one, other)]
        assert all(torch.equal(*pair) for pair in zip(*pieces, strict=True))


def test_the_track_of_an_open_file_is_looked_for_once(video, monkeypatch):
    opened, open_file = [], av.open
    monkeypatch.setattr(av, "open", lambda *args, **kwargs: opened.append(args) or open_file(*args, **kwargs))
    with open_source(video) as file:
        info, sound = audio_info(file), read_audio(file)
    assert len(opened) == 2  # to look for it, and to read it
    opened.clear()
    again = read_audio(video)
    assert len(opened) == 2 and torch.equal(again.waveform, sound.waveform) and info.duration == again.duration


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
    frames = media_container.Decoder.frames
    monkeypatch.setattr(
        media_container.Decoder, "frames", lambda self: (decoded.append(frame) or frame for frame in frames(self))
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


@pytest.mark.parametrize("channels", [1, 2])
def test_a_wave_file_that_ends_in_half_a_frame_is_used_as_far_as_it_goes(folder, channels):
    whole = Path(write_wav(folder / "whole.wav", channels=channels)).read_bytes()
    (folder / "odd.wav").write_bytes(whole[:-1])
    with pytest.warns(DamagedMediaWarning, match=r"odd\.wav .*as far as it goes"):
        audio = read_audio(folder / "odd.wav")
    assert len(audio.waveform) == RATE - 1
    assert np.allclose(audio.waveform.numpy(), tone(1)[:-1], atol=1e-4)
    assert audio_info(folder / "odd.wav").sampling_rate == RATE


def test_silence_that_a_file_claims_does_not_fill_the_memory(folder):
    """A thousand samples after a gap: time stamps of a few bytes would ask for gigabytes of zeros."""
    path = folder / "late.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for second in (0, 50):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 500), dtype="<i2"), "s16", "mono")
            frame.rate, frame.pts, frame.time_base = RATE, second * RATE, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with open_source(path, read_bytes=4 * 49 * RATE) as file, pytest.raises(MediaError, match=r"late\.mkv needs 3 MB"):
        read_audio(file)
    assert len(read_audio(path).waveform) == 50 * RATE + 500
