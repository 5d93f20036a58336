# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Several datasets in one training: the source of each step, and the samples that each rank reads.

The content of a batch depends only on the seed, the step and the rank. So ranks need no communication, and an
interrupted run continues with the same batches; there is no other state to save.
"""

import os
import random
import signal
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import chain, islice
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ..configuration_valor import ValorConfig
from ..processing_valor import ValorProcessor
from .collation import ValorCollator
from .failures import TooManyFailures, summary
from .loading import LoadingOptions, cache_folder, load_or_replace, load_sample
from .samples import Sample, SampleStream, sample_at


TASK_GROUPS = {
    "pretraining": ("alignment_groups", "captioning_groups"),
    "retrieval": ("alignment_groups",),
    "captioning": ("captioning_groups",),
    "question_answering": ("captioning_groups",),
}
"""The modality groups of a source that the model of each task needs."""


@dataclass
class Source:
    """One dataset of a mixture.

    Args:
        name: for logs; unique in the mixture.
        samples: all samples, or a stream of them.
        options: its task, numbers of frames and audio clips, and text lengths.
        batch_size: samples of each rank in a step.
        epochs: how often each of its samples is used in the whole training. This sets how often the source is drawn.
        steps: number of its steps, instead of `epochs`; required for streams, whose length is unknown.
        alignment_groups, captioning_groups: modality groups to train; None: the model's.
        cache_dir: folder that stores decoded frames and audio for the next epoch (`loading.load_media`).
        neighbours: number of consecutive samples that stay in the same batch, such as 2 for datasets of similar pairs,
            which makes contrastive learning harder. 1: all samples are shuffled.
    """

    name: str
    samples: Sequence[Sample] | SampleStream
    options: LoadingOptions = field(default_factory=LoadingOptions)
    batch_size: int = 64
    epochs: float = 1.0
    steps: int | None = None
    alignment_groups: Sequence[str] | None = None
    captioning_groups: Sequence[str] | None = None
    cache_dir: str | os.PathLike[str] | None = None
    neighbours: int = 1

    def num_steps(self, world_size: int) -> int:
        """Steps of this source in the whole training."""
        if self.steps is not None:
            return self.steps
        if isinstance(self.samples, SampleStream):
            raise ValueError(
                f"The source {self.name!r} is a stream, whose length is unknown: set its `steps`, or `max_steps` if it is "
                "the only source."
            )
        return max(1, round(self.epochs * (len(self.table) // (self.batch_size * world_size))))

    @property
    def table(self) -> Sequence[Sample]:
        """The samples of a source that is no stream."""
        return cast(Sequence[Sample], self.samples)

    def order(self, epoch: int, seed: int) -> np.ndarray:
        """Indices of all samples in the order of one epoch."""
        rng = np.random.default_rng([seed, epoch])
        count = len(self.table)
        if self.neighbours == 1:
            return rng.permutation(count)
        blocks = np.array_split(np.arange(count), range(self.neighbours, count, self.neighbours))
        return np.concatenate([blocks[index] for index in rng.permutation(len(blocks))])


@dataclass(frozen=True)
class Request:
    """Numbers from which a worker makes one batch of one rank.

    Args:
        source: number of the source.
        visit: number of earlier batches of this source.
        seed: of all random choices in the batch.
        rank, world_size: select this rank's part of the step's samples.
        partition, partitions, position: for streams, the part of the stream, the number of parts, and the number of earlier
            batches of this part.
    """

    source: int
    visit: int
    seed: int
    rank: int
    world_size: int
    partition: int = 0
    partitions: int = 1
    position: int = 0


def steps_of_sources(sources: Sequence[Source], world_size: int, num_steps: int | None = None) -> list[int]:
    """Number of steps of each source in the training, from its `epochs` or `steps`.

    Args:
        num_steps: of the whole training, if given; then a stream that is the only source needs no `steps`.

    Raises:
        ValueError: a stream has no `steps`.
    """
    only = sources[0] if len(sources) == 1 else None
    if num_steps is not None and only is not None and only.steps is None and isinstance(only.samples, SampleStream):
        return [num_steps]
    return [source.num_steps(world_size) for source in sources]


class RequestSampler:
    """Batch sampler of the mixture's data loader: draws a source for each step and numbers its batches.

    Sources are drawn without replacement from a pool in which each is repeated `num_steps` times, so all epochs are
    complete. If the training has another number of steps, the pool is scaled to it.

    Args:
        epoch_steps: steps of one epoch of the training; None: the training is one epoch. An iterator starts at the epoch of
            `set_epoch` and ends with the training.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        num_steps: int | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        epoch_steps: int | None = None,
    ):
        steps = np.array(steps_of_sources(sources, world_size, num_steps))
        for source in sources:
            if not isinstance(source.samples, SampleStream) and len(source.samples) < source.batch_size * world_size:
                raise ValueError(
                    f"The source {source.name!r} has {len(source.samples)} samples, fewer than one step takes "
                    f"({source.batch_size} for each of {world_size} processes). Lower its `batch_size` "
                    "(`per_device_train_batch_size`)."
                )
        if num_steps is not None:
            # The sources with the largest remainders get the steps that are left after rounding down
            shares = steps / steps.sum() * num_steps
            steps = np.floor(shares).astype(int)
            steps[np.argsort(steps - shares, kind="stable")[: num_steps - steps.sum()]] += 1
        self.draws = np.random.default_rng([seed, 0]).permutation(np.repeat(np.arange(len(sources)), steps))
        self.sources, self.seed, self.rank, self.world_size = sources, seed, rank, world_size
        self.num_workers = max(1, num_workers)
        self.epoch, self.epoch_steps = 0, len(self.draws) if epoch_steps is None else epoch_steps

    def __len__(self) -> int:
        return len(self.draws)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[Request]]:
        visits: defaultdict[int, int] = defaultdict(int)
        positions: defaultdict[tuple[int, int], int] = defaultdict(int)
        for step, source in enumerate(self.draws.tolist()):
            # The loader's worker `step % num_workers` makes this batch, so a stream has one part for each
            worker = step % self.num_workers
            if step >= self.epoch * self.epoch_steps:
                yield [
                    Request(
                        source=source,
                        visit=visits[source],
                        seed=self.seed + 1_000_003 * (step * self.world_size + self.rank + 1),
                        rank=self.rank,
                        world_size=self.world_size,
                        partition=worker * self.world_size + self.rank,
                        partitions=self.num_workers * self.world_size,
                        position=positions[source, worker],
                    )
                ]
            visits[source] += 1
            positions[source, worker] += 1


