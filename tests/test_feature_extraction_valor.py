# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
import dataclasses
import io
import math
import wave

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoFeatureExtractor

from modeling_valor import feature_extraction_valor
from modeling_valor.feature_extraction_valor import ValorFeatureExtractor, resample
from modeling_valor.media import MediaError


MEAN, STD = -4.2677393, 4.5689974
SILENT_BIN = (math.log(torch.finfo(torch.float32).eps) - MEAN) / (2 * STD)
PADDED_BIN = (0 - MEAN) / (2 * STD)
FBANKS = ["torchaudio", "transformers"]


@pytest.fixture(params=FBANKS)
def fbank(request, monkeypatch):
    """Runs a test with torchaudio and as if it were absent."""
    if request.param == "torchaudio":
        pytest.importorskip("torchaudio")
    else:
        monkeypatch.setattr(feature_extraction_valor, "_torchaudio_kaldi", lambda: None)


def tone(seconds: float, rate: int, hertz: float = 440.0) -> torch.Tensor:
    """A decaying tone in noise, the same sound at every rate but for the noise."""
    times = torch.arange(int(seconds * rate)) / rate
    noise = torch.randn(len(times), generator=torch.Generator().manual_seed(0))
    return 0.4 * torch.sin(2 * math.pi * hertz * times) * torch.exp(-(times % 1)) + 0.01 * noise


def write_wav(path, waveform: torch.Tensor, rate: int):
    """16-bit PCM of a waveform (N,) or (channels, N)."""
    samples = (torch.atleast_2d(waveform).T * 32767).round().to(torch.int16).numpy()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.ascontiguousarray(samples).tobytes())
    return path


# ----------------------------------------------------------------------------- numbers


def assert_equals_recorded(recorded: dict[str, torch.Tensor], name: str, clips: int):
    expected = recorded[f"{name}/expected_na{clips}"]
    extractor = ValorFeatureExtractor(num_audio_clips=clips)
    features = extractor(recorded[f"{name}/waveform"], sampling_rate=22050, return_tensors="pt")["input_features"][0]
    assert features.shape == expected.shape
    # A float32 FFT is exact to one eps of a frame's strongest bin; in much weaker bins the logarithm magnifies that
    log_amplitude = expected * STD
    magnified = (
        (log_amplitude.amax(1, keepdim=True) - log_amplitude).exp() * torch.finfo(torch.float32).eps / (2 * STD)
    )
    assert ((features - expected).abs() <= 2e-5 + magnified).all()


@pytest.mark.parametrize("clips", [1, 2])
@pytest.mark.parametrize("name", ["chirp_3.3s", "bursts_5.12s", "am_0.4s", "am_exactly_512_frames"])
def test_features_equal_the_2023_code(load_fixture, fbank, name, clips):
    assert_equals_recorded(load_fixture("audio_frontend"), name, clips)


@pytest.mark.parametrize("clips", [1, 2])
def test_features_of_ten_seconds_equal_the_2023_code(shared, fbank, clips):
    assert_equals_recorded(load_file(shared / "parity/audio_frontend.safetensors"), "am_10s", clips)


def test_features_equal_a_slow_reference(fbank):
    waveform = tone(0.3, 22050)
    features = ValorFeatureExtractor()(waveform, sampling_rate=22050, return_tensors="pt")["input_features"][0, 0]
    frame = (waveform - waveform.mean()).double()[220 * 7 :][:551]  # the eighth frame
    frame = frame - frame.mean()
    frame = frame - 0.97 * torch.cat([frame[:1], frame[:-1]])
    power = torch.fft.rfft(frame * torch.hann_window(551, periodic=False, dtype=torch.float64), n=1024).abs() ** 2
    mel = 1127 * torch.log(1 + torch.arange(513) * 22050 / 1024 / 700)
    edges = torch.linspace(1127 * math.log(1 + 20 / 700), 1127 * math.log(1 + 11025 / 700), 66)
    width = edges[1] - edges[0]
    triangles = (1 - (mel - edges[1:-1, None]).abs() / width).clamp(min=0)
    expected = ((triangles.double() @ power).log() - MEAN) / (2 * STD)
    torch.testing.assert_close(features[:, 7].double(), expected, atol=2e-5, rtol=0)


