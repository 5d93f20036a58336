# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`push_to_hub`, and loading from the Hub, with huggingface_hub's own client against a server on loopback.

Users are processes of their own, because huggingface_hub reads its environment when it is imported.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
from safetensors.torch import load_file
from transformers import pipeline

from helpers.hub_server import STRANGER_TOKEN, TOKEN, Blob, Repository, hub_server, take_for_the_hub
from helpers.tiny import tiny_model
from modeling_valor import ValorForRetrieval, ValorModel, ValorProcessor
from modeling_valor.hub import replaced_weights, saved_with_code


REPOSITORY = Path(__file__).resolve().parents[1]
CHECKPOINT = REPOSITORY / "hub_configs" / "valor-tiny"
CLIP = REPOSITORY / "examples" / "media" / "clip-00000.mp4"
QUESTION = "what is heard?"

PUBLISHER = """
import sys
from huggingface_hub import HfApi
from transformers import pipeline
from modeling_valor import ValorForPreTraining, ValorModel, ValorProcessor

(folder,) = sys.argv[1:]
model, processor = ValorForPreTraining.from_pretrained(folder), ValorProcessor.from_pretrained(folder)
model.push_to_hub("casia/valor-l", card={"license": "mit", "datasets": ["casia/valor-1m"]}, tags=["mine"])
processor.push_to_hub("casia/valor-l")
HfApi().create_tag("casia/valor-l", tag="v1")
model.push_to_hub("casia/valor-l", max_shard_size="9MB", revision="sharded", commit_message="In shards")
pipeline("audiovisual-captioning", model=folder, device="cpu").push_to_hub("captioner", private=True)
assert {cls._auto_class for cls in (ValorForPreTraining, ValorModel, ValorProcessor)} == {None}
assert not hasattr(model.config, "auto_map")
"""

# Has transformers, and not this package
USER = """
import importlib.util, json, sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "modeling_valor":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NotInstalled())
from transformers import AutoModel, AutoModelForMultimodalLM, AutoProcessor, pipeline

clip, question = sys.argv[1:]
options = {"trust_remote_code": True}
results = {
    "captioned": pipeline("audiovisual-captioning", model="casia/valor-l", device="cpu", **options)(clip),
    "package": [name for name in sys.modules if name.split(".")[0] == "modeling_valor"],
}
if question:
    model = AutoModelForMultimodalLM.from_pretrained("casia/valor-l", revision="sharded", **options)
    processor = AutoProcessor.from_pretrained("casia/valor-l", **options)
    ids = model.generate(**processor(videos=clip, return_tensors="pt"))
    answerer = pipeline("audiovisual-question-answering", model="casia/valor-l", device="cpu", **options)
    results |= {
        "generated": processor.post_process_generation(ids),
        "answered": answerer(clip, question=question),
        "retrieved": pipeline("audiovisual-retrieval", model="casia/valor-l", device="cpu", **options)(
            ["a bell rings"], media=[clip]
        ),
        "base": type(AutoModel.from_pretrained("casia/valor-l", **options)).__name__,
    }
print(json.dumps(results))
"""

# Has this package
READER = """
import json, sys
from modeling_valor import ValorModel, ValorProcessor
from transformers import AutoModel

def error_of(load, *arguments, **options):
    try:
        load(*arguments, **options)
    except Exception as error:
        return type(error).__name__, str(error)

model = ValorModel.from_pretrained("casia/valor-l")
print(json.dumps({
    "loaded": [type(model).__name__, model.num_parameters(), type(AutoModel.from_pretrained("casia/valor-l")).__name__],
    "missing": error_of(ValorModel.from_pretrained, "casia/none"),
    "missing processor": error_of(ValorProcessor.from_pretrained, "casia/none"),
    "gated": error_of(ValorModel.from_pretrained, "casia/gated"),
    "private": error_of(ValorModel.from_pretrained, "owner/captioner"),
    "tag": type(ValorProcessor.from_pretrained("casia/valor-l", revision="v1")).__name__,
    "revision": error_of(ValorModel.from_pretrained, "casia/valor-l", revision="v9"),
    "write": error_of(model.push_to_hub, "casia/valor-l"),
    "name": error_of(model.push_to_hub, "casia/valor l"),
}))
"""


