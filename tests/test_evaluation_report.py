# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
import base64
import dataclasses
import functools
import hashlib
import io
import json
import re
import shutil
import subprocess

import av
import numpy as np
import pytest
import torch
from PIL import Image

from helpers import pages
from helpers.browser import CHROMIUM, SAFE
from modeling_valor import ValorForPreTraining, ValorProcessor
from modeling_valor.data.readers import load_samples
from modeling_valor.data.samples import Sample
from modeling_valor.evaluation import Evaluation
from modeling_valor.evaluation.report import EXAMPLES, MARKER, html_page, write_html
from modeling_valor.evaluation.report.charts import axis_ticks, grouped_bars, rank_histogram
from modeling_valor.evaluation.report.media import FRAME_GAP, SECONDS, SampleMedia
from modeling_valor.evaluation.runner import Checkpoint, Report, evaluate
from modeling_valor.evaluation.settings import recipe_for
from modeling_valor.world import write_world


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, "test", 6, seed=0, workers=1)
    samples = [dataclasses.replace(sample, captions=sample.captions[:2]) for sample in load_samples(folder, "test")]
    samples[0] = dataclasses.replace(samples[0], captions=("<script>alert('a dog')</script>", "a dog"))
    return samples


@pytest.fixture(scope="module")
def report(converted, samples):
    """`report(task, ...)`: an evaluation of the example checkpoint."""
    folder = str(converted("clip-vision-bert-shared"))
    model, processor = ValorForPreTraining.from_pretrained(folder).eval(), ValorProcessor.from_pretrained(folder)
    world = samples

    @functools.cache
    def measured(task, **changes):
        return measure(task, world, **changes)

    def measure(task, samples, **changes):
        recipe = recipe_for(task, "world", split="test", metrics=("BLEU-1", "ROUGE-L"), **changes)
        if task != "retrieval":
            recipe = dataclasses.replace(recipe, max_new_tokens=4)
        return evaluate(recipe, Checkpoint("models/mine", "c0ffee", model, processor), samples)

    return lambda task, samples=None, **changes: (
        measured(task, **changes) if samples is None else measure(task, samples, **changes)
    )


@pytest.fixture(scope="module")
def page_of(report):
    """`page_of(task, ...)`: the page of `report(task, ...)`."""
    return functools.cache(lambda task, **changes: html_page(report(task, **changes)))


class Page(pages.Page):
    """A report, with all text that is shown and the media of the samples."""

    def __init__(self, page):
        super().__init__(page)
        self.text = "".join(self.shown)
        self.contents = json.loads(re.search(r'<script type="application/json" id="contents">(.*?)</script>', page)[1])


def decoded(address):
    """Content of a data: address."""
    return base64.b64decode(address.partition("base64,")[2])


# ----------------------------------------------------------------------------- examples


def test_a_page_of_retrieval_shows_hits_and_misses_of_each_group_with_names_and_texts(report, page_of, samples):
    measured = report("retrieval", groups=("t-av", "t-v"))
    page = Page(page_of("retrieval", groups=("t-av", "t-v")))
    articles = len(page.all("article"))
    assert len(page.all("div", "sample right")) == page.text.count("✓ the right one") == articles == 2 * 12
    assert 3 * articles <= len(page.all("div", "media")) <= 4 * articles
    for group in ("t-av", "t-v"):
        hits = round(measured.evaluation.metrics[f"{group}/R@1"] * 12 / 100)
        for what, number in (("hits", hits), ("misses", 12 - hits)):
            assert (f"({group}): {what} ({number})" in page.text) == (number > 0)
    for sample in samples:
        assert page.text.count(f"{sample.id}\n") >= 2 and page.text.count(sample.captions[1]) >= 2
    # A map for each group; bars, and a histogram for each direction
    assert len(page.all("img", "map")) == 2 and len(page.all("svg")) == 5


def test_videos_are_queries_among_audio(report):
    page = Page(html_page(report("retrieval", groups=("v-a",))))
    assert page.text.count("the query") == len(page.all("article")) == 6