def test_silence_and_padding_have_known_values(fbank):
    features = ValorFeatureExtractor(num_audio_clips=2)(torch.zeros(112971), 22050, return_tensors="pt")
    silent, padded = features["input_features"][0]  # 512 frames get a whole block of padding
    torch.testing.assert_close(silent, torch.full((64, 512), SILENT_BIN))
    torch.testing.assert_close(padded, torch.full((64, 512), PADDED_BIN))


def test_random_sampling_takes_one_block_of_each_segment():
    extractor = ValorFeatureExtractor()
    torch.manual_seed(0)
    draws = {tuple(start // 112640 for start, _ in extractor.clip_bounds(112640 * 6, 2, "random")) for _ in range(40)}
    assert {first for first, _ in draws} == {0, 1, 2}
    assert {second for _, second in draws} == {3, 4, 5}


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000, 96000])
def test_resampling_equals_torchaudio(rate):
    functional = pytest.importorskip("torchaudio").functional
    waveform = tone(0.5, rate)
    expected = functional.resample(waveform.double(), rate, 22050)
    torch.testing.assert_close(resample(waveform, rate, 22050).double(), expected, atol=2e-6, rtol=0)


def test_resampling_of_rates_without_common_divisor_keeps_a_tone():
    """Against the sampled tone itself, away from the ends; torchaudio would build a 4 GB table here."""
    waveform = torch.sin(2 * math.pi * 1000 * torch.arange(8000) / 44099)
    resampled = resample(waveform, 44099, 22050)
    expected = torch.sin(2 * math.pi * 1000 * torch.arange(len(resampled)) / 22050)
    assert len(resampled) == math.ceil(8000 * 22050 / 44099)
    torch.testing.assert_close(resampled[100:-100], expected[100:-100], atol=1e-3, rtol=0)


# ----------------------------------------------------------------------------- inputs


def test_all_forms_of_a_waveform_give_the_same_features():
    waveform = tone(0.5, 22050)
    extractor = ValorFeatureExtractor()
    expected = extractor(waveform, 22050)["input_features"]
    assert expected.shape == (1, 1, 64, 512)
    forms = {
        "array": waveform.numpy(),
        "numbers": waveform.tolist(),
        "batch": waveform[None],
        "list": [waveform],
        "stereo": [torch.stack([waveform, waveform])],
        "opposite stereo": [torch.stack([2 * waveform, 0 * waveform])],
        "datasets": {"array": waveform.numpy(), "sampling_rate": 22050, "path": None},
        "float64": waveform.double(),
    }
    for form in forms.values():
        np.testing.assert_allclose(extractor(form, 22050)["input_features"], expected, atol=1e-5)
    pcm = (waveform * 32768).round().to(torch.int16)
    np.testing.assert_allclose(
        extractor(pcm, 22050)["input_features"], extractor(pcm / 32768, 22050)["input_features"], atol=1e-5
    )


def test_columns_of_channels_are_one_waveform():
    """As soundfile and scipy read files: (N, 2), which is not N waveforms of two samples."""
    extractor = ValorFeatureExtractor()
    stereo = torch.stack([tone(0.5, 22050), tone(0.5, 22050, hertz=880)])
    expected = extractor([stereo], 22050)["input_features"]
    for form in (stereo.T, stereo.T.numpy(), [stereo.T], stereo.T[None], (stereo.T.numpy(), 22050)):
        np.testing.assert_allclose(extractor(form, 22050)["input_features"], expected, atol=1e-5)
    assert extractor(torch.zeros(2, 300), 22050)["input_features"].shape[0] == 2
    assert extractor(torch.zeros(70, 65), 22050)["input_features"].shape[0] == 70


