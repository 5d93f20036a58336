# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""What is to be indexed: files, folders, globs, addresses and samples, each with what tells whether it has changed."""

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..data.files import warn_once
from ..data.samples import Sample
from ..media import MediaError
from ..media_limits import reason
from ..media_sources import list_media, split_part
from .segments import FileState


Source = str | os.PathLike[str] | Sample
Metadata = Mapping[str, Any] | Callable[[str], Mapping[str, Any]]


@dataclass(frozen=True)
class IndexItem:
    """One file to index.

    Args:
        source: the name that the index knows it by: an absolute path, an address, or the id of a sample in memory.
        media: what is decoded.
        state: size and time of the file.
        caption: a text about it, for each of its segments.
        metadata: for each of its segments.
    """

    source: str
    media: Any
    state: FileState = field(default_factory=FileState)
    caption: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


def list_items(
    sources: Source | Iterable[Source], metadata: Metadata | None = None
) -> tuple[list[IndexItem], dict[str, str]]:
    """The files that `sources` stand for, each once, and a sentence for each source that stands for none.

    Args:
        sources: files, folders, globs (`videos/**/*.mp4`, also `s3://bucket/*.mp4`), addresses, or samples.
        metadata: for every file, or a function of its name that returns it.
    """
    items: dict[str, IndexItem] = {}
    failures: dict[str, str] = {}
    for source in _each(sources):
        try:
            found = list(_items_of(source))
        except MediaError as error:
            failures[_name(source)] = str(error)
            continue
        for item in found:
            try:
                item.source.encode()
            except UnicodeEncodeError:
                name = ascii(item.source)
                failures[name] = f"{name} has a name that is not UTF-8, which an index needs: rename the file."
                continue
            own = metadata(item.source) if callable(metadata) else metadata or {}
            items[item.source] = IndexItem(item.source, item.media, item.state, item.caption, {**item.metadata, **own})
    return list(items.values()), failures


def is_covered(source: str, sources: Source | Iterable[Source]) -> bool:
    """Whether a local file that the index knows is one of those that `sources` stand for, were it still there."""
    for given in _each(sources):
        if isinstance(given, Sample) or _is_address(os.fspath(given)):
            continue
        path = absolute(given)
        folder = re.split(r"[*?[]", path)[0].rpartition(os.sep)[0] if glob.has_magic(path) else path
        if source == path or source.startswith(folder.rstrip(os.sep) + os.sep):
            return True
    return False


def absolute(source: str | os.PathLike[str]) -> str:
    """The name by which an index knows a path or an address."""
    name = os.fspath(source)
    return name if _is_address(name) else os.path.abspath(os.path.expanduser(name))


def part_start(source: str) -> float:
    """Second of the file at which a source begins, such as 30 for `film.mp4#t=30,40`."""
    try:
        part = split_part(source)[1]
    except MediaError:
        return 0.0
    return 0.0 if part is None else part.start


def is_gone(source: str) -> bool:
    """Whether a local file is not there any more."""
    return os.path.isabs(source) and not os.path.exists(source) and not os.path.exists(str(split_part(source)[0]))


def _each(sources: Source | Iterable[Source]) -> Iterable[Source]:
    return [sources] if isinstance(sources, (str, os.PathLike, Sample)) else sources


def _items_of(source: Source) -> Iterator[IndexItem]:
    if isinstance(source, Sample):
        yield _sample_item(source)
        return
    name = os.fspath(source)
    if not isinstance(name, str):
        raise MediaError(f"{name!r} is not a path or an address in text.")
    for path in _expand(name):
        yield IndexItem(path, path, file_state(path))


def _expand(name: str) -> list[str]:
    """Paths and addresses of the media files that a name stands for."""
    if _is_address(name):
        return _expand_address(name) if "*" in name and not name.startswith(("http://", "https://")) else [name]
    path = absolute(name)
    if os.path.exists(path) or not glob.has_magic(path):
        return list_media(path)
    found = [file for match in sorted(glob.glob(path, recursive=True)) for file in _media_below(match)]
    if not found:
        raise MediaError(f"{name} stands for no media files.")
    return found


def _media_below(path: str) -> Sequence[str]:
    try:
        return list_media(path)
    except MediaError:  # a folder without media, one of many matches
        return []


def _expand_address(name: str) -> list[str]:
    import fsspec

    try:
        system, _, paths = fsspec.get_fs_token_paths(name)
    except Exception as error:  # each file system has errors of its own
        raise MediaError(f"{name} cannot be listed: {reason(error)}.") from error
    if not paths:
        raise MediaError(f"{name} stands for no files.")
    return [system.unstrip_protocol(path) for path in sorted(paths)]


def file_state(name: str) -> FileState:
    """Size and time of a file; those of the newest file and of all files together for a folder of frames."""
    if _is_address(name):
        return FileState()
    path = name if os.path.exists(name) else str(split_part(name)[0])
    try:
        files = [entry.path for entry in os.scandir(path)] if os.path.isdir(path) else [path]
        found = [os.stat(file) for file in files]
    except OSError:
        return FileState()
    return FileState(sum(item.st_size for item in found), max((item.st_mtime_ns for item in found), default=None))


def _sample_item(sample: Sample) -> IndexItem:
    media = sample.video if sample.video is not None else sample.audio
    one_file = isinstance(sample.audio, (str, os.PathLike)) and isinstance(media, (str, os.PathLike))
    if sample.audio is not None and sample.audio is not media and not (one_file and sample.audio == media):
        raise MediaError(f"{sample.id} has its sound in another file, which an index does not take: join them.")
    if media is None:
        raise MediaError(f"{sample.id} has neither video nor audio.")
    caption = sample.captions[0] if sample.captions else None
    if not isinstance(media, (str, os.PathLike)):
        return IndexItem(sample.id, media, FileState(), caption)
    if len(sample.captions) > 1:
        warn_once("captions of an index", "Of several captions of a sample an index keeps the first.")
    name = absolute(media)
    return IndexItem(name, name, file_state(name), caption, {"id": sample.id})


def _is_address(name: str) -> bool:
    return "://" in name or name.startswith("data:")


def _name(source: Source) -> str:
    return source.id if isinstance(source, Sample) else ascii(source)[1:-1] if isinstance(source, str) else str(source)
