# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
import json
import os
import shutil
import signal
import textwrap

import numpy as np
import pytest
import torch

from helpers.media_files import write_clip, write_wav
from helpers.warm import WarmProcess, run_warm
from modeling_valor import ValorConfig, ValorForCaptioning, ValorForRetrieval, ValorModel, ValorProcessor
from modeling_valor.cli.main import main
from modeling_valor.data.samples import Sample
from modeling_valor.search import ValorIndex, adding
from modeling_valor.search.adding import AddReport
from modeling_valor.search.reading import BrokenSegment, ReadSegment, Segmentation
from modeling_valor.search.segments import covered_seconds
from modeling_valor.search.sources import is_covered


TINY = os.path.abspath("hub_configs/valor-tiny")


@pytest.fixture(scope="module")
def valor():
    return ValorModel.from_pretrained(TINY).eval()


@pytest.fixture(scope="module")
def processor():
    return ValorProcessor.from_pretrained(TINY)


@pytest.fixture
def make(tmp_path, valor, processor):
    """An index of valor-tiny in `tmp_path`."""
    return lambda name="index.lance": ValorIndex(tmp_path / name, model=valor, processor=processor)


@pytest.fixture(scope="session")
def films(tmp_path_factory):
    """A film of 26 s with sound, a silent one of 12 s, and a sound of 11 s in a folder of its own."""
    folder = tmp_path_factory.mktemp("films")
    (folder / "more").mkdir()
    write_clip(folder / "film.mp4", seconds=26)
    write_clip(folder / "silent.mp4", seconds=12, hertz=None, brightness=90)
    write_clip(folder / "more" / "sound.m4a", seconds=11, brightness=None)
    return folder


@pytest.fixture
def videos(films, tmp_path):
    """A copy of the films that a test may change."""
    return shutil.copytree(films, tmp_path / "videos")


def spans(index, source):
    return [(segment.start, round(segment.end)) for segment in index.segments(str(source))]


def test_segments_of_a_folder(make, videos, valor, processor):
    index = make()
    report = index.add(videos, segment_seconds=10.0, workers=1)
    assert sorted(report.added) == sorted(str(videos / name) for name in ("film.mp4", "more/sound.m4a", "silent.mp4"))
    assert not report.failures
    assert spans(index, videos / "film.mp4") == [(0, 10), (10, 20), (20, 26)]
    assert spans(index, videos / "silent.mp4") == [(0, 10), (10, 12)]
    assert [s.modalities for s in index.segments(str(videos / "film.mp4"))] == ["va"] * 3
    assert {s.modalities for s in index.segments(str(videos / "silent.mp4"))} == {"v"}
    assert {s.modalities for s in index.segments(str(videos / "more/sound.m4a"))} == {"a"}
    assert (index.info()["files"], index.info()["segments"]) == (3, 6 + (11 > 10))
    # The tokens are those of the processor and the model for that part of the file
    segment = index.segments(str(videos / "film.mp4"))[1]
    rows = index.backend.tokens([segment.id])
    with torch.no_grad():
        inputs = processor(videos=[f"{videos}/film.mp4#t=10,20"], num_audio_clips=2, return_tensors="pt")
        embeds = valor.embed_media(inputs)
    for letter, name in (("v", "video"), ("a", "audio")):
        own = rows.modalities == letter
        expected = embeds[f"{name}_embeds"][0]
        order = np.argsort(rows.times[own], kind="stable")
        assert np.abs(rows.embeds[own][order].astype(np.float32) - expected.numpy()).max() < 1e-3
        weights = getattr(valor, f"{name}_token_weight")(expected[None])[0].detach().numpy()
        assert rows.weights[own][order] == pytest.approx(weights, abs=1e-3)
    # Two frames make a token: those at 10.6, 11.9, ... of eight parts of 1.25 s, shown from a multiple of 0.1 s on
    assert sorted(rows.times[rows.modalities == "v"]) == pytest.approx([11.25, 13.75, 16.25, 18.75], abs=0.11)
    assert sorted(rows.times[rows.modalities == "a"]) == pytest.approx([12.56, 17.56], abs=0.2)


