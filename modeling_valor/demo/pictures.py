# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What the page shows of a clip, as HTML: frames, spectrograms, texts side by side, the timeline."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from PIL import Image

from ..feature_extraction_valor import ValorFeatureExtractor
from ..search.page import clock, data_url, page_environment
from ..timelines import TimedCaption
from .describing import LACKING, MODALITIES, Look


FRAME_SIDE = 256
"""Pictures are stored no larger than this many pixels."""

_RAMP = np.array([(8, 10, 34), (73, 25, 110), (168, 48, 108), (242, 113, 66), (253, 231, 170)], dtype=np.float64)
"""Colours of a spectrogram, from silence to loud."""


@dataclass(frozen=True)
class Mark:
    """A label of an axis, and its place on it in percent."""

    label: str
    place: float


@dataclass(frozen=True)
class MelPicture:
    """A log-mel clip as a picture (a `data:` URL), with the labels of its axes."""

    picture: str
    rows: Sequence[Mark]
    columns: Sequence[Mark]


@dataclass(frozen=True)
class Row:
    """A segment of a timeline as the page shows it."""

    start: float
    clock: str
    text: str | None
    error: str | None


def seen_html(look: Look, extractor: ValorFeatureExtractor) -> str:
    """The frames with their moments, and the spectrograms with their axes."""
    frames = [(draw_frame(frame), clock(moment)) for frame, moment in zip(look.frames, look.moments, strict=True)]
    bounds = mel_range(look.mels)
    mels = [draw_mel(mel, start, extractor, bounds) for mel, start in zip(look.mels, look.mel_starts, strict=True)]
    clip_seconds = f"{extractor.clip_length * extractor.frame_shift_ms / 1000:g}"
    return render("seen", look=look, frames=frames, mels=mels, clip_seconds=clip_seconds)


def texts_html(texts: Mapping[str, str | None], title: str = "") -> str:
    """Captions or answers from video, audio and both, side by side."""
    rows = [(letters, MODALITIES[letters], text, LACKING[letters]) for letters, text in texts.items()]
    return render("texts", rows=rows, title=title)


def timeline_html(look: Look, address: str, captions: Sequence[TimedCaption], note: str = "") -> str:
    """A player of the clip, and a row for each segment that plays from its second; without `address` the rows alone."""
    rows = [Row(one.start, f"{clock(one.start)}-{clock(one.end)}", one.text, one.error) for one in captions]
    return render("timeline", kind=player_of(look) if address else "", address=address, rows=rows, note=note)


def player_html(look: Look, address: str) -> str:
    """A player of the clip; nothing for a picture."""
    return render("player", kind=player_of(look), address=address, name=look.clip.name)


def hits_html(query: str, articles: str, notes: Sequence[str]) -> str:
    """The hits of a search, as `render_cards` makes them, under what a visitor should know of them."""
    return render("hits", query=query, articles=Markup(articles), notes=notes)


def player_of(look: Look) -> str:
    """ "video" or "audio", the element that plays a clip; empty for a picture."""
    if look.duration <= 0:
        return ""
    return "video" if len(look.frames) else "audio"


def file_address(path: str) -> str:
    """Where Gradio serves a file of its own folder, relative to the page."""
    return f"gradio_api/file={quote(path)}"


def draw_frame(frame: np.ndarray) -> str:
    """A frame (height, width, 3), uint8, as a `data:` URL no larger than the page needs."""
    image = Image.fromarray(frame)
    image.thumbnail((FRAME_SIDE, FRAME_SIDE))
    return data_url(image, "jpeg", quality=88)


def draw_mel(
    mel: np.ndarray, start: float, extractor: ValorFeatureExtractor, bounds: tuple[float, float]
) -> MelPicture:
    """A log-mel clip (mel, time) in colours between `bounds`, low frequencies at the bottom."""
    low, high = bounds
    level = np.clip((mel[::-1] - low) / max(high - low, 1e-6), 0, 1) * (len(_RAMP) - 1)
    below = np.minimum(level.astype(int), len(_RAMP) - 2)
    share = (level - below)[..., None]
    colours = _RAMP[below] * (1 - share) + _RAMP[below + 1] * share
    bins, columns = mel.shape
    seconds = columns * extractor.frame_shift_ms / 1000
    numbers = [0, bins // 4, bins // 2, 3 * bins // 4, bins - 1]
    hertz = mel_centres(bins, extractor.sampling_rate)
    rows = [Mark(f"{number} · {_frequency(hertz[number])}", 100 * (number + 0.5) / bins) for number in numbers]
    times = [
        Mark(f"{second}", 100 * (second - start) / seconds)
        for second in range(math.ceil(start - 1e-6), math.floor(start + seconds) + 1)
    ]
    picture = data_url(Image.fromarray(colours.round().astype(np.uint8)), "png", optimize=True)
    return MelPicture(picture, rows, times)


def mel_range(mels: np.ndarray) -> tuple[float, float]:
    """The levels between which a clip's spectrograms are coloured, without their extremes."""
    if not len(mels):
        return 0.0, 1.0
    low, high = np.percentile(mels, [2, 99.5])
    return float(low), float(high)


def mel_centres(bins: int, sampling_rate: int) -> np.ndarray:
    """The frequency in Hz at the centre of each bin of Kaldi's filterbank, from 20 Hz to half the sampling rate."""
    low, high = (1127 * np.log1p(hertz / 700) for hertz in (20.0, sampling_rate / 2))
    mels: np.ndarray = low + np.arange(1, bins + 1) * (high - low) / (bins + 1)
    return 700 * np.expm1(mels / 1127)


def _frequency(hertz: float) -> str:
    return f"{hertz / 1000:.1f} kHz" if hertz >= 1000 else f"{hertz:.0f} Hz"


def render(macro: str, **values: object) -> str:
    """A macro of `pieces.html.jinja`; every value is text and never markup."""
    return str(vars(_environment().get_template("pieces.html.jinja").module)[macro](**values))


def style() -> str:
    """The style of all pieces, within the elements of class `valor`."""
    own = files(__package__).joinpath("demo.css").read_text(encoding="utf-8")
    cards = files("modeling_valor.search").joinpath("cards.css").read_text(encoding="utf-8")
    return f"{own}\n.valor.hits {{\n{cards}\n}}\n"


def script() -> str:
    """What has a moment play its player from its second, the same as in a page of `valor search --html`."""
    return files("modeling_valor.search").joinpath("page.js").read_text(encoding="utf-8")


@functools.cache
def _environment() -> Environment:
    environment = page_environment()
    environment.loader = PackageLoader(__name__, ".")
    return environment
