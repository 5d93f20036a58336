# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Folders and annotation files to samples: every form that is accepted, and clear errors for the others."""

import io
import itertools
import json
import logging
import math
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import datasets
import pytest
import torch
from PIL import Image

from modeling_valor.data.readers import load_samples, read_folder, read_valor_2023
from modeling_valor.data.readers.benchmarks.rows import read_ids
from modeling_valor.data.readers.hub_datasets import samples_from_dataset, stream_from_dataset
from modeling_valor.data.readers.records import captions_of, questions_of
from modeling_valor.data.readers.text_files import read_names
from modeling_valor.data.samples import Question, RecordError, Sample, SampleStream, SampleTable
from modeling_valor.media import MediaError, read_frames, read_image
from modeling_valor.media_sources import media_kind


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
            {"file_name": "h.mp4#t=30.5,40", "caption": "part"},
            {"file_name": "h.mp4#t=40,50", "caption": "another"},
            {"file_name": "i.wav#t=1", "caption": "part of a sound"},
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
        ("h#t=30.5,40", "h.mp4#t=30.5,40", "h.mp4#t=30.5,40", ("part",)),
        ("h#t=40,50", "h.mp4#t=40,50", "h.mp4#t=40,50", ("another",)),
        ("i#t=1", None, "i.wav#t=1", ("part of a sound",)),
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


@pytest.mark.parametrize(("separator", "name"), [(";", "semicolons"), ("\t", "tabs")])
def test_a_table_with_another_separator_is_named(tmp_path, separator, name):
    (tmp_path / "metadata.csv").write_text(f"file_name{separator}caption\na.mp4{separator}a dog, barking\n")
    with pytest.raises(ValueError, match=f"line 1: the columns are separated by {name}; save the file with commas"):
        read_folder(tmp_path)


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
    with pytest.raises(
        ValueError, match=r"of the split 'train', not of 'test': ask for 'train', or render .*--split test`"
    ):
        read_folder(folder, "test")
    write_rows(tmp_path / "rows", [{"file_name": "a.mp4", "split": "train"}])
    with pytest.raises(ValueError, match=r"splits \['train'\], and none of 'test': ask for one of these"):
        read_folder(tmp_path / "rows", "test")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: this is not JSON"),
        ('{"video": "b.mp4", "text": "a dog"}', "this one has video, text"),
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


# --- Columns of `datasets` --------------------------------------------------------------------------------------------


PICTURE = Image.new("RGB", (4, 4), "red")


def encoded(picture) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def clips_dataset() -> datasets.Dataset:
    """Two rows with the example clips, their sound as a column, three frames, an image, texts."""
    paths = [str(EXAMPLES / f"clip-0000{index}.mp4") for index in range(2)]
    features = datasets.Features(
        {
            "video": datasets.Video(),
            "frames": datasets.List(datasets.Image()),
            "image": datasets.Image(),
            "caption": datasets.Value("string"),
            "qa": datasets.List({"question": datasets.Value("string"), "answer": datasets.Value("string")}),
        }
    )
    rows = {
        "video": paths,
        "frames": [[PICTURE] * 3] * 2,
        "image": [PICTURE] * 2,
        "caption": ["a dog", "a cat"],
        "qa": [[{"question": "why?", "answer": "so"}], []],
    }
    return datasets.Dataset.from_dict(rows, features).add_column("audio", paths).cast_column("audio", datasets.Audio())


def test_columns_go_by_type_and_nothing_is_decoded():
    samples = samples_from_dataset(clips_dataset())
    clip = str(EXAMPLES / "clip-00000.mp4")
    assert len(samples) == 2 and samples[0] == Sample("0", clip, clip, ("a dog",), (Question("why?", ("so",)),))
    assert [sample.id for sample in samples[-1:]] == ["1"]
    assert list(pickle.loads(pickle.dumps(samples))) == list(samples)


def test_columns_of_frames_and_images_carry_the_encoded_bytes():
    dataset = clips_dataset()
    frames = samples_from_dataset(dataset.remove_columns(["video", "image", "audio"]))[1]
    assert frames == Sample("1", [encoded(PICTURE)] * 3, None, ("a cat",))
    assert samples_from_dataset(dataset.select_columns("image"))[0] == Sample("0", encoded(PICTURE))


