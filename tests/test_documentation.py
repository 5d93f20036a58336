# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The site of docs/ and the notebooks: every example runs, or says above it why not; messages are the package's."""

import ast
import contextlib
import glob
import importlib
import io
import itertools
import json
import logging
import re
import shlex
import shutil
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import av
import click
import pytest
import torch
from safetensors.torch import load_file
from typer.main import get_command

import valor_cli
from modeling_valor.training.run import parse_arguments


ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
TINY = ROOT / "hub_configs" / "valor-tiny"

BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?"
    r"^```(?P<language>python|bash)\n(?P<code>.*?)^```$"
    r"(?:\n\nprints\n\n```text\n(?P<printed>.*?)^```$)?",
    re.M | re.S,
)
NOT_RUN = re.compile(r"<!-- not run")

RUN_ELSEWHERE = {
    "export.md": "test_integrations_export.py",
    "mteb.md": "test_integrations_mteb.py",
    "pipelines.md": "test_pipelines_retrieval.py",
    "serving.md": "test_serving_server.py",
}
"""Pages whose Python is run by the tests of its module; only their commands are checked here."""


@dataclass(frozen=True)
class Block:
    """A block of code of a page; `reason`: why it is not run, `printed`: what its last command prints as the page says."""

    page: str
    line: int
    language: str
    code: str
    reason: str | None
    printed: str | None

    @property
    def place(self) -> str:
        return f"docs/{self.page}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command line, without comments."""
        found: list[list[str]] = []
        line = ""
        for part in self.code.replace("\\\n", " ").splitlines():
            line += part + "\n"
            with contextlib.suppress(ValueError):  # where a quotation goes on in the next line
                found.append(shlex.split(line, comments=True))
                line = ""
        return [words for words in found if words]


def read_blocks() -> list[Block]:
    """All blocks in Python and for the shell, in the order of pages and lines."""
    found = []
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        for block in BLOCK.finditer(text):
            line = text[: block.start("code")].count("\n") + 1
            found.append(Block(page.name, line, block["language"], block["code"], block["reason"], block["printed"]))
        assert len(NOT_RUN.findall(text)) == sum(
            block.reason is not None for block in found if block.page == page.name
        )
    return found


BLOCKS = read_blocks()
PAGES = sorted({block.page for block in BLOCKS if block.reason is None and block.page not in RUN_ELSEWHERE})


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A folder with copies of what the examples name, and valor-tiny in the place of larger checkpoints."""
    folder = tmp_path_factory.mktemp("files")
    shutil.copytree(ROOT / "examples", folder / "examples")
    for name in ("hub_configs/valor-tiny", "valor-large"):
        shutil.copytree(TINY, folder / name)
    clips = sorted((ROOT / "examples" / "media").glob("*.mp4"))
    (folder / "videos").mkdir()
    for name, clip in zip(("a.mp4", "b.mp4"), clips, strict=True):
        shutil.copy(clip, folder / "videos" / name)
        shutil.copy(clip, folder / name)
    join(clips, folder / "film.mp4")
    # The first of README's clips
    assert valor_cli.main(shlex.split(f"world {folder}/clips --split test --count 4 --seed 42 --workers 1")) == 0
    return folder


@pytest.fixture
def home(files, tmp_path, monkeypatch) -> Iterator[Path]:
    """A copy of these files for one page, as the working folder."""
    shutil.copytree(files, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    logger = logging.getLogger("modeling_valor")
    level, handlers = logger.level, logger.handlers[:]
    yield tmp_path / "home"
    logger.setLevel(level)  # `valor train` shows more
    logger.handlers[:] = handlers


def write_downloads(folder: Path) -> None:
    """The downloads of 2023: a run's folder, the same as a zip, and fine-tuned files, all of the example's small size."""
    example = ROOT / "examples" / "checkpoint_2023"
    weights = load_file(example / "ckpt" / "model_step_0.safetensors")
    for size in ("base", "large"):
        shutil.copytree(example / "log", folder / f"VALOR-{size}" / "log")
        (folder / f"VALOR-{size}" / "ckpt").mkdir()
        torch.save(weights, folder / f"VALOR-{size}" / "ckpt" / "model_step_0.pt")
    torch.save(weights, folder / "VALOR-base" / "VALOR_base_msr_ret.pt")
    torch.save(weights, folder / "VALOR-base" / "VALOR_base_msr_cap.pt")
    torch.save(weights, folder / "VALOR_large_msr_ret.pt")
    for size in ("base", "large"):
        with zipfile.ZipFile(folder / f"VALOR-{size}.zip", "w") as download:
            for path in sorted((folder / f"VALOR-{size}").rglob("*")):
                download.write(path, path.relative_to(folder))
    shutil.copy(example / "vocab.txt", folder)


def join(clips: list[Path], output: Path) -> None:
    """One film of several of the same kind, one after the other, without encoding them again."""
    with av.open(str(output), "w") as film:
        streams: list = []
        start = 0.0
        for clip in clips:
            with av.open(str(clip)) as part:
                streams = streams or [film.add_stream_from_template(stream) for stream in part.streams]
                for packet in part.demux():
                    if packet.dts is None:
                        continue
                    shift = round(start / packet.time_base)
                    packet.pts, packet.dts, packet.stream = (
                        packet.pts + shift,
                        packet.dts + shift,
                        streams[packet.stream.index],
                    )
                    film.mux(packet)
                start += part.duration / av.time_base + 1024 / 22050  # AAC begins one packet before the sound


def index_clips(folder: Path) -> None:
    """The index of README's first commands."""
    command = f"index clips --index {folder}/clips.lance --model hub_configs/valor-tiny --segment-seconds 2.5"
    assert valor_cli.main(shlex.split(command)) == 0


