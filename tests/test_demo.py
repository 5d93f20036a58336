# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What the page does with clips, questions and searches: the numbers of the package, within limits."""

import base64
import html
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import webvtt
from PIL import Image

from helpers.media_files import write_video, write_wav
from modeling_valor import AudiovisualCaptioningPipeline, AudiovisualQuestionAnsweringPipeline


pytest.importorskip("gradio", reason="the extra `demo` is not installed", exc_type=ImportError)

import gradio as gr

from modeling_valor.demo import build_app
from modeling_valor.demo.app import Page
from modeling_valor.demo.clips import Clip, DemoLimits
from modeling_valor.demo.describing import Describer
from modeling_valor.demo.gallery import Gallery
from modeling_valor.demo.pictures import draw_mel, mel_centres, seen_html
from modeling_valor.search import Hit, Segment


ROOT = Path(__file__).resolve().parents[1]
CLIP, OTHER = (str(ROOT / "examples" / "media" / f"clip-0000{number}.mp4") for number in (0, 1))
QUESTION = "what is heard just as the triangle and the cross collide?"


@pytest.fixture
def new_page(tiny_checkpoint, tmp_path, monkeypatch):
    """`new_page(gallery, ...)`: a page with these limits, and a folder of its own."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    return lambda gallery=None, **limits: Page(Describer(*tiny_checkpoint, DemoLimits(**limits)), gallery)


def texts_of(page):
    """The texts of a page's part, by the name of what they are made from."""
    pairs = re.findall(r"<dt>(.*?)</dt><dd[^>]*>(.*?)</dd>", page)
    return {name: html.unescape(text) for name, text in pairs}


def test_captions_and_answers_are_those_of_the_pipelines(tiny_checkpoint, new_page):
    page = new_page()
    captions, _ = page.describe(page.take(CLIP))
    answers = page.ask(page.take(CLIP), QUESTION)
    model, processor = tiny_checkpoint
    describe = AudiovisualCaptioningPipeline(model=model, processor=processor)
    answer = AudiovisualQuestionAnsweringPipeline(model=model, processor=processor)
    for letters, name in (("v", "video"), ("a", "audio"), ("av", "both")):
        assert texts_of(captions)[name] == describe(CLIP, modalities=letters)[0]["generated_text"]
        assert texts_of(answers)[name] == answer(CLIP, question=QUESTION, modalities=letters)[0]["answer"]
    assert "at that moment a bell rings" in texts_of(captions)["both"] and texts_of(answers)["both"] == "bell"


def test_the_frames_are_what_the_model_sees_at_their_seconds(tiny_checkpoint, new_page):
    """50 frames at 10 a second in 8 parts, of which the first two have 7, and the middle of each."""
    look = new_page().describer.look(Clip(CLIP, "clip.mp4"))
    assert look.moments == [0.3, 1.0, 1.6, 2.2, 2.8, 3.4, 4.0, 4.6]
    processor = tiny_checkpoint[1].video_processor
    normalized = (
        torch.from_numpy(look.frames).permute(0, 3, 1, 2) / 255 - torch.tensor(processor.image_mean)[:, None, None]
    )
    expected = tiny_checkpoint[1](videos=CLIP, return_tensors="pt")["pixel_values_videos"][0]
    assert torch.allclose(normalized / torch.tensor(processor.image_std)[:, None, None], expected, atol=0.01)
    seen = seen_html(look, tiny_checkpoint[1].feature_extractor)
    assert re.findall("<figcaption>(.*?)</figcaption>", seen)[:3] == ["00:00.3", "00:01", "00:01.6"]


def test_the_spectrogram_is_what_the_model_hears_with_its_axes(tiny_checkpoint, new_page):
    extractor = tiny_checkpoint[1].feature_extractor
    look = new_page().describer.look(Clip(CLIP, "clip.mp4"))
    assert np.array_equal(look.mels, tiny_checkpoint[1](videos=CLIP, return_tensors="np")["input_features"][0])
    loud = np.zeros((64, 512), np.float32)
    loud[10, 100:200] = 1  # a low tone from second 1 to 2 of a clip that begins at 5.11
    mel = draw_mel(loud, 5.11, extractor, (0.0, 1.0))
    image = np.asarray(decoded(mel.picture).convert("L"))
    assert image.shape == (64, 512) and (image[64 - 11, 100:200] > 200).all() and (image > 200).sum() == 100
    assert [(mark.label, round(mark.place, 1)) for mark in mel.columns][:2] == [("6", 17.4), ("7", 36.9)]
    assert [mark.label for mark in mel.rows] == [
        "0 · 52 Hz",
        "16 · 794 Hz",
        "32 · 2.3 kHz",
        "48 · 5.2 kHz",
        "63 · 10.5 kHz",
    ]


def test_the_centres_of_mel_bins_are_those_of_the_filterbank():
    kaldi = pytest.importorskip("torchaudio.compliance.kaldi")
    _, centres = kaldi.get_mel_banks(64, 1024, 22050.0, 20.0, 0.0, 100.0, -500.0, 1.0)
    assert np.allclose(mel_centres(64, 22050), centres.flatten().numpy(), rtol=1e-5)


