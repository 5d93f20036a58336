# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What a source of media may be, how it becomes a local file, and what a folder is."""

import base64
import binascii
import contextlib
import dataclasses
import functools
import itertools
import math
import os
import re
import tempfile
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Collection, Generator, Iterator, Mapping
from pathlib import Path, PurePath
from threading import Lock
from typing import Any, BinaryIO, TypeAlias, cast
from weakref import WeakKeyDictionary

from .media_fetch import fetch
from .media_fragments import Part, parse_fragment, split_fragment
from .media_limits import Budget, MediaError, MediaLimits, printable, reason


MediaSource: TypeAlias = str | os.PathLike | bytes | BinaryIO

MEDIA_SUFFIXES = {
    "video": (".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".3gp", ".gif"),
    "image": (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm"),
    "audio": (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".aiff", ".wma"),
}
"""What a media file holds, by how its name ends. The file itself has the last word, when it is decoded."""

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_DATA_URL = re.compile(r"data:(?!//)[\w.+/-]*[;,]", re.IGNORECASE)
_LOCKS: WeakKeyDictionary[Any, Lock] = WeakKeyDictionary()
_LOCKS_IN_TURN = Lock()
_LOCK_OF_OTHERS = Lock()

_ARCHIVES = ("zip", "tar", "gzip", "bz2", "xz", "lz4", "zstd")
"""fsspec's names of archives and compressed files."""


class LocalFile(str):
    """The absolute path of a file or folder, with the `name` of its source and the `budget` for reading it.

    `part` is what is wanted of the file, where that is not all of it, `clock` what is known of its times, and `sound` its
    audio track, in a tuple, once that was looked for.
    """

    name: str
    budget: Budget
    part: Part | None
    clock: Any
    sound: tuple[Any] | None

    def __new__(cls, path: str, name: str, limits: MediaLimits, part: Part | None = None) -> "LocalFile":
        file = super().__new__(cls, path)
        size = os.path.getsize(path) if os.path.isfile(path) else 0
        file.name, file.budget, file.part = name, Budget(name, limits, size), part
        file.clock = file.sound = None
        return file


@contextlib.contextmanager
def open_source(
    source: MediaSource, limits: MediaLimits | Mapping[str, Any] | None = None, **changes: Any
) -> Iterator[LocalFile]:
    """Gives the absolute path of a local file (or folder) that holds `source`, for the time of a `with` block.

    A path is given as it is, with a leading `~` expanded. Everything else goes to a temporary file, so what serves
    frames and sound is best opened once, around both reads. What this gives may be given again: it is passed through,
    with its name and what is left of its limits. A file object is read from its beginning where it can seek.

    Args:
        source: a path; a URL (`http`, `https`, `file`, `data`); a file on the Hub or in an archive, as the `datasets`
            library writes it (`hf://datasets/owner/name/clip.mp4`, `zip://clip.mp4::clips.zip`); bytes; or a binary
            file object. A path or URL may end with a part of the file in seconds, such as `#t=30,40`, `#t=30` (to the
            end) or `#t=,10` (W3C media fragments), unless a file has this very name.
        limits: how much may be spent, and what is accepted; the defaults of `MediaLimits` if not given.
        changes: single fields of `limits`.

    Raises:
        MediaError: nothing is there, it is of another kind, or a limit is passed.
    """
    if isinstance(source, LocalFile):
        yield source
        return
    limits = dataclasses.replace(MediaLimits.of(limits), **changes)
    name, part = source_name(source), None
    if isinstance(source, (str, os.PathLike)):
        address, part = split_part(source)
        if limits.public_only and _scheme(address) not in ("http", "https", "data"):
            raise MediaError(f"{name} is not accepted here: only http and https addresses are.")
        if _scheme(address) in (None, "file"):
            yield LocalFile(_local_path(address, name), name, limits, part)
            return
        chunks = _address_content(address, name, limits)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        chunks = (part for part in (source,))
    elif hasattr(source, "read"):
        chunks = _pieces(source)
    else:
        raise MediaError(f"{name} is not a path, a URL, bytes or a binary file object.")
    with tempfile.TemporaryDirectory(prefix="valor-", ignore_cleanup_errors=True) as folder:
        ending = re.search(
            r"\.\w{1,8}$", split_fragment(name)[0].removesuffix("?...")
        )  # a hint for what kind of file it is
        path = os.path.join(folder, f"media{ending[0] if ending else ''}")
        with contextlib.closing(chunks):
            _write(path, chunks, name, limits)
        yield LocalFile(path, name, limits, part)


def split_part(source: str | os.PathLike) -> tuple[str, Part | None]:
    """A path or address without the media fragment at its end, and the part that this names; None for the whole file.

    Raises:
        MediaError: the fragment names no part.
    """
    address = os.fsdecode(source)
    whole, fragment = split_fragment(address)
    if not fragment or (_scheme(address) is None and os.path.lexists(os.path.expanduser(address))):
        return address, None
    return whole, parse_fragment(fragment, source_name(source))


def download(
    url: str,
    timeout: float,
    max_seconds: float = math.inf,
    public_only: bool = False,
    private_hosts: Collection[str] = (),
) -> Generator[bytes, None, None]:
    """The bytes behind an http(s) URL, piece by piece; arguments are as in `MediaLimits`.

    Raises:
        MediaError: another scheme, or the URL cannot be fetched within the limits.
    """
    name = source_name(url)
    if _scheme(url) not in ("http", "https"):
        raise MediaError(f"{name} cannot be fetched: only http and https addresses are.")
    yield from fetch(
        url,
        name,
        timeout=timeout,
        max_seconds=max_seconds,
        public_only=public_only,
        private_hosts=frozenset(private_hosts),
    )


def source_name(source: Any) -> str:
    """What to call a source in messages and logs, in one line; of a URL not what may be secret: user, password, query."""
    if isinstance(source, LocalFile):
        return source.name
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "<bytes>"
    if not isinstance(source, (str, os.PathLike)):
        name = getattr(source, "name", None)
        return printable(name) if isinstance(name, str) else f"<{type(source).__name__}>"
    name = os.fsdecode(source)
    address, fragment = split_fragment(name)
    fragment = fragment if re.fullmatch(r"#t=(npt:)?[\d.,:]*", fragment) else ""  # any other may hold what is secret
    if _scheme(name) == "data":
        return f"<data: URL>{fragment}"
    if _scheme(name) not in (None, "file"):
        name = "::".join(map(_public_part, address.split("::"))) + fragment
    elif re.match("https?:", name, re.IGNORECASE):  # a URL that lacks a slash
        name = re.sub("[;?#].*", "...", re.sub(":.*@", ":...@", name, flags=re.DOTALL), flags=re.DOTALL)
    return printable(name) or "(empty path)"


def media_source(sample: Any) -> MediaSource | None:
    """The file behind a sample: a path, a URL, bytes, a file object, or an entry of a `datasets` column, encoded or not.

    None where there is none, as for a waveform, or for a decoder of what is not a file.
    """
    if (encoded := getattr(sample, "_hf_encoded", None)) is not None:
        path = encoded["path"] or ""
        sample = encoded if encoded["bytes"] or _scheme(path) or os.path.exists(path) else None
    if isinstance(sample, dict) and sample.get("array") is None:
        sample = sample.get("bytes") or sample.get("path")
    is_source = isinstance(sample, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(sample, "read")
    return sample if is_source else None


def _scheme(address: str) -> str | None:
    """The scheme of an address in lower case; None for a path."""
    if (found := _ADDRESS.match(address)) is not None:
        return found[1].lower()
    return "data" if _DATA_URL.match(address) else None


def _public_part(address: str) -> str:
    """An address without user, password, parameters, query and fragment; members of archives, files on the Hub: whole."""
    if _scheme(address) in (None, "file", "hf", *_ARCHIVES):
        return address
    parts = cast(re.Match, re.fullmatch(r"(.*?://)([^/?#]*)([^;?#]*)([;?]?).*", address, re.DOTALL))
    scheme, host, path, query = parts.groups()
    host = host.rpartition("@")[2]
    if not re.fullmatch(r"(\[.*\]|[^:]*)(:\d*)?", host):  # a password that is not escaped, perhaps
        return f"{scheme}..."
    return f"{scheme}{host}{path}{query and query + '...'}"


def _local_path(address: str, name: str) -> str:
    """The absolute path of a path or `file://` URL, which must exist."""
    path = address
    if _scheme(address) == "file":
        url = urllib.parse.urlsplit(address)
        if url.netloc not in ("", "localhost"):
            raise MediaError(f"{name} names a host: a local file is file:///path/clip.mp4, with three slashes.")
        path = urllib.request.url2pathname(url.path)
    elif not os.path.exists(path):
        path = os.path.expanduser(path)
    if not os.path.exists(path):
        raise MediaError(f"{name} does not exist.")
    if not (os.path.isfile(path) or os.path.isdir(path)):
        raise MediaError(f"{name} is neither a file nor a folder.")
    return os.path.abspath(path)


def _address_content(address: str, name: str, limits: MediaLimits) -> Generator[bytes, None, None]:
    """What is at an address that is no local file, in pieces."""
    scheme = _scheme(address)
    if _DATA_URL.match(address):
        header, _, quoted = address.partition(",")
        content = urllib.parse.unquote_to_bytes(quoted)
        if header.lower().endswith(";base64"):
            try:
                content = base64.b64decode(b"".join(content.split()), validate=True)
            except binascii.Error as error:
                raise MediaError(f"{name} is not base64: {error}.") from None
        yield content
    elif scheme == "hf" or scheme in _ARCHIVES:
        yield from _filesystem_content(address, name, limits)
    else:
        yield from download(address, limits.timeout, limits.max_seconds, limits.public_only, limits.private_hosts)


def _filesystem_content(address: str, name: str, limits: MediaLimits) -> Generator[bytes, None, None]:
    """A file on the Hub or in an archive, by fsspec's address of it; an archive elsewhere is fetched first."""
    import fsspec

    *members, outer = address.split("::")
    if any(_scheme(member) not in _ARCHIVES for member in members) or _scheme(outer) in _ARCHIVES:
        raise MediaError(f"{name} cannot be read: a file in an archive is written zip://clip.mp4::clips.zip.")
    with contextlib.ExitStack() as stack:
        if _scheme(outer) != "hf":
            outer = f"file://{stack.enter_context(open_source(outer, limits))}"
        yield from _pieces(stack.enter_context(fsspec.open("::".join([*members, outer]), "rb")))


def _pieces(file: BinaryIO) -> Generator[bytes, None, None]:
    with one_at_a_time(file):
        if hasattr(file, "seekable") and file.seekable():
            file.seek(0)
        yield from iter(functools.partial(file.read, 2**20), b"")


def one_at_a_time(source: Any) -> Lock:
    """The lock of a file object or a decoder, which may be the source of several samples that threads read."""
    with _LOCKS_IN_TURN:
        try:
            return _LOCKS.setdefault(source, Lock())
        except TypeError:  # it has no hash, or nothing may refer to it weakly
            return _LOCK_OF_OTHERS


def _write(path: str, chunks: Iterator[bytes], name: str, limits: MediaLimits) -> None:
    """Writes the chunks to a file, within the limits of bytes and seconds."""
    deadline, size = time.monotonic() + limits.max_seconds, 0
    with open(path, "wb") as file:
        while (chunk := _next(chunks, name)) is not None:
            if isinstance(chunk, str):
                raise MediaError(f"{name} is open as text: open it in binary mode.")
            size += len(chunk)
            if size > limits.max_bytes:
                raise MediaError(f"{name} is larger than the limit of {limits.max_bytes} bytes.")
            if time.monotonic() > deadline:
                raise MediaError(f"{name} took longer than the limit of {limits.max_seconds:g} seconds.")
            file.write(chunk)


def _next(chunks: Iterator[bytes], name: str) -> bytes | None:
    try:
        return next(chunks, None)
    except MediaError:
        raise
    except Exception as error:  # file objects, file systems and archives have errors of their own
        raise MediaError(f"{name} cannot be read: {reason(error)}.") from error


# ---------------------------------------------------------------------------------------------------------------------
# Folders
# ---------------------------------------------------------------------------------------------------------------------


def media_kind(name: str | os.PathLike) -> str | None:
    """ "video", "image" or "audio" by a file name's suffix; None for any other suffix, such as a folder's."""
    for candidate in dict.fromkeys((os.fspath(name), split_fragment(os.fspath(name))[0])):
        suffix = PurePath(candidate).suffix.lower()
        if kind := next((kind for kind, suffixes in MEDIA_SUFFIXES.items() if suffix in suffixes), None):
            return kind
    return None


def name_without_suffix(name: str) -> str:
    """A media file's name without ".mp4", ".wav" and the like; other dots, and a part such as `#t=30,40`, stay."""
    whole, fragment = split_fragment(name)
    if PurePath(name).suffix.lower() in itertools.chain(*MEDIA_SUFFIXES.values()):
        whole, fragment = name, ""
    return (whole[: -len(PurePath(whole).suffix)] if media_kind(whole) else whole) + fragment


def list_media(source: str | os.PathLike) -> list[str]:
    """The samples that a file or folder stands for, in natural order (clip_2 before clip_10).

    A folder that holds images only, or with them one sound as `valor extract` writes it, is the frames of one video, and
    stands for itself. Any other folder is a collection:
    its media files, of which an image is one too, and what its subfolders stand for. Hidden files, links to folders and
    what has no suffix of media are passed over. A file or URL stands for itself.

    Raises:
        MediaError: a folder, and all folders in it, hold no media files.
    """
    path = os.path.expanduser(source) if not os.path.exists(source) else source
    if not os.path.isdir(path):
        return [os.fspath(source)]
    found = _list_folder(path)
    if not found:
        raise MediaError(f"{source_name(source)} holds no media files.")
    return found


def _list_folder(folder: str | os.PathLike) -> list[str]:
    found: list[str] = []
    kinds: Counter[str] = Counter()
    for path in _natural_order(folder):
        if path.is_dir():
            inside = [] if path.is_symlink() else _list_folder(path)
            kinds.update(["folder"] if inside else [])
            found += inside
        elif (kind := media_kind(path)) is not None:
            kinds[kind] += 1
            found.append(str(path))
    is_one_video = kinds["image"] > 0 and kinds["audio"] <= 1 and set(kinds) <= {"image", "audio"}
    return [os.fspath(folder)] if is_one_video else found


def list_frame_files(folder: str | os.PathLike) -> list[Path]:
    """The image files of a folder of extracted frames, in natural order (frame_2 before frame_10).

    Raises:
        MediaError: the folder holds no image files, or is a collection of videos or sounds.
    """
    paths = [path for path in _natural_order(folder) if media_kind(path) is not None and not path.is_dir()]
    files = [path for path in paths if media_kind(path) == "image"]
    others = [path for path in paths if media_kind(path) != "image"]
    one_sound = len(others) == 1 and media_kind(others[0]) == "audio"  # that of the frames
    if others and not (files and one_sound):
        raise MediaError(
            f"{source_name(folder)} is a collection, with {others[0].name} in it, and not the frames of one video: give "
            "its files one by one (`list_media`)."
        )
    if not files:
        raise MediaError(f"{source_name(folder)} holds no image files.")
    return files


def _natural_order(folder: str | os.PathLike) -> list[Path]:
    """What is in a folder and not hidden."""
    paths = [path for path in Path(folder).iterdir() if not path.name.startswith(".")]
    return sorted(paths, key=lambda path: natural_key(path.name))


def natural_key(name: str) -> list[str | int]:
    """For sorting names with numbers: `2.jpg` before `10.jpg`."""
    # Splitting at digits gives text and numbers by turns, so that equal places hold equal types
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]