def test_unchanged_changed_and_vanished_files(make, videos):
    index = make()
    index.add(videos, workers=0)
    before = {segment.id for segment in index.segments()}
    report = index.add(videos, workers=0)
    assert (report.unchanged, report.added, report.segments) == (3, [], 0)
    write_clip(videos / "film.mp4", seconds=13)
    os.remove(videos / "silent.mp4")
    report = index.add(videos, workers=0)
    assert report.replaced == report.added == [str(videos / "film.mp4")]
    assert report.vanished == [str(videos / "silent.mp4")]
    assert spans(index, videos / "film.mp4") == [(0, 10), (10, 13)]
    assert {segment.id for segment in index.segments()} - before  # the end is another one
    assert index.remove(*report.vanished) == 2
    assert make().add(videos, workers=0).vanished == []


def test_new_metadata_of_files_that_are_there(make, videos):
    index = make()
    index.add(videos / "film.mp4", workers=0)
    report = index.add(videos, workers=0, metadata={"camera": "front"})
    assert (report.unchanged, report.updated) == (1, [str(videos / "film.mp4")])
    assert {segment.metadata["camera"] for segment in index.segments()} == {"front"}
    assert index.add(videos, workers=0).updated == []
    assert {segment.metadata["camera"] for segment in index.segments()} == {"front"}
    assert len(index.add(videos, workers=0, metadata={}).updated) == 3


def test_a_report_counts_in_words():
    assert str(AddReport(["a"], segments=1, seconds=5.0)) == "1 file added (1 segment, 5.0 seconds)."
    report = AddReport(["a", "b"], 3, ["a"], failures={"c": "."}, segments=2000, seconds=5400)
    assert report.describe("embedded") == (
        "2 files embedded (2,000 segments, 1.5 hours), 1 of them replaced, 3 unchanged, 1 not read, at least in part."
    )
    assert str(AddReport(unchanged=2)) == "0 files added, 2 unchanged."


@pytest.mark.parametrize("pattern", ["film.mp?", "fil[mn].mp4", "fi*.mp4"])
def test_globs_cover_files_that_are_gone(tmp_path, pattern):
    (tmp_path / "others").mkdir()
    assert is_covered(str(tmp_path / "film.mp4"), [tmp_path / pattern])
    assert not is_covered(str(tmp_path / "film.mp4"), [tmp_path / "others" / pattern])


def test_the_model_of_an_index_is_found_from_every_folder(tmp_path, videos, monkeypatch):
    monkeypatch.chdir(os.path.dirname(TINY))
    ValorIndex(tmp_path / "i.lance", model=os.path.basename(TINY)).add(videos / "silent.mp4", workers=0)
    monkeypatch.chdir(tmp_path)
    assert ValorIndex(tmp_path / "i.lance").info()["model"] == TINY
    assert ValorIndex(tmp_path / "i.lance").search("a red circle")


def test_hours_are_those_of_segments_and_shared_seconds_count_once(make, videos, tmp_path):
    """26 s of film in segments of 10 s every 5 s, from its second 3: [3, 13), [8, 18), [13, 23), [18, 26)."""
    index = make()
    report = index.add([f"{videos / 'film.mp4'}#t=3,26", videos / "silent.mp4"], 10, 5, workers=0)
    assert report.segments == len(index.segments()) > 5
    assert report.seconds == pytest.approx(23 + 12, abs=0.2) and "35.0 seconds" in str(report)
    assert index.info()["hours"] * 3600 == pytest.approx(23 + 12, abs=0.2)
    assert covered_seconds([(5, 8), (0, 2), (1, 3), (6, 7), (20, 21)]) == 3 + 3 + 1


