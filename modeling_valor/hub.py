# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What a checkpoint has on the Hub besides its weights: the code for users without this package, and a model card."""

import os
import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    get_session,
    get_token,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers.pipelines import PIPELINE_REGISTRY


ANSWER_SECONDS = 100.0
"""The Hub may take as long as this to answer a request of an upload; huggingface_hub itself would wait for ever."""

_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?")


# --- Code -------------------------------------------------------------------------------------------------------------


@contextmanager
def restored(*attributes: tuple[Any, str]) -> Iterator[None]:
    """Restores the values of attributes, pairs of an object and a name, at the end of the block, also after an error."""
    before = [(owner, name, name in vars(owner), vars(owner).get(name)) for owner, name in attributes]
    try:
        yield
    finally:
        for owner, name, existed, value in before:
            if existed:
                setattr(owner, name, value)
            elif name in vars(owner):
                delattr(owner, name)


@contextmanager
def saved_with_code(*savers: Any) -> Iterator[None]:
    """While the block lasts, models and processors save their code too, as after `register_for_auto_class`."""
    names = ("video_processor", "feature_extractor")
    parts = [part for saver in savers for part in (saver, *(getattr(saver, name, None) for name in names)) if part]
    with restored(*((type(part), "_auto_class") for part in parts), *((part, "auto_map") for part in parts)):
        for saver in savers:
            if type(saver)._auto_class is None:
                type(saver).register_for_auto_class()
        yield


def pipeline_entries(*modules: str) -> dict[str, dict[str, Any]]:
    """The tasks whose pipelines these modules define, as `custom_pipelines` of a configuration names them."""
    return {
        task: {
            **entry,
            "impl": f"{entry['impl'].__module__.rpartition('.')[2]}.{entry['impl'].__name__}",
            "pt": [auto_class.__name__ for auto_class in entry["pt"]],
        }
        for task, entry in PIPELINE_REGISTRY.supported_tasks.items()
        if getattr(entry["impl"], "__module__", None) in modules  # transformers' own are strings
    }