def test_a_video_without_a_column_of_sound_brings_its_own():
    dataset = clips_dataset().remove_columns("audio")
    assert samples_from_dataset(dataset)[0].audio == str(EXAMPLES / "clip-00000.mp4")
    assert samples_from_dataset(dataset, {"audio": None})[0].audio is None


def test_named_columns_override_what_would_be_found():
    rows = {
        "left": ["a.mp4"], "right": ["b.mp4"], "title": ["a dog"], "more": ["it runs"], "caption": ["no"],
        "ask": ["why?"], "say": [["so", "thus"]], "name": ["x"], "about": ["sight"],
    }  # fmt: skip
    columns = {"video": "right", "caption": ["title", "more"], "question": "ask", "answer": "say", "id": "name"}
    expected = Sample("x", "b.mp4", "b.mp4", ("a dog", "it runs"), (Question("why?", ("so", "thus"), "sight"),))
    assert samples_from_dataset(datasets.Dataset.from_dict(rows), columns)[0] == expected


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ({"label": [1]}, None, "none of the columns label is of the type Video"),
        ({"image": [1]}, None, "none of the columns image"),
        ({"video": ["a.mp4"]}, {"captions": "title"}, "no column 'title', only video"),
        ({"video": ["a.mp4"]}, {"subtitles": "video"}, "can only be one of video, audio, id, captions"),
        ({"video": ["a.mp4"]}, {"video": ["video", "video"]}, "gives 2 columns for 'video'"),
    ],
)
def test_columns_that_cannot_be_used_are_named(rows, columns, message):
    with pytest.raises(ValueError, match=message):
        samples_from_dataset(datasets.Dataset.from_dict(rows), columns)


def test_several_columns_of_one_type_need_a_choice():
    features = datasets.Features({"left": datasets.Video(), "right": datasets.Video()})
    dataset = datasets.Dataset.from_dict({"left": ["a.mp4"], "right": ["b.mp4"]}, features)
    with pytest.raises(ValueError, match="left, right might all be the video"):
        samples_from_dataset(dataset)
    assert samples_from_dataset(dataset, {"video": "left"})[0].video == "a.mp4"


def numbered_stream(shards: int, known: bool = True, size: int = 12):
    """A stream of `size` rows in shards, with the number of each row as its caption."""
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    per_shard = size // shards

    def rows(starts):
        for start in starts:
            for number in range(start, start + per_shard):
                yield {
                    "image": PICTURE if known else {"bytes": encoded(PICTURE), "path": None},
                    "caption": str(number),
                }

    return datasets.IterableDataset.from_generator(
        rows, features if known else None, gen_kwargs={"starts": list(range(0, size, per_shard))}
    )


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("partitions", [1, 3])
def test_partitions_of_a_stream_are_disjoint_and_complete(known, shards, partitions):
    stream = stream_from_dataset(numbered_stream(shards, known), shuffle_buffer=5)
    orders = []
    for epoch in (0, 1, 0):
        parts = [list(stream.samples(part, partitions, epoch, seed=3)) for part in range(partitions)]
        order = [sample.captions[0] for part in parts for sample in part]
        assert sorted(map(int, order)) == list(range(12)) and all(parts)
        assert len({sample.id for part in parts for sample in part}) == 12
        assert parts[0][0].video == encoded(PICTURE) and parts[0][0].audio in (None, encoded(PICTURE))
        orders.append(order)
    assert orders[0] == orders[2] != orders[1]


def test_a_worker_of_a_data_loader_gets_its_whole_partition():
    stream = stream_from_dataset(numbered_stream(4))

    class Part(torch.utils.data.IterableDataset):
        def __iter__(self):
            worker = torch.utils.data.get_worker_info()
            return (sample.captions[0] for sample in stream.samples(worker.id, worker.num_workers, 0, 0))

    numbers = list(torch.utils.data.DataLoader(Part(), batch_size=None, num_workers=2))
    assert sorted(map(int, numbers)) == list(range(12))


