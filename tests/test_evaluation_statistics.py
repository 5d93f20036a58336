# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Statistics of captions by hand, and on the annotation files outside of the repository."""

import csv
import itertools
import json
import re

import pytest

from modeling_valor.cli.main import main
from modeling_valor.data.readers.benchmarks import BENCHMARKS
from modeling_valor.evaluation import (
    PAPER_STATISTICS,
    audio_concept_density,
    audio_concepts,
    caption_length,
    caption_statistics,
    read_captions,
)


ONTOLOGY = [{"name": "Male speech, man speaking"}, {"name": "Ambulance (siren)"}, {"name": "Dog"}, {"name": "Siren"}]


def test_concepts_are_split_at_commas_and_parentheses():
    assert audio_concepts(ONTOLOGY) == ["male speech", "man speaking", "ambulance", "siren", "dog", "siren"]


def test_concepts_of_the_published_ontology(shared):
    concepts = audio_concepts(shared / "annotations" / "audioset_ontology.json")
    assert len(concepts) == 758
    assert concepts[:4] == ["human sounds", "human voice", "speech", "male speech"]


def test_density_by_hand():
    # "dog" and "man speaking" in the first caption, nothing in "Hotdogs!": 2 of 8 words
    captions = ["A dog, dog hears a MAN speaking", "Hotdogs!"]
    assert audio_concept_density(captions, ["dog", "man speaking", "siren"]) == pytest.approx(100 * 2 / 8)


def test_a_concept_given_twice_counts_twice():
    assert audio_concept_density(["a siren wails"], ["siren", "siren"]) == pytest.approx(100 * 2 / 3)


def test_length_counts_words_without_punctuation():
    assert caption_length(["A tick-tock - and a bang .", "rain"]) == 3


def test_annotations_of_every_kind_are_read(tmp_path):
    (tmp_path / "a.csv").write_text("file_name,caption_1,caption_2\nx.wav,one,two\ny.wav,three,\n")
    (tmp_path / "b.csv").write_text("key,sentence\n1,four\n")
    (tmp_path / "c.json").write_text(json.dumps({"video": ["five", "six"]}))
    (tmp_path / "d.json").write_text(json.dumps([{"video_id": "x", "desc": "seven"}]))
    (tmp_path / "e.jsonl").write_text('{"file_name": "x", "captions": ["eight", "nine"]}\n\n')
    read = [read_captions(file) for file in sorted(tmp_path.iterdir())]
    assert read == [["one", "two", "three"], ["four"], ["five", "six"], ["seven"], ["eight", "nine"]]


def test_a_file_of_captions_takes_the_names_that_metadata_takes(tmp_path):
    (tmp_path / "metadata.jsonl").write_text(
        '{"caption": "one", "text": "not this"}\n{"text": "two"}\n{"texts": ["three"]}\n'
    )
    assert read_captions(tmp_path / "metadata.jsonl") == ["one", "two", "three"]


def test_a_file_without_captions_is_named(tmp_path):
    (tmp_path / "ids.csv").write_text("video_id\nvideo0\n")
    with pytest.raises(ValueError, match=r"ids\.csv has no captions"):
        read_captions(tmp_path / "ids.csv")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "key,caption\n1,ein Käfer\n".encode("cp1252"), r"a\.csv is not text in UTF-8: line 2"),
        ("a.csv", b"key,caption\n1," + b"x" * 131_073, r"a\.csv, line 2: this is not CSV \(field larger"),
        ("a.jsonl", b'{"caption": "one"}\n{"caption"', r"a\.jsonl, line 2: this is not JSON"),
        ("a.jsonl", b'{"caption": 3}\n', r"a\.jsonl has no captions"),
        ("a.json", b"[" * 100_000, r"a\.json.* nested more than 64 deep"),
        ("a.json", b"3", r"a\.json has no captions"),
    ],
    ids=itertools.count(),
)
def test_a_damaged_file_of_captions_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_captions(tmp_path / name)


def test_table_stands_beside_the_papers():
    table = caption_statistics({"MSVD": ["a dog barks"], "ours": ["a man"]}, ["dog"])
    assert table.splitlines()[2:] == [
        "| MSVD | 1 | 3.0 | 7.0 | 33.3 | 6.7 |",
        "| ours | 1 | 2.0 |  | 0.0 |  |",
    ]


def test_real_annotations_order_datasets_as_the_paper_does(shared):
    annotations = shared / "annotations"
    files = {
        "MSVD": "msvd/captions_msvd.json",
        "Clotho": "clotho/test.csv",
        "AudioCaps": "audiocaps/test.csv",
        "VALOR-32K": "valor32k/desc_test_from_avqa1.json",
    }
    concepts = audio_concepts(annotations / "audioset_ontology.json")
    captions = {name: read_captions(annotations / file)[:1500] for name, file in files.items()}
    for measure, ours in (
        ("LenCap", {name: caption_length(texts) for name, texts in captions.items()}),
        ("ACD", {name: audio_concept_density(texts, concepts) for name, texts in captions.items()}),
    ):
        assert sorted(ours, key=ours.get) == sorted(ours, key=lambda name: PAPER_STATISTICS[name][measure]), measure


