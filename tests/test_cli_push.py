# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`valor push`, against a server on loopback."""

import json
import re
import shlex
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import safetensors.torch
from huggingface_hub import ModelCard

import modeling_valor.hub
from helpers.hub_server import STRANGER_TOKEN, TOKEN, Blob, Repository, hub_server, take_for_the_hub
from modeling_valor.cli.main import main
from modeling_valor.publishing.code import code_files


ROOT = Path(__file__).resolve().parents[1]
CHECKPOINT = ROOT / "hub_configs" / "valor-tiny"
RESULTS = {
    "task": "retrieval",
    "dataset": "MSR-VTT",
    "split": "test",
    "modalities": "av",
    "counts": {"samples": 1000, "texts": 1000},
    "metrics": {"t-av/R@1": 54.4, "t-av/MedianR": 1.0},
    "settings": {"dataset": "msrvtt", "num_frames": 8, "num_audio_clips": 2, "num_beams": 1, "limit": None},
    "other_modalities": {"v": {"metrics": {"t-v/R@1": 50.0}}},
}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A server that this process takes for the Hub, with the token of `owner`."""
    with hub_server() as running:
        take_for_the_hub(running, monkeypatch, tmp_path / "cache")
        yield running


@pytest.fixture
def folder(tmp_path) -> Path:
    """A checkpoint after its training: without a card, with states, temporary files and a user's own."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(CHECKPOINT, folder, ignore=shutil.ignore_patterns("README.md"))
    for name in (".env", "optimizer.pt", "checkpoint-10/model.safetensors", "checkpoint-10/rng_state.pth", "x.tmp"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"secret")
    (folder / "media").mkdir()
    (folder / "media" / "clip.mp4").write_bytes(b"mp4")
    (folder / "media" / ".clip.mp4").write_bytes(b"mp4")
    (folder / "training_args.bin").write_bytes(b"pickle")
    (folder / "trainer_state.json").write_text("{}")
    (folder / "notes.json").write_text("{}")
    (folder / "gone.safetensors").symlink_to("nowhere")
    (folder / "linked").symlink_to(folder / "media")
    return folder


