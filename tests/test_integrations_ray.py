# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from helpers.media_files import write_clip
from modeling_valor import ValorModel, ValorProcessor
from modeling_valor.search import ValorIndex


pytest.importorskip("ray.data", reason="the extra `ray` is not installed", exc_type=ImportError)

# One Ray at a time, where the tests are run with --dist loadgroup
pytestmark = pytest.mark.xdist_group("ray")

DRIVER = Path(__file__).parent / "helpers" / "ray_driver.py"
TINY = os.path.abspath("hub_configs/valor-tiny")


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """26 s with sound, 11 s without, and a file that is no film."""
    folder = tmp_path_factory.mktemp("films")
    write_clip(folder / "film.mp4", seconds=26)
    write_clip(folder / "silent.mp4", seconds=11, hertz=None, brightness=90)
    (folder / "broken.mp4").write_bytes(b"no film")
    return folder


@pytest.fixture(scope="module")
def expected(films, tmp_path_factory):
    """The index that one process makes of these films."""
    model, processor = ValorModel.from_pretrained(TINY).eval(), ValorProcessor.from_pretrained(TINY)
    index = ValorIndex(tmp_path_factory.mktemp("one") / "index.lance", model=model, processor=processor)
    index.add(films, segment_seconds=4.0, workers=0, progress=False)
    return index


@pytest.fixture
def run(tmp_path):
    """Runs the driver; returns its exit status and what it printed last."""

    def run(what, sources, to, kill=()):
        with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as temporary:
            job = {"run": what, "sources": str(sources), "to": str(to), "kill": list(kill), "markers": str(tmp_path)}
            environment = os.environ | {
                "PYTHONPATH": str(Path(__file__).parent),
                "RAY_USAGE_STATS_ENABLED": "0",
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": "0" * 64,
                "RAY_worker_niceness": "0",
            }
            process = subprocess.Popen(
                [sys.executable, str(DRIVER), json.dumps(job | {"temporary": temporary})],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
                start_new_session=True,
            )
            try:
                out, errors = process.communicate(timeout=900)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode in (0, -signal.SIGKILL), errors[-3000:]
        report = next((json.loads(line) for line in out.splitlines() if line.startswith("{")), None)
        return process.returncode, report

    return run


def check_index(path, expected):
    """Each segment is there once, with the tokens that one process makes."""
    index = ValorIndex(path)
    rows = [index.backend._table("segments").to_arrow()["id"].to_pylist(), []]
    assert Counter(rows[0]) == Counter(segment.id for segment in expected.segments())
    ids = sorted(rows[0])
    own, others = (which.backend.tokens(ids) for which in (index, expected))
    assert len(own) == len(others) == index.backend.sizes()["tokens"]
    order, other_order = (np.lexsort((part.times, part.modalities, part.segments)) for part in (own, others))
    assert (own.segments[order] == others.segments[other_order]).all()
    assert np.abs(own.times[order] - others.times[other_order]).max() < 1e-3
    assert np.abs(own.weights[order] - others.weights[other_order]).max() < 1e-3
    assert np.abs(own.embeds[order].astype(np.float32) - others.embeds[other_order].astype(np.float32)).max() < 2e-3
    files, other_files = ({file.source: file for file in which.backend.files()} for which in (index, expected))
    assert files == other_files


def test_an_index_goes_on_after_its_driver_was_killed(run, films, expected, tmp_path):
    status, _ = run("index", films, tmp_path / "index.lance", kill=["driver"])
    assert status == -signal.SIGKILL
    written = ValorIndex(tmp_path / "index.lance").segments()
    assert 0 < len(written) < len(expected.segments())
    status, _ = run("index", films, tmp_path / "index.lance")
    assert status == 0
    check_index(tmp_path / "index.lance", expected)
