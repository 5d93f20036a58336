# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""A finished evaluation as one self-contained HTML page with examples to watch (compare the paper's Figure 8)."""

import base64
import hashlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ...data.display import visible
from ...data.readers.benchmarks import BENCHMARKS
from ..outputs import cells, check_writable, metric_table, named_reason, notes, write_text
from ..runner import Report, versions
from ..settings import Recipe
from .charts import build_charts
from .examples import EXAMPLES, MODALITIES, Section, build_sections
from .media import SampleMedia, without_folders


MARKER = '<meta name="generator" content="modeling-valor evaluation report">'
"""In the head of every page, so that only such pages are replaced."""

MAX_SAMPLES = 80
"""Number of samples with frames, video and audio; others are shown with their names and texts only."""

_FAILURES = 200
_HEAD = 2048


def check_report_path(path: Path) -> None:
    """Checks that a report can be written here.

    Raises:
        ValueError: `path` is a folder, or a file that is no report.
        OSError: its folder cannot be written.
    """
    if path.is_dir():
        raise ValueError(f"The report {path} is a folder; give the name of a file, such as {path / 'report.html'}.")
    if path.exists():
        with path.open("rb") as file:
            if MARKER.encode() not in file.read(_HEAD):
                raise ValueError(f"{path} is no report of `valor evaluate`, and is not replaced; give another name.")
    check_writable(path.parent)


def write_html(report: Report, path: Path) -> None:
    """Writes the page atomically: settings, table, charts and examples.

    The page loads nothing, and has no path of this machine. A sample with frames, video and audio takes about
    120 kB, and there are at most `MAX_SAMPLES`, so the page is smaller than ten megabytes for any size of the data.
    Call it in the main process only.

    Raises:
        ValueError, OSError: as in [`check_report_path`].
    """
    check_report_path(path)
    write_text(path, html_page(report))


def html_page(report: Report) -> str:
    """The page as a string."""
    loader = PackageLoader(__name__, ".")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Applied to every text before it is escaped
        finalize=lambda value: value if isinstance(value, Markup) or not isinstance(value, str) else visible(value),
    )
    style, script = (Markup(loader.get_source(environment, name)[0]) for name in ("page.css", "page.js"))
    sections = build_sections(report)
    media = _media_of(report, sections)
    columns, rows = metric_table(report)
    failures = list(_failures(report))
    return environment.get_template("page.html.jinja").render(
        marker=Markup(MARKER),
        style=style,
        style_hash=_content_hash(style),
        script=script,
        script_hash=_content_hash(script),
        title=f"{dataset_name(report)}: {report.recipe.task.replace('_', ' ')}",
        settings=list(_settings(report)),
        columns=columns,
        rows=rows,
        cells=cells,
        notes=notes(report),
        failures=failures[:_FAILURES],
        num_failures=len(failures),
        charts=list(build_charts(report)),
        sections=sections,
        places=media.places,
        contents=media.contents,
        left_out=media.left_out,
    )


def dataset_name(report: Report) -> str:
    """The benchmark's title, or the last part of a path."""
    name = report.recipe.dataset
    return BENCHMARKS[name].title if name in BENCHMARKS else _without_folders(name)


def _without_folders(name: str) -> str:
    """The last part of a path; a name on the Hub is unchanged."""
    is_path = Path(name).exists() or Path(name).is_absolute() or "\\" in name or name.startswith(".")
    return Path(name.replace("\\", "/")).resolve().name if is_path or name.count("/") > 1 else name


def _settings(report: Report) -> Iterator[tuple[str, str]]:
    """Names and values of the settings on which the metrics depend."""
    recipe, counts = report.recipe, report.evaluation.counts
    yield "dataset", dataset_name(report)
    yield "split", "all" if recipe.split is None else recipe.split
    if recipe.limit is not None:
        yield "limit", f"the first {recipe.limit:,} samples only"
    for name in ("samples", "texts", "references", "questions"):
        if name in counts:
            yield name, f"{counts[name]:,}"
    yield "checkpoint", f"{_without_folders(report.checkpoint.name)} ({report.checkpoint.version[:12]})"
    yield from _model_settings(report.recipe)
    yield "date", datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z")
    yield "versions", ", ".join(f"{name} {version}" for name, version in versions().items())


def _model_settings(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Names and values of the settings of the model's inputs and outputs."""
    if recipe.task == "retrieval":
        yield "modality groups", ", ".join(recipe.groups)
    modalities = (recipe.modalities, *recipe.other_modalities)
    yield "modalities", ", ".join(MODALITIES[name] for name in modalities)
    if "v" in "".join(modalities) and recipe.num_frames:
        yield "frames of each video", str(recipe.num_frames)
    if "a" in "".join(modalities) and recipe.num_audio_clips:
        yield "5.12 s clips of audio", str(recipe.num_audio_clips)
    if recipe.task == "retrieval":
        yield "longest text", f"{recipe.max_length} tokens"
    else:
        yield "search", f"{recipe.num_beams} beams" if recipe.num_beams > 1 else "greedy"
        if recipe.max_new_tokens is not None:
            yield "longest output", f"{recipe.max_new_tokens} tokens"


def _failures(report: Report) -> Iterator[str]:
    """A line for each sample that could not be read with any of the modalities; paths without their folders."""
    samples = {sample.id: sample for sample in report.samples}
    for part in (report, *report.others):
        with_what = f" ({MODALITIES[part.recipe.modalities]})" if report.others else ""
        for failure in part.evaluation.failures:
            line, sample = named_reason(failure), samples.get(failure.id)
            yield (line if sample is None else without_folders(line, sample)) + with_what


def _media_of(report: Report, sections: list[Section]) -> SampleMedia:
    """Media of the samples on the cards; the first examples of all sections come first."""
    modalities = "".join((report.recipe.modalities, *report.recipe.other_modalities))
    media = SampleMedia({sample.id: sample for sample in report.samples}, modalities, MAX_SAMPLES)
    for place in range(EXAMPLES):
        for section in sections:
            if place < len(section.examples):
                for card in section.examples[place].every_card():
                    media.add(card.id)
    return media


def _content_hash(content: Any) -> str:
    """Source expression of a content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
