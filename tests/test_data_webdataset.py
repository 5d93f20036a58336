# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Tar shards as streams: what members become, partitions and order, damage, and what is never done with a tar file."""

import functools
import gzip
import http.server
import io
import json
import os
import pickle
import re
import tarfile
import threading
from pathlib import Path

import pytest

from helpers.media_files import seconds_at_most
from modeling_valor.data.readers.webdataset import ShardStream, expand_shards, is_shard_pattern
from modeling_valor.data.samples import Question, UnreadableFile
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
        with pytest.raises(ValueError, match=r"local files or http\(s\) or hf URLs"):
            expand_shards(name)
    with pytest.raises(ValueError, match="there is no shard"):
        expand_shards("pipe:cat x.tar")
    with pytest.raises(ValueError, match="must be a mistake"):
        expand_shards("http://x/{0..9999999}.tar")
    with pytest.raises(ValueError, match="there are no shards"):
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


# --- Names with dots --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["clip_1.0_2.0.mp4", "clip_1.5_2.5.mp4"], ["clip_1.0_2.0", "clip_1.5_2.5"]),
        (["x-2A_30.000_40.000.json", "x-2A_30.000_40.000.mp4", "x-2A_31.000_41.000.mp4"], ["x-2A_30.000_40.000", "x-2A_31.000_41.000"]),
        (["clip_1.0_2.0.jpg", "clip_1.0_2.0.txt", "clip_1.5_2.5.jpg"], ["clip_1.0_2.0", "clip_1.5_2.5"]),
        (["clip_1.0_2.0.1.jpg", "clip_1.0_2.0.2.jpg", "clip_1.0_2.0.txt", "clip_1.0_2.0.wav"], ["clip_1.0_2.0"]),
        (["clip_1.0_2.0.left.jpg", "clip_1.0_2.0.right.jpg"], ["clip_1.0_2.0"]),
        (["f_00.00.51.926-00.00.54.129.jpg", "f_00.00.51.926-00.00.55.002.jpg"], ["f_00.00.51.926-00.00.54.129", "f_00.00.51.926-00.00.55.002"]),
        (["f_00.00.51.926-00.00.54.129.avi", "f_00.00.54.926-00.00.55.129.avi"], ["f_00.00.51.926-00.00.54.129", "f_00.00.54.926-00.00.55.129"]),
        (["7.1.jpg", "7.2.jpg", "7.txt", "7.wav", "8.0.jpg"], ["7", "8"]),
        (["7.jpg", "7.0.txt", "7.1.txt"], ["7"]),
        (["v_1.5.mp4", "v_1.5.txt", "v_1.7.mp4", "v_1.7.txt"], ["v_1.5", "v_1.7"]),
        (["v_1.5.json", "v_1.5.3gp", "v_1.7.3gp"], ["v_1.5", "v_1.7"]),
        (["a.video.mp4", "a.sound.wav", "a.meta.json", "b.mp4"], ["a", "b"]),
    ],
)  # fmt: skip
def test_dots_within_numbers_belong_to_the_name(names, expected, tmp_path):
    samples = read_members(tmp_path, [(name, b"{}" if name.endswith("json") else name.encode()) for name in names])
    assert [sample.id for sample in samples] == expected


def test_all_of_a_sample_with_dots_in_its_name_stays_together(tmp_path):
    names = ["a_1.0_2.0.2.jpg", "a_1.0_2.0.10.jpg", "a_1.0_2.0.txt", "a_1.0_2.0.wav", "v_1.5.mp4", "v_1.5.txt"]
    first, second = read_members(tmp_path, [(name, name.encode()) for name in names])
    assert (first.video, first.audio) == ([b"a_1.0_2.0.2.jpg", b"a_1.0_2.0.10.jpg"], b"a_1.0_2.0.wav")
    assert (first.captions, second.captions) == (("a_1.0_2.0.txt",), ("v_1.5.txt",))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.one.mp4", "a.two.webm"], r"a\.two\.webm is a second video file after a\.one\.mp4"),
        (["a.mp4", "a.mp4"], r"a\.mp4 is a second video file after a\.mp4"),
        (["a.mp3", "a.wav"], r"a\.wav is a second audio file after a\.mp3"),
        (["a.json", "a.more.json"], r"a\.more\.json is a second json file after a\.json"),
        (["a.jpg", "a.jpg"], r"a\.jpg is a second image file after a\.jpg"),
        (["v_1.5.jpg", "v_1.5.txt", "v_1.7.jpg", "v_1.7.txt"], r"images and texts are both numbered 5, .*rename them"),
    ],
)
def test_a_second_file_of_one_kind_makes_a_sample_unreadable(names, message, tmp_path):
    members = [*((name, b"{}" if name.endswith("json") else b"x") for name in names), ("b.jpg", b"b")]
    damaged, fine = read_members(tmp_path, members)
    assert re.search(message, damaged.id) and fine.id == "b"
    with pytest.raises(MediaError, match=message):
        read_image(damaged.video)


def test_texts_lose_their_byte_order_mark_and_other_encodings_are_refused_by_name(tmp_path):
    members = [
        ("a.txt", "\ufeffein Käfer\n\ufeffnoch einer\n".encode()),
        ("b.json", b'\xef\xbb\xbf{"captions": ["\xef\xbb\xbfa dog"], "qa": [{"question": "\\ufeffwhy?", "answer": "so"}]}'),
        ("c.txt", "ein Käfer".encode("cp1252")),
        ("d.txt", "ein Käfer".encode("utf-16")),
        ("e.json", '{"caption": "Käfer"}'.encode("latin-1")),
    ]  # fmt: skip
    first, second, *refused = read_members(tmp_path, members)
    assert first.captions == ("ein Käfer", "noch einer") and second.captions == ("a dog",)
    assert second.questions == (Question("why?", ("so",)),)
    assert [sample.id.split(":")[1].strip().split(",")[0] for sample in refused] == [
        f"{name} is not text in UTF-8" for name in ("c.txt", "d.txt", "e.json")
    ]


