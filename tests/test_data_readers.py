# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Folders and annotation files to samples: every form that is accepted, and clear errors for the others."""

import json
import pickle
from pathlib import Path

import pytest

from modeling_valor.data.readers import read_folder
from modeling_valor.data.records import RecordError, SampleTable, captions_of, media_kind, questions_of
from modeling_valor.data.samples import Question, Sample


EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "media"


def write_rows(folder: Path, rows: list[dict]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


# --- Records ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "captions"),
    [
        ({"captions": ["a dog", "a cat"]}, ("a dog", "a cat")),
        ({"caption": "a dog"}, ("a dog",)),
        ({"text": "a dog", "caption": None}, ("a dog",)),
        ({"captions": '["a dog", "a cat"]'}, ("a dog", "a cat")),
        ({"caption": "[music]"}, ("[music]",)),
        ({"captions": ["a dog", " ", None]}, ("a dog",)),
        ({"label": 3}, ()),
    ],
)
def test_captions_in_every_form(record, captions):
    assert captions_of(record) == captions


RED = Question("what colour?", ("red",))


@pytest.mark.parametrize(
    ("record", "questions"),
    [
        (
            {"qa": [{"question": "what colour?", "answer": "red", "about": "sight", "question_id": 7}]},
            (Question("what colour?", ("red",), "sight", "7"),),
        ),
        ({"qa": '[{"question": "what colour?", "answer": "red"}]'}, (RED,)),
        ({"id": "clip", "question": "what colour?", "answer": "red", "question_id": "q"}, (Question("what colour?", ("red",), id="q"),)),
        ({"id": "clip", "question": "what colour?", "answer": "red"}, (RED,)),
        ({"question": ["what colour?", "how many?"], "answer": ["red", 2]}, (RED, Question("how many?", ("2",)))),
        ({"questions": [{"question": "why?"}]}, (Question("why?"),)),
        ({"question": "what colour?", "answers": [{"answer": "red"}, {"answer": "pink"}]}, (Question("what colour?", ("red", "pink")),)),
        ({"qa": [{"question": "what colour?", "choice": ["blue", "red"], "answer": 1}]}, (RED,)),
        (
            {"qa": [{"question": "what colour?", "answer": ["red", "pink"], "answer_weights": [1.0, 0.3]}]},
            (Question("what colour?", ("red",) * 10 + ("pink",) * 3),),
        ),
        ({"qa": [{"question": "what colour?", "answer": ["red", "pink"], "answer_weights": [1, 1]}]}, (Question("what colour?", ("red", "pink")),)),
        ({"captions": ["a dog"]}, ()),
    ],
)  # fmt: skip
def test_questions_in_every_form(record, questions):
    assert questions_of(record) == questions


@pytest.mark.parametrize(
    "record",
    [
        {"captions": 3},
        {"captions": ["a dog", 3]},
        {"qa": {"question": "why?"}},
        {"qa": [{"answer": "red"}]},
        {"question": ["a?", "b?"], "answer": ["one"]},
        {"qa": [{"question": "why?", "answer": {"text": "so"}}]},
        {"qa": [{"question": "why?", "answer": 2, "choice": ["a", "b"]}]},
        {"qa": [{"question": "why?", "answer": ["a", "b"], "answer_weights": [1.0]}]},
    ],
)
def test_other_forms_are_errors(record):
    with pytest.raises(RecordError):
        captions_of(record)
        questions_of(record)


def test_a_table_is_a_sequence_that_travels_to_workers():
    table = SampleTable([["a", 1], ["b", 2], ["c", 3]], tuple)
    for copy in (table, pickle.loads(pickle.dumps(table))):
        assert list(copy) == [("a", 1), ("b", 2), ("c", 3)]
        assert copy[-1] == ("c", 3) and copy[1:] == [("b", 2), ("c", 3)]
    with pytest.raises(IndexError):
        table[3]


def test_media_kinds_go_by_suffix():
    kinds = {name: media_kind(name) for name in ("a.MP4", "b/c.d.jpg", "e.flac", "frames/clip.0", "f.txt")}
    assert list(kinds.values()) == ["video", "image", "audio", None, None]


# --- Folders ----------------------------------------------------------------------------------------------------------


