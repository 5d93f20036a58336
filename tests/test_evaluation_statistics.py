# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Statistics of captions by hand, and on the annotation files beside the repository."""

import json

import pytest

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


def test_a_file_without_captions_is_named(tmp_path):
    (tmp_path / "ids.csv").write_text("video_id\nvideo0\n")
    with pytest.raises(ValueError, match=r"ids\.csv has no captions"):
        read_captions(tmp_path / "ids.csv")


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