def test_a_stream_of_the_folder_convention_finds_its_columns():
    streamed = datasets.load_dataset("videofolder", data_dir=str(EXAMPLES), split="train", streaming=True)
    samples = list(stream_from_dataset(streamed, shuffle_buffer=0).samples(0, 1, 0, 0))
    expected = read_folder(EXAMPLES)
    assert [sample.captions for sample in samples] == [sample.captions for sample in expected]
    assert [sample.questions for sample in samples] == [sample.questions for sample in expected]
    assert all(Path(sample.video).samefile(other.video) for sample, other in zip(samples, expected, strict=True))


def test_a_file_in_an_archive_is_read_as_a_stream(tmp_path):
    archive = tmp_path / "media.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a/red.png", encoded(PICTURE))
    rows = datasets.Dataset.from_dict({"image": [f"zip://a/red.png::{archive}"]}).cast_column(
        "image", datasets.Image()
    )
    video = samples_from_dataset(rows)[0].video
    for _ in range(2):
        assert read_image(video).shape == (3, 4, 4)
    with pytest.raises(MediaError, match=r"blue\.png"):
        read_image(f"zip://a/blue.png::{archive}")


# --- The 2023 layout --------------------------------------------------------------------------------------------------


@pytest.fixture
def layout(tmp_path) -> Path:
    """Two splits of four clips: frames of all, raw videos, sound of all but one."""
    names = [f"video{n}" for n in range(4)]
    (tmp_path / "standardsplit_train_id.json").write_text(json.dumps(names[:3]))
    (tmp_path / "standardsplit_test_id.json").write_text(json.dumps(names[3:]))
    texts = {name: [f"a man {name}", f"he {name}"] for name in names} | {"video3": "a bird"}
    (tmp_path / "txt_mapper.json").write_text(json.dumps(texts))
    asked = {name: [{"question": "who?", "answer": "man"}, {"question": "is it?", "answer": "yes"}] for name in names}
    (tmp_path / "txt_mapper_vqa.json").write_text(json.dumps(asked))
    references = [{"video_id": name, "caption": f"{name} {n}"} for n in range(3) for name in names]
    (tmp_path / "caption_annotation.json").write_text(json.dumps(references))
    for name in names:
        folder = tmp_path / "frames_fps4" / name
        folder.mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (4, 4), (100 * number, 0, 0)).save(folder / f"frame_000{number}.jpg")
    (tmp_path / "raw_videos").mkdir()
    (tmp_path / "audio_22050hz").mkdir()
    for name in names[1:]:
        (tmp_path / "raw_videos" / f"{name}.mp4").touch()
        (tmp_path / "audio_22050hz" / f"{name}.wav").touch()
    return tmp_path


def test_the_2023_layout_gives_frames_sound_and_captions(layout):
    samples = read_valor_2023(layout, "train")
    frames, sounds = layout / "frames_fps4", layout / "audio_22050hz"
    assert list(samples) == [
        Sample("video0", str(frames / "video0"), None, ("a man video0", "he video0")),
        Sample("video1", str(frames / "video1"), str(sounds / "video1.wav"), ("a man video1", "he video1")),
        Sample("video2", str(frames / "video2"), str(sounds / "video2.wav"), ("a man video2", "he video2")),
    ]
    assert read_valor_2023(layout, "standardsplit_test")[0].captions == ("a bird",)
    assert read_frames(samples[0].video, 3).frames[:, 0].float().mean((1, 2)).diff().gt(50).all()


def test_the_2023_layout_with_questions_and_references(layout):
    (asked,) = read_valor_2023(layout, "test", texts="txt_mapper_vqa.json")
    assert asked.captions == () and asked.questions == (Question("who?", ("man",)), Question("is it?", ("yes",)))
    both = read_valor_2023(layout, "test", texts=["txt_mapper.json", "txt_mapper_vqa.json"])[0]
    assert both.captions == ("a bird",) and both.questions == asked.questions
    told = read_valor_2023(layout, "test", annotations="caption_annotation.json")[0]
    assert told.captions == ("video3 0", "video3 1", "video3 2")
    coco = {"annotations": [{"id": n, "image_id": 3, "caption": f"{n}"} for n in range(2)]}
    (layout / "coco.json").write_text(json.dumps(coco))
    (layout / "number_id.json").write_text("[3]")
    (layout / "txt_mapper.json").unlink()
    (layout / "txt_mapper_vqa.json").unlink()
    assert read_valor_2023(layout, "number", annotations="coco.json")[0].captions == ("0", "1")


