# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Text, questions, videos and sound to the inputs of the VALOR models, and generated ids back to text."""

import os
import reprlib
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Annotated, Any, Literal

import numpy as np
import torch
from huggingface_hub import CommitInfo
from torch import Tensor
from transformers import BatchFeature, PreTrainedTokenizerBase
from transformers.processing_utils import AudioKwargs, ProcessingKwargs, ProcessorMixin
from transformers.utils import TensorType, logging
from transformers.utils.type_validators import positive_int

from .configuration_valor import MASKS
from .feature_extraction_valor import ValorFeatureExtractor, is_waveform
from .hub import hub_errors, keep_available_code, push_saved, saved_with_code
from .media import MediaError, MediaLimits, NoVideoError, media_source, open_source, source_name
from .media_segments import MediaSegment
from .text_cleaning import clean_caption
from .tokenization_valor import load_tokenizer
from .video_processing_valor import ValorVideoProcessor, ValorVideoProcessorKwargs, has_metadata


logger = logging.get_logger(__name__)


CHAT_TEMPLATE = """\
{%- set users = messages | selectattr("role", "equalto", "user") | list -%}
{%- set content = (users | last).content if users else "" -%}
{{- content if content is string else content | selectattr("type", "equalto", "text") | map(attribute="text") | join(" ") -}}
"""
"""Jinja template that renders a chat as the question to answer: the text of the newest message of a user."""


class ValorAudioKwargs(AudioKwargs, total=False):
    """num_audio_clips (`int`): clips of each sample.
    sampling (`str`): which block of a segment is taken, its `"center"` or a `"random"` one.
    generator (`torch.Generator` or `int`): source, or seed, of the random choices.
    return_metadata (`bool`): also return `audio_metadata`.
    media_limits (`dict`): which sources are accepted and what may be spent on them.
    """

    num_audio_clips: Annotated[int | None, positive_int()]
    sampling: Literal["center", "random"] | None
    generator: torch.Generator | int | None
    return_metadata: bool | None
    media_limits: MediaLimits | dict[str, Any] | None


class ValorProcessorKwargs(ProcessingKwargs, total=False):
    """load_audio_from_video (`bool`): use the sound of video files where `audio` is not given.
    modalities (`str`): `"av"`, or only `"v"` or `"a"`; what is left out is neither read nor returned.
    """

    _defaults = {  # type: ignore[misc]  # as all processors of transformers have it
        "text_kwargs": {"padding": True, "truncation": True, "max_length": 40, "return_token_type_ids": False}
    }

    videos_kwargs: ValorVideoProcessorKwargs  # type: ignore[misc]  # as above
    audio_kwargs: ValorAudioKwargs  # type: ignore[misc]  # as above
    load_audio_from_video: bool
    modalities: Literal["av", "v", "a"]