# --- Attack -----------------------------------------------------------------------------------------------------------


def with_size(name: str, size: int, content: bytes = b"x") -> bytes:
    """One file with a header that states another size than the file has."""
    header = tarfile.TarInfo(name)
    header.size = size
    return header.tobuf(tarfile.GNU_FORMAT) + content.ljust(512, b"\0")


def pax(name: str, **fields: str) -> bytes:
    """One file with a pax header of these fields."""
    header = tarfile.TarInfo(name)
    header.size, header.pax_headers = 1, {key.replace("__", "."): value for key, value in fields.items()}
    return header.tobuf(tarfile.PAX_FORMAT) + b"x".ljust(512, b"\0")


def old_sparse(name: str, extended: bool) -> bytes:
    """A file of GNU's old sparse format, whose map of holes goes on in further blocks or not."""
    block = bytearray(with_size(name, 1)[:512])
    block[156:157], block[482:483], block[483:495], block[148:156] = (
        b"S",
        bytes([extended]),
        b"00000000006\0",
        b" " * 8,
    )
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + b"x".ljust(512, b"\1")


HOSTILE_HEADERS = {
    "an exabyte of video": with_size("b.mp4", 2**60),
    "an exabyte of something else": with_size("b.bin", 2**60),
    "a pax size": pax("b.mp4", size=str(2**60)),
    "a pax size without end": pax("b.bin", size="1" + 30 * "0"),
    "a pax size below zero": pax("b.mp4", size="-512"),
    "a sparse map that never ends": pax("b.mp4", GNU__sparse__major="1", GNU__sparse__minor="0"),
    "a sparse map of words": pax("b.mp4", GNU__sparse__map="a,b"),
    "a sparse map with odd numbers": pax("b.mp4", GNU__sparse__map="1,2,3"),
    "many digits": pax("b.mp4", size=5000 * "9"),
    "an old sparse header without end": old_sparse("b.mp4", extended=True),
}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("hostile", HOSTILE_HEADERS)
def test_a_header_that_lies_ends_its_shard_at_the_end_of_the_file(hostile, compressed, tmp_path):
    content = tar_bytes(numbered([0, 1]))[: 4 * 1024] + HOSTILE_HEADERS[hostile]
    (tmp_path / f"0.tar{'.gz' if compressed else ''}").write_bytes(gzip.compress(content) if compressed else content)
    (tmp_path / "1.tar").write_bytes(tar_bytes(numbered([7])))
    with seconds_at_most(10):
        samples = read(sorted(tmp_path.glob("*.tar*")))
    names = [sample.id for sample in samples if not isinstance(sample.video, UnreadableFile)]
    assert names[0] == "0000" and names[-1] == "0007" and set(names) <= {"0000", "0001", "b", "0007"}
    assert len(samples) > len(names) or hostile == "a pax size below zero"
    assert not any("not done after" in sample.id for sample in samples)  # the alarm is an error like others


def test_a_sparse_file_and_bad_json_cost_their_samples_only(tmp_path):
    deep = b'{"captions": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    half = b'{"caption": "half \\ud800 of a pair"}'
    weights = b'{"qa": [{"question": "q", "answer": ["a", "b"], "answer_weights": [1e9, 1]}]}'
    sparse = tarfile.TarInfo("d.jpg")
    sparse.pax_headers = {"GNU.sparse.map": "0,1,5,1", "GNU.sparse.size": "6", "GNU.sparse.name": "d.jpg"}
    words = tarfile.TarInfo("d.png")
    words.pax_headers = {"GNU.sparse.map": "a,b"}
    new = tarfile.TarInfo("e.jpg")
    new.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    bad = [
        ("a.json", deep),
        ("b.json", half),
        ("c.json", weights),
        (sparse, b"xy"),
        (words, b"z"),
        (new, b"9\n" * 256),
    ]
    whole = tar_bytes(bad, format=tarfile.PAX_FORMAT)
    content = whole[: whole.rindex(b"9\n") + 2] + old_sparse("f.jpg", extended=False)
    (tmp_path / "a.tar").write_bytes(content + tar_bytes([("g.jpg", b"g"), ("g.txt", b"h")]))
    *damaged, fine = read(tmp_path / "a.tar")
    assert [re.sub(r" \(its annotations cannot be used: (.*)\)", r": \1", sample.id) for sample in damaged] == [
        "a: a.json: lists and objects are nested more than 64 deep.",
        "b: b.json: a text has half of a surrogate pair, which is no character.",
        "c: answer_weights must be numbers from 0 on with a sum above 0 and at most 1,000, got [1000000000.0, 1].",
        "d: d.jpg is a sparse file",
        "e: e.jpg is a sparse file",
        "f: f.jpg is a sparse file",
    ]
    assert (fine.id, fine.video, fine.captions) == ("g", b"g", ("h",))


def test_names_in_other_encodings_are_escaped(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar_bytes([("caf\udce9.jpg", b"x"), ("caf\udce8.jpg", b"y")]))
    samples = read(tmp_path / "a.tar")
    assert [sample.id for sample in samples] == [r"caf\udce9", r"caf\udce8"]
    assert [sample.video for sample in samples] == [b"x", b"y"]
