# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Captions along a film's time, and the subtitles that are made of them."""

import functools
import json
import resource
import shutil
import signal
import threading
from pathlib import Path

import pytest
import webvtt
from transformers import pipeline

from helpers.media_files import write_clip
from modeling_valor import ValorProcessor
from modeling_valor.cli import timelines as cli_timelines
from modeling_valor.cli.main import main
from modeling_valor.data.files import WriteError
from modeling_valor.media_segments import fixed_segments, iterate_segments
from modeling_valor.search import ValorIndex
from modeling_valor.timelines import TimedCaption, TimelineWriter, caption_timeline, format_of


TINY = "hub_configs/valor-tiny"
CAPTIONS = [
    TimedCaption(0.0, 9.9996, "salt & <b>pepper</b> --> a dish", "av"),
    TimedCaption(9.9996, 20.0, None, error="broken."),
    TimedCaption(3599.5, 360000.25, "two\nlines", "v"),
]


@pytest.fixture(scope="module")
def captioner(converted):
    return pipeline(
        "audiovisual-captioning", model=str(converted("clip-vision-bert-shared")), max_new_tokens=5, device="cpu"
    )


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return str(write_clip(tmp_path_factory.mktemp("films") / "film.mp4", seconds=7, hertz=220, brightness=40))


def written(path, captions=CAPTIONS):
    with TimelineWriter(path) as writer:
        for caption in captions:
            writer.write(caption, "film.mp4")
    return path.read_text(encoding="utf-8")


def test_webvtt_is_what_a_library_for_webvtt_reads(tmp_path):
    text = written(tmp_path / "film.vtt")
    assert "salt &amp; &lt;b&gt;pepper&lt;/b&gt; --&gt; a dish" in text
    first, second = webvtt.read(str(tmp_path / "film.vtt"))
    assert (first.start, first.end) == ("00:00:00.000", "00:00:10.000")
    assert (second.start, second.end, second.text) == ("00:59:59.500", "100:00:00.250", "two lines")


def test_srt_is_numbered_from_one_and_keeps_arrows_out_of_the_text(tmp_path):
    cues = written(tmp_path / "film.srt").split("\n\n")
    assert [cue.split("\n")[0] for cue in cues] == ["1", "2", ""]
    first, second = webvtt.from_srt(str(tmp_path / "film.srt"))
    assert first.raw_text == "salt & <b>pepper</b> -> a dish"
    assert second.start == "00:59:59.500"


def test_json_lines_have_every_segment(tmp_path):
    rows = [json.loads(line) for line in written(tmp_path / "film.jsonl").splitlines()]
    assert rows[0] == {
        "file": "film.mp4",
        "start": 0.0,
        "end": 10.0,
        "text": CAPTIONS[0].text,
        "modalities": "av",
    }
    assert rows[1] == {"file": "film.mp4", "start": 10.0, "end": 20.0, "text": None, "error": "broken."}


def test_what_is_written_is_whole_after_each_caption(tmp_path):
    """So that Ctrl-C keeps it."""
    with TimelineWriter(tmp_path / "film.vtt") as writer:
        writer.write(CAPTIONS[0])
        assert len(webvtt.read(str(tmp_path / "film.vtt"))) == 1


def test_a_full_disk_keeps_whole_captions(tmp_path):
    """A file that may not grow longer stands for the disk."""
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with TimelineWriter(tmp_path / "film.jsonl") as writer:
            writer.write(CAPTIONS[0], "film.mp4")
            size = (tmp_path / "film.jsonl").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, limits[1]))
            with pytest.raises(WriteError, match=f"{tmp_path} cannot be written to: File too large. Free some space"):
                writer.write(CAPTIONS[1], "film.mp4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    (line,) = (tmp_path / "film.jsonl").read_text().splitlines()
    assert json.loads(line)["text"] == CAPTIONS[0].text


def test_an_output_that_may_not_be_written_is_refused_before_the_model_is_loaded(film, tmp_path, capsys, monkeypatch):
    (tmp_path / "film.vtt").write_text("mine")
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path / "film.vtt")
    assert main(["caption", film, "--every", "3", "--output", str(tmp_path / "film.vtt"), "--model", "nowhere"]) != 0
    assert "film.vtt cannot be written to: it, or its folder, is read-only" in capsys.readouterr().err


def test_other_suffixes_are_refused():
    with pytest.raises(ValueError, match=r"use \.vtt, \.srt or \.jsonl"):
        format_of("film.txt")