def test_what_a_file_says_of_its_length_is_not_counted(make, videos):
    """A sound of 11 s, of whose content all but the beginning is overwritten, is heard for one segment of a second."""
    path = videos / "more" / "sound.m4a"
    content = path.read_bytes()
    start = content.index(b"mdat") + 4
    size = int.from_bytes(content[start - 8 : start - 4]) - 8
    kept = start + size * 2 // 11  # two seconds, as it is a tone
    path.write_bytes(content[:kept] + bytes(start + size - kept) + content[start + size :])
    index = make()
    report = index.add(path, 1.0, workers=0)
    assert report.failures and report.added
    segments = index.segments(str(path))
    assert 1 <= len(segments) < 5 and len({segment.start for segment in segments}) == len(segments)
    assert (
        index.info()["hours"] * 3600 == pytest.approx(sum(one.end - one.start for one in segments)) == report.seconds
    )


def test_another_length_replaces(make, videos, caplog):
    index = make()
    index.add(videos / "film.mp4", workers=0)
    assert index.info()["segmentations"] == ["10 s every 10 s, av, 8 frames"]
    assert not caplog.messages
    report = index.add(videos / "film.mp4", segment_seconds=13, stride=6.5, workers=0)
    assert caplog.messages == [
        "Files that are cut again: 1. They were cut otherwise before (10 s every 10 s, av, 8 frames), and this time "
        "13 s every 6.5 s, av, 8 frames is asked for."
    ]
    assert report.replaced == [str(videos / "film.mp4")]
    assert spans(index, videos / "film.mp4") == [(0, 13), (6.5, 20), (13, 26)]


def test_files_are_cut_as_the_index_was_made(make, videos, caplog):
    index = make()
    index.add(videos / "film.mp4", segment_seconds=6.5, stride=5, num_frames=4, workers=0)
    report = make().add(videos, workers=0)
    assert (report.unchanged, len(report.added), report.replaced) == (1, 2, [])
    assert index.info()["segmentations"] == ["6.5 s every 5 s, av, 4 frames"]
    assert spans(index, videos / "silent.mp4") == [(0, 6), (5, 12)]
    assert make().add(videos / "silent.mp4", segment_seconds=5, workers=0).replaced == [str(videos / "silent.mp4")]
    assert make().add(videos, workers=0).unchanged == 3  # also what was cut otherwise
    assert sorted(index.info()["segmentations"]) == ["5 s every 5 s, av, 4 frames", "6.5 s every 5 s, av, 4 frames"]
    assert caplog.messages == [
        "Files that are cut again: 1. They were cut otherwise before (6.5 s every 5 s, av, 4 frames), and this time "
        "5 s every 5 s, av, 4 frames is asked for."
    ]


def test_a_file_that_was_begun_otherwise_is_begun_anew(make, videos, caplog, monkeypatch):
    index = make()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("modeling_valor.search.adding.IndexedFile", interrupt)
        index.add(videos / "film.mp4", segment_seconds=6.5, batch_size=1, workers=0)
    assert len(spans(index, videos / "film.mp4")) == 4 and not list(index.backend.files())
    index.add(videos / "film.mp4", segment_seconds=13, workers=0)
    assert spans(index, videos / "film.mp4") == [(0, 13), (13, 26)]
    assert caplog.messages == [
        "Files of which a part was indexed and that are begun anew, as they have changed or were cut otherwise: 1."
    ]


