# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Finds a benchmark's files: annotations by their authors' file names, and media in usual layouts."""

import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePath

from ....media_sources import media_kind


CONTAINERS = (
    *("video", "videos*", "raw_video*", "*_videos", "clips", "youtubeclips", "trainvalvideo", "testvideo"),
    *("frames", "frames_*", "images", "gifs"),
    *("audio", "audios", "audio_*", "all_audio*", "*_audio", "*_audio_files", "wav", "wavs", "waveforms", "sounds"),
    *("train", "train_*", "train20*", "dev", "development", "val", "val_*", "val20*", "validation"),
    *("test", "test_*", "test20*", "evaluation"),
)
"""Names of subfolders in which media are looked for, in lower case, two levels deep."""


@dataclass(frozen=True)
class AnnotationFiles:
    """What one part of a split's annotations is called.

    Args:
        alternatives: sets of file names; the files of one set are needed together. The authors' own names come first.
        required: the split cannot be read without it.
    """

    alternatives: tuple[tuple[str, ...], ...]
    required: bool = True

    def find(self, folders: Iterable[Path]) -> list[Path]:
        """The files of the first set that is complete in one of the folders; none if there is no such set."""
        for folder in folders:
            for names in self.alternatives:
                paths = [folder / name for name in names]
                if all(path.is_file() for path in paths):
                    return paths
        return []

    def __str__(self) -> str:
        return " or ".join(" with ".join(names) for names in self.alternatives)


def find_annotations(
    files: Mapping[str, AnnotationFiles], annotations: str | os.PathLike[str], what: str, source: str
) -> dict[str, list[Path]]:
    """Paths of all parts of a split's annotations.

    Args:
        annotations: a folder with the files, or with a subfolder `annotations` that has them; or the file itself,
            whatever its name, where one is all that is needed.
        what, source: for errors: the split, and where its annotations come from.

    Raises:
        FileNotFoundError: a required file is not there.
        ValueError: a file is given where several are needed.
    """
    annotations = Path(annotations)
    folders: tuple[Path, ...] = (annotations, annotations / "annotations")
    given: dict[str, list[Path]] = {}
    if annotations.is_file():
        required = [part for part, names in files.items() if names.required]
        if len(required) > 1:
            needed = ", ".join(str(files[part]) for part in required)
            raise ValueError(f"{what} needs several files ({needed}): give their folder instead of {annotations}.")
        given, folders = {required[0]: [annotations]}, (annotations.parent,)
    found = given | {part: names.find(folders) for part, names in files.items() if part not in given}
    for part, names in files.items():
        if names.required and not found[part]:
            raise FileNotFoundError(
                f"{what} needs {names} in {annotations}, which is not there. It comes from {source}."
            )
    return {part: paths for part, paths in found.items() if paths}


class MediaFolder:
    """Media files of a folder and of its subfolders, found by name.

    Every folder is listed once, when it is first needed, so that a search costs a few microseconds. Suffixes may be in
    upper or lower case. Names are compared in Unicode's composed form, as file systems differ in it.

    Raises:
        FileNotFoundError: there is no such folder.
    """

    def __init__(self, root: str | os.PathLike[str]):
        self.root = os.fspath(root)
        if not os.path.isdir(self.root):
            raise FileNotFoundError(f"{self.root} is no folder; `media` must be the folder that has the media files.")
        self.folders = [self.root, *_containers(self.root, depth=2)]
        self.listings: dict[str, dict[tuple[str, str], str]] = {}

    def find(self, names: Sequence[str], kind: str, subfolders: Sequence[str] = ()) -> str | None:
        """Path of the first media file, or None.

        Args:
            names: file names without suffix, the likeliest first.
            kind: "video", "image", "audio", or "frames" for a folder of this name.
            subfolders: more folders to look in, relative to each of those that are searched anyway.
        """
        for name in names:
            for folder in self._places(subfolders):
                found = self._listing(folder).get((kind, unicodedata.normalize("NFC", name)))
                if found is not None:
                    path = os.path.join(folder, found)
                    if kind != "frames" or os.path.isdir(path):
                        return path
        return None

    def _places(self, subfolders: Sequence[str]) -> Iterator[str]:
        yield from self.folders
        for subfolder in subfolders:
            for folder in self.folders:
                if ("frames", subfolder) in self._listing(folder):
                    yield os.path.join(folder, subfolder)

    def _listing(self, folder: str) -> dict[tuple[str, str], str]:
        if folder not in self.listings:
            entries: dict[tuple[str, str], str] = {}
            # Sorted, so that of several suffixes the same one is taken everywhere
            for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
                kind = media_kind(name)
                stem = PurePath(name).stem if kind else name
                entries.setdefault((kind or "frames", unicodedata.normalize("NFC", stem)), name)
            self.listings[folder] = entries
        return self.listings[folder]


def _containers(root: str, depth: int) -> list[str]:
    """Subfolders that hold media by their names, in order of `CONTAINERS`, and theirs."""
    if depth == 0:
        return []
    with os.scandir(root) as entries:
        names = sorted(
            entry.name
            for entry in entries
            if media_kind(entry.name) is None and _rank(entry.name) < len(CONTAINERS) and entry.is_dir()
        )
    found = []
    for name in sorted(names, key=_rank):
        path = os.path.join(root, name)
        found += [path, *_containers(path, depth - 1)]
    return found


def _rank(name: str) -> int:
    name = name.lower()
    return next((rank for rank, pattern in enumerate(CONTAINERS) if fnmatchcase(name, pattern)), len(CONTAINERS))
