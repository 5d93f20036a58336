# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Samples of tar shards in the convention of WebDataset, streamed from disks, http(s) URLs and the Hub."""

import contextlib
import functools
import glob
import itertools
import os
import random
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import IO, Any, BinaryIO, cast

from ...media import download
from ...media_limits import reason
from ...media_sources import media_kind, natural_key
from ..samples import Sample, SampleStream, printable, unreadable_sample
from ..splits import SPLIT_NAMES, split_names
from .records import captions_of, name_columns, questions_of, rename_columns
from .text_files import parse_json


TEXT_SUFFIXES = (".txt", ".text", ".caption", ".cap")

_SEVERAL = ("image", "text")  # kinds of which a sample may have any number of files
_WITHIN_NUMBERS = re.compile(r"(?:[^.]|(?<=[0-9])\.(?=[0-9]))*")
_SPAN = re.compile(r"([0-9.]+)[_-]([0-9.]+)$")
_TAR = re.compile(r"\.(tar|tar\.gz|tgz)$", re.IGNORECASE)
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_MOST_SHARDS = 10**6
_LONGEST_HEADER = 2**20  # bytes of a header with a long name or further fields, which tarfile reads at once


def is_shard_pattern(name: str) -> bool:
    """Whether a string names tar shards: all of its parts, which "::" separates, end in .tar, .tar.gz or .tgz."""
    return not os.path.isdir(name) and all(_TAR.search(part) for part in name.split("::"))


def expand_shards(shards: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str]:
    """The shards that match a pattern or a list of patterns, in order.

    `{000..123}` counts, with leading zeros where the bounds have them; `{a,b}` lists; several patterns are separated by
    "::". On local paths `*`, `?` and `[...]` match existing files.

    Raises:
        ValueError: a local file is absent, nothing matches, or a URL is neither http(s) nor hf.
    """
    if isinstance(shards, (str, os.PathLike)):
        shards = os.fspath(shards).split("::")
    found = []
    for name in itertools.chain.from_iterable(_braces(os.fspath(pattern)) for pattern in shards):
        if scheme := _ADDRESS.match(name):
            if scheme[1].lower() not in ("http", "https", "hf"):
                raise ValueError(f"{name} cannot be read: shards must be local files or http(s) or hf URLs.")
            found.append(name)
        elif os.path.isfile(name):
            found.append(name)
        else:
            matches = sorted(path for path in glob.glob(name) if os.path.isfile(path))
            if not matches:
                raise ValueError(f"there is no shard {name}.")
            found += matches
        if len(found) > _MOST_SHARDS:
            raise ValueError(f"there are more than {_MOST_SHARDS:,} shards, which must be a mistake.")
    if not found:
        raise ValueError("there are no shards.")
    return found


def shards_in_folder(folder: str | os.PathLike[str], split: str | None = None) -> list[str]:
    """The tar shards of a split in a folder: those with its name in theirs, such as "train-000.tar".

    If no file name has the name of any split, all shards belong to it.

    Raises:
        ValueError: the file names have other splits only.
    """
    shards = sorted(os.path.join(folder, name) for name in os.listdir(folder) if _TAR.search(name))
    words = {shard: splits_in_name(shard) for shard in shards}
    found = sorted(set().union(*words.values()))
    if split is None or not found:
        return shards
    chosen = [shard for shard in shards if words[shard] & set(split_names(split))]
    if not chosen:
        raise ValueError(f"{folder} has shards of the splits {', '.join(found)}: choose one of them, not {split!r}.")
    return chosen


def splits_in_name(path: str) -> set[str]:
    """The usual names of splits that are words of a file name."""
    return set(re.split(r"[^a-z]+", os.path.basename(path).lower())) & set(SPLIT_NAMES)


def _braces(pattern: str) -> Iterator[str]:
    match = re.search(r"\{([^{}]*)\}", pattern)
    if match is None:
        yield pattern
        return
    if bounds := re.fullmatch(r"(\d+)\.\.(\d+)", match[1]):
        width = len(bounds[1]) if bounds[1].startswith("0") else 0
        choices: Iterable[str] = (f"{n:0{width}d}" for n in range(int(bounds[1]), int(bounds[2]) + 1))
    else:
        choices = match[1].split(",")
    for choice in choices:
        yield from _braces(pattern[: match.start()] + choice + pattern[match.end() :])