def interrupt(*args, **kwargs):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, "shots, v, 6 frames"),
        ({"modalities": "a"}, "shots, a, 6 frames"),
        ({"seconds": 4.0}, "4 s every 4 s, v, 6 frames"),
        ({"stride": 1.25}, "5 s every 1.25 s, v, 6 frames"),
        ({"segments": "fixed", "num_frames": 2}, "5 s every 2.5 s, v, 2 frames"),
        ({"segments": "shots", "seconds": 1 / 3}, "shots, v, 6 frames"),
    ],
)
def test_a_segmentation_with_changes(asked, expected, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    own = Segmentation(5.0, 2.5, shots=True, modalities="v", num_frames=6)
    assert str(own.changed(**asked)) == expected


@pytest.mark.parametrize("seconds", [2.0, 1 / 3, 1e-5, 12345.678])
def test_a_segmentation_is_read_as_it_is_written(seconds):
    for own in (Segmentation(seconds, 2 * seconds / 3), Segmentation(1.0, 1.0, modalities="a", num_frames=7)):
        read = Segmentation.parse(str(own))
        assert str(read) == str(own)
        assert (read.seconds, read.stride) == pytest.approx((own.seconds, own.stride), rel=1e-11)
    assert Segmentation.parse("10.0 s") is None


def test_sources_of_all_kinds(make, videos, server):
    index = make()
    odd = videos / "it's\n日本.mp4"
    shutil.copy(videos / "film.mp4", odd)
    sample = Sample("memory", video=np.zeros((8, 3, 64, 64), dtype=np.uint8), captions=("a grey square",))
    on_disk = Sample("sound", audio=str(videos / "more/sound.m4a"), captions=("a tone",))
    report = index.add(
        [
            videos / "*.mp4",
            str(videos / "**" / "*.m4a"),
            sample,
            on_disk,
            f"{server[0]}/video.mp4",
        ],
        workers=0,
        metadata=lambda source: {"name": os.path.basename(source)},
    )
    assert not report.failures
    assert str(odd) in report.added and "memory" in report.added
    assert index.search("a red square", top=50, where="json_get_string(metadata, 'name') = 'film.mp4'", join=False)
    assert {segment.caption for segment in index.segments(str(videos / "more/sound.m4a"))} == {"a tone"}
    assert index.search_captions("grey")[0][0].source == "memory"


def test_files_that_cannot_be_read_cost_themselves_only(make, videos, caplog):
    (videos / "broken.mp4").write_bytes(b"no film at all")
    (videos / "empty.mp4").write_bytes(b"")
    os.makedirs(videos / "nothing here")
    undecodable = os.fsdecode(os.fsencode(videos) + b"/\xff.mp4")
    shutil.copy(videos / "film.mp4", undecodable)
    index = make()
    report = index.add([videos, videos / "nothing here", videos / "absent.mp4", "no/*/match.mp4"], workers=1)
    assert len(report.added) == 3
    assert len(report.failures) == 6
    for reason in report.failures.values():
        assert "\n" not in reason and reason.rstrip().endswith(".") and "Traceback" not in reason
    assert "udcff.mp4' has a name that is not UTF-8" in caplog.text
    assert index.search("a red circle")
    again = index.add(videos, workers=0)
    assert (again.unchanged, len(again.added), len(again.failures)) == (3, 0, 3)


def test_a_broken_stretch_is_said_once(make, videos, caplog, monkeypatch):
    read = adding.read_segments

    def broken(*args, **kwargs):
        for event in read(*args, **kwargs):
            is_broken = isinstance(event, ReadSegment) and event.start in (2, 4, 6, 10)
            yield BrokenSegment(event.file, event.start, event.end, "It is torn.") if is_broken else event

    monkeypatch.setattr(adding, "read_segments", broken)
    film = str(videos / "film.mp4")
    report = make().add(film, segment_seconds=2.0, workers=0)
    long = f"3 segments of {film}, from 2.00 to 8.00 seconds, cannot be used; of the first: It is torn."
    assert report.failures == {f"{film}#t=2.00,8.00": long, f"{film}#t=10.00,12.00": "It is torn."}
    assert caplog.messages == [long, f"{film}#t=10.00,12.00: It is torn."]
    assert report.segments == 13 - 4 and report.added == [film]


PROGRAM = textwrap.dedent(
    """
    import os, signal, sys
    from modeling_valor.search import ValorIndex
    from modeling_valor.search.lance import LanceBackend

    path, films, after, where = sys.argv[1:]
    index = ValorIndex(path, model={tiny!r})
    count = 0
    write = LanceBackend.write

    def killed(*args):
        os.kill(os.getpid(), signal.SIGKILL)

    def counted(self, segments, files=()):
        global count
        count += 1
        if count > int(after):
            if where == "between":  # tokens are written, their segments are not
                table = self._table("segments")
                table.add = killed
            elif where == "before":
                killed()
        write(self, segments, files)

    LanceBackend.write = counted
    index.add(films, segment_seconds=2.0, batch_size=3, workers=int(where == "between"), progress=False)
    """
).format(tiny=TINY)


@pytest.fixture(scope="module")
def whole(films, tmp_path_factory, valor, processor):
    """An index of the films that was made without a break."""
    index = ValorIndex(tmp_path_factory.mktemp("whole") / "index.lance", model=valor, processor=processor)
    index.add(films, segment_seconds=2.0, workers=0)
    return index


@pytest.mark.parametrize(("after", "where"), [(0, "before"), (2, "between"), (5, "before")])
def test_a_killed_run_goes_on(make, films, whole, tmp_path, after, where):
    killed = run_warm("-c", PROGRAM, tmp_path / "index.lance", films, after, where)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    index = make()
    if after:
        assert index.info()["segments"] >= 3 * (after - 2)  # some writes are of files' ends only
    report = index.add(films, segment_seconds=2.0, workers=0)
    assert report.segments < 26 or after < 2
    assert {s.id for s in index.segments()} == {s.id for s in whole.segments()}
    assert index.info()["tokens"] == whole.info()["tokens"]
    assert index.info()["files"] == 3
    query = "a red circle moves to the left"
    expected, found = (item.search(query, top=30, join=False) for item in (whole, index))
    assert [hit.score for hit in found] == pytest.approx([hit.score for hit in expected], abs=1e-3)
    assert index.add(films, segment_seconds=2.0, workers=0).unchanged == 3


def test_a_part_of_a_file_that_was_begun_goes_on(make, films):
    """Its segments are cut from where it begins, and stored by the seconds of the file."""
    part, index, written = f"{films / 'film.mp4'}#t=5,17", make(), []
    write = index.backend.write

    def interrupted(segments, files=()):
        if written:
            raise KeyboardInterrupt
        written.extend(segments)
        write(segments, files)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index.backend, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            index.add(part, segment_seconds=4.0, batch_size=2, workers=0)
    assert spans(index, part) == [(5, 9), (9, 13)]
    report = index.add(part, segment_seconds=4.0, workers=0)
    assert report.segments == 1 and spans(index, part) == [(5, 9), (9, 13), (13, 17)]


INTERRUPTED = textwrap.dedent(
    """
    import os, signal, sys
    import valor_cli
    from modeling_valor.search import reading
    from modeling_valor.search.lance import LanceBackend

    owners = {
        "reading": (reading, "prepare_segment", 4),  # in a process that decodes
        "writing": (LanceBackend, "_replace_tokens", 4),  # tokens are written, their segments are not
    }
    owner, name, calls = owners[sys.argv.pop(1)]
    call, count = getattr(owner, name), 0

    def counted(*args):
        global count
        result, count = call(*args), count + 1
        if count == calls:
            os.killpg(0, signal.SIGINT)  # all processes, as Ctrl-C does
        return result

    setattr(owner, name, counted)
    sys.exit(valor_cli.main())
    """
)


@pytest.mark.parametrize(("moment", "workers"), [("reading", "2"), ("writing", "0")])
def test_an_interrupted_command_keeps_what_is_done_and_goes_on(make, films, tmp_path, capsys, moment, workers):
    command = ["index", str(films), "--index", str(tmp_path / "index.lance"), "--model", TINY, "--batch-size", "2"]
    command += ["--segment-seconds", "4", "--workers", workers]
    ended = run_warm("-c", INTERRUPTED, moment, *command, start_new_session=True)
    assert ended.stderr == (
        "valor index: interrupted. What is done is in the index; the same command goes on from there.\n"
    )
    assert (ended.returncode, ended.stdout) == (130, "")
    kept = make().info()["segments"]
    assert kept == 2 or moment == "reading"
    assert main([*command, "--workers", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["segments"] == 13 - kept
    index = make()
    assert len({(segment.source, segment.start) for segment in index.segments()}) == 13
    tokens = [len(index.backend.tokens([segment.id])) for segment in index.segments()]
    assert sum(tokens) == index.info()["tokens"]


def test_two_writers_at_once(make, films, whole, tmp_path):
    runs = [WarmProcess("-c", PROGRAM, tmp_path / "index.lance", films, 1000, "never") for _ in range(2)]
    for process in runs:
        ended = process.wait()
        assert ended.returncode == 0, ended.stderr
    index = make()
    assert sorted(s.id for s in index.segments()) == sorted(s.id for s in whole.segments())
    assert index.info()["tokens"] == whole.info()["tokens"]


def test_a_disk_that_is_full(make, videos, tmp_path):
    index = make()
    index.add(videos / "silent.mp4", workers=0)
    program = textwrap.dedent(
        f"""
        import resource, signal, sys
        from modeling_valor.search import ValorIndex
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        index = ValorIndex({str(tmp_path / "index.lance")!r}, model={TINY!r})
        index.model.revision
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        try:
            index.add({str(videos)!r}, workers=0, progress=False)
        except ValueError as error:
            print(error)
        """
    )
    full = run_warm("-c", program)
    assert "cannot be" in full.stdout and full.stdout.count("\n") == 1, full.stdout + full.stderr
    assert index.search("a red circle")
    assert len(index.add(videos, workers=0).added) == 2


def test_a_worker_that_is_killed_is_said(make, videos, monkeypatch):
    def killed(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)

    index = make()
    with monkeypatch.context() as patch:
        patch.setattr("modeling_valor.search.reading.iterate_segments", killed)
        with pytest.raises(ValueError, match="process that decodes was killed"):
            index.add(videos, workers=1)
    assert len(index.add(videos, workers=1).added) == 3


def test_media_as_the_query(tmp_path, videos, processor):
    config = ValorConfig.from_pretrained(TINY, alignment_groups=["t-av", "v-a"])
    model = ValorForRetrieval.from_pretrained(TINY, config=config).eval()
    index = ValorIndex(tmp_path / "index.lance", model=model, processor=processor)
    index.add(videos, workers=0)
    hits = index.search(media=videos / "silent.mp4", join=False)
    assert all("a" in hit.segments[0].modalities and not hit.matches for hit in hits)
    assert len(hits) == 5
    with torch.no_grad():
        query = model.embed_media(processor(videos=[str(videos / "silent.mp4")], return_tensors="pt"))
        part = f"{hits[0].source}#t={hits[0].start:g},{hits[0].end:g}"
        clips = 2 if hits[0].end - hits[0].start > 9 else 1
        sound = model.embed_media(processor(videos=[part], modalities="a", num_audio_clips=clips, return_tensors="pt"))
        expected = model.compute_similarity(**query, audio_embeds=sound["audio_embeds"], group="v-a")
    assert hits[0].score == pytest.approx(float(expected), abs=2e-3)
    assert index.search(media=videos / "film.mp4", modalities="v", join=False)[0].segments[0].modalities in ("v", "va")
    with pytest.raises(ValueError, match="compared with frames"):
        index.search(media=videos / "more/sound.m4a", modalities="a")
    with pytest.raises(ValueError, match="either `texts` or `media`"):
        index.search()
    plain = ValorIndex(tmp_path / "index.lance", model=TINY)
    with pytest.raises(ValueError, match="alignment group v-a"):
        plain.search(media=videos / "film.mp4")


def test_captions_of_the_checkpoint(tmp_path, videos):
    index = ValorIndex(tmp_path / "index.lance", model=TINY)
    index.add(videos / "film.mp4", caption=True, workers=0)
    captions = [segment.caption for segment in index.segments()]
    assert len(captions) == 3 and all(captions)
    assert index.search_captions(captions[0])


@pytest.fixture(scope="module")
def captioner():
    return ValorForCaptioning.from_pretrained(TINY).eval()


def test_captions_of_segments_that_are_there(tmp_path, videos, captioner, processor, monkeypatch, caplog):
    """They are those of a run that writes them at once; what has a caption keeps it, and a run that ended goes on."""
    names = tmp_path / "whole.lance", tmp_path / "index.lance"
    whole, index = (ValorIndex(name, model=captioner, processor=processor) for name in names)
    assert whole.add(videos, caption=True, workers=0).captioned == 7
    index.add(videos / "film.mp4", segment_seconds=9, workers=0)
    index.add([videos / "silent.mp4", videos / "more"], segment_seconds=10, workers=0)
    assert {segment.caption for segment in index.segments()} == {None}
    kept = index.segments(str(videos / "silent.mp4"))[0].id
    index.caption({kept: "mine"})

    set_captions, calls = index.backend.set_captions, []

    def interrupted(captions, tokens):
        calls.append(len(captions))
        if len(calls) == 2:
            raise KeyboardInterrupt
        set_captions(captions, tokens)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(index.backend, "set_captions", interrupted)
        index.add(videos, caption=True, batch_size=2, workers=0)
    assert calls == [2, 1]
    report = index.add(videos, caption=True, batch_size=2, workers=0)
    assert (report.captioned, report.unchanged, report.segments, report.failures) == (4, 3, 0, {})
    assert str(report) == "0 files added, 3 unchanged, 4 segments captioned."
    found = {segment.id: segment.caption for segment in index.segments()}
    assert found.pop(kept) == "mine" and None not in found.values() and len(found) == 6
    expected = {segment.id: segment.caption for segment in whole.segments()}
    same = found.keys() & expected.keys()
    assert len(same) == 3 and all(found[name] == expected[name] for name in same)
    assert index.add(videos, caption=True, workers=0).captioned == 0
    assert not caplog.messages


def test_captions_of_long_segments(tmp_path, videos, captioner, processor, caplog, monkeypatch):
    monkeypatch.setattr("modeling_valor.data.files._topics_of_warnings", set())
    index = ValorIndex(tmp_path / "index.lance", model=captioner, processor=processor)
    index.add(videos / "film.mp4", segment_seconds=13, caption=True, workers=0)
    assert caplog.messages == [
        "Some segments have more than the 2 audio clips that the decoder takes: their captions are of 2, evenly spaced."
    ]
    inputs = processor(videos=[f"{videos}/film.mp4#t=13,26"], num_audio_clips=3, return_tensors="pt")
    inputs["input_features"] = inputs["input_features"][:, [0, 2]]
    (expected,) = processor.post_process_generation(captioner.generate(**inputs))
    assert index.segments(str(videos / "film.mp4"))[1].caption == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"segment_seconds": 0}, "positive length"),
        ({"stride": -1}, "positive length"),
        ({"segments": "scenes"}, '"fixed" and "shots"'),
        ({"modalities": "t"}, "modalities"),
        ({"num_frames": 0}, "num_frames"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_arguments_that_make_no_sense(make, videos, arguments, message):
    with pytest.raises(ValueError, match=message):
        make().add(videos, workers=0, **arguments)


def test_a_silent_wave_and_a_still_image_are_segments(make, tmp_path):
    from PIL import Image

    write_wav(tmp_path / "tone.wav")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    index = make()
    report = index.add([tmp_path / "tone.wav", tmp_path / "red.png"], workers=0)
    assert not report.failures
    assert spans(index, tmp_path / "red.png") == [(0, 0)]
    assert index.search("a red square", modalities="v", top=1)[0].source == str(tmp_path / "red.png")


def test_shots_are_segments(make, videos, tmp_path):
    pytest.importorskip("scenedetect")
    from modeling_valor.media_shots import shot_segments

    index = make()
    report = index.add(videos, segments="shots", workers=0)
    assert not report.failures
    shots = shot_segments(str(videos / "film.mp4"))
    found = [(segment.start, segment.end) for segment in index.segments(str(videos / "film.mp4"))]
    assert np.array(found) == pytest.approx(np.array(shots), abs=0.01)
    assert spans(index, videos / "more/sound.m4a")[0] == (0, 10)  # no pictures
    assert index.add(videos, segments="shots", workers=0).unchanged == 3
