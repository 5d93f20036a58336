# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What is measured on a GPU, in calls of under six minutes: each command in a process of its own, within its time.

A command that fails or takes longer is said, and the next one runs, until the time of the call is over.

    python benchmarks/gpu.py                  # all parts, the most important first
    python benchmarks/gpu.py captions         # what is left
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import torch


ROOT = Path(__file__).parents[1]
ALIGNMENT = "benchmarks/alignment.py --device cuda --dtype bfloat16 --rounds 1"
DECODING = "benchmarks/generation.py --device cuda"
THROUGHPUT = "benchmarks/throughput.py --large --device cuda --dtype bfloat16"

TESTS = "-m pytest -n 0 -q -p no:cacheprovider"

SECONDS = 350
"""Of one call."""

# part -> (seconds that it may take, command), the most important first
PARTS = {
    "decoding": [
        (20, f"{DECODING} --dtype float32 --tokens 12"),
        (35, f"{DECODING} --dtype bfloat16 --repeats 3 --profile"),
        (45, f"{DECODING} --dtype bfloat16 --batch 64 --profile"),
    ],
    "pretraining": [(120, "benchmarks/pretraining.py --device cuda --dtype bfloat16 --batch 64 --profile")],
    "tests": [(40, f"{TESTS} tests/test_gpu.py"), (50, f"{TESTS} tests/test_alignment_triton.py")],
    "alignment": [
        (40, f"{ALIGNMENT} --batch 1024"),
        (40, f"{ALIGNMENT} --batch 16384 --alone --repeats 1"),
        (30, "benchmarks/contrastive_ranks.py --device cuda --dtype bfloat16 --batch 8192"),
    ],
    "others": [(40, "benchmarks/others.py --device cuda --dtype bfloat16 --batch 16")],
    "captions": [
        (70, f"{THROUGHPUT} --clips 64 --batch-size 32"),
        (70, f"{THROUGHPUT} --clips 64 --batch-size 32 --workers 8"),
        (60, "benchmarks/loading.py --device cuda --clips 4 --repeats 1 --frames 8"),
    ],
    "tuning": [
        (25, "benchmarks/alignment.py --device cuda --rounds 1 --batch 1024 --alone"),
        (30, f"{ALIGNMENT} --batch 4096 --alone --repeats 2"),
        (80, f"{ALIGNMENT} --batch 1024 --tune"),
    ],
}


def run(command: str, limit: int) -> None:
    """Runs a Python command from the repository's root and prints what it prints, as it comes."""
    print(f"\n$ python {command}", flush=True)
    start = time.perf_counter()
    # Kernels of Triton are interpreted in tests unless this is said
    environment = os.environ | {
        "TRITON_INTERPRET": "0",
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(ROOT),
    }
    try:
        status = subprocess.run(
            [sys.executable, *command.split()], cwd=ROOT, env=environment, timeout=limit
        ).returncode
        outcome = "" if status == 0 else f", failed with status {status}"
    except subprocess.TimeoutExpired:
        outcome = ", ended at its limit"
    print(f"({time.perf_counter() - start:.0f} s{outcome})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; by default all")
    arguments = parser.parse_args()
    unknown = [part for part in arguments.parts if part not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]}; there are {', '.join(PARTS)}")
    if not torch.cuda.is_available():
        parser.error("there is no GPU that torch can use")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}")
    end = time.perf_counter() + SECONDS
    for part in arguments.parts or PARTS:
        for limit, command in PARTS[part]:
            left = int(end - time.perf_counter())
            if left < 10:
                print(f"(no time left for {command}, of the part {part})")
            else:
                run(command, min(limit, left))


if __name__ == "__main__":
    main()