def run(code: str, environment: dict[str, str], *arguments: object) -> str:
    """What a process prints."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A server with what `PUBLISHER` has uploaded, and with a gated repository."""
    with hub_server() as hub:
        run(PUBLISHER, hub.environment(tmp_path_factory.mktemp("publisher")), CHECKPOINT)
        hub.repositories["casia/gated"] = gated = Repository(gated=True)
        gated.commit("main", {"config.json": Blob(b"{}", is_lfs=False)}, "initial commit")
        yield hub


def test_the_server_answers_the_client(published, monkeypatch, tmp_path):
    """What is listed, compared with what was uploaded; the header of weights is read by ranges."""
    take_for_the_hub(published, monkeypatch, tmp_path / "cache")
    api = HfApi(endpoint=published.endpoint, token=TOKEN)
    assert api.whoami()["name"] == "owner"
    files, repo = published.files("casia/valor-l"), "casia/valor-l"
    assert {entry.path: entry.size for entry in api.list_repo_tree(repo)} == {
        path: len(content) for path, content in files.items()
    }
    (weights,) = api.get_paths_info(repo, ["model.safetensors", "absent"])
    assert weights.lfs.sha256 == hashlib.sha256(files["model.safetensors"]).hexdigest()
    metadata = api.get_safetensors_metadata(repo).files_metadata["model.safetensors"]
    assert set(metadata.tensors) == set(load_file(CHECKPOINT / "model.safetensors"))
    refs = api.list_repo_refs(repo)
    assert {ref.name for ref in refs.branches} == {"main", "sharded"}
    assert {ref.name: ref.target_commit for ref in refs.tags} == {"v1": api.model_info(repo, revision="main").sha}
    api.create_branch(repo, branch="notes/a")
    api.upload_file(path_or_fileobj=b"x", path_in_repo="folder/x.txt", repo_id=repo, revision="notes/a")
    assert [entry.path for entry in api.list_repo_tree(repo, "folder", revision="notes/a")] == ["folder/x.txt"]
    api.delete_file("folder/x.txt", repo, revision="notes/a")
    assert published.files(repo, "notes/a") == files
    with pytest.raises(HfHubHTTPError, match="Reference already exists"):
        api.create_branch(repo, branch="notes/a")
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(repo, "nowhere"))


def test_a_pushed_model_has_weights_code_and_card(published):
    files = published.files("casia/valor-l")
    assert {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "pipelines.py"} <= set(
        files
    )
    config = json.loads(files["config.json"])
    named = {*config["auto_map"].values(), *(task["impl"] for task in config["custom_pipelines"].values())}
    assert {f"{name.split('.')[0]}.py" for name in named} <= set(files)
    assert set(config["custom_pipelines"]) == {
        "audiovisual-captioning",
        "audiovisual-question-answering",
        "audiovisual-retrieval",
        "zero-shot-audiovisual-classification",
    }
    card = ModelCard(files["README.md"].decode())
    assert (card.data.license, card.data.datasets) == ("mit", ["casia/valor-1m"])
    assert {"valor", "mine"} <= set(card.data.tags) and 'model="casia/valor-l"' in card.text
    stored = load_file(CHECKPOINT / "model.safetensors")
    assert f"| parameters | {sum(tensor.numel() for tensor in stored.values()):,} |" in card.text


def test_shards_replace_whole_weights_in_the_same_commit(published):
    files = published.files("casia/valor-l", "sharded")
    shards = set(json.loads(files["model.safetensors.index.json"])["weight_map"].values())
    assert len(shards) > 3 and shards <= set(files) and "model.safetensors" not in files
    assert all(len(files[shard]) < 9.1e6 for shard in shards)
    assert replaced_weights(["model.safetensors", "README.md", "adapter_model.safetensors"], ["config.json"]) == []
    assert "model.safetensors" in published.files("casia/valor-l")  # the other branch is as it was


def test_a_pushed_pipeline_is_complete_and_private(published):
    assert published.repositories["owner/captioner"].private
    files = published.files("owner/captioner")
    assert {"model.safetensors", "tokenizer.json", "processing_valor.py", "pipelines.py", "README.md"} <= set(files)
    assert set(json.loads(files["config.json"])["custom_pipelines"]) == {"audiovisual-captioning"}