def test_the_2023_layout_with_raw_videos_images_and_their_own_sound(layout):
    for sounds in (layout / "audio_22050hz").iterdir():
        sounds.unlink()
    (layout / "audio_22050hz").rmdir()
    silent, *others = read_valor_2023(layout, "train", media="raw_videos")
    assert silent.video == str(layout / "raw_videos" / "video0")  # is absent: told when it is loaded
    assert all(sample.video == sample.audio == str(layout / "raw_videos" / f"{sample.id}.mp4") for sample in others)
    (layout / "coco").mkdir()
    (layout / "coco" / "COCO_1.jpg").touch()
    (layout / "coco_id.txt").write_text("COCO_1.jpg\n\nCOCO_1\n")
    (layout / "texts.json").write_text('{"COCO_1": ["a dog"], "COCO_1.jpg": "a cat"}')
    images = read_valor_2023(layout, "coco", texts="texts.json", media="coco")
    assert [(sample.video, sample.audio) for sample in images] == [(str(layout / "coco" / "COCO_1.jpg"), None)] * 2


def test_what_is_absent_or_ambiguous_in_the_2023_layout_is_told(layout):
    with pytest.raises(ValueError, match=r"has no val_id\.json"):
        read_valor_2023(layout, "val")
    (layout / "1KAsplit_train_id.json").write_text('["video9"]')
    with pytest.raises(
        ValueError, match=r"choose one of 1KAsplit_train_id\.json, standardsplit_train_id\.json as `ids`"
    ):
        read_valor_2023(layout, "train")
    with pytest.raises(ValueError, match=r"1 of the 1 samples of .* have no text, such as video9"):
        read_valor_2023(layout, "train", ids="1KAsplit_train_id.json")
    missing = pytest.raises(ValueError, match=r"speech, given as `audio`, does not exist")
    with missing:
        read_valor_2023(layout, "test", audio="speech")
    with pytest.warns(FutureWarning, match="`sound` is now called `audio`"), missing:
        read_valor_2023(layout, "test", sound="speech")
    (layout / "frames_fps1").mkdir()
    with pytest.raises(ValueError, match="choose one of frames_fps1, frames_fps4 as `media`"):
        read_valor_2023(layout, "test")
    for content, message in (
        ("[", "is not JSON"),
        ("[]", "must be an object"),
        ('{"video3": [3]}', "'video3': captions"),
    ):
        (layout / "bad.json").write_text(content)
        with pytest.raises(ValueError, match=message):
            read_valor_2023(layout, "test", texts="bad.json")
    (layout / "bad_id.json").write_text("[]")
    with pytest.raises(ValueError, match="must be a list of the samples' names"):
        read_valor_2023(layout, "bad")


@pytest.mark.parametrize("read", [read_names, read_ids])
def test_lists_of_names_are_read_alike_by_all_layouts(read, tmp_path):
    for name, content in (("a.json", '["b", 7]'), ("a.txt", "b\n\n 7 \n")):
        (tmp_path / name).write_text(content)
        assert read(tmp_path / name) == ["b", "7"]
    for name, content in (("a.json", "[]"), ("a.json", '{"b": 1}'), ("a.json", "[true]"), ("a.txt", "\n")):
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match="must be a list of the samples' names, and not empty"):
            read(tmp_path / name)


# --- One string -------------------------------------------------------------------------------------------------------


