# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What the training commands train on and what they measure: never the same samples, unless that is asked for."""

import io
import json
import tarfile

import pytest
from datasets import Dataset as HubDataset
from datasets import DatasetDict

from helpers.training_world import small_config, small_processor, small_samples
from modeling_valor import ValorForRetrieval
from modeling_valor.data.failures import TooManyFailures
from modeling_valor.data.loading import LoadingOptions
from modeling_valor.data.mixture import RequestSampler, Source
from modeling_valor.data.readers import has_splits, load_samples
from modeling_valor.data.samples import Sample, each_sample
from modeling_valor.data.splits import hold_out, split_names
from modeling_valor.training import data as training_data
from modeling_valor.training.arguments import DataArguments, ValorTrainingArguments
from modeling_valor.training.data import build_evaluation, build_source, read_data


@pytest.fixture
def warnings(monkeypatch):
    """What was said in warnings."""
    said = []
    for name in ("warning", "warning_once"):
        monkeypatch.setattr(training_data.logger, name, lambda message, *args: said.append(message))
    return said


@pytest.fixture
def data(tmp_path):
    """`data(**arguments)`: ids that are trained, and ids that are measured."""

    def read(do_train: bool = True, **arguments) -> tuple[list[str], list[str]]:
        training = ValorTrainingArguments(
            output_dir=str(tmp_path / "output"), do_train=do_train, do_eval=True, use_cpu=True, report_to="none"
        )
        sources, measured = read_data(DataArguments(**arguments), training, task="retrieval")
        trained = [sample.id for source in sources for sample in each_sample(source.samples)]
        return trained, [sample.id for sample in measured["retrieval"][1]]

    return read


