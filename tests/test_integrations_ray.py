# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
import json
import os
import signal
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from helpers.ray_actors import SEGMENTS, embedding, spans, stand_ins
from helpers.warm import run_warm
from modeling_valor.search import Segment, ValorIndex


# Ray reads them when it is imported
os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "0" * 64,
    "RAY_worker_niceness": "0",
}
pytest.importorskip("ray.data", reason="the extra `ray` is not installed", exc_type=ImportError)

import pyarrow.parquet as pq
import ray

from modeling_valor.integrations import ray as integration
from modeling_valor.integrations.ray import caption_videos, index_videos


# One Ray at a time, where the tests are run with --dist loadgroup
pytestmark = pytest.mark.xdist_group("ray")

DRIVER = Path(__file__).parent / "helpers" / "ray_driver.py"
TINY = os.path.abspath("hub_configs/valor-tiny")


@pytest.fixture(scope="module")
def cluster():
    """The address of a Ray of this machine, in which a driver may be killed and another one goes on."""
    with (
        tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("PYTHONPATH", str(DRIVER.parents[1]))  # of workers and drivers
        context = ray.init(
            num_cpus=4,
            object_store_memory=300 * 2**20,
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=folder,
        )
        yield context.address_info["gcs_address"]
        ray.shutdown()


@pytest.fixture
def videos(tmp_path):
    """Files that are never decoded, as `stand_ins` has readers and models that do as if."""
    (tmp_path / "videos").mkdir()
    for name in SEGMENTS:
        (tmp_path / "videos" / name).write_bytes(name.encode())
    return tmp_path / "videos"


@pytest.fixture
def markers(tmp_path):
    (tmp_path / "markers").mkdir()
    return tmp_path / "markers"


@pytest.fixture
def kill_driver(cluster, videos, markers):
    """Runs a driver that is killed half-way."""

    def kill_driver(run, to, **options):
        job = {"run": run, "sources": str(videos), "to": str(to), "address": cluster, "markers": str(markers)}
        killed = run_warm(DRIVER, json.dumps(job | {"model": TINY} | options))
        assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]

    return kill_driver


@pytest.fixture
def kill_actors(cluster, videos, markers, monkeypatch):
    """From now on the first reader and the first model are killed half-way, and Ray starts them again."""

    def kill_actors():
        monkeypatch.setattr(integration, "SEGMENTS_PER_BLOCK", 3)
        for name, value in stand_ins(markers, videos, kills=True).items():
            monkeypatch.setattr(integration, name, value)

    return kill_actors


def test_an_index_goes_on_after_its_driver_and_its_actors_were_killed(
    kill_driver, kill_actors, videos, markers, tmp_path
):
    path, options = tmp_path / "index.lance", {"batch_size": 3, "segments_per_write": 3}
    kill_driver("index", path, **options)
    before = len(ValorIndex(path).segments())
    assert 0 < before < 10
    kill_actors()
    report = index_videos(videos, path, TINY, progress=False, **options)
    assert sorted(os.listdir(markers)) == ["driver", "model", "reader"]
    assert report.segments == 10 - before and list(report.failures) == [str(videos / "broken.mp4")]
    index = ValorIndex(path)
    ids = index.backend._table("segments").to_arrow()["id"].to_pylist()
    expected = {
        Segment(str(videos / name), span["start"], span["end"]).id: embedding(name, span["start"])
        for name, count in SEGMENTS.items()
        for span in spans(name)[:count]
    }
    assert sorted(ids) == sorted(expected)
    rows = index.backend.tokens(ids)
    assert len(rows) == index.backend.sizes()["tokens"] == 2 * len(ids)
    for place, modality in enumerate("va"):
        found = {rows.segments[row]: rows.embeds[row] for row in np.flatnonzero(rows.modalities == modality)}
        assert all((found[name] == embeds[place]).all() for name, embeds in expected.items())
    assert {(os.path.basename(file.source), file.segments) for file in index.backend.files()} == {
        ("film.mp4", 7),
        ("silent.mp4", 3),
    }


def test_captions_go_on_after_their_driver_and_their_actors_were_killed(
    kill_driver, kill_actors, videos, markers, tmp_path
):
    """Meanwhile a file changes of which some captions were written."""
    folder, options = tmp_path / "captions", {"batch_size": 3, "segments_per_file": 3}
    kill_driver("caption", folder, **options)
    written = Counter(read_captions(folder, "checkpoint", ["id"]))
    assert 0 < len(written) < 11
    rows = [row for row in read_captions(folder, "captions", ["id", "source"]) if (row[0],) in written]
    changed = next(source for _, source in rows if not source.endswith("broken.mp4"))
    os.utime(changed, (1, 1))
    kill_actors()
    report = caption_videos(videos, folder, TINY, progress=False, **options)
    assert sorted(os.listdir(markers)) == ["driver", "model", "reader"]
    assert report.replaced == [changed] and list(report.failures) == [str(videos / "broken.mp4")]
    assert Counter(read_captions(folder, "captions", ["source", "start", "caption"])) == Counter(
        (str(videos / name), span["start"], f"second {span['start']:g}") for name in SEGMENTS for span in spans(name)
    )
    kept = {name for name, source in rows if source != changed}
    assert kept < {name for (name,) in read_captions(folder, "captions", ["id"])}


def read_captions(folder, part, columns):
    """The rows of a part of the folder that a run is sure of."""
    names = [name for name in os.listdir(folder / part) if not name.endswith(".pending.parquet")]
    rows = [row for name in names for row in pq.read_table(folder / part / name, columns=columns).to_pylist()]
    return [tuple(row.values()) for row in rows]
