# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What a source may be, downloads within their limits, and messages without secrets."""

import base64
import contextlib
import http.server
import io
import logging
import shutil
import tarfile
import threading
import traceback
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from modeling_valor import media_fetch
from modeling_valor.media import (
    MediaError,
    MediaLimits,
    iterate_frames,
    list_frame_files,
    list_media,
    media_source,
    one_at_a_time,
    open_source,
    read_audio,
    read_frames,
)
from modeling_valor.media_sources import source_name


def content(source, **limits) -> bytes:
    with open_source(source, **limits) as path:
        return Path(path).read_bytes()


@contextlib.contextmanager
def serving(answer):
    """The address of a server that calls `answer(handler)` for each request, and the requests' paths."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            with contextlib.suppress(OSError):
                answer(self)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("0.0.0.0", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", asked
        server.shutdown()


def redirect(handler, location: str) -> None:
    handler.send_response(302)
    handler.send_header("Location", location)
    handler.end_headers()


# ---------------------------------------------------------------------------------------------------------------------
# Kinds of sources
# ---------------------------------------------------------------------------------------------------------------------


def test_local_files_by_url_and_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a clip #1.mp4").write_bytes(b"film")
    (tmp_path / "~").mkdir()
    for source in (
        "~/a clip #1.mp4",
        (tmp_path / "a clip #1.mp4").as_uri(),
        f"FILE://localhost{tmp_path}/a%20clip%20%231.mp4",
    ):
        assert content(source) == b"film"
    with pytest.raises(MediaError, match="names a host"):
        content("file://server/clip.mp4")
    monkeypatch.chdir(tmp_path)
    Path("~/clip.mp4").write_bytes(b"a folder that is called so comes first")
    assert content("~/clip.mp4").startswith(b"a folder")


def test_members_of_archives_as_datasets_writes_them(tmp_path, video):
    with zipfile.ZipFile(tmp_path / "clips.zip", "w") as archive:
        archive.write(video, "train/clip.mp4")
    with tarfile.open(tmp_path / "zips.tar", "w") as archive:
        archive.add(tmp_path / "clips.zip", "a/clips.zip")
    expected = Path(video).read_bytes()
    assert content(f"zip://train/clip.mp4::{tmp_path}/clips.zip") == expected
    assert content(f"zip://train/clip.mp4::tar://a/clips.zip::{tmp_path}/zips.tar") == expected
    with pytest.raises(MediaError, match=r"^zip://train/none\.mp4::.*cannot be read"):
        content(f"zip://train/none.mp4::{tmp_path}/clips.zip")
    with pytest.raises(MediaError, match="limit of 100 bytes"):
        content(f"zip://train/clip.mp4::{tmp_path}/clips.zip", max_bytes=100)
    with pytest.raises(MediaError, match=r"written zip://clip\.mp4::clips\.zip"):
        content("zip://clip.mp4")


def test_archives_behind_urls_are_fetched_within_the_limits(tmp_path, video):
    with zipfile.ZipFile(tmp_path / "clips.zip", "w") as archive:
        archive.write(video, "clip.mp4")

    def answer(handler):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write((tmp_path / "clips.zip").read_bytes())

    with serving(answer) as (address, _):
        assert content(f"zip://clip.mp4::http://{address}/clips.zip?sig=1") == Path(video).read_bytes()
        with pytest.raises(MediaError, match="limit of 1000 bytes"):
            content(f"zip://clip.mp4::http://{address}/clips.zip", max_bytes=1000)


def test_data_urls_are_read_and_never_repeated(video):
    encoded = base64.b64encode(Path(video).read_bytes()).decode()
    assert content(f"data:video/mp4;base64,{encoded}") == Path(video).read_bytes()
    assert content("data:,a%20note") == b"a note"
    assert content("data:video/mp4;base64,YSBu%0Ab3Rl") == b"a note"
    with pytest.raises(MediaError, match="<data: URL> is not base64"):
        content("data:video/mp4;base64,@@@")
    for url in ("data:image/png;base64,c2VjcmV0", "data:text/plain,c2VjcmV0"):
        with pytest.raises(MediaError, match="<data: URL>") as raised:
            read_frames(url, 2)
        assert "c2VjcmV0" not in str(raised.value)


class Watched(io.BytesIO):
    broken = False

    def read(self, size=-1):
        assert one_at_a_time(self).locked()
        if self.broken:
            raise OSError("broken")
        return super().read(size)


def test_a_file_object_is_read_by_one_thread_at_a_time():
    """As the source of several samples it has one position."""
    file = Watched(b"content")
    with open_source(file) as path:
        assert Path(path).read_bytes() == b"content" and not one_at_a_time(file).locked()
    file.broken = True
    with pytest.raises(MediaError, match="broken"), open_source(file):
        pass
    assert not one_at_a_time(file).locked()
    assert one_at_a_time(file) is not one_at_a_time(Watched(b"content"))
    assert one_at_a_time({}) is one_at_a_time([])


def test_what_was_opened_is_passed_through_with_its_name(video):
    with open_source(Path(video).read_bytes(), max_bytes=2**20) as path, open_source(path, max_bytes=1) as again:
        assert again is path and path.name == "<bytes>"


def test_entries_of_datasets_lead_to_their_files(tmp_path):
    class Entry:
        def __init__(self, path, content=None):
            self._hf_encoded = {"path": path, "bytes": content}

    address = "zip://clip.mp4::hf://datasets/owner/name@main/clips.zip"
    assert media_source(Entry(address)) == media_source({"path": address}) == address
    assert media_source(Entry("clip.mp4", b"film")) == b"film"
    assert media_source(Entry(str(tmp_path))) == str(tmp_path)
    assert media_source(Entry("not-there.mp4")) is None  # then the decoder itself is read


# ---------------------------------------------------------------------------------------------------------------------
# Folders
# ---------------------------------------------------------------------------------------------------------------------


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_folder_of_images_only_is_one_video(tmp_path):
    touch(tmp_path, "f10.jpg", "f2.JPG", "notes.txt", ".hidden.mp4", "empty/notes.txt")
    assert list_media(tmp_path) == [str(tmp_path)]
    assert [path.name for path in list_frame_files(tmp_path)] == ["f2.JPG", "f10.jpg"]


def test_frames_with_one_sound_as_extracted_are_one_video(tmp_path):
    for name in ("frame_0001.jpg", "frame_0002.jpg", "audio.wav"):
        (tmp_path / name).touch()
    assert list_media(tmp_path) == [str(tmp_path)]
    assert [path.name for path in list_frame_files(tmp_path)] == ["frame_0001.jpg", "frame_0002.jpg"]
    (tmp_path / "other.wav").touch()
    assert len(list_media(tmp_path)) == 4
    with pytest.raises(MediaError, match=r"is a collection, with audio\.wav in it"):
        list_frame_files(tmp_path)


def test_any_other_folder_of_media_is_a_collection(tmp_path):
    touch(
        tmp_path, "b10.mp4", "b2.mp4", "cover.jpg", "list.csv", "c/1.png", "c/2.png", "d/e/x.wav", "d/y.mov", "f/z.txt"
    )
    (tmp_path / "again").symlink_to(tmp_path)
    expected = ["b2.mp4", "b10.mp4", "c", "cover.jpg", "d/e/x.wav", "d/y.mov"]
    assert list_media(tmp_path) == [str(tmp_path / name) for name in expected]
    assert list_media(tmp_path / "b2.mp4") == [str(tmp_path / "b2.mp4")]
    assert list_media("https://host/clip.mp4") == ["https://host/clip.mp4"]
    with pytest.raises(MediaError, match="no media files"):
        list_media(tmp_path / "f")


def test_a_stray_image_among_videos_is_not_taken_for_their_frames(tmp_path, video):
    Image.new("RGB", (8, 8)).save(tmp_path / "cover.jpg")
    shutil.copy(video, tmp_path / "clip.mp4")
    for read in (lambda folder: read_frames(folder, 2), lambda folder: next(iterate_frames(folder, max))):
        with pytest.raises(MediaError, match=r"is a collection, with clip\.mp4 in it, .*\(`list_media`\)"):
            read(tmp_path)


# ---------------------------------------------------------------------------------------------------------------------
# Downloads
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["headers", "content"])
def test_the_time_of_a_download_covers_all_of_it(part):
    """A server that sends one byte after the other never lets a single wait become too long."""
    stop = threading.Event()

    def drip(handler):
        if part == "content":
            handler.send_response(200)
            handler.end_headers()
        else:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not stop.wait(0.02):
            handler.wfile.write(b"a")

    with serving(drip) as (address, _):
        with pytest.raises(MediaError, match=r"clip\.mp4 took longer than the limit of 0\.3 seconds"):
            content(f"http://{address}/clip.mp4", timeout=10, max_seconds=0.3)
        stop.set()


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///clip.mp4",
        "http://[::1",
        "http://host:port/",
        "http://\x00/",
        "http://\ud800/",
        "http://127.0.0.1:1/\n",
        "http://127.0.0.1:1/" + "x" * 70_000,
        "http://" + "a" * 300 + "/",
    ],
)
def test_bad_urls_are_media_errors_of_one_line(url):
    with pytest.raises(MediaError, match="could not be fetched") as raised:
        content(url)
    assert str(raised.value).isprintable() and len(str(raised.value)) < 1500


@pytest.mark.parametrize("path", ["x/..", "..", "", "a/./", "%2e%2e", "a" * 300, "clip.mp4/.."])
def test_no_path_of_a_url_leads_to_another_file(path):
    def answer(handler):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b"film")

    with serving(answer) as (address, _):
        assert content(f"http://{address}/{path}") == b"film"


def test_secrets_of_urls_are_in_no_message_and_no_log(caplog, video):
    def answer(handler):
        if handler.path.startswith("/to"):
            redirect(handler, "/clip.mp4?sig=SECRET")
        elif handler.path.startswith("/clip.mp4"):
            handler.send_response(200)
            handler.end_headers()
            handler.wfile.write(b"no video at all")
        else:
            handler.send_error(403)

    caplog.set_level(logging.DEBUG)
    with serving(answer) as (address, _):
        sources = [f"http://{address}/{path}?sig=SECRET#SECRET" for path in ("to", "clip.mp4", "none.mp4")]
        sources += [f"http://user:SECRET@{address}/to", f"zip://a::http://user:SECRET@{address}/none.zip?SECRET"]
        sources += [f"http://{address}/clip.mp4;token=SECRET", f"http://{address}/none;SECRET?SECRET"]
        sources += [
            "http:/host/x?SECRET",
            "http:/host/x;SECRET",
            "https:user:SECRET@host/x",
            "HTTP:/u:SECRET@host/x#SECRET",
        ]
        for source in [*sources, "http://user:SECRET@127.0.0.1:1/a?SECRET", "http://user:SEC/RET@host/a"]:
            for read in (lambda url: read_frames(url, 2), read_audio):
                with pytest.raises(MediaError) as raised:
                    read(source)
                assert "SEC" not in str(raised.value)
                chain = traceback.TracebackException.from_exception(raised.value)
                while chain is not None:  # the messages, not the lines of this file
                    assert "SECRET" not in str(chain)
                    chain = chain.__cause__
    assert "SECRET" not in caplog.text


def test_messages_name_the_url_and_not_the_temporary_file(server):
    def answer(handler):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b"no media")

    with serving(answer) as (address, _):
        for read in (lambda url: read_frames(url, 2), read_audio):
            with pytest.raises(MediaError, match=rf"^http://{address}/clip\.mp4\?\.\.\. is not"):
                read(f"http://{address}/clip.mp4?id=1")


def test_what_a_server_or_a_file_object_says_is_one_printable_line():
    def answer(handler):
        handler.wfile.write(b"HTTP/1.1 418 I am \x1b[31ma teapot\r\nContent-Length: 0\r\n\r\n")

    with serving(answer) as (address, _), pytest.raises(MediaError, match=r"answers 418 I am \\x1b\[31ma teapot"):
        content(f"http://{address}/clip.mp4")
    file = io.BytesIO()
    file.name = "a\nb"
    with pytest.raises(MediaError, match=r"^a\\nb is empty"):
        read_frames(file, 1)


def test_names_are_one_printable_line():
    assert source_name("a\nb\u202e\ud800.mp4") == r"a\nb\u202e\ud800.mp4"
    assert source_name("https://me:pw@host:80/a@b/c.mp4?x=1#t=3") == "https://host:80/a@b/c.mp4?...#t=3"
    assert source_name("zip://a?b.mp4::https://me@host/c.zip") == "zip://a?b.mp4::https://host/c.zip"
    assert len(source_name("x" * 10**6)) < 1000


# ---------------------------------------------------------------------------------------------------------------------
# Sources of strangers
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("2002:7f00:1::", False),  # 6to4 of 127.0.0.1
        ("64:ff9b::a9fe:a9fe", False),  # NAT64 of 169.254.169.254
    ],
)
def test_public_addresses_are_told_from_others(address, public):
    assert media_fetch.is_public(address) == public


def test_private_addresses_are_refused_where_only_public_ones_are_accepted(server):
    address, asked = server
    for url in (address, address.replace("127.0.0.1", "localhost"), address.replace("127.0.0.1", "0x7f.1")):
        with pytest.raises(MediaError, match="not public"):
            content(f"{url}/video.mp4", public_only=True)
    assert asked == []
    assert content(f"{address}/video.mp4")


def test_private_addresses_are_refused_after_a_redirect(monkeypatch):
    """127.0.0.1 stands for a public server, which sends on to 127.0.0.2, a private one."""
    monkeypatch.setattr(media_fetch, "is_public", lambda address: address == "127.0.0.1")
    with (
        serving(lambda handler: redirect(handler, f"http://127.0.0.2:{handler.server.server_port}/inside")) as (
            address,
            asked,
        ),
        pytest.raises(MediaError, match="not public"),
    ):
        content(f"http://{address}/outside", public_only=True)
    assert asked == ["/outside"]


def test_a_name_that_changes_its_address_is_refused_before_anything_is_sent(monkeypatch, server):
    """The address that is connected to counts, not only the one that was looked up before."""
    address, asked = server
    answers = iter([True, False])
    monkeypatch.setattr(media_fetch, "is_public", lambda address: next(answers))
    with pytest.raises(MediaError, match="not public"):
        content(f"{address}/video.mp4", public_only=True)
    assert asked == []


def test_where_only_public_addresses_are_accepted_nothing_local_is_read(video, tmp_path):
    for source in (video, Path(video), Path(video).as_uri(), f"zip://a::{video}", "hf://datasets/a/b/c.mp4", "~"):
        with pytest.raises(MediaError, match="only http and https"):
            content(source, public_only=True)
    assert content(b"film", public_only=True) == content("data:,film", public_only=True) == b"film"


def test_limits_of_a_configuration_are_checked():
    assert MediaLimits.of({"max_bytes": 5, "public_only": True}) == MediaLimits(max_bytes=5, public_only=True)
    assert MediaLimits.of(None) == MediaLimits.of(MediaLimits()) == MediaLimits()
    for wrong in (
        {"bytes": 5},
        {"max_bytes": -1},
        {"max_bytes": "5"},
        {"max_bytes": True},
        {"timeout": float("nan")},
        {"public_only": 1},
    ):
        with pytest.raises(ValueError, match="media_limits"):
            MediaLimits.of(wrong)
