# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""A small server that speaks the Hub's protocol on loopback, as far as huggingface_hub's client needs it for models.

It keeps everything in memory. `python tests/helpers/hub_server.py` runs one and prints the environment that makes
huggingface_hub, transformers and `valor` use it. Uploads are those of git LFS, so `HF_HUB_DISABLE_XET=1` is part of that.
"""

import base64
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml


TOKEN, STRANGER_TOKEN = "hf_owner", "hf_stranger"
"""Token of the user `owner`, who writes in the namespaces `owner` and `casia`, and of `stranger`, who only reads."""

LARGE_BYTES = 100_000
"""Files of more bytes, and binary ones, are stored by git LFS; the Hub's limit is larger."""


class HubError(Exception):
    """An answer with an error: its status, the Hub's code for it, and a message."""

    def __init__(self, status: int, code: str | None, message: str):
        super().__init__(message)
        self.status, self.code = status, code


@dataclass(frozen=True)
class Blob:
    """A file's content, and whether git LFS stores it."""

    content: bytes
    is_lfs: bool

    @property
    def oid(self) -> str:
        """SHA-256 of a file in LFS, else git's own hash."""
        if self.is_lfs:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


@dataclass
class Repository:
    """Commits by their hash, each with all its files by path; branches and tags with the hash that they name.

    `readers` are the users who may read a private or a gated repository.
    """

    private: bool = False
    gated: bool = False
    readers: set[str] = field(default_factory=set)
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, Blob], message: str) -> str:
        """Makes `files` the content of a branch and returns the new commit's hash."""
        listing = sorted((path, blob.oid) for path, blob in files.items())
        parent = self.branches.get(branch)
        sha = hashlib.sha1(repr((parent, message, listing)).encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha

    def resolve(self, revision: str) -> str:
        """Hash of the commit that a branch, a tag or a hash names."""
        sha = self.branches.get(revision) or self.tags.get(revision) or revision
        if sha not in self.commits:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha


@dataclass
class Hub:
    """State of a server.

    Args:
        endpoint: its address, for `HF_ENDPOINT`.
        store: address of the contents in LFS; as at the Hub it is another host, where the client sends no token.
        users: token -> name; `writers`: namespace -> names of those who may write there.
        repositories: by `namespace/name`.
        objects: uploaded large files by SHA-256.
        requests: method and path of each request, in order.
        fail_on: "METHOD regular-expression of the path"; the connection of such requests is closed without an answer.
        hang_on: the same; such requests are not answered until the server ends.
    """

    endpoint: str = ""
    store: str = ""
    users: dict[str, str] = field(default_factory=lambda: {TOKEN: "owner", STRANGER_TOKEN: "stranger"})
    writers: dict[str, set[str]] = field(default_factory=lambda: {"owner": {"owner"}, "casia": {"owner"}})
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    fail_on: str | None = None
    hang_on: str | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    def environment(self, cache: Any, token: str | None = TOKEN) -> dict[str, str]:
        """Variables with which a process uses this server, keeps what it loads in the folder `cache`, and shows `token`."""
        variables = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(cache),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "0",
        }
        return variables if token is None else variables | {"HF_TOKEN": token}

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """Content of a repository's files by path."""
        repository = self.repositories[repo_id]
        return {path: blob.content for path, blob in repository.commits[repository.resolve(revision)].items()}


