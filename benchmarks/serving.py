# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Requests per second and latency of `valor serve` under concurrent clients, on the loopback; nothing lost, nothing mixed up.

Questions about rendered clips, and captions of them, all different, are asked by clients that each wait for an answer before
they ask again. Every answer is compared with what the model says directly, one at a time. The baseline, in the same run, is
`transformers serve` with the same checkpoint and the same requests, which writes one text at a time. The load of the machine is
printed, and the seconds that the processor worked for a request, which other programs do not change.

    python benchmarks/serving.py --clients 32 --threads 2
"""

import argparse
import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import torch

from modeling_valor import ValorForCaptioning, ValorProcessor
from modeling_valor.world import write_world


MODEL = Path(__file__).resolve().parent.parent / "hub_configs" / "valor-tiny"
TRANSFORMERS = "import sys, modeling_valor; from transformers.cli.serve import Serve; Serve(sys.argv[1], device='cpu', port=int(sys.argv[2]))"
DEADLINE = 60.0
"""Seconds for each phase; what is not answered then is lost."""


@dataclass(frozen=True)
class Question:
    """A question about a clip (None: a caption), and what the model answers to it alone."""

    clip: Path
    text: str | None
    answer: str

    def body(self, model: str) -> dict[str, Any]:
        content: list[dict[str, Any]] = [{"type": "video_url", "video_url": {"url": self.clip.as_uri()}}]
        if self.text is not None:
            content.append({"type": "text", "text": self.text})
        return {"model": model, "messages": [{"role": "user", "content": content}]}


def make_questions(world: Path, per_clip: int) -> list[Question]:
    """A caption and `per_clip - 1` questions about each clip, in random order, with the answers of the model."""
    model, processor = ValorForCaptioning.from_pretrained(MODEL).eval(), ValorProcessor.from_pretrained(MODEL)
    questions = []
    for line in (world / "metadata.jsonl").read_text().splitlines():
        sample = json.loads(line)
        clip = world / sample["file_name"]
        media = processor(videos=str(clip), return_tensors="pt")
        texts = list(dict.fromkeys(pair["question"] for pair in sample["qa"]))[: per_clip - 1]
        for text in (None, *texts):
            asked = {} if text is None else processor(question=text, return_tensors="pt")
            answer = processor.post_process_generation(model.generate(**media, **asked))[0]
            questions.append(Question(clip, text, answer))
    random.Random(0).shuffle(questions)
    return questions


@contextmanager
def started(command: Sequence[str], port: int, threads: int) -> Iterator[psutil.Process]:
    """A server in a process of its own, which is ended by SIGTERM."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 120
        while True:
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the server did not start: {' '.join(command)}")
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            time.sleep(0.2)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(60)


async def ask_all(port: int, model: str, questions: Sequence[Question], clients: int) -> tuple[list[float], int, int]:
    """Latencies in seconds, and how many answers are wrong and lost."""
    waiting = iter(questions)
    latencies: list[float] = []
    wrong = 0
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE) as http:

        async def one_client() -> None:
            nonlocal wrong
            for question in waiting:
                start = time.perf_counter()
                try:
                    answer = await http.post("/v1/chat/completions", json=question.body(model))
                except httpx.HTTPError:
                    continue
                if answer.status_code != 200:
                    continue
                latencies.append(time.perf_counter() - start)
                wrong += answer.json()["choices"][0]["message"]["content"] != question.answer

        await asyncio.wait([asyncio.ensure_future(one_client()) for _ in range(clients)], timeout=DEADLINE)
    return latencies, wrong, len(questions) - len(latencies)


def measure(
    name: str, port: int, model: str, questions: Sequence[Question], clients: int, server: psutil.Process
) -> float:
    """Prints a row of the table; returns the requests per second."""
    before, start = server.cpu_times(), time.perf_counter()
    latencies, wrong, lost = asyncio.run(ask_all(port, model, questions, clients))
    seconds, after = time.perf_counter() - start, server.cpu_times()
    worked = (after.user + after.system - before.user - before.system) / len(questions)
    half, most, last = np.percentile(latencies, [50, 95, 99])
    rate = len(latencies) / seconds
    print(
        f"| {name} | {clients} | {len(questions)} | {rate:.1f} | {half:.2f} | {most:.2f} | {last:.2f} | "
        f"{1000 * worked:.0f} | {wrong} | {lost} |",
        flush=True,
    )
    return rate


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", type=Path, help="Folder of `valor world`; by default one is rendered.")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--per-clip", type=int, default=8, help="A caption and questions about each clip.")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1, help="Threads of torch in each server.")
    parser.add_argument("--max-batch", type=int, default=16)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        world = options.world or Path(folder)
        if options.world is None:
            write_world(world, "test", options.clips, seed=7, workers=2)
        world = world.resolve()
        own, other = free_port(), free_port()
        serve = [
            sys.executable,
            "-m",
            "valor_cli",
            "serve",
            str(MODEL),
            "--port",
            str(own),
            "--media-root",
            str(world),
        ]
        serve += ["--max-batch", str(options.max_batch)]
        baseline = [sys.executable, "-c", TRANSFORMERS, str(MODEL), str(other)]
        with started(serve, own, options.threads) as server, started(baseline, other, options.threads) as unbatched:
            questions = make_questions(world, options.per_clip)
            few = questions[: max(1, len(questions) // 4)]
            print(f"load of the machine before: {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
            print(
                "| server | clients | requests | requests/s | median s | p95 s | p99 s | CPU ms/request | wrong | lost |"
            )
            print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
            for port, name in ((own, "valor-tiny"), (other, str(MODEL))):  # warm-up
                asyncio.run(ask_all(port, name, few[:4], 2))
            alone = measure("valor serve", own, "valor-tiny", few, 1, server)
            together = measure("valor serve", own, "valor-tiny", questions, options.clients, server)
            others = measure("transformers serve", other, str(MODEL), questions, options.clients, unbatched)
            print(f"load of the machine after: {os.getloadavg()[0]:.1f}")
            print(
                f"{together / alone:.1f} times one client at a time, {together / others:.1f} times transformers serve"
            )


if __name__ == "__main__":
    main()
