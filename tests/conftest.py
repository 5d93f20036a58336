# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What every test may use: the recorded outputs of the 2023 code, checkpoints converted from it, the shared data, media."""

import functools
import http.server
import json
import lzma
import os
import threading
from dataclasses import dataclass
from pathlib import Path


os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor


# Two workers run the tests (pyproject.toml); more threads than cores would only wait for each other
torch.set_num_threads(1)

FIXTURES = Path(__file__).resolve().parent / "fixtures"
EXAMPLE = FIXTURES.parents[1] / "examples" / "checkpoint_2023"
SHARED = Path(__file__).resolve().parents[2] / "shared"

PARITY_SETS = ("clip-vision-bert-shared", "videoswin-bert-shared", "clip-vision-clip-text")
"""Layouts of the 2023 code with recorded outputs: VALOR-large, VALOR-base, and CLIP as both vision and text encoder."""

EXAMPLE_SET = "clip-vision-bert-shared"
"""The one whose checkpoint is the repository's example, as the 2023 program wrote it."""

PARITY_GROUPS = {"tv": "t-v", "ta": "t-a", "tva": "t-av", "va": "v-a", "atv": "a-tv", "vta": "v-ta"}
"""Modality groups as the recorded outputs name them, and as the package does."""


def load_fixture(name: str) -> dict[str, Tensor]:
    """Tensors of `fixtures/{name}.planes.xz`, a safetensors file whose bytes were regrouped so that they compress.

    The header is as in the format. In the body all first bytes of the 4-byte words come first, then all second bytes,
    and so on; bytes after the last whole word follow.
    """
    packed = lzma.decompress((FIXTURES / f"{name}.planes.xz").read_bytes())
    start = 8 + int.from_bytes(packed[:8], "little")
    end = start + (len(packed) - start) // 4 * 4
    words = np.frombuffer(packed[start:end], dtype=np.uint8).reshape(4, -1).T
    return safetensors.torch.load(packed[:start] + words.tobytes() + packed[end:])


def fixture_json(name: str) -> dict | list:
    """Content of `fixtures/{name}.json`."""
    return json.loads((FIXTURES / f"{name}.json").read_text())


@dataclass(frozen=True)
class Parity:
    """One recorded run of the 2023 code (`fixtures/README.md`). Its tensors are shared by all tests: do not write to them."""

    name: str
    checkpoint: dict[str, Tensor]
    inputs: dict[str, Tensor]
    expected: dict[str, Tensor]
    grads: dict[str, float | None]
    aliases: dict[str, str]
    captions: dict[str, list[str]]
    hps: dict
    vocab: Path


@functools.cache
def load_parity(name: str) -> Parity:
    """The recorded run `name` of `PARITY_SETS`."""
    if name == EXAMPLE_SET:
        checkpoint = safetensors.torch.load_file(EXAMPLE / "ckpt" / "model_step_0.safetensors")
        hps = json.loads((EXAMPLE / "log" / "hps.json").read_text())
    else:
        checkpoint, hps = load_fixture(f"{name}/checkpoint"), fixture_json(f"{name}/hps")
    tensors = {part: load_fixture(f"{name}/{part}") for part in ("inputs", "expected")}
    records = {part: fixture_json(f"{name}/{part}") for part in ("grads", "aliases", "captions")}
    return Parity(name=name, checkpoint=checkpoint, hps=hps, **tensors, **records, vocab=FIXTURES / "vocab.txt")


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
    """Folder of data that lies beside the repository, never in it; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("the shared data folder is not beside the repository")
    return SHARED


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """For media that tests write."""
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="session")
def video(folder) -> str:
    """60 frames, 2.4 seconds, with sound."""
    from media_files import write_video

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