def test_captions_are_those_of_the_parts_one_by_one(captioner, film):
    timeline = list(caption_timeline(captioner, film, lambda duration: fixed_segments(duration, 2.0), batch_size=3))
    assert [caption.start for caption in timeline] == [0, 2, 4, 6] and 7 <= timeline[-1].end < 7.1
    for caption in timeline:
        ((expected,),) = [captioner(f"{film}#t={caption.start},{caption.end}")]
        assert caption.text == expected["generated_text"] and caption.modalities == expected["modalities"] == "av"


def test_the_next_segments_are_read_while_the_model_describes_some(captioner, film, monkeypatch):
    from modeling_valor.timelines import captions

    third = threading.Event()

    def noted(*args, **options):
        for place, segment in enumerate(iterate_segments(*args, **options)):
            if place == 2:
                third.set()
            yield segment

    def forward(*args, **options):
        assert third.wait(timeout=60)
        return type(captioner).forward(captioner, *args, **options)

    monkeypatch.setattr(captions, "iterate_segments", noted)
    monkeypatch.setattr(captioner, "forward", forward)
    timeline = caption_timeline(captioner, film, functools.partial(fixed_segments, seconds=2.0), batch_size=2)
    assert [caption.start for caption in timeline] == [0, 2, 4, 6]


def test_options_of_the_pipeline_hold_for_segments(captioner, film):
    halves = functools.partial(fixed_segments, seconds=3.5)
    for options in ({"modalities": "v", "num_frames": 3}, {"modalities": "a"}, {"num_beams": 2}):
        for caption in caption_timeline(captioner, film, halves, **options):
            (expected,) = captioner(f"{film}#t={caption.start},{caption.end}", **options)
            assert caption.text == expected["generated_text"]
            assert caption.modalities == options.get("modalities", "av")


def test_segments_are_what_the_processor_makes_of_parts(converted, film):
    processor = ValorProcessor.from_pretrained(converted("clip-vision-bert-shared"))
    segments = list(iterate_segments(film, [(0, 3), (1.5, 4.5)], num_frames=processor.video_processor.num_frames))
    parts = [f"{film}#t={segment.start},{segment.end}" for segment in segments]
    ours, theirs = processor(videos=segments, return_tensors="pt"), processor(videos=parts, return_tensors="pt")
    assert ours.keys() == theirs.keys() == {"pixel_values_videos", "input_features"}
    assert all((ours[name] == theirs[name]).all() for name in ours)


def test_broken_stretch_costs_its_segments(captioner, film, monkeypatch):
    from modeling_valor.timelines import captions

    def broken_in_the_middle(*args, **options):
        for place, segment in enumerate(iterate_segments(*args, **options)):
            segment.error = "film.mp4 is broken." if place in (1, 2) else None
            yield segment

    monkeypatch.setattr(captions, "iterate_segments", broken_in_the_middle)
    timeline = list(caption_timeline(captioner, film, functools.partial(fixed_segments, seconds=2.0)))
    assert [caption.error for caption in timeline] == [None, "film.mp4 is broken.", "film.mp4 is broken.", None]
    assert [caption.text is None for caption in timeline] == [False, True, True, False]


def test_command_prints_and_writes_the_timeline(converted, film, tmp_path, capsys):
    model = ["--model", str(converted("clip-vision-bert-shared")), "--device", "cpu"]
    output = tmp_path / "film.vtt"
    assert main(["caption", film, "--every", "3", "--output", str(output), "--max-new-tokens", "4", *model]) == 0
    printed = capsys.readouterr().out.splitlines()
    cues = list(webvtt.read(str(output)))
    assert [line.split(" ", 3)[0] for line in printed] == [cue.start for cue in cues]
    assert [line.split(" ", 3)[3] for line in printed] == [cue.text for cue in cues]
    assert [cue.start for cue in cues] == ["00:00:00.000", "00:00:03.000", "00:00:06.000"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--every", "0"], "positive length"),
        (["--stride", "2"], "--stride needs --every"),
        (["--every", "2", "--output", "film.txt"], "use .vtt, .srt or .jsonl"),
        (["--output", "film.vtt"], "add --every or --segments shots"),
        (["--every", "2", "--segments", "shots"], "leave out --every"),
        (["--every", "2", "--output", "no/such/folder/film.vtt"], "no file in a folder that is there"),
        (["--every", "2", "--question", "why ?"], "leave out --every"),
    ],
)
def test_arguments_that_do_not_go_together_are_one_sentence(arguments, message, film, capsys):
    assert main(["caption", film, *arguments, "--model", "nowhere"]) != 0
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1


