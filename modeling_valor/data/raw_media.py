# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Frames and sound as they were decoded, which workers send where the training device resizes, normalises and transforms them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from ..configuration_valor import AUDIO, VIDEO
from ..media import MediaError, NoVideoError
from ..processing_valor import ValorProcessor


@dataclass
class RawSample:
    """What was read of a sample.

    Args:
        frames: of [`ValorVideoProcessor.read`]: uint8, or float32 where they are prepared already.
        clips: of [`ValorFeatureExtractor.read`].
    """

    frames: Tensor | None = None
    clips: list[tuple[Tensor, Tensor]] | None = None


@dataclass
class RawMedia:
    """What was read of the samples of a batch. Five tensors at most, as each needs a file descriptor to leave a worker.

    Args:
        arguments: of the video processor.
        shapes: of the uint8 frames of each sample; None where it has none of these.
        frames: their bytes, uint8 (number,), one sample after the other.
        prepared: which samples have frames that are prepared already.
        pixels: these, as `processor.pad` joins them.
        lengths: number of samples of each clip; None for a sample without audio.
        waveforms: of all clips, one after the other, int16 or float32 (number,).
        means: of each clip, (clips,).
    """

    arguments: dict[str, Any]
    shapes: list[torch.Size | None]
    frames: Tensor
    prepared: list[int]
    pixels: dict[str, Tensor]
    lengths: list[list[int] | None]
    waveforms: Tensor
    means: Tensor
    input_names: list[str] = field(init=False)
    """The inputs of the model that `prepare` gives."""

    def __post_init__(self) -> None:
        has_frames = bool(self.prepared) or any(shape is not None for shape in self.shapes)
        has_audio = any(lengths is not None for lengths in self.lengths)
        self.input_names = [VIDEO.input] * has_frames + [AUDIO.input] * has_audio

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in (*self._tensors().values(), *self.pixels.values()))

    def _tensors(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in ("frames", "waveforms", "means")}

    def pin_memory(self) -> "RawMedia":
        """The same in page-locked memory, for data loaders."""
        return self._map(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device) -> "RawMedia":
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def _map(self, move: Callable[[Tensor], Tensor]) -> "RawMedia":
        """The same with all tensors moved."""
        moved: dict[str, Any] = {name: move(tensor) for name, tensor in self._tensors().items()}
        return replace(self, **moved, pixels={name: move(tensor) for name, tensor in self.pixels.items()})

    @torch.no_grad()
    def prepare(self, processor: ValorProcessor) -> dict[str, Tensor]:
        """The inputs of the model, on the device of the tensors: those that the processor gives for the batch."""
        samples: list[dict[str, Any]] = [{} for _ in self.shapes]
        for row, sample in enumerate(self.prepared):
            samples[sample] = {name: value[row : row + 1] for name, value in self.pixels.items()}
        for members in self._of_one_size().values():
            frames = torch.cat([part for _, part in members])
            prepared = processor.video_processor.prepare(frames, **self.arguments)
            for (sample, _), own in zip(
                members, torch.split(prepared, [len(part) for _, part in members]), strict=True
            ):
                samples[sample][VIDEO.input] = own[None]
        if AUDIO.input in self.input_names:
            counts = [None if lengths is None else len(lengths) for lengths in self.lengths]
            lengths = list(chain.from_iterable(lengths or () for lengths in self.lengths))
            clips = list(zip(torch.split(self.waveforms, lengths), self.means, strict=True))
            features = iter(processor.feature_extractor.prepare(clips).split([count for count in counts if count]))
            for sample, count in enumerate(counts):
                if count is not None:
                    samples[sample][AUDIO.input] = next(features)[None]
        return dict(processor.pad(samples))

    def _of_one_size(self) -> dict[torch.Size, list[tuple[int, Tensor]]]:
        """Samples and their uint8 frames (F, 3, H, W), by (3, H, W): many samples are then prepared in one call."""
        groups: dict[torch.Size, list[tuple[int, Tensor]]] = {}
        parts = iter(torch.split(self.frames, [shape.numel() for shape in self.shapes if shape is not None]))
        for sample, shape in enumerate(self.shapes):
            if shape is not None:
                groups.setdefault(shape[1:], []).append((sample, next(parts).view(shape)))
        return groups


def read_raw(video: Any, audio: Any, processor: ValorProcessor, modalities: str, options: dict[str, Any]) -> RawSample:
    """Reads one sample, as `processor(videos=[video], audio=[audio], **options)` would, without preparing it.

    Raises:
        MediaError: a file cannot be read, or there is nothing of the modalities.
    """
    videos_kwargs, audio_kwargs = processor.media_arguments(**options)
    sample = RawSample()
    no_video: NoVideoError | None = None
    if "v" in modalities:
        try:
            sample.frames = processor.video_processor.read(video, **videos_kwargs)
        except NoVideoError as error:
            no_video = error
    if "a" in modalities:
        sample.clips = processor.feature_extractor.read(audio, **audio_kwargs)
    if sample.frames is None and sample.clips is None:
        raise no_video or MediaError(f'there is nothing of the modalities "{modalities}".')
    return sample


def pack(samples: Sequence[RawSample], processor: ValorProcessor, options: dict[str, Any]) -> RawMedia:
    """Joins what was read of the samples of a batch with the same options."""
    is_raw = [sample.frames is not None and sample.frames.dtype == torch.uint8 for sample in samples]
    rows = list(zip(samples, is_raw, strict=True))
    raw = [sample.frames for sample, raw in rows if raw and sample.frames is not None]
    prepared = {at: s.frames for at, (s, raw) in enumerate(rows) if not raw and s.frames is not None}
    clips = [clip for sample in samples for clip in sample.clips or ()]
    waveforms = [waveform for waveform, _ in clips]
    if len({waveform.dtype for waveform in waveforms}) > 1:
        waveforms = [w / 2**15 if w.dtype == torch.int16 else w for w in waveforms]
    return RawMedia(
        arguments=processor.media_arguments(**options)[0],
        shapes=[s.frames.shape if raw and s.frames is not None else None for s, raw in rows],
        frames=torch.cat([frames.flatten() for frames in raw]) if raw else torch.empty(0, dtype=torch.uint8),
        prepared=list(prepared),
        pixels=dict(processor.pad([{VIDEO.input: frames[None]} for frames in prepared.values()])) if prepared else {},
        lengths=[None if s.clips is None else [len(waveform) for waveform, _ in s.clips] for s in samples],
        waveforms=torch.cat(waveforms) if waveforms else torch.empty(0),
        means=torch.stack([mean for _, mean in clips]) if clips else torch.empty(0),
    )