@contextmanager
def hub_server(port: int = 0) -> Iterator[Hub]:
    """Runs a server on loopback while the block lasts."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        server.daemon_threads = True
        hub.endpoint, hub.store = (f"http://{host}:{server.server_port}" for host in ("127.0.0.1", "localhost"))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield hub
        finally:
            hub.ended.set()
            server.shutdown()


def take_for_the_hub(hub: Hub, monkeypatch: Any, cache: Any, token: str | None = TOKEN) -> None:
    """Lets this process use a server, although huggingface_hub has read its environment already."""
    import transformers.utils.hub
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    template = f"{hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)  # between attempts
    monkeypatch.setattr(transformers.utils.hub, "_hf_api", None)
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.delenv("HF_TOKEN", raising=False) if token is None else monkeypatch.setenv("HF_TOKEN", token)


Route = Callable[..., None]
ROUTES: list[tuple[str, re.Pattern[str], Route]] = []


def route(methods: str, pattern: str) -> Callable[[Route], Route]:
    """Registers a function for paths of a pattern, in which REPO is a repository and REV a revision."""
    pattern = pattern.replace("REPO", r"(?P<repo_id>[\w.-]+/[\w.-]+)").replace("REV", r"(?P<revision>[^/]+)")

    def register(function: Route) -> Route:
        ROUTES.extend((method, re.compile(pattern), function) for method in methods.split())
        return function

    return register


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def handle_request(self) -> None:
        address = urlsplit(self.path)
        self.query = parse_qs(address.query)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = f"{self.command} {unquote(address.path)}"
        self.hub.requests.append(asked)
        if self.hub.hang_on and re.match(self.hub.hang_on, asked):
            self.hub.ended.wait()
            self.close_connection = True
            return
        if self.hub.fail_on and re.match(self.hub.fail_on, asked):
            self.close_connection = True
            return
        try:
            for method, pattern, function in ROUTES:
                if method == self.command and (found := pattern.fullmatch(address.path)):
                    parts = {name: unquote(part) for name, part in found.groupdict().items() if part is not None}
                    return function(self, **parts)
            raise HubError(404, None, f"Not found: {address.path}")
        except HubError as error:
            headers = {"X-Error-Message": str(error)}
            if error.code is not None:
                headers["X-Error-Code"] = error.code
            self.answer({"error": str(error)}, error.status, headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_request

    def answer(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """Sends bytes as they are and everything else as JSON; an answer to HEAD is sent without its content."""
        is_file = isinstance(content, bytes)
        data = content if is_file else json.dumps(content).encode()
        headers = {"Content-Type": "application/octet-stream" if is_file else "application/json"} | (headers or {})
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def json(self) -> Any:
        """The body of the request."""
        return json.loads(self.body)

    @property
    def user(self) -> str | None:
        """Name of the user whose token the request has."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.hub.users:
            raise HubError(401, None, "Invalid credentials in Authorization header")
        return self.hub.users.get(token)

    def may_write(self, namespace: str) -> bool:
        return self.user in self.hub.writers.get(namespace, ())

    def repository(self, repo_id: str, content: bool = False, write: bool = False) -> Repository:
        """The repository of this name, if the user may see it, read its content, or write it."""
        repository = self.hub.repositories.get(repo_id)
        namespace = repo_id.split("/")[0]
        trusted = repository is not None and (self.may_write(namespace) or self.user in repository.readers)
        if repository is None or (repository.private and not trusted):
            status = 401 if self.user is None else 404  # the Hub does not tell strangers which repositories exist
            raise HubError(status, "RepoNotFound", "Repository not found")
        if content and repository.gated and not trusted:
            message = f"Access to model {repo_id} is restricted."
            raise HubError(401 if self.user is None else 403, "GatedRepo", message)
        if write and not self.may_write(namespace):
            raise HubError(403, None, f"You don't have the rights to write in {namespace}")
        return repository

    def log_message(self, *args: Any) -> None:
        pass


# --- Users and repositories -------------------------------------------------------------------------------------------


@route("GET", "/api/whoami-v2")
def whoami(request: _Handler) -> None:
    if request.user is None:
        raise HubError(401, None, "Invalid username or password.")
    namespaces = [
        name for name, users in request.hub.writers.items() if request.user in users and name != request.user
    ]
    orgs = [{"name": name, "type": "org"} for name in namespaces]
    token = {"type": "access_token", "accessToken": {"displayName": "test", "role": "write"}}
    request.answer({"type": "user", "name": request.user, "orgs": orgs, "auth": token})


@route("POST", "/api/repos/create")
def create_repository(request: _Handler) -> None:
    asked = request.json()
    if request.user is None:
        raise HubError(401, None, "Invalid username or password.")
    namespace = asked.get("organization") or request.user
    repo_id = f"{namespace}/{asked['name']}"
    if not request.may_write(namespace):
        raise HubError(403, None, f'You don\'t have the rights to create a model under the namespace "{namespace}"')
    url = {"url": f"{request.hub.endpoint}/{repo_id}", "id": repo_id, "name": repo_id}
    if repo_id in request.hub.repositories:
        return request.answer(url | {"error": "You already created this model repo"}, HTTPStatus.CONFLICT)
    repository = Repository(private=asked.get("visibility") == "private" or bool(asked.get("private")))
    repository.commit("main", {".gitattributes": Blob(b"*.safetensors filter=lfs\n", is_lfs=False)}, "initial commit")
    request.hub.repositories[repo_id] = repository
    request.answer(url)