def test_pairs_of_waveform_and_rate_state_their_rate():
    waveform = tone(0.5, 16000)
    extractor = ValorFeatureExtractor()
    expected = extractor(waveform, 16000)["input_features"]
    entry = {"array": waveform.numpy(), "sampling_rate": 16000}
    pairs = [
        (waveform[None], 16000),  # torchaudio.load
        (16000, waveform.numpy()),  # scipy.io.wavfile, gradio
        [waveform.tolist(), 16000],
        [(waveform, 16000)],
        entry,
        [entry],
    ]
    for pair in pairs:
        np.testing.assert_allclose(extractor(pair)["input_features"], expected, atol=1e-5)
    both = extractor([(waveform, 16000), (tone(0.5, 8000), 8000), waveform], 16000)["input_features"]
    np.testing.assert_allclose(both[[0, 2]], np.concatenate([expected] * 2), atol=1e-5)
    np.testing.assert_array_equal(both[1], extractor(tone(0.5, 8000), 8000)["input_features"][0])


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
def test_whole_numbers_are_scaled_by_the_range_of_their_type(dtype):
    """The lowest value is -1, the middle of an unsigned type 0."""
    bits, signed = np.iinfo(dtype).bits, dtype.startswith("i")
    levels = [-1.0, -0.5, 0.0, 0.25, 0.5]
    samples = np.array([int((level + (not signed)) * 2 ** (bits - 1)) for level in levels], dtype=dtype)
    for form in (samples, torch.from_numpy(samples)):
        waveform, _ = feature_extraction_valor._as_waveform(form, 22050)
        assert waveform.dtype == torch.float32 and waveform.tolist() == levels


@pytest.mark.parametrize("samples", [[0, 1000, -2000], np.array([0, 1000, -2000]), torch.tensor([0, 1000, -2000])])
def test_whole_numbers_of_no_stated_range_are_refused(samples):
    with pytest.raises(ValueError, match=r"up to 2000, so that their scale cannot be told.*numpy\.int16"):
        ValorFeatureExtractor()(samples, 22050)
    assert np.isfinite(ValorFeatureExtractor()([0, 0, 0], 22050)["input_features"]).all()


def test_waveforms_that_are_no_numbers_are_refused():
    for samples in ([[0.0, 0.1], [0.2]], np.array([True, False]), np.array(["a"]), np.zeros(5, dtype=complex)):
        with pytest.raises(ValueError, match="A waveform"):
            ValorFeatureExtractor()([samples], 22050)


def test_unknown_arguments_are_refused_by_name():
    with pytest.raises(TypeError, match="'num_clips', 'rate'"):
        ValorFeatureExtractor()(torch.zeros(100), rate=22050, num_clips=2)
    assert ValorFeatureExtractor()(torch.zeros(100), 22050, padding=True, truncation=False)


def test_features_are_finite_or_an_error(tmp_path):
    """Float samples may be finite and so large that their power is not, in torchaudio's float32."""
    pytest.importorskip("torchaudio")
    with pytest.raises(ValueError, match=r"samples up to 1e\+30, where 1 is full scale"):
        ValorFeatureExtractor()(tone(0.5, 22050).sign() * 1e30, 22050)
    path = write_float_wav(tmp_path / "huge.wav", np.full(4000, 1e30) * np.resize([1, -1], 4000))
    with pytest.raises(MediaError, match=r"huge\.wav has samples up to 1e\+30"):
        ValorFeatureExtractor()(path)


def test_batch_equals_single():
    extractor = ValorFeatureExtractor(num_audio_clips=2)
    waveforms = [tone(seconds, 16000) for seconds in (0.2, 7.0, 12.0)]
    batch = extractor(waveforms, 16000)["input_features"]
    for row, waveform in zip(batch, waveforms, strict=True):
        np.testing.assert_array_equal(row, extractor(waveform, 16000)["input_features"][0])


