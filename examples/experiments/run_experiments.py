# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""
The paper's ablation study on the procedural world, and training on small sets of real sounds and images.

    pip install -e ".[experiments]"
    python examples/experiments/run_experiments.py all --work work                        # two CPU cores, hours
    python examples/experiments/run_experiments.py table8 table9 --work work --scale full --seeds 0 1 2   # a GPU
    python examples/experiments/run_experiments.py real-data --work work --data path/to/sets
    python examples/experiments/run_experiments.py --list
    python examples/experiments/run_experiments.py --tables                               # only write the page anew

Any of these may be killed and started again: it goes on where it stopped. docs/experiments.md says what is measured.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from catalogue import EXPERIMENTS, SCALES, Experiment
from harness import (
    REPOSITORY,
    Place,
    is_done,
    measure_guessing,
    prepare_world,
    run_variant,
    settings_of,
    write_json,
)
from real_data import prepare_real_data
from report import write_page


PAGE = REPOSITORY / "docs" / "experiments.md"
RESULTS = REPOSITORY / "docs" / "experiments" / "results"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what the arguments ask for and gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", help=f"{', '.join(EXPERIMENTS)}, or all (without real-data)")
    parser.add_argument("--work", type=Path, help="folder for clips, caches and checkpoints")
    parser.add_argument("--data", type=Path, help="folder with the tar files and manifests, for real-data")
    parser.add_argument("--scale", choices=list(SCALES), default="small", help="how large and how long")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="a run of each variant for each of them")
    parser.add_argument("--variants", nargs="+", help="only these variants, by name")
    parser.add_argument("--max-steps", type=int, help="of every stage, to try things out (give --results too)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON of each variant")
    parser.add_argument("--list", action="store_true", help="say what there is and what has run")
    parser.add_argument("--tables", action="store_true", help="only write the tables and plots of the page")
    args = parser.parse_args(argv)

    names = [name for name in EXPERIMENTS if name != "real-data"] if "all" in args.experiments else args.experiments
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
    if not args.tables:
        for experiment in map(EXPERIMENTS.__getitem__, names):
            run_experiment(experiment, place, args)
    if args.results == RESULTS:
        write_page(PAGE, place)
    return 0


def print_state(experiment: Experiment, place: Place, args: argparse.Namespace) -> None:
    scale = SCALES[args.scale]
    print(f"{experiment.name}: {experiment.title}")
    for variant in experiment.variants:
        settings = settings_of(experiment, variant, scale)
        done = [seed for seed in args.seeds if is_done(place.result(experiment, scale, variant, seed), settings)]
        print(f"  {variant.name}: {f'seeds {done} have run' if done else 'not run yet'}")


def run_experiment(experiment: Experiment, place: Place, args: argparse.Namespace) -> None:
    """All variants that are asked for, with all seeds; first seeds first, so that a whole table is there early."""
    scale = SCALES[args.scale]
    if experiment.vocabulary == "world":
        prepare_world(place, scale)
        measure_guessing(place, scale)
    else:
        folder = place.work / "real-data"
        prepare_real_data(args.data, folder)
        baselines = place.results / scale.name / experiment.name / "baselines.json"
        if not baselines.is_file():
            from baselines import measure_baselines

            write_json(baselines, {"figures": measure_baselines(folder)})
    for seed in args.seeds:
        for variant in experiment.variants:
            if args.variants and variant.name not in args.variants:
                continue
            started = time.monotonic()
            path = run_variant(experiment, variant, scale, place, seed, args.max_steps)
            seconds = time.monotonic() - started
            print(f"{experiment.name}, {variant.name}, seed {seed}: {path} ({seconds:.0f} s)", flush=True)


if __name__ == "__main__":
    sys.exit(main())
