# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Results to tables, verdicts and plots in a Markdown page, between markers; what has not run says so.

<!-- table8 small -->
anything here is replaced
<!-- end -->
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from catalogue import EXPERIMENTS, SCALES, Experiment, Measure, Scale, Variant
from harness import Place, is_done, is_measured, settings_of


NOT_RUN = "not run yet"

_MARKER = re.compile(r"(<!-- ([\w-]+) ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

Values = dict[tuple[str, str], list[float]]
"""(variant, column) -> its value for each seed that has run."""


def read_results(experiment: Experiment, scale: Scale, place: Place) -> list[dict[str, Any]]:
    """The experiment's results that belong to its present settings, in the order of its variants."""
    results = []
    for variant in experiment.variants:
        settings = settings_of(experiment, variant, scale)
        pattern = place.result(experiment, scale, variant, 0).name.removesuffix("0.json") + "*.json"
        for path in sorted((place.results / scale.name / experiment.name).glob(pattern)):
            if is_done(path, settings):
                results.append(json.loads(path.read_text(encoding="utf-8")))
    return results


def shown(metric: str, value: float) -> float:
    """A metric as the paper's tables have it: CIDEr times 100."""
    return 100 * value if metric == "CIDEr" else value


def values_of(experiment: Experiment, scale: Scale, results: Sequence[Mapping[str, Any]]) -> Values:
    """Metrics by row and column; (variant, column) pairs that are not measured are absent."""
    values: Values = {}
    for variant in experiment.variants:
        for measure in experiment.measures:
            own = variant.own(measure)
            if own is not None and is_measured(own, scale):
                values[variant.name, measure.column] = [
                    shown(own.metric, result["metrics"][own.run][own.metric])
                    for result in results
                    if result["variant"] == variant.name
                ]
    return values


def table(
    experiment: Experiment, scale: Scale, values: Values, extra: Mapping[str, Sequence[str]] | None = None
) -> str:
    """A Markdown table: a row for each variant, a column for each measure; the best mean of a column is bold.

    Args:
        extra: more rows, such as chance, as name -> cells.
    """
    columns = [m.column for m in experiment.measures if any((v.name, m.column) in values for v in experiment.variants)]
    best = {
        column: max(mean(own) for (_, name), own in values.items() if name == column and own)
        for column in columns
        if any(own for (_, name), own in values.items() if name == column)
    }
    lines = [f"| | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}"]
    for variant in experiment.variants:
        cells = [_cell(values.get((variant.name, column)), best.get(column)) for column in columns]
        lines.append(f"| {variant.name} | {' | '.join(cells)} |")
    for name, cells in (extra or {}).items():
        by_column = dict(zip((measure.column for measure in experiment.measures), cells, strict=True))
        lines.append(f"| *{name}* | {' | '.join(by_column[column] for column in columns)} |")
    return "\n".join(lines)


def _cell(values: Sequence[float] | None, best: float | None) -> str:
    if values is None:
        return "-"
    if not values:
        return NOT_RUN
    text = f"{mean(values):.1f}"
    text = f"**{text}**" if mean(values) == best else text
    return f"{text} ± {stdev(values):.1f}" if len(values) > 1 else text


def verdicts(experiment: Experiment, values: Values) -> str:
    """Each of the paper's findings with what the measured means say of it."""
    lines = []
    for finding in experiment.findings:
        lines.append(f"- {finding.text} *{verdict(finding.comparisons, values)}*")
    return "\n".join(lines)


def verdict(comparisons: Sequence[tuple[str, str, str]], values: Values) -> str:
    """ "holds" where every comparison comes out as in the paper; else which ones do not.

    With several seeds a difference smaller than twice its standard error is called unclear. With one seed none can be
    told from noise, which is said.
    """
    if not comparisons:
        return "See the table."
    needed = [values.get((row, column)) for column, *rows in comparisons for row in rows]
    if not all(needed):
        return f"{NOT_RUN.capitalize()}."
    outcomes = {"as in the paper": [], "unclear": [], "the other way": []}
    for column, better, worse in comparisons:
        first, second = values[better, column], values[worse, column]
        difference = mean(first) - mean(second)
        text = f"{column}: {better} {mean(first):.1f}, {worse} {mean(second):.1f}"
        error = 0.0
        if min(len(first), len(second)) > 1:
            error = (stdev(first) ** 2 / len(first) + stdev(second) ** 2 / len(second)) ** 0.5
        if difference == 0 or abs(difference) < 2 * error:
            outcomes["unclear"].append(text)
            continue
        outcomes["as in the paper" if difference > 0 else "the other way"].append(text)
    right = len(outcomes["as in the paper"])
    head = "Holds" if right == len(comparisons) else "Does not hold" if right == 0 else "Holds in part"
    parts = [f"{head}: {right} of {len(comparisons)} comparisons come out as in the paper"]
    parts += [f"{name}: {'; '.join(texts)}" for name, texts in list(outcomes.items())[1:] if texts]
    seeds = min(map(len, needed))
    return ". ".join(parts) + (". One seed only." if seeds == 1 else f". {seeds} seeds.")


def guesses(experiment: Experiment, scale: Scale, place: Place) -> dict[str, list[str]]:
    """Rows of chance and of baselines, as far as they were measured."""
    if experiment.vocabulary == "world":
        path = place.results / scale.name / "world.json"
        if not path.is_file():
            return {}
        metrics = json.loads(path.read_text(encoding="utf-8"))["metrics"]
        return {"without video and audio": [_guess(measure, metrics) for measure in experiment.measures]}
    path = place.results / scale.name / experiment.name / "baselines.json"
    if not path.is_file():
        return {}
    names = {"chance": "chance", "baseline": "simple supervised baseline"}
    content = json.loads(path.read_text(encoding="utf-8"))["metrics"]
    return {
        names[kind]: [_baseline(measure, metrics.get(measure.run, {})) for measure in experiment.measures]
        for kind, metrics in content.items()
    }


def _guess(measure: Measure, metrics: Mapping[str, float]) -> str:
    name = measure.metric.split("/")[-1]
    if name.startswith("R@"):
        return f"{metrics['R@1'] * int(name[2:]):.1f}"
    return f"{shown(name, metrics[name]):.1f}"


def _baseline(measure: Measure, metrics: Mapping[str, float]) -> str:
    value = metrics.get(measure.metric)
    return "-" if value is None else f"{shown(measure.metric, value):.1f}"


def section(experiment: Experiment, scale: Scale, place: Place, plots: Path, page: Path) -> str:
    """What stands between an experiment's markers."""
    results = read_results(experiment, scale, place)
    values = values_of(experiment, scale, results)
    parts = [table(experiment, scale, values, guesses(experiment, scale, place))]
    plot = plots / f"{experiment.name}-{scale.name}.png"
    if results:
        parts.append(provenance(experiment, results))
        if draw(experiment, values, plot):
            parts.append(f"![{experiment.title}]({plot.relative_to(page.parent).as_posix()})")
    if experiment.findings:
        parts.append(verdicts(experiment, values))
    return "\n\n".join(parts)


def provenance(experiment: Experiment, results: Sequence[Mapping[str, Any]]) -> str:
    """On what, how often and for how long it ran."""
    devices = sorted({result["device"] for result in results})
    seconds = [
        sum(result["training_seconds"])
        for result in results
        if result["training_seconds"] and None not in result["training_seconds"]
    ]
    done = len({result["variant"] for result in results})
    text = (
        f"{done} of {len(experiment.variants)} variants have run, {len(results)} runs in all, on {', '.join(devices)}"
    )
    if seconds:
        text += f"; training took {min(seconds):.0f} to {max(seconds):.0f} s a variant (runs in one piece)"
    return text + "."


def draw(experiment: Experiment, values: Values, path: Path) -> bool:
    """A bar chart, a group of bars for each measure; False where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = [
        m.column for m in experiment.measures if any(values.get((v.name, m.column)) for v in experiment.variants)
    ]
    rows: list[Variant] = [v for v in experiment.variants if any(values.get((v.name, column)) for column in columns)]
    figure, axes = pyplot.subplots(figsize=(max(6.0, 1.6 * len(columns) + 2), 3.6), layout="constrained")
    width = 0.8 / len(rows)
    for number, variant in enumerate(rows):
        own = [values.get((variant.name, column)) or [] for column in columns]
        places = [place + (number - (len(rows) - 1) / 2) * width for place in range(len(columns))]
        heights = [mean(seeds) if seeds else 0.0 for seeds in own]
        errors = [stdev(seeds) if len(seeds) > 1 else 0.0 for seeds in own]
        axes.bar(places, heights, width, yerr=errors if any(errors) else None, label=variant.name)
    axes.set_xticks(range(len(columns)), columns, fontsize="small")
    axes.tick_params(axis="x", rotation=20 if len(columns) > 4 else 0)
    axes.set_title(experiment.title, fontsize="medium")
    axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the date and the version of the library, equal results give equal bytes
    figure.savefig(path, dpi=80, metadata={"Software": None})
    pyplot.close(figure)
    return True


def write_page(page: Path, place: Place) -> None:
    """Fills all markers of the page.

    Raises:
        ValueError: a marker names no experiment or no scale.
    """

    def fill(match: re.Match) -> str:
        opening, name, scale, closing = match.groups()
        if name not in EXPERIMENTS or scale not in SCALES:
            raise ValueError(
                f"{page} has a marker for {name!r} at scale {scale!r}; known are {', '.join(EXPERIMENTS)} at "
                f"{', '.join(SCALES)}."
            )
        text = section(EXPERIMENTS[name], SCALES[scale], place, page.parent / "experiments", page)
        return f"{opening}\n{text}\n\n{closing}"

    page.write_text(_MARKER.sub(fill, page.read_text(encoding="utf-8")), encoding="utf-8")