def test_a_string_says_what_it_names(layout, tmp_path_factory, monkeypatch):
    tmp_path = tmp_path_factory.mktemp("anything")
    assert [sample.id for sample in load_samples(str(EXAMPLES))] == ["clip-00000", "clip-00001"]
    assert len(load_samples(EXAMPLES / "metadata.jsonl", "test")) == 2
    moved = load_samples(EXAMPLES, media="elsewhere", annotations=str(EXAMPLES / "metadata.jsonl"))
    assert moved[0].video == os.path.join("elsewhere", "clip-00000.mp4")
    assert len(load_samples(layout, "train")) == 3
    assert load_samples(layout, "test", annotations="caption_annotation.json")[0].captions[0] == "video3 0"
    clips_dataset().save_to_disk(tmp_path / "saved")
    assert load_samples(tmp_path / "saved")[1].captions == ("a cat",)
    datasets.DatasetDict(train=clips_dataset()).save_to_disk(tmp_path / "splits")
    assert len(load_samples(tmp_path / "splits", "train", columns={"video": "image"})) == 2
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(EXAMPLES / "clip-00000.mp4", "clip.mp4")
    stream = load_samples(str(tmp_path / "{a,a}.tar"), shuffle_buffer=0)
    assert isinstance(stream, SampleStream) and [s.id for s in stream.samples(0, 1, 0, 0)] == ["clip", "clip"]

    asked = []
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *args, **kwargs: asked.append((args, kwargs)) or clips_dataset()
    )
    assert load_samples("owner/name", "train", columns={"audio": None})[0].audio is None
    assert asked == [(("owner/name",), {"split": "train"})]
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: numbered_stream(2))
    assert isinstance(load_samples("owner/name", "train", streaming=True, shuffle_buffer=0), SampleStream)


def test_a_benchmark_goes_by_its_name(monkeypatch):
    from modeling_valor.data import readers

    name = next(iter(readers.BENCHMARKS))
    monkeypatch.setattr(readers, "load_benchmark", lambda *args, **kwargs: (args, kwargs))
    assert load_samples(name, "test", media="m", annotations="a") == (
        (name, "test"),
        {"media": "m", "annotations": "a"},
    )


