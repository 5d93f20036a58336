# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Reads damaged files, any number of them, and reports what is no answer and no clear error.

    python -m tests.helpers.fuzzer --count 20000 --seed 1 --jobs 2

A case is a number: with its seed it gives the same file every time. Cases run in processes of their own, so that a crash
or an endless loop is a fault of its case and not the end of the run. `--only N` runs one case here and keeps its file.
"""

import argparse
import collections
import multiprocessing
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path


os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers.utils import logging

from modeling_valor import MediaError, ValorFeatureExtractor, ValorForRetrieval, ValorVideoProcessor
from modeling_valor.data.readers import load_samples
from modeling_valor.data.samples import each_sample

from .mutations import KINDS, mutate, write_originals


LOADING_ERRORS = (RuntimeError, SafetensorError, StrictDataclassError)
"""What transformers' own loading raises for damaged checkpoints; deeply nested JSON is a RecursionError, a RuntimeError."""

MOST_MEMORY = 2 * 1024**3
"""Bytes by which a case may raise the memory of its process; 500 MB are promised, decoders and PIL have theirs, too."""


@dataclass(frozen=True)
class Fault:
    """A case that was neither read nor refused in a sentence."""

    case: int
    kind: str
    what: str


def read_media(path: Path) -> None:
    """Frames and sound: finite numbers of the right shape, or a `MediaError` that names the file."""
    for processor, name, shape in (
        (ValorVideoProcessor(num_frames=3, size={"height": 32, "width": 32}), "pixel_values_videos", (3, 3, 32, 32)),
        (ValorFeatureExtractor(num_audio_clips=1), "input_features", (1, 64, 512)),
    ):
        try:
            values = processor(str(path), return_tensors="pt")[name]
        except MediaError as error:
            check_message(error, path)
            continue
        # A still image is one frame
        assert tuple(values.shape[1:]) in (shape, (1, *shape[1:])), f"shape {tuple(values.shape)}"
        assert values.isfinite().all(), "values are not finite"


def read_shard(path: Path) -> None:
    """All samples of a shard, or an error; what their media hold is not looked at."""
    try:
        list(each_sample(load_samples(str(path))))
    except (ValueError, OSError) as error:
        check_message(error, path)


def read_metadata(path: Path) -> None:
    """All samples of a metadata file, or an error."""
    folder = path.parent / f"{path.stem}-folder"
    folder.mkdir(exist_ok=True)
    shutil.copy(path, folder / "metadata.jsonl")
    for number in range(3):
        (folder / f"clip-{number}.mp4").touch()
    try:
        list(load_samples(str(folder)))
    except (ValueError, OSError) as error:
        check_message(error, folder)


def read_checkpoint(path: Path) -> None:
    """A model and processors of a checkpoint one of whose files is damaged, or an error."""
    try:
        model = ValorForRetrieval.from_pretrained(path.parent)
        assert model.config.projection_dim >= 1
    except (ValueError, OSError, *LOADING_ERRORS) as error:
        check_message(error)
    for part in (ValorVideoProcessor, ValorFeatureExtractor):
        try:
            part.from_pretrained(path.parent)
        except (ValueError, OSError, *LOADING_ERRORS) as error:
            check_message(error)


def check_message(error: Exception, path: Path | None = None) -> None:
    """An error must say something, and name the file where it is one of many."""
    message = str(error)
    assert message.strip(), f"{type(error).__name__} without a message"
    if isinstance(error, MediaError) and path is not None:
        assert path.name in message, f"the message does not name the file: {message!r}"
        assert "\n" not in message.strip(), f"more than one line: {message!r}"


TARGETS: dict[str, Callable[[Path], None]] = {
    **dict.fromkeys(("mp4", "mkv", "webm", "wav", "png", "gif"), read_media),
    "tar": read_shard,
    "jsonl": read_metadata,
    **dict.fromkeys(("model.safetensors", "config.json", "processor_config.json"), read_checkpoint),
}
"""How a file of each kind is read."""


