# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""A map over many items that is shared by several processes and resumes after an interruption.

Items are grouped into batches first, and processes get whole batches. So the content of each batch does not depend on the
number of processes or on interruptions, and the results are equal bit by bit.
"""

import hashlib
import json
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import safetensors
import safetensors.torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor
from tqdm.auto import tqdm

from ..alignment_ranks import is_distributed
from ..data.failures import Failure
from ..data.files import atomic_write


logger = logging.getLogger(__name__)

Result = TypeVar("Result")
"""Result of one item: tensors by name, or JSON-serialisable values by name."""


def rank_and_world_size() -> tuple[int, int]:
    """Rank of this process and number of processes; (0, 1) outside of distributed runs.

    They are those of torch's process group. Accelerate's `PartialState` is not used: it starts a group itself, and reports
    a single process if the group was not started by its launcher (no LOCAL_RANK).
    """
    return (dist.get_rank(), dist.get_world_size()) if is_distributed() else (0, 1)


def broadcast_from_main(compute: Callable[[], Result]) -> Result:
    """Runs `compute` in the main process and returns its result, or raises its error, in all processes."""
    rank, world_size = rank_and_world_size()
    if world_size == 1:
        return compute()
    message: list[Any] = [None, None]  # the result, the error
    if rank == 0:
        try:
            message[0] = compute()
        except Exception as error:
            message[1] = error
    dist.broadcast_object_list(message, src=0)
    if message[1] is not None:
        raise message[1]
    return cast(Result, message[0])


def stable_hash(*parts: Any) -> str:
    """Stable hash (24 hex digits of SHA-256) of JSON-serialisable values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


