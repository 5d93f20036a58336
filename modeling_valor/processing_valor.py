# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Text, questions, videos and sound to the inputs of the VALOR models, and generated ids back to text."""

import os
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from transformers import BatchFeature
from transformers.processing_utils import AudioKwargs, ProcessingKwargs, ProcessorMixin, Unpack, VideosKwargs
from transformers.utils import TensorType, logging
from transformers.utils.type_validators import positive_int

from .feature_extraction_valor import media_source, opened
from .media import NoVideoError


logger = logging.get_logger(__name__)

MASKS = {"pixel_values_videos": "frame_mask", "input_features": "audio_mask"}
"""Media inputs, (B, F or A, ...), and the masks that say what of them is there."""


class ValorVideosKwargs(VideosKwargs, total=False):
    """
    sampling (`str`): which frame of a segment is taken, its `"center"` or a `"random"` one.
    """

    sampling: Literal["center", "random"]


class ValorAudioKwargs(AudioKwargs, total=False):
    """
    num_audio_clips (`int`): clips of each sample.
    sampling (`str`): which block of a segment is taken, its `"center"` or a `"random"` one.
    """

    num_audio_clips: Annotated[int | None, positive_int()]
    sampling: Literal["center", "random"]


class ValorProcessorKwargs(ProcessingKwargs, total=False):
    """
    load_audio_from_video (`bool`): use the sound of video files where `audio` is not given.
    modalities (`str`): `"av"`, or only `"v"` or `"a"`; what is left out is neither read nor returned.
    """

    videos_kwargs: ValorVideosKwargs
    audio_kwargs: ValorAudioKwargs
    load_audio_from_video: bool
    modalities: Literal["av", "v", "a"]


class ValorProcessor(ProcessorMixin):
    r"""
    Joins a BERT (or CLIP) tokenizer, a [`ValorVideoProcessor`] and a [`ValorFeatureExtractor`].

    ```python
    >>> processor = ValorProcessor.from_pretrained("casia/valor-l")
    >>> inputs = processor(videos="clip.mp4", return_tensors="pt")  # frames and sound
    >>> captions = processor.post_process_generation(model.generate(**inputs))
    ```
    """

    valid_processor_kwargs = ValorProcessorKwargs
    text_kwargs = {"padding": True, "truncation": True, "max_length": 40, "return_token_type_ids": False}
    load_audio_from_video = True
    modalities = "av"

    def __init__(self, tokenizer, video_processor, feature_extractor):
        super().__init__(tokenizer, video_processor, feature_extractor)

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        videos: Any = None,
        audio: Any = None,
        question: str | Sequence[str] | None = None,
        **kwargs: Unpack[ValorProcessorKwargs],
    ) -> BatchFeature:
        """
        Prepares text, questions and audiovisual samples, any of which may be left out.

        Args:
            text: captions or answers: `input_ids` and `attention_mask`, (B, L), `[CLS] ... [SEP]`, padded with id 0 and
                cut to 40 tokens (`max_length`) with one warning. An empty text is `[CLS] [SEP]`.
            videos: what [`ValorVideoProcessor`] accepts, one or a list: `pixel_values_videos` (B, F, 3, H, W), with
                `frame_mask` (B, F) where something is missing. A file that holds only sound is a sample without frames,
                and so is `None` in a list. An entry of a `datasets` video column is read as the file that it stands for.
            audio: what [`ValorFeatureExtractor`] accepts, one or a list: `input_features` (B, A, 64, 512), with
                `audio_mask` (B, A) where something is missing. Where it is not given, it is the sound of the video
                files (unless `load_audio_from_video=False`); a video without an audio track is a sample without sound.
            question: questions, one for each sample or one for all: `question_input_ids` and `question_attention_mask`.
            kwargs: `modalities`, `num_frames`, `num_audio_clips`, `sampling`, `sampling_rate`, `return_tensors` and all
                other arguments of the three parts, by themselves or in `text_kwargs`, `videos_kwargs`, `audio_kwargs`.

        Returns:
            The inputs of the models. A modality that no sample has is left out.

        Raises:
            ValueError: nothing was given, or nothing of `modalities` is in what was given.
            MediaError: a file that cannot be read, named.
        """
        if text is None and videos is None and audio is None and question is None:
            raise ValueError("There is nothing to process. Give `videos`, `audio`, `text` or `question`.")
        options = self._merge_kwargs(tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs)
        return_tensors = options["text_kwargs"].pop("return_tensors", None)
        data = {}
        if text is not None:
            data.update(self._tokenize(text, "text", **options["text_kwargs"]))
        if videos is not None or audio is not None:
            media = self._process_media(videos, audio, options)
            if not media and text is None:
                raise ValueError(
                    f'Nothing in the samples suits `modalities="{options["modalities"]}"`: they have no frames, or no '
                    "sound, to process."
                )
            data.update(media)
        if question is not None:
            rows = next((len(data[name]) for name in MASKS if name in data), 1)
            question = [question] * rows if isinstance(question, str) else question
            asked = self._tokenize(question, "question", **options["text_kwargs"])
            data.update({f"question_{name}": value for name, value in asked.items()})
        return BatchFeature(data, tensor_type=return_tensors, skip_tensor_conversion=self.skip_tensor_conversion)

    def _tokenize(self, texts: str | Sequence[str], name: str, **kwargs) -> dict[str, Any]:
        """Ids and masks of texts; padding has id 0 whatever the tokenizer's padding token is."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"`{name}` must be a string or a list of strings, got {texts!r}.")
        encoded = self.tokenizer(texts, **kwargs)
        if any(encoding.overflowing for encoding in encoded.encodings or ()):
            logger.warning_once(
                f"Text of more than {kwargs.get('max_length')} tokens was cut. Pass a larger `max_length` to keep it."
            )
        encoded = dict(encoded)
        if "attention_mask" in encoded:
            rows = zip(encoded["input_ids"], encoded["attention_mask"], strict=True)
            encoded["input_ids"] = [[i * real for i, real in zip(ids, mask, strict=True)] for ids, mask in rows]
        return encoded

    def _process_media(self, videos: Any, audio: Any, options: dict[str, Any]) -> dict[str, Any]:
        """Frames and sound of a batch."""
        wanted = options["modalities"]
        videos_kwargs = {**options["videos_kwargs"], "return_tensors": "pt"}
        audio_kwargs = {**options["audio_kwargs"], "return_tensors": "pt"}
        videos = _as_list_of_files(videos)
        if not isinstance(videos, list):  # nothing to read
            data = dict(self.video_processor(videos, **videos_kwargs)) if videos is not None and "v" in wanted else {}
            if audio is not None and "a" in wanted:
                data.update(self.feature_extractor(audio, **audio_kwargs))
            samples = [data]
        else:
            sounds = [None] * len(videos) if audio is None else _as_list_of_sounds(audio)
            if len(sounds) != len(videos):
                raise ValueError(f"`videos` has {len(videos)} samples, but `audio` has {len(sounds)}.")
            from_video = audio is None and options["load_audio_from_video"]
            samples = [
                self._process_sample(video, sound, from_video, wanted, videos_kwargs, audio_kwargs)
                for video, sound in zip(videos, sounds, strict=True)
            ]
        return self.pad(samples).data