def test_pages_of_captions_and_answers_show_them_with_the_references(report, page_of):
    captions = report("captioning")
    page = Page(page_of("captioning"))
    assert all(
        entry["prediction"] in page.text and entry["references"][1] in page.text
        for entry in captions.evaluation.predictions
    )
    answers = report("question_answering")
    page = Page(page_of("question_answering"))
    shown = [entry for entry in answers.evaluation.predictions if entry["question"] in page.text]
    assert shown and "accuracy/sight" in page.text and "Answered wrongly" in page.text


def test_there_are_many_examples_and_each_sample_comes_before_any_comes_again(report, samples):
    many = [
        dataclasses.replace(samples[1], id=f"clip {number}", video=torch.full((2, 3, 8, 8), number))
        for number in range(5)
    ]
    questions = tuple(dataclasses.replace(samples[1].questions[0], id=str(number)) for number in range(9))
    measured = report(
        "question_answering", [dataclasses.replace(sample, audio=None, questions=questions) for sample in many]
    )
    assert len(measured.evaluation.predictions) == 45
    cards = re.findall(r"clip \d", Page(html_page(measured)).text)
    assert len(cards) == EXAMPLES == 20
    assert all(len(set(cards[start : start + 5])) == 5 for start in range(0, 20, 5))


# ----------------------------------------------------------------------------- what was measured


def test_the_settings_in_force_are_said_and_no_local_path_is(report, samples, tmp_path):
    shutil.copytree(str(samples[0].video).rpartition("/")[0], tmp_path / "world")
    (tmp_path / "world" / "broken.mp4").write_bytes(b"none")
    rows = load_samples(tmp_path / "world", "test")
    broken = Sample("broken", str(tmp_path / "world" / "broken.mp4"), None, ("a dog",))
    for task in ("retrieval", "captioning"):
        measured = report(task, [*rows, broken])
        recipe = dataclasses.replace(measured.recipe, dataset=str(tmp_path / "world"))
        checkpoint = dataclasses.replace(measured.checkpoint, name=str(tmp_path / "models" / "mine"))
        page = html_page(dataclasses.replace(measured, recipe=recipe, checkpoint=checkpoint))
        assert str(tmp_path) not in page and "world" in page
        text = re.sub(r"\s+", " ", Page(page).text)
        assert "frames of each video2" in text and "5.12 s clips of audio1" in text
        assert "checkpointmine (c0ffee)" in text and re.search(r"date\d{4}-\d\d-\d\d", text) and "torch 2" in text
        assert "Could not be read: 1" in text and "broken: broken.mp4" in text


def test_samples_that_some_modalities_lack_are_named(report, samples):
    silent = Sample("silent", torch.zeros(2, 3, 32, 32, dtype=torch.uint8), None, ("nothing",))
    page = Page(html_page(report("captioning", [samples[1], silent], modalities="av,a")))
    (line,) = (line for line in page.text.splitlines() if line.startswith("silent: "))
    assert line.endswith("(audio only)") and "Could not be read: 1" in page.text


def report_of(metrics, task="captioning", **others):
    parts = [
        Report(
            recipe_for(task, "world", modalities=name),
            Checkpoint("mine", "c0ffee", None, None),
            Evaluation(values, {"samples": 2, "questions": 2}, []),
            [],
        )
        for name, values in others.items()
    ]
    first = Report(
        recipe_for(task, "world", modalities=",".join(["av", *others])),
        Checkpoint("mine", "c0ffee", None, None),
        Evaluation(metrics, {"samples": 2, "questions": 2}, []),
        [],
        tuple(parts),
    )
    return Page(html_page(first))


def test_bars_of_modalities_are_grouped_and_cider_has_its_own_axis():
    page = report_of({"BLEU-4": 0.5, "CIDEr": 7.5}, v={"BLEU-4": 0.25, "CIDEr": 2.5}, a={"BLEU-4": 0.1, "CIDEr": 1.0})
    assert [svg["aria-label"] for svg in page.all("svg")] == ["Metrics times 100", "CIDEr times 100"]
    bars = [float(bar["width"]) for bar in page.all("rect", "bar")]
    assert [bar["class"] for bar in page.all("rect", "bar")] == [f"bar series-{number}" for number in (0, 1, 2)] * 2
    # 50, 25 and 10 on an axis to 100; 750, 250 and 100 on one to 800
    assert [bar / bars[0] for bar in bars] == pytest.approx([1, 0.5, 0.2, 1.875, 0.625, 0.25], abs=1e-3)


