# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""`valor push`: publish the folder of a checkpoint on the Hub."""

import dataclasses
import functools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal

from .arguments import Json, check_model, new_app, on_one_line


if TYPE_CHECKING:
    from ..publishing import FolderContents


CARD_PANEL = "Model card, where the folder has no README.md"

app = new_app()


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a converted or trained checkpoint.")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="OWNER/NAME, or a name in your own namespace.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be uploaded, without asking the Hub anything.")
    ] = False,
    private: Annotated[
        bool | None,
        typer.Option("--private", help="Make a new repository private.", show_default="as its owner has set"),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Branch to upload to; it is created if it does not exist.", show_default="main")
    ] = None,
    message: Annotated[str, typer.Option(help="Message of the commit.")] = "Upload VALOR checkpoint",
    include: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Further files to upload, such as 'examples/*.mp4'; may be repeated."),
    ] = None,
    no_code: Annotated[
        bool, typer.Option("--no-code", help="Do not add code; then only users of this package load the checkpoint.")
    ] = False,
    license: Annotated[
        str | None,
        typer.Option(rich_help_panel=CARD_PANEL, help="Licence of the weights, such as mit or cc-by-4.0."),
    ] = None,
    language: Annotated[
        list[str] | None,
        typer.Option(rich_help_panel=CARD_PANEL, help="Language of the texts; may be repeated.", show_default="en"),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(rich_help_panel=CARD_PANEL, help="Hub name of a dataset of its training; may be repeated."),
    ] = None,
    results: Annotated[
        list[str] | None,
        typer.Option(rich_help_panel=CARD_PANEL, help="Folder or results.json of `valor evaluate`; may be repeated."),
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(rich_help_panel=CARD_PANEL, help="Hub name of the checkpoint it was trained from.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Publish the folder of a checkpoint on the Hub, with its code and a model card.

    Uploaded are the weights, configurations, tokenizer and processor, the code with which users without this package load
    them (`trust_remote_code=True`), and README.md; a folder without one gets a card. Hidden and temporary files and states
    of a training are never uploaded. What is left out is listed. All files arrive in one commit, or none.

    Log in before with `hf auth login`, or set HF_TOKEN.
    """
    from huggingface_hub.utils import disable_progress_bars
    from tqdm import tqdm

    from ..hub import push_files
    from ..publishing import add_code, build_folder_card, read_folder, read_results

    check_repo(repo)
    if not folder.is_dir():
        raise ValueError(f"FOLDER {folder}: there is no such folder.")
    check_model(str(folder), "FOLDER", needs_weights=False)
    contents = read_folder(folder, include or ())
    if not no_code:
        add_code(contents)
    given = {"license": license, "dataset": dataset, "results": results, "base-model": base_model}
    notes = notes_on(contents, given)
    build_card = None
    if "README.md" not in contents.files:
        build_card = functools.partial(
            build_folder_card,
            folder=folder,
            contents=contents,
            license=license,
            language=language or ("en",),
            datasets=dataset or (),
            base_model=base_model,
            eval_results=read_results(results or ()),
        )
    if dry_run:
        if build_card is not None:
            contents.files["README.md"] = str(build_card(repo)).encode()
        upload = describe_upload(contents, folder, notes)
        lines = [*upload_lines(upload), *left_out_lines(upload), *notes]
        print(json.dumps({"repo": repo, **upload}) if as_json else "\n".join(lines))
        return 0
    upload = describe_upload(contents, folder, notes)
    for line in [*left_out_lines(upload), *notes]:
        print(f"valor push: {line}", file=sys.stderr)
    if as_json:
        disable_progress_bars()
    try:
        commit = push_files(
            repo, contents.files, build_card=build_card, commit_message=message, private=private, revision=revision
        )
    finally:
        for bar in list(getattr(tqdm, "_instances", ())):  # an error leaves them open, and its message on their line
            bar.close()
    published = {"repo": commit.repo_url.repo_id, "url": str(commit.repo_url), "commit": commit.oid}
    print(json.dumps({**published, **upload}) if as_json else f"Published: {commit.repo_url}, commit {commit.oid}")
    return 0


def check_repo(name: str) -> None:
    """Raises a `ValueError` if this is no name of a repository."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(
            f"REPO {name!r} is no name on the Hub: OWNER/NAME is needed, of letters, digits, '-', '_' and '.', at most 96."
        ) from error


def notes_on(contents: "FolderContents", given: Mapping[str, Any]) -> list[str]:
    """What a user should know of an upload, a sentence each.

    Args:
        given: values of the options of the model card, by their names.
    """
    from huggingface_hub.repocard import metadata_load

    notes = []
    if not any(path.endswith(".safetensors") for path in contents.files):
        notes.append("the folder has no weights in safetensors, so a configuration alone is uploaded.")
    if not {"tokenizer.json", "vocab.txt"} & set(contents.files):
        notes.append("the folder has no tokenizer, without which the checkpoint processes no texts.")
    if (card := contents.files.get("README.md")) is not None:
        if isinstance(card, Path) and not metadata_load(card):
            notes.append("README.md has no metadata, by which users of the Hub would find the model.")
        if unused := [f"--{name}" for name, value in given.items() if value]:
            notes.append(f"README.md is uploaded as it is: {', '.join(unused)} would count for a new one.")
    elif missing := [f"--{name}" for name in ("license", "dataset", "results") if not given[name]]:
        notes.append(f"the new model card says that these are not stated: {', '.join(missing)}.")
    return notes


def describe_upload(contents: "FolderContents", folder: Path, notes: Sequence[str]) -> dict[str, Any]:
    """Files, their sizes and origins, and what is left out, as `--json` prints them."""
    files = []
    for path, content in sorted(contents.files.items()):
        ours = not (folder / path).exists()
        origin = "added" if ours else "changed" if isinstance(content, bytes) else "folder"
        files.append({"path": path, "bytes": contents.size(path), "origin": origin})
    left_out = [dataclasses.asdict(entry) for entry in contents.left_out]
    return {"files": files, "bytes": sum(file["bytes"] for file in files), "left_out": left_out, "notes": list(notes)}


def upload_lines(upload: Mapping[str, Any]) -> list[str]:
    """[`describe_upload`] as text: the checkpoint's files one by one, the code together."""
    code = [file for file in upload["files"] if file["origin"] == "added" and file["path"].endswith(".py")]
    shown = [file for file in upload["files"] if file not in code]
    marks = {"folder": "", "changed": "  (names the code)", "added": "  (new)"}
    lines = [f"{decimal(file['bytes']):>10}  {on_one_line(file['path'])}{marks[file['origin']]}" for file in shown]
    if code:
        lines.append(f"{decimal(sum(file['bytes'] for file in code)):>10}  {len(code)} files of code  (new)")
    return [*lines, f"{decimal(upload['bytes']):>10}  in all, {len(upload['files'])} files"]


def left_out_lines(upload: Mapping[str, Any]) -> list[str]:
    """A line for each reason."""
    reasons: dict[str, list[str]] = {}
    for entry in upload["left_out"]:
        count = f" ({entry['files']} files)" if entry["files"] > 1 else ""
        reasons.setdefault(entry["reason"], []).append(f"{on_one_line(entry['path'])}{count}")
    return [f"left out ({reason}): {', '.join(paths)}." for reason, paths in reasons.items()]