def write_rows(folder, names, **fields):
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"file_name": f"{name}.mp4", "captions": ["a bell rings"], **fields} for name in names]
    with open(folder / "metadata.jsonl", "a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return str(folder)


def write_shard(path, names):
    with tarfile.open(path, "w") as archive:
        for name in names:
            for suffix in ("mp4", "txt"):
                member = tarfile.TarInfo(f"{name}.{suffix}")
                member.size = 4
                archive.addfile(member, io.BytesIO(b"word"))
    return str(path)


def test_a_folder_without_splits_is_never_measured_on_what_it_trains(tmp_path, data, warnings):
    """README's own line, `--dataset my_videos --do_train --do_eval`."""
    names = {f"clip{index}" for index in range(30)}
    trained, measured = data(dataset=write_rows(tmp_path / "my_videos", sorted(names)))
    assert len(measured) == 3 and not set(trained) & set(measured) and set(trained) | set(measured) == names
    (sentence,) = warnings
    assert "my_videos has no splits: 10% of it" in sentence and "--validation_share" in sentence
    # The same ones whatever the order of the rows, the folder's place and the other arguments
    moved = write_rows(tmp_path / "moved", sorted(names, reverse=True))
    warnings.clear()
    assert set(data(dataset=moved, do_train=False)[1]) == names
    assert "all of it is measured, also what a training may have used. --validation_share 0.1" in warnings[0]
    assert set(data(dataset=moved, validation_share=0.1)[1]) == set(measured)
    assert set(data(dataset=moved, validation_share=0.1, do_train=False)[1]) == set(measured)
    assert len(data(dataset=moved, validation_share=0.5)[1]) == 15


def test_the_split_names_of_datasets_are_found(tmp_path, data, warnings):
    write_rows(tmp_path / "my_videos" / "train", ["a", "b"])
    write_rows(tmp_path / "my_videos" / "validation", ["c"])
    assert data(dataset=str(tmp_path / "my_videos")) == (["a", "b"], ["c"])
    rows = write_rows(tmp_path / "column", ["d"], split="train")
    write_rows(tmp_path / "column", ["e"], split="validation")
    assert data(dataset=rows) == (["d"], ["e"])
    assert warnings == []
    saved = {
        split: HubDataset.from_dict({"video": [f"{split}.mp4"], "caption": ["a"], "id": [split]})
        for split in ("train", "validation")
    }
    DatasetDict(saved).save_to_disk(tmp_path / "saved")
    assert data(dataset=str(tmp_path / "saved")) == (["train"], ["validation"])


def test_a_split_that_is_not_there_is_named_with_those_that_are(tmp_path, data):
    write_rows(tmp_path / "my_videos" / "train", ["a", "b"])
    with pytest.raises(ValueError, match="has the splits train: choose one of them, not 'val'"):
        data(dataset=str(tmp_path / "my_videos"))
    trained, measured = data(dataset=str(tmp_path / "my_videos"), validation_share=0.5)
    assert sorted(trained + measured) == ["a", "b"] and len(measured) == 1


def test_another_dataset_is_measured(tmp_path, data, warnings):
    train, other = write_rows(tmp_path / "train", ["a", "b"]), write_rows(tmp_path / "other", ["c", "d"])
    assert data(dataset=train, eval_dataset=other) == (["a", "b"], ["c", "d"])
    assert data(dataset=train, eval_dataset=other, max_train_samples=1, max_eval_samples=1) == (["a"], ["c"])
    assert warnings == []
    with pytest.raises(ValueError, match="give one of them"):
        DataArguments(dataset=train, eval_dataset=other, validation_share=0.5)
    with pytest.raises(ValueError, match="share between 0 and 1"):
        DataArguments(dataset=train, validation_share=10)


def test_a_share_of_what_is_not_trained_is_refused(tmp_path, data):
    train, other = write_rows(tmp_path / "train", ["a", "b"]), write_rows(tmp_path / "other", ["c", "d"])
    with pytest.raises(ValueError, match=r"retrieval is measured on .*other, which is not: leave it out"):
        data(dataset=train, evaluations=[{"task": "retrieval", "dataset": other}], validation_share=0.5)


def test_samples_that_are_trained_and_measured_are_counted(tmp_path, data, warnings):
    rows = write_rows(tmp_path / "rows", ["a", "b"], split="train")
    write_rows(tmp_path / "rows", ["c"], split="val")
    write_rows(tmp_path / "rows", ["d"])  # of no split, so of all
    trained, measured = data(dataset=rows)
    assert (trained, measured) == (["a", "b", "d"], ["c", "d"])
    assert warnings == ["1 of the 2 samples on which retrieval is measured are also trained."]
    warnings.clear()
    assert data(dataset=rows, eval_split="train")[1] == ["a", "b", "d"]  # on purpose, as to see whether training works
    assert warnings == ["3 of the 3 samples on which retrieval is measured are also trained."]


def test_a_stream_is_divided_too(tmp_path, data, warnings):
    names = {f"clip{index}" for index in range(40)}
    trained, measured = data(dataset=write_shard(tmp_path / "a.tar", sorted(names)))
    assert measured and not set(trained) & set(measured) and set(trained) | set(measured) == names
    assert "no splits" in warnings[0]
    with pytest.raises(ValueError, match="no samples to measure: give a larger `validation_share`"):
        data(dataset=str(tmp_path / "a.tar"), validation_share=1e-9)
    with pytest.raises(ValueError, match="use fewer shards"):
        data(dataset=str(tmp_path / "a.tar"), max_train_samples=3)


def test_samples_of_one_file_are_on_one_side():
    samples = [Sample(f"{film}-{part}", f"{film}.mp4#t={part},{part + 1}") for film in range(8) for part in range(3)]
    rest, held_out = hold_out(samples, 0.25)
    films = [{sample.video.partition("#")[0] for sample in side} for side in (rest, held_out)]
    assert len(films[0]) == 6 and len(films[1]) == 2 and not films[0] & films[1] and len(held_out) == 6
    with pytest.raises(ValueError, match="all samples are of one file"):
        hold_out(samples[:3], 0.5)


def test_whether_a_dataset_has_splits(tmp_path):
    assert has_splits("msrvtt") and has_splits("owner/name")
    assert not has_splits(write_rows(tmp_path / "rows", ["a"]))
    assert has_splits(write_rows(tmp_path / "rows", ["b"], split="train"))
    assert not has_splits(write_shard(tmp_path / "a.tar", ["a"]))
    world = tmp_path / "world"
    write_rows(world, ["a"])
    (world / ".world.json").write_text('{"split": "train"}')
    assert not has_splits(world)
    write_rows(tmp_path / "parts" / "train", ["a"])
    assert has_splits(tmp_path / "parts")
    assert split_names("valid") == ("valid", "val", "validation", "dev") and split_names("test_1k5") == ("test_1k5",)


def test_the_hub_is_asked_for_the_other_name_of_a_split(monkeypatch):
    def load_dataset(name, split):
        if split != "validation":
            raise ValueError(f"Unknown split \"{split}\". Should be one of ['train', 'validation'].")
        return HubDataset.from_dict({"video": ["a.mp4"], "caption": ["a"]})

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    assert len(load_samples("owner/name", "val")) == 1
    with pytest.raises(ValueError, match="Unknown split"):
        load_samples("owner/name", "test")


def test_a_folder_of_shards_is_a_dataset_with_or_without_splits(tmp_path, data, warnings):
    names = sorted(f"clip{index}" for index in range(20))
    folder = tmp_path / "shards"
    folder.mkdir()
    write_shard(folder / "clips-000.tar", names[:10])
    write_shard(folder / "clips-001.tar", names[10:])
    assert sorted(sample.id for sample in each_sample(load_samples(folder, "train"))) == names
    assert not has_splits(folder)
    trained, measured = data(dataset=str(folder), validation_share=0.3)
    assert sorted(trained + measured) == names and measured
    write_shard(folder / "validation-000.tar", ["other"])
    write_shard(folder / "latest-train-000.tar", ["one"])
    assert has_splits(folder) and data(dataset=str(folder)) == (["one"], ["other"])
    with pytest.raises(ValueError, match="splits train, validation: choose one of them, not 'test'"):
        load_samples(folder, "test")
    parts = tmp_path / "parts"
    for split in ("train", "val"):
        (parts / split).mkdir(parents=True)
        write_shard(parts / split / "000.tar", [split])
    assert has_splits(parts) and data(dataset=str(parts)) == (["train"], ["val"])
    assert warnings == []


def test_max_steps_is_enough_for_a_stream(tmp_path):
    stream = load_samples(write_shard(tmp_path / "a.tar", ["a", "b"]))
    source = Source("shards", stream, LoadingOptions("retrieval"), batch_size=2)
    assert len(RequestSampler([source], num_steps=7, world_size=2)) == 7
    with pytest.raises(ValueError, match="`max_steps` if it is the only source"):
        RequestSampler([source])
    # Among others its weight has to be known
    with pytest.raises(ValueError, match="set its `steps`"):
        RequestSampler([source, Source("clips", [Sample("a")] * 4, batch_size=2)], num_steps=7)


@pytest.mark.parametrize("kind", ["folder", "shards", "saved"])
def test_a_wrong_column_is_told_at_once_with_those_that_are_there(tmp_path, data, kind):
    row = {"id": "a", "description": "a bell rings"}
    if kind == "folder":
        dataset, columns = tmp_path, "file_name, id, description"
        (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "a.mp4", **row}))
    elif kind == "shards":
        dataset, columns = tmp_path / "a.tar", "mp4, id, description"
        with tarfile.open(dataset, "w") as archive:
            for suffix, content in (("mp4", b"video"), ("json", json.dumps(row).encode())):
                member = tarfile.TarInfo(f"a.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    else:
        dataset, columns = tmp_path / "saved", "video, id, description"
        HubDataset.from_dict({"video": ["a.mp4"], **{name: [value] for name, value in row.items()}}).save_to_disk(
            dataset
        )
    with pytest.raises(ValueError) as raised:
        data(dataset=str(dataset), eval_split="train")
    message = str(raised.value)
    assert f"Its columns are {columns};" in message and "captions, caption, texts, text, txt" in message
    renamed = {"dataset": str(dataset), "split": "train", "columns": {"captions": "description"}}
    (sample,) = each_sample(build_source({**renamed, "task": "retrieval"}).samples)
    assert sample.captions == ("a bell rings",)
    with pytest.raises(ValueError, match="has a question with an answer"):
        build_source({**renamed, "task": "question_answering"})


def test_columns_are_json_and_only_of_what_has_some(tmp_path):
    assert DataArguments(columns='{"captions": "text2"}').columns == {"captions": "text2"}
    with pytest.raises(ValueError, match="`columns` is not JSON"):
        DataArguments(columns="captions=text2")
    with pytest.raises(ValueError, match="msrvtt is a benchmark, whose files have no columns"):
        load_samples("msrvtt", "train", columns={"captions": "text2"})
    rows = write_rows(tmp_path / "rows", ["a"])
    with pytest.raises(ValueError, match="the entry 'caption2', but a column can only be one of"):
        load_samples(rows, columns={"caption2": "text2"})
    with pytest.raises(ValueError, match="'rows' has epoch: not all of these are fields of a source"):
        build_source({"name": "rows", "dataset": rows, "epoch": 3})


def test_unreadable_samples_are_named_and_too_many_are_an_error(warnings):
    processor = small_processor()
    model = ValorForRetrieval(small_config(processor))
    samples = [*small_samples(6), Sample("gone", "gone.mp4", "gone.mp4", ("a bell",)), Sample("lost", "lost.mp4")]
    metrics = build_evaluation({"task": "retrieval", "max_failures": 0.25}, processor, samples)(model)
    assert metrics["t-av/MedianR"] > 0
    (sentence,) = warnings
    assert sentence.startswith("retrieval: 2 of 8 samples could not be read and are in no metric: gone (")
    assert "gone.mp4" in sentence and "; lost (" in sentence and "\n" not in sentence
    with pytest.raises(TooManyFailures, match=r"2 of 8 .* more than the 24%.* gone "):
        build_evaluation({"task": "retrieval", "max_failures": 0.24}, processor, samples)(model)
