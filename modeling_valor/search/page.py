# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Hits of a search as one HTML page: each plays from its second, with the words that it answers on a timeline."""

import base64
import hashlib
import io
import mimetypes
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from ..data.display import visible
from ..data.files import atomic_write
from ..media import MediaError, read_frames
from ..media_sources import split_part
from .query import STOP_WORDS
from .ranking import Hit


MARKER = '<meta name="generator" content="modeling-valor search">'
"""In the head of every page, so that a page is recognised before it is replaced."""

MODALITIES = {"v": "seen", "a": "heard"}
"""How a page names the modality that answered a word."""

THUMBNAIL = (384, 216)


@dataclass(frozen=True)
class Mark:
    """A moment of a hit on its timeline: the words that it answers, and where it is, in percent of the hit."""

    words: str
    seconds: float
    modality: str
    place: float


@dataclass(frozen=True)
class Card:
    """A hit as the page shows it.

    Args:
        name: name of the file.
        folder: where it is.
        clock: from when to when, such as "12:30-12:40".
        kind: "video" or "audio", what plays it; empty where a browser cannot play it.
        address: URL of the file with the part that plays.
        thumbnail: a picture as a `data:` URL; empty where there is none.
        captions: of its segments, where the index has some.
    """

    hit: Hit
    name: str
    folder: str
    clock: str
    kind: str
    address: str
    thumbnail: str
    marks: Sequence[Mark]
    captions: Sequence[str]


def check_page(path: str | os.PathLike[str]) -> None:
    """Checks, before a search, that a page can be written here.

    Raises:
        ValueError: a folder, or a file that is no such page.
        OSError: its folder is not there or cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"The page {path} is a folder; give the name of a file, such as {path / 'page.html'}.")
    if path.exists() and MARKER.encode() not in path.read_bytes()[:2048]:
        raise ValueError(f"{path} is no page of a search, and is not replaced; give another name.")
    if not os.access(path.parent, os.W_OK) or not path.parent.is_dir():
        raise OSError(f"The page {path} cannot be written: there is no folder {path.parent} that can be written to.")


def write_page(results: Mapping[str, Sequence[Hit]], path: str | os.PathLike[str]) -> None:
    """Writes a page of hits; it appears when it is complete.

    Pictures are in the page, films and sound stay where they are: a file in the folder of the page, or below it, is
    addressed relative to it, so that both can be moved together. Nothing else is loaded.

    Args:
        results: hits of each query, best first.

    Raises:
        ValueError, OSError: as in [`check_page`].
    """
    path = Path(path)
    check_page(path)
    page = render_page(results, path.parent)
    with atomic_write(path) as partial:
        partial.write_text(page, encoding="utf-8", errors="backslashreplace")


def page_environment() -> Environment:
    """What renders the templates of a page: every value is text, escaped, and shows what is invisible in it."""
    return Environment(
        loader=PackageLoader(__name__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Every value that is text goes through it before it is escaped
        finalize=lambda value: value if isinstance(value, Markup) or not isinstance(value, str) else visible(value),
    )


def render_cards(cards: Sequence[Card]) -> str:
    """The hits as articles, for a page with `cards.css` and `page.js`."""
    article = vars(page_environment().get_template("cards.html.jinja").module)["article"]
    return "".join(article(card, number, MODALITIES) for number, card in enumerate(cards, 1))


def render_page(results: Mapping[str, Sequence[Hit]], folder: str | os.PathLike[str] = ".") -> str:
    """The page as text, for a file in `folder`."""
    environment = page_environment()
    script = Markup(environment.loader.get_source(environment, "page.js")[0])  # type: ignore[union-attr]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html.jinja").render(
        marker=Markup(MARKER),
        script=script,
        script_hash=f"sha256-{digest}",
        modalities=MODALITIES,
        sections=[(query, [make_card(hit, Path(folder)) for hit in hits]) for query, hits in results.items()],
    )


def make_card(hit: Hit, folder: Path) -> Card:
    """A hit with what the page shows of it, for a page in `folder`."""
    name = file_of(hit.source)
    kind = player_of(name, hit)
    return Card(
        hit,
        os.path.basename(name.rstrip("/")) or name,
        os.path.dirname(name),
        f"{clock(hit.start)}-{clock(hit.end)}",
        kind,
        media_address(name, folder, hit) if kind else "",
        make_thumbnail(name, hit) if any("v" in segment.modalities for segment in hit.segments) else "",
        make_marks(hit),
        captions_of(hit),
    )


def captions_of(hit: Hit) -> list[str]:
    """The captions of a hit's segments, where the index has some."""
    return list(dict.fromkeys(segment.caption for segment in hit.segments if segment.caption))