@route("GET", "/api/models/REPO(?:/revision/REV)?")
def model_info(request: _Handler, repo_id: str, revision: str = "main") -> None:
    repository = request.repository(repo_id)
    sha = repository.resolve(revision)
    request.answer(
        {
            "id": repo_id,
            "modelId": repo_id,
            "sha": sha,
            "private": repository.private,
            "gated": "manual" if repository.gated else False,
            "tags": [],
            "siblings": [{"rfilename": path} for path in repository.commits[sha]],
        }
    )


@route("GET", "/api/models/REPO/refs")
def refs(request: _Handler, repo_id: str) -> None:
    repository = request.repository(repo_id)
    listed = {
        kind: [{"name": name, "ref": f"refs/{prefix}/{name}", "targetCommit": sha} for name, sha in named.items()]
        for kind, prefix, named in (("branches", "heads", repository.branches), ("tags", "tags", repository.tags))
    }
    request.answer(listed | {"converts": []})


@route("POST", "/api/models/REPO/branch/(?P<branch>[^/]+)")
def create_branch(request: _Handler, repo_id: str, branch: str) -> None:
    repository = request.repository(repo_id, write=True)
    if branch in repository.branches:
        raise HubError(409, None, f"Reference already exists: {branch}")
    repository.branches[branch] = repository.resolve(request.json().get("startingPoint", "main"))
    request.answer({})


@route("POST", "/api/models/REPO/tag/REV")
def create_tag(request: _Handler, repo_id: str, revision: str) -> None:
    repository = request.repository(repo_id, write=True)
    name = request.json()["tag"]
    if name in repository.tags:
        raise HubError(409, None, f"Tag reference exists already: {name}")
    repository.tags[name] = repository.resolve(revision)
    request.answer({})


# --- Uploads ----------------------------------------------------------------------------------------------------------


@route("POST", "/api/validate-yaml")
def validate_card(request: _Handler) -> None:
    """Checks the metadata of a card; the Hub checks more of it."""
    found = re.match(r"---\r?\n(.*?)\r?\n---", request.json()["content"], re.DOTALL)
    warnings = [] if found else [{"message": "empty or missing yaml metadata in repo card"}]
    errors = []
    try:
        metadata = yaml.safe_load(found[1]) if found else {}
        if " " in str(metadata.get("license", "")):
            errors = [{"message": '"license" must be one word'}]
    except (yaml.YAMLError, AttributeError):
        errors = [{"message": "YAML metadata is no dictionary"}]
    request.answer({"warnings": warnings, "errors": errors}, 400 if errors else 200)


@route("POST", "/api/models/REPO/preupload/REV")
def preupload(request: _Handler, repo_id: str, revision: str) -> None:
    repository = request.repository(repo_id, write=True)
    files = repository.commits[repository.resolve(revision)]
    answers = []
    for file in request.json()["files"]:
        is_large = file["size"] > LARGE_BYTES or b"\0" in base64.b64decode(file["sample"])
        present = files.get(file["path"])
        answers.append(
            {
                "path": file["path"],
                "uploadMode": "lfs" if is_large else "regular",
                "shouldIgnore": False,
                "oid": None if present is None else present.oid,
            }
        )
    request.answer({"files": answers})


@route("POST", r"/REPO\.git/info/lfs/objects/batch")
def lfs_batch(request: _Handler, repo_id: str) -> None:
    request.repository(repo_id, write=True)
    objects = []
    for entry in request.json()["objects"]:
        place = {"href": f"{request.hub.store}/objects/{entry['oid']}", "header": {}}
        is_new = entry["oid"] not in request.hub.objects
        objects.append(entry | ({"actions": {"upload": place}} if is_new else {}))
    request.answer({"transfer": "basic", "objects": objects})


@route("PUT", "/objects/(?P<oid>[0-9a-f]{64})")
def upload_object(request: _Handler, oid: str) -> None:
    if hashlib.sha256(request.body).hexdigest() != oid:
        raise HubError(400, None, "The content has another hash")
    request.hub.objects[oid] = request.body
    request.answer({})


@route("POST", "/api/models/REPO/commit/REV")
def commit(request: _Handler, repo_id: str, revision: str) -> None:
    """Applies the operations of a commit, all or none."""
    repository = request.repository(repo_id, write=True)
    if revision not in repository.branches:
        raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    header, *operations = [json.loads(line) for line in request.body.splitlines()]
    if header["value"].get("parentCommit", repository.branches[revision]) != repository.branches[revision]:
        raise HubError(412, None, "A commit has happened since.")
    files = dict(repository.commits[repository.branches[revision]])
    for operation in operations:
        _apply(request.hub, files, operation["key"], operation["value"])
    sha = repository.commit(revision, files, header["value"]["summary"])
    request.answer({"commitUrl": f"{request.hub.endpoint}/{repo_id}/commit/{sha}", "commitOid": sha, "success": True})


