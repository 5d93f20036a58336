# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Loads single samples as tensors, in the workers of a data loader, and replaces those that cannot be read."""

import hashlib
import json
import os
import random
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias

import safetensors.torch
import torch
from safetensors import safe_open

from ..configuration_valor import MEDIA
from ..media import MediaError
from ..media_limits import reason
from ..processing_valor import ValorProcessor
from ..text_cleaning import clean_answer, clean_caption, clean_question
from .failures import Failure, attempt, describe
from .files import atomic_write, warn_once
from .fingerprints import IncomparableError, file_state, fingerprint, is_unchanged
from .raw_media import RawSample, read_raw
from .samples import Sample, UnreadableFile


TRAINING_TASKS = ("pretraining", "retrieval", "captioning", "question_answering")
"""Tasks of training: MGA and MGC (section 4.2), or one of the downstream tasks (section 4.3)."""


Modalities: TypeAlias = Literal["av", "v", "a"]
"""What of a sample is read: video and audio, video only, audio only."""

_CACHE_FORMAT = 2
"""Version of the files of a media cache, so that files of another version are not reported as damaged."""


@dataclass(frozen=True)
class LoadingOptions:
    """How the samples of one source are loaded.

    Args:
        task: one of `TRAINING_TASKS`.
        modalities: which modalities of each sample are read.
        num_frames, num_audio_clips: of each sample; None: the processor's own numbers.
        max_length, max_question_length: maximum number of tokens of a caption or answer, and of a question.
        captions_per_sample, questions_per_sample: texts that are drawn each time a sample is read, with as little repetition as
            possible. Encoders run once for all of them. Alignment takes one caption.
        references: also return all captions of each sample, as references for generated captions.
        clean_text: clean texts as the 2023 code does (lower case, no punctuation).
        sampling: which frame and which block of audio of each segment is used.
        transforms: more arguments of the video processor, such as `{"crop_scale": (0.8, 1.0), "do_flip": True}`, the
            "crop_flip" of the 2023 recipes.
    """

    task: Literal["pretraining", "retrieval", "captioning", "question_answering"] = "pretraining"
    modalities: Modalities = "av"
    num_frames: int | None = None
    num_audio_clips: int | None = None
    max_length: int = 40
    max_question_length: int = 40
    captions_per_sample: int = 1
    questions_per_sample: int = 1
    references: bool = False
    clean_text: bool = True
    sampling: Literal["center", "random"] = "random"
    transforms: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.task not in TRAINING_TASKS:
            raise ValueError(f"`task` must be one of {', '.join(TRAINING_TASKS)}, got {self.task!r}.")
        for name, accepted in (("modalities", ("av", "v", "a")), ("sampling", ("center", "random"))):
            if (value := getattr(self, name)) not in accepted:
                raise ValueError(f"`{name}` must be one of {', '.join(accepted)}, got {value!r}.")
        if self.captions_per_sample > 1 and self.task != "captioning":
            raise ValueError(f"Only captioning takes several captions of a sample at once, not {self.task}.")

    @property
    def media_options(self) -> dict[str, Any]:
        """Arguments of the processor for the frames and the audio of one sample."""
        options = {"modalities": self.modalities, "sampling": self.sampling, **self.transforms}
        for name in ("num_frames", "num_audio_clips"):
            if getattr(self, name) is not None:
                options[name] = getattr(self, name)
        return options

    @property
    def raw_options(self) -> dict[str, Any]:
        """The same without what `read_raw` takes by itself."""
        return {name: value for name, value in self.media_options.items() if name != "modalities"}


@dataclass
class LoadedSample:
    """A sample as tensors (`media`, with batch size 1), and the texts that were drawn.

    Args:
        raw: instead of `media`, what was read and is prepared elsewhere.
    """

    id: str
    media: dict[str, torch.Tensor]
    captions: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    raw: RawSample | None = None


