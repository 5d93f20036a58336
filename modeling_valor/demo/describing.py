# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What the model sees and hears of a clip, and what it says about it: the numbers of the pipelines, encoded once."""

import functools
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..configuration_valor import GROUP_OF_LETTERS, MASKS, MEDIA
from ..media_fragments import Part
from ..media_limits import DamagedMediaWarning, MediaError
from ..media_segments import fixed_segments
from ..modeling_valor_base import to_device
from ..modeling_valor_decoder import ValorDecoderModel
from ..modeling_valor_heads import ValorForCaptioning, ValorForQuestionAnswering, as_head
from ..modeling_valor_text import ValorConditions
from ..pipelines import AudiovisualCaptioningPipeline
from ..processing_valor import ValorProcessor
from ..timelines import TimedCaption, caption_timeline
from .clips import Clip, Deadline, DemoLimits


MODALITIES = {"v": "video", "a": "audio", "av": "both"}
"""What a text is made from, as the page calls it."""

LACKING = {
    "v": "There is no picture in this clip.",
    "a": "There is no sound in this clip.",
    "av": "This clip has only one of both.",
}
"""What stands in the place of a text where a modality is missing."""

KEPT = 4
"""Clips whose encodings are kept, so that a question does not encode them again."""


@dataclass(frozen=True)
class Look:
    """A clip as the model takes it.

    Args:
        frames: pictures (F, H, W, 3), uint8, at the model's resolution; none of a sound.
        moments: second of each frame.
        mels: log-mel clips (A, mel, time) as the audio encoder gets them; none without sound.
        mel_starts: second at which each of them begins.
        duration: seconds that are used of the file; 0 of a picture.
        notes: what is left out of a long file, and what is damaged, one sentence each.
        conditions: what the decoder attends to, of all that is in the clip.
    """

    clip: Clip
    frames: np.ndarray
    moments: list[float]
    mels: np.ndarray
    mel_starts: list[float]
    duration: float
    notes: list[str]
    conditions: ValorConditions = field(repr=False)

    def conditions_of(self, letters: str) -> ValorConditions | None:
        """The conditions of "v", "a" or "av"; None where the clip lacks any of it."""
        names = [modality.name for modality in MEDIA if modality.letter in letters]
        if not set(names) <= set(self.conditions.modalities):
            return None
        parts = {part: getattr(self.conditions, part) for name in names for part in (name, f"{name}_mask")}
        return ValorConditions(**parts)