def push_json(capsys, *arguments: object) -> dict:
    assert main(["push", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_dry_run_lists_sizes_and_what_is_left_out_and_asks_the_hub_nothing(hub, folder, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    before = sorted(folder.rglob("*"))
    listed = push_json(capsys, folder, "casia/valor-l", "--dry-run")
    kept = {path.name for path in CHECKPOINT.iterdir()}
    assert {file["path"] for file in listed["files"]} == kept | set(code_files())
    sizes = {file["path"]: file["bytes"] for file in listed["files"]}
    assert sizes["model.safetensors"] == (CHECKPOINT / "model.safetensors").stat().st_size
    assert listed["bytes"] == sum(sizes.values())
    origins = {file["path"]: file["origin"] for file in listed["files"]}
    changed = {"config.json", "processor_config.json"}
    assert {path for path, origin in origins.items() if origin == "changed"} == changed
    assert {path for path, origin in origins.items() if origin == "added"} == {"README.md", *code_files()}
    left_out = {(entry["path"], entry["reason"], entry["files"]) for entry in listed["left_out"]}
    state, other = "state of a training", "not part of a checkpoint; --include adds it"
    assert left_out == {
        (".env", "hidden", 1),
        ("media/", "hidden", 1),
        ("checkpoint-10/", state, 2),
        ("optimizer.pt", state, 1),
        ("trainer_state.json", state, 1),
        ("training_args.bin", state, 1),
        ("x.tmp", "temporary", 1),
        ("gone.safetensors", "no file: a broken link, or one to a folder", 1),
        ("linked", "no file: a broken link, or one to a folder", 1),
        ("media/", other, 1),
        ("notes.json", other, 1),
    }
    assert listed["notes"] == ["the new model card says that these are not stated: --license, --dataset, --results."]
    assert hub.requests == [] and sorted(folder.rglob("*")) == before


def test_the_listing_for_people_has_a_line_for_each_file_of_the_checkpoint(folder, capsys):
    assert main(["push", str(folder), "mine", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "   19.1 MB  model.safetensors" in lines
    assert any(line.endswith(f"  {len(code_files())} files of code  (new)") for line in lines)
    assert "left out (temporary): x.tmp." in lines
    assert "left out (hidden): .env, media/." in lines


def test_what_is_pushed_is_the_folder_its_code_and_a_card(hub, folder, capsys, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    options = (
        "--license",
        "mit",
        "--dataset",
        "casia/valor-1m",
        "--results",
        tmp_path,
        "--base-model",
        "casia/valor-b",
    )
    done = push_json(capsys, folder, "valor-l", "--private", "--include", "media/*", *options)
    assert done["repo"] == "owner/valor-l" and done["url"] == f"{hub.endpoint}/owner/valor-l" and done["notes"] == []
    assert hub.repositories["owner/valor-l"].private
    files = hub.files("owner/valor-l")
    assert done["commit"] == hub.repositories["owner/valor-l"].branches["main"]
    assert set(files) == {file["path"] for file in done["files"]} | {"README.md", ".gitattributes"}
    assert "media/clip.mp4" in files and "media/.clip.mp4" not in files
    for path in CHECKPOINT.iterdir():
        if path.name not in ("config.json", "processor_config.json", "README.md"):
            assert files[path.name] == path.read_bytes()
    before, after = json.loads((CHECKPOINT / "config.json").read_text()), json.loads(files["config.json"])
    assert {name: value for name, value in after.items() if name not in ("auto_map", "custom_pipelines")} == before
    card = ModelCard(files["README.md"].decode())
    assert (card.data.license, card.data.language, card.data.base_model) == ("mit", ["en"], "casia/valor-b")
    assert (card.data.pipeline_tag, card.data.library_name) == ("video-text-to-text", "transformers")
    metrics = {(entry.dataset_type, entry.metric_name): entry.metric_value for entry in card.data.eval_results}
    assert metrics == {("msrvtt", "t-av/R@1"): 54.4, ("msrvtt", "v/t-v/R@1"): 50.0}
    assert card.data.metrics == ["recall"] and "| t-av/R@1 | 54.40 |" in card.text
    assert 'model="owner/valor-l"' in card.text


def test_a_card_that_exists_is_kept_in_the_folder_and_on_the_hub(hub, folder, capsys):
    assert main(["push", str(folder), "casia/x", "--revision", "draft"]) == 0
    first = hub.files("casia/x", "draft")["README.md"]
    assert set(hub.files("casia/x")) == {".gitattributes"}  # main has nothing of it
    assert main(["push", str(folder), "casia/x", "--revision", "draft", "--license", "mit", "--message", "Again"]) == 0
    assert hub.files("casia/x", "draft")["README.md"] == first
    (folder / "README.md").write_text("mine")
    capsys.readouterr()
    assert main(["push", str(folder), "casia/x", "--license", "mit"]) == 0
    assert hub.files("casia/x")["README.md"] == b"mine"
    said = capsys.readouterr().err
    assert "README.md has no metadata" in said and "--license would count for a new one" in said


def test_code_of_its_own_is_kept_and_no_code_is_possible(folder, capsys):
    assert not [
        file for file in push_json(capsys, folder, "x", "--dry-run", "--no-code")["files"] if ".py" in file["path"]
    ]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "mine.Model"}}))
    (folder / "mine.py").write_text("from .parts import Part\nclass Model: ...")
    (folder / "parts.py").write_text("class Part: ...")
    (folder / "secrets.py").write_text("KEY = 1")  # no part of it
    listed = push_json(capsys, folder, "x", "--dry-run")
    assert [file["path"] for file in listed["files"] if ".py" in file["path"]] == ["mine.py", "parts.py"]
    assert "secrets.py" in [entry["path"] for entry in listed["left_out"]]
    assert {file["origin"] for file in listed["files"] if file["path"] != "README.md"} == {"folder"}


def _broken(name: str, content: bytes):
    return lambda folder: (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (None, ["nowhere", "casia/x"], "FOLDER nowhere: there is no such folder."),
        (lambda folder: (folder / "config.json").unlink(), ["{folder}", "casia/x"], "has no config.json"),
        (_broken("config.json", b'{"model_type": "bert"}'), ["{folder}", "casia/x"], "a 'bert' checkpoint"),
        (_broken("processor_config.json", b"{"), ["{folder}", "casia/x"], "processor_config.json is no valid JSON"),
        (_broken("model.safetensors", b"x" * 99), ["{folder}", "casia/x"], "model.safetensors is damaged"),
        (
            _broken("model.safetensors.index.json", b'{"weight_map": {"a": "model-00001-of-00002.safetensors"}}'),
            ["{folder}", "casia/x"],
            "lacks model-00001-of-00002.safetensors",
        ),
        (_broken("README.md", b"---\n- a\n---\n"), ["{folder}", "casia/x"], "README.md has no valid metadata"),
        (None, ["{folder}", "casia/x y"], "REPO 'casia/x y' is no name on the Hub"),
        (None, ["{folder}", "a/b/c"], "REPO 'a/b/c' is no name on the Hub"),
        (None, ["{folder}", "casia/x", "--include", "*.avi"], "--include '*.avi' matches no file"),
        (None, ["{folder}", "casia/x", "--include", ".env"], "--include '.env' matches no file"),
        (None, ["{folder}", "casia/x", "--results", "nowhere"], "--results nowhere: there is no results.json"),
        (None, ["{folder}", "casia/x", "--results", "{folder}/config.json"], "no results of `valor evaluate`"),
    ],
)
def test_a_checkpoint_that_cannot_be_published_is_one_sentence(hub, folder, capsys, change, arguments, message):
    if change is not None:
        change(folder)
    assert main(["push", *(argument.format(folder=folder) for argument in arguments)]) == 1
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == 1 and printed[0].startswith("valor push: ") and message in printed[0]
    assert hub.requests == []


@pytest.mark.parametrize(
    ("token", "fail_on", "message"),
    [
        (None, None, "needs to know who you are: log in (`hf auth login`), or set HF_TOKEN."),
        ("hf_wrong", None, "does not accept the token"),
        (STRANGER_TOKEN, None, "You have no right to do this with casia/x"),
        (TOKEN, "POST .*/commit/", "cannot be reached for casia/x"),
        (TOKEN, "PUT /objects/", "cannot be reached for casia/x"),
        (TOKEN, "POST /api/repos/create", "cannot be reached for casia/x"),
    ],
)
def test_an_upload_that_fails_is_one_sentence_and_leaves_the_repository_as_it_was(
    hub, folder, capsys, monkeypatch, token, fail_on, message
):
    monkeypatch.delenv("HF_TOKEN") if token is None else monkeypatch.setenv("HF_TOKEN", token)
    hub.fail_on = fail_on
    assert main(["push", str(folder), "casia/x"]) == 1
    printed = capsys.readouterr().err
    (line,) = re.findall(rf"^.*{re.escape(message)}.*$", printed, re.MULTILINE)
    assert line.startswith("valor push: ") and "Traceback" not in printed
    assert not hub.repositories or set(hub.files("casia/x")) == {".gitattributes"}
    if token == TOKEN:  # the same command, when the server is back
        hub.fail_on = None
        assert main(["push", str(folder), "casia/x"]) == 0
        assert len(safetensors.torch.load(hub.files("casia/x")["model.safetensors"])) > 100


def test_metadata_that_the_hub_refuses_is_one_sentence(hub, folder, capsys):
    assert main(["push", str(folder), "casia/x", "--license", "my own"]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("valor push: ") and '"license" must be one word' in line and "casia/x" in line


@pytest.mark.parametrize("hang_on", ["POST /api/repos/create", "POST .*/commit/"])
def test_a_server_that_does_not_answer_is_not_waited_for_for_ever(hub, folder, capsys, monkeypatch, hang_on):
    monkeypatch.setattr(modeling_valor.hub, "ANSWER_SECONDS", 0.3)
    hub.hang_on = hang_on
    assert main(["push", str(folder), "casia/x"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"valor push: {hub.endpoint} cannot be reached for casia/x (ReadTimeout): check the connection and try again."
    )
    assert huggingface_hub.get_session().timeout.read is None


def test_the_commands_of_the_documentation_run(hub, capsys, monkeypatch, tmp_path):
    """Without the Hub, as docs/publishing.md says: what was pushed is loaded by its name."""
    text = (ROOT / "docs" / "publishing.md").read_text(encoding="utf-8").partition("## Try it without the Hub")[2]
    _, commands = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)  # the server, and what is said to it
    monkeypatch.chdir(ROOT)
    for command in commands.splitlines():
        name, *arguments = shlex.split(command)
        assert name == "valor" and main(arguments) == 0
    published, caption = capsys.readouterr().out.splitlines()
    assert published.startswith(f"Published: {hub.endpoint}/casia/valor-tiny, commit ")
    assert caption.startswith("examples/media/clip-00000.mp4: ") and "pink" in caption


def test_a_model_that_the_hub_does_not_give_is_one_sentence(hub, capsys):
    hub.repositories["stranger/gated"] = gated = Repository(gated=True)
    gated.commit("main", {"config.json": Blob(b"{}", is_lfs=False)}, "initial commit")
    for name, message in (
        ("casia/none", f"{hub.endpoint} has no model casia/none, or you may not see it: check the name, or log in"),
        ("stranger/gated", f"stranger/gated is gated: ask for access on its page at {hub.endpoint}, then log in"),
    ):
        assert main(["caption", str(ROOT / "examples" / "media" / "clip-00000.mp4"), "--model", name]) == 1
        assert capsys.readouterr().err == (
            f"valor caption: --model {name}: there is no such folder, and {message} (`hf auth login`).\n"
        )