def _apply(hub: Hub, files: dict[str, Blob], key: str, value: dict[str, Any]) -> None:
    path = value["path"]
    if key == "file":
        files[path] = Blob(base64.b64decode(value["content"]), is_lfs=False)
    elif key == "lfsFile":
        if value["oid"] not in hub.objects:
            raise HubError(400, None, f"{path}: its content was not uploaded")
        files[path] = Blob(hub.objects[value["oid"]], is_lfs=True)
    elif key == "deletedFile" and path in files:
        del files[path]
    else:
        raise HubError(400, None, f"{key} of {path} is not possible")


# --- Downloads --------------------------------------------------------------------------------------------------------


@route("GET", "/api/models/REPO/tree/REV(?:/(?P<folder>.+))?")
def tree(request: _Handler, repo_id: str, revision: str, folder: str = "") -> None:
    repository = request.repository(repo_id, content=True)
    files = repository.commits[repository.resolve(revision)]
    prefix = f"{folder}/" if folder else ""
    inside = {path: blob for path, blob in files.items() if path.startswith(prefix)}
    if folder and not inside:
        raise HubError(404, "EntryNotFound", f"{folder} does not exist on {revision!r}")
    entries = {path: _file_entry(path, blob) for path, blob in inside.items() if "/" not in path[len(prefix) :]}
    if request.query.get("recursive", ["false"])[0].lower() == "true":
        entries = {path: _file_entry(path, blob) for path, blob in inside.items()}
    for path in inside:
        if "/" in path[len(prefix) :]:
            name = prefix + path[len(prefix) :].split("/")[0]
            entries[name] = {"type": "directory", "oid": "0" * 40, "size": 0, "path": name}
    request.answer([entries[path] for path in sorted(entries)])


@route("POST", "/api/models/REPO/paths-info/REV")
def paths_info(request: _Handler, repo_id: str, revision: str) -> None:
    repository = request.repository(repo_id, content=True)
    files = repository.commits[repository.resolve(revision)]
    is_json = "json" in request.headers.get("Content-Type", "")
    paths = request.json()["paths"] if is_json else parse_qs(request.body.decode()).get("paths", [])
    request.answer([_file_entry(path, files[path]) for path in paths if path in files])


def _file_entry(path: str, blob: Blob) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(blob.content), "oid": blob.oid}
    if blob.is_lfs:
        entry |= {"oid": blob.oid[:40], "lfs": {"oid": blob.oid, "size": len(blob.content), "pointerSize": 134}}
    return entry


@route("GET HEAD", "/REPO/resolve/REV/(?P<path>.+)")
def resolve(request: _Handler, repo_id: str, revision: str, path: str) -> None:
    """A file as it is, or for one in LFS the address of its content."""
    repository = request.repository(repo_id, content=True)
    sha = repository.resolve(revision)
    blob = repository.commits[sha].get(path)
    if blob is None:
        raise HubError(404, "EntryNotFound", "Entry not found")
    headers = {"X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
    if not blob.is_lfs:
        return _send_content(request, blob, headers)
    place = f"{request.hub.store}/objects/{blob.oid}"
    linked = {"Location": place, "X-Linked-Size": str(len(blob.content)), "X-Linked-Etag": f'"{blob.oid}"'}
    request.answer({}, HTTPStatus.FOUND, headers | linked)


@route("GET HEAD", "/objects/(?P<oid>[0-9a-f]{64})")
def download_object(request: _Handler, oid: str) -> None:
    if oid not in request.hub.objects:
        raise HubError(404, "EntryNotFound", "Entry not found")
    _send_content(request, Blob(request.hub.objects[oid], is_lfs=True), {})


def _send_content(request: _Handler, blob: Blob, headers: dict[str, str]) -> None:
    """The content, or the part of it that the request's `Range` names."""
    headers = headers | {"ETag": f'"{blob.oid}"'}
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
    if found is None:
        return request.answer(blob.content, headers=headers)
    size = len(blob.content)
    start, end = int(found[1]), min(int(found[2] or size - 1), size - 1)
    if start > end:
        return request.answer(b"", HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, {"Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {start}-{end}/{size}"
    request.answer(blob.content[start : end + 1], HTTPStatus.PARTIAL_CONTENT, headers)


if __name__ == "__main__":
    with hub_server() as running:
        for name, value in running.environment("hub-cache").items():
            print(f"export {name}={value}")
        print("# Ctrl-C ends the server, and what was uploaded is lost", flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