def load_sample(
    sample: Sample,
    processor: ValorProcessor,
    options: LoadingOptions,
    seed: int,
    cache: Path | None = None,
    raw: bool = False,
) -> LoadedSample:
    """Reads one sample. `seed` determines all random choices (frames, flips, texts); `cache` is that of `load_media`.

    Args:
        raw: leave resizing, normalisation and log-mel features to the training device.

    Raises:
        MediaError: a file cannot be read, the sample has none of the modalities, or it has no texts.
    """
    if isinstance(sample.video, UnreadableFile):  # raises the reason; its texts are missing, too
        sample.video.read()
    rng = random.Random(seed)
    loaded = LoadedSample(sample.id, media={})
    if options.task == "question_answering":
        _draw_questions(loaded, sample, options, rng)
    else:
        _draw_captions(loaded, sample, options, rng)
    # One generator for both modalities, which have different numbers of segments anyway
    generator = torch.Generator().manual_seed(seed)
    if raw:
        loaded.raw = _read_raw(sample, processor, generator=generator, **options.media_options)
    else:
        loaded.media = load_media(sample, processor, cache=cache, generator=generator, **options.media_options)
    return loaded


def _draw_questions(loaded: LoadedSample, sample: Sample, options: LoadingOptions, rng: random.Random) -> None:
    questions = [question for question in sample.questions if question.answers]
    for question in _draw(rng, questions, options.questions_per_sample, sample, "question with an answer"):
        answer = rng.choice(question.answers)
        loaded.questions.append(clean_question(question.text) if options.clean_text else question.text)
        loaded.answers.append(clean_answer(answer) if options.clean_text else answer)


def _draw_captions(loaded: LoadedSample, sample: Sample, options: LoadingOptions, rng: random.Random) -> None:
    clean = clean_caption if options.clean_text else str
    captions = _draw(rng, sample.captions, options.captions_per_sample, sample, "caption")
    loaded.captions = [clean(text) for text in captions]
    if options.references:
        loaded.references = [clean(text) for text in sample.captions]


def load_media(
    sample: Sample, processor: ValorProcessor, modalities: str = "av", cache: Path | None = None, **options: Any
) -> dict[str, torch.Tensor]:
    """Frames and audio of one sample as tensors of batch size 1; an absent modality is left out.

    Args:
        cache: folder that stores the tensors in half precision; the next time they are read from it. It is for one set of
            `options` without randomness, and for all modalities. Samples are identified by their ids and the paths of
            their files or the content of their arrays. A sample whose files have changed is decoded again; if its files no
            longer exist, the cache is used. Damaged files of the cache are written again, and a folder that cannot be
            written is only read; each of these is reported once.

    Raises:
        MediaError: a file cannot be read, or the sample has none of `modalities`.
    """
    path = None if cache is None else _path_in_cache(cache, sample)
    if path is None:
        return _read_media(sample, processor, modalities, options)
    state = [file_state(sample.video), file_state(sample.audio)]
    wanted = {name for modality in MEDIA if modality.letter in modalities for name in (modality.input, modality.mask)}
    media = _read_cached(path, state, wanted)
    if media is None:
        try:
            whole = _in_half(_read_media(sample, processor, "av", options))
        except MediaError:
            if modalities == "av":
                raise
            # Perhaps only the other modality is damaged; then nothing is cached and the sample is read each time
            return _read_media(sample, processor, modalities, options)
        _write_cached(path, state, whole)
        media = {name: whole[name] for name in wanted & whole.keys()}
    if not media:
        raise MediaError(f'{sample.id} has none of the modalities "{modalities}".')
    return {name: value.float() if value.is_floating_point() else value for name, value in media.items()}


def _in_half(media: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.half() if value.is_floating_point() else value for name, value in media.items()}


def _path_in_cache(cache: Path, sample: Sample) -> Path | None:
    """The file of a sample in a cache; None if its media cannot be identified."""
    try:
        identity = json.dumps([sample.id, fingerprint(sample.video), fingerprint(sample.audio)], sort_keys=True)
    except IncomparableError:
        return None
    digest = hashlib.sha256(identity.encode()).hexdigest()
    return cache / digest[:2] / f"{digest}.safetensors"


