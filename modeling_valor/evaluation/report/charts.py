# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The charts of a report: grouped bars, histograms of ranks and maps of scores, as SVG and pictures."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from markupsafe import Markup, escape
from PIL import Image

from ...data.display import visible
from ..outputs import direction_name
from ..rankings import rankings
from ..retrieve import reverse
from ..runner import Report
from ..settings import scale
from .examples import MODALITIES
from .media import image_address


_RANK_BINS = ((1, 1), (2, 5), (6, 10), (11, 50), (51, 100), (101, 1000), (1001, None))
_MAP_SIZE = 96
_RECALLS = ("R@1", "R@5", "R@10")
_ALL = "all questions"


def build_charts(report: Report) -> Iterator[Markup]:
    """Every chart as a <figure>."""
    if report.recipe.task == "retrieval":
        yield from _charts_of_retrieval(report)
    elif report.recipe.task == "captioning":
        yield from _charts_of_captions(report)
    else:
        yield from _charts_of_answers(report)


def _charts_of_retrieval(report: Report) -> Iterator[Markup]:
    metrics, groups = report.evaluation.metrics, report.recipe.groups
    directions = [direction for group in groups for direction in (group, reverse(group))]
    recalls = {
        direction_name(direction): {name: metrics[f"{direction}/{name}"] for name in _RECALLS}
        for direction in directions
    }
    yield grouped_bars("Recall in percent", recalls, 100)
    for group in groups:
        for backwards in (False, True):
            ranks = [found.rank for found in rankings(report.evaluation, group, backwards)]
            yield rank_histogram(direction_name(reverse(group) if backwards else group), ranks)
    for group in groups:
        yield from _score_map(report, group)


def _charts_of_captions(report: Report) -> Iterator[Markup]:
    measured = _metrics_by_modality(report)
    names = list(dict.fromkeys(name for metrics in measured.values() for name in metrics))
    # CIDEr goes up to 10, the others to 1: on one axis they could not be compared
    for title, chosen, most in (
        ("Metrics times 100", [name for name in names if name != "CIDEr"], 100.0),
        ("CIDEr times 100", [name for name in names if name == "CIDEr"], None),
    ):
        values = {
            name: {modality: metrics[name] for modality, metrics in measured.items() if name in metrics}
            for name in chosen
        }
        if values:
            yield grouped_bars(title, values, most)


def _charts_of_answers(report: Report) -> Iterator[Markup]:
    measured = _metrics_by_modality(report)
    names = dict.fromkeys(name for metrics in measured.values() for name in metrics)
    values = {
        _ALL if name == "accuracy" else name.removeprefix("accuracy/"): {
            modality: metrics[name] for modality, metrics in measured.items() if name in metrics
        }
        for name in names
    }
    if values:
        yield grouped_bars("Accuracy in percent", values, 100)


def _metrics_by_modality(report: Report) -> dict[str, dict[str, float]]:
    factor = scale(report.recipe.task)
    return {
        MODALITIES[part.recipe.modalities]: {name: factor * value for name, value in part.evaluation.metrics.items()}
        for part in (report, *report.others)
    }


# --- Drawing ----------------------------------------------------------------------------------------------------------


def grouped_bars(title: str, values: Mapping[str, Mapping[str, float]], most: float | None) -> Markup:
    """Horizontal bars: for each name one of each series, with a common axis from 0 to `most`.

    Args:
        values: name -> series -> value.
        most: end of the axis; None: a round number that is at least the largest value.
    """
    series = list(dict.fromkeys(name for bars in values.values() for name in bars))
    largest = max([value for bars in values.values() for value in bars.values()], default=0.0)
    ticks = axis_ticks(largest if most is None else max(most, largest))
    width, left, right, bar, top = 480, 4, 44, 14, 8 + 18 * (len(series) > 1)
    reach, parts, y = width - left - right, [], top
    for name, bars in values.items():
        y += 16
        parts.append(_text(left, y, name))
        y += 5
        for kind, value in ((number, bars[what]) for number, what in enumerate(series) if what in bars):
            length = reach * value / ticks[-1]
            parts.append(
                f'<rect class="bar series-{kind % 6}" x="{left}" y="{y}" width="{length:.1f}" height="{bar - 2}"/>'
            )
            parts.append(_text(left + length + 4, y + bar - 4, f"{value:.1f}"))
            y += bar
        y += 4
    axis = [
        f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{y}"/>' + _text(x, y + 14, f"{tick:g}", "middle")
        for tick in ticks
        for x in [left + reach * tick / ticks[-1]]
    ]
    legend = _legend(series) if len(series) > 1 else []
    return _figure(title, width, y + 20, [*legend, *axis, *parts])