def decoded(url):
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def test_what_is_missing_is_said(tiny_checkpoint, new_page, tmp_path):
    page = new_page()
    sound, silent = write_wav(tmp_path / "sound.wav"), write_video(tmp_path / "silent.mp4", count=20)
    describe = AudiovisualCaptioningPipeline(model=tiny_checkpoint[0], processor=tiny_checkpoint[1])
    captions, seen = page.describe(page.take(sound))
    found = texts_of(captions)
    assert found.pop("audio") == describe(sound, modalities="a")[0]["generated_text"]
    assert found == {"video": "There is no picture in this clip.", "both": "This clip has only one of both."}
    assert "There is no picture in this clip." in seen and "data:image/png" in seen
    clip = page.take(silent)
    captions, seen = page.describe(clip)
    assert texts_of(captions)["audio"] == "There is no sound in this clip." and "data:image/png" not in seen
    assert texts_of(page.ask(clip, "what is seen?"))["both"] == "This clip has only one of both."


def test_of_a_long_file_the_first_seconds_are_used_and_this_is_said(tiny_checkpoint, new_page):
    page = new_page(max_seconds=2)
    clip = page.take(CLIP)
    captions, seen = page.describe(clip)
    assert "Of the 5 seconds of clip-00000.mp4 the first 2 are used." in seen
    describe = AudiovisualCaptioningPipeline(model=tiny_checkpoint[0], processor=tiny_checkpoint[1])
    assert texts_of(captions)["both"] == describe(f"{CLIP}#t=0,2")[0]["generated_text"]
    *_, (timeline, _) = page.along(clip, 2)
    assert timeline.count("data-seconds") == 1 and "00:00-00:02<" in timeline


def test_the_timeline_is_that_of_valor_caption_and_can_be_downloaded(new_page):
    """With the captions that README shows of `valor caption --every 2.5`."""
    page, clip = new_page(), Clip(CLIP, "clip.mp4")
    *growing, (timeline, download) = page.along(clip, 2.5)
    assert [part.count("data-seconds") for part, _ in growing] == [1, 2] and timeline.count("data-seconds") == 2
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    captions = webvtt.read(download.value["path"] if isinstance(download.value, dict) else download.value)
    assert [f"{one.start} --> {one.end} {one.text}" for one in captions] == re.findall(r"00:00:0\d.*? --> .*", readme)
    assert all(html.escape(one.text) in timeline for one in captions)


def test_work_that_takes_too_long_ends_with_what_was_made(new_page):
    page, clip = new_page(), Clip(CLIP, "clip.mp4")
    page.describer.look(clip)
    page.describer.limits = page.limits = DemoLimits(work_seconds=1e-9)
    *_, (timeline, download) = page.along(clip, 2.5)
    assert "Stopped after 1e-09 seconds of work, at second 2 of the clip." in timeline and download.visible
    with pytest.raises(gr.Error, match="takes longer than the limit"):
        page.ask(clip, QUESTION)
    with pytest.raises(gr.Error, match="takes longer than the limit"):
        page.describe(page.take(OTHER))


def test_mistakes_are_one_sentence_without_folders_and_markup(new_page, tmp_path):
    page = new_page(max_mb=0.1)
    (tmp_path / "<b>bad.mp4").write_bytes(b"no film" * 100)
    with pytest.raises(gr.Error) as refused:
        page.describe(page.take(str(tmp_path / "<b>bad.mp4")))
    assert "&lt;b&gt;bad.mp4" in refused.value.message and str(tmp_path) not in refused.value.message
    (tmp_path / "large.mp4").write_bytes(b"0" * 100_001)
    with pytest.raises(gr.Error, match=r"large.mp4 is larger than the limit of 0.1 MB"):
        page.take(str(tmp_path / "large.mp4"))
    with pytest.raises(gr.Error, match="Give a video or a sound first"):
        page.ask(None, "what is heard?")
    with pytest.raises(gr.Error, match="Write a question"):
        page.ask(None, "  ")
    with pytest.raises(gr.Error, match="has 301 letters; at most 300"):
        page.ask(None, "?" * 301)
    with pytest.raises(ValueError, match="`max_seconds` must be a positive number"):
        DemoLimits(max_seconds=0)


def test_links_are_fetched_within_limits_and_from_public_addresses_only(new_page, server, tmp_path):
    address, asked = server
    for link in (f"{address}/video.mp4", f"{address.replace('127.0.0.1', 'localhost')}/video.mp4"):
        with pytest.raises(gr.Error, match="it leads to an address that is not public"):
            new_page().fetch(link)
    for link in (
        CLIP,
        f"file://{CLIP}",
        "/etc/passwd",
        "hf://datasets/a/b/c.mp4",
        f"zip://a::{address}/a.zip",
        "data:,x",
    ):
        with pytest.raises(gr.Error, match="A link begins with"):
            new_page(allow_private=True).fetch(link)
    assert asked == []
    page = new_page(allow_private=True)
    clip = page.fetch(f"{address}/video.mp4#t=0,1")
    assert clip.part == (0, 1) and clip.name == "video.mp4" and page.describer.look(clip).duration == pytest.approx(1)
    assert Path(clip.path).is_relative_to(tmp_path) and f"gradio_api/file={clip.path}" in page.play(clip)
    Path(clip.path).unlink()
    with pytest.raises(gr.Error, match=r"video.mp4 was deleted, an hour after it was given"):
        page.ask(clip, "what is heard?")
    with pytest.raises(gr.Error, match="is larger than the limit of 100 bytes"):
        new_page(allow_private=True, max_mb=1e-4).fetch(f"{address}/video.mp4")