def available_code(auto_map: Mapping[str, Any], folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The entries of an `auto_map` whose code is there: in a folder, or in another repository (`owner/name--module.Class`)."""

    def is_available(entry: Any) -> bool:
        names = [name for name in ([entry] if isinstance(entry, str) else entry) if name]
        return all("--" in name or Path(folder, f"{name.partition('.')[0]}.py").is_file() for name in names)

    return {name: entry for name, entry in auto_map.items() if is_available(entry)}


def keep_available_code(owner: Any, folder: str | os.PathLike[str]) -> None:
    """Removes from an object what it would save about code that its folder will not have.

    Whoever loads a checkpoint with its code, and saves it without, would else write names of files that nobody has.
    """
    content = owner if isinstance(owner, dict) else vars(owner)
    auto_map, pipelines = content.pop("auto_map", None) or {}, content.pop("custom_pipelines", None) or {}
    if kept := available_code(auto_map, folder):
        content["auto_map"] = kept
    if kept := available_code({task: entry["impl"] for task, entry in pipelines.items()}, folder):
        content["custom_pipelines"] = {task: pipelines[task] for task in kept}


# --- Uploads ----------------------------------------------------------------------------------------------------------


def push_saved(save: Callable[[str], Any], repo_id: str, **options: Any) -> CommitInfo:
    """Uploads what `save` writes into an empty folder, whose name it is called with; `options` are those of [`push_files`]."""
    with tempfile.TemporaryDirectory() as folder:
        save(folder)
        files = {path.relative_to(folder).as_posix(): path for path in Path(folder).rglob("*") if path.is_file()}
        return push_files(repo_id, files, **options)


def push_files(
    repo_id: str,
    files: Mapping[str, Path | bytes],
    *,
    commit_message: str,
    build_card: Callable[[str], ModelCard] | None = None,
    commit_description: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
) -> CommitInfo:
    """Uploads files in one commit: the repository has all of them or none. Creates repository and branch where there are none.

    Weights in the repository that the new ones replace under other names, as shards do, are deleted in the same commit:
    `from_pretrained` might load them instead.

    Args:
        repo_id: `owner/name`, or a name in the user's own namespace.
        files: path in the repository -> a file, or its content.
        commit_message, commit_description: of the commit.
        build_card: is called with the repository's full name if it has no README.md, and gives one.
        private: of a new repository; by default as its owner has set.
        token: a token, or `None` for the stored one.
        revision: the branch; by default main.
        create_pr: propose the files as a pull request.

    Raises:
        OSError: the Hub cannot be reached, or does not accept the upload; one sentence says why.
    """
    api = HfApi(token=token)
    with hub_errors(repo_id), _answered_within(ANSWER_SECONDS):
        if token in (None, True) and get_token() is None:
            raise LocalTokenNotFoundError("No token is stored.")
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None and not revision.startswith("refs/"):
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        present = api.list_repo_files(repo_id, revision=revision)
        added: dict[str, Path | bytes] = dict(files)
        if build_card is not None and "README.md" not in {*files, *present}:
            added["README.md"] = str(build_card(repo_id)).encode()
        operations = [CommitOperationAdd(path, content) for path, content in sorted(added.items())]
        return api.create_commit(
            repo_id,
            [*operations, *(CommitOperationDelete(path) for path in replaced_weights(present, files))],
            commit_message=commit_message,
            commit_description=commit_description,
            revision=revision,
            create_pr=create_pr,
        )


@contextmanager
def _answered_within(seconds: float) -> Iterator[None]:
    session = get_session()
    before, session.timeout = session.timeout, seconds
    try:
        yield
    finally:
        session.timeout = before


def replaced_weights(present: Iterable[str], uploaded: Collection[str]) -> list[str]:
    """Weights in a repository, as whole or as shards, that uploaded ones of other names replace."""
    if not any(_WEIGHTS.fullmatch(path) for path in uploaded):
        return []
    return [path for path in present if _WEIGHTS.fullmatch(path) and path not in uploaded]


# --- Errors -----------------------------------------------------------------------------------------------------------


@contextmanager
def hub_errors(name: str | os.PathLike[str] | None) -> Iterator[None]:
    """Turns errors of the Hub about a repository into one sentence.

    Raises:
        OSError: there is no such repository or revision, the user may not read or write it, or the Hub cannot be reached.
    """
    try:
        yield
    except Exception as error:
        if reason := hub_reason(error, str(name)):
            raise OSError(reason) from error
        raise


def hub_reason(error: BaseException, name: str) -> str | None:
    """One sentence about the error of the Hub that caused an error, `None` if there was no such error."""
    causes = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    for cause in causes:
        if sentence := _sentence(cause, name):
            return sentence
    if any(isinstance(cause, LocalEntryNotFoundError) for cause in causes):
        return f"{name} is not in the cache, and HF_HUB_OFFLINE=1 keeps this process off the network."
    return None


def _sentence(error: BaseException, name: str) -> str | None:
    hub = os.environ.get("HF_ENDPOINT") or "the Hub"
    sentences: list[tuple[Any, str]] = [
        (GatedRepoError, f"{name} is gated: ask for access on its page at {hub}, then log in (`hf auth login`)."),
        (
            RepositoryNotFoundError,
            f"{hub} has no model {name}, or you may not see it: check the name, or log in (`hf auth login`).",
        ),
        (RevisionNotFoundError, f"{name} has no such revision: give a branch, a tag or a commit that it has."),
        (LocalTokenNotFoundError, f"{hub} needs to know who you are: log in (`hf auth login`), or set HF_TOKEN."),
        (OfflineModeIsEnabled, f"HF_HUB_OFFLINE=1 keeps this process off the network, so {name} cannot be reached."),
    ]
    for kind, sentence in sentences:
        if isinstance(error, kind):
            return sentence
    if isinstance(error, HfHubHTTPError) and not isinstance(error, EntryNotFoundError):  # files may be absent
        return _refusal(error, name, hub)
    if type(error).__module__.partition(".")[0] in (
        "httpx",
        "httpx2",
    ):  # the client's library changes with its version
        return f"{hub} cannot be reached for {name} ({type(error).__name__}): check the connection and try again."
    return None


def _refusal(error: HfHubHTTPError, name: str, hub: str) -> str:
    """A sentence about an answer of the Hub that is an error."""
    status = error.response.status_code
    if status == 401:
        return f"{hub} does not accept the token: log in (`hf auth login`), or set HF_TOKEN."
    if status == 403:
        return f"You have no right to do this with {name} at {hub}: check the name and what the token may do."
    message = " ".join((error.server_message or str(error)).split())
    return f"{hub} answered {status} about {name}: {message}"


__all__ = ["hub_errors", "hub_reason", "pipeline_entries", "push_files", "push_saved", "saved_with_code"]