def _legend(series: Sequence[str]) -> list[str]:
    return [
        f'<rect class="series-{number % 6}" x="{4 + 150 * number}" y="2" width="10" height="10"/>'
        + _text(18 + 150 * number, 11, name)
        for number, name in enumerate(series)
    ]


def rank_histogram(title: str, ranks: Sequence[int]) -> Markup:
    """Number of queries by the rank of their right item; all bins up to the largest rank are shown, also empty ones."""
    bins = {}
    for low, high in _RANK_BINS:
        if low > 1 and low > max(ranks):
            break
        name = f"{low}" if high == low else f"{low}-{high}" if high else f"from {low}"
        bins[name] = sum(low <= rank and (high is None or rank <= high) for rank in ranks)
    ticks = axis_ticks(max(bins.values()), whole=True)
    width, height, left, bottom, top = 480, 200, 44, 36, 12
    reach, step = height - bottom - top, (width - left) / len(bins)
    base, parts = height - bottom, []
    for tick in ticks:
        y = base - reach * tick / ticks[-1]
        parts.append(f'<line class="grid" x1="{left}" x2="{width}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(left - 6, y + 4, f"{tick:,g}", "end"))
    for column, (name, count) in enumerate(bins.items()):
        tall, x = reach * count / ticks[-1], left + column * step
        parts.append(
            f'<rect class="bar series-0" x="{x + 4:.1f}" y="{base - tall:.1f}" width="{step - 8:.1f}" height="{tall:.1f}"/>'
        )
        parts.append(_text(x + step / 2, base - tall - 3, f"{count:,}", "middle"))
        parts.append(_text(x + step / 2, base + 14, name, "middle"))
    parts.append(_text(left + (width - left) / 2, height - 4, "rank of the right item", "middle"))
    return _figure(f"Queries by rank, {title}", width, height, parts)


def axis_ticks(largest: float, whole: bool = False) -> list[float]:
    """At most eight round numbers from 0 to the first that is at least `largest`; `whole`: integers only."""
    largest = max(largest, 1e-6)
    power = 10.0 ** math.floor(math.log10(largest))
    steps = [factor * power for factor in (0.2, 0.25, 0.5, 1.0, 2.0)]
    steps = [step for step in steps if not whole or step == int(step)] or [1.0]
    step = next((step for step in steps if largest / step <= 6), steps[-1])
    return [step * number for number in range(math.ceil(largest / step - 1e-9) + 1)]


def _score_map(report: Report, group: str) -> Iterator[Markup]:
    """Scores of at most 96 queries (rows) and their samples (columns); right pairs are on the diagonal."""
    present, rows, right = report.evaluation.retrieval_embeddings.members(group)
    columns = present.nonzero().squeeze(1)[right]
    query_of_sample = dict(
        zip(columns.flip(0).tolist(), rows.flip(0).tolist(), strict=True)
    )  # the first query of each sample
    pairs = sorted(query_of_sample.items())
    pairs = [pairs[index] for index in np.linspace(0, len(pairs) - 1, min(len(pairs), _MAP_SIZE)).astype(int)]
    scores = report.evaluation.similarity[group][[row for _, row in pairs]][:, [sample for sample, _ in pairs]]
    finite = scores[scores > -torch.inf]
    if not len(finite):
        return
    low, high = finite.min(), finite.max()
    level = ((scores.clamp(min=low) - low) / (high - low).clamp(min=1e-9))[..., None]
    dark, light = torch.tensor([20.0, 32.0, 64.0]), torch.tensor([255.0, 214.0, 102.0])
    image = Image.fromarray((dark + level * (light - dark)).byte().numpy())
    what = "texts" if group.startswith("t-") else "samples"
    legend = f"Scores of {len(pairs)} {what} (rows) with their samples (columns), from {low:.2f} (dark) to {high:.2f}: {group}"
    yield Markup('<figure><img class="map" alt="{0}" src="{1}"><figcaption>{0}</figcaption></figure>').format(
        legend, image_address(image, "png")
    )


def _text(x: float, y: float, content: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(visible(content))}</text>'


def _figure(title: str, width: int, height: int, parts: Sequence[str]) -> Markup:
    name = escape(visible(title))
    return Markup(
        f'<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="{name}">{"".join(parts)}</svg>'
        f"<figcaption>{name}</figcaption></figure>"
    )
