# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""A first day with the package: the commands of README and examples/README, on files as people have them."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import valor_cli
from helpers.media_files import write_video, write_wav
from helpers.warm import run_warm


ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "hub_configs" / "valor-tiny"


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def run_new(*command: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """`python *command` in an interpreter of its own, as users have it; `run_warm` costs less."""
    program = [sys.executable, *map(str, command)]
    return subprocess.run(program, capture_output=True, text=True, encoding="utf-8", timeout=120, **options)


def valor(*arguments: object, folder: Path, status: int = 0, start: Any = run_warm) -> tuple[list[str], list[str]]:
    """Lines of standard output and of messages of a `valor` command, which must end with this exit status."""
    run = start("-m", "valor_cli", *arguments, cwd=folder, env=ENVIRONMENT)
    assert run.returncode == status, run.stderr
    assert "Traceback" not in run.stderr, run.stderr
    # A bar of progress writes its line again and again
    messages = [line for line in re.split(r"[\r\n]+", run.stderr) if line.strip() and "it/s]" not in line]
    return run.stdout.splitlines(), messages


def commands_of_the_readme() -> list[list[str]]:
    """Arguments of `valor` in the block that makes an index of rendered clips."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = [block for block in re.findall(r"```bash\n(.*?)```", readme, re.DOTALL) if "valor index clips" in block]
    return [shlex.split(line)[1:] for line in block.splitlines() if line.startswith("valor ")]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder of files as people have them, and `clips`, which README's first command makes."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "hub_configs").symlink_to(ROOT / "hub_configs")
    first, *_ = commands_of_the_readme()
    assert first[:2] == ["world", "clips"]
    valor(*first, "--workers", 1, folder=folder)
    films = folder / "films"
    films.mkdir()
    shutil.copy(folder / "clips" / "clip-00000.mp4", films / "été 東京 #1.mp4")
    write_video(films / "silent.mp4")
    write_video(films / "long.mp4", count=90, stamps=range(0, 90 * 400, 400))
    write_wav(films / "sound.wav", seconds=2)
    Image.fromarray(np.full((48, 64, 3), 90, dtype=np.uint8)).save(films / "photo.jpg")
    (films / "broken.mp4").write_text("this is no video")
    (films / "empty.mov").touch()
    return folder


READABLE = ["été 東京 #1.mp4", "silent.mp4", "long.mp4", "sound.wav", "photo.jpg"]
UNREADABLE = ["broken.mp4", "empty.mov", "missing.mp4"]


@pytest.mark.parametrize(("question", "start"), [(None, run_new), ("what is heard?", run_warm)])
def test_caption(home, question, start):
    files = [Path("films") / name for name in READABLE + UNREADABLE]
    asked = [] if question is None else ["--question", question]
    out, messages = valor("caption", *files, "--model", TINY, "--json", *asked, folder=home, status=1, start=start)
    lines = [json.loads(line) for line in out]
    assert [line["file"] for line in lines] == [str(Path("films") / name) for name in READABLE]
    assert [line["modalities"] for line in lines] == ["av", "v", "v", "a", "v"]
    assert all(line["text"] for line in lines)
    (long,) = [message for message in messages if "long.mp4" in message]
    assert long.startswith("valor caption: of the 356 seconds of films/long.mp4 only 8 frames were used")
    for name, message in zip(UNREADABLE, [message for message in messages if message != long], strict=True):
        assert message.startswith("valor caption: ") and name in message


def test_search(home):
    clips = sorted((home / "clips").glob("*.mp4"))
    samples = [json.loads(line) for line in (home / "clips" / "metadata.jsonl").read_text().splitlines()]
    first = samples[0]
    out, messages = valor(
        "search", first["captions"][0], *clips, "films/broken.mp4", "--model", TINY, "--top", 3, folder=home, status=1
    )
    assert len(out) == 3 and Path(out[0].split(maxsplit=1)[1]).name == first["file_name"]
    (message,) = messages
    assert message.startswith("valor search: ") and "broken.mp4" in message


def test_the_search_of_the_readme_prints_what_it_says(home):
    """Its last command, on the clips that its first one renders (scores to 2e-3)."""
    pytest.importorskip("lancedb")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    indexing, searching = commands_of_the_readme()[-2:]
    assert (indexing[0], searching[0]) == ("index", "search")
    valor(*indexing, folder=home)
    out, _ = valor(*searching, folder=home)
    (printed,) = re.findall(r"The last command prints.*?```text\n(.*?)```", readme, re.DOTALL)
    lines = printed.splitlines()
    assert [SCORE.sub("", line) for line in out] == [SCORE.sub("", line) for line in lines]
    scores, expected = ([float(score) for line in text for score in SCORE.findall(line)] for text in (out, lines))
    assert scores == pytest.approx(expected, abs=2e-3)


SCORE = re.compile(r"^\d+\.\d+")
NUMBER = re.compile(r"\d+\.\d+")


def test_python_examples_of_the_readme(tmp_path):
    """All run, and the first prints what README says (scores to 1e-3)."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert len(blocks) >= 2
    script = tmp_path / "readme.py"
    script.write_text("\n".join(blocks), encoding="utf-8")
    run = run_warm(script, cwd=ROOT, env=ENVIRONMENT)
    assert run.returncode == 0, run.stderr
    (printed,) = re.findall(r"prints\n\n```text\n(.*?)```", readme, re.DOTALL)
    assert NUMBER.sub("", run.stdout) == NUMBER.sub("", printed)
    scores, expected = ([float(number) for number in NUMBER.findall(text)] for text in (run.stdout, printed))
    assert scores == pytest.approx(expected, abs=1e-3)


def test_the_timeline_of_the_readme_prints_what_it_says():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (command, printed) = re.findall(
        r"^    \$ valor (caption .* --every .*)\n((?:    \d\d:.*\n)+)", readme, re.MULTILINE
    )[0]
    out, _ = valor(*shlex.split(command), folder=ROOT)
    assert out == [line.strip() for line in printed.splitlines()]


def test_first_two_blocks_of_the_readme_set_up_and_run_and_set_up_and_test():
    first, second, *_ = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert "pip install" in first and "valor caption" in first and "valor index" in first
    assert first.splitlines()[-1].startswith("valor search ")
    assert "pip install" in second and second.splitlines()[-1] == "python -m pytest"


def test_the_picture_of_the_readme_is_small():
    picture = ROOT / "docs" / "readme.png"
    assert f"]({picture.relative_to(ROOT).as_posix()})" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert picture.stat().st_size < 200_000
    with Image.open(picture) as image:
        assert image.format == "PNG" and image.width >= 800


def test_evaluate(home):
    out, _ = valor("evaluate", "--task", "retrieval", "--dataset", "clips", "--model", TINY, "--json", folder=home)
    metrics = json.loads("\n".join(out))
    assert "R@1" in json.dumps(metrics)


def test_convert_and_caption(home):
    example = ROOT / "examples" / "checkpoint_2023"
    valor(
        "convert", example / "ckpt" / "model_step_0.safetensors", "--hps", example / "log" / "hps.json",
        "--vocab", example / "vocab.txt", "--output", "converted", folder=home,
    )  # fmt: skip
    out, messages = valor("caption", "films/silent.mp4", "--model", "converted", "--max-new-tokens", 3, folder=home)
    assert len(out) == 1 and out[0].startswith("films/silent.mp4: ") and messages == []


@pytest.mark.parametrize(
    "arguments, status, message",
    [
        (["dance"], 2, "No such command 'dance'"),
        (["caption", "films/silent.mp4"], 2, "--model"),
        (["caption", "films/silent.mp4", "--model", "films"], 1, "no config.json"),
        (
            ["caption", "films/silent.mp4", "--model", TINY, "--num-frames", "0"],
            2,
            "'--num-frames': Input should be greater than or equal to 1",
        ),
        (["evaluate", "--task", "retrieval", "--dataset", "nothing", "--model", TINY], 1, "nothing"),
        (["convert", "nothing.pt", "--output", "out"], 1, "nothing.pt"),
        (["extract", "nothing", "out"], 1, "nothing"),
    ],
)
def test_mistakes_are_one_sentence(home, arguments, status, message, monkeypatch, capsys):
    monkeypatch.chdir(home)
    assert valor_cli.main(list(map(str, arguments))) == status
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert printed.out == "" and message in line
