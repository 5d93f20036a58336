# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
import base64
import dataclasses
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser

import av
import pytest
import torch
from PIL import Image

from modeling_valor import ValorForPreTraining, ValorProcessor
from modeling_valor.data.readers import load_samples
from modeling_valor.data.samples import Sample
from modeling_valor.data.world import write_world
from modeling_valor.evaluation.html_report import html_page, ranks_of, write_html
from modeling_valor.evaluation.recipes import recipe_for
from modeling_valor.evaluation.runner import Checkpoint, evaluate


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


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
    changes = {"num_frames": 2, "num_audio_clips": 1, "metrics": ("BLEU-1", "ROUGE-L")}

    def measure(task, samples=samples, **more):
        recipe = recipe_for(task, "world", split="test", **changes, **more)
        if task != "retrieval":
            recipe = dataclasses.replace(recipe, max_new_tokens=4)
        return evaluate(recipe, Checkpoint("models/mine", "c0ffee", model, processor), samples)

    return measure


class Page(HTMLParser):
    """Elements with their attributes, and all text."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag, of=""):
        return [attributes for name, attributes in self.elements if name == tag and of in attributes.get("class", "")]


def test_a_page_of_retrieval_shows_the_top_three_with_the_right_clip_marked(report):
    measured = report("retrieval", groups=("t-av", "t-v"))
    page = Page(html_page(measured))
    articles = len(page.all("article"))
    assert "N = 6 clips, 12 texts. Checkpoint models/mine" in page.text
    assert len(page.all("div", "right")) == page.text.count("✓ the right one") == articles >= 4
    assert 3 * articles <= len(page.all("img", "")) - len(page.all("img", "map")) == len(page.all("audio"))
    assert len(page.all("audio")) <= 4 * articles
    # A map for each group; bars, and a histogram for each group
    assert len(page.all("img", "map")) == 2 and len(page.all("svg")) == 3


def test_ranks_are_those_of_the_figures(report):
    measured = report("retrieval")
    ranks = ranks_of(measured, "t-av")
    assert len(ranks) == 12 and ranks.min() >= 1
    assert 100 * (ranks == 1).double().mean().item() == pytest.approx(measured.evaluation.metrics["t-av/R@1"])
    assert ranks.double().mean().item() == pytest.approx(measured.evaluation.metrics["t-av/MeanR"])


def test_pages_of_captions_and_answers_show_them_beside_the_references(report):
    captions = report("captioning")
    page = Page(html_page(captions))
    assert all(
        entry["prediction"] in page.text and entry["references"][1] in page.text
        for entry in captions.evaluation.predictions
    )
    answers = report("question_answering")
    page = Page(html_page(answers))
    shown = [entry for entry in answers.evaluation.predictions if entry["question"] in page.text]
    assert shown and "accuracy/sight" in page.text and "Examples answered wrongly" in page.text


@pytest.mark.parametrize("task", ["captioning", "question_answering"])
def test_modalities_stand_side_by_side_in_bars_and_examples(report, task):
    measured = report(task, modalities="av,v,a")
    page = Page(html_page(measured))
    titles = [svg["aria-label"] for svg in page.all("svg")]
    assert len(titles) == 4 and "from each modality" in titles[0] and "sound alone" in titles[3]
    assert page.text.count("sight alone") == page.text.count("sound alone") >= len(page.all("article"))
    shown = {entry["prediction"] for entry in measured.beside[0].evaluation.predictions}
    assert any(text and text in page.text for text in shown)


def test_a_page_is_complete_in_itself_and_runs_nothing_from_the_data(report):
    for task in ("retrieval", "captioning", "question_answering"):
        page = html_page(report(task))
        elements = Page(page).elements
        assert not {"script", "link", "iframe"} & {tag for tag, _ in elements}
        assert all(attributes["src"].startswith("data:") for _, attributes in elements if "src" in attributes)
        assert "http" not in re.sub(r"base64,[\w+/=]*", "", page)


def test_sound_in_a_page_can_be_decoded(report):
    (first, *_) = Page(html_page(report("captioning"))).all("audio")
    content = base64.b64decode(first["src"].partition("base64,")[2])
    with av.open(io.BytesIO(content)) as container:
        seconds = sum(frame.samples for frame in container.decode(audio=0)) / 22050
    assert 4.5 < seconds < 5.5


def test_clips_without_files_or_sound_are_shown_as_they_are(report, samples):
    arrays = Sample("array", torch.zeros(3, 3, 32, 32, dtype=torch.uint8), None, ("nothing",))
    page = Page(html_page(report("captioning", samples=[samples[1], arrays])))
    assert len(page.all("article")) == 2 and len(page.all("audio")) == 1


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("task", ["retrieval", "captioning", "question_answering"])
def test_a_browser_draws_the_page(report, task, tmp_path):
    write_html(report(task), tmp_path / "page.html")
    quiet = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
    safe = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-sync", *quiet]
    where = [
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--screenshot={tmp_path / 'page.png'}",
        "--window-size=1000,1600",
    ]
    subprocess.run(
        [CHROMIUM, *safe, *where, f"file://{tmp_path / 'page.html'}"], check=True, capture_output=True, timeout=120
    )
    with Image.open(tmp_path / "page.png") as image:
        assert image.size == (1000, 1600)
        colours = {colour: count for count, colour in image.convert("RGB").getcolors(1 << 24)}
    # Frames are drawn, so are bars where they are not of length 0, and most of the page is not one colour
    assert len(colours) > 1000
    assert task != "retrieval" or colours[(45, 109, 163)] > 1000
    assert max(colours.values()) < 0.95 * 1000 * 1600