class Describer:
    """A checkpoint with its processor, put to work on the clips of visitors, one after the other.

    Args:
        model: any head with a decoder; captions and answers are written by the same weights.
    """

    def __init__(self, model: ValorDecoderModel, processor: ValorProcessor, limits: DemoLimits):
        self.processor, self.limits = processor, limits
        self.captioner = AudiovisualCaptioningPipeline(model=model, processor=processor, device=model.device)
        self.captioning: Any = as_head(model, ValorForCaptioning)
        self.answering: Any = as_head(model, ValorForQuestionAnswering)
        self._looks: OrderedDict[Clip, Look] = OrderedDict()

    @property
    def whole_seconds(self) -> float:
        """Seconds of sound that one description hears whole."""
        extractor = self.processor.feature_extractor
        return float(extractor.num_audio_clips * extractor.clip_length * extractor.frame_shift_ms / 1000)

    def look(self, clip: Clip) -> Look:
        """Reads and encodes a clip, unless it is one of the last few.

        Raises:
            MediaError: it cannot be read.
            TimeLimitError: it takes too long.
        """
        if clip not in self._looks:
            deadline = Deadline(self.limits.work_seconds)
            self._looks[clip] = self._look(clip, deadline)
            deadline.check()
            while len(self._looks) > KEPT:
                self._looks.popitem(last=False)
        self._looks.move_to_end(clip)
        return self._looks[clip]

    def _look(self, clip: Clip, deadline: Deadline) -> Look:
        part, notes = clip.part, []
        with warnings.catch_warnings(record=True) as damage:
            warnings.simplefilter("always", DamagedMediaWarning)
            inputs = self._read(clip, part)
        full = duration = _duration(inputs)
        if duration > self.limits.max_seconds:
            start = 0.0 if part is None else part.start
            part, duration = Part(start, start + self.limits.max_seconds), self.limits.max_seconds
            notes.append(f"Of the {full:.0f} seconds of {clip.name} the first {duration:.0f} are used.")
            clip = Clip(clip.path, clip.name, part)
            inputs = self._read(clip, part)
        deadline.check()
        start = 0.0 if part is None else part.start
        video, sound = (inputs.get(modality.input) for modality in MEDIA)
        return Look(
            clip,
            self._pictures(video),
            [] if video is None else [start + moment for moment in _moments(inputs["video_metadata"][0])],
            np.zeros((0, 1, 1), np.float32) if sound is None else sound[0].numpy(),
            [] if sound is None else [start + second for second in self._mel_starts(inputs)],
            duration,
            [
                *notes,
                *dict.fromkeys(str(one.message) for one in damage if issubclass(one.category, DamagedMediaWarning)),
            ],
            self._encode(inputs),
        )

    def _read(self, clip: Clip, part: Part | None) -> Any:
        inputs = self.processor(videos=[clip.open(part)], return_tensors="pt", return_metadata=True)
        if not any(modality.input in inputs for modality in MEDIA):
            raise MediaError(f"{clip.name} has neither pictures nor sound.")
        return inputs

    def _encode(self, inputs: Any) -> ValorConditions:
        model = self.captioning
        given = {name: inputs[name] for name in (*MASKS, *MASKS.values()) if name in inputs}
        with torch.no_grad():
            conditions: ValorConditions = model.valor.encode_conditions(**to_device(given, model.device, model.dtype))
        return conditions

    def _pictures(self, video: Tensor | None) -> np.ndarray:
        """Frames (1, F, 3, H, W) as pictures, without their normalisation."""
        if video is None:
            return np.zeros((0, 1, 1, 3), np.uint8)
        mean, std = (
            torch.tensor(values)[:, None, None]
            for values in (self.processor.video_processor.image_mean, self.processor.video_processor.image_std)
        )
        pictures: np.ndarray = (video[0] * std + mean).clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).numpy()
        return pictures

    def _mel_starts(self, inputs: Any) -> list[float]:
        extractor = self.processor.feature_extractor
        rate = extractor.sampling_rate
        clips = inputs["input_features"].shape[1]
        bounds = extractor.clip_bounds(int(inputs["audio_metadata"][0]["duration"] * rate), clips)
        return [start / rate for start, _ in bounds]

    def captions(self, look: Look) -> dict[str, str | None]:
        """A caption from video, audio and both ("v", "a", "av"); None where the clip lacks it."""
        deadline = Deadline(self.limits.work_seconds)
        return {letters: self._write(self.captioning, look, letters, deadline) for letters in GROUP_OF_LETTERS}

    def answers(self, look: Look, question: str) -> dict[str, str | None]:
        """An answer from video, audio and both; None where the clip lacks it."""
        deadline = Deadline(self.limits.work_seconds)
        asked = self.processor(question=question, return_tensors="pt").to(self.answering.device)
        return {letters: self._write(self.answering, look, letters, deadline, **asked) for letters in GROUP_OF_LETTERS}

    def _write(self, head: Any, look: Look, letters: str, deadline: Deadline, **question: Tensor) -> str | None:
        conditions = look.conditions_of(letters)
        if conditions is None:
            return None
        sequences = head.generate(conditions=conditions, **question)
        deadline.check()
        return self.processor.post_process_generation(sequences)[0]

    def timeline(self, look: Look, seconds: float) -> Iterator[TimedCaption]:
        """Captions of segments of so many seconds, as they are made.

        Raises:
            MediaError: the file cannot be read.
            TimeLimitError: it takes too long; what was made before is whole.
        """
        deadline = Deadline(self.limits.work_seconds)
        boundaries = functools.partial(fixed_segments, seconds=seconds)
        for caption in caption_timeline(self.captioner, look.clip.open(), boundaries, batch_size=4):
            yield caption
            deadline.check()


def _duration(inputs: Any) -> float:
    """Seconds of a file; 0 of a picture."""
    known = [inputs.get(f"{modality.name}_metadata") for modality in MEDIA]
    seconds = [_field(entries[0], "duration") for entries in known if entries and entries[0] is not None]
    return max((float(second) for second in seconds if second), default=0.0)


def _moments(metadata: Any) -> list[float]:
    """The second at which each frame begins; 0 of a picture."""
    indices = metadata.frames_indices
    rate = metadata.fps
    return [0.0 for _ in indices] if not rate else [float(index / rate) for index in indices]


def _field(metadata: Any, name: str) -> Any:
    return metadata.get(name) if isinstance(metadata, dict) else getattr(metadata, name, None)