class ValorProcessor(ProcessorMixin):
    r"""Joins a BERT (or CLIP) tokenizer, a [`ValorVideoProcessor`] and a [`ValorFeatureExtractor`].

    Args:
        clean_text (`bool`): clean texts and questions as the 2023 code does, lower case without punctuation, for models
            that were trained on such text; converted checkpoints have it.
        media_limits (`dict`): which sources are accepted and what may be spent on them, where that is not the default of
            [`MediaLimits`]. A service that is given sources by strangers sets `{"public_only": True}`: then only URLs of
            public addresses and content (bytes, file objects) are read, no private addresses and no local files. May
            also be given in a call.
        chat_template (`str`): Jinja template that renders a chat as a question; an empty one asks for a description.

    ```python
    >>> processor = ValorProcessor.from_pretrained("casia/valor-l")
    >>> inputs = processor(videos="clip.mp4", return_tensors="pt")  # frames and sound
    >>> captions = processor.post_process_generation(model.generate(**inputs))
    ```
    """

    valid_processor_kwargs: Any = ValorProcessorKwargs
    skip_tensor_conversion = [*ProcessorMixin.skip_tensor_conversion, "audio_metadata"]
    load_audio_from_video = True
    modalities = "av"

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        video_processor: ValorVideoProcessor,
        feature_extractor: ValorFeatureExtractor,
        clean_text: bool = False,
        media_limits: dict[str, Any] | None = None,
        chat_template: str | dict[str, str] | None = None,
    ) -> None:
        super().__init__(tokenizer, video_processor, feature_extractor, chat_template=chat_template or CHAT_TEMPLATE)
        self.clean_text = clean_text
        self.media_limits = MediaLimits.checked(media_limits)

    @classmethod
    def register_for_auto_class(cls, auto_class: str | type[Any] = "AutoProcessor") -> None:
        """From now on `save_pretrained` and `push_to_hub` save the code of the processor and of its parts as well."""
        super().register_for_auto_class(auto_class)
        ValorVideoProcessor.register_for_auto_class()
        ValorFeatureExtractor.register_for_auto_class()

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any
    ) -> "ValorProcessor":
        with hub_errors(pretrained_model_name_or_path):
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        if self._auto_class is None and kwargs.get("push_to_hub"):
            with saved_with_code(self):
                return self.save_pretrained(save_directory, *args, **kwargs)
        if self._auto_class is None:
            for part in (self.video_processor, self.feature_extractor, self.tokenizer.init_kwargs):
                keep_available_code(part, save_directory)
        saved_files = super().save_pretrained(os.fspath(save_directory), *args, **kwargs)
        self.__dict__.pop("auto_map", None)  # concerns the files, as it does where they are loaded
        return saved_files

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> CommitInfo:
        """Uploads the processor with its code; the model card comes with the model.

        Args:
            repo_id: `owner/name`, or a name in your own namespace; it is created if it does not exist.
            kwargs: `private`, `revision`, `token`, `commit_message`, `commit_description`, `create_pr`.

        Raises:
            OSError: the Hub cannot be reached, or does not accept the upload.
        """
        with saved_with_code(self):
            return push_saved(self.save_pretrained, repo_id, **{"commit_message": "Upload processor", **kwargs})

    @classmethod
    def _load_tokenizer_from_pretrained(
        cls, sub_processor_type: str, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any
    ) -> PreTrainedTokenizerBase:
        return load_tokenizer(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def _get_arguments_from_pretrained(cls, *args: Any, **kwargs: Any) -> list[Any]:
        """The parts, of the classes that this module imports: each class loaded as remote code has modules of its own."""
        own: dict[str, Any] = {
            part_class.__name__: part_class for part_class in (ValorVideoProcessor, ValorFeatureExtractor)
        }
        parts = super()._get_arguments_from_pretrained(*args, **kwargs)
        classes = [own.get(type(part).__name__, type(part)) for part in parts]
        return [
            part if type(part) is part_class else part_class.from_dict(part.to_dict())
            for part, part_class in zip(parts, classes, strict=True)
        ]

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        videos: Any = None,
        audio: Any = None,
        question: str | Sequence[str] | None = None,
        **kwargs: Any,  # `ValorProcessorKwargs`, also without their groups
    ) -> BatchFeature:
        """Prepares text, questions and audiovisual samples, any of which may be left out.

        Args:
            text: captions or answers: `input_ids` and `attention_mask`, (B, L), `[CLS] ... [SEP]`, padded with id 0 and
                cut to 40 tokens (`max_length`) with one warning. An empty text is `[CLS] [SEP]`.
            videos: what [`ValorVideoProcessor`] accepts, one or a list: `pixel_values_videos` (B, F, 3, H, W), with
                `frame_mask` (B, F) where something is missing. A file that holds only sound is a sample without frames,
                and so is `None` in a list. An entry of a `datasets` video column is the file that it was decoded from.
                Sound that says its rate, such as `{"array": ..., "sampling_rate": ...}`, is a sample without frames, too.
                A [`MediaSegment`] is the part of a file that it was read from, with the frames that it has.
            audio: what [`ValorFeatureExtractor`] accepts, one or a list: `input_features` (B, A, 64, 512), with
                `audio_mask` (B, A) where something is missing. Where it is not given, it is the sound of the video
                files (unless `load_audio_from_video=False`); a video without an audio track is a sample without sound.
            question: one for each sample, or one for all: `question_input_ids` and `question_attention_mask`, (B, Q).
            kwargs: `modalities`, `num_frames`, `num_audio_clips`, `sampling`, `sampling_rate`, `return_tensors` and all
                other arguments of the three parts, by themselves or in `text_kwargs`, `videos_kwargs`, `audio_kwargs`.

        Returns:
            The inputs of the models. A modality that no sample has is left out. With `return_metadata=True` also
            `video_metadata` and `audio_metadata`, which have the durations of files.

        Raises:
            ValueError: nothing is given, or nothing of `modalities` is in what is given.
            MediaError: a file cannot be read; the message names it.
            TypeError: an argument of another name, such as `images`: an image is a video of one frame.
        """
        self._refuse_unknown(kwargs)
        if text is None and videos is None and audio is None and question is None:
            raise ValueError("There is nothing to process: give `videos`, `audio`, `text` or `question`.")
        options = self._merge_kwargs(tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs)
        return_tensors = options["text_kwargs"].pop("return_tensors", None)
        data: dict[str, Any] = {}
        if text is not None:
            data.update(self._tokenize(text, "text", **options["text_kwargs"]))
        if videos is not None or audio is not None:
            data.update(self._process_media(videos, audio, options, may_be_empty=text is not None))
        if question is not None:
            samples = next((len(data[name]) for name in MASKS if name in data), None)
            question = [question] * (samples or 1) if isinstance(question, str) else question
            asked = self._tokenize(question, "question", **options["text_kwargs"])
            if samples not in (None, len(asked["input_ids"])):
                raise ValueError(
                    f"There are {len(asked['input_ids'])} questions for {samples} samples: ask one, or one each."
                )
            data.update({f"question_{name}": value for name, value in asked.items()})
        return BatchFeature(data, tensor_type=return_tensors, skip_tensor_conversion=self.skip_tensor_conversion)

    def apply_chat_template(  # type: ignore[override]  # without the arguments that this processor refuses
        self,
        conversation: list[dict[str, Any]] | list[list[dict[str, Any]]],
        chat_template: str | None = None,
        tokenize: bool = False,
        return_tensors: str | TensorType | None = None,
        return_dict: bool = False,
        load_audio_from_video: bool | None = None,
        num_frames: int | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> str | list[str] | BatchFeature | Any:
        """Prepares chats for `generate`: the text is the question about the video; no text asks for a description.

        What counts is the newest message of a user for the text, and the newest message with media for the video. A video
        or an image stands for what is seen, audio for what is heard (by default the sound of the video).

        Args:
            conversation: messages `{"role": ..., "content": ...}`, whose content is a text or a list of parts
                `{"type": "text", "text": ...}`, `{"type": "video", "url": ...}`, of the type `"image"` or `"audio"` as well,
                with any source of this processor as `"url"`, `"path"` or under the type's own name.
            tokenize (`bool`): by default the question is returned as text.
            return_dict (`bool`): with `tokenize`, the inputs of `generate`; without it only `input_ids`.
            load_audio_from_video (`bool`): by default as this processor does.
            num_frames (`int`): at most so many frames, where the processor would take more; to take another number, give
                `processor_kwargs={"num_frames": ...}`.
            processor_kwargs (`dict`): further arguments of this processor.

        Returns:
            The question; or media inputs, `question_input_ids` and its mask where something is asked, and `input_ids`,
            (chats, 1), the [CLS] that the answer begins with.

        Raises:
            ValueError: a chat without video and audio, or with two of a kind in its newest message with media; or some of
                the chats ask a question and others do not.
        """
        question: Any = super().apply_chat_template(conversation, chat_template=chat_template)
        if not tokenize:
            return question
        is_batch = bool(conversation) and isinstance(conversation[0], (list, tuple))
        chats: Any
        chats, questions = (conversation, question) if is_batch else ([conversation], [question])
        options = {"return_tensors": return_tensors, **(processor_kwargs or {})}
        if num_frames is not None:
            options.setdefault("num_frames", min(num_frames, self.video_processor.num_frames))
        if load_audio_from_video is not None:
            options["load_audio_from_video"] = load_audio_from_video
        inputs = self(**_media_of_chats(chats), question=_questions_of_chats(questions), **options)
        inputs["input_ids"] = [[self.tokenizer.cls_token_id] for _ in chats]
        inputs = BatchFeature(
            inputs.data, tensor_type=return_tensors, skip_tensor_conversion=self.skip_tensor_conversion
        )
        return inputs if return_dict else inputs["input_ids"]

    def _refuse_unknown(self, kwargs: dict[str, Any]) -> None:
        """transformers drops arguments that it does not know, with a warning.

        Raises:
            TypeError: there is one.
        """
        parts = ValorProcessorKwargs.__annotations__
        accepted = {name for name in parts if name != "images_kwargs"} | {"common_kwargs"}
        for part in ("text_kwargs", "videos_kwargs", "audio_kwargs"):
            accepted |= parts[part].__annotations__.keys()
        if unknown := sorted(kwargs.keys() - accepted):
            hint = ". An image is a video of one frame: give it as `videos`" if "images" in unknown else ""
            raise TypeError(f"{type(self).__name__} has no argument {', '.join(map(repr, unknown))}{hint}.")

    def _merge_kwargs(
        self, *args: Any, tokenizer_init_kwargs: dict[str, Any] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        # A tokenizer's options become defaults of every part, but its `backend` is not the video processor's
        options = {name: value for name, value in (tokenizer_init_kwargs or {}).items() if name != "backend"}
        kwargs["tokenizer_init_kwargs"] = options
        return super()._merge_kwargs(*args, **kwargs)

    def _tokenize(self, texts: str | Sequence[str], name: str, **kwargs: Any) -> dict[str, Any]:
        """Ids and masks of texts; padding has id 0, whatever the tokenizer's padding token is."""
        texts = [texts] if isinstance(texts, str) or not isinstance(texts, Iterable) else list(texts)
        if not texts or not all(isinstance(text, str) for text in texts):
            got = " ".join(reprlib.repr(texts).split())
            raise ValueError(f"`{name}` must be a string or a list of strings, got {got}.")
        encoded = self.tokenizer([clean_caption(text) for text in texts] if self.clean_text else texts, **kwargs)
        if any(encoding.overflowing for encoding in encoded.encodings or ()):
            count = kwargs["max_length"]
            logger.warning_once(
                f"Text of more than {count} tokens is cut: the first {count} are used (`max_length` of the processor)."
            )
        encoded = dict(encoded)
        if "attention_mask" in encoded:
            rows = zip(encoded["input_ids"], encoded["attention_mask"], strict=True)
            encoded["input_ids"] = [[i * real for i, real in zip(ids, mask, strict=True)] for ids, mask in rows]
        return encoded

    def _process_media(self, videos: Any, audio: Any, options: dict[str, Any], may_be_empty: bool) -> dict[str, Any]:
        """Frames and sound of a batch, without the modalities that no sample has."""
        wanted = options["modalities"]
        videos_kwargs, audio_kwargs = self._media_kwargs(options)
        files = None if videos is None else _as_files(videos)
        data: dict[str, Any] = {}
        no_video = None
        if files is not None:
            own_sound = audio is None and options["load_audio_from_video"]
            letters = wanted if own_sound else wanted.replace("a", "")
            samples = [self._process_file(file, letters, videos_kwargs, audio_kwargs) for file in files]
            data.update(self.pad([inputs for inputs, _ in samples]))
            no_video = next((error for _, error in reversed(samples) if error is not None), None)
        elif videos is not None and "v" in wanted:
            data.update(self.video_processor(videos, **videos_kwargs))
        if audio is not None and "a" in wanted:
            data.update(self.feature_extractor(audio, **audio_kwargs))

        sizes = {name: len(data[name]) for name in MASKS if name in data}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"`videos` and `audio` must be of the same samples, got {sizes}.")
        for name, mask in MASKS.items():
            if mask in data and not data[mask].any():
                del data[name], data[mask]
        if data.keys().isdisjoint(MASKS) and not may_be_empty:
            raise no_video or _nothing_found(videos, audio, wanted)
        return data

    def _media_kwargs(self, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Arguments of the video processor and of the feature extractor, with the limits that hold for each."""

        def prepare(part: Any, given: dict[str, Any]) -> dict[str, Any]:
            choices = (given.get("media_limits"), self.media_limits, part.media_limits)
            limits = next((limits for limits in choices if limits is not None), None)
            return {**given, "return_tensors": "pt", "media_limits": limits}

        return (
            prepare(self.video_processor, options["videos_kwargs"]),
            prepare(self.feature_extractor, options["audio_kwargs"]),
        )

    def media_arguments(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Arguments for the video processor and for the feature extractor, out of those of a call of this processor."""
        self._refuse_unknown(kwargs)
        return self._media_kwargs(self._merge_kwargs(tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs))

    def _process_file(
        self, file: Any, letters: str, videos_kwargs: dict[str, Any], audio_kwargs: dict[str, Any]
    ) -> tuple[dict[str, Any], NoVideoError | None]:
        """Inputs of one file, waveform or gap (None), and the error of a file without the frames that were wanted."""
        if isinstance(file, MediaSegment):
            return self._process_segment(file, letters, videos_kwargs, audio_kwargs)
        source = media_source(file)
        is_sound = source is None and is_waveform(file)
        opened = nullcontext(file) if source is None else open_source(source, videos_kwargs["media_limits"])
        inputs: dict[str, Any] = {}
        no_video = None
        with opened as video:
            if "v" in letters and video is not None and not is_sound:
                try:
                    inputs.update(self.video_processor([video], **videos_kwargs))
                except NoVideoError as error:
                    no_video = error
            if "a" in letters and (source is not None or is_sound):
                inputs.update(self.feature_extractor([video], **audio_kwargs))
        return inputs, no_video

    def _process_segment(
        self, segment: MediaSegment, letters: str, videos_kwargs: dict[str, Any], audio_kwargs: dict[str, Any]
    ) -> tuple[dict[str, Any], NoVideoError | None]:
        """Inputs of a segment that was read already, and the error of one without the frames that were wanted."""
        if segment.error is not None:
            raise MediaError(segment.error)
        inputs: dict[str, Any] = {}
        video, sound = segment.frames, segment.audio
        if "v" in letters and video is not None:
            metadata = {
                "total_num_frames": video.num_available,
                "fps": video.num_available / video.duration if video.duration else None,
                "height": video.frames.shape[-2],
                "width": video.frames.shape[-1],
                "duration": video.duration,
                "video_backend": video.backend,
                "frames_indices": video.indices,
            }
            as_read = {**videos_kwargs, "do_sample_frames": False}
            inputs.update(self.video_processor([(video.frames, metadata)], **as_read))
        if "a" in letters:
            waveform = None if sound is None else (sound.waveform, sound.sampling_rate)
            inputs.update(self.feature_extractor([waveform], **audio_kwargs))
        no_video = None
        if "v" in letters and video is None:
            no_video = NoVideoError(
                f"The segment from {segment.start:.2f} to {segment.end:.2f} seconds has no frames."
            )
        return inputs, no_video

    def pad(self, samples: Sequence[dict[str, Any]], return_tensors: str | TensorType | None = "pt") -> BatchFeature:
        """Joins what `processor(..., return_tensors="pt")` gave for several samples to what it gives for their batch.

        Text is padded with 0; fewer frames or clips and missing modalities become zeros, and False in `frame_mask` and
        `audio_mask`. Made for the `collate_fn` of a data loader whose workers prepare samples one by one.

        Raises:
            ValueError: the samples differ in more than the number of tokens, frames and clips, such as in frame size.
        """
        sizes = [next((len(value) for value in sample.values()), 1) for sample in samples]
        data: dict[str, Any] = {}
        for name in dict.fromkeys(name for sample in samples for name in sample):
            if name in MASKS.values():
                continue
            values = [sample.get(name) for sample in samples]
            if not any(isinstance(value, Tensor) for value in values):
                data[name] = _join_lists(values, sizes)
            elif name in MASKS:
                data.update(_join_modality(name, values, [sample.get(MASKS[name]) for sample in samples], sizes))
            else:
                data[name] = _join(_all_of(values, name), name)
        return BatchFeature(data, tensor_type=return_tensors, skip_tensor_conversion=self.skip_tensor_conversion)

    def post_process_generation(
        self, generated_ids: Tensor | np.ndarray | Sequence[Any], skip_special_tokens: bool = True
    ) -> list[str]:
        """Captions or answers out of generated ids, (B, L) or (L,), up to [SEP] and without special tokens.

        Word pieces are joined as in the 2023 code, which leaves a space around punctuation.
        """
        ids = generated_ids if isinstance(generated_ids, Tensor) else torch.as_tensor(np.asarray(generated_ids))
        texts = []
        for row in torch.atleast_2d(ids).tolist():
            if self.tokenizer.sep_token_id in row:
                row = row[: row.index(self.tokenizer.sep_token_id)]
            words = self.tokenizer.convert_ids_to_tokens(row, skip_special_tokens=skip_special_tokens)
            texts.append(" ".join(words).replace(" ##", ""))
        return texts

    def post_process_image_text_to_text(
        self, generated_outputs: Tensor | np.ndarray | Sequence[Any], skip_special_tokens: bool = True, **kwargs: Any
    ) -> list[str]:
        """[`post_process_generation`], under the name by which transformers' pipelines know it."""
        return self.post_process_generation(generated_outputs, skip_special_tokens)

    @property
    def model_input_names(self) -> list[str]:
        """What text and complete audiovisual samples become; questions and masks come with questions and gaps."""
        return ["input_ids", "attention_mask", *MASKS]


def _as_list(samples: Any) -> list[Any]:
    """One entry per sample; transformers also takes a list of lists of one video each."""
    single = not isinstance(samples, (list, tuple)) or is_waveform(samples) or has_metadata(samples)
    samples = [samples] if single else samples
    return [sample[0] if isinstance(sample, (list, tuple)) and len(sample) == 1 else sample for sample in samples]


def _media_of_chats(chats: Sequence[Sequence[dict[str, Any]]]) -> dict[str, list[Any] | None]:
    """The `videos` and the `audio` of chats, one entry each; None where no chat has any."""
    media = [_media_of_chat(chat) for chat in chats]
    samples = {"videos": [sample.get("video") for sample in media], "audio": [sample.get("audio") for sample in media]}
    return {name: None if all(sample is None for sample in values) else values for name, values in samples.items()}


def _questions_of_chats(questions: list[str]) -> list[str] | None:
    """The questions, or None where nothing is asked; a `ValueError` where only some of the chats ask."""
    asked = [bool(question.strip()) for question in questions]
    if any(asked) != all(asked):
        raise ValueError("Some of the chats ask a question and others do not: give them apart.")
    return questions if all(asked) else None


def _media_of_chat(chat: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The "video" and "audio" of the newest message of a chat that has any."""
    for message in reversed(chat):
        content = message.get("content") or []
        media = {}
        for part in content if not isinstance(content, str) else ():
            sources = [part[key] for key in (part["type"], "url", "path", "base64") if part.get(key) is not None]
            if part["type"] == "text" or not sources:
                continue
            name = {"image": "video", "video": "video", "audio": "audio"}.get(part["type"])
            if name is None:
                raise ValueError(
                    f'A chat has parts of the types "text", "video", "image" and "audio", got {part["type"]!r}.'
                )
            if name in media:
                raise ValueError(
                    f"A question is about one {name}, but there are several in one message: ask in several chats."
                )
            media[name] = sources[0]
        if media:
            return media
    raise ValueError('There is nothing to describe: a chat needs a part such as {"type": "video", "url": "clip.mp4"}.')


def _as_files(videos: Any) -> list[Any] | None:
    """One entry per sample where there are files, sounds or gaps among them, else None."""
    videos = _as_list(videos)
    special = any(
        video is None or isinstance(video, MediaSegment) or media_source(video) is not None or is_waveform(video)
        for video in videos
    )
    return videos if special else None


def _nothing_found(videos: Any, audio: Any, wanted: str) -> ValueError:
    """The error where the samples have nothing of the modalities; it names their files."""
    sources = [*([] if videos is None else _as_list(videos)), *([] if audio is None else _as_list(audio))]
    names = [source_name(source) for source in map(media_source, sources) if source is not None]
    missing = " and ".join(f"no {what}" for letter, what in (("v", "frames"), ("a", "sound")) if letter in wanted)
    who = f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}" if names else "The samples"
    if videos is None and "a" in wanted:
        is_one = len(sources) == 1 and bool(names)
        message = f"{who} {'is' if is_one else 'are'} given as audio and {'has' if is_one else 'have'} no sound."
        return MediaError(message) if names else ValueError(message)
    message = f'{who} {"has" if len(names) == 1 else "have"} nothing of `modalities="{wanted}"`: {missing}.'
    return MediaError(message) if names else ValueError(message)


def _join_lists(values: Sequence[Sequence[Any] | None], sizes: Sequence[int]) -> list[Any]:
    """The entries of several samples one after the other, None for those of a sample that has none."""
    rows = zip(values, sizes, strict=True)
    return [item for value, size in rows for item in ([None] * size if value is None else value)]


def _all_of(values: Sequence[Tensor | None], name: str) -> list[Tensor]:
    """The values, of which every sample must have one."""
    given = [value for value in values if value is not None]
    if len(given) < len(values):
        raise ValueError(f"Some samples have `{name}` and others do not, so that they cannot be joined.")
    return given


def _join_modality(
    name: str, values: Sequence[Tensor | None], masks: Sequence[Tensor | None], sizes: Sequence[int]
) -> dict[str, Tensor]:
    """Frames or audio clips `name` of several samples, and their mask where something is missing."""
    nothing = next(value for value in values if value is not None)[:1, :0]
    parts = [
        nothing.expand(size, *nothing.shape[1:]) if value is None else value
        for value, size in zip(values, sizes, strict=True)
    ]
    joined = {name: _join(parts, name)}
    mask = _join_masks(masks, parts)
    return joined if mask.all() else {**joined, MASKS[name]: mask}


def _join(parts: Sequence[Tensor], name: str) -> Tensor:
    """(B, L, ...) of several samples in one batch, with zeros up to the longest."""
    if len({part.shape[2:] for part in parts}) > 1:
        shapes = [tuple(part.shape[1:]) for part in parts]
        raise ValueError(f"`{name}` has the shapes {shapes}, which cannot be joined.")
    length = max(part.shape[1] for part in parts)
    return torch.cat(
        [
            torch.cat([part, part.new_zeros(len(part), length - part.shape[1], *part.shape[2:])], dim=1)
            for part in parts
        ]
    )


def _join_masks(masks: Sequence[Tensor | None], parts: Sequence[Tensor]) -> Tensor:
    """The mask (B, L) of `parts` joined; one that is not given is True everywhere."""
    pairs = zip(masks, parts, strict=True)
    full = [part.new_ones(part.shape[:2], dtype=torch.bool) if mask is None else mask for mask, part in pairs]
    return _join(full, "mask")


__all__ = ["ValorProcessor"]
