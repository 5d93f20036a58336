# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Which media a request may name."""

import os

import pytest


pytest.importorskip("fastapi")

from modeling_valor.media import LocalFile, open_source
from modeling_valor.serving.errors import RequestError
from modeling_valor.serving.settings import ServerSettings
from modeling_valor.serving.sources import Content, MediaRules


@pytest.fixture
def root(tmp_path):
    """A folder that may be read, beside a file that may not."""
    (tmp_path / "root" / "inside").mkdir(parents=True)
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    (tmp_path / "root-2.mp4").write_bytes(b"secret")
    for name in ("clip.mp4", "inside/clip.mp4", "a#b.mp4"):
        (tmp_path / "root" / name).write_bytes(b"film")
    (tmp_path / "root" / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (tmp_path / "root" / "good.mp4").symlink_to(tmp_path / "root" / "clip.mp4")
    return tmp_path / "root"


def test_addresses_and_content_are_accepted_and_no_files():
    rules = MediaRules(ServerSettings())
    for address in ("https://example.com/clip.mp4", "HTTP://example.com/a", "data:video/mp4;base64,AAAA"):
        assert rules.accept(address) == address
    for address in (
        "/etc/passwd",
        "file:///etc/passwd",
        "clip.mp4",
        "~/clip.mp4",
        "zip://a::b.zip",
        "hf://a/b/c.mp4",
        "ftp://example.com/a",
        "",
        None,
        3,
        ["a"],
        "postgresql://localhost",
    ):
        with pytest.raises(RequestError) as refused:
            rules.accept(address)
        assert refused.value.status == 400
    assert rules.limits.public_only


def test_files_below_the_folder_are_accepted_and_no_others(root):
    rules = MediaRules(ServerSettings(media_root=str(root)))
    for address in (
        "clip.mp4",
        "inside/clip.mp4",
        "inside/../clip.mp4",
        "good.mp4",
        "a#b.mp4",
        str(root / "clip.mp4"),
        (root / "clip.mp4").as_uri(),
        "clip.mp4#t=1,2",
        "FILE://localhost" + str(root / "clip.mp4"),
    ):
        accepted = rules.accept(address)
        assert isinstance(accepted, LocalFile) and accepted.budget.limits is rules.limits
        with open_source(accepted, public_only=True) as path, open(path, "rb") as file:
            assert file.read() == b"film"
    assert rules.accept("clip.mp4#t=1,2").part.end == 2
    answers = set()
    for address in (
        "../secret.mp4",
        "/etc/passwd",
        "file:///etc/passwd",
        "link.mp4",
        "../root-2.mp4",
        "inside",
        ".",
        "/",
        "nothing.mp4",
        "clip.mp4\0",
        "file://host/clip.mp4",
        "file://[x/clip.mp4",
        "\ud800.mp4",
        "a" * 5000,
        "file:///%2e%2e/secret.mp4",
        f"{root}/../secret.mp4",
        "~",
        "zip://clip.mp4::a.zip",
        "hf://a/b/c.mp4",
        "ftp://example.com/clip.mp4",
    ):
        with pytest.raises(RequestError) as refused:
            rules.accept(address)
        answers.add(refused.value.message.split(" is ", 1)[1])
    assert answers == {"no file that this server gives access to."}  # the same, whether it exists or not
    with pytest.raises(RequestError, match="clip"):
        rules.accept("clip.mp4#t=3,2")
    with pytest.raises(ValueError, match="there is no such folder"):
        MediaRules(ServerSettings(media_root=os.path.join(root, "nothing")))


def test_content_is_a_text_or_one_sample():
    rules = MediaRules(ServerSettings())
    video = {"type": "video_url", "video_url": {"url": "https://a/v"}}
    image = {"type": "image_url", "image_url": "https://a/i"}
    audio = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    assert rules.read_content("a dog", "input") == Content(text="a dog")
    assert rules.read_content({"type": "text", "text": "a dog"}, "input") == Content(text="a dog")
    assert rules.read_content(video, "input") == Content(video="https://a/v")
    assert rules.read_content([image, audio], "input") == Content(
        video="https://a/i", audio="data:audio/wav;base64,AAAA", is_image=True
    )
    assert (
        rules.read_content({"type": "audio_url", "audio_url": {"url": "https://a/s"}}, "input").audio == "https://a/s"
    )
    for wrong in (
        3,
        None,
        [],
        {},
        [3],
        {"type": "video"},
        {"type": "text"},
        [video, image],
        [video, {"type": "text", "text": "x"}],
        {"type": "video_url"},
        {"type": "video_url", "video_url": {}},
        {"type": ["video_url"]},
        {"type": "input_audio", "input_audio": {"data": 3}},
        {"type": "input_audio", "input_audio": {"data": "A", "format": "wav;x"}},
    ):
        with pytest.raises(RequestError) as refused:
            rules.read_content(wrong, "input")
        assert refused.value.status == 400 and refused.value.param == "input"
