# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`valor serve`: its arguments, its start and its end by a signal, and the examples of docs/serving.md."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading

import httpx
import pytest

import valor_cli
from helpers.server import CHECKPOINT, MEDIA, REPOSITORY, serve_on_loopback


pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("openai")
pytest.importorskip("lancedb")

from modeling_valor import serving


DOCUMENT = (REPOSITORY / "docs" / "serving.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """What the commands at the beginning of docs/serving.md would run: arguments of `run_server`."""
    folder = tmp_path_factory.mktemp("serving")
    (folder / "hub_configs").symlink_to(REPOSITORY / "hub_configs")
    (folder / "examples").symlink_to(REPOSITORY / "examples")
    commands = re.findall(r"^    valor (.*)$", DOCUMENT, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["index", "serve"]
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert valor_cli.main([*commands[0].split(), "--workers", "0"]) == 0
        with pytest.MonkeyPatch.context() as server:
            server.setattr(serving, "run_server", lambda *arguments: calls.append(arguments))
            assert valor_cli.main(commands[1].split()) == 0
        ((service, host, port),) = calls
        service.load()
        assert (service.name, host, port) == ("valor-tiny", "127.0.0.1", 8000)
        yield service  # in this folder, as its index has a relative path
        service.shutdown()


@pytest.fixture(scope="module")
def address(served):
    with serve_on_loopback(serving.build_app(served)) as address:
        yield address


def test_the_curl_examples_of_the_document_run(address):
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    answers = {}
    for block in re.findall(r"```bash\n(curl .*?)```", DOCUMENT, re.DOTALL):
        command = block.replace("http://localhost:8000", address)
        run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, timeout=60)
        answers[re.search(r"/v1/([\w/]+)", block)[1]] = json.loads(run.stdout)
    assert answers["chat/completions"]["choices"][0]["message"]["content"] == "bell"
    assert [len(entry["embedding"]) for entry in answers["embeddings"]["data"]] == [256, 256]
    hits = [result["hits"] for result in answers["search"]["data"]]
    assert [len(one) for one in hits] == [2, 2] and all(hit["start"] >= 2.5 for one in hits for hit in one)
    assert [result["index"] for result in answers["rerank"]["results"]] == [1, 0]


def test_the_python_examples_of_the_document_print_what_it_says(address, capsys):
    blocks = re.findall(r"```python\n(.*?)```(?:\n\nprints)?\n\n```text\n(.*?)```", DOCUMENT, re.DOTALL)
    assert len(blocks) == 2
    names = {}
    for code, printed in blocks:
        exec(code.replace("http://localhost:8000", address), names)
        assert capsys.readouterr().out == printed
    body = {"query": "a bell rings", "documents": [{"type": "video_url", "video_url": {"url": "clip-00000.mp4"}}]}
    ranked = httpx.post(f"{address}/v1/rerank", json=body, timeout=60).json()["results"]
    assert ranked[0]["relevance_score"] == pytest.approx(names["score"], abs=1e-5)
    names["client"].close()


def test_a_server_answers_loads_and_ends_with_what_is_at_work(served, capsys):
    """By SIGTERM, while one request is held in the model's queue: this is answered, and the call returns."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    listening, gate, begun, held = (threading.Event() for _ in range(4))
    seen = {}

    def load():
        listening.set()
        gate.wait(60)
        return served.engine

    def hold(items):
        begun.set()
        return [held.wait(60)]

    def use(http):
        listening.wait(60)
        seen["loading"] = http.get("/health").status_code
        gate.set()
        while http.get("/health").status_code != 200:
            pass
        service.engine.queue.submit("hold", hold, None)
        begun.wait(60)
        asking = threading.Thread(target=ask, args=[http])
        asking.start()
        while service.engine.queue.waiting == 0:
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        while not service.is_stopping:
            pass
        held.set()
        asking.join()

    def ask(http):
        seen["answer"] = http.post("/v1/embeddings", json={"input": "a bell rings"}).status_code

    service = serving.Service("valor-tiny", load, served.settings)
    http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
    before = signal.signal(signal.SIGTERM, lambda *_: seen.setdefault("too early"))
    user = threading.Thread(target=use, args=[http])
    user.start()
    try:
        serving.run_server(service, "127.0.0.1", port, log_level="error")
    finally:
        signal.signal(signal.SIGTERM, before)
        user.join()
        http.close()
    assert seen == {"loading": 503, "answer": 200}
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_model_that_cannot_be_loaded_ends_the_server_with_its_reason():
    def fail():
        raise ValueError("the weights are damaged")

    service = serving.Service("valor-tiny", fail, serving.ServerSettings())
    with pytest.raises(ValueError, match="the weights are damaged"):
        serving.run_server(service, "127.0.0.1", 0, log_level="error")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no/such/folder/here"], "there is no such folder"),
        ([CHECKPOINT, "--index", "nothing.lance"], "there is no index here"),
        ([CHECKPOINT, "--media-root", "nothing"], "--media-root nothing: there is no such folder"),
        ([CHECKPOINT, "--device", "cuda:99"], "no such device"),
        ([CHECKPOINT, "--max-batch", "0"], "--max-batch"),
    ],
)
def test_wrong_arguments_are_refused_before_the_server_starts(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(serving, "run_server", lambda *_: pytest.fail("it started"))
    assert valor_cli.main(["serve", *arguments]) in (1, 2)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("valor serve: ") and message in line


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_a_port_that_is_taken_is_refused_before_the_model_is_loaded(command, capsys):
    if command == "demo":
        pytest.importorskip("gradio")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert valor_cli.main([command, CHECKPOINT, "--port", str(port)]) == 1
    error = f"valor {command}: Port {port} of 127.0.0.1 is in use: choose another one with --port.\n"
    assert capsys.readouterr().err == error


def test_options_become_settings(capsys, monkeypatch):
    calls = []
    monkeypatch.setattr(serving, "run_server", lambda *arguments: calls.append(arguments))
    monkeypatch.setenv("VALOR_API_KEY", "sesame")
    options = [
        "--allow-host",
        "a:1",
        "--allow-host",
        "b",
        "--timeout",
        "5",
        "--readers",
        "3",
        "--media-root",
        str(MEDIA),
    ]
    assert valor_cli.main(["serve", CHECKPOINT, "--port", "0", "--name", "mine", *options]) == 0
    monkeypatch.delenv("VALOR_API_KEY")
    assert valor_cli.main(["serve", CHECKPOINT, "--host", "0.0.0.0"]) == 0
    assert "everybody who reaches 0.0.0.0 is answered" in capsys.readouterr().err
    (service, _, port), (open_service, host, _) = calls
    settings = service.settings
    assert (service.name, port, settings.api_key, settings.allow_hosts) == ("mine", 0, "sesame", ("a:1", "b"))
    assert (settings.timeout, settings.readers, settings.media_root) == (5, 3, str(MEDIA))
    assert (open_service.settings, host) == (serving.ServerSettings(), "0.0.0.0")
