# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""A finished evaluation as one self-contained HTML page to look at and to listen to (compare the paper's Figure 8)."""

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.samples import Sample
from ..feature_extraction_valor import resample
from ..media import MediaError, media_source, read_audio, read_frames
from .answers import answer_accuracy
from .captioning import caption_metrics
from .inference import reverse
from .outputs import cells, direction_name, figure_table, headline, notes, scale
from .runner import Report


EXAMPLES = 4  # of the best and of the worst cases each
TOP = 3

MODALITIES = {"av": "sight and sound", "v": "sight alone", "a": "sound alone"}

_ALL = "all questions"
_FRAMES, _FRAME_HEIGHT = 3, 96
_SOUND_SECONDS, _SOUND_RATE, _SOUND_BITS = 10.0, 22050, 48_000
_MAP_SIZE = 96
_RANK_BINS = ((1, 1), (2, 5), (6, 10), (11, 50), (51, 100), (101, 1000), (1001, None))

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2530; --paper: #fbfbf9; --card: #fff; --line: #d8dbe0; --soft: #5d6774;
  --bar: #2d6da3; --right: #1f7a44; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ec; --paper: #14181d; --card: #1c2229; --line: #39424d;
  --soft: #9aa5b1; --bar: #6aa9dd; --right: #5cc489; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1rem 4rem; max-width: 64rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.paper td { color: var(--soft); }
.note { color: var(--soft); }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)); gap: 1.5rem; align-items: start;
  margin-top: 1.5rem; }
figure { margin: 0; } figcaption { color: var(--soft); font-size: .9rem; }
svg { width: 100%; height: auto; display: block; } svg rect { fill: var(--bar); } svg text { fill: var(--ink); font-size: 11px; }
.map { width: 100%; image-rendering: pixelated; border: 1px solid var(--line); }
article { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: 1rem; margin: .8rem 0; }
article p { margin: 0 0 .5rem; }
.query { font-weight: 600; }
.clips { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: .8rem; }
.clip { align-self: start; border: 2px solid var(--line); border-radius: .4rem; padding: .5rem; font-size: .85rem; overflow-wrap: anywhere; }
.clip.right { border-color: var(--right); } .right strong { color: var(--right); }
.clip img { width: 100%; display: block; border-radius: .2rem; } audio { width: 100%; height: 2rem; margin-top: .4rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem .8rem; margin: .5rem 0 0; }
dt { color: var(--soft); } dd { margin: 0; }
"""


def write_html(report: Report, path: Path) -> None:
    """
    Writes the page: table, charts, and the best and the worst cases with frames and sound.

    Nothing is loaded from elsewhere. A clip that is shown takes about 80 kB; the page stays below a few megabytes,
    whatever the size of the data. To be called by the main process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html_page(report), encoding="utf-8")


def html_page(report: Report) -> str:
    """The page as a string."""
    title = f"{report.recipe.title}: {report.recipe.task.replace('_', ' ')}"
    examples = {
        "retrieval": _retrieval_examples,
        "captioning": _caption_examples,
        "question_answering": _answer_examples,
    }[report.recipe.task]
    modalities = "".join((report.recipe.modalities, *report.recipe.beside))
    media = _Media({sample.id: sample for sample in report.samples}, modalities)
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{escape(title)}</h1>",
            f"<p>{escape(headline(report))}</p>",
            _table(report),
            *(f'<p class="note">{escape(note)}</p>' for note in notes(report)),
            f'<div class="charts">{"".join(_charts(report))}</div>',
            *examples(report, media),
            "</body></html>",
        ]
    )