class ShardStream(SampleStream):
    """The samples of tar shards.

    The members of a sample are consecutive and have the same name up to the first dot. This name is the id of the sample,
    unless its JSON has one. Dots within numbers belong to the name, as in `clip_1.0_2.0.mp4` (`sample_name`). The suffix
    determines the kind of a member: a video (mp4, webm, mkv, ...), one or several images (jpg, png, webp, ...: the frames, by
    the numbers in their names), audio (wav, flac, mp3, ...), captions (txt, one per line), or `json` with `captions`,
    `qa` and so on as in a row of metadata (`records`). Without an audio file, the audio track of the video is used; images
    of a sample that has a video are ignored. A second video, audio or JSON file makes a sample unreadable, and the error
    names it. All other members are ignored; nothing is written to disk, no link is followed, and nothing is ever unpickled.

    If there are at least as many shards as partitions, each partition reads its own shards; otherwise each reads all
    shards and takes every n-th sample. Shards and samples are shuffled by seed and epoch.

    A shard that is absent or ends early, invalid JSON and a sample that is too large become a sample whose id has the
    reason and whose media raise `MediaError`, so that it counts as a failure. Reading continues with the next sample, or
    with the next shard if the tar file itself is damaged. Samples before the damage are returned; the incomplete sample
    at the end of a damaged shard is left out.

    Args:
        shards: patterns, see `expand_shards`.
        shuffle_buffer: number of samples that are shuffled at a time; 0: shards and samples stay in order.
        max_buffer_bytes: maximum size of the media in this buffer.
        max_sample_bytes: the largest sample that is accepted.
        timeout: seconds to wait for a connection and for each block of a download.
        columns: for other names in the JSON of samples: field (`records.KEYS`) -> name.
    """

    def __init__(
        self,
        shards: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        shuffle_buffer: int = 1000,
        max_buffer_bytes: int = 2**28,
        max_sample_bytes: int = 2**28,
        timeout: float = 60.0,
        columns: Mapping[str, str | Sequence[str] | None] | None = None,
    ):
        self.named_columns = name_columns(columns)
        self.shards = expand_shards(shards)
        self.shuffle_buffer = shuffle_buffer
        self.max_buffer_bytes = max_buffer_bytes
        self.max_sample_bytes = max_sample_bytes
        self.timeout = timeout

    @property
    def column_names(self) -> list[str]:
        """Suffixes of the files of the first sample, and the names in its JSON."""
        try:
            with _open(self.shards[0], self.timeout) as file:
                _, members = next(itertools.groupby(_members(file, self.shards[0]), key=lambda member: member.key))
                return [name for member in members for name in _names_in(member)]
        except Exception:  # unknown for a damaged file; reading it reports the error
            return []

    def samples(self, partition: int, partitions: int, epoch: int, seed: int) -> Iterator[Sample]:
        shards = list(self.shards)
        if self.shuffle_buffer:
            random.Random(f"shards {seed} {epoch}").shuffle(shards)
        whole = len(shards) >= partitions
        if whole:
            shards = shards[partition::partitions]
        numbers = itertools.count()

        def is_mine() -> bool:
            return whole or next(numbers) % partitions == partition

        found = itertools.chain.from_iterable(self._read(shard, is_mine) for shard in shards)
        return self._shuffled(found, random.Random(f"samples {seed} {epoch} {partition}"))

    def _shuffled(self, samples: Iterator[tuple[Sample, int]], rng: random.Random) -> Iterator[Sample]:
        """Samples in random order, each with its size in bytes, through a buffer of bounded size."""
        buffer: list[tuple[Sample, int]] = []
        held = 0
        for sample, size in samples:
            buffer.append((sample, size))
            held += size
            while len(buffer) > self.shuffle_buffer or (held > self.max_buffer_bytes and len(buffer) > 1):
                place = rng.randrange(len(buffer))
                buffer[place], buffer[-1] = buffer[-1], buffer[place]
                given, freed = buffer.pop()
                held -= freed
                yield given
        rng.shuffle(buffer)
        yield from (sample for sample, _ in buffer)

    def _read(self, shard: str, is_mine: Callable[[], bool]) -> Iterator[tuple[Sample, int]]:
        """The samples of a shard for which `is_mine` is true, and their sizes; others are skipped."""
        try:
            with _open(shard, self.timeout) as file:
                for key, members in itertools.groupby(_members(file, shard), key=lambda member: member.key):
                    if is_mine():
                        yield self._sample(key, members)
        except Exception as error:  # a damaged tar file may raise any exception
            if is_mine():
                yield unreadable_sample(f"{shard} (cannot be read to its end: {reason(error)})"), 0

    def _sample(self, key: str, members: Iterator["_Member"]) -> tuple[Sample, int]:
        kept: list[tuple[_Member, bytes]] = []
        size = 0
        for member in members:
            size += member.size
            if size <= self.max_sample_bytes:
                kept.append((member, member.read()))
        if size > self.max_sample_bytes:
            return unreadable_sample(f"{key} (larger than the limit of {self.max_sample_bytes:,} bytes)"), 0
        try:
            return _sample_of_members(key, kept, self.named_columns), size
        except ValueError as error:
            return unreadable_sample(f"{key} (its annotations cannot be used: {error})"), 0


