# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Files of token embeddings that are interrupted, killed, continued and brought up to date."""

import os
import resource
import shutil
import signal
import textwrap

import numpy as np
import pytest

from helpers.media_files import write_clip
from helpers.warm import run_warm
from modeling_valor.data.files import WriteError
from modeling_valor.search.embedding import EmbeddingModel
from modeling_valor.search.export import embed_files
from modeling_valor.search.reading import Segmentation
from modeling_valor.search.segments import EmbeddedSegment, FileState, IndexedFile, Segment, SegmentTokens
from modeling_valor.search.token_files import READERS, WRITERS, TokenFileNote, read_note
from modeling_valor.search.token_store import TokenStore


TINY = os.path.abspath("hub_configs/valor-tiny")
CUT = Segmentation(2.0, 2.0, num_frames=2)
FORMATS = pytest.mark.parametrize("ending", [".parquet", ".safetensors"])


@pytest.fixture(scope="module")
def model():
    return EmbeddingModel(TINY, device="cpu")


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Films of 7 s with sound and of 5 s without: 4 and 3 segments of 2 s."""
    folder = tmp_path_factory.mktemp("films")
    write_clip(folder / "film.mp4", seconds=7)
    write_clip(folder / "silent.mp4", seconds=5, hertz=None, brightness=90)
    return folder


@pytest.fixture
def videos(films, tmp_path):
    return shutil.copytree(films, tmp_path / "videos")


@pytest.fixture(scope="module")
def embed(model):
    def embed(sources, output, cut=CUT, **options):
        return embed_files([sources], output, model, cut, **{"batch_size": 2, "progress": False} | options)

    return embed


@pytest.fixture(scope="module")
def whole(embed, films, tmp_path_factory):
    """What a run that nobody interrupts embeds of the films, by the name of the file and the start."""
    output = tmp_path_factory.mktemp("whole") / "tokens.parquet"
    assert embed(films, output).segments == 7
    return read(output)


@pytest.fixture
def interrupted(monkeypatch):
    """`interrupted(n)`: a run in which the n-th write of segments is interrupted."""

    def interrupt(after):
        write, count = TokenStore.write, iter(range(after))

        def interrupted(self, segments, files=()):
            if segments and next(count, None) is None:
                raise KeyboardInterrupt
            write(self, segments, files)

        monkeypatch.setattr(TokenStore, "write", interrupted)

    yield interrupt


def read(path):
    found = {}
    for item in READERS[path.suffix](path):
        name = (os.path.basename(item.segment.source), item.segment.start)
        assert name not in found
        found[name] = item
    return found


def check(path, expected):
    """Each segment is there once, with the tokens of a run that nobody interrupted."""
    found = read(path)
    assert found.keys() == expected.keys()
    for name, item in expected.items():
        own, other = found[name].tokens, item.tokens
        assert own.modalities == other.modalities and found[name].segment.end == item.segment.end
        for column in ("times", "weights", "embeds"):
            np.testing.assert_allclose(getattr(own, column), getattr(other, column), atol=2e-3)
    assert os.listdir(path.parent).count(f"{path.name}.unfinished") == 0


@FORMATS
def test_files_are_read_as_they_were_written(tmp_path, ending):
    rng = np.random.default_rng(0)
    items = []
    for source, start, letters in [
        ("a\n日本.mp4", 0.0, "vva"),
        ("a\n日本.mp4", 2.0, "a"),
        ("b", 2.0, "av"),
        ("c", 0.0, "v"),
    ]:
        count = len(letters)
        tokens = SegmentTokens(
            letters, rng.random(count, np.float32), rng.random(count, np.float32), rng.random((count, 4)).astype("f2")
        )
        items.append(EmbeddedSegment(Segment(source, start, start + 2, "".join(dict.fromkeys(letters))), tokens))
    files = [IndexedFile("b", FileState(3, 2**60), "2 s", 2.5, 1), IndexedFile("http://c", FileState(), "2 s", 0.5, 1)]
    note = TokenFileNote("model", "0123", 4, files)
    writer = WRITERS[ending](tmp_path / f"x{ending}", note)
    writer.write(items[:3])
    writer.write(items[3:])
    writer.close()
    assert read_note(tmp_path / f"x{ending}") == note
    found = list(READERS[ending](tmp_path / f"x{ending}"))
    assert [item.segment for item in found] == [item.segment for item in items]
    for own, other in zip(found, items, strict=True):
        assert own.tokens.modalities == other.tokens.modalities
        for column in ("times", "weights", "embeds"):
            assert (getattr(own.tokens, column) == getattr(other.tokens, column)).all()


@FORMATS
def test_an_interrupted_run_goes_on(embed, films, whole, tmp_path, ending, interrupted, monkeypatch, caplog):
    output = tmp_path / f"tokens{ending}"
    interrupted(2)
    with pytest.raises(KeyboardInterrupt):
        embed(films, output)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == [f"tokens{ending}.unfinished"] and not caplog.messages
    report = embed(films, output)
    assert (report.segments, report.failures) == (3, {})
    assert caplog.messages == ["An interrupted run goes on: 1 file complete, 4 segments embedded already."]
    check(output, whole)


def test_a_killed_run_goes_on(embed, videos, whole, tmp_path, films):
    program = textwrap.dedent(
        f"""
        import os, signal
        from modeling_valor.search import token_store
        from modeling_valor.search.embedding import EmbeddingModel
        from modeling_valor.search.export import embed_files
        from modeling_valor.search.reading import Segmentation

        make, rows = token_store._to_row, []

        def make_row(item):
            rows.append(item)
            if len(rows) == 6:  # the fifth is written, and not committed
                os.kill(os.getpid(), signal.SIGKILL)
            return make(item)

        token_store._to_row = make_row
        cut = Segmentation(2.0, 2.0, num_frames=2)
        embed_files([{str(videos)!r}], {str(tmp_path / "tokens.parquet")!r}, EmbeddingModel({TINY!r}), cut, batch_size=2)
        """
    )
    killed = run_warm("-c", program)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    # The film of which all was done changes before the run goes on, which embeds it again
    write_clip(videos / "film.mp4", seconds=3)
    report = embed(videos, tmp_path / "tokens.parquet")
    assert (report.segments, report.replaced) == (2 + 3, [str(videos / "film.mp4")])
    found = read(tmp_path / "tokens.parquet")
    assert [name for name in found if name[0] == "film.mp4"] == [("film.mp4", 0.0), ("film.mp4", 2.0)]
    assert len(found) == 5


@FORMATS
def test_a_finished_file_is_brought_up_to_date(embed, videos, tmp_path, ending, caplog):
    output = tmp_path / f"tokens{ending}"
    embed(videos, output)
    before, state = read(output), output.stat().st_mtime_ns
    report = embed(videos, output)
    assert (report.unchanged, report.segments, output.stat().st_mtime_ns) == (2, 0, state)
    write_clip(videos / "silent.mp4", seconds=3, hertz=None)
    write_clip(videos / "new.mp4", seconds=2)
    report = embed(videos, output)
    assert (report.unchanged, report.replaced, report.segments) == (1, [str(videos / "silent.mp4")], 3)
    after = read(output)
    assert sorted(after) == sorted(
        [("new.mp4", 0.0), ("silent.mp4", 0.0), ("silent.mp4", 2.0)] + [name for name in before if "film" in name[0]]
    )
    for name in before:
        if name[0] == "film.mp4":
            assert (after[name].tokens.embeds == before[name].tokens.embeds).all()
    assert not caplog.messages
    (videos / "film.mp4").unlink()
    report = embed(videos, output)
    assert (report.unchanged, report.vanished) == (2, [str(videos / "film.mp4")])
    assert {name for name, _ in read(output)} == {"new.mp4", "silent.mp4"}
    assert caplog.messages == [f"What {output} had of 1 other file is not in it any more."]
    assert embed(videos, output, Segmentation(1.0, 1.0, num_frames=2)).segments == 3 + 2


def test_a_changed_film_of_a_finished_file_goes_on_after_a_crash(embed, videos, tmp_path, interrupted, monkeypatch):
    """The old film is in the output, and half of the new one beside it."""
    output = tmp_path / "tokens.parquet"
    embed(videos, output)
    write_clip(videos / "film.mp4", seconds=9)
    interrupted(1)
    with pytest.raises(KeyboardInterrupt):
        embed(videos, output)
    monkeypatch.undo()
    assert len(read(output)) == 7
    report = embed(videos, output)
    assert (report.segments, report.unchanged) == (3, 1)
    assert [start for name, start in read(output) if name == "film.mp4"] == [0, 2, 4, 6, 8]


def test_a_file_of_something_else_is_replaced_and_said(embed, films, whole, tmp_path, caplog):
    output = tmp_path / "tokens.parquet"
    output.write_bytes(b"no parquet")
    embed(films, output)
    assert caplog.messages == [
        f"{output} is there, with other contents than embeddings of this model; it is replaced."
    ]
    check(output, whole)


def test_two_runs_do_not_write_one_file(embed, films, tmp_path, model):
    output = tmp_path / "tokens.parquet"
    other = TokenStore(output, TokenFileNote(model.name, model.revision, model.config.projection_dim))
    with pytest.raises(ValueError, match="is being written by another run"):
        embed(films, output)
    other.close()
    assert not os.listdir(tmp_path)
    assert embed(films, output).segments == 7


def test_another_model_and_a_damaged_file_are_refused(embed, films, whole, tmp_path, interrupted, monkeypatch):
    output, kept = tmp_path / "tokens.parquet", tmp_path / "tokens.parquet.unfinished"
    interrupted(1)
    with pytest.raises(KeyboardInterrupt):
        embed(films, output)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="interrupted run with the model"):
        TokenStore(output, TokenFileNote("other", "other", 256))
    content = kept.read_bytes()
    kept.write_bytes(b"nothing of SQLite" * 100)
    with pytest.raises(ValueError, match="is damaged, or no file of an interrupted run: remove it"):
        embed(films, output)
    kept.write_bytes(content)
    assert embed(films, output).segments == 5
    check(output, whole)


@pytest.fixture
def full_disk():
    """`full_disk(room)`: no file grows longer than so many bytes; None: as before."""
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda room: resource.setrlimit(resource.RLIMIT_FSIZE, (limits[0] if room is None else room, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("room", [3_000, 30_000])
def test_a_disk_that_becomes_full_while_files_are_embedded(embed, films, whole, tmp_path, full_disk, room):
    output = tmp_path / "tokens.parquet"
    full_disk(room)
    with pytest.raises(
        WriteError, match=r"parquet.unfinished cannot be written to .* the same command goes on"
    ) as full:
        embed(films, output)
    assert "\n" not in str(full.value) and not output.exists()
    full_disk(None)
    embed(films, output)
    check(output, whole)


@FORMATS
def test_a_disk_that_is_too_small_for_the_output(embed, films, whole, tmp_path, full_disk, ending, monkeypatch):
    output, kept = tmp_path / f"tokens{ending}", TokenStore.kept

    def kept_on_a_full_disk(self, sources):
        full_disk(2_000)
        return kept(self, sources)

    monkeypatch.setattr(TokenStore, "kept", kept_on_a_full_disk)
    with pytest.raises(
        WriteError, match=r"cannot be written \(.*\)\. What is embedded is kept in .*unfinished"
    ) as full:
        embed(films, output)
    assert "\n" not in str(full.value) and os.listdir(tmp_path) == [f"{output.name}.unfinished"]
    monkeypatch.undo()
    full_disk(None)
    assert embed(films, output).unchanged == 2
    check(output, whole)