def _table(report: Report) -> str:
    columns, rows = figure_table(report)
    if not rows:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", "N", *columns))
    body = "".join(
        f"<tr{' class=paper' if row.size is None else ''}>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in (row.name, *cells(row)))
        + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


# --- Charts -----------------------------------------------------------------------------------------------------------


def _charts(report: Report) -> Iterable[str]:
    metrics, task = report.evaluation.metrics, report.recipe.task
    if task == "retrieval":
        recalls = {
            direction_name(direction): metrics[f"{direction}/R@1"]
            for group in report.recipe.groups
            for direction in (group, reverse(group))
        }
        yield _bars("R@1 of each modality group, in percent", recalls, 100)
        for group in report.recipe.groups:
            yield _rank_histogram(group, ranks_of(report, group))
        for group in report.recipe.groups:
            yield _heat_map(report, group)
    elif metrics:
        yield from _charts_of_texts(report)


def _charts_of_texts(report: Report) -> Iterable[str]:
    """All metrics of captions or answers with each of the modalities; before these the main one, side by side."""
    if report.recipe.task == "captioning":
        what, unit, most = "Metrics", "times 100", 1.0
        figure = "CIDEr" if "CIDEr" in report.evaluation.metrics else next(iter(report.evaluation.metrics))
    else:
        what, unit, most, figure = "Accuracy", "in percent", 100, _ALL
    measured = {
        MODALITIES[part.recipe.modalities]: {
            _ALL if name == "accuracy" else name.removeprefix("accuracy/"): scale(report.recipe.task) * value
            for name, value in part.evaluation.metrics.items()
        }
        for part in (report, *report.beside)
        if part.evaluation.metrics
    }
    # One scale for all, so that bars of different modalities can be compared
    most = max(most, *(value for values in measured.values() for value in values.values()))
    if len(measured) > 1:
        side_by_side = {name: values[figure] for name, values in measured.items()}
        yield _bars(f"{figure if figure != _ALL else what} from each modality, {unit}", side_by_side, most)
    for name, values in measured.items():
        yield _bars(f"{what} {unit}, from {name}", values, most)


def _bars(title: str, values: Mapping[str, float], most: float) -> str:
    """Horizontal bars, each with its name and its value, which is at most `most`."""
    step, width = 36, 320
    parts = []
    for row, (name, value) in enumerate(values.items()):
        length = max(1.0, value / most * (width - 50))
        parts.append(f'<text x="0" y="{row * step + 12}">{escape(name)}</text>')
        parts.append(f'<rect x="0" y="{row * step + 16}" width="{length:.1f}" height="12" rx="2"/>')
        parts.append(f'<text x="{length + 5:.1f}" y="{row * step + 26}">{value:.1f}</text>')
    return _figure(f"0 0 {width} {step * len(values)}", "".join(parts), title)


def ranks_of(report: Report, group: str) -> Tensor:
    """Rank of the right clip of each text (or, for "v-a", of each clip), 1 for the first; 0 where it cannot be found."""
    scores, embeddings = report.evaluation.similarity[group], report.evaluation.embeddings
    right = embeddings.clip_of_text if group.startswith("t-") else torch.arange(len(scores))
    best = scores.gather(1, right[:, None])
    return torch.where(best[:, 0] == -torch.inf, 0, (scores >= best).sum(dim=1))


def _rank_histogram(group: str, ranks: Tensor) -> str:
    bins = {}
    for low, high in _RANK_BINS:
        inside = (ranks >= low) & (ranks <= high) if high else ranks >= low
        name = f"{low}" if high == low else f"{low}-{high}" if high else f"from {low}"
        if int(ranks.max()) >= low:
            bins[name] = int(inside.sum())
    width, height, most = 320, 160, max([*bins.values(), 1])
    step = width / max(len(bins), 1)
    parts = []
    for column, (name, count) in enumerate(bins.items()):
        tall = count / most * (height - 50)
        middle = (column + 0.5) * step
        parts.append(
            f'<rect x="{column * step + 4:.1f}" y="{height - 24 - tall:.1f}" width="{step - 8:.1f}" height="{tall:.1f}"/>'
        )
        parts.append(f'<text x="{middle:.1f}" y="{height - 30 - tall:.1f}" text-anchor="middle">{count:,}</text>')
        parts.append(f'<text x="{middle:.1f}" y="{height - 8}" text-anchor="middle">{name}</text>')
    return _figure(f"0 0 {width} {height}", "".join(parts), f"Ranks of the right answer, {direction_name(group)}")


def _heat_map(report: Report, group: str) -> str:
    """Scores of texts (rows) and clips (columns) that belong together on the diagonal, at most 96 of each."""
    scores, embeddings = report.evaluation.similarity[group], report.evaluation.embeddings
    clips = embeddings.clips_with(["video", "audio"]).nonzero()[:, 0]
    if group.startswith("t-"):
        first_text = {clip: text for text, clip in reversed(list(enumerate(embeddings.clip_of_text.tolist())))}
        pairs = [(first_text[clip], clip) for clip in clips.tolist() if clip in first_text]
    else:
        pairs = [(clip, clip) for clip in clips.tolist()]
    pairs = [(row, clip) for row, clip in pairs if scores[row, clip] > -torch.inf]
    pairs = [pairs[index] for index in np.linspace(0, len(pairs) - 1, min(len(pairs), _MAP_SIZE)).astype(int)]
    rows, columns = torch.tensor(pairs).T
    part = scores[rows][:, columns]
    low, high = part.min(), part.max()
    level = ((part - low) / (high - low).clamp(min=1e-9))[..., None]
    dark, light = torch.tensor([20.0, 32.0, 64.0]), torch.tensor([255.0, 214.0, 102.0])
    image = Image.fromarray((dark + level * (light - dark)).byte().numpy())
    legend = f"Scores of {len(pairs)} texts (rows) and their clips, from {low:.2f} (dark) to {high:.2f}: {group}"
    return (
        f'<figure><img class="map" alt="{escape(legend)}" src="{_data_uri(image, "png")}">'
        f"<figcaption>{escape(legend)}</figcaption></figure>"
    )


def _figure(view_box: str, content: str, title: str) -> str:
    return (
        f'<figure><svg viewBox="{view_box}" role="img" aria-label="{escape(title)}">{content}</svg>'
        f"<figcaption>{escape(title)}</figcaption></figure>"
    )


# --- Examples ---------------------------------------------------------------------------------------------------------


def _retrieval_examples(report: Report, media: "_Media") -> Iterable[str]:
    group = report.recipe.groups[0]
    if not group.startswith("t-"):
        return
    scores, embeddings, ranks = (
        report.evaluation.similarity[group],
        report.evaluation.embeddings,
        ranks_of(report, group),
    )
    right = embeddings.clip_of_text
    # How far the right clip is above the best wrong one, or below it
    wrong = scores.scatter(1, right[:, None], -torch.inf).amax(dim=1)
    margin = scores.gather(1, right[:, None])[:, 0] - wrong
    order = sorted(ranks.nonzero()[:, 0].tolist(), key=lambda text: (int(ranks[text]), -float(margin[text])))

    def show(text: int) -> str:
        clips = scores[text].topk(min(TOP, scores.shape[1])).indices.tolist()
        truth = int(right[text])
        shown = clips if truth in clips else [*clips, truth]
        cards = [
            _clip(
                media,
                embeddings.ids[clip],
                f"{'rank ' + str(place) if clip in clips else f'rank {int(ranks[text])}'}, score {scores[text, clip]:.3f}",
                clip == truth,
            )
            for place, clip in enumerate(shown, start=1)
        ]
        return f'<p class="query">{escape(embeddings.texts[text])}</p><div class="clips">{"".join(cards)}</div>'

    yield from _best_and_worst(
        order, show, lambda text: int(right[text]), lambda text: ranks[text] == 1, "found at once", "ranked lowest"
    )


def _caption_examples(report: Report, media: "_Media") -> Iterable[str]:
    entries = report.evaluation.predictions
    scored = [entry for entry in entries if entry["references"]]
    overlap = {
        id(entry): caption_metrics([entry["prediction"]], [entry["references"]], ["ROUGE-L"])["ROUGE-L"]
        for entry in _spread(scored, 2000)
    }
    order = sorted((entry for entry in scored if id(entry) in overlap), key=lambda entry: -overlap[id(entry)])
    others = _predictions_beside(report)

    def show(entry: dict[str, Any]) -> str:
        references = "".join(f"<dt>reference</dt><dd>{escape(text)}</dd>" for text in entry["references"][:5])
        score = f", ROUGE-L {100 * overlap[id(entry)]:.1f}" if id(entry) in overlap else ""
        return (
            f'<div class="clips">{_clip(media, entry["id"], entry["id"] + score, False)}<div><p class="query">'
            f"{escape(entry['prediction'])}</p><dl>{references}{others(entry)}</dl></div></div>"
        )

    yield from _best_and_worst(
        order or entries,
        show,
        lambda entry: entry["id"],
        None,
        "closest to a reference",
        "farthest from the references",
    )


def _answer_examples(report: Report, media: "_Media") -> Iterable[str]:
    entries = [entry for entry in report.evaluation.predictions if entry["answers"]]
    score = [answer_accuracy([entry["prediction"]], [entry["answers"]])["accuracy"] for entry in entries]
    order = sorted(range(len(entries)), key=lambda index: -score[index])
    others = _predictions_beside(report)

    def show(index: int) -> str:
        entry = entries[index]
        kind = f"<dt>about</dt><dd>{escape(entry['type'])}</dd>" if entry["type"] else ""
        answers = escape(", ".join(dict.fromkeys(entry["answers"])))
        return (
            f'<div class="clips">{_clip(media, entry["id"], entry["id"], False)}<div><p class="query">'
            f"{escape(entry['question'])}</p><dl><dt>answered</dt><dd>{escape(entry['prediction'])}</dd>"
            f"<dt>right</dt><dd>{answers}</dd>{others(entry)}{kind}</dl></div></div>"
        )

    yield from _best_and_worst(
        order,
        show,
        lambda index: entries[index]["id"],
        lambda index: score[index] > 0,
        "answered rightly",
        "answered wrongly",
    )


def _predictions_beside(report: Report) -> Callable[[Mapping[str, Any]], str]:
    """What becomes of a caption or answer with other modalities, as lines of its list."""

    def key(entry: Mapping[str, Any]) -> tuple:
        return entry["id"], entry.get("question_id"), entry.get("question")

    written = [
        (
            MODALITIES[other.recipe.modalities],
            {key(entry): entry["prediction"] for entry in other.evaluation.predictions},
        )
        for other in report.beside
    ]

    def show(entry: Mapping[str, Any]) -> str:
        return "".join(
            f"<dt>{name}</dt><dd>{escape(predictions[key(entry)])}</dd>"
            for name, predictions in written
            if key(entry) in predictions
        )

    return show


def _best_and_worst(
    order: Sequence[Any],
    show: Callable[[Any], str],
    clip_of: Callable[[Any], Any],
    good: Callable[[Any], bool] | None,
    best: str,
    worst: str,
) -> Iterable[str]:
    """Examples from both ends of `order`, of a clip each; with `good` only those that are, and that are not."""
    if good is None:
        half = (len(order) + 1) // 2
        ends = (order[:half], order[half:][::-1])
    else:
        ends = ([item for item in order if good(item)], [item for item in reversed(order) if not good(item)])
    for title, items in zip((best, worst), ends, strict=True):
        of_a_clip = {clip_of(item): item for item in reversed(items)}
        chosen = [item for item in items if of_a_clip[clip_of(item)] is item][:EXAMPLES]
        if chosen:
            yield f"<h2>Examples {title}</h2>"
            yield from (f"<article>{show(item)}</article>" for item in chosen)


def _spread(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of the items, evenly."""
    return [items[index] for index in np.linspace(0, len(items) - 1, min(len(items), most)).astype(int)]


def _clip(media: "_Media", identity: str, text: str, right: bool) -> str:
    mark = " <strong>✓ the right one</strong>" if right else ""
    return (
        f'<div class="clip{" right" if right else ""}">{media.picture(identity)}{media.sound(identity)}'
        f"<div>{escape(text)}{mark}</div></div>"
    )


# --- Frames and sound -------------------------------------------------------------------------------------------------


@dataclass
class _Media:
    """Frames and sound of samples as they stand in the page; each clip is read once."""

    samples: Mapping[str, Sample]
    modalities: str
    pictures: dict[str, str] = field(default_factory=dict)
    sounds: dict[str, str] = field(default_factory=dict)

    def picture(self, identity: str) -> str:
        if identity not in self.pictures:
            self.pictures[identity] = self._read(identity, "video", _picture) if "v" in self.modalities else ""
        return self.pictures[identity]

    def sound(self, identity: str) -> str:
        if identity not in self.sounds:
            self.sounds[identity] = self._read(identity, "audio", _sound) if "a" in self.modalities else ""
        return self.sounds[identity]

    def _read(self, identity: str, part: str, make: Callable[[Any], str]) -> str:
        source = media_source(getattr(self.samples[identity], part))
        try:
            return "" if source is None else make(source)
        except MediaError as error:
            return f'<p class="note">{escape(str(error))}</p>'


def _picture(source: Any) -> str:
    """A strip of frames as an <img>."""
    frames = read_frames(source, _FRAMES).frames
    images = [Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy()) for frame in frames]
    width = max(1, round(images[0].width * _FRAME_HEIGHT / images[0].height))
    strip = Image.new("RGB", (width * len(images), _FRAME_HEIGHT))
    for place, image in enumerate(images):
        strip.paste(image.resize((width, _FRAME_HEIGHT)), (place * width, 0))
    return f'<img alt="frames of the clip" src="{_data_uri(strip, "jpeg", quality=80)}">'


def _sound(source: Any) -> str:
    """The first ten seconds as an <audio> in AAC; nothing where there is no audio track."""
    audio = read_audio(source, max_seconds=_SOUND_SECONDS)
    if audio is None:
        return '<p class="note">no sound</p>'
    samples = resample(audio.waveform, audio.sampling_rate, _SOUND_RATE).clamp(-1, 1).numpy()
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=_SOUND_RATE, layout="mono", bit_rate=_SOUND_BITS)
        frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = _SOUND_RATE, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return f'<audio controls preload="metadata" src="data:audio/mp4;base64,{encoded}"></audio>'


def _data_uri(image: Image.Image, form: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return f"data:image/{form};base64,{base64.b64encode(buffer.getvalue()).decode()}"
