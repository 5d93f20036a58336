# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What of a folder of captions is out of date; the folder is written here as Ray Data writes it."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeling_valor.integrations import caption_folder
from modeling_valor.integrations.caption_folder import caption_id, read_report, remove_changed
from modeling_valor.search.segments import FileState


OLD, NEW = FileState(100, 5), FileState(100, 6)


@pytest.fixture
def write(tmp_path):
    """`write("captions/x.parquet", rows)`: of rows of source, start and state; the checkpoint of a file has its name."""

    def write(name, rows, **more):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        folder = name.split("/")[0]
        names = {"plan": ("path", "id"), "checkpoint": ("id",), "captions": ("id", "source", "start", "end", "error")}
        table = [
            {"id": caption_id(source, start, start + 2, state), "path": source, "source": source}
            | {"start": start, "end": start + 2, "error": ""}
            for source, start, state in rows
        ]
        pq.write_table(
            pa.Table.from_pylist([{name: row[name] for name in names[folder]} for row in table]), tmp_path / name
        )

    return write


@pytest.fixture
def captions(tmp_path):
    def captions(folder="captions", columns=("source", "start")):
        found = []
        for name in sorted(os.listdir(tmp_path / folder)):
            found += [
                tuple(row.values())
                for row in pq.read_table(tmp_path / folder / name, columns=list(columns)).to_pylist()
            ]
        return found

    return captions


def make(write):
    """a has changed, b has not, and c is not planned; one file has captions of a alone."""
    write("plan/0.parquet", [("a", 0.0, NEW), ("a", 2.0, NEW), ("b", 0.0, OLD), ("b", 2.0, OLD)])
    for folder in ("captions", "checkpoint"):
        write(f"{folder}/0.parquet", [("a", 0.0, OLD), ("a", 2.0, OLD)])
        write(f"{folder}/1.parquet", [("a", 4.0, OLD), ("b", 0.0, OLD), ("c", 0.0, OLD)])


def test_captions_of_changed_files_are_removed(write, captions, tmp_path):
    make(write)
    assert remove_changed(str(tmp_path)) == ["a"]
    assert captions() == [("b", 0.0), ("c", 0.0)]
    assert captions("checkpoint", ["id"]) == [(caption_id(source, 0.0, 2.0, OLD),) for source in "bc"]
    assert sorted(os.listdir(tmp_path)) == ["captions", "checkpoint", "plan"]
    assert remove_changed(str(tmp_path)) == []
    assert str(read_report(str(tmp_path), ["a"], {})) == (
        "2 segments, of which 0 could not be captioned, 1 file that has changed captioned anew."
    )


def test_nothing_changed_leaves_the_files_alone(write, captions, tmp_path):
    make(write)
    write("plan/0.parquet", [("a", start, OLD) for start in (0.0, 2.0, 4.0)] + [("b", 0.0, OLD)])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    assert remove_changed(str(tmp_path)) == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")} == before


@pytest.mark.parametrize("steps", range(3))
def test_a_killed_removal_is_done_by_the_next_run(write, captions, tmp_path, monkeypatch, steps):
    """Also where the file has become what it was again: then no row may be there that is written once more."""
    make(write)
    remove, done = caption_folder._remove_rows, iter(range(steps))

    def killed(*arguments):
        if next(done, None) is None:
            raise KeyboardInterrupt
        remove(*arguments)

    monkeypatch.setattr(caption_folder, "_remove_rows", killed)
    with pytest.raises(KeyboardInterrupt):
        remove_changed(str(tmp_path))
    monkeypatch.undo()
    write("plan/0.parquet", [("a", start, OLD) for start in (0.0, 2.0, 4.0)] + [("b", 0.0, OLD)])
    remove_changed(str(tmp_path))
    known = {row[0] for row in captions("checkpoint", ["id"])}
    assert {row[0] for row in captions(columns=["id"])} == known and len(captions()) == len(known)


def test_files_that_a_killed_run_left_are_rays(write, captions, tmp_path):
    make(write)
    write("checkpoint/2.pending.parquet", [("b", 2.0, OLD)])
    (tmp_path / "captions" / "2_0.parquet").write_bytes(b"not whole")
    assert remove_changed(str(tmp_path)) == ["a"]
    assert (tmp_path / "captions" / "2_0.parquet").exists() and (
        tmp_path / "checkpoint" / "2.pending.parquet"
    ).exists()


def test_a_new_folder_has_nothing_to_remove(write, tmp_path):
    write("plan/0.parquet", [("a", 0.0, NEW)])
    assert remove_changed(str(tmp_path)) == []