def test_a_folder_of_the_world_gives_its_clips_captions_and_questions():
    samples = read_folder(EXAMPLES)
    rows = [json.loads(line) for line in (EXAMPLES / "metadata.jsonl").read_text().splitlines()]
    assert [sample.id for sample in samples] == ["clip-00000", "clip-00001"]
    for sample, row in zip(samples, rows, strict=True):
        assert sample.video == sample.audio == str(EXAMPLES / row["file_name"])
        assert sample.captions == tuple(row["captions"])
        asked = [{"question": q.text, "answer": q.answers[0], "about": q.type} for q in sample.questions]
        assert asked == row["qa"]


def test_what_a_row_is_goes_by_the_names_of_its_files(tmp_path):
    folder = write_rows(
        tmp_path,
        [
            {"file_name": "sub/a.mp4", "text": "video"},
            {"file_name": "b.jpg", "caption": "image"},
            {"file_name": "c.wav", "caption": "sound"},
            {"file_name": "frames/d.0"},
            {"file_name": "frames/e", "audio_file_name": "e.wav", "id": 5},
            {"file_name": "f.mp4", "audio_file_name": None},
            {"file_name": None, "audio_file_name": "g.wav"},
        ],
    )
    expected = [
        ("sub/a", "sub/a.mp4", "sub/a.mp4", ("video",)),
        ("b", "b.jpg", None, ("image",)),
        ("c", None, "c.wav", ("sound",)),
        ("frames/d.0", "frames/d.0", None, ()),
        ("5", "frames/e", "e.wav", ()),
        ("f", "f.mp4", None, ()),
        ("g", None, "g.wav", ()),
    ]
    for sample, (name, video, audio, captions) in zip(read_folder(folder), expected, strict=True):
        paths = [None if file is None else str(folder / file) for file in (video, audio)]
        assert sample == Sample(name, *paths, captions=captions)


def test_a_csv_file_holds_lists_as_json(tmp_path):
    (tmp_path / "metadata.csv").write_text(
        'file_name,captions,qa\na.mp4,"[""one"", ""two""]","[{""question"": ""why?"", ""answer"": ""so""}]"\nb.mp4,three,\n'
    )
    first, second = read_folder(tmp_path)
    assert first.captions == ("one", "two") and first.questions == (Question("why?", ("so",)),)
    assert second.captions == ("three",) and second.questions == ()


def test_a_split_is_a_subfolder_or_a_column(tmp_path):
    write_rows(tmp_path / "one" / "test", [{"file_name": "a.mp4"}])
    assert read_folder(tmp_path / "one", "test")[0].video == str(tmp_path / "one" / "test" / "a.mp4")
    rows = [{"file_name": f"{index}.mp4", "split": ("train", "test", None)[index % 3]} for index in range(6)]
    folder = write_rows(tmp_path / "two", rows)
    assert [sample.id for sample in read_folder(folder, "test")] == ["1", "2", "4", "5"]
    assert len(read_folder(folder)) == 6
    assert len(read_folder(write_rows(tmp_path / "three", [{"file_name": "a.mp4"}]), "test")) == 1


def test_a_folder_of_another_split_is_refused(tmp_path):
    folder = write_rows(tmp_path, [{"file_name": "a.mp4"}])
    (folder / ".world.json").write_text('{"split": "train", "seed": 0}')
    assert len(read_folder(folder, "train")) == 1
    with pytest.raises(ValueError, match="of the split 'train', not of 'test'"):
        read_folder(folder, "test")
    write_rows(tmp_path / "rows", [{"file_name": "a.mp4", "split": "train"}])
    with pytest.raises(ValueError, match=r"splits \['train'\], and none of 'test'"):
        read_folder(tmp_path / "rows", "test")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: this is not JSON"),
        ("[1]", "line 2: a row must be a JSON object"),
        ('{"captions": ["a dog"]}', "line 2: a row must name its media file"),
        ('{"file_name": "b.mp4", "qa": 3}', "line 2: questions must be a list"),
    ],
)
def test_a_bad_row_is_named(tmp_path, line, message):
    (tmp_path / "metadata.jsonl").write_text(f'{{"file_name": "a.mp4"}}\n{line}\n')
    with pytest.raises(ValueError, match=message):
        read_folder(tmp_path)


def test_a_folder_without_metadata_says_what_it_needs(tmp_path):
    with pytest.raises(ValueError, match=r"has no metadata\.jsonl or metadata\.csv"):
        read_folder(tmp_path)
    (tmp_path / "metadata.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="has no rows"):
        read_folder(tmp_path)