def file_of(source: str) -> str:
    """A source without the part of it that was indexed; a file that is called so, such as `take#t=2.mp4`, comes first."""
    try:
        return split_part(source)[0]
    except MediaError:  # a file of such a name that is gone
        return source


def player_of(name: str, hit: Hit) -> str:
    """ "video" or "audio", the element that plays a file; empty for pictures, and for what is in no file of its own."""
    is_remote = "://" in name
    kind = (mimetypes.guess_type(name)[0] or "video/").partition("/")[0]
    if hit.end <= hit.start or kind == "image" or (is_remote and not name.startswith(("http://", "https://"))):
        return ""
    if not is_remote and os.path.isdir(name):
        return ""
    return "video" if any("v" in segment.modalities for segment in hit.segments) else "audio"


def media_address(name: str, folder: Path, hit: Hit) -> str:
    """URL of the part of a file: relative to `folder` for what is in it, `file:` for other files of this machine."""
    part = f"#t={hit.start:g},{hit.end:g}"
    if "://" in name:
        return name + part
    path, folder = Path(name).expanduser().absolute(), folder.absolute()
    if path.is_relative_to(folder):
        return "/".join(quote(os.fsencode(step)) for step in path.relative_to(folder).parts) + part
    return path.as_uri() + part


def make_thumbnail(name: str, hit: Hit) -> str:
    """The frame that answers the query best, or one from the middle, as a `data:` URL; empty where it cannot be read."""
    best = max(
        (match for match in hit.matches if match.modality == "v"), key=lambda match: match.similarity, default=None
    )
    parts = [(hit.start, hit.end)] if hit.end > hit.start else []
    if best is not None and parts:
        parts.insert(0, (max(hit.start, best.seconds - 0.5), min(hit.end, best.seconds + 0.5)))
    for fragment in [f"#t={start:.3f},{end:.3f}" for start, end in parts] or [""]:
        try:
            frame = read_frames(name + fragment, 1).frames[0]
        except (MediaError, OSError):
            continue
        image = Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy())
        image.thumbnail(THUMBNAIL)
        return data_url(image.convert("RGB"), "jpeg", quality=80)
    return ""


def data_url(image: Image.Image, kind: str, **options: Any) -> str:
    """A picture as a `data:` URL; `options` are Pillow's for files of this kind."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def make_marks(hit: Hit) -> list[Mark]:
    """Moments of a hit, in their order, with the words that each answers; words of grammar are left out."""
    words: dict[tuple[float, str], list[str]] = {}
    for match in hit.matches:
        if match.word.lower() not in STOP_WORDS:
            words.setdefault((match.seconds, match.modality), []).append(match.word)
    length = max(hit.end - hit.start, 1e-3)
    return [
        Mark(" ".join(own), seconds, modality, 100 * min(max((seconds - hit.start) / length, 0.0), 1.0))
        for (seconds, modality), own in sorted(words.items())
    ]


def clock(seconds: float) -> str:
    """A moment as minutes and seconds, "12:30" or "12:30.5", with hours where there are some, "1:02:30"."""
    whole, tenths = divmod(round(10 * seconds), 10)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    decimals = f".{tenths}" if tenths else ""
    return f"{f'{hours}:' if hours else ''}{minutes:02d}:{rest:02d}{decimals}"