def test_missing_audio_is_masked_zeros():
    features = ValorFeatureExtractor()([tone(1, 22050), None], 22050, num_audio_clips=3, return_tensors="pt")
    assert features["audio_mask"].tolist() == [[True] * 3, [False] * 3]
    assert not features["input_features"][1].any()
    assert "audio_mask" not in ValorFeatureExtractor()([tone(1, 22050)], 22050)


def test_waveform_below_one_window_is_one_frame():
    features = ValorFeatureExtractor()(torch.ones(10) * 0.1, 22050, return_tensors="pt")["input_features"][0, 0]
    torch.testing.assert_close(features[:, 1:], torch.full((64, 511), PADDED_BIN))
    assert (features[:, 0] < PADDED_BIN).all()


@pytest.mark.parametrize(
    "waveform, rate, reason",
    [
        (torch.tensor([0.0, float("nan")]), 22050, "NaN or infinite"),
        (np.array([0.0, np.inf]), 22050, "NaN or infinite"),
        (torch.zeros(0), 22050, "empty"),
        ([], 22050, "empty"),
        ([torch.zeros(48000, 100)], 22050, "channels, samples"),
        (torch.zeros(2, 3, 4, 5), 22050, "channels, samples"),
        (torch.zeros(100), 0, "sampling rate"),
        (torch.zeros(100), -8000, "sampling rate"),
        (torch.zeros(100), 44100.5, "sampling rate"),
        (torch.zeros(100), 10**9, "sampling rate"),
        ([object()], 22050, "must be a waveform, a file"),
    ],
)
def test_bad_waveform_is_one_clear_error(waveform, rate, reason):
    with pytest.raises(ValueError, match=reason):
        ValorFeatureExtractor()(waveform, sampling_rate=rate)


def test_bad_options_are_clear_errors():
    with pytest.raises(ValueError, match="num_audio_clips"):
        ValorFeatureExtractor()(torch.zeros(100), 22050, num_audio_clips=0)
    with pytest.raises(ValueError, match="hanning"):
        ValorFeatureExtractor(window_type="square")


# ----------------------------------------------------------------------------- files


@pytest.mark.parametrize("rate", [16000, 22050, 48000])
def test_file_equals_waveform(tmp_path, rate):
    waveform = (tone(6, rate) * 32767).round() / 32768
    path = write_wav(tmp_path / "tone.wav", waveform * 32768 / 32767, rate)
    extractor = ValorFeatureExtractor(num_audio_clips=2)
    expected = extractor(waveform, rate)["input_features"]
    for source in (str(path), path, path.read_bytes(), io.BytesIO(path.read_bytes()), {"path": str(path)}):
        np.testing.assert_allclose(extractor(source)["input_features"], expected, atol=2e-4)


@pytest.mark.parametrize("rate", [22050, 44100, 48000])
def test_windows_of_a_long_file_equal_the_whole_file(tmp_path, rate):
    path = write_wav(tmp_path / "long.wav", tone(23, rate), rate)
    whole = ValorFeatureExtractor(num_audio_clips=3)(path)["input_features"]
    windows = ValorFeatureExtractor(num_audio_clips=3, max_whole_seconds=1)(path)["input_features"]
    assert whole.shape == (1, 3, 64, 512)
    np.testing.assert_allclose(windows, whole, atol=2e-3)


def test_long_file_reads_only_the_clips(tmp_path, monkeypatch):
    path = write_wav(tmp_path / "long.wav", tone(120, 8000), 8000)
    read = []
    real = feature_extraction_valor.read_audio

    def counting(source, **kwargs):
        audio = real(source, **kwargs)
        read.extend(len(piece) / audio.sampling_rate for piece in audio.waveform)
        return audio

    monkeypatch.setattr(feature_extraction_valor, "read_audio", counting)
    ValorFeatureExtractor(num_audio_clips=2)(path)
    assert len(read) == 2
    assert max(read) < 512 * 220 / 22050 + 1.3


