# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`push_to_hub`, and loading from the Hub, with huggingface_hub's own client against a server on loopback.

Users without the package are a process of their own.
"""

import hashlib
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
from safetensors.torch import load_file
from transformers import AutoModel, pipeline

from helpers.hub_server import STRANGER_TOKEN, TOKEN, Blob, Repository, hub_server, take_for_the_hub
from helpers.tiny import tiny_model
from modeling_valor import ValorForPreTraining, ValorForRetrieval, ValorModel, ValorProcessor
from modeling_valor.hub import replaced_weights, saved_with_code


REPOSITORY = Path(__file__).resolve().parents[1]
CHECKPOINT = REPOSITORY / "hub_configs" / "valor-tiny"
CLIP = REPOSITORY / "examples" / "media" / "clip-00000.mp4"
QUESTION = "what is heard?"

# Has transformers, and not this package
USER = """
import json, os, sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "modeling_valor":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NotInstalled())
from huggingface_hub import constants
from transformers import AutoModel, AutoModelForMultimodalLM, AutoProcessor, pipeline

clip, question = sys.argv[1:]
options = {"trust_remote_code": True}

def caption():
    return {
        "captioned": pipeline("audiovisual-captioning", model="casia/valor-l", device="cpu", **options)(clip),
        "package": [name for name in sys.modules if name.split(".")[0] == "modeling_valor"],
    }

if os.fork() == 0:  # so that the second time nothing is kept in memory
    results = caption()
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
    print(json.dumps(results), flush=True)
    os._exit(0)
_, status = os.wait()
if status or not input():
    sys.exit("The first time failed.")
constants.HF_HUB_OFFLINE = True
print(json.dumps(caption()))
"""

PIPES = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)


def publish() -> None:
    """Uploads what the tests look at."""
    model, processor = ValorForPreTraining.from_pretrained(CHECKPOINT), ValorProcessor.from_pretrained(CHECKPOINT)
    model.push_to_hub("casia/valor-l", card={"license": "mit", "datasets": ["casia/valor-1m"]}, tags=["mine"])
    processor.push_to_hub("casia/valor-l")
    HfApi().create_tag("casia/valor-l", tag="v1")
    model.push_to_hub("casia/valor-l", max_shard_size="9MB", revision="sharded", commit_message="In shards")
    pipeline("audiovisual-captioning", model=str(CHECKPOINT), device="cpu").push_to_hub("captioner", private=True)
    assert {cls._auto_class for cls in (ValorForPreTraining, ValorModel, ValorProcessor)} == {None}
    assert not hasattr(model.config, "auto_map")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A server with what `publish` has uploaded, and with a gated repository."""
    with hub_server() as hub:
        with pytest.MonkeyPatch.context() as patch:
            take_for_the_hub(hub, patch, tmp_path_factory.mktemp("publisher"))
            publish()
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
    command = [sys.executable, "-c", USER, str(CLIP), QUESTION]
    with subprocess.Popen(command, env={**os.environ, **environment}, cwd="/", text=True, **PIPES) as user:
        first = user.stdout.readline()
        asked = len(published.requests)
        second, errors = user.communicate("without a network\n" if first else "")
    assert user.returncode == 0, errors
    assert len(published.requests) == asked
    results, cached = json.loads(first), json.loads(second)
    assert results["captioned"] == expected and len(expected[0]["generated_text"].split()) > 3
    assert results["generated"] == [expected[0]["generated_text"]] and results["answered"][0]["answer"]
    assert [found["media"] for found in results["retrieved"][0]] == [str(CLIP)]
    assert results["base"] == "ValorModel" and results["package"] == []
    assert cached == {"captioned": expected, "package": []}


def test_users_with_the_package_load_it(published, monkeypatch, tmp_path):
    take_for_the_hub(published, monkeypatch, tmp_path / "cache", token=STRANGER_TOKEN)
    model = ValorModel.from_pretrained("casia/valor-l")
    assert type(model) is type(AutoModel.from_pretrained("casia/valor-l")) is ValorModel
    assert model.num_parameters() == ValorModel.from_pretrained(CHECKPOINT).num_parameters()
    assert type(ValorProcessor.from_pretrained("casia/valor-l", revision="v1")) is ValorProcessor


def test_what_the_hub_refuses_is_one_sentence(published, monkeypatch, tmp_path):
    take_for_the_hub(published, monkeypatch, tmp_path / "cache", token=STRANGER_TOKEN)
    hub = published.endpoint
    absent = f"{hub} has no model NAME, or you may not see it: check the name, or log in (`hf auth login`)."
    for load, name, message in (
        (ValorModel.from_pretrained, "casia/none", absent),
        (ValorProcessor.from_pretrained, "casia/none", absent),
        (ValorModel.from_pretrained, "owner/captioner", absent),
        (
            ValorModel.from_pretrained,
            "casia/gated",
            f"NAME is gated: ask for access on its page at {hub}, then log in (`hf auth login`).",
        ),
        (
            partial(ValorModel.from_pretrained, revision="v9"),
            "casia/valor-l",
            "NAME has no such revision: give a branch, a tag or a commit that it has.",
        ),
        (
            tiny_model(ValorModel).push_to_hub,
            "casia/valor-l",
            f"You have no right to do this with NAME at {hub}: check the name and what the token may do.",
        ),
    ):
        with pytest.raises(OSError) as refused:
            load(name)
        assert type(refused.value) is OSError and str(refused.value) == message.replace("NAME", name)
    with pytest.raises(Exception, match="casia/valor l"):
        tiny_model(ValorModel).push_to_hub("casia/valor l")


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