class ResultCache(ABC, Generic[Result]):
    """Results on disk, by key. Several processes may write to one folder; each has its own files.

    Damaged files and lines are skipped with one warning; their results are computed again.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)

    @abstractmethod
    def load(self, keys: Collection[str]) -> dict[str, Result]:
        """The cached results of `keys`."""

    @abstractmethod
    def add(self, results: Mapping[str, Result]) -> None:
        """Stores the results of a batch. If the process is killed meanwhile, `load` ignores what it left."""


class TensorCache(ResultCache[dict[str, Tensor]]):
    """Results that are tensors: one safetensors file for each batch."""

    def load(self, keys: Collection[str]) -> dict[str, dict[str, Tensor]]:
        results: dict[str, dict[str, Tensor]] = {}
        damaged = []
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                results.update(self._read(path, keys))
            except (OSError, SafetensorError):
                damaged.append(path.name)
        _warn_of_damage(self.folder, damaged)
        return results

    def _read(self, path: Path, keys: Collection[str]) -> dict[str, dict[str, Tensor]]:
        results: dict[str, dict[str, Tensor]] = {}
        with safetensors.safe_open(path, "pt") as shard:
            for name in shard.keys():  # noqa: SIM118 (not a dict)
                key, _, field = name.partition("/")
                if key in keys:
                    results.setdefault(key, {})[field] = shard.get_tensor(name)
        return results

    def add(self, results: Mapping[str, dict[str, Tensor]]) -> None:
        if not results:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"{key}/{field}": value for key, result in results.items() for field, value in result.items()}
        path = self.folder / f"{stable_hash(sorted(results))}.safetensors"
        with atomic_write(path) as partial:
            partial.write_bytes(safetensors.torch.save({name: value.contiguous() for name, value in tensors.items()}))


class TextCache(ResultCache[dict[str, Any]]):
    """Results that are texts: one line of JSON for each, in a file for each process."""

    def load(self, keys: Collection[str]) -> dict[str, dict[str, Any]]:
        results: dict[str, dict[str, Any]] = {}
        damaged = []
        for path in sorted(self.folder.glob("*.jsonl")):
            try:
                lines = path.read_bytes().splitlines()
            except OSError:
                damaged.append(path.name)
                continue
            for number, line in enumerate(lines, start=1):
                entry = _entry(line) if line.strip() else {}
                if entry is None:  # such as the last line of a process that was killed
                    damaged.append(f"{path.name}, line {number}")
                elif entry.get("key") in keys:
                    results[entry["key"]] = entry["result"]
        _warn_of_damage(self.folder, damaged)
        return results

    def add(self, results: Mapping[str, dict[str, Any]]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / f"{rank_and_world_size()[0]:05d}-{os.getpid()}.jsonl", "a", encoding="utf-8") as file:
            # A line break first: the last line may have been cut off
            file.writelines("\n" + json.dumps({"key": key, "result": value}) for key, value in results.items())
            file.write("\n")
            file.flush()


def _entry(line: bytes) -> dict[str, Any] | None:
    """A line of a [`TextCache`]; None if it is damaged."""
    try:
        entry = json.loads(line)
        is_whole = isinstance(entry["key"], str) and isinstance(entry["result"], dict)
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    return entry if is_whole else None


def _warn_of_damage(folder: Path, damaged: Sequence[str]) -> None:
    if damaged:
        more = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        logger.warning(f"The cache {folder} is damaged in {damaged[0]}{more}; these results are computed again.")


def map_resumable(
    keys: Sequence[str],
    batch_size: int,
    compute: Callable[[list[list[int]]], Iterator[Mapping[int, Result | Failure]]],
    cache: ResultCache[Result] | None = None,
    description: str | None = None,
    is_valid: Callable[[int, Result], bool] | None = None,
) -> list[Result | Failure]:
    """The result or the failure of each item, in the items' order; in the main process only, an empty list in the others.

    Args:
        keys: a name for each item, under which the cache stores its result.
        batch_size: number of items that are computed together.
        compute: takes this process's batches of item indices and yields the results of the items of each batch, in the
            order of the batches. It is called once in every process, also if there are no batches.
        cache: where results are looked up and stored. Failures are not stored, so that the next run tries these items
            again. If the cache cannot be written, as on a full disk, there is one warning and nothing more is stored.
        description: of a progress bar, which assumes that all processes advance at the same pace; `None`: no bar.
        is_valid: whether a cached result of an item, given by its index, has the expected form.

    Memory: results are sent to the main process at the end. It then holds all of them, and those of one more process.
    """
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
    rank, world_size = rank_and_world_size()
    results: dict[str, Result | Failure] = {}
    if cache is not None and rank == 0:
        cached = _load_valid(cache, keys, is_valid)
        results.update(cached)
    done = broadcast_from_main(lambda: set(results))
    pending = _pending_batches(keys, batch_size, done)
    with tqdm(total=sum(map(len, pending)), desc=description, disable=description is None or rank > 0) as bar:
        for number, batch in enumerate(compute(pending[rank::world_size])):
            by_key = {keys[item]: result for item, result in batch.items()}
            results.update(by_key)
            if cache is not None:
                cache = _store(cache, by_key)
            bar.update(sum(map(len, pending[number * world_size : (number + 1) * world_size])))
    results = _gather_in_main(results)
    return [results[key] for key in keys] if rank == 0 else []


def _pending_batches(keys: Sequence[str], batch_size: int, done: Collection[str]) -> list[list[int]]:
    """The items of each batch that are not done, without empty batches."""
    starts = range(0, len(keys), batch_size)
    batches = [range(start, min(start + batch_size, len(keys))) for start in starts]
    pending = [[item for item in batch if keys[item] not in done] for batch in batches]
    return list(filter(None, pending))


def _gather_in_main(results: dict[str, Result]) -> dict[str, Result]:
    """The results of all processes, in the main process; those of this process in the others."""
    rank, world_size = rank_and_world_size()
    if world_size == 1:
        return results
    parts: list[Any] | None = [None] * world_size if rank == 0 else None
    dist.gather_object(results, parts, dst=0)
    for part in (parts or [])[1:]:
        results.update(part)
    return results


def _load_valid(
    cache: ResultCache[Result], keys: Sequence[str], is_valid: Callable[[int, Result], bool] | None
) -> dict[str, Result]:
    """The cached results of `keys` that have the expected form."""
    results = cache.load(set(keys))
    if is_valid is None:
        return results
    valid = {key: results[key] for item, key in enumerate(keys) if key in results and is_valid(item, results[key])}
    if invalid := len(results) - len(valid):
        logger.warning(
            f"The cache {cache.folder} has {invalid} results of an unexpected form; they are computed again."
        )
    return valid


def _store(cache: ResultCache[Result], results: Mapping[str, Result | Failure]) -> ResultCache[Result] | None:
    """Adds the results that are no failures to the cache and returns it; None if it cannot be written."""
    try:
        cache.add({key: result for key, result in results.items() if not isinstance(result, Failure)})
    except OSError as error:
        logger.warning(
            f"The cache {cache.folder} cannot be written ({error.strerror or error}); the evaluation continues, but "
            "cannot resume after an interruption."
        )
        return None
    return cache
