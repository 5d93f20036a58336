# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`valor index`, `valor search --index` and `valor embed` as users type them, on rendered films."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from modeling_valor.cli.index import _print_vanished
from modeling_valor.cli.main import main
from modeling_valor.world import write_world


ROOT = Path(__file__).resolve().parents[1]
TINY = str(ROOT / "hub_configs" / "valor-tiny")

pytest.importorskip("lancedb")


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Four rendered clips of 5 s with their captions."""
    folder = tmp_path_factory.mktemp("films") / "clips"
    write_world(folder, "test", 4, seed=42, workers=1, progress=False)
    return folder


@pytest.fixture(scope="module")
def caption(clips) -> dict[str, str]:
    """The first caption of each clip."""
    rows = [json.loads(line) for line in (clips / "metadata.jsonl").read_text().splitlines()]
    return {row["file_name"]: row["captions"][0] for row in rows}


@pytest.fixture(scope="module")
def made(clips) -> str:
    path = str(clips.parent / "films.lance")
    options = ["--segment-seconds", "2.5", "--workers", "0", "--metadata", '{"camera": "front"}', "--json"]
    assert main(["index", str(clips), "--index", path, "--model", TINY, *options]) == 0
    return path


@pytest.fixture(scope="module")
def captioned(made, clips, tmp_path_factory) -> str:
    """The index with captions, which were written after it was made."""
    path = str(shutil.copytree(made, tmp_path_factory.mktemp("captioned") / "films.lance"))
    assert main(["index", str(clips), "--index", path, "--workers", "0", "--captions"]) == 0
    return path


def run(capsys, *arguments, status=0) -> tuple[list[str], list[str]]:
    """Lines that a command prints, and its messages."""
    capsys.readouterr()
    assert main(list(map(str, arguments))) == status
    printed = capsys.readouterr()
    return printed.out.splitlines(), [line for line in printed.err.splitlines() if line.startswith("valor ")]


def test_a_caption_finds_its_clip_and_each_word_its_second(made, clips, caption, capsys):
    name, text = next(iter(caption.items()))
    out, _ = run(capsys, "search", text, "--index", made, "--top", 3, "--json")
    hits = [json.loads(line) for line in out]
    best = hits[0]
    assert Path(best["file"]) == clips / name and best["proven"] and best["query"] == text
    assert best["metadata"] == {"camera": "front"}
    assert [match["word"] for match in best["matches"]] == text.split()
    assert all(best["start"] <= match["seconds"] <= best["end"] for match in best["matches"])
    (first, *_), _ = run(capsys, "search", text, "--index", made, "--top", 3)
    score, file, time, *reasons = first.split()
    assert float(score) == pytest.approx(best["score"], abs=6e-4) and file == best["file"]
    clocks = {0.0: "00:00", 2.5: "00:02.5", 5.0: "00:05"}
    assert time == f"{clocks[best['start']]}-{clocks[best['end']]}"
    assert {"seen,", "seen", "heard,", "heard"} & set(reasons) and "a" not in reasons


def test_hits_are_those_of_the_index_in_python(made, caption, capsys):
    from modeling_valor.search import ValorIndex

    texts = list(caption.values())[:2]
    out, _ = run(capsys, "search", *texts, "--index", made, "--modalities", "v", "--top", 4, "--json")
    expected = ValorIndex(made).search(texts, top=4, modalities="v")
    found = [json.loads(line) for line in out]
    assert [(line["query"], line["file"], line["start"], line["end"]) for line in found] == [
        (text, hit.source, hit.start, hit.end) for text, hits in zip(texts, expected, strict=True) for hit in hits
    ]
    assert {match["modality"] for line in found for match in line["matches"]} == {"v"}
    lines, _ = run(capsys, "search", *texts, "--index", made, "--top", 1)
    assert lines[0] == f"{texts[0]}:" and lines[2] == f"{texts[1]}:" and len(lines) == 4


def test_a_text_is_answered_as_often_as_it_is_asked(made, capsys):
    once, _ = run(capsys, "search", "a circle", "--index", made, "--top", 2)
    twice, _ = run(capsys, "search", "a circle", "a circle", "--index", made, "--top", 2)
    assert twice == ["a circle:", *once] * 2


def test_a_condition_on_metadata_is_the_one_that_the_message_shows(made, capsys):
    _, (message,) = run(capsys, "search", "a circle", "--index", made, "--where", "camera = 'front'", status=1)
    (where,) = re.findall(r"json_get_string[^\"]*", message)
    assert len(run(capsys, "search", "a circle", "--index", made, "--where", where, "--json")[0]) > 0
    assert not run(capsys, "search", "a circle", "--index", made, "--where", where.replace("front", "x"), status=1)[0]


def test_a_condition_limits_what_is_found(made, clips, capsys):
    out, _ = run(
        capsys, "search", "a circle", "--index", made, "--where", "source LIKE '%1.mp4' AND start >= 2.5", "--json"
    )
    (line,) = map(json.loads, out)
    assert Path(line["file"]).name == "clip-00001.mp4" and line["start"] == 2.5
    out, messages = run(capsys, "search", "a circle", "--index", made, "--where", "start > 100", status=1)
    assert out == [] and messages == [
        "valor search: 'a circle': the index has no segment with these modalities that --where lets through."
    ]


def test_the_page_has_the_hits_that_are_printed(made, clips, capsys):
    page = clips.parent / "page.html"
    out, _ = run(capsys, "search", "a yellow circle", "--index", made, "--html", page, "--top", 2, "--json")
    written = page.read_text(encoding="utf-8")
    places = [
        written.index(f'src="clips/{Path(line["file"]).name}#t={line["start"]:g},{line["end"]:g}"')
        for line in map(json.loads, out)
    ]
    assert len(places) == 2 and places == sorted(places)


@pytest.mark.parametrize(("count", "end"), [(2, "/b.mp4 are"), (12, "/j.mp4 and 2 more are")])
def test_files_that_are_gone_are_named(capsys, count, end):
    _print_vanished([f"/{letter}.mp4" for letter in "abcdefghijkl"[:count]], "clips.lance")
    message = capsys.readouterr().err
    assert message.startswith("valor index: /a.mp4, /b.mp4") and message.count(".mp4") == min(count, 10)
    assert f"{end} in the index and no longer there; `valor index --index clips.lance --remove FILE`" in message


def test_what_was_indexed_is_passed_over_and_what_is_removed_is_gone(made, clips, tmp_path, capsys):
    shutil.copytree(clips, tmp_path / "clips")
    index = tmp_path / "index.lance"
    options = ["--index", index, "--workers", 0]
    (line,), _ = run(capsys, "index", tmp_path / "clips", *options, "--model", TINY)
    assert line.startswith("4 files added (4 segments")
    (tmp_path / "clips" / "clip-00003.mp4").unlink()
    (line,), messages = run(capsys, "index", tmp_path / "clips", *options, "--json")
    report = json.loads(line)
    assert report["unchanged"] == 3 and report["added"] == []
    assert report["vanished"] == [str(tmp_path / "clips" / "clip-00003.mp4")]
    assert len(messages) == 1 and "clip-00003.mp4 is in the index and no longer there" in messages[0]
    gone = tmp_path / "clips" / "clip-00003.mp4"
    (line,), _ = run(capsys, "index", "--index", index, "--remove", gone, "--compact", "--info", "--json")
    result = json.loads(line)
    assert (result["removed"], result["files"], result["segments"]) == (1, 3, 3)
    lines, _ = run(capsys, "index", "--index", index, "--info")
    assert lines[0].startswith(f"{index}: 3 files, 15.0 seconds, 3 segments, ") and TINY in lines[1]


def test_segments_are_those_of_the_index_unless_asked_for(made, clips, capsys):
    (line,), _ = run(capsys, "index", clips, "--index", made, "--workers", 0, "--json", "--info")
    report = json.loads(line)
    assert (report["unchanged"], report["segmentations"]) == (4, ["2.5 s every 2.5 s, av, 8 frames"])


def test_captions_are_found_by_their_words(captioned, clips, tmp_path, capsys):
    from modeling_valor.search import ValorIndex

    expected = {(s.source, s.start): s.caption for s in ValorIndex(captioned).segments()}
    assert len(expected) == 8 and all(expected.values())
    word = sorted({word for caption in expected.values() for word in caption.split() if len(word) > 4})[0]
    having = {place: caption for place, caption in expected.items() if word in caption.split()}
    page = tmp_path / "page.html"
    command = ["search", word.upper(), "--index", captioned, "--captions"]
    out, _ = run(capsys, *command, "--json", "--html", page)
    found = [json.loads(line) for line in out]
    assert {(line["file"], line["start"]): line["captions"] for line in found} == {
        place: [caption] for place, caption in having.items()
    }
    scores = [line["score"] for line in found]
    assert scores == sorted(scores, reverse=True) and found[0]["query"] == word.upper()
    assert found[0]["metadata"] == {"camera": "front"}
    assert page.read_text(encoding="utf-8").count('<p class="caption"') == len(found)
    (first, *rest), _ = run(capsys, *command, "--top", 1)
    assert not rest and first.endswith("  " + found[0]["captions"][0]) and found[0]["file"] in first
    where = f"source LIKE '%{Path(found[-1]['file']).name}' AND start = {found[-1]['start']}"
    (line,), _ = run(capsys, *command, "--where", where, "--json")
    assert json.loads(line) == found[-1]
    _, messages = run(capsys, "search", "zebra", "--index", captioned, "--captions", status=1)
    assert messages == ["valor search: 'zebra': the index has no caption with any of these words."]


def test_captions_need_no_model(captioned, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("modeling_valor.search.embedding.ValorModel.from_pretrained", None)
    out, _ = run(capsys, "search", "circle square triangle", "--index", captioned, "--captions", "--json")
    assert out


def test_interrupted_work_is_kept_and_goes_on(clips, tmp_path, monkeypatch, capsys):
    from modeling_valor.search import adding

    read_segments = adding.read_segments

    def interrupted(*args, **kwargs):
        for count, event in enumerate(read_segments(*args, **kwargs)):
            if count == 5:
                raise KeyboardInterrupt
            yield event

    monkeypatch.setattr(adding, "read_segments", interrupted)
    command = ["index", clips, "--index", tmp_path / "i.lance", "--model", TINY, "--workers", 0, "--batch-size", 1]
    _, messages = run(capsys, *command, status=130)
    assert "What is done is in the index" in messages[0]
    monkeypatch.setattr(adding, "read_segments", read_segments)
    (line,), _ = run(capsys, *command, "--json")
    report = json.loads(line)
    assert report["unchanged"] == 2 and len(report["added"]) == 2 and 1 <= report["segments"] <= 2


def test_files_that_cannot_be_read_are_named_and_the_others_are_indexed(clips, tmp_path, capsys, caplog):
    (tmp_path / "text.mp4").write_text("this is no video")
    (tmp_path / "empty.mp4").touch()
    files = [clips / "clip-00000.mp4", tmp_path / "text.mp4", tmp_path / "empty.mp4", tmp_path / "missing.mp4"]
    (line,), _ = run(
        capsys, "index", *files, "--index", tmp_path / "i.lance", "--model", TINY, "--workers", 0, "--json", status=1
    )
    report = json.loads(line)
    assert report["added"] == [str(files[0])]
    assert set(report["failures"]) == set(map(str, files[1:]))
    assert all(any(Path(name).name in message for message in caplog.messages) for name in report["failures"])


@pytest.mark.parametrize("form", ["parquet", "safetensors"])
def test_embed_writes_the_tokens_of_the_index(made, clips, tmp_path, form, capsys):
    from modeling_valor.search import ValorIndex

    output = tmp_path / f"tokens.{form}"
    options = ["--segment-seconds", 2.5, "--workers", 0, "--json"]
    (line,), _ = run(capsys, "embed", clips, "--model", TINY, "--output", output, *options)
    assert json.loads(line)["segments"] == 8
    (tmp_path / "new").touch()
    assert output.stat().st_mode == (tmp_path / "new").stat().st_mode
    read = {"parquet": read_parquet, "safetensors": read_safetensors}[form](output)
    backend = ValorIndex(made).backend
    assert len(read) == 8
    for segment in backend.segments():
        kept = backend.tokens([segment.id])
        modalities, times, weights, embeds = read[segment.source, segment.start, segment.end]
        order = np.lexsort((kept.times, kept.modalities)), np.lexsort((times, modalities))
        assert (kept.modalities[order[0]] == modalities[order[1]]).all()
        for own, other in ((kept.times, times), (kept.weights, weights), (kept.embeds, embeds)):
            np.testing.assert_allclose(other[order[1]], own[order[0]], atol=2e-3)


def test_an_interrupted_embed_says_how_it_goes_on(clips, tmp_path, monkeypatch, capsys, caplog):
    from modeling_valor.search.token_store import TokenStore

    def interrupted(self, segments, files=()):
        monkeypatch.undo()
        self.write(segments, files)
        raise KeyboardInterrupt

    output = tmp_path / "tokens.parquet"
    command = ["embed", clips, "--model", TINY, "--output", output, "--batch-size", 3, "--workers", 0]
    monkeypatch.setattr(TokenStore, "write", interrupted)
    out, messages = run(capsys, *command, status=130)
    kept = f"{output}.unfinished"
    assert out == [] and messages == [
        f"valor embed: interrupted. What is done is kept in {kept}; the same command goes on from there."
    ]
    out, _ = run(capsys, *command)
    assert caplog.messages == ["An interrupted run goes on: 2 files complete, 3 segments embedded already."]
    assert out == [f"{output}: 2 files embedded (1 segment, 5.0 seconds), 2 unchanged."]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tokens.parquet"]


def read_parquet(path):
    import pyarrow.parquet as pq

    segments = {}
    for row in pq.read_table(path).to_pylist():
        segments.setdefault((row["source"], row["start"], row["end"]), []).append(row)
    columns = ("modality", "time", "weight", "embedding")
    return {name: [np.array([row[column] for row in rows]) for column in columns] for name, rows in segments.items()}


def read_safetensors(path):
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        segments = json.loads(file.metadata()["segments"])
    letters = np.array([chr(code) for code in tensors["modalities"]])
    found = {}
    for place, segment in enumerate(segments):
        own = tensors["segments"] == place
        tokens = [letters[own], *(tensors[name][own] for name in ("times", "weights", "embeds"))]
        found[segment["source"], segment["start"], segment["end"]] = tokens
    return found


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["search", "a dog", "--index", "none.lance"], 1, "there is no index here; `valor index FILE... --index "),
        (["search", " ", "--index", "MADE"], 2, "the text is empty"),
        (["search", "the", "--index", "MADE"], 1, "has only words which say nothing that is seen or heard"),
        (["search", "xylophonequx", "--index", "MADE"], 1, "The checkpoint knows no word of the query 'xylophonequx'"),
        (["search", "the xylophonequx", "--index", "MADE"], 1, "and the other words say nothing"),
        (["search", "a dog", "--index", "MADE", "--where", "source LIKE"], 1, "'source LIKE'"),
        (["search", "a dog", "--index", "MADE", "--where", "colour = 'red'"], 1, "colour"),
        (["search", "a dog", "--index", "MADE", "--html", "nowhere/page.html"], 1, "there is no folder nowhere"),
        (["search", "a dog", "--index", "MADE", "--html", "clips"], 1, "is a folder"),
        (["search", "a dog", "--index", "MADE", "--model", "nowhere"], 1, "--model nowhere: there is no such folder"),
        (["search", "--index", "MADE"], 2, "'TEXT': give one text or several, or --like FILE"),
        (["search", "a dog", "--index", "MADE", "--like", "x.mp4"], 2, "give one text or several, or --like FILE"),
        (["search", "--index", "MADE", "--like", "clips/clip-00000.mp4"], 1, "alignment group v-a or v-ta"),
        (["search", "--index", "MADE", "--like", "nowhere.mp4"], 1, "nowhere.mp4 does not exist"),
        (
            ["search", "a dog", "--index", "MADE", "--captions"],
            1,
            "has no captions: `valor index SOURCE... --captions`",
        ),
        (
            ["search", "a dog", "--index", "MADE", "--captions", "--exact"],
            2,
            "'--exact': --captions searches words only",
        ),
        (["search", "a dog", "clips", "--model", TINY, "--captions"], 2, "'--captions': it searches an index"),
        (["search", "a dog", "clips", "--model", TINY, "--html", "x.html"], 2, "'--html': it searches an index"),
        (["search", "a dog", "clips"], 2, "give --index PATH, or --model CHECKPOINT and files"),
        (["search", "a dog", "--model", TINY], 2, "give files after the text, or --index"),
        (["index", "--index", "MADE"], 2, "give what to add, or --info, --remove SOURCE or --compact"),
        (["index", "clips", "--index", "new.lance"], 1, "give --model CHECKPOINT to make one"),
        (["index", "--index", "new.lance", "--info"], 1, "there is no index here"),
        (["index", "clips", "--index", "MADE", "--metadata", "{"], 2, "'--metadata': '{' is not JSON"),
        (["index", "clips", "--index", "MADE", "--metadata", "[1]"], 2, "'[1]' is no JSON object"),
        (["index", "clips", "--index", "MADE", "--segment-seconds", "0"], 1, "positive length"),
        (["index", "--index", "MADE", "--remove", "clips/other.mp4"], 1, "has no file"),
        (["embed", "clips", "--model", TINY, "--output", "tokens.csv"], 1, "ends in .parquet or .safetensors"),
        (["embed", "clips", "--model", TINY, "--output", "no/t.parquet"], 1, "there is no folder no"),
        (["embed", "empty", "--model", TINY, "--output", "t.parquet"], 1, "nothing to embed"),
        (["embed", "clips", "--model", TINY, "--output", "t.parquet", "--stride", "0"], 1, "positive length"),
        (["embed", "film.parquet", "--model", TINY, "--output", "film.parquet"], 1, "is one of the files to read"),
        (["index", "clips", "--index", "clips", "--model", TINY], 1, "is a folder of other files and no index"),
        (["search", "a dog", "--index", "film.parquet"], 1, "film.parquet is a file; an index is a folder"),
    ],
)
def test_a_mistake_is_one_sentence_and_costs_nothing(made, clips, monkeypatch, capsys, arguments, status, message):
    monkeypatch.chdir(clips.parent)
    Path("empty").mkdir(exist_ok=True)
    Path("film.parquet").write_bytes(b"a film")
    before = sorted(path.name for path in Path.cwd().iterdir())
    out, messages = run(capsys, *[made if argument == "MADE" else argument for argument in arguments], status=status)
    assert out == [] and len(messages) == 1
    assert messages[0].startswith(f"valor {arguments[0]}: ") and message in messages[0]
    assert sorted(path.name for path in Path.cwd().iterdir()) == before
    out, _ = run(capsys, "index", "--index", made, "--info", "--json")
    assert json.loads(out[0])["segments"] == 8


def test_an_index_of_another_model_is_refused(made, converted, capsys):
    other = str(converted("clip-vision-bert-shared"))
    out, (message,) = run(capsys, "search", "a dog barks", "--index", made, "--model", other, status=1)
    assert out == [] and "was made with the model" in message and other in message


def test_a_video_is_searched_by_what_sounds_like_it(clips, tmp_path, capsys):
    """With a checkpoint whose configuration says that frames and sound are comparable."""
    from modeling_valor.search import ValorIndex

    model = tmp_path / "model"
    shutil.copytree(TINY, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"alignment_groups": ["t-v", "t-a", "t-av", "v-a"]}))
    index = tmp_path / "i.lance"
    run(capsys, "index", clips, "--index", index, "--model", model, "--workers", 0)
    film = clips / "clip-00002.mp4"
    out, _ = run(capsys, "search", "--like", film, "--index", index, "--json")
    found = [json.loads(line) for line in out]
    hits = ValorIndex(index).search(media=str(film))
    assert [(line["file"], line["score"]) for line in found] == [(hit.source, hit.score) for hit in hits]
    assert len(found) == 4 and all(line["query"] == str(film) and line["matches"] == [] for line in found)
