# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Batches of frames and audio for evaluation: in order, without randomness, unreadable files listed apart."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice

import torch
from torch.utils.data import DataLoader, Dataset

from ..data.failures import Failure, attempt
from ..data.loading import cache_folder, load_media
from ..data.samples import Sample, sample_at
from ..processing_valor import ValorProcessor
from ..read_ahead import map_ahead, reading_threads
from .options import MediaOptions


@dataclass
class MediaBatch:
    """The media of a batch of samples.

    Args:
        indices: the samples that could be read.
        inputs: their frames and audio as model inputs; empty if no sample could be read.
        failures: index of a sample -> why it could not be read.
    """

    indices: list[int]
    inputs: dict[str, torch.Tensor]
    failures: dict[int, Failure] = field(default_factory=dict)


def media_batches(
    samples: Sequence[Sample], processor: ValorProcessor, batches: Sequence[Sequence[int]], options: MediaOptions
) -> Iterator[MediaBatch]:
    """One [`MediaBatch`] for each list of indices in `batches`, in their order.

    Each sample is decoded alone, in a worker process if there are any, else in threads that read the next batch while the
    model has one, and padded to its batch. A sample that cannot be read or has none of the modalities is in `failures`
    instead of `inputs`.
    """
    if not batches:
        return
    dataset, collate = _SampleMedia(samples, processor, options), _Collate(processor)
    if options.num_workers == 0:
        threads = reading_threads()
        ahead = max(threads, *map(len, batches))
        with closing(map_ahead(dataset.__getitem__, chain.from_iterable(batches), ahead, threads)) as loaded:
            for batch in batches:
                yield collate(list(islice(loaded, len(batch))))
        return
    yield from DataLoader(
        dataset,
        batch_sampler=[list(batch) for batch in batches],
        num_workers=min(options.num_workers, len(batches)),
        collate_fn=collate,
        generator=torch.Generator(),  # otherwise the loader would draw from the generator of the training
    )


class _SampleMedia(Dataset[tuple[int, dict[str, torch.Tensor] | Failure]]):
    def __init__(self, samples: Sequence[Sample], processor: ValorProcessor, options: MediaOptions):
        self.samples, self.processor, self.options = samples, processor, options.loading.media_options
        self.cache = None if options.cache is None else cache_folder(options.cache, processor, options.loading)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[int, dict[str, torch.Tensor] | Failure]:
        sample = sample_at(self.samples, index)
        # The caller may run the model in lower precision; frames and audio are prepared in float32
        with torch.autocast("cpu", enabled=False):
            load = partial(load_media, sample, self.processor, cache=self.cache, **self.options)
            return index, attempt(sample.id, load)


class _Collate:
    def __init__(self, processor: ValorProcessor):
        self.processor = processor

    def __call__(self, loaded: Sequence[tuple[int, dict[str, torch.Tensor] | Failure]]) -> MediaBatch:
        failures = {index: result for index, result in loaded if isinstance(result, Failure)}
        read = {index: result for index, result in loaded if not isinstance(result, Failure)}
        inputs = dict(self.processor.pad(list(read.values()))) if read else {}
        return MediaBatch(list(read), inputs, failures)
