# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Waveforms and audio tracks to the log-mel clips of VALOR's audio encoder (section 4.1)."""

import functools
import math
import reprlib
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Number
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function
from transformers.processing_utils import AudioKwargs
from transformers.utils import TensorType, logging

from .configuration_checks import PROCESSOR_RANGES, check_ranges
from .media import (
    Audio,
    MediaError,
    MediaLimits,
    MediaSource,
    audio_info,
    media_source,
    one_at_a_time,
    open_source,
    read_audio,
    segment_indices,
)


logger = logging.get_logger(__name__)

MAX_SAMPLING_RATE = 768_000
MAX_CHANNELS = 64

WINDOW_NAMES = {"hanning": "hann", "hamming": "hamming", "povey": "povey"}
"""Window names of Kaldi and of `transformers.audio_utils`."""


class ValorFeatureExtractor(SequenceFeatureExtractor):
    r"""Turns sound into normalised log-mel clips: `input_features` of shape (B, A, 64, 512), mel bins x time.

    A waveform becomes mono, is resampled to `sampling_rate`, loses its mean and becomes a Kaldi filterbank. The frames
    are padded to blocks of `clip_length` (a whole block more where they fill the last one), the blocks are divided over
    A segments, and each segment gives one block. Only the blocks that are chosen are computed, and of an audio file
    longer than `max_whole_seconds` only their samples are read, so that two hours cost what ten seconds cost.

    Args:
        feature_size (`int`): mel bins.
        sampling_rate (`int`): rate in Hz that every waveform is resampled to.
        padding_value (`float`): log-mel value of the padding, before the normalisation.
        num_audio_clips (`int`): clips A of each sample.
        clip_length (`int`): frames of a clip; 512 are 5.12 s.
        frame_length_ms, frame_shift_ms (`float`): the analysis window and its step.
        window_type (`str`): `"hanning"`, as the released checkpoints use, `"hamming"` (the paper's text) or `"povey"`.
        mean, std (`float`): statistics of AudioSet; features become (x - mean) / (2 * std).
        max_whole_seconds (`float`): audio files up to this length are read whole.
        media_limits (`dict`): which sources are accepted and what may be spent on them, where that is not the default
            of [`MediaLimits`], such as `{"public_only": True}`.
    """

    model_input_names = ["input_features", "audio_mask"]

    def __init__(
        self,
        feature_size: int = 64,
        sampling_rate: int = 22050,
        padding_value: float = 0.0,
        num_audio_clips: int = 1,
        clip_length: int = 512,
        frame_length_ms: float = 25.0,
        frame_shift_ms: float = 10.0,
        window_type: str = "hanning",
        mean: float = -4.2677393,
        std: float = 4.5689974,
        max_whole_seconds: float = 60.0,
        media_limits: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        if window_type not in WINDOW_NAMES:
            raise ValueError(f"`window_type` must be one of {list(WINDOW_NAMES)}, got {window_type!r}.")
        self.num_audio_clips = num_audio_clips
        self.clip_length = clip_length
        self.frame_length_ms = frame_length_ms
        self.frame_shift_ms = frame_shift_ms
        self.window_type = window_type
        self.mean = mean
        self.std = std
        self.max_whole_seconds = max_whole_seconds
        self.media_limits = MediaLimits.checked(media_limits)
        check_ranges(self, PROCESSOR_RANGES)

    def __call__(
        self,
        raw_speech: Any,
        sampling_rate: int | None = None,
        num_audio_clips: int | None = None,
        sampling: str | None = None,
        generator: torch.Generator | int | None = None,
        media_limits: MediaLimits | dict[str, Any] | None = None,
        return_metadata: bool = False,
        return_tensors: str | TensorType | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Gives `input_features` (B, A, 64, 512), and `audio_mask` (B, A) where a sample has no audio.

        Args:
            raw_speech: one sample or a list of samples. A sample is a waveform, as an array, a tensor or a list of numbers;
                a pair of a waveform and its rate, or `{"array": ..., "sampling_rate": ...}`; an audio or video file, as
                [`open_source`] takes it; a decoded or encoded column entry of `datasets`; or `None`, a sample without
                audio: zeros, and False in `audio_mask`, as for a file without an audio track.

                A waveform has the shape (N,), (channels, N) or (N, channels): up to 64 columns are channels where there
                are more rows than columns. Any other array of two dimensions is a batch (B, N), and an array of three is
                a batch of such waveforms: put the waveform (channels, N) of one sample in a list. Whole numbers are
                scaled by their type's range to -1 to 1; those of 64 bits, such as Python's, must use their range.
            sampling_rate (`int`, *optional*): rate of the waveforms in Hz; `self.sampling_rate` if not given. Files
                state their own.
            num_audio_clips (`int`, *optional*): clips A of each sample.
            sampling (`str`, *optional*): which block of a segment is taken, its `"center"` (the default) or a
                `"random"` one, for training.
            generator (`torch.Generator` or `int`, *optional*): source, or seed, of the random choices.
            media_limits (`dict`, *optional*): as of the extractor, for this call.
            return_metadata (`bool`): also return `audio_metadata`, a dict with the `duration` of each sample's whole
                sound in seconds, or `None` for a sample without sound.
            return_tensors (`str`, *optional*): `"pt"`, or `"np"`, which is also the default.
            kwargs: what other feature extractors take (`padding`, `truncation`, ...), without effect here.

        Raises:
            ValueError: a waveform that is empty, not finite, of another shape or so large that its features are not
                finite, or an impossible rate.
            MediaError: a file that cannot be read, or whose features are not finite.
            TypeError: an argument of another name.
        """
        if unknown := sorted(kwargs.keys() - AudioKwargs.__annotations__.keys()):
            raise TypeError(f"{type(self).__name__} has no argument {', '.join(map(repr, unknown))}.")
        samples = _as_batch(raw_speech)
        limits = MediaLimits.of(self.media_limits if media_limits is None else media_limits)
        clips = self._num_clips(num_audio_clips)
        if sampling_rate is None and any(map(_is_array, samples)):
            self._warn_of_unknown_rate()
        choose = self._chooser(clips, sampling, generator)
        features, durations = zip(
            *(self._computed(sample, sampling_rate, choose, limits, self._features_of) for sample in samples),
            strict=True,
        )
        present = torch.tensor([feature is not None for feature in features])
        silence = torch.zeros(int(clips), self.feature_size, self.clip_length)
        data: dict[str, Any] = {"input_features": torch.stack([silence if f is None else f for f in features]).numpy()}
        if not present.all():
            data["audio_mask"] = present[:, None].repeat(1, int(clips)).numpy()
        if return_metadata:
            data["audio_metadata"] = [None if duration is None else {"duration": duration} for duration in durations]
        return BatchFeature(data, tensor_type=return_tensors, skip_tensor_conversion=["audio_metadata"])

    def read(
        self,
        sample: Any,
        sampling_rate: int | None = None,
        num_audio_clips: int | None = None,
        sampling: str | None = None,
        generator: torch.Generator | int | None = None,
        media_limits: MediaLimits | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> list[tuple[Tensor, Tensor]] | None:
        """The first half of a call, of one sample: everything that reads, resamples or is random.

        Args:
            sample, sampling_rate, ...: as for a call.

        Returns:
            For each clip its samples (N,) at `sampling_rate`, of which there may be none, and the mean (float32, no
            dimension) that `prepare` takes off them. Samples are int16 where that is exact, as for 16-bit files of this
            rate, else float32. None for a sample without audio.

        Raises:
            ValueError, MediaError: as a call.
        """
        if sampling_rate is None and _is_array(sample):
            self._warn_of_unknown_rate()
        limits = MediaLimits.of(self.media_limits if media_limits is None else media_limits)
        choose = self._chooser(self._num_clips(num_audio_clips), sampling, generator)
        clips, _ = self._computed(sample, sampling_rate, choose, limits, self._if_finite)
        return None if clips is None else [(_as_int16(samples), mean) for samples, mean in clips]

    def prepare(self, clips: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """The second half of a call: the features (clips, mel, time) of what `read` gave, on the device where it is.

        Equal to those of a call to float noise, which is that of a device's Fourier transform.
        """
        return torch.cat([self._batch_features(clips[at : at + 64]) for at in range(0, len(clips), 64)])

    def _num_clips(self, number: int | None) -> int:
        clips = self.num_audio_clips if number is None else number
        if not isinstance(clips, Integral) or clips < 1:
            raise ValueError(f"`num_audio_clips` must be a whole number of at least 1, got {clips!r}.")
        return int(clips)

    def _warn_of_unknown_rate(self) -> None:
        logger.warning_once(
            f"`sampling_rate` was not given: the waveforms are taken to be at {self.sampling_rate} Hz. Pass their "
            "rate, since a wrong one gives wrong features without an error."
        )

    def _chooser(self, clips: int, sampling: str | None, generator: torch.Generator | int | None) -> Callable:
        """`clip_bounds` of a number of samples, with the options of a call."""
        if isinstance(generator, int):
            generator = torch.Generator().manual_seed(generator)
        return functools.partial(self.clip_bounds, num_audio_clips=clips, sampling=sampling, generator=generator)

    @property
    def _frame(self) -> tuple[int, int]:
        """Samples of the analysis window and of its step, truncated as Kaldi does."""
        window, shift = self.frame_length_ms * 0.001, self.frame_shift_ms * 0.001
        return int(self.sampling_rate * window), int(self.sampling_rate * shift)

    def clip_bounds(
        self,
        num_samples: int,
        num_audio_clips: int,
        sampling: str | None = None,
        generator: torch.Generator | None = None,
    ) -> list[tuple[int, int]]:
        """First and last sample (exclusive, at `sampling_rate`) that each clip of a waveform of `num_samples` is made of.

        A waveform of F analysis frames has `F // clip_length + 1` blocks, of which the last is padded: with 22,050 Hz
        and the default sizes, block b holds the samples from 112,640 b (5.11 s times b) on. A last block may lie
        behind the end and hold none.
        """
        window, shift = self._frame
        num_frames = 1 + max(0, num_samples - window) // shift
        num_blocks = num_frames // self.clip_length + 1
        blocks = segment_indices(num_blocks, num_audio_clips, sampling or "center", generator)
        starts = [block * self.clip_length * shift for block in blocks]
        return [(start, start + (self.clip_length - 1) * shift + window) for start in starts]

    def _computed(
        self, sample: Any, sampling_rate: int | None, choose: Callable, limits: MediaLimits, compute: Callable
    ) -> tuple[Any, float] | tuple[None, None]:
        """`compute` of the clips of one sample that `choose` selects, and its duration; None where it has no audio.

        Args:
            compute: takes the samples of each clip and their mean; returns None where features would not be finite.
        """
        if sample is None:
            return None, None
        if (source := media_source(sample)) is not None:
            return self._computed_of_file(source, choose, limits, compute)
        waveform, rate = _as_waveform(sample, self.sampling_rate if sampling_rate is None else sampling_rate)

        def read(windows: list[tuple[int, float]] | None) -> tuple[list[Tensor], int]:
            parts = [(0, len(waveform) / rate)] if windows is None else windows
            return [waveform[begin * rate : math.ceil(end * rate)] for begin, end in parts], rate

        computed = compute(self._clip_samples(read, len(waveform) / rate, choose))
        if computed is None:
            raise ValueError(f"A waveform {_reaches([waveform])}. Scale it to -1 to 1.")
        return computed, len(waveform) / rate

    def _computed_of_file(
        self, source: MediaSource, choose: Callable, limits: MediaLimits, compute: Callable
    ) -> tuple[Any, float] | tuple[None, None]:
        with open_source(source, limits) as path:
            if (info := audio_info(path)) is None:
                return None, None
            check_sampling_rate(path.name, info.sampling_rate)
            pieces: list[Tensor] = []

            def read(windows: list[tuple[int, float]] | None) -> tuple[list[Tensor], int]:
                audio = cast(Audio, read_audio(path, windows=windows))  # it has sound, as said above
                waveform: Any = audio.waveform
                pieces.extend([waveform] if windows is None else waveform)
                if not any(map(len, pieces)):
                    raise MediaError(
                        f"{path.name} has an audio track, but no sound could be decoded where it should be."
                    )
                check_samples(path.name, pieces)
                return pieces, audio.sampling_rate

            computed = compute(self._clip_samples(read, info.duration, choose))
        if computed is None:
            raise MediaError(f"{path.name} {_reaches(pieces)}.")
        return computed, info.duration

    def _features_of(self, clips: list[tuple[Tensor, Tensor]]) -> Tensor | None:
        """The features of clips of these samples and means, (A, mel, time); None where they overflow."""
        features = torch.stack([self._clip_features(samples - mean) for samples, mean in clips])
        return features if features.isfinite().all() else None

    def _if_finite(self, clips: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]] | None:
        """The clips themselves; None where their features overflow, which is not computed where it cannot be."""
        is_quiet = all(float(samples.abs().max()) < 1e12 for samples, _ in clips if len(samples))
        return clips if is_quiet or self._features_of(clips) is not None else None

    def _clip_samples(self, read: Callable, duration: float, choose: Callable) -> list[tuple[Tensor, Tensor]]:
        """The samples that each clip is made of, at `sampling_rate`, and the mean that is to be taken off them.

        `read(windows)` gives the waveforms of windows, (begin, end) in seconds, or of all (`None`), and their rate. A
        window begins at a whole second, where the sample grids of any two rates meet, so that its samples are those of
        the resampled whole; what surrounds the clip feeds the resampling filter. The mean of a window stands for that
        of the whole: the filterbank removes the mean of each frame in any case.
        """
        if duration <= self.max_whole_seconds:
            (waveform,), rate = read(None)
            waveform = resample(waveform, rate, self.sampling_rate)
            mean = waveform.mean()
            if (missing := self._frame[0] - len(waveform)) > 0:
                waveform = torch.cat([waveform, mean.expand(missing)])  # zeros without the mean
            return [(waveform[start:stop], mean) for start, stop in choose(len(waveform))]

        margin = 0.1
        bounds = choose(int(duration * self.sampling_rate))
        windows = [
            (max(0, math.floor(start / self.sampling_rate - margin)), stop / self.sampling_rate + margin)
            for start, stop in bounds
        ]
        waveforms, rate = read(windows)
        pieces = []
        for waveform, (start, stop), (begin, _) in zip(waveforms, bounds, windows, strict=True):
            offset = begin * self.sampling_rate
            piece = resample(waveform, rate, self.sampling_rate)[start - offset : stop - offset]
            pieces.append((piece, piece.mean() if len(piece) else torch.zeros(())))
        return pieces

    def _clip_features(self, piece: Tensor) -> Tensor:
        """Normalised log-mel features of the samples of one clip, (mel, time)."""
        features = self._log_mel(piece)
        features = nn.functional.pad(features, (0, 0, 0, self.clip_length - len(features)), value=self.padding_value)
        return (features.T - self.mean) / (2 * self.std)

    def _batch_features(self, clips: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """As `_clip_features` of each clip, by the same steps as `_log_mel`, of all at once."""
        window, shift = self._frame
        fft_length = 2 ** math.ceil(math.log2(window))
        device = clips[0][0].device
        waveforms = [_as_float(samples) - mean for samples, mean in clips]
        counts = [1 + (len(samples) - window) // shift if len(samples) >= window else 0 for samples, _ in clips]
        padded = nn.utils.rnn.pad_sequence(waveforms, batch_first=True)
        frames = nn.functional.pad(padded, (0, max(0, window - padded.shape[1]))).unfold(1, window, shift)
        frames = frames - frames.mean(dim=2, keepdim=True)
        frames = frames - 0.97 * torch.cat([frames[..., :1], frames[..., :-1]], dim=2)
        weights, filters = _analysis(self.window_type, window, fft_length, self.feature_size, self.sampling_rate)
        power = torch.fft.rfft(frames * weights.to(device), n=fft_length).abs() ** 2
        features = (power @ filters.to(device)).clamp(min=torch.finfo(torch.float32).eps).log()
        features = nn.functional.pad(features, (0, 0, 0, max(0, self.clip_length - features.shape[1])))
        is_padding = torch.arange(features.shape[1]) >= torch.tensor(counts)[:, None]
        features = features.masked_fill(is_padding.to(device)[..., None], self.padding_value)
        return (features.mT - self.mean) / (2 * self.std)

    def _log_mel(self, waveform: Tensor) -> Tensor:
        """Kaldi's log-mel filterbank, (frames, mel); no frames where the waveform is shorter than the window."""
        window, shift = self._frame
        if len(waveform) < window:
            return torch.zeros(0, self.feature_size)
        if (kaldi := _torchaudio_kaldi()) is not None:
            return kaldi.fbank(
                waveform[None],
                frame_length=self.frame_length_ms,
                frame_shift=self.frame_shift_ms,
                htk_compat=True,
                num_mel_bins=self.feature_size,
                sample_frequency=self.sampling_rate,
                window_type=self.window_type,
            )
        features = spectrogram(
            waveform.numpy(),
            window_function(window, WINDOW_NAMES[self.window_type], periodic=False),
            frame_length=window,
            hop_length=shift,
            fft_length=2 ** math.ceil(math.log2(window)),
            power=2.0,
            center=False,
            preemphasis=0.97,
            mel_filters=_mel_filters(2 ** math.ceil(math.log2(window)), self.feature_size, self.sampling_rate),
            mel_floor=torch.finfo(torch.float32).eps,
            log_mel="log",
            remove_dc_offset=True,
        )
        return torch.from_numpy(features.T)


@functools.cache
def _torchaudio_kaldi() -> Any:
    """`torchaudio.compliance.kaldi`, or None where torchaudio is absent or cannot be loaded."""
    try:
        from torchaudio.compliance import kaldi
    except (ImportError, OSError, RuntimeError):
        return None
    return kaldi


@functools.cache
def _analysis(
    window_type: str, window: int, fft_length: int, num_mel_bins: int, sampling_rate: int
) -> tuple[Tensor, Tensor]:
    """The window (window,) and the mel filters (fft_length // 2 + 1, num_mel_bins) of `_log_mel`, float32."""
    if (kaldi := _torchaudio_kaldi()) is None:
        weights = torch.from_numpy(window_function(window, WINDOW_NAMES[window_type], periodic=False))
        return weights.float(), torch.from_numpy(_mel_filters(fft_length, num_mel_bins, sampling_rate)).float()
    weights = {
        "hanning": torch.hann_window(window, periodic=False),
        "hamming": torch.hamming_window(window, periodic=False),
        "povey": torch.hann_window(window, periodic=False) ** 0.85,
    }[window_type]
    filters, _ = kaldi.get_mel_banks(
        num_mel_bins,
        fft_length,
        float(sampling_rate),
        low_freq=20.0,
        high_freq=0.0,
        vtln_low=100.0,
        vtln_high=-500.0,
        vtln_warp_factor=1.0,
    )
    return weights, nn.functional.pad(filters, (0, 1)).T.contiguous()  # the highest frequency has no weight


@functools.cache
def _mel_filters(fft_length: int, num_mel_bins: int, sampling_rate: int) -> np.ndarray:
    return mel_filter_bank(
        num_frequency_bins=fft_length // 2 + 1,
        num_mel_filters=num_mel_bins,
        min_frequency=20.0,
        max_frequency=sampling_rate / 2,
        sampling_rate=sampling_rate,
        mel_scale="kaldi",
        triangularize_in_mel_space=True,
    )


def resample(waveform: Tensor, rate: int, new_rate: int) -> Tensor:
    """The waveform (N,) at another rate, by windowed sinc interpolation; equal to `torchaudio.functional.resample`.

    Outputs repeat their filter every `new_rate / gcd` samples. Filters are applied a few at a time, over the inputs that
    they reach, so that time and memory stay bounded for any pair of rates (torchaudio builds all of them over all
    inputs, gigabytes for rates without a common divisor).
    """
    if rate == new_rate or not len(waveform):
        return waveform
    divisor = math.gcd(rate, new_rate)
    old, new = rate // divisor, new_rate // divisor
    cutoff = 0.99 * min(old, new) / old  # as a part of the old rate's band
    zeros = 6  # zero crossings of the sinc on each side
    width = math.ceil(zeros / cutoff)
    periods = math.ceil(len(waveform) / old)
    padded = nn.functional.pad(waveform, (width, periods * old - len(waveform) + width + 2))
    resampled = torch.empty(periods, new, dtype=waveform.dtype)
    for first in range(0, new, 32):
        times = torch.arange(first, min(first + 32, new), dtype=torch.float64) * old / new
        reach = torch.arange(int(times[0]) - width, int(times[-1]) + width + 2)
        distance = ((reach - times[:, None]) * cutoff).clamp(-zeros, zeros)
        filters = cutoff * torch.sinc(distance) * torch.cos(distance * math.pi / zeros / 2) ** 2
        inputs = padded[int(times[0]) :].unfold(0, len(reach), old)[:periods]
        resampled[:, first : first + 32] = inputs @ filters.T.to(waveform.dtype)
    return resampled.flatten()[: math.ceil(len(waveform) * new / old)]


def _as_int16(samples: Tensor) -> Tensor:
    """The samples in two bytes each, where they are multiples of 2**-15 below 1."""
    scaled = samples * 2**15
    whole = scaled.to(torch.int16)
    return whole if torch.equal(whole.float(), scaled) else samples


def _as_float(samples: Tensor) -> Tensor:
    return samples / 2**15 if samples.dtype == torch.int16 else samples


def _reaches(pieces: list[Tensor]) -> str:
    peak = max(float(piece.abs().max()) for piece in pieces if len(piece))
    return f"has samples up to {peak:.3g}, where 1 is full scale, and no finite features"


def _as_batch(raw_speech: Any) -> list:
    """One entry per sample."""
    if isinstance(raw_speech, (np.ndarray, Tensor)):
        return [raw_speech] if raw_speech.ndim < 2 or _has_columns_of_channels(raw_speech) else list(raw_speech)
    if not isinstance(raw_speech, (list, tuple)) or _is_pair(raw_speech):
        return [raw_speech]
    if len(raw_speech) == 0:
        raise ValueError("No audio was given: the list is empty. Pass `None` for a sample without audio.")
    return [raw_speech] if isinstance(raw_speech[0], Number) else list(raw_speech)


def _is_array(sample: Any) -> bool:
    """Whether a sample is a waveform that does not say its rate."""
    return isinstance(sample, (np.ndarray, Tensor, list, tuple)) and not _is_pair(sample)


def _is_pair(sample: Any) -> bool:
    """Whether a sample is a waveform and its rate, in any order."""
    if not isinstance(sample, (list, tuple)) or len(sample) != 2:
        return False
    first, second = sample
    return isinstance(first, Number) != isinstance(second, Number) and any(
        isinstance(part, (np.ndarray, Tensor, list, tuple)) for part in sample
    )


def is_waveform(sample: Any) -> bool:
    """Whether a sample is sound that says its own rate: a pair, a dict, or a decoder such as torchcodec's."""
    decoded = isinstance(sample, dict) and sample.get("array") is not None
    return decoded or _is_pair(sample) or hasattr(sample, "get_all_samples")


def check_sampling_rate(name: str, rate: int) -> None:
    """Raises a `MediaError` where a file states a rate that no sound has."""
    if rate > MAX_SAMPLING_RATE:
        raise MediaError(f"{name} states a sampling rate of {rate:,} Hz, which no sound has.")


def check_samples(name: str, pieces: Iterable[Tensor]) -> None:
    """Raises a `MediaError` where the sound of a file holds NaN or infinite values."""
    if not all(piece.isfinite().all() for piece in pieces):
        raise MediaError(f"{name} has sound with NaN or infinite values.")


def _has_columns_of_channels(waveform: np.ndarray | Tensor) -> bool:
    return waveform.ndim == 2 and waveform.shape[1] <= MAX_CHANNELS and waveform.shape[0] > waveform.shape[1] > 0


def _samples_and_rate(sample: Any, rate: int) -> tuple[np.ndarray | Tensor | list, Any]:
    """The samples as they are given, of one or several channels, and their rate, `rate` where they do not say it."""
    if isinstance(sample, dict) and sample.get("array") is not None:
        return sample["array"], sample.get("sampling_rate", rate)
    if _is_pair(sample):
        samples, rate = sample if isinstance(sample[1], Number) else sample[::-1]
        return samples, rate
    if hasattr(sample, "get_all_samples"):
        with one_at_a_time(sample):
            decoded = sample.get_all_samples()
        return decoded.data, decoded.sample_rate
    if not _is_array(sample):
        raise ValueError(
            "An audio sample must be a waveform, a file (path, URL, bytes or file object) or None, got "
            f"{reprlib.repr(sample)}."
        )
    return sample, rate


def _as_waveform(sample: Any, rate: int) -> tuple[Tensor, int]:
    """A waveform as float32 (N,), the mean of its channels, and its rate, `rate` where the sample does not say it."""
    samples, rate = _samples_and_rate(sample, rate)
    waveform = _at_full_scale(samples)
    if waveform.ndim == 2 and _has_columns_of_channels(waveform):
        waveform = waveform.T
    if waveform.ndim == 2 and len(waveform) <= MAX_CHANNELS:
        waveform = waveform.mean(0)
    if waveform.ndim != 1:
        raise ValueError(
            "A waveform must have the shape (samples,), (channels, samples) or (samples, channels), got "
            f"{tuple(waveform.shape)}."
        )
    if len(waveform) == 0:
        raise ValueError("A waveform is empty. Pass `None` for a sample without audio.")
    if not waveform.isfinite().all():
        raise ValueError("A waveform holds NaN or infinite values. Repair it, or pass `None` in its place.")
    if not isinstance(rate, Integral) or isinstance(rate, bool) or not 0 < rate <= MAX_SAMPLING_RATE:
        raise ValueError(
            f"The sampling rate must be a whole number of Hz between 1 and {MAX_SAMPLING_RATE:,}, got {rate!r}."
        )
    return waveform, int(rate)


def _at_full_scale(sample: np.ndarray | Tensor | list) -> Tensor:
    """Samples as float32; whole numbers so that their type's range becomes -1 to 1."""
    if isinstance(sample, Tensor):
        sample = sample.detach().cpu()
        sample = (sample.float() if sample.is_floating_point() else sample).numpy()
    try:
        samples = np.asarray(sample)
    except ValueError as error:
        raise ValueError(f"A waveform cannot be made of this list: {error}.") from error
    if samples.dtype.kind == "f":
        return torch.from_numpy(np.array(samples, dtype=np.float32, order="C"))
    if samples.dtype.kind not in "iu":
        raise ValueError(f"A waveform must hold numbers, got {samples.dtype}.")
    limits = np.iinfo(samples.dtype)
    centre = 0 if samples.dtype.kind == "i" else 2 ** (limits.bits - 1)
    samples = samples.astype(np.float64) - centre
    peak = float(np.abs(samples).max(initial=0))
    if limits.bits == 64 and 0 < peak < 2**31:
        raise ValueError(
            f"A waveform holds whole numbers of 64 bits up to {peak:.0f}, so that their scale cannot be told. Pass floats "
            "between -1 and 1, or an array of the type that they were recorded in, such as `numpy.int16`."
        )
    return torch.from_numpy(samples / 2 ** (limits.bits - 1)).float()


__all__ = ["ValorFeatureExtractor"]