@pytest.mark.parametrize(
    ("captions", "concepts", "message"),
    [(["a dog"], [], "no audio concepts"), ([], ["dog"], "no words"), (["..."], ["dog"], "no words")],
)
def test_density_of_nothing_is_an_error(captions, concepts, message):
    with pytest.raises(ValueError, match=message):
        audio_concept_density(captions, concepts)


def test_papers_statistics_stand_in_its_table_under_the_titles_of_the_benchmarks(shared):
    lines = [re.sub(r"[\s-]", "", line) for line in (shared / "paper.txt").read_text().splitlines()]
    for title, values in PAPER_STATISTICS.items():
        assert title in {benchmark.title for benchmark in BENCHMARKS.values()}
        ending = "".join(str(values[column]) for column in ("LenCap", "ACD"))
        assert any(line.startswith(title.replace("-", "").split()[0]) and line.endswith(ending) for line in lines), (
            title
        )


# ----------------------------------------------------------------------------- valor statistics


@pytest.fixture
def annotations(tmp_path):
    """AudioCaps without its training split, a caption file, a folder and the ontology."""
    rows = {"val": [("y1", "A dog barks.")], "test": [("y2", "Rain, and a siren"), ("y2", "Rain falls")]}
    (tmp_path / "audiocaps").mkdir()
    for split, captions in rows.items():
        with (tmp_path / "audiocaps" / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["audiocap_id", "youtube_id", "start_time", "caption"])
            writer.writerows([number, clip, 0, caption] for number, (clip, caption) in enumerate(captions))
    (tmp_path / "more.json").write_text(json.dumps([{"video_id": "x", "desc": "a man"}]))
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "metadata.jsonl").write_text(
        '{"file_name": "x.mp4", "captions": ["one dog", "two cats here"]}'
    )
    (tmp_path / "ontology.json").write_text(json.dumps(ONTOLOGY))
    return tmp_path


def test_statistics_of_files_benchmarks_and_folders_by_one_command(annotations, capsys):
    more = str(annotations / "more.json")
    sources = ["audiocaps", f"valor32k={more}", more, str(annotations / "clips")]
    assert main(["statistics", *sources, "--annotations", str(annotations)]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        # 9 words with dog and, of two classes, siren
        "| AudioCaps (val, test) | 3 | 3.0 | 8.8 | 33.3 | 17.3 |",
        "| VALOR-32K | 1 | 2.0 | 19.8 | 0.0 | 9.1 |",
        f"| {more} | 1 | 2.0 |  | 0.0 |  |",
        f"| {annotations / 'clips'} | 2 | 2.5 |  | 20.0 |  |",
    ]
    assert main(["statistics", more, "--ontology", str(annotations / "ontology.json"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == {more: {"captions": 1, "LenCap": 2.0, "ACD": 0.0, "paper": {}}}


def test_files_of_one_name_make_one_row(annotations, capsys):
    more = f"ours={annotations / 'more.json'}"
    assert main(["statistics", more, more, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ours"]["captions"] == 2


def test_paragraphs_of_a_benchmark_are_counted_as_their_sentences(tmp_path, capsys):
    sentences = {"v_x": {"duration": 9, "timestamps": [[0, 4], [4, 9]], "sentences": ["A man runs.", " He falls."]}}
    (tmp_path / "train.json").write_text(json.dumps(sentences))
    assert main(["statistics", "activitynet", "--annotations", str(tmp_path), "--json"]) == 0
    printed = capsys.readouterr()
    (row,) = json.loads(printed.out).values()
    assert (row["captions"], row["LenCap"], row["ACD"]) == (2, 2.5, None)
    assert row["paper"] == PAPER_STATISTICS["ActivityNet Captions"] and "ACD is left out" in printed.err


@pytest.mark.parametrize(
    ("source", "message"),
    [("clotho", "no captions of Clotho"), ("nowhere", "nowhere"), ("valor32k=gone.json", "gone.json")],
)
def test_what_has_no_captions_is_said_in_a_sentence(annotations, capsys, source, message):
    assert main(["statistics", source, "--annotations", str(annotations)]) == 1
    assert message in capsys.readouterr().err


def test_a_missing_source_is_named_and_the_others_are_measured(annotations, capsys):
    (annotations / "dots.jsonl").write_text('{"caption": "..."}')
    sources = ["clotho", "audiocaps", f"none={annotations / 'gone.json'}", str(annotations / "dots.jsonl"), "nowhere"]
    assert main(["statistics", *sources, "--annotations", str(annotations)]) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines()[2:] == ["| AudioCaps (val, test) | 3 | 3.0 | 8.8 | 33.3 | 17.3 |"]
    lines = printed.err.splitlines()
    assert len(lines) == 4 and all(line.startswith("valor statistics: ") for line in lines)
    for line, name in zip(lines, ("Clotho", "gone.json", "dots.jsonl", "nowhere"), strict=True):
        assert name in line
    assert main(["statistics", *sources, "--annotations", str(annotations), "--json"]) == 1
    assert list(json.loads(capsys.readouterr().out)) == ["AudioCaps (val, test)"]


@pytest.mark.parametrize("content", ["{", "[1]", '[{"label": "Dog"}]', "1"])
def test_an_odd_ontology_is_named(content, annotations, capsys):
    (annotations / "ontology.json").write_text(content)
    assert main(["statistics", str(annotations / "more.json"), "--annotations", str(annotations)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "ontology.json" in line
