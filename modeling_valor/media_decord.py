# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""decord in a process of its own, so that no file can take this process down with it.

decord is no longer kept and its FFmpeg is of 2018: about one in six hundred corrupted files aborts it, and nothing in
the same process could stop it from hanging or from filling the memory. In its own process that costs a restart, and its
libraries do not meet PyAV's and torchcodec's. The frames come back through a pipe, which costs less than decoding them.
"""

import atexit
import contextlib
import importlib.util
import io
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from typing import IO, Any, cast

import numpy as np


class DecordDamaged(Exception):
    """decord met damage: it complained, died or took too long."""


class DecordProcess:
    """A decord process, started at the first use and again after a death; `usable` says whether there is a decord."""

    program = __file__  # also where this module was loaded as remote code
    seconds_to_start, seconds_per_frame = 20.0, 3.0

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """As it is made: without a process."""
        self.lock = threading.Lock()
        self.process: subprocess.Popen | None = None
        self.usable = importlib.util.find_spec("decord") is not None

    def read(self, path: str, moments: Sequence[float]) -> tuple[list[np.ndarray], list[float]]:
        """What is on the screen at some moments, in seconds after the first frame: frames (H, W, 3) and their times.

        Raises:
            ImportError: decord is not there or does not load.
            RuntimeError: it cannot read this file.
            DecordDamaged: it can read it, but not without errors.
        """
        frames, times = [], []
        with self.lock:
            try:
                self._request({"path": path, "moments": list(moments)})
                for _ in moments:
                    header, pixels = self._answer(self.seconds_per_frame)
                    if "error" in header:
                        raise (DecordDamaged if header["damaged"] else RuntimeError)(header["error"])
                    frames.append(pixels.reshape(header["shape"]))
                    times.append(header["seconds"])
            except (OSError, EOFError, ValueError) as error:
                self.stop()
                raise DecordDamaged("decord died or took too long") from error
        return frames, times

    def stop(self) -> None:
        """Ends the process; the next use starts another."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def _request(self, request: dict) -> None:
        if not self.usable:
            raise ImportError("decord is not installed or does not load")
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, self.program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            self.usable = False
            self._answer(self.seconds_to_start)
            self.usable = True
        requests = cast(IO[bytes], self.process.stdin)
        requests.write(json.dumps(request).encode() + b"\n")
        requests.flush()

    def _answer(self, seconds: float) -> tuple[dict, np.ndarray]:
        """One JSON line and the pixels that it announces; the process is ended when they take longer than `seconds`."""
        process = cast(subprocess.Popen, self.process)  # started by `_request`
        answers = cast(io.BufferedReader, process.stdout)
        watch = threading.Timer(seconds, process.kill)
        watch.start()
        try:
            line = answers.readline()
            if not line.endswith(b"\n"):
                raise EOFError
            header = json.loads(line)
            pixels: Any = np.empty(math.prod(header.get("shape", (0,))), dtype=np.uint8)
            if answers.readinto(pixels) != len(pixels):
                raise EOFError
            return header, pixels
        finally:
            watch.cancel()


def _serve() -> None:
    """The process itself: reads requests {"path", "moments"}, answers each frame with a JSON line and its pixels.

    Whatever decord and its FFmpeg print while they read is damage, which they do not tell otherwise.
    """
    answers = os.fdopen(os.dup(1), "wb")
    with tempfile.TemporaryFile() as printed:
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
    with contextlib.suppress(ImportError, ValueError, OSError):
        resource = importlib.import_module("resource")  # of Unix; as below
        resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def answer(pixels: bytes = b"", **header: object) -> None:
        answers.write(json.dumps(header).encode() + b"\n" + pixels)
        answers.flush()

    # Not `import`: transformers would demand it of everyone who loads this code from the Hub
    decord = importlib.import_module("decord")
    decord.logging.set_level(decord.logging.ERROR)
    answer(ready=True)
    for line in sys.stdin:
        request = json.loads(line)
        os.lseek(2, 0, os.SEEK_SET)
        os.ftruncate(2, 0)
        try:
            reader = decord.VideoReader(request["path"], num_threads=1)
            stamps = reader.get_frame_timestamp(list(range(len(reader))))[:, 0].astype(float)
            if abs(stamps[0]) > 1e-3 or (np.diff(stamps) <= 0).any():
                raise ValueError("decord reads no usable time stamps")
            for moment in request["moments"]:
                index = max(int(np.searchsorted(stamps, moment, side="right")) - 1, 0)
                picture = reader[index].asnumpy()
                if os.fstat(2).st_size:
                    raise ValueError("decord met damaged frames")
                if picture.shape[-1] != 3:
                    raise ValueError("decord took the padding of rows for pixels")
                answer(picture.tobytes(), shape=picture.shape, seconds=stamps[index])
        except Exception as error:
            answer(error=str(error), damaged=os.fstat(2).st_size > 0)
        reader = None


if __name__ == "__main__":
    # This file, started as a program: its folder comes first in the path, where its modules could hide others
    sys.path = [path for path in sys.path if path != os.path.dirname(os.path.abspath(__file__))]
    _serve()
else:
    decord = DecordProcess()
    atexit.register(decord.stop)
    if hasattr(os, "register_at_fork"):  # each worker of a data loader has its own
        os.register_at_fork(after_in_child=decord.reset)