BEFORE: dict[str, Callable[[Path], None]] = {"released_checkpoints.md": write_downloads, "search.md": index_clips}
"""What a page goes on from."""


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run(page, home, capsys):
    """In the order of the page, its Python in one namespace."""
    BEFORE.get(page, lambda folder: None)(home)
    names: dict = {"__name__": "__main__"}
    for block in BLOCKS:
        if block.page != page or block.reason is not None:
            continue
        if block.language == "python":
            exec(compile(block.code, block.place, "exec"), names)
            continue
        for command in block.commands:
            check(command)
            if command[0] == "valor":
                capsys.readouterr()
                arguments = [found for word in command[1:] for found in sorted(glob.glob(word)) or [word]]
                assert valor_cli.main(arguments) == 0, f"{block.place}: {shlex.join(command)}"
        if block.printed is not None:
            assert capsys.readouterr().out == block.printed, block.place


NOTEBOOKS = {
    "caption_and_ask": lambda names: (
        "collides" in names["captions"][0]
        and list(names["answers"].values()) == [["large", "bell", "yes"], ["large", "bell", "no"]]
    ),
    "search_your_videos": lambda names: names["hits"][0].start == 0 and all(hit.proven for hit in names["hits"]),
    "fine_tune_on_your_clips": lambda names: "collides" in names["before"] and names["after"] == "the sound of a bell",
}
"""Notebook -> whether its variables are at the end what its text says."""


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs(name, home):
    """Its cells one after the other, as Jupyter runs them; the file has no outputs."""
    path = ROOT / "examples" / "notebooks" / f"{name}.ipynb"
    names: dict = {"__name__": "__main__"}
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), names)
    assert NOTEBOOKS[name](names)


def test_something_is_printed_as_pages_say():
    assert any(block.printed for block in BLOCKS if block.page in PAGES)


def test_there_is_no_other_notebook():
    assert {path.stem for path in (ROOT / "examples").rglob("*.ipynb")} == set(NOTEBOOKS)


@pytest.mark.parametrize(
    "block",
    [block for block in BLOCKS if block.reason is not None],
    ids=lambda block: f"{block.place}: {block.reason}",
)
def test_an_example_that_is_not_run_is_one_that_could_be(block, monkeypatch):
    """Its syntax and its imports of this package, or its programs, files and options, are right."""
    monkeypatch.chdir(ROOT)
    if block.language == "python":
        if block.page == "demo.md":
            pytest.importorskip("gradio")
        for statement in ast.walk(ast.parse(block.code)):
            ours = isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("modeling_valor")
            if ours and block.page not in RUN_ELSEWHERE:
                module = importlib.import_module(statement.module or "")
                assert all(hasattr(module, alias.name) for alias in statement.names), ast.unparse(statement)
        return
    for command in block.commands:
        check(command)


