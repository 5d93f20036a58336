# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What the pipelines share: any form of video and audio in, one at a time, in lists or as a stream; saving with their code."""

import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import closing
from numbers import Integral
from typing import Any

import numpy as np
import torch
from huggingface_hub import CommitInfo
from torch.utils.data import Dataset, IterableDataset
from transformers import Pipeline
from transformers.pipelines.pt_utils import PipelineIterator
from transformers.utils import logging

from .configuration_valor import MEDIA
from .feature_extraction_valor import is_waveform
from .hub import push_saved, restored, saved_with_code
from .media import media_source
from .read_ahead import map_ahead, reading_threads
from .video_processing_valor import has_metadata


logger = logging.get_logger(__name__)

Record = dict[str, Any]
"""One result of a pipeline."""

LONG_SECONDS = 30
"""Results say how much of a file was used where a frame, or a clip of sound, stands for more seconds than these."""


class AudiovisualPipeline(Pipeline):
    """The base of all pipelines of VALOR."""

    _load_processor = True
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def media_parameters(
        self,
        modalities: str | None = None,
        num_frames: int | None = None,
        num_audio_clips: int | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        on_error: str | None = None,
    ) -> dict[str, Any]:
        """The arguments of `preprocess`, checked, without those that are not given."""
        given: dict[str, Any] = {
            "modalities": modalities,
            "num_frames": num_frames,
            "num_audio_clips": num_audio_clips,
            "on_error": on_error,
        }
        for name in ("num_frames", "num_audio_clips"):
            number = given[name]
            if number is not None and (not isinstance(number, Integral) or number < 1):
                raise ValueError(f"`{name}` must be a whole number of at least 1, got {number!r}.")
        if on_error not in (None, "raise", "skip"):
            raise ValueError(f'`on_error` must be "raise" or "skip", got {on_error!r}.')
        return {name: value for name, value in given.items() if value is not None} | (processor_kwargs or {})

    def __call__(self, inputs: Any, **kwargs: Any) -> list[Record] | list[list[Record]] | Iterator[list[Record]]:
        is_native = isinstance(inputs, Dataset) or (isinstance(inputs, list) and inputs)
        if is_native or is_sample(inputs):
            native: list[Record] | list[list[Record]] | Iterator[list[Record]] = super().__call__(inputs, **kwargs)
            return native
        # transformers takes tuples, iterators and columns of `datasets` for single samples
        results: Any = super().__call__((sample for sample in inputs), **kwargs)
        return list(results) if hasattr(inputs, "__len__") else results

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Iterator[Any]:
        """Results of a list, a dataset or an iterator. Without workers, threads read the samples of the next batch meanwhile.

        Those of iterators are read when they are asked for, because an iterator may wait for them itself.
        """
        if isinstance(inputs, IterableDataset):
            inputs = _Stream(inputs)
        reads_ahead = isinstance(inputs, Sized) and num_workers == 0 and self.reads_ahead(preprocess_params)
        if not reads_ahead:
            native: Iterator[Any] = super().get_iterator(
                inputs, num_workers, batch_size, preprocess_params, forward_params, postprocess_params
            )
            return native
        prepare = functools.partial(self.preprocess, **preprocess_params)
        batches = _Batches(inputs, prepare, batch_size, reading_threads(self.device))
        outputs = _Outputs(batches, self.forward, forward_params, loader_batch_size=batch_size)
        results: Iterator[Any] = PipelineIterator(outputs, self.postprocess, postprocess_params)
        return results

    def reads_ahead(self, preprocess_params: Mapping[str, Any]) -> bool:
        """Whether samples may be read out of turn: not where the random numbers that choose frames are shared."""
        parts = [preprocess_params.get(name) or {} for name in ("videos_kwargs", "audio_kwargs")]
        for options in (vars(self.processor.video_processor), preprocess_params, *parts):
            if options.get("sampling") == "random" or options.get("generator") is not None:
                return False
            if options.get("do_flip") or options.get("crop_scale"):
                return False
        return True

    def read_media(self, sample: Any, on_error: str, **processor_kwargs: Any) -> dict[str, Any]:
        """Processed inputs of a sample as `media`, and `coverage`; both None where `error` says why it was skipped."""
        sample = parts_of(sample)
        try:
            media = self.processor(
                videos=_batch_of_one(sample.get("video")),
                audio=_batch_of_one(sample.get("audio")),
                return_tensors="pt",
                return_metadata=True,
                **processor_kwargs,
            )
            coverage = _coverage(media)
            for name in ("video_metadata", "audio_metadata"):
                media.pop(name, None)
            return {"media": media.to(self.dtype).data, "coverage": coverage, "error": None}
        except Exception as error:
            if on_error == "raise":
                raise
            logger.warning(f"A sample is skipped: {error}")
            return {"media": None, "coverage": None, "error": str(error)}

    @staticmethod
    def modalities_of(inputs: dict[str, Any], batch_size: int) -> list[str]:
        """ "av", "v" or "a" for each sample: what its text was made from."""
        names = [""] * batch_size
        for letter, _, name, mask in reversed(MEDIA):
            if name in inputs:
                present = inputs[mask].any(1).tolist() if mask in inputs else [True] * batch_size
                names = [other + letter * is_present for is_present, other in zip(present, names, strict=True)]
        return names

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Saves model, processor and the code of both, so that `pipeline(task, model=save_directory)` loads them again:
        without this package with `trust_remote_code=True`.
        """
        with saved_with_code(self.model, self.processor), restored((self.model.config, "custom_pipelines")):
            super().save_pretrained(save_directory, **kwargs)
            self.processor.save_pretrained(save_directory)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        max_shard_size: int | str = "50GB",
        card: Mapping[str, Any] | None = None,
        tags: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> CommitInfo:
        """Uploads model, processor, the code of both, and a model card where the repository has none.

        Arguments are those of the model's `push_to_hub`.
        """
        return push_saved(
            lambda folder: self.save_pretrained(folder, max_shard_size=max_shard_size),
            repo_id,
            build_card=lambda name: self.model.build_model_card(name, **{"tags": tags or (), **(card or {})}),
            **{"commit_message": "Upload pipeline", **kwargs},
        )


class _Stream(IterableDataset[Any]):
    """A dataset without its length: one that has a length is asked for samples by their numbers."""

    def __init__(self, samples: Iterable[Any]):
        self.samples = samples

    def __iter__(self) -> Iterator[Any]:
        return iter(self.samples)


class _Batches:
    """The samples of `inputs`, prepared by threads, in batches: one is held while the model works on another."""

    def __init__(self, inputs: Any, prepare: Callable[[Any], dict[str, Any]], batch_size: int, threads: int):
        self.inputs, self.prepare, self.batch_size, self.threads = inputs, prepare, batch_size, threads

    def __len__(self) -> int:
        return -(-len(self.inputs) // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, list[Any]]]:
        inputs = (self.inputs[index] for index in range(len(self.inputs)))
        ahead = max(self.batch_size, self.threads)
        with closing(map_ahead(self.prepare, inputs, ahead, self.threads)) as prepared:
            while batch := list(itertools.islice(prepared, self.batch_size)):
                yield {"sample": [sample["sample"] for sample in batch]}


class _Outputs(PipelineIterator):
    """The outputs of batches, sample by sample, from the beginning each time.

    The class of transformers begins again with what was left of a batch, and takes all to be as small as the last one was.
    """

    def __iter__(self) -> Iterator[Any]:
        self.loader_batch_size = self.loader.batch_size if self.loader.batch_size > 1 else None
        self._loader_batch_index = None
        outputs: Iterator[Any] = super().__iter__()
        return outputs


def is_sample(inputs: Any) -> bool:
    """Whether the inputs are a single sample, as opposed to a list, an iterator or a dataset."""
    if isinstance(inputs, Dataset):
        return False
    single = (str, bytes, bytearray, os.PathLike, dict, np.ndarray, torch.Tensor)
    is_single = isinstance(inputs, single) or not isinstance(inputs, Iterable) or hasattr(inputs, "read")
    return is_single or _is_waveform(inputs) or _is_frames_with_metadata(inputs)


def _is_dict_of_parts(sample: Any) -> bool:
    """Whether a sample names its parts; other dicts are encoded entries of `datasets`, or waveforms."""
    return isinstance(sample, dict) and not sample.keys().isdisjoint(
        (*(modality.name for modality in MEDIA), "question")
    )


def _is_waveform(sample: Any) -> bool:
    """Whether a sample is sound that says its rate; here a list is a list of samples."""
    return not isinstance(sample, list) and media_source(sample) is None and is_waveform(sample)


def _is_frames_with_metadata(sample: Any) -> bool:
    return not isinstance(sample, list) and has_metadata(sample)


def parts_of(sample: Any) -> dict[str, Any]:
    """A sample as a dict with "video", "audio" or both."""
    if _is_dict_of_parts(sample):
        return dict(sample)
    return {"audio": sample} if _is_waveform(sample) else {"video": sample}


def _coverage(media: Mapping[str, Any]) -> dict[str, Any] | None:
    """Duration of a long file and how many frames and clips of its sound are used; `None` for other samples."""
    used = {"duration": 0.0}
    is_long = False
    for modality, name in zip(MEDIA, ("frames", "audio_clips"), strict=True):
        metadata = media.get(f"{modality.name}_metadata")
        duration = metadata[0]["duration"] if metadata and metadata[0] is not None else None
        if modality.input in media and duration is not None:
            used[name] = media[modality.input].shape[1]
            used["duration"] = max(used["duration"], round(duration, 2))
            is_long = is_long or duration > LONG_SECONDS * used[name]
    return used if is_long else None


def _batch_of_one(part: Any) -> list[Any] | None:
    return None if part is None else [part]


__all__ = ["AudiovisualPipeline", "Record", "is_sample", "parts_of"]