def _sample_of_members(
    key: str, members: list[tuple["_Member", bytes]], columns: Mapping[str, Sequence[str]]
) -> Sample:
    """A sample from the contents of its files.

    Raises:
        ValueError: two files of a kind that must be unique, a text that is not UTF-8, invalid JSON, or annotations of an
            invalid form.
    """
    record: dict[str, Any] = {}
    captions: list[str] = []
    media: dict[str, list[Any]] = {"video": [], "image": [], "audio": []}
    _check_kinds(members)
    for member, data in sorted(members, key=lambda item: natural_key(item[0].name)):
        if member.kind == "json":
            record = parse_json(data, member.name)
            if not isinstance(record, dict):
                raise ValueError(f"{member.name}: JSON must be an object")
            record = rename_columns(record, columns)
        elif member.kind == "text":
            try:
                captions += data.decode("utf-8-sig").splitlines()
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{member.name} is not text in UTF-8: {error.reason} at byte {error.start}"
                ) from error
        else:
            media[member.kind].append(data)
    video = next(iter(media["video"]), None)
    if video is None and media["image"]:
        video = media["image"] if len(media["image"]) > 1 else media["image"][0]
    name = record.get("id")
    return Sample(
        id=key if name is None else str(name),
        video=video,
        audio=next(iter([*media["audio"], *media["video"]]), None),
        captions=captions_of(record) or captions_of({"captions": captions}),
        questions=questions_of(record),
    )


def _names_in(member: "_Member") -> list[str]:
    """The names in the JSON of a member, or the suffix of another member."""
    content = parse_json(member.read(), member.name) if member.kind == "json" else None
    return list(content) if isinstance(content, dict) else [member.name.rpartition(".")[2]]


def _check_kinds(members: list[tuple["_Member", bytes]]) -> None:
    """Rejects files that would replace each other, or that look like several samples with the same name."""
    first: dict[str, str] = {}
    for member, _ in members:
        if member.sparse:
            raise ValueError(f"{member.name} is a sparse file")
        slot = member.name if member.kind in _SEVERAL else member.kind
        if slot in first:
            raise ValueError(f"{member.name} is a second {member.kind} file after {first[slot]}")
        first[slot] = member.name
    numbered = [
        {member.field.rpartition(".")[0] for member, _ in members if member.kind == kind} - {""} for kind in _SEVERAL
    ]
    if both := sorted(set.intersection(*numbered)):
        raise ValueError(f"images and texts are both numbered {both[0]}, as if each were a sample: rename them")


def sample_name(stem: str, kind: str, current: str | None = None) -> str:
    """The name of the sample of a file.

    It ends at the first dot that is not within a number: `clip_1.0_2.0` for `clip_1.0_2.0.mp4` and `7` for `7.left.mp4`.
    A sample may have several images and texts. A number at the end of their names counts them, as in `7.1.jpg` and
    `7.2.jpg`, unless it is the end of a time span: `clip_1.0_2.0.jpg`, `film_00.01.51.926-00.01.54.129.jpg`.

    Args:
        stem: the file's name up to its last dot.
        current: the sample of the previous file; a text that may belong to it does.
    """
    name = cast(re.Match[str], _WITHIN_NUMBERS.match(stem))[0]  # it may be empty
    before, dot, _ = name.rpartition(".")
    if kind not in _SEVERAL or name != stem or not dot or name == current:
        return name
    span = _SPAN.search(name)
    if span is not None and span[1].count(".") == span[2].count("."):
        return name
    return before if kind == "image" or before == current else name


