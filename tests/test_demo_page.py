# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The page as it is served: what requests can reach, and a visit in a browser."""

import asyncio
import errno
import json
import os
import re
import runpy
import signal
import socket
import tempfile
from pathlib import Path

import httpx
import pytest
import yaml
from PIL import Image
from starlette.responses import PlainTextResponse

import valor_cli
from helpers.browser import CHROMIUM, Browser


pytest.importorskip("gradio", reason="the extra `demo` is not installed", exc_type=ImportError)

from modeling_valor.demo import DemoLimits, build_app
from modeling_valor.demo.clips import fetch_link
from modeling_valor.demo.server import DemoApp, Guard
from modeling_valor.media import MediaError


ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "hub_configs" / "valor-tiny"
CLIP, OTHER = (str(ROOT / "examples" / "media" / f"clip-0000{number}.mp4") for number in (0, 1))


@pytest.fixture(scope="module")
def app(tiny_checkpoint, example_index, tmp_path_factory):
    """The page of valor-tiny with an index of the two example clips, and its `address`."""
    folder = tmp_path_factory.mktemp("demo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "gradio"))
        made = build_app(tiny_checkpoint[0], example_index, processor=tiny_checkpoint[1], limits=DemoLimits(max_mb=2))
        made.launch(server_name="127.0.0.1", server_port=port, prevent_thread_lock=True)
        made.address = f"http://127.0.0.1:{port}"
        yield made
        made.close()


def number_of(app, name):
    """The number of the page's function of this name, or the number that is given."""
    return name if isinstance(name, int) else next(number for number, block in app.fns.items() if block.name == name)


def call(app, name, *data):
    """What Gradio answers to a request like that of the page: the last message of the queue."""
    with httpx.Client(base_url=f"{app.address}/gradio_api", timeout=60) as client:
        request = {"data": list(data), "fn_index": number_of(app, name), "session_hash": "test"}
        joined = client.post("/queue/join", json=request)
        if joined.status_code != 200:
            return {"refused": joined.text}
        with client.stream("GET", "/queue/data", params={"session_hash": "test"}) as lines:
            messages = (json.loads(line[5:]) for line in lines.iter_lines() if line.startswith("data:"))
            return next(message for message in messages if message["msg"] == "process_completed")


def upload(app, path, name="clip.mp4"):
    with open(path, "rb") as file:
        answer = httpx.post(f"{app.address}/gradio_api/upload", files={"files": (name, file)})
    return answer


def test_no_file_of_the_machine_is_served(app, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    served = Path(upload(app, CLIP).json()[0])
    assert httpx.get(f"{app.address}/gradio_api/file={served}").content == Path(CLIP).read_bytes()
    beside = served.parent / ".." / ".." / ".." / "secret"
    (served.parents[2] / "secret").write_text("secret")
    names = [
        "/etc/passwd",
        "/proc/self/environ",
        CLIP,
        ROOT / "README.md",
        tmp_path / "secret.txt",
        beside,
        TINY / "config.json",
    ]
    addresses = [f"gradio_api/file={name}" for name in names]
    addresses += ["gradio_api/proxy=https://example.org/", "monitoring", f"gradio_api/file/{CLIP}"]
    addresses += ["valor/media/999", "valor/media/-1", "valor/media/..%2F..%2Fetc%2Fpasswd", f"file={CLIP}"]
    for address in addresses:
        assert httpx.get(f"{app.address}/{address}").status_code in (403, 404), address
    for address in ("file=https://example.org/", "file=%20HTTPS://example.org", "file/http://example.org/"):
        answer = httpx.get(f"{app.address}/gradio_api/{address}")
        assert (answer.status_code, answer.text) == (403, "This is not served here."), address


def test_a_request_names_only_files_that_were_uploaded(app, server):
    address, asked = server
    meta = {"meta": {"_type": "gradio.FileData"}}
    for path in ("/etc/passwd", CLIP, f"{address}/video.mp4", f" {address}/video.mp4", f"file://{CLIP}"):
        answer = call(app, "take", {"path": path, **meta})
        assert not answer.get("success") and CLIP not in json.dumps(answer.get("output", {}))
    assert asked == []
    answer = call(app, "take", {"path": upload(app, CLIP).json()[0], **meta})
    assert answer["success"] and "a bell rings" in call(app, "describe", None)["output"]["data"][0]


def test_what_is_too_large_is_refused_before_it_is_kept(app, tmp_path):
    (tmp_path / "large.mp4").write_bytes(b"0" * 2_000_001)
    assert upload(app, tmp_path / "large.mp4").status_code == 413


def test_uploads_are_refused_where_visitors_gave_as_much_as_is_kept(tmp_path, monkeypatch):
    """By their declared size, with those that are on their way, before anything of them is read."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    (tmp_path / "hash").mkdir()
    (tmp_path / "hash" / "clip.mp4").write_bytes(b"0" * 600_000)
    others = []

    async def gradio(scope, receive, send):
        if others:  # a second upload comes before the first has ended
            others.append(await post(others.pop()))
        await PlainTextResponse("kept")(scope, receive, send)

    guard = Guard(gradio, DemoLimits(max_mb=0.5, max_total_mb=1, max_files=3))

    async def post(size, content=None):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(guard), base_url="http://page") as client:
            return await client.post("/gradio_api/upload", content=b"0" * size if content is None else content)

    async def pieces():
        yield b"0"

    assert asyncio.run(post(400_000)).status_code == 200
    refused = asyncio.run(post(400_001))
    assert refused.status_code == 507 and "1 MB and 3 files" in refused.text and str(tmp_path) not in refused.text
    assert asyncio.run(post(600_000)).text == "A file may have 0.5 MB."
    assert asyncio.run(post(0, pieces())).status_code == 411
    others.append(200_000)
    assert asyncio.run(post(200_001)).status_code == 200 and others.pop().status_code == 507
    with tempfile.NamedTemporaryFile(dir=tmp_path, delete=False):  # as Gradio names it
        (tmp_path / "mine.txt").write_bytes(b"")
    assert asyncio.run(post(1)).status_code == 507
    with pytest.raises(MediaError, match="no room for more"):  # of links
        fetch_link("https://example.org/clip.mp4", guard.limits, tmp_path)
    monkeypatch.setattr("modeling_valor.demo.server.KEPT_SECONDS", -1)  # then what was broken off is deleted
    assert asyncio.run(post(1)).status_code == 200
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["clip.mp4", "mine.txt"]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("take", [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}]),
        ("take", ["clip.mp4"]),
        ("take", []),
        ("search", ["a bell", None]),
        ("search", ["a bell", {"modalities": "av"}]),
        ("along", [None, "all"]),
        ("along", [None, 1e9]),
        (9999, []),
    ],
)
def test_a_forged_request_is_one_line_in_the_log(app, name, data, capsys, caplog):
    answer = call(app, name, *data)
    assert not answer.get("success")
    assert "Traceback" not in capsys.readouterr().err
    records = [record for record in caplog.records if record.name == "modeling_valor.demo.server"]
    assert len(records) <= 1 and all("\n" not in record.getMessage() for record in records)


def test_a_hit_is_served_in_parts_and_by_its_number_only(app):
    answer = call(app, "search", "a bell rings", "seen and heard")
    addresses = re.findall(r'src="(valor/media/\d+)#t=', answer["output"]["data"][0])
    contents = {httpx.get(f"{app.address}/{address}").content for address in addresses}
    assert contents == {Path(CLIP).read_bytes(), Path(OTHER).read_bytes()}
    part = httpx.get(f"{app.address}/{addresses[0]}", headers={"Range": "bytes=100-199"})
    assert part.status_code == 206 and part.headers["content-type"] == "video/mp4"
    assert part.content in {Path(name).read_bytes()[100:200] for name in (CLIP, OTHER)}


def test_nothing_is_counted_shared_or_loaded_from_elsewhere(app):
    page = httpx.get(app.address)
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'self'") and "connect-src" not in policy and "*" not in policy
    config = httpx.get(f"{app.address}/config").json()
    assert not config["analytics_enabled"] and app.share_url is None
    assert "fonts.googleapis" not in httpx.get(f"{app.address}/theme.css").text


def test_the_space_has_what_the_hub_needs(monkeypatch, tmp_path):
    """Its settings, and an app of the checkpoint that a variable names, with the clips that lie beside it."""
    folder = ROOT / "examples" / "space"
    settings = yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert settings["sdk"] == "gradio" and settings["app_file"] == "app.py" and settings["license"] == "mit"
    required = (folder / "requirements.txt").read_text(encoding="utf-8")
    lowest = re.search(r"gradio>=([\d.]+),<7", required)[1]
    assert lowest == re.search(r'"gradio>=([\d.]+),<7"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))[1]
    assert tuple(map(int, settings["sdk_version"].split("."))) >= tuple(map(int, lowest.split(".")))
    monkeypatch.setenv("VALOR_CHECKPOINT", str(TINY))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    for file in ("app.py", "README.md"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    (tmp_path / "clip-00000.mp4").write_bytes(Path(CLIP).read_bytes())
    app = runpy.run_path(str(tmp_path / "app.py"))["app"]
    assert any(block.get_block_name() == "dataset" for block in app.blocks.values()) and app.limits.max_mb == 50


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-folder"], "CHECKPOINT no-such-folder: there is no such folder"),
        ([str(TINY), "--index", "no-such-index"], "there is no index here"),
        ([str(TINY), "--max-seconds", "-1"], "`max_seconds` must be a positive number"),
    ],
)
def test_mistakes_of_the_command_are_one_sentence(arguments, message, capsys):
    assert valor_cli.main(["demo", *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_the_command_serves_the_page_with_its_limits_from_a_folder_of_its_own(monkeypatch):
    launched = {}

    def launch(app, **options):
        launched.update(options, limits=app.limits, folder=os.environ["GRADIO_TEMP_DIR"])
        assert os.path.isdir(launched["folder"])

    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setattr(DemoApp, "launch", launch)
    assert valor_cli.main(["demo", str(TINY), "--port", "7999", "--max-mb", "5", "--allow-private"]) == 0
    assert launched["server_name"] == "127.0.0.1" and launched["server_port"] == 7999
    assert launched["limits"] == DemoLimits(max_mb=5, allow_private=True) and not os.path.exists(launched["folder"])


def test_a_demo_that_is_terminated_deletes_what_visitors_gave(monkeypatch):
    folders = []

    def launch(app, **options):
        folders.append(Path(os.environ["GRADIO_TEMP_DIR"]))
        (folders[0] / "clip.mp4").write_bytes(b"a visitor's")
        with pytest.raises(KeyboardInterrupt):  # at which Gradio's launch closes its server and returns
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setattr(DemoApp, "launch", launch)
    kept = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert valor_cli.main(["demo", str(TINY), "--port", "7999"]) == 0
        assert not folders[0].exists() and signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, kept)


def element(tag, text):
    """The visible element with this text."""
    return f"[...document.querySelectorAll('{tag}')].find(e => e.offsetParent && e.textContent.trim() === '{text}')"


def field(label):
    """The text field with this label."""
    return f"[...document.querySelectorAll('label')].find(e => e.textContent.trim() === '{label}')?.querySelector('input, textarea')"


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_visit_on_a_phone(app, tmp_path):
    """A clip is given, described, asked about and described along its time; the index is searched and a hit plays."""
    (tmp_path / "bad.mp4").write_bytes(b"no film")
    texts = "[...document.querySelectorAll('.texts')].filter(e => e.querySelector('dl')).map(e => e.innerText)"
    with Browser(tmp_path / "profile") as browser:
        tab = browser.open(app.address, width=390, height=844)
        chooser = "document.querySelector('input[type=file]')"
        tab.upload(chooser, CLIP)
        tab.wait(f"{texts}.length == 1")
        assert "on the water and at that moment a bell rings" in tab.evaluate(texts)[0]
        pictures = "[...document.querySelectorAll('.frames img, .mel img')]"
        tab.wait(f"{pictures}.length == 9 && {pictures}.every(e => e.complete && e.naturalWidth > 0)")

        asked = "what is heard? ${1+1} {{value}} <b>now</b>"
        tab.type(field("Ask about it"), asked)
        tab.click(element("button", "Ask"))
        tab.wait(f"{texts}.length == 2")
        assert tab.evaluate(texts)[1].split("\n")[0] == asked  # text, and neither markup nor a template

        tab.click(element("button", "Describe each segment"))
        tab.wait(
            "document.querySelector('a[download], .along td') && document.querySelectorAll('.along td').length == 2"
        )
        tab.screenshot(tmp_path / "described.png")

        tab.click(element("button[role=tab]", "Search"))
        tab.type(field("What to look for"), "a bell rings")
        tab.click(element("button", "Search the index"))
        tab.wait("document.querySelectorAll('.hits article').length")
        tab.click("document.querySelector('.hits article button[data-seconds]')")
        player = "document.querySelector('.hits article video')"
        tab.wait(f"{player}.currentTime > 0")
        seconds = float(tab.evaluate("document.querySelector('.hits article button').dataset.seconds"))
        assert seconds <= tab.evaluate(f"{player}.currentTime") < seconds + 2.5
        tab.screenshot(tmp_path / "found.png")

        tab.click(element("button[role=tab]", "Describe and ask"))
        tab.click("[...document.querySelectorAll('button')].find(e => e.offsetParent && e.ariaLabel === 'Clear')")
        tab.upload(chooser, tmp_path / "bad.mp4")
        messages = "[...document.querySelectorAll('.toast-body')].map(e => e.textContent).join()"
        message = tab.wait(f"{messages}.includes('bad.mp4') && {messages}")
        assert str(tmp_path) not in message and "/gradio" not in message
        assert tab.evaluate(texts) == []  # and no question is answered about the clip before
        tab.click(element("button", "Ask"))
        tab.wait(f"{messages}.includes('Give a video or a sound first.')")

        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")  # nothing is cut off at the side
        outside = [url for url in tab.requests() if not url.startswith((app.address, "data:", "blob:"))]
        assert outside == []
    for name in ("described", "found"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width == 390 and len(picture.convert("RGB").getcolors(1 << 24)) > 1000


def test_a_full_disk_is_a_fault_of_the_machine_and_not_of_a_visitor(tmp_path):
    async def full(scope, receive, send):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        asyncio.run(
            Guard(full, DemoLimits())({"type": "http", "path": "/", "method": "GET", "headers": []}, None, None)
        )