def test_axes_are_round_and_bins_without_queries_are_shown():
    assert axis_ticks(100) == [0, 20, 40, 60, 80, 100] and axis_ticks(2, whole=True) == [0, 1, 2]
    assert axis_ticks(73.2)[-1] == 80 and axis_ticks(0.07)[-1] == pytest.approx(0.08)
    assert re.findall(r"(?<=>)[^<>]+(?=</text>)", rank_histogram("", [1, 1, 60]))[-11:] == [
        "2",
        "1",
        "0",
        "2-5",
        "0",
        "6-10",
        "0",
        "11-50",
        "1",
        "51-100",
        "rank of the right item",
    ]
    assert "&lt;b&gt;" in grouped_bars("", {"<b>": {"": 1.0}}, 100)


# ----------------------------------------------------------------------------- media


def test_samples_have_a_strip_with_gaps_and_a_player_with_audio(samples):
    media = SampleMedia({"a": samples[1]}, "av", 9)
    media.add("a")
    media.add("a")
    (content,) = media.contents
    assert content.keys() == {"frames", "player"}
    with Image.open(io.BytesIO(decoded(content["frames"]))) as strip:
        pixels = np.asarray(strip.convert("RGB")).astype(int)
    width = (strip.width + FRAME_GAP) // 4
    assert (pixels[:, width - FRAME_GAP + 1 : width - 1] > 240).all() and not (
        pixels[:, : width - FRAME_GAP] > 240
    ).all()
    with av.open(io.BytesIO(decoded(content["player"]))) as container:
        assert 4.5 < container.duration / 1e6 < 5.5
        seconds = sum(frame.samples for frame in container.decode(audio=0)) / 22050
    assert 4.5 < seconds < 5.5


