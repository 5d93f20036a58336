# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The zip files in which the 2023 checkpoints are downloaded, of which only what is converted is unpacked."""

import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from .options import ConversionError, listing


_STEP = re.compile(r"(?P<run>(?:.*/)?)ckpt/model_step_(?P<step>\d+)\.(?:pt|safetensors)")
_MOST_PACKED = 100  # weights hardly become smaller; a file of zeros becomes 1,000 times smaller


def is_archive(file: Path) -> bool:
    """Whether a file is a zip of other files. PyTorch's own files are zips, too, with a `data.pkl`."""
    if not file.is_file() or not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return not any(PurePosixPath(name).name == "data.pkl" for name in archive.namelist())


@contextmanager
def unpacked_run(file: Path, member: str | None, near: Path) -> Iterator[Path]:
    """The checkpoint of a zip and its `log/hps.json`, unpacked as the 2023 program has them until the block ends.

    Args:
        file: the zip, as it was downloaded.
        member: name of the checkpoint in it, with or without its folders. By default that of the latest step.
        near: the checkpoint is unpacked on the disk of this folder, whether or not the folder exists.

    Raises:
        ConversionError: there is no such checkpoint in it, there are several, it cannot be unpacked, or the disk is full.
    """
    while not near.is_dir():
        near = near.parent
    try:
        with (
            zipfile.ZipFile(file) as archive,
            tempfile.TemporaryDirectory(dir=near, prefix=".unpacked-", ignore_cleanup_errors=True) as folder,
        ):
            checkpoint = _choose(archive, file, member)
            unpacked = Path(folder, "ckpt", PurePosixPath(checkpoint.filename).name)
            _unpack(archive, checkpoint, unpacked)
            options = _options_of(archive, checkpoint.filename)
            if options is not None:
                _unpack(archive, options, Path(folder, "log", "hps.json"))
            yield unpacked
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
        raise ConversionError(f"{file} cannot be unpacked, it may be cut off: {error}.") from error


def _choose(archive: zipfile.ZipFile, file: Path, member: str | None) -> zipfile.ZipInfo:
    """The checkpoint to convert."""
    found = {
        entry.filename: entry
        for entry in archive.infolist()
        if PurePosixPath(entry.filename).suffix in (".pt", ".safetensors")
    }
    if member is not None:
        chosen = [name for name in found if name == member or PurePosixPath(name).name == member]
    else:
        steps = {name: step for name in found if (step := _STEP.fullmatch(name))}
        runs = {step["run"] for step in steps.values()}
        chosen = list(found) if not steps else list(steps)
        if len(runs) == 1:
            chosen = [max(steps, key=lambda name: int(steps[name]["step"]))]
    if len(chosen) != 1:
        has = f"has {listing(found, 10)}" if found else "has no .pt or .safetensors file"
        wanted = "" if member is None else f" and not one {member!r}"
        raise ConversionError(f"The archive {file} {has}{wanted}" + (": name one (--member)." if found else "."))
    return found[chosen[0]]


def _options_of(archive: zipfile.ZipFile, checkpoint: str) -> zipfile.ZipInfo | None:
    """The options of a checkpoint's run, or of the only run; None where there are none."""
    found = {entry.filename: entry for entry in archive.infolist() if PurePosixPath(entry.filename).name == "hps.json"}
    for folder in PurePosixPath(checkpoint).parents:
        if (name := str(folder / "log" / "hps.json")) in found:
            return found[name]
    return next(iter(found.values())) if len(found) == 1 else None


def _unpack(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, to: Path) -> None:
    if entry.flag_bits & 1:
        raise ConversionError(f"{entry.filename} in {archive.filename} is encrypted: unpack it, and convert the file.")
    if entry.file_size > _MOST_PACKED * max(entry.compress_size, 1):
        raise ConversionError(
            f"{entry.filename} in {archive.filename} has {entry.compress_size / 1e6:,.1f} MB and would unpack to "
            f"{entry.file_size / 1e6:,.1f} MB: it is no checkpoint."
        )
    to.parent.mkdir(exist_ok=True)
    if entry.file_size > shutil.disk_usage(to.parent).free:
        raise ConversionError(
            f"{entry.filename} needs {entry.file_size / 1e6:,.0f} MB beside the output folder while it is converted: free "
            "some space, or choose another folder."
        )
    try:
        with archive.open(entry) as packed, to.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked, 2**20)
    except OSError as error:
        raise ConversionError(
            f"{entry.filename} cannot be unpacked beside the output folder: {error.strerror}."
        ) from error


__all__ = ["is_archive", "unpacked_run"]