@pytest.fixture
def index(film, tmp_path, capsys):
    """An index of the film, a part of it and another one."""
    other = write_clip(tmp_path / "other.mp4", seconds=4)
    part = f"{other}#t=1,4"
    cut = ["--index", str(tmp_path / "index.lance"), "--model", TINY, "--segment-seconds", "3", "--workers", "0"]
    assert main(["index", film, part, *cut]) == 0
    capsys.readouterr()
    return ValorIndex(tmp_path / "index.lance"), part


@pytest.mark.parametrize("every", [[], ["--every", "3"]])
def test_captions_of_the_segments_of_an_index_are_stored_in_it(index, film, tmp_path, capsys, every):
    index, part = index
    output = tmp_path / "captions.jsonl"
    arguments = [*every, "--index", index.path, "--output", str(output), "--model", TINY, "--batch-size", "2"]
    assert main(["caption", film, part, *arguments]) == 0
    assert "4 captions stored in" in capsys.readouterr().err
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    stored = {(item.source, item.start, item.end): item.caption for item in index.segments()}
    assert stored == {(row["file"], row["start"], row["end"]): row["text"] for row in rows}
    assert [(row["start"], round(row["end"])) for row in rows] == [(0, 3), (3, 6), (6, 7), (1, 4)]
    word = rows[0]["text"].split()[-1]
    assert main(["search", word, "--captions", "--index", index.path]) == 0


def test_what_an_index_does_not_have_is_one_sentence(index, film, tmp_path, capsys):
    index, part = index
    model = ["--index", index.path, "--model", TINY]
    (tmp_path / "new.mp4").write_bytes(Path(film).read_bytes())
    assert main(["caption", str(tmp_path / "new.mp4"), *model]) == 1
    assert "new.mp4 is not in the index" in capsys.readouterr().err
    assert main(["caption", film, "--every", "2", *model]) == 1
    assert "into 3 s every 3 s" in capsys.readouterr().err
    write_clip(tmp_path / "other.mp4", seconds=5)
    assert main(["caption", part, *model]) == 1
    assert "is not what it was when it was indexed" in capsys.readouterr().err
    assert main(["caption", film, "--segments", "shots", *model]) == 2
    assert [segment.caption for segment in index.segments()] == [None] * 4


@pytest.mark.parametrize("fragment", ["", "#t=0,5"])
def test_the_film_is_never_the_output(film, tmp_path, capsys, fragment):
    own = tmp_path / "own.mp4"
    shutil.copy(film, own)
    (tmp_path / "link.mp4").symlink_to(own)
    arguments = ["--every", "5", "--format", "vtt", "--output", str(tmp_path / "link.mp4"), "--model", "nowhere"]
    assert main(["caption", f"{own}{fragment}", *arguments]) != 0
    assert "is one of the files to read" in capsys.readouterr().err
    assert own.read_bytes() == Path(film).read_bytes()


def test_what_was_written_before_an_interruption_is_kept(converted, film, tmp_path, capsys, monkeypatch):
    def interrupted(*args, **options):
        yield CAPTIONS[0]
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_timelines, "_captions", interrupted)
    output = tmp_path / "film.vtt"
    model = ["--model", str(converted("clip-vision-bert-shared")), "--device", "cpu"]
    assert main(["caption", film, "--every", "3", "--output", str(output), *model]) == 130
    assert f"stopped at {film}; 1 segment in {output} kept." in capsys.readouterr().err
    assert len(webvtt.read(str(output))) == 1


def test_broken_stretch_is_one_line_of_the_command(converted, film, tmp_path, capsys, monkeypatch):
    broken = [TimedCaption(start, start + 10.0, None, error="it is broken.") for start in (10.0, 20.0)]
    monkeypatch.setattr(cli_timelines, "_captions", lambda *args, **options: iter([CAPTIONS[0], *broken, CAPTIONS[2]]))
    model = ["--model", str(converted("clip-vision-bert-shared")), "--device", "cpu"]
    assert main(["caption", film, "--every", "3", *model]) == 1
    printed = capsys.readouterr()
    assert f"2 segments of {film}, from 10.00 to 30.00 seconds, cannot be described: it is broken." in printed.err
    assert printed.out.count("\n") == 2
