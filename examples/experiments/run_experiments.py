# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The paper's ablation study on the procedural world, and training on small sets of real sounds and images.

    pip install -e ".[experiments]"
    OMP_NUM_THREADS=1 python examples/experiments/run_experiments.py all --work work --jobs 2    # two CPU cores, an hour
    python examples/experiments/run_experiments.py all --work work --scale full --seeds 0 1 2 --jobs 4    # a GPU
    python examples/experiments/run_experiments.py real-data --work work --data path/to/sets
    python examples/experiments/run_experiments.py --list
    python examples/experiments/run_experiments.py --tables                               # only write the page anew

Any of these may be killed and started again: it goes on where it stopped. docs/experiments.md says what is measured.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from catalogue import EXPERIMENTS, SCALES, Experiment, Variant
from harness import (
    REPOSITORY,
    Place,
    is_done,
    measure_guessing,
    prepare_world,
    run_variant,
    settings_of,
    slug,
    write_json,
)
from real_data import prepare_real_data
from report import write_page


PAGE = REPOSITORY / "docs" / "experiments.md"
RESULTS = REPOSITORY / "docs" / "experiments" / "results"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what the arguments ask for and gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "experiments", nargs="*", help=f"{', '.join(EXPERIMENTS)}, or all (real-data if --data is given)"
    )
    parser.add_argument("--work", type=Path, help="folder for clips, caches and checkpoints")
    parser.add_argument("--data", type=Path, help="folder with the tar files and manifests, for real-data")
    parser.add_argument("--scale", choices=list(SCALES), default="small", help="how large and how long")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="a run of each variant for each of them")
    parser.add_argument("--jobs", type=int, default=1, help="variants at a time; a GPU has room for several")
    parser.add_argument("--variants", nargs="+", help="only these variants, by name")
    parser.add_argument("--max-steps", type=int, help="of every stage, to try things out (give --results too)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON of each variant")
    parser.add_argument("--list", action="store_true", help="say what there is and what has run")
    parser.add_argument("--tables", action="store_true", help="only write the tables and plots of the page")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)  # one of several jobs
    args = parser.parse_args(argv)

    everything = [name for name in EXPERIMENTS if name != "real-data" or args.data is not None]
    names = everything if "all" in args.experiments else args.experiments
    unknown = [name for name in names if name not in EXPERIMENTS]
    if unknown:
        parser.error(f"there is no experiment {unknown[0]!r}: choose from {', '.join(EXPERIMENTS)}, or all")
    if names and args.work is None and not (args.list or args.tables):
        parser.error("give --work, a folder for clips, caches and checkpoints")
    if "real-data" in names and args.data is None and not (args.list or args.tables):
        parser.error("real-data needs --data, the folder with the tar files and manifests")
    place = Place(args.work or Path(), args.results)
    if args.list:
        for experiment in EXPERIMENTS.values():
            print_state(experiment, place, args)
        return 0
    failed: list[str] = []
    chosen = [EXPERIMENTS[name] for name in names]
    if not args.tables:
        if not args.worker:
            for experiment in chosen:
                prepare(experiment, place, args)
        runs = [
            (experiment, variant, seed)
            for seed in args.seeds
            for experiment in chosen
            for variant in experiment.variants
            if not args.variants or variant.name in args.variants
        ]
        if args.jobs == 1:
            for job in runs:
                run_here(*job, place, args)
        else:
            with ThreadPoolExecutor(args.jobs) as pool:
                failed = [name for name in pool.map(lambda job: run_apart(*job, place, args), runs) if name]
        if failed:
            print(f"These did not end well: {'; '.join(failed)}", file=sys.stderr)
    if args.results == RESULTS and not args.worker:
        write_page(PAGE, place)
    return 1 if failed else 0


def print_state(experiment: Experiment, place: Place, args: argparse.Namespace) -> None:
    scale = SCALES[args.scale]
    print(f"{experiment.name}: {experiment.title}")
    for variant in experiment.variants:
        settings = settings_of(experiment, variant, scale)
        done = [seed for seed in args.seeds if is_done(place.result(experiment, scale, variant, seed), settings)]
        print(f"  {variant.name}: {f'seeds {done} have run' if done else 'not run yet'}")


def prepare(experiment: Experiment, place: Place, args: argparse.Namespace) -> None:
    """Renders or extracts what the experiment is trained on, and measures what guessing and simple models reach."""
    scale = SCALES[args.scale]
    if experiment.vocabulary == "world":
        prepare_world(place, scale)
        measure_guessing(place, scale)
        return
    folder = place.work / "real-data"
    prepare_real_data(args.data, folder)
    baselines = place.results / scale.name / experiment.name / "baselines.json"
    if not baselines.is_file():
        from baselines import measure_baselines

        write_json(baselines, {"metrics": measure_baselines(folder)})


def run_here(experiment: Experiment, variant: Variant, seed: int, place: Place, args: argparse.Namespace) -> None:
    started = time.monotonic()
    path = run_variant(experiment, variant, SCALES[args.scale], place, seed, args.max_steps)
    print(f"{experiment.name}, {variant.name}, seed {seed}: {path} ({time.monotonic() - started:.0f} s)", flush=True)


def run_apart(
    experiment: Experiment, variant: Variant, seed: int, place: Place, args: argparse.Namespace
) -> str | None:
    """One variant in a process of its own, with a log in the work folder; its name if that fails."""
    name = f"{experiment.name}, {variant.name}, seed {seed}"
    command = [sys.executable, __file__, experiment.name, "--variants", variant.name, "--seeds", str(seed), "--worker"]
    command += ["--work", str(place.work), "--results", str(place.results), "--scale", args.scale]
    command += ["--data", str(args.data)] if args.data else []
    command += ["--max-steps", str(args.max_steps)] if args.max_steps else []
    log = place.work / "logs" / f"{args.scale}-{experiment.name}-{slug(variant.name)}-seed{seed}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        status = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT).returncode
    print(f"{name}: {'done' if status == 0 else f'failed, see {log}'}", flush=True)
    return name if status else None


if __name__ == "__main__":
    sys.exit(main())