def test_hits_are_those_of_the_index_and_play_from_their_second(example_index, new_page):
    gallery = Gallery(example_index)
    shown = new_page(gallery).search("a bell rings", "heard")
    hits = example_index.search("a bell rings", modalities="a")
    assert re.findall(r"score (\d\.\d{3})", shown) == [f"{hit.score:.3f}" for hit in hits]
    names = [Path(hit.source).name for hit in hits]
    assert re.findall(r"<h2[^>]*>\d+\. (.*?)</h2>", shown) == names and str(ROOT) not in shown
    numbers = {name: str(number) for number, name in enumerate(dict.fromkeys(names))}
    expected = [f"valor/media/{numbers[Path(hit.source).name]}#t={hit.start:g},{hit.end:g}" for hit in hits]
    assert re.findall(r'<video [^>]*src="(.*?)"', shown) == expected
    assert "bell rings <small>heard</small>" in shown and shown.count('poster="data:image/jpeg') == len(hits)


def test_a_clip_is_no_query_for_a_checkpoint_that_was_not_trained_for_it(example_index, new_page):
    page = new_page(Gallery(example_index))
    with pytest.raises(gr.Error, match="v-a"):
        page.search_like(Clip(CLIP, "clip.mp4"), "seen and heard")


def test_a_clip_finds_what_sounds_as_it_looks_and_looks_as_it_sounds(
    tiny_checkpoint, example_index, new_page, monkeypatch
):
    """Of a checkpoint with the group v-a: the hits and scores of its own similarity, of each segment read by itself."""
    model, processor = tiny_checkpoint
    groups = [*model.config.alignment_groups, "v-a"]
    for config in {id(one.config): one.config for one in (model, model.valor, example_index.model)}.values():
        monkeypatch.setattr(config, "alignment_groups", groups)
    page = new_page(Gallery(example_index))
    clip = page.take(OTHER)
    parts = [(file, start, start + 2.5) for file in (CLIP, OTHER) for start in (0.0, 2.5)]
    with torch.no_grad():
        query = model.valor.embed_media(processor(videos=OTHER, return_tensors="pt"))
        segments = [
            model.valor.embed_media(
                processor(videos=f"{file}#t={start:g},{end:g}", num_audio_clips=1, return_tensors="pt")
            )
            for file, start, end in parts
        ]
        sound_of = torch.cat([segment["audio_embeds"] for segment in segments])
        frames_of = torch.cat([segment["video_embeds"] for segment in segments])
        similarity = model.valor.compute_similarity
        heard = similarity(video_embeds=query["video_embeds"], audio_embeds=sound_of, group="v-a")[0]
        seen = similarity(video_embeds=frames_of, audio_embeds=query["audio_embeds"], group="v-a")[:, 0]
    for compared, scores in (("heard", heard), ("seen and heard", heard), ("seen", seen)):
        shown = page.search_like(clip, compared)
        found = [float(score) for score in re.findall(r"score (-?\d\.\d{3})", shown)]
        names = re.findall(r"<h2[^>]*>\d+\. (.*?)</h2>", shown)
        assert names[0] == Path(parts[int(scores.argmax())][0]).name
        assert found[0] == pytest.approx(scores.max().item(), abs=2e-3) and found == sorted(found, reverse=True)
    assert "clip-00001.mp4" in shown and str(ROOT) not in shown


def test_addresses_with_secrets_are_neither_shown_nor_played(example_index):
    def card(source):
        return Gallery(example_index).cards([Hit(source, 1.0, 2.0, 0.5, True, (), (Segment(source, 1.0, 2.0, "va"),))])

    open_one = card("https://example.org/a/film.mp4")
    assert 'src="https://example.org/a/film.mp4#t=1,2"' in open_one and "1. film.mp4" in open_one
    secret = card("https://me:password@example.org/film.mp4?token=secret")
    assert "<video" not in secret and not re.search("password|secret|token", secret)


def test_the_model_is_loaded_once_for_captions_answers_and_the_index(tiny_checkpoint, example_index):
    app = build_app(tiny_checkpoint[0], example_index.path, processor=tiny_checkpoint[1], examples=[CLIP])
    page = next(block.fn.__self__ for block in app.fns.values() if hasattr(block.fn, "__self__"))
    assert page.gallery.index.model.valor is tiny_checkpoint[0].valor is page.describer.answering.valor
