# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Python processes that are forked from one which has imported torch, transformers and this package.

A new interpreter spends five seconds of processor time on these imports, a forked process none. In all else it is a process
like any other: it has its own folder, environment, output and exit status, and can be killed. Where a test is about what is
imported, or about variables that a library reads when it is imported, it needs a new interpreter.
"""

import contextlib
import dataclasses
import multiprocessing
import multiprocessing.forkserver
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import torch.distributed.run
import torch.multiprocessing
from torch.distributed.launcher.api import LaunchConfig, elastic_launch


# Nothing that starts a thread which a fork would lack, as LanceDB does
MODULES = ["pytest", *(f"modeling_valor.cli.{command}" for command in ("caption", "evaluate", "index", "train"))]

LONGEST_SECONDS = 600

ENVIRONMENT = dict(os.environ)
"""Without what a test changes for itself."""

CONTEXT = torch.multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([*MODULES, "modeling_valor.training.run"])


@contextlib.contextmanager
def _server() -> Iterator[None]:
    """The process that forks is started when a test first needs it, and ends with this process."""
    with mock.patch.dict(os.environ, ENVIRONMENT, clear=True):
        multiprocessing.forkserver.ensure_running()
    yield


class WarmProcess:
    """`python *command` as a forked process. The command is a script, `-c` and code, or `-m` and a module, with arguments.

    Lines can be read from the pipe `stdout` while it runs; `wait` reads the others.
    """

    def __init__(
        self,
        *command: object,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] = ".",
        start_new_session: bool = False,
    ):
        self.command = list(map(str, command))
        self._stderr = tempfile.NamedTemporaryFile(suffix=".txt")  # noqa: SIM115
        reader, writer = CONTEXT.Pipe(duplex=False)
        with reader, writer:
            self.stdout = open(os.dup(reader.fileno()), encoding="utf-8")  # noqa: SIM115
            environment = dict(os.environ if env is None else env)
            options = (environment, os.path.abspath(cwd), start_new_session, writer, self._stderr.name)
            self.process = CONTEXT.Process(target=_run_as_process, args=(self.command, *options))
            with _server():
                self.process.start()
        self.pid = self.process.pid

    def wait(self) -> subprocess.CompletedProcess[str]:
        """The exit status, or minus the number of the signal that killed it; output and messages.

        A process that hangs is killed in the end.
        """
        guard = threading.Timer(LONGEST_SECONDS, self.process.kill)
        guard.daemon = True
        guard.start()
        with self.stdout, self._stderr:
            output = self.stdout.read()
            self.process.join()
            messages = Path(self._stderr.name).read_text(encoding="utf-8")
        guard.cancel()
        return subprocess.CompletedProcess(self.command, self.process.exitcode or 0, output, messages)


def run_warm(*command: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs `python *command` to its end, with the options of [`WarmProcess`]."""
    return WarmProcess(*command, **options).wait()


def torchrun_warm(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """`torchrun *arguments`, whose ranks are forked from its agent."""
    return run_warm("-c", f"from {__name__} import _torchrun; _torchrun()", *arguments, **options)


def start_ranks(function: Callable[..., None], arguments: tuple[Any, ...], count: int, join: bool = True) -> Any:
    """`torch.multiprocessing.spawn`: calls `function(rank, *arguments)` in `count` processes."""
    with _server():
        return torch.multiprocessing.start_processes(function, arguments, count, join, start_method="forkserver")


def start_ranks_in(folder: Path, function: Callable[[int, int, Path], None], count: int) -> None:
    """Calls `function(rank, port, folder)` in `count` processes, which meet at a free port and leave their results in a folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start_ranks(function, (port, folder), count)


def _run_as_process(
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: str,
    new_session: bool,
    stdout: Connection,
    stderr: str,
) -> None:
    multiprocessing.set_start_method("fork", force=True)  # the default, here as in a new interpreter
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background of a shell
    if new_session:
        os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    with stdout, open(stderr, "a") as messages:
        os.dup2(stdout.fileno(), sys.stdout.fileno())
        os.dup2(messages.fileno(), sys.stderr.fileno())
    buffering = 1 if "PYTHONUNBUFFERED" in environment else -1
    sys.stdout = open(sys.stdout.fileno(), "w", buffering, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(sys.stderr.fileno(), "w", 1, encoding="utf-8", closefd=False)  # noqa: SIM115
    _run(command)


def _run(command: Sequence[str]) -> None:
    """What an interpreter does with its arguments."""
    first, *rest = command
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = [first, *rest[1:]]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), vars(main))
    else:
        sys.argv = [first, *rest]
        sys.path.insert(0, os.path.dirname(first))
        runpy.run_path(first, run_name="__main__")


def _torchrun() -> None:
    def launch(config: LaunchConfig, entrypoint: str) -> Callable[..., Any]:
        # The interpreter's own option -u comes first
        return lambda _, *command: elastic_launch(dataclasses.replace(config, start_method="fork"), _run)(command)

    with mock.patch.object(torch.distributed.run, "elastic_launch", launch):
        torch.distributed.run.main(sys.argv[1:])
