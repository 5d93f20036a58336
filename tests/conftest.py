# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Fixtures that every test may use: outputs recorded with the 2023 code, checkpoints converted from it, shared data, media."""

import functools
import gc
import http.server
import os
import threading
from pathlib import Path


os.environ["HF_HUB_OFFLINE"] = "1"
# Also for the processes that tests start. Without it accelerate gives each rank the threads of all cores, and OpenMP threads
# that outnumber the cores spin while they wait for one another: a step took seven times the processor time
os.environ["OMP_NUM_THREADS"] = "1"
# Kernels of Triton are interpreted on the CPU, unless a GPU is to run them; Triton wants to know before it is imported
os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest
import safetensors.torch
import torch

from helpers.parity import fixture_json, load_fixture, load_parity


if not torch.cuda.is_available():
    # torch keeps each seed for a GPU that is used later, and the stack of the call, which takes 3 ms
    torch.cuda.manual_seed_all = lambda seed: None

# Two workers run the tests (pyproject.toml); more threads than cores would only wait for each other
torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """Leaves the million objects of imported modules out of garbage collection, which took a fifth of the tests' time."""
    gc.collect()
    gc.freeze()


SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", name="load_fixture")
def load_fixture_fixture():
    return load_fixture


@pytest.fixture(scope="session", name="fixture_json")
def fixture_json_fixture():
    return fixture_json


@pytest.fixture(scope="session")
def parity():
    """`parity(name)`: the recorded run `name`."""
    return load_parity


@pytest.fixture(scope="session")
def converted(tmp_path_factory):
    """`converted(name)`: folder of the recorded run's checkpoint after conversion, ready for `from_pretrained`."""

    @functools.cache
    def convert_parity(name: str) -> Path:
        from modeling_valor.convert_valor_checkpoint import convert

        recorded = load_parity(name)
        folder = tmp_path_factory.mktemp(name)
        safetensors.torch.save_file(recorded.checkpoint, folder / "model_step_0.safetensors")
        convert(folder / "model_step_0.safetensors", recorded.hps, recorded.vocab, folder / "converted")
        return folder / "converted"

    return convert_parity


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of data next to the repository, never in it; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("the shared data folder is not next to the repository")
    return SHARED


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """For media that tests write."""
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="session")
def video(folder) -> str:
    """60 frames, 2.4 seconds, with sound."""
    from helpers.media_files import write_video

    return write_video(folder / "video.mp4", sound=True)


@pytest.fixture
def server(video):
    """An address that serves the video, and the paths that were asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path.startswith("/to?"):
                self.send_response(302)
                self.send_header("Location", self.path[4:])
                self.end_headers()
            elif self.path == "/video.mp4":
                self.send_response(200)
                self.end_headers()
                self.wfile.write(Path(video).read_bytes())
            else:
                self.send_error(404)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()


@pytest.fixture(scope="session")
def tiny_checkpoint():
    """The model and the processor of hub_configs/valor-tiny."""
    from modeling_valor import ValorForCaptioning, ValorProcessor

    folder = Path(__file__).resolve().parents[1] / "hub_configs" / "valor-tiny"
    return ValorForCaptioning.from_pretrained(folder).eval(), ValorProcessor.from_pretrained(folder)


@pytest.fixture(scope="session")
def example_index(tiny_checkpoint, tmp_path_factory):
    """An index of the two clips of examples/media, by valor-tiny."""
    from modeling_valor.search import ValorIndex

    media = Path(__file__).resolve().parents[1] / "examples" / "media"
    made = ValorIndex(tmp_path_factory.mktemp("index") / "clips.lance", *tiny_checkpoint)
    made.add(sorted(map(str, media.glob("*.mp4"))), segment_seconds=2.5, workers=0)
    return made


# --- For tests of evaluation ------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """Folder of five rendered samples."""
    from modeling_valor.world import write_world

    folder = tmp_path_factory.mktemp("world")
    write_world(folder, "test", 5, seed=0, workers=1)
    return folder


@pytest.fixture(scope="session")
def samples(world):
    """The samples of `world`: the first has two captions, the others one."""
    from helpers.evaluation_world import read_world

    return read_world(world)


@pytest.fixture(scope="session")
def checkpoint(converted) -> str:
    """Folder of a small converted checkpoint with random weights."""
    return str(converted("clip-vision-bert-shared"))


@pytest.fixture(scope="session")
def model(checkpoint):
    from modeling_valor import ValorForPreTraining

    return ValorForPreTraining.from_pretrained(checkpoint).eval()


@pytest.fixture(scope="session")
def processor(checkpoint):
    from modeling_valor import ValorProcessor

    return ValorProcessor.from_pretrained(checkpoint)