def test_file_that_is_no_sound_is_a_media_error(tmp_path):
    path = tmp_path / "notes.wav"
    path.write_text("no sound at all")
    with pytest.raises(MediaError, match=r"notes\.wav"):
        ValorFeatureExtractor()(path)
    with pytest.raises(MediaError, match=r"gone\.wav"):
        ValorFeatureExtractor()(tmp_path / "gone.wav")


def write_float_wav(path, samples: np.ndarray, rate: int = 8000):
    """32-bit float PCM, mono."""
    content = samples.astype("<f4").tobytes()
    header = b"RIFF" + (36 + len(content)).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    header += b"".join(
        n.to_bytes(size, "little") for n, size in ((3, 2), (1, 2), (rate, 4), (4 * rate, 4), (4, 2), (32, 2))
    )
    path.write_bytes(header + b"data" + len(content).to_bytes(4, "little") + content)
    return path


def test_file_with_nan_samples_is_a_media_error(tmp_path):
    with pytest.raises(MediaError, match=r"nan\.wav.*NaN"):
        ValorFeatureExtractor()(write_float_wav(tmp_path / "nan.wav", np.full(4000, np.nan)))


def test_nothing_is_resampled_to_nothing():
    assert len(resample(torch.zeros(0), 8000, 22050)) == 0


def test_a_long_track_of_which_nothing_can_be_decoded_is_a_media_error(tmp_path, monkeypatch):
    path = write_wav(tmp_path / "long.wav", tone(70, 8000), 8000)
    real = feature_extraction_valor.read_audio

    def empty(source, **kwargs):
        audio = real(source, **kwargs)
        return dataclasses.replace(audio, waveform=[piece[:0] for piece in audio.waveform])

    monkeypatch.setattr(feature_extraction_valor, "read_audio", empty)
    with pytest.raises(MediaError, match=r"long\.wav has an audio track, but no sound could be decoded"):
        ValorFeatureExtractor()(path)


@pytest.mark.parametrize("clips", [1, 2, 8])
@pytest.mark.filterwarnings("ignore:.*as far as it goes")
def test_hostile_sounds_have_finite_features_or_one_media_error(shared, clips):
    for path in sorted((shared / "media/hostile").glob("*.[mw]*[4v]")):
        try:
            features = ValorFeatureExtractor(num_audio_clips=clips)(path)["input_features"]
        except MediaError as error:
            assert path.name in str(error)
        else:
            assert np.isfinite(features).all()


def test_real_sounds_of_every_format(shared):
    paths = sorted((shared / "media/real/audio").iterdir())
    features = ValorFeatureExtractor()(paths, return_tensors="pt")
    assert features["input_features"].shape == (len(paths), 1, 64, 512)
    assert "audio_mask" not in features
    assert features["input_features"].isfinite().all()


def test_silent_video_is_masked_and_sounding_video_is_not(shared):
    silent = shared / "media/real/video_silent/vertical_noaudio_4s.mp4"
    sounding = shared / "media/real/video/dog_barking_4s.mp4"
    features = ValorFeatureExtractor()([silent, sounding])
    assert features["audio_mask"].tolist() == [[False], [True]]


# ----------------------------------------------------------------------------- transformers


def test_saved_extractor_is_loaded_unchanged(tmp_path):
    AutoFeatureExtractor.register("ValorFeatureExtractor", ValorFeatureExtractor, exist_ok=True)
    extractor = ValorFeatureExtractor(num_audio_clips=4, window_type="hamming")
    extractor.save_pretrained(tmp_path)
    loaded = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert isinstance(loaded, ValorFeatureExtractor)
    assert loaded.to_dict() == extractor.to_dict()
    assert loaded.num_audio_clips == 4