def test_other_strings_are_told_what_is_accepted(layout, tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("nothing here", "a/b/c", "/absent/folder"):
        with pytest.raises(ValueError, match=r"is no dataset\. Accepted are a benchmark \(.*, a folder with"):
            load_samples(name, "train")
    with pytest.raises(ValueError, match="is a folder, but no dataset"):
        load_samples(tmp_path / "empty", "train")
    (tmp_path / "empty" / "clip.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match=r'is a folder of media without metadata\.jsonl or .*"captions": \["a dog'):
        load_samples(tmp_path / "empty", "train")
    with pytest.raises(ValueError, match="choose a split"):
        load_samples(layout)
    with pytest.raises(ValueError, match="choose a split, such as 'train'"):
        load_samples("owner/name")


def test_real_columns_of_captions(shared, tmp_path):
    rows = [json.loads(line) for line in (shared / "data" / "flickr1k_manifest.jsonl").read_text().splitlines()]
    (tmp_path / "metadata.jsonl").write_text(
        "".join(json.dumps({**row, "file_name": row["file"]}) + "\n" for row in rows)
    )
    samples = read_folder(tmp_path)
    assert len(samples) == 1000 and all(len(sample.captions) == 5 for sample in samples)


# --- Damage and attack ------------------------------------------------------------------------------------------------

DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.csv", "file_name,caption\na.mp4,ein Hund\nb.mp4,ein Käfer\n".encode("cp1252"), r"metadata\.csv is not text in UTF-8: line 3, .* at byte 44; save the file in UTF-8"),
        ("metadata.jsonl", '{"file_name": "a.mp4"}\n{"file_name": "é.mp4"}\n'.encode("latin-1"), r"metadata\.jsonl is not text in UTF-8: line 2, .* at byte 38"),
        ("metadata.jsonl", '{"file_name": "a.mp4"}\n'.encode("utf-16"), r"metadata\.jsonl is not text in UTF-8: line 1, .*as UTF-16 has"),
        ("metadata.csv", "file_name,caption\na.mp4,b\n".encode("utf-16"), r"metadata\.csv is not text in UTF-8: line 1, .*as UTF-16 has"),
        ("metadata.csv", "file_name,caption\na.mp4,b\n".encode("utf-16-le"), r"metadata\.csv is not text in UTF-8: line 1 .*as UTF-16 has"),
        ("metadata.jsonl", '{"file_name": "a.mp4"}\n{"file_name": "b.mp4", "captions": DEEP}\n'.replace("DEEP", DEEP), r"metadata\.jsonl, line 2: .*nested more than 64 deep"),
        ("metadata.jsonl", '{"file_name": "a.mp4"}\n\n{"file_name": "b.mp4", "x": %s}\n' % ("[" * 80 + "]" * 80), r"metadata\.jsonl, line 3: .*nested more than 64 deep"),
        ("metadata.csv", f'file_name,captions\na.mp4,b\nc.mp4,"{DEEP[:60_000]}{DEEP[-60_000:]}"\n', r"metadata\.csv, line 3: .*nested more than 64 deep"),
        ("metadata.csv", f"file_name,caption\na.mp4,b\nc.mp4,{'x' * 131_073}\n", r"metadata\.csv, line 3: this is not CSV \(field larger than field limit \(131072\)\): a quotation mark"),
        ("metadata.csv", "file_name,caption\na.mp4,a dog, barking\n", r"metadata\.csv, line 2: there are more columns than the 2"),
        ("metadata.csv", "file_name,caption,caption\na.mp4,one,two\n", r"metadata\.csv, line 1: .*several are 'caption'"),
        ("metadata.jsonl", r'{"file_name": "a.mp4", "caption": "\ud83d"}', r"metadata\.jsonl, line 1: .*half of a surrogate pair"),
        ("metadata.jsonl", r'{"file_name": "\udce9.mp4"}', r"metadata\.jsonl, line 1: .*half of a surrogate pair"),
        ("metadata.jsonl", '{"file_name": "a.mp4", "x": %s}' % ("9" * 5000), r"metadata\.jsonl, line 1: this is not JSON"),
    ],
    ids=itertools.count(),
)  # fmt: skip
def test_damaged_metadata_is_an_error_with_file_and_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as error:
        read_folder(tmp_path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_whole_surrogate_pairs_trailing_commas_and_byte_order_marks_are_fine(tmp_path):
    row = '\ufeff{"file_name": "a.mp4", "captions": ["\\ud83d\\ude00", "\ufeffa dog"], "title": "C:\\\\ud800"}\n'
    (tmp_path / "metadata.jsonl").write_text(row + row)
    assert [sample.captions for sample in read_folder(tmp_path)] == [("\U0001f600", "a dog")] * 2
    (tmp_path / "metadata.jsonl").unlink()
    (tmp_path / "metadata.csv").write_text("\ufefffile_name,caption,,\na.mp4,\ufeffa dog,,\n\nb.mp4\n")
    assert [(sample.id, sample.captions) for sample in read_folder(tmp_path)] == [("a", ("a dog",)), ("b", ())]


@pytest.mark.parametrize(
    "weights",
    [[1e9, 1], [math.inf, 1], [math.nan, 1], ["0.3", 1], [-1, 5], [0, 0], [True, 1], [600, 600], 3, [1], [10**400, 1]],
)
def test_weights_of_answers_are_bounded_numbers(weights):
    record = {"qa": [{"question": "what?", "answer": ["red", "pink"], "answer_weights": weights}]}
    with pytest.raises(RecordError, match="answer_weights") as error:
        questions_of(record)
    assert len(str(error.value)) < 250


def test_an_answer_of_no_weight_is_left_out():
    record = {"qa": [{"question": "what?", "answer": ["red", "pink", "blue"], "answer_weights": "[0.3, 0, 1]"}]}
    assert questions_of(record)[0].answers == ("red",) * 3 + ("blue",) * 10


@pytest.mark.parametrize("name", ["../out.mp4", "/elsewhere/out.mp4", "sub/../../out.mp4"])
def test_files_outside_of_the_folder_are_said_once(tmp_path, caplog, monkeypatch, name):
    monkeypatch.setattr(logging.getLogger("modeling_valor"), "propagate", True)
    folder = write_rows(
        tmp_path / "data", [{"file_name": name}, {"file_name": "in/../a.mp4"}, {"file_name": "b..mp4"}]
    )
    with caplog.at_level("WARNING"):
        samples = read_folder(folder)
    assert samples[0].video == os.path.join(folder, name)
    (message,) = [record.getMessage() for record in caplog.records]
    assert f"names 1 files outside of {folder}, such as {name}; they are read, too" in message


def test_clips_outside_of_the_2023_layout_are_said_once(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("modeling_valor"), "propagate", True)
    (tmp_path / "frames").mkdir()
    (tmp_path / "test_id.json").write_text('["../../secret", "a", "b.0_1.0"]')
    (tmp_path / "txt_mapper.json").write_text('{"../../secret": "x", "a": "y", "b.0_1.0": "z"}')
    with caplog.at_level("WARNING"):
        assert len(read_valor_2023(tmp_path, "test")) == 3
    (message,) = [record.getMessage() for record in caplog.records]
    assert "names 1 files outside of" in message and "../../secret" in message


def test_no_annotation_of_a_benchmark_leads_out_of_its_media(tmp_path):
    (tmp_path / "secret_1.000_2.000.mp4").write_bytes(b"x")
    (tmp_path / "media" / "videos").mkdir(parents=True)
    clips = ["../secret_1.000_2.000", f"{tmp_path}/secret_1.000_2.000", "a_1.000_2.000"]
    (tmp_path / "media" / "videos" / "a_1.000_2.000.mp4").write_bytes(b"x")
    (tmp_path / "media" / "desc_test.json").write_text(json.dumps([{"video_id": clip, "desc": "x"} for clip in clips]))
    (sample,) = load_samples("valor32k", "test", media=str(tmp_path / "media"))
    assert sample.id == "a_1.000_2.000"


def test_deep_or_broken_files_of_the_2023_layout_and_of_benchmarks_are_named(tmp_path):
    (tmp_path / "frames").mkdir()
    (tmp_path / "test_id.json").write_text('["a"]')
    for content in (
        '{"a": [{"question": "x", "y": DEEP}]}'.replace("DEEP", DEEP),
        '{"a": %s}' % ("[" * 80 + "]" * 80),
    ):
        (tmp_path / "txt_mapper.json").write_text(content)
        with pytest.raises(ValueError, match=r"txt_mapper\.json.* nested more than 64 deep"):
            read_valor_2023(tmp_path, "test")
    (tmp_path / "desc_test.json").write_text('[{"video_id": "a_1_2", "desc": DEEP}]'.replace("DEEP", DEEP))
    with pytest.raises(ValueError, match=r"desc_test\.json: .* nested more than 64 deep"):
        load_samples("valor32k", "test", annotations=str(tmp_path))
    (tmp_path / "desc_test.json").write_text('[{"video_id": "a_1_2", "desc": "\\ud800"}]')
    with pytest.raises(ValueError, match=r"desc_test\.json: .*half of a surrogate pair"):
        load_samples("valor32k", "test", annotations=str(tmp_path))
    (tmp_path / "desc_test.json").write_text('\ufeff[{"video_id": "a_1_2", "desc": "\\ufeffa dog"}]')
    assert load_samples("valor32k", "test", annotations=str(tmp_path))[0].captions == ("a dog",)


def test_a_damaged_note_of_a_world_is_named(tmp_path):
    folder = write_rows(tmp_path, [{"file_name": "a.mp4"}])
    (folder / ".world.json").write_text("{")
    with pytest.raises(ValueError, match=r"\.world\.json, line 1: this is not JSON"):
        read_folder(folder, "train")


def test_a_row_of_a_dataset_that_cannot_be_used_is_one_sample(tmp_path):
    rows = [{"video": "a.mp4", "captions": '["a", 3]'}, {"video": "b.mp4", "captions": "fine"}]
    stream = stream_from_dataset(datasets.IterableDataset.from_generator(lambda: iter(rows)), shuffle_buffer=0)
    for samples in (samples_from_dataset(datasets.Dataset.from_list(rows)), list(stream.samples(0, 1, 0, 0))):
        bad, fine = samples
        assert fine.captions == ("fine",) and "row 0" in bad.id and "captions must be a text" in bad.id
        with pytest.raises(MediaError, match="row 0"):
            read_image(bad.video)


def test_a_stream_of_rows_that_breaks_off_is_named_after_what_stood_before():
    def rows():
        yield {"video": "a.mp4"}
        raise ConnectionError("the server has gone")

    stream = stream_from_dataset(datasets.IterableDataset.from_generator(rows), shuffle_buffer=0)
    first, broken = stream.samples(0, 1, 0, 0)
    assert first.video == "a.mp4" and "rows after 0" in broken.id and "the server has gone" in broken.id