class Cases:
    """Numbered damaged files."""

    def __init__(self, folder: Path, seed: int):
        self.folder, self.seed = folder, seed
        self.originals = write_originals(folder)

    def kind(self, case: int) -> str:
        return KINDS[case % len(KINDS)]

    def content(self, case: int) -> bytes:
        return mutate(self.originals[self.kind(case)], self.kind(case), random.Random(f"{self.seed} {case}"))

    def write(self, case: int, folder: Path) -> Path:
        """Writes the case's file in a new folder, next to the well-formed files of a checkpoint where it is of one."""
        kind = self.kind(case)
        place = folder / f"case-{case}"
        place.mkdir()
        if "." not in kind:
            path = place / f"case-{case}.{kind}"
        else:
            path = place / kind
            for other in KINDS:
                if "." in other:
                    (place / other).write_bytes(self.originals[other])
        path.write_bytes(self.content(case))
        return path

    def run(self, case: int, folder: Path) -> str | None:
        """Reads one case and says what is wrong, or `None`."""
        path = self.write(case, folder)
        before = _memory()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                TARGETS[self.kind(case)](path)
        except Exception as error:
            return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        finally:
            shutil.rmtree(path.parent, ignore_errors=True)
        grown = _memory() - before
        return f"took {grown / 1e6:.0f} MB of memory" if grown > MOST_MEMORY else None


def find_faults(
    cases: Cases, numbers: Iterable[int], jobs: int = 1, limit: float = 30.0, report: Callable[[Fault], None] = print
) -> list[Fault]:
    """Reads cases in processes of their own.

    Args:
        limit: seconds that a case may take.
        report: called with each fault as it is found.

    Returns:
        The faults, by number.
    """
    waiting = collections.deque(numbers)
    context = multiprocessing.get_context("fork")
    workers: dict = {}
    faults: list[Fault] = []

    def note(case: int, what: str) -> None:
        faults.append(Fault(case, cases.kind(case), what))
        report(faults[-1])

    with tempfile.TemporaryDirectory(prefix="valor-attack-") as scratch:
        while waiting or workers:
            while waiting and len(workers) < jobs:
                here, there = context.Pipe()
                process = context.Process(target=_work, args=(cases, there, Path(scratch)), daemon=True)
                process.start()
                there.close()
                workers[here] = [process, waiting[0], time.monotonic()]
                here.send(waiting.popleft())
            for connection in wait(list(workers), timeout=0.1):
                process, case, _ = workers[connection]
                try:
                    what = connection.recv()
                except EOFError:
                    process.join()
                    note(case, f"the process ended with {process.exitcode}")
                    del workers[connection]
                    continue
                if what is not None:
                    note(case, what)
                if waiting:
                    workers[connection][1:] = [waiting[0], time.monotonic()]
                    connection.send(waiting.popleft())
                else:
                    connection.send(None)
                    process.join()
                    del workers[connection]
            for connection, (process, case, started) in list(workers.items()):
                if time.monotonic() - started > limit:
                    process.kill()
                    process.join()
                    note(case, f"took more than {limit:g} seconds")
                    del workers[connection]
    return sorted(faults, key=lambda fault: fault.case)


def _work(cases: Cases, connection, scratch: Path) -> None:
    """Runs the cases whose numbers come, in this process, until `None` comes."""
    torch.set_num_threads(1)
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (for the life of this process)
    while (case := connection.recv()) is not None:
        connection.send(cases.run(case, scratch))


def _memory() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="cases (default: 1000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first one (default: 0)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--limit", type=float, default=30.0, help="seconds that a case may take (default: 30)")
    parser.add_argument("--only", type=int, help="one case, read in this process; its file is kept")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cases = Cases(Path(folder), args.seed)
        if args.only is not None:
            path = cases.write(args.only, Path(tempfile.mkdtemp(prefix="valor-attack-")))
            print(path)
            TARGETS[cases.kind(args.only)](path)
            return 0
        numbers = range(args.first, args.first + args.count)
        faults = find_faults(cases, numbers, args.jobs, args.limit, lambda fault: print(fault, flush=True))
    print(f"{args.count} cases, {len(faults)} faults")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