def test_users_without_the_package_load_it_also_from_the_cache(published, tmp_path):
    """The second time without a network: not one request is made, and the caption is the same."""
    expected = pipeline("audiovisual-captioning", model=str(CHECKPOINT), device="cpu")(str(CLIP))
    environment = published.environment(tmp_path, token=STRANGER_TOKEN)
    results = json.loads(run(USER, environment, CLIP, QUESTION))
    assert results["captioned"] == expected and len(expected[0]["generated_text"].split()) > 3
    assert results["generated"] == [expected[0]["generated_text"]] and results["answered"][0]["answer"]
    assert [found["media"] for found in results["retrieved"][0]] == [str(CLIP)]
    assert results["base"] == "ValorModel" and results["package"] == []
    asked = len(published.requests)
    cached = json.loads(run(USER, environment | {"HF_HUB_OFFLINE": "1"}, CLIP, ""))
    assert cached == {"captioned": expected, "package": []}
    assert len(published.requests) == asked


def test_what_the_hub_refuses_is_one_sentence(published, tmp_path):
    found = json.loads(run(READER, published.environment(tmp_path, token=STRANGER_TOKEN)))
    name, num_parameters, automatic = found.pop("loaded")
    assert found.pop("tag") == "ValorProcessor"
    assert (name, automatic) == ("ValorModel", "ValorModel")
    assert num_parameters == ValorModel.from_pretrained(CHECKPOINT).num_parameters()
    hub = published.endpoint
    missing = f"{hub} has no model casia/none, or you may not see it: check the name, or log in (`hf auth login`)."
    assert found.pop("missing") == found.pop("missing processor") == ["OSError", missing]
    assert found.pop("private") == ["OSError", missing.replace("casia/none", "owner/captioner")]
    gated = f"casia/gated is gated: ask for access on its page at {hub}, then log in (`hf auth login`)."
    assert found.pop("gated") == ["OSError", gated]
    no_revision = "casia/valor-l has no such revision: give a branch, a tag or a commit that it has."
    assert found.pop("revision") == ["OSError", no_revision]
    no_right = f"You have no right to do this with casia/valor-l at {hub}: check the name and what the token may do."
    assert found.pop("write") == ["OSError", no_right]
    _, message = found.pop("name")
    assert "casia/valor l" in message and not found


def test_a_checkpoint_loaded_with_its_code_and_saved_without_names_none(tmp_path):
    """Also its processor, whose parts and tokenizer name it as well; in its own folder the code stays and is named."""
    model, processor = tiny_model(ValorForRetrieval), ValorProcessor.from_pretrained(CHECKPOINT)
    with saved_with_code(model, processor):
        model.save_pretrained(tmp_path / "code")
        processor.save_pretrained(tmp_path / "code")
    assert "auto_map" in (tmp_path / "code" / "tokenizer_config.json").read_text()
    model = ValorForRetrieval.from_pretrained(tmp_path / "code")
    processor = ValorProcessor.from_pretrained(tmp_path / "code")
    for folder in ("code", "other"):
        model.save_pretrained(tmp_path / folder)
    processor.save_pretrained(tmp_path / "other")
    texts = [file.read_text() for file in (tmp_path / "other").glob("*.json")]
    assert len(texts) > 3 and not [text for text in texts if "auto_map" in text or "custom_pipelines" in text]
    assert "auto_map" in (tmp_path / "code" / "config.json").read_text()


def test_saving_with_push_to_hub_uploads_the_code_too(tmp_path, monkeypatch):
    with hub_server() as hub:
        take_for_the_hub(hub, monkeypatch, tmp_path / "cache")
        tiny_model(ValorForRetrieval).save_pretrained(tmp_path / "model", push_to_hub=True, repo_id="casia/x")
        assert {"modeling_valor_heads.py", "pipelines_retrieval.py"} <= set(hub.files("casia/x"))
        processor = ValorProcessor.from_pretrained(CHECKPOINT)
        processor.save_pretrained(tmp_path / "processor", push_to_hub=True, repo_id="casia/x")
        assert {"processing_valor.py", "tokenizer.json", "model.safetensors"} <= set(hub.files("casia/x"))
    assert ValorForRetrieval._auto_class is ValorProcessor._auto_class is None