def test_players_show_the_first_seconds_of_long_videos(samples, tmp_path):
    with av.open(str(tmp_path / "long.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=2)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for number in range(60):  # half a minute that grows lighter
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 4 * number, dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    media = SampleMedia({"a": Sample("a", str(tmp_path / "long.mp4"))}, "av", 9)
    media.add("a")
    with av.open(io.BytesIO(decoded(media.contents[0]["player"]))) as container:
        levels = [frame.to_ndarray(format="rgb24").mean() for frame in container.decode(video=0)]
        assert container.duration / 1e6 == pytest.approx(SECONDS, abs=0.6)
    assert len(levels) == 20 and levels[0] < 10 and levels[-1] == pytest.approx(76, abs=8)


def test_samples_beyond_the_most_are_counted(samples):
    media = SampleMedia({sample.id: sample for sample in samples}, "a", 2)
    for sample in [*samples, *samples]:
        media.add(sample.id)
    assert len(media.contents) == 2 and media.left_out == len(samples) - 2
    assert all(content.keys() == {"audio"} for content in media.contents)


def test_audio_in_a_page_can_be_decoded(report):
    (first, *_) = Page(html_page(report("captioning", modalities="a"))).contents
    with av.open(io.BytesIO(decoded(first["audio"]))) as container:
        seconds = sum(frame.samples for frame in container.decode(audio=0)) / 22050
    assert 4.5 < seconds < 5.5


def test_samples_without_files_or_audio_are_shown_as_they_are(report, samples, tmp_path):
    arrays = Sample("array", torch.zeros(3, 3, 32, 32, dtype=torch.uint8), None, ("nothing",))
    page = Page(html_page(report("captioning", samples=[samples[1], arrays])))
    assert len(page.all("article")) == 2 and sorted(map(len, page.contents)) == [0, 2]


# ----------------------------------------------------------------------------- safety


def test_a_page_is_complete_in_itself_and_runs_nothing_from_the_data(page_of):
    for task in ("retrieval", "captioning", "question_answering"):
        page = page_of(task)
        parsed = Page(page)
        assert not {"link", "iframe", "object", "base"} & {tag for tag, _ in parsed.elements}
        assert all(attributes["src"].startswith("data:") for _, attributes in parsed.elements if "src" in attributes)
        assert all(
            value.startswith("data:")
            for content in parsed.contents
            for name, value in content.items()
            if name != "note"
        )
        assert "http://" not in page and "https://" not in page
        # The page's own script, which its policy knows by its content, and data
        data, script = re.findall(r"<script([^>]*)>(.*?)</script>", page, re.DOTALL)
        assert data[0] == ' type="application/json" id="contents"'
        digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
        (policy,) = (item["content"] for item in parsed.all("meta") if "content" in item and "src" in item["content"])
        assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy
        assert "alert(" in page and "alert(" not in script[1]


def test_what_would_hide_or_turn_text_is_shown_as_escapes(report, samples):
    hostile = "a\x00b \u202egpj.exe\u202c \u2066x\u2069 \x1b[31m \ud800 \u200f\x85\u2028 end"
    shown = r"a\x00b \u202egpj.exe\u202c \u2066x\u2069 \x1b[31m \ud800 \u200f\x85\u2028 end"
    odd = [dataclasses.replace(samples[1], id=hostile, captions=(hostile, "שלום 🙂 é"))]
    measured = report("captioning", samples=odd)
    for entry in measured.evaluation.predictions:
        entry["prediction"] = hostile
    page = html_page(measured)
    assert not re.search("[\x00\x1b\x85\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", page)
    assert Page(page).text.count(shown) == 3 and "שלום 🙂 é" in page


def test_a_report_replaces_reports_only_and_appears_when_it_is_complete(report, samples, tmp_path, monkeypatch):
    measured = report("captioning", samples[:1])
    path = tmp_path / "new folder" / "page.html"
    write_html(measured, path)
    first = path.read_text()
    assert MARKER in first
    write_html(dataclasses.replace(measured, checkpoint=dataclasses.replace(measured.checkpoint, name="other")), path)
    assert "other (c0ffee)" in path.read_text() and list(path.parent.iterdir()) == [path]

    def full(self, content):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            write_html(measured, path)
    assert "other (c0ffee)" in path.read_text()
    for content in ("<!doctype html><title>mine</title>", "", "x" * 5000 + MARKER):
        path.write_text(content)
        with pytest.raises(ValueError, match="is no report of `valor evaluate`"):
            write_html(measured, path)
        assert path.read_text() == content
    with pytest.raises(ValueError, match="is a folder"):
        write_html(measured, tmp_path)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("task", ["retrieval", "captioning", "question_answering"])
def test_a_browser_draws_the_page(page_of, task, tmp_path):
    (tmp_path / "page.html").write_text(page_of(task))
    where = [
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--screenshot={tmp_path / 'page.png'}",
        "--window-size=1000,1600",
    ]
    subprocess.run(
        [CHROMIUM, *SAFE, *where, f"file://{tmp_path / 'page.html'}"], check=True, capture_output=True, timeout=120
    )
    with Image.open(tmp_path / "page.png") as image:
        assert image.size == (1000, 1600)
        colours = {colour: count for count, colour in image.convert("RGB").getcolors(1 << 24)}
    # Frames are drawn, so are bars where they are not of length 0, and most of the page is not one colour
    assert len(colours) > 1000
    assert task != "retrieval" or colours[(45, 109, 163)] > 1000
    assert max(colours.values()) < 0.95 * 1000 * 1600


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_shows_examples_by_fives(page_of, tmp_path):
    """The page's own script runs under the page's policy, and no other does."""
    page = page_of("retrieval", groups=("t-av", "t-v"))
    (tmp_path / "page.html").write_text(
        page.replace("<title>", "<script>document.title = 'hacked'</script><title>", 1)
    )
    where = [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"file://{tmp_path / 'page.html'}"]
    dom = subprocess.run([CHROMIUM, *SAFE, *where], check=True, capture_output=True, text=True, timeout=120).stdout
    assert "hacked</title>" not in dom
    sections = dom.split('<section class="examples">')[1:]
    assert sections
    for section in sections:
        shown = [article for article in section.split("<article")[1:] if not article.startswith(' hidden=""')]
        number = section.count("<article")
        assert len(shown) == min(5, number) and f"1 to {len(shown)} of {number}<" in section
        assert all(article.count("<video") == article.count('class="media"') for article in shown)
