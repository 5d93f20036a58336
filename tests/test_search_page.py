# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The page of hits, read by a parser as a browser would."""

import base64
import hashlib
import io
import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from PIL import Image

from helpers import pages
from helpers.media_files import write_video, write_wav
from modeling_valor.search import Hit, Match, Segment
from modeling_valor.search.page import check_page, clock, make_marks, media_address, render_page, write_page


class Page(pages.Page):
    """A page of hits, with its text on one line."""

    @property
    def text(self):
        return " ".join(" ".join(self.shown).split())


def hit(source, start=10.0, end=20.0, modalities="va", matches=(), caption=None, proven=True):
    segment = Segment(str(source), start, end, modalities, caption=caption)
    return Hit(str(source), start, end, 0.4567, proven, tuple(matches), (segment,))


MATCHES = (
    Match("a", 11.0, "v", 0.2),
    Match("dog", 12.5, "v", 0.6),
    Match("barks", 16.0, "a", 0.7),
    Match("loudly", 16.0, "a", 0.5),
)


@pytest.fixture
def film(tmp_path):
    """20 s whose picture number n has the grey 2 n."""
    path = tmp_path / "films" / "été 東京 #1 50%.mp4"
    path.parent.mkdir()
    write_video(path, count=100, stamps=range(0, 2000, 20))
    return path


def test_a_hit_plays_from_its_second_in_a_file_that_is_there(film, tmp_path):
    write_page({"a dog barks": [hit(film, matches=MATCHES)]}, tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    (video,) = page.all("video")
    address, _, part = video["src"].rpartition("#")
    assert part == "t=10,20" and (tmp_path / unquote(address)).samefile(film)
    assert not urlsplit(address).scheme and not urlsplit(address).fragment and not urlsplit(address).query
    assert "été 東京 #1 50%.mp4" in page.text and "00:10-00:20 · score 0.457" in page.text


def test_words_are_marked_at_their_place_with_what_answered_them(film, tmp_path):
    page = Page(render_page({"a dog barks": [hit(film, matches=MATCHES)]}, tmp_path))
    marks = page.all("button")
    assert [mark["data-seconds"] for mark in marks] == ["12.500", "16.000"]
    rows = page.all("li")
    assert rows == [
        {"class": "v", "style": "padding-left: 25.00%"},
        {"class": "a end", "style": "padding-right: 40.00%"},
    ]
    assert "dog seen barks loudly heard" in page.text  # and not the article


def test_the_thumbnail_is_the_frame_of_the_best_word_that_is_seen(film, tmp_path):
    """Against the frame that ends at or before that second, decoded from the beginning."""
    import av

    def luma(image):
        return sum(image.convert("L").getdata()) / (image.width * image.height)

    with av.open(str(film)) as container:
        shown = {round(frame.time, 2): frame.to_image() for frame in container.decode(video=0)}
    for second in (11.0, 15.0, 18.4):
        matches = [Match("dog", second, "v", 0.6), Match("ring", 13.0, "v", 0.1), Match("bark", 12.0, "a", 0.9)]
        page = Page(render_page({"q": [hit(film, matches=matches)]}, tmp_path))
        kind, _, content = page.all("video")[0]["poster"].partition(",")
        assert kind == "data:image/jpeg;base64"
        image = Image.open(io.BytesIO(base64.b64decode(content)))
        distances = {time: abs(luma(picture) - luma(image)) for time, picture in shown.items()}
        assert abs(min(distances, key=distances.get) - second) <= 0.5


def test_nothing_comes_from_elsewhere_and_only_the_page_runs_its_script(film, tmp_path):
    text = render_page({"a dog": [hit(film, matches=MATCHES)]}, tmp_path)
    page = Page(text)
    assert not page.all("link") and [script for script in page.all("script") if script] == []
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [meta["content"] for meta in page.all("meta") if "content" in meta and "http-equiv" in meta]
    assert policy.startswith("default-src 'none';") and f"script-src 'sha256-{digest}'" in policy


def test_names_captions_and_queries_are_text_and_never_markup(tmp_path):
    evil = '"><script>alert(1)</script>\u202e\udce9 \U0001f469\u200d\U0001f680.mp4'
    write_page(
        {f"<b>{evil}": [hit(tmp_path / evil, caption="<img src=x>", matches=[Match("<i>", 12.0, "v", 0.5)])]},
        tmp_path / "page.html",
    )
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.all("script")) == 1 and not page.all("b") and not page.all("i") and not page.all("img")
    assert "\u202e" not in text and "\U0001f469\u200d\U0001f680" in text and "<img src=x>" in page.text


