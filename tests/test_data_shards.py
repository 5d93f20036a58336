# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Tar shards as streams: what members become, partitions and order, damage, and what is never done with a tar file."""

import functools
import gzip
import http.server
import io
import json
import os
import pickle
import tarfile
import threading
from pathlib import Path

import pytest

from modeling_valor.data.samples import Question
from modeling_valor.data.shards import ShardStream, expand_shards, is_shard_pattern
from modeling_valor.media import MediaError, read_image


EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "media"


def tar_bytes(members: list[tuple[str | tarfile.TarInfo, bytes]], **kwargs) -> bytes:
    """A tar file of names (or headers) and contents."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **kwargs) as archive:
        for name, content in members:
            header = tarfile.TarInfo(name) if isinstance(name, str) else name
            if header.isreg():
                header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return buffer.getvalue()


def numbered(numbers) -> list[tuple[str, bytes]]:
    """Samples of a picture and a caption each."""
    return [
        member
        for n in numbers
        for member in ((f"{n:04d}.jpg", b"picture %d" % n), (f"{n:04d}.txt", b"caption %d" % n))
    ]


def write_shards(folder: Path, shards: int, per_shard: int) -> str:
    for shard in range(shards):
        numbers = range(shard * per_shard, (shard + 1) * per_shard)
        (folder / f"{shard:03d}.tar").write_bytes(tar_bytes(numbered(numbers)))
    return str(folder / f"{{000..{shards - 1:03d}}}.tar")


def read(shards, **options) -> list:
    return list(ShardStream(shards, shuffle_buffer=0, **options).samples(0, 1, epoch=0, seed=0))


def read_members(tmp_path: Path, members, **options) -> list:
    (tmp_path / "shard.tar").write_bytes(tar_bytes(members))
    return read(tmp_path / "shard.tar", **options)


# --- Names ------------------------------------------------------------------------------------------------------------


def test_braces_globs_lists_and_addresses_are_expanded(tmp_path):
    for name in ("a-0.tar", "a-1.tar", "a-2.tar", "b.tgz", "07.tar", "08.tar", "09.tar", "10.tar"):
        (tmp_path / name).touch()
    at = functools.partial(os.path.join, tmp_path)
    assert expand_shards(at("{07..10}.tar")) == [at(f"{n}.tar") for n in ("07", "08", "09", "10")]
    assert expand_shards(at("a-{0,2}.tar")) == [at("a-0.tar"), at("a-2.tar")]
    assert expand_shards(at("a-?.tar")) == [at("a-0.tar"), at("a-1.tar"), at("a-2.tar")]
    assert expand_shards(f"{at('b.tgz')}::{at('a-1.tar')}") == [at("b.tgz"), at("a-1.tar")]
    assert expand_shards([tmp_path / "b.tgz", at("a-{0..1}.tar")]) == [at("b.tgz"), at("a-0.tar"), at("a-1.tar")]
    assert expand_shards("https://x.org/{8..10}.tar") == [f"https://x.org/{n}.tar" for n in (8, 9, 10)]
    assert expand_shards("hf://datasets/a/b/{a,b}{0..1}.tar")[-1] == "hf://datasets/a/b/b1.tar"


def test_names_that_are_no_shards_are_refused(tmp_path):
    for name in ("absent.tar", "none-*.tar"):
        with pytest.raises(ValueError, match="there is no shard"):
            expand_shards(str(tmp_path / name))
    for name in ("pipe://cat x.tar", "ftp://x/y.tar", "file:///etc/x.tar"):
        with pytest.raises(ValueError, match=r"local files or have http\(s\) or hf addresses"):
            expand_shards(name)
    with pytest.raises(ValueError, match="there is no shard"):
        expand_shards("pipe:cat x.tar")
    with pytest.raises(ValueError, match="must be a mistake"):
        expand_shards("http://x/{0..9999999}.tar")
    with pytest.raises(ValueError, match="no shards are given"):
        expand_shards([])


def test_shard_patterns_are_told_from_other_names(tmp_path):
    assert all(map(is_shard_pattern, ("a.tar", "x/{0..9}.tar.gz", "a.tar::b.tgz", "http://x/a.tar")))
    (tmp_path / "folder.tar").mkdir()
    assert not any(map(is_shard_pattern, ("a.zip", "owner/name", "a.tar::b", str(tmp_path / "folder.tar"))))


# --- Members ----------------------------------------------------------------------------------------------------------


def test_members_become_samples_by_their_suffixes(tmp_path):
    row = {"id": 7, "captions": ["one", "two"], "qa": [{"question": "why?", "answer": "so", "about": "both"}]}
    samples = read_members(
        tmp_path,
        [
            ("./a.mp4", b"video"),
            ("./a.json", json.dumps(row).encode()),
            ("b.jpg", b"image"),
            ("b.txt", "ein Käfer\n\nnoch einer\n".encode()),
            ("c.frame10.png", b"tenth"),
            ("c.frame9.PNG", b"ninth"),
            ("c.flac", b"sound"),
            ("d/c.webm", b"other video"),
            ("d/c.wav", b"other sound"),
            ("e.ogg", b"only sound"),
            ("e.json", b'{"question": "who?", "answer": "it"}'),
            ("f.caption", b"nothing to see"),
        ],
    )
    assert [sample.id for sample in samples] == ["7", "b", "c", "d/c", "e", "f"]
    media = [(sample.video, sample.audio) for sample in samples]
    assert media == [
        (b"video", b"video"), (b"image", None), ([b"ninth", b"tenth"], b"sound"), (b"other video", b"other sound"),
        (None, b"only sound"), (None, None),
    ]  # fmt: skip
    assert samples[0].captions == ("one", "two") and samples[0].questions == (Question("why?", ("so",), "both"),)
    assert samples[1].captions == ("ein Käfer", "noch einer")
    assert samples[4].questions == (Question("who?", ("it",)),) and samples[5].captions == ("nothing to see",)


def test_clips_of_the_examples_come_back_whole(tmp_path):
    clip = (EXAMPLES / "clip-00000.mp4").read_bytes()
    (sample,) = read_members(tmp_path, [("clip.mp4", clip), ("clip.txt", b"a bell rings")])
    assert sample.video == clip


class Trap:
    """What a pickle can do."""

    def __reduce__(self):
        return (os.mkdir, ("trapped",))


def test_links_pickles_and_other_members_are_passed_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    link, hard, device = tarfile.TarInfo("a.jpg"), tarfile.TarInfo("a.png"), tarfile.TarInfo("a.mp4")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    hard.type, hard.linkname = tarfile.LNKTYPE, "../../secret.png"
    device.type = tarfile.CHRTYPE
    trap = pickle.dumps(Trap())
    members = [(link, b""), (hard, b""), (device, b""), ("../../out.jpg", b"out"), ("/root.jpg", b"root")]
    members += [(f"a.{suffix}", trap) for suffix in ("pyd", "pth", "pickle", "pkl", "npy", "cls")]
    members += [("a.txt", b"text"), ("._a.jpg", b"of a Mac"), (".hidden", b""), ("README", b"")]
    samples = read_members(tmp_path, members)
    assert [(sample.id, sample.video) for sample in samples] == [
        ("../../out", b"out"),
        ("root", b"root"),
        ("a", None),
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["shard.tar"]


def test_compressed_shards_and_several_shards(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar_bytes(numbered([0, 1]))))
    (tmp_path / "b.tar").write_bytes(tar_bytes(numbered([2]), format=tarfile.PAX_FORMAT))
    samples = read([tmp_path / "a.tar.gz", tmp_path / "b.tar"])
    assert [sample.captions for sample in samples] == [("caption 0",), ("caption 1",), ("caption 2",)]


# --- Partitions and order ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shards", "partitions"), [(5, 1), (5, 3), (2, 3), (1, 4)])
@pytest.mark.parametrize("shuffle_buffer", [0, 6, 1000])
def test_partitions_are_disjoint_and_complete(shards, partitions, shuffle_buffer, tmp_path):
    stream = ShardStream(write_shards(tmp_path, shards, 8), shuffle_buffer=shuffle_buffer)
    for epoch in (0, 1):
        parts = [[sample.id for sample in stream.samples(part, partitions, epoch, 3)] for part in range(partitions)]
        assert sorted(name for part in parts for name in part) == [f"{n:04d}" for n in range(8 * shards)]
        assert all(parts)


@pytest.mark.parametrize("partitions", [1, 3])
def test_order_follows_from_seed_and_epoch(partitions, tmp_path):
    stream = ShardStream(write_shards(tmp_path, 3, 8), shuffle_buffer=6)

    def order(epoch, seed):
        return [sample.id for sample in stream.samples(0, partitions, epoch, seed)]

    assert (
        order(0, 3) == order(0, 3) == [s.id for s in pickle.loads(pickle.dumps(stream)).samples(0, partitions, 0, 3)]
    )
    assert order(0, 3) != order(1, 3) and order(0, 3) != order(0, 4) and order(0, 3) != sorted(order(0, 3))


def test_a_buffer_is_bounded_by_its_bytes(tmp_path):
    pattern = write_shards(tmp_path, 1, 50)
    stream = ShardStream(pattern, shuffle_buffer=1000, max_buffer_bytes=60)  # three samples of about 19 bytes
    order = [int(sample.id) for sample in stream.samples(0, 1, 0, 0)]
    assert sorted(order) == list(range(50)) and order != list(range(50))
    assert all(number <= place + 3 for place, number in enumerate(order))


# --- Damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", ["in a file", "in a header", "between files", "before the end mark"])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_shard_that_ends_early_is_named_after_what_stood_before(cut, compressed, tmp_path):
    whole = tar_bytes(numbered([0, 1, 2]))
    place = {"in a file": 4 * 1024 + 520, "in a header": 4 * 1024 + 100, "between files": 4 * 1024}
    broken = whole[: place.get(cut, 6 * 1024)]
    suffix = "tar.gz" if compressed else "tar"
    (tmp_path / f"0.{suffix}").write_bytes(gzip.compress(broken) if compressed else broken)
    (tmp_path / "1.tar").write_bytes(tar_bytes(numbered([7])))
    *before, damaged, after = read([tmp_path / f"0.{suffix}", tmp_path / "1.tar"])
    assert [sample.id for sample in before] == (
        ["0000"] if cut == "between files" else ["0000", "0001"][: len(before)]
    )
    assert len(before) >= 1 and after.id == "0007"
    assert str(tmp_path / f"0.{suffix}") in damaged.id and "cannot be read to its end" in damaged.id
    with pytest.raises(MediaError, match=r"0\.tar.*cannot be read to its end"):
        read_image(damaged.video)


@pytest.mark.parametrize("content", [b"", b"this is no tar file" * 100, gzip.compress(b"nor this", mtime=0)])
@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz"])
def test_what_is_no_tar_file_is_named(content, name, tmp_path):
    (tmp_path / name).write_bytes(content)
    (damaged,) = read(tmp_path / name)
    assert name in damaged.id and damaged.captions == ()


def test_a_shard_that_vanished_is_named(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar_bytes(numbered([0])))
    stream = ShardStream(tmp_path / "a.tar", shuffle_buffer=0)
    (tmp_path / "a.tar").unlink()
    (damaged,) = stream.samples(0, 1, 0, 0)
    assert "a.tar" in damaged.id and "No such file" in damaged.id


def test_bad_annotations_and_large_samples_are_named_and_the_next_are_given(tmp_path):
    members = [
        ("a.json", b"{"),
        ("b.json", b"[1]"),
        ("c.json", b'{"captions": 3}'),
        ("d.json", b"\xff"),
        ("e.jpg", b"x" * 600),
        ("e.png", b"x" * 600),
        ("f.jpg", b"fine"),
    ]
    *damaged, fine = read_members(tmp_path, members, max_sample_bytes=1000)
    assert [sample.id.split()[0] for sample in damaged] == ["a", "b", "c", "d", "e"]
    assert "larger than the limit of 1,000 bytes" in damaged[-1].id and fine.video == b"fine"


def test_a_header_of_enormous_length_is_not_read(tmp_path):
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 2**40
    (tmp_path / "a.tar").write_bytes(tar_bytes(numbered([0, 1]))[: 4 * 1024] + header.tobuf(tarfile.GNU_FORMAT))
    first, damaged = read(tmp_path / "a.tar")
    assert first.id == "0000" and "states a size of 1099511627776 bytes" in damaged.id


# --- Addresses --------------------------------------------------------------------------------------------------------


@pytest.fixture
def address(tmp_path):
    """A server of this machine for `tmp_path`."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_shards_are_streamed_from_a_server(address, tmp_path):
    write_shards(tmp_path, 3, 4)
    stream = ShardStream(f"{address}/{{000..002}}.tar::{address}/absent.tar", shuffle_buffer=0)
    *samples, damaged = stream.samples(0, 1, 0, 0)
    assert [sample.id for sample in samples] == [f"{n:04d}" for n in range(12)]
    assert "absent.tar" in damaged.id and "404" in damaged.id


def test_real_media_in_shards(shared):
    samples = read(shared / "data" / "flickr1k.tar")
    assert len(samples) == 1000 and read_image(samples[0].video).shape[0] == 3