class MixtureLoader(DataLoader[dict[str, Any]]):
    """Data loader of one epoch at a time, whose workers already prepare the next epoch.

    Its length is that of an epoch. `set_epoch` chooses the epoch. Consecutive epochs share an iterator, so that workers
    neither wait at the end of an epoch nor read a stream again from its start.
    """

    batch_sampler: "RequestSampler"
    _next_epoch: int | None = None

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return self.batch_sampler.epoch_steps

    def __iter__(self) -> Any:
        if self.batch_sampler.epoch != self._next_epoch:
            self._batches = super().__iter__()
        self._next_epoch = self.batch_sampler.epoch + 1
        return islice(self._batches, len(self))


class Mixture(Dataset[dict[str, Any]]):
    """A dataset of batches: `mixture[request]` reads, tokenizes and masks one batch of one source.

    Args:
        sources: the datasets.
        processor, config: of the model that is trained.
        seed: fixes the order of samples and everything drawn from them.
        preprocess_on_device: batches have a [`RawMedia`] as `raw_media`, whose `prepare` gives frames and audio; not those
            of a source with a `cache_dir`, whose samples are prepared already.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        processor: ValorProcessor,
        config: ValorConfig,
        seed: int = 0,
        preprocess_on_device: bool = False,
    ):
        if not sources:
            raise ValueError("A mixture needs at least one source.")
        if len({source.name for source in sources}) < len(sources):
            raise ValueError(f"Sources must have different names, got {[source.name for source in sources]}.")
        self.sources = list(sources)
        self.processor = processor
        self.collate = ValorCollator(processor, config)
        self.seed = seed
        self.preprocess_on_device = preprocess_on_device
        self.caches = [
            None if source.cache_dir is None else cache_folder(source.cache_dir, processor, source.options)
            for source in self.sources
        ]
        self._order = lru_cache(maxsize=2 * len(sources))(self._order_of)
        self._streams: dict[tuple[int, int], tuple[Iterator[Sample], int]] = {}

    def __len__(self) -> int:
        """Samples of all sources that are not streams."""
        return sum(len(source.samples) for source in self.sources if not isinstance(source.samples, SampleStream))

    @property
    def num_samples(self) -> int | None:
        """Number of all samples; None if a source is a stream, whose length is unknown."""
        streams = any(isinstance(source.samples, SampleStream) for source in self.sources)
        return None if streams else len(self)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_order": None, "_streams": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._order = lru_cache(maxsize=2 * len(self.sources))(self._order_of)

    def loader(
        self,
        num_steps: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        pin_memory: bool = False,
        prefetch_factor: int | None = None,
        epoch_steps: int | None = None,
    ) -> MixtureLoader:
        """A data loader with one batch for each step, made in `num_workers` processes.

        Args:
            num_steps: of the whole training; None: the sum over the sources.
            epoch_steps: of an epoch; None: the training is one epoch.
        """
        sampler = RequestSampler(self.sources, num_steps, self.seed, rank, world_size, num_workers, epoch_steps)
        return MixtureLoader(
            self,
            batch_sampler=sampler,
            collate_fn=_only,
            num_workers=num_workers,
            pin_memory=pin_memory,
            prefetch_factor=prefetch_factor if num_workers else None,
            worker_init_fn=_init_worker,
            persistent_workers=num_workers > 0,
        )

    def __getitem__(self, request: Request) -> dict[str, Any]:
        """One batch: the model's inputs, and `task`, `source`, `ids`, `num_read` and `failures`.

        Raises:
            TooManyFailures: many consecutive samples could not be read.
        """
        source = self.sources[request.source]
        rng = random.Random(request.seed)
        candidates = self._candidates(request)
        cache = self.caches[request.source]
        load = partial(
            load_sample,
            processor=self.processor,
            options=source.options,
            cache=cache,
            raw=self.preprocess_on_device and cache is None,
        )
        loaded, failures = [], []
        for _ in range(source.batch_size):
            seed = rng.randrange(2**31)
            sample, failed = load_or_replace(candidates, partial(load, seed=seed))
            failures += failed
            if sample is None:
                reasons = summary({failure.id: failure.reason for failure in failed}, most=3)
                raise TooManyFailures(
                    f"{len(failed)} samples in a row of {source.name!r} could not be read, such as: {reasons}."
                )
            loaded.append(sample)
        batch = self.collate(loaded, source.options, rng.randrange(2**31), complete=request.world_size > 1)
        for name in TASK_GROUPS[source.options.task]:
            if (groups := getattr(source, name)) is not None:
                batch[name] = list(groups)
        return {
            **batch,
            "task": source.options.task,
            "source": source.name,
            "ids": [sample.id for sample in loaded],
            "num_read": len(loaded) + len(failures),
            "failures": failures,
        }

    def _candidates(self, request: Request) -> Iterator[Sample]:
        """The samples of a batch, then replacements for those that cannot be read."""
        source = self.sources[request.source]
        if isinstance(source.samples, SampleStream):
            return self._read_stream(request)
        per_step = source.batch_size * request.world_size
        epoch, step = divmod(request.visit, len(source.samples) // per_step)
        order = self._order(request.source, epoch)
        first = step * per_step + request.rank * source.batch_size
        own = order[first : first + source.batch_size]
        others = np.random.default_rng(request.seed).permutation(len(order))
        return (sample_at(source.samples, int(index)) for index in chain(own, others))

    def _order_of(self, source: int, epoch: int) -> np.ndarray:
        return self.sources[source].order(epoch, self.seed + source)

    def _read_stream(self, request: Request) -> Iterator[Sample]:
        """The stream's samples from the request's batch on; earlier ones are skipped without decoding."""
        source, key = self.sources[request.source], (request.source, request.partition)
        stream, position = self._streams.get(key, (None, 0))
        if stream is None or position > request.position:
            stream, position = self._endless(cast(SampleStream, source.samples), request), 0
        for _ in islice(stream, (request.position - position) * source.batch_size):
            pass
        self._streams[key] = (stream, request.position + 1)
        batch = list(islice(stream, source.batch_size))
        # Replacements are samples of the same batch, so that unreadable files do not shift later batches
        return chain(batch, batch)

    def _endless(self, stream: SampleStream, request: Request) -> Iterator[Sample]:
        epoch = 0
        while True:
            count = 0
            for sample in stream.samples(request.partition, request.partitions, epoch, self.seed):
                count += 1
                yield sample
            if count == 0:
                raise RuntimeError(f"The source {self.sources[request.source].name!r} has no samples.")
            epoch += 1


def _only(batches: list[dict[str, Any]]) -> dict[str, Any]:
    return batches[0]


def _init_worker(worker: int) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all processes get Ctrl-C; the training stops the workers