def test_files_elsewhere_have_an_absolute_address_and_a_part_is_not_named_twice(tmp_path):
    assert media_address("/films/a b.mp4", tmp_path, hit("x")) == "file:///films/a%20b.mp4#t=10,20"
    assert media_address("https://x.org/a.mp4", tmp_path, hit("x")) == "https://x.org/a.mp4#t=10,20"
    page = Page(render_page({"q": [hit(f"{tmp_path}/a.mp4#t=5,60")]}, tmp_path))
    assert page.all("video")[0]["src"] == "a.mp4#t=10,20"


@pytest.mark.parametrize("there", [True, False])
def test_a_name_may_look_like_a_part(tmp_path, there):
    name = "take#t=one.mp4"
    if there:
        write_video(tmp_path / name, count=100, stamps=range(0, 2000, 20))
    page = Page(render_page({"q": [hit(tmp_path / name)]}, tmp_path))
    (video,) = page.all("video")
    assert video["src"] == "take%23t%3Done.mp4#t=10,20" and name in page.text
    assert bool(video.get("poster")) == there
    write_video(tmp_path / "b.mp4", count=100, stamps=range(0, 2000, 20))
    (tmp_path / "b.mp4").rename(tmp_path / "b.mp4#t=3")
    page = Page(render_page({"q": [hit(tmp_path / "b.mp4#t=3")]}, tmp_path))
    assert page.all("video")[0]["src"] == "b.mp4%23t%3D3#t=10,20"


def test_sound_pictures_and_what_is_gone_are_cards_too(tmp_path):
    write_wav(tmp_path / "sound.wav", seconds=2)
    Image.new("RGB", (640, 480), (200, 30, 30)).save(tmp_path / "photo.jpg")
    sound, photo, gone = (
        hit(tmp_path / "sound.wav", 0, 2, "a"),
        hit(tmp_path / "photo.jpg", 0, 0, "v", [Match("red", 0.0, "v", 0.4)]),
        hit(tmp_path / "gone.mp4", proven=False),
    )
    page = Page(render_page({"q": [sound, photo, gone], "nothing": []}, tmp_path))
    assert [player["src"] for player in page.all("audio")] == ["sound.wav#t=0,2"]
    assert [player["src"] for player in page.all("video")] == ["gone.mp4#t=10,20"]
    assert len(page.all("img")) == 1 and "sound only" in page.text and "Nothing was found." in page.text
    assert page.text.count("not proven the best") == 1


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "00:00"), (9.96, "00:10"), (2.5, "00:02.5"), (750.2, "12:30.2"), (3599.96, "1:00:00"), (36610, "10:10:10")],
)
def test_a_moment_is_in_minutes_and_seconds(seconds, expected):
    assert clock(seconds) == expected


def test_marks_of_a_hit_without_length_are_at_its_beginning():
    assert [mark.place for mark in make_marks(hit("x", 0, 0, matches=[Match("red", 0.0, "v", 0.4)]))] == [0.0]


def test_what_is_no_page_is_not_replaced(tmp_path):
    page = tmp_path / "page.html"
    write_page({"q": []}, page)
    write_page({"another": []}, page)
    assert "another" in page.read_text() and os.listdir(tmp_path) == ["page.html"]
    page.write_text("my notes")
    with pytest.raises(ValueError, match="is no page of a search"):
        write_page({"q": []}, page)
    assert page.read_text() == "my notes"
    with pytest.raises(ValueError, match="is a folder"):
        check_page(tmp_path)
    with pytest.raises(OSError, match="there is no folder"):
        check_page(Path(tmp_path, "nowhere", "page.html"))