def _write_cached(path: Path, state: list[Any], media: dict[str, torch.Tensor]) -> None:
    media = {name: value.contiguous() for name, value in media.items()}
    checksums = {name: _checksum(value) for name, value in media.items()}
    metadata = {"state": json.dumps(state), "checksums": json.dumps(checksums)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            partial.write_bytes(safetensors.torch.save(media, metadata))
    except OSError as error:
        folder = path.parents[1]
        warn_once(
            f"{folder} cannot be written to",
            f"The cache {folder} cannot be written to ({reason(error)}); samples that it does not have are decoded each time.",
        )


def _read_cached(path: Path, state: list[Any], wanted: set[str]) -> dict[str, torch.Tensor] | None:
    """The wanted tensors of a cached file; None if it does not exist, is damaged, or the media have changed.

    Media that no longer exist (their state is None) count as unchanged.
    """
    try:
        with safe_open(path, "pt") as file:
            notes = file.metadata()
            then, checksums = json.loads(notes["state"]), json.loads(notes["checksums"])
            if not is_unchanged(state, then):
                return None
            if set(file.keys()) != set(checksums):
                raise ValueError("it has other tensors than it says")
            media = {name: file.get_tensor(name) for name in wanted & set(checksums)}
        if any(_checksum(value) != checksums[name] for name, value in media.items()):
            raise ValueError("a tensor is not the one that was written")
        return media
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # a damaged file may raise any exception
        folder = path.parents[1]
        warn_once(
            f"{folder} is damaged",
            f"{path} is damaged ({reason(error)}); this and other damaged files of the cache {folder} are decoded again.",
        )
        return None


def _checksum(tensor: torch.Tensor) -> int:
    return zlib.crc32(tensor.numpy().tobytes(), zlib.crc32(f"{tensor.dtype} {tuple(tensor.shape)}".encode()))


def cache_folder(root: str | os.PathLike[str], processor: ValorProcessor, options: LoadingOptions) -> Path:
    """The folder in `root` for tensors of this processor and these options; it differs for others.

    Raises:
        ValueError: the options have randomness, so results cannot be cached.
    """
    if options.sampling != "center" or options.transforms.get("do_flip") or options.transforms.get("crop_scale"):
        raise ValueError('A cache cannot store random results: use `sampling="center"` and no random transforms.')
    parts = [part.to_json_string() for part in (processor.video_processor, processor.feature_extractor)]
    media_options = {name: value for name, value in options.media_options.items() if name != "modalities"}
    settings = json.dumps([*parts, media_options, _CACHE_FORMAT], sort_keys=True)
    return Path(root) / hashlib.sha256(settings.encode()).hexdigest()[:16]


def _read_media(
    sample: Sample, processor: ValorProcessor, modalities: str, options: dict[str, Any]
) -> dict[str, torch.Tensor]:
    video = sample.video if "v" in modalities else None
    audio = sample.audio if "a" in modalities else None
    with _media_errors(sample):
        media = processor(
            videos=None if video is None else [video],
            audio=None if audio is None else [audio],
            load_audio_from_video=False,
            modalities=modalities,
            return_tensors="pt",
            **options,
        )
    return dict(media)


def _read_raw(sample: Sample, processor: ValorProcessor, modalities: str, **options: Any) -> RawSample:
    with _media_errors(sample):
        return read_raw(sample.video, sample.audio, processor, modalities, options)


@contextmanager
def _media_errors(sample: Sample) -> Iterator[None]:
    """One malformed sample must not end a long run: whatever reading it raises becomes a `MediaError`."""
    try:
        yield
    except MediaError:
        raise
    except Exception as error:
        raise MediaError(f"{sample.id}: {describe(error)}") from error


def load_or_replace(
    candidates: Iterable[Sample], load: Callable[[Sample], LoadedSample], most: int = 20
) -> tuple[LoadedSample | None, list[Failure]]:
    """The first of `candidates` that can be read, and the failures before it.

    An unreadable sample is replaced by the next one, so that batches keep their size and ranks take the same steps.
    """
    failures: list[Failure] = []
    for sample in islice(candidates, most):
        loaded = attempt(sample.id, partial(load, sample))
        if not isinstance(loaded, Failure):
            return loaded, failures
        failures.append(loaded)
    return None, failures


def _draw(rng: random.Random, options: Sequence[Any], count: int, sample: Sample, what: str) -> list[Any]:
    """`count` of the options in random order; none is repeated before all have been drawn."""
    if not options:
        raise MediaError(f"{sample.id} has no {what}.")
    drawn: list[Any] = []
    while len(drawn) < count:
        drawn += rng.sample(options, min(count - len(drawn), len(options)))
    return drawn