@pytest.mark.parametrize("page", RUN_ELSEWHERE)
def test_a_page_that_other_tests_run_is_run_there(page):
    assert f'"{page}"' in (ROOT / "tests" / RUN_ELSEWHERE[page]).read_text(encoding="utf-8")
    for block in BLOCKS:
        if block.page == page and block.reason is None and block.language == "bash":
            for command in block.commands:
                check(command)


def check(command: list[str]) -> None:
    """Fails for a command line whose program, files or options do not exist."""
    while re.fullmatch(r"[A-Z_]+=\S*", command[0]):
        command = command[1:]
    program, *arguments = command
    if program == "valor":
        check_valor(arguments)
    elif program == "pip":
        check_extras(arguments)
    elif program == "python":
        assert (ROOT / arguments[0]).is_file(), command
    elif program == "curl":  # whose requests the tests of the server send
        assert arguments[1].startswith("http://localhost:"), command
    elif program in ("torchrun", "accelerate"):
        launcher, module = arguments[: arguments.index("-m")], arguments[arguments.index("-m") + 1 :]
        for option, value in itertools.pairwise(launcher):
            assert option != "--config_file" or (ROOT / value).is_file(), command
        assert module[0] == "modeling_valor.cli.main"
        check_valor(module[1:])
    else:
        assert command in (["hf", "auth", "login"], ["transformers", "serve"]), (
            f"a program that no example had before: {command}"
        )


def check_valor(arguments: list[str]) -> None:
    """Parses the arguments of a `valor` command as it does, and runs nothing."""
    name, *rest = arguments
    app = get_command(importlib.import_module(f"modeling_valor.cli.{name}").app)
    if name == "train":
        with contextlib.redirect_stderr(io.StringIO()):
            parse_arguments([*rest[1:], "--use_cpu"], program=f"valor train {rest[0]}")
        assert rest[0] in app.commands
        return
    try:
        app.make_context(f"valor {name}", rest).close()
    except click.ClickException as error:
        raise AssertionError(f"{shlex.join(arguments)}: {error.format_message()}") from error


def check_extras(arguments: list[str]) -> None:
    """Extras in the brackets of `pip install` are those of pyproject.toml."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for word in arguments:
        if (named := re.fullmatch(r"(?:modeling-valor|\.)\[(.+)\]", word)) is not None:
            assert set(named[1].split(",")) <= set(extras), word


def test_every_picture_is_there_and_described():
    """What the strict build of the site does not look for."""
    pictures = [
        (page, text, page.parent / target)
        for page in DOCS.rglob("*.md")
        for text, target in re.findall(r"!\[(.*?)\]\((.+?)\)", page.read_text(encoding="utf-8"))
    ]
    assert len(pictures) > 10
    for page, text, picture in pictures:
        assert picture.is_file() and text, f"{page}: {picture}"
    for drawing in DOCS.glob("drawings/*.svg"):
        root = ElementTree.parse(drawing).getroot()
        assert any(picture == drawing for _, _, picture in pictures)
        assert root.find("{http://www.w3.org/2000/svg}title") is not None
        assert "prefers-color-scheme: dark" in drawing.read_text(encoding="utf-8")


def test_every_command_is_in_the_reference():
    page = (DOCS / "reference" / "command_line.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `valor (\w+)` \| (.*?) \| \[", page, re.MULTILINE))
    assert rows == valor_cli.COMMANDS


def test_messages_in_troubleshooting_are_those_of_the_package():
    """Each quoted part of a message is in a string of the code."""
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    first_cells = re.findall(r"^\| (.*?) \|", page, re.MULTILINE)
    quoted = [message for cell in first_cells for message in re.findall(r'"(.+?)"', cell)]
    texts = "\n".join(strings(path) for path in (ROOT / "modeling_valor").rglob("*.py"))
    missing = [
        part for message in quoted for part in message.split("...") if part.strip() and part.strip() not in texts
    ]
    assert len(quoted) > 12 and missing == []


def strings(path: Path) -> str:
    """The texts of a module's code, with an ellipsis in the place of what is formatted into them."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
        elif isinstance(node, ast.JoinedStr):
            found.append("".join(part.value if isinstance(part, ast.Constant) else "..." for part in node.values))
    return "\n".join(found)