def _kind(name: str) -> str | None:
    """Kind of a file by its suffix; None for files that are ignored."""
    suffix = PurePath(name).suffix.lower()
    if suffix == ".json":
        return "json"
    return "text" if suffix in TEXT_SUFFIXES else media_kind(name)


# ---------------------------------------------------------------------------------------------------------------------
# Tar files as streams
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Member:
    """A file in a tar shard. It can be read only before the next one is requested.

    `key` is its sample's name, `field` what follows that in its own name.
    """

    key: str
    field: str
    name: str
    kind: str
    size: int
    sparse: bool
    read: Callable[[], bytes]


class _Header(tarfile.TarInfo):
    """A header without damage. `tarfile` treats a damaged or missing header as the end of the archive, and reads long names
    and extra fields of any length at once.
    """

    @classmethod
    def frombuf(cls, *args: Any, **kwargs: Any) -> "_Header":
        header = super().frombuf(*args, **kwargs)
        if header.size < 0 or (header.size > _LONGEST_HEADER and header.type not in tarfile.REGULAR_TYPES):
            raise tarfile.ReadError(f"a header states a size of {header.size} bytes")
        return header

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Header":
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # typeshed lacks it
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"it is cut off or damaged ({error})") from error

    def _proc_gnusparse_00(self, next: "_Header", *map_of_holes: Any) -> None:
        """Sparse files are rejected later, so their map is not read."""
        next.sparse = []  # type: ignore[assignment]  # typeshed says bytes; it is a list of pairs

    _proc_gnusparse_01 = _proc_gnusparse_10 = _proc_gnusparse_00


def _members(file: BinaryIO, shard: str) -> Iterator[_Member]:
    mode: Any = "r|gz" if shard.lower().endswith("gz") else "r|"
    current = None
    stream: Any = _EndingFile(file)
    archive: Any
    with tarfile.open(fileobj=stream, mode=mode, tarinfo=_Header) as archive:
        for header in archive:
            archive.members = []  # otherwise the list would grow with every file
            path = printable(header.name.removeprefix("./"))
            folder, _, name = path.rpartition("/")
            stem, _, _ = name.rpartition(".")
            kind = _kind(name)
            if header.isreg() and stem and not stem.startswith(".") and kind is not None:
                current = sample_name(stem, kind, current)
                read = functools.partial(_read_member, archive, header)
                field = name[len(current) + 1 :]
                key = f"{folder}/{current}" if folder else current
                yield _Member(key, field, name, kind, header.size, header.issparse(), read)


class _EndingFile:
    """A stream of bytes that raises an error if it is read repeatedly after its end.

    `tarfile` skips what a header states, however many bytes that are, and looks for the end of some headers without
    noticing that there is no more data. It reads once or twice after the end of an undamaged archive.
    """

    def __init__(self, file: BinaryIO):
        self.file = file
        self.empty = 0

    def read(self, size: int) -> bytes:
        data = self.file.read(size)
        self.empty = 0 if data else self.empty + 1
        if self.empty > 3:
            raise EOFError("it ends before the size that a header states")
        return data


def _read_member(archive: tarfile.TarFile, header: tarfile.TarInfo) -> bytes:
    if header.issparse():
        return b""
    with cast(IO[bytes], archive.extractfile(header)) as file:  # it is a regular file
        return file.read()


@contextlib.contextmanager
def _open(shard: str, timeout: float) -> Iterator[BinaryIO]:
    """A shard as a stream of bytes."""
    scheme = _ADDRESS.match(shard)
    if scheme is None:
        with open(shard, "rb") as file:
            yield file
    elif scheme[1].lower() == "hf":
        import fsspec

        with fsspec.open(shard, "rb") as file:
            yield file
    else:
        with contextlib.closing(download(shard, timeout)) as chunks:
            yield cast(BinaryIO, _Chunks(chunks))


class _Chunks:
    """Blocks of a download as a file object for `tarfile`, which accepts blocks of any size."""

    def __init__(self, chunks: Iterator[bytes]):
        self.chunks = chunks

    def read(self, size: int) -> bytes:
        return next(self.chunks, b"")
